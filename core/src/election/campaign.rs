//! Votes: asking for them, giving them, counting them.

use super::slot::Asked;
use super::{Ballot, Election, ElectionSlot, due};
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{MemberRole, Refusal, VoteAnswer, VoteRequest};

impl<S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>> Election<S> {
    pub(super) fn tick_follower(&mut self) {
        if self.now >= self.deadline {
            return self.timed_out();
        }
        if self.now >= self.resend_at {
            self.ask_for_votes();
        }
    }

    /// Nothing was heard, or nothing was won.
    fn timed_out(&mut self) {
        if self.role == MemberRole::Candidate {
            self.stats.lost = self.stats.lost.saturating_add(1);
        }
        if self.asks_for_votes() {
            // Who did not answer may have no configuration, and does not know whom to answer: the
            // leader that made it a voter may have died first.
            for slot in self.slots.as_mut().iter_mut().filter(|it| it.voter && !it.granted) {
                slot.due |= due::MEMBERS;
            }
        }
        self.follow(NodeId::NONE);
        if self.role == MemberRole::Learner {
            // It may have missed the configuration that made the leader a member. Who has a newer
            // one answers with it.
            for slot in self.slots.as_mut() {
                slot.due |= due::MEMBERS;
            }
        } else if self.role != MemberRole::Follower {
            self.deadline = Instant::NEVER;
        } else if self.may_campaign() {
            self.role = MemberRole::PreCandidate;
            self.stats.pre_votes = self.stats.pre_votes.saturating_add(1);
            self.campaign = self.campaign.wrapping_add(1);
            self.ask_for_votes();
            self.count_votes();
        }
    }

    /// Who is a witness, cannot store a vote, or would lead with members that others may never hear of
    /// is no candidate.
    fn may_campaign(&self) -> bool {
        self.rank.is_some() && self.ballot.is_stored() && self.configuration.is_stored()
    }

    /// The next term begins, with this node's vote for itself. Others are asked once it is stored.
    fn start_election(&mut self, handed_over: bool) {
        let term = self.ballot.value.term.saturating_add(1);
        self.adopt(term, self.own);
        self.role = MemberRole::Candidate;
        self.handed_over = handed_over;
        self.stats.elections = self.stats.elections.saturating_add(1);
        self.campaign = self.campaign.wrapping_add(1);
        self.ask_for_votes();
    }

    fn ask_for_votes(&mut self) {
        self.resend_at = self.now.plus_millis(self.config.heartbeat_ms.into());
        for slot in self.slots.as_mut() {
            if slot.voter && !slot.granted {
                slot.due |= due::VOTE_REQUEST;
            }
        }
    }

    pub(super) const fn asks_for_votes(&self) -> bool {
        matches!(self.role, MemberRole::PreCandidate | MemberRole::Candidate)
    }

    pub(super) fn request_vote(&self) -> Option<VoteRequest> {
        let pre = self.role == MemberRole::PreCandidate;
        if !self.asks_for_votes() || (!pre && !self.ballot.is_stored()) {
            return None;
        }
        Some(VoteRequest {
            term: self.ballot.value.term.saturating_add(pre.into()),
            campaign: self.campaign,
            pre,
            handed_over: self.handed_over,
            configuration: self.configuration.stored,
            progress: self.progress,
        })
    }

    /// Whether the votes are a majority; then the next step. The own vote counts when it is
    /// stored.
    pub(super) fn count_votes(&mut self) {
        let granted = 1 + self.count_voters(&|slot| slot.granted);
        if granted < self.quorum() {
            return;
        }
        match self.role {
            MemberRole::PreCandidate if self.may_campaign() => {
                self.start_election(false);
            }
            MemberRole::Candidate if self.ballot.is_stored() => self.lead(),
            _ => {}
        }
    }

    /// The leader of this term has resigned and wants this node to follow it.
    pub(super) fn hand_over(&mut self, at: usize, term: u64) {
        let from = self.slots.as_ref()[at].node;
        if term == self.ballot.value.term
            && self.role == MemberRole::Follower
            && self.leader == from
            && self.may_campaign()
        {
            self.start_election(true);
        }
    }

    // The voter's side.

    pub(super) fn vote_request(&mut self, at: usize, request: &VoteRequest) {
        let slot = self.slots.as_ref()[at];
        let refusal = self.refusal_of_vote(&slot, request);
        if !request.pre {
            match refusal {
                None => {
                    if request.term > self.ballot.value.term {
                        self.adopt(request.term, slot.node);
                    } else {
                        let vote = Ballot { term: request.term, vote: slot.node };
                        self.ballot.set(vote);
                        // Whoever gets a vote gets the time to win with it.
                        self.follow(NodeId::NONE);
                    }
                    self.stats.votes_given = self.stats.votes_given.saturating_add(1);
                }
                Some(reason) => {
                    // A leader may be alive, and its followers keep their term for it.
                    if request.term > self.ballot.value.term
                        && matches!(reason, Refusal::Progress | Refusal::Configuration)
                    {
                        self.adopt(request.term, NodeId::NONE);
                    }
                    self.stats.votes_refused = self.stats.votes_refused.saturating_add(1);
                }
            }
        }
        let newer = self.configuration.stored > request.configuration;
        let slot = &mut self.slots.as_mut()[at];
        slot.asked =
            Asked { term: request.term, campaign: request.campaign, pre: request.pre, refusal };
        slot.due |= due::VOTE_ANSWER;
        if newer {
            slot.due |= due::MEMBERS;
        }
    }

    fn refusal_of_vote(&self, slot: &ElectionSlot, request: &VoteRequest) -> Option<Refusal> {
        let Ballot { term, vote } = self.ballot.value;
        let voted = request.term == term && vote == slot.node;
        if request.term < term {
            return Some(Refusal::Term);
        }
        if !self.is_voter() || !slot.voter {
            return Some(Refusal::Learner);
        }
        let follows_another = self.leader != NodeId::NONE && self.leader != slot.node;
        if request.term == term && !voted && (vote != NodeId::NONE || follows_another) {
            return Some(Refusal::Taken);
        }
        // The leader of the term before the requested one has resigned for good, and what was
        // promised to those of still earlier terms ended before it was elected.
        let resigned = request.handed_over && !request.pre && (request.term > term || voted);
        if !resigned && self.leader_may_be_alive() {
            return Some(Refusal::Leader);
        }
        if request.configuration < self.configuration.value {
            return Some(Refusal::Configuration);
        }
        if request.progress < self.progress {
            return Some(Refusal::Progress);
        }
        self.ballot.is_failing().then_some(Refusal::Storage)
    }

    /// Whether this node has promised, or may have, not to vote.
    fn leader_may_be_alive(&self) -> bool {
        let promise_ms = u64::from(self.config.timeout_ms_min);
        let heard =
            self.heard_at > Instant::ZERO && self.now < self.heard_at.plus_millis(promise_ms);
        heard || self.now < self.silent_until || self.leader_until().is_some()
    }

    /// The answer to the vote that was asked for, once it may be given.
    pub(super) fn answer_to_vote(&self, slot: &ElectionSlot) -> Option<VoteAnswer> {
        let Asked { term, campaign, pre, mut refusal } = slot.asked;
        let ballot = self.ballot.value;
        if refusal.is_none() && !pre {
            if ballot.term != term || ballot.vote != slot.node {
                refusal = Some(Refusal::Term);
            } else if !self.ballot.is_stored() {
                if !self.ballot.is_failing() {
                    return None;
                }
                refusal = Some(Refusal::Storage);
            }
        }
        Some(VoteAnswer {
            term: ballot.term,
            asked_term: term,
            campaign,
            pre,
            refusal,
            configuration: self.configuration.stored,
        })
    }

    // The candidate's side.

    pub(super) fn vote_answer(&mut self, at: usize, answer: &VoteAnswer) {
        if self.configuration.stored > answer.configuration {
            self.slots.as_mut()[at].due |= due::MEMBERS;
        }
        // Who would vote in the term that it was asked for may be in that term already.
        let expected = self.ballot.value.term.saturating_add(answer.pre.into());
        if answer.term > self.ballot.value.term
            && (answer.refusal.is_some() || answer.term > expected)
        {
            return self.adopt(answer.term, NodeId::NONE);
        }
        let role = if answer.pre { MemberRole::PreCandidate } else { MemberRole::Candidate };
        let counts = self.role == role
            && answer.campaign == self.campaign
            && answer.asked_term == expected
            && answer.refusal.is_none();
        let slot = &mut self.slots.as_mut()[at];
        if counts && slot.voter {
            slot.granted = true;
            slot.due &= !due::VOTE_REQUEST;
            self.count_votes();
        }
    }
}
