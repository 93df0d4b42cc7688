//! `replcore-sim`: runs seeds of the simulation and says which failed.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use replcore_sim::campaign::{Failure, Outcome, Plan, run};
use replcore_sim::faults::Fault;
use replcore_sim::members::campaign::{self as members, MembersOutcome, MembersPlan};
use replcore_sim::members::tamper::Bug;
use replcore_sim::model::StoreBugs;
use replcore_sim::system_run::{self, SystemPlan};

/// Runs hubs and leaves in virtual time, from seeds, through faults of network, disk, clock and
/// processes, and checks after every step that nothing acknowledged is lost, nothing applied twice,
/// no order broken and no lease cut short. When the faults end, everything must arrive.
///
/// With `--level cluster` it runs members that elect a leader, and checks that never two lead at
/// one instant or in one term, that no vote and no configuration is forgotten or given twice, that
/// no lease outlasts the promises of a majority, and that a majority that can talk has a leader.
///
/// Each seed draws its own topology, links, traffic and faults. A failing seed fails again in the
/// same way: run it with `--seed N --trace` to read what happened. The last line is
/// `N passed, M failed`; the exit status is 0 when none failed, 1 when some did, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "replcore-sim", version, verbatim_doc_comment)]
struct Arguments {
    /// How many seeds to run, from --first on.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Nodes in all, hubs included, 2 to 50. At the cluster level the most, 1 to 9: each seed draws
    /// its own number.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
    nodes: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened in every seed that fails: time in seconds, node, event.
    #[arg(long)]
    trace: bool,
    /// What is simulated: `machine` for the protocol's machines over a model of a store, `system`
    /// for the daemon's own engine and store on disks in memory, or both, one after the other;
    /// `cluster` for members that elect a leader.
    #[arg(long, value_enum, default_value_t = Level::Both)]
    level: Level,
    /// How long traffic and faults last, in seconds of the simulation, 1 to 604,800. By default 120
    /// at the machine level, 40 at the system level and 6 at the cluster level.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    duration: Option<u64>,
    /// Kinds of faults to draw from, with commas between: partition, one-way, reset, crash,
    /// power-cut, restart-all, hang, wall-step, disk-full, slow-disk, slow-link, flip; at the
    /// system level torn-write, set-back, disk-flip as well, and no slow-disk; at the cluster level
    /// the first twelve but wall-step, and restart-followers; or `none`, with which a cluster only
    /// idles. By default all.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Kinds of faults to leave out of those, with commas between.
    #[arg(long, value_delimiter = ',')]
    except: Vec<String>,
    /// Break the stores on purpose, to see the checks catch it: commit-forgets, no-dedupe, swaps,
    /// reuses-numbers, rewrites-bodies, sends-back; at the system level lying-disks and
    /// forgets-origins; at the cluster level vote-before-stored, two-votes, vote-forgotten,
    /// lease-from-answer, no-silence, half-is-majority, change-unsettled, pre-vote-hides-term.
    #[arg(long)]
    bug: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Machine,
    System,
    Both,
    Cluster,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::System => "system",
            Self::Both => "both",
            Self::Cluster => "cluster",
        }
    }
}

/// The first name among the faults that none of the levels knows.
fn unknown_fault<'a>(arguments: &'a Arguments, levels: &[&[Fault]]) -> Option<&'a str> {
    let known = |name: &str| levels.iter().any(|all| Fault::named(name, all).is_some());
    let asked = arguments.faults.iter().filter(|name| *name != "none");
    asked.chain(&arguments.except).map(String::as_str).find(|name| !known(name))
}

/// What a level with the faults `all` draws from, in the order in which it was asked for.
fn chosen_faults(arguments: &Arguments, all: &[Fault]) -> Vec<Fault> {
    let named = |names: &[String]| -> Vec<Fault> {
        names.iter().filter_map(|name| Fault::named(name, all)).collect()
    };
    let except = named(&arguments.except);
    let mut chosen = match &arguments.faults[..] {
        [] => all.to_vec(),
        asked => named(asked),
    };
    chosen.retain(|fault| !except.contains(fault));
    chosen
}

fn plan(arguments: &Arguments) -> Result<(Plan, SystemPlan), String> {
    let nodes = arguments.nodes as usize;
    if nodes < 2 {
        return Err("--nodes must be 2 or more but at the cluster level".to_owned());
    }
    let (mut plan, mut system) = (Plan::new(nodes), SystemPlan::new(nodes));
    plan.duration_s = arguments.duration.unwrap_or(plan.duration_s);
    system.duration_s = arguments.duration.unwrap_or(system.duration_s);
    if let Some(name) = unknown_fault(arguments, &[&Fault::MACHINE, &Fault::SYSTEM]) {
        return Err(format!("`{name}` is no kind of fault; see --help for the list"));
    }
    plan.faults = chosen_faults(arguments, &Fault::MACHINE);
    system.faults = chosen_faults(arguments, &Fault::SYSTEM);
    let bugs = StoreBugs::default();
    match arguments.bug.as_deref() {
        None => {}
        Some("commit-forgets") => plan.bugs = StoreBugs { commit_forgets: true, ..bugs },
        Some("no-dedupe") => plan.bugs = StoreBugs { no_dedupe: true, ..bugs },
        Some("swaps") => plan.bugs = StoreBugs { swaps: true, ..bugs },
        Some("reuses-numbers") => plan.bugs = StoreBugs { reuses_numbers: true, ..bugs },
        Some("rewrites-bodies") => plan.bugs = StoreBugs { rewrites_bodies: true, ..bugs },
        Some("sends-back") => plan.bug_sends_back = true,
        Some("lying-disks") => system.bug_disks_lie = true,
        Some("forgets-origins") => system.bug_forgets_origins = true,
        Some(other) => return Err(format!("`{other}` is no bug that can be planted; see --help")),
    }
    Ok((plan, system))
}

fn seeds(arguments: &Arguments) -> Range<u64> {
    match arguments.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => arguments.first..arguments.first.saturating_add(arguments.seeds),
    }
}

fn cluster_plan(arguments: &Arguments) -> Result<MembersPlan, String> {
    if arguments.nodes > 9 {
        return Err("--nodes must be 1 to 9 at the cluster level".to_owned());
    }
    let mut plan = MembersPlan::new(arguments.nodes as usize);
    plan.duration_s = arguments.duration.unwrap_or(plan.duration_s);
    if let Some(name) = unknown_fault(arguments, &[&Fault::CLUSTER]) {
        return Err(format!("`{name}` is no fault of a cluster; see --help for the list"));
    }
    plan.faults = chosen_faults(arguments, &Fault::CLUSTER);
    if let Some(name) = &arguments.bug {
        let known = Bug::ALL.iter().find(|(known, _)| known == name);
        let Some((_, bug)) = known else {
            return Err(format!("`{name}` is no bug of a cluster; see --help"));
        };
        plan.bug = Some(*bug);
    }
    Ok(plan)
}

/// The cluster level: every seed stands for itself, so they are shared among the cores.
fn run_cluster(arguments: &Arguments) -> ExitCode {
    let plan = match cluster_plan(arguments) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("replcore-sim: {message}");
            return ExitCode::from(2);
        }
    };
    let seeds = seeds(arguments);
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new((Vec::new(), MembersOutcome::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = members::run(&plan, seed, arguments.trace);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(outcome) => {
                    add_members(&mut done.1, &outcome);
                    if arguments.seed.is_some() {
                        println!("seed {seed}, cluster: digest {:016x}", outcome.digest);
                    }
                }
                Err(failure) => {
                    show(arguments, Level::Cluster, &failure);
                    done.0.push(seed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
        work();
    });
    let (failed, total) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let simulated_s = total.simulated_us as f64 / 1e6;
    println!(
        "{} inputs, {} crashes, {} terms with a leader, {} configurations; {simulated_s:.0} s \
         simulated in {:.1} s",
        total.events,
        total.crashes,
        total.leaders,
        total.configurations,
        started.elapsed().as_secs_f64(),
    );
    println!("{} passed, {} failed", seeds.end - seeds.start - failed.len() as u64, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn add_members(total: &mut MembersOutcome, outcome: &MembersOutcome) {
    total.events += outcome.events;
    total.crashes += outcome.crashes;
    total.leaders += outcome.leaders;
    total.configurations += outcome.configurations;
    total.simulated_us += outcome.simulated_us;
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.level == Level::Cluster {
        return run_cluster(&arguments);
    }
    let (plan, system) = match plan(&arguments) {
        Ok(plans) => plans,
        Err(message) => {
            eprintln!("replcore-sim: {message}");
            return ExitCode::from(2);
        }
    };
    let seeds = seeds(&arguments);
    let started = Instant::now();
    let (mut passed, mut failed) = (0_u64, Vec::new());
    let mut total = Outcome::default();
    for seed in seeds {
        let mut passes = true;
        for level in [Level::Machine, Level::System] {
            if arguments.level != Level::Both && arguments.level != level {
                continue;
            }
            let result = match level {
                Level::System => system_run::run(&system, seed, arguments.trace),
                _ => run(&plan, seed, arguments.trace),
            };
            match result {
                Ok(outcome) => {
                    add(&mut total, &outcome);
                    if arguments.seed.is_some() {
                        println!("seed {seed}, {}: digest {:016x}", level.name(), outcome.digest);
                    }
                }
                Err(failure) => {
                    passes = false;
                    show(&arguments, level, &failure);
                }
            }
        }
        if passes {
            passed += 1;
        } else {
            failed.push(seed);
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r{passed} passed, {} failed ", failed.len());
            let _ = std::io::stderr().flush();
        }
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let (took_s, simulated_s) = (started.elapsed().as_secs_f64(), total.simulated_us as f64 / 1e6);
    println!(
        "{} events, {} posts acknowledged, {} crashes, {} links; {simulated_s:.0} s simulated in \
         {took_s:.1} s, {:.0} times as fast",
        total.cluster.events,
        total.posts,
        total.cluster.crashes,
        total.cluster.links,
        simulated_s / took_s.max(1e-9),
    );
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn add(total: &mut Outcome, outcome: &Outcome) {
    total.posts += outcome.posts;
    total.simulated_us += outcome.simulated_us;
    total.cluster.crashes += outcome.cluster.crashes;
    total.cluster.events += outcome.cluster.events;
    total.cluster.links += outcome.cluster.links;
}

fn show(arguments: &Arguments, level: Level, failure: &Failure) {
    for line in &failure.trace {
        println!("{line}");
    }
    println!("{} level, {failure}", level.name());
    println!(
        "  again: replcore-sim --seed {} --nodes {} --level {}{} --trace",
        failure.seed,
        arguments.nodes,
        level.name(),
        options(arguments),
    );
}

/// The options that change what a seed means.
fn options(arguments: &Arguments) -> String {
    let mut text = String::new();
    if let Some(duration_s) = arguments.duration {
        text += &format!(" --duration {duration_s}");
    }
    if !arguments.faults.is_empty() {
        text += &format!(" --faults {}", arguments.faults.join(","));
    }
    if !arguments.except.is_empty() {
        text += &format!(" --except {}", arguments.except.join(","));
    }
    if let Some(bug) = &arguments.bug {
        text += &format!(" --bug {bug}");
    }
    text
}
