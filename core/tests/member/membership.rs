//! Who is a member: joining, leaving, removal, and races with elections.

use crate::world::{Disk, World, id, nth};
use replcore::election::{ElectionEvent, Membership};
use replcore::member::MemberError;
use replcore::rng::Rng;
use replcore::wire::MemberRole;

/// A cluster of `count`, and one more that knows only `seed` and wishes to be in it.
fn with_newcomer(count: usize, seed: u64, knows: usize, voter: bool) -> (World, usize) {
    let mut world = World::new(count, seed);
    world.elect();
    world.run_ms(500);
    let newcomer = world.add("new", vec![(nth(knows), None)], |config| {
        config.membership = Membership::None;
    });
    world.tell(newcomer, |member, now| member.join(now, voter)).unwrap();
    (world, newcomer)
}

/// QC-19: any member will do; the leader makes it one of them, and all know.
#[test]
fn a_newcomer_asks_any_member_and_becomes_one() {
    for knows in 0..3 {
        let (mut world, newcomer) = with_newcomer(3, 20 + knows as u64, knows, true);
        let leader = world.leader().unwrap();
        let joined = world.until(10_000, |world| {
            (0..4).all(|at| world.membership(at, "new") == Membership::Voter)
        });
        assert!(joined.is_some(), "asked node {knows}, node {leader} leads");
        world.run_ms(3_000);
        assert_eq!(world.leader(), Some(leader), "nobody was disturbed");
        assert_eq!(world.role(newcomer), MemberRole::Follower);
        assert!(world.all_follow(leader), "the newcomer knows the leader");
        let view = world.nodes[newcomer].machine.peer(id(&nth(leader))).unwrap();
        assert_eq!(view.address, Some(format!("{}:1", nth(leader)).as_str()));
        // Its vote counts from now on: of four three are needed.
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        world.crash(leader);
        world.elect_among(|at| at != leader);
        world.crash(others[0]);
        world.run_ms(3_000);
        assert_eq!(world.leader(), None, "two of four are no majority");
    }
}

/// QC-19: what has been made of the members outlives all processes.
#[test]
fn members_are_what_they_were_after_a_restart_of_all() {
    let (mut world, newcomer) = with_newcomer(3, 24, 1, true);
    world.until(10_000, |world| world.membership(newcomer, "new") == Membership::Voter).unwrap();
    world.run_ms(1_000);
    for at in 0..4 {
        world.crash(at);
    }
    world.run_ms(100);
    for at in 0..4 {
        world.restart(at);
    }
    world.elect();
    for at in 0..4 {
        assert_eq!(world.membership(at, "new"), Membership::Voter);
    }
}

/// QC-19, QC-34.
#[test]
fn a_newcomer_may_be_a_learner_and_become_a_voter() {
    let (mut world, newcomer) = with_newcomer(3, 25, 0, false);
    let learns = |world: &World| world.membership(newcomer, "new") == Membership::Learner;
    assert!(world.until(10_000, learns).is_some());
    world.run_ms(1_000);
    assert_eq!(world.role(newcomer), MemberRole::Learner);
    let leader = world.leader().unwrap();
    let node = id("new");
    world.tell(leader, |it, now| it.change_member(now, node, Membership::Voter)).unwrap();
    let votes = |world: &World| world.role(newcomer) == MemberRole::Follower;
    assert!(world.until(3_000, votes).is_some());
}

/// QC-19: nobody is taken in where that is forbidden.
#[test]
fn a_cluster_that_admits_nobody_refuses_a_newcomer() {
    let mut world = World::empty(26);
    for at in 0..3 {
        let peers = (0..3).filter(|it| *it != at).map(|it| (nth(it), None)).collect();
        world.add(&nth(at), peers, |config| config.admits = false);
    }
    let leader = world.elect();
    let newcomer =
        world.add("new", vec![(nth(0), None)], |config| config.membership = Membership::None);
    world.tell(newcomer, |member, now| member.join(now, true)).unwrap();
    world.run_ms(10_000);
    assert_eq!((world.leader(), world.membership(leader, "new")), (Some(leader), Membership::None));
    assert!(world.nodes[0].machine.stats().strangers > 0);
}

/// QC-19: a removed node learns it and campaigns no more, also when it was away.
#[test]
fn a_removed_node_learns_it_and_campaigns_no_more() {
    for away in [false, true] {
        let mut world = World::new(4, 27);
        let leader = world.elect();
        world.run_ms(500);
        let gone = (leader + 1) % 4;
        if away {
            world.crash(gone);
            world.run_ms(3_000);
        }
        let node = id(&nth(gone));
        world.tell(leader, |it, now| it.change_member(now, node, Membership::None)).unwrap();
        world.run_ms(1_000);
        if away {
            world.restart(gone);
        }
        world.run_ms(5_000);
        let removed = |event: &ElectionEvent| *event == ElectionEvent::Removed;
        assert_eq!(world.events(gone, removed), 1, "away: {away}");
        assert_eq!(world.role(gone), MemberRole::None);
        let term = world.term(leader);
        world.run_ms(5_000);
        assert_eq!((world.leader(), world.term(leader)), (Some(leader), term));
        // The three that are left need two.
        world.crash(leader);
        world.elect_among(|at| at != leader && at != gone);
    }
}

/// QC-19: the leader itself leaves: it hands over, and the next leader removes it.
#[test]
fn a_leader_that_leaves_hands_over_and_is_removed() {
    let mut world = World::new(3, 28);
    let old = world.elect();
    world.run_ms(200);
    world.tell(old, |member, now| member.leave(now)).unwrap();
    let removed =
        |world: &World| (0..3).all(|at| world.membership(at, &nth(old)) == Membership::None);
    assert!(world.until(10_000, removed).is_some());
    let leader = world.elect_among(|at| at != old);
    world.run_ms(5_000);
    assert_eq!((world.leader(), world.role(old)), (Some(leader), MemberRole::None));
}

#[test]
fn the_only_voter_cannot_leave_and_a_leader_does_not_remove_itself() {
    let mut world = World::new(1, 29);
    world.elect();
    let left = world.tell(0, |member, now| member.leave(now));
    assert_eq!(left, Err(MemberError::OnlyVoter));
    let mut world = World::new(3, 29);
    let leader = world.elect();
    world.run_ms(500);
    let node = id(&nth(leader));
    let removed = world.tell(leader, |it, now| it.change_member(now, node, Membership::None));
    assert_eq!(removed, Err(MemberError::Busy));
    assert_eq!(world.leader(), Some(leader));
}

/// QC-13, QC-19: from one to five and back, without a moment with two leaders.
#[test]
fn a_cluster_grows_from_one_and_shrinks_again() {
    let mut world = World::new(1, 30);
    world.elect();
    for at in 1..5 {
        let node = world.add(&nth(at), vec![(nth(0), None)], |config| {
            config.membership = Membership::None;
        });
        world.tell(node, |member, now| member.join(now, true)).unwrap();
        let grown = |world: &World| {
            (0..=at).all(|it| world.nodes[it].machine.membership(id(&nth(at))) == Membership::Voter)
        };
        assert!(world.until(10_000, grown).is_some(), "node {at} does not get in");
    }
    for at in (1..5).rev() {
        world.run_ms(300);
        world.tell(at, |member, now| member.leave(now)).unwrap();
        let gone = |world: &World| world.role(at) == MemberRole::None;
        assert!(world.until(10_000, gone).is_some(), "node {at} does not get out");
    }
    world.run_ms(2_000);
    assert_eq!(world.leader(), Some(0));
    assert_eq!(world.nodes[0].machine.leader_until(), Some(replcore::time::Instant::NEVER));
}

/// QC-05, QC-19: changes of members race with crashes, cuts and elections.
#[test]
fn changes_that_race_with_elections_never_make_two_leaders() {
    for seed in 0..100 {
        let mut world = World::new(3, 1_000 + seed);
        let mut rng = Rng::new(seed);
        world.delay_us = (50, [400, 20_000][seed as usize % 2]);
        for at in 3..6 {
            let known = (0..3).map(|it| (nth(it), None)).collect();
            world.add(&nth(at), known, |config| config.membership = Membership::None);
        }
        for at in 0..6 {
            world.nodes[at].disk = Disk::Sound(rng.between(50, 30_000));
            world.nodes[at].rate = rng.between(999_000, 1_001_000);
        }
        for _ in 0..60 {
            let at = rng.between(0, 5) as usize;
            match rng.between(0, 9) {
                0 if world.nodes[at].up => world.crash(at),
                1 | 2 if !world.nodes[at].up => world.restart(at),
                3 => world.cut_off(at),
                4 => world.cut.clear(),
                5 if world.nodes[at].up => {
                    let _ = world.tell_if_awake(at, |member, now| member.join(now, true));
                }
                6 if world.nodes[at].up => {
                    let _ = world.tell_if_awake(at, |member, now| member.leave(now));
                }
                7 => {
                    if let Some(leader) = world.leader() {
                        let node = id(&nth(at));
                        let to = [Membership::None, Membership::Voter, Membership::Learner];
                        let to = to[rng.between(0, 2) as usize];
                        let _ =
                            world.tell_if_awake(leader, |it, now| it.change_member(now, node, to));
                    }
                }
                _ => {}
            }
            world.run_ms(rng.between(0, 500));
        }
        world.peace();
        let found = world.until(30_000, |world| world.leader().is_some());
        assert!(found.is_some(), "seed {seed}: nobody leads in peace");
    }
}
