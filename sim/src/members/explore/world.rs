//! A state of three nodes, and the steps from it.

use std::hash::{DefaultHasher, Hash, Hasher};

use replcore::contract::Key;
use replcore::election::{Election, ElectionConfig, ElectionSlot, Membership, Message};
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::{
    ConfigurationId, HeartbeatAnswer, MEMBER_BYTES, MEMBERS_MAX, Members, Progress, Refusal,
    VoteAnswer,
};

use super::judge::Judge;
use super::{Bounds, ElectionBug, NODES, STEP_MS, Time};

const CONFIG: ElectionConfig = ElectionConfig::lan();

/// What a node is made of, and what its disk holds.
#[derive(Clone, Debug, Hash)]
pub(super) struct Node {
    pub(super) election: Election<[ElectionSlot; NODES - 1]>,
    pub(super) now_us: u64,
    life: u64,
    /// The ballot and the members, as they are on the disk.
    disk: [Vec<u8>; 2],
    /// Those that are on their way there.
    writes: [Option<Vec<u8>>; 2],
}

const KEYS: [Key; 2] = [Key::Ballot, Key::Members];

/// What is on its way from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    from: usize,
    to: usize,
    said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Said {
    Message(Message),
    Members(ConfigurationId, Vec<u8>),
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) nodes: [Node; NODES],
    flights: Vec<Flight>,
    /// From and to: what is said is held back.
    held: [[bool; NODES]; NODES],
    pub(super) judge: Judge,
    used: Used,
}

/// What has happened of what is bounded.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Used {
    waits: u8,
    crashes: u8,
    repeats: u8,
    disk_failures: u8,
    changes: u8,
    turns: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A node's wait ends; with shared time, time passes for all.
    Wait(usize),
    Arrive {
        flight: usize,
        stays: bool,
    },
    /// The record of the key is on the disk, as the node is told.
    Stored(usize, usize),
    /// The node is told that it is not, which is true or not.
    Failed {
        node: usize,
        key: usize,
        keeps: bool,
    },
    Crash(usize),
    /// Who leads is to make another a voter, or no member if it is one.
    Change {
        leader: usize,
        node: usize,
    },
    /// A direction is held back, or opened again.
    Turn {
        from: usize,
        to: usize,
    },
}

pub(super) fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

pub(super) fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

/// How much a node's clock goes on in a step, in microseconds: the first is as slow, the last as
/// fast as may be.
fn step_us(node: usize) -> u64 {
    let error_ppm = u64::from(CONFIG.clock_error_ppm);
    STEP_MS * (1_000_000 - error_ppm + node as u64 * error_ppm) / 1_000
}

impl Node {
    fn new(bounds: &Bounds, node: usize) -> Self {
        let mut own = Self {
            election: Self::election(bounds, node, 0),
            now_us: 1_000_000,
            life: 0,
            disk: Default::default(),
            writes: Default::default(),
        };
        own.start(bounds, node);
        own
    }

    fn election(bounds: &Bounds, node: usize, life: u64) -> Election<[ElectionSlot; NODES - 1]> {
        let seed = bounds.seed ^ (node as u64 + 1) << 32 ^ life << 48;
        Election::new(CONFIG, id(node), seed, [ElectionSlot::FREE; NODES - 1])
            .expect("the timing is sound")
    }

    /// Starts from what is on the disk.
    fn start(&mut self, bounds: &Bounds, node: usize) {
        self.election = Self::election(bounds, node, self.life);
        if node < bounds.voters {
            let all = (0..bounds.voters).map(|node| (id(node), Membership::Voter));
            self.election.set_members(all).expect("there are slots for all");
        }
        self.writes = Default::default();
        for (key, record) in KEYS.into_iter().zip(&self.disk) {
            if !record.is_empty() {
                self.election.restore(key, record).expect("it has written it itself");
            }
        }
        self.election.set_progress(Progress { term: 0, position: bounds.progress[node] });
        let silence_us = u64::from(CONFIG.timeout_ms_min) * 1_000;
        let early_us = if bounds.bug == Some(ElectionBug::NoSilence) { silence_us } else { 0 };
        self.election.start(at(self.now_us - early_us));
        if bounds.time == Time::Free {
            // With clocks of their own the silence is over whenever it suits.
            self.now_us += silence_us;
        }
        self.election.tick(at(self.now_us));
    }

    fn leads(&self) -> bool {
        self.election.leader_until().is_some_and(|until| until > at(self.now_us))
    }
}

impl State {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let mut state = Self {
            nodes: std::array::from_fn(|node| Node::new(bounds, node)),
            flights: Vec::new(),
            held: Default::default(),
            judge: Judge::default(),
            used: Used::default(),
        };
        if bounds.led || bounds.time == Time::Shared {
            let settled =
                |state: &Self| state.leading().any(|node| state.nodes[node].election.is_settled());
            while !settled(&state) {
                state.pass_time(bounds, &[true; NODES]).expect("nothing goes wrong here");
            }
        }
        state
    }

    /// The same for states that differ in nothing that matters: messages have no order.
    pub(super) fn digest(&self) -> u128 {
        let hash = |of: &dyn Fn(&mut DefaultHasher), salt: u64| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            of(&mut hasher);
            hasher.finish()
        };
        let half = |salt: u64| {
            let flights = self.flights.iter().map(|flight| hash(&|to| flight.hash(to), salt));
            let flights = flights.fold(0, u64::wrapping_add);
            let rest = (&self.nodes, &self.held, &self.judge, &self.used);
            hash(&|to| (flights, rest).hash(to), salt)
        };
        u128::from(half(1)) << 64 | u128::from(half(2))
    }

    pub(super) fn leading(&self) -> impl Iterator<Item = usize> {
        (0..NODES).filter(|node| self.nodes[*node].leads())
    }

    /// How many configurations were on disks.
    pub(super) fn configurations(&self) -> usize {
        self.judge.configurations.len()
    }

    /// The step as it is to be read.
    pub(super) fn describe(&self, step: Step) -> String {
        match step {
            Step::Arrive { flight, stays } => {
                let again = if stays { ", to arrive again" } else { "" };
                format!("{:?}{again}", self.flights[flight])
            }
            _ => format!("{step:?}"),
        }
    }

    // What can happen next.

    pub(super) fn steps(&self, bounds: &Bounds) -> Vec<Step> {
        let mut steps = Vec::new();
        let used = &self.used;
        let others = || (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
        for (from, to) in others().filter(|(from, to)| from != to) {
            if used.turns < bounds.turns {
                steps.push(Step::Turn { from, to });
            }
            if used.changes < bounds.changes && self.nodes[from].leads() {
                steps.push(Step::Change { leader: from, node: to });
            }
        }
        for node in 0..NODES {
            if used.crashes < bounds.crashes {
                steps.push(Step::Crash(node));
            }
            let waits = bounds.time == Time::Free || node == 0;
            if waits && used.waits < bounds.waits {
                steps.push(Step::Wait(node));
            }
        }
        if bounds.time == Time::Free {
            self.steps_of_writes_and_messages(bounds, &mut steps);
        }
        steps
    }

    fn steps_of_writes_and_messages(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        for flight in 0..self.flights.len() {
            steps.push(Step::Arrive { flight, stays: false });
            if self.used.repeats < bounds.repeats {
                steps.push(Step::Arrive { flight, stays: true });
            }
        }
        for (node, own) in self.nodes.iter().enumerate() {
            for key in (0..KEYS.len()).filter(|key| own.writes[*key].is_some()) {
                steps.push(Step::Stored(node, key));
                if self.used.disk_failures < bounds.disk_failures {
                    steps.push(Step::Failed { node, key, keeps: false });
                    steps.push(Step::Failed { node, key, keeps: true });
                }
            }
        }
    }

    // What does.

    pub(super) fn take(&mut self, bounds: &Bounds, step: Step) -> Result<(), String> {
        match step {
            Step::Wait(node) if bounds.time == Time::Free => {
                self.used.waits += 1;
                let own = &mut self.nodes[node];
                let deadline = own.election.deadline();
                if deadline != Instant::NEVER {
                    own.now_us = own.now_us.max(deadline.as_micros());
                }
                own.election.tick(at(own.now_us));
                self.turn(bounds, node)?;
            }
            Step::Wait(_) => {
                self.used.waits += 1;
                self.pass_time(bounds, &[true; NODES])?;
            }
            Step::Arrive { flight, stays } => {
                self.used.repeats += u8::from(stays);
                self.arrive(bounds, flight, stays)?;
            }
            Step::Stored(node, key) => self.stored(bounds, node, key)?,
            Step::Failed { node, key, keeps } => {
                self.used.disk_failures += 1;
                let own = &mut self.nodes[node];
                let record = own.writes[key].take().unwrap_or_default();
                own.election.store_failed(at(own.now_us), KEYS[key]);
                if keeps {
                    self.keep(node, key, record)?;
                }
                self.turn(bounds, node)?;
            }
            Step::Crash(node) => {
                self.used.crashes += 1;
                let own = &mut self.nodes[node];
                own.life += 1;
                own.now_us += 1;
                own.start(bounds, node);
                self.turn(bounds, node)?;
            }
            Step::Change { leader, node } => {
                self.used.changes += 1;
                let own = &mut self.nodes[leader];
                let to = match own.election.membership(id(node)) {
                    Membership::Voter => Membership::None,
                    _ => Membership::Voter,
                };
                // When it may not yet, nothing has changed.
                let _ = own.election.change(at(own.now_us), id(node), to);
                self.turn(bounds, leader)?;
            }
            Step::Turn { from, to } => {
                self.used.turns += 1;
                self.held[from][to] = !self.held[from][to];
                self.settle(bounds, &[true; NODES])?;
            }
        }
        self.check_claims(bounds)
    }

    /// A step of time for all, then everything that is not held back, until nothing is left to do.
    /// What comes from or goes to a node that is not `there` is lost.
    pub(super) fn pass_time(
        &mut self,
        bounds: &Bounds,
        there: &[bool; NODES],
    ) -> Result<(), String> {
        for node in 0..NODES {
            let own = &mut self.nodes[node];
            own.now_us += step_us(node);
            own.election.tick(at(own.now_us));
            self.turn(bounds, node)?;
        }
        self.settle(bounds, there)
    }

    pub(super) fn settle(&mut self, bounds: &Bounds, there: &[bool; NODES]) -> Result<(), String> {
        self.flights.retain(|flight| there[flight.from] && there[flight.to]);
        loop {
            self.check_claims(bounds)?;
            let write = |node: usize| self.nodes[node].writes.iter().position(Option::is_some);
            if let Some((node, key)) = (0..NODES).find_map(|node| Some((node, write(node)?))) {
                self.stored(bounds, node, key)?;
            } else if let Some(flight) =
                self.flights.iter().position(|flight| !self.held[flight.from][flight.to])
            {
                let Flight { from, to, .. } = self.flights[flight];
                if there[from] && there[to] {
                    self.arrive(bounds, flight, false)?;
                } else {
                    self.flights.remove(flight);
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Nothing is held back any more, and what was on its way is lost.
    pub(super) fn clear(&mut self) {
        self.held = Default::default();
        self.flights.clear();
    }

    fn arrive(&mut self, bounds: &Bounds, flight: usize, stays: bool) -> Result<(), String> {
        let Flight { from, to, said } =
            if stays { self.flights[flight].clone() } else { self.flights.remove(flight) };
        let own = &mut self.nodes[to];
        let now = at(own.now_us);
        match said {
            Said::Members(configuration, bytes) => {
                let members = Members { configuration, members: &bytes };
                own.election.receive_members(now, id(from), &members, true);
            }
            Said::Message(message) => {
                own.election.receive(now, id(from), &message);
                if let Some(again) = heard_wrongly(bounds, &message, own) {
                    own.election.receive(now, id(from), &again);
                }
            }
        }
        own.election.tick(now);
        self.turn(bounds, to)
    }

    fn stored(&mut self, bounds: &Bounds, node: usize, key: usize) -> Result<(), String> {
        let own = &mut self.nodes[node];
        let record = own.writes[key].take().unwrap_or_default();
        if bounds.bug != Some(ElectionBug::VoteBeforeStored) || KEYS[key] != Key::Ballot {
            own.election.stored(at(own.now_us), KEYS[key]);
        }
        self.keep(node, key, record)?;
        self.turn(bounds, node)
    }

    fn keep(&mut self, node: usize, key: usize, record: Vec<u8>) -> Result<(), String> {
        self.nodes[node].disk[key] = record;
        if KEYS[key] == Key::Members {
            return self.judge.stored(node, &self.nodes[node].disk[key]);
        }
        Ok(())
    }

    /// What a driver does after an input: store, send; and what can be seen of it.
    fn turn(&mut self, bounds: &Bounds, node: usize) -> Result<(), String> {
        let own = &mut self.nodes[node];
        while own.election.take_event().is_some() {}
        while let Some(key) = own.election.store() {
            let mut record = vec![0; 512];
            let len = own.election.record(key, &mut record).unwrap_or(0);
            record.truncate(len);
            own.election.storing(key);
            if key == Key::Members && !bounds.carries_members() {
                own.disk[1] = record;
                own.election.stored(at(own.now_us), key);
                continue;
            }
            own.writes[usize::from(key == Key::Members)] = Some(record);
            if bounds.bug == Some(ElectionBug::VoteBeforeStored) && key == Key::Ballot {
                own.election.stored(at(own.now_us), key);
            }
        }
        for to in (0..NODES).filter(|to| *to != node) {
            while let Some(message) = self.nodes[node].election.message_for(id(to)) {
                self.nodes[node].election.sent(id(to), &message);
                self.send(bounds, node, to, message)?;
            }
        }
        self.judge.turned(node, &self.nodes[node].election)
    }

    fn send(
        &mut self,
        bounds: &Bounds,
        from: usize,
        to: usize,
        message: Message,
    ) -> Result<(), String> {
        let message = said_wrongly(bounds, message);
        self.judge.said(from, to, &message)?;
        let said = if message == Message::Members {
            if !bounds.carries_members() {
                return Ok(());
            }
            let mut bytes = [0; MEMBERS_MAX * MEMBER_BYTES];
            let Some(members) = self.nodes[from].election.members_frame(&mut bytes) else {
                return Ok(());
            };
            Said::Members(members.configuration, members.members.to_vec())
        } else {
            Said::Message(message)
        };
        let flight = Flight { from, to, said };
        if !self.flights.contains(&flight) {
            self.flights.push(flight);
            if self.flights.len() > bounds.in_flight {
                self.flights.remove(0);
            }
        }
        Ok(())
    }

    fn check_claims(&self, bounds: &Bounds) -> Result<(), String> {
        if bounds.time == Time::Shared && self.leading().count() > 1 {
            let leading: Vec<usize> = self.leading().collect();
            return Err(format!("nodes {leading:?} say at one instant that they lead"));
        }
        Ok(())
    }
}

/// What goes out of a broken node in place of `message`.
fn said_wrongly(bounds: &Bounds, message: Message) -> Message {
    match (bounds.bug, message) {
        (Some(ElectionBug::TwoVotes), Message::VoteAnswer(answer))
            if !answer.pre && answer.refusal == Some(Refusal::Taken) =>
        {
            Message::VoteAnswer(VoteAnswer { refusal: None, ..answer })
        }
        (Some(ElectionBug::PreVoteHidesTerm), Message::VoteAnswer(answer)) if answer.pre => {
            let term = answer.term.min(answer.asked_term.saturating_sub(1));
            Message::VoteAnswer(VoteAnswer { term, ..answer })
        }
        _ => message,
    }
}

/// What a broken node takes as well when it hears `message`.
fn heard_wrongly(bounds: &Bounds, message: &Message, own: &Node) -> Option<Message> {
    let Message::HeartbeatAnswer(answer) = *message else {
        return None;
    };
    let answer = match bounds.bug? {
        ElectionBug::LeaseFromAnswer => HeartbeatAnswer { sent_us: own.now_us, ..answer },
        ElectionBug::ChangeUnsettled => {
            HeartbeatAnswer { configuration: own.election.configuration(), ..answer }
        }
        _ => return None,
    };
    Some(Message::HeartbeatAnswer(answer))
}
