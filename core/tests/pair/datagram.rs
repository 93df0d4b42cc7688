//! A leaf and its hub over a line that loses, repeats, delays and reorders frames.

use replcore::contract::{Input, LinkId, Machine, Transport};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::node::{Node, NodeConfig};
use replcore::rng::Rng;
use replcore::stream::{Epoch, Life, Position};
use replcore::time::Instant;
use replcore::wire::{Frame, HEADER_BYTES, decode};

use crate::world::{Said, Site};
use crate::{HUB, LEAF, node_with, settings};

/// What the line does to frames, in parts of a thousand.
#[derive(Clone, Copy)]
struct Faults {
    lost: u64,
    doubled: u64,
    delay_ms_max: u64,
}

struct Line {
    rng: Rng,
    faults: Faults,
    /// Frames under way, and whether they go to the hub.
    under_way: Vec<(u64, bool, Vec<u8>)>,
    sent: u64,
    /// What every frame takes beside its delay, in milliseconds.
    late_ms: u64,
    /// Frames of records to the hub: the round, the first position and how many records.
    records: Vec<(u8, u64, u64)>,
    /// The one of them that is lost, counted from 1.
    lose: usize,
    /// Frames to the leaf.
    answers: u64,
}

impl Line {
    fn carry(&mut self, now_ms: u64, to_hub: bool, bytes: &mut Vec<u8>) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let payload = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let (frame, later) = rest.split_at(HEADER_BYTES + payload as usize);
            rest = later;
            self.sent += 1;
            self.answers += u64::from(!to_hub);
            if to_hub && self.loses(frame) {
                continue;
            }
            if self.rng.between(1, 1000) <= self.faults.lost {
                continue;
            }
            let copies = 1 + u64::from(self.rng.between(1, 1000) <= self.faults.doubled);
            for _ in 0..copies {
                let due = now_ms + self.late_ms + self.rng.between(1, self.faults.delay_ms_max);
                self.under_way.push((due, to_hub, frame.to_vec()));
            }
        }
        bytes.clear();
    }

    /// Notes frames of records; whether this one is to be lost.
    fn loses(&mut self, frame: &[u8]) -> bool {
        let Ok(Some((Frame::Records { records, .. }, _))) = decode(frame, 1 << 20) else {
            return false;
        };
        let (first, completed) = (records.first.position.0, u64::from(records.completed));
        self.records.push((records.round, first, completed));
        self.records.len() == self.lose
    }

    fn arrived(&mut self, now_ms: u64) -> Option<(bool, Vec<u8>)> {
        let due = |frame: &(u64, bool, Vec<u8>)| frame.0 <= now_ms;
        let index = self.under_way.iter().position(due)?;
        let (_, to_hub, frame) = self.under_way.remove(index);
        Some((to_hub, frame))
    }
}

struct World {
    leaf: Site<Leaf>,
    hub: Site<Node<'static>>,
    line: Line,
    now_ms: u64,
}

fn timeout<M: Machine>(site: &mut Site<M>, now: Instant)
where
    Said: From<M::Event>,
{
    if site.wake.is_some_and(|wake| wake <= now) {
        site.input(now, Input::Timeout);
    }
}

fn take_output<M>(site: &mut Site<M>, link: LinkId) -> &mut Vec<u8> {
    site.outgoing.entry(link).or_default()
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut hub = node_with(NodeConfig::new(settings("central"), 1), Vec::new());
        hub.up_over(Instant::ZERO, HUB, None, Transport::Datagram);
        let mut world = Self {
            leaf: new_leaf(seed),
            hub,
            line: Line {
                rng: Rng::new(seed),
                faults,
                under_way: Vec::new(),
                sent: 0,
                late_ms: 0,
                records: Vec::new(),
                lose: 0,
                answers: 0,
            },
            now_ms: 0,
        };
        world.leaf.input(Instant::ZERO, Input::Timeout);
        world
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now_ms += 1;
        let now = Instant::from_millis(self.now_ms);
        while let Some((to_hub, frame)) = self.line.arrived(self.now_ms) {
            if to_hub {
                self.hub.datagram(now, HUB, &frame);
            } else if self.leaf.outgoing.contains_key(&LEAF) {
                self.leaf.datagram(now, LEAF, &frame);
            }
            self.ended(now);
        }
        timeout(&mut self.leaf, now);
        timeout(&mut self.hub, now);
        self.ended(now);
        if self.leaf.dials.pop_front().is_some() {
            self.leaf.up_over(now, LEAF, Some(0), Transport::Datagram);
        }
        self.line.carry(self.now_ms, true, take_output(&mut self.leaf, LEAF));
        self.line.carry(self.now_ms, false, take_output(&mut self.hub, HUB));
    }

    /// Does what was ordered about the line: it never breaks, but either end may start anew.
    fn ended(&mut self, now: Instant) {
        if self.leaf.hangups.pop().is_some() {
            self.line.carry(self.now_ms, true, take_output(&mut self.leaf, LEAF));
            self.leaf.down(now, LEAF);
        }
        if self.hub.hangups.pop().is_some() {
            self.line.carry(self.now_ms, false, take_output(&mut self.hub, HUB));
            self.hub.down(now, HUB);
            self.hub.up_over(now, HUB, None, Transport::Datagram);
        }
    }

    fn released(&self) -> (u64, u64) {
        let of = |queues: &std::collections::BTreeMap<_, crate::world::Queue>| {
            queues.values().map(|queue| queue.released).sum()
        };
        (of(&self.leaf.store.queues), of(&self.hub.store.queues))
    }

    fn run_until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) {
        let limit_ms = self.now_ms + limit_ms;
        while !done(self) {
            assert!(self.now_ms < limit_ms, "not done after {limit_ms} ms: {:?}", self.released());
            self.step();
        }
    }
}

fn new_leaf(seed: u64) -> Site<Leaf> {
    new_leaf_of(seed, settings("242").epoch)
}

fn new_leaf_of(seed: u64, epoch: Epoch) -> Site<Leaf> {
    let mut link = settings("242");
    link.epoch = epoch;
    link.retransmit_ms = 100;
    link.frame_bytes_max = 512;
    let mut config = LeafConfig::new(link, seed);
    config.dial.retry_ms_min = 100;
    config.dial.retry_ms_max = 1_000;
    Site::new(Leaf::new(config))
}

#[test]
fn everything_arrives_once_and_in_order_over_a_bad_line() {
    for seed in 0..40 {
        let lost = [0, 10, 100, 300][seed as usize % 4];
        let delay_ms_max = [1, 5, 60][seed as usize % 3];
        let mut world = World::new(seed, Faults { lost, doubled: lost / 2, delay_ms_max });
        let mut sent = (Vec::new(), Vec::new());
        for round in 0..50u8 {
            let now = Instant::from_millis(world.now_ms);
            let bytes: Vec<u8> = (0..world.line.rng.between(1, 40) as u8).collect();
            world.leaf.post(now, "hub", 2, &bytes);
            sent.0.extend_from_slice(&bytes);
            world.hub.post(now, "242", 2, &[round, 7, round]);
            sent.1.extend_from_slice(&[round, 7, round]);
            for _ in 0..world.line.rng.between(1, 200) {
                world.step();
            }
        }
        let all = (sent.0.len() as u64, sent.1.len() as u64);
        world.run_until(600_000, |world| world.released() == all);
        assert_eq!(world.hub.received(), sent.0, "seed {seed}");
        assert_eq!(world.leaf.received(), sent.1, "seed {seed}");
    }
}

#[test]
fn a_repeated_greeting_is_answered_and_does_not_echo_for_ever() {
    let mut world = World::new(1, Faults { lost: 0, doubled: 1000, delay_ms_max: 3 });
    world.run_until(5_000, |world| world.leaf.machine.is_connected());
    for _ in 0..5_000 {
        world.step();
    }
    let before = world.line.sent;
    for _ in 0..5_000 {
        world.step();
    }
    let frames = world.line.sent - before;
    assert!(frames < 20, "{frames} frames in 5 s of silence");
}

#[test]
fn a_hub_that_started_anew_is_noticed_at_once() {
    let mut world = World::new(1, Faults { lost: 0, doubled: 0, delay_ms_max: 3 });
    world.run_until(5_000, |world| world.leaf.machine.is_connected());
    // The hub forgets the link without a word, as a restart does; the leaf goes on sending.
    let now = Instant::from_millis(world.now_ms);
    world.hub.down(now, HUB);
    world.hub.up_over(now, HUB, None, Transport::Datagram);
    world.leaf.post(now, "hub", 2, &[1, 2, 3]);
    world.run_until(3_000, |world| world.released().0 == 3);
    assert_eq!(world.hub.received(), [1, 2, 3]);
}

#[test]
fn a_leaf_that_started_anew_is_noticed_at_once() {
    let mut world = World::new(1, Faults { lost: 0, doubled: 0, delay_ms_max: 3 });
    world.run_until(5_000, |world| world.leaf.machine.is_connected());
    let now = Instant::from_millis(world.now_ms);
    let store = core::mem::take(&mut world.leaf.store);
    world.leaf = new_leaf(9);
    world.leaf.store = store;
    world.leaf.input(now, Input::Timeout);
    world.leaf.post(now, "hub", 2, &[1, 2, 3]);
    world.run_until(3_000, |world| world.released().0 == 3);
    assert_eq!(world.hub.received(), [1, 2, 3]);
}

/// As a device does that has no source of random numbers.
#[test]
fn a_leaf_that_started_anew_with_the_same_seed_is_noticed_at_once() {
    let mut world = World::new(1, Faults { lost: 0, doubled: 0, delay_ms_max: 3 });
    world.leaf.post(Instant::ZERO, "hub", 2, &[1, 2, 3]);
    world.run_until(5_000, |world| world.released().0 == 3);
    let now = Instant::from_millis(world.now_ms);
    let mut store = core::mem::take(&mut world.leaf.store);
    let (earlier, epoch) = (settings("242").epoch, settings("242").epoch.next(1));
    for queue in store.queues.values_mut() {
        queue.lives.push(Life { epoch: earlier, end: Position(3) });
    }
    world.leaf = new_leaf_of(1, epoch);
    world.leaf.store = store;
    world.leaf.input(now, Input::Timeout);
    world.leaf.post(now, "hub", 2, &[4, 5]);
    world.run_until(3_000, |world| world.released().0 == 5);
    assert_eq!(world.hub.received(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_store_slower_than_the_patience_of_the_sender_still_gets_everything() {
    for seed in 0..40 {
        slow_store(seed);
    }
}

fn slow_store(seed: u64) {
    let mut world = World::new(seed, Faults { lost: 300, doubled: 0, delay_ms_max: 30 });
    world.run_until(30_000, |world| world.leaf.machine.is_connected());
    // The leaf announces its stream again while the hub's store is at work: what is under way is
    // void, and what the store reports afterwards counts all the same.
    world.hub.hold_completions = true;
    world.hub.slow = true;
    let mut sent = Vec::new();
    for round in 0..20u8 {
        for part in 0..3 {
            let now = Instant::from_millis(world.now_ms);
            world.leaf.post(now, "hub", 2, &[round, part]);
            sent.extend_from_slice(&[round, part]);
            for _ in 0..world.line.rng.between(1, 200) {
                world.step();
            }
        }
        world.hub.complete(Instant::from_millis(world.now_ms));
    }
    world.hub.hold_completions = false;
    world.hub.complete(Instant::from_millis(world.now_ms));
    world.run_until(60_000, |world| world.released().0 == 120);
    assert_eq!(world.hub.received(), sent);
}

/// A record every millisecond over a line of 40 ms there and back, to a store that syncs every 20 ms,
/// until all 300 are there.
fn steady(lose: usize) -> World {
    let mut world = World::new(3, Faults { lost: 0, doubled: 0, delay_ms_max: 1 });
    world.run_until(5_000, |world| world.leaf.machine.is_connected());
    (world.line.late_ms, world.line.lose) = (19, lose);
    world.hub.hold_completions = true;
    let mut sent = Vec::new();
    for number in 0..300_u32 {
        let now = Instant::from_millis(world.now_ms);
        world.leaf.post(now, "hub", 2, &[number as u8]);
        sent.push(number as u8);
        world.step();
        if number % 20 == 0 {
            world.hub.complete(now);
        }
    }
    world.hub.hold_completions = false;
    world.hub.complete(Instant::from_millis(world.now_ms));
    world.run_until(5_000, |world| world.released().0 == 300);
    assert_eq!(world.hub.received(), sent);
    world
}

/// What is sent again starts with what was lost, comes once, and is no more than was under way until
/// the leaf heard of it; and nothing is said of each frame that came after.
#[test]
fn one_lost_frame_costs_what_was_under_way_and_no_more() {
    let world = steady(100);
    let frames = &world.line.records;
    let lost = frames[99];
    let again = frames.iter().find(|frame| frame.0 != lost.0).expect("it is sent again");
    assert_eq!(again.1, lost.1, "what came before it is not sent again");
    assert!(frames.iter().all(|frame| frame.0 == lost.0 || frame.0 == again.0), "once");
    let records: u64 = frames.iter().map(|frame| frame.2).sum();
    // There and back, and until the store has answered for what came before.
    assert!(records - 300 <= 40 + 20 + 2, "{} records were sent again", records - 300);
    let (answers, without) = (world.line.answers, steady(0).line.answers);
    assert!(answers <= without + 1, "{answers} frames came back, and {without} without a loss");
}
