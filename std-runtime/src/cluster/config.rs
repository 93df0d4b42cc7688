//! The JSON configuration of a member: the keys that QCluster has, and our own beside them.
//!
//! ```json
//! {
//!     "identifier": "server_a",
//!     "listen_host": "localhost",
//!     "listen_port": 7001,
//!     "peers": [
//!         {"host": "localhost", "port": 7002, "identifier": "server_b"},
//!         {"host": "localhost", "port": 7003, "identifier": "server_c",
//!          "metadata": {"server_port": 8003}}
//!     ]
//! }
//! ```
//!
//! A peer that is not sound is passed over and reported, as QCluster does; any other error of a known
//! key is an error of the file. Keys that are not known are passed over.

use std::path::{Path, PathBuf};

use replcore::stream::{Address as ShortText, Name};
use replcore::wire::MEMBERS_MAX;
pub use replcore::wire::METADATA_BYTES_MAX;
use serde_json::{Map, Value};

use super::options::{CLUSTER_NAME, ClusterOptions, Metadata, PeerOptions, Profile};
use crate::options::{Address, TlsFiles};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys of the file beside those of a peer, with what each is.
pub const KEYS: &[(&str, &str)] = &[
    ("identifier", "the member's name: 1 to 63 letters, digits and . _ - : /"),
    ("listen_host", "where it listens; default localhost"),
    ("listen_port", "the port; default 0, any that is free"),
    ("peers", "the others: a list of {host, port, identifier, metadata, learner}; default none"),
    ("join", "HOST:PORT of a member to ask for admission, or a list of such; default none"),
    ("cluster", "the name of the cluster, the same for all; default `default`"),
    ("metadata", "what it says of itself: an object of at most 256 bytes"),
    ("advertise", "HOST:PORT where the others reach it; default where it listens"),
    ("profile", "lan, wan or battery; default lan"),
    ("heartbeat_ms", "in place of the profile's"),
    ("timeout_ms_min", "in place of the profile's; at least two heartbeats"),
    ("timeout_ms_max", "in place of the profile's"),
    ("masterless", "true: who is there, without election; default false"),
    ("learner", "true: it does not vote and cannot lead; default false"),
    (
        "priority",
        "0 to 255; candidates of a lower one let the others go first, 0 never leads; default 100",
    ),
    ("data_folder", "where its vote and the configuration are kept"),
    ("http", "HOST:PORT to answer HTTP at, or a list of such; default none"),
    ("exec", "a command that runs only while this member leads"),
    ("tls_ca", "certificates of the authorities that are trusted, PEM"),
    ("tls_cert", "own certificate, PEM; it names the member"),
    ("tls_key", "key of the certificate, PEM"),
    ("administrators", "with TLS: names in certificates that may change the cluster; default none"),
];

/// A file as it was understood.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// What the member is told.
    pub options: ClusterOptions,
    /// Where it answers HTTP, each `host:port`.
    pub http: Vec<String>,
    /// A command that runs only while the member leads.
    pub exec: Option<String>,
    /// What was passed over, a line each.
    pub reports: Vec<String>,
}

/// Reads and understands a file.
///
/// # Errors
/// One line that names the file, the key and the remedy.
pub fn read(path: &Path) -> Result<ClusterConfig, String> {
    use std::io::Read as _;
    let explain = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(explain)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(explain)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Understands the text of a file.
///
/// # Errors
/// One line that names the line or key and the remedy.
pub fn parse(text: &[u8]) -> Result<ClusterConfig, String> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| format!("line {}: not JSON: {error}", error.line()))?;
    let Value::Object(mut keys) = value else {
        return Err("the file must hold one object: {\"identifier\": ...}".into());
    };
    let mut reports = unknown_keys(&keys);
    let name = parse_name("identifier", &text_of(&mut keys, "identifier")?.unwrap_or_default())?;
    let cluster = text_of(&mut keys, "cluster")?.unwrap_or_else(|| CLUSTER_NAME.into());
    let cluster = parse_name("cluster", &cluster)?;
    let host = text_of(&mut keys, "listen_host")?.unwrap_or_else(|| "localhost".into());
    let port = number_of(&mut keys, "listen_port", 0, u16::MAX.into())?.unwrap_or(0);
    let listen = join_host_port(&host, port as u16);
    let listen = listen.parse().map_err(|error| format!("listen_host `{host}`: {error}"))?;
    let folder = match text_of(&mut keys, "data_folder")?.filter(|text| !text.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => default_folder(&cluster, &name)?,
    };
    let mut options = ClusterOptions::new(name, cluster, listen, folder);
    options.peers = peers_of(&mut keys, &name, &mut reports)?;
    for text in list_of(&mut keys, "join")? {
        options.join.push(text.parse().map_err(|error| format!("join: {error}"))?);
    }
    options.metadata = metadata_of(&mut keys)?;
    options.advertise = text_of(&mut keys, "advertise")?.unwrap_or_default();
    times_of(&mut keys, &mut options)?;
    options.masterless = flag_of(&mut keys, "masterless")?;
    options.voter = !flag_of(&mut keys, "learner")?;
    if let Some(priority) = number_of(&mut keys, "priority", 0, u8::MAX.into())? {
        options.priority = priority as u8;
    }
    options.tls = tls_of(&mut keys)?;
    for text in list_of(&mut keys, "administrators")? {
        options.administrators.push(parse_name("administrators", &text)?);
    }
    let http = list_of(&mut keys, "http")?;
    let exec = text_of(&mut keys, "exec")?.filter(|text| !text.is_empty());
    let config = ClusterConfig { options, http, exec, reports };
    check(&config.options)?;
    Ok(config)
}

/// How the values go together.
///
/// # Errors
/// One line that names what is wrong.
pub fn check(options: &ClusterOptions) -> Result<(), String> {
    options.election.check().map_err(|error| error.to_string())?;
    if options.peers.len() + 1 > MEMBERS_MAX {
        return Err(format!(
            "{} peers; at most {} can be had",
            options.peers.len(),
            MEMBERS_MAX - 1
        ));
    }
    if !options.advertise.is_empty() {
        let address = options.advertise.parse().map(|address| matches!(address, Address::Tcp(_)));
        if address != Ok(true) || ShortText::new(&options.advertise).is_err() {
            return Err(format!(
                "advertise `{}`: not HOST:PORT of at most 63 bytes",
                options.advertise
            ));
        }
    }
    if options.masterless && !options.voter {
        return Err("without a leader (masterless) nobody votes: leave learner out".into());
    }
    options.metadata.as_ref().map_or(Ok(()), |metadata| encode_metadata(metadata).map(|_| ()))
}

/// Metadata as the bytes that travel: JSON without spaces.
///
/// # Errors
/// It is too long; in one line.
pub fn encode_metadata(metadata: &Metadata) -> Result<Vec<u8>, String> {
    let bytes = serde_json::to_vec(metadata).map_err(|error| format!("metadata: {error}"))?;
    if bytes.len() > METADATA_BYTES_MAX {
        return Err(format!(
            "metadata has {} bytes as JSON without spaces; at most {METADATA_BYTES_MAX} can be had",
            bytes.len()
        ));
    }
    Ok(bytes)
}

/// The folder of a member that was given none: `clusters/CLUSTER/NAME` where nodes have theirs.
///
/// # Errors
/// There is no such place; in one line.
pub fn default_folder(cluster: &Name, name: &Name) -> Result<PathBuf, String> {
    use crate::config::{data_base, folder_name};
    let base = data_base().map_err(|error| error.to_string())?;
    Ok(base.join("clusters").join(folder_name(cluster)).join(folder_name(name)))
}

/// `host:port`, with an IPv6 address in brackets.
pub fn join_host_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Unknown keys are no error (QC-01), but one that is nearly a known one is worth a line.
fn unknown_keys(keys: &Map<String, Value>) -> Vec<String> {
    let near = |key: &str| {
        let near = KEYS.iter().map(|(known, _)| (strsim::jaro_winkler(known, key), *known));
        near.filter(|(score, _)| *score > 0.9).max_by(|one, other| one.0.total_cmp(&other.0))
    };
    let unknown = keys.keys().filter(|key| !KEYS.iter().any(|(known, _)| known == key));
    unknown
        .filter_map(|key| {
            let (_, known) = near(key)?;
            Some(format!("key `{key}` is not known and passed over; `{known}` is"))
        })
        .collect()
}

fn peers_of(
    keys: &mut Map<String, Value>,
    own: &Name,
    reports: &mut Vec<String>,
) -> Result<Vec<PeerOptions>, String> {
    let given = match keys.remove("peers") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(given)) => given,
        Some(_) => return Err("peers must be a list of objects".into()),
    };
    let mut peers: Vec<PeerOptions> = Vec::new();
    let mut invalid = 0;
    for (at, entry) in given.iter().enumerate() {
        match peer_of(entry, at, reports) {
            Err(error) => {
                invalid += 1;
                reports.push(format!("peers[{at}] is passed over: {error}"));
            }
            Ok(peer) if peer.name == *own => reports.push(format!(
                "peers[{at}] is passed over: `{own}` is the identifier of this member itself"
            )),
            Ok(peer) if peers.iter().any(|known| known.name == peer.name) => {
                reports.push(format!(
                    "peers[{at}] is passed over: the identifier `{}` is there already",
                    peer.name
                ));
            }
            Ok(peer) => peers.push(peer),
        }
    }
    if peers.is_empty() && invalid > 0 {
        // Alone it would elect itself, beside a leader of the others.
        return Err(format!("none of the peers is sound: {}", reports.join("; ")));
    }
    Ok(peers)
}

fn peer_of(entry: &Value, at: usize, reports: &mut Vec<String>) -> Result<PeerOptions, String> {
    let entry = entry.as_object().ok_or("it is not an object")?;
    let text = |key: &str| {
        let text = entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("{key} is missing, or no text"))
    };
    let name = parse_name("identifier", text("identifier")?)?;
    let host = text("host")?;
    let port = entry.get("port").and_then(Value::as_u64);
    let port = port.filter(|port| (1..=u64::from(u16::MAX)).contains(port));
    let port = port.ok_or("port is missing, or not 1 to 65535")?;
    let address = join_host_port(host, port as u16);
    ShortText::new(&address).map_err(|error| format!("host `{host}`: {error}"))?;
    let address = address.parse()?;
    let metadata = match entry.get("metadata") {
        None | Some(Value::Null) => Metadata::new(),
        Some(Value::Object(metadata)) => metadata.clone(),
        Some(_) => return Err("metadata is not an object".into()),
    };
    let metadata = match encode_metadata(&metadata) {
        Ok(_) => metadata,
        Err(error) => {
            // The member itself counts: without it the quorum would be another.
            reports.push(format!("peers[{at}] is taken without its metadata: {error}"));
            Metadata::new()
        }
    };
    let voter = match entry.get("learner") {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Bool(true)) => false,
        Some(_) => return Err("learner is not true or false".into()),
    };
    Ok(PeerOptions { name, address, metadata, voter })
}

fn times_of(keys: &mut Map<String, Value>, options: &mut ClusterOptions) -> Result<(), String> {
    let profile: Profile = match text_of(keys, "profile")? {
        Some(text) => text.parse().map_err(|error| format!("profile: {error}"))?,
        None => Profile::default(),
    };
    options.set_profile(profile);
    let election = &mut options.election;
    for (key, value) in [
        ("heartbeat_ms", &mut election.heartbeat_ms),
        ("timeout_ms_min", &mut election.timeout_ms_min),
        ("timeout_ms_max", &mut election.timeout_ms_max),
    ] {
        if let Some(given) = number_of(keys, key, 1, 3_600_000)? {
            *value = given as u32;
        }
    }
    Ok(())
}

fn metadata_of(keys: &mut Map<String, Value>) -> Result<Option<Metadata>, String> {
    match keys.remove("metadata") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(metadata)) => Ok(Some(metadata)),
        Some(_) => Err("metadata must be an object".into()),
    }
}

fn tls_of(keys: &mut Map<String, Value>) -> Result<Option<TlsFiles>, String> {
    let mut file = |key| text_of(keys, key).map(|text| text.filter(|text| !text.is_empty()));
    match (file("tls_ca")?, file("tls_cert")?, file("tls_key")?) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { ca: ca.into(), certificate: certificate.into(), key: key.into() }))
        }
        _ => Err("TLS takes three files, tls_ca, tls_cert and tls_key, or none".into()),
    }
}

fn list_of(keys: &mut Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{key} must be text, or a list of texts");
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong()),
    };
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.into_iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

fn text_of(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key} must be text")),
    }
}

fn flag_of(keys: &mut Map<String, Value>, key: &str) -> Result<bool, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(format!("{key} must be true or false")),
    }
}

fn number_of(
    keys: &mut Map<String, Value>,
    key: &str,
    min: u64,
    max: u64,
) -> Result<Option<u64>, String> {
    match keys.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(format!("{key} is {value}; it must be a whole number of {min} to {max}")),
        },
    }
}

fn parse_name(key: &str, text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| format!("{key} `{text}`: {error}"))
}
