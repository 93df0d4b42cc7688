use core::ptr::{null, null_mut};

use super::*;

/// The packets of `core/tests/vectors/noise.txt`, by name.
fn vector(name: &str) -> Vec<u8> {
    let file = include_str!("../../../core/tests/vectors/noise.txt");
    let (_, found) = file.split_once(&format!("vector: {name}\n")).unwrap();
    let found = found.split("\nvector: ").next().unwrap();
    let (_, digits) = found.split_once("bytes: ").unwrap();
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

const LEAF_RANDOM: [u8; KEY_BYTES] = [0x11; KEY_BYTES];
const HUB_RANDOM: [u8; KEY_BYTES] = [0x22; KEY_BYTES];
const PSK: [u8; KEY_BYTES] = [0x33; KEY_BYTES];
const LEAF_KEY: [u8; KEY_BYTES] = [0x44; KEY_BYTES];
const HUB_KEY: [u8; KEY_BYTES] = [0x55; KEY_BYTES];

/// One end, in memory of its own.
struct Line {
    _memory: Vec<u8>,
    end: *mut replcore_noise,
}

impl Line {
    fn new(end: u32) -> Self {
        let mut memory = vec![0xaa; replcore_noise_memory() + 1];
        let (mut made, len) = (null_mut(), memory.len() - 1);
        // SAFETY: live values, and the length is that of the memory behind its first byte.
        let done =
            unsafe { replcore_noise_init(memory.as_mut_ptr().add(1).cast(), len, end, &mut made) };
        assert_eq!(done, replcore_status::Ok);
        Self { _memory: memory, end: made }
    }

    fn take(&self, packet: &mut [u8]) -> replcore_noise_taken {
        let mut taken = replcore_noise_taken::default();
        // SAFETY: live values.
        let done =
            unsafe { replcore_noise_take(self.end, packet.as_mut_ptr(), packet.len(), &mut taken) };
        assert_eq!(done, replcore_status::Ok);
        taken
    }

    fn start(&self, identity: &replcore_noise_identity) -> Result<Vec<u8>, replcore_status> {
        let (mut out, mut written) = (vec![0; HANDSHAKE_BYTES_MAX], 0);
        let to = (out.as_mut_ptr(), out.len());
        // SAFETY: live values.
        let done = unsafe {
            let random = LEAF_RANDOM.as_ptr();
            replcore_noise_start(self.end, identity, random, to.0, to.1, &mut written)
        };
        out.truncate(written);
        if done == replcore_status::Ok { Ok(out) } else { Err(done) }
    }

    fn answer_shared(&self, start: &[u8], key: &[u8; 32]) -> Result<Vec<u8>, replcore_status> {
        let (mut out, mut written) = (vec![0; HANDSHAKE_BYTES_MAX], 0);
        let to = (out.as_mut_ptr(), out.len());
        // SAFETY: live values.
        let done = unsafe {
            let (key, random) = (key.as_ptr(), HUB_RANDOM.as_ptr());
            let of = (start.as_ptr(), start.len());
            replcore_noise_answer_shared(
                self.end,
                of.0,
                of.1,
                key,
                random,
                to.0,
                to.1,
                &mut written,
            )
        };
        out.truncate(written);
        if done == replcore_status::Ok { Ok(out) } else { Err(done) }
    }

    fn answer_pinned(&self, start: &[u8], key: &[u8; 32]) -> Result<Vec<u8>, replcore_status> {
        let (mut out, mut written, mut shown) = (vec![0; HANDSHAKE_BYTES_MAX], 0, [0; KEY_BYTES]);
        let to = (out.as_mut_ptr(), out.len());
        // SAFETY: live values.
        let done = unsafe {
            let (key, random) = (key.as_ptr(), HUB_RANDOM.as_ptr());
            let (of, shown) = ((start.as_ptr(), start.len()), shown.as_mut_ptr());
            replcore_noise_answer_pinned(
                self.end,
                of.0,
                of.1,
                key,
                random,
                to.0,
                to.1,
                &mut written,
                shown,
            )
        };
        assert!(done != replcore_status::Ok || shown == public(&LEAF_KEY));
        out.truncate(written);
        if done == replcore_status::Ok { Ok(out) } else { Err(done) }
    }

    fn answered(&self) -> replcore_status {
        // SAFETY: made above.
        unsafe { replcore_noise_answered(self.end) }
    }

    fn seal(&self, frame: &[u8]) -> Result<Vec<u8>, replcore_status> {
        let (mut packet, mut written) = (vec![0; frame.len() + OVERHEAD_BYTES], 0);
        packet[HEAD_BYTES..][..frame.len()].copy_from_slice(frame);
        let to = (packet.as_mut_ptr(), packet.len());
        // SAFETY: live values.
        let done = unsafe { replcore_noise_seal(self.end, to.0, to.1, frame.len(), &mut written) };
        if done == replcore_status::Ok { Ok(packet) } else { Err(done) }
    }

    fn refused(&self) -> u32 {
        // SAFETY: made above.
        unsafe { replcore_noise_refused(self.end) }
    }

    fn forget(&self) {
        // SAFETY: made above.
        assert_eq!(unsafe { replcore_noise_forget(self.end) }, replcore_status::Ok);
    }
}

fn public(private: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    // SAFETY: live values of 32 bytes.
    let done = unsafe { replcore_noise_public(private.as_ptr(), public.as_mut_ptr()) };
    assert_eq!(done, replcore_status::Ok);
    public
}

fn identity() -> replcore_noise_identity {
    replcore_noise_identity {
        struct_size: size_of::<replcore_noise_identity>() as u32,
        reserved: 0,
        name: null(),
        shared_key: null(),
        own_key: null(),
        hub_key: null(),
    }
}

fn shared() -> replcore_noise_identity {
    replcore_noise_identity { name: c"till-7".as_ptr(), shared_key: PSK.as_ptr(), ..identity() }
}

/// A leaf and a hub with a link, and what the hub heard first of it.
fn link() -> (Line, Line) {
    let (leaf, hub) = (Line::new(REPLCORE_NOISE_BEGINS), Line::new(REPLCORE_NOISE_ANSWERS));
    let mut start = leaf.start(&shared()).unwrap();
    assert_eq!(hub.take(&mut start).kind, REPLCORE_NOISE_START);
    let mut answer = hub.answer_shared(&start, &PSK).unwrap();
    assert_eq!(hub.answered(), replcore_status::Ok);
    assert_eq!(leaf.take(&mut answer).kind, REPLCORE_NOISE_UP);
    let mut packet = leaf.seal(b"first").unwrap();
    let taken = hub.take(&mut packet);
    assert_eq!((taken.kind, taken.at, taken.len), (REPLCORE_NOISE_FIRST, HEAD_BYTES, 5));
    assert_eq!(&packet[taken.at..][..taken.len], b"first");
    (leaf, hub)
}

#[test]
fn both_ends_speak_what_the_vectors_of_the_core_say() {
    let hub_public = public(&HUB_KEY);
    let pinned = replcore_noise_identity {
        own_key: LEAF_KEY.as_ptr(),
        hub_key: hub_public.as_ptr(),
        ..identity()
    };
    for (kind, identity) in [("shared key", shared()), ("pinned key", pinned)] {
        let (leaf, hub) = (Line::new(REPLCORE_NOISE_BEGINS), Line::new(REPLCORE_NOISE_ANSWERS));
        let mut start = leaf.start(&identity).unwrap();
        assert_eq!(start, vector(&format!("start, {kind}")));
        let taken = hub.take(&mut start);
        assert_eq!(taken.kind, REPLCORE_NOISE_START);
        let mut answer = if taken.len == 0 {
            hub.answer_pinned(&start, &HUB_KEY).unwrap()
        } else {
            assert_eq!(&start[taken.at..][..taken.len], b"till-7");
            hub.answer_shared(&start, &PSK).unwrap()
        };
        assert_eq!(answer, vector(&format!("answer, {kind}")));
        assert_eq!(hub.seal(b"too early"), Err(replcore_status::Refused));
        assert_eq!(hub.answered(), replcore_status::Ok);
        assert_eq!(hub.answered(), replcore_status::Refused, "once");
        assert_eq!(leaf.take(&mut answer).kind, REPLCORE_NOISE_UP);
        let frame: Vec<u8> = (0..20).collect();
        for counter in 0..2 {
            for (name, from, to) in [("leaf", &leaf, &hub), ("hub", &hub, &leaf)] {
                let mut packet = from.seal(&frame).unwrap();
                assert_eq!(packet, vector(&format!("frame {counter} of the {name}, {kind}")));
                let taken = to.take(&mut packet);
                let first = counter == 0 && name == "leaf";
                let kind = if first { REPLCORE_NOISE_FIRST } else { REPLCORE_NOISE_FRAME };
                assert_eq!((taken.kind, &packet[taken.at..][..taken.len]), (kind, &frame[..]));
            }
        }
    }
}

#[test]
fn what_is_replayed_changed_or_not_due_is_refused_and_costs_nothing() {
    let (leaf, hub) = link();
    let refused = |taken: replcore_noise_taken| (taken.kind, taken.reason);
    let packet = leaf.seal(b"frame").unwrap();
    let mut changed = packet.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(refused(hub.take(&mut changed)), (REPLCORE_NOISE_REFUSED, REPLCORE_NOISE_FORGED));
    assert_eq!(hub.take(&mut packet.clone()).kind, REPLCORE_NOISE_FRAME);
    let again = refused(hub.take(&mut packet.clone()));
    assert_eq!(again, (REPLCORE_NOISE_REFUSED, REPLCORE_NOISE_REPLAYED));
    let nothing = (REPLCORE_NOISE_REFUSED, REPLCORE_NOISE_MALFORMED);
    assert_eq!(refused(hub.take(&mut [])), nothing);
    assert_eq!(refused(leaf.take(&mut [9, 9])), nothing);
    assert_eq!((hub.refused(), leaf.refused()), (3, 1));
    let mut start = leaf.start(&shared()).unwrap();
    let replayed = (REPLCORE_NOISE_REFUSED, REPLCORE_NOISE_REPLAYED);
    assert_eq!(refused(hub.take(&mut start)), replayed, "the random bytes are those of before");

    // A hub that has forgotten tells the leaf.
    let (leaf, hub) = link();
    hub.forget();
    assert_eq!(hub.take(&mut leaf.seal(b"frame").unwrap()).kind, REPLCORE_NOISE_UNKNOWN);
    assert_eq!(leaf.take(&mut [REPLCORE_NOISE_UNKNOWN_PACKET]).kind, REPLCORE_NOISE_LOST);
    leaf.forget();
    assert_eq!(leaf.seal(b"frame"), Err(replcore_status::Refused));
}

#[test]
fn another_key_a_wrong_end_and_memory_that_is_not_one_are_told() {
    let (leaf, hub) = (Line::new(REPLCORE_NOISE_BEGINS), Line::new(REPLCORE_NOISE_ANSWERS));
    let start = leaf.start(&shared()).unwrap();
    assert_eq!(hub.answer_shared(&start, &LEAF_KEY), Err(replcore_status::Forged));
    assert_eq!(hub.answer_pinned(&start, &HUB_KEY), Err(replcore_status::Malformed));
    assert_eq!(hub.answered(), replcore_status::Refused);
    assert_eq!(hub.start(&shared()), Err(replcore_status::Kind));
    assert_eq!(leaf.answer_shared(&start, &PSK), Err(replcore_status::Kind));
    // An answer by another key: the handshake has failed.
    let mut forged = hub.answer_shared(&start, &PSK).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(leaf.take(&mut forged).reason, REPLCORE_NOISE_FORGED);
    let mut answer = hub.answer_shared(&start, &PSK).unwrap();
    assert_eq!(leaf.take(&mut answer).kind, REPLCORE_NOISE_REFUSED);

    let both = replcore_noise_identity { own_key: PSK.as_ptr(), ..shared() };
    assert_eq!(leaf.start(&both), Err(replcore_status::Value));
    assert_eq!(leaf.start(&identity()), Err(replcore_status::Value));
    let nameless = replcore_noise_identity { name: null(), ..shared() };
    assert_eq!(leaf.start(&nameless), Err(replcore_status::Name));
    // SAFETY: live values, lengths that are theirs, and pointers that may be null.
    unsafe {
        let (mut short, mut written) = ([0; HANDSHAKE_BYTES_MAX - 1], 0);
        let (out, cap) = (short.as_mut_ptr(), short.len());
        let (identity, random) = (shared(), LEAF_RANDOM.as_ptr());
        let start = |random, out, cap, written| {
            replcore_noise_start(leaf.end, &identity, random, out, cap, written)
        };
        assert_eq!(start(random, out, cap, &mut written), replcore_status::Short);
        assert_eq!(start(null(), out, cap, &mut written), replcore_status::Null);
        assert_eq!(replcore_noise_seal(hub.end, out, 20, 0, &mut written), replcore_status::Short);
        let huge = usize::MAX;
        assert_eq!(
            replcore_noise_seal(hub.end, out, cap, huge, &mut written),
            replcore_status::Short
        );
        assert_eq!(written, 0);
        let mut made = null_mut();
        let few = replcore_noise_init(out.cast(), cap, REPLCORE_NOISE_BEGINS, &mut made);
        assert_eq!(few, replcore_status::Short);
        let wrong = replcore_noise_init(out.cast(), cap, 3, &mut made);
        assert_eq!(wrong, replcore_status::Value);
        assert!(made.is_null());
        let machine = leaf.end.cast::<super::super::replcore_machine>();
        assert_eq!(super::super::replcore_handle_timeout(machine, 0), replcore_status::Kind);
        assert_eq!(replcore_noise_forget(null_mut()), replcore_status::Null);
    }
}
