//! Campaigns of whole systems, and the proof that they notice what is broken.

use replcore_sim::campaign::{Failure, Plan, run};
use replcore_sim::model::StoreBugs;

fn first_failure(plan: &Plan, seeds: u64) -> Option<Failure> {
    (0..seeds).find_map(|seed| run(plan, seed, false).err())
}

/// HS-07, HS-15 to HS-19, HS-21, HS-22: through every fault, nothing lost, nothing twice.
#[test]
fn nothing_is_lost_or_doubled_through_all_faults() {
    if let Some(failure) = first_failure(&Plan::new(5), 60) {
        panic!("{failure}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    let plan = Plan::new(5);
    for seed in [3, 14, 15] {
        let (one, other) = (run(&plan, seed, false), run(&plan, seed, true));
        let digests = [one.expect("it passes").digest, other.expect("it passes").digest];
        assert_eq!(digests[0], digests[1]);
    }
}

fn caught(what: &str, plan: &Plan) {
    match first_failure(plan, 40) {
        Some(failure) => println!("{what}: {failure}"),
        None => panic!("{what} was not noticed in 40 seeds"),
    }
}

#[test]
fn every_planted_bug_in_the_system_is_caught() {
    let none = StoreBugs::default();
    let bugs = [
        ("a commit that forgets", StoreBugs { commit_forgets: true, ..none }),
        ("a store that takes a record twice", StoreBugs { no_dedupe: true, ..none }),
        ("a queue that swaps entries", StoreBugs { swaps: true, ..none }),
        ("numbers given twice", StoreBugs { reuses_numbers: true, ..none }),
        ("bodies that change", StoreBugs { rewrites_bodies: true, ..none }),
    ];
    for (what, bugs) in bugs {
        caught(what, &Plan { bugs, ..Plan::new(5) });
    }
    caught("dispatch that sends back (HS-18)", &Plan { bug_sends_back: true, ..Plan::new(5) });
}
