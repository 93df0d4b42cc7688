//! Who leads: terms, votes, leases and the configuration of a cluster.
//!
//! The election half of Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm", 2014), without a log, with what years of use have added: a vote is asked for before
//! it is asked for in earnest, so that a node that was cut off does not depose a leader (Ongaro's
//! thesis, 9.6); a leader that a majority does not answer leads no more; voters refuse as long as a
//! leader may be alive (4.2.3). The members may change one voter at a time without a log (Schultz,
//! Zhou, Tripakis, "Design and Analysis of a Logless Dynamic Reconfiguration Protocol", 2021).
//!
//! # The lease
//!
//! A voter that accepts a heartbeat votes for nobody for `timeout_ms_min` from then on, on its own
//! clock; a voter that has just started does not for as long either, since it may have accepted one
//! before. An answer repeats when its heartbeat was made. So from the moment when the oldest of a
//! majority's newest answered heartbeats was made, no other leader can be elected for
//! `timeout_ms_min` on the slowest clock, and the leader may say that it leads for
//! `timeout_ms_min x (1 - e) / (1 + e)` less a margin on its own, where `e` is by how much a clock's
//! rate may be wrong. Only rates count: no clock is compared with another, and the time of day is
//! not used. The term is the fencing token: it rises with every leader.
//!
//! This part holds no links and makes no frames. It is told what members say
//! ([`Election::receive`]), and says what to send to each ([`Election::message_for`]) and what to
//! store ([`Election::store`]). Its memory is the slots that it is given: a slice in a composition,
//! an array where a whole world is to be copied.

mod campaign;
mod configuration;
mod lead;

use crate::rng::Rng;
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{
    ConfigurationId, Heartbeat, HeartbeatAnswer, MemberRole, Progress, Refusal, VoteAnswer,
    VoteRequest,
};

use configuration::Stored;
pub use configuration::{ChangeError, Membership};

/// The timing of elections. All members of a cluster have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElectionConfig {
    /// The leader says so this often, in milliseconds; 1 to half of `timeout_ms_min`.
    pub heartbeat_ms: u32,
    /// The shortest wait for a heartbeat before a campaign, in milliseconds. What a lease is made
    /// of.
    pub timeout_ms_min: u32,
    /// The longest; each wait is drawn anew. More than `timeout_ms_min`, at most 3,600,000.
    pub timeout_ms_max: u32,
    /// By how much the rate of a clock may be wrong, in millionths; below 100,000, default 1,000.
    /// Quartz is within 100.
    pub clock_error_ppm: u32,
    /// Taken off a lease, in milliseconds; default 1. For what a driver takes to publish it.
    pub margin_ms: u32,
}

impl ElectionConfig {
    /// For one building: heartbeats every 50 ms, 150 to 300 ms without one start a campaign.
    pub const fn lan() -> Self {
        Self {
            heartbeat_ms: 50,
            timeout_ms_min: 150,
            timeout_ms_max: 300,
            clock_error_ppm: 1_000,
            margin_ms: 1,
        }
    }

    /// For lines across the world: 500 ms, 2.5 to 5 s.
    pub const fn wan() -> Self {
        Self { heartbeat_ms: 500, timeout_ms_min: 2_500, timeout_ms_max: 5_000, ..Self::lan() }
    }

    /// For those that sleep: 5 s, 20 to 40 s.
    pub const fn battery() -> Self {
        Self { heartbeat_ms: 5_000, timeout_ms_min: 20_000, timeout_ms_max: 40_000, ..Self::lan() }
    }

    /// Whether the numbers go together.
    ///
    /// # Errors
    /// The first rule that they break, as a text that names the number.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.heartbeat_ms == 0 || self.heartbeat_ms > self.timeout_ms_min / 2 {
            return Err("heartbeat_ms must be 1 to half of timeout_ms_min");
        }
        if self.timeout_ms_max <= self.timeout_ms_min || self.timeout_ms_max > 3_600_000 {
            return Err("timeout_ms_max must be more than timeout_ms_min, at most 3600000");
        }
        if self.clock_error_ppm >= 100_000 {
            return Err("clock_error_ppm must be below 100000");
        }
        if self.lease_us() <= self.heartbeat_ms as u64 * 1_000 {
            return Err("margin_ms leaves a lease that is not longer than heartbeat_ms");
        }
        Ok(())
    }

    /// How long a leader may say that it leads, from when the heartbeat was made that a majority
    /// has answered, in microseconds.
    pub const fn lease_us(&self) -> u64 {
        let error = if self.clock_error_ppm > 100_000 { 100_000 } else { self.clock_error_ppm };
        let timeout_us = self.timeout_ms_min as u64 * 1_000;
        let lease_us = timeout_us * (1_000_000 - error as u64) / (1_000_000 + error as u64);
        lease_us.saturating_sub(self.margin_ms as u64 * 1_000)
    }
}

impl Default for ElectionConfig {
    fn default() -> Self {
        Self::lan()
    }
}

/// What one member says to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Message {
    /// A candidate asks.
    VoteRequest(VoteRequest),
    /// A voter answers.
    VoteAnswer(VoteAnswer),
    /// The leader leads. The digest of the registry is filled in by who sends it.
    Heartbeat(Heartbeat),
    /// A follower answers. As above.
    HeartbeatAnswer(HeartbeatAnswer),
    /// The leader of this term has resigned, and the receiver is to campaign.
    HandOver(u64),
    /// The whole configuration goes to the receiver: [`Election::members`]. Arrives at
    /// [`Election::receive_members`] and not at [`Election::receive`].
    Members,
}

/// The leader, as this node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Leader {
    /// Who.
    pub node: NodeId,
    /// Its term: the fencing token.
    pub term: u64,
    /// Since when this node knows it, on this node's clock.
    pub since: Instant,
}

/// What an election tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ElectionEvent {
    /// This node leads.
    BecameLeader {
        /// Its term.
        term: u64,
    },
    /// This node leads no more.
    LostLeadership {
        /// The term in which it led.
        term: u64,
    },
    /// Another leader, or none.
    LeaderChanged {
        /// The term as it is known here.
        term: u64,
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// The members are others, or another leader has taken them over.
    ConfigurationChanged {
        /// Which configuration it is now.
        configuration: ConfigurationId,
    },
    /// This node is no member any more. It does not campaign.
    Removed,
}

/// What an election has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct ElectionStats {
    /// Times it asked whether it would be voted for.
    pub pre_votes: u32,
    /// Elections it was a candidate in.
    pub elections: u32,
    /// Elections won.
    pub won: u32,
    /// Elections not won.
    pub lost: u32,
    /// Votes given to others.
    pub votes_given: u32,
    /// Votes refused to others.
    pub votes_refused: u32,
    /// Times it led no more because a majority did not answer.
    pub quorum_lost: u32,
    /// Times the known leader changed.
    pub changes: u32,
    /// Messages from nodes that are no members.
    pub strangers: u32,
    /// Messages with a term too far ahead to be true.
    pub implausible: u32,
    /// Heartbeats of a second leader of one term: two nodes run with one name.
    pub conflicts: u32,
    /// Configurations that make no sense.
    pub malformed: u32,
    /// Times the vote or the configuration could not be stored.
    pub store_failed: u32,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats accepted.
    pub heartbeats_accepted: u64,
    /// Heartbeats refused, with a reason.
    pub heartbeats_refused: u64,
}

/// A term further ahead than this is not believed. No cluster lives to see it.
const TERM_JUMP_MAX: u64 = 1 << 32;

/// What is to be said to a member.
mod due {
    pub(super) const VOTE_REQUEST: u8 = 1;
    pub(super) const VOTE_ANSWER: u8 = 1 << 1;
    pub(super) const HEARTBEAT: u8 = 1 << 2;
    pub(super) const HEARTBEAT_ANSWER: u8 = 1 << 3;
    pub(super) const HAND_OVER: u8 = 1 << 4;
    pub(super) const MEMBERS: u8 = 1 << 5;
}

/// A term and the vote in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Ballot {
    term: u64,
    /// [`NodeId::NONE`] when none was given.
    vote: NodeId,
}

/// A vote that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Asked {
    term: u64,
    campaign: u32,
    pre: bool,
    refusal: Option<Refusal>,
}

/// A heartbeat that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Beat {
    term: u64,
    sent_us: u64,
    refusal: Option<Refusal>,
}

/// Another member, as the election knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElectionSlot {
    /// [`NodeId::NONE`] when the slot is free.
    node: NodeId,
    voter: bool,
    due: u8,
    /// It has given its vote, or said that it would, in the present campaign.
    granted: bool,
    round_trip_us: u32,
    asked: Asked,
    beat: Beat,
    /// When the next heartbeat is due to it.
    heartbeat_at: Instant,
    /// When the newest heartbeat was made that it has accepted; zero for none.
    acked_at: Instant,
    /// The configuration it had then.
    acked_configuration: ConfigurationId,
    progress: Progress,
}

impl ElectionSlot {
    /// No member.
    pub const FREE: Self = Self {
        node: NodeId::NONE,
        voter: false,
        due: 0,
        granted: false,
        round_trip_us: 0,
        asked: Asked { term: 0, campaign: 0, pre: false, refusal: None },
        beat: Beat { term: 0, sent_us: 0, refusal: None },
        heartbeat_at: Instant::NEVER,
        acked_at: Instant::ZERO,
        acked_configuration: ConfigurationId { term: 0, version: 0 },
        progress: Progress { term: 0, position: 0 },
    };

    /// Who it is; [`NodeId::NONE`] when the slot is free.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Whether it votes.
    pub const fn is_voter(&self) -> bool {
        self.voter
    }
}

/// What was told of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Told {
    /// The term that this node was said to lead in; 0 for none.
    leading: u64,
    leader: NodeId,
    leader_term: u64,
    configuration: ConfigurationId,
    member: bool,
}

/// One node's part in the elections of a cluster. See the [module](self).
///
/// `S` is the memory: a slice or an array of slots, one for each other member that there may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Election<S> {
    config: ElectionConfig,
    own: NodeId,
    membership: Membership,
    role: MemberRole,
    rng: Rng,
    now: Instant,
    ballot: Stored<Ballot>,
    configuration: Stored<ConfigurationId>,
    /// The leader that this node follows, itself when it leads or will.
    leader: NodeId,
    /// When it last heard of a leader; zero for never.
    heard_at: Instant,
    /// It may have accepted a heartbeat in an earlier life: no vote before.
    silent_until: Instant,
    /// A campaign, if nothing is heard or won before.
    deadline: Instant,
    /// Votes are asked for again.
    resend_at: Instant,
    campaign: u32,
    /// The present campaign was asked for by the leader before.
    handed_over: bool,
    /// Better candidates that are there: this one waits for them.
    rank: u8,
    /// It votes, and is no candidate.
    abstains: bool,
    /// It leads since then, in the role of leader.
    since: Instant,
    /// When the newest round was made that a majority has answered; zero for none.
    lease_from: Instant,
    /// What the members of the configuration before have promised.
    lease_floor: Instant,
    progress: Progress,
    /// The leader as it counts: with a lease.
    known: Leader,
    told: Told,
    stats: ElectionStats,
    slots: S,
}

impl<S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>> Election<S> {
    /// A node `own` of no cluster. Give it what was stored, else the members of the configuration
    /// file ([`Self::set_members`]), else it waits to be taken in; then [`Self::start`].
    ///
    /// # Panics
    /// When `config` breaks a rule of [`ElectionConfig::check`].
    pub fn new(config: ElectionConfig, own: NodeId, seed: u64, mut slots: S) -> Self {
        if let Err(rule) = config.check() {
            panic!("{}", rule);
        }
        slots.as_mut().fill(ElectionSlot::FREE);
        let nobody = Leader { node: NodeId::NONE, term: 0, since: Instant::ZERO };
        Self {
            config,
            own,
            membership: Membership::None,
            role: MemberRole::None,
            rng: Rng::new(seed),
            now: Instant::ZERO,
            ballot: Stored::new(Ballot { term: 0, vote: NodeId::NONE }),
            configuration: Stored::new(ConfigurationId { term: 0, version: 0 }),
            leader: NodeId::NONE,
            heard_at: Instant::ZERO,
            silent_until: Instant::ZERO,
            deadline: Instant::NEVER,
            resend_at: Instant::NEVER,
            campaign: 0,
            handed_over: false,
            rank: 0,
            abstains: false,
            since: Instant::ZERO,
            lease_from: Instant::ZERO,
            lease_floor: Instant::ZERO,
            progress: Progress::default(),
            known: nobody,
            told: Told {
                leading: 0,
                leader: NodeId::NONE,
                leader_term: 0,
                configuration: ConfigurationId::default(),
                member: false,
            },
            stats: ElectionStats::default(),
            slots,
        }
    }

    /// Begins: as a follower, silent for the shortest timeout.
    pub fn start(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.silent_until = self.now.plus_millis(self.config.timeout_ms_min.into());
        self.campaign = self.rng.next_u64() as u32;
        self.told.configuration = self.configuration.value;
        self.told.member = self.membership != Membership::None;
        self.known.since = self.now;
        self.follow(NodeId::NONE);
    }

    /// Does what is due at `now`. Call it after every input as well: a leader whose lease is over
    /// stops here.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        match self.role {
            MemberRole::Leader => self.tick_leader(),
            _ => self.tick_follower(),
        }
        self.note_leader();
    }

    /// When [`Self::tick`] has something to do, or a store that failed is to be tried again.
    pub fn deadline(&self) -> Instant {
        let mut earliest = self.ballot.retry_deadline().min(self.configuration.retry_deadline());
        match self.role {
            MemberRole::Leader => {
                earliest = earliest.min(self.quorum_deadline());
                for slot in self.members_slots() {
                    if slot.due & due::HEARTBEAT == 0 {
                        earliest = earliest.min(slot.heartbeat_at);
                    }
                }
            }
            MemberRole::PreCandidate | MemberRole::Candidate => {
                earliest = earliest.min(self.deadline).min(self.resend_at);
            }
            _ => earliest = earliest.min(self.deadline),
        }
        earliest
    }

    /// Takes what the member `from` says. `false` when it is no member: counted, and nothing else.
    /// The bytes of [`Message::Members`] go to [`Self::receive_members`].
    pub fn receive(&mut self, now: Instant, from: NodeId, message: &Message) -> bool {
        self.now = self.now.max(now);
        let Some(at) = self.find(from) else {
            self.stats.strangers = self.stats.strangers.saturating_add(1);
            return false;
        };
        let term = match message {
            Message::VoteRequest(request) => request.term,
            Message::VoteAnswer(answer) => answer.term,
            Message::Heartbeat(heartbeat) => heartbeat.term,
            Message::HeartbeatAnswer(answer) => answer.term,
            Message::HandOver(term) => *term,
            Message::Members => return true,
        };
        if term > self.ballot.value.term.saturating_add(TERM_JUMP_MAX) {
            self.stats.implausible = self.stats.implausible.saturating_add(1);
            return true;
        }
        match message {
            Message::VoteRequest(request) => self.vote_request(at, request),
            Message::VoteAnswer(answer) => self.vote_answer(at, answer),
            Message::Heartbeat(heartbeat) => self.heartbeat(at, heartbeat),
            Message::HeartbeatAnswer(answer) => self.heartbeat_answer(at, answer),
            Message::HandOver(term) => self.hand_over(at, *term),
            Message::Members => {}
        }
        self.note_leader();
        true
    }

    /// What to say to the member `to` next, if there is something that may be said by now. The
    /// same until [`Self::sent`].
    pub fn message_for(&self, to: NodeId) -> Option<Message> {
        let slot = &self.slots.as_ref()[self.find(to)?];
        if slot.due & due::VOTE_ANSWER != 0
            && let Some(answer) = self.answer_to_vote(slot)
        {
            return Some(Message::VoteAnswer(answer));
        }
        if slot.due & due::VOTE_REQUEST != 0
            && let Some(request) = self.request_vote()
        {
            return Some(Message::VoteRequest(request));
        }
        if slot.due & due::HEARTBEAT_ANSWER != 0
            && let Some(answer) = self.answer_to_heartbeat(slot)
        {
            return Some(Message::HeartbeatAnswer(answer));
        }
        if slot.due & due::HEARTBEAT != 0 && self.role == MemberRole::Leader {
            return Some(Message::Heartbeat(Heartbeat {
                term: self.ballot.value.term,
                sent_us: self.now.as_micros(),
                configuration: self.configuration.stored,
                registry: 0,
            }));
        }
        if slot.due & due::HAND_OVER != 0 {
            return Some(Message::HandOver(self.ballot.value.term));
        }
        (slot.due & due::MEMBERS != 0 && self.configuration.is_stored()).then_some(Message::Members)
    }

    /// The message of [`Self::message_for`] is on its way.
    pub fn sent(&mut self, to: NodeId, message: &Message) {
        let Some(at) = self.find(to) else {
            return;
        };
        let bit = match message {
            Message::VoteRequest(_) => due::VOTE_REQUEST,
            Message::VoteAnswer(_) => due::VOTE_ANSWER,
            Message::Heartbeat(_) => {
                self.stats.heartbeats_sent += 1;
                due::HEARTBEAT
            }
            Message::HeartbeatAnswer(_) => due::HEARTBEAT_ANSWER,
            Message::HandOver(_) => due::HAND_OVER,
            Message::Members => due::MEMBERS,
        };
        self.slots.as_mut()[at].due &= !bit;
    }

    /// There is a link to the member now: what was to be said on an earlier one is not.
    pub fn connected(&mut self, now: Instant, node: NodeId) {
        self.now = self.now.max(now);
        let Some(at) = self.find(node) else {
            return;
        };
        let (leads, asks) = (self.role == MemberRole::Leader, self.asks_for_votes());
        let stored = self.configuration.stored;
        let slot = &mut self.slots.as_mut()[at];
        slot.due = 0;
        if leads {
            slot.due |= due::HEARTBEAT;
            if slot.acked_configuration < stored {
                slot.due |= due::MEMBERS;
            }
        }
        if asks && slot.voter && !slot.granted {
            slot.due |= due::VOTE_REQUEST;
        }
    }

    /// The next thing to tell.
    pub fn take_event(&mut self) -> Option<ElectionEvent> {
        let leading = self.leading_term();
        if self.told.leading != leading && self.told.leading != 0 {
            let term = core::mem::take(&mut self.told.leading);
            return Some(ElectionEvent::LostLeadership { term });
        }
        if self.told.configuration != self.configuration.value {
            self.told.configuration = self.configuration.value;
            let configuration = self.configuration.value;
            return Some(ElectionEvent::ConfigurationChanged { configuration });
        }
        let member = self.membership != Membership::None;
        if self.told.member != member {
            self.told.member = member;
            if !member {
                return Some(ElectionEvent::Removed);
            }
        }
        if self.told.leading != leading {
            self.told.leading = leading;
            return Some(ElectionEvent::BecameLeader { term: leading });
        }
        let known = self.known;
        if (self.told.leader, self.told.leader_term) != (known.node, known.term) {
            (self.told.leader, self.told.leader_term) = (known.node, known.term);
            let leader = (known.node != NodeId::NONE).then_some(known.node);
            return Some(ElectionEvent::LeaderChanged { term: self.ballot.value.term, leader });
        }
        None
    }

    // What is known.

    /// What this node is at the moment.
    pub const fn role(&self) -> MemberRole {
        self.role
    }

    /// The term.
    pub const fn term(&self) -> u64 {
        self.ballot.value.term
    }

    /// The leader, as far as this node knows at the time that it was last told; itself as long as
    /// it holds the lease.
    pub fn leader(&self) -> Option<Leader> {
        (self.known.node != NodeId::NONE).then_some(self.known)
    }

    /// Until when this node may say that it leads, on its own clock; `None` when it does not lead.
    /// [`Instant::NEVER`] for the only voter of a cluster. To be compared with the clock each
    /// time: it may have passed.
    pub fn leader_until(&self) -> Option<Instant> {
        let until = self.lease_until();
        (self.role == MemberRole::Leader && until > self.now).then_some(until)
    }

    /// Who it was at the start: what it says of itself to others.
    pub const fn own(&self) -> NodeId {
        self.own
    }

    /// Since when the known leader is what it is, on this node's clock.
    pub const fn changed_at(&self) -> Instant {
        self.known.since
    }

    /// What was counted since the start.
    pub const fn stats(&self) -> ElectionStats {
        self.stats
    }

    /// Round trip of the last answered heartbeat, in microseconds; 0 when not known.
    pub fn round_trip_us(&self, node: NodeId) -> u32 {
        self.find(node).map_or(0, |at| self.slots.as_ref()[at].round_trip_us)
    }

    /// Whom this node has voted for in its term.
    pub fn vote(&self) -> Option<NodeId> {
        let vote = self.ballot.value.vote;
        (vote != NodeId::NONE).then_some(vote)
    }

    /// How many better candidates are there, as far as the owner knows: a campaign waits a full
    /// timeout longer for each, up to three.
    pub fn set_rank(&mut self, rank: u8) {
        self.rank = rank.min(3);
    }

    /// Never to be a candidate: for a witness, which votes on what others hold and has nothing to
    /// lead with.
    pub fn abstain(&mut self) {
        self.abstains = true;
    }

    /// How fresh this node is. A voter refuses who is less fresh; a node whose progress is zero
    /// votes for anybody.
    pub fn set_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    // Parts of more than one file.

    fn find(&self, node: NodeId) -> Option<usize> {
        if node == NodeId::NONE {
            return None;
        }
        self.slots.as_ref().iter().position(|slot| slot.node == node)
    }

    fn members_slots(&self) -> impl Iterator<Item = &ElectionSlot> {
        self.slots.as_ref().iter().filter(|slot| slot.node != NodeId::NONE)
    }

    /// The term in which this node leads with a lease; 0 for none.
    fn leading_term(&self) -> u64 {
        if self.leader_until().is_some() { self.ballot.value.term } else { 0 }
    }

    /// The leader with a lease may have come or gone.
    fn note_leader(&mut self) {
        let leads = self.role != MemberRole::Leader || self.leader_until().is_some();
        let node = if leads { self.leader } else { NodeId::NONE };
        let term = if node == NodeId::NONE { 0 } else { self.ballot.value.term };
        if (node, term) != (self.known.node, self.known.term) {
            self.known = Leader { node, term, since: self.now };
            self.stats.changes = self.stats.changes.saturating_add(1);
        }
    }

    /// A wait before a campaign, drawn anew.
    fn draw_deadline(&mut self) -> Instant {
        let (low, high) = (self.config.timeout_ms_min, self.config.timeout_ms_max);
        let wait_us = self.rng.between(u64::from(low) * 1_000, u64::from(high) * 1_000);
        let rank_us = u64::from(self.rank) * u64::from(high) * 1_000;
        later(self.now, wait_us + rank_us)
    }

    /// Is no leader, and no candidate; follows `leader`, if there is one.
    fn follow(&mut self, leader: NodeId) {
        self.role = match self.membership {
            Membership::None => MemberRole::None,
            Membership::Learner => MemberRole::Learner,
            Membership::Voter => MemberRole::Follower,
        };
        self.leader = leader;
        self.handed_over = false;
        self.resend_at = Instant::NEVER;
        self.lease_from = Instant::ZERO;
        self.lease_floor = Instant::ZERO;
        self.deadline = self.draw_deadline();
        for slot in self.slots.as_mut() {
            slot.due &= !(due::VOTE_REQUEST | due::HEARTBEAT);
            slot.granted = false;
        }
    }

    /// A later term has begun: what was in the earlier one is over.
    fn adopt(&mut self, term: u64, vote: NodeId) {
        debug_assert!(term > self.ballot.value.term);
        self.ballot.set(Ballot { term, vote });
        for slot in self.slots.as_mut() {
            slot.due &= !due::HAND_OVER;
        }
        self.follow(NodeId::NONE);
    }
}

/// `us` microseconds after `at`, never past [`Instant::NEVER`].
const fn later(at: Instant, us: u64) -> Instant {
    Instant::from_micros(at.as_micros().saturating_add(us))
}

#[cfg(test)]
mod tests;
