//! Who is here and what it says of itself, without and with an election.

use crate::world::{World, id, name, nth};
use replcore::election::Membership;
use replcore::member::{MemberError, MemberEvent};
use replcore::registry::PeerState;

fn metadata(world: &World, at: usize, of: usize) -> Vec<u8> {
    world.nodes[at].machine.peer(id(&nth(of))).unwrap().metadata.to_vec()
}

/// All nodes say the same of node `of`.
fn all_say(world: &World, of: usize, what: &[u8]) -> bool {
    (0..world.nodes.len()).all(|at| !world.nodes[at].up || metadata(world, at, of) == what)
}

/// Three nodes; what stands of node 0 in the files of nodes 1 and 2.
fn with_files(seed: u64, one: Option<&[u8]>, two: Option<&[u8]>) -> World {
    let mut world = World::empty(seed);
    for at in 0..3_usize {
        let file = [None, one, two][at].map(<[u8]>::to_vec);
        let peers = (0..3).filter(|it| *it != at);
        let peers = peers.map(|it| (nth(it), if it == 0 { file.clone() } else { None }));
        world.add(&nth(at), peers.collect(), |_| {});
    }
    world
}

/// QC-17, against the seed's files: what is said of a node stands in the files of the others.
#[test]
fn an_owner_learns_what_the_files_of_its_peers_say_of_it() {
    let mut world = with_files(40, Some(b"{\"zone\":\"a\"}"), None);
    let told = world.until(2_000, |world| all_say(world, 0, b"{\"zone\":\"a\"}"));
    assert!(told.is_some(), "the owner, and the node whose file says nothing");
}

/// QC-17: of two files that differ all nodes take the same.
#[test]
fn two_files_that_differ_end_in_one_word() {
    for seed in 41..60 {
        let mut world = with_files(seed, Some(b"one"), Some(b"two"));
        world.run_ms(3_000);
        let word = metadata(&world, 0, 0);
        assert!(word == b"one" || word == b"two");
        assert!(all_say(&world, 0, &word), "seed {seed}");
    }
}

/// QC-17: the owner's word replaces the files', at the start and at run time.
#[test]
fn the_word_of_the_owner_replaces_that_of_the_files() {
    let mut world = with_files(61, Some(b"file"), Some(b"file"));
    world.tell(0, |member, now| member.set_metadata(now, b"own")).unwrap();
    assert!(world.until(2_000, |world| all_say(world, 0, b"own")).is_some());
    world.tell(0, |member, now| member.set_metadata(now, b"changed")).unwrap();
    let told = world.until(1_000, |world| all_say(world, 0, b"changed")).unwrap();
    assert!(told <= 5, "after {told} ms and not with the next heartbeat");
    let changed = MemberEvent::PeerChanged { node: id(&nth(0)) };
    assert!(world.nodes[1].events.iter().any(|event| event.1 == changed));
    let long = world.tell(0, |member, now| member.set_metadata(now, &[b'x'; 257]));
    assert_eq!(long, Err(MemberError::MetadataTooLong));
    assert!(all_say(&world, 0, b"changed"));
}

/// QC-17: what an owner said before a restart does not win over what it says after.
#[test]
fn what_an_owner_says_after_a_restart_is_the_newest() {
    let mut world = with_files(62, None, None);
    world.run_ms(500);
    for round in 0..5 {
        let word = format!("life {round}");
        for _ in 0..3 {
            world.tell(0, |member, now| member.set_metadata(now, b"passing")).unwrap();
        }
        world.tell(0, |member, now| member.set_metadata(now, word.as_bytes())).unwrap();
        let told = world.until(3_000, |world| all_say(world, 0, word.as_bytes()));
        assert!(told.is_some(), "round {round}: {:?}", metadata(&world, 1, 0));
        world.crash(0);
        world.run_ms(700);
        world.restart(0);
        // Without a word of its own it takes its earlier one from the others.
        let back = world.until(5_000, |world| all_say(world, 0, word.as_bytes()));
        assert!(back.is_some(), "round {round}");
    }
}

/// QC-17: nodes that were apart have the same entries again.
#[test]
fn entries_spread_after_a_cut() {
    let mut world = World::new(5, 63);
    world.run_ms(1_000);
    world.cut_off(0);
    world.tell(0, |member, now| member.set_metadata(now, b"from the cut")).unwrap();
    world.tell(1, |member, now| member.set_metadata(now, b"meanwhile")).unwrap();
    world.run_ms(5_000);
    assert!(!all_say(&world, 0, b"from the cut"));
    world.cut.clear();
    let told = world.until(5_000, |world| {
        all_say(world, 0, b"from the cut") && all_say(world, 1, b"meanwhile")
    });
    assert!(told.is_some());
}

fn masterless(count: usize, seed: u64) -> World {
    let mut world = World::empty(seed);
    for at in 0..count {
        let peers = (0..count).filter(|it| *it != at).map(|it| (nth(it), None)).collect();
        world.add(&nth(at), peers, |config| config.election = None);
    }
    world
}

fn state(world: &World, at: usize, of: &str) -> Option<PeerState> {
    world.nodes[at].machine.peer(id(of)).map(|peer| peer.state)
}

/// QC-20: all are equal, and know who is there.
#[test]
fn without_an_election_all_know_who_is_there() {
    let mut world = masterless(4, 70);
    world.run_ms(1_000);
    for at in 0..4 {
        assert_eq!(world.nodes[at].machine.leader(), None);
        assert!(world.nodes[at].machine.peers().all(|peer| peer.state == PeerState::Up));
        assert_eq!(world.nodes[at].machine.peers().count(), 3);
    }
    world.crash(3);
    let down = world
        .until(5_000, |world| (0..3).all(|at| state(world, at, "n3") == Some(PeerState::Down)));
    println!("a killed peer is down at all after {down:?} ms");
    assert!(down.is_some_and(|ms| ms <= 1_500), "{down:?}");
    world.restart(3);
    let up =
        world.until(5_000, |world| (0..3).all(|at| state(world, at, "n3") == Some(PeerState::Up)));
    assert!(up.is_some());
}

/// QC-20: one that hangs keeps its links open, and is found out all the same.
#[test]
fn a_peer_that_hangs_is_down_after_two_seconds() {
    let mut world = masterless(4, 71);
    world.run_ms(2_000);
    world.nodes[3].frozen = true;
    let down = world
        .until(10_000, |world| (0..3).all(|at| state(world, at, "n3") == Some(PeerState::Down)));
    println!("a peer that hangs is down at all after {down:?} ms");
    assert!(down.is_some_and(|ms| (1_400..=2_700).contains(&ms)), "{down:?}");
}

/// QC-20: a newcomer that knows one of them is known to all, and forgotten when it has been gone
/// for its lease.
#[test]
fn a_newcomer_is_known_to_all_and_forgotten_after_its_lease() {
    let mut world = masterless(3, 72);
    world.run_ms(500);
    let newcomer = world.add("new", vec![(nth(1), None)], |config| config.election = None);
    world.tell(newcomer, |member, now| member.set_metadata(now, b"hello")).unwrap();
    let known = world.until(5_000, |world| {
        (0..3).all(|at| {
            let peer = world.nodes[at].machine.peer(id("new"));
            peer.is_some_and(|peer| peer.metadata == b"hello" && peer.state == PeerState::Up)
        })
    });
    assert!(known.is_some());
    assert_eq!(world.nodes[newcomer].machine.peers().count(), 3);
    world.crash(newcomer);
    world.run_ms(50_000);
    assert_eq!(state(&world, 0, "new"), Some(PeerState::Down));
    world.run_ms(30_000);
    for at in 0..3 {
        assert_eq!(state(&world, at, "new"), None, "node {at} keeps it");
        assert_eq!(state(&world, at, &nth((at + 1) % 3)), Some(PeerState::Up));
    }
}

/// A bad line between two nodes condemns neither: the others hear both.
#[test]
fn one_bad_line_condemns_nobody() {
    let mut world = masterless(4, 73);
    world.run_ms(2_000);
    world.cut.extend([(0, 1), (1, 0)]);
    world.run_ms(60_000);
    for (at, of) in [(0, 1), (1, 0)] {
        let node = id(&nth(of));
        let down = MemberEvent::PeerDown { node };
        assert!(!world.nodes[at].events.iter().any(|event| event.1 == down), "node {at}");
    }
    world.crash(1);
    let down = world.until(10_000, |world| state(world, 0, "n1") == Some(PeerState::Down));
    assert!(down.is_some(), "and when it is gone it is gone");
}

/// Lifeguard: a judge that was itself stopped does not condemn those that it has not heard.
#[test]
fn a_judge_that_was_stopped_condemns_nobody() {
    let mut world = masterless(4, 74);
    world.run_ms(2_000);
    world.nodes[0].frozen = true;
    world.run_ms(1_400);
    world.thaw(0);
    world.run_ms(5_000);
    world.nodes[0].frozen = true;
    world.run_ms(20_000);
    world.thaw(0);
    world.run_ms(10_000);
    let down = |event: &&(u64, MemberEvent)| matches!(event.1, MemberEvent::PeerDown { .. });
    assert_eq!(world.nodes[0].events.iter().filter(down).count(), 0);
    assert_eq!(state(&world, 0, "n1"), Some(PeerState::Up));
}

/// A full table refuses the next, says so, and goes on.
#[test]
fn a_table_that_is_full_refuses_the_next() {
    let mut world = masterless(3, 75);
    for at in 0..10 {
        world.add(&format!("more{at}"), vec![(nth(0), None)], |config| config.election = None);
        world.run_ms(500);
    }
    world.run_ms(5_000);
    assert!(world.nodes[0].machine.peers().count() <= 8);
    assert!(world.nodes[0].machine.stats().entries_refused > 0);
    assert_eq!(state(&world, 1, "n2"), Some(PeerState::Up));
    let full = world.tell(0, |member, _| member.add_known_peer(name("another"), None, None, true));
    assert_eq!(full, Err(MemberError::Full));
}

/// QC-30: round trips to all, in both modes.
#[test]
fn round_trips_are_measured_to_every_peer() {
    for election in [false, true] {
        let mut world = if election { World::new(3, 76) } else { masterless(3, 76) };
        world.delay_us = (3_000, 3_000);
        world.run_ms(5_000);
        for at in 0..3 {
            for peer in world.nodes[at].machine.peers() {
                // Between follower and leader only the leader measures; between followers both.
                let leads = world.leader().map(|leader| id(&nth(leader))) == Some(peer.node);
                let trip_us = peer.round_trip_us;
                assert!(leads || (6_000..=8_000).contains(&trip_us), "{trip_us} us");
            }
        }
    }
}

/// A node that is told of no cluster waits, and is nobody's voter.
#[test]
fn a_node_that_waits_to_be_taken_in_does_not_campaign() {
    let mut world = World::empty(77);
    world.add("alone", vec![(nth(9), None)], |config| config.membership = Membership::None);
    world.run_ms(10_000);
    assert_eq!(world.leader(), None);
    assert_eq!(world.nodes[0].machine.stats().election.pre_votes, 0);
}
