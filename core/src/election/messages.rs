//! What members say to each other: what is taken in, and what is to be said next.

use super::{Election, ElectionSlot, TERM_JUMP_MAX, due};
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{Heartbeat, HeartbeatAnswer, MemberRole, VoteAnswer, VoteRequest};

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

impl<S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>> Election<S> {
    /// Takes what the member `from` says. `false` when it is no member: counted, and nothing else.
    /// The bytes of [`Message::Members`] go to [`Self::receive_members`].
    pub fn receive(&mut self, now: Instant, from: NodeId, message: &Message) -> bool {
        self.now = self.now.max(now);
        let Some(at) = self.find(from) else {
            self.stats.strangers = self.stats.strangers.saturating_add(1);
            return false;
        };
        let (term, configuration) = match message {
            Message::VoteRequest(request) => (request.term, request.configuration),
            Message::VoteAnswer(answer) => (answer.term, answer.configuration),
            Message::Heartbeat(heartbeat) => (heartbeat.term, heartbeat.configuration),
            Message::HeartbeatAnswer(answer) => (answer.term, answer.configuration),
            Message::HandOver(term) => (*term, self.configuration.value),
            Message::Members => return true,
        };
        if self.is_foreign(at, configuration) {
            // It may have only its own list of peers, and take what a leader has taken over.
            self.slots.as_mut()[at].due |= due::MEMBERS;
            return true;
        }
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
}
