//! Who leads, when nothing worse happens than that a leader ends.

use crate::world::{World, id, name, nth};
use replcore::contract::{Input, Machine};
use replcore::election::{ElectionConfig, ElectionEvent, Membership};
use replcore::member::MemberEvent;
use replcore::wire::{MemberRole, Progress};

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
    assert_eq!(world.role((leader + 1) % 3), MemberRole::Follower);
}

/// QC-13.
#[test]
fn one_node_alone_elects_itself_and_leads_for_ever() {
    let mut world = World::new(1, 1);
    assert_eq!(world.elect(), 0);
    let until = world.nodes[0].machine.leader_until();
    assert_eq!(until, Some(replcore::time::Instant::NEVER));
    let wakes = world.nodes[0].wakes;
    world.run_ms(3_600_000);
    assert!(world.says_it_leads(0) && world.nodes[0].wakes == wakes, "it wakes for nothing");
}

/// QC-13.
#[test]
fn two_of_two_and_three_of_four_are_needed() {
    for (count, down) in [(2, 1), (4, 2)] {
        let mut world = World::new(count, 3);
        for at in 0..down {
            world.crash(at);
        }
        world.run_ms(5_000);
        assert_eq!(world.leader(), None, "{count} nodes of which {down} are down");
        world.restart(0);
        world.elect();
    }
}

/// QC-14: within one timeout nobody knows a leader.
#[test]
fn without_a_majority_nobody_knows_a_leader() {
    let mut world = World::new(5, 4);
    let leader = world.elect();
    let others: Vec<usize> = (0..5).filter(|at| *at != leader).collect();
    for at in &others[..3] {
        world.crash(*at);
    }
    world.run_ms(300);
    for at in [leader, others[3]] {
        assert_eq!(world.nodes[at].machine.leader(), None, "node {at}");
    }
    world.run_ms(10_000);
    assert_eq!(world.leader(), None);
}

/// QC-12: the leader that comes back from behind a cut learns the term from the first answer.
#[test]
fn a_leader_that_was_stopped_follows_the_new_one() {
    let mut world = World::new(3, 5);
    let old = world.elect();
    let term = world.term(old);
    world.nodes[old].frozen = true;
    world.run_ms(2_000);
    let new = world.elect_among(|at| at != old);
    assert_ne!(new, old);
    // Not for an instant does the stopped process say that it leads, from whatever thread.
    assert!(!world.says_it_leads(old));
    world.thaw(old);
    world.run_ms(1_000);
    assert!(world.all_follow(new), "the old leader follows");
    assert!(world.term(new) > term);
    assert_eq!(world.leader(), Some(new), "and does not disturb");
}

/// QC-27: p99 within two maximum timeouts, 3 to 15 nodes, and QC-05 all along.
#[test]
fn a_new_leader_within_two_longest_timeouts_in_99_of_100() {
    for count in [3, 5, 9, 15] {
        let mut waits = Vec::new();
        for seed in 0..if count > 5 { 60 } else { 150 } {
            let mut world = World::new(count, 100 + seed);
            let leader = world.elect();
            world.run_ms(200 + seed * 7 % 50);
            world.crash(leader);
            waits.push(world.until(10_000, |world| world.leader().is_some()).unwrap());
        }
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() - 1) * part / 100];
        println!("{count} nodes: p50 {} ms, p99 {} ms, max {} ms", at(50), at(99), at(100));
        assert!(at(99) <= 600, "{count} nodes: {waits:?}");
        assert!(at(50) <= 300, "{count} nodes: {waits:?}");
    }
}

/// QC-27.
#[test]
fn no_change_of_leader_in_an_idle_hour() {
    let mut world = World::new(3, 6);
    let leader = world.elect();
    let term = world.term(leader);
    let changed = |event: &ElectionEvent| matches!(event, ElectionEvent::LeaderChanged { .. });
    let before: usize = (0..3).map(|at| world.events(at, changed)).sum();
    world.run_ms(3_600_000);
    assert_eq!((world.leader(), world.term(leader)), (Some(leader), term));
    assert_eq!((0..3).map(|at| world.events(at, changed)).sum::<usize>(), before);
}

/// QC-26: a few round trips, not a timeout.
#[test]
fn a_leader_that_resigns_is_followed_at_once() {
    for count in [2, 3, 5, 9] {
        for seed in 0..20 {
            let mut world = World::new(count, 200 + seed);
            let old = world.elect();
            world.run_ms(100);
            world.tell(old, |member, now| member.resign(now)).unwrap();
            assert_eq!(world.leader(), None, "the lease is given up first");
            let wait = world.until(1_000, |world| world.leader().is_some()).unwrap();
            assert!(wait <= 10, "{count} nodes, seed {seed}: {wait} ms");
            assert_ne!(world.leader(), Some(old));
        }
    }
}

/// QC-26: what is said before the links close is enough.
#[test]
fn a_leader_that_stops_is_followed_at_once() {
    let mut world = World::new(3, 7);
    let old = world.elect();
    world.run_ms(100);
    world.tell(old, |member, now| member.stop(now));
    let wait = world.until(1_000, |world| world.leader().is_some()).unwrap();
    assert!(wait <= 10, "{wait} ms");
    world.run_ms(1_000);
    assert!(world.links_of(old).is_empty(), "every link is closed, and none is dialled");
    assert_eq!(world.nodes[old].machine.leader_until(), None);
}

/// QC-18: in the order in which it happened, and once each.
#[test]
fn events_tell_of_leaders_and_peers() {
    let mut world = World::new(3, 8);
    let old = world.elect();
    let term = world.term(old);
    world.tell(old, |member, now| member.resign(now)).unwrap();
    let new = world.elect();
    let election = |at: usize| -> Vec<ElectionEvent> {
        let events = world.nodes[at].events.iter();
        events
            .filter_map(|event| match event.1 {
                MemberEvent::Election(ElectionEvent::ConfigurationChanged { .. }) => None,
                MemberEvent::Election(event) => Some(event),
                _ => None,
            })
            .collect()
    };
    let old_id = id(&nth(old));
    let said = election(old);
    assert_eq!(
        said[..4],
        [
            ElectionEvent::BecameLeader { term },
            ElectionEvent::LeaderChanged { term, leader: Some(old_id) },
            ElectionEvent::LostLeadership { term },
            ElectionEvent::LeaderChanged { term, leader: None },
        ]
    );
    assert!(election(new).contains(&ElectionEvent::BecameLeader { term: world.term(new) }));
    let other = (0..3).find(|at| *at != old).unwrap();
    world.crash(old);
    let node = old_id;
    let down = (MemberEvent::PeerUp { node }, MemberEvent::PeerDown { node });
    world.run_ms(3_000);
    let has = |event| world.nodes[other].events.iter().filter(|it| it.1 == event).count();
    assert_eq!((has(down.0), has(down.1)), (1, 1));
}

/// QC-34: a learner knows the leader and never leads; its voice does not count.
#[test]
fn a_learner_follows_and_does_not_count() {
    let mut world = World::empty(9);
    let peers = |own: usize| -> Vec<(String, Option<Vec<u8>>)> {
        (0..3).filter(|at| *at != own).map(|at| (nth(at), None)).collect()
    };
    world.learners = vec![nth(2)];
    for at in 0..3 {
        let membership = if at == 2 { Membership::Learner } else { Membership::Voter };
        world.add(&nth(at), peers(at), |config| config.membership = membership);
    }
    let leader = world.elect();
    assert_eq!(world.role(2), MemberRole::Learner);
    world.crash(1 - leader);
    world.run_ms(5_000);
    assert_eq!(world.leader(), None, "one voter of two and a learner are no majority");
    assert_eq!(world.role(2), MemberRole::Learner);
    assert_eq!(world.nodes[2].machine.stats().election.pre_votes, 0);
}

/// QC-34.
#[test]
fn the_greatest_priority_campaigns_first_as_long_as_it_is_there() {
    for seed in 0..20 {
        let mut world = World::empty(300 + seed);
        for at in 0..3 {
            let peers = (0..3).filter(|it| *it != at).map(|it| (nth(it), None)).collect();
            world.add(&nth(at), peers, |config| config.priority = [10, 50, 100][at]);
        }
        // The first election may be over before they know each other.
        world.elect();
        world.run_ms(300);
        let leader = world.leader().unwrap();
        if leader != 2 {
            world.crash(leader);
            world.run_ms(2_500);
            assert_eq!(world.leader(), Some(2));
            world.restart(leader);
            world.run_ms(500);
        }
        world.crash(2);
        let wait = world.until(5_000, |world| world.leader().is_some());
        assert_eq!(world.leader(), Some(1), "seed {seed}, after {wait:?} ms");
    }
}

/// QC-33, QC-34: a witness votes, and would rather have no leader than be it.
#[test]
fn a_member_of_priority_0_votes_and_never_leads() {
    for seed in 0..20 {
        let mut world = World::empty(350 + seed);
        for at in 0..3 {
            let peers = (0..3).filter(|it| *it != at).map(|it| (nth(it), None)).collect();
            world.add(&nth(at), peers, |config| config.priority = [100, 100, 0][at]);
        }
        let first = world.elect();
        world.crash(first);
        let wait = world.until(5_000, |world| world.leader().is_some());
        assert_eq!(world.leader(), Some(1 - first), "seed {seed}, after {wait:?} ms");
        world.crash(1 - first);
        world.run_ms(5_000);
        assert_eq!(world.leader(), None);
        assert_eq!(world.nodes[2].machine.stats().election.pre_votes, 0);
    }
}

/// QC-33: voters refuse who is less fresh than they are.
#[test]
fn the_freshest_follower_is_elected() {
    for seed in 0..20 {
        let mut world = World::new(3, 400 + seed);
        let old = world.elect();
        let fresh = (old + 1 + seed as usize % 2) % 3;
        for at in 0..3 {
            let position = if at == fresh || at == old { 9 } else { 8 };
            let progress = Progress { term: 1, position };
            world.tell(at, |member, now| member.set_progress(now, progress));
        }
        world.crash(old);
        world.run_ms(5_000);
        assert_eq!(world.leader(), Some(fresh));
    }
}

/// QC-33: a hand-over goes to the freshest as well.
#[test]
fn a_hand_over_goes_to_the_freshest() {
    let mut world = World::new(5, 10);
    let old = world.elect();
    let fresh = (old + 3) % 5;
    for at in 0..5 {
        let position = if at == fresh { 5 } else { 4 };
        world.tell(at, |it, now| it.set_progress(now, Progress { term: 1, position }));
    }
    world.run_ms(200);
    world.tell(old, |member, now| member.resign(now)).unwrap();
    world.until(1_000, |world| world.leader().is_some()).unwrap();
    assert_eq!(world.leader(), Some(fresh));
}

/// Every profile finds a leader and keeps it.
#[test]
fn the_profiles_for_long_lines_and_batteries_elect() {
    for (profile, wait_ms) in [(1, 20_000), (2, 200_000)] {
        let mut world = World::empty(11);
        for at in 0..3 {
            let peers = (0..3).filter(|it| *it != at).map(|it| (nth(it), None)).collect();
            world.add(&nth(at), peers, |config| {
                *config = if profile == 1 { config.wan() } else { config.battery() };
            });
        }
        world.delay_us = (100_000, 150_000);
        let found = world.until(wait_ms, |world| world.leader().is_some());
        assert!(found.is_some(), "no leader within {wait_ms} ms");
        world.run_ms(2_000);
        let (leader, term) = (world.leader().unwrap(), world.nodes[0].machine.term());
        world.run_ms(3_600_000);
        assert_eq!((world.leader(), world.term(0)), (Some(leader), term));
    }
}

/// QC-32: what an idle cluster costs, for each node.
#[test]
fn an_idle_cluster_costs_so_many_bytes_and_wake_ups() {
    for (count, bytes_max, wakes_max) in [(3, 1_400, 25), (5, 2_700, 25)] {
        let mut world = World::new(count, 12);
        let leader = world.elect();
        world.run_ms(2_000);
        for node in &mut world.nodes {
            (node.bytes_sent, node.wakes) = (0, 0);
            node.sent.clear();
        }
        world.run_ms(60_000);
        for at in 0..count {
            let node = &world.nodes[at];
            let (bytes, wakes) = (node.bytes_sent / 60, node.wakes / 60);
            let what = if at == leader { "leader" } else { "follower" };
            println!("{count} nodes, {what}: {bytes} bytes/s sent, {wakes} deadlines/s");
            assert!(bytes <= bytes_max, "{what} sends {bytes} bytes/s: {:?}", node.sent);
            assert!(wakes <= wakes_max, "{what} wakes {wakes} times a second");
        }
    }
}

/// QC-29: no heap, and bounded memory.
#[test]
fn an_election_with_five_peers_takes_less_than_a_kibibyte() {
    use replcore::election::{Election, ElectionSlot};
    use replcore::member::{Member, MemberLink};
    use replcore::registry::PeerSlot;
    let election = size_of::<Election<[ElectionSlot; 5]>>();
    println!("election with 5 peers: {election} bytes, a slot {}", size_of::<ElectionSlot>());
    println!(
        "member {} bytes, a peer {}, a link {}",
        size_of::<Member<'_>>(),
        size_of::<PeerSlot>(),
        size_of::<MemberLink>()
    );
    assert!(election <= 1_024, "{election} bytes");
    assert!(size_of::<PeerSlot>() <= 600 && size_of::<MemberLink>() <= 320);
}

/// QC-28: only the driver's monotonic clock counts; a time that goes back is taken for the last.
#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let mut world = World::new(3, 13);
    let leader = world.elect();
    let until = world.nodes[leader].machine.leader_until();
    for at in 0..3 {
        let past = replcore::time::Instant::from_millis(1);
        world.nodes[at].machine.handle(past, Input::Timeout);
    }
    assert_eq!(world.nodes[leader].machine.leader_until(), until);
    world.run_ms(2_000);
    assert_eq!(world.leader(), Some(leader));
}

#[test]
fn timing_that_does_not_go_together_is_named() {
    let lan = ElectionConfig::lan();
    assert_eq!(lan.check(), Ok(()));
    assert_eq!(ElectionConfig::wan().check(), Ok(()));
    assert_eq!(ElectionConfig::battery().check(), Ok(()));
    for (config, number) in [
        (ElectionConfig { heartbeat_ms: 80, ..lan }, "heartbeat_ms"),
        (ElectionConfig { timeout_ms_max: 150, ..lan }, "timeout_ms_max"),
        (ElectionConfig { clock_error_ppm: 100_000, ..lan }, "clock_error_ppm"),
        (ElectionConfig { margin_ms: 100, ..lan }, "margin_ms"),
    ] {
        let error = config.check().unwrap_err();
        assert!(error.to_string().contains(number), "{error}");
    }
}

/// What a program asks for after a stop is an answer and no fault.
#[test]
fn a_command_that_cannot_be_done_says_why() {
    let mut world = World::new(3, 14);
    let leader = world.elect();
    let other = (leader + 1) % 3;
    let resigned = world.tell(other, |member, now| member.resign(now));
    assert_eq!(resigned.unwrap_err().to_string(), "this node does not lead: ask the leader");
    let own = name(&nth(leader));
    let added = world.tell(leader, |member, _| member.add_known_peer(own, None, None, true));
    assert_eq!(added.unwrap_err().to_string(), "the name is this node's own");
    let known = name(&nth(other));
    let twice = world.tell(leader, |member, _| member.add_known_peer(known, None, None, true));
    assert_eq!(twice.unwrap_err().to_string(), "there is a peer of this name already");
}
