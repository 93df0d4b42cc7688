//! Members, and what they stand on: links, disks and clocks, all with faults, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use replcore::contract::{
    DialIndex, Failure, Input, Key, LinkId, Machine, Output, Token, Transport,
};
use replcore::election::{ElectionSlot, Membership};
use replcore::member::{Member, MemberConfig, MemberEvent, MemberLink, MemberMemory};
use replcore::registry::PeerSlot;
use replcore::rng::Rng;
use replcore::stream::{Address, Name, NodeId};
use replcore::time::Instant;
use replcore::wire;

use super::rules::Rules;
use super::tamper::{self, Bug};
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
    spent_bytes: u32,
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

    // What happens to the nodes.

    /// Starts the process, if it is down and there is memory for one more life.
    pub fn boot(&mut self, node: usize) {
        if self.nodes[node].machine.is_some() {
            return;
        }
        let (count, seed) = (self.count(), self.rng.next_u64());
        let Some(memory) = self.memory.next() else {
            return;
        };
        let own = &mut self.nodes[node];
        let mut config = own.spec.config;
        config.seed = seed;
        let mut machine = Member::new(config, memory.borrow(count.max(9)));
        for peer in &own.spec.peers {
            let name = name(peer.node);
            let known = machine.add_known_peer(
                name,
                Some(address(peer.node)),
                peer.metadata.as_deref(),
                peer.voter,
            );
            assert!(known.is_ok(), "a peer of a file finds no room: {known:?}");
        }
        let mut unread = None;
        for (key, record) in &own.safe {
            let tampered = self.bug.and_then(|bug| bug.at_start(*key, record));
            let record = tampered.as_ref().unwrap_or(record);
            unread = machine.restore(*key, record).err().or(unread);
        }
        own.machine = Some(machine);
        own.life += 1;
        self.note(Some(node), || {
            format!("starts{}", if unread.is_some() { ", cannot read its disk" } else { "" })
        });
        if unread.is_some() {
            self.rules.break_at(node, format!("its own record is refused: {unread:?}"));
        }
        let early_us = if self.bug == Some(Bug::NoSilence) { 160_000 } else { 0 };
        let now = self.clock(node).as_micros() - early_us;
        let metadata = self.nodes[node].spec.metadata.clone();
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.handle(Instant::from_micros(now), Input::Timeout);
            if let Some(metadata) = metadata {
                let set = machine.set_metadata(Instant::from_micros(now), &metadata);
                debug_assert!(set.is_ok());
            }
        }
        self.input(node, Input::Timeout);
    }

    /// Starts the process after so many microseconds.
    pub fn boot_after(&mut self, node: usize, us: u64) {
        let life = self.nodes[node].life;
        self.post(us, Event::Boot { node, life });
    }

    /// Ends the process. What was on its way to the disk is there or not. With `power` the peers
    /// are not told, and the clock starts anew.
    pub fn crash(&mut self, node: usize, power: bool) {
        if self.nodes[node].machine.take().is_none() {
            return;
        }
        self.crashes += 1;
        self.note(Some(node), || if power { "loses power" } else { "ends" }.to_owned());
        self.rules.ended(node);
        let own = &mut self.nodes[node];
        own.life += 1;
        own.wake_us = u64::MAX;
        (own.stopped, own.stops_midway, own.undrained) = (false, false, false);
        own.held.clear();
        for slot in 0..self.nodes[node].links.len() {
            if let Some((line, end)) = self.nodes[node].links[slot].take() {
                self.lines[line][end].link = None;
                self.lines[line][end].inbox.clear();
                if !power && self.transport == Transport::Stream {
                    self.tell_down(line, 1 - end);
                }
            }
        }
        if power {
            let offset_us = self.rng.between(1_000_000, 1_000_000_000);
            self.clocks[node] = Clock::new(self.nodes[node].spec.drift_ppm, offset_us);
        }
    }

    /// Stops the process, as by SIGSTOP, or lets it go on. What it said still stands meanwhile.
    /// With `midway` it stops in the middle of its next turn.
    pub fn stop(&mut self, node: usize, stopped: bool, midway: bool) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        self.note(Some(node), || if stopped { "is stopped" } else { "goes on" }.to_owned());
        if stopped && midway {
            self.nodes[node].stops_midway = true;
            return;
        }
        self.nodes[node].stopped = stopped;
        self.nodes[node].stops_midway = false;
        if stopped {
            return;
        }
        if std::mem::take(&mut self.nodes[node].undrained) {
            self.drain(node);
        }
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.post(0, event);
        }
        self.post(0, Event::Wake { node });
    }

    /// What the disk does from now on.
    pub fn set_disk(&mut self, node: usize, disk: Disk) {
        self.note(Some(node), || format!("its disk is {disk:?}"));
        self.nodes[node].disk = disk;
    }

    /// Cuts or restores one direction between two nodes.
    pub fn block(&mut self, from: usize, to: usize, blocked: bool) {
        if self.blocked[from][to] == blocked {
            return;
        }
        self.blocked[from][to] = blocked;
        self.note(None, || {
            format!("n{from} to n{to} {}", if blocked { "is cut" } else { "passes again" })
        });
        let now_us = self.now_us;
        self.each_pipe(from, to, |pipe| pipe.set_blocked(now_us, blocked));
    }

    /// How one direction between two nodes is from now on.
    pub fn set_conditions(&mut self, from: usize, to: usize, conditions: Conditions) {
        self.conditions[from][to] = conditions;
        self.each_pipe(from, to, |pipe| pipe.set_conditions(conditions));
    }

    fn each_pipe(&mut self, from: usize, to: usize, change: impl Fn(&mut Pipe)) {
        for line in 0..self.lines.len() {
            for end in 0..2 {
                let ends = &mut self.lines[line];
                if (ends[end].node, ends[1 - end].node) == (from, to) {
                    change(&mut ends[end].pipe);
                    self.expect(line, end);
                }
            }
        }
    }

    /// Breaks every link between two nodes.
    pub fn reset(&mut self, one: usize, other: usize) {
        self.note(None, || format!("links between n{one} and n{other} are reset"));
        for line in 0..self.lines.len() {
            let ends = &self.lines[line];
            if [(one, other), (other, one)].contains(&(ends[0].node, ends[1].node)) {
                self.tell_down(line, 0);
                self.tell_down(line, 1);
            }
        }
    }

    /// Gives a command to a node that is up and not stopped.
    pub fn tell<T>(
        &mut self,
        node: usize,
        command: impl FnOnce(&mut Member<'m>, Instant) -> T,
    ) -> Option<T> {
        if self.nodes[node].stopped {
            return None;
        }
        let now = self.clock(node);
        let answer = command(self.nodes[node].machine.as_mut()?, now);
        self.publish(node);
        self.drain(node);
        Some(answer)
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

    // Links.

    fn dialed(&mut self, from: usize, dial: u16, to: Option<usize>) {
        let Some(to) = to else {
            return self.input(from, Input::DialFailed { dial: DialIndex(dial) });
        };
        let cut = self.blocked[from][to] || self.blocked[to][from];
        let free = |world: &Self, node: usize| {
            let slot = world.nodes[node].links.iter().position(Option::is_none)?;
            Some(LinkId(slot as u32))
        };
        let (own, other) = (free(self, from), free(self, to));
        let datagram = self.transport == Transport::Datagram;
        let answers = datagram || (self.nodes[to].machine.is_some() && !cut && other.is_some());
        let (Some(own), true) = (own, answers) else {
            return self.input(from, Input::DialFailed { dial: DialIndex(dial) });
        };
        let line = self.lines.len();
        let pipe = |world: &mut Self, from: usize, to: usize| {
            let seed = world.rng.next_u64();
            let mut pipe = Pipe::new(world.transport, world.conditions[from][to], seed);
            pipe.set_blocked(world.now_us, world.blocked[from][to]);
            pipe
        };
        let end = |node, link, pipe| End { node, link, pipe, inbox: Vec::new(), spent_bytes: 0 };
        let pipes = [pipe(self, from, to), pipe(self, to, from)];
        let [out, back] = pipes;
        let other = other.filter(|_| !datagram);
        self.lines.push([end(from, Some(own), out), end(to, other, back)]);
        self.nodes[from].links[own.0 as usize] = Some((line, 0));
        self.post(0, Event::Up { line, end: 0, link: own, dialed: Some(dial) });
        if let Some(other) = other {
            self.nodes[to].links[other.0 as usize] = Some((line, 1));
            self.post(0, Event::Up { line, end: 1, link: other, dialed: None });
        }
    }

    fn up(&mut self, line: usize, end: usize, link: LinkId, dialed: Option<u16>) {
        if self.lines[line][end].link != Some(link) {
            return;
        }
        let node = self.lines[line][end].node;
        let transport = self.transport;
        let dialed = dialed.map(DialIndex);
        self.input(node, Input::LinkUp { link, dialed, transport, identity: None });
        let bytes = self.lines[line][end].pipe.room().max(wire::FRAME_BYTES_MIN);
        self.input(node, Input::Writable { link, bytes });
    }

    /// That end learns that the link is gone.
    fn tell_down(&mut self, line: usize, end: usize) {
        if let Some(link) = self.lines[line][end].link {
            let from = self.lines[line][1 - end].node;
            let after_us = self.conditions[from][self.lines[line][end].node].latency_us;
            self.post(after_us, Event::Down { line, end, link });
        }
    }

    fn down(&mut self, line: usize, end: usize, link: LinkId) {
        let at = &mut self.lines[line][end];
        if at.link != Some(link) {
            return;
        }
        at.link = None;
        at.inbox.clear();
        let node = at.node;
        self.nodes[node].links[link.0 as usize] = None;
        self.input(node, Input::LinkDown { link });
    }

    /// Something may arrive at `end`, from the pipe of the other.
    fn expect(&mut self, line: usize, from: usize) {
        if let Some(at_us) = self.lines[line][from].pipe.next_us() {
            self.post_at(at_us, Event::Arrive { line, end: 1 - from });
        }
    }

    fn arrive(&mut self, line: usize, end: usize) {
        let node = self.lines[line][end].node;
        if !self.lines[line][end].inbox.is_empty() {
            self.offer(line, end);
        }
        let mut came = 0;
        loop {
            if self.nodes[node].stopped {
                self.nodes[node].held.push(Event::Arrive { line, end });
                break;
            }
            let Some(bytes) = self.lines[line][1 - end].pipe.receive(self.now_us) else {
                break;
            };
            came += bytes.len() as u32;
            if self.nodes[node].machine.is_none() {
                continue;
            }
            if self.lines[line][end].link.is_none() && !self.reopen(line, end) {
                continue;
            }
            self.lines[line][end].inbox.extend_from_slice(&bytes);
            self.offer(line, end);
        }
        if self.transport == Transport::Stream && came > 0 {
            self.credit(line, 1 - end, came);
        }
        self.expect(line, 1 - end);
    }

    /// Bytes have come for a link that is closed here. On a line the other end is told; a datagram
    /// opens the link anew at the end that was dialled.
    fn reopen(&mut self, line: usize, end: usize) -> bool {
        let node = self.lines[line][end].node;
        if self.transport == Transport::Stream {
            self.tell_down(line, 1 - end);
            return false;
        }
        let free = self.nodes[node].links.iter().position(Option::is_none);
        let (1, Some(slot)) = (end, free) else {
            return false;
        };
        self.nodes[node].links[slot] = Some((line, end));
        self.lines[line][end].link = Some(LinkId(slot as u32));
        self.up(line, end, LinkId(slot as u32), None);
        true
    }

    /// Gives a node what has arrived and was not taken.
    fn offer(&mut self, line: usize, end: usize) {
        let node = self.lines[line][end].node;
        let Some(link) = self.lines[line][end].link else {
            return;
        };
        let mut data = std::mem::take(&mut self.lines[line][end].inbox);
        if self.bug.is_some() {
            self.tamper_incoming(node, link, &mut data);
        }
        let taken = self.take(node, Input::Recv { link, data: &data });
        data.drain(..taken);
        if self.transport == Transport::Datagram {
            data.clear();
        }
        // More may have been put there by a drain.
        if self.lines[line][end].link == Some(link) {
            data.append(&mut self.lines[line][end].inbox);
            self.lines[line][end].inbox = data;
        }
        self.finish(node);
    }

    fn tamper_incoming(&mut self, node: usize, link: LinkId, data: &mut Vec<u8>) {
        let (Some(bug), Some(len)) = (self.bug, tamper::first_frame(data)) else {
            return;
        };
        let now = self.clock(node);
        let mut at = 0;
        let mut next = Some(len);
        let mut twice = Vec::new();
        while let (Some(len), Some(machine)) = (next, &self.nodes[node].machine) {
            let frame = &data[at..at + len];
            if bug.counts_twice(frame, machine) {
                twice.push(frame.to_vec());
            }
            let replaced = bug.incoming(frame, machine, now);
            let len_now = replaced.as_ref().map_or(len, Vec::len);
            if let Some(frame) = replaced {
                data.splice(at..at + len, frame);
            }
            at += len_now;
            next = tamper::first_frame(&data[at..]);
        }
        for frame in twice {
            self.say_again(node, link, &frame);
        }
    }

    /// A frame that came on `link` comes from another node as well.
    fn say_again(&mut self, node: usize, link: LinkId, frame: &[u8]) {
        for slot in 0..self.nodes[node].links.len() {
            if let Some((line, end)) = self.nodes[node].links[slot]
                && slot as u32 != link.0
                && self.lines[line][end].inbox.is_empty()
            {
                let link = LinkId(slot as u32);
                self.take(node, Input::Recv { link, data: frame });
                return;
            }
        }
    }

    fn credit(&mut self, line: usize, end: usize, bytes: u32) {
        let at = &mut self.lines[line][end];
        at.spent_bytes += bytes;
        if at.spent_bytes >= 4_096
            && let Some(link) = at.link
        {
            let bytes = std::mem::take(&mut at.spent_bytes);
            let node = at.node;
            if self.nodes[node].stopped {
                self.lines[line][end].spent_bytes += bytes;
            } else {
                self.input(node, Input::Writable { link, bytes });
            }
        }
    }

    // Turns.

    fn input(&mut self, node: usize, input: Input<'_>) {
        self.take(node, input);
        self.finish(node);
    }

    fn take(&mut self, node: usize, input: Input<'_>) -> usize {
        let now = self.clock(node);
        let Some(machine) = &mut self.nodes[node].machine else {
            return 0;
        };
        self.events += 1;
        let mark = self.now_us ^ (node as u64) << 56;
        self.digest = (self.digest ^ mark).wrapping_mul(0x0000_0100_0000_01b3);
        machine.handle(now, input)
    }

    /// The rest of a turn: publish, then do what is asked.
    fn finish(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].stops_midway) {
            self.nodes[node].stopped = true;
            self.nodes[node].undrained = true;
            return;
        }
        self.drain(node);
    }

    fn publish(&mut self, node: usize) {
        if let Some(machine) = &self.nodes[node].machine {
            self.rules.published(node, machine, &self.clocks, self.now_us);
        }
    }

    fn drain(&mut self, node: usize) {
        self.publish(node);
        let mut buf = [0; wire::CONTROL_FRAME_BYTES_MAX];
        for _ in 0..10_000 {
            let Some(machine) = &mut self.nodes[node].machine else {
                return;
            };
            match machine.poll(&mut buf) {
                Output::Idle { wake } => {
                    let wake_us = wake.map_or(u64::MAX, |wake| self.clocks[node].true_us(wake));
                    let wake_us = wake_us.max(self.now_us);
                    let own = &mut self.nodes[node];
                    if own.wake_us != wake_us {
                        own.wake_us = wake_us;
                        if wake_us < u64::MAX {
                            self.post_at(wake_us, Event::Wake { node });
                        }
                    }
                    return;
                }
                Output::Send { link, len } => self.send(node, link, &buf[..len]),
                Output::Persist { key, token, len } => self.persist(node, key, token, &buf[..len]),
                Output::Dial { dial } => self.dial(node, dial),
                Output::Hangup { link } => self.hang_up(node, link),
                Output::Event { event, .. } => self.told(node, event),
                Output::Resume { link } => {
                    if let Some((line, end)) = self.nodes[node].links[link.0 as usize] {
                        self.post(0, Event::Arrive { line, end });
                    }
                }
                other => {
                    return self.rules.break_at(node, format!("a member never wants {other:?}"));
                }
            }
        }
        self.rules.break_at(node, "its drain does not end".to_owned());
    }

    fn send(&mut self, node: usize, link: LinkId, frame: &[u8]) {
        let Some((line, end)) = self.nodes[node].links[link.0 as usize] else {
            return self.rules.break_at(node, format!("sends on {link:?}, which is down"));
        };
        let tampered = self.bug.and_then(|bug| bug.outgoing(frame));
        let frame = tampered.as_deref().unwrap_or(frame);
        let to = self.lines[line][1 - end].node;
        if let Some(control) = tamper::control(frame) {
            self.rules.sent(node, self.ids[to], &control, &self.clocks, self.now_us);
            self.note(Some(node), || format!("to n{to}: {control:?}"));
        }
        self.lines[line][end].pipe.send(self.now_us, frame);
        self.expect(line, end);
        if self.transport == Transport::Datagram {
            // What is sent is gone. The credit comes back with the next turn.
            self.lines[line][end].spent_bytes += frame.len() as u32;
            if self.lines[line][end].spent_bytes >= 4_096 {
                let bytes = std::mem::take(&mut self.lines[line][end].spent_bytes);
                self.take(node, Input::Writable { link, bytes });
                self.publish(node);
            }
        }
    }

    fn persist(&mut self, node: usize, key: Key, token: Token, record: &[u8]) {
        let (low, high) = self.nodes[node].spec.sync_us;
        let (took_us, keeps, says) = match self.nodes[node].disk {
            Disk::Sound => (self.rng.between(low, high), true, true),
            Disk::Slow => (self.rng.between(low, 2_000_000), true, true),
            Disk::Failing => (self.rng.between(low, high), self.rng.between(0, 3) == 0, false),
        };
        let life = self.nodes[node].life;
        let record = record.to_vec();
        self.note(Some(node), || format!("stores {key:?}, in {took_us} us"));
        if self.bug == Some(Bug::VoteBeforeStored) && says && key == Key::Ballot {
            self.take(node, Input::Persisted { token });
            self.publish(node);
        }
        self.post(took_us, Event::Stored { node, life, token, key, record, keeps, says });
    }

    fn dial(&mut self, node: usize, dial: DialIndex) {
        let Some(machine) = &self.nodes[node].machine else {
            return;
        };
        let Some(target) = machine.dial_target(dial) else {
            return self.rules.break_at(node, format!("dials {dial:?}, which is nobody"));
        };
        let to = self.ids.iter().position(|id| *id == target.node);
        let after_us = to.map_or(100, |to| 2 * self.conditions[node][to].latency_us);
        let life = self.nodes[node].life;
        self.post(after_us, Event::Dialed { from: node, dial: dial.0, to, life });
    }

    fn hang_up(&mut self, node: usize, link: LinkId) {
        if let Some((line, end)) = self.nodes[node].links[link.0 as usize] {
            if self.transport == Transport::Stream
                && !self.blocked[node][self.lines[line][1 - end].node]
            {
                // What was said before still gets there.
                let rest_us = 3 * self.conditions[node][self.lines[line][1 - end].node].latency_us;
                if let Some(link) = self.lines[line][1 - end].link {
                    self.post(rest_us, Event::Down { line, end: 1 - end, link });
                }
            }
            self.post(0, Event::Down { line, end, link });
        }
    }

    fn told(&mut self, node: usize, event: MemberEvent) {
        self.note(Some(node), || format!("{event:?}"));
        if let MemberEvent::PeerDown { node: peer } = event
            && self.quiet
            && let Some(at) = self.ids.iter().position(|id| *id == peer)
            && let Some(leading) = self.leader().and_then(|leader| self.machine(leader))
            && leading.membership(peer) != Membership::None
            && leading.membership(self.ids[node]) != Membership::None
            && self.nodes[at].machine.is_some()
            && !self.blocked[at][node]
            && !self.blocked[node][at]
        {
            self.rules.break_at(node, format!("takes n{at}, which lives, for dead"));
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
