//! Bad lines between nodes, while messages flow both ways.

use std::time::Duration;

use replcore::rng::Rng;

use crate::harness::{Lab, Node, assert_once, assert_ordered, eventually};
use crate::relay::{Fault, Relay};

/// HS-21, HS-22: whatever the line does, everything arrives once and in order.
#[test]
fn nothing_is_lost_or_doubled_over_a_line_that_cuts_flips_and_falls_silent() {
    let lab = Lab::new("line");
    println!("bad line: REPLCORE_SEED={}", lab.seed);
    let mut rng = Rng::new(lab.seed);
    let mut hub = lab.hub("hub", 9000);
    hub.start();
    let relay = Relay::start(&lab.address(9500), &hub.address);
    let mut leaf = lab.leaf("leaf", 9001, &[format!("hub@{}", lab.address(9500))]);
    leaf.start();
    eventually("the leaf registers", || hub.live_leaves() == 1);
    let mut expected = Vec::new();
    let large = "y".repeat(70_000);
    for round in 0..40u32 {
        let fault = match round % 8 {
            0 => Fault::Bytes,
            1 | 4 => Fault::Cut(rng.between(1, 40_000)),
            2 | 5 => Fault::Flip(rng.between(0, 20_000)),
            3 => Fault::Delay(rng.between(1, 60)),
            6 => Fault::Mute,
            _ => Fault::Deaf,
        };
        relay.set(fault);
        for node in [&hub, &leaf] {
            let mut bodies: Vec<_> =
                (1..=20).map(|at| format!("{}-{}", node.name, round * 100 + at)).collect();
            bodies.push(format!("{large}{}-{}", node.name, round * 100 + 21));
            node.post(&bodies).unwrap();
            expected.extend(bodies);
        }
        std::thread::sleep(Duration::from_millis(rng.between(20, 400)));
        if round % 5 == 4 {
            relay.cut();
        }
    }
    relay.set(Fault::None);
    let all = |node: &Node| node.bodies().len() >= expected.len();
    eventually("everything is at both", || all(&hub) && all(&leaf));
    for node in [&hub, &leaf] {
        assert_once(&node.name, &expected, &node.bodies());
        assert_ordered(&node.name, &node.bodies());
    }
    println!("{} messages over {} connections", expected.len(), relay.accepted());
    let damaged: u64 = ["link_frames_bad_checksum", "link_frames_bad_length", "link_violations"]
        .iter()
        .chain(&["store_records_corrupt", "link_frames_bad_type", "link_frames_bad_payload"])
        .map(|counter| hub.counter(counter) + leaf.counter(counter))
        .sum();
    assert!(damaged > 0, "flipped bits were not counted");
}

/// HS-14: a line that takes everything and passes nothing on is noticed, and left.
#[test]
fn a_line_that_goes_silent_is_noticed_and_dialled_anew() {
    let lab = Lab::new("silent");
    let mut hub = lab.hub("hub", 9000);
    hub.start();
    let relay = Relay::start(&lab.address(9500), &hub.address);
    let mut leaf = lab.leaf("leaf", 9001, &[format!("hub@{}", lab.address(9500))]);
    leaf.start();
    eventually("the leaf registers", || hub.live_leaves() == 1);
    for fault in [Fault::Mute, Fault::Deaf, Fault::Hang] {
        let before = relay.accepted();
        relay.set(fault);
        eventually("the silent link is given up", || relay.accepted() > before);
        relay.set(Fault::None);
        eventually("the leaf is back", || hub.live_leaves() == 1);
    }
    let mut expected = leaf.post_run("leaf", 1, 50);
    expected.extend(hub.post_run("hub", 1, 50));
    eventually("all is well", || leaf.bodies().len() >= 100 && hub.bodies().len() >= 100);
    assert_once("leaf", &expected, &leaf.bodies());
    assert_once("hub", &expected, &hub.bodies());
}
