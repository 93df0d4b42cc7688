//! The table of keys.

mod bounds;
mod messages;
mod node;

use std::path::PathBuf;

use super::{Config, parse_peer};
use crate::api::DispatchRule;
use crate::ingest::{Afterwards, FileFormat, IngestOptions};
use crate::options::Address;
use crate::schema::Schema;
use crate::store::LimitPolicy;
use replcore::stream::Name;

use bounds::{CONSUMERS, DEADLINES, LEASE, LIMITS, STANDBY};
use messages::{INGEST, QUEUE, QUEUE_LIMIT, RATES, RULE, SCHEMA, add_queue_limit};
use node::{HTTP, NODE, NOISE, TLS};

/// Where the value of a key goes.
pub(super) enum Field<'a> {
    U32(&'a mut u32),
    U64(&'a mut u64),
    Usize(&'a mut usize),
    Flag(&'a mut bool),
    Text(&'a mut String),
    Texts(&'a mut Vec<String>),
    Policy(&'a mut LimitPolicy),
    Path(&'a mut PathBuf),
    Class(&'a mut Option<u8>),
    Format(&'a mut FileFormat),
    Afterwards(&'a mut Afterwards),
    /// An inline table of attribute names and types.
    Attributes(&'a mut Schema),
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A whole number of `unit` in the range, ends included.
    Integer { unit: &'static str, min: u64, max: u64 },
    /// `true` or `false`.
    Flag,
    /// A text that passes the check.
    Text { form: &'static str, check: fn(&str) -> Result<(), String> },
    /// A list of texts that pass the check.
    Texts { form: &'static str, check: fn(&str) -> Result<(), String> },
    /// One of these.
    Choice(&'static [&'static str]),
    /// Names with `text`, `float` or `integer`.
    Attributes,
}

/// A key: where it stands, what it takes, what it means, whether a reload takes it up, and where
/// its value goes.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: &'static str,
    pub(super) reload: bool,
    pub(super) field: fn(&mut Config) -> Field<'_>,
}

/// A table of the file.
pub(super) struct Section {
    /// The header; empty for the top of the file.
    pub(super) name: &'static str,
    /// For `[[name]]`: makes room for one more.
    pub(super) add: Option<fn(&mut Config)>,
    pub(super) meaning: &'static str,
    pub(super) keys: &'static [Key],
}

const MS: &str = "ms";
const BYTES: &str = "bytes";
const HOUR_MS: u64 = 3_600_000;
const LONG_MS: u64 = 7 * 24 * HOUR_MS;

const fn integer(unit: &'static str, min: u64, max: u64) -> Kind {
    Kind::Integer { unit, min, max }
}

pub(super) const SECTIONS: &[Section] = &[
    Section { name: "", add: None, meaning: "The node.", keys: NODE },
    Section {
        name: "tls",
        add: None,
        meaning: "Mutual TLS between nodes, for programs and for HTTP: three files or none. The \
                  certificate names the node. `replcore ca` makes the files. Changed files are taken up \
                  by themselves.",
        keys: TLS,
    },
    Section {
        name: "noise",
        add: None,
        meaning: "Links without TLS, for devices: `noise:host:port` in `listen`, `brokers` and `dials`. The end \
                  that registers begins, and each may only speak as the node that its key belongs to.",
        keys: NOISE,
    },
    Section {
        name: "http",
        add: None,
        meaning: "HTTP for programs, people and monitoring.",
        keys: HTTP,
    },
    Section { name: "lease", add: None, meaning: "Registration of leaves at hubs.", keys: LEASE },
    Section {
        name: "deadlines",
        add: None,
        meaning: "Every wait on the network ends.",
        keys: DEADLINES,
    },
    Section { name: "consumers", add: None, meaning: "Named durable consumers.", keys: CONSUMERS },
    Section { name: "limits", add: None, meaning: "Bounds of memory and disk.", keys: LIMITS },
    Section {
        name: "queue",
        add: None,
        meaning: "Limits of every queue, and what happens at them.",
        keys: QUEUE,
    },
    Section {
        name: "queue_limit",
        add: Some(add_queue_limit),
        meaning: "Limits of one queue; what is left out is as in [queue]. The queue of a leaf, a broker or a \
                  consumer has its name.",
        keys: QUEUE_LIMIT,
    },
    Section {
        name: "standby",
        add: None,
        meaning: "A hub that outlives its machine: several hubs of one name, and with TLS of one certificate, \
                  hold one log; one of them leads, the others follow it and one takes its place. Leaves \
                  have all their addresses in `brokers`, under that name. A hub that no longer leads ends; \
                  started again it follows. All or nothing of it.",
        keys: STANDBY,
    },
    Section { name: "rates", add: None, meaning: "How fast a link may be filled.", keys: RATES },
    Section {
        name: "rule",
        add: Some(|config| config.rules.push(DispatchRule::default())),
        meaning: "Where messages go; every rule that matches counts. A hub without rules sends \
                  every message to every registered leaf, never back to where it came from.",
        keys: RULE,
    },
    Section {
        name: "ingest",
        add: Some(|config| config.ingests.push(IngestOptions::default())),
        meaning: "A folder whose files become messages, each once across restarts of every part. \
                  Lines that are no messages go into NAME.rejected beside the file.",
        keys: INGEST,
    },
    Section {
        name: "schema",
        add: Some(|config| config.schemas.push(Schema::default())),
        meaning: "What messages of a type must look like to be taken here; other types may be \
                  anything.",
        keys: SCHEMA,
    },
];

fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

fn node_name(text: &str) -> Result<(), String> {
    Name::new(text).map(drop).map_err(|error| error.to_string())
}

fn name_or_nothing(text: &str) -> Result<(), String> {
    match text {
        "" => Ok(()),
        _ => Name::new(text).map(drop).map_err(|error| error.to_string()),
    }
}

fn queue_or_all(text: &str) -> Result<(), String> {
    match text {
        "*" => Ok(()),
        _ => Name::new(text).map(drop).map_err(|error| error.to_string()),
    }
}

fn address(text: &str) -> Result<(), String> {
    text.parse::<Address>().map(drop)
}

fn host_port_or_nothing(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { host_port(text) }
}

fn host_port(text: &str) -> Result<(), String> {
    match text.parse::<Address>()? {
        Address::Tcp(_) => Ok(()),
        Address::Unix(_) | Address::Serial(_) | Address::Noise(_) => {
            Err(format!("`{text}`: HTTP is answered on host:port only"))
        }
    }
}

fn advertised(text: &str) -> Result<(), String> {
    match text {
        "" => Ok(()),
        _ if text.len() > 255 => Err("an advertised address has at most 255 bytes".into()),
        _ => host_port(text),
    }
}

fn peer(text: &str) -> Result<(), String> {
    parse_peer(text).map(drop)
}
