//! The key, and randomness for handshakes.

use replcore::stream::Name;
use replcore::transport::noise::{Identity, KEY_BYTES, SecretKey};
use semihosting::fs::File;
use semihosting::io::Read as _;

use crate::board::Place;

/// For the example: a device has a key of its own, which is written to it when it is made.
const KEY: [u8; KEY_BYTES] = *b"not a key for anything but tests";

static IDENTITY: Place<Identity> = Place::empty();

/// Who this leaf is to its hub.
pub fn identity(name: Name) -> &'static Identity {
    // SAFETY: called once, by `make_session`.
    unsafe { IDENTITY.put(|| Identity::Shared { name, key: SecretKey::new(KEY) }) }
}

/// 32 bytes that nobody can guess. A board has a source of such bytes; these, in an emulator, have not, and
/// ask the machine that the emulator runs on.
pub fn random() -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    let read = File::open(c"/dev/urandom").and_then(|mut file| file.read(&mut bytes));
    match read {
        Ok(KEY_BYTES) => bytes,
        // Without them there are no links.
        _ => panic!("no randomness"),
    }
}
