//! Links without TLS whose packets only the two ends can read.

mod end;

use core::ffi::{c_char, c_void};

use replcore_core::stream::Name;
use replcore_core::transport::noise::{
    HANDSHAKE_BYTES_MAX, HEAD_BYTES, Identity, KEY_BYTES, Kind, OVERHEAD_BYTES, PublicKey,
    SecretKey, Start,
};

use self::end::{Answers, Begins, End};

use super::check::{bytes, bytes_mut, reference_mut, sized, text};
use super::machine::{Memory, bytes_of_machine, part};
use super::replcore_status;
use super::status::status;

/// Bytes of every key, and of what a handshake takes of randomness.
pub const REPLCORE_NOISE_KEY_BYTES: usize = 32;
/// The longest packet of a handshake.
pub const REPLCORE_NOISE_HANDSHAKE_BYTES_MAX: usize = 114;
/// Bytes of a packet before its frame.
pub const REPLCORE_NOISE_HEAD_BYTES: usize = 5;
/// Bytes that a packet has beside its frame.
pub const REPLCORE_NOISE_OVERHEAD_BYTES: usize = 21;
/// The packet, of this one byte, that has the other end begin anew.
pub const REPLCORE_NOISE_UNKNOWN_PACKET: u8 = 5;
/// The end that begins: the leaf.
pub const REPLCORE_NOISE_BEGINS: u32 = 1;
/// The end that answers: the hub.
pub const REPLCORE_NOISE_ANSWERS: u32 = 2;

/// The packet is passed over, for `reason`; it was counted, or is left over from before the start packet.
pub const REPLCORE_NOISE_REFUSED: u32 = 0;
/// BEGINS: the answer is there, and the link is up: tell the machine.
pub const REPLCORE_NOISE_UP: u32 = 1;
/// A frame of the link.
pub const REPLCORE_NOISE_FRAME: u32 = 2;
/// BEGINS: the other end does not know the link any more: it is down. Tell the machine, and begin anew
/// when it dials.
pub const REPLCORE_NOISE_LOST: u32 = 3;
/// ANSWERS: somebody begins: find the key, and answer.
pub const REPLCORE_NOISE_START: u32 = 4;
/// ANSWERS: who was answered last has shown that it is there: the link before, if there was one, is down,
/// and its link is up, with this first frame.
pub const REPLCORE_NOISE_FIRST: u32 = 5;
/// ANSWERS: a packet of a link that is not known here. The packet REPLCORE_NOISE_UNKNOWN_PACKET, once a line, would
/// have the other end begin anew.
pub const REPLCORE_NOISE_UNKNOWN: u32 = 6;

/// Why a packet is refused: it is not one that is due, or of another version.
pub const REPLCORE_NOISE_MALFORMED: u32 = 1;
/// Why a packet is refused: it was made with another key, or changed under way. When it is an answer, the
/// handshake has failed: begin anew when the machine dials.
pub const REPLCORE_NOISE_FORGED: u32 = 2;
/// Why a packet is refused: it was there before, or a later one was.
pub const REPLCORE_NOISE_REPLAYED: u32 = 3;

const _: () = assert!(REPLCORE_NOISE_KEY_BYTES == KEY_BYTES);
const _: () = assert!(REPLCORE_NOISE_HANDSHAKE_BYTES_MAX == HANDSHAKE_BYTES_MAX);
const _: () = assert!(REPLCORE_NOISE_HEAD_BYTES == HEAD_BYTES);
const _: () = assert!(REPLCORE_NOISE_OVERHEAD_BYTES == OVERHEAD_BYTES);
const _: () = assert!(REPLCORE_NOISE_UNKNOWN_PACKET == Kind::Unknown.byte());

/// One end of a line without TLS, whose packets stand in place of frames under COBS, on a serial line or
/// over TCP. Memory, threads and moving as for a machine; it has no orders, and the link is a
/// REPLCORE_TRANSPORT_DATAGRAM.
///
///   the end that begins                          the end that answers
///   replcore_noise_start       --- packet --->   replcore_noise_take: START, with a name or none
///                                                replcore_noise_answer_shared or _pinned
///   replcore_noise_take: UP    <-- packet ----   replcore_noise_answered
///   replcore_noise_seal        --- packet --->   replcore_noise_take: FIRST, with the frame
///   replcore_noise_take: FRAME <-- packet ----   replcore_noise_seal
///
/// Begin when the machine dials, and tell it of a link when it is up; its identity is the name that the key
/// is for. Without an answer within 5 s the dial has failed. An answer is work, and start packets that were
/// heard can be sent again by anybody: pass over those that come within 50 ms of one. Random bytes have to come from a source that
/// nobody can guess, fresh for each handshake: those that were used before give the link away. Call
/// replcore_noise_forget when a link is down, and before the memory is used for something else: it clears
/// the keys of the link. Those of the program are not kept.
pub struct replcore_noise {
    _opaque: [u8; 0],
}

/// How the end that begins shows who it is, and knows the other: by `name` and `shared_key`, or by
/// `own_key` and `hub_key`, with NULL for the others. Keys have REPLCORE_NOISE_KEY_BYTES bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_noise_identity {
    /// sizeof(replcore_noise_identity).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The own name; it travels in the clear.
    pub name: *const c_char,
    /// The key that only this end and the hub have.
    pub shared_key: *const u8,
    /// The private half of the own pair, whose public half the hub has listed.
    pub own_key: *const u8,
    /// The hub's public half.
    pub hub_key: *const u8,
}

/// What came of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_noise_taken {
    /// One of REPLCORE_NOISE_REFUSED, _UP, _FRAME, _LOST, _START, _FIRST, _UNKNOWN.
    pub kind: u32,
    /// REFUSED: one of REPLCORE_NOISE_MALFORMED, _FORGED, _REPLAYED.
    pub reason: u32,
    /// FRAME, FIRST: where in the packet the frame stands. START: where the name stands.
    pub at: usize,
    /// Bytes of it. START: 0 for one that shows a public key, and no name.
    pub len: usize,
}

const NOISE: u64 = u64::from_le_bytes(*b"replnois");

/// The end of a line behind a pointer of the program.
///
/// # Safety
/// As for [`part`].
unsafe fn end<'a>(line: *mut replcore_noise) -> Result<&'a mut End, replcore_status> {
    // SAFETY: as the caller promises; ends of lines alone are placed with this magic.
    unsafe { part(line.cast(), NOISE) }
}

/// # Safety
/// As for [`part`].
unsafe fn answers<'a>(line: *mut replcore_noise) -> Result<&'a mut Answers, replcore_status> {
    // SAFETY: as the caller promises.
    match unsafe { end(line) }? {
        End::Answers(answers) => Ok(answers),
        End::Begins(_) => Err(replcore_status::Kind),
    }
}

/// The bytes of a key, or random ones.
///
/// # Safety
/// A `data` that is not null has 32 readable bytes.
unsafe fn key(data: *const u8) -> Result<[u8; KEY_BYTES], replcore_status> {
    // SAFETY: as the caller promises.
    unsafe { bytes(data, KEY_BYTES) }?.try_into().map_err(|_| replcore_status::Null)
}

/// Room for a packet of a handshake.
///
/// # Safety
/// As for [`bytes_mut`].
unsafe fn room<'a>(out: *mut u8, cap: usize) -> Result<&'a mut [u8], replcore_status> {
    // SAFETY: as the caller promises.
    let out = unsafe { bytes_mut(out, cap) }?;
    if out.len() < HANDSHAKE_BYTES_MAX { Err(replcore_status::Short) } else { Ok(out) }
}

/// Bytes that one end of a line needs, wherever they begin.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_noise_memory() -> usize {
    bytes_of_machine::<End>()
}

/// Makes one end of a line in `memory`, without a link; `*made` gets it. `end` is REPLCORE_NOISE_BEGINS or
/// REPLCORE_NOISE_ANSWERS, else VALUE.
///
/// # Safety
/// `memory` has `len` bytes that nothing else uses while the line is used; `made` is writable and
/// not inside `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_init(
    memory: *mut c_void,
    len: usize,
    end: u32,
    made: *mut *mut replcore_noise,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let made = unsafe { reference_mut(made) }?;
        let end = match end {
            REPLCORE_NOISE_BEGINS => End::Begins(Begins::new()),
            REPLCORE_NOISE_ANSWERS => End::Answers(Answers::default()),
            _ => return Err(replcore_status::Value),
        };
        *made = Memory::new(memory, len)?.place(NOISE, end)?.cast();
        Ok(())
    })())
}

/// Writes the public half of the pair with this private half to `public_key`. Any 32 bytes that nobody can
/// guess are a private half.
///
/// # Safety
/// `private_key` has 32 bytes, `public_key` has room for 32; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_public(
    private_key: *const u8,
    public_key: *mut u8,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (private, public) = unsafe { (key(private_key)?, bytes_mut(public_key, KEY_BYTES)?) };
        public.copy_from_slice(&SecretKey::new(private).public().0);
        Ok(())
    })())
}

/// BEGINS: forgets the link, if there is one, and writes the start packet of a new one to `out`; `*written`
/// gets its length. `random` are 32 bytes as said above, `cap` is REPLCORE_NOISE_HANDSHAKE_BYTES_MAX at least, else
/// SHORT. VALUE when `identity` has not the keys of one way, and of one alone.
///
/// # Safety
/// `line` is one end of a line; `identity` and `random` are readable, `out` has `cap` bytes, `written` is
/// writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_start(
    line: *mut replcore_noise,
    identity: *const replcore_noise_identity,
    random: *const u8,
    out: *mut u8,
    cap: usize,
    written: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let End::Begins(begins) = unsafe { end(line) }? else {
            return Err(replcore_status::Kind);
        };
        // SAFETY: as the caller promises.
        let identity = unsafe { self::identity(identity) }?;
        // SAFETY: as the caller promises.
        let (random, out) = unsafe { (key(random)?, room(out, cap)?) };
        // SAFETY: as the caller promises.
        let written = unsafe { reference_mut(written) }?;
        *written = begins.start(&identity, random, out);
        Ok(())
    })())
}

/// # Safety
/// As the comments of the structure ask.
unsafe fn identity(given: *const replcore_noise_identity) -> Result<Identity, replcore_status> {
    // SAFETY: as the caller promises.
    let given = unsafe { sized(given) }?;
    let pair = (given.own_key.is_null(), given.hub_key.is_null());
    match (given.shared_key.is_null(), pair) {
        (false, (true, true)) => {
            // SAFETY: as the caller promises.
            let (name, key) = unsafe { (text(given.name)?, key(given.shared_key)?) };
            let name = Name::new(name).map_err(|_| replcore_status::Name)?;
            Ok(Identity::Shared { name, key: SecretKey::new(key) })
        }
        (true, (false, false)) => {
            // SAFETY: as the caller promises.
            let (own, hub) = unsafe { (key(given.own_key)?, key(given.hub_key)?) };
            Ok(Identity::Pinned { own: SecretKey::new(own), hub: PublicKey(hub) })
        }
        _ => Err(replcore_status::Value),
    }
}

/// Takes a packet of `len` bytes, in which a frame is made readable; `*taken` says what came of it. What is
/// in a packet that was refused is of no use.
///
/// # Safety
/// `line` is one end of a line, `packet` has `len` bytes, `taken` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_take(
    line: *mut replcore_noise,
    packet: *mut u8,
    len: usize,
    taken: *mut replcore_noise_taken,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (end, packet) = unsafe { (end(line)?, bytes_mut(packet, len)?) };
        // SAFETY: as the caller promises.
        let taken = unsafe { reference_mut(taken) }?;
        *taken = end.take(packet);
        Ok(())
    })())
}

/// ANSWERS: makes the answer to the start packet that was just taken, of one who has given a name: writes it
/// to `out`; `*written` gets its length. Send it after replcore_noise_answered. `shared_key` is the key of
/// that name, `random` are 32 bytes as said above, `cap` is REPLCORE_NOISE_HANDSHAKE_BYTES_MAX at least, else
/// SHORT. FORGED: the other end has another key. MALFORMED: the packet is none of this kind.
///
/// # Safety
/// `line` is one end of a line, `start` has `len` bytes, `shared_key` and `random` have 32, `out` has `cap`,
/// `written` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_answer_shared(
    line: *mut replcore_noise,
    start: *const u8,
    len: usize,
    shared_key: *const u8,
    random: *const u8,
    out: *mut u8,
    cap: usize,
    written: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (answers, packet) = unsafe { (answers(line)?, bytes(start, len)?) };
        // SAFETY: as the caller promises.
        let (shared_key, random) = unsafe { (key(shared_key)?, key(random)?) };
        // SAFETY: as the caller promises.
        let (out, written) = unsafe { (room(out, cap)?, reference_mut(written)?) };
        let start = Start::parse(packet)?;
        let (channel, length) = start.answer_shared(&SecretKey::new(shared_key), random, out)?;
        answers.made(channel, packet);
        *written = length;
        Ok(())
    })())
}

/// ANSWERS: the same of one who shows a public key, which `shown` gets: 32 bytes. Send the answer after
/// replcore_noise_answered, when it is a key that is known here, and not otherwise. `own_key` is the private
/// half of the own pair. FORGED: the other end knows another public key of this one.
///
/// # Safety
/// `line` is one end of a line, `start` has `len` bytes, `own_key` and `random` have 32, `out` has `cap`,
/// `written` and 32 bytes of `shown` are writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_answer_pinned(
    line: *mut replcore_noise,
    start: *const u8,
    len: usize,
    own_key: *const u8,
    random: *const u8,
    out: *mut u8,
    cap: usize,
    written: *mut usize,
    shown: *mut u8,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (answers, packet) = unsafe { (answers(line)?, bytes(start, len)?) };
        // SAFETY: as the caller promises.
        let (own_key, random) = unsafe { (key(own_key)?, key(random)?) };
        // SAFETY: as the caller promises.
        let (out, written) = unsafe { (room(out, cap)?, reference_mut(written)?) };
        // SAFETY: as the caller promises.
        let shown = unsafe { bytes_mut(shown, KEY_BYTES) }?;
        let start = Start::parse(packet)?;
        let (channel, who, length) = start.answer_pinned(&SecretKey::new(own_key), random, out)?;
        answers.made(channel, packet);
        shown.copy_from_slice(&who.0);
        *written = length;
        Ok(())
    })())
}

/// ANSWERS: the answer that was made last counts: its link is up once the other end is heard of. REFUSED
/// when none was made since.
///
/// # Safety
/// `line` is one end of a line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_answered(line: *mut replcore_noise) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { answers(line) }?.answered()
    })())
}

/// ANSWERS: nobody here knows the key of a start packet: counts it as refused, and forgets the answer, if one
/// was made.
///
/// # Safety
/// `line` is one end of a line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_refuse(line: *mut replcore_noise) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { answers(line) }?.refuse();
        Ok(())
    })())
}

/// Makes a packet of the frame of `frame_len` bytes that stands in `packet` behind REPLCORE_NOISE_HEAD_BYTES;
/// `*written` gets its length, REPLCORE_NOISE_OVERHEAD_BYTES more than the frame's. SHORT when `cap` is less. REFUSED,
/// and the frame stays readable, when there is no link, or when it has sent 2^32 packets: end it then.
///
/// # Safety
/// `line` is one end of a line, `packet` has `cap` bytes, `written` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_seal(
    line: *mut replcore_noise,
    packet: *mut u8,
    cap: usize,
    frame_len: usize,
    written: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (end, packet) = unsafe { (end(line)?, bytes_mut(packet, cap)?) };
        // SAFETY: as the caller promises.
        let written = unsafe { reference_mut(written) }?;
        if packet.len().checked_sub(OVERHEAD_BYTES).is_none_or(|room| room < frame_len) {
            return Err(replcore_status::Short);
        }
        *written = end.seal(packet, frame_len).ok_or(replcore_status::Refused)?;
        Ok(())
    })())
}

/// Packets that were refused and counted since the line was made; 0 for what is none.
///
/// # Safety
/// `line` is one end of a line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_refused(line: *mut replcore_noise) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { end(line) }.map_or(0, |end| end.refused())
}

/// Forgets the link and clears its keys. The end of ANSWERS counts refused packets from 0 again.
///
/// # Safety
/// `line` is one end of a line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_noise_forget(line: *mut replcore_noise) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { end(line) }?.forget();
        Ok(())
    })())
}

#[cfg(test)]
mod tests;
