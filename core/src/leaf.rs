//! The composition for small devices and for programs: one upstream link, its registration, and
//! the streams on it.
//!
//! A [`Leaf`] in the role of a leaf registers at its hub, sends what its own queue holds, and takes
//! what the hub's queue of its name holds. In the role of a client it is a program at a node: it
//! posts through its own queue (the node gives the records their identity) and reads as a named
//! consumer. Either way the driver keeps the records and the places; the machine says what to do
//! with them. It holds no memory but its own few hundred bytes and borrows none.
//!
//! | phase | entered by | left by |
//! | --- | --- | --- |
//! | waiting | start, a link that ended | the back-off ends: `Dial` |
//! | dialling | `Dial` | `LinkUp`, `DialFailed` |
//! | greeting | `LinkUp` | `Hello` of the hub, deadline |
//! | registering | greeting done (leaf) | `Lease` of the hub, refusal, deadline |
//! | exchanging | registered, or greeting done (client) | the link ends |

use crate::contract::{DialIndex, Input, Key, LinkId, Machine, Output, RestoreError, StreamIndex};
use crate::lease::{DialTiming, Dialer, Granted, LeaseClient, LeaseDue, LeaseTiming};
use crate::link::{Link, LinkSettings, LinkStats, Local, Upcall, link_of};
use crate::rng::Rng;
use crate::stream::{Address, Epoch, Name, NodeId, Position};
use crate::time::Instant;
use crate::wire::{self, ByeReason, RefuseReason, Role, Text};

/// A consumer that a client reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConsumerConfig {
    /// The consumer.
    pub name: Name,
    /// Only messages of this type; `None` for all. Counts when the consumer is new.
    pub message_type: Option<Address>,
    /// A new consumer starts with what the node already holds. Default false.
    pub from_start: bool,
}

/// What a [`Leaf`] is told at its start.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LeafConfig {
    /// What every link has.
    pub link: LinkSettings,
    /// [`Role::Leaf`] (the default) registers; [`Role::Client`] does not.
    pub role: Role,
    /// For jitter. Two leaves should not have the same.
    pub seed: u64,
    /// The own queue that the other end reads; `None` when nothing is ever sent. Default `hub`.
    pub queue: Option<Name>,
    /// A queue of the hub to read beside the one of the leaf's name. Default none.
    pub extra_queue: Option<Name>,
    /// Where the leaf can be reached. Default nowhere.
    pub address: Option<Address>,
    /// The consumer that a client reads as. Default none.
    pub consumer: Option<ConsumerConfig>,
    /// Whether the leaf dials; else it waits for the hub to. Default true.
    pub dials: bool,
    /// When it dials.
    pub dial: DialTiming,
    /// When it registers.
    pub lease: LeaseTiming,
}

impl LeafConfig {
    /// The defaults.
    pub const fn new(link: LinkSettings, seed: u64) -> Self {
        Self {
            link,
            role: Role::Leaf,
            seed,
            queue: match Name::new("hub") {
                Ok(name) => Some(name),
                Err(_) => None,
            },
            extra_queue: None,
            address: None,
            consumer: None,
            dials: true,
            dial: DialTiming::new(),
            lease: LeaseTiming::new(),
        }
    }
}

impl LeafConfig {
    fn local(&self) -> Local<'_> {
        Local {
            register: wire::Register {
                lease_ms: self.lease.lease_ms,
                address: self.address.as_ref().map(Text::from).unwrap_or_default(),
                queues: [self.extra_queue.as_ref().map(Text::from).unwrap_or_default()],
            },
            subscribe: self.consumer.as_ref().map(|consumer| wire::Subscribe {
                consumer: Text::from(&consumer.name),
                message_type: consumer.message_type.as_ref().map(Text::from).unwrap_or_default(),
                from_start: consumer.from_start,
            }),
        }
    }
}

/// What a [`Leaf`] tells the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LeafEvent {
    /// The node at the other end is known: records flow as soon as a leaf is registered.
    Connected {
        /// Who it is.
        node: NodeId,
    },
    /// The hub has granted a lease, for the first time on this link.
    Registered {
        /// How long it holds, in milliseconds.
        lease_ms: u32,
    },
    /// The other end refuses, or is refused ([`RefuseReason::Term`]). The leaf tries again later; on
    /// [`RefuseReason::Term`] and [`RefuseReason::Standby`] a driver that knows several addresses of
    /// the hub dials the next one.
    Refused {
        /// Why.
        reason: RefuseReason,
    },
    /// The link has ended. The leaf dials again by itself.
    Disconnected,
}

/// Why a command was not done. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LeafError {
    /// There is no such incoming stream.
    NoStream,
}

/// The order that the leaf dials by.
const DIAL: DialIndex = DialIndex(0);

/// One upstream link with registration and streams. See the [module](self).
#[derive(Clone, Debug)]
pub struct Leaf {
    config: LeafConfig,
    now: Instant,
    rng: Rng,
    tokens: u32,
    link: Link<1>,
    dialer: Dialer,
    lease: LeaseClient,
    stopping: bool,
    /// Ended because there was nothing more to say.
    done: bool,
    event: [Option<LeafEvent>; 3],
    link_up: bool,
    /// No deadline of the leaf is earlier. Zero after anything that may bring one nearer; what moves
    /// records only moves deadlines away.
    due_at: Instant,
}

impl Leaf {
    /// A leaf without a link.
    pub const fn new(config: LeafConfig) -> Self {
        Self {
            config,
            now: Instant::ZERO,
            rng: Rng::new(config.seed),
            tokens: 0,
            link: Link::new(),
            dialer: Dialer::new(),
            lease: LeaseClient::new(),
            stopping: false,
            done: false,
            event: [None; 3],
            link_up: false,
            due_at: Instant::ZERO,
        }
    }

    /// Closes the link with a good-bye and dials no more.
    pub fn stop(&mut self, now: Instant) {
        self.advance(now);
        self.stopping = true;
        self.link.close(ByeReason::Stopping, 0);
    }

    /// Refuses an entry that came on an incoming stream of a consumer: it goes to the dead letters
    /// there. The entry still has to be reported as taken.
    ///
    /// # Errors
    /// [`LeafError::NoStream`]: no such stream, or an earlier refusal is not out yet.
    pub fn reject(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        position: Position,
    ) -> Result<(), LeafError> {
        self.advance(now);
        self.link.reject(stream, position).map_err(|()| LeafError::NoStream)
    }

    /// Whether the other end has greeted and, for a leaf, granted a lease.
    pub fn is_connected(&self) -> bool {
        self.link.is_open() && (self.config.role == Role::Client || self.lease.held())
    }

    /// Whether everything that the store has reported of the own queue is acknowledged.
    pub fn is_drained(&self) -> bool {
        self.is_connected() && self.link.drained()
    }

    /// Round trip of the last ping, in microseconds; 0 when not known.
    pub const fn round_trip_us(&self) -> u32 {
        self.link.round_trip_us
    }

    /// The name of the node at the other end, while it is known.
    pub fn peer(&self) -> Option<Name> {
        self.link.peer.map(|peer| peer.name)
    }

    /// The feature bits that both ends offered; 0 without a link.
    pub fn features(&self) -> u32 {
        self.link.peer.map_or(0, |peer| peer.features)
    }

    /// Longest frame that the leaf takes, in bytes.
    pub const fn frame_bytes_max(&self) -> u32 {
        self.config.link.frame_bytes_max
    }

    /// The life of the log that the leaf speaks of.
    pub const fn epoch(&self) -> Epoch {
        self.config.link.epoch
    }

    /// What was counted since the start.
    pub const fn stats(&self) -> LinkStats {
        self.link.stats
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn tell(&mut self, event: LeafEvent) {
        // Three kinds can be due at once; a later one of a kind tells more than the earlier.
        let slot = match event {
            LeafEvent::Connected { .. } => 0,
            LeafEvent::Registered { .. } => 1,
            LeafEvent::Refused { .. } | LeafEvent::Disconnected => 2,
        };
        self.event[slot] = Some(event);
    }

    fn up(&mut self, input: &Input<'_>) {
        self.done = false;
        self.link_up = true;
        self.due_at = Instant::ZERO;
        self.link.up(self.now, input, self.config.role, &mut self.rng);
        self.link.lease_first = self.lease.knows_a_term();
        self.dialer.up(self.now);
        if self.stopping {
            self.link.abandon();
        }
    }

    fn ended(&mut self) {
        self.due_at = Instant::ZERO;
        self.link.down();
        self.lease.stop();
        self.dialer.down(self.now, self.done, &self.config.dial, &mut self.rng);
        if core::mem::take(&mut self.link_up) {
            self.event = [None; 3];
            self.tell(LeafEvent::Disconnected);
        }
    }

    fn greeted(&mut self) {
        let Some(peer) = self.link.peer else {
            return;
        };
        let asks_member = self.config.role == Role::Client && peer.role == Role::Member;
        if peer.role != Role::Hub && !asks_member {
            return self.link.refuse(RefuseReason::Role, 0);
        }
        self.tell(LeafEvent::Connected { node: peer.id });
        if self.config.role == Role::Client {
            self.link.settle(self.now);
            self.attach();
            if self.config.consumer.is_some() {
                self.link.subscribe();
            }
        } else {
            self.lease.start(self.now);
        }
    }

    fn attach(&mut self) {
        if let Some(queue) = self.config.queue {
            self.link.attach(0, queue);
        }
    }

    fn granted(&mut self, lease: wire::TermLease) {
        let instance = self.link.peer.map_or(0, |peer| peer.instance);
        match self.lease.granted(self.now, lease, instance, &self.config.lease) {
            Granted::TermOver => {
                self.link.refuse_term();
                return self.tell(LeafEvent::Refused { reason: RefuseReason::Term });
            }
            Granted::First => {
                self.tell(LeafEvent::Registered { lease_ms: lease.lease_ms });
                self.attach();
            }
            Granted::Again => {}
        }
        self.link.settle(self.now);
    }

    fn upcall(&mut self, upcall: Upcall<'_>) {
        self.due_at = Instant::ZERO;
        match upcall {
            Upcall::Greeted => self.greeted(),
            Upcall::Lease(lease) => self.granted(lease),
            Upcall::Redirected(_) => {
                self.dialer.redirect();
                self.tell(LeafEvent::Refused { reason: RefuseReason::Standby });
            }
            Upcall::Refused(refuse) => {
                self.dialer.hint(refuse.retry_after_ms);
                self.tell(LeafEvent::Refused { reason: refuse.reason });
            }
            Upcall::Bye(bye) => {
                self.done = bye.reason == ByeReason::Done;
                self.dialer.hint(bye.retry_after_ms);
            }
            Upcall::Register(_) | Upcall::Subscribe(_) => {
                self.link.refuse(RefuseReason::Role, 0);
            }
        }
    }

    fn recv(&mut self, link: LinkId, data: &[u8]) -> usize {
        let mut taken = 0;
        if self.link.is_down() || link != LinkId(0) {
            return 0;
        }
        loop {
            let (bytes, upcall) = self.link.recv(self.now, &data[taken..], &self.config.link);
            taken += bytes;
            match upcall {
                Some(upcall) => self.upcall(upcall),
                None => return taken,
            }
        }
    }

    fn completion(&mut self, input: &Input<'_>) {
        match *input {
            Input::Sent { stream, next, bytes, wire_bytes, .. } => {
                self.link.sent(self.now, stream, next, bytes, wire_bytes);
            }
            Input::Gone { stream, next, reason, .. } => self.link.gone(stream, next, reason),
            Input::Taken { stream, next, bytes, .. } => {
                self.link.taken(self.now, stream, next, bytes);
            }
            Input::Refused { stream, reason, .. } => {
                self.due_at = Instant::ZERO;
                self.link.refused(self.now, stream, reason, &self.config.link);
            }
            Input::Appended { stream, next, .. } => self.link.appended(self.now, stream, next),
            Input::Answer { token, answer } if link_of(token) == LinkId(0) => {
                self.link.answer(self.now, token, answer);
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.link.tick(self.now, &self.config.link);
        match self.lease.due(self.now, &self.config.lease) {
            Some(LeaseDue::Register) => self.link.register(),
            Some(LeaseDue::Failed) => self.link.abandon(),
            None => {}
        }
        if self.now >= self.linger_deadline() && self.link.drained() {
            self.done = true;
            self.link.close(ByeReason::Done, 0);
        }
    }

    /// In poll mode: when the link has been quiet for long enough.
    fn linger_deadline(&self) -> Instant {
        let timing = &self.config.dial;
        if timing.poll_interval_ms == 0 || !self.is_connected() {
            return Instant::NEVER;
        }
        self.link.quiet_at(timing.linger_ms)
    }

    fn wake(&mut self) -> Option<Instant> {
        let mut wake = self.link.deadline(&self.config.link);
        wake = wake.min(self.lease.deadline(&self.config.lease));
        if self.link.drained() {
            wake = wake.min(self.linger_deadline());
        }
        if self.may_dial() {
            wake = wake.min(self.dialer.deadline());
        }
        self.due_at = wake;
        // What is due already is done by `handle`, so a deadline in the past waits for nothing.
        (wake != Instant::NEVER)
            .then(|| wake.max(Instant::from_micros(self.now.as_micros().saturating_add(1))))
    }

    fn may_dial(&self) -> bool {
        self.config.dials && !self.stopping
    }
}

impl Machine for Leaf {
    type Event = LeafEvent;

    /// A leaf asks for nothing to be persisted: its places are in the log.
    fn restore(&mut self, _key: Key, _record: &[u8]) -> Result<(), RestoreError> {
        Err(RestoreError::Malformed)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) -> usize {
        self.advance(now);
        let mut taken = 0;
        match input {
            Input::LinkUp { .. } => self.up(&input),
            Input::LinkDown { .. } | Input::DialFailed { .. } => self.ended(),
            Input::Recv { link, data } => taken = self.recv(link, data),
            Input::Writable { bytes, .. } => self.link.writable(bytes),
            _ => self.completion(&input),
        }
        if self.now >= self.due_at {
            self.tick();
        }
        taken
    }

    fn poll(&mut self, buf: &mut [u8]) -> Output<LeafEvent> {
        for slot in &mut self.event {
            if let Some(event) = *slot {
                *slot = None;
                return Output::Event { event, len: 0 };
            }
        }
        let config = &self.config;
        let local = || config.local();
        if let Some(output) = self.link.poll(self.now, &config.link, &local, &mut self.tokens, buf)
        {
            return output;
        }
        if self.may_dial() && self.dialer.dial(self.now, &self.config.dial) {
            return Output::Dial { dial: DIAL };
        }
        Output::Idle { wake: self.wake() }
    }
}
