//! `replcore key`: the keys of links without TLS.

use std::path::PathBuf;

use clap::Subcommand;
use replcore::stream::Name;
use replcore::transport::noise::PublicKey;

use super::{Fault, table};
use crate::config::HUB_NAME;
use crate::noise::keys::{self, hex};

/// Keys for links without TLS (Noise), in one file for each node.
#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Make a pair of keys: FILE with the private half. Prints the public half, which others are given.
    #[command(after_help = "\
Examples:
  replcore key make hub.keys
  replcore key make till-7.keys")]
    Make {
        /// The file; nothing is overwritten.
        file: PathBuf,
    },
    /// Print the public half of the pair in FILE.
    #[command(after_help = "Examples:\n  replcore key public hub.keys")]
    Public {
        /// The file.
        file: PathBuf,
    },
    /// Add the public key of another node to FILE: the node with its other half may speak as NAME.
    #[command(after_help = "\
Examples:
  replcore key add hub.keys till-7 $(replcore key public till-7.keys)
  replcore key add till-7.keys hub $(replcore key public hub.keys)
  replcore hub --listen noise:0.0.0.0:8081 --noise-keys hub.keys
  replcore leaf till-7 --broker noise:hub.example.com:8081 --noise-keys till-7.keys")]
    Add {
        /// The file; made if need be.
        file: PathBuf,
        /// The name of the other node.
        name: String,
        /// Its public key.
        key: String,
    },
    /// Make a key that NAME and this node share: a line in FILE, and the file OTHER for the other end.
    #[command(after_help = "\
Examples:
  replcore key share hub.keys mcu-1 mcu-1.keys

The least to set up on a device; whoever reads the key at either end can pass for both.")]
    Share {
        /// The file of this node; made if need be.
        file: PathBuf,
        /// The name of the other node.
        name: String,
        /// The file for the other node; nothing is overwritten.
        other: PathBuf,
        /// The name of this node.
        #[arg(long, default_value = HUB_NAME)]
        own: String,
    },
}

fn name(text: &str) -> Result<Name, Fault> {
    Name::new(text).map_err(|error| Fault::usage(format!("name `{text}`: {error}")))
}

pub(super) fn run(command: &KeyCommand) -> Result<(), Fault> {
    match command {
        KeyCommand::Make { file } => {
            let public = keys::make(file).map_err(Fault::failed)?;
            table::print(&format!("{}\n", hex(&public.0)))
        }
        KeyCommand::Public { file } => {
            let public = keys::public(file).map_err(Fault::failed)?;
            table::print(&format!("{}\n", hex(&public.0)))
        }
        KeyCommand::Add { file, name: other, key } => {
            let key = keys::parse_key(key).map_err(Fault::usage)?;
            keys::add(file, &name(other)?, PublicKey(key)).map_err(Fault::failed)
        }
        KeyCommand::Share { file, name: other_name, other, own } => {
            keys::share(file, &name(own)?, &name(other_name)?, other).map_err(Fault::failed)?;
            table::print(&format!(
                "{} has a key of {other_name} now; give {} to {other_name}, and to nobody else\n",
                file.display(),
                other.display()
            ))
        }
    }
}
