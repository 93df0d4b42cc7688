//! What the program is told at its start: one table of keys (`keys`) that the parser, the checks
//! and `replcore config --explain` share, so that none of them can say what another does not do.

mod explain;
mod keys;
mod parse;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use replcore::stream::Name;

pub use explain::{explain, explain_json};

use crate::api::DispatchRule;
use crate::http::HttpOptions;
use crate::ingest::{self, IngestOptions};
use crate::options::TlsFiles;
use crate::options::{
    Address, Compression, Durability, ElectionOptions, Limits, LinkMode, NodeOptions, NodeRole,
    Peer, StandbyOptions,
};
use crate::schema::Schema;
use crate::store::QueueLimits;

/// The name of a hub that was given none, and of a broker that is written without one.
pub const HUB_NAME: &str = "hub";
/// The port of a hub that was told no other.
pub const HUB_PORT: u16 = 8080;
/// The port of a leaf that was told no other.
pub const LEAF_PORT: u16 = 8181;

/// A configuration as it is written: plain values, each checked by itself. [`Config::options`]
/// checks how they go together. `Default` gives every default.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `hub` or `leaf`.
    pub role: String,
    /// The node's name; empty for [`HUB_NAME`] at a hub.
    pub name: String,
    /// The data folder; empty for the default rule, see [`data_folder`].
    pub data_folder: String,
    /// Where it listens; empty for loopback on the role's port.
    pub listen: Vec<String>,
    /// Where it says that it can be reached; empty for the first of `listen`.
    pub advertise: String,
    /// Upstream hubs, `NAME@HOST:PORT` or `HOST:PORT`.
    pub brokers: Vec<String>,
    /// The name of a hub that dials this node; empty for none.
    pub called_by: String,
    /// Leaves that a hub dials, `NAME@HOST:PORT`.
    pub dials: Vec<String>,
    /// Listen beyond loopback without TLS.
    pub allow_plaintext: bool,
    /// What is logged.
    pub log_level: String,
    /// `synced` or `written`.
    pub durability: String,
    /// `none` or `lz4`.
    pub compression: String,
    /// 0 for push.
    pub poll_ms: u32,
    /// TLS: trusted authorities.
    pub tls_ca: String,
    /// TLS: own certificate.
    pub tls_cert: String,
    /// TLS: own key.
    pub tls_key: String,
    /// The file of keys for Noise; empty for none.
    pub noise_keys: String,
    /// TLS and Noise: names that may administer this node.
    pub tls_administrators: Vec<String>,
    /// Where HTTP is answered; empty for nowhere.
    pub http_listen: Vec<String>,
    /// Limits of HTTP.
    pub http: HttpOptions,
    /// Queues with limits of their own: name and limits.
    pub queue_limits: Vec<(String, QueueLimits)>,
    /// The dispatch rules, if the file gives any.
    pub rules: Vec<DispatchRule>,
    /// Folders whose files become messages.
    pub ingests: Vec<IngestOptions>,
    /// Attribute schemas.
    pub schemas: Vec<Schema>,
    /// The hubs that stand by for this one.
    pub standby: StandbyConfig,
    /// Everything that is a number; the rest of it is filled in by [`Config::options`].
    pub numbers: NodeOptions,
}

impl Default for Config {
    fn default() -> Self {
        // A name that is always replaced: `options` puts the real one in.
        let name = Name::new(HUB_NAME).unwrap_or_else(|_| unreachable!("the constant is a name"));
        let mut numbers = NodeOptions::new(name, NodeRole::Hub, "");
        // That of the role, which is not known yet.
        numbers.limits.links_max = 0;
        Self {
            role: "hub".into(),
            name: String::new(),
            data_folder: String::new(),
            listen: Vec::new(),
            advertise: String::new(),
            brokers: Vec::new(),
            called_by: String::new(),
            dials: Vec::new(),
            allow_plaintext: false,
            log_level: "info".into(),
            durability: "synced".into(),
            compression: "none".into(),
            poll_ms: 0,
            tls_ca: String::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
            noise_keys: String::new(),
            tls_administrators: Vec::new(),
            http_listen: Vec::new(),
            http: HttpOptions::default(),
            queue_limits: Vec::new(),
            rules: Vec::new(),
            ingests: Vec::new(),
            schemas: Vec::new(),
            standby: StandbyConfig::default(),
            numbers,
        }
    }
}

/// The table `standby`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyConfig {
    /// The name of this hub among those that hold the log; empty for a hub without standbys.
    pub member: String,
    /// Where it listens for the others.
    pub listen: String,
    /// The others, `MEMBER@HOST:PORT`.
    pub peers: Vec<String>,
    /// How many others must hold what is acknowledged.
    pub acknowledge: u32,
    /// Where it listens for the other members of the election.
    pub election_listen: String,
    /// The other members, witnesses too, `MEMBER@HOST:PORT`.
    pub election_members: Vec<String>,
    /// With TLS: the certificate that names the member.
    pub election_cert: String,
    /// Its key.
    pub election_key: String,
}

impl Default for StandbyConfig {
    fn default() -> Self {
        Self {
            member: String::new(),
            listen: String::new(),
            peers: Vec::new(),
            acknowledge: 1,
            election_listen: String::new(),
            election_members: Vec::new(),
            election_cert: String::new(),
            election_key: String::new(),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line in the file, from 1; 0 when it is about no line.
    pub line: usize,
    /// What is wrong and what to do, in one line.
    pub message: String,
}

impl ConfigError {
    fn new(message: impl Into<String>) -> Self {
        Self { line: 0, message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}

impl Config {
    /// The configuration in `text`, TOML.
    ///
    /// # Errors
    /// Everything that is wrong with single keys, in the order of the file.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        parse::parse(text)
    }

    /// Checks how the values go together and makes the node's options of them.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn options(&self) -> Result<NodeOptions, ConfigError> {
        let hub = self.role == "hub";
        let mut options = self.numbers.clone();
        options.role = if hub { NodeRole::Hub } else { NodeRole::Leaf };
        if options.limits.links_max == 0 {
            options.limits.links_max = Limits::links_max_of(options.role);
        }
        options.name = self.node_name()?;
        options.folder = if self.data_folder.is_empty() {
            data_folder(&options.name)?
        } else {
            PathBuf::from(&self.data_folder)
        };
        options.listen = self.listen_addresses()?;
        options.advertise = self.advertised(&options.listen);
        options.upstreams = self.peers("brokers", &self.brokers)?;
        options.dials = self.peers("dials", &self.dials)?;
        options.called_by = self.caller(&options.upstreams)?;
        if !hub && options.upstreams.is_empty() && options.called_by.is_none() {
            return Err(ConfigError::new(
                "a leaf needs a broker: --broker HOST:PORT, or `brokers` in the file, or `called_by` \
                 when the broker dials",
            ));
        }
        options.tls = self.tls()?;
        options.noise_keys = self.noise(&options)?;
        self.refuse_plaintext(&options)?;
        for name in &self.tls_administrators {
            options.administrators.push(parse_name("tls.administrators", name)?);
        }
        options.mode = match self.poll_ms {
            0 => LinkMode::Push,
            interval_ms => LinkMode::Poll { interval_ms },
        };
        options.durability =
            if self.durability == "written" { Durability::Written } else { Durability::Synced };
        options.compression =
            if self.compression == "lz4" { Compression::Lz4 } else { Compression::None };
        options.rules = match (self.rules.is_empty(), hub) {
            (true, true) => {
                vec![DispatchRule { to: vec!["*".into()], ..DispatchRule::default() }]
            }
            _ => self.rules.clone(),
        };
        options.schemas = self.schemas.clone();
        for (name, limits) in &self.queue_limits {
            options.queue_limits.push((parse_name("queue_limit.name", name)?, *limits));
        }
        check_numbers(&options)?;
        options.standby = self.standbys(&options)?;
        self.http.validate().map_err(ConfigError::new)?;
        ingest::validate_all(&self.ingests).map_err(ConfigError::new)?;
        Ok(options)
    }

    fn node_name(&self) -> Result<Name, ConfigError> {
        let name = match (self.name.as_str(), self.role.as_str()) {
            ("", "hub") => HUB_NAME,
            ("", _) => return Err(ConfigError::new("a leaf needs a name: `name` in the file")),
            (name, _) => name,
        };
        parse_name("name", name)
    }

    fn caller(&self, dialed: &[Peer]) -> Result<Option<Name>, ConfigError> {
        if self.called_by.is_empty() {
            return Ok(None);
        }
        let caller = parse_name("called_by", &self.called_by)?;
        if dialed.iter().any(|peer| peer.name == caller) {
            let error =
                format!("`{caller}` is in `brokers` and in `called_by`; one of the two dials");
            return Err(ConfigError::new(error));
        }
        Ok(Some(caller))
    }

    fn listen_addresses(&self) -> Result<Vec<Address>, ConfigError> {
        if self.listen.is_empty() {
            let port = if self.role == "hub" { HUB_PORT } else { LEAF_PORT };
            return Ok(vec![Address::Tcp(format!("127.0.0.1:{port}"))]);
        }
        self.listen.iter().map(|text| text.parse().map_err(ConfigError::new)).collect()
    }

    fn advertised(&self, listen: &[Address]) -> String {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        match listen.first() {
            Some(Address::Tcp(text)) => text.clone(),
            _ => String::new(),
        }
    }

    fn peers(&self, key: &str, texts: &[String]) -> Result<Vec<Peer>, ConfigError> {
        texts
            .iter()
            .map(|text| {
                parse_peer(text).map_err(|error| ConfigError::new(format!("{key}: {error}")))
            })
            .collect()
    }

    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let files = [&self.tls_ca, &self.tls_cert, &self.tls_key];
        match files.iter().filter(|path| !path.is_empty()).count() {
            0 => Ok(None),
            3 => Ok(Some(TlsFiles {
                ca: PathBuf::from(&self.tls_ca),
                certificate: PathBuf::from(&self.tls_cert),
                key: PathBuf::from(&self.tls_key),
            })),
            _ => Err(ConfigError::new(
                "TLS takes three files, ca, cert and key (--tls-ca --tls-cert --tls-key), or none; \
                 `replcore ca` can make them",
            )),
        }
    }

    fn noise(&self, options: &NodeOptions) -> Result<Option<PathBuf>, ConfigError> {
        if !self.noise_keys.is_empty() {
            return Ok(Some(PathBuf::from(&self.noise_keys)));
        }
        let dialed = options.upstreams.iter().chain(&options.dials).map(|peer| &peer.address);
        let mut addresses = options.listen.iter().chain(dialed);
        match addresses.find(|address| matches!(address, Address::Noise(_))) {
            None => Ok(None),
            Some(address) => Err(ConfigError::new(format!(
                "{address} takes keys: give --noise-keys FILE, or `keys` under [noise] in the file; `replcore \
                 key` makes them"
            ))),
        }
    }

    fn standbys(&self, options: &NodeOptions) -> Result<Option<StandbyOptions>, ConfigError> {
        let given = &self.standby;
        let wrong = |message: &str| Err(ConfigError::new(format!("[standby] {message}")));
        if given.member.is_empty() {
            return match (given.listen.is_empty(), given.peers.is_empty()) {
                (true, true) => Ok(None),
                _ => wrong("needs `member`, the name of this hub among the others"),
            };
        }
        let member = parse_name("standby.member", &given.member)?;
        let peers = self.peers("standby.peers", &given.peers)?;
        if given.listen.is_empty() || peers.is_empty() {
            return wrong("needs `listen` and `peers`, so that the hubs reach each other");
        }
        if options.role != NodeRole::Hub {
            return wrong("is for hubs: a leaf keeps what it has until a hub has it");
        }
        if options.durability != Durability::Synced {
            return wrong("needs durability = \"synced\": what is handed on must not be lost here");
        }
        if !self.ingests.is_empty() {
            return wrong("and [[ingest]] do not go together: read the folder at a leaf");
        }
        if peers.iter().any(|peer| peer.name == member) {
            return wrong("`peers` are the others: this hub is among them");
        }
        if given.acknowledge as usize > peers.len() {
            return wrong("`acknowledge` is more than there are `peers`");
        }
        let listen = given.listen.parse().map_err(ConfigError::new)?;
        let election = self.election(options, member, &peers)?;
        let acknowledge = given.acknowledge as u8;
        Ok(Some(StandbyOptions { member, listen, peers, acknowledge, election: Some(election) }))
    }

    fn election(
        &self,
        options: &NodeOptions,
        member: Name,
        hubs: &[Peer],
    ) -> Result<ElectionOptions, ConfigError> {
        let given = &self.standby;
        let wrong = |message: &str| Err(ConfigError::new(format!("[standby] {message}")));
        let members = self.peers("standby.election_members", &given.election_members)?;
        if given.election_listen.is_empty() || members.is_empty() {
            return wrong("needs `election_listen` and `election_members`, to find who leads");
        }
        let is_member = |name: Name| members.iter().any(|other| other.name == name);
        if is_member(member) || !hubs.iter().all(|hub| is_member(hub.name)) {
            return wrong("`election_members` are all other hubs of `peers`, and witnesses if any");
        }
        // Who is elected has a majority of the voters; one of them must hold what was acknowledged.
        let voters = members.len() + 1;
        let least = (voters - 1) / 2;
        if given.acknowledge > 0 && (given.acknowledge as usize) < least {
            return Err(ConfigError::new(format!(
                "[standby] with {voters} voters `acknowledge` is at least {least}, or the next leader may \
                 lack what was acknowledged; 0 accepts that"
            )));
        }
        let cert = (given.election_cert.as_str(), given.election_key.as_str());
        let tls = match (&options.tls, cert) {
            (None, ("", "")) => None,
            (Some(hub), (cert, key)) if !cert.is_empty() && !key.is_empty() => Some(TlsFiles {
                ca: hub.ca.clone(),
                certificate: PathBuf::from(cert),
                key: PathBuf::from(key),
            }),
            (Some(_), _) => {
                return wrong(
                    "with [tls] needs `election_cert` and `election_key`: in the election every hub \
                     has a name of its own",
                );
            }
            (None, _) => {
                return wrong("has a certificate for the election, and [tls] none for the hub");
            }
        };
        let listen = given.election_listen.parse().map_err(ConfigError::new)?;
        Ok(ElectionOptions { listen, members, tls })
    }

    fn refuse_plaintext(&self, options: &NodeOptions) -> Result<(), ConfigError> {
        if self.allow_plaintext {
            return Ok(());
        }
        let listen = options.listen.iter().map(ToString::to_string);
        let for_others = [&self.standby.listen, &self.standby.election_listen];
        let for_others = for_others.into_iter().filter(|listen| !listen.is_empty()).cloned();
        for address in listen.chain(self.http_listen.iter().cloned()).chain(for_others) {
            // A serial line has no TLS, whatever the others have.
            let line = address.strip_prefix("serial:");
            let secured = address.starts_with("noise:") || options.tls.is_some() && line.is_none();
            let local = address.starts_with("unix:") || is_loopback(line.unwrap_or(&address));
            if !secured && !local {
                return Err(ConfigError::new(format!(
                    "will not listen on {address} without TLS: anybody who reaches it could read, \
                     post and delete everything; give --tls-ca, --tls-cert and --tls-key (`replcore \
                     ca` makes them), or listen on 127.0.0.1, or say --insecure-listen-anywhere \
                     (allow_plaintext = true)"
                )));
            }
        }
        Ok(())
    }
}

fn parse_name(key: &str, text: &str) -> Result<Name, ConfigError> {
    Name::new(text).map_err(|error| ConfigError::new(format!("{key} `{text}`: {error}")))
}

fn check_numbers(options: &NodeOptions) -> Result<(), ConfigError> {
    let (lease, limits, deadlines) = (&options.lease, &options.limits, &options.deadlines);
    let wrong = |holds: bool, message: &str| match holds {
        true => Ok(()),
        false => Err(ConfigError::new(message)),
    };
    wrong(
        lease.register_ms < lease.lease_ms,
        "lease.register_ms must be less than lease.lease_ms, or leaves lose their lease in between",
    )?;
    wrong(
        limits.link_buffer_bytes >= 2 * limits.frame_bytes_max,
        "limits.link_buffer_bytes must be at least twice limits.frame_bytes_max",
    )?;
    wrong(
        limits.call_bytes_max >= limits.message_bytes_max,
        "limits.call_bytes_max must be at least limits.message_bytes_max",
    )?;
    wrong(
        limits.log_bytes_max >= 2 * u64::from(limits.segment_bytes),
        "limits.log_bytes_max must be at least twice limits.segment_bytes",
    )?;
    wrong(
        deadlines.reconnect_ms <= deadlines.reconnect_ms_max,
        "deadlines.reconnect_ms must not be more than deadlines.reconnect_ms_max",
    )
}

/// `NAME@HOST:PORT`, or `HOST:PORT` for a node named [`HUB_NAME`].
///
/// # Errors
/// One line on what is wrong.
pub fn parse_peer(text: &str) -> Result<Peer, String> {
    let (name, address) = text.split_once('@').unwrap_or((HUB_NAME, text));
    let name = Name::new(name).map_err(|error| format!("name `{name}` in `{text}`: {error}"))?;
    Ok(Peer { name, address: address.parse()? })
}

/// Whether `host:port` can be reached from this machine only.
pub fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The folder in which data folders are kept: `$REPLCORE_DATA`, else `$XDG_DATA_HOME/replcore`,
/// else `$HOME/.local/share/replcore`.
///
/// # Errors
/// None of the three is set.
pub fn data_base() -> Result<PathBuf, ConfigError> {
    let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(base) = from("REPLCORE_DATA") {
        return Ok(PathBuf::from(base));
    }
    if let Some(base) = from("XDG_DATA_HOME") {
        return Ok(Path::new(&base).join("replcore"));
    }
    match from("HOME") {
        Some(home) => Ok(Path::new(&home).join(".local/share/replcore")),
        None => Err(ConfigError::new(
            "no place for the data: give --data FOLDER, or set REPLCORE_DATA or HOME",
        )),
    }
}

/// The data folder of the node `name` that was given none: a folder of its name in [`data_base`].
///
/// # Errors
/// As [`data_base`].
pub fn data_folder(name: &Name) -> Result<PathBuf, ConfigError> {
    Ok(data_base()?.join(folder_name(name)))
}

/// A file or folder name for a node's name, with no two names sharing one and none leading out of
/// the folder it is put in: a leading `.` and every `:` and `/` become `%XX`.
pub fn folder_name(name: &Name) -> String {
    let mut folder = String::new();
    for (at, byte) in name.as_str().bytes().enumerate() {
        match byte {
            b'.' if at == 0 => folder.push_str("%2E"),
            b':' | b'/' => folder.push_str(&format!("%{byte:02X}")),
            _ => folder.push(char::from(byte)),
        }
    }
    folder
}

#[cfg(test)]
mod tests;
