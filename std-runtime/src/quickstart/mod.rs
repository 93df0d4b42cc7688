//! `replcore quickstart`: a hub and three leaves as processes of this same program, on real
//! sockets and in a fresh folder; messages posted at a leaf and at the hub; one leaf killed hard
//! and brought back. It reads back what every node holds and says whether all of it is there, once.

mod check;
mod process;
mod show;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{Bytes, NewMessage, Reply, Request};
use crate::cli::Fault;
use crate::cli::table;
use check::Ledger;
use process::NodeProcess;
use show::Show;

/// When what happens, from the start of posting.
const KILL_AT: Duration = Duration::from_millis(4_000);
const BACK_AT: Duration = Duration::from_millis(9_000);
const END_AT: Duration = Duration::from_millis(12_500);
/// How long everything may take to arrive after the last post.
const ARRIVE: Duration = Duration::from_secs(20);
/// Time between two pictures, and two posts at each place.
const TICK: Duration = Duration::from_millis(100);
/// Messages of one post.
const BATCH: u64 = 20;

/// See it work: a hub and three leaves, one of them killed and brought back, in a quarter of a
/// minute, with nothing to set up.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore quickstart
  replcore quickstart --stay      leave the nodes running and say how to reach them

Exit code 0 when every message is at every node exactly once, 1 when one is lost or doubled.")]
pub(crate) struct QuickstartArgs {
    /// Leave the nodes running until Ctrl-C, and print addresses and commands to try.
    #[arg(long)]
    stay: bool,
}

pub(crate) async fn run(args: QuickstartArgs) -> Result<(), Fault> {
    let folder = std::env::temp_dir().join(format!("replcore-quickstart-{}", std::process::id()));
    std::fs::create_dir(&folder)
        .map_err(|error| Fault::failed(format!("cannot make {}: {error}", folder.display())))?;
    let outcome = tokio::select! {
        outcome = demonstrate(&args, &folder) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Fault::failed("interrupted")),
    };
    // The processes are gone by now: they end with what holds them.
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

async fn demonstrate(args: &QuickstartArgs, folder: &Path) -> Result<(), Fault> {
    let mut show = Show::new();
    show.say(&format!("Starting a hub and three leaves, with their data in {}", folder.display()));
    let hub = NodeProcess::start_hub(folder).await?;
    let mut nodes = vec![hub];
    for name in ["leaf-1", "leaf-2", "leaf-3"] {
        let leaf = NodeProcess::start_leaf(folder, name, &nodes[0].address).await?;
        nodes.push(leaf);
    }
    registered(&mut nodes).await?;
    show.say("All registered. Messages are posted at leaf-1 and at the hub; each is to reach every node.");

    let mut ledger = Ledger::new(nodes.len());
    let started = Instant::now();
    let (mut killed, mut back) = (false, false);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut all_there = false;
    while !all_there {
        tick.tick().await;
        let elapsed = started.elapsed();
        if elapsed < END_AT {
            for place in [1, 0] {
                post(&nodes[place], &mut ledger).await?;
            }
        } else if elapsed > END_AT + ARRIVE {
            break;
        }
        if !killed && elapsed >= KILL_AT {
            killed = true;
            nodes[3].kill().await?;
            show.say("leaf-3 is killed with SIGKILL, in the middle of it. What is for it waits at the hub.");
        }
        if killed && !back && elapsed >= BACK_AT {
            back = true;
            let hub = nodes[0].address.clone();
            nodes[3].start_again(&hub).await?;
            show.say("leaf-3 is back, and takes what has waited.");
        }
        look(&mut nodes, &mut ledger).await?;
        all_there = elapsed >= END_AT && ledger.all_there();
        show.draw(&nodes, &ledger, elapsed);
    }
    // A second copy could still be under way: give it the time to show itself.
    tokio::time::sleep(Duration::from_millis(300)).await;
    look(&mut nodes, &mut ledger).await?;
    show.finish(&nodes, &ledger, started.elapsed());
    let verdict = ledger.verdict();
    table::print(&verdict.text)?;
    if args.stay {
        show::stay(&nodes)?;
        let _ = tokio::signal::ctrl_c().await;
    }
    for node in nodes {
        node.stop().await;
    }
    match verdict.good {
        true => Ok(()),
        false => Err(Fault::failed("messages were lost or doubled; that is a defect")),
    }
}

/// Waits until the hub has three live leaves.
async fn registered(nodes: &mut [NodeProcess]) -> Result<(), Fault> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        look_at_hub(nodes).await?;
        if nodes[1..].iter().all(|node| node.live) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Fault::failed("the leaves have not registered within 15 s"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn post(node: &NodeProcess, ledger: &mut Ledger) -> Result<(), Fault> {
    let messages = (0..BATCH)
        .map(|_| {
            let body = ledger.next().to_string();
            NewMessage {
                message_type: "quickstart".into(),
                body: Bytes(body.into_bytes()),
                ..NewMessage::default()
            }
        })
        .collect();
    node.ask(&Request::Post { messages }).await.map(drop)
}

/// Brings the picture up to date: what the hub says of the leaves, and what every node holds.
async fn look(nodes: &mut [NodeProcess], ledger: &mut Ledger) -> Result<(), Fault> {
    look_at_hub(nodes).await?;
    for (place, node) in nodes.iter_mut().enumerate() {
        if !node.is_running() {
            continue;
        }
        loop {
            let request = Request::Read {
                from: node.read_from,
                limit: Some(1000),
                message_type: Some("quickstart".into()),
                key: None,
                wait_ms: 0,
            };
            let Reply::Messages { messages, next } = node.ask(&request).await? else {
                break;
            };
            node.read_from = next;
            if messages.is_empty() {
                break;
            }
            messages.iter().for_each(|message| ledger.seen(place, &message.message.body.0));
        }
    }
    Ok(())
}

async fn look_at_hub(nodes: &mut [NodeProcess]) -> Result<(), Fault> {
    let request = Request::Nodes { after: None, limit: None };
    let Reply::Nodes { nodes: known, .. } = nodes[0].ask(&request).await? else {
        return Ok(());
    };
    for status in known {
        if let Some(node) = nodes.iter_mut().find(|node| node.name == status.name) {
            node.live = status.state == "live";
            node.waiting = status.queued;
        }
    }
    Ok(())
}
