//! Hubs that hold one log together: leaves refuse one whose term is over, and are told who leads
//! (QC-33).

use replcore::contract::{Input, LinkId, Transport};
use replcore::leaf::{Leaf, LeafConfig, LeafEvent};
use replcore::node::{DialSlot, DialTarget, Node, NodeConfig, NodeEvent, turn_away};
use replcore::stream::{Address, Name};
use replcore::time::Instant;
use replcore::wire::{CONTROL_FRAME_BYTES_MAX, HEADER_BYTES, RefuseReason};

use crate::world::{Said, Site, exchange};
use crate::{HUB, LEAF, connect, leaf, node_with, settings};

fn hub_of_term(term: u64) -> Site<Node<'static>> {
    let mut config = NodeConfig::new(settings("central"), 1);
    config.term = term;
    node_with(config, Vec::new())
}

/// The leaf meets a hub of each term in turn; whether it took what that hub held for it.
fn meet(leaf: &mut Site<Leaf>, terms: &[u64]) -> Vec<bool> {
    let mut now = Instant::ZERO;
    let mut meet_one = |term: &u64| {
        let mut hub = hub_of_term(*term);
        // Each holds one message more than the one before.
        let held = leaf.received().len();
        hub.post(now, "242", 2, &vec![b'x'; held + 1]);
        connect(now, leaf, &mut hub, HUB);
        let taken = leaf.received().len() > held;
        assert_eq!(hub.queue("242", 2).released > 0, taken);
        leaf.down(now, LEAF);
        now = leaf.wake.unwrap();
        taken
    };
    terms.iter().map(&mut meet_one).collect()
}

/// QC-33: also the hub without a term, and none that comes later.
#[test]
fn a_leaf_refuses_a_hub_whose_term_is_over() {
    let mut leaf = leaf("242");
    let took = meet(&mut leaf, &[0, 4, 4, 3, 0, 9, 8, 9]);
    assert_eq!(took, [true, true, true, false, false, true, false, true]);
    assert_eq!(leaf.machine.stats().terms_over, 3);
    let refused = Said::Leaf(LeafEvent::Refused { reason: RefuseReason::Term });
    assert_eq!(leaf.said.iter().filter(|said| **said == refused).count(), 3);
}

/// A leaf of an earlier version does not know of terms, and is granted a lease as it knows it.
#[test]
fn a_leaf_that_does_not_offer_the_feature_is_told_no_term() {
    let mut config = LeafConfig::new(settings("242"), 2);
    config.link.features = 0;
    let mut leaf = Site::new(Leaf::new(config));
    assert_eq!(meet(&mut leaf, &[4, 3]), [true, true]);
}

fn upstream(features: u32) -> Site<Node<'static>> {
    let mut config = NodeConfig::new(settings("242"), 1);
    config.hub = false;
    config.link.features = features;
    let queue = Name::new("central").unwrap();
    node_with(config, vec![DialSlot::new(DialTarget::Upstream { queue, dials: true })])
}

#[test]
fn a_node_refuses_an_upstream_hub_whose_term_is_over() {
    let mut node = upstream(settings("242").features);
    let mut now = Instant::ZERO;
    for term in [5, 2] {
        let mut hub = hub_of_term(term);
        node.input(now, Input::Timeout);
        assert_eq!(node.dials.pop_front(), Some(0), "{term}");
        node.up(now, LEAF, Some(0));
        hub.up(now, HUB, None);
        exchange(now, &mut node, LEAF, &mut hub, HUB);
        node.down(now, LEAF);
        now = node.wake.unwrap();
    }
    let dial = replcore::contract::DialIndex(0);
    let registered = Said::Node(NodeEvent::Registered { dial, lease_ms: 900_000 });
    let refused = Said::Node(NodeEvent::UpstreamRefused { dial, reason: RefuseReason::Term });
    let count = |wanted: &Said| node.said.iter().filter(|said| *said == wanted).count();
    assert_eq!((count(&registered), count(&refused)), (1, 1));
    assert_eq!(node.machine.stats().link.terms_over, 1);
}

/// On a line that loses frames the stream may be announced before the lease is known.
#[test]
fn nothing_is_taken_before_the_term_is_known() {
    let mut leaf = leaf("242");
    meet(&mut leaf, &[4]);
    let mut hub = hub_of_term(3);
    let now = leaf.wake.unwrap();
    hub.post(now, "242", 2, b"xyz");
    leaf.input(now, Input::Timeout);
    leaf.up_over(now, LEAF, Some(0), Transport::Datagram);
    hub.up_over(now, HUB, None, Transport::Datagram);
    let mut lost = Vec::new();
    for _ in 0..100 {
        let sent = core::mem::take(leaf.outgoing.get_mut(&LEAF).unwrap());
        each_frame(&sent, |frame| hub.datagram(now, HUB, frame));
        let sent = core::mem::take(hub.outgoing.get_mut(&HUB).unwrap());
        each_frame(&sent, |frame| match frame[4] {
            28 => lost.push(frame.to_vec()),
            _ => leaf.datagram(now, LEAF, frame),
        });
    }
    assert_eq!(lost.len(), 1, "the lease is said once");
    assert_eq!(leaf.received(), b"x", "of the hub of term 4");
    leaf.datagram(now, LEAF, &lost[0]);
    assert_eq!(leaf.machine.stats().terms_over, 1);
    assert_eq!(leaf.hangups, [LEAF]);
}

fn each_frame(mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let payload = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let (frame, later) = bytes.split_at(HEADER_BYTES + payload as usize);
        take(frame);
        bytes = later;
    }
}

/// What the node says first, answered as a hub that stands by does.
fn turned_away(node: &mut Site<Node<'static>>, now: Instant, leader: Option<&str>) {
    node.input(now, Input::Timeout);
    assert_eq!(node.dials.pop_front(), Some(0));
    node.up(now, LinkId(0), Some(0));
    let hello = core::mem::take(node.outgoing.get_mut(&LEAF).unwrap());
    let leader = leader.map(|leader| Address::new(leader).unwrap());
    let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
    for cut in 0..hello.len() {
        assert_eq!(turn_away(&hello[..cut], leader.as_ref(), &mut buf), Ok(None));
    }
    let len = turn_away(&hello, leader.as_ref(), &mut buf).unwrap().unwrap();
    node.incoming.get_mut(&LEAF).unwrap().extend_from_slice(&buf[..len]);
    node.read(now);
    assert_eq!(node.hangups.pop(), Some(LEAF));
    node.down(now, LEAF);
}

/// QC-33: at once, at the address that it was told; without one it waits as ever.
#[test]
fn a_hub_that_stands_by_says_who_leads() {
    let mut node = upstream(settings("242").features);
    turned_away(&mut node, Instant::ZERO, None);
    let dial = replcore::contract::DialIndex(0);
    let refused = Said::Node(NodeEvent::UpstreamRefused { dial, reason: RefuseReason::Standby });
    assert!(node.said.contains(&refused), "{:?}", node.said);
    assert!(node.dials.is_empty());
    let now = node.wake.unwrap();
    turned_away(&mut node, now, Some("10.0.0.2:8080"));
    assert!(node.said.contains(&Said::Node(NodeEvent::Redirected { dial })), "{:?}", node.said);
    assert_eq!(node.detail, b"10.0.0.2:8080");
    assert_eq!(node.dials, [0]);
}

/// One of an earlier version comes back after a while.
#[test]
fn a_leaf_that_does_not_offer_the_feature_is_told_that_the_hub_is_busy() {
    let mut node = upstream(0);
    turned_away(&mut node, Instant::ZERO, Some("10.0.0.2:8080"));
    let dial = replcore::contract::DialIndex(0);
    let refused = Said::Node(NodeEvent::UpstreamRefused { dial, reason: RefuseReason::Busy });
    assert!(node.said.contains(&refused), "{:?}", node.said);
    assert!(node.dials.is_empty());
}

#[test]
fn noise_is_not_answered_by_a_hub_that_stands_by() {
    let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
    assert!(turn_away(&[0xff; 64], None, &mut buf).is_err());
    let mut ping = [0; CONTROL_FRAME_BYTES_MAX];
    let len =
        replcore::wire::encode_control(0, &replcore::wire::Control::Ping(1), &mut ping).unwrap();
    assert!(turn_away(&ping[..len], None, &mut buf).is_err());
}
