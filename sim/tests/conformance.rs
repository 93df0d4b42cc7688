//! The conformance kit over every machine, and over machines broken on purpose.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use replcore::wire::Role;
use replcore_sim::kit::{Broken, Bug, LeafSubject, MemberSubject, NodeSubject, Subject, check};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

const LEAF: LeafSubject = LeafSubject { role: Role::Leaf, poll_interval_ms: 0 };
const SLEEPY: LeafSubject = LeafSubject { role: Role::Leaf, poll_interval_ms: 1_000 };
const CLIENT: LeafSubject = LeafSubject { role: Role::Client, poll_interval_ms: 0 };

const HUB: NodeSubject = NodeSubject { hub: true };
const GATEWAY: NodeSubject = NodeSubject { hub: false };

fn conforms(subject: &impl Subject, seeds: u64) {
    // One seed alone, to look at: REPLCORE_KIT_SEED=23, with REPLCORE_KIT_TRACE=1 for its trace.
    let alone = std::env::var("REPLCORE_KIT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = alone.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(violation) = check(subject, seed, 600, Some(allocations)) {
            panic!("{}, seed {seed}: {violation}", subject.name());
        }
    }
}

#[test]
fn a_leaf_conforms() {
    conforms(&LEAF, 150);
}

#[test]
fn a_leaf_in_poll_mode_conforms() {
    conforms(&SLEEPY, 150);
}

#[test]
fn a_client_conforms() {
    conforms(&CLIENT, 150);
}

#[test]
fn a_hub_conforms() {
    conforms(&HUB, 150);
}

#[test]
fn a_node_with_two_upstreams_conforms() {
    conforms(&GATEWAY, 150);
}

#[test]
fn a_member_conforms() {
    conforms(&MemberSubject { election: true }, 150);
}

#[test]
fn a_member_without_an_election_conforms() {
    conforms(&MemberSubject { election: false }, 150);
}

/// A kit that finds nothing proves nothing: each bug must be found in some of the seeds.
fn catches(subject: impl Subject + Copy, bugs: &[Bug]) {
    for bug in bugs {
        let broken = Broken { subject, bug: *bug };
        let found = (0..150).find_map(|seed| check(&broken, seed, 600, Some(allocations)).err());
        match found {
            Some(violation) => println!("{bug:?}: {violation}"),
            None => panic!("{bug:?} in a {} was not noticed", subject.name()),
        }
    }
}

/// Bugs that a machine can only have when it persists something are tried on the node.
const OF_PERSISTENCE: [Bug; 1] = [Bug::RefusesRestore];

#[test]
fn every_planted_bug_in_a_leaf_is_caught() {
    let bugs: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| !OF_PERSISTENCE.contains(bug)).collect();
    catches(LEAF, &bugs);
}

#[test]
fn every_planted_bug_in_a_hub_is_caught() {
    catches(HUB, &Bug::ALL);
}
