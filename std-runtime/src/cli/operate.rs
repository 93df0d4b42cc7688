//! The commands of an operator: queues, nodes, consumers, rules, status.

use std::path::PathBuf;

use serde_json::json;

use super::Fault;
use super::read::Printer;
use super::remote::{Remote, RemoteArgs, TlsArgs, unexpected};
use super::table::{bytes, count, duration, facts, preview, print, print_json, table};
use crate::api::{DispatchRule, NodeStatus, QueueStatus, Reply, Request, Status};
use crate::config::Config;

const PAGE: u32 = 500;

/// Look at the queues of a node, and purge them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore queue list localhost:8080
  replcore queue peek localhost:8080 till-7 --count 5
  replcore queue purge localhost:8080 till-7 --all")]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(clap::Subcommand)]
enum QueueCommand {
    /// List all queues with what waits in them.
    #[command(
        after_help = "Examples:\n  replcore queue list localhost:8080\n  replcore queue list localhost:8080 --json"
    )]
    List {
        #[command(flatten)]
        remote: RemoteArgs,
        /// Print an object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known about one queue.
    #[command(after_help = "Examples:\n  replcore queue show localhost:8080 till-7")]
    Show {
        #[command(flatten)]
        remote: RemoteArgs,
        /// The queue.
        queue: String,
        /// Print an object.
        #[arg(long)]
        json: bool,
    },
    /// Look at the next messages without taking them.
    #[command(after_help = "Examples:\n  replcore queue peek localhost:8080 till-7 --count 5")]
    Peek {
        #[command(flatten)]
        remote: RemoteArgs,
        /// The queue.
        queue: String,
        /// Pass over this many.
        #[arg(long, default_value_t = 0)]
        skip: u64,
        /// Look at this many.
        #[arg(long, default_value_t = 10)]
        count: u32,
        /// Print an object a line.
        #[arg(long)]
        json: bool,
    },
    /// Drop messages of a queue for good.
    #[command(after_help = "\
Examples:
  replcore queue purge localhost:8080 till-7 --all
  replcore queue purge localhost:8080 till-7 --id hub/65536/2/17")]
    Purge {
        #[command(flatten)]
        remote: RemoteArgs,
        /// The queue.
        queue: String,
        /// All that is in it.
        #[arg(long, conflicts_with = "ids", required_unless_present = "ids")]
        all: bool,
        /// Only the message of this id; may be given several times.
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<String>,
    },
}

pub(super) async fn queue(args: QueueArgs) -> Result<(), Fault> {
    match args.command {
        QueueCommand::List { remote, json } => {
            let remote = Remote::open(&remote).await?;
            let queues = all_queues(&remote).await?;
            remote.close().await;
            match json {
                true => queues.iter().try_for_each(print_json),
                false => print(&queue_table(&queues)),
            }
        }
        QueueCommand::Show { remote, queue, json } => {
            let remote = Remote::open(&remote).await?;
            let queues = all_queues(&remote).await?;
            remote.close().await;
            let Some(found) = queues.into_iter().find(|it| it.name == queue) else {
                return Err(Fault::nothing(format!(
                    "there is no queue `{queue}`; `replcore queue list` shows all"
                )));
            };
            if json { print_json(&found) } else { print(&queue_details(&found)) }
        }
        QueueCommand::Peek { remote, queue, skip, count, json } => {
            let remote = Remote::open(&remote).await?;
            let reply = remote.ask(&Request::Peek { queue, skip, limit: Some(count) }).await?;
            remote.close().await;
            match reply {
                Reply::Messages { messages, .. } => Printer::new(json).print(&messages),
                other => Err(unexpected(&other)),
            }
        }
        QueueCommand::Purge { remote, queue, all, ids } => {
            let remote = Remote::open(&remote).await?;
            let which = (!all).then_some(ids);
            let reply = remote.ask(&Request::Purge { queue: queue.clone(), ids: which }).await?;
            remote.close().await;
            let Reply::Purged { messages, not_found } = reply else {
                return Err(unexpected(&reply));
            };
            print(&format!("dropped {} messages of {queue}\n", count(messages)))?;
            match not_found.as_slice() {
                [] => Ok(()),
                ids => Err(Fault::nothing(format!("not in the queue: {}", ids.join(", ")))),
            }
        }
    }
}

async fn all_queues(remote: &Remote) -> Result<Vec<QueueStatus>, Fault> {
    let mut all: Vec<QueueStatus> = Vec::new();
    loop {
        let after = all.last().map(|queue| queue.name.clone());
        match remote.ask(&Request::Queues { after, limit: Some(PAGE) }).await? {
            Reply::Queues { queues, more } => {
                let end = !more || queues.is_empty();
                all.extend(queues);
                if end {
                    return Ok(all);
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
}

fn queue_table(queues: &[QueueStatus]) -> String {
    let rows: Vec<_> = queues
        .iter()
        .map(|queue| {
            let oldest = if queue.messages == 0 { "-".into() } else { duration(queue.oldest_ms) };
            vec![
                preview(queue.name.as_bytes(), 40),
                queue.kind.clone(),
                count(queue.messages),
                bytes(queue.bytes),
                oldest,
                count(queue.acknowledged_total),
                count(queue.dropped_total + queue.expired_total),
                if queue.connected { "yes" } else { "no" }.into(),
            ]
        })
        .collect();
    let headings = ["queue", "kind", ">waiting", ">size", ">oldest", ">done", ">dropped", "reader"];
    table(&headings, &rows)
}

fn queue_details(queue: &QueueStatus) -> String {
    let [c0, c1, c2, c3] = queue.messages_by_class.map(count);
    facts(&[
        ("queue", queue.name.clone()),
        ("kind", queue.kind.clone()),
        ("waiting", format!("{} messages, {}", count(queue.messages), bytes(queue.bytes))),
        ("by class", format!("urgent {c0}, high {c1}, normal {c2}, bulk {c3}")),
        ("oldest", duration(queue.oldest_ms)),
        ("ever put in", count(queue.appended_total)),
        ("acknowledged", count(queue.acknowledged_total)),
        ("dropped at a limit", count(queue.dropped_total)),
        ("expired", count(queue.expired_total)),
        ("reader connected", if queue.connected { "yes" } else { "no" }.into()),
    ])
}

/// List the leaves that have registered at a hub, or forget one that is gone for good.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  replcore nodes localhost:8080
  replcore nodes forget localhost:8080 till-7     drops its registration and its queue"
)]
pub(super) struct NodesArgs {
    #[command(subcommand)]
    command: Option<ForgetCommand>,
    /// The node: HOST:PORT, or unix:/path/of/socket.
    #[arg(value_name = "HOST:PORT", required = true)]
    node: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum ForgetCommand {
    /// Forget it, with its place and all that waits for it.
    #[command(after_help = "\
Examples:
  replcore nodes forget localhost:8080 till-7
  replcore consumers forget localhost:8080 billing")]
    Forget {
        #[command(flatten)]
        remote: RemoteArgs,
        /// Its name.
        name: String,
    },
}

pub(super) async fn nodes(args: NodesArgs) -> Result<(), Fault> {
    if let Some(ForgetCommand::Forget { remote, name }) = args.command {
        let remote = Remote::open(&remote).await?;
        remote.ask(&Request::Forget { node: name.clone() }).await?;
        remote.close().await;
        return print(&format!("forgot {name}\n"));
    }
    let remote = Remote::open(&required(args.node, args.tls)?).await?;
    let mut all: Vec<NodeStatus> = Vec::new();
    loop {
        let after = all.last().map(|node| node.name.clone());
        match remote.ask(&Request::Nodes { after, limit: Some(PAGE) }).await? {
            Reply::Nodes { nodes, more } => {
                let end = !more || nodes.is_empty();
                all.extend(nodes);
                if end {
                    break;
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
    remote.close().await;
    if args.json {
        return all.iter().try_for_each(print_json);
    }
    let rows: Vec<_> = all
        .iter()
        .map(|node| {
            let trip = match node.round_trip_us {
                0 => "-".into(),
                us => format!("{:.1} ms", us as f64 / 1000.0),
            };
            vec![
                node.name.clone(),
                node.state.clone(),
                preview(node.address.as_bytes(), 40),
                duration(node.lease_left_ms),
                trip,
                count(node.queued),
                count(node.delivered_total),
                count(node.fetched_total),
            ]
        })
        .collect();
    let headings =
        ["node", "state", "address", ">lease", ">trip", ">waiting", ">delivered", ">fetched"];
    print(&table(&headings, &rows))
}

pub(super) fn required(node: Option<String>, tls: TlsArgs) -> Result<RemoteArgs, Fault> {
    let node = node.ok_or_else(|| Fault::usage("which node? give HOST:PORT"))?;
    Ok(RemoteArgs { node, tls })
}

/// List the named consumers of a node, or forget one with its place.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  replcore consumers localhost:8080
  replcore consumers forget localhost:8080 billing"
)]
pub(super) struct ConsumersArgs {
    #[command(subcommand)]
    command: Option<ForgetCommand>,
    /// The node: HOST:PORT, or unix:/path/of/socket.
    #[arg(value_name = "HOST:PORT", required = true)]
    node: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn consumers(args: ConsumersArgs) -> Result<(), Fault> {
    if let Some(ForgetCommand::Forget { remote, name }) = args.command {
        let remote = Remote::open(&remote).await?;
        remote.ask(&Request::Unsubscribe { consumer: name.clone() }).await?;
        remote.close().await;
        return print(&format!("forgot {name}\n"));
    }
    let remote = Remote::open(&required(args.node, args.tls)?).await?;
    let reply = remote.ask(&Request::Consumers).await?;
    remote.close().await;
    let Reply::Consumers { consumers } = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        return consumers.iter().try_for_each(print_json);
    }
    let rows: Vec<_> = consumers
        .iter()
        .map(|consumer| {
            let kind = match consumer.message_type.as_str() {
                "" => "all".into(),
                kind => preview(kind.as_bytes(), 24),
            };
            vec![
                consumer.name.clone(),
                kind,
                count(consumer.messages),
                count(consumer.outstanding),
                count(consumer.redelivered_total),
                count(consumer.dead_total),
                if consumer.connected { "yes" } else { "no" }.into(),
            ]
        })
        .collect();
    let headings = ["consumer", "type", ">behind", ">unsettled", ">again", ">dead", "reader"];
    print(&table(&headings, &rows))
}

/// Show or replace the dispatch rules of a running node.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  replcore rules localhost:8080
  replcore rules localhost:8080 > rules.toml; $EDITOR rules.toml
  replcore rules set localhost:8080 rules.toml

A rules file is the [[rule]] tables of a configuration file:
  [[rule]]
  type = \"alarm.*\"
  to = [\"*\"]              # every registered leaf
  [[rule]]
  to = [\"archive\"]        # everything else that is wanted"
)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    command: Option<RulesCommand>,
    /// The node: HOST:PORT, or unix:/path/of/socket.
    #[arg(value_name = "HOST:PORT", required = true)]
    node: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Print them for programs.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum RulesCommand {
    /// Replace the rules, now and after a restart.
    #[command(after_help = "Examples:\n  replcore rules set localhost:8080 rules.toml")]
    Set {
        #[command(flatten)]
        remote: RemoteArgs,
        /// The rules, TOML.
        file: PathBuf,
    },
}

pub(super) async fn rules(args: RulesArgs) -> Result<(), Fault> {
    let (remote, request) = match args.command {
        Some(RulesCommand::Set { remote, file }) => {
            let rules = read_rules(&file)?;
            (remote, Request::SetRules { rules })
        }
        None => (required(args.node, args.tls)?, Request::Rules),
    };
    let remote = Remote::open(&remote).await?;
    let reply = remote.ask(&request).await?;
    remote.close().await;
    let Reply::Rules { rules } = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        return print_json(&json!({ "rules": rules }));
    }
    print(&rules.iter().map(rule_text).collect::<Vec<_>>().join("\n"))
}

fn read_rules(file: &PathBuf) -> Result<Vec<DispatchRule>, Fault> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Fault::config(format!("cannot read {}: {error}", file.display())))?;
    let config = Config::parse(&text).map_err(|errors| {
        let all: Vec<_> =
            errors.iter().map(|error| format!("{}: {error}", file.display())).collect();
        Fault::config(all.join("\nreplcore: "))
    })?;
    let only_rules = Config { rules: config.rules.clone(), ..Config::default() };
    if config != only_rules {
        return Err(Fault::config(format!(
            "{}: a rules file holds [[rule]] tables and nothing else",
            file.display()
        )));
    }
    Ok(config.rules)
}

fn rule_text(rule: &DispatchRule) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = String::from("[[rule]]\n");
    for (name, value) in [("type", &rule.message_type), ("origin", &rule.origin)] {
        if !value.is_empty() {
            text.push_str(&format!("{name} = {}\n", quoted(value)));
        }
    }
    let to: Vec<_> = rule.to.iter().map(|queue| quoted(queue)).collect();
    text.push_str(&format!("to = [{}]\n", to.join(", ")));
    text
}

/// Show how a node is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore status localhost:8080
  replcore status localhost:8080 --json | jq .ready
  replcore status localhost:8080 --ready          exit code 1 while it is not ready")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Print an object.
    #[arg(long)]
    json: bool,
    /// Fail when the node is not ready.
    #[arg(long)]
    ready: bool,
}

pub(super) async fn status(args: StatusArgs) -> Result<(), Fault> {
    let remote = Remote::open(&args.remote).await?;
    let reply = remote.ask(&Request::Status).await?;
    remote.close().await;
    let Reply::Status(status) = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        print_json(&status)?;
    } else {
        print(&status_text(&status))?;
    }
    match args.ready && !status.ready {
        true => Err(Fault::failed(format!("{} is not ready", status.name))),
        false => Ok(()),
    }
}

fn status_text(status: &Status) -> String {
    let [first, next] = status.ordinals;
    let mut text = facts(&[
        ("node", format!("{} ({})", status.name, status.role)),
        ("version", status.version.clone()),
        ("ready", if status.ready { "yes" } else { "no" }.into()),
        ("up for", duration(status.uptime_ms)),
        ("links", count(status.links)),
        ("log", format!("{} on disk", bytes(status.log_bytes))),
        ("messages", format!("ordinals {first} to {next}, the next to be given")),
    ]);
    for (name, state) in &status.upstreams {
        text.push_str(&format!("broker    {name}: {state}\n"));
    }
    for (name, standby) in &status.standbys {
        let behind = match standby.lag_batches {
            _ if status.role == "standby" => String::new(),
            0 => ", nothing behind".to_owned(),
            batches => format!(
                ", {} batches behind ({} messages, {})",
                count(batches),
                count(standby.lag_records),
                bytes(standby.lag_bytes)
            ),
        };
        text.push_str(&format!("standby   {name}: {}{behind}\n", standby.state));
    }
    let rows: Vec<_> = status
        .counters
        .iter()
        .filter(|(_, value)| **value > 0)
        .map(|(name, value)| vec![name.clone(), count(*value)])
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["counter", ">value"], &rows));
    }
    text
}
