//! The daemon's own engine and store as a process of the simulation: everything of a node but its
//! sockets, its threads and its clock.

use std::collections::BTreeMap;
use std::fmt;

use replcore::contract::{DialIndex, Failure, LinkId};
use replcore::link::LinkSettings;
use replcore::node::{DialSlot, DialTarget, Node, NodeConfig};
use replcore::rng::Rng;
use replcore::stream::{CLASSES, Name, Position, QueueId, QueueKey, RecordId};
use replcore::time::Instant;
use replcore_runtime::api::DispatchRule;
use replcore_runtime::engine::{Engine, EngineConfig, Router, Stopped};
use replcore_runtime::node::{route_to_registered, ways};
use replcore_runtime::options::Compression;
use replcore_runtime::store::{
    Arrival, Config, Consumer, MemoryDisk, PostError, QueueLimits, SegmentStore, Store,
};

use crate::cluster::Machinery;
use crate::kit::node_memory;
use crate::process::{Effect, Now, Observation, Post, Process, Stimulus};

/// The engine of a simulated node.
pub type SimEngine = Engine<Node<'static>, SegmentStore<MemoryDisk>>;

/// The consumer that every node has.
const CONSUMER: &str = "reader";

/// How long a link that is to be closed may take no bytes, in milliseconds.
const WRITE_STALL_MS: u64 = 10_000;

/// Times and limits of all nodes of a system.
#[derive(Clone, Copy, Debug)]
pub struct SystemSettings {
    /// How long a lease is, in milliseconds.
    pub lease_ms: u32,
    /// How often a leaf registers, in milliseconds.
    pub register_ms: u32,
    /// Keep-alive of links, in milliseconds.
    pub keepalive_ms: u32,
    /// Interval of poll mode, in milliseconds; 0 for push.
    pub poll_interval_ms: u32,
    /// Bytes of records that may be under way on one stream.
    pub window_bytes: u32,
    /// Longest frame.
    pub frame_bytes_max: u32,
    /// Whether records are compressed.
    pub compressed: bool,
    /// Most bytes of a log.
    pub log_bytes_max: u64,
    /// Bytes of a log that are kept although no queue needs them.
    pub retain_bytes: u64,
    /// Limits of queues.
    pub queue_limits: Option<QueueLimits>,
    /// Disks say that they have synced and have not (a planted fault).
    pub bug_disks_lie: bool,
    /// Stores forget what they have taken (a planted fault).
    pub bug_forgets_origins: bool,
}

impl Default for SystemSettings {
    fn default() -> Self {
        Self {
            lease_ms: 3_600_000,
            register_ms: 300_000,
            keepalive_ms: 3_000,
            poll_interval_ms: 0,
            window_bytes: 1 << 20,
            frame_bytes_max: 4_096,
            compressed: false,
            log_bytes_max: 64 << 20,
            retain_bytes: 64 << 20,
            queue_limits: None,
            bug_disks_lie: false,
            bug_forgets_origins: false,
        }
    }
}

/// A node of a system, as it is set up.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// Its hubs, in the order in which it dials them; none when it is a hub.
    pub hubs: Vec<Name>,
}

/// A post that waits for its commit.
#[derive(Debug)]
struct Waiting {
    mark: u64,
    id: RecordId,
    duplicate: bool,
}

struct Running {
    engine: SimEngine,
    disk: MemoryDisk,
    links: BTreeMap<LinkId, Line>,
    posts: Vec<Waiting>,
    /// Records of the log from here on were not seen yet.
    read_to: u64,
    /// Where the log ended at the start.
    held_to: u64,
    queue: Option<QueueId>,
    /// What the consumer has taken from its queue, by class.
    consumed: [u64; CLASSES],
    wake: Option<Instant>,
    touched: bool,
    /// Reports of damage that were told.
    reports: usize,
}

#[derive(Debug, Default)]
struct Line {
    inbox: Vec<u8>,
    credit: usize,
    hung_up: bool,
    /// When it was first seen to be closing with output that the other end does not take.
    closing: Option<Instant>,
}

/// A node while it runs.
pub struct SystemProcess {
    name: Name,
    frame_bytes_max: u32,
    /// Nothing when its store did not open, and why.
    running: Result<Running, String>,
    told: bool,
}

impl fmt::Debug for SystemProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemProcess").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SystemProcess {
    /// The engine, while there is one.
    pub fn engine(&self) -> Option<&SimEngine> {
        self.running.as_ref().ok().map(|running| &running.engine)
    }

    /// The engine, while there is one.
    pub fn engine_mut(&mut self) -> Option<&mut SimEngine> {
        self.running.as_mut().ok().map(|running| &mut running.engine)
    }

    /// How many leaves are registered here.
    pub fn leaves(&self) -> usize {
        let registered = |engine: &SimEngine| {
            let leases = engine.machine().leases();
            leases.leaves().filter(|slot| slot.registration().is_some()).count()
        };
        self.engine().map_or(0, registered)
    }

    /// Whether this leaf has a lease of each of its `hubs`.
    pub fn is_registered_at(&self, hubs: usize) -> bool {
        let held = |engine: &SimEngine, hub: usize| {
            let dial = engine.machine().dial(DialIndex(hub as u16));
            dial.is_some_and(DialSlot::is_registered)
        };
        self.engine().is_some_and(|engine| (0..hubs).all(|hub| held(engine, hub)))
    }
}

impl Running {
    fn offer(&mut self, link: LinkId) {
        let Some(line) = self.links.get_mut(&link) else { return };
        let taken = self.engine.bytes(link, &line.inbox);
        line.inbox.drain(..taken);
    }

    fn flush(&mut self, effects: &mut Vec<Effect>) {
        while let Some(link) = self.engine.next_resume() {
            self.offer(link);
        }
        while let Some(dial) = self.engine.next_dial() {
            effects.push(Effect::Dial { dial });
        }
        while let Some(link) = self.engine.next_flush() {
            self.write(link, effects);
        }
    }

    fn write(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        let Some(line) = self.links.get_mut(&link) else { return };
        loop {
            let output = self.engine.output(link);
            let bytes = output.len().min(line.credit);
            if bytes == 0 {
                break;
            }
            effects.push(Effect::Send { link, bytes: output[..bytes].to_vec() });
            line.credit -= bytes;
            self.engine.written(link, bytes);
        }
        if self.engine.is_done(link) && !line.hung_up {
            line.hung_up = true;
            effects.push(Effect::Hangup { link });
        }
    }

    /// As the daemon's driver does, gives up links that are to be closed and take no more bytes.
    fn close_stalled(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (link, line) in &mut self.links {
            if line.hung_up || !self.engine.is_closing(*link) {
                continue;
            }
            let since = *line.closing.get_or_insert(now.monotonic);
            if now.monotonic >= since.plus_millis(WRITE_STALL_MS) {
                line.hung_up = true;
                effects.push(Effect::Hangup { link: *link });
            }
        }
    }

    fn turn(&mut self, now: Now, seen: &mut Vec<Observation>) {
        let failed = self.engine.counters().commits_failed;
        self.wake = self.engine.turn(now.monotonic, now.wall_ms);
        self.touched = false;
        let safe =
            self.engine.counters().commits_failed == failed && self.engine.stopped().is_none();
        self.look(seen);
        for Waiting { mark, id, duplicate } in std::mem::take(&mut self.posts) {
            seen.push(if safe {
                Observation::Posted { mark, id, duplicate }
            } else {
                Observation::PostRefused { mark, error: PostError::DiskFull }
            });
        }
        if self.engine.stopped().is_none() {
            self.consume(seen);
        }
    }

    /// Tells what is new in the log. Only what is committed can be read.
    fn look(&mut self, seen: &mut Vec<Observation>) {
        let (before, held_to) = (seen.len(), self.held_to);
        let own = self.engine.store().identity().name.node_id();
        loop {
            let from = self.read_to;
            let read = self.engine.store_mut().read(from, 1 << 20, &mut |ordinal, record| {
                let id = record.id();
                if ordinal < held_to {
                    seen.push(Observation::Found { id, body: record.body().to_vec() });
                    return true;
                }
                // How it came is not in the log; that it is no post of this node is.
                let arrival =
                    if id.origin == own { Arrival::Local } else { Arrival::Leaf(id.origin) };
                let (body, targets) = (record.body().to_vec(), Vec::new());
                seen.push(Observation::Stored { id, body, arrival, targets });
                true
            });
            match read {
                Ok(next) if next > from => self.read_to = next,
                _ => break,
            }
        }
        if seen.len() > before {
            seen.push(Observation::Committed);
        }
    }

    /// The consumer takes what is in its queue and acknowledges it.
    fn consume(&mut self, seen: &mut Vec<Observation>) {
        let Some(queue) = self.queue else { return };
        for class in 0..CLASSES {
            let key = QueueKey { queue, class: class as u8 };
            let Some(holding) = self.engine.store().holding(key) else { continue };
            let mut at = self.consumed[class].max(holding.released.0);
            let end = holding.next.0;
            while at < end {
                let position = Position(at);
                let found = self.engine.store_mut().entry(key, position, &mut |_, record| {
                    seen.push(Observation::Consumed { id: record.id() });
                });
                if let Err(failure) = found {
                    seen.push(Observation::Note { text: format!("cannot read: {failure:?}") });
                    break;
                }
                at += 1;
            }
            if at > holding.released.0 {
                self.engine.store_mut().release(key, Position(at));
                self.touched = true;
            }
            self.consumed[class] = at;
        }
    }

    fn post(&mut self, mark: u64, name: &Name, post: &Post, seen: &mut Vec<Observation>) {
        let mut bytes = post.record(name);
        match self.engine.post(&mut bytes) {
            Ok(posted) => {
                self.posts.push(Waiting { mark, id: posted.id, duplicate: posted.duplicate });
            }
            Err(error) => seen.push(Observation::PostRefused { mark, error }),
        }
    }

    fn prepare(&mut self, seen: &mut Vec<Observation>) {
        let consumer = Consumer { name: CONSUMER.to_owned(), message_type: String::new() };
        match self.engine.create_consumer(&consumer, true) {
            Ok(queue) => self.queue = Some(queue),
            Err(error) => {
                seen.push(Observation::Note { text: format!("no consumer: {error:?}") });
            }
        }
    }
}

impl Process for SystemProcess {
    fn take(
        &mut self,
        now: Now,
        stimulus: Stimulus<'_>,
        effects: &mut Vec<Effect>,
        observations: &mut Vec<Observation>,
    ) {
        let Ok(running) = &mut self.running else { return };
        running.engine.set_time(now.monotonic, now.wall_ms);
        if running.queue.is_none() {
            running.prepare(observations);
        }
        match stimulus {
            Stimulus::Timeout | Stimulus::Commit => {
                running.turn(now, observations);
                running.close_stalled(now, effects);
            }
            Stimulus::LinkUp { link, dialed, transport, peer } => {
                running.links.insert(link, Line::default());
                running.engine.link_up(link, dialed, transport, peer);
            }
            Stimulus::LinkDown { link } => {
                running.links.remove(&link);
                running.engine.link_down(link);
            }
            Stimulus::DialFailed { dial } => running.engine.dial_failed(dial),
            Stimulus::Received { link, bytes } => {
                if let Some(line) = running.links.get_mut(&link) {
                    line.inbox.extend_from_slice(bytes);
                    running.offer(link);
                }
            }
            Stimulus::Writable { link, bytes } => {
                if let Some(line) = running.links.get_mut(&link) {
                    line.credit += bytes as usize;
                    running.write(link, effects);
                }
            }
            Stimulus::Post { mark, post } => running.post(mark, &self.name, post, observations),
        }
        if !matches!(stimulus, Stimulus::Timeout | Stimulus::Commit) {
            running.touched = true;
        }
        running.flush(effects);
        for text in &running.engine.store().reports()[running.reports..] {
            observations.push(Observation::Note { text: text.clone() });
        }
        running.reports = running.engine.store().reports().len();
        while let Some(told) = running.engine.next_event() {
            observations.push(Observation::Note { text: format!("{:?}", told.event) });
        }
        // An engine may go on without a disk that takes new files, and no process without power.
        let (stopped, is_off) = (running.engine.stopped(), running.disk.is_off());
        if (stopped.is_some() || is_off) && !std::mem::replace(&mut self.told, true) {
            let expected = matches!(stopped, None | Some(Stopped::Store(Failure::Io))) && is_off;
            if !expected {
                let what = format!("the engine stopped: {stopped:?}");
                observations.push(Observation::Violation { what });
            }
            effects.push(Effect::Exit { reason: format!("the power is off, {stopped:?}") });
        }
    }

    fn broken(&self) -> Option<String> {
        self.running.as_ref().err().map(|what| format!("the store does not open: {what}"))
    }

    fn held(&mut self) -> Vec<RecordId> {
        let Ok(running) = &mut self.running else { return Vec::new() };
        let (mut held, mut from) = (Vec::new(), 0);
        while let Ok(next) = running.engine.store_mut().read(from, 1 << 20, &mut |_, record| {
            held.push(record.id());
            true
        }) && next > from
        {
            from = next;
        }
        running.held_to = from;
        held
    }

    fn wake(&self) -> Option<Instant> {
        self.running.as_ref().ok().filter(|_| !self.told).and_then(|running| running.wake)
    }

    fn dirty(&self) -> bool {
        !self.told && self.running.as_ref().is_ok_and(|running| running.touched)
    }

    fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }
}

/// Flips one bit of what is on a medium, in a part that was ever written, of some file whose name
/// begins so. Answers where.
fn flip(disk: &MemoryDisk, prefix: &str, rng: &mut Rng) -> Option<(String, usize)> {
    let named: Vec<String> =
        disk.names().into_iter().filter(|name| name.starts_with(prefix)).collect();
    let last = named.len().checked_sub(1)?;
    let name = &named[rng.between(0, last as u64) as usize];
    let mut place = None;
    disk.damage(name, |bytes| {
        place = bytes.iter().rposition(|byte| *byte != 0).map(|written| {
            let at = rng.between(0, written as u64) as usize;
            bytes[at] ^= 1 << rng.between(0, 7);
            at
        });
    });
    Some((name.clone(), place?))
}

/// Keeps the disks and starts the engines.
#[derive(Debug)]
pub struct Systems {
    members: Vec<Member>,
    disks: Vec<MemoryDisk>,
    settings: SystemSettings,
    seed: u64,
    links_max: u32,
    /// Copies of disks on which a bit was flipped since.
    images: BTreeMap<usize, MemoryDisk>,
    /// Power cuts in the middle of an opening so far.
    pub cut_openings: u64,
}

impl Systems {
    /// The keeper of these nodes, all new.
    pub fn new(members: Vec<Member>, settings: SystemSettings, links_max: u32, seed: u64) -> Self {
        let disks: Vec<MemoryDisk> = members.iter().map(|_| MemoryDisk::default()).collect();
        for disk in &disks {
            disk.set_lies(settings.bug_disks_lie);
        }
        let images = BTreeMap::new();
        Self { members, disks, settings, seed, links_max, images, cut_openings: 0 }
    }

    /// The disk of a node.
    pub fn disk(&self, node: usize) -> &MemoryDisk {
        &self.disks[node]
    }

    /// Flips a bit on the disk of a node: of its log while it `runs`, otherwise of any file. Some of
    /// those a store cannot do without at a start, and gets from a copy.
    pub fn flip(&mut self, node: usize, runs: bool, rng: &mut Rng) -> Option<(String, usize)> {
        if runs {
            return flip(&self.disks[node], "log-", rng);
        }
        self.images.insert(node, self.disks[node].image());
        flip(&self.disks[node], "", rng)
    }

    /// Sets the disk of a node that does not run back to a copy.
    pub fn restore(&self, node: usize, image: &MemoryDisk) {
        self.disks[node].restore(image);
    }

    fn store_config(&self, random: u64) -> Config {
        let settings = &self.settings;
        let mut config = Config {
            segment_bytes: 64 << 10,
            log_bytes_max: settings.log_bytes_max,
            retain_bytes: settings.retain_bytes,
            checkpoint_bytes: 128 << 10,
            recent_bytes_max: 16 << 10,
            message_bytes_max: 32 << 10,
            queues_max: 64,
            idempotency_ms_max: 365 * 86_400_000,
            ..Config::new(random)
        };
        if let Some(limits) = settings.queue_limits {
            config.queue_limits = limits;
        }
        if settings.bug_forgets_origins {
            config.origins_max = 1;
        }
        config
    }

    /// Opens the store of a node; now and then the power goes in the middle of it.
    fn open(&mut self, node: usize, rng: &mut Rng) -> Result<SegmentStore<MemoryDisk>, String> {
        let (name, disk) = (self.members[node].name, self.disks[node].clone());
        if rng.between(0, 3) == 0 {
            disk.stop_after(rng.between(0, 30));
            let opened = SegmentStore::open(disk.clone(), &name, self.store_config(rng.next_u64()));
            drop(opened);
            self.cut_openings += 1;
            disk.power_cut(|most| rng.between(0, most));
        }
        let opened = SegmentStore::open(disk.clone(), &name, self.store_config(rng.next_u64()));
        match (opened, self.images.remove(&node)) {
            (Err(_), Some(image)) => {
                // A bit was flipped where the store cannot do without: the operator has a copy.
                disk.restore(&image);
                SegmentStore::open(disk, &name, self.store_config(rng.next_u64()))
            }
            (opened, _) => opened,
        }
    }

    fn start_engine(&mut self, node: usize, now: Now, rng: &mut Rng) -> Result<Running, String> {
        let mut store = self.open(node, rng);
        while self.disks[node].is_off() {
            drop(store);
            self.disks[node].power_cut(|most| rng.between(0, most));
            store = self.open(node, rng);
        }
        let store = store?;
        let (member, settings) = (&self.members[node], &self.settings);
        let identity = store.identity();
        let mut link = LinkSettings::new(member.name, identity.instance, identity.epoch);
        link.keepalive_ms = settings.keepalive_ms;
        link.window_bytes = settings.window_bytes;
        link.frame_bytes_max = settings.frame_bytes_max;
        if settings.compressed {
            link.features |= replcore::wire::FEATURE_LZ4;
        }
        let mut config = NodeConfig::new(link, rng.next_u64());
        let hub = member.hubs.is_empty();
        config.hub = hub;
        config.lease.lease_ms_max = settings.lease_ms;
        config.lease.lease_ms_min = settings.lease_ms.min(config.lease.lease_ms_min);
        config.lease.admission.per_second = 1_000;
        config.lease.admission.burst = 1_000;
        config.register.lease_ms = settings.lease_ms;
        config.register.register_ms = settings.register_ms;
        config.dial.poll_interval_ms = settings.poll_interval_ms;
        let upstream =
            |queue: &Name| DialSlot::new(DialTarget::Upstream { queue: *queue, dials: true });
        let dials: Vec<DialSlot> = member.hubs.iter().map(upstream).collect();
        let links_max = if hub { self.links_max } else { member.hubs.len() as u32 + 1 };
        let leaves = if hub { self.members.len() as u32 + 2 } else { 1 };
        let memory = node_memory(links_max as usize, leaves, dials);
        let engine_config = EngineConfig {
            links_max,
            link_buffer_bytes: 4 * settings.frame_bytes_max,
            frame_bytes_max: settings.frame_bytes_max.max(1 << 10),
            compression: if settings.compressed { Compression::Lz4 } else { Compression::None },
            ..EngineConfig::default()
        };
        let mut router = Router::new(member.name, hub, &member.hubs);
        let everywhere = DispatchRule {
            message_type: String::new(),
            origin: String::new(),
            to: vec!["*".to_owned()],
        };
        router.set_rules(vec![everywhere]).map_err(|(_, error)| error.to_string())?;
        let machine = Node::new(config, memory);
        let (mut engine, refused) =
            Engine::new(engine_config, machine, store, router, ways(), now.monotonic);
        if refused > 0 {
            return Err(format!("{refused} states of the machine do not fit"));
        }
        route_to_registered(&mut engine);
        engine.set_time(now.monotonic, now.wall_ms);
        Ok(Running {
            engine,
            disk: self.disks[node].clone(),
            links: BTreeMap::new(),
            posts: Vec::new(),
            read_to: 0,
            held_to: 0,
            queue: None,
            consumed: [0; CLASSES],
            wake: Some(now.monotonic),
            touched: true,
            reports: 0,
        })
    }
}

impl Machinery for Systems {
    type Process = SystemProcess;

    fn start(&mut self, node: usize, life: u32, now: Now) -> SystemProcess {
        let name = self.members[node].name;
        let mut rng = Rng::new(self.seed ^ u64::from(life) << 32 ^ name.node_id().0);
        let running = self.start_engine(node, now, &mut rng);
        let frame_bytes_max = self.settings.frame_bytes_max;
        SystemProcess { name, frame_bytes_max, running, told: false }
    }

    fn crash(&mut self, node: usize, process: SystemProcess, rng: &mut Rng) {
        drop(process);
        let disk = &self.disks[node];
        // A write that the power stopped leaves no other way.
        if disk.is_off() || rng.between(0, 2) > 0 {
            disk.power_cut(|most| rng.between(0, most));
        } else {
            disk.process_ended();
        }
    }
}
