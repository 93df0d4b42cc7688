//! One run of whole engines and stores: as [`crate::campaign`], with what the daemon runs.

use replcore::contract::Transport;
use replcore::rng::Rng;
use replcore::stream::{Name, QueueKey};
use replcore_runtime::store::{MemoryDisk, QueueKind, Store};

use crate::campaign::{Failure, Outcome, SETTLE_S};
use crate::clock::Clock;
use crate::cluster::{Cluster, Spec};
use crate::faults::Fault;
use crate::invariants::{Checker, Expectations};
use crate::network::Conditions;
use crate::process::Post;
use crate::system::{Member, SystemSettings, Systems};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct SystemPlan {
    /// Nodes in all, at least 2.
    pub nodes: usize,
    /// How long faults and traffic last, in seconds of the simulation.
    pub duration_s: u64,
    /// Kinds of faults to draw from; none for a fair-weather run.
    pub faults: Vec<Fault>,
    /// Break the disks, to check the checker: they say that they have synced, and have not.
    pub bug_disks_lie: bool,
    /// Break the stores, to check the checker: they forget what they have taken.
    pub bug_forgets_origins: bool,
}

impl SystemPlan {
    /// All faults over `nodes` nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            duration_s: 40,
            faults: Fault::SYSTEM.to_vec(),
            bug_disks_lie: false,
            bug_forgets_origins: false,
        }
    }
}

/// What is broken, and at which node.
pub type Broken = (Option<usize>, String);

#[derive(Clone, Copy, Debug)]
enum Heal {
    Unblock(usize, usize),
    Go(usize),
    Room(usize),
    Link(usize),
}

/// A system of engines and everything that is done to it.
pub struct SystemRun {
    /// The nodes; hubs first.
    pub cluster: Cluster<Systems>,
    /// The rules.
    pub checker: Checker,
    rng: Rng,
    plan: SystemPlan,
    hubs: usize,
    conditions: Conditions,
    heals: Vec<(u64, Heal)>,
    images: Vec<(usize, MemoryDisk)>,
    posts: Vec<(usize, u64, Post)>,
    reclaims: bool,
    /// One disk of a run loses what was safe: two that forget the same have no way to know.
    restored: bool,
    digest: u64,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a made-up name is sound")
}

impl SystemRun {
    /// Sets a system up from a seed.
    pub fn new(mut plan: SystemPlan, seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5359_5354_454d);
        let hubs = if plan.nodes >= 3 && rng.between(0, 2) == 0 { 2 } else { 1 };
        let small = rng.between(0, 2) == 0;
        let settings = SystemSettings {
            keepalive_ms: [1_000, 3_000][rng.between(0, 1) as usize],
            poll_interval_ms: if rng.between(0, 7) == 0 { 3_000 } else { 0 },
            window_bytes: [4_096, 16_384, 1 << 20][rng.between(0, 2) as usize],
            frame_bytes_max: [1_024, 4_096, 65_536][rng.between(0, 2) as usize],
            compressed: rng.between(0, 2) == 0,
            retain_bytes: if small { 64 << 10 } else { 64 << 20 },
            bug_disks_lie: plan.bug_disks_lie,
            bug_forgets_origins: plan.bug_forgets_origins,
            ..SystemSettings::default()
        };
        // What an operator sets back excuses much of what went before; most runs are without.
        if rng.between(0, 3) > 0 && plan.faults.len() > 2 {
            plan.faults.retain(|fault| !matches!(fault, Fault::SetBack | Fault::DiskFlip));
        }
        // A store without room lets go what no queue needs, and then a restart cannot show that all
        // is kept; in one half of the runs it must be.
        if rng.between(0, 1) == 0 && plan.faults.len() > 1 {
            plan.faults.retain(|fault| *fault != Fault::DiskFull);
        }
        let mut conditions = Conditions {
            latency_us: [50, 1_000, 40_000][rng.between(0, 2) as usize],
            window_bytes: if rng.between(0, 2) == 0 { 4_096 } else { 65_536 },
            ..Conditions::default()
        };
        conditions.jitter_us = rng.between(0, conditions.latency_us);
        Self::with(plan, seed, hubs, settings, conditions, rng)
    }

    /// Sets a system of given settings up.
    pub fn with(
        plan: SystemPlan,
        seed: u64,
        hubs: usize,
        settings: SystemSettings,
        conditions: Conditions,
        mut rng: Rng,
    ) -> Self {
        let hub_names: Vec<Name> = (0..hubs).map(|n| name(&format!("hub-{n}"))).collect();
        let leaf_names = (0..plan.nodes - hubs).map(|n| name(&format!("leaf-{n}")));
        let hub_members = hub_names.iter().map(|name| Member { name: *name, hubs: Vec::new() });
        let leaf_members = leaf_names.map(|name| Member { name, hubs: hub_names.clone() });
        let members: Vec<Member> = hub_members.chain(leaf_members).collect();
        let links_max = (plan.nodes * 2 + 4) as u32;
        let specs = members.iter().map(|member| Spec {
            name: member.name,
            dials: if member.hubs.is_empty() { Vec::new() } else { (0..hubs).collect() },
            links_max: if member.hubs.is_empty() { links_max } else { hubs as u32 + 1 },
            transport: Transport::Stream,
            conditions,
            sync_us: (20, rng.between(50, 10_000)),
            clock: Clock::new(rng.between(0, 1_000) as i64 - 500, rng.between(0, 1_000_000_000)),
        });
        let specs: Vec<Spec> = specs.collect();
        let expectations = Expectations {
            lease_us: 0,
            tick_us: 0,
            drops: settings.queue_limits.is_some(),
            keeps_unseen: true,
            reclaims: settings.retain_bytes < 1 << 20 || plan.faults.contains(&Fault::DiskFull),
        };
        let identities = members.iter().map(|member| member.name.node_id()).collect();
        let systems = Systems::new(members, settings, links_max, seed);
        Self {
            cluster: Cluster::new(systems, specs, rng.next_u64()),
            checker: Checker::new(identities, expectations),
            rng,
            plan,
            hubs,
            conditions,
            heals: Vec::new(),
            images: Vec::new(),
            posts: Vec::new(),
            reclaims: expectations.reclaims,
            restored: false,
            digest: seed,
        }
    }

    /// The nodes that should have what is posted at `node`.
    fn targets(hubs: usize, nodes: usize, node: usize) -> Vec<usize> {
        if node < hubs {
            // The other hubs hear nothing of it.
            (hubs..nodes).collect()
        } else {
            (0..nodes).filter(|target| *target != node).collect()
        }
    }

    /// Posts a message of `bytes` at a node.
    pub fn post(&mut self, node: usize, class: u8, bytes: usize) -> u64 {
        let mark = self.posts.len() as u64 + 1;
        let mut body = mark.to_le_bytes().to_vec();
        body.resize(bytes.max(8), mark as u8);
        let idempotency_key = mark.to_le_bytes().to_vec();
        let post = Post { class, message_type: "sample", idempotency_key, body };
        self.posts.push((node, mark, post.clone()));
        self.cluster.post(node, mark, post);
        mark
    }

    /// A program that got no answer posts again, with the same idempotency key.
    pub fn repeat(&mut self, mark: u64) {
        let (node, mark, post) = self.posts[mark as usize - 1].clone();
        self.cluster.post(node, mark, post);
    }

    /// Lets time pass, up to `until_us`, and checks every step.
    ///
    /// # Errors
    /// What is broken, and where.
    pub fn run_until(&mut self, until_us: u64) -> Result<(), Broken> {
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
    pub fn run_ms(&mut self, ms: u64) -> Result<(), Broken> {
        self.run_until(self.cluster.now_us() + ms * 1_000)
    }

    /// Waits until every leaf is registered at every hub and has been told so: before, a hub
    /// dispatches nothing to it, or would not any more if it was cut off power.
    ///
    /// # Errors
    /// They do not in 60 seconds, or something is broken.
    pub fn assemble(&mut self) -> Result<(), Broken> {
        let leaves = self.cluster.nodes() - self.hubs;
        for _ in 0..600 {
            self.run_ms(100)?;
            let there = |hub| self.cluster.process(hub).is_some_and(|hub| hub.leaves() == leaves);
            let told = |leaf| {
                self.cluster.process(leaf).is_some_and(|leaf| leaf.is_registered_at(self.hubs))
            };
            if (0..self.hubs).all(there) && (self.hubs..self.cluster.nodes()).all(told) {
                return Ok(());
            }
        }
        Err((None, "the leaves do not register".to_owned()))
    }

    fn heal_due(&mut self) {
        let now_us = self.cluster.now_us();
        let (due, later) = self.heals.drain(..).partition(|(at_us, _)| *at_us <= now_us);
        self.heals = later;
        self.heal_all(due);
    }

    fn heal_all(&mut self, heals: Vec<(u64, Heal)>) {
        for (_, heal) in heals {
            match heal {
                Heal::Unblock(from, to) => self.cluster.block(from, to, false),
                Heal::Go(node) => self.cluster.hang(node, false),
                Heal::Room(node) => self.cluster.machinery_mut().disk(node).set_bytes_max(None),
                Heal::Link(node) => self.cluster.set_conditions(node, self.conditions),
            }
        }
    }

    fn later(&mut self, ms: u64, heal: Heal) {
        self.heals.push((self.cluster.now_us() + ms * 1_000, heal));
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

    fn some_ms(&mut self) -> u64 {
        match self.rng.between(0, 9) {
            0..=5 => self.rng.between(1, 500),
            6..=8 => self.rng.between(500, 5_000),
            _ => self.rng.between(5_000, 20_000),
        }
    }

    fn some_fault(&mut self) {
        if self.plan.faults.is_empty() {
            return;
        }
        let nth = self.rng.between(0, self.plan.faults.len() as u64 - 1) as usize;
        let (fault, ms, mut node) = (self.plan.faults[nth], self.some_ms(), self.some_node());
        if matches!(fault, Fault::SetBack | Fault::DiskFlip) {
            // A hub that was set back may serve one leaf before another tells it, see `Fault`.
            node = self.some_pair().1;
        }
        match fault {
            Fault::Partition | Fault::OneWay => {
                let (hub, leaf) = self.some_pair();
                let ways = match (fault, self.rng.between(0, 1)) {
                    (Fault::Partition, _) => vec![(hub, leaf), (leaf, hub)],
                    (_, 0) => vec![(hub, leaf)],
                    _ => vec![(leaf, hub)],
                };
                for (from, to) in ways {
                    self.cluster.block(from, to, true);
                    self.later(ms, Heal::Unblock(from, to));
                }
            }
            Fault::Reset => {
                let (hub, leaf) = self.some_pair();
                self.cluster.reset(hub, leaf);
            }
            Fault::Crash | Fault::PowerCut => {
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
                self.cluster.hang(node, true);
                self.later(ms, Heal::Go(node));
            }
            Fault::WallStep => {
                let step_ms = self.rng.between(0, 2 * 86_400_000) as i64 - 86_400_000;
                self.cluster.step_wall(node, step_ms);
            }
            Fault::DiskFull => {
                let disk = self.cluster.machinery_mut().disk(node);
                disk.set_bytes_max(Some(disk.used_bytes()));
                self.later(ms, Heal::Room(node));
            }
            Fault::SlowLink | Fault::Flip => {
                let conditions = if fault == Fault::Flip {
                    Conditions { flip_ppm: 50_000, ..self.conditions }
                } else {
                    let (latency_us, jitter_us, rate_bytes) = (500_000, 200_000, 10_000);
                    Conditions { latency_us, jitter_us, rate_bytes, ..self.conditions }
                };
                self.cluster.set_conditions(node, conditions);
                self.later(ms, Heal::Link(node));
            }
            Fault::TornWrite if !self.cluster.runs(node) => {}
            Fault::TornWrite => {
                let changes = self.rng.between(0, 40);
                self.cluster.machinery_mut().disk(node).stop_after(changes);
            }
            Fault::SetBack => self.copy_or_set_back(node, ms),
            Fault::DiskFlip if self.restored => {}
            Fault::DiskFlip => {
                self.restored = true;
                // One half under a node that goes on, and meets it when it reads.
                let runs = ms % 2 == 1 && self.cluster.runs(node);
                if !runs {
                    self.cluster.crash(node, true);
                }
                let place = self.cluster.machinery_mut().flip(node, runs, &mut self.rng);
                self.cluster.remark(node, &format!("a bit flips in {place:?}"));
                self.checker.set_back(node, node < self.hubs);
                if !runs {
                    self.cluster.boot_after(node, ms * 1_000);
                }
            }
            Fault::SlowDisk | Fault::RestartFollowers => {}
        }
    }

    fn copy_or_set_back(&mut self, node: usize, ms: u64) {
        if self.restored {
            return;
        }
        match self.images.iter().position(|(of, _)| *of == node) {
            Some(at) => {
                self.restored = true;
                let (_, image) = self.images.swap_remove(at);
                self.set_back(node, &image);
                self.cluster.boot_after(node, ms * 1_000);
            }
            None => {
                let image = self.cluster.machinery_mut().disk(node).image();
                self.images.push((node, image));
            }
        }
    }

    /// Ends the process of a node and sets its disk back.
    pub fn set_back(&mut self, node: usize, image: &MemoryDisk) {
        self.cluster.crash(node, true);
        self.cluster.machinery_mut().restore(node, image);
        self.cluster.remark(node, "its disk is set back to an older copy");
        self.checker.set_back(node, node < self.hubs);
    }

    /// Traffic and faults, as planned.
    ///
    /// # Errors
    /// What is broken, and where.
    pub fn storm(&mut self) -> Result<(), Broken> {
        let end_us = self.cluster.now_us() + self.plan.duration_s * 1_000_000;
        while self.cluster.now_us() < end_us {
            let wait_ms = match self.rng.between(0, 3) {
                0 => self.rng.between(0, 5),
                1 => self.rng.between(0, 200),
                _ => self.rng.between(0, 1_000),
            };
            self.run_ms(wait_ms)?;
            self.heal_due();
            match self.rng.between(0, 9) {
                0..=4 => self.some_posts(),
                5 => self.some_repeats(),
                6..=8 => self.some_fault(),
                _ => {}
            }
        }
        Ok(())
    }

    fn some_posts(&mut self) {
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

    fn some_repeats(&mut self) {
        if self.reclaims {
            // The keys of what is gone from the log are gone from an index in memory, too.
            return;
        }
        let open: Vec<u64> = self.posts.iter().map(|(_, mark, _)| *mark).collect();
        for mark in open {
            if self.checker.posted(mark).is_none() || self.rng.between(0, 49) == 0 {
                self.repeat(mark);
            }
        }
    }

    /// Ends all faults and starts what is down.
    pub fn peace(&mut self) {
        let heals = std::mem::take(&mut self.heals);
        self.heal_all(heals);
        for node in 0..self.cluster.nodes() {
            self.cluster.boot_after(node, 0);
            self.cluster.set_conditions(node, self.conditions);
        }
    }

    /// What some queue still holds.
    fn waiting(&self) -> Result<(), String> {
        for node in 0..self.cluster.nodes() {
            let Some(engine) = self.cluster.process(node).and_then(|process| process.engine())
            else {
                return Err(format!("node {node} does not run"));
            };
            for queue in engine.store().queues(engine.wall_ms(), None, 100) {
                for class in 0..queue.messages.len() as u8 {
                    let key = QueueKey { queue: queue.name.queue_id(), class };
                    let Some(holding) = engine.store().holding(key) else { continue };
                    if holding.released > holding.next {
                        return Err(format!("{key:?} at node {node} is released beyond its end"));
                    }
                    if holding.released < holding.next && queue.kind != QueueKind::DeadLetter {
                        let (from, to) = (holding.released.0, holding.next.0);
                        return Err(format!(
                            "queue {}, class {class}, at node {node} holds {from} to {to}",
                            queue.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until every acknowledged post is where it should be, and every queue is empty.
    ///
    /// # Errors
    /// What is missing after `deadline_s` seconds, or what is broken before.
    pub fn settle(&mut self, deadline_s: u64) -> Result<(), Broken> {
        let deadline_us = self.cluster.now_us() + deadline_s * 1_000_000;
        loop {
            self.run_ms(500)?;
            let (hubs, nodes) = (self.hubs, self.cluster.nodes());
            let quiet = self.checker.quiet_by_posts(|node| Self::targets(hubs, nodes, node));
            match quiet.and_then(|()| self.waiting()) {
                Ok(()) => return Ok(()),
                Err(what) if self.cluster.now_us() > deadline_us => return Err((None, what)),
                Err(_) => {}
            }
        }
    }
}

/// Runs one seed. With `trace` a failure brings the trace along.
///
/// # Errors
/// What was broken.
pub fn run(plan: &SystemPlan, seed: u64, trace: bool) -> Result<Outcome, Failure> {
    let mut run = SystemRun::new(plan.clone(), seed);
    if trace {
        run.cluster.start_trace();
    }
    let result = run.assemble().and_then(|()| {
        run.storm()?;
        run.peace();
        run.settle(SETTLE_S)?;
        // Nothing goes round in circles: a quiet system stays quiet (HS-19).
        run.run_ms(10_000)
    });
    result.map_err(|(node, what)| Failure {
        seed,
        at_us: run.cluster.now_us(),
        node: node.map(|node| run.cluster.name(node).as_str().to_owned()),
        what,
        trace: run.cluster.trace().map(str::to_owned).collect(),
    })?;
    Ok(Outcome {
        posts: run.checker.acknowledged(),
        leases_expired: run.checker.expired(),
        simulated_us: run.cluster.now_us(),
        cluster: run.cluster.counters(),
        digest: run.digest,
    })
}
