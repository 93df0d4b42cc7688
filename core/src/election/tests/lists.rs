//! Lists of the first members that do not agree.

use super::*;

/// Node `own`, started with a list of voters.
fn of_list(own: u64, list: &[u64]) -> Node {
    let mut node = Election::new(CONFIG, NodeId(own), own, [ElectionSlot::FREE; 6]).unwrap();
    node.set_members(list.iter().map(|it| (NodeId(*it), Membership::Voter))).unwrap();
    node.start(START);
    node
}

fn told(node: &mut Node) -> Vec<ElectionEvent> {
    core::iter::from_fn(|| node.take_event()).collect()
}

/// QC-05: the order of a list does not matter, what stands in it does.
#[test]
fn lists_of_the_same_members_make_the_same_configuration() {
    let one = of_list(1, &[1, 2, 3]).configuration();
    assert_eq!(one, of_list(2, &[3, 2, 1]).configuration());
    assert_eq!((one.term, one.change()), (0, 1));
    assert_ne!(one, of_list(1, &[1, 2]).configuration());
    let mut learner = Election::new(CONFIG, NodeId(1), 1, [ElectionSlot::FREE; 6]).unwrap();
    let third = |it| if it == 3 { Membership::Learner } else { Membership::Voter };
    learner.set_members((1..=3).map(|it| (NodeId(it), third(it)))).unwrap();
    assert_ne!(one, learner.configuration());
}

/// QC-05: two that were started with other lists elect nobody, and each names the other, once.
#[test]
fn nodes_with_different_lists_give_each_other_no_vote() {
    let mut voter = of_list(1, &[1, 2, 3]);
    let mut candidate = of_list(2, &[1, 2]);
    candidate.tick(candidate.deadline());
    for _ in 0..3 {
        let now = candidate.now.max(after(1_000));
        let asked = say(&mut candidate, 1).unwrap();
        assert!(matches!(asked, Message::VoteRequest(_)), "{asked:?}");
        voter.receive(now, NodeId(2), &asked);
        assert_eq!((voter.term(), voter.vote()), (0, None));
        assert_eq!(say(&mut voter, 2), Some(Message::Members), "no answer, but what it has");
        candidate.tick(candidate.deadline());
    }
    assert_eq!(voter.stats().foreign, 3);
    assert_eq!(told(&mut voter), [ElectionEvent::MembersDiffer { node: NodeId(2) }]);
    // The other list is not taken over: neither is better.
    let (configuration, members) = members_of(&voter);
    let before = candidate.configuration();
    let others = Members { configuration, members: &members };
    while say(&mut candidate, 1).is_some() {}
    candidate.receive_members(candidate.now, NodeId(1), &others, true);
    assert_eq!(candidate.configuration(), before);
    assert_eq!(say(&mut candidate, 1), None, "nor sent back and forth");
    let differs = ElectionEvent::MembersDiffer { node: NodeId(1) };
    assert!(told(&mut candidate).contains(&differs));
}

/// QC-02: whose list has a mistake gets the members that the others have elected a leader with.
#[test]
fn a_wrong_list_among_right_ones_is_mended_by_the_leader() {
    let mut leader = of_list(1, &[1, 2, 3]);
    elect(&mut leader, &[2]);
    let mut wrong = of_list(3, &[1, 3]);
    wrong.receive(after(1_000), NodeId(1), &heartbeat(leader.term()));
    assert_eq!((wrong.term(), wrong.leader()), (0, None), "not obeyed yet");
    let (configuration, members) = members_of(&leader);
    let taken = Members { configuration, members: &members };
    wrong.receive_members(after(1_001), NodeId(1), &taken, false);
    assert_eq!((wrong.configuration(), wrong.members().count()), (configuration, 3));
    wrong.receive(after(1_002), NodeId(1), &heartbeat(leader.term()));
    assert_eq!(wrong.leader().map(|it| it.node), Some(NodeId(1)));
    assert_eq!(told(&mut wrong).len(), 2, "the members, and who leads");
}

/// QC-23: a node that was started alone by mistake elects itself again and again: its term rises
/// above that of the cluster, and it must not take it over.
#[test]
fn a_node_that_elects_itself_alone_does_not_take_a_cluster_over() {
    let mut alone = of_list(3, &[3]);
    for _ in 0..5 {
        elect(&mut alone, &[]);
        store(&mut alone);
        alone.resign(alone.now);
    }
    elect(&mut alone, &[]);
    store(&mut alone);
    let (configuration, members) = members_of(&alone);
    let theirs = Members { configuration, members: &members };
    let mut follower = node(1, 3);
    for settled in [false, true] {
        let before = follower.configuration();
        assert!(before < configuration);
        follower.receive_members(follower.now, NodeId(3), &theirs, true);
        let beat = Heartbeat { term: alone.term(), sent_us: 1, configuration, registry: 0 };
        follower.receive(follower.now, NodeId(3), &Message::Heartbeat(beat));
        let request = VoteRequest { configuration, ..request(alone.term() + 1, false) };
        follower.receive(follower.now, NodeId(3), &Message::VoteRequest(request));
        assert_eq!((follower.configuration(), follower.leader()), (before, None), "{settled}");
        assert!(follower.term() < alone.term());
        if !settled {
            elect(&mut follower, &[2]);
            follower.resign(follower.now);
        }
    }
    assert_eq!(follower.stats().foreign, 6);
}
