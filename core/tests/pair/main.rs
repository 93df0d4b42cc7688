//! A hub and its leaves, machine against machine, in virtual time.

mod datagram;
mod standby;
mod world;

use replcore::Timer;
use replcore::contract::{Input, LinkId};
use replcore::leaf::{ConsumerConfig, Leaf, LeafConfig, LeafEvent};
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::node::{DialSlot, DialTarget, LinkSlot, Node, NodeConfig, NodeEvent, NodeMemory};
use replcore::stream::{Epoch, Life, Name, Position};
use replcore::time::Instant;
use replcore::wire::{RefuseReason, Role};
use world::{Said, Site, exchange};

const LEAF: LinkId = LinkId(0);
const HUB: LinkId = LinkId(0);

fn settings(name: &str) -> LinkSettings {
    let name = Name::new(name).unwrap();
    LinkSettings::new(name, name.node_id().0, Epoch(1 << 16))
}

fn node_with(config: NodeConfig, dials: Vec<DialSlot>) -> Site<Node<'static>> {
    const LINKS: usize = 8;
    let slots = LeaseServer::slots_for(8);
    let owners = LINKS + dials.len();
    Site::new(Node::new(
        config,
        NodeMemory {
            links: vec![LinkSlot::FREE; LINKS].leak(),
            leases: vec![LeaseSlot::FREE; slots].leak(),
            lease_timers: vec![Timer::NONE; slots].leak(),
            dials: dials.leak(),
            timers: vec![Timer::NONE; owners].leak(),
            ready: vec![0; owners].leak(),
        },
    ))
}

fn hub() -> Site<Node<'static>> {
    node_with(NodeConfig::new(settings("central"), 1), Vec::new())
}

fn leaf(name: &str) -> Site<Leaf> {
    Site::new(Leaf::new(LeafConfig::new(settings(name), 2)))
}

/// Connects a leaf that wants to dial.
fn connect(now: Instant, leaf: &mut Site<Leaf>, hub: &mut Site<Node<'static>>, link: LinkId) {
    leaf.input(now, Input::Timeout);
    assert_eq!(leaf.dials.pop_front(), Some(0));
    leaf.up(now, LEAF, Some(0));
    hub.up(now, link, None);
    exchange(now, leaf, LEAF, hub, link);
}

fn pair() -> (Site<Leaf>, Site<Node<'static>>) {
    let (mut leaf, mut hub) = (leaf("242"), hub());
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    (leaf, hub)
}

/// HS-03.
#[test]
fn a_leaf_registers_at_once() {
    let (leaf, hub) = pair();
    let registered = Said::Leaf(LeafEvent::Registered { lease_ms: 900_000 });
    assert!(leaf.said.contains(&registered), "{:?}", leaf.said);
    let node = Name::new("242").unwrap().node_id();
    assert!(hub.said.contains(&Said::Node(NodeEvent::LeafUp { node, link: HUB })));
    assert_eq!(hub.store.state.len(), 1);
}

/// HS-11, HS-12, HS-16: up without a poll, and what was posted before the link stood.
#[test]
fn what_a_leaf_posts_reaches_the_hub_in_order_and_is_released() {
    let (mut leaf, mut hub) = (leaf("242"), hub());
    leaf.post(Instant::ZERO, "hub", 2, b"before");
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    leaf.post(Instant::ZERO, "hub", 2, b" and after");
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!(hub.received(), b"before and after");
    assert_eq!(leaf.queue("hub", 2).released, 16);
    assert!(leaf.machine.is_drained());
}

#[test]
fn what_the_hub_holds_for_a_leaf_reaches_it() {
    let (mut leaf, mut hub) = pair();
    hub.post(Instant::ZERO, "242", 1, b"command");
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!(leaf.received(), b"command");
    assert_eq!(hub.queue("242", 1).released, 7);
}

/// HS-15: nothing is acknowledged before the store says it is safe.
#[test]
fn nothing_is_released_before_the_other_store_has_it() {
    let (mut leaf, mut hub) = pair();
    hub.hold_completions = true;
    leaf.post(Instant::ZERO, "hub", 2, b"abc");
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!((hub.received().len(), leaf.queue("hub", 2).released), (3, 0));
    hub.complete(Instant::ZERO);
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!(leaf.queue("hub", 2).released, 3);
}

/// HS-21: the acknowledgement was lost with the link; nothing comes twice.
#[test]
fn a_cut_before_the_acknowledgement_repeats_nothing() {
    let (mut leaf, mut hub) = pair();
    leaf.post(Instant::ZERO, "hub", 2, b"abc");
    let sent = core::mem::take(leaf.outgoing.get_mut(&LEAF).unwrap());
    hub.incoming.get_mut(&HUB).unwrap().extend(sent);
    hub.read(Instant::ZERO);
    let now = Instant::from_millis(1_000);
    leaf.down(now, LEAF);
    hub.down(now, HUB);
    let now = leaf.wake.unwrap();
    connect(now, &mut leaf, &mut hub, LinkId(3));
    leaf.post(now, "hub", 2, b"def");
    exchange(now, &mut leaf, LEAF, &mut hub, LinkId(3));
    assert_eq!(hub.received(), b"abcdef");
    assert_eq!(leaf.queue("hub", 2).released, 6);
}

/// HS-26: after the limit the link still recovers, and what is missing is said.
#[test]
fn a_gap_is_said_and_passed() {
    let (mut leaf, mut hub) = (leaf("242"), hub());
    leaf.post(Instant::ZERO, "hub", 2, b"abcdef");
    let key = *leaf.store.queues.keys().next().unwrap();
    leaf.store.queues.get_mut(&key).unwrap().held_from = 4;
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    assert_eq!(hub.received(), b"ef");
    assert_eq!(hub.store.skipped[0].0, Position(0));
    assert_eq!(hub.store.skipped[0].1, Position(4));
    assert_eq!(leaf.queue("hub", 2).released, 6);
}

/// HS-25: a higher class passes a backlog.
#[test]
fn a_higher_class_passes_a_backlog() {
    let (mut leaf, mut hub) = (leaf("242"), hub());
    leaf.post(Instant::ZERO, "hub", 3, &[b'b'; 200_000]);
    leaf.post(Instant::ZERO, "hub", 0, b"!");
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    assert_eq!(leaf.queue("hub", 0).released, 1);
    assert_eq!(leaf.queue("hub", 3).released, 200_000);
}

#[test]
fn a_full_store_makes_the_sender_wait_and_loses_nothing() {
    let (mut leaf, mut hub) = pair();
    hub.store.full = true;
    leaf.post(Instant::ZERO, "hub", 2, b"abc");
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!(leaf.queue("hub", 2).released, 0);
    hub.store.full = false;
    let now = Instant::from_millis(1_001);
    hub.input(now, Input::Timeout);
    exchange(now, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!(hub.received(), b"abc");
    assert_eq!(leaf.queue("hub", 2).released, 3);
}

/// A leaf in a later life, which remembers how its queue stood at the end of earlier ones.
fn leaf_again(lives: &[(u32, u64)], held: &[u8]) -> Site<Leaf> {
    let mut config = LeafConfig::new(settings("242"), 2);
    config.link.epoch = Epoch(9 << 16);
    let mut leaf = Site::new(Leaf::new(config));
    leaf.post(Instant::ZERO, "hub", 2, held);
    let life = |&(epoch, end): &(u32, u64)| Life { epoch: Epoch(epoch), end: Position(end) };
    let queue = leaf.store.queues.values_mut().next().unwrap();
    queue.lives = lives.iter().map(life).collect();
    leaf
}

/// The hub has taken "abc" of life 1; the leaf has no acknowledgement.
fn a_hub_that_has_taken_3() -> Site<Node<'static>> {
    let (mut leaf, mut hub) = pair();
    leaf.post(Instant::ZERO, "hub", 2, b"abc");
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    hub.down(Instant::ZERO, HUB);
    hub
}

/// QC-05: no acknowledgement survived the crash of the leaf, and nothing comes twice.
#[test]
fn a_leaf_that_starts_again_goes_on_where_its_hub_is() {
    let mut hub = a_hub_that_has_taken_3();
    let mut again = leaf_again(&[(1 << 16, 3)], b"abcde");
    connect(Instant::ZERO, &mut again, &mut hub, HUB);
    assert_eq!(hub.received(), b"abcde");
    assert_eq!(hub.store.placed, [Position(3)]);
    assert_eq!(again.queue("hub", 2).released, 5);
}

/// The leaf's folder was set back: the hub remembers more than the leaf holds. What was posted since
/// has the numbers of what is lost, and comes all the same, however often the leaf has started since.
#[test]
fn what_a_leaf_posts_after_it_was_set_back_arrives() {
    let mut hub = a_hub_that_has_taken_3();
    let mut again = leaf_again(&[(1 << 16, 1), (2 << 16, 4)], b"axyzw");
    connect(Instant::ZERO, &mut again, &mut hub, HUB);
    assert_eq!(hub.received(), b"abcxyzw");
    assert_eq!(again.queue("hub", 2).released, 5);
}

/// It was set back to before the life that the hub knows: what is not acknowledged comes again, and
/// the hub's store tells by identity what it has.
#[test]
fn a_leaf_that_does_not_know_the_life_its_hub_knows_sends_all_it_holds() {
    let mut hub = a_hub_that_has_taken_3();
    let mut again = leaf_again(&[(7, 1)], b"axyzw");
    connect(Instant::ZERO, &mut again, &mut hub, HUB);
    assert_eq!(hub.received(), b"abcaxyzw");
    assert_eq!(again.queue("hub", 2).released, 5);
}

/// A queue that was removed and made again starts its numbers anew, in the same life.
#[test]
fn a_reader_of_a_queue_that_was_made_again_is_given_its_start() {
    let (mut leaf, mut hub) = pair();
    hub.post(Instant::ZERO, "242", 2, b"abc");
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    hub.down(Instant::ZERO, HUB);
    leaf.down(Instant::ZERO, LEAF);
    hub.store.queues.clear();
    hub.post(Instant::ZERO, "242", 2, b"defgh");
    hub.store.queues.values_mut().next().unwrap().sent = Some(0);
    let now = leaf.wake.unwrap();
    connect(now, &mut leaf, &mut hub, HUB);
    assert_eq!(leaf.received(), b"abcdefgh");
    assert_eq!(hub.queue("242", 2).released, 5);
}

/// A store that has no room to note the place is asked again when it may have.
#[test]
fn a_place_that_finds_no_room_is_given_again() {
    let mut hub = a_hub_that_has_taken_3();
    hub.store.full = true;
    let mut again = leaf_again(&[(1 << 16, 1)], b"axyzw");
    connect(Instant::ZERO, &mut again, &mut hub, HUB);
    assert_eq!(hub.received(), b"abc");
    hub.store.full = false;
    let now = Instant::from_millis(1_001);
    hub.input(now, Input::Timeout);
    exchange(now, &mut again, LEAF, &mut hub, HUB);
    assert_eq!(hub.received(), b"abcxyzw");
}

/// HS-32.
#[test]
fn a_second_instance_of_a_live_name_is_refused() {
    let (_first, mut hub) = pair();
    let mut config = LeafConfig::new(settings("242"), 3);
    config.link.instance = 99;
    let mut second = Site::new(Leaf::new(config));
    connect(Instant::ZERO, &mut second, &mut hub, LinkId(1));
    let refused = Said::Leaf(LeafEvent::Refused { reason: RefuseReason::NameInUse });
    assert!(second.said.contains(&refused), "{:?}", second.said);
    assert_eq!(hub.hangups, [LinkId(1)]);
}

/// HS-08: the new link takes the place of the old one.
#[test]
fn the_same_instance_on_a_new_link_replaces_the_old_link() {
    let (mut first, mut hub) = pair();
    let mut again = leaf("242");
    connect(Instant::ZERO, &mut again, &mut hub, LinkId(1));
    assert_eq!(hub.hangups, [LinkId(0)]);
    exchange(Instant::ZERO, &mut first, LEAF, &mut hub, HUB);
    assert_eq!(first.hangups, [LEAF]);
    hub.down(Instant::ZERO, HUB);
    hub.post(Instant::ZERO, "242", 2, b"x");
    exchange(Instant::ZERO, &mut again, LEAF, &mut hub, LinkId(1));
    assert_eq!(again.received(), b"x");
}

/// HS-05, HS-07: dropped when the lease ends, and served again with what was kept.
#[test]
fn a_silent_leaf_expires_and_comes_back_to_what_was_kept() {
    let (mut leaf, mut hub) = pair();
    hub.down(Instant::ZERO, HUB);
    leaf.down(Instant::ZERO, LEAF);
    let end = Instant::from_millis(900_000);
    assert_eq!(hub.wake, Some(end));
    hub.input(end, Input::Timeout);
    let node = Name::new("242").unwrap().node_id();
    assert!(hub.said.contains(&Said::Node(NodeEvent::LeaseExpired { node })));
    hub.post(end, "242", 2, b"kept");
    connect(end.plus_millis(60_000), &mut leaf, &mut hub, HUB);
    assert_eq!(leaf.received(), b"kept");
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    let (_leaf, mut hub) = pair();
    let mut now = Instant::ZERO;
    while hub.hangups.is_empty() {
        now = hub.wake.unwrap();
        assert!(now <= Instant::from_millis(35_000), "too late: {now:?}");
        hub.input(now, Input::Timeout);
    }
    assert_eq!(now, Instant::from_millis(35_000));
}

/// HS-10: an idle link carries one small exchange in ten seconds.
#[test]
fn an_idle_link_costs_one_small_exchange_every_10_s() {
    let (mut leaf, mut hub) = pair();
    let mut now = Instant::ZERO;
    let mut bytes = 0;
    while now < Instant::from_millis(100_000) {
        now = leaf.wake.unwrap().min(hub.wake.unwrap());
        leaf.input(now, Input::Timeout);
        hub.input(now, Input::Timeout);
        bytes += leaf.outgoing[&LEAF].len() + hub.outgoing[&HUB].len();
        exchange(now, &mut leaf, LEAF, &mut hub, HUB);
    }
    assert!(bytes > 0 && bytes < 10 * 2 * 20, "{bytes} bytes");
    assert!(leaf.machine.is_connected() && hub.hangups.is_empty());
}

#[test]
fn garbage_costs_the_link_and_is_counted() {
    let (_leaf, mut hub) = pair();
    hub.incoming.get_mut(&HUB).unwrap().extend([0xff; 64]);
    hub.read(Instant::ZERO);
    assert_eq!(hub.hangups, [HUB]);
    assert_eq!(hub.machine.stats().link.bad_length, 1);
}

/// Either end may dial.
#[test]
fn a_hub_that_dials_a_leaf_serves_it_alike() {
    let mut hub =
        node_with(NodeConfig::new(settings("central"), 1), vec![DialSlot::new(DialTarget::Leaf)]);
    let queue = Name::new("hub").unwrap();
    let mut config = NodeConfig::new(settings("242"), 2);
    config.hub = false;
    let target = DialTarget::Upstream { queue, dials: false };
    let mut leaf = node_with(config, vec![DialSlot::new(target)]);
    leaf.post(Instant::ZERO, "hub", 2, b"up");
    hub.post(Instant::ZERO, "242", 2, b"down");
    hub.input(Instant::ZERO, Input::Timeout);
    assert_eq!(hub.dials.pop_front(), Some(0));
    hub.up(Instant::ZERO, HUB, Some(0));
    leaf.up(Instant::ZERO, LEAF, None);
    exchange(Instant::ZERO, &mut leaf, LEAF, &mut hub, HUB);
    assert_eq!((hub.received(), leaf.received()), (b"up".to_vec(), b"down".to_vec()));
}

/// A program at a node: it posts, and it reads as a consumer.
#[test]
fn a_client_posts_and_consumes_and_rejects() {
    let mut node = hub();
    node.post(Instant::ZERO, "billing", 2, b"ab");
    let mut config = LeafConfig::new(settings("cash-desk"), 5);
    config.role = Role::Client;
    config.queue = Name::new("cash-desk/1").ok();
    config.consumer = Some(ConsumerConfig {
        name: Name::new("billing").unwrap(),
        message_type: None,
        from_start: true,
    });
    let mut client = Site::new(Leaf::new(config));
    client.hold_completions = true;
    client.post(Instant::ZERO, "cash-desk/1", 2, b"post");
    connect(Instant::ZERO, &mut client, &mut node, HUB);
    assert_eq!(client.queue("cash-desk/1", 2).released, 4);
    assert_eq!((client.received(), node.queue("billing", 2).released), (b"ab".to_vec(), 0));
    let stream = replcore::contract::StreamIndex(2);
    client.machine.reject(Instant::ZERO, stream, Position(0)).unwrap();
    client.complete(Instant::ZERO);
    exchange(Instant::ZERO, &mut client, LEAF, &mut node, HUB);
    assert_eq!(node.store.dead, [Position(0)]);
    assert_eq!(node.queue("billing", 2).released, 2);
}

/// Poll mode: dial at the interval, exchange, close, sleep.
#[test]
fn a_sleepy_leaf_exchanges_and_closes_at_its_interval() {
    let mut config = LeafConfig::new(settings("242"), 2);
    config.dial.poll_interval_ms = 60_000;
    let (mut leaf, mut hub) = (Site::new(Leaf::new(config)), hub());
    leaf.post(Instant::ZERO, "hub", 2, b"reading");
    hub.post(Instant::ZERO, "242", 2, b"setting");
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    assert_eq!((hub.received(), leaf.received()), (b"reading".to_vec(), b"setting".to_vec()));
    let now = leaf.wake.unwrap();
    assert_eq!(now, Instant::from_millis(500));
    leaf.input(now, Input::Timeout);
    assert_eq!(leaf.hangups, [LEAF]);
    leaf.down(now, LEAF);
    assert_eq!(leaf.wake, Some(Instant::from_millis(60_000)));
}

/// HS-24: each end sets how much comes to it at once, and one exchange drains what is many times
/// that.
#[test]
fn one_exchange_drains_a_backlog_of_many_batches_each_way() {
    let mut config = LeafConfig::new(settings("242"), 2);
    config.link.frame_bytes_max = 512;
    config.link.window_bytes = 700;
    let mut leaf = Site::new(Leaf::new(config));
    let mut config = NodeConfig::new(settings("central"), 1);
    config.link.frame_bytes_max = 1_024;
    config.link.window_bytes = 2_000;
    let mut hub = node_with(config, Vec::new());
    leaf.post(Instant::ZERO, "hub", 2, &[b'u'; 20_000]);
    hub.post(Instant::ZERO, "242", 2, &[b'd'; 20_000]);
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    assert_eq!((hub.received().len(), leaf.received().len()), (20_000, 20_000));
    assert!(leaf.frame_bytes_sent_max <= 1_024 && leaf.frame_bytes_sent_max > 512);
    assert!(hub.frame_bytes_sent_max <= 512);
}

/// A small buffer loses nothing.
#[test]
fn a_poll_buffer_that_is_too_small_loses_nothing() {
    let (mut leaf, mut hub) = (leaf("242"), hub());
    leaf.buffer_bytes = 0;
    hub.buffer_bytes = 3;
    leaf.post(Instant::ZERO, "hub", 2, b"abc");
    connect(Instant::ZERO, &mut leaf, &mut hub, HUB);
    assert_eq!(hub.received(), b"abc");
}
