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
mod receive;
mod schedule;
mod send;
mod settings;
mod stream;
mod streams;

pub(crate) use backoff::{Backoff, TokenBucket};
pub use schedule::Sharing;
pub use settings::{LinkSettings, LinkStats};

use schedule::Scheduler;
use stream::{InboundState, Outbound, OutboundState};
use streams::Streams;

use crate::contract::{DialIndex, Input, LinkId, SkipReason, StreamIndex, Token, Transport};
use crate::rng::Rng;
use crate::stream::{CLASSES, Name, NodeId, Position, QueueKey};
use crate::time::Instant;
use crate::wire::{self, Role};

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Peer {
    pub(crate) name: Name,
    pub(crate) id: NodeId,
    pub(crate) role: Role,
    pub(crate) instance: u64,
    epoch: u32,
    pub(crate) features: u32,
    pub(crate) frame_bytes_max: u32,
    keepalive_ms: u32,
    session: u32,
}

impl Peer {
    /// Whether a greeting is the one that this peer was known by. The session alone does not tell: a
    /// device may draw the same after each start.
    fn has_said(&self, hello: &wire::Hello<'_>) -> bool {
        (self.instance, self.epoch, self.session) == (hello.instance, hello.epoch, hello.session)
    }
}

/// What a frame or a completion means to the owner of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upcall<'a> {
    /// The other end is known now.
    Greeted,
    Register(wire::Register<'a>),
    Lease(wire::TermLease),
    Subscribe(wire::Subscribe<'a>),
    Refused(wire::Refuse),
    Redirected(wire::Redirect<'a>),
    Bye(wire::Bye),
}

/// What the owner wants said, beside what the link says by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
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
    Place { stream: u8, position: Position },
    Skip { len: u32 },
    Call { id: u32, reply: bool, len: u32 },
}

/// Control frames handled in one `Recv`; then the driver is asked to offer the rest again.
const FRAMES_PER_INPUT_MAX: u32 = 64;

/// One link of a composition, over which the other end can read `QUEUES` queues.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Link<const QUEUES: usize> {
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
    /// Nothing is taken from the other end before it has granted a lease: its term may be over.
    pub(crate) lease_first: bool,
    /// When that was: at least two round trips after the link began, for the dialler.
    settled_at: Instant,
    refuse: wire::Refuse,
    lease: wire::TermLease,
    bye: wire::Bye,
    queues: [Option<Name>; QUEUES],
    streams: Streams<QUEUES>,
    scheduler: Scheduler,
    held_back_until: Option<Instant>,
    pub(crate) stats: LinkStats,
    /// Bytes of records acknowledged to the other end, and by it, on this link.
    pub(crate) moved_at: Instant,
}

impl<const QUEUES: usize> Link<QUEUES> {
    /// A function and not a constant: of that an image would hold all bytes, and of a function only
    /// those that are not zero.
    pub(crate) const fn new() -> Self {
        Self {
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
            lease_first: false,
            settled_at: Instant::ZERO,
            refuse: wire::Refuse { reason: wire::RefuseReason::Busy, retry_after_ms: 0 },
            lease: wire::TermLease { lease_ms: 0, term: 0 },
            bye: wire::Bye { reason: wire::ByeReason::Done, retry_after_ms: 0 },
            queues: [None; QUEUES],
            streams: Streams::FREE,
            scheduler: Scheduler::new(),
            held_back_until: None,
            stats: LinkStats::ZERO,
            moved_at: Instant::ZERO,
        }
    }

    /// Makes it as [`Self::new`] but for what was counted: in place, since a whole link would take most of a
    /// device's stack.
    fn clear(&mut self) {
        self.id = LinkId(0);
        self.phase = Phase::Down;
        self.transport = Transport::Stream;
        self.dialed = None;
        self.identity = None;
        self.role = Role::Client;
        self.peer = None;
        self.session = 0;
        self.credit_bytes = 0;
        self.due = 0;
        self.order = None;
        self.opened_at = Instant::ZERO;
        self.heard_at = Instant::ZERO;
        self.said_at = Instant::ZERO;
        self.ping = 0;
        self.ping_at = None;
        self.pong = 0;
        self.round_trip_us = 0;
        self.settled = false;
        self.lease_first = false;
        self.settled_at = Instant::ZERO;
        self.refuse = wire::Refuse { reason: wire::RefuseReason::Busy, retry_after_ms: 0 };
        self.lease = wire::TermLease { lease_ms: 0, term: 0 };
        self.bye = wire::Bye { reason: wire::ByeReason::Done, retry_after_ms: 0 };
        self.queues.fill(None);
        self.streams.clear();
        self.scheduler = Scheduler::new();
        self.held_back_until = None;
        self.moved_at = Instant::ZERO;
    }

    pub(crate) const fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down)
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Begins a link, as `input` ([`Input::LinkUp`]) says. The dialler greets at once, as `role`;
    /// the other end greets back.
    pub(crate) fn up(&mut self, now: Instant, input: &Input<'_>, role: Role, rng: &mut Rng) {
        let &Input::LinkUp { link: id, dialed, transport, identity } = input else {
            return;
        };
        self.clear();
        (self.id, self.transport, self.dialed) = (id, transport, dialed);
        (self.identity, self.role) = (identity, role);
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
        self.clear();
    }

    pub(crate) fn writable(&mut self, bytes: u32) {
        self.credit_bytes = self.credit_bytes.saturating_add(bytes);
        self.due |= due::STREAMS;
    }

    // What the owner wants.

    /// The owner has what it needs: the link stays.
    pub(crate) fn settle(&mut self, now: Instant) {
        if !self.settled {
            self.settled = true;
            self.settled_at = now;
            // The other end begins to send only now.
            self.moved_at = now;
        }
    }

    /// In poll mode: when the link has been quiet for so long that nothing more is to come. On a
    /// slow line the other end needs a round trip before its first record is here.
    pub(crate) fn quiet_at(&self, linger_ms: u32) -> Instant {
        let handshake_us = self.settled_at.as_micros().saturating_sub(self.opened_at.as_micros());
        let twice = Instant::from_micros(self.moved_at.as_micros() + 2 * handshake_us);
        self.moved_at.plus_millis(linger_ms.into()).max(twice)
    }

    pub(crate) fn register(&mut self) {
        self.due |= due::REGISTER;
    }

    pub(crate) fn grant(&mut self, lease_ms: u32, term: u64) {
        self.lease = wire::TermLease { lease_ms, term };
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

    /// Refuses a hub whose term is over, and closes.
    pub(crate) fn refuse_term(&mut self) {
        self.stats.terms_over += 1;
        if self.peer_has(wire::FEATURE_STANDBY) {
            self.refuse(wire::RefuseReason::Term, 0);
        } else {
            self.abandon();
        }
    }

    fn peer_has(&self, feature: u32) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.features & feature != 0)
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
            let asks = Outbound { state: OutboundState::Ask, key, ..Outbound::FREE };
            self.streams.change_outbound(slot * CLASSES + class, |outbound| *outbound = asks);
        }
        self.due |= due::STREAMS;
    }

    /// Refuses an entry of an incoming stream, for a consumer.
    ///
    /// # Errors
    /// The stream is not open, or the last refusal is not out yet; nothing has changed.
    pub(crate) fn reject(&mut self, stream: StreamIndex, position: Position) -> Result<(), ()> {
        let stream = usize::from(stream.0);
        let inbound = self.streams.inbound().get(stream).ok_or(())?;
        if inbound.state == InboundState::Free || inbound.reject.is_some() {
            return Err(());
        }
        self.streams.change_inbound(stream, |inbound| inbound.reject = Some(position));
        self.due |= due::STREAMS;
        Ok(())
    }

    /// Whether everything of the outgoing queues that the store has reported is acknowledged.
    pub(crate) fn drained(&self) -> bool {
        self.streams.undrained().next().is_none()
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
        for stream in self.streams.waits() {
            let inbound = &self.streams.inbound()[stream];
            if inbound.waits_until().is_some_and(|until| now >= until) {
                // What was refused may be a place: the store knows where it is.
                let asks = InboundState::Ask;
                self.streams.change_inbound(stream, |inbound| inbound.state = asks);
                self.due |= due::STREAMS;
            }
        }
        if self.transport == Transport::Stream {
            return;
        }
        for stream in self.streams.undrained() {
            let outbound = &self.streams.outbound()[stream];
            let due_at = outbound.moved_at.plus_millis(settings.retransmit_ms.into());
            if outbound.awaits_receiver() && now >= due_at {
                self.streams.change_outbound(stream, |outbound| {
                    outbound.state = OutboundState::Announce;
                    outbound.moved_at = now;
                });
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
        for stream in self.streams.waits() {
            let until = self.streams.inbound()[stream].waits_until();
            earliest = earliest.min(until.unwrap_or(Instant::NEVER));
        }
        if datagram {
            let undrained = self.streams.undrained().map(|stream| &self.streams.outbound()[stream]);
            for outbound in undrained.filter(|outbound| outbound.awaits_receiver()) {
                let due_at = outbound.moved_at.plus_millis(settings.retransmit_ms.into());
                earliest = earliest.min(due_at);
            }
        }
        earliest
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_cleared_is_down_but_for_its_counts() {
        let mut link = Link::<2>::new();
        let link_up = Input::LinkUp {
            link: LinkId(7),
            dialed: Some(DialIndex(0)),
            transport: Transport::Datagram,
            identity: Some(NodeId(9)),
        };
        let now = Instant::from_millis(5);
        link.up(now, &link_up, Role::Leaf, &mut Rng::new(1));
        link.attach(1, Name::new("n").unwrap());
        link.writable(99);
        link.settle(now);
        link.grant(10, 2);
        link.stats.silent = 3;
        link.close(wire::ByeReason::Stopping, 4);
        link.clear();
        let mut expected = Link::<2>::new();
        expected.stats.silent = 3;
        assert_eq!(std::format!("{link:?}"), std::format!("{expected:?}"));
    }
}
