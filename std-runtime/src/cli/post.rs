//! `replcore post`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::time::Instant;

use super::Fault;
use super::remote::{Remote, RemoteArgs, unexpected};
use super::table::{self, Progress};
use crate::api::{ApiError, Bytes, NewMessage, PostedId, Reply, Request};
use crate::ingest::{LineFormat, LineRules, LinesOptions, LinesSummary, post_lines};

/// Post messages at a node: one, the lines of a file or of standard input, or a sample stream.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore post localhost:8080 'hello'
  replcore post localhost:8080 '{\"price\": 12}' --type price --key apples --class 1 --ttl 1h
  replcore post localhost:8080 --file readings.jsonl --lines json --type reading --name readings-7
  journalctl -f -o json | replcore post localhost:8181 --lines json --type log
  replcore post localhost:8080 --rate 100 --count 5000

With --name, or --idempotency-key for a single message, the same post given again counts once.")]
pub(crate) struct PostArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The body of one message; `-` or nothing: the lines of standard input.
    #[arg(conflicts_with_all = ["file", "rate"])]
    body: Option<String>,
    /// Post the lines of this file, each a message.
    #[arg(long, value_name = "FILE", conflicts_with = "rate")]
    file: Option<PathBuf>,
    /// What a line is: `raw` is a body, `json` is a body that must be JSON, `message` is an object
    /// with type, key, body and the rest.
    #[arg(long, value_enum, default_value = "raw")]
    lines: Lines,
    /// Name of the input, so that line n of it is posted once however often it is given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Post sample messages, this many a second; 0 for as fast as they are taken.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// End the sample messages after this many.
    #[arg(long, value_name = "N", requires = "rate")]
    count: Option<u64>,
    #[command(flatten)]
    template: TemplateArgs,
    /// Print ids or sums for programs.
    #[arg(long)]
    json: bool,
}

/// What a message has beside its body.
#[derive(clap::Args, Clone)]
struct TemplateArgs {
    /// What kind of message it is.
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    message_type: String,
    /// What it is about.
    #[arg(long)]
    key: Option<String>,
    /// 0 urgent, 1 high, 2 normal, 3 bulk [default: 2].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=3))]
    class: Option<u8>,
    /// Media type of the body.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// Not worth delivering after this time, such as 500ms, 30s, 10m, 12h, 7d.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    ttl: Option<Duration>,
    /// A queue to put it in, beside what the dispatch rules say; may be given several times.
    #[arg(long, value_name = "QUEUE")]
    to: Vec<String>,
    /// A header for the applications; may be given several times.
    #[arg(long, value_parser = parse_header, value_name = "NAME=VALUE")]
    header: Vec<(String, String)>,
    /// Names the act of posting: the same key again is the same message.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Lines {
    Raw,
    Json,
    Message,
}

impl TemplateArgs {
    fn message(&self) -> NewMessage {
        let headers: BTreeMap<_, _> = self
            .header
            .iter()
            .map(|(name, value)| (name.clone(), Bytes(value.clone().into_bytes())))
            .collect();
        let bytes = |text: &Option<String>| text.clone().map(|text| Bytes(text.into_bytes()));
        NewMessage {
            message_type: self.message_type.clone(),
            key: bytes(&self.key),
            class: self.class,
            content_type: self.content_type.clone(),
            idempotency_key: bytes(&self.idempotency_key),
            ttl_ms: self.ttl.map(|ttl| ttl.as_millis() as u64),
            to: self.to.clone(),
            headers,
            body: Bytes::default(),
        }
    }
}

pub(crate) async fn run(args: PostArgs) -> Result<(), Fault> {
    if args.template.idempotency_key.is_some() && args.body.as_deref().is_none_or(|b| b == "-") {
        return Err(Fault::usage(
            "--idempotency-key is for one message, given as an argument; for many give --name",
        ));
    }
    let input: Option<Box<dyn AsyncRead + Unpin>> = match (&args.file, args.body.as_deref()) {
        (Some(path), _) => {
            Some(Box::new(tokio::fs::File::open(path).await.map_err(|error| {
                Fault::failed(format!("cannot read {}: {error}", path.display()))
            })?))
        }
        (None, Some("-")) => Some(Box::new(tokio::io::stdin())),
        (None, None) if args.rate.is_none() => {
            if std::io::stdin().is_terminal() {
                eprintln!("reading standard input, a message a line; end with Ctrl-D");
            }
            Some(Box::new(tokio::io::stdin()))
        }
        _ => None,
    };
    let remote = Remote::open(&args.remote).await?;
    let outcome = match (input, &args.body, args.rate) {
        (Some(input), _, _) => lines(&remote, &args, input).await,
        (None, Some(body), _) => one(&remote, &args, body).await,
        (None, None, rate) => samples(&remote, &args, rate.unwrap_or(1)).await,
    };
    remote.close().await;
    outcome
}

async fn one(remote: &Remote, args: &PostArgs, body: &str) -> Result<(), Fault> {
    let message = NewMessage { body: Bytes(body.as_bytes().to_vec()), ..args.template.message() };
    let ids = post(remote, vec![message]).await?;
    if args.json {
        return table::print_json(&json!({ "ids": ids }));
    }
    let text: String = ids
        .iter()
        .map(|posted| match posted.duplicate {
            true => format!("{} (had been posted before)\n", posted.id),
            false => format!("{}\n", posted.id),
        })
        .collect();
    table::print(&text)
}

async fn lines(
    remote: &Remote,
    args: &PostArgs,
    input: Box<dyn AsyncRead + Unpin>,
) -> Result<(), Fault> {
    let format = match args.lines {
        Lines::Raw => LineFormat::Raw,
        Lines::Json => LineFormat::Json,
        Lines::Message => LineFormat::Message,
    };
    let options = LinesOptions {
        rules: LineRules { format, message: args.template.message(), ..LineRules::default() },
        name: args.name.clone(),
        ..LinesOptions::default()
    };
    let mut progress = Progress::new();
    let started = Instant::now();
    let outcome = post_lines(
        input,
        &options,
        async |messages| post(remote, messages).await,
        |line, error| eprintln!("replcore: line {line}: {error}"),
        |so_far| progress.show(&format!("{} posted", table::count(so_far.posted))),
    )
    .await;
    drop(progress);
    let summary = outcome.map_err(|error| match error {
        crate::ingest::LinesError::Post(error) => Fault::from(error),
        other => Fault::failed(other.to_string()),
    })?;
    report(args.json, &summary, started)?;
    match summary.rejected {
        0 => Ok(()),
        1 => Err(Fault::failed("1 line was not posted, see above")),
        rejected => Err(Fault::failed(format!("{rejected} lines were not posted, see above"))),
    }
}

/// Sample messages, HS-31: at a rate in ticks of 10 ms, or as fast as they are taken.
async fn samples(remote: &Remote, args: &PostArgs, rate: u32) -> Result<(), Fault> {
    const BATCH: u64 = 256;
    let mut template = args.template.message();
    if template.message_type.is_empty() {
        template.message_type = "sample".into();
    }
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut progress = Progress::new();
    let mut posted = 0;
    let end = args.count.unwrap_or(u64::MAX);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while posted < end {
        let due = match rate {
            0 => posted + BATCH,
            _ => (started.elapsed().as_secs_f64() * f64::from(rate)) as u64 + 1,
        };
        let now = due.min(end).saturating_sub(posted).min(BATCH);
        if now > 0 {
            let messages = (posted..posted + now).map(|number| sample(&template, number + 1));
            post(remote, messages.collect()).await?;
            posted += now;
            progress.show(&format!("{} posted", table::count(posted)));
        }
        if rate > 0 && posted < end {
            tokio::select! {
                _ = tick.tick() => {}
                _ = &mut interrupted => break,
            }
        }
    }
    drop(progress);
    report(args.json, &LinesSummary { posted, ..LinesSummary::default() }, started)
}

fn sample(template: &NewMessage, number: u64) -> NewMessage {
    let body = json!({ "sample": number, "serial_number": 1000 + number * 7919 % 9000 });
    NewMessage { body: Bytes(body.to_string().into_bytes()), ..template.clone() }
}

fn report(json: bool, summary: &LinesSummary, started: Instant) -> Result<(), Fault> {
    let LinesSummary { posted, duplicates, rejected } = *summary;
    if json {
        return table::print_json(
            &json!({ "posted": posted, "duplicates": duplicates, "rejected": rejected }),
        );
    }
    let elapsed = started.elapsed();
    let rate = posted as f64 / elapsed.as_secs_f64().max(0.001);
    table::print(&format!(
        "posted {} messages in {} ({} a second), {} had been posted before, {} rejected\n",
        table::count(posted),
        table::duration(elapsed.as_millis() as u64),
        table::count(rate as u64),
        table::count(duplicates),
        table::count(rejected),
    ))
}

async fn post(remote: &Remote, messages: Vec<NewMessage>) -> Result<Vec<PostedId>, ApiError> {
    match remote.ask(&Request::Post { messages }).await? {
        Reply::Posted { ids } => Ok(ids),
        other => Err(ApiError::new(crate::api::ErrorKind::Unavailable, unexpected(&other).message)),
    }
}

/// Posts samples as the old program did: `count` of them, numbered from `first`.
pub(super) async fn old_samples(
    remote: &Remote,
    first: u64,
    count: u64,
) -> Result<Vec<PostedId>, Fault> {
    let template = NewMessage { message_type: "serial_numbers".into(), ..NewMessage::default() };
    let messages = (first..first + count).map(|number| sample(&template, number)).collect();
    match remote.ask(&Request::Post { messages }).await? {
        Reply::Posted { ids } => Ok(ids),
        other => Err(unexpected(&other)),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("write a number and ms, s, m, h or d, such as 30s".into()),
    };
    let number: u64 = number.parse().map_err(|_| "write a number and a unit, such as 30s")?;
    let ms = number.checked_mul(scale).ok_or("that is too long")?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["", "30", "s", "3 s", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
