//! One run: a cluster, faults and changes of its members drawn from a seed; then a majority alone;
//! then peace, and the question whether all agree.

use replcore::contract::Transport;
use replcore::election::{ElectionConfig, Membership};
use replcore::member::MemberConfig;
use replcore::rng::Rng;
use replcore::wire::Progress;

use super::tamper::Bug;
use super::world::{Disk, KnownPeer, Memory, Spec, World, address, name};
use crate::campaign::Failure;
use crate::network::Conditions;

/// A majority that can talk has a leader within this long, in seconds: dead links are noticed after
/// 1.75 s or, half greeted, after 5 s, and dialled again after 2 s.
pub const LEADER_S: u64 = 12;
/// All members agree on everything within this long after the last fault, in seconds. A node that
/// was itself slow takes up to 18 s to condemn a dead peer.
pub const AGREE_S: u64 = 40;
/// After that nothing changes for this long, in seconds.
const CALM_S: u64 = 2;
/// Starts of processes in one run, at most.
const LIVES: usize = 96;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberFault {
    /// Nothing passes between some nodes and the others, for a while.
    Partition,
    /// Nothing passes from one node to another, for a while.
    OneWay,
    /// Links are reset.
    Reset,
    /// A process ends and starts again.
    Crash,
    /// A machine loses power: its peers are not told.
    PowerCut,
    /// Every process ends at once.
    RestartAll,
    /// A process is stopped for a while, perhaps in the middle of a turn.
    Hang,
    /// A disk takes up to two seconds, for a while.
    SlowDisk,
    /// A disk fails, for a while.
    FailingDisk,
    /// One direction becomes slow, for a while.
    SlowLink,
    /// Bits flip in what a node says, for a while.
    Flip,
}

impl MemberFault {
    /// All of them, with the names that the tool takes.
    pub const ALL: [(&'static str, Self); 11] = [
        ("partition", Self::Partition),
        ("one-way", Self::OneWay),
        ("reset", Self::Reset),
        ("crash", Self::Crash),
        ("power-cut", Self::PowerCut),
        ("restart-all", Self::RestartAll),
        ("hang", Self::Hang),
        ("slow-disk", Self::SlowDisk),
        ("disk-full", Self::FailingDisk),
        ("slow-link", Self::SlowLink),
        ("flip", Self::Flip),
    ];
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct MembersPlan {
    /// Most nodes in all, 1 to 9. Each seed draws its own number.
    pub nodes: usize,
    /// How long faults and changes last, in seconds.
    pub duration_s: u64,
    /// Kinds of faults to draw from. With none nothing else happens either: the members idle, all
    /// of them, and no term may change.
    pub faults: Vec<MemberFault>,
    /// How the members are broken, to check the checker.
    pub bug: Option<Bug>,
}

impl MembersPlan {
    /// All faults over up to `nodes` nodes.
    pub fn new(nodes: usize) -> Self {
        let faults = MemberFault::ALL.iter().map(|(_, fault)| *fault).collect();
        Self { nodes, duration_s: 6, faults, bug: None }
    }
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct MembersOutcome {
    /// Inputs that machines have taken.
    pub events: u64,
    /// Processes ended.
    pub crashes: u64,
    /// Terms that had a leader.
    pub leaders: u64,
    /// Configurations that were on disks.
    pub configurations: u64,
    /// Time that passed in the simulation, in microseconds.
    pub simulated_us: u64,
    /// A number that two runs of one seed share.
    pub digest: u64,
}

type Checked<T> = Result<T, (Option<usize>, String)>;

#[derive(Clone, Copy, Debug)]
enum Heal {
    Unblock(usize, usize),
    Go(usize),
    Disk(usize),
    Line(usize, usize),
}

struct Run<'m> {
    world: World<'m>,
    rng: Rng,
    plan: MembersPlan,
    conditions: Conditions,
    heals: Vec<(u64, Heal)>,
    said: u64,
}

/// Runs one seed. With `trace` a failure brings the trace along.
///
/// # Errors
/// What was broken.
pub fn run(plan: &MembersPlan, seed: u64, trace: bool) -> Result<MembersOutcome, Failure> {
    let mut memory = Memory::lives(LIVES);
    let mut run = Run::new(plan.clone(), &mut memory, seed);
    if trace {
        run.world.start_trace();
    }
    run.all().map_err(|(node, what)| Failure {
        seed,
        at_us: run.world.now_us(),
        node: node.map(|node| run.world.name(node).as_str().to_owned()),
        what,
        trace: run.world.trace(),
    })?;
    let (events, crashes, digest) = run.world.counted();
    Ok(MembersOutcome {
        events,
        crashes,
        leaders: run.world.rules.leaders() as u64,
        configurations: run.world.rules.configurations() as u64,
        simulated_us: run.world.now_us(),
        digest,
    })
}

impl<'m> Run<'m> {
    fn new(plan: MembersPlan, memory: &'m mut [Memory], seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let most = plan.nodes as u64;
        let idle = plan.faults.is_empty();
        let count = if idle { most } else { rng.between(1, most) } as usize;
        let datagram = !idle && rng.between(0, 2) == 0;
        let mut conditions = Conditions {
            latency_us: [50, 500, 5_000, 15_000][rng.between(0, 3) as usize],
            ..Conditions::default()
        };
        conditions.jitter_us = rng.between(0, conditions.latency_us);
        let mut election = ElectionConfig::lan();
        election.clock_error_ppm = [100, 1_000, 20_000][rng.between(0, 2) as usize];
        let specs = specs(count, election, idle, &mut rng);
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        let world_seed = rng.next_u64();
        let mut world = World::new(specs, transport, conditions, plan.bug, memory, world_seed);
        for node in 0..count {
            world.boot_after(node, rng.between(0, 200_000));
        }
        Self { world, rng, plan, conditions, heals: Vec::new(), said: 0 }
    }

    fn all(&mut self) -> Checked<()> {
        if self.plan.faults.is_empty() {
            return self.idle();
        }
        self.storm()?;
        if self.rng.between(0, 1) == 0 {
            self.majority_alone()?;
        }
        self.peace();
        // Links that the storm has left half open are noticed within 1.75 s.
        self.run_ms(2_500)?;
        self.agree()?;
        self.calm()
    }

    fn run_ms(&mut self, ms: u64) -> Checked<()> {
        self.world.run_until(self.world.now_us() + ms * 1_000)
    }

    fn some_node(&mut self) -> usize {
        self.rng.between(0, self.world.count() as u64 - 1) as usize
    }

    fn later(&mut self, ms: u64, heal: Heal) {
        self.heals.push((self.world.now_us() + ms * 1_000, heal));
    }

    fn heal_due(&mut self) {
        let now_us = self.world.now_us();
        let (due, rest): (Vec<_>, Vec<_>) =
            self.heals.iter().partition(|(at_us, _)| *at_us <= now_us);
        self.heals = rest;
        for (_, heal) in due {
            self.heal(heal);
        }
    }

    fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Unblock(from, to) => self.world.block(from, to, false),
            Heal::Go(node) => self.world.stop(node, false, false),
            Heal::Disk(node) => self.world.set_disk(node, Disk::Sound),
            Heal::Line(from, to) => self.world.set_conditions(from, to, self.conditions),
        }
    }

    // The storm.

    fn storm(&mut self) -> Checked<()> {
        let lossy = self.lossy();
        let count = self.world.count();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            self.world.set_conditions(from, to, lossy);
        }
        let end_us = self.world.now_us() + self.plan.duration_s * 1_000_000;
        while self.world.now_us() < end_us {
            let wait_ms = match self.rng.between(0, 2) {
                0 => self.rng.between(0, 20),
                1 => self.rng.between(0, 200),
                _ => self.rng.between(100, 800),
            };
            self.run_ms(wait_ms)?;
            self.heal_due();
            if self.rng.between(0, 2) == 0 {
                self.some_change();
            } else {
                self.some_fault();
            }
        }
        Ok(())
    }

    fn lossy(&mut self) -> Conditions {
        Conditions {
            loss_ppm: self.rng.between(0, 100_000) as u32,
            duplicate_ppm: self.rng.between(0, 100_000) as u32,
            reorder_ppm: self.rng.between(0, 100_000) as u32,
            ..self.conditions
        }
    }

    fn some_change(&mut self) {
        let node = self.some_node();
        let leader = self.world.leader();
        match self.rng.between(0, 9) {
            0..=1 => {
                self.said += 1;
                let metadata = self.said.to_le_bytes();
                self.world.tell(node, |member, now| member.set_metadata(now, &metadata).is_ok());
            }
            2 => {
                if let Some(leader) = leader {
                    self.world.tell(leader, |member, now| member.resign(now).is_ok());
                }
            }
            3 => {
                let progress = Progress { term: 1, position: self.rng.between(1, 4) };
                self.world.tell(node, |member, now| member.set_progress(now, progress));
            }
            4 => {
                let voter = self.rng.between(0, 3) > 0;
                self.world.tell(node, |member, now| member.join(now, voter).is_ok());
            }
            5 => {
                self.world.tell(node, |member, now| member.leave(now).is_ok());
            }
            _ => {
                let to =
                    [Membership::Voter, Membership::Voter, Membership::Learner, Membership::None]
                        [self.rng.between(0, 3) as usize];
                if let Some(leader) = leader {
                    let id = self.world.id(node);
                    self.world.note(Some(leader), || format!("is to make n{node} {to:?}"));
                    self.world
                        .tell(leader, |member, now| member.change_member(now, id, to).is_ok());
                }
            }
        }
    }

    /// How long a fault lasts: about as long as a lease, or as a peer takes to be missed.
    fn some_ms(&mut self) -> u64 {
        match self.rng.between(0, 9) {
            0..=4 => self.rng.between(1, 300),
            5..=8 => self.rng.between(200, 1_500),
            _ => self.rng.between(1_500, 4_000),
        }
    }

    fn some_fault(&mut self) {
        let nth = self.rng.between(0, self.plan.faults.len() as u64 - 1) as usize;
        let (ms, node, other) = (self.some_ms(), self.some_node(), self.some_node());
        // The leader is where most can go wrong.
        let node = match self.world.leader() {
            Some(leader) if self.rng.between(0, 1) == 0 => leader,
            _ => node,
        };
        match self.plan.faults[nth] {
            MemberFault::Partition => self.partition(ms),
            MemberFault::OneWay => self.cut(node, other, ms),
            MemberFault::Reset => self.world.reset(node, other),
            MemberFault::Crash => self.crash(node, false, ms),
            MemberFault::PowerCut => self.crash(node, true, ms),
            MemberFault::RestartAll => {
                for node in 0..self.world.count() {
                    let ms = self.rng.between(0, 100);
                    self.crash(node, true, ms);
                }
            }
            MemberFault::Hang => {
                let midway = self.rng.between(0, 1) == 0;
                self.world.stop(node, true, midway);
                self.later(ms, Heal::Go(node));
            }
            MemberFault::SlowDisk | MemberFault::FailingDisk => {
                let slow = self.plan.faults[nth] == MemberFault::SlowDisk;
                self.world.set_disk(node, if slow { Disk::Slow } else { Disk::Failing });
                self.later(ms, Heal::Disk(node));
            }
            MemberFault::SlowLink => self.slow(node, other, ms),
            MemberFault::Flip => {
                let flips = Conditions { flip_ppm: 30_000, ..self.lossy() };
                self.change_lines(node, None, flips, ms);
            }
        }
    }

    fn crash(&mut self, node: usize, power: bool, ms: u64) {
        self.world.crash(node, power);
        // Half of them come back at once, before anybody has missed them.
        let ms = if self.rng.between(0, 1) == 0 { self.rng.between(0, 30) } else { ms };
        self.world.boot_after(node, ms * 1_000);
    }

    fn cut(&mut self, from: usize, to: usize, ms: u64) {
        self.world.block(from, to, true);
        self.later(ms, Heal::Unblock(from, to));
    }

    fn partition(&mut self, ms: u64) {
        let side = self.rng.next_u64();
        for (from, to) in self.pairs() {
            if side >> from & 1 != side >> to & 1 {
                self.cut(from, to, ms);
            }
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.world.count();
        let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to).collect()
    }

    /// To or from a node everything takes about as long as a lease; the other way it does not.
    fn slow(&mut self, node: usize, other: usize, ms: u64) {
        let latency_us = self.rng.between(20_000, 160_000);
        let slow = Conditions { latency_us, jitter_us: 10_000, ..self.lossy() };
        match self.rng.between(0, 2) {
            0 => self.change_lines(node, Some(other), slow, ms),
            1 => self.change_lines(node, None, slow, ms),
            _ => {
                for from in 0..self.world.count() {
                    self.change_lines(from, Some(node), slow, ms);
                }
            }
        }
    }

    fn change_lines(&mut self, from: usize, to: Option<usize>, conditions: Conditions, ms: u64) {
        for at in 0..self.world.count() {
            if at != from && to.is_none_or(|to| to == at) {
                self.world.set_conditions(from, at, conditions);
                self.later(ms, Heal::Line(from, at));
            }
        }
    }

    // Without faults.

    fn heal_all(&mut self) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.heal(heal);
        }
        for (from, to) in self.pairs() {
            self.world.block(from, to, false);
            self.world.set_conditions(from, to, self.conditions);
        }
    }

    /// Nodes that no configuration of any node needs for a majority: down or cut off, the others
    /// have a leader in time.
    fn majority_alone(&mut self) -> Checked<()> {
        self.heal_all();
        for node in 0..self.world.count() {
            self.world.boot(node);
        }
        self.run_ms(1_500)?;
        let mut lost: Vec<usize> = Vec::new();
        for _ in 0..self.world.count() {
            let node = self.some_node();
            lost.push(node);
            if !self.all_can_spare(&lost) {
                lost.pop();
            }
        }
        lost.sort_unstable();
        lost.dedup();
        let down = self.rng.between(0, 1) == 0;
        for node in lost.iter().copied() {
            self.world.note(Some(node), || "is left out".to_owned());
            if down {
                let power = self.rng.between(0, 1) == 0;
                self.world.crash(node, power);
            } else {
                self.cut_off(node);
            }
        }
        let rest: Vec<usize> = (0..self.world.count()).filter(|it| !lost.contains(it)).collect();
        let able = |run: &Self| run.voters_of(&rest) > 0;
        if able(self) {
            let found =
                |run: &Self| run.world.leader().is_some_and(|leader| rest.contains(&leader));
            self.until(LEADER_S, "no leader of the majority that can talk", found)?;
        }
        if down && !lost.is_empty() && self.rng.between(0, 1) == 0 {
            let missed = |run: &Self| lost.iter().all(|lost| run.is_missed(*lost, &rest));
            self.until(AGREE_S, "a dead node is not missed by all", missed)?;
        }
        Ok(())
    }

    fn cut_off(&mut self, node: usize) {
        let (to, from) =
            [(true, true), (true, false), (false, true)][self.rng.between(0, 2) as usize];
        for other in (0..self.world.count()).filter(|other| *other != node) {
            if to {
                self.world.block(other, node, true);
            }
            if from {
                self.world.block(node, other, true);
            }
        }
    }

    fn voters_of(&self, nodes: &[usize]) -> usize {
        let votes = |node: &&usize| {
            let id = self.world.id(**node);
            self.world.machine(**node).is_some_and(|it| it.membership(id) == Membership::Voter)
        };
        nodes.iter().filter(votes).count()
    }

    /// Whether every configuration that a node has leaves a majority without the lost.
    fn all_can_spare(&self, lost: &[usize]) -> bool {
        (0..self.world.count()).filter_map(|node| self.world.machine(node)).all(|machine| {
            let Some(election) = machine.election() else {
                return true;
            };
            let is_lost = |id| lost.iter().any(|lost| self.world.id(*lost) == id);
            let voters = election.members().filter(|(_, it)| *it == Membership::Voter);
            let left = voters.filter(|(id, _)| !is_lost(*id)).count();
            left >= election.quorum()
        })
    }

    fn is_missed(&self, lost: usize, by: &[usize]) -> bool {
        let id = self.world.id(lost);
        by.iter().filter_map(|node| self.world.machine(*node)).all(|machine| {
            machine.peer(id).is_none_or(|peer| peer.state == replcore::registry::PeerState::Down)
        })
    }

    fn until(&mut self, within_s: u64, what: &str, done: impl Fn(&Self) -> bool) -> Checked<()> {
        let end_us = self.world.now_us() + within_s * 1_000_000;
        while !done(self) {
            if self.world.now_us() >= end_us {
                return Err((None, format!("{what}, {within_s} s after the last fault")));
            }
            self.run_ms(50)?;
        }
        Ok(())
    }

    fn peace(&mut self) {
        self.heal_all();
        for node in 0..self.world.count() {
            self.world.stop(node, false, false);
            self.world.set_disk(node, Disk::Sound);
            self.world.boot(node);
        }
        self.world.note(None, || "peace".to_owned());
    }

    /// One leads, all members know it, have its configuration, and know all of each other.
    fn agree(&mut self) -> Checked<()> {
        self.until(LEADER_S, "no leader", |run| run.world.leader().is_some())?;
        let end_us = self.world.now_us() + AGREE_S * 1_000_000;
        loop {
            self.run_ms(100)?;
            match self.disagreement() {
                None => return Ok(()),
                Some(what) if self.world.now_us() >= end_us => {
                    return Err((None, format!("{what}, {AGREE_S} s after the last fault")));
                }
                Some(_) => {}
            }
        }
    }

    fn disagreement(&self) -> Option<String> {
        let leader = self.world.leader();
        let Some((leader, leading)) = leader.and_then(|at| Some((at, self.world.machine(at)?)))
        else {
            return Some("no leader".to_owned());
        };
        let election = leading.election()?;
        if !leading.is_settled() {
            return Some("the configuration is not settled".to_owned());
        }
        let members: Vec<usize> = (0..self.world.count())
            .filter(|node| election.membership(self.world.id(*node)) != Membership::None)
            .collect();
        for node in members.iter().copied() {
            let Some(machine) = self.world.machine(node) else {
                return Some(format!("n{node} is down"));
            };
            let known = machine.leader().map(|it| (it.node, it.term));
            if known != Some((self.world.id(leader), leading.term())) {
                return Some(format!("n{node} knows {known:?} and not n{leader} as the leader"));
            }
            if machine.election().map(|it| it.configuration()) != Some(election.configuration()) {
                return Some(format!("n{node} has another configuration"));
            }
            for other in members.iter().copied().filter(|other| *other != node) {
                if let Some(what) = self.ignorance(node, other) {
                    return Some(what);
                }
            }
        }
        None
    }

    /// What `node` does not know of `other`.
    fn ignorance(&self, node: usize, other: usize) -> Option<String> {
        let id = self.world.id(other);
        let view = self.world.machine(node)?.peer(id);
        let own = self.world.machine(other)?.peer(id)?;
        let Some(view) = view else {
            return Some(format!("n{node} knows no n{other}"));
        };
        if (view.metadata, view.version, view.address) != (own.metadata, own.version, own.address) {
            return Some(format!("n{node} knows {view:?} of n{other}, which says {own:?}"));
        }
        (view.state != replcore::registry::PeerState::Up)
            .then(|| format!("n{node} takes n{other} for {:?}", view.state))
    }

    /// Nothing changes any more.
    fn calm(&mut self) -> Checked<()> {
        // Wishes of the storm may still be coming true.
        self.world.quiet = true;
        let before = self.world.leader().and_then(|at| Some((at, self.world.machine(at)?.term())));
        self.run_ms(CALM_S * 1_000)?;
        let after = self.world.leader().and_then(|at| Some((at, self.world.machine(at)?.term())));
        if before != after {
            return Err((None, format!("leader and term were {before:?} and are {after:?}")));
        }
        self.disagreement().map_or(Ok(()), |what| Err((None, format!("agreed no more: {what}"))))
    }

    fn idle(&mut self) -> Checked<()> {
        self.run_ms(300)?;
        self.agree()?;
        self.world.quiet = true;
        let leader = self.world.leader();
        let terms = self.world.rules.leaders();
        for _ in 0..self.plan.duration_s.div_ceil(10) {
            self.run_ms(10_000)?;
            if self.world.leader() != leader || self.world.rules.leaders() != terms {
                return Err((None, "another leader without any fault".to_owned()));
            }
        }
        Ok(())
    }
}

/// A cluster: voters, learners, and nodes that come later.
fn specs(count: usize, election: ElectionConfig, idle: bool, rng: &mut Rng) -> Vec<Spec> {
    let outside = if idle || count < 3 { 0 } else { rng.between(0, 2) as usize };
    let learners = if idle || count < 4 { 0 } else { rng.between(0, 1) as usize };
    let first = count - outside;
    let ppm = i64::from(election.clock_error_ppm);
    let mut specs = Vec::new();
    for node in 0..count {
        let instance = rng.next_u64() | 1;
        let mut config = MemberConfig::new(name(node), name(99), instance, 0);
        config.election = Some(election);
        config.address = Some(address(node));
        let member = |node: usize| match node {
            _ if node >= first => Membership::None,
            _ if node >= first - learners => Membership::Learner,
            _ => Membership::Voter,
        };
        config.membership = member(node);
        if rng.between(0, 3) == 0 {
            config.priority = rng.between(90, 110) as u8;
        }
        let known = |other: usize| node < first || other < 2;
        let mut peers = Vec::new();
        for other in (0..first).filter(|other| *other != node && known(*other)) {
            let metadata =
                (rng.between(0, 1) == 0).then(|| format!("file of n{other}").into_bytes());
            let voter = member(other) == Membership::Voter;
            peers.push(KnownPeer { node: other, metadata, voter });
        }
        let drift_ppm = match rng.between(0, 3) {
            0 => ppm,
            1 => -ppm,
            _ => rng.between(0, 2 * ppm as u64) as i64 - ppm,
        };
        let metadata = (rng.between(0, 2) > 0).then(|| format!("n{node}").into_bytes());
        let sync_us = (20, rng.between(100, 20_000));
        specs.push(Spec { config, peers, metadata, drift_ppm, sync_us });
    }
    specs
}
