//! One run: a cluster, faults and changes of its members drawn from a seed; then a majority alone;
//! then peace, and the question whether all agree.

mod peace;
mod storm;

use replcore::contract::Transport;
use replcore::election::{ElectionConfig, Membership};
use replcore::member::MemberConfig;
use replcore::rng::Rng;

use self::storm::Heal;
use super::tamper::Bug;
use super::world::{KnownPeer, Memory, Spec, World, address, name};
use crate::campaign::Failure;
use crate::faults::Fault;
use crate::network::Conditions;

/// Starts of processes in one run, at most.
const LIVES: usize = 192;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct MembersPlan {
    /// Most nodes in all, 1 to 9. Each seed draws its own number.
    pub nodes: usize,
    /// How long faults and changes last, in seconds.
    pub duration_s: u64,
    /// Kinds of faults to draw from. With none nothing else happens either: the members idle, all
    /// of them, and no term may change.
    pub faults: Vec<Fault>,
    /// How the members are broken, to check the checker.
    pub bug: Option<Bug>,
}

impl MembersPlan {
    /// All faults over up to `nodes` nodes.
    pub fn new(nodes: usize) -> Self {
        Self { nodes, duration_s: 6, faults: Fault::CLUSTER.to_vec(), bug: None }
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
        // One file has a mistake, and enough others have none.
        if node == 0 && first - learners >= 4 && rng.between(0, 3) == 0 {
            peers.pop();
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
