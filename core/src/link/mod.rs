//! A link: greeting, keep-alive, and streams both ways with positions, credit and classes.
//!
//! The two compositions own their links and drive them; this module is not driven by itself.
//! What a link does, in the order of its life:
//!
//! 1. Both ends send [`wire::Hello`], the dialler first. Version and features are settled.
//! 2. Each end announces its outgoing streams that hold something with [`wire::Open`]. The
//!    receiver asks its store how far it has taken that stream and answers [`wire::Resume`].
//! 3. Records flow from there, within the credit. An acknowledgement is cumulative, is made once
//!    the store reports records safe, and grants credit for as many bytes as became safe.
//! 4. A line that loses frames is repaired by going back to the last safe position: the receiver
//!    resumes when it sees a gap, the sender announces again when it hears nothing. Rounds keep
//!    the frames of different goes apart.

mod backoff;
mod schedule;
mod stream;

pub(crate) use backoff::{Backoff, TokenBucket};
use schedule::Scheduler;
pub use schedule::Sharing;
use stream::{Fit, Inbound, InboundState, Outbound, OutboundState};

use crate::contract::{
    Answer, DialIndex, Failure, LinkId, Output, Query, SkipReason, StreamIndex, Token, Transport,
};
use crate::rng::Rng;
use crate::stream::{CLASSES, Cursor, Epoch, Name, NodeId, Position, QueueKey, StreamKey};
use crate::time::Instant;
use crate::wire::{self, Control, Frame, Level, QUEUES_MAX, Role, STREAMS_MAX};

/// What all links of a node have in common.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LinkSettings {
    /// The node's name.
    pub name: Name,
    /// Drawn once, when the node's store was made.
    pub instance: u64,
    /// The life of the node's log.
    pub epoch: Epoch,
    /// Feature bits to offer, of [`wire::FEATURES`]. Default 0.
    pub features: u32,
    /// Longest frame to take, in bytes, [`wire::FRAME_BYTES_MIN`] to [`wire::FRAME_BYTES_MAX`];
    /// default 65,536.
    pub frame_bytes_max: u32,
    /// Bytes of records that may be under way on one incoming stream; default 1,048,576. The
    /// driver needs room for that much from each stream that sends at once.
    pub window_bytes: u32,
    /// Something is sent at least this often, in milliseconds; default 10,000. The other end is
    /// given up when it was silent for three and a half times what it promised.
    pub keepalive_ms: u32,
    /// Greeting and registration must be through by then, in milliseconds; default 5,000.
    pub handshake_ms: u32,
    /// On a line that loses frames: silence after which something is said again, in milliseconds;
    /// default 1,000.
    pub retransmit_ms: u32,
    /// A stream for which the store had no room is asked for again after this many milliseconds;
    /// default 1,000.
    pub full_retry_ms: u32,
    /// What this node's acknowledgements promise; default synced.
    pub level: Level,
    /// The least promise on which this node frees what it sent; default synced.
    pub level_min: Level,
    /// How outgoing bytes are shared among classes.
    pub sharing: Sharing,
}

impl LinkSettings {
    /// The defaults, for a node of this name, instance and epoch.
    pub const fn new(name: Name, instance: u64, epoch: Epoch) -> Self {
        Self {
            name,
            instance,
            epoch,
            features: 0,
            frame_bytes_max: 65_536,
            window_bytes: 1 << 20,
            keepalive_ms: 10_000,
            handshake_ms: 5_000,
            retransmit_ms: 1_000,
            full_retry_ms: 1_000,
            level: Level::Synced,
            level_min: Level::Synced,
            sharing: Sharing::new(),
        }
    }
}

/// What a link has counted. Noise is counted here and never becomes an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LinkStats {
    /// Frames with a length out of range.
    pub bad_length: u64,
    /// Frames whose checksum did not match.
    pub bad_checksum: u64,
    /// Frames of an unknown type.
    pub bad_type: u64,
    /// Frames whose payload did not decode.
    pub bad_payload: u64,
    /// Frames that made no sense where they came.
    pub violations: u64,
    /// Links given up because the other end fell silent.
    pub silent: u64,
    /// Frames of records that brought nothing new.
    pub repeated: u64,
    /// Times a receiving end went back to the last safe position.
    pub went_back: u64,
    /// Times the store had no room.
    pub full: u64,
    /// Acknowledgements that promised less than is asked for.
    pub below_level: u64,
}

impl LinkStats {
    const ZERO: Self = Self {
        bad_length: 0,
        bad_checksum: 0,
        bad_type: 0,
        bad_payload: 0,
        violations: 0,
        silent: 0,
        repeated: 0,
        went_back: 0,
        full: 0,
        below_level: 0,
    };

    /// Adds the counts of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.bad_length += other.bad_length;
        self.bad_checksum += other.bad_checksum;
        self.bad_type += other.bad_type;
        self.bad_payload += other.bad_payload;
        self.violations += other.violations;
        self.silent += other.silent;
        self.repeated += other.repeated;
        self.went_back += other.went_back;
        self.full += other.full;
        self.below_level += other.below_level;
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Peer {
    pub(crate) name: Name,
    pub(crate) id: NodeId,
    pub(crate) role: Role,
    pub(crate) instance: u64,
    pub(crate) features: u32,
    pub(crate) frame_bytes_max: u32,
    keepalive_ms: u32,
    session: u32,
}

/// What a frame or a completion means to the owner of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upcall<'a> {
    /// The other end is known now.
    Greeted,
    Register(wire::Register<'a>),
    Lease(wire::Lease),
    Subscribe(wire::Subscribe<'a>),
    Refused(wire::Refuse),
    Bye(wire::Bye),
    /// The other end remembers more of this node's log than the node does.
    Ahead(Epoch),
}

/// What the owner wants said, beside what the link says by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
    pub(crate) settings: &'a LinkSettings,
    pub(crate) register: wire::Register<'a>,
    pub(crate) subscribe: Option<wire::Subscribe<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Phase {
    /// No link.
    Down,
    /// Open, the other end has not greeted.
    Greeting,
    /// Both are known to each other.
    Open,
    /// To be closed as soon as the last frame is out.
    Closing,
    /// The driver was asked to close it.
    Closed,
}

/// Frames that are due. Each can be made again from state.
mod due {
    pub(super) const HELLO: u16 = 1;
    pub(super) const REFUSE: u16 = 1 << 1;
    pub(super) const REGISTER: u16 = 1 << 2;
    pub(super) const LEASE: u16 = 1 << 3;
    pub(super) const SUBSCRIBE: u16 = 1 << 4;
    pub(super) const PING: u16 = 1 << 5;
    pub(super) const PONG: u16 = 1 << 6;
    pub(super) const BYE: u16 = 1 << 7;
    /// Some stream has something to say or to ask.
    pub(super) const STREAMS: u16 = 1 << 8;
    /// The driver keeps bytes that can be taken now.
    pub(super) const RESUME_INPUT: u16 = 1 << 9;
}

/// What the driver is to do with bytes that follow a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Order {
    Take { stream: u8, records: wire::Records, len: u32 },
    TakeSkip { stream: u8, first: Position, next: Position, reason: SkipReason },
    Skip { len: u32 },
    Call { id: u32, reply: bool, len: u32 },
}

/// Control frames handled in one `Recv`; then the driver is asked to offer the rest again.
const FRAMES_PER_INPUT_MAX: u32 = 64;

/// One link of a composition.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Link {
    id: LinkId,
    phase: Phase,
    transport: Transport,
    pub(crate) dialed: Option<DialIndex>,
    identity: Option<NodeId>,
    pub(crate) role: Role,
    pub(crate) peer: Option<Peer>,
    session: u32,
    credit_bytes: u32,
    due: u16,
    order: Option<Order>,
    opened_at: Instant,
    heard_at: Instant,
    said_at: Instant,
    ping: u32,
    ping_at: Option<Instant>,
    pong: u32,
    /// Round trip of the last ping, in microseconds; 0 when not known.
    pub(crate) round_trip_us: u32,
    /// The owner has what it needs to keep the link beyond the handshake deadline.
    pub(crate) settled: bool,
    refuse: wire::Refuse,
    lease_ms: u32,
    bye: wire::Bye,
    queues: [Option<Name>; QUEUES_MAX],
    outbound: [Outbound; STREAMS_MAX],
    inbound: [Inbound; STREAMS_MAX],
    scheduler: Scheduler,
    held_back_until: Option<Instant>,
    pub(crate) stats: LinkStats,
    /// Bytes of records acknowledged to the other end, and by it, on this link.
    pub(crate) moved_at: Instant,
}

impl Link {
    pub(crate) const DOWN: Self = Self {
        id: LinkId(0),
        phase: Phase::Down,
        transport: Transport::Stream,
        dialed: None,
        identity: None,
        role: Role::Client,
        peer: None,
        session: 0,
        credit_bytes: 0,
        due: 0,
        order: None,
        opened_at: Instant::ZERO,
        heard_at: Instant::ZERO,
        said_at: Instant::ZERO,
        ping: 0,
        ping_at: None,
        pong: 0,
        round_trip_us: 0,
        settled: false,
        refuse: wire::Refuse { reason: wire::RefuseReason::Busy, retry_after_ms: 0 },
        lease_ms: 0,
        bye: wire::Bye { reason: wire::ByeReason::Done, retry_after_ms: 0 },
        queues: [None; QUEUES_MAX],
        outbound: [Outbound::FREE; STREAMS_MAX],
        inbound: [Inbound::FREE; STREAMS_MAX],
        scheduler: Scheduler::new(),
        held_back_until: None,
        stats: LinkStats::ZERO,
        moved_at: Instant::ZERO,
    };

    pub(crate) const fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down)
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Begins a link. The dialler greets at once, as `role`; the other end greets back.
    pub(crate) fn up(
        &mut self,
        now: Instant,
        id: LinkId,
        dialed: Option<DialIndex>,
        transport: Transport,
        identity: Option<NodeId>,
        role: Role,
        rng: &mut Rng,
    ) {
        let stats = self.stats;
        *self = Self { id, transport, dialed, identity, role, stats, ..Self::DOWN };
        self.phase = Phase::Greeting;
        self.session = rng.next_u64() as u32;
        self.opened_at = now;
        self.heard_at = now;
        self.said_at = now;
        self.moved_at = now;
        if dialed.is_some() {
            self.due |= due::HELLO;
        }
    }

    /// Ends a link; what it counted stays.
    pub(crate) fn down(&mut self) {
        let stats = self.stats;
        *self = Self { stats, ..Self::DOWN };
    }

    pub(crate) fn writable(&mut self, bytes: u32) {
        self.credit_bytes = self.credit_bytes.saturating_add(bytes);
        self.due |= due::STREAMS;
    }

    // What the owner wants.

    pub(crate) fn register(&mut self) {
        self.due |= due::REGISTER;
    }

    pub(crate) fn grant(&mut self, lease_ms: u32) {
        self.lease_ms = lease_ms;
        self.due |= due::LEASE;
        self.settled = true;
    }

    pub(crate) fn subscribe(&mut self) {
        self.due |= due::SUBSCRIBE;
    }

    /// Refuses the other end and closes.
    pub(crate) fn refuse(&mut self, reason: wire::RefuseReason, retry_after_ms: u32) {
        if matches!(self.phase, Phase::Greeting | Phase::Open) {
            self.refuse = wire::Refuse { reason, retry_after_ms };
            self.due = due::REFUSE;
            self.phase = Phase::Closing;
        }
    }

    /// Says good-bye and closes.
    pub(crate) fn close(&mut self, reason: wire::ByeReason, retry_after_ms: u32) {
        match self.phase {
            Phase::Open => {
                self.bye = wire::Bye { reason, retry_after_ms };
                self.due = due::BYE | (self.due & due::STREAMS);
                self.phase = Phase::Closing;
            }
            Phase::Greeting => self.abandon(),
            Phase::Down | Phase::Closing | Phase::Closed => {}
        }
    }

    /// Closes without a word.
    pub(crate) fn abandon(&mut self) {
        if matches!(self.phase, Phase::Greeting | Phase::Open) {
            self.due = 0;
            self.phase = Phase::Closing;
        }
    }

    /// Has the outgoing streams of one more queue read over this link.
    pub(crate) fn attach(&mut self, slot: usize, queue: Name) {
        if self.queues[slot] == Some(queue) {
            return;
        }
        self.queues[slot] = Some(queue);
        for class in 0..CLASSES {
            let key = QueueKey { queue: queue.queue_id(), class: class as u8 };
            self.outbound[slot * CLASSES + class] =
                Outbound { state: OutboundState::Ask, key, ..Outbound::FREE };
        }
        self.due |= due::STREAMS;
    }

    /// Refuses an entry of an incoming stream, for a consumer.
    ///
    /// # Errors
    /// The stream is not open, or the last refusal is not out yet; nothing has changed.
    pub(crate) fn reject(&mut self, stream: StreamIndex, position: Position) -> Result<(), ()> {
        let inbound = self.inbound.get_mut(usize::from(stream.0)).ok_or(())?;
        if inbound.state == InboundState::Free || inbound.reject.is_some() {
            return Err(());
        }
        inbound.reject = Some(position);
        self.due |= due::STREAMS;
        Ok(())
    }

    /// Whether everything of the outgoing queues that the store has reported is acknowledged.
    pub(crate) fn drained(&self) -> bool {
        self.outbound.iter().all(|outbound| match outbound.state {
            OutboundState::Free | OutboundState::Quiet => true,
            OutboundState::Running => !outbound.holds_unreleased(),
            _ => false,
        })
    }

    // Input.

    /// Takes frames from the start of `data` until one concerns the owner, is followed by bytes
    /// for the driver, or is not complete.
    pub(crate) fn recv<'d>(
        &mut self,
        now: Instant,
        data: &'d [u8],
        settings: &LinkSettings,
    ) -> (usize, Option<Upcall<'d>>) {
        if !data.is_empty() {
            self.heard_at = now;
        }
        let mut taken = 0;
        for _ in 0..FRAMES_PER_INPUT_MAX {
            if self.order.is_some() || !matches!(self.phase, Phase::Greeting | Phase::Open) {
                return (taken, None);
            }
            match wire::decode(&data[taken..], settings.frame_bytes_max) {
                Ok(None) => return (taken, None),
                Ok(Some((frame, bytes))) => {
                    taken += bytes;
                    if let Some(upcall) = self.frame(now, frame, settings) {
                        return (taken, Some(upcall));
                    }
                }
                Err(error) => {
                    self.malformed(error);
                    return (taken, None);
                }
            }
        }
        if taken < data.len() {
            self.due |= due::RESUME_INPUT;
        }
        (taken, None)
    }

    fn malformed(&mut self, error: wire::FrameError) {
        match error {
            wire::FrameError::Length => self.stats.bad_length += 1,
            wire::FrameError::Checksum => self.stats.bad_checksum += 1,
            wire::FrameError::Type(_) => self.stats.bad_type += 1,
            wire::FrameError::Payload => self.stats.bad_payload += 1,
        }
        // A damaged datagram is a lost one. In a stream nothing after it can be trusted.
        if self.transport == Transport::Stream {
            self.abandon();
        }
    }

    fn violation(&mut self) {
        self.stats.violations += 1;
        if self.transport == Transport::Stream {
            self.abandon();
        }
    }

    fn frame<'d>(
        &mut self,
        now: Instant,
        frame: Frame<'d>,
        settings: &LinkSettings,
    ) -> Option<Upcall<'d>> {
        match frame {
            Frame::Control { control: Control::Hello(hello), .. } => self.hello(hello, settings),
            Frame::Control { control: Control::Refuse(refuse), .. } => {
                self.abandon();
                Some(Upcall::Refused(refuse))
            }
            _ if self.phase != Phase::Open => {
                self.violation();
                self.pass_over(frame);
                None
            }
            Frame::Control { stream, control } => self.control(now, stream, control, settings),
            Frame::Records { stream, records, len } => {
                self.records(stream, records, len, settings);
                None
            }
            Frame::Call { call, len } => {
                self.order = Some(Order::Call { id: call.id, reply: call.reply, len });
                None
            }
        }
    }

    /// Has the driver throw away the body of a frame that is not wanted.
    fn pass_over(&mut self, frame: Frame<'_>) {
        if let Frame::Records { len, .. } | Frame::Call { len, .. } = frame
            && len > 0
        {
            self.order = Some(Order::Skip { len });
        }
    }

    fn hello<'d>(&mut self, hello: wire::Hello<'d>, settings: &LinkSettings) -> Option<Upcall<'d>> {
        if let Some(peer) = self.peer {
            if self.transport == Transport::Datagram && peer.session == hello.session {
                // Our greeting was lost.
                self.due |= due::HELLO;
            } else if self.transport == Transport::Datagram {
                // The other end has started anew without the line noticing: so do we.
                self.abandon();
            } else {
                self.violation();
            }
            return None;
        }
        if hello.magic != *b"RPLC" {
            self.violation();
            return None;
        }
        if hello.version_min > wire::VERSION_MAX || hello.version_max < wire::VERSION_MIN {
            self.refuse(wire::RefuseReason::Version, 0);
            return None;
        }
        let Ok(name) = Name::new(hello.name) else {
            self.refuse(wire::RefuseReason::Name, 0);
            return None;
        };
        if self.identity.is_some_and(|identity| identity != name.node_id()) {
            self.refuse(wire::RefuseReason::Identity, 0);
            return None;
        }
        self.peer = Some(Peer {
            name,
            id: name.node_id(),
            role: hello.role,
            instance: hello.instance,
            features: hello.features & settings.features,
            frame_bytes_max: hello
                .frame_bytes_max
                .clamp(wire::FRAME_BYTES_MIN, wire::FRAME_BYTES_MAX),
            keepalive_ms: hello.keepalive_ms.max(1),
            session: hello.session,
        });
        self.phase = Phase::Open;
        if self.dialed.is_none() {
            self.due |= due::HELLO;
        }
        Some(Upcall::Greeted)
    }

    fn control<'d>(
        &mut self,
        now: Instant,
        stream: u8,
        control: Control<'d>,
        settings: &LinkSettings,
    ) -> Option<Upcall<'d>> {
        match control {
            Control::Register(register) => return Some(Upcall::Register(register)),
            Control::Lease(lease) => return Some(Upcall::Lease(lease)),
            Control::Subscribe(subscribe) => return Some(Upcall::Subscribe(subscribe)),
            Control::Bye(bye) => {
                self.abandon();
                return Some(Upcall::Bye(bye));
            }
            Control::Ping(number) => {
                self.pong = number;
                self.due |= due::PONG;
            }
            Control::Pong(number) => self.pong_heard(now, number),
            Control::Open(open) => self.open(stream, open),
            Control::Resume(resume) => return self.resume(now, stream, resume, settings),
            Control::Ack(ack) => return self.acknowledged(now, stream, ack, settings),
            Control::Skip(skip) => self.skip(stream, skip),
            Control::Reject(reject) => self.rejected(stream, reject),
            // Both are taken in `frame`.
            Control::Hello(_) | Control::Refuse(_) => {}
        }
        None
    }

    fn pong_heard(&mut self, now: Instant, number: u32) {
        if number == self.ping
            && let Some(at) = self.ping_at.take()
        {
            let micros = now.as_micros().saturating_sub(at.as_micros());
            self.round_trip_us = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
        }
    }

    fn open(&mut self, stream: u8, open: wire::Open<'_>) {
        let (Some(peer), Ok(queue)) = (self.peer, Name::new(open.queue)) else {
            return self.violation();
        };
        if usize::from(open.class) >= CLASSES {
            return self.violation();
        }
        let source = StreamKey {
            owner: peer.id,
            queue: QueueKey { queue: queue.queue_id(), class: open.class },
            epoch: Epoch(open.epoch),
        };
        let Some(inbound) = self.inbound.get_mut(usize::from(stream)) else {
            return self.violation();
        };
        match inbound.state {
            InboundState::Free => {
                *inbound = Inbound { state: InboundState::Ask, source, ..Inbound::FREE };
            }
            // The answer is under way.
            InboundState::Ask | InboundState::Asked(_) if inbound.source == source => {}
            // The sender has heard nothing from us: say again where we are.
            InboundState::Running if inbound.source == source => {
                inbound.go_back();
                self.stats.went_back += 1;
            }
            InboundState::Waiting(_) if inbound.source == source => {}
            _ => return self.violation(),
        }
        self.due |= due::STREAMS;
    }

    fn resume<'d>(
        &mut self,
        now: Instant,
        stream: u8,
        resume: wire::Resume,
        settings: &LinkSettings,
    ) -> Option<Upcall<'d>> {
        let Some(outbound) = self.outbound.get_mut(usize::from(stream)) else {
            self.violation();
            return None;
        };
        if !matches!(outbound.state, OutboundState::Announced | OutboundState::Running) {
            self.violation();
            return None;
        }
        let epoch = Epoch(resume.epoch);
        if epoch > settings.epoch {
            return Some(Upcall::Ahead(epoch));
        }
        if epoch < settings.epoch {
            self.violation();
            return None;
        }
        if !outbound.resume(now, &resume) {
            return Some(Upcall::Ahead(epoch));
        }
        self.due |= due::STREAMS;
        None
    }

    fn acknowledged<'d>(
        &mut self,
        now: Instant,
        stream: u8,
        ack: wire::Ack,
        settings: &LinkSettings,
    ) -> Option<Upcall<'d>> {
        let Some(outbound) = self.outbound.get_mut(usize::from(stream)) else {
            self.violation();
            return None;
        };
        if outbound.state != OutboundState::Running {
            self.violation();
            return None;
        }
        let safe = ack.level >= settings.level_min;
        self.stats.below_level += u64::from(!safe);
        if !outbound.acknowledge(now, &ack, safe) {
            return Some(Upcall::Ahead(settings.epoch));
        }
        self.moved_at = now;
        self.due |= due::STREAMS;
        None
    }

    fn skip(&mut self, stream: u8, skip: wire::Skip) {
        let Some(inbound) = self.inbound.get_mut(usize::from(stream)) else {
            return self.violation();
        };
        if inbound.state != InboundState::Running || skip.first >= skip.next {
            return self.violation();
        }
        let (first, next) = (Position(skip.first), Position(skip.next));
        if inbound.resume || next <= inbound.expected.position {
            inbound.ack = true;
        } else if first <= inbound.expected.position {
            let first = inbound.expected.position;
            inbound.expected = Cursor::at(next);
            self.order = Some(Order::TakeSkip { stream, first, next, reason: skip.reason });
        } else {
            inbound.go_back();
            self.stats.went_back += 1;
        }
        self.due |= due::STREAMS;
    }

    fn rejected(&mut self, stream: u8, reject: wire::Reject) {
        let position = Position(reject.position);
        match self.outbound.get_mut(usize::from(stream)) {
            Some(outbound)
                if outbound.state == OutboundState::Running
                    && position >= outbound.released
                    && position < outbound.next =>
            {
                outbound.dead = Some(position);
                self.due |= due::STREAMS;
            }
            _ => self.violation(),
        }
    }

    fn records(&mut self, stream: u8, records: wire::Records, len: u32, settings: &LinkSettings) {
        let raw_bytes = if records.raw_bytes == 0 { len } else { records.raw_bytes };
        let skip = (len > 0).then_some(Order::Skip { len });
        let Some(inbound) = self.inbound.get_mut(usize::from(stream)) else {
            self.order = skip;
            return self.violation();
        };
        let next = records.next();
        match inbound.fit(records.first, next, records.round) {
            Fit::Next
                if raw_bytes > 0
                    && next > records.first
                    && inbound.arrived_bytes + u64::from(raw_bytes)
                        <= inbound.safe_bytes + u64::from(settings.window_bytes) =>
            {
                inbound.expected = next;
                inbound.arrived_bytes += u64::from(raw_bytes);
                self.order = Some(Order::Take { stream, records, len });
            }
            // More than was granted, or a frame that says nothing.
            Fit::Next => {
                self.order = skip;
                self.violation();
            }
            Fit::Known => {
                self.stats.repeated += 1;
                inbound.ack |= inbound.state == InboundState::Running && !inbound.resume;
                self.order = skip;
                self.due |= due::STREAMS;
            }
            Fit::Gap => {
                self.order = skip;
                if self.transport == Transport::Stream {
                    return self.violation();
                }
                inbound.go_back();
                self.stats.went_back += 1;
                self.due |= due::STREAMS;
            }
        }
    }

    // Completions.

    pub(crate) fn sent(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        next: Cursor,
        bytes: u32,
        wire_bytes: u32,
    ) {
        self.return_credit(stream, wire_bytes);
        self.said_at = now;
        if let Some(outbound) = self.outbound.get_mut(usize::from(stream.0)) {
            outbound.sent(now, next, bytes);
            self.scheduler.charge(outbound.key.class, bytes);
            self.due |= due::STREAMS;
        }
    }

    /// An order for records is answered: of the credit kept for it only `used` bytes went.
    fn return_credit(&mut self, stream: StreamIndex, used: u32) {
        if let Some(outbound) = self.outbound.get_mut(usize::from(stream.0)) {
            let kept = core::mem::take(&mut outbound.reserved_bytes);
            self.credit_bytes = self.credit_bytes.saturating_add(kept.saturating_sub(used));
        }
    }

    pub(crate) fn gone(&mut self, stream: StreamIndex, next: Position, reason: SkipReason) {
        self.return_credit(stream, 0);
        if let Some(outbound) = self.outbound.get_mut(usize::from(stream.0)) {
            outbound.gone(next, reason);
            self.due |= due::STREAMS;
        }
    }

    pub(crate) fn taken(&mut self, now: Instant, stream: StreamIndex, next: Cursor, bytes: u32) {
        if let Some(inbound) = self.inbound.get_mut(usize::from(stream.0)) {
            inbound.safe(next, bytes);
            self.moved_at = now;
            self.due |= due::STREAMS;
        }
    }

    pub(crate) fn refused(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        failure: Failure,
        settings: &LinkSettings,
    ) {
        let Some(inbound) = self.inbound.get_mut(usize::from(stream.0)) else {
            return;
        };
        match failure {
            Failure::Full => {
                self.stats.full += 1;
                // What was kept of a record may be part of what did not fit.
                inbound.taken = Cursor::at(inbound.taken.position);
                inbound.wait_until(now.plus_millis(u64::from(settings.full_retry_ms)));
            }
            Failure::Corrupt => {
                inbound.taken = Cursor::at(inbound.taken.position);
                inbound.go_back();
                self.stats.went_back += 1;
                self.due |= due::STREAMS;
                self.violation();
            }
            Failure::Io => self.abandon(),
        }
    }

    pub(crate) fn appended(&mut self, now: Instant, stream: StreamIndex, next: Position) {
        if let Some(outbound) = self.outbound.get_mut(usize::from(stream.0)) {
            outbound.grown(now, next);
            self.due |= due::STREAMS;
        }
    }

    /// Takes the answer to a question of this link. Answers to another life's questions are
    /// passed over.
    pub(crate) fn answer(&mut self, now: Instant, token: Token, answer: Answer) {
        let stream = usize::from(token.0 as u8 & !TOKEN_INBOUND);
        let inbound = token.0 as u8 & TOKEN_INBOUND != 0;
        match answer {
            Answer::Inbound { epoch, cursor } if inbound => {
                if let Some(inbound) = self.inbound.get_mut(stream)
                    && inbound.state == InboundState::Asked(token.0)
                {
                    inbound.known(epoch, cursor);
                    self.due |= due::STREAMS;
                }
            }
            Answer::Outbound { released, next, .. } if !inbound => {
                if let Some(outbound) = self.outbound.get_mut(stream)
                    && outbound.state == OutboundState::Asked(token.0)
                {
                    outbound.known(now, released, next);
                    self.due |= due::STREAMS;
                }
            }
            _ => {}
        }
    }

    // Time.

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, now: Instant, settings: &LinkSettings) {
        if !matches!(self.phase, Phase::Greeting | Phase::Open) {
            return;
        }
        if now >= self.silence_deadline() {
            self.stats.silent += 1;
            return self.abandon();
        }
        if !self.settled && now >= self.opened_at.plus_millis(settings.handshake_ms.into()) {
            self.stats.silent += 1;
            return self.abandon();
        }
        let retransmit_at = self.said_at.plus_millis(settings.retransmit_ms.into());
        if self.phase == Phase::Greeting {
            let again = self.dialed.is_some() && self.transport == Transport::Datagram;
            if again && now >= retransmit_at {
                self.due |= due::HELLO;
                self.said_at = now;
            }
            return;
        }
        if now >= self.said_at.plus_millis(settings.keepalive_ms.into())
            && self.due & due::PING == 0
        {
            self.ping = self.ping.wrapping_add(1);
            self.ping_at = Some(now);
            self.due |= due::PING;
        }
        if self.held_back_until.is_some_and(|until| now >= until) {
            self.held_back_until = None;
            self.due |= due::STREAMS;
        }
        self.tick_streams(now, settings);
    }

    fn tick_streams(&mut self, now: Instant, settings: &LinkSettings) {
        for inbound in &mut self.inbound {
            if let InboundState::Waiting(until) = inbound.state
                && now >= until
            {
                inbound.state = InboundState::Running;
                inbound.resume = true;
                self.due |= due::STREAMS;
            }
        }
        if self.transport == Transport::Stream {
            return;
        }
        for outbound in &mut self.outbound {
            let due_at = outbound.moved_at.plus_millis(settings.retransmit_ms.into());
            if outbound.awaits_receiver() && now >= due_at {
                outbound.state = OutboundState::Announce;
                outbound.moved_at = now;
                self.due |= due::STREAMS;
            }
        }
    }

    fn silence_deadline(&self) -> Instant {
        let Some(peer) = &self.peer else {
            return Instant::NEVER;
        };
        self.heard_at.plus_millis(u64::from(peer.keepalive_ms) * 7 / 2)
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn deadline(&self, settings: &LinkSettings) -> Instant {
        if !matches!(self.phase, Phase::Greeting | Phase::Open) {
            return Instant::NEVER;
        }
        let mut earliest = self.silence_deadline();
        if !self.settled {
            earliest = earliest.min(self.opened_at.plus_millis(settings.handshake_ms.into()));
        }
        let datagram = self.transport == Transport::Datagram;
        if self.phase == Phase::Greeting {
            if datagram && self.dialed.is_some() {
                earliest = earliest.min(self.said_at.plus_millis(settings.retransmit_ms.into()));
            }
            return earliest;
        }
        if self.due & due::PING == 0 {
            earliest = earliest.min(self.said_at.plus_millis(settings.keepalive_ms.into()));
        }
        if let Some(until) = self.held_back_until {
            earliest = earliest.min(until);
        }
        for inbound in &self.inbound {
            if let InboundState::Waiting(until) = inbound.state {
                earliest = earliest.min(until);
            }
        }
        if datagram {
            for outbound in self.outbound.iter().filter(|outbound| outbound.awaits_receiver()) {
                let due_at = outbound.moved_at.plus_millis(settings.retransmit_ms.into());
                earliest = earliest.min(due_at);
            }
        }
        earliest
    }

    // Output.

    /// The next thing to do on this link, if there is one that the credit allows.
    pub(crate) fn poll<E>(
        &mut self,
        now: Instant,
        local: &Local<'_>,
        tokens: &mut u32,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        if let Some(output) = self.poll_order() {
            return Some(output);
        }
        match self.phase {
            Phase::Down | Phase::Closed => None,
            Phase::Closing => self.poll_closing(now, local, buf),
            Phase::Greeting | Phase::Open => {
                if let Some(output) = self.poll_due(now, local, buf) {
                    return Some(output);
                }
                if self.due & due::STREAMS != 0 && self.phase == Phase::Open {
                    return self.poll_streams(now, local, tokens, buf);
                }
                None
            }
        }
    }

    fn poll_order<E>(&mut self) -> Option<Output<E>> {
        let link = self.id;
        Some(match self.order.take()? {
            Order::Skip { len } => Output::SkipBytes { link, len },
            Order::Call { id, reply, len } => Output::TakeCall { link, id, reply, len },
            Order::Take { stream, records, len } => {
                let source = self.inbound[usize::from(stream)].source;
                Output::TakeRecords { link, stream: StreamIndex(stream), source, records, len }
            }
            Order::TakeSkip { stream, first, next, reason } => {
                let source = self.inbound[usize::from(stream)].source;
                let stream = StreamIndex(stream);
                Output::TakeSkip { link, stream, source, first, next, reason }
            }
        })
    }

    fn poll_closing<E>(
        &mut self,
        now: Instant,
        local: &Local<'_>,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        // What was acknowledged to us is kept even when the link goes.
        if let Some(output) = self.poll_release() {
            return Some(output);
        }
        if self.due & (due::REFUSE | due::BYE | due::HELLO) != 0 {
            let sent = self.poll_due(now, local, buf);
            if matches!(sent, Some(Output::Send { .. } | Output::NeedBuffer { .. })) {
                return sent;
            }
        }
        // Without credit the last word is not worth waiting for.
        self.phase = Phase::Closed;
        Some(Output::Hangup { link: self.id })
    }

    fn poll_due<E>(
        &mut self,
        now: Instant,
        local: &Local<'_>,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        if self.due & !due::STREAMS == 0 {
            return None;
        }
        if self.due & due::RESUME_INPUT != 0 {
            self.due &= !due::RESUME_INPUT;
            return Some(Output::Resume { link: self.id });
        }
        let (bit, control) = self.next_due(local)?;
        let output = self.send(now, 0, &control, buf)?;
        if let Output::Send { .. } = output {
            self.due &= !bit;
        }
        Some(output)
    }

    fn next_due<'l>(&self, local: &Local<'l>) -> Option<(u16, Control<'l>)> {
        let settings = local.settings;
        let first = |bit| self.due & bit != 0;
        if first(due::HELLO) {
            let hello = wire::Hello {
                magic: *b"RPLC",
                version_min: wire::VERSION_MIN,
                version_max: wire::VERSION_MAX,
                role: self.role,
                features: settings.features,
                name: settings.name.as_str(),
                instance: settings.instance,
                epoch: settings.epoch.0,
                frame_bytes_max: settings.frame_bytes_max,
                keepalive_ms: settings.keepalive_ms,
                session: self.session,
            };
            return Some((due::HELLO, Control::Hello(hello)));
        }
        if first(due::REFUSE) {
            return Some((due::REFUSE, Control::Refuse(self.refuse)));
        }
        if first(due::PONG) {
            return Some((due::PONG, Control::Pong(self.pong)));
        }
        if first(due::REGISTER) {
            return Some((due::REGISTER, Control::Register(local.register)));
        }
        if first(due::LEASE) {
            let lease = wire::Lease { lease_ms: self.lease_ms };
            return Some((due::LEASE, Control::Lease(lease)));
        }
        if first(due::SUBSCRIBE)
            && let Some(subscribe) = local.subscribe
        {
            return Some((due::SUBSCRIBE, Control::Subscribe(subscribe)));
        }
        if first(due::PING) {
            return Some((due::PING, Control::Ping(self.ping)));
        }
        first(due::BYE).then_some((due::BYE, Control::Bye(self.bye)))
    }

    /// A control frame as an output: `NeedBuffer` when `buf` is short, `None` without credit,
    /// whatever the buffer, so that an idle link stays idle when it is polled with a short one.
    fn send<E>(
        &mut self,
        now: Instant,
        stream: u8,
        control: &Control<'_>,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        let Some(len) = wire::encode_control(stream, control, buf) else {
            // A frame that has no credit either needs no buffer: the answer would not be idle.
            let len =
                wire::encode_control(stream, control, &mut [0; wire::CONTROL_FRAME_BYTES_MAX])?;
            return (len as u32 <= self.credit_bytes).then_some(Output::NeedBuffer { len });
        };
        self.credit_bytes = self.credit_bytes.checked_sub(len as u32)?;
        self.said_at = now;
        Some(Output::Send { link: self.id, len })
    }

    fn poll_streams<E>(
        &mut self,
        now: Instant,
        local: &Local<'_>,
        tokens: &mut u32,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        if let Some(output) = self.poll_release() {
            return Some(output);
        }
        let mut blocked = false;
        for stream in 0..STREAMS_MAX {
            if let Some(output) = self.poll_question(stream, tokens, buf) {
                return Some(output);
            }
            let queue = self.queues[stream / CLASSES];
            let (inbound, outbound) = (&self.inbound[stream], &self.outbound[stream]);
            let due = next_stream_frame(inbound, outbound, queue.as_ref(), local.settings);
            let Some(control) = due else {
                continue;
            };
            match self.send(now, stream as u8, &control, buf) {
                Some(output) => {
                    if let Output::Send { .. } = output {
                        self.stream_frame_sent(stream, &control, now);
                    }
                    return Some(output);
                }
                None => blocked = true,
            }
        }
        if !blocked && let Some(output) = self.poll_records(now, local.settings) {
            return Some(output);
        }
        // Nothing more until something changes; `writable` looks again.
        self.due &= !due::STREAMS;
        None
    }

    fn poll_release<E>(&mut self) -> Option<Output<E>> {
        for outbound in &mut self.outbound {
            if let Some(position) = outbound.dead.take() {
                return Some(Output::DeadLetter { queue: outbound.key, position });
            }
            if outbound.release {
                outbound.release = false;
                return Some(Output::Release { queue: outbound.key, through: outbound.released });
            }
        }
        None
    }

    fn poll_question<E>(
        &mut self,
        stream: usize,
        tokens: &mut u32,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        let link = self.id;
        if self.outbound[stream].state == OutboundState::Ask {
            let name = self.queues[stream / CLASSES].as_ref()?.as_str();
            let Some(space) = buf.get_mut(..name.len()) else {
                return Some(Output::NeedBuffer { len: wire::CONTROL_FRAME_BYTES_MAX });
            };
            space.copy_from_slice(name.as_bytes());
            let token = next_token(tokens, link, stream as u8);
            let outbound = &mut self.outbound[stream];
            outbound.state = OutboundState::Asked(token.0);
            let index = StreamIndex(stream as u8);
            let query = Query::Outbound { link, stream: index, queue: outbound.key };
            return Some(Output::Ask { token, query, len: name.len() });
        }
        let inbound = &mut self.inbound[stream];
        if inbound.state == InboundState::Ask {
            let token = next_token(tokens, link, stream as u8 | TOKEN_INBOUND);
            inbound.state = InboundState::Asked(token.0);
            return Some(Output::Ask { token, query: Query::Inbound(inbound.source), len: 0 });
        }
        None
    }

    fn stream_frame_sent(&mut self, stream: usize, control: &Control<'_>, now: Instant) {
        let (inbound, outbound) = (&mut self.inbound[stream], &mut self.outbound[stream]);
        match control {
            Control::Reject(_) => inbound.reject = None,
            Control::Resume(_) => {
                inbound.resume = false;
                inbound.ack = false;
            }
            Control::Ack(_) => inbound.ack = false,
            Control::Open(_) => {
                outbound.state = OutboundState::Announced;
                outbound.moved_at = now;
            }
            Control::Skip(skip) => {
                outbound.skip = None;
                outbound.cursor = Cursor::at(Position(skip.next));
            }
            _ => {}
        }
    }

    fn poll_records<E>(&mut self, now: Instant, settings: &LinkSettings) -> Option<Output<E>> {
        let frame_bytes = self.peer.as_ref()?.frame_bytes_max;
        let overhead = wire::RECORDS_OVERHEAD_BYTES as u32;
        let room = self.credit_bytes.min(frame_bytes).saturating_sub(overhead);
        if room == 0 {
            return None;
        }
        let mut ready = [false; CLASSES];
        for outbound in self.outbound.iter().filter(|outbound| outbound.ready_to_send()) {
            ready[usize::from(outbound.key.class)] = true;
        }
        if ready == [false; CLASSES] {
            return None;
        }
        let class = match self.scheduler.pick(now, &settings.sharing, ready, frame_bytes) {
            Ok(class) => class,
            Err(until) => {
                self.held_back_until = until;
                return None;
            }
        };
        let stream = self
            .outbound
            .iter()
            .position(|outbound| outbound.key.class == class && outbound.ready_to_send())?;
        let outbound = &mut self.outbound[stream];
        let bytes_max = room.min(outbound.credit_bytes());
        outbound.ordered = true;
        // Other frames may be sent before the answer comes; they have the rest of the credit.
        outbound.reserved_bytes = overhead + bytes_max;
        self.credit_bytes -= outbound.reserved_bytes;
        Some(Output::SendRecords {
            link: self.id,
            stream: StreamIndex(stream as u8),
            queue: outbound.key,
            first: outbound.cursor,
            bytes_max,
            round: outbound.round,
        })
    }
}

/// What one stream number has to say next, of its incoming and its outgoing stream.
fn next_stream_frame<'q>(
    inbound: &Inbound,
    outbound: &Outbound,
    queue: Option<&'q Name>,
    settings: &LinkSettings,
) -> Option<Control<'q>> {
    if let Some(position) = inbound.reject {
        return Some(Control::Reject(wire::Reject { position: position.0 }));
    }
    if inbound.resume && inbound.state == InboundState::Running {
        return Some(Control::Resume(wire::Resume {
            epoch: inbound.source.epoch.0,
            position: inbound.taken.position.0,
            offset: inbound.taken.offset,
            credit_bytes: settings.window_bytes,
            round: inbound.round,
        }));
    }
    if inbound.ack && inbound.state == InboundState::Running {
        return Some(Control::Ack(wire::Ack {
            position: inbound.taken.position.0,
            level: settings.level,
            credit_bytes: inbound.safe_bytes + u64::from(settings.window_bytes),
            round: inbound.round,
        }));
    }
    if outbound.state == OutboundState::Announce {
        return Some(Control::Open(wire::Open {
            queue: queue?.as_str(),
            class: outbound.key.class,
            epoch: settings.epoch.0,
            first: outbound.released.0,
        }));
    }
    let skip = outbound.skip?;
    Some(Control::Skip(wire::Skip { first: skip.first.0, next: skip.next.0, reason: skip.reason }))
}

/// In the low byte of a token: the question is about an incoming stream.
const TOKEN_INBOUND: u8 = 0x80;

/// A token that rises, and that tells which link and stream it belongs to.
fn next_token(tokens: &mut u32, link: LinkId, low: u8) -> Token {
    *tokens = tokens.wrapping_add(1);
    Token(u64::from(*tokens) << 32 | u64::from(link.0 & 0xff_ffff) << 8 | u64::from(low))
}

/// The link that a token of [`next_token`] belongs to.
pub(crate) const fn link_of(token: Token) -> LinkId {
    LinkId((token.0 >> 8) as u32 & 0xff_ffff)
}
