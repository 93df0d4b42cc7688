//! Nodes on real sockets: what is posted anywhere arrives everywhere it should, once, whatever
//! happens on the way.

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use common::{TestNode, eventually, hub_options, leaf_options};
use replcore_runtime::api::{DispatchRule, Reply, Request};
use replcore_runtime::node::StopReport;
use replcore_runtime::options::Address;

#[tokio::test]
async fn a_message_posted_at_a_leaf_reaches_the_hub_and_the_other_leaf_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let at = [("hub", hub.address())];
    let one = TestNode::start(leaf_options(folder.path(), "one", &at));
    let two = TestNode::start(leaf_options(folder.path(), "two", &at));
    eventually("both leaves are registered", async || hub.live_leaves().await == 2).await;
    one.post("sale", "from one").await;
    hub.post("price", "from hub").await;
    for node in [&one, &two, &hub] {
        eventually("it has both", async || node.bodies().await.len() == 2).await;
    }
    let at_two = two.read_all().await;
    let sale = at_two.iter().find(|message| message.message.message_type == "sale").unwrap();
    assert_eq!(sale.origin, "one");
    assert!(hub.status().await.ready && one.status().await.ready);
    for node in [one, two, hub] {
        assert_eq!(node.stop(), StopReport::default());
    }
}

/// HS-16, HS-07: what is posted at a leaf without a hub is there and goes on its way later; what
/// the hub has for an absent leaf waits for it, in order.
#[tokio::test]
async fn what_is_posted_while_a_node_is_away_arrives_after_its_return() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let leaf = TestNode::start(leaf_options(folder.path(), "leaf", &[("hub", hub.address())]));
    eventually("the leaf is registered", async || hub.live_leaves().await == 1).await;

    let hub_options = hub.crash();
    for number in 0..20 {
        leaf.post("offline", &format!("leaf {number}")).await;
    }
    assert_eq!(leaf.bodies().await.len(), 20, "readable where it was posted");
    let hub = TestNode::start(hub_options);
    eventually("the hub has them", async || hub.bodies().await.len() == 20).await;

    let leaf_options = leaf.crash();
    for number in 0..20 {
        hub.post("offline", &format!("hub {number}")).await;
    }
    let queued = hub.queue("leaf").await.map(|queue| queue.messages);
    assert_eq!(queued, Some(20), "the hub keeps them for the leaf");
    let leaf = TestNode::start(leaf_options);
    eventually("the leaf has them", async || leaf.bodies().await.len() == 40).await;
    let expected: Vec<String> = (0..20).map(|number| format!("hub {number}")).collect();
    assert_eq!(leaf.bodies().await[20..], expected);
    eventually("the queue is empty", async || {
        hub.queue("leaf").await.is_some_and(|queue| queue.messages == 0)
    })
    .await;
}

/// HS-21: whoever is ended while messages flow, each arrives once.
#[tokio::test]
async fn crashes_while_messages_flow_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = TestNode::start(hub_options(folder.path(), "hub"));
    let at = [("hub", hub.address())];
    let mut from = TestNode::start(leaf_options(folder.path(), "from", &at));
    let mut to = TestNode::start(leaf_options(folder.path(), "to", &at));
    eventually("both leaves are registered", async || hub.live_leaves().await == 2).await;
    let mut posted = Vec::new();
    for round in 0..12 {
        for number in 0..25 {
            let body = format!("{round}/{number}");
            from.post("flow", &body).await;
            posted.push(body);
        }
        match round % 3 {
            0 => hub = TestNode::start(hub.crash()),
            1 => from = TestNode::start(from.crash()),
            _ => to = TestNode::start(to.crash()),
        }
    }
    eventually("all are there", async || to.bodies().await.len() >= posted.len()).await;
    assert_eq!(to.bodies().await, posted, "in order, once");
    assert_eq!(hub.bodies().await, posted);
}

/// HS-19: two hubs over the same leaves, and each other's leaf as well.
#[tokio::test]
async fn two_hubs_do_not_loop() {
    let folder = tempfile::tempdir().unwrap();
    let north = TestNode::start(hub_options(folder.path(), "north"));
    let mut south_options = hub_options(folder.path(), "south");
    south_options.upstreams =
        leaf_options(folder.path(), "x", &[("north", north.address())]).upstreams;
    let south = TestNode::start(south_options);
    let both = [("north", north.address()), ("south", south.address())];
    let one = TestNode::start(leaf_options(folder.path(), "one", &both));
    let two = TestNode::start(leaf_options(folder.path(), "two", &both));
    eventually("all are registered", async || {
        north.live_leaves().await == 3 && south.live_leaves().await == 2
    })
    .await;
    for number in 0..10 {
        one.post("loop", &format!("one {number}")).await;
        north.post("loop", &format!("north {number}")).await;
        south.post("loop", &format!("south {number}")).await;
    }
    let nodes = [&north, &south, &one, &two];
    for node in nodes {
        eventually("it has all", async || node.bodies().await.len() >= 30).await;
    }
    eventually("every queue is empty", async || {
        for node in nodes {
            let request = Request::Queues { after: None, limit: None };
            let Reply::Queues { queues, .. } = node.call(request).await else { panic!() };
            if queues.iter().any(|queue| queue.messages > 0) {
                return false;
            }
        }
        true
    })
    .await;
    for node in nodes {
        let bodies = node.bodies().await;
        let distinct: BTreeSet<_> = bodies.iter().collect();
        assert_eq!((bodies.len(), distinct.len()), (30, 30));
        // Each record enters each queue once, so traffic has an end.
        assert!(node.status().await.counters["dispatched"] <= 30 * 4);
    }
}

/// HS-13: among fifty peers one that accepts and never answers, one that reads nothing and one
/// that talks nonsense; the others are served within the deadline.
#[tokio::test]
async fn hung_peers_do_not_delay_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = hub_options(folder.path(), "hub");
    options.deadlines.handshake_ms = 500;
    let hub = TestNode::start(options);
    let Address::Tcp(at) = hub.address() else { panic!() };
    let mut hung: Vec<_> = (0..25).map(|_| std::net::TcpStream::connect(&at).unwrap()).collect();
    for stream in &mut hung[..8] {
        stream.write_all(&[0xff; 64]).unwrap();
    }
    let leaves: Vec<TestNode> = (0..4)
        .map(|number| {
            leaf_options(folder.path(), &format!("leaf-{number}"), &[("hub", hub.address())])
        })
        .map(TestNode::start)
        .collect();
    eventually("all leaves are registered", async || hub.live_leaves().await == 4).await;
    let before = Instant::now();
    hub.post("urgent", "now").await;
    for leaf in &leaves {
        eventually("it has the message", async || leaf.bodies().await.len() == 1).await;
    }
    assert!(before.elapsed() < Duration::from_secs(10));
    eventually("the silent ones are closed", async || hub.status().await.links == 4).await;
    drop(hung);
}

/// HS-20: rules are read and changed while the node runs, and stay after a restart.
#[tokio::test]
async fn rules_change_while_the_node_runs_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let rule = |message_type: &str, to: &str| DispatchRule {
        message_type: message_type.into(),
        origin: String::new(),
        to: vec![to.into()],
    };
    let rules = vec![rule("a", "first"), rule("b*", "second")];
    hub.call(Request::SetRules { rules: rules.clone() }).await;
    let bad = hub.handle.call(Request::SetRules { rules: vec![rule("a", "no name")] }).await;
    assert_eq!(bad.unwrap_err().index, Some(0));
    let hub = TestNode::start(hub.crash());
    assert_eq!(hub.call(Request::Rules).await, Reply::Rules { rules });
    for message_type in ["a", "b", "bc", "c"] {
        hub.post(message_type, "x").await;
    }
    assert_eq!(hub.queue("first").await.unwrap().messages, 1);
    assert_eq!(hub.queue("second").await.unwrap().messages, 2);
}

/// A hundred leaves that lost their hub come back at once.
#[tokio::test]
async fn a_hundred_leaves_reconnect() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let at = [("hub", hub.address())];
    let leaves: Vec<TestNode> = (0..100)
        .map(|number| {
            let mut options = leaf_options(folder.path(), &format!("leaf-{number}"), &at);
            options.limits.links_max = 4;
            options.limits.leaves_max = 4;
            options.limits.segment_bytes = 64 << 10;
            TestNode::start(options)
        })
        .collect();
    eventually("all are registered", async || hub.live_leaves().await == 100).await;
    let hub = TestNode::start(hub.crash());
    eventually("all are registered again", async || hub.live_leaves().await == 100).await;
    hub.post("storm", "over").await;
    eventually("every queue is empty again", async || {
        hub.status().await.counters["delivered"] == 100
    })
    .await;
    for leaf in &leaves {
        assert_eq!(leaf.bodies().await, ["over"]);
    }
}

/// Either end may dial.
#[tokio::test]
async fn a_leaf_that_cannot_dial_is_dialled_by_its_hub() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = leaf_options(folder.path(), "leaf", &[]);
    options.called_by = Some(common::name("hub"));
    let leaf = TestNode::start(options);
    let mut options = hub_options(folder.path(), "hub");
    options.dials = leaf_options(folder.path(), "x", &[("leaf", leaf.address())]).upstreams;
    let hub = TestNode::start(options);
    eventually("the leaf is registered", async || hub.live_leaves().await == 1).await;
    leaf.post("t", "up").await;
    hub.post("t", "down").await;
    for node in [&leaf, &hub] {
        eventually("it has both", async || node.bodies().await.len() == 2).await;
    }
    assert!(leaf.status().await.ready);
}

/// HS-33: compressed links carry the same, in fewer bytes.
#[tokio::test]
async fn compressed_links_carry_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = hub_options(folder.path(), "hub");
    options.compression = replcore_runtime::options::Compression::Lz4;
    let hub = TestNode::start(options);
    let mut options = leaf_options(folder.path(), "leaf", &[("hub", hub.address())]);
    options.compression = replcore_runtime::options::Compression::Lz4;
    let leaf = TestNode::start(options);
    eventually("the leaf is registered", async || hub.live_leaves().await == 1).await;
    let body = "the same again and again ".repeat(2000);
    for _ in 0..3 {
        leaf.post("t", &body).await;
    }
    eventually("all are there", async || hub.bodies().await.len() == 3).await;
    assert!(hub.bodies().await.iter().all(|one| *one == body));
    assert!(leaf.status().await.counters["compression_saved_bytes"] > 100_000);
}
