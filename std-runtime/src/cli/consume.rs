//! `replcore consume`.

use super::read::Printer;
use super::remote::{Remote, RemoteArgs, unexpected};
use super::{Fault, table};
use crate::api::{Reply, Request};

const WAIT_MS: u32 = 10_000;

/// Read as a named durable consumer: each message is printed, then acknowledged, and does not come
/// again. The node keeps the consumer's place; the next run goes on there.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore consume localhost:8080 billing --from-start
  replcore consume localhost:8080 billing --type 'order.*' --follow --json | ./bill
  replcore consume localhost:8080 billing --reject --count 1    the next one to the dead letters
  replcore consumers localhost:8080                             who is how far behind

A message is acknowledged once it is written to standard output. What is printed and not yet
acknowledged when the program dies comes again: readers that must not see it twice compare the id.")]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The consumer's name.
    name: String,
    /// Only this type; a trailing `*` matches any rest. Counts when the consumer is new.
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// A new consumer starts with what the node already holds.
    #[arg(long)]
    from_start: bool,
    /// Go on with what comes, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// End after this many.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Move the messages to the dead letters instead of acknowledging them.
    #[arg(long)]
    reject: bool,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: ConsumeArgs) -> Result<(), Fault> {
    let remote = Remote::open(&args.remote).await?;
    let outcome = tokio::select! {
        outcome = consume(&remote, &args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    remote.close().await;
    outcome
}

async fn consume(remote: &Remote, args: &ConsumeArgs) -> Result<(), Fault> {
    let subscribe = Request::Subscribe {
        consumer: args.name.clone(),
        message_type: args.message_type.clone(),
        from_start: args.from_start,
    };
    remote.ask(&subscribe).await?;
    let mut printer = Printer::new(args.json);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let fetch = Request::Fetch {
            consumer: args.name.clone(),
            limit: Some(left.min(100) as u32),
            wait_ms: if args.follow { WAIT_MS } else { 0 },
        };
        let messages = match remote.ask(&fetch).await? {
            Reply::Messages { messages, .. } => messages,
            other => return Err(unexpected(&other)),
        };
        if messages.is_empty() {
            if args.follow {
                continue;
            }
            break;
        }
        printer.print(&messages)?;
        left -= messages.len() as u64;
        let ids: Vec<_> = messages.into_iter().map(|message| message.id).collect();
        let (ack, reject) = if args.reject { (Vec::new(), ids) } else { (ids, Vec::new()) };
        let settle = Request::Settle { consumer: args.name.clone(), ack, reject };
        match remote.ask(&settle).await? {
            Reply::Settled { not_found, .. } if not_found.is_empty() => {}
            Reply::Settled { not_found, .. } => eprintln!(
                "replcore: {} messages were no longer outstanding and may come again",
                table::count(not_found.len() as u64)
            ),
            other => return Err(unexpected(&other)),
        }
    }
    Ok(())
}
