//! The Rust interface.

use std::sync::mpsc;
use std::time::Duration;

use replcore::stream::Name;
use replcore_runtime::cluster::{Cluster, ClusterOptions, Happened, Metadata, PeerOptions};
use serde_json::json;

use crate::lab::{PATIENCE, eventually};
use crate::session::block_on;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Options of members that know each other.
fn options(folder: &std::path::Path, count: usize) -> Vec<ClusterOptions> {
    let names: Vec<_> = (0..count).map(|at| format!("n{at}")).collect();
    let places: Vec<_> = names.iter().map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let of = |at: usize| {
        let listen = places[at].parse().unwrap();
        let folder = folder.join(&names[at]);
        let mut options = ClusterOptions::new(name(&names[at]), name("test"), listen, folder);
        // As in the lab: a busy machine is not to be taken for a dead member.
        options.election.heartbeat_ms = 100;
        (options.election.timeout_ms_min, options.election.timeout_ms_max) = (1500, 3000);
        let peer = |other: usize| PeerOptions {
            name: name(&names[other]),
            address: places[other].parse().unwrap(),
            metadata: Metadata::new(),
            voter: true,
        };
        options.peers = (0..count).filter(|other| *other != at).map(peer).collect();
        options
    };
    (0..count).map(of).collect()
}

/// QC-15, QC-16, QC-18, QC-26: everything that a program asks, and a hand-over at the stop.
#[test]
fn a_program_knows_who_leads_and_is_told_of_changes() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 3);
    let mut clusters: Vec<_> =
        options.iter().map(|it| Some(Cluster::start(it.clone()).unwrap())).collect();
    let leads = |clusters: &[Option<Cluster>]| {
        clusters.iter().position(|it| it.as_ref().is_some_and(Cluster::is_leader))
    };
    eventually("somebody leads", || leads(&clusters).is_some());
    let leader = leads(&clusters).unwrap();
    eventually("all name it", || {
        clusters
            .iter()
            .flatten()
            .all(|it| it.leader().is_some_and(|it| it.identifier == format!("n{leader}")))
    });
    let other = (leader + 1) % 3;
    let (sender, events) = mpsc::channel();
    let watched = clusters[other].as_ref().unwrap();
    watched.on_event(move |event| drop(sender.send(event.what.clone()))).unwrap();
    // One that fails and one that takes its time harm nobody.
    watched.on_event(|_| panic!("a handler that fails")).unwrap();
    watched.on_event(|_| std::thread::sleep(Duration::from_secs(5))).unwrap();

    let first = clusters[leader].take().unwrap();
    let term = first.term().unwrap();
    assert!(first.lease_left() > Duration::ZERO);
    assert_eq!(clusters[other].as_ref().unwrap().term(), None);
    let metadata: Metadata = serde_json::from_value(json!({ "zone": "x" })).unwrap();
    block_on(first.set_metadata(metadata.clone())).unwrap();
    assert_eq!(first.metadata(), metadata);
    eventually("the others see it", || {
        let members = clusters[other].as_ref().unwrap().members();
        members.iter().any(|it| it.identifier == format!("n{leader}") && it.metadata == metadata)
    });
    assert_eq!(first.stop(), None);
    eventually("another leads", || leads(&clusters).is_some());
    let next = leads(&clusters).unwrap();
    assert!(clusters[next].as_ref().unwrap().term().unwrap() > term);
    // The port is free, and the folder too.
    clusters[leader] = Some(Cluster::start(options[leader].clone()).unwrap());
    let told = events.iter().any(|event| {
        matches!(event, Happened::NewLeader { leader: Some(it), .. } if it == format!("n{next}"))
    });
    assert!(told);
}

/// A hold keeps a leader that resigns until what only a leader may do is done.
#[test]
fn a_hold_keeps_the_leadership_until_it_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let clusters: Vec<_> = options(folder.path(), 3)
        .into_iter()
        .map(|it| std::sync::Arc::new(Cluster::start(it).unwrap()))
        .collect();
    eventually("somebody leads", || clusters.iter().any(|it| it.is_leader()));
    let leader = clusters.iter().find(|it| it.is_leader()).unwrap().clone();
    let hold = leader.hold();
    let resigning = leader.clone();
    let resigned = std::thread::spawn(move || block_on(resigning.resign()));
    block_on(hold.resigning());
    let follower = clusters.iter().find(|it| !it.is_leader()).unwrap();
    let heartbeats = || block_on(follower.status()).unwrap().counters["heartbeats_received"];
    let before = heartbeats();
    // Longer than a lease.
    eventually("heartbeats go on", || heartbeats() >= before + 20);
    assert!(leader.is_leader(), "it leads on while it is held");
    drop(hold);
    resigned.join().unwrap().unwrap();
    assert!(!leader.is_leader());
    eventually("another leads", || clusters.iter().any(|it| it.is_leader()));
}

/// What cannot start says why, and holds nothing.
#[test]
fn a_member_that_cannot_start_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 1).remove(0);
    let running = Cluster::start(options.clone()).unwrap();
    let taken = Cluster::start(options.clone()).unwrap_err();
    assert!(taken.contains("cannot listen on") && taken.contains("something else does"), "{taken}");
    let mut elsewhere = options.clone();
    elsewhere.listen = "127.0.0.1:0".parse().unwrap();
    let locked = Cluster::start(elsewhere).unwrap_err();
    assert!(locked.contains("in use by process"), "{locked}");
    drop(running);
    let again = Cluster::start(options).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !again.is_leader() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}
