//! What must never happen, whatever the network, the disks and the clocks do. The world asserts
//! after every event that no two nodes say at one instant that they lead, and that no term has two
//! leaders.

use crate::world::{Disk, World, decoded, id, nth};
use replcore::contract::Transport;
use replcore::rng::Rng;
use replcore::wire::Control;

const VOTE_ANSWER: u8 = 16;
const HEARTBEAT_ANSWER: u8 = 18;

/// One random schedule: faults for a while, then peace.
fn campaign(seed: u64, count: usize, transport: Transport) -> World {
    let mut world = World::new(count, seed);
    let mut rng = Rng::new(seed ^ 0x5eed);
    world.transport = transport;
    world.delay_us = (50, [500, 5_000, 30_000][rng.between(0, 2) as usize]);
    if transport == Transport::Datagram {
        (world.loss, world.repeat) = (rng.between(0, 200), rng.between(0, 200));
    }
    for at in 0..count {
        // Within the stated error of 1,000 millionths.
        world.nodes[at].rate = rng.between(999_000, 1_001_000);
        world.nodes[at].disk = Disk::Sound(rng.between(50, 20_000));
    }
    for _ in 0..60 {
        let at = rng.between(0, count as u64 - 1) as usize;
        let other = rng.between(0, count as u64 - 1) as usize;
        match rng.between(0, 11) {
            0 | 1 if world.nodes[at].up => world.crash(at),
            2 | 3 if !world.nodes[at].up => world.restart(at),
            4 => {
                world.cut.insert((at, other));
            }
            5 => world.cut_off(at),
            6 => world.cut.clear(),
            7 => world.nodes[at].frozen = world.nodes[at].up,
            8 if world.nodes[at].frozen => world.thaw(at),
            9 if world.nodes[at].up => {
                let _ = world.tell_if_awake(at, |member, now| member.resign(now));
            }
            10 => {
                let disk = [Disk::Full, Disk::Hangs, Disk::Sound(100)][rng.between(0, 2) as usize];
                world.nodes[at].disk = disk;
            }
            _ => {}
        }
        world.run_ms(rng.between(0, 400));
    }
    world.peace();
    world
}

/// QC-05, QC-06, QC-11: and QC-27's other half, that a majority that can talk elects.
#[test]
fn no_two_lead_at_one_instant_whatever_happens_and_peace_brings_a_leader() {
    for seed in 0..150 {
        let count = 1 + seed as usize % 7;
        let transport = if seed % 2 == 0 { Transport::Stream } else { Transport::Datagram };
        let mut world = campaign(seed, count, transport);
        let found = world.until(20_000, |world| world.leader().is_some());
        assert!(found.is_some(), "seed {seed}: {count} nodes elect nobody in peace");
    }
}

/// QC-06: nothing that depends on a vote or a term is said before it is on the disk.
#[test]
fn no_vote_and_no_accepted_heartbeat_before_it_is_stored() {
    let mut world = World::new(3, 1);
    world.taping = true;
    for at in 1..3 {
        world.nodes[at].disk = Disk::Hangs;
    }
    world.run_ms(5_000);
    assert_eq!(world.leader(), None);
    for (_, from, _, bytes) in world.taped(VOTE_ANSWER) {
        let Control::VoteAnswer(answer) = decoded(&bytes) else {
            panic!("not a vote answer");
        };
        assert!(from == 0 || answer.pre || answer.refusal.is_some(), "node {from} gave a vote");
    }
    for (_, from, _, bytes) in world.taped(HEARTBEAT_ANSWER) {
        let Control::HeartbeatAnswer(answer) = decoded(&bytes) else {
            panic!("not a heartbeat answer");
        };
        assert!(from == 0 || answer.refusal.is_some(), "node {from} accepted a heartbeat");
    }
}

/// QC-06: a disk that is full costs its node the vote and nobody else anything.
#[test]
fn a_full_disk_means_no_vote_and_no_leadership_and_stops_nobody_else() {
    let mut world = World::new(3, 2);
    world.nodes[0].disk = Disk::Full;
    let leader = world.elect_among(|at| at != 0);
    world.run_ms(5_000);
    assert_eq!(world.leader(), Some(leader));
    assert!(world.nodes[0].machine.stats().election.store_failed > 0);
    // The two others are the majority now: without one of them there is none.
    world.crash(3 - leader);
    world.run_ms(3_000);
    assert_eq!(world.leader(), None);
    world.nodes[0].disk = Disk::Sound(100);
    let found = world.until(3_000, |world| world.leader().is_some());
    assert!(found.is_some(), "the disk has room again, and the node has its vote back");
}

/// QC-06: of what was not stored nothing is left, and the vote that was stored binds.
#[test]
fn a_restart_does_not_vote_twice_in_a_term() {
    for seed in 0..40 {
        let mut world = World::new(3, 500 + seed);
        world.taping = true;
        let leader = world.elect();
        for round in 0..4 {
            let at = (leader + round) % 3;
            world.crash(at);
            world.run_ms(seed % 60);
            world.restart(at);
            world.run_ms(400);
        }
        // Every vote that was given, by voter and term.
        let mut votes = std::collections::BTreeMap::new();
        for (_, from, to, bytes) in world.taped(VOTE_ANSWER) {
            if let Control::VoteAnswer(answer) = decoded(&bytes)
                && !answer.pre
                && answer.refusal.is_none()
            {
                let given = *votes.entry((from, answer.asked_term)).or_insert(to);
                assert_eq!(given, to, "node {from} votes twice in term {}", answer.asked_term);
            }
        }
    }
}

/// QC-10: with its term as it was, and without anybody else's.
#[test]
fn a_node_that_was_cut_off_does_not_depose_the_leader() {
    for seed in 0..20 {
        let mut world = World::new(5, 600 + seed);
        let leader = world.elect();
        let term = world.term(leader);
        let away = (leader + 1) % 5;
        world.cut_off(away);
        world.run_ms(10_000);
        assert_eq!(world.term(away), term, "it asks, and raises no term");
        world.cut.clear();
        world.run_ms(5_000);
        assert_eq!((world.leader(), world.term(leader)), (Some(leader), term));
        assert!(world.all_follow(leader));
    }
}

/// QC-10: the trap of votes that are asked for first: three live nodes of four, one of which
/// missed terms, must elect all the same.
#[test]
fn a_node_behind_in_term_still_learns_it() {
    for seed in 0..20 {
        let mut world = World::new(4, 700 + seed);
        let first = world.elect();
        let away = (first + 1) % 4;
        world.cut_off(away);
        for _ in 0..3 {
            let leader = world.elect_among(|at| at != away);
            world.tell(leader, |member, now| member.resign(now)).unwrap();
            world.run_ms(50);
        }
        let leader = world.elect_among(|at| at != away);
        assert!(world.term(away) < world.term(leader));
        world.crash(leader);
        world.cut.clear();
        let found = world.until(5_000, |world| world.leader().is_some());
        assert!(found.is_some(), "seed {seed}: three of four elect nobody");
    }
}

/// QC-11: the clocks are as wrong as they may be, the worst way round.
#[test]
fn a_leader_cut_off_stops_before_another_is_elected_with_the_worst_clocks() {
    for seed in 0..60 {
        let mut world = World::new(3, 800 + seed);
        world.delay_us = (10, 20);
        for at in 0..3 {
            world.nodes[at].disk = Disk::Sound(1);
        }
        let leader = world.elect();
        let clock = world.now_us;
        for at in 0..3 {
            // The leader's clock is slow, the voters' are fast.
            world.set_rate(at, if at == leader { 999_000 } else { 1_001_000 });
        }
        world.run_ms(500);
        assert!(world.now_us > clock);
        world.cut_off(leader);
        let stopped = world.until(300, |world| !world.says_it_leads(leader));
        assert!(stopped.is_some(), "it says for more than an election timeout that it leads");
        let next = world.until(3_000, |world| world.leader().is_some());
        assert!(next.is_some() && world.leader() != Some(leader));
    }
}

/// QC-11, a one-way cut: heartbeats arrive, answers do not.
#[test]
fn a_leader_that_is_not_answered_leads_no_more() {
    let mut world = World::new(3, 15);
    let leader = world.elect();
    for at in 0..3 {
        if at != leader {
            world.cut.insert((at, leader));
        }
    }
    let stopped = world.until(300, |world| !world.says_it_leads(leader));
    assert!(stopped.is_some());
    let found = world.until(5_000, |world| world.leader().is_some_and(|at| at != leader));
    assert!(found.is_some(), "the others can talk");
}

/// Every frame of an election comes again later, in another order: nothing counts twice, nothing
/// that is over counts again.
#[test]
fn frames_that_come_again_in_later_terms_do_no_harm() {
    for seed in 0..10 {
        let mut world = World::new(3, 900 + seed);
        world.taping = true;
        let mut rng = Rng::new(seed);
        for _ in 0..5 {
            let leader = world.elect();
            world.tell(leader, |member, now| member.resign(now)).unwrap();
            world.run_ms(40);
        }
        world.taping = false;
        for step in 0..1_500 {
            let pick = rng.between(0, world.tape.len() as u64 - 1) as usize;
            let (_, from, to, bytes) = world.tape[pick].clone();
            if matches!(bytes[4], 15..=20)
                && let Some((link, _)) = world.links_of(to).into_iter().find(|it| it.1 == from)
            {
                world.inject(to, link, &bytes);
            }
            if step % 5 == 0 {
                world.run_ms(rng.between(0, 30));
            }
            world.check();
        }
        world.run_ms(2_000);
        assert!(world.leader().is_some());
    }
}

/// QC-04: one that hangs, on a link without room, changes nothing for the others.
#[test]
fn a_hanging_peer_does_not_change_the_pace_for_the_others() {
    let mut world = World::new(4, 16);
    let leader = world.elect();
    world.run_ms(500);
    let (hangs, other) = ((leader + 1) % 4, (leader + 2) % 4);
    world.nodes[hangs].frozen = true;
    world.taping = true;
    world.run_ms(1_000);
    let times: Vec<u64> = world
        .taped(17)
        .iter()
        .filter(|it| it.1 == leader && it.2 == other)
        .map(|it| it.0)
        .collect();
    assert!((19..=21).contains(&times.len()), "{} heartbeats in a second", times.len());
    for pair in times.windows(2) {
        assert!((49_900..=50_100).contains(&(pair[1] - pair[0])), "{} us", pair[1] - pair[0]);
    }
    assert_eq!(world.leader(), Some(leader));
}

/// Two processes with one copied folder: one of them at most is in the cluster.
#[test]
fn a_second_instance_of_a_name_is_refused_and_counted() {
    let mut world = World::new(3, 17);
    let leader = world.elect();
    let at = (leader + 1) % 3;
    let peers = world.nodes[at].peers.clone();
    world.add(&nth(at), peers, |config| config.instance = 99);
    world.run_ms(3_000);
    assert_eq!(world.leader(), Some(leader));
    let refused: u32 = (0..3).map(|at| world.nodes[at].machine.stats().name_in_use).sum();
    assert!(refused > 0);
    assert_eq!(world.nodes[leader].machine.leader().unwrap().node, id(&nth(leader)));
}
