//! The composition for clusters: who is here and who leads.
//!
//! A [`Member`] is linked to every other member, dials those whose address it knows, and drives the
//! two parts: an [`Election`] and a registry. Without an election (`election: None`) it is the
//! registry alone, and all members are equal.
//!
//! What a driver does beside the rules of [`crate::contract`]:
//!
//! * It reads the clock **after** the bytes that it gives ([`Input::Recv`]): a promise not to vote
//!   counts from that time, and must not have begun before the heartbeat was made.
//! * It gives what has arrived before it gives [`Input::Timeout`], so that a busy machine is not
//!   taken for a silent one.
//! * After each `handle` and each command, before it does what `poll` asks, it publishes
//!   [`Member::leader_until`] to whoever asks "do I lead?". The answer is yes as long as the clock
//!   is before it, and is compared anew each time: a process may be stopped in between for as long
//!   as it likes. Events come out of `poll` before frames, so that a driver may publish on events
//!   alone.
//! * It stores [`Key::Ballot`] and [`Key::Members`] so that they survive the loss of power before
//!   it answers [`Input::Persisted`], and gives both back at the start.
//!
//! Memory: a [`PeerSlot`] for each peer, about 490 bytes, most of them metadata; a [`MemberLink`]
//! for each link, about 210; an [`ElectionSlot`] for each other member, about 105; the member itself
//! about 1.5 KiB.

mod config;
mod link;
mod receive;
mod report;
mod send;

use crate::contract::{DialIndex, Input, Key, LinkId, Machine, Output, RestoreError, Token};
use crate::election::{ConfigError, Election, ElectionEvent, ElectionSlot, Leader, Membership};
use crate::registry::{OWN_BIT, PEERS_MAX, PeerSlot, PeerState, PeerView, Registry, RegistryEvent};
use crate::rng::Rng;
use crate::stream::{Address, Name, NodeId};
use crate::time::Instant;
use crate::wire::{ByeReason, METADATA_BYTES_MAX, MemberRole, Progress, RefuseReason, Role, Wish};

pub use config::{MemberConfig, MemberMemory};
pub use link::MemberLink;
pub use report::{MemberError, MemberEvent, MemberStats};

use link::due;

/// Longest frame taken: a part of a call. What members say to each other is shorter.
const CALL_FRAME_BYTES_MAX: u32 = 64 << 10;

/// A member of a cluster. See the [module](self).
#[derive(Debug)]
pub struct Member<'m> {
    config: MemberConfig,
    now: Instant,
    rng: Rng,
    tokens: u64,
    started: bool,
    stopping: bool,
    election: Option<Election<&'m mut [ElectionSlot]>>,
    registry: Registry<'m>,
    links: &'m mut [MemberLink],
    /// Links from here on are down, and are not looked at.
    links_end: usize,
    /// The orders to store that are under way.
    ballot_token: Option<Token>,
    members_token: Option<Token>,
    refused: Option<(NodeId, RefuseReason)>,
    stats: MemberStats,
}

impl<'m> Member<'m> {
    /// A member without links.
    ///
    /// # Errors
    /// `config.election` breaks a rule of [`ElectionConfig::check`](crate::election::ElectionConfig::check).
    ///
    /// # Panics
    /// When `memory` has more than [`PEERS_MAX`] peers, or not as many members as peers with an
    /// election.
    pub fn new(config: MemberConfig, memory: MemberMemory<'m>) -> Result<Self, ConfigError> {
        let MemberMemory { peers, links, members } = memory;
        assert!(peers.len() <= PEERS_MAX, "at most {PEERS_MAX} peers");
        let own = config.name.node_id();
        let mut rng = Rng::new(config.seed);
        let seed = rng.next_u64();
        let election = match config.election {
            None => None,
            Some(election) => {
                assert!(members.len() == peers.len(), "each peer needs a place among the members");
                Some(Election::new(election, own, seed, members)?)
            }
        };
        links.fill(MemberLink::FREE);
        let mut registry = Registry::new(config.registry, config.name, peers);
        registry.own.address = config.address;
        registry.own.priority = config.priority;
        Ok(Self {
            config,
            now: Instant::ZERO,
            rng,
            tokens: 0,
            started: false,
            stopping: false,
            election,
            registry,
            links,
            links_end: 0,
            ballot_token: None,
            members_token: None,
            refused: None,
            stats: MemberStats::default(),
        })
    }

    /// A peer of the configuration file, and what stands there of it. Before the start it is a
    /// member of the first configuration, with a vote when `voter`; later it is only a node to be
    /// linked to.
    ///
    /// # Errors
    /// [`MemberError::OwnName`], [`MemberError::Duplicate`] (the first stays),
    /// [`MemberError::MetadataTooLong`], [`MemberError::Full`].
    pub fn add_known_peer(
        &mut self,
        name: Name,
        address: Option<Address>,
        metadata: Option<&[u8]>,
        voter: bool,
    ) -> Result<(), MemberError> {
        if name.node_id() == self.config.name.node_id() {
            return Err(MemberError::OwnName);
        }
        if metadata.is_some_and(|metadata| metadata.len() > METADATA_BYTES_MAX) {
            return Err(MemberError::MetadataTooLong);
        }
        let found = self.registry.find(name.node_id());
        if found.is_some_and(|at| self.registry.peers[at].of_file) {
            return Err(MemberError::Duplicate);
        }
        let at = self.registry.place(name, self.now).ok_or(MemberError::Full)?;
        if let Some(metadata) = metadata {
            self.registry.set_file_metadata(at, metadata);
        }
        let peer = &mut self.registry.peers[at];
        peer.facts.address = peer.facts.address.or(address);
        peer.of_file = true;
        peer.lasting = true;
        peer.file_voter = voter;
        Ok(())
    }

    /// What this node says of itself from now on. Before the start: what its own configuration
    /// says. Goes to all members at once.
    ///
    /// # Errors
    /// [`MemberError::MetadataTooLong`].
    pub fn set_metadata(&mut self, now: Instant, metadata: &[u8]) -> Result<(), MemberError> {
        if metadata.len() > METADATA_BYTES_MAX {
            return Err(MemberError::MetadataTooLong);
        }
        self.advance(now);
        self.registry.set_own_metadata(metadata);
        self.own_changed();
        Ok(())
    }

    /// Leads no more, and asks the best follower to campaign at once.
    ///
    /// # Errors
    /// [`MemberError::NotLeading`], [`MemberError::NoElection`].
    pub fn resign(&mut self, now: Instant) -> Result<(), MemberError> {
        self.advance(now);
        let now = self.now;
        let election = self.election.as_mut().ok_or(MemberError::NoElection)?;
        if election.role() != MemberRole::Leader {
            return Err(MemberError::NotLeading);
        }
        election.resign(now);
        Ok(())
    }

    /// Resigns if it leads, closes every link with a good-bye, dials no more and takes no link.
    pub fn stop(&mut self, now: Instant) {
        self.advance(now);
        if let Some(election) = &mut self.election {
            election.resign(self.now);
        }
        self.stopping = true;
        for link in &mut self.links[..self.links_end] {
            link.close(ByeReason::Stopping);
        }
    }

    /// Wishes to be a member: said to every node that it reaches until the leader has made it one.
    ///
    /// # Errors
    /// [`MemberError::NoElection`].
    pub fn join(&mut self, now: Instant, voter: bool) -> Result<(), MemberError> {
        self.wish(now, if voter { Wish::Voter } else { Wish::Learner })
    }

    /// Wishes to be no member any more, and resigns if it leads. The leader removes it;
    /// [`ElectionEvent::Removed`] follows.
    ///
    /// # Errors
    /// [`MemberError::NoElection`], [`MemberError::OnlyVoter`].
    pub fn leave(&mut self, now: Instant) -> Result<(), MemberError> {
        self.advance(now);
        let election = self.election.as_mut().ok_or(MemberError::NoElection)?;
        let own = self.config.name.node_id();
        let other = |(node, it): (NodeId, Membership)| it == Membership::Voter && node != own;
        if election.membership(own) == Membership::Voter && !election.members().any(other) {
            return Err(MemberError::OnlyVoter);
        }
        election.resign(self.now);
        self.wish(now, Wish::Leave)
    }

    /// Makes a linked peer a voter or a learner, or any member no member. To be asked of the
    /// leader. Through when [`Self::is_settled`] says so.
    ///
    /// # Errors
    /// [`MemberError::NoElection`], [`MemberError::NotLeading`], [`MemberError::NotConnected`],
    /// [`MemberError::Busy`] (also for the leader itself, which has to resign first),
    /// [`MemberError::Full`].
    pub fn change_member(
        &mut self,
        now: Instant,
        node: NodeId,
        to: Membership,
    ) -> Result<(), MemberError> {
        self.advance(now);
        let linked = self.registry.find(node).is_some_and(|at| {
            let peer = &self.registry.peers[at];
            peer.link.is_some()
        });
        let election = self.election.as_mut().ok_or(MemberError::NoElection)?;
        if election.leader_until().is_none() {
            return Err(MemberError::NotLeading);
        }
        if to != Membership::None && node != self.config.name.node_id() && !linked {
            return Err(MemberError::NotConnected);
        }
        election.change(self.now, node, to)?;
        Ok(())
    }

    /// How fresh this node is: see [`Election::set_progress`].
    pub fn set_progress(&mut self, now: Instant, progress: Progress) {
        self.advance(now);
        if let Some(election) = &mut self.election {
            election.set_progress(progress);
        }
    }

    // What is known.

    /// What this node is at the moment.
    pub fn role(&self) -> MemberRole {
        self.election.as_ref().map_or(MemberRole::None, Election::role)
    }

    /// The term; 0 without an election.
    pub fn term(&self) -> u64 {
        self.election.as_ref().map_or(0, Election::term)
    }

    /// The leader, itself included; `None` when none is known.
    pub fn leader(&self) -> Option<Leader> {
        self.election.as_ref().and_then(Election::leader)
    }

    /// Until when this node may say that it leads; `None` when it does not. See the
    /// [module](self).
    pub fn leader_until(&self) -> Option<Instant> {
        self.election.as_ref().and_then(Election::leader_until)
    }

    /// A node, this one included.
    pub fn peer(&self, node: NodeId) -> Option<PeerView<'_>> {
        if node == self.config.name.node_id() {
            return Some(self.registry.own_view());
        }
        self.registry.view(self.registry.find(node)?)
    }

    /// All other nodes that are known.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        (0..self.registry.peers.len()).filter_map(|at| self.registry.view(at))
    }

    /// Where to dial for an [`Output::Dial`].
    pub fn dial_target(&self, dial: DialIndex) -> Option<PeerView<'_>> {
        self.registry.view(usize::from(dial.0))
    }

    /// Who is at the other end of a link, and as what, once it has greeted.
    pub fn link_peer(&self, link: LinkId) -> Option<(Name, Role)> {
        let greeting = self.links.get(link.0 as usize)?.greeting?;
        Some((greeting.name, greeting.role))
    }

    /// What a node is in the present configuration.
    pub fn membership(&self, node: NodeId) -> Membership {
        self.election.as_ref().map_or(Membership::None, |election| election.membership(node))
    }

    /// Whether a majority has stored the present configuration, so that the leader may make the
    /// next.
    pub fn is_settled(&self) -> bool {
        self.election.as_ref().is_some_and(Election::is_settled)
    }

    /// The part that elects, for what else it knows; `None` without an election.
    pub const fn election(&self) -> Option<&Election<&'m mut [ElectionSlot]>> {
        self.election.as_ref()
    }

    /// What was counted since the start.
    pub fn stats(&self) -> MemberStats {
        let mut stats = self.stats;
        stats.election = self.election.as_ref().map_or(stats.election, Election::stats);
        stats.entries_refused = self.registry.refused;
        stats.health = self.registry.health;
        stats
    }

    // Inside.

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if !core::mem::replace(&mut self.started, true) {
            self.start();
        }
    }

    fn start(&mut self) {
        let own = (self.config.name.node_id(), self.config.membership);
        let Some(election) = &mut self.election else {
            return;
        };
        if own.1 != Membership::None {
            let peers = self.registry.peers.iter().filter(|peer| peer.of_file).map(|peer| {
                (peer.node, if peer.file_voter { Membership::Voter } else { Membership::Learner })
            });
            // There are as many slots as peers.
            let fits = election.set_members(core::iter::once(own).chain(peers)).is_ok();
            debug_assert!(fits);
        }
        election.start(self.now);
        self.note_members();
    }

    fn wish(&mut self, now: Instant, wish: Wish) -> Result<(), MemberError> {
        self.advance(now);
        if self.election.is_none() {
            return Err(MemberError::NoElection);
        }
        self.registry.own.wish = wish;
        self.own_changed();
        Ok(())
    }

    /// What this node says of itself is new: all are told.
    fn own_changed(&mut self) {
        self.registry.edit_own();
        self.tell_own();
    }

    fn tell_own(&mut self) {
        for link in self.links[..self.links_end].iter_mut().filter(|it| it.open_peer().is_some()) {
            link.entries |= OWN_BIT;
        }
    }

    /// The members may be others: who is one is kept while it is down, and a wish that has come
    /// true is none any more.
    fn note_members(&mut self) {
        let Some(election) = &self.election else {
            return;
        };
        for peer in self.registry.peers.iter_mut() {
            let member = election.membership(peer.node) != Membership::None;
            peer.lasting = peer.of_file || member;
        }
        let own = election.membership(self.config.name.node_id());
        let come_true = match self.registry.own.wish {
            Wish::Stay => false,
            Wish::Voter => own == Membership::Voter,
            Wish::Learner => own == Membership::Learner,
            Wish::Leave => own == Membership::None,
        };
        if come_true {
            self.registry.own.wish = Wish::Stay;
            self.own_changed();
        }
        // Who has just been removed, or asks without being a member, is told what holds.
        for link in &mut self.links[..self.links_end] {
            if let Some(at) = link.open_peer()
                && election_membership(self.election.as_ref(), self.registry.peers[at].node)
                    == Membership::None
            {
                link.due |= due::MEMBERS;
            }
        }
    }

    /// The leader makes one wish come true, if there is one.
    fn grant_wishes(&mut self) {
        let Some(election) = &mut self.election else {
            return;
        };
        if election.leader_until().is_none() || !election.is_settled() {
            return;
        }
        for peer in self.registry.peers.iter().filter(|peer| !peer.is_free()) {
            let to = match peer.facts.wish {
                Wish::Stay => continue,
                Wish::Voter => Membership::Voter,
                Wish::Learner => Membership::Learner,
                Wish::Leave => Membership::None,
            };
            let allowed = to == Membership::None
                || (peer.link.is_some() && (self.config.admits || peer.of_file));
            if allowed && election.membership(peer.node) != to {
                // Refused for now: the next heartbeat asks again.
                let _ = election.change(self.now, peer.node, to);
                return;
            }
        }
    }

    /// How many better candidates are there; `None` for a witness.
    fn rank(&self) -> Option<u8> {
        if self.config.priority == 0 {
            return None;
        }
        let better = self.registry.peers.iter().filter(|peer| {
            peer.state == PeerState::Up
                && peer.facts.priority > self.config.priority
                && self.membership(peer.node) == Membership::Voter
        });
        Some(better.count() as u8)
    }

    fn tick(&mut self) {
        let (now, handshake_ms) = (self.now, self.config.handshake_ms);
        for link in &mut self.links[..self.links_end] {
            let silent = link.tick(now, handshake_ms, &self.config.registry);
            self.stats.link.silent += u64::from(silent);
        }
        let suspected = self.registry.tick(now);
        if suspected != 0 {
            for link in &mut self.links[..self.links_end] {
                if let Some(at) = link.open_peer() {
                    link.probes |= suspected & !(1 << at);
                }
            }
        }
        let rank = self.rank();
        if let Some(election) = &mut self.election {
            election.set_rank(rank);
            election.tick(now);
        }
        self.grant_wishes();
    }

    fn wake(&self) -> Option<Instant> {
        let mut wake = self.registry.deadline();
        if let Some(election) = &self.election {
            wake = wake.min(election.deadline());
        }
        for link in &self.links[..self.links_end] {
            wake = wake.min(link.deadline(self.config.handshake_ms, &self.config.registry));
        }
        if !self.stopping {
            for peer in self.registry.peers.iter().filter(|peer| may_dial(peer)) {
                wake = wake.min(peer.dialer.deadline());
            }
        }
        // What is due already is done by `handle`, so a deadline in the past waits for nothing.
        (wake != Instant::NEVER)
            .then(|| wake.max(Instant::from_micros(self.now.as_micros().saturating_add(1))))
    }

    fn poll_event(&mut self) -> Option<MemberEvent> {
        if let Some(event) = self.election.as_mut().and_then(Election::take_event) {
            if matches!(event, ElectionEvent::ConfigurationChanged { .. } | ElectionEvent::Removed)
            {
                self.note_members();
            }
            return Some(MemberEvent::Election(event));
        }
        if let Some(event) = self.registry.take_event() {
            return Some(match event {
                RegistryEvent::Up(node) => MemberEvent::PeerUp { node },
                RegistryEvent::Down(node) => MemberEvent::PeerDown { node },
                RegistryEvent::Changed(node) => MemberEvent::PeerChanged { node },
            });
        }
        let (node, reason) = self.refused.take()?;
        Some(MemberEvent::Refused { node, reason })
    }

    fn poll_store(&mut self, buf: &mut [u8]) -> Option<Output<MemberEvent>> {
        let election = self.election.as_mut()?;
        let key = election.store()?;
        let Some(len) = election.record(key, buf) else {
            return Some(Output::NeedBuffer { len: crate::wire::CONTROL_FRAME_BYTES_MAX });
        };
        election.storing(key);
        self.tokens += 1;
        let token = Token(self.tokens);
        if key == Key::Ballot {
            self.ballot_token = Some(token);
        } else {
            self.members_token = Some(token);
        }
        Some(Output::Persist { key, token, len })
    }

    fn stored(&mut self, token: Token, safe: bool) {
        let key = if self.ballot_token == Some(token) {
            self.ballot_token = None;
            Key::Ballot
        } else if self.members_token == Some(token) {
            self.members_token = None;
            Key::Members
        } else {
            return;
        };
        if let Some(election) = &mut self.election {
            if safe {
                election.stored(self.now, key);
            } else {
                election.store_failed(self.now, key);
            }
        }
    }

    fn poll_dial(&mut self) -> Option<Output<MemberEvent>> {
        if self.stopping {
            return None;
        }
        let (now, timing) = (self.now, &self.config.dial);
        for (at, peer) in self.registry.peers.iter_mut().enumerate() {
            if may_dial(peer) && peer.dialer.dial(now, timing) {
                peer.dialing = true;
                return Some(Output::Dial { dial: DialIndex(at as u16) });
            }
        }
        None
    }
}

fn may_dial(peer: &PeerSlot) -> bool {
    !peer.is_free() && !peer.dialing && peer.link.is_none() && peer.facts.address.is_some()
}

fn election_membership(
    election: Option<&Election<&mut [ElectionSlot]>>,
    node: NodeId,
) -> Membership {
    election.map_or(Membership::None, |election| election.membership(node))
}

impl Machine for Member<'_> {
    type Event = MemberEvent;

    fn restore(&mut self, key: Key, record: &[u8]) -> Result<(), RestoreError> {
        if self.started {
            return Err(RestoreError::Started);
        }
        let election = self.election.as_mut().ok_or(RestoreError::Malformed)?;
        election.restore(key, record)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) -> usize {
        self.advance(now);
        let taken = self.input(&input);
        self.tick();
        taken
    }

    fn poll(&mut self, buf: &mut [u8]) -> Output<MemberEvent> {
        if let Some(event) = self.poll_event() {
            return Output::Event { event, len: 0 };
        }
        if let Some(output) = self.poll_store(buf) {
            return output;
        }
        for at in 0..self.links_end {
            if let Some(output) = self.poll_link(LinkId(at as u32), buf) {
                return output;
            }
        }
        if let Some(output) = self.poll_dial() {
            return output;
        }
        Output::Idle { wake: self.wake() }
    }
}
