//! Members, and what they stand on: links, disks and clocks, all with faults, in virtual time.

mod links;
mod lives;
mod turns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use replcore::contract::{Failure, Input, Key, LinkId, Token, Transport};
use replcore::election::ElectionSlot;
use replcore::member::{Member, MemberConfig, MemberLink, MemberMemory};
use replcore::registry::PeerSlot;
use replcore::rng::Rng;
use replcore::stream::{Address, Name, NodeId};
use replcore::time::Instant;

use super::rules::Rules;
use super::tamper::Bug;
use crate::clock::Clock;
use crate::network::{Conditions, Pipe};

/// The memory of one life of one node.
#[derive(Debug, Default)]
pub struct Memory {
    peers: Vec<PeerSlot>,
    links: Vec<MemberLink>,
    members: Vec<ElectionSlot>,
}

impl Memory {
    /// For so many lives. Filled as they begin.
    pub fn lives(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::default()).collect()
    }

    fn borrow(&mut self, peers: usize) -> MemberMemory<'_> {
        self.peers.resize(peers, PeerSlot::FREE);
        self.links.resize(2 * peers + 4, MemberLink::FREE);
        self.members.resize(peers, ElectionSlot::FREE);
        MemberMemory { peers: &mut self.peers, links: &mut self.links, members: &mut self.members }
    }
}

/// A peer as a node's configuration file names it.
#[derive(Clone, Debug)]
pub struct KnownPeer {
    /// Which node of the world.
    pub node: usize,
    /// What the file says of it.
    pub metadata: Option<Vec<u8>>,
    /// Whether it votes in the first configuration.
    pub voter: bool,
}

/// What a node is at every start of its process.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its configuration; the seed is drawn anew for each life.
    pub config: MemberConfig,
    /// The peers of its file.
    pub peers: Vec<KnownPeer>,
    /// What it says of itself at each start; nothing to leave that to the others' files.
    pub metadata: Option<Vec<u8>>,
    /// The rate of its clock.
    pub drift_ppm: i64,
    /// How long its disk takes, in microseconds, from and to.
    pub sync_us: (u64, u64),
}

/// What a disk does with what it is told to keep, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// It keeps it.
    Sound,
    /// It keeps it, after up to two seconds.
    Slow,
    /// It says that it could not, which now and then is not even true.
    Failing,
}

#[derive(Debug)]
struct Node<'m> {
    spec: Spec,
    machine: Option<Member<'m>>,
    /// Counts the lives, so that what was meant for an earlier one is not for this.
    life: u64,
    disk: Disk,
    safe: BTreeMap<Key, Vec<u8>>,
    wake_us: u64,
    /// By the numbers of the links: the line and the end of it.
    links: Vec<Option<(usize, usize)>>,
    stopped: bool,
    /// Stops in the middle of its next turn: between taking an input and doing what follows.
    stops_midway: bool,
    undrained: bool,
    held: Vec<Event>,
}

/// One end of a line.
#[derive(Debug)]
struct End {
    node: usize,
    /// The number that the node knows it by; `None` when it is closed there.
    link: Option<LinkId>,
    /// What goes out here.
    pipe: Pipe,
    /// What has arrived and was not taken.
    inbox: Vec<u8>,
    /// So many bytes of it a planted bug has seen.
    tampered_bytes: usize,
    spent_bytes: u32,
}

impl End {
    const fn new(node: usize, link: Option<LinkId>, pipe: Pipe) -> Self {
        Self { node, link, pipe, inbox: Vec::new(), tampered_bytes: 0, spent_bytes: 0 }
    }

    fn close(&mut self) {
        self.link = None;
        self.inbox.clear();
        self.tampered_bytes = 0;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake {
        node: usize,
    },
    /// Something may have arrived at that end of a line.
    Arrive {
        line: usize,
        end: usize,
    },
    Up {
        line: usize,
        end: usize,
        link: LinkId,
        dialed: Option<u16>,
    },
    Down {
        line: usize,
        end: usize,
        link: LinkId,
    },
    Dialed {
        from: usize,
        dial: u16,
        to: Option<usize>,
        life: u64,
    },
    Stored {
        node: usize,
        life: u64,
        token: Token,
        key: Key,
        record: Vec<u8>,
        keeps: bool,
        says: bool,
    },
    Boot {
        node: usize,
        life: u64,
    },
}

/// Lines of trace that are kept.
const TRACE_LINES_MAX: usize = 4_000;

/// The world.
#[derive(Debug)]
pub struct World<'m> {
    now_us: u64,
    rng: Rng,
    nodes: Vec<Node<'m>>,
    ids: Vec<NodeId>,
    clocks: Vec<Clock>,
    lines: Vec<[End; 2]>,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    memory: std::slice::IterMut<'m, Memory>,
    transport: Transport,
    /// From and to: what a new pipe is like, and whether nothing passes.
    conditions: Vec<Vec<Conditions>>,
    blocked: Vec<Vec<bool>>,
    bug: Option<Bug>,
    /// The rules.
    pub rules: Rules,
    /// Nobody that lives may be taken for dead from now on.
    pub quiet: bool,
    trace: Option<VecDeque<String>>,
    events: u64,
    crashes: u64,
    digest: u64,
}

impl<'m> World<'m> {
    /// Nodes that are not started yet.
    pub fn new(
        specs: Vec<Spec>,
        transport: Transport,
        conditions: Conditions,
        bug: Option<Bug>,
        memory: &'m mut [Memory],
        seed: u64,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let election = specs[0].config.election.unwrap_or_default();
        let ids: Vec<NodeId> = specs.iter().map(|spec| spec.config.name.node_id()).collect();
        let offset = |rng: &mut Rng| rng.between(1_000_000, 1_000_000_000);
        let clocks = specs.iter().map(|it| Clock::new(it.drift_ppm, offset(&mut rng))).collect();
        let count = specs.len();
        let node = |spec: Spec| Node {
            spec,
            machine: None,
            life: 0,
            disk: Disk::Sound,
            safe: BTreeMap::new(),
            wake_us: u64::MAX,
            links: vec![None; 2 * count.max(9) + 4],
            stopped: false,
            stops_midway: false,
            undrained: false,
            held: Vec::new(),
        };
        Self {
            now_us: 0,
            rng,
            nodes: specs.into_iter().map(node).collect(),
            rules: Rules::new(election, &ids),
            ids,
            clocks,
            lines: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            memory: memory.iter_mut(),
            transport,
            conditions: vec![vec![conditions; count]; count],
            blocked: vec![vec![false; count]; count],
            bug,
            quiet: false,
            trace: None,
            events: 0,
            crashes: 0,
            digest: seed,
        }
    }

    // What is seen from outside.

    /// The time, in microseconds.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// How many nodes there are, up or down.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The node's machine while it is up.
    pub fn machine(&self, node: usize) -> Option<&Member<'m>> {
        self.nodes[node].machine.as_ref()
    }

    /// The node's name.
    pub fn name(&self, node: usize) -> Name {
        self.nodes[node].spec.config.name
    }

    /// The node's identity.
    pub fn id(&self, node: usize) -> NodeId {
        self.ids[node]
    }

    /// The node that says now that it leads.
    pub fn leader(&self) -> Option<usize> {
        (0..self.count()).find(|node| self.rules.claims(*node, self.now_us))
    }

    /// What happened so far: inputs handled, crashes, and a number that two runs of one seed share.
    pub const fn counted(&self) -> (u64, u64, u64) {
        (self.events, self.crashes, self.digest)
    }

    /// Keeps a readable trace from now on.
    pub fn start_trace(&mut self) {
        self.trace = Some(VecDeque::new());
    }

    /// The trace, oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.trace.iter().flatten().cloned().collect()
    }

    /// Puts a line into the trace, if one is kept.
    pub fn note(&mut self, node: Option<usize>, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES_MAX {
                trace.pop_front();
            }
            let who = node.map_or("-".to_owned(), |node| format!("n{node}"));
            trace.push_back(format!("{:>12.6} {who:>3} {}", self.now_us as f64 / 1e6, text()));
        }
    }

    // Time.

    fn clock(&self, node: usize) -> Instant {
        self.clocks[node].monotonic(self.now_us)
    }

    fn post(&mut self, after_us: u64, event: Event) {
        self.post_at(self.now_us + after_us, event);
    }

    fn post_at(&mut self, at_us: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at_us.max(self.now_us), self.order, event)));
    }

    /// Lets time pass up to `until_us`.
    ///
    /// # Errors
    /// The rule that was broken, and where.
    pub fn run_until(&mut self, until_us: u64) -> Result<(), (Option<usize>, String)> {
        loop {
            if let Some((node, what)) = self.rules.broken() {
                return Err((Some(*node), what.clone()));
            }
            match self.queue.peek() {
                Some(Reverse((at_us, _, _))) if *at_us <= until_us => {}
                _ => {
                    self.now_us = until_us;
                    return Ok(());
                }
            }
            if let Some(Reverse((at_us, _, event))) = self.queue.pop() {
                self.now_us = at_us;
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let node = match &event {
            Event::Wake { node } | Event::Stored { node, .. } => Some(*node),
            Event::Arrive { line, end }
            | Event::Up { line, end, .. }
            | Event::Down { line, end, .. } => Some(self.lines[*line][*end].node),
            Event::Dialed { from, .. } => Some(*from),
            Event::Boot { .. } => None,
        };
        if let Some(node) = node
            && self.nodes[node].stopped
        {
            return self.nodes[node].held.push(event);
        }
        match event {
            Event::Wake { node } => {
                if self.nodes[node].wake_us <= self.now_us {
                    self.input(node, Input::Timeout);
                }
            }
            Event::Arrive { line, end } => self.arrive(line, end),
            Event::Up { line, end, link, dialed } => self.up(line, end, link, dialed),
            Event::Down { line, end, link } => self.down(line, end, link),
            Event::Dialed { from, dial, to, life } => {
                if life == self.nodes[from].life {
                    self.dialed(from, dial, to);
                }
            }
            Event::Stored { node, life, token, key, record, keeps, says } => {
                let alive = life == self.nodes[node].life;
                // A write that was under way when the process ended is on the disk or not.
                if keeps
                    && (alive || self.rng.between(0, 3) == 0 && life + 1 == self.nodes[node].life)
                {
                    self.rules.stored(node, key, &record);
                    self.nodes[node].safe.insert(key, record);
                }
                if alive && says {
                    self.input(node, Input::Persisted { token });
                } else if alive {
                    self.input(node, Input::Failed { token, reason: Failure::Io });
                }
            }
            Event::Boot { node, life } => {
                if life == self.nodes[node].life {
                    self.boot(node);
                }
            }
        }
    }
}

/// The name of the nth node.
pub fn name(node: usize) -> Name {
    Name::new(&format!("n{node}")).expect("the name is sound")
}

/// Where the nth node is reached.
pub fn address(node: usize) -> Address {
    Address::new(&format!("n{node}:1")).expect("the address is sound")
}
