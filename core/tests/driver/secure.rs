//! A device on a secured line: a gate with the hub's keys stands between line and hub.

use core::cell::RefCell;
use std::rc::Rc;

use replcore::driver::{Framing, Session, Turn, blocking};
use replcore::rng::Rng;
use replcore::stream::Name;
use replcore::time::Instant;
use replcore::transport::cobs;
use replcore::transport::noise::{
    HANDSHAKE_BYTES_MAX, HEAD_BYTES, Identity, KEY_BYTES, Kind, OVERHEAD_BYTES, Responder,
    SecretKey, Took,
};

use crate::device::{Line, Memory};
use crate::hub::Hub;
use crate::{Buffers, FRAME_BYTES, RECORD_BYTES, body, leaf};

/// The packets in `bytes`.
fn packets(decoder: &mut cobs::Decoder, bytes: &[u8], buf: &mut [u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let taken = decoder.take(rest, buf);
        rest = &rest[taken.bytes..];
        found.extend(taken.frame.map(|len| buf[..len].to_vec()));
    }
    found
}

fn encode(out: &mut Vec<u8>, content: &[u8]) {
    let mut packet = vec![0; cobs::encoded_bytes_max(content.len())];
    let len = cobs::encode(content, &mut packet).unwrap();
    out.extend_from_slice(&packet[..len]);
}

/// The hub's end of the handshakes.
struct Gate {
    key: SecretKey,
    rng: Rng,
    responder: Responder,
    from_device: (cobs::Decoder, Vec<u8>),
    from_hub: (cobs::Decoder, Vec<u8>),
    links: u32,
    /// Everything that was on the line, both ways.
    seen: Vec<u8>,
}

impl Gate {
    fn new(key: u8) -> Self {
        let from = || (cobs::Decoder::new(), vec![0; 4096]);
        Self {
            key: SecretKey::new([key; KEY_BYTES]),
            rng: Rng::new(9),
            responder: Responder::default(),
            from_device: from(),
            from_hub: from(),
            links: 0,
            seen: Vec::new(),
        }
    }

    /// Frames for the hub, as it has them on a line without keys, and what is to be answered at once.
    fn inward(&mut self, line: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.seen.extend_from_slice(line);
        let (mut frames, mut answers) = (Vec::new(), Vec::new());
        for mut packet in packets(&mut self.from_device.0, line, &mut self.from_device.1) {
            match self.responder.take(&mut packet) {
                Took::First(frame) => {
                    self.links += 1;
                    encode(&mut frames, &packet[frame]);
                }
                Took::Frame(frame) => encode(&mut frames, &packet[frame]),
                Took::Unknown => encode(&mut answers, &[Kind::Unknown.byte()]),
                Took::Start(start) => {
                    assert_eq!(start.name(), Some(Name::new("mcu-1").unwrap()));
                    let mut out = [0; HANDSHAKE_BYTES_MAX];
                    let random = core::array::from_fn(|_| self.rng.next_u64() as u8);
                    if let Ok((channel, len)) = start.answer_shared(&self.key, random, &mut out) {
                        self.responder.answered(&start, channel);
                        encode(&mut answers, &out[..len]);
                    }
                }
                Took::Refused(_) => {}
            }
        }
        (frames, answers)
    }

    fn outward(&mut self, frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in packets(&mut self.from_hub.0, frames, &mut self.from_hub.1) {
            let mut packet = vec![0; frame.len() + OVERHEAD_BYTES];
            packet[HEAD_BYTES..][..frame.len()].copy_from_slice(&frame);
            if self.responder.seal(&mut packet, frame.len()).is_some() {
                encode(&mut out, &packet);
            }
        }
        self.seen.extend_from_slice(&out);
        out
    }
}

struct World {
    now_ms: u64,
    line: Line,
    gate: Gate,
    hub: Hub,
    store: Memory,
    session: Rc<RefCell<Session<'static>>>,
    rng: Rng,
    flipped_one_in: u64,
    /// One packet of the device in so many comes twice.
    repeated_one_in: u64,
}

impl World {
    fn new(key_at_hub: u8) -> Self {
        let name = Name::new("mcu-1").unwrap();
        let key = SecretKey::new([7; KEY_BYTES]);
        let identity: &'static Identity = Box::leak(Box::new(Identity::Shared { name, key }));
        let bytes = FRAME_BYTES + OVERHEAD_BYTES;
        let buffers = Buffers {
            incoming: vec![0; cobs::decode_buffer_bytes(bytes)].leak(),
            outgoing: vec![0; bytes].leak(),
            packet: vec![0; cobs::encoded_bytes_max(bytes) + 1].leak(),
            record: vec![0; RECORD_BYTES].leak(),
        };
        let session = Session::new(Box::leak(Box::new(leaf())), Framing::Cobs, buffers).unwrap();
        Self {
            now_ms: 0,
            line: Line::default(),
            gate: Gate::new(key_at_hub),
            hub: Hub::new(Framing::Cobs),
            store: Memory::new(name.node_id()),
            session: Rc::new(RefCell::new(session.secured(identity).unwrap())),
            rng: Rng::new(8),
            flipped_one_in: 0,
            repeated_one_in: 0,
        }
    }

    fn turn(&mut self) {
        let now = Instant::from_millis(self.now_ms);
        let session = &mut *self.session.borrow_mut();
        loop {
            match blocking::turn(session, &mut self.line, &mut self.store, || now).unwrap() {
                Turn::Wait(Some(wake)) if wake <= now => {}
                Turn::Wait(_) => return,
                Turn::Connect => {
                    session.secure(now, core::array::from_fn(|_| self.rng.next_u64() as u8));
                }
                Turn::Disconnect => session.disconnected(now),
                Turn::Halted(reason) => panic!("{reason}"),
            }
        }
    }

    fn disturbed(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for byte in &mut bytes {
            if self.flipped_one_in > 0 && self.rng.between(1, self.flipped_one_in) == 1 {
                *byte ^= 1 << self.rng.between(0, 7);
            }
        }
        if self.repeated_one_in > 0 && self.rng.between(1, self.repeated_one_in) == 1 {
            bytes.extend_from_within(..);
        }
        bytes
    }

    fn step(&mut self) {
        self.now_ms += 1;
        self.turn();
        let to_hub = core::mem::take(&mut self.line.0.borrow_mut().to_hub);
        let to_hub = self.disturbed(to_hub);
        let (frames, mut to_device) = self.gate.inward(&to_hub);
        self.hub.turn(Instant::from_millis(self.now_ms), &frames);
        let from_hub = core::mem::take(&mut self.hub.output);
        to_device.extend(self.gate.outward(&from_hub));
        let to_device = self.disturbed(to_device);
        self.line.0.borrow_mut().to_device.extend(to_device);
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: {} came, {} links", self.hub.received().len(), self.gate.links);
    }

    /// Posts both ways while `disturb` has its way, and looks what came.
    fn exchange(&mut self, disturb: impl Fn(&mut Self, usize)) {
        const COUNT: usize = 60;
        for number in 0..COUNT {
            self.store.post(&body(number));
            self.hub.post(Instant::from_millis(self.now_ms), &body(number + 1));
            disturb(self, number);
            self.step();
        }
        self.until("records up", |world| world.hub.received().len() == COUNT);
        self.until("records down", |world| world.hub.released == COUNT as u64);
        let expected: Vec<Vec<u8>> = (0..COUNT).map(body).collect();
        assert_eq!(self.hub.received(), expected);
        let expected: Vec<Vec<u8>> = (1..=COUNT).map(body).collect();
        assert_eq!(self.store.0.borrow().taken, expected);
    }
}

/// HS-33: what goes over a secured line is encrypted, both ways.
#[test]
fn records_pass_a_secured_line_and_nobody_beside_reads_them() {
    let mut world = World::new(7);
    world.store.post(&[0xaa; 40]);
    world.hub.post(Instant::ZERO, &[0xbb; 40]);
    world.until("both", |world| {
        world.hub.received().len() == 1 && world.store.0.borrow().taken.len() == 1
    });
    assert_eq!(world.gate.links, 1);
    for secret in [&[0xaa; 8], &[0xbb; 8], &b"central\0"[..7], &[7; 8]] {
        let seen = &world.gate.seen;
        assert!(!seen.windows(secret.len()).any(|part| part == secret), "{secret:?}");
    }
}

#[test]
fn packets_that_come_twice_are_refused_and_cost_nothing() {
    let mut world = World::new(7);
    world.repeated_one_in = 5;
    world.exchange(|_, _| {});
    assert!(world.session.borrow().packets_refused() > 0);
    assert!(world.gate.responder.refused() > 0);
    assert_eq!(world.gate.links, 1);
}

#[test]
fn nothing_is_lost_or_doubled_on_a_bad_secured_line() {
    let mut world = World::new(7);
    (world.flipped_one_in, world.repeated_one_in) = (3_000, 20);
    world.exchange(|_, _| {});
}

#[test]
fn a_hub_that_has_forgotten_the_keys_is_greeted_anew() {
    let mut world = World::new(7);
    world.exchange(|world, number| {
        if number % 20 == 19 {
            world.gate.responder = Responder::default();
        }
    });
    assert!(world.gate.links >= 3, "{}", world.gate.links);
}

/// HS-33: an end without the key gets nothing.
#[test]
fn an_end_with_another_key_is_told_nothing_and_asked_again_later() {
    let mut world = World::new(8);
    world.store.post(&[0xaa; 40]);
    for _ in 0..20_000 {
        world.step();
    }
    assert_eq!((world.gate.links, world.hub.received().len()), (0, 0));
    // It waits 5 s for an answer, and a moment before it begins again: start packets, and nothing else.
    assert!(world.gate.seen.len() < 5 * 70, "{}", world.gate.seen.len());
    world.gate.key = SecretKey::new([7; KEY_BYTES]);
    world.until("the record", |world| world.hub.received().len() == 1);
}
