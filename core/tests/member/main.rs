//! Members of clusters against each other, in virtual time.

#![allow(dead_code, reason = "the world is for the tests to come")]

mod world;

use replcore::election::ElectionEvent;
use replcore::wire::MemberRole;
use world::{World, id, nth};

/// QC-05, QC-16: one leads, and all know who it is, the leader included.
#[test]
fn three_voters_elect_one_leader_that_all_know() {
    let mut world = World::new(3, 1);
    let leader = world.elect();
    for at in 0..3 {
        let known = world.nodes[at].machine.leader().unwrap();
        assert_eq!((known.node, known.term), (id(&nth(leader)), world.term(leader)));
        let view = world.nodes[at].machine.peer(known.node).unwrap();
        assert_eq!(view.address, Some(format!("{}:1", nth(leader)).as_str()));
    }
    let became = |event: &ElectionEvent| matches!(event, ElectionEvent::BecameLeader { .. });
    assert_eq!(world.events(leader, became), 1);
    assert_eq!(world.role((leader + 1) % 3), MemberRole::Follower);
}
