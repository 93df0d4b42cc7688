//! Three voters, and every order in which a bounded number of things can happen to them.
//!
//! Breadth first over [`Election`]s alone, without links and frames: any message on its way may be
//! the next to arrive, out of order, twice, or never; any vote on its way to a disk may get there
//! or not; any node may crash and start anew from its disk. States that were seen before are not
//! gone through again. Two ways of time:
//!
//! - [`Time::Free`]: each node's clock is its own and any node's wait may end next, so nothing is
//!   assumed of clocks at all. For what holds whatever the clocks do: votes and terms.
//! - [`Time::Shared`]: all clocks go on together, each at its own rate, in steps of [`STEP_MS`], from
//!   when the first leader has its lease. No two nodes say at one instant that they lead.
//!
//! Left out: frames with a whole configuration (here they are always lost), changes of members
//! (the campaign has them), and disks that fail. What is checked is counted here and not taken from
//! the elections: who led in which term, and who voted for whom.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use replcore::contract::Key;
use replcore::election::{Election, ElectionConfig, ElectionSlot, Membership, Message};
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::{MemberRole, Refusal, VoteAnswer};

const NODES: usize = 3;
/// One step of [`Time::Shared`], in milliseconds: a third of the shortest wait.
pub const STEP_MS: u64 = 50;

/// How time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Any node's wait may end next.
    Free,
    /// In steps, for all.
    Shared,
}

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How time passes.
    pub time: Time,
    /// Waits that end, or steps of time.
    pub waits: u8,
    /// Crashes.
    pub crashes: u8,
    /// Messages that arrive and stay on their way, to arrive again.
    pub repeats: u8,
    /// Messages on their way at once; beyond, the oldest is lost.
    pub in_flight: usize,
    /// States, at most. What lies beyond is not looked at.
    pub states: usize,
    /// Draws the waits.
    pub seed: u64,
    /// How the nodes are broken, to check the checker.
    pub bug: Option<ElectionBug>,
}

/// A way in which every node is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionBug {
    /// A vote is given before it is on the disk.
    VoteBeforeStored,
    /// A second candidate of a term gets a vote too.
    TwoVotes,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps to the furthest of them.
    pub depth: usize,
    /// Whether there was nothing beyond, within the bounds.
    pub complete: bool,
    /// States in which somebody led.
    pub with_leader: usize,
}

#[derive(Clone, Debug, Hash)]
struct Node {
    election: Election<[ElectionSlot; NODES - 1]>,
    now_us: u64,
    life: u64,
    /// The ballot and the members as they are on the disk.
    ballot: Vec<u8>,
    members: Vec<u8>,
    /// The ballot that is on its way there.
    writes: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    from: usize,
    to: usize,
    message: Message,
}

#[derive(Clone, Debug)]
struct State {
    nodes: [Node; NODES],
    flights: Vec<Flight>,
    /// Who led in a term; who voted in a term for whom.
    led: Vec<(u64, usize)>,
    voted: Vec<(u64, usize, usize)>,
    waits: u8,
    crashes: u8,
    repeats: u8,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(usize),
    Arrive { at: usize, stays: bool },
    Stored(usize),
    Crash(usize),
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn at(us: u64) -> Instant {
    Instant::from_micros(us)
}

fn election(bounds: &Bounds, node: usize, life: u64) -> Election<[ElectionSlot; NODES - 1]> {
    let seed = bounds.seed ^ (node as u64 + 1) << 32 ^ life << 48;
    Election::new(ElectionConfig::lan(), id(node), seed, [ElectionSlot::FREE; NODES - 1])
}

/// How much a node's clock goes on in a step, in microseconds: the first is as slow, the last as
/// fast as may be.
fn step_us(node: usize) -> u64 {
    let error_ppm = u64::from(ElectionConfig::lan().clock_error_ppm);
    STEP_MS * (1_000_000 - error_ppm + node as u64 * error_ppm) / 1_000
}

impl Node {
    fn new(bounds: &Bounds, node: usize) -> Self {
        let mut own = Self {
            election: election(bounds, node, 0),
            now_us: 0,
            life: 0,
            ballot: Vec::new(),
            members: Vec::new(),
            writes: None,
        };
        own.start(bounds, node, 1_000_000);
        own
    }

    fn start(&mut self, bounds: &Bounds, node: usize, now_us: u64) {
        self.election = election(bounds, node, self.life);
        let all = (0..NODES).map(|node| (id(node), Membership::Voter));
        self.election.set_members(all).expect("there are slots for all");
        self.writes = None;
        for (key, record) in [(Key::Ballot, &self.ballot), (Key::Members, &self.members)] {
            if !record.is_empty() {
                self.election.restore(key, record).expect("it has written it itself");
            }
        }
        let silence_us = u64::from(ElectionConfig::lan().timeout_ms_min) * 1_000;
        self.election.start(at(now_us));
        // With clocks of their own the silence is over whenever it suits.
        self.now_us = if bounds.time == Time::Free { now_us + silence_us } else { now_us };
        self.election.tick(at(self.now_us));
    }
}

impl State {
    fn new(bounds: &Bounds) -> Self {
        let mut state = Self {
            nodes: std::array::from_fn(|node| Node::new(bounds, node)),
            flights: Vec::new(),
            led: Vec::new(),
            voted: Vec::new(),
            waits: 0,
            crashes: 0,
            repeats: 0,
        };
        // Writes first, then messages in order, then time, until somebody leads.
        while bounds.time == Time::Shared && state.leading().next().is_none() {
            let writes = (0..NODES).find(|node| state.nodes[*node].writes.is_some());
            let step = match (writes, state.flights.is_empty()) {
                (Some(node), _) => Step::Stored(node),
                (None, false) => Step::Arrive { at: 0, stays: false },
                (None, true) => Step::Wait(0),
            };
            state.take(bounds, step).expect("nothing goes wrong here");
            state.waits = 0;
        }
        state
    }

    /// The same for states that differ in nothing that matters: messages have no order.
    fn digest(&self) -> u128 {
        let hash = |of: &dyn Fn(&mut DefaultHasher), salt: u64| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            of(&mut hasher);
            hasher.finish()
        };
        let half = |salt: u64| {
            let flights = self.flights.iter().map(|flight| hash(&|to| flight.hash(to), salt));
            let flights = flights.fold(0, u64::wrapping_add);
            let rest =
                (&self.nodes, &self.led, &self.voted, self.waits, self.crashes, self.repeats);
            hash(&|to| (flights, rest).hash(to), salt)
        };
        u128::from(half(1)) << 64 | u128::from(half(2))
    }

    fn steps(&self, bounds: &Bounds) -> Vec<Step> {
        let mut steps = Vec::new();
        for message in 0..self.flights.len() {
            steps.push(Step::Arrive { at: message, stays: false });
            if self.repeats < bounds.repeats {
                steps.push(Step::Arrive { at: message, stays: true });
            }
        }
        let waits = if bounds.time == Time::Free { NODES } else { 1 };
        for node in 0..NODES {
            if node < waits && self.waits < bounds.waits {
                steps.push(Step::Wait(node));
            }
            if self.nodes[node].writes.is_some() {
                steps.push(Step::Stored(node));
            }
            if self.crashes < bounds.crashes {
                steps.push(Step::Crash(node));
            }
        }
        steps
    }

    fn take(&mut self, bounds: &Bounds, step: Step) -> Result<(), String> {
        match step {
            Step::Wait(node) if bounds.time == Time::Free => {
                self.waits += 1;
                let own = &mut self.nodes[node];
                let deadline = own.election.deadline();
                if deadline != Instant::NEVER {
                    own.now_us = own.now_us.max(deadline.as_micros());
                }
                own.election.tick(at(own.now_us));
                self.turn(bounds, node)?;
            }
            Step::Wait(_) => {
                self.waits += 1;
                for node in 0..NODES {
                    let own = &mut self.nodes[node];
                    own.now_us += step_us(node);
                    own.election.tick(at(own.now_us));
                    self.turn(bounds, node)?;
                }
            }
            Step::Arrive { at: message, stays } => {
                let flight = self.flights[message];
                if stays {
                    self.repeats += 1;
                } else {
                    self.flights.remove(message);
                }
                let own = &mut self.nodes[flight.to];
                own.election.receive(at(own.now_us), id(flight.from), &flight.message);
                own.election.tick(at(own.now_us));
                self.turn(bounds, flight.to)?;
            }
            Step::Stored(node) => {
                let own = &mut self.nodes[node];
                own.ballot = own.writes.take().unwrap_or_default();
                if bounds.bug != Some(ElectionBug::VoteBeforeStored) {
                    own.election.stored(at(own.now_us), Key::Ballot);
                }
                self.turn(bounds, node)?;
            }
            Step::Crash(node) => {
                self.crashes += 1;
                let own = &mut self.nodes[node];
                own.life += 1;
                own.start(bounds, node, own.now_us + 1);
                self.turn(bounds, node)?;
            }
        }
        self.check_claims(bounds)
    }

    /// What a driver does after an input: store, send; and what can be seen of it.
    fn turn(&mut self, bounds: &Bounds, node: usize) -> Result<(), String> {
        let own = &mut self.nodes[node];
        while let Some(key) = own.election.store() {
            let mut record = vec![0; 512];
            let len = own.election.record(key, &mut record).unwrap_or(0);
            record.truncate(len);
            own.election.storing(key);
            if key == Key::Members {
                own.members = record;
                own.election.stored(at(own.now_us), key);
                continue;
            }
            own.writes = Some(record);
            if bounds.bug == Some(ElectionBug::VoteBeforeStored) {
                own.election.stored(at(own.now_us), key);
            }
        }
        for to in (0..NODES).filter(|to| *to != node) {
            while let Some(message) = self.nodes[node].election.message_for(id(to)) {
                self.nodes[node].election.sent(id(to), &message);
                if message != Message::Members {
                    self.send(bounds, node, to, message)?;
                }
            }
        }
        if self.nodes[node].election.role() == MemberRole::Leader {
            let term = self.nodes[node].election.term();
            match self.led.iter().find(|(of, _)| *of == term) {
                Some((_, leader)) if *leader == node => {}
                Some((_, leader)) => {
                    return Err(format!("nodes {leader} and {node} both lead in term {term}"));
                }
                None => {
                    self.led.push((term, node));
                    self.led.sort_unstable();
                }
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        bounds: &Bounds,
        from: usize,
        to: usize,
        message: Message,
    ) -> Result<(), String> {
        let message = match message {
            Message::VoteAnswer(answer)
                if bounds.bug == Some(ElectionBug::TwoVotes)
                    && !answer.pre
                    && answer.refusal == Some(Refusal::Taken) =>
            {
                Message::VoteAnswer(VoteAnswer { refusal: None, ..answer })
            }
            other => other,
        };
        match &message {
            Message::VoteRequest(it) if !it.pre => self.votes(it.term, from, from)?,
            Message::VoteAnswer(it) if !it.pre && it.refusal.is_none() => {
                self.votes(it.asked_term, from, to)?;
            }
            _ => {}
        }
        let flight = Flight { from, to, message };
        if !self.flights.contains(&flight) {
            self.flights.push(flight);
            if self.flights.len() > bounds.in_flight {
                self.flights.remove(0);
            }
        }
        Ok(())
    }

    fn votes(&mut self, term: u64, node: usize, whom: usize) -> Result<(), String> {
        match self.voted.iter().find(|(of, voter, _)| (*of, *voter) == (term, node)) {
            Some((_, _, before)) if *before != whom => {
                Err(format!("node {node} votes in term {term} for {before} and for {whom}"))
            }
            Some(_) => Ok(()),
            None => {
                self.voted.push((term, node, whom));
                self.voted.sort_unstable();
                Ok(())
            }
        }
    }

    fn leading(&self) -> impl Iterator<Item = usize> {
        let claims = |node: &usize| {
            let own = &self.nodes[*node];
            own.election.leader_until().is_some_and(|until| until > at(own.now_us))
        };
        (0..NODES).filter(claims)
    }

    fn check_claims(&self, bounds: &Bounds) -> Result<(), String> {
        if bounds.time == Time::Shared && self.leading().count() > 1 {
            let leading: Vec<usize> = self.leading().collect();
            return Err(format!("nodes {leading:?} say at one instant that they lead"));
        }
        Ok(())
    }
}

/// Looks at every state within `bounds`, nearest first.
///
/// # Errors
/// The first rule that was broken, with the steps that lead there.
pub fn explore(bounds: &Bounds) -> Result<Explored, String> {
    let mut found = Explored { complete: true, ..Explored::default() };
    let mut seen = HashSet::new();
    // Each state's step, and which one it came from.
    let mut steps: Vec<(usize, Step)> = Vec::new();
    let mut frontier = vec![(usize::MAX, State::new(bounds))];
    seen.insert(frontier[0].1.digest());
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (from, state) in &frontier {
            for step in state.steps(bounds) {
                let mut after = state.clone();
                if let Err(what) = after.take(bounds, step) {
                    return Err(told(bounds, &steps, *from, step, &what));
                }
                if seen.len() >= bounds.states {
                    found.complete = false;
                    break;
                }
                if seen.insert(after.digest()) {
                    found.with_leader += usize::from(after.leading().next().is_some());
                    next.push((steps.len(), after));
                    steps.push((*from, step));
                }
            }
        }
        found.depth += usize::from(!next.is_empty());
        frontier = next;
    }
    found.states = seen.len();
    Ok(found)
}

/// The steps from the start to where a rule is broken, gone through again to be read.
fn told(
    bounds: &Bounds,
    steps: &[(usize, Step)],
    mut from: usize,
    last: Step,
    what: &str,
) -> String {
    let mut path = vec![last];
    while let Some((before, step)) = steps.get(from) {
        path.push(*step);
        from = *before;
    }
    let mut state = State::new(bounds);
    let mut lines = Vec::new();
    for step in path.into_iter().rev() {
        lines.push(match step {
            Step::Arrive { at, stays } => {
                let again = if stays { ", to arrive again" } else { "" };
                format!("{:?}{again}", state.flights[at])
            }
            _ => format!("{step:?}"),
        });
        // The last step breaks the rule again.
        let _ = state.take(bounds, step);
    }
    lines.push(what.to_owned());
    lines.join("\n")
}
