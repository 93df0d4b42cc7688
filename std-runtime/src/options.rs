//! What a node is told at its start. Plain data: the program fills it from its configuration
//! file and flags, a test fills it by hand.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use replcore::log::record::Record;
use replcore::stream::Name;

use crate::api::DispatchRule;
use crate::schema::Schema;
use crate::store::{Arrival, LimitPolicy, QueueLimits};

/// Where to listen or to dial: `host:port`, `unix:/path/of/socket`, `serial:host:port` or `noise:host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address and a port, `host:port` or `[v6]:port`.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A host and port where a serial server brings a line with COBS packets, for devices. Without
    /// TLS.
    Serial(String),
    /// The same with packets that are sealed by Noise, for links without TLS; takes
    /// [`NodeOptions::noise_keys`].
    Noise(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("`{text}` names no path; write unix:/path/of/socket"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(line) = text.strip_prefix("serial:") {
            return match line.parse() {
                Ok(Self::Tcp(line)) => Ok(Self::Serial(line)),
                _ => Err(format!("`{text}` is not a serial line; write serial:host:port")),
            };
        }
        if let Some(line) = text.strip_prefix("noise:") {
            return match line.parse() {
                Ok(Self::Tcp(line)) => Ok(Self::Noise(line)),
                _ => Err(format!("`{text}` is not a line with Noise; write noise:host:port")),
            };
        }
        let malformed = || format!("`{text}` is not an address; write host:port or unix:/path");
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let colons = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || colons || port.parse::<u16>().is_err() {
            return Err(malformed());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Serial(text) => write!(f, "serial:{text}"),
            Self::Noise(text) => write!(f, "noise:{text}"),
        }
    }
}

/// A node at the other end of a link that this node dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name. The link is refused when another node answers there.
    pub name: Name,
    /// Where it listens.
    pub address: Address,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Takes registrations of leaves and dispatches to them. May have upstreams of its own.
    Hub,
    /// Registers at its upstreams.
    Leaf,
}

impl NodeRole {
    /// `hub` or `leaf`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Leaf => "leaf",
        }
    }
}

/// The three files of mutual TLS, all PEM. Read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that peers must be signed by.
    pub ca: PathBuf,
    /// This node's certificate chain. It names the node: see [`crate::tls::certificate_name`].
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// When a link to an upstream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    /// All the time; messages leave as they come. The default.
    Push,
    /// For one exchange every so often, in milliseconds: for sleepy leaves. Default 10,000.
    Poll {
        /// From the start of one exchange to the start of the next.
        interval_ms: u32,
    },
}

/// What an acknowledgement of this node means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of power: synced before it is acknowledged. The default.
    Synced,
    /// Survives the end of the process. After an unclean end the node takes a new epoch.
    Written,
}

/// Leases of registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// How often a leaf registers again. Default 300,000 ms.
    pub register_ms: u32,
    /// How long a registration holds; at a hub the most that it grants. Default 900,000 ms.
    pub lease_ms: u32,
    /// Links that a hub lets through the handshake per second, so that a storm of reconnects does
    /// not starve the leaves that are served; the others are told when to come back. Default 1000.
    pub admissions_per_second: u32,
}

/// Every wait on the network ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Opening a connection. Default 5,000 ms.
    pub connect_ms: u32,
    /// From connection to working link, TLS included. Default 5,000 ms.
    pub handshake_ms: u32,
    /// First wait before dialling again; it grows with jitter. Default 500 ms.
    pub reconnect_ms: u32,
    /// Longest wait before dialling again. Default 10,000 ms.
    pub reconnect_ms_max: u32,
    /// An idle link says something at least this often; a link silent for three times as long is
    /// closed. Default 10,000 ms.
    pub keepalive_ms: u32,
    /// A peer that takes none of the bytes written to it for this long is hung up. Default
    /// 15,000 ms.
    pub write_stall_ms: u32,
    /// What a stop may take to hand over what is under way. Default 10,000 ms.
    pub drain_ms: u32,
}

/// Named consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// A message neither acknowledged nor rejected for this long is delivered again. Default
    /// 30,000 ms.
    pub ack_wait_ms: u32,
    /// After this many deliveries a message goes to the dead letters. Default 5; at least 1.
    pub deliveries_max: u32,
    /// Messages delivered and not settled, per consumer. Default 1,000. About 24 bytes each.
    pub outstanding_max: u32,
    /// Most consumers. Default 64.
    pub consumers_max: u32,
}

/// Bounds of memory and disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most links open at once, clients included. About 3 KiB each, taken at the start, and as
    /// much again while one is open. Default [`Limits::links_max_of`] the role.
    pub links_max: u32,
    /// Connections that wait to be accepted. Default 128.
    pub accept_backlog: u32,
    /// Most leaves a hub knows. Default 1,024.
    pub leaves_max: u32,
    /// Most queues, those of leaves, upstreams, consumers and dead letters together. Default 4,096.
    pub queues_max: u32,
    /// Largest message, all attributes included. Default 16 MiB; at most 64 MiB.
    pub message_bytes_max: u32,
    /// Longest frame this node takes. Default 256 KiB; 512 bytes to 1 MiB.
    pub frame_bytes_max: u32,
    /// Bytes waiting to be written, per link that is busy. At least two frames. Default 512 KiB.
    pub link_buffer_bytes: u32,
    /// Bytes of records under way to this node, per stream. Default 1 MiB.
    pub receive_window_bytes: u32,
    /// Calls of programs at work at once. Default 256.
    pub calls_max: u32,
    /// Largest call or reply, all parts together. Default 32 MiB.
    pub call_bytes_max: u32,
    /// Limits of each queue. Default: none by count or age, 1 GiB, refuse.
    pub queue: QueueLimits,
    /// Bytes of the log on disk; the oldest that no queue needs goes first. Default 4 GiB.
    pub log_bytes_max: u64,
    /// Bytes of one segment of the log. Default 16 MiB.
    pub segment_bytes: u32,
    /// Idempotency keys that are remembered. Default 65,536. About 64 bytes each.
    pub idempotency_keys_max: u32,
}

/// How fast a backlog may drain, so that live traffic keeps the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes of records per second and link; 0 for no limit, the default.
    pub link_bytes_per_second: u32,
    /// Bytes per second of class 0 that go strictly first; beyond it class 0 waits its turn. 0 for
    /// no limit, the default.
    pub class_0_bytes_per_second: u32,
}

/// Compression of records on a link. Used when both ends offer it and a batch becomes smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None; the default: on a fast link it costs more than it saves.
    #[default]
    None,
    /// LZ4 blocks.
    Lz4,
}

/// Decides further queues of a record when it is stored: it gets the record, how it came, and the
/// list to add to. It is called once for each record that is new, on the node's thread, so it has to
/// be quick. What would send a record back to its origin, to where it came from, or up again when it
/// came from above, is passed over.
#[derive(Clone)]
pub struct OwnRule(pub Arc<OwnRuleFn>);

/// What an [`OwnRule`] is made of.
pub type OwnRuleFn = dyn Fn(&Record<'_>, Arrival, &mut Vec<Name>) + Send + Sync;

impl fmt::Debug for OwnRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnRule")
    }
}

impl PartialEq for OwnRule {
    /// Whether it is the very same rule.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A hub that outlives its machine: one of several that hold one log, of which one leads (QC-33).
/// All have the name, and with TLS the certificate, of the one hub that they are to its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyOptions {
    /// The name of this one among them.
    pub member: Name,
    /// Where it listens for the others.
    pub listen: Address,
    /// The others, and where they listen for this one.
    pub peers: Vec<Peer>,
    /// How many others must hold a message before it is acknowledged or passed on. 0: none, and what
    /// was acknowledged last is lost with the machine. Default 1.
    pub acknowledge: u8,
    /// How it is decided who leads; `None` when the program does
    /// ([`crate::node::Running::lead`]).
    pub election: Option<ElectionOptions>,
}

/// The election among hubs that hold one log, and witnesses: plain members of the cluster that has the
/// name of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionOptions {
    /// Where this member listens for the other members.
    pub listen: Address,
    /// The other members, witnesses too, and where they listen.
    pub members: Vec<Peer>,
    /// Mutual TLS among members: the certificate names the member, unlike that of the hub.
    pub tls: Option<TlsFiles>,
}

/// Everything a node is told at its start. [`NodeOptions::new`] fills in the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeOptions {
    /// Its name. A data folder belongs to one name.
    pub name: Name,
    /// What it is.
    pub role: NodeRole,
    /// Where it keeps its data; made when it is not there.
    pub folder: PathBuf,
    /// Where it listens for nodes and programs. Empty for a leaf that only dials.
    pub listen: Vec<Address>,
    /// Where it says that it can be reached; empty for nowhere. At most 255 bytes.
    pub advertise: String,
    /// Hubs that this node registers at and dials. One that has standbys stands here several times,
    /// with the address of each; they are tried in turn.
    pub upstreams: Vec<Peer>,
    /// A hub that this node registers at and that dials it, for a node that cannot dial.
    pub called_by: Option<Name>,
    /// Leaves that this hub dials, for leaves that cannot dial.
    pub dials: Vec<Peer>,
    /// Mutual TLS on TCP links; `None` for plain links.
    pub tls: Option<TlsFiles>,
    /// The file of keys of links with Noise, at [`Address::Noise`]; `None` for none. Read again when it changes.
    pub noise_keys: Option<PathBuf>,
    /// With TLS or Noise: who may purge queues, forget leaves and change rules, beside the holder of this
    /// node's own certificate. Default nobody.
    pub administrators: Vec<Name>,
    /// Leases.
    pub lease: LeaseOptions,
    /// Push or poll.
    pub mode: LinkMode,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Where messages go, until somebody changes the rules at run time. Default for a hub: every
    /// message to every registered leaf.
    pub rules: Vec<DispatchRule>,
    /// A rule in the program's own words, beside [`Self::rules`]. Default: none.
    pub own_rule: Option<OwnRule>,
    /// What messages posted here must look like, by type. Default: anything.
    pub schemas: Vec<Schema>,
    /// Named consumers.
    pub consumers: ConsumerOptions,
    /// Waits.
    pub deadlines: Deadlines,
    /// Bounds.
    pub limits: Limits,
    /// Queues with limits of their own, by name: those of leaves, upstreams and consumers have the
    /// names of these. Where a name stands twice the last counts. Default: none; every queue has
    /// [`Limits::queue`].
    pub queue_limits: Vec<(Name, QueueLimits)>,
    /// Rates.
    pub rates: Rates,
    /// Compression.
    pub compression: Compression,
    /// The hubs that stand by for this one; `None` for none, the default.
    pub standby: Option<StandbyOptions>,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { register_ms: 300_000, lease_ms: 900_000, admissions_per_second: 1000 }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            handshake_ms: 5_000,
            reconnect_ms: 500,
            reconnect_ms_max: 10_000,
            keepalive_ms: 10_000,
            write_stall_ms: 15_000,
            drain_ms: 10_000,
        }
    }
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self { ack_wait_ms: 30_000, deliveries_max: 5, outstanding_max: 1000, consumers_max: 64 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links_max: Self::links_max_of(NodeRole::Hub),
            accept_backlog: 128,
            leaves_max: 1024,
            queues_max: 4096,
            message_bytes_max: 16 << 20,
            frame_bytes_max: 256 << 10,
            link_buffer_bytes: 512 << 10,
            receive_window_bytes: 1 << 20,
            calls_max: 256,
            call_bytes_max: 32 << 20,
            queue: QueueLimits {
                messages_max: 0,
                bytes_max: 1 << 30,
                age_ms_max: 0,
                policy: LimitPolicy::ByKind,
            },
            log_bytes_max: 4 << 30,
            segment_bytes: 16 << 20,
            idempotency_keys_max: 65_536,
        }
    }
}

impl Limits {
    /// The default of `links_max`: 1,024 for a hub, 64 for a leaf, which has links to its hubs
    /// and to programs beside it.
    pub const fn links_max_of(role: NodeRole) -> u32 {
        match role {
            NodeRole::Hub => 1024,
            NodeRole::Leaf => 64,
        }
    }
}

impl NodeOptions {
    /// The hubs of [`Self::upstreams`], each once.
    pub fn upstream_names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        for peer in &self.upstreams {
            if !names.contains(&peer.name) {
                names.push(peer.name);
            }
        }
        names
    }

    /// A node with every default, that listens nowhere and dials nobody.
    pub fn new(name: Name, role: NodeRole, folder: impl Into<PathBuf>) -> Self {
        let rules = match role {
            NodeRole::Hub => vec![DispatchRule { to: vec!["*".into()], ..DispatchRule::default() }],
            NodeRole::Leaf => Vec::new(),
        };
        Self {
            name,
            role,
            folder: folder.into(),
            listen: Vec::new(),
            advertise: String::new(),
            upstreams: Vec::new(),
            called_by: None,
            dials: Vec::new(),
            tls: None,
            noise_keys: None,
            administrators: Vec::new(),
            lease: LeaseOptions::default(),
            mode: LinkMode::Push,
            durability: Durability::Synced,
            rules,
            own_rule: None,
            schemas: Vec::new(),
            consumers: ConsumerOptions::default(),
            deadlines: Deadlines::default(),
            limits: Limits { links_max: Limits::links_max_of(role), ..Limits::default() },
            queue_limits: Vec::new(),
            rates: Rates::default(),
            compression: Compression::None,
            standby: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "127.0.0.1:8080",
            "[::1]:80",
            "hub.example:1",
            "unix:/run/replcore.sock",
            "serial:127.0.0.1:4000",
            "noise:127.0.0.1:4000",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in
            ["", "host", "host:", ":80", "host:99999", "::1:80", "unix:", "serial:x", "noise:x"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
