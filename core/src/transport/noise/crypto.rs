//! Keys, and X25519 for the handshakes.

use core::fmt;

use clatter::KeyPair;
use clatter::bytearray::{ByteArray, SensitiveByteArray};
use clatter::error::DhResult;
use clatter::rand_core::{self, CryptoRng, RngCore};
use clatter::traits::{CryptoComponent, Dh, Rng};
use x25519_dalek::{StaticSecret, X25519_BASEPOINT_BYTES};

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

/// A key that nobody else may have: a pre-shared key, or the private half of a pair. Cleared from memory
/// when it is dropped; `Debug` does not show it.
#[derive(Clone)]
pub struct SecretKey(SensitiveByteArray<[u8; KEY_BYTES]>);

impl SecretKey {
    /// A key of these bytes, which have to be random.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(SensitiveByteArray::new(bytes))
    }

    /// The bytes, to be kept in a safe place.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The public half, where this is the private half of a pair.
    pub fn public(&self) -> PublicKey {
        PublicKey(X25519::pubkey(&self.0))
    }

    /// The pair.
    pub(super) fn pair(&self) -> KeyPair<[u8; KEY_BYTES], SensitiveByteArray<[u8; KEY_BYTES]>> {
        KeyPair::new(self.public().0, self.0.clone())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for SecretKey {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "SecretKey");
    }
}

/// The half of a pair that others know an end by. No secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PublicKey(pub [u8; KEY_BYTES]);

/// X25519 without a table and without a heap.
#[derive(Clone)]
pub(super) struct X25519;

impl CryptoComponent for X25519 {
    fn name() -> &'static str {
        "25519"
    }
}

impl Dh for X25519 {
    type PrivateKey = SensitiveByteArray<[u8; KEY_BYTES]>;
    type PubKey = [u8; KEY_BYTES];
    type Output = SensitiveByteArray<[u8; KEY_BYTES]>;

    fn genkey_rng<R: Rng>(rng: &mut R) -> DhResult<KeyPair<Self::PubKey, Self::PrivateKey>> {
        let mut secret = Self::PrivateKey::new_zero();
        rng.fill_bytes(secret.as_mut());
        Ok(KeyPair::new(Self::pubkey(&secret), secret))
    }

    fn pubkey(secret: &Self::PrivateKey) -> Self::PubKey {
        // By the ladder that `dh` takes: the crate's own way is faster only with its table, and without it
        // 1.9 KB of code and 0.9 KB of stack more.
        let base = X25519_BASEPOINT_BYTES.into();
        StaticSecret::from(**secret).diffie_hellman(&base).to_bytes()
    }

    fn dh(secret: &Self::PrivateKey, public: &Self::PubKey) -> DhResult<Self::Output> {
        let shared = StaticSecret::from(**secret).diffie_hellman(&(*public).into());
        Ok(SensitiveByteArray::new(shared.to_bytes()))
    }
}

/// Stands where the handshakes want a source of randomness. Ephemeral keys are handed in, so it is
/// never asked.
#[derive(Clone, Default)]
pub(super) struct NoRandomness;

const NEVER: &str = "every key of a handshake is handed in";

impl RngCore for NoRandomness {
    fn next_u32(&mut self) -> u32 {
        unreachable!("{NEVER}")
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("{NEVER}")
    }

    fn fill_bytes(&mut self, _: &mut [u8]) {
        unreachable!("{NEVER}")
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), rand_core::Error> {
        unreachable!("{NEVER}")
    }
}

impl CryptoRng for NoRandomness {}
