//! One run of a campaign: a topology, traffic and faults drawn from a seed, then peace, then the
//! question whether all is where it should be.

use std::fmt;

use replcore::contract::Transport;
use replcore::rng::Rng;
use replcore::stream::Name;

use crate::clock::Clock;
use crate::cluster::{Cluster, Counters, Spec};
use crate::faults::Fault;
use crate::invariants::{Checker, Expectations};
use crate::machines::{Kind, Machines, Settings};
use crate::model::StoreBugs;
use crate::network::Conditions;
use crate::process::Post;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes in all, at least 2.
    pub nodes: usize,
    /// How long faults and traffic last, in seconds of the simulation.
    pub duration_s: u64,
    /// Kinds of faults to draw from; none for a fair-weather run.
    pub faults: Vec<Fault>,
    /// Ways in which the stores are broken, to check the checker.
    pub bugs: StoreBugs,
    /// Dispatch is broken, to check the checker.
    pub bug_sends_back: bool,
}

impl Plan {
    /// All faults over `nodes` nodes for two minutes.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            duration_s: 120,
            faults: Fault::MACHINE.to_vec(),
            bugs: StoreBugs::default(),
            bug_sends_back: false,
        }
    }
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Posts acknowledged.
    pub posts: usize,
    /// Leases that ended.
    pub leases_expired: u64,
    /// Time that passed in the simulation, in microseconds.
    pub simulated_us: u64,
    /// Counters of the cluster.
    pub cluster: Counters,
    /// A number that two runs of one seed share.
    pub digest: u64,
}

/// A run that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When, in microseconds of the simulation.
    pub at_us: u64,
    /// Where, if it was at a node.
    pub node: Option<String>,
    /// What.
    pub what: String,
    /// The trace, when one was kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_s = self.at_us as f64 / 1e6;
        write!(f, "seed {} at {at_s:.6} s", self.seed)?;
        if let Some(node) = &self.node {
            write!(f, ", {node}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What stands at the end of a fault.
#[derive(Clone, Copy, Debug)]
enum Heal {
    Unblock(usize, usize),
    Go(usize),
    Room(usize),
    Sync(usize),
    Link(usize),
}

/// A system and everything that is done to it.
pub struct Run {
    /// The nodes.
    pub cluster: Cluster<Machines>,
    /// The rules.
    pub checker: Checker,
    rng: Rng,
    plan: Plan,
    hubs: usize,
    conditions: Conditions,
    heals: Vec<(u64, Heal)>,
    marks: u64,
    digest: u64,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a made-up name is sound")
}

impl Run {
    /// Sets a system up from a seed.
    pub fn new(plan: Plan, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hubs = if plan.nodes >= 4 && rng.between(0, 3) == 0 { 2 } else { 1 };
        let datagram = hubs == 1 && rng.between(0, 3) == 0;
        let quick = rng.between(0, 3) > 0;
        let settings = Settings {
            lease_ms: if quick { 20_000 } else { 900_000 },
            register_ms: if quick { 6_000 } else { 300_000 },
            keepalive_ms: [1_000, 3_000, 10_000][rng.between(0, 2) as usize],
            poll_interval_ms: if rng.between(0, 4) == 0 { 5_000 } else { 0 },
            window_bytes: [2_048, 16_384, 1 << 20][rng.between(0, 2) as usize],
            frame_bytes_max: [512, 1_024, 4_096][rng.between(0, 2) as usize],
            bugs: plan.bugs,
            bug_sends_back: plan.bug_sends_back,
            ..Settings::default()
        };
        let mut conditions = Conditions {
            latency_us: [50, 1_000, 40_000, 300_000][rng.between(0, 3) as usize],
            window_bytes: if rng.between(0, 2) == 0 { 4_096 } else { 65_536 },
            ..Conditions::default()
        };
        conditions.jitter_us = rng.between(0, conditions.latency_us);
        if datagram {
            conditions.loss_ppm = rng.between(0, 100_000) as u32;
            conditions.duplicate_ppm = rng.between(0, 50_000) as u32;
            conditions.reorder_ppm = rng.between(0, 50_000) as u32;
        }
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        Self::with(plan, seed, hubs, settings, transport, conditions, rng)
    }

    /// Sets a system of given settings up.
    pub fn with(
        plan: Plan,
        seed: u64,
        hubs: usize,
        settings: Settings,
        transport: Transport,
        conditions: Conditions,
        mut rng: Rng,
    ) -> Self {
        let leaves = plan.nodes - hubs;
        let hub_names: Vec<Name> = (0..hubs).map(|n| name(&format!("hub-{n}"))).collect();
        let leaf_names: Vec<Name> = (0..leaves).map(|n| name(&format!("leaf-{n}"))).collect();
        let mut nodes = Vec::new();
        for hub in &hub_names {
            nodes.push((*hub, Kind::Hub { leaves: leaf_names.clone() }));
        }
        for leaf in &leaf_names {
            let small = hubs == 1 && rng.between(0, 2) > 0;
            let kind = if small {
                Kind::Leaf { hub: hub_names[0] }
            } else {
                Kind::Gateway { hubs: hub_names.clone() }
            };
            nodes.push((*leaf, kind));
        }
        let links_max = (leaves * 2 + 4) as u32;
        let mut specs = Vec::new();
        for (index, (name, kind)) in nodes.iter().enumerate() {
            let dials = if index < hubs { Vec::new() } else { (0..hubs).collect() };
            let alone = matches!(kind, Kind::Leaf { .. });
            let gateway = matches!(kind, Kind::Gateway { .. });
            specs.push(Spec {
                name: *name,
                dials,
                links_max: if alone {
                    1
                } else if gateway {
                    hubs as u32 + 1
                } else {
                    links_max
                },
                transport,
                conditions,
                sync_us: (20, rng.between(50, 20_000)),
                clock: Clock::new(
                    rng.between(0, 1_000) as i64 - 500,
                    rng.between(0, 1_000_000_000),
                ),
            });
        }
        let expectations = Expectations {
            lease_us: u64::from(settings.lease_ms) * 1_000,
            tick_us: 1_000_000 + u64::from(settings.lease_ms),
            drops: settings.limit.is_some(),
            keeps_unseen: false,
            reclaims: false,
        };
        let identities = nodes.iter().map(|(name, _)| name.node_id()).collect();
        let machines = Machines::new(nodes, settings, links_max as usize, seed);
        Self {
            cluster: Cluster::new(machines, specs, rng.next_u64()),
            checker: Checker::new(identities, expectations),
            rng,
            plan,
            hubs,
            conditions,
            heals: Vec::new(),
            marks: 0,
            digest: seed,
        }
    }

    /// How many hubs there are; they are the first nodes.
    pub const fn hubs(&self) -> usize {
        self.hubs
    }

    /// The nodes that should have what is posted at `node`.
    pub fn targets(&self, node: usize) -> Vec<usize> {
        let (hubs, nodes) = (self.hubs, self.cluster.nodes());
        if node < hubs {
            // The other hubs hear nothing of it.
            (hubs..nodes).collect()
        } else {
            (0..nodes).filter(|target| *target != node).collect()
        }
    }

    /// Posts a message of `bytes` at a node.
    pub fn post(&mut self, node: usize, class: u8, bytes: usize) -> u64 {
        self.marks += 1;
        let mark = self.marks;
        let mut body = mark.to_le_bytes().to_vec();
        body.resize(bytes.max(8), mark as u8);
        let idempotency_key = mark.to_le_bytes().to_vec();
        let post = Post { class, message_type: "sample", idempotency_key, body };
        self.cluster.post(node, mark, post);
        mark
    }

    /// Lets time pass, up to `until_us`, and checks every step.
    ///
    /// # Errors
    /// What is broken, and where.
    pub fn run_until(&mut self, until_us: u64) -> Result<(), (Option<usize>, String)> {
        loop {
            while let Some(seen) = self.cluster.seen() {
                let mark = seen.at_us ^ (seen.node as u64) << 56;
                self.digest = (self.digest ^ mark).wrapping_mul(0x0000_0100_0000_01b3);
                self.checker.see(&seen).map_err(|what| (Some(seen.node), what))?;
            }
            if !self.cluster.step(until_us) {
                return Ok(());
            }
        }
    }

    /// Lets `ms` milliseconds pass.
    ///
    /// # Errors
    /// What is broken, and where.
    pub fn run_ms(&mut self, ms: u64) -> Result<(), (Option<usize>, String)> {
        self.run_until(self.cluster.now_us() + ms * 1_000)
    }

    fn heal_due(&mut self) {
        let now_us = self.cluster.now_us();
        let due: Vec<Heal> =
            self.heals.iter().filter(|(at, _)| *at <= now_us).map(|(_, heal)| *heal).collect();
        self.heals.retain(|(at, _)| *at > now_us);
        for heal in due {
            self.heal(heal);
        }
    }

    fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Unblock(from, to) => self.cluster.block(from, to, false),
            Heal::Go(node) => self.cluster.hang(node, false),
            Heal::Room(node) => {
                if let Some(process) = self.cluster.process_mut(node) {
                    process.store_mut().full = false;
                }
            }
            Heal::Sync(node) => self.cluster.stop_syncs(node, false),
            Heal::Link(node) => self.cluster.set_conditions(node, self.conditions),
        }
    }

    fn later(&mut self, low_ms: u64, high_ms: u64, heal: Heal) {
        let at_us = self.cluster.now_us() + self.rng.between(low_ms, high_ms) * 1_000;
        self.heals.push((at_us, heal));
    }

    fn some_node(&mut self) -> usize {
        self.rng.between(0, self.cluster.nodes() as u64 - 1) as usize
    }

    /// A leaf and one of its hubs.
    fn some_pair(&mut self) -> (usize, usize) {
        let hubs = self.hubs as u64;
        let leaf = self.rng.between(hubs, self.cluster.nodes() as u64 - 1) as usize;
        (self.rng.between(0, hubs - 1) as usize, leaf)
    }

    /// How long a fault lasts: mostly short, now and then longer than a lease.
    fn some_ms(&mut self) -> u64 {
        match self.rng.between(0, 9) {
            0..=4 => self.rng.between(1, 1_000),
            5..=8 => self.rng.between(1_000, 15_000),
            _ => self.rng.between(15_000, 60_000),
        }
    }

    fn some_fault(&mut self) {
        if self.plan.faults.is_empty() {
            return;
        }
        let nth = self.rng.between(0, self.plan.faults.len() as u64 - 1) as usize;
        let fault = self.plan.faults[nth];
        let ms = self.some_ms();
        match fault {
            Fault::Partition => {
                let (hub, leaf) = self.some_pair();
                for (from, to) in [(hub, leaf), (leaf, hub)] {
                    self.cluster.block(from, to, true);
                    self.later(ms, ms, Heal::Unblock(from, to));
                }
            }
            Fault::OneWay => {
                let (hub, leaf) = self.some_pair();
                let (from, to) =
                    if self.rng.between(0, 1) == 0 { (hub, leaf) } else { (leaf, hub) };
                self.cluster.block(from, to, true);
                self.later(ms, ms, Heal::Unblock(from, to));
            }
            Fault::Reset => {
                let (hub, leaf) = self.some_pair();
                self.cluster.reset(hub, leaf);
            }
            Fault::Crash | Fault::PowerCut => {
                let node = self.some_node();
                self.cluster.crash(node, fault == Fault::Crash);
                self.cluster.boot_after(node, ms * 1_000);
            }
            Fault::RestartAll => {
                for node in 0..self.cluster.nodes() {
                    self.cluster.crash(node, true);
                    self.cluster.boot_after(node, 10_000);
                }
            }
            Fault::Hang => {
                let node = self.some_node();
                // A hung hub tells the end of a lease late; that is no fault of the lease.
                let node = if node < self.hubs { self.hubs } else { node };
                self.cluster.hang(node, true);
                self.later(ms, ms, Heal::Go(node));
            }
            Fault::WallStep => {
                let node = self.some_node();
                let step_ms = self.rng.between(0, 2 * 86_400_000) as i64 - 86_400_000;
                self.cluster.step_wall(node, step_ms);
            }
            Fault::DiskFull => {
                let node = self.some_node();
                if let Some(process) = self.cluster.process_mut(node) {
                    process.store_mut().full = true;
                }
                self.later(ms, ms, Heal::Room(node));
            }
            Fault::SlowDisk => {
                let node = self.some_node();
                self.cluster.stop_syncs(node, true);
                self.later(1, 3_000, Heal::Sync(node));
            }
            Fault::SlowLink => {
                let node = self.some_node();
                let conditions = Conditions {
                    latency_us: 500_000,
                    jitter_us: 200_000,
                    rate_bytes: 10_000,
                    ..self.conditions
                };
                self.cluster.set_conditions(node, conditions);
                self.later(ms, ms, Heal::Link(node));
            }
            Fault::Flip => {
                let node = self.some_node();
                let conditions = Conditions { flip_ppm: 50_000, ..self.conditions };
                self.cluster.set_conditions(node, conditions);
                self.later(ms, ms, Heal::Link(node));
            }
            Fault::RestartFollowers | Fault::TornWrite | Fault::SetBack | Fault::DiskFlip => {}
        }
    }

    /// Traffic and faults, as planned.
    ///
    /// # Errors
    /// What is broken, and where.
    pub fn storm(&mut self) -> Result<(), (Option<usize>, String)> {
        let end_us = self.cluster.now_us() + self.plan.duration_s * 1_000_000;
        while self.cluster.now_us() < end_us {
            let wait_ms = match self.rng.between(0, 3) {
                0 => self.rng.between(0, 5),
                1 => self.rng.between(0, 200),
                _ => self.rng.between(0, 2_000),
            };
            self.run_ms(wait_ms)?;
            self.heal_due();
            match self.rng.between(0, 9) {
                0..=5 => {
                    let node = self.some_node();
                    for _ in 0..self.rng.between(1, 6) {
                        let class = self.rng.between(0, 3) as u8;
                        let bytes = match self.rng.between(0, 19) {
                            0 => self.rng.between(1_000, 12_000),
                            _ => self.rng.between(8, 200),
                        };
                        self.post(node, class, bytes as usize);
                    }
                }
                6..=8 => self.some_fault(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends all faults and starts what is down.
    pub fn peace(&mut self) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.heal(heal);
        }
        for node in 0..self.cluster.nodes() {
            self.cluster.boot_after(node, 0);
            self.cluster.set_conditions(node, self.conditions);
        }
    }

    /// Waits until every acknowledged record is where it should be.
    ///
    /// # Errors
    /// What is missing after `deadline_s` seconds, or what is broken before.
    pub fn settle(&mut self, deadline_s: u64) -> Result<(), (Option<usize>, String)> {
        let deadline_us = self.cluster.now_us() + deadline_s * 1_000_000;
        loop {
            self.run_ms(500)?;
            let missing = self.checker.quiet(|node| self.targets(node));
            match missing {
                Ok(()) => return Ok(()),
                Err(what) if self.cluster.now_us() > deadline_us => return Err((None, what)),
                Err(_) => {}
            }
        }
    }

    /// Sums the run up.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            posts: self.checker.acknowledged(),
            leases_expired: self.checker.expired(),
            simulated_us: self.cluster.now_us(),
            cluster: self.cluster.counters(),
            digest: self.digest,
        }
    }
}

/// Seconds of peace after which everything must have arrived. Reconnecting waits up to 30 s, a
/// half-open link is noticed after three and a half keep-alives, and a lease may have to end first.
pub const SETTLE_S: u64 = 600;

/// Runs one seed. With `trace` a failure brings the trace along.
///
/// # Errors
/// What was broken.
pub fn run(plan: &Plan, seed: u64, trace: bool) -> Result<Outcome, Failure> {
    let mut run = Run::new(plan.clone(), seed);
    if trace {
        run.cluster.start_trace();
    }
    let result = run.storm().and_then(|()| {
        run.peace();
        run.settle(SETTLE_S)?;
        // Nothing goes round in circles: a quiet system stays quiet (HS-19).
        run.run_ms(30_000)
    });
    result.map_err(|(node, what)| Failure {
        seed,
        at_us: run.cluster.now_us(),
        node: node.map(|node| run.cluster.name(node).as_str().to_owned()),
        what,
        trace: run.cluster.trace().map(str::to_owned).collect(),
    })?;
    Ok(run.outcome())
}
