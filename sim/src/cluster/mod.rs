//! Many nodes, their links and their disks in one thread, in virtual time, from one seed.
//!
//! Everything that happens is an event in one queue, ordered by time and then by the order in which
//! it was put there; every choice is drawn from the seed. Two runs of one seed are the same run.

mod faults;
mod links;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use replcore::contract::{DialIndex, LinkId, Transport};
use replcore::rng::Rng;
use replcore::stream::{Name, NodeId};

use crate::clock::Clock;
use crate::network::{Conditions, Pipe};
use crate::process::{Effect, Now, Observation, Post, Process, Stimulus};

/// Starts and ends the processes of a cluster, and keeps their disks in between.
pub trait Machinery {
    /// What it starts.
    type Process: Process;

    /// Starts the process of a node, from what its disk holds.
    fn start(&mut self, node: usize, life: u32, now: Now) -> Self::Process;

    /// Ends the process of a node without warning.
    fn crash(&mut self, node: usize, process: Self::Process, rng: &mut Rng);
}

/// A node, as it is set up.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name.
    pub name: Name,
    /// The nodes it dials, in the order of its configuration.
    pub dials: Vec<usize>,
    /// Links it can have at once.
    pub links_max: u32,
    /// What its links are.
    pub transport: Transport,
    /// How its links treat what is sent.
    pub conditions: Conditions,
    /// From the first write to a finished sync, in microseconds, least and most.
    pub sync_us: (u64, u64),
    /// Its clocks.
    pub clock: Clock,
}

struct Node<P> {
    spec: Spec,
    process: Option<P>,
    life: u32,
    wake_us: Option<u64>,
    committing: bool,
    /// Which link of the cluster is behind a link number.
    slots: BTreeMap<LinkId, usize>,
    next_slot: u32,
    /// Accepts, and then neither reads nor answers.
    hung: bool,
    missed: VecDeque<Happening>,
    syncs_stopped: bool,
}

struct Link {
    /// Node and link number at the dialler's end, then at the other.
    ends: [(usize, LinkId); 2],
    up: [bool; 2],
    pipes: [Pipe; 2],
    granted: [u64; 2],
}

/// Something that will happen.
#[derive(Clone, Debug)]
enum Happening {
    Wake { node: usize, life: u32 },
    Commit { node: usize, life: u32 },
    Arrive { link: usize, to: usize },
    Opened { link: usize, end: usize, life: u32 },
    Closed { link: usize, end: usize },
    DialFailed { node: usize, dial: DialIndex, life: u32 },
    Credit { link: usize, end: usize },
    Boot { node: usize },
    Post { node: usize, mark: u64, post: Post },
}

/// Something seen at a node.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When, in microseconds of the simulation.
    pub at_us: u64,
    /// Where.
    pub node: usize,
    /// In which of its lives.
    pub life: u32,
    /// What.
    pub observation: Observation,
}

/// Counters of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Events processed.
    pub events: u64,
    /// Crashes.
    pub crashes: u64,
    /// Links opened.
    pub links: u64,
    /// Links cut.
    pub cuts: u64,
    /// Bytes that arrived.
    pub bytes: u64,
}

/// The simulation.
pub struct Cluster<M: Machinery> {
    machinery: M,
    now_us: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Index)>>,
    happenings: BTreeMap<u64, Happening>,
    nodes: Vec<Node<M::Process>>,
    links: Vec<Link>,
    /// Directions in which nothing passes.
    blocked: BTreeSet<(usize, usize)>,
    rng: Rng,
    seen: VecDeque<Seen>,
    trace: Option<VecDeque<String>>,
    counters: Counters,
}

/// The number of a happening.
type Index = u64;

/// Lines of trace that are kept.
const TRACE_LINES_MAX: usize = 5_000_000;

/// A dial over a direction that is cut fails after this long.
const CONNECT_TIMEOUT_US: u64 = 5_000_000;

impl<M: Machinery> Cluster<M> {
    /// A cluster of nodes that boot at time zero of the simulation, in order.
    pub fn new(machinery: M, specs: Vec<Spec>, seed: u64) -> Self {
        let mut cluster = Self {
            machinery,
            now_us: 0,
            order: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            blocked: BTreeSet::new(),
            rng: Rng::new(seed),
            seen: VecDeque::new(),
            trace: None,
            counters: Counters::default(),
        };
        for (node, spec) in specs.into_iter().enumerate() {
            cluster.nodes.push(Node {
                spec,
                process: None,
                life: 0,
                wake_us: None,
                committing: false,
                slots: BTreeMap::new(),
                next_slot: 0,
                hung: false,
                missed: VecDeque::new(),
                syncs_stopped: false,
            });
            cluster.at(0, Happening::Boot { node });
        }
        cluster
    }

    /// Keeps a readable trace from now on.
    pub fn start_trace(&mut self) {
        self.trace = Some(VecDeque::new());
    }

    /// The trace so far, oldest first.
    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().flatten().map(String::as_str)
    }

    /// The time, in microseconds since the start.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// What has happened so far, counted.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The keeper of the disks.
    pub const fn machinery_mut(&mut self) -> &mut M {
        &mut self.machinery
    }

    /// The process of a node, while it runs.
    pub fn process(&self, node: usize) -> Option<&M::Process> {
        self.nodes[node].process.as_ref()
    }

    /// The process of a node, while it runs.
    pub fn process_mut(&mut self, node: usize) -> Option<&mut M::Process> {
        self.nodes[node].process.as_mut()
    }

    /// The name of a node.
    pub fn name(&self, node: usize) -> Name {
        self.nodes[node].spec.name
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The node of an identity.
    pub fn node_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.spec.name.node_id() == id)
    }

    /// Links of a node that are open.
    pub fn links_open(&self, node: usize) -> usize {
        self.nodes[node].slots.len()
    }

    /// Whether the process of a node runs.
    pub fn runs(&self, node: usize) -> bool {
        self.nodes[node].process.is_some()
    }

    /// The next thing seen that was not yet taken.
    pub fn seen(&mut self) -> Option<Seen> {
        self.seen.pop_front()
    }

    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = format!("{:>14.6} {}", self.now_us as f64 / 1e6, text(self));
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES_MAX {
                trace.pop_front();
            }
            trace.push_back(line);
        }
    }

    fn at(&mut self, at_us: u64, happening: Happening) {
        let index = self.order;
        self.order += 1;
        self.queue.push(Reverse((at_us.max(self.now_us), index, index)));
        self.happenings.insert(index, happening);
    }

    fn node_now(&self, node: usize) -> Now {
        let clock = &self.nodes[node].spec.clock;
        Now { monotonic: clock.monotonic(self.now_us), wall_ms: clock.wall_ms(self.now_us) }
    }

    /// When the next thing happens.
    pub fn next_us(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at_us, ..))| *at_us)
    }

    /// Lets the next thing happen, unless it is after `until_us`; then only time passes.
    pub fn step(&mut self, until_us: u64) -> bool {
        match self.next_us() {
            Some(at_us) if at_us <= until_us => {}
            _ => {
                self.now_us = self.now_us.max(until_us);
                return false;
            }
        }
        let Some(Reverse((at_us, _, index))) = self.queue.pop() else { return false };
        self.now_us = at_us;
        let Some(happening) = self.happenings.remove(&index) else { return true };
        self.counters.events += 1;
        self.happen(happening);
        true
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(node) = self.hung_node(&happening) {
            self.nodes[node].missed.push_back(happening);
            return;
        }
        match happening {
            Happening::Boot { node } => self.boot(node),
            Happening::Wake { node, life } => {
                let due = self.nodes[node].wake_us.is_some_and(|wake_us| wake_us <= self.now_us);
                if life == self.nodes[node].life && due {
                    self.nodes[node].wake_us = None;
                    self.give(node, Stimulus::Timeout);
                }
            }
            Happening::Commit { node, life } => {
                if life == self.nodes[node].life {
                    self.nodes[node].committing = false;
                    self.give(node, Stimulus::Commit);
                }
            }
            Happening::Arrive { link, to } => self.arrive(link, to),
            Happening::Opened { link, end, life } => self.opened(link, end, life),
            Happening::Closed { link, end } => self.close_end(link, end),
            Happening::DialFailed { node, dial, life } => {
                if life == self.nodes[node].life {
                    self.give(node, Stimulus::DialFailed { dial });
                }
            }
            Happening::Credit { link, end } => self.credit(link, end),
            Happening::Post { node, mark, post } => {
                self.give(node, Stimulus::Post { mark, post: &post });
            }
        }
    }

    /// The node that should take this and does nothing at present.
    fn hung_node(&self, happening: &Happening) -> Option<usize> {
        let node = match happening {
            Happening::Boot { .. } => return None,
            Happening::Wake { node, .. }
            | Happening::Commit { node, .. }
            | Happening::DialFailed { node, .. }
            | Happening::Post { node, .. } => *node,
            Happening::Arrive { link, to: end }
            | Happening::Opened { link, end, .. }
            | Happening::Closed { link, end }
            | Happening::Credit { link, end } => self.links[*link].ends[*end].0,
        };
        self.nodes[node].hung.then_some(node)
    }

    fn boot(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        self.nodes[node].life += 1;
        let life = self.nodes[node].life;
        let now = self.node_now(node);
        let mut process = self.machinery.start(node, life, now);
        if let Some(what) = process.broken() {
            let (at_us, observation) = (self.now_us, Observation::Violation { what });
            self.seen.push_back(Seen { at_us, node, life, observation });
            return;
        }
        let held = process.held();
        self.nodes[node].process = Some(process);
        self.note(|this| format!("{} starts, life {life}", this.name(node)));
        let (at_us, observation) = (self.now_us, Observation::Started { held });
        self.seen.push_back(Seen { at_us, node, life, observation });
        self.give(node, Stimulus::Timeout);
    }

    /// Gives a stimulus to a node and does what it wants done.
    fn give(&mut self, node: usize, stimulus: Stimulus<'_>) {
        let now = self.node_now(node);
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let (mut effects, mut observations) = (Vec::new(), Vec::new());
        process.take(now, stimulus, &mut effects, &mut observations);
        self.note(|this| format!("{} < {}", this.name(node), brief(&stimulus)));
        let (at_us, life) = (self.now_us, self.nodes[node].life);
        for observation in observations {
            self.note(|this| match &observation {
                Observation::Note { text } => format!("{}   {text}", this.name(node)),
                other => format!("{}   {other:?}", this.name(node)),
            });
            if !matches!(observation, Observation::Note { .. }) {
                self.seen.push_back(Seen { at_us, node, life, observation });
            }
        }
        for effect in effects {
            self.effect(node, effect);
        }
        self.arm(node);
    }

    /// Sets the next wake and the next sync of a node.
    fn arm(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        let (wake, dirty) = (process.wake(), process.dirty());
        let of = &self.nodes[node];
        let wake_us = wake.map(|at| of.spec.clock.true_us(at).max(self.now_us + 1));
        if wake_us != of.wake_us {
            self.nodes[node].wake_us = wake_us;
            if let Some(wake_us) = wake_us {
                self.at(wake_us, Happening::Wake { node, life });
            }
        }
        let of = &mut self.nodes[node];
        if dirty && !of.committing && !of.syncs_stopped {
            of.committing = true;
            let (least_us, most_us) = of.spec.sync_us;
            let done_us = self.now_us + self.rng.between(least_us, most_us);
            self.at(done_us, Happening::Commit { node, life });
        }
    }

    fn effect(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { link, bytes } => {
                let Some(&index) = self.nodes[node].slots.get(&link) else { return };
                let from = self.end_of(index, node, link);
                let to = 1 - from;
                let of = &mut self.links[index];
                of.granted[from] = of.granted[from].saturating_sub(bytes.len() as u64);
                let before = of.pipes[to].next_us();
                of.pipes[to].send(self.now_us, &bytes);
                let next = of.pipes[to].next_us();
                if next != before {
                    self.schedule_arrival(index, to);
                }
            }
            Effect::Dial { dial } => self.dial(node, dial),
            Effect::Hangup { link } => {
                let Some(&index) = self.nodes[node].slots.get(&link) else { return };
                let end = self.end_of(index, node, link);
                self.note(|this| format!("{} hangs up {link:?}", this.name(node)));
                self.at(self.now_us, Happening::Closed { link: index, end });
                self.close_far_end(index, 1 - end);
            }
            Effect::Exit { reason } => {
                self.note(|this| format!("{} exits: {reason}", this.name(node)));
                self.crash(node, true);
                self.at(self.now_us + 100_000, Happening::Boot { node });
            }
        }
    }
}

fn brief(stimulus: &Stimulus<'_>) -> String {
    match stimulus {
        Stimulus::Received { link, bytes } => format!("{} bytes from {link:?}", bytes.len()),
        Stimulus::Post { mark, post } => {
            format!("post {mark}: class {}, {} bytes", post.class, post.body.len())
        }
        other => format!("{other:?}"),
    }
}
