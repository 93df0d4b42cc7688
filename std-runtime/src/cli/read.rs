//! `replcore read`, and how messages are printed.

use super::remote::{Remote, RemoteArgs, unexpected};
use super::{Fault, table};
use crate::api::{Bytes, Reply, Request, StoredMessage};

/// Longest that one request waits while following, in milliseconds.
const WAIT_MS: u32 = 10_000;

/// Read what a node holds, in the order in which it stored it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore read localhost:8080
  replcore read localhost:8080 --follow --type 'alarm.*'
  replcore read localhost:8080 --json | jq .body
  replcore read localhost:8080 --latest price apples")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Go on with what comes, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
    /// Only this type; a trailing `*` matches any rest.
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Only this key.
    #[arg(long)]
    key: Option<String>,
    /// Start with the message of this ordinal.
    #[arg(long, value_name = "ORDINAL", default_value_t = 0)]
    from: u64,
    /// End after this many.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Only the current message of this type and key: the one with the latest origin time.
    #[arg(long, num_args = 2, value_names = ["TYPE", "KEY"],
          conflicts_with_all = ["follow", "message_type", "key", "from", "count"])]
    latest: Option<Vec<String>>,
}

pub(crate) async fn run(args: ReadArgs) -> Result<(), Fault> {
    let remote = Remote::open(&args.remote).await?;
    let outcome = tokio::select! {
        outcome = read(&remote, &args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    remote.close().await;
    outcome
}

async fn read(remote: &Remote, args: &ReadArgs) -> Result<(), Fault> {
    let mut printer = Printer::new(args.json);
    if let Some([message_type, key]) = args.latest.as_deref() {
        let key = Bytes(key.clone().into_bytes());
        let request = Request::Latest { message_type: message_type.clone(), key };
        return match remote.ask(&request).await? {
            Reply::Latest { message: Some(message) } => printer.print(&[message]),
            Reply::Latest { message: None } => {
                Err(Fault::nothing("there is no message of this type and key"))
            }
            other => Err(unexpected(&other)),
        };
    }
    let (mut from, mut left) = (args.from, args.count.unwrap_or(u64::MAX));
    while left > 0 {
        let request = Request::Read {
            from,
            limit: Some(left.min(500) as u32),
            message_type: args.message_type.clone(),
            key: args.key.clone().map(|key| Bytes(key.into_bytes())),
            wait_ms: if args.follow { WAIT_MS } else { 0 },
        };
        let (messages, next) = match remote.ask(&request).await? {
            Reply::Messages { messages, next } => (messages, next),
            other => return Err(unexpected(&other)),
        };
        printer.print(&messages)?;
        left -= messages.len() as u64;
        if !args.follow && messages.is_empty() && next <= from {
            break;
        }
        from = next;
    }
    Ok(())
}

/// Prints messages as they come: as a table for people, as lines of JSON for programs.
pub(crate) struct Printer {
    json: bool,
    columns: usize,
    headed: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, columns: table::columns(), headed: false }
    }

    pub(crate) fn print(&mut self, messages: &[StoredMessage]) -> Result<(), Fault> {
        let mut text = String::new();
        for message in messages {
            if self.json {
                let line = serde_json::to_string(message)
                    .map_err(|error| Fault::failed(error.to_string()))?;
                text.push_str(&line);
                text.push('\n');
            } else {
                if !self.headed {
                    self.headed = true;
                    let row = ["ORDINAL", "TIME", "ORIGIN", "TYPE", "KEY", "BODY"];
                    text.push_str(&self.row(row));
                }
                text.push_str(&self.message(message));
            }
        }
        if text.is_empty() { Ok(()) } else { table::print(&text) }
    }

    fn message(&self, message: &StoredMessage) -> String {
        // To the second: the rest of the line is worth more to a person.
        let time = message.time.get(..19).unwrap_or(&message.time).replace('T', " ");
        let key = message.message.key.as_ref().map_or(&[][..], |key| &key.0);
        let room = self.columns.saturating_sub(74).max(20);
        self.row([
            &message.ordinal.to_string(),
            &time,
            &table::preview(message.origin.as_bytes(), 12),
            &table::preview(message.message.message_type.as_bytes(), 16),
            &table::preview(key, 12),
            &table::preview(&message.message.body.0, room),
        ])
    }

    fn row(&self, cells: [&str; 6]) -> String {
        let [ordinal, time, origin, kind, key, body] = cells;
        format!("{ordinal:>8}  {time:<19}  {origin:<12}  {kind:<16}  {key:<12}  {body}\n")
    }
}
