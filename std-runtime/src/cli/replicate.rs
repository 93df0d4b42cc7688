//! `replcore replicate`: the flags of the program that this one follows, as they were (EX-1).

use std::time::Duration;

use replcore::stream::Name;

use super::post::old_samples;
use super::remote::{Remote, RemoteArgs, TlsArgs};
use super::{Fault, daemon, table};
use crate::api::DispatchRule;
use crate::config::{self, Config, HUB_NAME};

/// Time between two messages of the endless stream.
const STREAM: Duration = Duration::from_millis(500);

/// Hub and leaf with the flags of old.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore replicate -i -k central
  replcore replicate -i -k cm_1
  replcore replicate -c -k central -p 8080 -d 242
  replcore replicate -l 242 -k cm_1 -p 8181 -b localhost:8080
  replcore replicate -x localhost:8080
  replcore read localhost:8181

A keyspace is a data folder in $REPLCORE_DATA, else in $XDG_DATA_HOME/replcore, else in
~/.local/share/replcore. A central broker is the node `hub`. Without -d it dispatches to nobody.")]
pub(super) struct ReplicateArgs {
    /// Keyspace to use.
    #[arg(short, long)]
    keyspace: Option<String>,
    /// Act as leaf node with node ID.
    #[arg(short, long, value_name = "ID", conflicts_with = "central")]
    leaf: Option<String>,
    /// Act as central broker.
    #[arg(short, long)]
    central: bool,
    /// Post two sample messages to a node.
    #[arg(short = 'x', long, value_name = "HOST:PORT")]
    post: Option<String>,
    /// Post a sample message every 0.5 s to a node, without end.
    #[arg(short, long, value_name = "HOST:PORT")]
    messages: Option<String>,
    /// Initialise the keyspace.
    #[arg(short, long)]
    initialize: bool,
    /// Host and port of the central broker.
    #[arg(short, long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// The host name at which this node says it can be reached.
    #[arg(short = 'n', long, value_name = "HOST", default_value = "localhost")]
    hostname: String,
    /// The port to listen on.
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// Host of a Cassandra cluster that keeps the data: not there yet.
    #[arg(short, long, value_name = "HOST")]
    seed: Option<String>,
    /// Queue to which a central broker dispatches; may be given several times.
    #[arg(short, long, value_name = "QUEUE")]
    dispatch: Vec<String>,
    /// Listen beyond this machine, without TLS.
    #[arg(long)]
    insecure_listen_anywhere: bool,
}

pub(super) async fn run(args: ReplicateArgs) -> Result<(), Fault> {
    if let Some(seed) = &args.seed {
        return Err(Fault::failed(format!(
            "-s {seed}: keeping the data in Cassandra is not there yet; without -s it is kept in a \
             folder on this machine"
        )));
    }
    if let Some(node) = args.post.clone() {
        return post(&node).await;
    }
    if let Some(node) = args.messages.clone() {
        return stream(&node).await;
    }
    let Some(keyspace) = &args.keyspace else {
        return Err(wrong("which keyspace? give -k KEYSPACE"));
    };
    let name = Name::new(keyspace).map_err(|error| wrong(format!("-k {keyspace}: {error}")))?;
    let folder = config::data_folder(&name).map_err(|error| Fault::failed(error.to_string()))?;
    if args.initialize {
        // HS-02: what is there stays as it is.
        std::fs::create_dir_all(&folder)
            .map_err(|error| Fault::failed(format!("cannot make {}: {error}", folder.display())))?;
        return table::print(&format!("keyspace {keyspace} is in {}\n", folder.display()));
    }
    if !args.central && args.leaf.is_none() {
        return Err(wrong("hub or leaf? give -c, or -l ID"));
    }
    if args.leaf.is_some() && args.broker.is_none() {
        return Err(wrong("a leaf needs a broker: give -b HOST:PORT"));
    }
    if !folder.is_dir() {
        return Err(Fault::failed(format!(
            "there is no keyspace {keyspace}: make it with `replcore replicate -i -k {keyspace}`"
        )));
    }
    node(args, folder.to_string_lossy().into_owned()).await
}

/// A wrong command line: the message and the help, and exit code 1 as of old.
fn wrong(message: impl Into<String>) -> Fault {
    let mut command = <super::Cli as clap::CommandFactory>::command();
    if let Some(command) = command.find_subcommand_mut("replicate") {
        eprintln!("{}", command.render_help());
    }
    Fault::failed(message)
}

async fn node(args: ReplicateArgs, folder: String) -> Result<(), Fault> {
    let host = if args.insecure_listen_anywhere { "0.0.0.0" } else { "127.0.0.1" };
    let config = Config {
        role: if args.central { "hub".into() } else { "leaf".into() },
        name: args.leaf.unwrap_or_else(|| HUB_NAME.into()),
        data_folder: folder,
        listen: vec![format!("{host}:{}", args.port)],
        advertise: format!("{}:{}", args.hostname, args.port),
        brokers: args.broker.into_iter().collect(),
        allow_plaintext: args.insecure_listen_anywhere,
        ..Config::default()
    };
    let mut options = config.options().map_err(|error| Fault::failed(error.to_string()))?;
    options.rules = match args.dispatch.is_empty() {
        true => Vec::new(),
        false => vec![DispatchRule { to: args.dispatch, ..DispatchRule::default() }],
    };
    daemon::serve(config, options, None).await
}

async fn open(node: &str) -> Result<Remote, Fault> {
    Remote::open(&RemoteArgs { node: node.to_owned(), tls: TlsArgs::default() }).await
}

async fn post(node: &str) -> Result<(), Fault> {
    let remote = open(node).await?;
    let ids = old_samples(&remote, 1, 2).await?;
    remote.close().await;
    table::print(&ids.iter().map(|posted| format!("posted {}\n", posted.id)).collect::<String>())
}

async fn stream(node: &str) -> Result<(), Fault> {
    let remote = open(node).await?;
    let mut tick = tokio::time::interval(STREAM);
    let mut number = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        number += 1;
        for posted in old_samples(&remote, number, 1).await? {
            table::print(&format!("posted {}\n", posted.id))?;
        }
    }
    remote.close().await;
    Ok(())
}
