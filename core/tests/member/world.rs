//! Members on a network in virtual time: delay, loss, repetition, cuts, crashes, slow and failing
//! disks, clocks of different rates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use replcore::contract::{
    DialIndex, Failure, Input, Key, LinkId, Machine, Output, Token, Transport,
};
use replcore::election::{ElectionEvent, ElectionSlot, Membership};
use replcore::member::{Member, MemberConfig, MemberEvent, MemberLink, MemberMemory};
use replcore::registry::PeerSlot;
use replcore::rng::Rng;
use replcore::stream::{Address, Name, NodeId};
use replcore::time::Instant;
use replcore::wire::{self, Frame, MemberRole};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn id(text: &str) -> NodeId {
    name(text).node_id()
}

/// `n0`, `n1` and so on.
pub(crate) fn nth(at: usize) -> String {
    format!("n{at}")
}

pub(crate) fn leaked(peers: usize, election: bool) -> MemberMemory<'static> {
    MemberMemory {
        peers: vec![PeerSlot::FREE; peers].leak(),
        links: vec![MemberLink::FREE; 2 * peers + 4].leak(),
        members: vec![ElectionSlot::FREE; if election { peers } else { 0 }].leak(),
    }
}

/// What a disk does with what it is told to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Safe after this many microseconds.
    Sound(u64),
    /// Says that it could not.
    Full,
    /// Says nothing.
    Hangs,
}

#[derive(Clone, Debug)]
struct Pipe {
    /// The node and the link at the other end.
    to: usize,
    link: LinkId,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: MemberConfig,
    pub(crate) machine: Member<'static>,
    pub(crate) up: bool,
    /// Stopped, as by SIGSTOP: takes nothing and does nothing, and what arrives waits.
    pub(crate) frozen: bool,
    pub(crate) disk: Disk,
    pub(crate) safe: BTreeMap<Key, Vec<u8>>,
    pub(crate) events: Vec<(u64, MemberEvent)>,
    /// The clock of the node, in microseconds for a million of the world's.
    pub(crate) rate: u64,
    pub(crate) started_us: u64,
    pub(crate) wake: Option<u64>,
    pub(crate) peers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) sent: BTreeMap<u8, u64>,
    pub(crate) bytes_sent: u64,
    pub(crate) wakes: u64,
    links: BTreeMap<LinkId, Pipe>,
    arrived: VecDeque<Event>,
}

#[derive(Clone, Debug)]
enum Event {
    Bytes { link: LinkId, session: u64, bytes: Vec<u8> },
    Down { link: LinkId, session: u64 },
    Stored { token: Token, key: Key, record: Vec<u8>, life: u64 },
    Failed { token: Token, life: u64 },
    Dialed { from: usize, dial: u16, life: u64 },
}

pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) rng: Rng,
    /// One way, in microseconds.
    pub(crate) delay_us: (u64, u64),
    /// Of a thousand frames, on datagram links.
    pub(crate) loss: u64,
    pub(crate) repeat: u64,
    pub(crate) transport: Transport,
    /// Nothing gets from the first to the second.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Leaders by term, over the whole run.
    pub(crate) leaders: BTreeMap<u64, BTreeSet<usize>>,
    /// No voters, by everybody's file.
    pub(crate) learners: Vec<String>,
    queue: BTreeMap<(u64, u64), (usize, Event)>,
    order: u64,
    sessions: u64,
    session: BTreeMap<(usize, LinkId), u64>,
    lives: Vec<u64>,
    /// Every frame that was sent: when, from, to, its bytes.
    pub(crate) tape: Vec<(u64, usize, usize, Vec<u8>)>,
    pub(crate) taping: bool,
}

impl World {
    /// `count` voters that know each other from their files.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let mut world = Self::empty(seed);
        let names: Vec<String> = (0..count).map(nth).collect();
        for own in &names {
            let peers = names.iter().filter(|it| *it != own).map(|it| (it.clone(), None));
            world.add(own, peers.collect(), |_| {});
        }
        world
    }

    pub(crate) fn empty(seed: u64) -> Self {
        Self {
            now_us: 1_000_000,
            nodes: Vec::new(),
            rng: Rng::new(seed),
            delay_us: (50, 500),
            loss: 0,
            repeat: 0,
            transport: Transport::Stream,
            cut: BTreeSet::new(),
            leaders: BTreeMap::new(),
            learners: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            sessions: 0,
            session: BTreeMap::new(),
            lives: Vec::new(),
            tape: Vec::new(),
            taping: false,
        }
    }

    pub(crate) fn add(
        &mut self,
        own: &str,
        peers: Vec<(String, Option<Vec<u8>>)>,
        edit: impl FnOnce(&mut MemberConfig),
    ) -> usize {
        let seed = self.rng.next_u64();
        let mut config = MemberConfig::new(name(own), name("cluster"), seed | 1, seed);
        config.address = Address::new(&format!("{own}:1")).ok();
        edit(&mut config);
        let machine = machine(&config, &peers, &self.learners);
        self.nodes.push(Node {
            name: own.to_owned(),
            config,
            machine,
            up: true,
            frozen: false,
            disk: Disk::Sound(200),
            safe: BTreeMap::new(),
            events: Vec::new(),
            rate: 1_000_000,
            started_us: self.now_us,
            wake: Some(self.now_us),
            peers,
            sent: BTreeMap::new(),
            bytes_sent: 0,
            wakes: 0,
            links: BTreeMap::new(),
            arrived: VecDeque::new(),
        });
        self.lives.push(0);
        self.nodes.len() - 1
    }

    /// The time on a node's clock.
    pub(crate) fn clock(&self, at: usize) -> Instant {
        let node = &self.nodes[at];
        let passed = u128::from(self.now_us - node.started_us) * u128::from(node.rate) / 1_000_000;
        Instant::from_micros(5_000_000 + passed as u64)
    }

    /// When a node's clock shows `at`, in the world's time; never before now.
    fn world_time(&self, node: usize, at: Instant) -> u64 {
        let of = &self.nodes[node];
        let clock_us = u128::from(at.as_micros().saturating_sub(5_000_000));
        let world = of.started_us + (clock_us * 1_000_000).div_ceil(u128::from(of.rate)) as u64;
        world.max(self.now_us)
    }

    /// Whether the node says that it leads: what a program would be told at this instant.
    pub(crate) fn says_it_leads(&self, at: usize) -> bool {
        let until = self.nodes[at].machine.leader_until();
        self.nodes[at].up && until.is_some_and(|until| self.clock(at) < until)
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|at| self.says_it_leads(*at))
    }

    pub(crate) fn role(&self, at: usize) -> MemberRole {
        self.nodes[at].machine.role()
    }

    fn post(&mut self, after_us: u64, to: usize, event: Event) {
        self.order += 1;
        self.queue.insert((self.now_us + after_us, self.order), (to, event));
    }

    fn delay(&mut self) -> u64 {
        self.rng.between(self.delay_us.0, self.delay_us.1)
    }

    // What happens to nodes.

    /// The process ends at once; what was not stored is lost.
    pub(crate) fn crash(&mut self, at: usize) {
        self.nodes[at].up = false;
        self.nodes[at].frozen = false;
        self.nodes[at].arrived.clear();
        self.nodes[at].wake = None;
        self.lives[at] += 1;
        for link in self.nodes[at].links.keys().copied().collect::<Vec<_>>() {
            self.hang_up(at, link);
        }
    }

    pub(crate) fn restart(&mut self, at: usize) {
        let seed = self.rng.next_u64();
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        node.config.seed = seed;
        node.machine = machine(&node.config, &node.peers, &self.learners);
        for (key, record) in &node.safe {
            node.machine.restore(*key, record).unwrap();
        }
        node.up = true;
        node.started_us = now_us;
        node.wake = Some(now_us);
    }

    pub(crate) fn cut_off(&mut self, at: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.cut.extend([(at, other), (other, at)]);
        }
    }

    pub(crate) fn thaw(&mut self, at: usize) {
        self.nodes[at].frozen = false;
        for event in core::mem::take(&mut self.nodes[at].arrived) {
            self.post(0, at, event);
        }
        self.nodes[at].wake = Some(self.now_us);
    }

    /// Gives a command to a node.
    pub(crate) fn tell<T>(
        &mut self,
        at: usize,
        command: impl FnOnce(&mut Member<'static>, Instant) -> T,
    ) -> T {
        let now = self.clock(at);
        let answer = command(&mut self.nodes[at].machine, now);
        self.drain(at);
        answer
    }

    /// Gives a command, unless the process is stopped.
    pub(crate) fn tell_if_awake<T>(
        &mut self,
        at: usize,
        command: impl FnOnce(&mut Member<'static>, Instant) -> T,
    ) -> Option<T> {
        let awake = self.nodes[at].up && !self.nodes[at].frozen;
        awake.then(|| self.tell(at, command))
    }

    /// Another rate from now on.
    pub(crate) fn set_rate(&mut self, at: usize, rate: u64) {
        let clock_us = self.clock(at).as_micros() - 5_000_000;
        let node = &mut self.nodes[at];
        node.rate = rate;
        let passed = u128::from(clock_us) * 1_000_000 / u128::from(rate);
        node.started_us = self.now_us.saturating_sub(passed as u64);
        let wake = self.nodes[at].wake;
        self.nodes[at].wake = wake.map(|_| self.now_us);
    }

    /// Every fault ends.
    pub(crate) fn peace(&mut self) {
        self.cut.clear();
        (self.loss, self.repeat) = (0, 0);
        self.delay_us = (50, 500);
        for at in 0..self.nodes.len() {
            self.nodes[at].disk = Disk::Sound(100);
            if self.nodes[at].frozen {
                self.thaw(at);
            }
            // What the disk never answered is not answered any more: only a restart helps.
            self.crash(at);
            self.restart(at);
        }
    }

    // Time.

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let until = self.now_us + ms * 1_000;
        self.run_until(until, |_| false);
    }

    /// Runs until the condition holds; how many milliseconds that took, or `None` within `ms`.
    pub(crate) fn until(&mut self, ms: u64, condition: impl Fn(&Self) -> bool) -> Option<u64> {
        let start = self.now_us;
        let until = start + ms * 1_000;
        self.run_until(until, condition).then(|| (self.now_us - start) / 1_000)
    }

    fn run_until(&mut self, until: u64, condition: impl Fn(&Self) -> bool) -> bool {
        loop {
            if condition(self) {
                return true;
            }
            let event = self.queue.keys().next().map(|key| key.0);
            let wake = self.nodes.iter().filter(|node| node.up && !node.frozen);
            let wake = wake.filter_map(|node| node.wake).min();
            let next = event.unwrap_or(u64::MAX).min(wake.unwrap_or(u64::MAX));
            if next > until {
                self.now_us = until;
                return condition(self);
            }
            self.now_us = self.now_us.max(next);
            self.check();
            if event.is_some_and(|at| at <= next) {
                let (_, (to, event)) = self.queue.pop_first().unwrap();
                self.arrive(to, event);
            } else {
                let due = |node: &Node| {
                    node.up && !node.frozen && node.wake.is_some_and(|wake| wake <= next)
                };
                let at = self.nodes.iter().position(due).unwrap();
                self.nodes[at].wakes += 1;
                self.input(at, Input::Timeout);
            }
            self.check();
        }
    }

    /// Never two that say at one instant that they lead, and one leader in a term.
    pub(crate) fn check(&mut self) {
        let leading: Vec<usize> =
            (0..self.nodes.len()).filter(|at| self.says_it_leads(*at)).collect();
        assert!(leading.len() <= 1, "{leading:?} say at {} us that they lead", self.now_us);
        for at in 0..self.nodes.len() {
            if self.nodes[at].up && self.role(at) == MemberRole::Leader {
                let term = self.nodes[at].machine.term();
                let of_term = self.leaders.entry(term).or_default();
                of_term.insert(at);
                assert_eq!(of_term.len(), 1, "two leaders of term {term}: {of_term:?}");
            }
        }
    }

    fn arrive(&mut self, to: usize, event: Event) {
        if self.nodes[to].frozen && !matches!(event, Event::Dialed { .. }) {
            return self.nodes[to].arrived.push_back(event);
        }
        match event {
            Event::Bytes { link, session, bytes } => {
                if self.nodes[to].up && self.session.get(&(to, link)) == Some(&session) {
                    self.input(to, Input::Recv { link, data: &bytes });
                }
            }
            Event::Down { link, session } => {
                if self.session.get(&(to, link)) == Some(&session) {
                    self.session.remove(&(to, link));
                    self.nodes[to].links.remove(&link);
                    if self.nodes[to].up {
                        self.input(to, Input::LinkDown { link });
                    }
                }
            }
            Event::Stored { token, key, record, life } => {
                if life == self.lives[to] {
                    self.nodes[to].safe.insert(key, record);
                    self.input(to, Input::Persisted { token });
                }
            }
            Event::Failed { token, life } => {
                if life == self.lives[to] {
                    self.input(to, Input::Failed { token, reason: Failure::Full });
                }
            }
            Event::Dialed { from, dial, life } => {
                if life == self.lives[from] {
                    self.dialed(from, dial, to);
                }
            }
        }
    }

    fn dialed(&mut self, from: usize, dial: u16, to: usize) {
        let cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        let dial = DialIndex(dial);
        if !self.nodes[to].up || cut {
            return self.input(from, Input::DialFailed { dial });
        }
        let (link_a, link_b) = (self.free_link(from), self.free_link(to));
        self.sessions += 1;
        let (session, transport) = (self.sessions, self.transport);
        self.session.extend([((from, link_a), session), ((to, link_b), session)]);
        self.nodes[from].links.insert(link_a, Pipe { to, link: link_b });
        self.nodes[to].links.insert(link_b, Pipe { to: from, link: link_a });
        for (at, link, dialed) in [(to, link_b, None), (from, link_a, Some(dial))] {
            self.input(at, Input::LinkUp { link, dialed, transport, identity: None });
            self.grant(at, link);
        }
    }

    pub(crate) fn grant(&mut self, at: usize, link: LinkId) {
        self.input(at, Input::Writable { link, bytes: 1 << 16 });
    }

    fn free_link(&self, at: usize) -> LinkId {
        (0..).map(LinkId).find(|link| !self.session.contains_key(&(at, *link))).unwrap()
    }

    /// Both ends learn that the link is gone.
    pub(crate) fn hang_up(&mut self, at: usize, link: LinkId) {
        let Some(pipe) = self.nodes[at].links.get(&link).cloned() else {
            return;
        };
        let session = self.session.get(&(at, link)).copied().unwrap_or_default();
        let delay = self.delay_us.1;
        self.post(0, at, Event::Down { link, session });
        self.post(delay, pipe.to, Event::Down { link: pipe.link, session });
    }

    pub(crate) fn links_of(&self, at: usize) -> Vec<(LinkId, usize)> {
        self.nodes[at].links.iter().map(|(link, pipe)| (*link, pipe.to)).collect()
    }

    /// Bytes that nobody sent.
    pub(crate) fn inject(&mut self, to: usize, link: LinkId, bytes: &[u8]) {
        self.input(to, Input::Recv { link, data: bytes });
    }

    pub(crate) fn input(&mut self, at: usize, input: Input<'_>) {
        if !self.nodes[at].up || self.nodes[at].frozen {
            return;
        }
        let now = self.clock(at);
        self.nodes[at].machine.handle(now, input);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        for _ in 0..10_000 {
            let mut buf = [0; wire::CONTROL_FRAME_BYTES_MAX];
            match self.nodes[at].machine.poll(&mut buf) {
                Output::Idle { wake } => {
                    self.nodes[at].wake = wake.map(|wake| self.world_time(at, wake));
                    return;
                }
                Output::Send { link, len } => self.send(at, link, &buf[..len]),
                Output::Persist { key, token, len } => self.store(at, key, token, &buf[..len]),
                Output::Dial { dial } => {
                    let target = self.nodes[at].machine.dial_target(dial).unwrap().name.to_owned();
                    let to = self.nodes.iter().position(|node| node.name == target);
                    let life = self.lives[at];
                    let delay = self.delay();
                    match to {
                        Some(to) => {
                            let event = Event::Dialed { from: at, dial: dial.0, life };
                            self.post(delay, to, event);
                        }
                        None => {
                            let now = self.clock(at);
                            self.nodes[at].machine.handle(now, Input::DialFailed { dial });
                        }
                    }
                }
                Output::Hangup { link } => self.hang_up(at, link),
                Output::Event { event, .. } => {
                    let now_us = self.now_us;
                    self.nodes[at].events.push((now_us, event));
                }
                Output::Resume { .. } => {}
                other => panic!("{other:?} of a member"),
            }
        }
        panic!("a drain does not end");
    }

    fn send(&mut self, at: usize, link: LinkId, bytes: &[u8]) {
        let Some(pipe) = self.nodes[at].links.get(&link).cloned() else {
            return;
        };
        *self.nodes[at].sent.entry(bytes[4]).or_default() += 1;
        self.nodes[at].bytes_sent += bytes.len() as u64;
        if self.taping {
            self.tape.push((self.now_us, at, pipe.to, bytes.to_vec()));
        }
        let now = self.clock(at);
        let len = bytes.len() as u32;
        self.nodes[at].machine.handle(now, Input::Writable { link, bytes: len });
        if self.cut.contains(&(at, pipe.to)) {
            return;
        }
        let session = self.session.get(&(at, link)).copied().unwrap_or_default();
        let event = Event::Bytes { link: pipe.link, session, bytes: bytes.to_vec() };
        if self.transport == Transport::Stream {
            // Order is kept: all frames take the same time.
            let delay = self.delay_us.1;
            return self.post(delay, pipe.to, event);
        }
        if self.rng.between(0, 999) < self.loss {
            return;
        }
        if self.rng.between(0, 999) < self.repeat {
            let delay = self.delay() * 20;
            self.post(delay, pipe.to, event.clone());
        }
        let delay = self.delay();
        self.post(delay, pipe.to, event);
    }

    fn store(&mut self, at: usize, key: Key, token: Token, record: &[u8]) {
        let life = self.lives[at];
        match self.nodes[at].disk {
            Disk::Sound(us) => {
                let record = record.to_vec();
                self.post(us, at, Event::Stored { token, key, record, life });
            }
            Disk::Full => self.post(100, at, Event::Failed { token, life }),
            Disk::Hangs => {}
        }
    }

    // What was said.

    pub(crate) fn events(&self, at: usize, matches: impl Fn(&ElectionEvent) -> bool) -> usize {
        let election = |event: &&(u64, MemberEvent)| match &event.1 {
            MemberEvent::Election(event) => matches(event),
            _ => false,
        };
        self.nodes[at].events.iter().filter(election).count()
    }

    pub(crate) fn all_follow(&self, leader: usize) -> bool {
        let node = id(&self.nodes[leader].name);
        self.nodes
            .iter()
            .filter(|it| it.up)
            .all(|it| it.machine.leader().is_some_and(|known| known.node == node))
    }

    /// Runs until one leads and all that are up follow it.
    pub(crate) fn elect(&mut self) -> usize {
        let settled =
            self.until(5_000, |world| world.leader().is_some_and(|at| world.all_follow(at)));
        assert!(settled.is_some(), "no leader within 5 s");
        self.leader().unwrap()
    }

    /// Runs until one of these leads.
    pub(crate) fn elect_among(&mut self, may: impl Fn(usize) -> bool) -> usize {
        let found = self.until(10_000, |world| world.leader().is_some_and(&may));
        assert!(found.is_some(), "none of them leads within 10 s");
        self.leader().unwrap()
    }

    pub(crate) fn term(&self, at: usize) -> u64 {
        self.nodes[at].machine.term()
    }

    pub(crate) fn membership(&self, at: usize, of: &str) -> Membership {
        self.nodes[at].machine.membership(id(of))
    }

    /// The control frames of a type that were taped.
    pub(crate) fn taped(&self, kind: u8) -> Vec<(u64, usize, usize, Vec<u8>)> {
        self.tape.iter().filter(|it| it.3[4] == kind).cloned().collect()
    }
}

pub(crate) fn decoded(bytes: &[u8]) -> wire::Control<'_> {
    match wire::decode(bytes, 4096) {
        Ok(Some((Frame::Control { control, .. }, _))) => control,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn encoded(control: &wire::Control<'_>) -> Vec<u8> {
    let mut buf = [0; wire::CONTROL_FRAME_BYTES_MAX];
    let len = wire::encode_control(0, control, &mut buf).unwrap();
    buf[..len].to_vec()
}

fn machine(
    config: &MemberConfig,
    peers: &[(String, Option<Vec<u8>>)],
    learners: &[String],
) -> Member<'static> {
    let room = peers.len().max(8);
    let mut machine = Member::new(*config, leaked(room, config.election.is_some())).unwrap();
    for (peer, metadata) in peers {
        let address = Address::new(&format!("{peer}:1")).ok();
        let voter = !learners.contains(peer);
        machine.add_known_peer(name(peer), address, metadata.as_deref(), voter).unwrap();
    }
    machine
}
