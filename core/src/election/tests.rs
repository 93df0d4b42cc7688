//! The rules of the election, one by one, at their exact bounds.

mod lists;

use std::vec::Vec;

use super::*;
use crate::contract::{Key, RestoreError};
use crate::wire::{
    CONTROL_FRAME_BYTES_MAX, Heartbeat, HeartbeatAnswer, MEMBER_BYTES, MEMBERS_MAX, Members,
    Refusal, VoteAnswer, VoteRequest,
};

const CONFIG: ElectionConfig = ElectionConfig::lan();
const START: Instant = Instant::from_millis(10_000);

/// The configuration that a list of three voters makes.
fn of_three() -> ConfigurationId {
    node(1, 3).configuration()
}

type Node = Election<[ElectionSlot; 6]>;

fn voters(count: u64) -> impl Iterator<Item = (NodeId, Membership)> {
    (1..=count).map(|node| (NodeId(node), Membership::Voter))
}

/// Node `own` of `count` voters, numbered from 1, started.
fn node(own: u64, count: u64) -> Node {
    let mut node = Election::new(CONFIG, NodeId(own), own, [ElectionSlot::FREE; 6]).unwrap();
    node.set_members(voters(count)).unwrap();
    node.start(START);
    node
}

fn after(ms: u64) -> Instant {
    START.plus_millis(ms)
}

/// Everything that is to be stored is stored.
fn store(node: &mut Node) {
    while let Some(key) = node.store() {
        node.storing(key);
        node.stored(node.now, key);
    }
}

fn say(node: &mut Node, to: u64) -> Option<Message> {
    let message = node.message_for(NodeId(to))?;
    node.sent(NodeId(to), &message);
    Some(message)
}

fn request(term: u64, pre: bool) -> VoteRequest {
    let progress = Progress::default();
    VoteRequest { term, campaign: 1, pre, handed_over: false, configuration: of_three(), progress }
}

fn heartbeat(term: u64) -> Message {
    Message::Heartbeat(Heartbeat { term, sent_us: 1, configuration: of_three(), registry: 0 })
}

/// What the node answers to a request for its vote, once it is stored.
fn asked(node: &mut Node, now: Instant, from: u64, request: VoteRequest) -> Option<Refusal> {
    node.receive(now, NodeId(from), &Message::VoteRequest(request));
    store(node);
    match say(node, from) {
        Some(Message::VoteAnswer(answer)) => answer.refusal,
        other => panic!("{other:?}"),
    }
}

/// Wins the election with the votes of `with`, and has heartbeats answered by them.
fn elect(node: &mut Node, with: &[u64]) {
    while node.role() != MemberRole::Leader {
        let now = node.deadline();
        node.tick(now);
        for _ in 0..2 {
            store(node);
            for from in with {
                if let Some(Message::VoteRequest(request)) = say(node, *from) {
                    grant(node, *from, &request);
                }
            }
        }
    }
    beat(node, with);
}

fn grant(node: &mut Node, from: u64, request: &VoteRequest) {
    let answer = VoteAnswer {
        term: request.term - u64::from(request.pre),
        asked_term: request.term,
        campaign: request.campaign,
        pre: request.pre,
        refusal: None,
        configuration: request.configuration,
    };
    node.receive(node.now, NodeId(from), &Message::VoteAnswer(answer));
}

/// A round of heartbeats, answered at once by `with`, who store the configuration.
fn beat(node: &mut Node, with: &[u64]) {
    store(node);
    let now = node.now.plus_millis(CONFIG.heartbeat_ms.into());
    node.tick(now);
    for from in with {
        while let Some(message) = say(node, *from) {
            if let Message::Heartbeat(heartbeat) = message {
                accept(node, *from, &heartbeat);
            }
        }
    }
}

fn accept(node: &mut Node, from: u64, heartbeat: &Heartbeat) {
    let answer = HeartbeatAnswer {
        term: heartbeat.term,
        sent_us: heartbeat.sent_us,
        refusal: None,
        configuration: heartbeat.configuration,
        progress: Progress::default(),
        registry: 0,
    };
    node.receive(node.now, NodeId(from), &Message::HeartbeatAnswer(answer));
}

/// A setting that breaks a rule is an error, and names the number.
#[test]
fn timing_that_does_not_go_together_is_refused() {
    let slots = [ElectionSlot::FREE; 2];
    for (config, error) in [
        (ElectionConfig { heartbeat_ms: 0, ..CONFIG }, ConfigError::Heartbeat),
        (ElectionConfig { heartbeat_ms: 76, ..CONFIG }, ConfigError::Heartbeat),
        (ElectionConfig { timeout_ms_max: 150, ..CONFIG }, ConfigError::Timeout),
        (ElectionConfig { timeout_ms_max: 3_600_001, ..CONFIG }, ConfigError::Timeout),
        (ElectionConfig { clock_error_ppm: 100_000, ..CONFIG }, ConfigError::ClockError),
        (ElectionConfig { margin_ms: 100, ..CONFIG }, ConfigError::Margin),
    ] {
        assert_eq!(Election::new(config, NodeId(1), 1, slots).err(), Some(error));
    }
}

/// QC-34: a witness votes, and is never a candidate.
#[test]
fn a_witness_votes_and_never_campaigns() {
    let mut witness = node(1, 3);
    witness.set_rank(None);
    for _ in 0..5 {
        witness.tick(witness.deadline());
        assert_eq!(witness.role(), MemberRole::Follower);
    }
    let now = witness.now;
    assert_eq!(asked(&mut witness, now, 2, request(1, false)), None);
}

/// QC-03.
#[test]
fn starts_as_a_follower_and_draws_each_wait_anew_between_150_and_300_ms() {
    let mut node = node(1, 3);
    assert_eq!(node.role(), MemberRole::Follower);
    let mut waits = Vec::new();
    let mut now = START;
    for _ in 0..200 {
        let wait_us = node.deadline.as_micros() - now.as_micros();
        assert!((150_000..=300_000).contains(&wait_us), "{wait_us}");
        waits.push(wait_us);
        now = node.deadline;
        node.tick(now);
        assert_eq!((node.role(), node.term()), (MemberRole::PreCandidate, 0));
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 190 && waits[10] < 165_000 && waits[waits.len() - 10] > 285_000);
}

/// QC-06: neither asked for nor given before it is on the disk.
#[test]
fn a_vote_waits_for_the_disk() {
    let mut voter = node(1, 3);
    let now = after(1_000);
    voter.receive(now, NodeId(2), &Message::VoteRequest(request(1, false)));
    assert_eq!(voter.message_for(NodeId(2)), None);
    assert_eq!(voter.store(), Some(Key::Ballot));
    voter.storing(Key::Ballot);
    assert_eq!((voter.store(), voter.message_for(NodeId(2))), (None, None));
    voter.stored(now, Key::Ballot);
    assert!(matches!(say(&mut voter, 2), Some(Message::VoteAnswer(it)) if it.refusal.is_none()));

    let mut candidate = node(1, 3);
    candidate.tick(candidate.deadline());
    let Some(Message::VoteRequest(pre)) = say(&mut candidate, 2) else {
        panic!("asks first whether it would be voted for");
    };
    assert!(pre.pre && pre.term == 1 && candidate.term() == 0);
    grant(&mut candidate, 2, &pre);
    assert_eq!((candidate.role(), candidate.term()), (MemberRole::Candidate, 1));
    assert_eq!(candidate.message_for(NodeId(2)), None, "its own vote is not stored yet");
    store(&mut candidate);
    assert!(matches!(say(&mut candidate, 2), Some(Message::VoteRequest(it)) if !it.pre));
}

/// QC-06: what was restored binds, what was not stored does not come back.
#[test]
fn a_restored_vote_is_the_only_one_of_its_term() {
    let mut first = node(1, 3);
    assert_eq!(asked(&mut first, after(1_000), 2, request(4, false)), None);
    let mut record = [0; CONTROL_FRAME_BYTES_MAX];
    let len = first.record(Key::Ballot, &mut record).unwrap();
    let mut second = Election::new(CONFIG, NodeId(1), 9, [ElectionSlot::FREE; 6]).unwrap();
    second.set_members(voters(3)).unwrap();
    second.restore(Key::Ballot, &record[..len]).unwrap();
    second.start(START);
    assert_eq!((second.term(), second.vote()), (4, Some(NodeId(2))));
    let late = after(1_000);
    assert_eq!(asked(&mut second, late, 3, request(4, false)), Some(Refusal::Taken));
    assert_eq!(asked(&mut second, late, 2, request(4, false)), None, "the same vote again");
}

/// A restarted voter may have accepted a heartbeat just before: to the microsecond.
#[test]
fn a_restarted_voter_is_silent_for_the_shortest_timeout() {
    let just_before = Instant::from_micros(after(150).as_micros() - 1);
    for pre in [true, false] {
        let mut voter = node(1, 3);
        let refusal = asked(&mut voter, just_before, 2, request(1, pre));
        assert_eq!(refusal, Some(Refusal::Leader));
        assert_eq!(voter.term(), 0, "and keeps its term for the leader");
        assert_eq!(asked(&mut voter, after(150), 2, request(1, pre)), None);
    }
}

/// The promise of a voter: to the microsecond, for votes and for questions before them.
#[test]
fn a_voter_refuses_for_the_shortest_timeout_after_each_heartbeat() {
    for pre in [true, false] {
        let mut voter = node(1, 3);
        voter.receive(after(1_000), NodeId(2), &heartbeat(1));
        store(&mut voter);
        let just_before = Instant::from_micros(after(1_150).as_micros() - 1);
        let refusal = asked(&mut voter, just_before, 3, request(2, pre));
        assert_eq!((refusal, voter.term()), (Some(Refusal::Leader), 1));
        assert_eq!(asked(&mut voter, after(1_150), 3, request(2, pre)), None);
    }
}

/// The lease of a leader: from when the answered heartbeat was made, to the microsecond.
#[test]
fn a_lease_runs_from_when_the_answered_heartbeat_was_made() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2]);
    let made_at = leader.now;
    let until = later(made_at, CONFIG.lease_us());
    assert_eq!(leader.leader_until(), Some(until));
    // An answer that comes late says no more than when its heartbeat was made.
    leader.tick(made_at.plus_millis(50));
    let Some(Message::Heartbeat(heartbeat)) = say(&mut leader, 3) else {
        panic!("no heartbeat");
    };
    leader.tick(made_at.plus_millis(120));
    accept(&mut leader, 3, &heartbeat);
    let until = later(made_at.plus_millis(50), CONFIG.lease_us());
    assert_eq!(leader.leader_until(), Some(until));
    leader.tick(Instant::from_micros(until.as_micros() - 1));
    assert_eq!(leader.role(), MemberRole::Leader);
    leader.tick(until);
    assert_eq!((leader.leader_until(), leader.role()), (None, MemberRole::Follower));
    assert_eq!(leader.stats().quorum_lost, 1);
}

/// QC-11: with clocks as wrong as they may be the lease ends before the promise.
#[test]
fn a_lease_on_the_slowest_clock_ends_before_a_promise_on_the_fastest() {
    for clock_error_ppm in [0, 1, 100, 1_000, 50_000, 99_999] {
        for timeout_ms_min in [150_u32, 2_500, 20_000] {
            let margin_ms = 0;
            let config = ElectionConfig { clock_error_ppm, timeout_ms_min, margin_ms, ..CONFIG };
            let error = u64::from(clock_error_ppm);
            // Compared as lease / (1 - e) with promise / (1 + e), without a division.
            let lease = config.lease_us() * (1_000_000 + error);
            let promise = u64::from(timeout_ms_min) * 1_000 * (1_000_000 - error);
            assert!(lease <= promise, "{config:?}");
        }
    }
}

/// A stale leader that is elected and not answered leads at no time.
#[test]
fn who_wins_leads_when_a_majority_has_answered_and_not_before() {
    let mut leader = node(1, 3);
    leader.tick(leader.deadline());
    for _ in 0..2 {
        store(&mut leader);
        if let Some(Message::VoteRequest(request)) = say(&mut leader, 2) {
            grant(&mut leader, 2, &request);
        }
    }
    assert_eq!((leader.role(), leader.leader_until()), (MemberRole::Leader, None));
    assert_eq!(leader.leader(), None);
    leader.tick(leader.deadline());
    while leader.role() == MemberRole::Leader {
        leader.tick(leader.deadline().min(leader.quorum_deadline()));
    }
    assert!(leader.now <= later(leader.since, CONFIG.lease_us()));
    let told: Vec<ElectionEvent> = core::iter::from_fn(|| leader.take_event()).collect();
    let became = told.iter().any(|it| matches!(it, ElectionEvent::BecameLeader { .. }));
    assert!(!became, "{told:?}");
}

/// QC-08.
#[test]
fn granting_a_vote_restarts_the_timer() {
    let mut voter = node(1, 3);
    let now = Instant::from_micros(voter.deadline().as_micros() - 1);
    assert_eq!(asked(&mut voter, now, 2, request(1, false)), None);
    assert!(voter.deadline() >= now.plus_millis(150));
    // A question before a vote binds nobody.
    let before = voter.deadline();
    let later = Instant::from_micros(before.as_micros() - 1);
    assert_eq!(asked(&mut voter, later, 3, request(2, true)), None);
    assert_eq!((voter.deadline(), voter.term()), (before, 1));
}

/// QC-09.
#[test]
fn a_candidate_that_hears_a_leader_keeps_that_leaders_term() {
    let mut candidate = node(1, 3);
    candidate.tick(candidate.deadline());
    let Some(Message::VoteRequest(pre)) = say(&mut candidate, 2) else {
        panic!("no request");
    };
    grant(&mut candidate, 2, &pre);
    store(&mut candidate);
    assert_eq!((candidate.role(), candidate.term()), (MemberRole::Candidate, 1));
    candidate.receive(candidate.now, NodeId(3), &heartbeat(1));
    for ms in 0..140 {
        candidate.tick(candidate.now.plus_millis(1));
        assert_eq!((candidate.role(), candidate.term()), (MemberRole::Follower, 1), "{ms} ms");
    }
    assert_eq!(candidate.leader().unwrap().node, NodeId(3));
}

/// An answer counts once for each peer, for the campaign it answers, and not for another.
#[test]
fn an_answer_counts_once_and_for_its_own_campaign_alone() {
    let mut candidate = node(1, 5);
    candidate.tick(candidate.deadline());
    let Some(Message::VoteRequest(first)) = say(&mut candidate, 2) else {
        panic!("no request");
    };
    grant(&mut candidate, 2, &first);
    grant(&mut candidate, 2, &first);
    assert_eq!(candidate.role(), MemberRole::PreCandidate, "two of five, twice from one");
    candidate.tick(candidate.deadline);
    // The same term is asked for again, and the answers to the earlier question come late.
    let Some(Message::VoteRequest(second)) = say(&mut candidate, 3) else {
        panic!("no request");
    };
    assert_eq!((second.term, second.campaign == first.campaign), (first.term, false));
    grant(&mut candidate, 2, &first);
    grant(&mut candidate, 4, &first);
    assert_eq!(candidate.role(), MemberRole::PreCandidate);
    grant(&mut candidate, 3, &second);
    grant(&mut candidate, 4, &second);
    assert_eq!(candidate.role(), MemberRole::Candidate);
    // Answers to the question are no votes.
    store(&mut candidate);
    for from in 2..=5 {
        grant(&mut candidate, from, &second);
    }
    assert_eq!(candidate.role(), MemberRole::Candidate);
}

/// QC-12: on the first answer, whatever it answers.
#[test]
fn a_leader_steps_down_on_the_first_answer_with_a_later_term() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2]);
    let term = leader.term();
    let answer = HeartbeatAnswer {
        term: term + 1,
        sent_us: 0,
        refusal: Some(Refusal::Term),
        configuration: of_three(),
        progress: Progress::default(),
        registry: 0,
    };
    leader.receive(leader.now, NodeId(3), &Message::HeartbeatAnswer(answer));
    assert_eq!((leader.leader_until(), leader.term()), (None, term + 1));
    let told: Vec<ElectionEvent> = core::iter::from_fn(|| leader.take_event()).collect();
    assert!(!told.contains(&ElectionEvent::BecameLeader { term }), "it was never told");
}

/// A leader with a lease is not deposed by who has not heard of it; nor does it raise its term.
#[test]
fn a_leader_with_a_lease_votes_for_nobody() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2]);
    let term = leader.term();
    let now = leader.now;
    let newest = VoteRequest { configuration: leader.configuration(), ..request(term + 5, false) };
    assert_eq!(asked(&mut leader, now, 3, newest), Some(Refusal::Leader));
    assert_eq!((leader.role(), leader.term()), (MemberRole::Leader, term));
}

/// QC-26: the vote after a hand-over passes the promise to the leader that resigned, and no other.
#[test]
fn a_hand_over_passes_only_promises_to_the_leader_that_resigned() {
    let handed = |term| VoteRequest { handed_over: true, ..request(term, false) };
    let now = after(1_010);
    let follower = |term| {
        let mut voter = node(1, 3);
        voter.receive(after(1_000), NodeId(2), &heartbeat(term));
        store(&mut voter);
        voter
    };
    assert_eq!(asked(&mut follower(4), now, 3, request(5, false)), Some(Refusal::Leader));
    assert_eq!(asked(&mut follower(4), now, 3, handed(5)), None);
    // The same request again, when there is a leader of its term or of a later one.
    assert_eq!(asked(&mut follower(5), now, 3, handed(5)), Some(Refusal::Taken));
    assert_eq!(asked(&mut follower(6), now, 3, handed(5)), Some(Refusal::Term));
    // Not for a question before a vote.
    let pre = VoteRequest { pre: true, ..handed(5) };
    assert_eq!(asked(&mut follower(4), now, 3, pre), Some(Refusal::Leader));
}

/// QC-26: nobody campaigns because of a hand-over that is not its leader's, or is over.
#[test]
fn a_hand_over_that_is_over_or_not_the_leaders_is_passed_over() {
    for (from, term) in [(3, 4), (2, 3), (2, 5)] {
        let mut voter = node(1, 3);
        voter.receive(after(1_000), NodeId(2), &heartbeat(4));
        store(&mut voter);
        voter.receive(after(1_001), NodeId(from), &Message::HandOver(term));
        assert_eq!((voter.role(), voter.term()), (MemberRole::Follower, 4), "{from} {term}");
    }
    let mut voter = node(1, 3);
    voter.receive(after(1_000), NodeId(2), &heartbeat(4));
    store(&mut voter);
    voter.receive(after(1_001), NodeId(2), &Message::HandOver(4));
    assert_eq!((voter.role(), voter.term()), (MemberRole::Candidate, 5));
}

/// A leader that resigns does not lead for an instant longer, and says so first.
#[test]
fn who_resigns_gives_up_the_lease_before_it_hands_over() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2, 3]);
    let term = leader.term();
    while leader.take_event().is_some() {}
    assert!(leader.resign(leader.now));
    assert_eq!(leader.leader_until(), None);
    assert_eq!(leader.take_event(), Some(ElectionEvent::LostLeadership { term }));
    let handed: Vec<u64> = [2, 3]
        .into_iter()
        .filter(|it| say(&mut leader, *it) == Some(Message::HandOver(term)))
        .collect();
    assert_eq!(handed.len(), 1);
    // Late answers do not make it lead again.
    let beat = Heartbeat {
        term,
        sent_us: leader.now.as_micros(),
        configuration: leader.configuration(),
        registry: 0,
    };
    accept(&mut leader, 2, &beat);
    accept(&mut leader, 3, &beat);
    assert_eq!(leader.leader_until(), None);
}

/// QC-06: a failing disk: no vote, no candidacy, and an honest answer; then tried again.
#[test]
fn a_disk_that_fails_costs_the_vote_until_it_works_again() {
    let mut voter = node(1, 3);
    let now = after(1_000);
    voter.receive(now, NodeId(2), &heartbeat(3));
    voter.storing(Key::Ballot);
    voter.store_failed(now, Key::Ballot);
    match say(&mut voter, 2) {
        Some(Message::HeartbeatAnswer(answer)) => {
            assert_eq!(answer.refusal, Some(Refusal::Storage));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(voter.store(), None, "not again at once");
    let retry_at = now.plus_millis(300);
    assert!(voter.deadline() <= retry_at);
    voter.tick(retry_at);
    assert_ne!(voter.role(), MemberRole::PreCandidate, "no candidate without a disk");
    store(&mut voter);
    assert!(voter.ballot.is_stored());
    let told = asked(&mut voter, after(3_000), 3, request(4, false));
    assert_eq!(told, None);
}

fn members_of(node: &Node) -> (ConfigurationId, Vec<u8>) {
    let mut bytes = [0; MEMBERS_MAX * MEMBER_BYTES];
    let members = node.members_frame(&mut bytes).unwrap();
    (members.configuration, members.members.to_vec())
}

/// QC-19: one at a time, and each when a majority has the one before.
#[test]
fn a_change_of_members_waits_for_a_majority_that_has_the_last() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2]);
    let node_4 = NodeId(4);
    assert!(leader.is_settled());
    leader.change(leader.now, node_4, Membership::Voter).unwrap();
    assert_eq!(leader.quorum(), 3);
    assert!(leader.leader_until().is_some(), "what the three have promised holds");
    let next = leader.change(leader.now, NodeId(5), Membership::Voter);
    assert_eq!(next, Err(ChangeError::Busy));
    beat(&mut leader, &[2]);
    let next = leader.change(leader.now, NodeId(5), Membership::Voter);
    assert_eq!(next, Err(ChangeError::Busy), "two of four are no majority");
    beat(&mut leader, &[2, 4]);
    beat(&mut leader, &[2, 4]);
    leader.change(leader.now, NodeId(5), Membership::Voter).unwrap();
    assert_eq!(leader.members().count(), 5);
    let now = leader.configuration();
    assert_eq!((now.term, now.origin(), now.change()), (1, of_three().origin(), 3));
}

/// The promises of an earlier majority hold against the next members, and not beyond.
#[test]
fn a_lease_across_changes_counts_what_holds_against_the_present_members() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2]);
    beat(&mut leader, &[2]);
    beat(&mut leader, &[2]);
    let floor = leader.leader_until().unwrap();
    leader.change(leader.now, NodeId(4), Membership::Voter).unwrap();
    assert_eq!(leader.leader_until(), Some(floor));
    // Only one of the three others answers: of four that is no majority, and no time is won.
    beat(&mut leader, &[2]);
    assert_eq!(leader.leader_until(), Some(floor));
    leader.tick(floor);
    assert_eq!(leader.role(), MemberRole::Follower);
}

/// From one voter to two: the second counts from the start.
#[test]
fn the_only_voter_that_takes_in_a_second_needs_it() {
    let mut leader = node(1, 1);
    elect(&mut leader, &[]);
    assert_eq!(leader.leader_until(), Some(Instant::NEVER));
    store(&mut leader);
    leader.change(leader.now, NodeId(2), Membership::Voter).unwrap();
    let until = leader.leader_until().unwrap();
    assert_eq!(until, later(leader.now, CONFIG.lease_us()));
    leader.tick(until);
    assert_eq!(leader.leader_until(), None);
}

/// A voter refuses who has older members, and tells it the newer.
#[test]
fn a_candidate_with_older_members_gets_them_and_no_vote() {
    let mut leader = node(1, 3);
    elect(&mut leader, &[2]);
    beat(&mut leader, &[2]);
    let (configuration, members) = members_of(&leader);
    let mut voter = node(2, 3);
    let taken = Members { configuration, members: &members };
    assert!(voter.receive_members(after(1_000), NodeId(1), &taken, false));
    store(&mut voter);
    assert_eq!(voter.configuration(), configuration);
    let now = after(2_000);
    assert_eq!(asked(&mut voter, now, 3, request(5, false)), Some(Refusal::Configuration));
    assert_eq!(say(&mut voter, 3), Some(Message::Members));
    assert_eq!(voter.term(), 5, "the term counts all the same");
    let newest = VoteRequest { configuration, ..request(5, false) };
    assert_eq!(asked(&mut voter, now, 3, newest), None);
}

/// Members come from members; those that make no sense are counted and change nothing.
#[test]
fn members_from_strangers_or_without_sense_change_nothing() {
    let configuration = ConfigurationId { term: 1, ..of_three() };
    let of = |nodes: &[u64]| -> Vec<u8> {
        nodes.iter().flat_map(|node| [&node.to_le_bytes()[..], &[1]].concat()).collect()
    };
    let mut voter = node(1, 3);
    let sound = of(&[1, 2]);
    let stranger = Members { configuration, members: &sound };
    assert!(!voter.receive_members(START, NodeId(9), &stranger, true));
    let twice = of(&[1, 2, 2]);
    let nobody = of(&[1, 0]);
    let many: Vec<u64> = (1..=40).collect();
    let too_many = of(&many);
    let learners: Vec<u8> = [&2_u64.to_le_bytes()[..], &[0]].concat();
    for members in [&sound[..17], &[], &twice, &nobody, &too_many, &learners] {
        let members = Members { configuration, members };
        assert!(voter.receive_members(START, NodeId(2), &members, true));
    }
    assert_eq!((voter.configuration(), voter.stats().malformed), (of_three(), 6));
    let far = ConfigurationId { term: u64::MAX, ..of_three() };
    let far = Members { configuration: far, members: &sound };
    voter.receive_members(START, NodeId(2), &far, true);
    assert_eq!((voter.configuration(), voter.stats().implausible), (of_three(), 1));
}

/// A record of another format, or cut short, is refused and changes nothing.
#[test]
fn a_record_that_is_torn_is_refused() {
    let first = node(1, 3);
    for key in [Key::Ballot, Key::Members] {
        let mut record = [0; CONTROL_FRAME_BYTES_MAX];
        let len = first.record(key, &mut record).unwrap();
        let mut second = Election::new(CONFIG, NodeId(1), 9, [ElectionSlot::FREE; 6]).unwrap();
        for cut in 0..len {
            assert!(second.restore(key, &record[..cut]).is_err(), "{key:?} cut at {cut}");
        }
        record[0] = 9;
        assert_eq!(second.restore(key, &record[..len]), Err(RestoreError::Malformed));
        record[0] = 1;
        second.restore(key, &record[..len]).unwrap();
        assert_eq!(second.record(key, &mut [0; 2]), None, "a short buffer");
        if key == Key::Members {
            assert_eq!(second.configuration(), of_three());
            assert_eq!(second.members().count(), 3);
        }
    }
    let mut small = Election::new(CONFIG, NodeId(1), 9, [ElectionSlot::FREE; 1]).unwrap();
    let mut record = [0; CONTROL_FRAME_BYTES_MAX];
    let len = first.record(Key::Members, &mut record).unwrap();
    assert_eq!(small.restore(Key::Members, &record[..len]), Err(RestoreError::Full));
}

/// The greatest configuration fits what a driver must be able to store, and one frame.
#[test]
fn the_greatest_configuration_fits_into_512_bytes() {
    let mut node =
        Election::new(CONFIG, NodeId(1), 1, [ElectionSlot::FREE; MEMBERS_MAX - 1]).unwrap();
    let all = (1..=MEMBERS_MAX as u64).map(|it| (NodeId(it), Membership::Voter));
    node.set_members(all).unwrap();
    let mut record = [0; CONTROL_FRAME_BYTES_MAX];
    assert!(node.record(Key::Members, &mut record).is_some());
    let mut bytes = [0; MEMBERS_MAX * MEMBER_BYTES];
    let members = node.members_frame(&mut bytes).unwrap();
    let greatest = ConfigurationId { term: u64::MAX, version: u64::MAX };
    let control = crate::wire::Control::Members(Members { configuration: greatest, ..members });
    assert!(crate::wire::encode_control(0, &control, &mut record).is_some());
}

/// A whole world of elections is copied as it stands, and goes on the same way.
#[test]
fn a_copy_goes_on_as_the_original() {
    let mut one = node(1, 3);
    elect(&mut one, &[2]);
    let mut other = one.clone();
    beat(&mut one, &[2, 3]);
    assert_ne!(one, other);
    beat(&mut other, &[2, 3]);
    assert_eq!(one, other);
}
