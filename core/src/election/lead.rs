//! Heartbeats, and the lease that the answers make.

use super::slot::Beat;
use super::{Election, ElectionSlot, due, later};
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{ConfigurationId, Heartbeat, HeartbeatAnswer, MemberRole, Refusal};

impl<S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>> Election<S> {
    /// The election is won. It counts as leader once a majority has answered a heartbeat.
    pub(super) fn lead(&mut self) {
        assert!(self.ballot.is_stored() && self.ballot.value.vote == self.own);
        self.follow(self.own);
        self.role = MemberRole::Leader;
        self.deadline = Instant::NEVER;
        self.since = self.now;
        self.stats.won = self.stats.won.saturating_add(1);
        for slot in self.slots.as_mut() {
            slot.acked_at = Instant::ZERO;
            slot.acked_configuration = ConfigurationId::default();
            slot.heartbeat_at = self.now;
        }
        // The members are taken over into this term, so that what an earlier leader may have made
        // of them alone is older from now on.
        let term = self.ballot.value.term;
        self.configuration.set(ConfigurationId { term, ..self.configuration.value });
        self.tick_leader();
    }

    pub(super) fn tick_leader(&mut self) {
        if self.now >= self.quorum_deadline() {
            self.stats.quorum_lost = self.stats.quorum_lost.saturating_add(1);
            return self.follow(NodeId::NONE);
        }
        let (now, heartbeat_ms) = (self.now, u64::from(self.config.heartbeat_ms));
        let stored = self.configuration.stored;
        for slot in self.slots.as_mut().iter_mut().filter(|slot| slot.node != NodeId::NONE) {
            if now >= slot.heartbeat_at {
                slot.due |= due::HEARTBEAT;
                if slot.acked_configuration < stored {
                    // One without any knows no leader and answers none: it may have missed it.
                    slot.due |= due::MEMBERS;
                }
                let next = slot.heartbeat_at.plus_millis(heartbeat_ms);
                slot.heartbeat_at = if next > now { next } else { now.plus_millis(heartbeat_ms) };
            }
        }
    }

    /// When this node leads no more, if nobody answers until then.
    pub(super) fn quorum_deadline(&self) -> Instant {
        if self.lease_until() == Instant::ZERO {
            return later(self.since, self.config.lease_us());
        }
        self.lease_until()
    }

    /// The end of the lease; zero for none.
    pub(super) fn lease_until(&self) -> Instant {
        if self.role != MemberRole::Leader {
            return Instant::ZERO;
        }
        if self.quorum() == 1 {
            return Instant::NEVER;
        }
        let until = match self.lease_from {
            Instant::ZERO => Instant::ZERO,
            from => later(from, self.config.lease_us()),
        };
        until.max(self.lease_floor)
    }

    /// When the oldest of a majority's newest answered heartbeats was made; zero for never.
    pub(super) fn answered_by_majority(&self) -> Instant {
        let others = self.quorum() - 1;
        let mut newest = Instant::ZERO;
        for slot in self.members_slots().filter(|slot| slot.voter) {
            if self.count_voters(&|other| other.acked_at >= slot.acked_at) >= others {
                newest = newest.max(slot.acked_at);
            }
        }
        newest
    }

    pub(super) fn heartbeat_answer(&mut self, at: usize, answer: &HeartbeatAnswer) {
        let (now, stored) = (self.now, self.configuration.stored);
        if answer.configuration < stored {
            self.slots.as_mut()[at].due |= due::MEMBERS;
        }
        if answer.term > self.ballot.value.term {
            return self.adopt(answer.term, NodeId::NONE);
        }
        if self.role != MemberRole::Leader || answer.term != self.ballot.value.term {
            return;
        }
        let sent_at = Instant::from_micros(answer.sent_us);
        let slot = &mut self.slots.as_mut()[at];
        if answer.refusal.is_some() || sent_at > now || sent_at < self.since {
            return;
        }
        let trip_us = now.as_micros() - sent_at.as_micros();
        slot.round_trip_us = u32::try_from(trip_us).unwrap_or(u32::MAX).max(1);
        if sent_at < slot.acked_at {
            return;
        }
        slot.acked_at = sent_at;
        slot.acked_configuration = answer.configuration;
        slot.progress = answer.progress;
        self.lease_from = self.lease_from.max(self.answered_by_majority());
    }

    /// Leads no more, and asks the best follower to campaign at once. Whether there is one.
    /// Nothing happens to who does not lead.
    pub fn resign(&mut self, now: Instant) -> bool {
        self.now = self.now.max(now);
        if self.role != MemberRole::Leader {
            return false;
        }
        let alive_ms = u64::from(self.config.timeout_ms_min);
        let best = (0..self.slots.as_ref().len())
            .filter(|at| {
                let slot = &self.slots.as_ref()[*at];
                slot.voter
                    && slot.acked_at > Instant::ZERO
                    && slot.acked_at.plus_millis(alive_ms) > self.now
            })
            .max_by_key(|at| {
                let slot = &self.slots.as_ref()[*at];
                (slot.progress, slot.acked_at, core::cmp::Reverse(slot.node))
            });
        // First the lease is given up, then others may be voted for.
        self.follow(NodeId::NONE);
        self.deadline = self.deadline.plus_millis(2 * u64::from(self.config.timeout_ms_max));
        if let Some(at) = best {
            self.slots.as_mut()[at].due |= due::HAND_OVER;
        }
        self.note_leader();
        best.is_some()
    }

    // The follower's side.

    pub(super) fn heartbeat(&mut self, at: usize, heartbeat: &Heartbeat) {
        let refusal = self.refusal_of_heartbeat(at, heartbeat);
        let from = self.slots.as_ref()[at].node;
        if refusal.is_none() {
            if heartbeat.term > self.ballot.value.term {
                // Whoever leads has this node's voice: it has none left for another.
                self.adopt(heartbeat.term, from);
            }
            self.follow(from);
            self.heard_at = self.now;
            self.stats.heartbeats_accepted += 1;
        } else {
            self.stats.heartbeats_refused += 1;
        }
        let beat = Beat { term: heartbeat.term, sent_us: heartbeat.sent_us, refusal };
        let slot = &mut self.slots.as_mut()[at];
        // Of heartbeats that overtook each other the newest is answered.
        let newer = beat.term > slot.beat.term || beat.sent_us > slot.beat.sent_us;
        if newer || slot.due & due::HEARTBEAT_ANSWER == 0 {
            slot.beat = beat;
        }
        slot.due |= due::HEARTBEAT_ANSWER;
    }

    fn refusal_of_heartbeat(&mut self, at: usize, heartbeat: &Heartbeat) -> Option<Refusal> {
        let slot = self.slots.as_ref()[at];
        if heartbeat.term < self.ballot.value.term {
            return Some(Refusal::Term);
        }
        if !slot.voter {
            // Made a voter since: the answer says that this node does not know yet.
            return Some(Refusal::Configuration);
        }
        let same = heartbeat.term == self.ballot.value.term;
        if same && self.leader != NodeId::NONE && self.leader != slot.node {
            self.stats.conflicts = self.stats.conflicts.saturating_add(1);
            if self.role == MemberRole::Leader {
                self.follow(NodeId::NONE);
            }
            return Some(Refusal::Taken);
        }
        None
    }

    /// The answer to the last heartbeat of a member, once it may be given.
    pub(super) fn answer_to_heartbeat(&self, slot: &ElectionSlot) -> Option<HeartbeatAnswer> {
        let Beat { term, sent_us, mut refusal } = slot.beat;
        if refusal.is_none() {
            if term != self.ballot.value.term || self.leader != slot.node {
                refusal = Some(Refusal::Term);
            } else if !self.ballot.is_stored() {
                if !self.ballot.is_failing() {
                    return None;
                }
                refusal = Some(Refusal::Storage);
            }
        }
        Some(HeartbeatAnswer {
            term: self.ballot.value.term,
            sent_us,
            refusal,
            configuration: self.configuration.stored,
            progress: self.progress,
            registry: 0,
        })
    }
}
