//! The commands that run a node: `hub`, `leaf`, `run`; and `check`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::{Registry, prelude::*};

use super::remote::TlsArgs;
use super::{Fault, table};
use crate::config::{Config, ConfigError};
use crate::handle::NodeHandle;
use crate::ingest::{self, Ingest};
use crate::node::{self, Running, StopReport};
use crate::options::{Address, NodeOptions};
use crate::tls::Tls;

/// How often changed TLS files are looked for.
pub(super) const WATCH: Duration = Duration::from_secs(5);
/// How often it is looked whether the node has ended by itself.
const LOOK: Duration = Duration::from_millis(500);

/// What `hub` and `leaf` share.
#[derive(clap::Args, Clone, Default)]
pub(super) struct NodeArgs {
    /// Where it keeps its data [default: a folder of its name in $REPLCORE_DATA, else in
    /// $XDG_DATA_HOME/replcore, else in ~/.local/share/replcore].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where it listens, HOST:PORT or unix:/path; may be given several times [default:
    /// 127.0.0.1:8080 for a hub, 127.0.0.1:8181 for a leaf]. Port 0: any that is free.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where it says that it can be reached [default: the first of --listen].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Answer HTTP here; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    http: Vec<String>,
    /// Listen beyond this machine without TLS: anybody who reaches the port can then read, post
    /// and delete everything.
    #[arg(long)]
    insecure_listen_anywhere: bool,
    /// The file of keys for `noise:HOST:PORT`, where there is no TLS; `replcore key` makes it.
    #[arg(long, value_name = "FILE")]
    noise_keys: Option<PathBuf>,
    /// What is logged to standard error.
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Run a hub: it takes registrations of leaves and dispatches messages to them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore hub
  replcore hub --dispatch till-7 --dispatch till-8 --http 127.0.0.1:8079
  replcore hub --listen 0.0.0.0:8080 --tls-ca ca.pem --tls-cert hub.pem --tls-key hub.key

Without --dispatch every message goes to every registered leaf, never back to where it came from.
SIGTERM and Ctrl-C end it once what is under way is handed over. With TLS, changed files are taken
up by themselves.")]
pub(super) struct HubArgs {
    /// Its name.
    #[arg(long, default_value = crate::config::HUB_NAME)]
    name: String,
    /// Send messages to this queue only; may be given several times.
    #[arg(long, value_name = "QUEUE")]
    dispatch: Vec<String>,
    /// Register at this hub above; may be given several times.
    #[arg(long, value_name = "[NAME@]HOST:PORT")]
    broker: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Run a leaf: it registers at its brokers, sends them what is posted here, takes what they send.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore leaf till-7 --broker localhost:8080
  replcore leaf till-7 --broker central@hub.example.com:8080 --listen unix:/run/replcore.sock

What is posted while no broker can be reached is kept and goes later. A broker written without a
name must be called `hub`.")]
pub(super) struct LeafArgs {
    /// Its name, unique among all nodes; also the name of its queue at the broker.
    name: String,
    /// The hub; may be given several times.
    #[arg(long, value_name = "[NAME@]HOST:PORT", required = true)]
    broker: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Run the node that a configuration file describes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore config --explain > node.toml; $EDITOR node.toml
  replcore check --config node.toml
  replcore run --config node.toml

On SIGHUP the file is read again: rules, limits of queues, log level and TLS files are taken up
and no link is dropped. What cannot change without a restart is said, and then nothing changes.")]
pub(super) struct RunArgs {
    /// The file, TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Check a configuration file; starts nothing and changes nothing.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  replcore check --config node.toml")]
pub(super) struct CheckArgs {
    /// The file, TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn hub(args: HubArgs) -> Result<(), Fault> {
    let mut config =
        Config { role: "hub".into(), name: args.name, brokers: args.broker, ..Config::default() };
    if !args.dispatch.is_empty() {
        let to = args.dispatch;
        config.rules = vec![crate::api::DispatchRule { to, ..Default::default() }];
    }
    run_flags(config, args.node).await
}

pub(super) async fn leaf(args: LeafArgs) -> Result<(), Fault> {
    let config =
        Config { role: "leaf".into(), name: args.name, brokers: args.broker, ..Config::default() };
    run_flags(config, args.node).await
}

async fn run_flags(mut config: Config, args: NodeArgs) -> Result<(), Fault> {
    let text = |path: Option<PathBuf>| {
        path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    config.data_folder = text(args.data);
    config.listen = args.listen;
    config.advertise = args.advertise.unwrap_or_default();
    config.http_listen = args.http;
    config.allow_plaintext = args.insecure_listen_anywhere;
    config.log_level = args.log.unwrap_or(config.log_level);
    config.noise_keys = text(args.noise_keys);
    config.tls_ca = text(args.tls.tls_ca);
    config.tls_cert = text(args.tls.tls_cert);
    config.tls_key = text(args.tls.tls_key);
    let options = config.options().map_err(|error| Fault::usage(error.to_string()))?;
    serve(config, options, None).await
}

pub(super) async fn run(args: RunArgs) -> Result<(), Fault> {
    let (config, options) = load(&args.config)?;
    serve(config, options, Some(args.config)).await
}

pub(super) fn check(args: &CheckArgs) -> Result<(), Fault> {
    let (config, options) = load(&args.config)?;
    table::print(&format!(
        "{}: sound; {} `{}`, data in {}, {} dispatch rules{}\n",
        args.config.display(),
        options.role.as_str(),
        options.name,
        options.folder.display(),
        options.rules.len(),
        if config.tls_ca.is_empty() { "" } else { ", TLS" },
    ))
}

/// Reads and checks a file, with the TLS files that it names.
fn load(path: &Path) -> Result<(Config, NodeOptions), Fault> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Fault::config(format!("cannot read {}: {error}", path.display())))?;
    let told = |error: &ConfigError| match error.line {
        0 => format!("{}: {error}", path.display()),
        line => format!("{}:{line}: {}", path.display(), error.message),
    };
    let config = Config::parse(&text).map_err(|errors| {
        let all: Vec<_> = errors.iter().map(told).collect();
        Fault::config(all.join("\nreplcore: "))
    })?;
    let options = config.options().map_err(|error| Fault::config(told(&error)))?;
    load_tls(&options)
        .and_then(|_| load_noise(&options))
        .map_err(|fault| Fault::config(format!("{}: {}", path.display(), fault.message)))?;
    Ok((config, options))
}

/// Loads the TLS files, and refuses a certificate of another name.
fn load_tls(options: &NodeOptions) -> Result<Option<Tls>, Fault> {
    let Some(files) = &options.tls else {
        return Ok(None);
    };
    let tls = Tls::load(files.clone()).map_err(|error| Fault::start(error.to_string()))?;
    if tls.name() != options.name {
        return Err(Fault::start(format!(
            "the certificate {} is for `{}`, but this node is `{}`; a node may only speak as itself",
            files.certificate.display(),
            tls.name(),
            options.name
        )));
    }
    Ok(Some(tls))
}

/// Reads the file of keys.
fn load_noise(options: &NodeOptions) -> Result<(), Fault> {
    let loaded = options.noise_keys.as_deref().map(crate::noise::Noise::load).transpose();
    loaded.map(drop).map_err(Fault::start)
}

/// Runs a node until a signal ends it.
pub(super) async fn serve(
    config: Config,
    options: NodeOptions,
    file: Option<PathBuf>,
) -> Result<(), Fault> {
    let level = start_log(&config.log_level)?;
    let mut signals = Signals::new()?;
    let tls = load_tls(&options)?;
    let mut http_listeners = Vec::new();
    for address in &config.http_listen {
        http_listeners.push(bind_http(address).await?);
    }
    let (handle, running) = node::start(options.clone()).map_err(Fault::start)?;
    let ingests = start_ingests(&config, &options, &handle).inspect_err(|_| running.stop())?;
    announce(&options, &running, &http_listeners)?;

    let (stop, stopping) = watch::channel(false);
    let mut http = tokio::task::JoinSet::new();
    for listener in http_listeners {
        let mut stopping = stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let behind = (crate::http::Behind::Node, handle.clone());
        let serving =
            crate::http::serve(listener, tls.clone(), behind, config.http.clone(), stopped);
        http.spawn_local(async move {
            if let Err(error) = serving.await {
                tracing::error!("HTTP has ended: {error}");
            }
        });
    }
    if let Some(tls) = tls.clone() {
        tokio::task::spawn_local(tls.watch(WATCH));
    }
    let reloader = Reloader { file, level, tls, config, options };
    wait(&mut signals, &running, reloader).await;

    let _ = stop.send(true);
    for ingest in ingests {
        ingest.stop();
    }
    running.stop();
    let ended = tokio::task::spawn_blocking(move || running.join());
    let again = async {
        // A second signal is meant seriously.
        signals.end().await;
    };
    let report = tokio::select! {
        report = ended => report.map_err(|error| Fault::failed(error.to_string()))?,
        () = again => return Err(Fault::failed("ended at once by a second signal")),
    };
    while http.join_next().await.is_some() {}
    tell_end(report)
}

pub(super) async fn bind_http(address: &str) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|error| {
        Fault::start(match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "cannot answer HTTP on {address}: something else does; stop it or choose another"
            ),
            _ => format!("cannot answer HTTP on {address}: {error}"),
        })
    })
}

fn start_ingests(
    config: &Config,
    options: &NodeOptions,
    handle: &NodeHandle,
) -> Result<Vec<Ingest>, Fault> {
    if config.ingests.is_empty() {
        return Ok(Vec::new());
    }
    let state = options.folder.join("ingest");
    std::fs::create_dir_all(&state)
        .map_err(|error| Fault::start(format!("cannot make {}: {error}", state.display())))?;
    let start = |ingest: &ingest::IngestOptions| {
        ingest::start(ingest.clone(), &state, handle.clone()).map_err(Fault::start)
    };
    config.ingests.iter().map(start).collect()
}

/// Says where the node is, in lines that programs may read: the address is the last word.
fn announce(options: &NodeOptions, running: &Running, http: &[TcpListener]) -> Result<(), Fault> {
    let (role, name) = (options.role.as_str(), options.name);
    let mut text = format!("{role} `{name}` keeps its data in {}\n", options.folder.display());
    for upstream in &options.upstreams {
        text.push_str(&format!("{role} `{name}` has the broker {}\n", upstream.address));
    }
    if let Some(standby) = &options.standby {
        let (member, listen) = (standby.member, &standby.listen);
        text.push_str(&format!("{role} `{name}` is `{member}` and stands by on {listen}\n"));
    }
    for listener in http {
        let address = listener.local_addr().map(|it| it.to_string()).unwrap_or_default();
        text.push_str(&format!("{role} `{name}` answers HTTP on {address}\n"));
    }
    for address in running.addresses() {
        text.push_str(&format!("{role} `{name}` listens on {address}\n"));
    }
    if running.addresses().iter().any(beyond_loopback) && options.tls.is_none() {
        tracing::warn!("without TLS, anybody who reaches the port can read, post and delete");
    }
    table::print(&text)
}

fn beyond_loopback(address: &Address) -> bool {
    matches!(address, Address::Tcp(text) if !crate::config::is_loopback(text))
}

fn tell_end(report: StopReport) -> Result<(), Fault> {
    for (queue, messages) in &report.left {
        tracing::info!("{messages} messages for {queue} are stored and go after the next start");
    }
    report.error.map_or(Ok(()), |error| Err(Fault::failed(error)))
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Fault> {
        let watch = |kind| {
            signal(kind).map_err(|error| Fault::failed(format!("cannot watch signals: {error}")))
        };
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hang_up: watch(SignalKind::hangup())?,
        })
    }

    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal to end, or for the node to end by itself; reloads meanwhile when asked.
async fn wait(signals: &mut Signals, running: &Running, mut reloader: Reloader) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => match reloader.reload(running) {
                Ok(()) => tracing::info!("reloaded"),
                Err(fault) => tracing::error!("not reloaded, the configuration is as it was: {fault}"),
            },
            _ = look.tick() => if running.is_finished() {
                return;
            },
        }
    }
}

pub(super) type Level = Handle<LevelFilter, Registry>;

/// What a reload needs.
struct Reloader {
    file: Option<PathBuf>,
    level: Level,
    tls: Option<Tls>,
    config: Config,
    options: NodeOptions,
}

impl Reloader {
    fn reload(&mut self, running: &Running) -> Result<(), Fault> {
        let (config, options) = match &self.file {
            Some(file) => load(file)?,
            None => (self.config.clone(), self.options.clone()),
        };
        running.reload(options.clone()).map_err(Fault::config)?;
        // The node has just taken the same files. If they went bad in between, HTTP says so and goes
        // on with what it has until they are good.
        if let Some(tls) = &self.tls
            && let Err(error) = tls.reload()
        {
            tracing::error!("HTTP keeps the TLS files that it has: {error}");
        }
        if config.http != self.config.http || config.http_listen != self.config.http_listen {
            tracing::warn!("changes of [http] take a restart");
        }
        if config.ingests != self.config.ingests {
            tracing::warn!("changes of [[ingest]] take a restart");
        }
        let _ = self.level.reload(level_of(&config.log_level));
        (self.config, self.options) = (config, options);
        Ok(())
    }
}

fn level_of(text: &str) -> LevelFilter {
    text.parse().unwrap_or(LevelFilter::INFO)
}

/// Starts logging to standard error.
pub(super) fn start_log(level: &str) -> Result<Level, Fault> {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(level_of(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| Fault::failed(format!("cannot start the log: {error}")))?;
    Ok(handle)
}
