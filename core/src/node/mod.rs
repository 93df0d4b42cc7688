//! The composition for hubs and gateways: many links, a table of leaves, and upstream hubs.
//!
//! A [`Node`] takes links from leaves, hubs and client programs, and dials those it is told to. As
//! a hub it registers leaves and sends each what the queues of its name hold. Towards an upstream
//! hub it is itself a leaf. All memory is the caller's ([`NodeMemory`]); finding a link, a leaf or
//! the next deadline costs the same for ten leaves and for a hundred thousand.
//!
//! What is persisted: the registration of each leaf, before it is first granted or when it changes,
//! so that a restarted hub knows whom to expect and lets nobody go before one full lease (HS-09).
//! Renewals write nothing.

mod links;
mod standby;

use crate::contract::{DialIndex, Input, Key, LinkId, Machine, Output, RestoreError};
use crate::lease::{
    DialTiming, Dialer, HubTerm, LeaseClient, LeaseConfig, LeaseDue, LeaseServer, LeaseSlot,
    LeaseTiming,
};
use crate::link::{LinkSettings, LinkStats};
use crate::ready::Ready;
use crate::rng::Rng;
use crate::stream::{Address, Epoch, Name, NodeId};
use crate::time::Instant;
use crate::timers::{Timer, Timers};
use crate::wire::{self, ByeReason, RefuseReason};

pub use links::LinkSlot;
pub use standby::turn_away;

/// What a [`Node`] is told at its start.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct NodeConfig {
    /// What every link has.
    pub link: LinkSettings,
    /// For jitter.
    pub seed: u64,
    /// Whether leaves may register. Default true.
    pub hub: bool,
    /// What the hub grants.
    pub lease: LeaseConfig,
    /// Where this node can be reached; told to upstream hubs. Default nowhere.
    pub address: Option<Address>,
    /// The term in which this hub leads those that hold its log with it; 0, the default, for a hub
    /// alone. Leaves refuse it once they have heard of a later one. A later one that was stored under
    /// the [`Key::Term`] of this node counts in its place.
    pub term: u64,
    /// A queue to read at upstream hubs beside the one of this node's name. Default none.
    pub extra_queue: Option<Name>,
    /// When it dials.
    pub dial: DialTiming,
    /// When it registers at upstream hubs.
    pub register: LeaseTiming,
}

impl NodeConfig {
    /// The defaults.
    pub const fn new(link: LinkSettings, seed: u64) -> Self {
        Self {
            link,
            seed,
            hub: true,
            lease: LeaseConfig::new(),
            address: None,
            term: 0,
            extra_queue: None,
            dial: DialTiming::new(),
            register: LeaseTiming::new(),
        }
    }
}

/// What is at the other end of a configured place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DialTarget {
    /// A hub above this node, to register at. It reads this own queue.
    Upstream {
        /// The own queue.
        queue: Name,
        /// Whether this node dials it; else it dials this node.
        dials: bool,
    },
    /// A leaf below this hub, which does not dial by itself.
    Leaf,
}

/// A configured place and what is known of it.
#[derive(Clone, Debug)]
pub struct DialSlot {
    target: DialTarget,
    dialer: Dialer,
    lease: LeaseClient,
    link: Option<LinkId>,
    /// Ended because there was nothing more to say.
    done: bool,
    /// The term of the lease that the driver was last told to keep.
    term_stored: HubTerm,
    /// The driver is to be told to keep it.
    term_due: bool,
}

impl DialSlot {
    /// A place to dial, or to be dialled from.
    pub const fn new(target: DialTarget) -> Self {
        Self {
            target,
            dialer: Dialer::new(),
            lease: LeaseClient::new(),
            link: None,
            done: false,
            term_stored: HubTerm { term: 0, instance: 0 },
            term_due: false,
        }
    }

    const fn dials(&self) -> bool {
        match self.target {
            DialTarget::Upstream { dials, .. } => dials,
            DialTarget::Leaf => true,
        }
    }

    /// The hub above that is there, whatever machine it runs on.
    fn upstream(&self) -> Option<NodeId> {
        match self.target {
            DialTarget::Upstream { queue, .. } => Some(queue.node_id()),
            DialTarget::Leaf => None,
        }
    }

    /// The term of the hub there is to be stored when it is another. A hub alone has none.
    fn note_term(&mut self) {
        let term = self.lease.term();
        self.term_due = term.term > 0 && term != self.term_stored;
    }

    /// The link there, if there is one.
    pub const fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Whether the hub there has granted a lease on the present link.
    pub fn is_registered(&self) -> bool {
        self.lease.held()
    }
}

/// The memory of a [`Node`].
#[derive(Debug)]
pub struct NodeMemory<'m> {
    /// One for each link that may be open at once; about 2 KiB each.
    pub links: &'m mut [LinkSlot],
    /// [`LeaseServer::slots_for`] as many leaves as may be registered; about 300 bytes each.
    pub leases: &'m mut [LeaseSlot],
    /// As many as `leases`.
    pub lease_timers: &'m mut [Timer],
    /// The configured places, in the order of [`DialIndex`].
    pub dials: &'m mut [DialSlot],
    /// As many as `links` and `dials` together.
    pub timers: &'m mut [Timer],
    /// As many as `links` and `dials` together.
    pub ready: &'m mut [u32],
}

/// What a [`Node`] tells the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NodeEvent {
    /// A leaf is registered and on this link.
    LeafUp {
        /// Who.
        node: NodeId,
        /// Its link.
        link: LinkId,
    },
    /// The link of a registered leaf has ended. Its lease runs on.
    LeafDown {
        /// Who.
        node: NodeId,
    },
    /// A leaf has not renewed: it is not served until it registers again. Its queue is kept.
    LeaseExpired {
        /// Who.
        node: NodeId,
    },
    /// A link or a registration was refused.
    PeerRefused {
        /// Who, as far as it has said.
        node: NodeId,
        /// Why.
        reason: RefuseReason,
    },
    /// An upstream hub has granted a lease, for the first time on this link.
    Registered {
        /// Which place.
        dial: DialIndex,
        /// How long it holds, in milliseconds.
        lease_ms: u32,
    },
    /// An upstream hub refuses this node, or is refused ([`RefuseReason::Term`]). It tries again
    /// later; on [`RefuseReason::Term`] and [`RefuseReason::Standby`] a driver that knows several
    /// addresses of the hub dials the next one.
    UpstreamRefused {
        /// Which place.
        dial: DialIndex,
        /// Why.
        reason: RefuseReason,
    },
    /// What was dialled stands by. The detail is the address of the hub that leads, to be dialled
    /// next.
    Redirected {
        /// Which place.
        dial: DialIndex,
    },
    /// The link to a configured place has ended.
    DialDown {
        /// Which place.
        dial: DialIndex,
    },
}

/// Why a command was not done. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NodeError {
    /// No such leaf is registered.
    NotFound,
    /// The last such command was not drained yet.
    Busy,
}

/// What a [`Node`] has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct NodeStats {
    /// Of all links, those that have ended included.
    pub link: LinkStats,
    /// Registrations granted.
    pub registered: u64,
    /// Renewals granted.
    pub renewed: u64,
    /// Leases that ended without renewal.
    pub expired: u64,
    /// Links and registrations refused.
    pub refused: u64,
}

/// Many links, a table of leaves, and upstream hubs. See the [module](self).
#[derive(Debug)]
pub struct Node<'m> {
    config: NodeConfig,
    now: Instant,
    rng: Rng,
    tokens: u32,
    links: &'m mut [LinkSlot],
    dials: &'m mut [DialSlot],
    leases: LeaseServer<'m>,
    /// Deadlines of links, then of dials.
    timers: Timers<'m>,
    /// Links, then dials, that may have an output.
    ready: Ready<'m>,
    started: bool,
    stopping: bool,
    forget: Option<NodeId>,
    redirected: Option<(DialIndex, Address)>,
    ended: LinkStats,
    stats: NodeStats,
}

/// Deadlines served in one `handle`; the rest come with the next.
const DEADLINES_PER_INPUT_MAX: u32 = 64;

impl<'m> Node<'m> {
    /// A node without links.
    ///
    /// # Panics
    /// When the slices of `memory` do not have the lengths that their docs ask for.
    pub fn new(config: NodeConfig, memory: NodeMemory<'m>) -> Self {
        let owners = memory.links.len() + memory.dials.len();
        assert!(memory.timers.len() == owners, "each link and each dial needs a timer");
        assert!(memory.ready.len() == owners, "each link and each dial needs a ready place");
        assert!(memory.links.len() < 1 << 24, "a link number has 24 bits");
        memory.links.fill(LinkSlot::FREE);
        Self {
            config,
            now: Instant::ZERO,
            rng: Rng::new(config.seed),
            tokens: 0,
            links: memory.links,
            dials: memory.dials,
            leases: LeaseServer::new(config.lease, memory.leases, memory.lease_timers),
            timers: Timers::new(memory.timers),
            ready: Ready::new(memory.ready),
            started: false,
            stopping: false,
            forget: None,
            redirected: None,
            ended: LinkStats::default(),
            stats: NodeStats::default(),
        }
    }

    /// Ends the node and gives its memory back, for another to be made in. Before that, the caller
    /// writes `dials` anew.
    pub fn into_memory(self) -> NodeMemory<'m> {
        let (leases, lease_timers) = self.leases.into_memory();
        NodeMemory {
            links: self.links,
            leases,
            lease_timers,
            dials: self.dials,
            timers: self.timers.into_memory(),
            ready: self.ready.into_memory(),
        }
    }

    /// Closes every link with a good-bye, dials no more and takes no link. Passes over all links.
    pub fn stop(&mut self, now: Instant) {
        self.advance(now);
        self.stopping = true;
        for link in 0..self.links.len() as u32 {
            self.links[link as usize].link.close(ByeReason::Stopping, 0);
            self.touch(link);
        }
        for dial in 0..self.dials.len() {
            self.touch(self.owner_of(dial));
        }
    }

    /// Forgets a leaf that is gone for good. Its link is closed if it has one.
    ///
    /// # Errors
    /// [`NodeError::NotFound`], [`NodeError::Busy`].
    pub fn forget(&mut self, now: Instant, node: NodeId) -> Result<(), NodeError> {
        self.advance(now);
        if self.forget.is_some() {
            return Err(NodeError::Busy);
        }
        let link = self.leases.forget(node).ok_or(NodeError::NotFound)?;
        self.forget = Some(node);
        if let Some(link) = link {
            self.links[link.0 as usize].link.close(ByeReason::Expired, 0);
            self.touch(link.0);
        }
        Ok(())
    }

    /// The table of leaves.
    pub const fn leases(&self) -> &LeaseServer<'m> {
        &self.leases
    }

    /// A configured place.
    pub fn dial(&self, dial: DialIndex) -> Option<&DialSlot> {
        self.dials.get(usize::from(dial.0))
    }

    /// An open link whose other end is known.
    pub fn peer(&self, link: LinkId) -> Option<PeerInfo> {
        let link = &self.links.get(link.0 as usize)?.link;
        let peer = link.peer.as_ref()?;
        Some(PeerInfo {
            name: peer.name,
            role: peer.role,
            features: peer.features,
            round_trip_us: link.round_trip_us,
        })
    }

    /// What was counted since the start. Passes over all links.
    pub fn stats(&self) -> NodeStats {
        let mut stats = self.stats;
        stats.link = self.ended;
        for slot in &*self.links {
            stats.link.add(&slot.link.stats);
        }
        stats
    }

    /// The life of the log that the node speaks of.
    pub const fn epoch(&self) -> Epoch {
        self.config.link.epoch
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if !self.started {
            self.started = true;
            self.leases.start(self.now);
            for dial in 0..self.dials.len() {
                self.retime_dial(dial);
            }
        }
    }

    const fn owner_of(&self, dial: usize) -> u32 {
        (self.links.len() + dial) as u32
    }

    /// Something about the owner has changed: it may have an output.
    fn touch(&mut self, owner: u32) {
        self.ready.push(owner);
    }

    const fn may_dial(&self) -> bool {
        !self.stopping
    }

    fn retime_dial(&mut self, dial: usize) {
        let slot = &self.dials[dial];
        let mut deadline = slot.lease.deadline(&self.config.register);
        if slot.dials() && self.may_dial() {
            deadline = deadline.min(slot.dialer.deadline());
        }
        deadline = deadline.min(self.linger_deadline(dial));
        self.timers.set(self.owner_of(dial), deadline);
    }

    /// In poll mode: when the link to a place has been quiet for long enough.
    fn linger_deadline(&self, dial: usize) -> Instant {
        let timing = &self.config.dial;
        let slot = &self.dials[dial];
        let Some(link) = slot.link else {
            return Instant::NEVER;
        };
        let link = &self.links[link.0 as usize].link;
        if timing.poll_interval_ms == 0 || !slot.lease.held() || !link.drained() {
            return Instant::NEVER;
        }
        link.quiet_at(timing.linger_ms)
    }

    fn tick_dial(&mut self, dial: usize) {
        let linger = self.linger_deadline(dial);
        let slot = &mut self.dials[dial];
        let due = slot.lease.due(self.now, &self.config.register);
        let done = self.now >= linger;
        slot.done |= done;
        if let Some(id) = slot.link {
            let link = &mut self.links[id.0 as usize].link;
            match due {
                Some(LeaseDue::Register) => link.register(),
                Some(LeaseDue::Failed) => link.abandon(),
                None => {}
            }
            if done {
                link.close(ByeReason::Done, 0);
            }
            self.touch(id.0);
        }
        self.touch(self.owner_of(dial));
        self.retime_dial(dial);
    }

    fn tick(&mut self) {
        for _ in 0..DEADLINES_PER_INPUT_MAX {
            let Some(owner) = self.timers.due(self.now) else {
                return;
            };
            match (owner as usize).checked_sub(self.links.len()) {
                Some(dial) => {
                    self.timers.set(owner, Instant::NEVER);
                    self.tick_dial(dial);
                }
                None => self.tick_link(owner),
            }
        }
    }

    fn poll_dial(&mut self, dial: usize) -> Option<Output<NodeEvent>> {
        if !self.may_dial() {
            return None;
        }
        let slot = &mut self.dials[dial];
        if slot.dials() && slot.link.is_none() && slot.dialer.dial(self.now, &self.config.dial) {
            slot.done = false;
            return Some(Output::Dial { dial: DialIndex(dial as u16) });
        }
        None
    }

    fn poll_ready(&mut self, buf: &mut [u8]) -> Option<Output<NodeEvent>> {
        while let Some(owner) = self.ready.front() {
            let output = match (owner as usize).checked_sub(self.links.len()) {
                Some(dial) => self.poll_dial(dial),
                None => self.poll_link(owner, buf),
            };
            if output.is_some() {
                if let Some(Output::SendRecords { .. }) = output {
                    self.ready.rotate();
                }
                return output;
            }
            self.ready.pop();
            match (owner as usize).checked_sub(self.links.len()) {
                Some(dial) => self.retime_dial(dial),
                None => self.retime_link(owner),
            }
        }
        None
    }

    fn poll_expired(&mut self) -> Option<Output<NodeEvent>> {
        let slot = self.leases.expire(self.now)?;
        self.stats.expired += 1;
        let leaf = self.leases.slot(slot);
        let node = leaf.registration().map_or(NodeId::NONE, |leaf| leaf.name.node_id());
        if let Some(link) = leaf.link() {
            self.links[link.0 as usize].link.close(ByeReason::Expired, 0);
            self.touch(link.0);
        }
        Some(Output::Event { event: NodeEvent::LeaseExpired { node }, len: 0 })
    }

    fn wake(&self) -> Option<Instant> {
        let wake = self.timers.earliest().min(self.leases.deadline());
        (wake != Instant::NEVER)
            .then(|| wake.max(Instant::from_micros(self.now.as_micros().saturating_add(1))))
    }
}

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PeerInfo {
    /// Its name.
    pub name: Name,
    /// What it is on this link.
    pub role: wire::Role,
    /// The feature bits that both ends offered.
    pub features: u32,
    /// Round trip of the last ping, in microseconds; 0 when not known.
    pub round_trip_us: u32,
}

impl Machine for Node<'_> {
    type Event = NodeEvent;

    fn restore(&mut self, key: Key, record: &[u8]) -> Result<(), RestoreError> {
        if self.started {
            return Err(RestoreError::Started);
        }
        match key {
            Key::Registration(_) => self.leases.restore(record),
            Key::Term(hub) => self.restore_term(hub, record),
            Key::Ballot | Key::Members => Err(RestoreError::Malformed),
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) -> usize {
        self.advance(now);
        let taken = self.input(&input);
        self.tick();
        taken
    }

    fn poll(&mut self, buf: &mut [u8]) -> Output<NodeEvent> {
        if let Some(node) = self.forget.take() {
            return Output::Forget { key: Key::Registration(node) };
        }
        if let Some((dial, address)) = self.redirected {
            let detail = address.as_str().as_bytes();
            let Some(space) = buf.get_mut(..detail.len()) else {
                return Output::NeedBuffer { len: wire::CONTROL_FRAME_BYTES_MAX };
            };
            space.copy_from_slice(detail);
            self.redirected = None;
            return Output::Event { event: NodeEvent::Redirected { dial }, len: detail.len() };
        }
        if let Some(output) = self.poll_expired() {
            return output;
        }
        if let Some(output) = self.poll_ready(buf) {
            return output;
        }
        Output::Idle { wake: self.wake() }
    }
}
