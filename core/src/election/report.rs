//! What an election tells: who leads, what has happened, what was counted.

use super::slot::Foreign;
use super::{Election, ElectionSlot, Membership};
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{ConfigurationId, MemberRole};

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
    /// A member goes back to other first members than this node: one of the two was started with a
    /// wrong list of peers. Neither obeys the other, until one that has only its list is told of
    /// members that a leader has taken over. Told once of each, and again when it has been well.
    MembersDiffer {
        /// Who.
        node: NodeId,
    },
}

/// What an election has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Messages of members that go back to other first members. They are not obeyed.
    pub foreign: u32,
    /// Times the vote or the configuration could not be stored.
    pub store_failed: u32,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats accepted.
    pub heartbeats_accepted: u64,
    /// Heartbeats refused, with a reason.
    pub heartbeats_refused: u64,
}

/// To a search through many states those that differ in nothing but counters are one.
impl core::hash::Hash for ElectionStats {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}

/// What was told of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Told {
    /// The term that this node was said to lead in; 0 for none.
    pub(super) leading: u64,
    pub(super) leader: NodeId,
    pub(super) leader_term: u64,
    pub(super) configuration: ConfigurationId,
    pub(super) member: bool,
}

impl<S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>> Election<S> {
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
        if let Some(slot) = self.slots.as_mut().iter_mut().find(|it| it.foreign == Foreign::Seen) {
            slot.foreign = Foreign::Told;
            return Some(ElectionEvent::MembersDiffer { node: slot.node });
        }
        let known = self.known;
        if (self.told.leader, self.told.leader_term) != (known.node, known.term) {
            (self.told.leader, self.told.leader_term) = (known.node, known.term);
            let leader = (known.node != NodeId::NONE).then_some(known.node);
            return Some(ElectionEvent::LeaderChanged { term: self.ballot.value.term, leader });
        }
        None
    }

    /// The term in which this node leads with a lease; 0 for none.
    fn leading_term(&self) -> u64 {
        if self.leader_until().is_some() { self.ballot.value.term } else { 0 }
    }

    /// The leader with a lease may have come or gone.
    pub(super) fn note_leader(&mut self) {
        let leads = self.role != MemberRole::Leader || self.leader_until().is_some();
        let node = if leads { self.leader } else { NodeId::NONE };
        let term = if node == NodeId::NONE { 0 } else { self.ballot.value.term };
        if (node, term) != (self.known.node, self.known.term) {
            self.known = Leader { node, term, since: self.now };
            self.stats.changes = self.stats.changes.saturating_add(1);
        }
    }
}
