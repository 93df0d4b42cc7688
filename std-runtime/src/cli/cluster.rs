//! The command that runs a member of a cluster: `cluster`, and the guard of its program.

use std::path::PathBuf;

use replcore::registry::PRIORITY_DEFAULT;
use replcore::stream::Name;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::daemon::{Signals, WATCH, bind_http, start_log};
use super::remote::TlsArgs;
use super::{Fault, table};
use crate::cluster::config::{self, ClusterConfig};
use crate::cluster::exec::{self, ExecOptions};
use crate::cluster::options::CLUSTER_NAME;
use crate::cluster::{Cluster, ClusterOptions, Metadata, PeerOptions, Profile};
use crate::config::is_loopback;
use crate::http::{Behind, HttpOptions};
use crate::options::Address;
use crate::tls::Tls;

/// The hidden command that [`exec::guard`] runs in.
pub(super) const GUARD: &str = "cluster-guard";

/// Run a member of a cluster: the members elect a leader, and everybody knows who is here.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore cluster server_a.json
  replcore cluster --name server_a --listen 127.0.0.1:7001 \\
      --peer server_b=127.0.0.1:7002 --peer server_c=127.0.0.1:7003
  replcore cluster server_a.json --exec 'exec ./scheduler'     # runs only while it leads
  replcore cluster --name server_d --listen 127.0.0.1:7004 --join 127.0.0.1:7001
  replcore cluster --name x --listen 127.0.0.1:7005 --masterless --peer y=127.0.0.1:7006

The file is JSON with the keys of QCluster: identifier, listen_host, listen_port, and peers with host,
port, identifier and metadata. Beside them: cluster, join, metadata, advertise, profile, heartbeat_ms,
timeout_ms_min, timeout_ms_max, masterless, learner, priority, data_folder, http, exec, tls_ca,
tls_cert, tls_key; other keys are passed over. A peer that is not sound is reported and passed over.

With --exec the program gets the term in REPLCORE_TERM: it rises with every leader, and whatever the
program writes to should refuse a lower one than it has seen. When this member leads no more the
program gets SIGTERM, and SIGKILL before another member can lead: after 35 ms with the profile lan,
580 ms with wan, 5 s with battery. When the member resigns or is stopped it has 8 s, and is led on
until then.")]
pub(super) struct ClusterArgs {
    /// The configuration, JSON. The flags below it take the place of its keys.
    #[arg(value_name = "CONFIG.json", conflicts_with_all = ["name", "listen", "peer", "join", "cluster", "profile", "masterless", "learner", "priority", "metadata", "advertise"])]
    config: Option<PathBuf>,
    /// Its name, unique among the members.
    #[arg(long, required_unless_present = "config")]
    name: Option<String>,
    /// Where it listens. Port 0: any that is free.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "config")]
    listen: Option<String>,
    /// Another member; may be given several times. One that does not vote: NAME=HOST:PORT,learner.
    #[arg(long, value_name = "NAME=HOST:PORT")]
    peer: Vec<String>,
    /// Ask the member there to be taken in; may be given several times, for when one is away.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "peer")]
    join: Vec<String>,
    /// The name of the cluster, the same for all.
    #[arg(long, default_value = CLUSTER_NAME)]
    cluster: String,
    /// What it says of itself: a JSON object of at most 256 bytes.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Where it says that it can be reached [default: where it listens].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// How fast a leader is missed: lan (150 to 300 ms), wan (2.5 to 5 s), battery (20 to 40 s); the
    /// same for all members.
    #[arg(long, default_value = "lan")]
    profile: Profile,
    /// Who is here, without a leader.
    #[arg(long, conflicts_with_all = ["learner", "priority", "exec"])]
    masterless: bool,
    /// It learns who leads, but does not vote and cannot lead.
    #[arg(long)]
    learner: bool,
    /// Candidates of a lower one let those of a higher one go first; 0 votes and never leads.
    #[arg(long, value_name = "0-255", default_value_t = PRIORITY_DEFAULT)]
    priority: u8,
    /// Where its vote and the configuration are kept [default: clusters/CLUSTER/NAME in
    /// $REPLCORE_DATA, else in $XDG_DATA_HOME/replcore, else in ~/.local/share/replcore].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Answer HTTP here; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    http: Vec<String>,
    /// Run this, by sh -c, only while this member leads.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Listen beyond this machine without TLS: anybody who reaches the port can then take part.
    #[arg(long)]
    insecure_listen_anywhere: bool,
    /// What is logged to standard error.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// For tests: nothing is written to the data folder while this file exists.
    #[arg(long, value_name = "FILE", hide = true)]
    stall_file: Option<PathBuf>,
}

/// Runs the program of `cluster --exec`, and ends it with the lease. Not for people.
#[derive(clap::Args)]
#[command(hide = true, after_help = "Examples:\n  replcore cluster --help     says what runs this")]
pub(super) struct GuardArgs {}

pub(super) fn guard(_: &GuardArgs) -> Result<(), Fault> {
    match exec::guard() {
        0 => Ok(()),
        code => Err(Fault { code, message: String::new() }),
    }
}

pub(super) async fn run(args: ClusterArgs) -> Result<(), Fault> {
    let mut config = match &args.config {
        Some(file) => config::read(file).map_err(Fault::config)?,
        None => of_flags(&args).map_err(Fault::usage)?,
    };
    if let Some(folder) = args.data {
        config.options.folder = folder;
    }
    if !args.http.is_empty() {
        config.http = args.http;
    }
    if let Some(files) = args.tls.files() {
        config.options.tls = Some(files);
    }
    config.exec = args.exec.or(config.exec);
    config.options.stall_file = args.stall_file;
    let open = args.insecure_listen_anywhere;
    refuse_plaintext(&config, open, args.config.is_some()).map_err(Fault::usage)?;
    if config.exec.is_some() && config.options.masterless {
        return Err(Fault::config("exec needs a leader: leave masterless out"));
    }
    serve(config, &args.log).await
}

fn of_flags(args: &ClusterArgs) -> Result<ClusterConfig, String> {
    let parse_name =
        |text: &str| Name::new(text).map_err(|error| format!("name `{text}`: {error}"));
    let name = parse_name(args.name.as_deref().unwrap_or_default())?;
    let cluster = parse_name(&args.cluster)?;
    let listen: Address = args.listen.as_deref().unwrap_or_default().parse()?;
    let folder = match &args.data {
        Some(folder) => folder.clone(),
        None => config::default_folder(&cluster, &name)?,
    };
    let mut options = ClusterOptions::new(name, cluster, listen, folder);
    for text in &args.peer {
        let (text, learner) = match text.strip_suffix(",learner") {
            Some(text) => (text, true),
            None => (text.as_str(), false),
        };
        let (peer, address) =
            text.split_once('=').ok_or_else(|| format!("--peer `{text}`: write NAME=HOST:PORT"))?;
        let peer = PeerOptions {
            name: parse_name(peer)?,
            address: address.parse()?,
            metadata: Metadata::new(),
            voter: !learner,
        };
        if peer.name == name || options.peers.iter().any(|known| known.name == peer.name) {
            return Err(format!("--peer {text}: the name {} is taken", peer.name));
        }
        options.peers.push(peer);
    }
    options.join = args.join.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    options.metadata = args.metadata.as_deref().map(parse_metadata).transpose()?;
    options.advertise = args.advertise.clone().unwrap_or_default();
    options.set_profile(args.profile);
    options.masterless = args.masterless;
    options.voter = !args.learner;
    options.priority = args.priority;
    config::check(&options)?;
    Ok(ClusterConfig { options, http: Vec::new(), exec: None, reports: Vec::new() })
}

pub(super) fn parse_metadata(text: &str) -> Result<Metadata, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("metadata `{text}` is not a JSON object ({error}); write '{{\"key\": \"value\"}}'")
    })
}

/// A file that QCluster takes is taken as it is, with a warning; what is told by flags, and HTTP, is
/// for this machine only unless said otherwise.
fn refuse_plaintext(config: &ClusterConfig, open: bool, file: bool) -> Result<(), String> {
    if open || config.options.tls.is_some() {
        return Ok(());
    }
    let listen = config.options.listen.to_string();
    let own = (!file).then_some(&listen);
    let beyond = |address: &&String| !address.starts_with("unix:") && !is_loopback(address);
    match own.into_iter().chain(&config.http).find(beyond) {
        None => Ok(()),
        Some(address) => Err(format!(
            "will not listen on {address} without TLS: anybody who reaches it could take part; give \
             --tls-ca, --tls-cert and --tls-key (`replcore ca` makes them), or listen on 127.0.0.1, or \
             say --insecure-listen-anywhere"
        )),
    }
}

/// Runs a member until a signal ends it.
async fn serve(config: ClusterConfig, log: &str) -> Result<(), Fault> {
    start_log(log)?;
    let mut signals = Signals::new()?;
    for report in &config.reports {
        tracing::warn!("{report}");
    }
    let tls = config.options.tls.clone().map(Tls::load).transpose();
    let tls = tls.map_err(|error| Fault::start(error.to_string()))?;
    let mut listeners = Vec::new();
    for address in &config.http {
        listeners.push(bind_http(address).await?);
    }
    let cluster = Cluster::start(config.options.clone()).map_err(Fault::start)?;
    announce(&config, &cluster, &listeners)?;

    let (stop, stopping) = watch::channel(false);
    let mut http = tokio::task::JoinSet::new();
    for listener in listeners {
        let mut stopping = stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let behind = (Behind::Member, cluster.handle().clone());
        let options = HttpOptions::default();
        let serving = crate::http::serve(listener, tls.clone(), behind, options, stopped);
        http.spawn_local(async move {
            if let Err(error) = serving.await {
                tracing::error!("HTTP has ended: {error}");
            }
        });
    }
    if let Some(tls) = tls {
        tokio::task::spawn_local(tls.watch(WATCH));
    }
    let ending = async {
        tokio::select! {
            () = signals.end() => {}
            () = ended(&cluster) => {}
        }
        let _ = stop.send(true);
    };
    match exec_options(&config)? {
        Some(options) => drop(tokio::join!(ending, exec::run(&cluster, options, stopping))),
        None => ending.await,
    }
    let again = async { signals.end().await };
    let ended = tokio::task::spawn_blocking(move || cluster.stop());
    let error = tokio::select! {
        ended = ended => ended.map_err(|error| Fault::failed(error.to_string()))?,
        () = again => return Err(Fault::failed("ended at once by a second signal")),
    };
    while http.join_next().await.is_some() {}
    error.map_or(Ok(()), |error| Err(Fault::failed(error)))
}

/// Waits until the member has ended by itself.
async fn ended(cluster: &Cluster) {
    let mut watch = cluster.watch();
    while watch.changed().await {}
}

fn exec_options(config: &ClusterConfig) -> Result<Option<ExecOptions>, Fault> {
    let Some(command) = &config.exec else { return Ok(None) };
    let own = std::env::current_exe()
        .map_err(|error| Fault::start(format!("cannot find the own program: {error}")))?;
    let guard = (own, vec![GUARD.to_owned()]);
    let mut options = ExecOptions::new(command.clone(), guard, config.options.election);
    let member = &config.options;
    options.environment = vec![
        ("REPLCORE_NAME".into(), member.name.to_string()),
        ("REPLCORE_CLUSTER".into(), member.cluster.to_string()),
    ];
    Ok(Some(options))
}

/// Says where the member is, in lines that programs may read: the address is the last word.
fn announce(config: &ClusterConfig, cluster: &Cluster, http: &[TcpListener]) -> Result<(), Fault> {
    let options = &config.options;
    let who = format!("member `{}` of cluster `{}`", options.name, options.cluster);
    let mut text = format!("{who} keeps its state in {}\n", options.folder.display());
    for listener in http {
        let address = listener.local_addr().map(|it| it.to_string()).unwrap_or_default();
        text.push_str(&format!("{who} answers HTTP on {address}\n"));
    }
    text.push_str(&format!("{who} listens on {}\n", cluster.address()));
    if options.tls.is_none()
        && matches!(cluster.address(), Address::Tcp(text) if !is_loopback(text))
    {
        tracing::warn!("without TLS, anybody who reaches the port can take part in the cluster");
    }
    table::print(&text)
}
