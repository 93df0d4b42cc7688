//! Many peers, bad peers, several hubs, and both ways to dial.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Lab, Node, PATIENCE, assert_once, assert_ordered, eventually, within};
use crate::relay::{Fault, Relay};

/// A hub and so many leaves, all registered.
fn star(lab: &Lab, count: u16, mut set: impl FnMut(&mut Node)) -> (Node, Vec<Node>) {
    let mut hub = lab.hub("hub", 9000);
    set(&mut hub);
    hub.start();
    let brokers = [hub.as_broker()];
    let mut leaves: Vec<_> = (1..=count)
        .map(|number| lab.leaf(&format!("leaf-{number:03}"), 9000 + number, &brokers))
        .collect();
    for leaf in &mut leaves {
        leaf.set("limits", "segment_bytes = 65536");
        leaf.spawn();
    }
    eventually("all leaves register", || {
        leaves.iter_mut().for_each(Node::assert_alive);
        hub.live_leaves() == usize::from(count)
    });
    (hub, leaves)
}

/// HS-13, HS-14.
#[test]
fn a_hung_leaf_among_fifty_delays_none_of_the_others() {
    let lab = Lab::new("hung");
    // One leaf that the hub has to dial accepts and never says a word, as does one that dials.
    let silent = Relay::start(&lab.address(9900), "127.0.0.1:9");
    silent.set(Fault::Hang);
    let dials = format!("dials = [\"silent@{}\"]", lab.address(9900));
    let (mut hub, mut leaves) = star(&lab, 50, |hub| {
        hub.set("", &dials);
    });
    let _mute = TcpStream::connect(&hub.address).unwrap();
    leaves[6].freeze();
    let filler = "x".repeat(2000);
    let bodies: Vec<_> = (1..=400).map(|number| format!("{filler}-{number}")).collect();
    let start = Instant::now();
    for some in bodies.chunks(100) {
        hub.post(some).unwrap();
    }
    let others = || leaves.iter().enumerate().filter(|(at, _)| *at != 6).map(|(_, leaf)| leaf);
    let mut waiting: Vec<_> = others().collect();
    within(Duration::from_secs(30), "the 49 others have everything", || {
        waiting.retain(|leaf| leaf.counter("stored") < 400);
        waiting.is_empty()
    });
    println!("49 of 50 leaves had 400 messages after {:?}", start.elapsed());
    assert!(hub.queue("leaf-007").is_some_and(|queue| queue.messages == 400));
    eventually("the hub hangs up on the hung leaf", || hub.live_leaves() == 49);
    leaves[6].thaw();
    eventually("it comes back and catches up", || leaves[6].counter("stored") == 400);
    for leaf in [&leaves[0], &leaves[6], &leaves[49]] {
        assert_once(&leaf.name, &bodies, &leaf.bodies());
        assert_ordered(&leaf.name, &leaf.bodies());
    }
    assert!(silent.accepted() > 0, "the hub never dialled the silent peer");
    hub.assert_alive();
    leaves.iter_mut().for_each(Node::assert_alive);
}

/// HS-09.
#[test]
fn a_hundred_leaves_come_back_at_once_after_a_hub_restart() {
    let lab = Lab::new("storm");
    let (mut hub, leaves) = star(&lab, 100, |_| {});
    let mut expected = hub.post_run("before", 1, 50);
    hub.kill();
    expected.extend(leaves[3].post_run("offline", 1, 20));
    let start = Instant::now();
    hub.spawn();
    within(PATIENCE, "all leaves are back", || hub.live_leaves() == 100);
    println!("100 leaves were back after {:?}", start.elapsed());
    expected.extend(hub.post_run("after", 1, 50));
    let mut waiting: Vec<_> = leaves.iter().collect();
    eventually("everything is everywhere", || {
        waiting.retain(|leaf| leaf.counter("stored") < 120 && leaf.bodies().len() < 120);
        waiting.is_empty()
    });
    for leaf in leaves.iter().step_by(9) {
        assert_once(&leaf.name, &expected, &leaf.bodies());
    }
    assert_once("hub", &expected, &hub.bodies());
    assert_eq!(hub.counter("expired"), 0, "no leaf may be evicted by a restart");
}

/// HS-18, HS-19, HS-21: over two hubs everything comes once, and nothing goes round.
#[test]
fn a_leaf_on_two_hubs_gets_everything_once() {
    let lab = Lab::new("two-hubs");
    let (mut a, mut b) = (lab.hub("hub-a", 9000), lab.hub("hub-b", 9001));
    a.start();
    b.start();
    let brokers = [a.as_broker(), b.as_broker()];
    let (mut x, mut y) = (lab.leaf("x", 9002, &brokers), lab.leaf("y", 9003, &brokers));
    x.start();
    y.start();
    eventually("both are at both", || a.live_leaves() == 2 && b.live_leaves() == 2);
    let mut from_leaves = x.post_run("x", 1, 200);
    from_leaves.extend(y.post_run("y", 1, 200));
    let mut from_a = a.post_run("a", 1, 200);
    let mut from_b = b.post_run("b", 1, 200);
    a.kill();
    from_leaves.extend(x.post_run("x", 201, 400));
    from_b.extend(b.post_run("b", 201, 400));
    eventually("what one hub carries arrives while the other is down", || y.bodies().len() >= 1000);
    a.start();
    from_a.extend(a.post_run("a", 201, 400));
    from_leaves.extend(y.post_run("y", 201, 400));
    let all: Vec<_> = from_leaves.iter().chain(&from_a).chain(&from_b).cloned().collect();
    eventually("everything is at both leaves", || {
        x.bodies().len() >= all.len() && y.bodies().len() >= all.len()
    });
    eventually("both hubs have what the leaves posted", || {
        [&a, &b].iter().all(|hub| hub.bodies().len() >= from_leaves.len() + 400)
    });
    eventually("nothing is under way any more", || {
        let empty = |node: &Node, queue| node.queue(queue).is_some_and(|it| it.messages == 0);
        empty(&a, "x") && empty(&a, "y") && empty(&b, "x") && empty(&b, "y")
    });
    for leaf in [&x, &y] {
        assert_once(&leaf.name, &all, &leaf.bodies());
        assert_ordered(&leaf.name, &leaf.bodies());
    }
    let at_a: Vec<_> = from_leaves.iter().chain(&from_a).cloned().collect();
    assert_once("hub-a", &at_a, &a.bodies());
    let at_b: Vec<_> = from_leaves.iter().chain(&from_b).cloned().collect();
    assert_once("hub-b", &at_b, &b.bodies());
}

/// HS-12 the other way round: the leaf cannot reach its hub, and the hub dials it.
#[test]
fn a_leaf_that_its_hub_dials_sends_and_receives() {
    let lab = Lab::new("dialed");
    let nowhere = lab.address(9999);
    let mut leaf = lab.leaf("inner", 9001, &[format!("hub@{nowhere}")]);
    let mut hub = lab.hub("hub", 9000);
    hub.set("", &format!("dials = [\"inner@{}\"]", leaf.address));
    leaf.start();
    let mut expected = leaf.post_run("leaf", 1, 100);
    hub.start();
    eventually("the leaf registers", || hub.live_leaves() == 1);
    expected.extend(hub.post_run("hub", 1, 100));
    let all = |node: &Node| node.bodies().len() == 200;
    eventually("both have everything", || all(&hub) && all(&leaf));
    hub.kill();
    expected.extend(leaf.post_run("leaf", 101, 200));
    hub.start();
    leaf.kill();
    expected.extend(hub.post_run("hub", 101, 200));
    leaf.start();
    let all = |node: &Node| node.bodies().len() >= 400;
    eventually("both have everything", || all(&hub) && all(&leaf));
    for node in [&hub, &leaf] {
        assert_once(&node.name, &expected, &node.bodies());
        assert_ordered(&node.name, &node.bodies());
    }
}

/// HS-36: from a polling leaf to another within two intervals.
#[test]
fn a_message_between_polling_leaves_takes_at_most_two_intervals() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let lab = Lab::new("poll");
    let mut hub = lab.hub("hub", 9000);
    hub.start();
    let (mut one, mut two) =
        (lab.leaf("one", 9001, &[hub.as_broker()]), lab.leaf("two", 9002, &[hub.as_broker()]));
    for leaf in [&mut one, &mut two] {
        leaf.set("", &format!("poll_ms = {}", INTERVAL.as_millis()));
        leaf.start();
    }
    eventually("both have registered", || hub.queue("one").is_some() && hub.queue("two").is_some());
    for number in 1..=4u32 {
        eventually("both links are closed", || hub.live_leaves() == 0);
        one.post_run("poll", number, number);
        let what = "the message is at the other leaf";
        // The slack is for a busy machine; a third interval would not fit in.
        let took = within(2 * INTERVAL + Duration::from_millis(1500), what, || {
            two.counter("stored") >= number.into()
        });
        println!("polled message {number} took {took:?}");
    }
    assert!(hub.counter("connections_accepted") > 8, "the leaves do not poll");
}

/// HS-32.
#[test]
fn a_second_node_with_a_live_nodes_name_is_refused() {
    let lab = Lab::new("collision");
    let mut hub = lab.hub("hub", 9000);
    hub.start();
    let mut first = lab.leaf("till", 9001, &[hub.as_broker()]);
    first.start();
    eventually("the first registers", || hub.live_leaves() == 1);
    let mut second = lab.leaf("till", 9002, &[hub.as_broker()]);
    second.folder_at(&lab, "till-second");
    second.start();
    second.post_run("second", 1, 5);
    eventually("the second is refused", || hub.counter("peers_refused") >= 1);
    let expected = first.post_run("first", 1, 50);
    let from_hub = hub.post_run("hub", 1, 50);
    eventually("the first is served", || first.bodies().len() >= 100);
    assert_once("hub", expected.iter().chain(&from_hub), &hub.bodies());
    assert_once("first", expected.iter().chain(&from_hub), &first.bodies());
    assert_eq!(second.bodies().len(), 5, "the second may read nothing");
    let why = second.status().unwrap().upstreams["hub"].clone();
    assert!(why != "registered" && why != "connected", "the second is told {why:?}");
    println!("the second is told: {why}");
}
