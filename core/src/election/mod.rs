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
mod config;
mod configuration;
mod lead;
mod messages;
mod report;
mod slot;

use crate::rng::Rng;
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{ConfigurationId, MemberRole, Progress};

pub use config::{ConfigError, ElectionConfig};
use configuration::Stored;
pub use configuration::{ChangeError, Membership};
pub use messages::Message;
use report::Told;
pub use report::{ElectionEvent, ElectionStats, Leader};
pub use slot::ElectionSlot;
use slot::due;

/// A term further ahead than this is not believed. No cluster lives to see it.
const TERM_JUMP_MAX: u64 = 1 << 32;

/// A term and the vote in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Ballot {
    term: u64,
    /// [`NodeId::NONE`] when none was given.
    vote: NodeId,
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
    /// Better candidates that are there: this one waits for them. `None`: it is no candidate.
    rank: Option<u8>,
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
    /// # Errors
    /// `config` breaks a rule of [`ElectionConfig::check`].
    pub fn new(
        config: ElectionConfig,
        own: NodeId,
        seed: u64,
        mut slots: S,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        slots.as_mut().fill(ElectionSlot::FREE);
        let nobody = Leader { node: NodeId::NONE, term: 0, since: Instant::ZERO };
        Ok(Self {
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
            rank: Some(0),
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
        })
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
    /// timeout longer for each, up to three. `None` is for a witness, which votes on what others
    /// hold, has nothing to lead with, and is never a candidate.
    pub fn set_rank(&mut self, rank: Option<u8>) {
        self.rank = rank.map(|rank| rank.min(3));
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

    /// How many others that vote are as `wanted`. A device has this once, and not for each question.
    fn count_voters(&self, wanted: &dyn Fn(&ElectionSlot) -> bool) -> usize {
        self.members_slots().filter(|slot| slot.voter && wanted(slot)).count()
    }

    fn members_slots(&self) -> impl Iterator<Item = &ElectionSlot> {
        self.slots.as_ref().iter().filter(|slot| slot.node != NodeId::NONE)
    }

    /// A wait before a campaign, drawn anew.
    fn draw_deadline(&mut self) -> Instant {
        let (low, high) = (self.config.timeout_ms_min, self.config.timeout_ms_max);
        let wait_us = self.rng.between(u64::from(low) * 1_000, u64::from(high) * 1_000);
        let rank_us = u64::from(self.rank.unwrap_or(0)) * u64::from(high) * 1_000;
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
