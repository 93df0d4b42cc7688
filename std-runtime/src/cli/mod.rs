//! The `replcore` program: what a person types and sees.
//!
//! Every command is one file or a part of one; all of them talk to nodes by `remote`, print by
//! `table` and end with a `Fault` or well.

mod cluster;
mod consume;
mod daemon;
mod fault;
mod key;
mod members;
mod operate;
mod post;
mod read;
pub(crate) mod remote;
mod replicate;
pub(crate) mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use replcore::stream::Name;

pub(crate) use fault::Fault;

use crate::config;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed; the message says why
  2  the command line is wrong
  3  a configuration or rules file is wrong
  4  no node can be reached there, or it does not answer
  5  the node refused
  6  nothing was found
  7  this machine does not let the node start: port taken, folder locked or of another node

Five minutes:
  replcore quickstart                     see it work, nothing to set up
  replcore hub                            a hub on 127.0.0.1:8080
  replcore leaf till-7 --broker localhost:8080
  replcore post localhost:8181 hello      post at the leaf ...
  replcore read localhost:8080            ... and read at the hub";

/// Hub and leaves: what is posted anywhere arrives everywhere it should, once.
#[derive(Parser)]
#[command(name = "replcore", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Quickstart(crate::quickstart::QuickstartArgs),
    Hub(daemon::HubArgs),
    Leaf(daemon::LeafArgs),
    Run(daemon::RunArgs),
    Check(daemon::CheckArgs),
    Config(ConfigArgs),
    Post(post::PostArgs),
    Read(read::ReadArgs),
    Consume(consume::ConsumeArgs),
    Consumers(operate::ConsumersArgs),
    Queue(operate::QueueArgs),
    Nodes(operate::NodesArgs),
    Rules(operate::RulesArgs),
    Status(operate::StatusArgs),
    Cluster(Box<cluster::ClusterArgs>),
    #[command(name = cluster::GUARD)]
    Guard(cluster::GuardArgs),
    Leader(members::LeaderArgs),
    Members(members::MembersArgs),
    Resign(members::ResignArgs),
    Join(members::JoinArgs),
    Leave(members::LeaveArgs),
    #[command(subcommand)]
    Ca(CaCommand),
    #[command(subcommand)]
    Key(key::KeyCommand),
    Replicate(replicate::ReplicateArgs),
    Completions(CompletionsArgs),
}

/// Explain the keys of the configuration file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore config --explain               every key: meaning, type, unit, range, default
  replcore config --explain > node.toml   a file to start from")]
struct ConfigArgs {
    /// Print every key as a file of all defaults.
    #[arg(long, required = true)]
    explain: bool,
    /// Print it for programs.
    #[arg(long)]
    json: bool,
}

/// A certificate authority in a folder, for people without a PKI.
#[derive(Subcommand)]
enum CaCommand {
    /// Make an authority: DIR/ca.pem and DIR/ca.key. Nothing is overwritten.
    #[command(after_help = "Examples:\n  replcore ca init /etc/replcore/ca")]
    Init {
        /// The folder; made if need be.
        dir: PathBuf,
    },
    /// Make a certificate and key for a node or program: DIR/NAME.pem and DIR/NAME.key.
    #[command(after_help = "\
Examples:
  replcore ca issue /etc/replcore/ca hub --host hub.example.com
  replcore ca issue /etc/replcore/ca till-7
  replcore leaf till-7 --broker hub.example.com:8080 --tls-ca ca.pem \\
      --tls-cert till-7.pem --tls-key till-7.key")]
    Issue {
        /// The folder of the authority.
        dir: PathBuf,
        /// The name of the node; it may only speak as this.
        name: String,
        /// Names or addresses by which HTTP clients reach the node [default: localhost and loopback].
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// How long it is valid, in days.
        #[arg(long, default_value_t = crate::ca::NODE_DAYS, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
}

/// Print completions for a shell.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore completions bash > ~/.local/share/bash-completion/completions/replcore
  replcore completions zsh > ~/.zfunc/_replcore
  replcore completions fish > ~/.config/fish/completions/replcore.fish")]
struct CompletionsArgs {
    /// Which shell.
    shell: clap_complete::Shell,
}

/// The whole program: reads the command line, does it, and says how it went.
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // The old program answered 1 where the command line was wrong, and EX-1 keeps that.
            let old = std::env::args().nth(1).is_some_and(|first| first == "replicate");
            let _ = error.print();
            return ExitCode::from(match (error.use_stderr(), old) {
                (false, _) => 0,
                (true, true) => 1,
                (true, false) => 2,
            });
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("replcore: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, run(command));
    // A read of standard input that is under way cannot be taken back, and must not hold the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if !fault.message.is_empty() {
                eprintln!("replcore: {fault}");
            }
            ExitCode::from(fault.code)
        }
    }
}

async fn run(command: Command) -> Result<(), Fault> {
    match command {
        Command::Quickstart(args) => crate::quickstart::run(args).await,
        Command::Hub(args) => daemon::hub(args).await,
        Command::Leaf(args) => daemon::leaf(args).await,
        Command::Run(args) => daemon::run(args).await,
        Command::Check(args) => daemon::check(&args),
        Command::Config(args) => explain(&args),
        Command::Post(args) => post::run(args).await,
        Command::Read(args) => read::run(args).await,
        Command::Consume(args) => consume::run(args).await,
        Command::Consumers(args) => operate::consumers(args).await,
        Command::Queue(args) => operate::queue(args).await,
        Command::Nodes(args) => operate::nodes(args).await,
        Command::Rules(args) => operate::rules(args).await,
        Command::Status(args) => operate::status(args).await,
        Command::Cluster(args) => cluster::run(*args).await,
        Command::Guard(args) => cluster::guard(&args),
        Command::Leader(args) => members::leader(args).await,
        Command::Members(args) => members::members(args).await,
        Command::Resign(args) => members::resign(args).await,
        Command::Join(args) => members::join(args).await,
        Command::Leave(args) => members::leave(args).await,
        Command::Ca(command) => ca(&command),
        Command::Key(command) => key::run(&command),
        Command::Replicate(args) => replicate::run(args).await,
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "replcore", &mut script);
            table::print(&String::from_utf8_lossy(&script))
        }
    }
}

fn explain(args: &ConfigArgs) -> Result<(), Fault> {
    debug_assert!(args.explain, "clap requires it");
    match args.json {
        true => table::print(&format!("{:#}\n", config::explain_json())),
        false => table::print(&config::explain()),
    }
}

fn ca(command: &CaCommand) -> Result<(), Fault> {
    match command {
        CaCommand::Init { dir } => {
            let made = crate::ca::init(dir).map_err(Fault::failed)?;
            table::print(&format!(
                "made {} (give it to every node) and {} (keep it secret)\n\
                 next: replcore ca issue {} NODE-NAME\n",
                made.cert.display(),
                made.key.display(),
                dir.display()
            ))
        }
        CaCommand::Issue { dir, name, hosts, days } => {
            let name =
                Name::new(name).map_err(|error| Fault::usage(format!("name `{name}`: {error}")))?;
            let made = crate::ca::issue(dir, &name, hosts, *days).map_err(Fault::failed)?;
            table::print(&format!(
                "made a certificate for {name}, valid for {days} days; give the node\n  \
                 --tls-ca {} --tls-cert {} --tls-key {}\n",
                dir.join("ca.pem").display(),
                made.cert.display(),
                made.key.display()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_ends_with_examples() {
        fn check(command: &clap::Command) {
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("replcore "), "no examples: {}", command.get_name());
            }
            command.get_subcommands().filter(|it| it.get_name() != "help").for_each(check);
        }
        check(&Cli::command());
    }
}
