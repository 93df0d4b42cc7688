//! `replcore-sim`: runs seeds of the simulation and says which failed.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use replcore_sim::campaign::{Fault, Outcome, Plan, run};
use replcore_sim::model::StoreBugs;

/// Runs hubs and leaves in virtual time, from seeds, through faults of network, disk, clock and
/// processes, and checks after every step that nothing acknowledged is lost, nothing applied twice,
/// no order broken and no lease cut short. When the faults end, everything must arrive.
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
    /// Nodes in all, hubs included, 2 to 50.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=50))]
    nodes: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened in every seed that fails: time in seconds, node, event.
    #[arg(long)]
    trace: bool,
    /// How long traffic and faults last, in seconds of the simulation, 1 to 86,400.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Kinds of faults to draw from, with commas between: partition, one-way, reset, crash,
    /// power-cut, restart-all, hang, wall-step, disk-full, slow-disk, slow-link, flip; or `none`.
    /// All of them by default.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Break the stores on purpose, to see the checks catch it: commit-forgets, no-dedupe, swaps,
    /// reuses-numbers, rewrites-bodies, sends-back.
    #[arg(long)]
    bug: Option<String>,
}

fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let mut plan = Plan::new(arguments.nodes as usize);
    plan.duration_s = arguments.duration;
    if !arguments.faults.is_empty() {
        plan.faults.clear();
        for name in arguments.faults.iter().filter(|name| *name != "none") {
            let known = Fault::ALL.iter().find(|(known, _)| known == name);
            let Some((_, fault)) = known else {
                return Err(format!("`{name}` is no kind of fault; see --help for the list"));
            };
            plan.faults.push(*fault);
        }
    }
    let bugs = StoreBugs::default();
    match arguments.bug.as_deref() {
        None => {}
        Some("commit-forgets") => plan.bugs = StoreBugs { commit_forgets: true, ..bugs },
        Some("no-dedupe") => plan.bugs = StoreBugs { no_dedupe: true, ..bugs },
        Some("swaps") => plan.bugs = StoreBugs { swaps: true, ..bugs },
        Some("reuses-numbers") => plan.bugs = StoreBugs { reuses_numbers: true, ..bugs },
        Some("rewrites-bodies") => plan.bugs = StoreBugs { rewrites_bodies: true, ..bugs },
        Some("sends-back") => plan.bug_sends_back = true,
        Some(other) => return Err(format!("`{other}` is no bug that can be planted; see --help")),
    }
    Ok(plan)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("replcore-sim: {message}");
            return ExitCode::from(2);
        }
    };
    let seeds = match arguments.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => arguments.first..arguments.first.saturating_add(arguments.seeds),
    };
    let started = Instant::now();
    let (mut passed, mut failed) = (0_u64, Vec::new());
    let mut total = Outcome::default();
    for seed in seeds {
        match run(&plan, seed, arguments.trace) {
            Ok(outcome) => {
                passed += 1;
                total.posts += outcome.posts;
                total.simulated_us += outcome.simulated_us;
                total.cluster.crashes += outcome.cluster.crashes;
                total.cluster.events += outcome.cluster.events;
                total.cluster.links += outcome.cluster.links;
                if arguments.seed.is_some() {
                    println!("seed {seed}: digest {:016x}", outcome.digest);
                }
            }
            Err(failure) => {
                for line in &failure.trace {
                    println!("{line}");
                }
                println!("{failure}");
                println!(
                    "  again: replcore-sim --seed {seed} --nodes {} --duration {} --trace{}",
                    arguments.nodes,
                    arguments.duration,
                    options(&arguments),
                );
                failed.push(seed);
            }
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

/// The options that change what a seed means.
fn options(arguments: &Arguments) -> String {
    let mut text = String::new();
    if !arguments.faults.is_empty() {
        text += &format!(" --faults {}", arguments.faults.join(","));
    }
    if let Some(bug) = &arguments.bug {
        text += &format!(" --bug {bug}");
    }
    text
}
