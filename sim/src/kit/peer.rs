//! The other end of a link in the conformance kit: says what a peer might say, in an order that
//! gets somewhere, and now and then what no peer should.

use std::collections::BTreeMap;

use super::member_peer::{self, Heard};
use replcore::contract::SkipReason;
use replcore::rng::Rng;
use replcore::stream::{Cursor, Name, Position, QueueKey};
use replcore::wire::{
    self, Ack, Bye, ByeReason, Control, FEATURE_STANDBY, Frame, Hello, Lease, Level, Open,
    Redirect, Refuse, RefuseReason, Register, Reject, Resume, Role, Skip, Subscribe, TermLease,
};

/// Bytes of the record at a position, as the kit imagines queues.
pub(crate) fn record_bytes(position: u64) -> u32 {
    60 + (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u32
}

/// A stream that the machine sends.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    queue: QueueKey,
    epoch: u32,
    first: u64,
    sent: Cursor,
    bytes: u64,
    acked: u64,
    round: u8,
    resumed: bool,
}

/// A stream that the peer sends.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    resume: Option<Resume>,
    next: Cursor,
    credit: u64,
    sent_bytes: u64,
    opened: bool,
}

/// A peer on one link.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) name: Name,
    pub(crate) frame_bytes_max: u32,
    instance: u64,
    /// In which a hub leads that has standbys; 0 for one without, and for others.
    term: u64,
    greeted: bool,
    registered: bool,
    registers_heard: u32,
    pings_heard: Vec<u32>,
    /// What a member has heard.
    heard: Heard,
    incoming: BTreeMap<u8, Incoming>,
    outgoing: [Outgoing; 3],
    /// The furthest that was acknowledged of each queue of the machine.
    pub(crate) acknowledged: BTreeMap<QueueKey, u64>,
}

impl Peer {
    pub(crate) fn new(role: Role, name: Name, term: u64, rng: &mut Rng) -> Self {
        let outgoing = Outgoing {
            resume: None,
            next: Cursor::default(),
            credit: 0,
            sent_bytes: 0,
            opened: false,
        };
        Self {
            role,
            name,
            frame_bytes_max: if rng.between(0, 3) == 0 { wire::FRAME_BYTES_MIN } else { 65_536 },
            instance: 7 + name.node_id().0 % 3,
            term: if role == Role::Hub { term } else { 0 },
            greeted: false,
            registered: false,
            registers_heard: 0,
            pings_heard: Vec::new(),
            heard: Heard::default(),
            incoming: BTreeMap::new(),
            outgoing: [outgoing; 3],
            acknowledged: BTreeMap::new(),
        }
    }

    /// The machine has sent a control frame.
    pub(crate) fn heard(&mut self, stream: u8, control: &Control<'_>) {
        match control {
            Control::Register(_) => self.registers_heard += 1,
            Control::Ping(number) => self.pings_heard.push(*number),
            Control::Open(open) => {
                let Ok(name) = Name::from_bytes(open.queue.0) else { return };
                let queue = QueueKey { queue: name.queue_id(), class: open.class };
                self.incoming.insert(
                    stream,
                    Incoming {
                        queue,
                        epoch: open.epoch,
                        first: open.first,
                        sent: Cursor::at(Position(open.first)),
                        bytes: 0,
                        acked: open.first,
                        round: 0,
                        resumed: false,
                    },
                );
            }
            Control::Resume(resume) => {
                if let Some(out) = self.outgoing.get_mut(usize::from(stream)) {
                    out.next =
                        Cursor { position: Position(resume.position), offset: resume.offset };
                    out.credit = u64::from(resume.credit_bytes);
                    out.sent_bytes = 0;
                    out.resume = Some(*resume);
                }
            }
            Control::Ack(ack) => {
                if let Some(out) = self.outgoing.get_mut(usize::from(stream)) {
                    out.credit = out.credit.max(ack.credit_bytes);
                }
            }
            other if self.role == Role::Member => self.heard.hear(other),
            _ => {}
        }
    }

    /// The machine has had records sent.
    pub(crate) fn heard_records(&mut self, stream: u8, next: Cursor, bytes: u32) {
        if let Some(incoming) = self.incoming.get_mut(&stream) {
            incoming.sent = next;
            incoming.bytes += u64::from(bytes);
        }
    }

    /// Adds one frame to `out`.
    pub(crate) fn say(&mut self, rng: &mut Rng, hostile: bool, out: &mut Vec<u8>) {
        if hostile && rng.between(0, 19) == 0 {
            return self.say_nonsense(rng, out);
        }
        if !self.greeted {
            self.greeted = true;
            if self.term > 0 && rng.between(0, 9) == 0 {
                // It stands by, and says no more that is listened to.
                return put(out, 0, &Control::Redirect(Redirect { address: "127.0.0.1:1".into() }));
            }
            self.greet(rng, out);
            if self.role == Role::Member {
                put(out, 0, &Control::Cluster(member_peer::cluster(rng, hostile)));
            }
            return;
        }
        if self.role == Role::Member {
            return self.heard.say(self.name, rng, hostile, &mut |control| put(out, 0, control));
        }
        if self.role == Role::Leaf && (!self.registered || rng.between(0, 30) == 0) {
            self.registered = true;
            let register = Register {
                lease_ms: rng.between(1_000, 1_000_000) as u32,
                address: "".into(),
                queues: ["".into()],
            };
            return put(out, 0, &Control::Register(register));
        }
        if self.registers_heard > 0 && rng.between(0, 3) > 0 {
            self.registers_heard -= 1;
            let lease_ms = rng.between(1_000, 900_000) as u32;
            return put(out, 0, &self.lease(lease_ms, rng));
        }
        match rng.between(0, 9) {
            0..=3 => self.answer(rng, hostile, out),
            4..=8 => self.send(rng, hostile, out),
            _ => match self.pings_heard.pop() {
                Some(number) => put(out, 0, &Control::Pong(number)),
                None => put(out, 0, &Control::Ping(rng.next_u64() as u32)),
            },
        }
    }

    fn lease(&self, lease_ms: u32, rng: &mut Rng) -> Control<'static> {
        if self.term == 0 {
            return Control::Lease(Lease { lease_ms });
        }
        // Now and then one whose term is over.
        let over = u64::from(rng.between(0, 9) == 0);
        Control::TermLease(TermLease { lease_ms, term: self.term - over })
    }

    fn greet(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        let hello = Hello {
            magic: *b"RPLC",
            version_min: wire::VERSION_MIN,
            version_max: wire::VERSION_MAX,
            role: self.role,
            features: if self.term > 0 { FEATURE_STANDBY } else { 0 },
            name: self.name.as_str().into(),
            instance: self.instance,
            epoch: 1 << 16,
            frame_bytes_max: self.frame_bytes_max,
            keepalive_ms: rng.between(1_000, 60_000) as u32,
            session: self.instance as u32,
        };
        put(out, 0, &Control::Hello(hello));
    }

    /// Answers to a stream that the machine sends.
    fn answer(&mut self, rng: &mut Rng, hostile: bool, out: &mut Vec<u8>) {
        let count = self.incoming.len() as u64;
        let Some((&stream, of)) = self.incoming.iter_mut().nth(rng.between(0, count) as usize)
        else {
            return put(out, 0, &Control::Ping(1));
        };
        if !of.resumed || rng.between(0, 19) == 0 {
            of.resumed = true;
            of.round = of.round.wrapping_add(1);
            let position = of.acked.max(of.first);
            of.sent = Cursor::at(Position(position));
            of.bytes = 0;
            // Now and then it has its place from another life of the machine's log.
            let other = u32::from(rng.between(0, 9) == 0);
            let resume = Resume {
                epoch: of.epoch ^ other,
                position,
                offset: 0,
                credit_bytes: rng.between(0, 4_000) as u32,
                round: of.round,
            };
            self.acknowledged.insert(of.queue, position);
            return put(out, stream, &Control::Resume(resume));
        }
        let mut position = rng.between(of.acked, of.sent.position.0);
        if hostile && rng.between(0, 29) == 0 {
            position += rng.between(1, 1_000);
        } else {
            of.acked = position;
            let acknowledged = self.acknowledged.entry(of.queue).or_insert(0);
            *acknowledged = position.max(*acknowledged);
        }
        let credit_bytes = of.bytes + rng.between(0, 4_000);
        let ack = Ack { position, level: Level::Synced, credit_bytes, round: of.round };
        put(out, stream, &Control::Ack(ack));
    }

    /// Goes on with a stream of its own.
    fn send(&mut self, rng: &mut Rng, hostile: bool, out: &mut Vec<u8>) {
        let stream = rng.between(0, self.outgoing.len() as u64 - 1) as u8;
        let of = &mut self.outgoing[usize::from(stream)];
        if !of.opened {
            of.opened = true;
            let open = Open {
                queue: if self.role == Role::Hub { "leaf-1".into() } else { "up".into() },
                class: stream + 1,
                epoch: 1 << 16,
                first: rng.between(0, 3),
                placed: None,
            };
            return put(out, stream, &Control::Open(open));
        }
        let Some(resume) = of.resume else {
            return put(out, 0, &Control::Ping(2));
        };
        if rng.between(0, 19) == 0 {
            let first = of.next.position.0;
            let skip = Skip { first, next: first + rng.between(1, 9), reason: SkipReason::Dropped };
            of.next = Cursor::at(Position(skip.next));
            return put(out, stream, &Control::Skip(skip));
        }
        let room = of.credit.saturating_sub(of.sent_bytes);
        let room = if hostile && rng.between(0, 29) == 0 { 1_000 } else { room };
        let room = room.min(u64::from(wire::FRAME_BYTES_MIN) - 50);
        let (records, bytes) = some_records(of.next, u64::MAX, rng.between(0, room) as u32);
        if bytes == 0 {
            return put(out, 0, &Control::Ping(3));
        }
        let mut records = wire::Records { round: resume.round, ..records };
        if hostile && rng.between(0, 29) == 0 {
            records.round = records.round.wrapping_sub(1);
        }
        of.next = records.next();
        of.sent_bytes += u64::from(bytes);
        out.extend_from_slice(&wire::records_header(stream, &records, bytes));
        out.extend(std::iter::repeat_n(0x5a, bytes as usize));
    }

    /// Well-formed frames that make no sense where they are.
    fn say_nonsense(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        let number = if rng.between(0, 3) == 0 { u64::MAX } else { rng.between(0, 20) };
        let short = number.min(u64::from(u32::MAX)) as u32;
        let stream = rng.between(0, 20) as u8;
        let long = "x".repeat(rng.between(0, 70) as usize);
        let control = match rng.between(0, 15) {
            0 => return self.greet(rng, out),
            1 => Control::Refuse(Refuse { reason: RefuseReason::Busy, retry_after_ms: short }),
            2 => Control::Register(Register {
                lease_ms: short,
                address: long.as_str().into(),
                queues: [long.as_str().into()],
            }),
            3 => Control::Lease(Lease { lease_ms: short }),
            4 => Control::Subscribe(Subscribe {
                consumer: long.as_str().into(),
                message_type: "".into(),
                from_start: true,
            }),
            5 => Control::Open(Open {
                queue: long.as_str().into(),
                class: 9,
                epoch: short,
                first: number,
                placed: Some(stream),
            }),
            6 => Control::Resume(Resume {
                epoch: short,
                position: number,
                offset: short,
                credit_bytes: short,
                round: 3,
            }),
            7 => Control::Ack(Ack {
                position: number,
                level: Level::Received,
                credit_bytes: number,
                round: 1,
            }),
            8 => Control::Skip(Skip { first: number, next: 3, reason: SkipReason::Purged }),
            9 => Control::Reject(Reject { position: number }),
            10 => Control::Pong(short),
            11 => Control::Bye(Bye { reason: ByeReason::Done, retry_after_ms: short }),
            12 => Control::TermLease(TermLease { lease_ms: short, term: number }),
            13 => Control::Redirect(Redirect { address: long.as_str().into() }),
            14 => {
                let head = wire::call_header(wire::Call { id: short, reply: true }, 3);
                out.extend_from_slice(&head);
                return out.extend_from_slice(&[1, 2, 3]);
            }
            _ => {
                let start = out.len();
                put(out, stream, &Control::Ping(1));
                let bit = rng.between(0, (out.len() - start) as u64 * 8 - 1) as usize;
                out[start + bit / 8] ^= 1 << (bit % 8);
                return;
            }
        };
        put(out, stream, &control);
    }
}

/// What of a queue's entries before `next` a frame of at most `bytes_max` holds.
pub(crate) fn some_records(first: Cursor, next: u64, bytes_max: u32) -> (wire::Records, u32) {
    let mut records = wire::Records { first, ..wire::Records::default() };
    let (mut at, mut offset, mut bytes) = (first.position.0, first.offset, 0);
    while at < next {
        let left = record_bytes(at).saturating_sub(offset).max(1);
        if bytes + left > bytes_max {
            if records.completed == 0 && bytes_max > 0 && left > bytes_max {
                records.tail_bytes = bytes_max;
                bytes = bytes_max;
            }
            break;
        }
        bytes += left;
        records.completed += 1;
        at += 1;
        offset = 0;
    }
    (records, bytes)
}

fn put(out: &mut Vec<u8>, stream: u8, control: &Control<'_>) {
    let mut buffer = [0; wire::CONTROL_FRAME_BYTES_MAX];
    if let Some(length) = wire::encode_control(stream, control, &mut buffer) {
        debug_assert!(
            !matches!(control, Control::Ping(_))
                || matches!(
                    wire::decode(&buffer[..length], 4096),
                    Ok(Some((Frame::Control { .. }, _)))
                )
        );
        out.extend_from_slice(&buffer[..length]);
    }
}
