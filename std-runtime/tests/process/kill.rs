//! The kill campaign: under load, processes are killed at random moments and started again.
//!
//! `REPLCORE_KILLS` (default 100) and `REPLCORE_SEED` set its length and its seed; 1,000 kills:
//!
//! ```text
//! REPLCORE_KILLS=1000 cargo test --release -p replcore-runtime --test process -- kill --nocapture
//! ```

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use replcore::rng::Rng;

use crate::harness::{Lab, Node, was_killed, within};
use crate::ledger::Auditor;
use crate::player::{Part, acknowledged, is_done};

/// For everything to arrive after the last kill.
const SETTLE: Duration = Duration::from_secs(180);

/// A producer or consumer.
struct Program {
    name: String,
    part: Part,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    fn start(&mut self) {
        self.child = Some(self.part.start(&self.log));
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let status = child.wait().unwrap();
        let told = status.success() && matches!(&self.part, Part::Consumer { .. });
        assert!(was_killed(status) || !told, "{} ended by itself: {status}", self.name);
    }

    /// Fails when it has ended by itself with an error.
    fn assert_well(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{} ended by itself: {status}", self.name);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Campaign {
    rng: Rng,
    nodes: Vec<Node>,
    producers: Vec<(Program, PathBuf)>,
    consumers: Vec<(Program, Auditor)>,
    stop: PathBuf,
}

impl Campaign {
    fn new(lab: &Lab) -> Self {
        let mut hub = lab.hub("hub", 9000);
        hub.set("http", &format!("listen = [{:?}]", lab.address(9100)));
        let brokers = [hub.as_broker()];
        let mut nodes = vec![hub];
        for number in 1..=3u16 {
            let mut leaf = lab.leaf(&format!("leaf-{number}"), 9000 + number, &brokers);
            leaf.set("http", &format!("listen = [{:?}]", lab.address(9100 + number)));
            nodes.push(leaf);
        }
        for node in &mut nodes {
            // Small, so that segments are freed while the campaign runs.
            node.set("limits", "log_bytes_max = 67108864");
        }
        let stop = lab.folder.join("stop");
        let (mut producers, mut consumers) = (Vec::new(), Vec::new());
        for (number, node) in nodes.iter().enumerate() {
            for http in [false, true] {
                // HTTP at two of the four.
                if http && number % 2 == 0 {
                    continue;
                }
                let name = format!("{}-{}", if http { "http" } else { "post" }, node.name);
                let journal = lab.folder.join(format!("{name}.journal"));
                let http_address = lab.address(9100 + number as u16);
                let address = if http { http_address } else { node.address.clone() };
                let (file, stop) = (journal.clone(), stop.clone());
                let part = match http {
                    false => Part::Producer {
                        name: name.clone(),
                        address,
                        journal: file,
                        stop,
                        per_second: 400,
                    },
                    true => Part::HttpProducer {
                        name: name.clone(),
                        address,
                        journal: file,
                        stop,
                        per_second: 200,
                    },
                };
                let log = lab.folder.join(format!("{name}.log"));
                producers.push((Program { name, part, log, child: None }, journal));
            }
            let name = format!("read-{}", node.name);
            let journal = lab.folder.join(format!("{name}.journal"));
            let auditor = Auditor::new(&name, &journal);
            let address = node.address.clone();
            let part = Part::Consumer { name: name.clone(), address, journal };
            let log = lab.folder.join(format!("{name}.log"));
            consumers.push((Program { name, part, log, child: None }, auditor));
        }
        Self { rng: Rng::new(lab.seed), nodes, producers, consumers, stop }
    }

    fn start(&mut self) {
        for node in &mut self.nodes {
            node.start();
        }
        // A registered leaf has a queue at the hub: from now on everything is for everybody.
        let nodes = &self.nodes;
        within(Duration::from_secs(60), "the leaves register", || nodes[0].live_leaves() == 3);
        self.producers.iter_mut().for_each(|(program, _)| program.start());
        self.consumers.iter_mut().for_each(|(program, _)| program.start());
    }

    /// Kills one process, or now and then all nodes; lets some time pass; starts it again. Returns
    /// the number of processes killed.
    fn strike(&mut self) -> u32 {
        let victims: Vec<usize> = match self.rng.between(0, 19) {
            0 => (0..self.nodes.len()).collect(),
            1..=5 => vec![0],
            6..=11 => vec![self.rng.between(1, 3) as usize],
            12 | 13 => vec![0, self.rng.between(1, 3) as usize],
            14..=16 => {
                let at = self.rng.between(0, self.producers.len() as u64 - 1) as usize;
                self.producers[at].0.kill();
                self.pause(200);
                self.producers[at].0.start();
                return 1;
            }
            _ => {
                let at = self.rng.between(0, self.consumers.len() as u64 - 1) as usize;
                self.consumers[at].0.kill();
                self.pause(200);
                self.consumers[at].0.start();
                return 1;
            }
        };
        victims.iter().for_each(|at| self.nodes[*at].kill());
        self.pause(300);
        victims.iter().for_each(|at| self.nodes[*at].spawn());
        victims.len() as u32
    }

    fn pause(&mut self, ms_max: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.between(0, ms_max)));
    }

    fn look(&mut self) {
        self.nodes.iter_mut().for_each(Node::assert_alive);
        self.producers.iter_mut().for_each(|(program, _)| program.assert_well());
        for (program, auditor) in &mut self.consumers {
            program.assert_well();
            auditor.look();
        }
    }

    /// Ends the load and waits until everything that was acknowledged is everywhere.
    fn settle(&mut self) -> u64 {
        std::fs::write(&self.stop, "").unwrap();
        let deadline = Instant::now() + SETTLE;
        while !self.producers.iter().all(|(_, journal)| is_done(journal)) {
            self.look();
            assert!(Instant::now() < deadline, "the producers do not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        let posted: Vec<(String, u64)> = self
            .producers
            .iter()
            .map(|(program, journal)| (program.name.clone(), acknowledged(journal)))
            .collect();
        loop {
            self.look();
            let mut missing = Vec::new();
            for (_, auditor) in &self.consumers {
                for (producer, last) in &posted {
                    if !auditor.has_all(producer, *last) {
                        let have = auditor.progress(producer);
                        missing.push(format!("{producer} {last}: {have:?}"));
                    }
                }
            }
            if missing.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "lost or late: {missing:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        posted.iter().map(|(_, last)| last).sum()
    }
}

/// HS-15, HS-16, HS-21, HS-22.
#[test]
fn processes_killed_at_random_lose_and_double_nothing() {
    let kills_wanted = std::env::var("REPLCORE_KILLS").ok().and_then(|text| text.parse().ok());
    let kills_wanted: u32 = kills_wanted.unwrap_or(100);
    let lab = Lab::new("kill");
    println!("kill campaign: {kills_wanted} kills, REPLCORE_SEED={}", lab.seed);
    let mut campaign = Campaign::new(&lab);
    campaign.start();
    let start = Instant::now();
    let (mut kills, mut told) = (0, 0);
    while kills < kills_wanted {
        campaign.pause(1200);
        kills += campaign.strike();
        campaign.look();
        if kills / 50 > told {
            told = kills / 50;
            let processed: u64 = campaign.consumers.iter().map(|(_, it)| it.count).sum();
            println!("{kills} kills, {processed} processed, {:?}", start.elapsed());
        }
    }
    let posted = campaign.settle();
    let everywhere = posted * campaign.consumers.len() as u64;
    let processed: u64 = campaign.consumers.iter().map(|(_, it)| it.count).sum();
    let again: u64 = campaign.consumers.iter().map(|(_, it)| it.again).sum();
    println!(
        "{kills} kills in {:?}: {posted} posted, {processed} of {everywhere} processed, {again} \
         delivered again to a consumer that was killed or cut off, lost 0, doubled 0",
        start.elapsed()
    );
    assert_eq!(processed, everywhere);
    assert!(posted > u64::from(kills) * 10, "too little went on to prove anything: {posted}");
}
