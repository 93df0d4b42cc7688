//! Members that have missed a configuration get it, whoever is left to tell them.

use replcore::contract::Key;
use replcore::election::{Election, ElectionConfig, ElectionSlot, Membership, Message};
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::{ConfigurationId, MemberRole, Members, VoteAnswer};

const OWN: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn election(own: Membership) -> Election<[ElectionSlot; 2]> {
    let free = [ElectionSlot::FREE; 2];
    let mut election = Election::new(ElectionConfig::lan(), OWN, 7, free).unwrap();
    election.set_members([(OWN, own), (OTHER, Membership::Voter)].into_iter()).unwrap();
    election.start(Instant::from_millis(1_000));
    election
}

/// All that it says to the other, told off as sent.
fn says(election: &mut Election<[ElectionSlot; 2]>) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some(message) = election.message_for(OTHER) {
        election.sent(OTHER, &message);
        all.push(message);
    }
    all
}

fn store(election: &mut Election<[ElectionSlot; 2]>, now: Instant) {
    while let Some(key) = election.store() {
        election.storing(key);
        election.stored(now, key);
    }
}

/// QC-10: a voter that was never told of its configuration answers nobody, and is told by the
/// candidate when the leader that made it one is gone.
#[test]
fn a_candidate_sends_the_members_to_a_voter_that_does_not_answer() {
    let mut election = election(Membership::Voter);
    election.tick(election.deadline());
    assert!(matches!(says(&mut election)[..], [Message::VoteRequest(_)]));
    while election.role() == MemberRole::PreCandidate && election.store().is_none() {
        election.tick(election.deadline());
        if says(&mut election).contains(&Message::Members) {
            return;
        }
    }
    panic!("it gave up");
}

#[test]
fn a_leader_repeats_the_members_until_they_are_acknowledged() {
    let mut election = election(Membership::Voter);
    let mut now = election.deadline();
    election.tick(now);
    for pre in [true, false] {
        let requests = says(&mut election);
        let [Message::VoteRequest(request)] = requests[..] else {
            panic!("{requests:?}");
        };
        let answer = VoteAnswer {
            term: request.term,
            asked_term: request.term,
            campaign: request.campaign,
            pre,
            refusal: None,
            configuration: request.configuration,
        };
        let term = if pre { request.term - 1 } else { request.term };
        election.receive(now, OTHER, &Message::VoteAnswer(VoteAnswer { term, ..answer }));
        store(&mut election, now);
    }
    assert_eq!(election.role(), MemberRole::Leader);
    assert!(says(&mut election).contains(&Message::Members));
    now = now.plus_millis(50);
    election.tick(now);
    assert!(says(&mut election).contains(&Message::Members), "it was lost, and is lost for ever");
}

/// It may know no member that leads: the leader became one in a configuration that it has missed.
#[test]
fn a_learner_that_hears_no_leader_asks_with_what_it_has() {
    let mut learner = election(Membership::Learner);
    learner.tick(learner.deadline());
    assert_eq!(says(&mut learner), [Message::Members]);
    assert_ne!(learner.deadline(), Instant::NEVER, "and asks again");
}

#[test]
fn who_says_an_older_configuration_is_told_the_newer() {
    let mut election = election(Membership::Voter);
    let older = Members { configuration: ConfigurationId { term: 0, version: 0 }, members: &[] };
    let now = Instant::from_millis(1_001);
    assert!(election.receive_members(now, OTHER, &older, true));
    assert_eq!(says(&mut election), [Message::Members]);
    assert!(election.record(Key::Members, &mut [0; 512]).is_some());
}
