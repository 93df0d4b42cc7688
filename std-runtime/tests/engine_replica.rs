//! A hub with a standby, its leaves and the lines between them, on one thread in virtual time: the
//! hub goes for good again and again, with its disk, and the standby takes its place (QC-33).

mod store_support;

use std::collections::BTreeSet;

use replcore::Timer;
use replcore::contract::{LinkId, Transport};
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::log::record::Message;
use replcore::node::{DialSlot, DialTarget, LinkSlot, Node, NodeConfig, NodeMemory};
use replcore::rng::Rng;
use replcore::time::Instant;
use replcore_runtime::api::DispatchRule;
use replcore_runtime::engine::{Engine, EngineConfig, Router};
use replcore_runtime::node::{route_to_registered, ways};
use replcore_runtime::store::*;
use store_support::*;

type MemoryStore = SegmentStore<MemoryDisk>;
type MemoryEngine = Engine<Node<'static>, MemoryStore>;

const HUB: &str = "hub";
const LINKS_MAX: usize = 4;

fn leak<T: Clone>(value: T, count: usize) -> &'static mut [T] {
    Box::leak(vec![value; count].into_boxed_slice())
}

fn engine(text: &str, store: MemoryStore, hub: bool, now: Instant) -> MemoryEngine {
    let identity = store.identity();
    let mut link = LinkSettings::new(name(text), identity.instance, identity.epoch);
    link.frame_bytes_max = 4096;
    link.window_bytes = 32 << 10;
    let mut config = NodeConfig::new(link, now.as_micros() + 1);
    config.hub = hub;
    config.lease.lease_ms_min = 1000;
    config.register.lease_ms = 2000;
    config.register.register_ms = 500;
    config.dial.retry_ms_min = 10;
    config.dial.retry_ms_max = 100;
    let upstreams: Vec<_> = (!hub).then(|| name(HUB)).into_iter().collect();
    let dial = |queue| DialSlot::new(DialTarget::Upstream { queue, dials: true });
    let dials: Vec<DialSlot> = upstreams.iter().copied().map(dial).collect();
    let leases = LeaseServer::slots_for(if hub { 8 } else { 0 });
    let owners = LINKS_MAX + dials.len();
    let memory = NodeMemory {
        links: leak(LinkSlot::FREE, LINKS_MAX),
        leases: leak(LeaseSlot::FREE, leases),
        lease_timers: leak(Timer::NONE, leases),
        dials: Box::leak(dials.into_boxed_slice()),
        timers: leak(Timer::NONE, owners),
        ready: leak(0, owners),
    };
    let engine_config = EngineConfig {
        links_max: LINKS_MAX as u32,
        link_buffer_bytes: 16 << 10,
        frame_bytes_max: 4096,
        ..EngineConfig::default()
    };
    let mut router = Router::new(name(text), hub, &upstreams);
    let rule = DispatchRule {
        message_type: String::new(),
        origin: String::new(),
        to: vec!["*".to_owned()],
    };
    router.set_rules(vec![rule]).unwrap();
    let (mut engine, refused) =
        Engine::new(engine_config, Node::new(config, memory), store, router, ways(), now);
    assert_eq!(refused, 0);
    route_to_registered(&mut engine);
    engine
}

/// One end of a line, with what waits to be taken there.
#[derive(Default)]
struct End {
    inbox: Vec<u8>,
}

fn take(engine: &mut MemoryEngine, link: LinkId, end: &mut End) {
    let taken = engine.bytes(link, &end.inbox);
    end.inbox.drain(..taken);
}

fn carry(from: &mut MemoryEngine, link: LinkId, to: &mut End) {
    let output = from.output(link).to_vec();
    to.inbox.extend_from_slice(&output);
    from.written(link, output.len());
}

struct World {
    now: Instant,
    rng: Rng,
    hub: MemoryEngine,
    standby: MemoryStore,
    /// Where the standby is in the hub's log.
    cursor: ShipCursor,
    leaves: [MemoryEngine; 2],
    lines: [Option<(End, End)>; 2],
    term: u64,
    posted: u64,
    config: Config,
}

/// The link of a leaf at the hub.
const fn at_hub(leaf: usize) -> LinkId {
    LinkId(leaf as u32)
}

const AT_LEAF: LinkId = LinkId(0);

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::from_micros(1);
        let config = Config { replicated: true, ..small() };
        let mut store = SegmentStore::open(MemoryDisk::default(), &name(HUB), config).unwrap();
        store.promote(1, 1).unwrap();
        let (standby, cursor) = Self::copy(&mut store, config);
        let leaf = |text| {
            let store = SegmentStore::open(MemoryDisk::default(), &name(text), small()).unwrap();
            engine(text, store, false, now)
        };
        let mut hub = engine(HUB, store, true, now);
        let number = hub.store().committed_number();
        hub.replicated(number);
        let leaves = [leaf("from"), leaf("to")];
        let rng = Rng::new(seed);
        let lines = [None, None];
        Self { now, rng, hub, standby, cursor, leaves, lines, term: 1, posted: 0, config }
    }

    fn copy(hub: &mut MemoryStore, config: Config) -> (MemoryStore, ShipCursor) {
        let mut start = hub.start_copy().unwrap();
        let disk = MemoryDisk::default();
        let mut copy = SegmentStore::open_copy(disk, &name(HUB), config, &start.state).unwrap();
        let mut part = Vec::new();
        while hub.copy_part(&mut start.cursor, &mut part).unwrap() {
            copy.take_copy_part(&part).unwrap();
            part.clear();
        }
        copy.finish_copy().unwrap();
        (copy, start.ship)
    }

    fn connect(&mut self, leaf: usize) {
        let Some(dial) = self.leaves[leaf].next_dial() else { return };
        if self.lines[leaf].is_some() || self.rng.between(0, 3) == 0 {
            self.leaves[leaf].dial_failed(dial);
            return;
        }
        self.leaves[leaf].link_up(AT_LEAF, Some(dial), Transport::Stream, None);
        self.hub.link_up(at_hub(leaf), None, Transport::Stream, None);
        self.lines[leaf] = Some(Default::default());
    }

    fn cut(&mut self, leaf: usize) {
        if self.lines[leaf].take().is_some() {
            self.leaves[leaf].link_down(AT_LEAF);
            self.hub.link_down(at_hub(leaf));
        }
    }

    fn carry(&mut self, leaf: usize) {
        let Some((to_hub, to_leaf)) = &mut self.lines[leaf] else { return };
        carry(&mut self.leaves[leaf], AT_LEAF, to_hub);
        carry(&mut self.hub, at_hub(leaf), to_leaf);
        take(&mut self.hub, at_hub(leaf), to_hub);
        take(&mut self.leaves[leaf], AT_LEAF, to_leaf);
        if self.hub.is_done(at_hub(leaf)) || self.leaves[leaf].is_done(AT_LEAF) {
            self.cut(leaf);
        }
    }

    fn ship(&mut self, most: u64) {
        let mut batch = Vec::new();
        for _ in 0..most {
            batch.clear();
            match self.hub.store_mut().ship(&mut self.cursor, &mut batch).unwrap() {
                Shipped::Batch => self.standby.follow(&batch).unwrap(),
                _ => break,
            }
        }
        self.standby.commit().unwrap();
        let number = self.standby.head().number;
        self.hub.replicated(number);
    }

    /// The hub and its disk are no more.
    fn take_over(&mut self) {
        self.cut(0);
        self.cut(1);
        self.term += 1;
        let fresh = MemoryDisk::default();
        let placeholder = SegmentStore::open(fresh, &name(HUB), self.config).unwrap();
        let mut store = std::mem::replace(&mut self.standby, placeholder);
        store.promote(self.term, self.term).unwrap();
        let (standby, cursor) = Self::copy(&mut store, self.config);
        (self.standby, self.cursor) = (standby, cursor);
        self.hub = engine(HUB, store, true, self.now);
        let number = self.hub.store().committed_number();
        self.hub.replicated(number);
    }

    fn step(&mut self, quiet: bool) {
        self.now = self.now.plus_millis(self.rng.between(1, 20));
        let wall_ms = NOW_MS + self.now.as_micros() / 1000;
        if !quiet {
            self.leaves[0].set_time(self.now, wall_ms);
            for _ in 0..self.rng.between(0, 3) {
                let body = self.posted.to_le_bytes();
                let mut bytes = message(&Message { body: &body, ..Message::default() }, 2);
                self.leaves[0].post(&mut bytes).unwrap();
                self.posted += 1;
            }
            if self.rng.between(0, 150) == 0 {
                self.take_over();
            }
            if self.rng.between(0, 60) == 0 {
                let leaf = self.rng.between(0, 1) as usize;
                self.cut(leaf);
            }
        }
        for leaf in 0..2 {
            self.leaves[leaf].turn(self.now, wall_ms);
            self.connect(leaf);
            self.carry(leaf);
        }
        self.hub.turn(self.now, wall_ms);
        if quiet || self.rng.between(0, 4) == 0 {
            let most = if quiet { u64::MAX } else { self.rng.between(0, 4) };
            self.ship(most);
        }
    }
}

fn bodies(store: &mut MemoryStore) -> Vec<u64> {
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let next = store
            .read(from, 1 << 20, &mut |_, record| {
                found.push(u64::from_le_bytes(record.body().try_into().unwrap()));
                true
            })
            .unwrap();
        if next <= from {
            return found;
        }
        from = next;
    }
}

#[test]
fn a_hub_that_is_lost_with_its_disk_loses_and_doubles_nothing_acknowledged() {
    let mut takeovers = 0;
    for seed in 0..8 {
        let mut world = World::new(seed);
        // Both leaves register first: what comes before is for nobody.
        for _ in 0..200 {
            world.step(true);
        }
        for step in 0..1500 {
            world.step(false);
            if step % 50 == 0 {
                // What the sender was told is safe, and what the reader has, the standby holds.
                let up = key(HUB, 2);
                let released = world.leaves[0].store().holding(up).map_or(0, |it| it.released.0);
                let at_reader = bodies(world.leaves[1].store_mut()).len() as u64;
                let standby: BTreeSet<u64> = bodies(&mut world.standby).into_iter().collect();
                for number in 0..released.max(at_reader) {
                    assert!(standby.contains(&number), "seed {seed}, step {step}: {number}");
                }
            }
        }
        for _ in 0..2000 {
            world.step(true);
        }
        let all: Vec<u64> = (0..world.posted).collect();
        assert!(world.posted > 1000);
        for (at, got) in [
            ("reader", bodies(world.leaves[1].store_mut())),
            ("standby", bodies(&mut world.standby)),
        ] {
            let missing: Vec<&u64> = all.iter().filter(|number| !got.contains(number)).collect();
            assert!(missing.is_empty(), "seed {seed}, {at}: {missing:?}");
            assert!(got == all, "seed {seed}, {at}: in order, once");
        }
        takeovers += world.term - 1;
    }
    assert!(takeovers > 30, "{takeovers}");
}

/// The gate alone: without a standby that answers nothing goes on, and nobody is told that it does.
#[test]
fn without_its_standby_a_hub_acknowledges_and_dispatches_nothing() {
    let mut world = World::new(1);
    for _ in 0..400 {
        world.step(true);
    }
    let mut bytes = body(&7_u64.to_le_bytes());
    world.leaves[0].post(&mut bytes).unwrap();
    for _ in 0..400 {
        world.now = world.now.plus_millis(5);
        let wall_ms = NOW_MS + world.now.as_micros() / 1000;
        for leaf in 0..2 {
            world.leaves[leaf].turn(world.now, wall_ms);
            world.connect(leaf);
            world.carry(leaf);
        }
        world.hub.turn(world.now, wall_ms);
    }
    let waiting = |world: &World| world.leaves[0].store().holding(key(HUB, 2)).unwrap();
    assert_eq!(waiting(&world).released.0, 0, "not acknowledged");
    assert_eq!(bodies(world.leaves[1].store_mut()), [0_u64; 0], "not dispatched");
    assert_eq!(bodies(world.hub.store_mut()), [0_u64; 0], "not to be read");
    for _ in 0..400 {
        world.step(true);
    }
    assert_eq!(waiting(&world).released.0, 1);
    assert_eq!(bodies(world.leaves[1].store_mut()), [7]);
}
