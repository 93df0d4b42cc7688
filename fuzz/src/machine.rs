//! A machine under hostile peers, driven by the rules of the contract with a store that is only
//! made up: it answers every order, now or later, in ways the contract allows. The bytes choose
//! what happens next.
//!
//! What is checked is what every driver relies on: a drain ends, frames stay within the credit, no
//! output names a link that is down, bytes are taken whole, `wake` is later than now.

use std::collections::VecDeque;
use std::fmt::Debug;

use replcore::contract::{
    Answer, DialIndex, Failure, Input, LinkId, Machine, Output, Query, SkipReason, StreamIndex,
    Token, Transport,
};
use replcore::log::crc32c;
use replcore::stream::{Cursor, Epoch, NodeId, Position, QueueKey};
use replcore::time::Instant;
use replcore::wire::{
    self, CONTROL_FRAME_BYTES_MAX, Control, FRAME_BYTES_MAX, Frame, Hello, Records, Role,
};

/// Outputs in one drain after which it counts as endless.
const OUTPUTS_MAX: usize = 20_000;
/// Bytes kept for a link that were offered and not taken; more are not read.
const KEPT_BYTES_MAX: usize = 4096;

/// The life of the machine's log at its start.
pub const EPOCH: u32 = 7;

/// The fuzzer's bytes, one decision after the other. Zeros once they are used up.
struct Choices<'a> {
    rest: &'a [u8],
}

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Small numbers mostly, the greatest now and then.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => u64::from(u32::MAX),
            252 => u64::from(self.word()) << 32,
            small => u64::from(small % 16),
        }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = usize::from(self.byte()).min(most).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        bytes.to_vec()
    }
}

#[derive(Default)]
struct FakeLink {
    up: bool,
    datagram: bool,
    credit_bytes: u64,
    /// Offered and not taken.
    kept: Vec<u8>,
    /// The next bytes belong to an order and are not for the machine.
    owed_bytes: u64,
}

/// An order that waits for its completion.
enum Pending {
    Persisted(Token),
    Sent { link: LinkId, stream: StreamIndex, first: Cursor, bytes_max: u32 },
    Taken { link: LinkId, stream: StreamIndex, next: Cursor, bytes: u32 },
    Ask { token: Token, query: Query },
    Dial(DialIndex),
}

struct World<'a, M> {
    machine: M,
    choices: Choices<'a>,
    now: Instant,
    links: Vec<FakeLink>,
    pending: VecDeque<Pending>,
    /// Own queues that were asked for, and how many entries they ever held.
    watched: Vec<(LinkId, StreamIndex, u64)>,
    /// Where the machine expects incoming streams to go on, and the round.
    expected: Vec<(LinkId, u8, Cursor, u8)>,
}

/// Runs one input over a machine with that many links. `command` gives the machine a command of
/// its own now and then, chosen by the byte.
pub fn run<M: Machine>(
    data: &[u8],
    machine: M,
    links: usize,
    mut command: impl FnMut(&mut M, Instant, u8),
) where
    M::Event: Debug + PartialEq,
{
    let links = (0..links).map(|_| FakeLink::default()).collect();
    let mut world = World {
        machine,
        choices: Choices { rest: data },
        now: Instant::from_millis(1_000),
        links,
        pending: VecDeque::new(),
        watched: Vec::new(),
        expected: Vec::new(),
    };
    world.drain();
    while !world.choices.rest.is_empty() {
        match world.choices.byte() % 20 {
            0 => world.link_up(),
            1 => world.link_down(),
            2 => world.raw_bytes(),
            3 | 4 => world.frame(),
            5 => world.hello(),
            6 => world.credit(),
            7 | 8 => world.pass_time(),
            9..=12 => world.complete(),
            13 => world.grow(),
            14..=16 => world.plausible(),
            17 | 18 => world.records_that_fit(),
            _ => {
                let choice = world.choices.byte();
                command(&mut world.machine, world.now, choice);
            }
        }
        world.drain();
    }
}

impl<M: Machine<Event: PartialEq>> World<'_, M> {
    fn any_link(&mut self) -> LinkId {
        let at = usize::from(self.choices.byte()) % self.links.len();
        LinkId(at as u32)
    }

    fn handle(&mut self, input: Input<'_>) {
        assert_eq!(self.machine.handle(self.now, input), 0);
    }

    fn link_up(&mut self) {
        let link = self.any_link();
        let choice = self.choices.byte();
        let dial = self.pending.iter().position(|order| matches!(order, Pending::Dial(_)));
        let dialed = match dial.and_then(|at| self.pending.remove(at)) {
            Some(Pending::Dial(dial)) => Some(dial),
            _ => None,
        };
        let fake = &mut self.links[link.0 as usize];
        if fake.up {
            if let Some(dial) = dialed {
                self.handle(Input::DialFailed { dial });
            }
            return;
        }
        let datagram = choice & 1 != 0;
        *fake = FakeLink { up: true, datagram, credit_bytes: 65_536, ..FakeLink::default() };
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        let identity = (choice & 6 == 6).then_some(NodeId(1));
        self.handle(Input::LinkUp { link, dialed, transport, identity });
        self.handle(Input::Writable { link, bytes: 65_536 });
    }

    fn link_down(&mut self) {
        let link = self.any_link();
        if self.links[link.0 as usize].up {
            self.end_link(link);
        }
    }

    fn end_link(&mut self, link: LinkId) {
        self.links[link.0 as usize] = FakeLink::default();
        self.pending.retain(|order| match order {
            Pending::Sent { link: of, .. } | Pending::Taken { link: of, .. } => *of != link,
            _ => true,
        });
        self.watched.retain(|watch| watch.0 != link);
        self.expected.retain(|place| place.0 != link);
        self.handle(Input::LinkDown { link });
    }

    fn raw_bytes(&mut self) {
        let link = self.any_link();
        let bytes = self.choices.bytes(255);
        self.receive(link, &bytes);
    }

    /// A frame of any type with a right checksum and any payload.
    fn frame(&mut self) {
        let link = self.any_link();
        let number = match self.choices.byte() {
            small @ 0..16 => small,
            other @ (32..36 | 255) => other,
            _ => 32,
        };
        let stream = self.choices.byte() % 10;
        let frame = match number {
            32 => {
                let records = Records {
                    first: Cursor {
                        position: Position(self.choices.number()),
                        offset: self.choices.number() as u32,
                    },
                    completed: self.choices.number() as u32,
                    tail_bytes: self.choices.number() as u32,
                    raw_bytes: self.choices.number() as u32,
                    round: self.choices.byte() % 4,
                };
                let body = self.choices.bytes(64);
                let head = wire::records_header(stream, &records, body.len() as u32);
                [&head[..], &body].concat()
            }
            33 | 34 => {
                let call = wire::Call { id: self.choices.word().into(), reply: number == 34 };
                let body = self.choices.bytes(64);
                [&wire::call_header(call, body.len() as u32)[..], &body].concat()
            }
            _ => {
                let payload = self.choices.bytes(96);
                let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
                frame.extend([number, stream, 0, 0]);
                let crc = crc32c(&[&frame[..], &payload].concat());
                frame.extend(crc.to_le_bytes());
                frame.extend(payload);
                frame
            }
        };
        self.receive(link, &frame);
    }

    /// A control frame that could come from an honest peer, or nearly.
    fn plausible(&mut self) {
        let kind = self.choices.byte() % 8;
        let watched = match self.watched.len() {
            0 => None,
            some => Some(self.watched[usize::from(self.choices.byte()) % some]),
        };
        let (link, stream, end) = match watched {
            Some((link, stream, end)) if kind >= 5 => (link, stream.0, end),
            _ => (self.any_link(), self.choices.byte() % 9, 3),
        };
        let round = self.choices.byte() % 4;
        let position = end.saturating_sub(self.choices.number());
        let names = ["", "a", "b", "hub"];
        let name = names[usize::from(self.choices.byte()) % names.len()];
        let epoch = match self.choices.byte() {
            0..=200 => EPOCH,
            other => EPOCH - 1 + u32::from(other % 3),
        };
        let control = match kind {
            0 => Control::Register(wire::Register {
                lease_ms: self.choices.word().into(),
                address: name.into(),
                queues: [names[usize::from(self.choices.byte()) % names.len()].into()],
            }),
            1 => Control::Lease(wire::Lease { lease_ms: self.choices.word().into() }),
            2 => Control::Subscribe(wire::Subscribe {
                consumer: name.into(),
                message_type: "".into(),
                from_start: round == 0,
            }),
            3 | 4 => {
                let placed = (self.choices.word() & 3 == 0).then_some(round);
                let class = stream % 4;
                Control::Open(wire::Open {
                    queue: name.into(),
                    class,
                    epoch,
                    first: position,
                    placed,
                })
            }
            5 => Control::Resume(wire::Resume {
                epoch,
                position,
                offset: self.choices.number() as u32,
                credit_bytes: self.choices.word().into(),
                round,
            }),
            6 => Control::Ack(wire::Ack {
                position,
                level: if round == 0 { wire::Level::Written } else { wire::Level::Synced },
                credit_bytes: u64::from(self.choices.word()) << 4,
                round,
            }),
            _ => Control::Reject(wire::Reject { position }),
        };
        let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
        let length = wire::encode_control(stream, &control, &mut buf).expect("it fits");
        self.receive(link, &buf[..length]);
    }

    /// Records or a skip that go on where the machine expects it, or nearly.
    fn records_that_fit(&mut self) {
        if self.expected.is_empty() {
            return;
        }
        let at = usize::from(self.choices.byte()) % self.expected.len();
        let (link, stream, first, round) = self.expected[at];
        let choice = self.choices.byte();
        if choice >= 240 {
            let skip = wire::Skip {
                first: first.position.0,
                next: first.position.0.saturating_add(u64::from(choice % 4)),
                reason: SkipReason::Dropped,
            };
            let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
            let length =
                wire::encode_control(stream, &Control::Skip(skip), &mut buf).expect("fits");
            self.expected[at].2 = Cursor::at(Position(skip.next));
            return self.receive(link, &buf[..length]);
        }
        let completed = u32::from(choice % 4);
        let tail_bytes = u32::from(choice / 4 % 3);
        let records = Records { first, completed, tail_bytes, raw_bytes: 0, round };
        let body = self.choices.bytes(48);
        if choice < 230 {
            self.expected[at].2 = records.next();
        }
        let head = wire::records_header(stream, &records, body.len() as u32);
        self.receive(link, &[&head[..], &body].concat());
    }

    /// A greeting that lets the link come to something.
    fn hello(&mut self) {
        let link = self.any_link();
        let choice = self.choices.byte();
        let role = [Role::Hub, Role::Leaf, Role::Client][usize::from(choice) % 3];
        let name = ["hub", "a", "b", "c", "not a name", ""][usize::from(choice / 3) % 6];
        let hello = Hello {
            magic: *b"RPLC",
            version_min: 1,
            version_max: 1 + choice / 128,
            role,
            features: self.choices.byte().into(),
            name: name.into(),
            instance: self.choices.number(),
            epoch: EPOCH,
            frame_bytes_max: self.choices.number() as u32,
            keepalive_ms: 1 + u32::from(self.choices.word()),
            session: self.choices.byte().into(),
        };
        let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
        let length = wire::encode_control(0, &Control::Hello(hello), &mut buf).expect("it fits");
        self.receive(link, &buf[..length]);
    }

    fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        let fake = &mut self.links[link.0 as usize];
        if fake.up && fake.kept.len() + bytes.len() <= KEPT_BYTES_MAX {
            fake.kept.extend(bytes);
            self.offer(link);
        }
    }

    /// Offers all that is kept, after what an order has to take of it.
    fn offer(&mut self, link: LinkId) {
        let fake = &mut self.links[link.0 as usize];
        let owed = (fake.owed_bytes as usize).min(fake.kept.len());
        fake.kept.drain(..owed);
        fake.owed_bytes -= owed as u64;
        if fake.kept.is_empty() || fake.owed_bytes > 0 {
            return;
        }
        let data = fake.kept.clone();
        let taken = self.machine.handle(self.now, Input::Recv { link, data: &data });
        assert!(taken <= data.len(), "took more than there was");
        self.links[link.0 as usize].kept.drain(..taken);
    }

    fn credit(&mut self) {
        let link = self.any_link();
        let bytes = u32::from(self.choices.word());
        let fake = &mut self.links[link.0 as usize];
        if fake.up {
            fake.credit_bytes += u64::from(bytes);
            self.handle(Input::Writable { link, bytes });
        }
    }

    fn pass_time(&mut self) {
        let ms = u64::from(self.choices.word());
        self.now = self.now.plus_millis(ms * ms / 64);
        self.handle(Input::Timeout);
    }

    /// Answers the oldest order.
    fn complete(&mut self) {
        let choice = self.choices.byte();
        let Some(order) = self.pending.pop_front() else { return };
        match order {
            Pending::Dial(dial) => self.handle(Input::DialFailed { dial }),
            Pending::Persisted(token) if choice < 200 => self.handle(Input::Persisted { token }),
            Pending::Persisted(token) => {
                self.handle(Input::Failed { token, reason: Failure::Full });
            }
            Pending::Taken { link, stream, next, bytes } if choice < 200 => {
                self.handle(Input::Taken { link, stream, next, bytes });
            }
            Pending::Taken { link, stream, .. } => {
                let reason =
                    [Failure::Full, Failure::Corrupt, Failure::Io][usize::from(choice) % 3];
                // Later bytes of the stream are thrown away until the sender goes back.
                self.pending.retain(|order| {
                    !matches!(order, Pending::Taken { link: l, stream: s, .. }
                        if (*l, *s) == (link, stream))
                });
                self.handle(Input::Refused { link, stream, reason });
            }
            Pending::Sent { link, stream, first, bytes_max } => {
                self.sent(link, stream, first, bytes_max, choice);
            }
            Pending::Ask { token, query } => self.answer(token, query),
        }
    }

    fn sent(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        first: Cursor,
        bytes_max: u32,
        choice: u8,
    ) {
        let end = self
            .watched
            .iter()
            .find(|watch| (watch.0, watch.1) == (link, stream))
            .map_or(first.position.0, |watch| watch.2);
        let fake = &mut self.links[link.0 as usize];
        let room = u64::from(bytes_max);
        if choice >= 200 && end > first.position.0 {
            let next =
                Position(first.position.0 + 1 + u64::from(choice) % (end - first.position.0));
            let reason = [SkipReason::Expired, SkipReason::Purged][usize::from(choice) % 2];
            return self.handle(Input::Gone { link, stream, next, reason });
        }
        let bytes = room.min(1 + u64::from(choice)) as u32;
        let wire_bytes = bytes + wire::RECORDS_OVERHEAD_BYTES as u32;
        assert!(u64::from(wire_bytes) <= fake.credit_bytes, "records beyond the credit");
        fake.credit_bytes -= u64::from(wire_bytes);
        let next = if choice.is_multiple_of(2) && end > first.position.0 {
            Cursor::at(Position(first.position.0 + 1))
        } else {
            Cursor { position: first.position, offset: first.offset.saturating_add(bytes) }
        };
        self.handle(Input::Sent { link, stream, next, bytes, wire_bytes });
    }

    fn answer(&mut self, token: Token, query: Query) {
        let answer = match query {
            Query::Inbound(source) => {
                let choice = self.choices.byte();
                let epoch = match choice % 8 {
                    0 => Epoch(source.epoch.0.wrapping_add(1)),
                    _ => source.epoch,
                };
                let position = Position(self.choices.number());
                Answer::Inbound { epoch, cursor: Cursor { position, offset: choice.into() } }
            }
            Query::Outbound { link, stream, .. } => {
                let released = self.choices.number() >> 1;
                let next = released + u64::from(self.choices.byte());
                self.watched.retain(|watch| (watch.0, watch.1) != (link, stream));
                self.watched.push((link, stream, next));
                Answer::Outbound {
                    epoch: Epoch(EPOCH),
                    released: Position(released),
                    next: Position(next),
                    sent: Position(next),
                }
            }
            // Whatever a store may say of it.
            Query::Place { .. } => Answer::Place { position: Position(self.choices.number()) },
            Query::Subscribe { .. } if self.choices.byte().is_multiple_of(4) => Answer::Denied,
            Query::Subscribe { .. } => Answer::Subscribed,
        };
        self.handle(Input::Answer { token, answer });
    }

    fn grow(&mut self) {
        let choice = usize::from(self.choices.byte());
        if !self.watched.is_empty() {
            let at = choice % self.watched.len();
            let watch = &mut self.watched[at];
            watch.2 += 1 + choice as u64 % 5;
            let (link, stream, next) = *watch;
            self.handle(Input::Appended { link, stream, next: Position(next) });
        }
    }

    /// Polls until idle, doing what is asked.
    fn drain(&mut self) {
        let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
        let mut resume = Vec::new();
        let mut hangups = Vec::new();
        for _ in 0..OUTPUTS_MAX {
            let output = self.machine.poll(&mut buf);
            if let Output::Idle { wake } = output {
                assert!(wake.is_none_or(|wake| wake > self.now), "wakes in the past");
                assert_eq!(self.machine.poll(&mut buf), output, "idle is not stable");
                if let Some(link) = hangups.pop() {
                    self.end_link(link);
                } else if let Some(link) = resume.pop() {
                    self.offer(link);
                } else {
                    break;
                }
                continue;
            }
            if let Output::Hangup { link } = output {
                self.link(link);
                hangups.push(link);
                continue;
            }
            if let Some(link) = self.output(output, &buf) {
                resume.push(link);
            }
        }
        assert!(
            matches!(self.machine.poll(&mut buf), Output::Idle { .. }),
            "the drain does not end"
        );
        for fake in self.links.iter_mut().filter(|fake| fake.datagram) {
            fake.kept.clear();
            fake.owed_bytes = 0;
        }
    }

    /// Does what an output asks. A link whose bytes are to be offered again.
    fn output(&mut self, output: Output<M::Event>, buf: &[u8]) -> Option<LinkId> {
        match output {
            Output::Send { link, len } => {
                let fake = self.link(link);
                assert!(len as u64 <= fake.credit_bytes, "a frame beyond the credit");
                fake.credit_bytes -= len as u64;
                let frame = wire::decode(&buf[..len], FRAME_BYTES_MAX).expect("a sound frame");
                let (frame, whole) = frame.expect("a whole frame");
                assert_eq!(whole, len);
                if let Frame::Control { stream, control: Control::Resume(resume) } = frame {
                    let position = Position(resume.position);
                    let cursor = Cursor { position, offset: resume.offset };
                    self.expected.retain(|place| (place.0, place.1) != (link, stream));
                    self.expected.push((link, stream, cursor, resume.round));
                }
            }
            Output::SendRecords {
                link,
                stream,
                queue: QueueKey { class, .. },
                first,
                bytes_max,
                ..
            } => {
                assert!(bytes_max > 0 && class < 4);
                self.link(link);
                self.pending.push_back(Pending::Sent { link, stream, first, bytes_max });
            }
            Output::TakeRecords { link, stream, records, len, .. } => {
                let bytes = if records.raw_bytes == 0 { len } else { records.raw_bytes };
                let next = records.next();
                self.link(link).owed_bytes += u64::from(len);
                self.pending.push_back(Pending::Taken { link, stream, next, bytes });
                return Some(link);
            }
            Output::TakeSkip { link, stream, first, next, .. } => {
                assert!(first < next);
                self.link(link);
                let next = Cursor::at(next);
                self.pending.push_back(Pending::Taken { link, stream, next, bytes: 0 });
                return Some(link);
            }
            Output::SkipBytes { link, len } | Output::TakeCall { link, len, .. } => {
                self.link(link).owed_bytes += u64::from(len);
                return Some(link);
            }
            Output::Ask { token, query, len } => {
                assert!(len <= buf.len());
                self.pending.push_back(Pending::Ask { token, query });
            }
            Output::Place { link, stream, position, .. } => {
                self.link(link);
                let next = Cursor::at(position);
                self.pending.push_back(Pending::Taken { link, stream, next, bytes: 0 });
                return Some(link);
            }
            Output::Persist { token, .. } => {
                self.pending.push_back(Pending::Persisted(token));
            }
            Output::Dial { dial } => self.pending.push_back(Pending::Dial(dial)),
            Output::Resume { link } => {
                self.link(link);
                return Some(link);
            }
            Output::NeedBuffer { .. } => panic!("the buffer is as large as the contract says"),
            Output::Halted { reason } => panic!("halted: {reason}"),
            Output::Hangup { .. }
            | Output::Release { .. }
            | Output::DeadLetter { .. }
            | Output::Forget { .. }
            | Output::Event { .. }
            | Output::Idle { .. } => {}
        }
        None
    }

    fn link(&mut self, link: LinkId) -> &mut FakeLink {
        let fake = &mut self.links[link.0 as usize];
        assert!(fake.up, "an output names a link that is down");
        fake
    }
}
