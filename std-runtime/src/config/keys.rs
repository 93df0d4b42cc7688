//! The table of keys.

use std::path::PathBuf;

use super::{Config, parse_peer};
use crate::api::DispatchRule;
use crate::ingest::{Afterwards, FileFormat, IngestOptions};
use crate::options::Address;
use crate::schema::Schema;
use crate::store::{LimitPolicy, QueueLimits};
use replcore::stream::Name;

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

const NODE: &[Key] = &[
    Key {
        name: "role",
        kind: Kind::Choice(&["hub", "leaf"]),
        meaning: "What the node is: a hub takes registrations and dispatches, a leaf registers at its brokers.",
        reload: false,
        field: |config| Field::Text(&mut config.role),
    },
    Key {
        name: "name",
        kind: Kind::Text { form: "1 to 63 letters, digits, . _ - : /", check: name_or_nothing },
        meaning: "The node's name, unique among all nodes. Empty: `hub` for a hub; a leaf must have one.",
        reload: false,
        field: |config| Field::Text(&mut config.name),
    },
    Key {
        name: "data_folder",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Where the node keeps its data. Empty: a folder of its name in $REPLCORE_DATA, else in \
                  $XDG_DATA_HOME/replcore, else in ~/.local/share/replcore.",
        reload: false,
        field: |config| Field::Text(&mut config.data_folder),
    },
    Key {
        name: "listen",
        kind: Kind::Texts {
            form: "host:port, unix:/path, serial:host:port or noise:host:port",
            check: address,
        },
        meaning: "Where nodes and programs connect. Empty: 127.0.0.1:8080 for a hub, 127.0.0.1:8181 for a leaf.",
        reload: false,
        field: |config| Field::Texts(&mut config.listen),
    },
    Key {
        name: "advertise",
        kind: Kind::Text { form: "host:port", check: advertised },
        meaning: "Where the node says that it can be reached, which may differ from where it listens. Empty: \
                  the first of `listen`.",
        reload: false,
        field: |config| Field::Text(&mut config.advertise),
    },
    Key {
        name: "brokers",
        kind: Kind::Texts {
            form: "NAME@host:port, or host:port for a hub named `hub`",
            check: peer,
        },
        meaning: "Hubs at which the node registers. It dials them, and refuses a node of another name there.",
        reload: false,
        field: |config| Field::Texts(&mut config.brokers),
    },
    Key {
        name: "called_by",
        kind: Kind::Text { form: "node name", check: name_or_nothing },
        meaning: "A hub at which the node registers and which dials it (`dials` there), for a node that cannot \
                  dial. Empty: none.",
        reload: false,
        field: |config| Field::Text(&mut config.called_by),
    },
    Key {
        name: "dials",
        kind: Kind::Texts { form: "NAME@host:port", check: peer },
        meaning: "Leaves that this hub dials, for leaves that cannot dial.",
        reload: false,
        field: |config| Field::Texts(&mut config.dials),
    },
    Key {
        name: "allow_plaintext",
        kind: Kind::Flag,
        meaning: "Listen beyond this machine without TLS. Anybody who reaches the port can then read, post and \
                  delete everything.",
        reload: false,
        field: |config| Field::Flag(&mut config.allow_plaintext),
    },
    Key {
        name: "log_level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        meaning: "What is logged to standard error.",
        reload: true,
        field: |config| Field::Text(&mut config.log_level),
    },
    Key {
        name: "durability",
        kind: Kind::Choice(&["synced", "written"]),
        meaning: "What an acknowledgement means: `synced` survives the end of power, `written` the end of the process.",
        reload: false,
        field: |config| Field::Text(&mut config.durability),
    },
    Key {
        name: "compression",
        kind: Kind::Choice(&["none", "lz4"]),
        meaning: "Compression of messages between nodes, where both ends have it on.",
        reload: false,
        field: |config| Field::Text(&mut config.compression),
    },
    Key {
        name: "poll_ms",
        kind: integer(MS, 0, LONG_MS),
        meaning: "0: the links to the brokers stay open and messages leave as they come. Else they are opened \
                  this often for one exchange: for sleepy leaves.",
        reload: false,
        field: |config| Field::U32(&mut config.poll_ms),
    },
];

const TLS: &[Key] = &[
    Key {
        name: "ca",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Certificates of the authorities that may sign a peer's certificate, PEM.",
        reload: false,
        field: |config| Field::Text(&mut config.tls_ca),
    },
    Key {
        name: "cert",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "This node's certificate and its intermediates, PEM.",
        reload: false,
        field: |config| Field::Text(&mut config.tls_cert),
    },
    Key {
        name: "key",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "The key of the certificate, PEM.",
        reload: false,
        field: |config| Field::Text(&mut config.tls_key),
    },
    Key {
        name: "administrators",
        kind: Kind::Texts { form: "name", check: node_name },
        meaning: "Names of certificates or Noise keys that may purge queues, forget leaves and change rules here, \
                  beside this node's own. All others of the authority may post, read and look.",
        reload: true,
        field: |config| Field::Texts(&mut config.tls_administrators),
    },
];

const NOISE: &[Key] = &[Key {
    name: "keys",
    kind: Kind::Text { form: "path", check: anything },
    meaning: "The file of keys; `replcore key` makes it. One a line: `private KEY` for this node, `NAME public KEY` \
              or `NAME psk KEY` for another. For its owner only. Taken up by itself when it changes. Empty: none.",
    reload: false,
    field: |config| Field::Text(&mut config.noise_keys),
}];

const HTTP: &[Key] = &[
    Key {
        name: "listen",
        kind: Kind::Texts { form: "host:port", check: host_port },
        meaning: "Where HTTP is answered. Empty: nowhere.",
        reload: false,
        field: |config| Field::Texts(&mut config.http_listen),
    },
    Key {
        name: "hosts",
        kind: Kind::Texts { form: "host name", check: anything },
        meaning: "Host names under which requests may come to a listener on loopback without TLS, beside \
                  `localhost` and addresses.",
        reload: false,
        field: |config| Field::Texts(&mut config.http.hosts),
    },
    Key {
        name: "body_bytes_max",
        kind: integer(BYTES, 1, 1 << 32),
        meaning: "Longest body of a request; longer ones are answered with 413.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.body_bytes_max),
    },
    Key {
        name: "bodies_bytes_max",
        kind: integer(BYTES, 1, u32::MAX as u64),
        meaning: "Bytes of all bodies being worked on at once; what does not fit is answered with 503.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.bodies_bytes_max),
    },
    Key {
        name: "connections_max",
        kind: integer("connections", 1, 1_000_000),
        meaning: "Connections at once; further ones wait to be accepted.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.connections_max),
    },
    Key {
        name: "waits_max",
        kind: integer("requests", 0, 1_000_000),
        meaning: "Requests that wait for messages, and event streams, at once; further ones are answered with 503.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.waits_max),
    },
    Key {
        name: "metrics_series_max",
        kind: integer("each", 0, 1_000_000),
        meaning: "Most nodes, queues and consumers with metrics of their own.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.metrics_series_max),
    },
    Key {
        name: "header_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest time for the head of a request, and for a connection without requests.",
        reload: false,
        field: |config| Field::U64(&mut config.http.header_ms_max),
    },
    Key {
        name: "body_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest time for the body of a request.",
        reload: false,
        field: |config| Field::U64(&mut config.http.body_ms_max),
    },
    Key {
        name: "write_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "A client that takes no byte of an answer for so long is cut off.",
        reload: false,
        field: |config| Field::U64(&mut config.http.write_ms_max),
    },
    Key {
        name: "call_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest time for the node to answer, beside what a request itself wants to wait.",
        reload: false,
        field: |config| Field::U64(&mut config.http.call_ms_max),
    },
    Key {
        name: "heartbeat_ms",
        kind: integer(MS, 1, 60_000),
        meaning: "Between two comments on a quiet event stream.",
        reload: false,
        field: |config| Field::U64(&mut config.http.heartbeat_ms),
    },
    Key {
        name: "drain_ms_max",
        kind: integer(MS, 0, HOUR_MS),
        meaning: "Time for open requests to end when the node stops.",
        reload: false,
        field: |config| Field::U64(&mut config.http.drain_ms_max),
    },
];

const LEASE: &[Key] = &[
    Key {
        name: "register_ms",
        kind: integer(MS, 100, LONG_MS),
        meaning: "How often a leaf registers again.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.lease.register_ms),
    },
    Key {
        name: "lease_ms",
        kind: integer(MS, 200, LONG_MS),
        meaning: "How long a registration holds; at a hub the most that it grants.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.lease.lease_ms),
    },
    Key {
        name: "admissions_per_second",
        kind: integer("links per second", 1, 100_000),
        meaning: "Links that a hub lets through the handshake; others are told when to come back.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.lease.admissions_per_second),
    },
];

const DEADLINES: &[Key] = &[
    Key {
        name: "connect_ms",
        kind: integer(MS, 10, HOUR_MS),
        meaning: "Opening a connection.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.connect_ms),
    },
    Key {
        name: "handshake_ms",
        kind: integer(MS, 10, HOUR_MS),
        meaning: "From connection to working link, TLS included.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.handshake_ms),
    },
    Key {
        name: "reconnect_ms",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "First wait before dialling again; it grows, with jitter.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.reconnect_ms),
    },
    Key {
        name: "reconnect_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest wait before dialling again.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.reconnect_ms_max),
    },
    Key {
        name: "keepalive_ms",
        kind: integer(MS, 100, HOUR_MS),
        meaning: "An idle link says something this often; one silent three times as long is closed.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.keepalive_ms),
    },
    Key {
        name: "write_stall_ms",
        kind: integer(MS, 100, HOUR_MS),
        meaning: "A peer that takes none of the bytes written to it for so long is hung up.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.write_stall_ms),
    },
    Key {
        name: "drain_ms",
        kind: integer(MS, 0, HOUR_MS),
        meaning: "What a stop may take to hand over what is under way.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.drain_ms),
    },
];

const CONSUMERS: &[Key] = &[
    Key {
        name: "ack_wait_ms",
        kind: integer(MS, 100, LONG_MS),
        meaning: "A message neither acknowledged nor rejected for so long is delivered again.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.ack_wait_ms),
    },
    Key {
        name: "deliveries_max",
        kind: integer("deliveries", 1, 1_000_000),
        meaning: "After so many deliveries a message goes to the dead letters.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.deliveries_max),
    },
    Key {
        name: "outstanding_max",
        kind: integer("messages", 1, 1_000_000),
        meaning: "Messages delivered and not settled, of each consumer.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.outstanding_max),
    },
    Key {
        name: "consumers_max",
        kind: integer("consumers", 0, 100_000),
        meaning: "Most consumers.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.consumers_max),
    },
];

const LIMITS: &[Key] = &[
    Key {
        name: "links_max",
        kind: integer("links", 0, 1_000_000),
        meaning: "Most links open at once, programs included. 0: 1,024 at a hub, 64 at a leaf.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.links_max),
    },
    Key {
        name: "accept_backlog",
        kind: integer("connections", 1, 65_535),
        meaning: "Connections that wait to be accepted.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.accept_backlog),
    },
    Key {
        name: "leaves_max",
        kind: integer("leaves", 0, 1_000_000),
        meaning: "Most leaves that a hub knows.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.leaves_max),
    },
    Key {
        name: "queues_max",
        kind: integer("queues", 1, 4_000_000),
        meaning: "Most queues: those of leaves, brokers, consumers and dead letters together.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.queues_max),
    },
    Key {
        name: "message_bytes_max",
        kind: integer(BYTES, 1, 64 << 20),
        meaning: "Largest message, all its attributes included.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.message_bytes_max),
    },
    Key {
        name: "frame_bytes_max",
        kind: integer(BYTES, 512, 1 << 20),
        meaning: "Longest frame this node takes; a larger message goes in several.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.frame_bytes_max),
    },
    Key {
        name: "link_buffer_bytes",
        kind: integer(BYTES, 1024, 1 << 30),
        meaning: "Bytes waiting to be written, of each busy link; at least two frames.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.link_buffer_bytes),
    },
    Key {
        name: "receive_window_bytes",
        kind: integer(BYTES, 1024, 1 << 30),
        meaning: "Bytes of messages under way to this node, of each stream.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.receive_window_bytes),
    },
    Key {
        name: "calls_max",
        kind: integer("calls", 1, 100_000),
        meaning: "Calls of programs at work at once.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.calls_max),
    },
    Key {
        name: "call_bytes_max",
        kind: integer(BYTES, 1024, 1 << 30),
        meaning: "Largest call or reply of a program.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.call_bytes_max),
    },
    Key {
        name: "log_bytes_max",
        kind: integer(BYTES, 1 << 20, 1 << 50),
        meaning: "Bytes of the log on disk; what no queue needs goes first, the oldest before the newer.",
        reload: false,
        field: |config| Field::U64(&mut config.numbers.limits.log_bytes_max),
    },
    Key {
        name: "segment_bytes",
        kind: integer(BYTES, 64 << 10, 1 << 30),
        meaning: "Bytes of one segment of the log; space is freed by whole segments.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.segment_bytes),
    },
    Key {
        name: "idempotency_keys_max",
        kind: integer("keys", 0, 100_000_000),
        meaning: "Idempotency keys that are remembered, the newest.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.idempotency_keys_max),
    },
];

const STANDBY: &[Key] = &[
    Key {
        name: "member",
        kind: Kind::Text { form: "name", check: name_or_nothing },
        meaning: "The name of this hub among those that hold the log. Empty: this hub has no standbys.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.member),
    },
    Key {
        name: "listen",
        kind: Kind::Text { form: "host:port", check: host_port_or_nothing },
        meaning: "Where the leading hub hands this one its log.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.listen),
    },
    Key {
        name: "peers",
        kind: Kind::Texts { form: "MEMBER@host:port", check: peer },
        meaning: "The other hubs, and where they listen for the log.",
        reload: false,
        field: |config| Field::Texts(&mut config.standby.peers),
    },
    Key {
        name: "acknowledge",
        kind: integer("hubs", 0, 7),
        meaning: "How many other hubs must have synced a message before it is acknowledged or passed on. With 0 \
                  what was acknowledged last is lost with the machine.",
        reload: false,
        field: |config| Field::U32(&mut config.standby.acknowledge),
    },
    Key {
        name: "election_listen",
        kind: Kind::Text { form: "host:port", check: host_port_or_nothing },
        meaning: "Where this hub listens for the members that decide who leads.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.election_listen),
    },
    Key {
        name: "election_members",
        kind: Kind::Texts { form: "MEMBER@host:port", check: peer },
        meaning: "The other members: the other hubs, and with two hubs a witness, which is `replcore cluster` \
                  with the name of the hub as that of the cluster.",
        reload: false,
        field: |config| Field::Texts(&mut config.standby.election_members),
    },
    Key {
        name: "election_cert",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "With TLS: the certificate of the member, whose name is `member`.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.election_cert),
    },
    Key {
        name: "election_key",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Its key.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.election_key),
    },
];

const QUEUE_MESSAGES: Kind = integer("messages, 0 for no limit", 0, 1 << 50);
const QUEUE_BYTES: Kind = integer("bytes, 0 for no limit", 0, 1 << 50);
const QUEUE_AGE: Kind = integer("ms, 0 for no limit", 0, 1 << 50);
const QUEUE_POLICY: Kind = Kind::Choice(&["by_kind", "refuse", "drop_oldest", "drop_by_class"]);

const QUEUE: &[Key] = &[
    Key {
        name: "messages_max",
        kind: QUEUE_MESSAGES,
        meaning: "Most messages in a queue.",
        reload: true,
        field: |config| Field::U64(&mut config.numbers.limits.queue.messages_max),
    },
    Key {
        name: "bytes_max",
        kind: QUEUE_BYTES,
        meaning: "Most bytes in a queue.",
        reload: true,
        field: |config| Field::U64(&mut config.numbers.limits.queue.bytes_max),
    },
    Key {
        name: "age_ms_max",
        kind: QUEUE_AGE,
        meaning: "Longest wait in a queue; older messages are dropped and counted.",
        reload: true,
        field: |config| Field::U64(&mut config.numbers.limits.queue.age_ms_max),
    },
    Key {
        name: "policy",
        kind: QUEUE_POLICY,
        meaning: "What happens when a queue is full: new messages are refused, the oldest are dropped, or the \
                  oldest of the least urgent class; `by_kind` refuses for queues to brokers and drops the oldest \
                  of queues that others read. Drops are counted and reported.",
        reload: true,
        field: |config| Field::Policy(&mut config.numbers.limits.queue.policy),
    },
];

const QUEUE_LIMIT: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::Text { form: "queue name", check: name_or_nothing },
        meaning: "The queue.",
        reload: true,
        field: |config| Field::Text(&mut last_queue_limit(config).0),
    },
    Key {
        name: "messages_max",
        kind: QUEUE_MESSAGES,
        meaning: "Most messages in it.",
        reload: true,
        field: |config| Field::U64(&mut last_queue_limit(config).1.messages_max),
    },
    Key {
        name: "bytes_max",
        kind: QUEUE_BYTES,
        meaning: "Most bytes in it.",
        reload: true,
        field: |config| Field::U64(&mut last_queue_limit(config).1.bytes_max),
    },
    Key {
        name: "age_ms_max",
        kind: QUEUE_AGE,
        meaning: "Longest wait in it; older messages are dropped and counted.",
        reload: true,
        field: |config| Field::U64(&mut last_queue_limit(config).1.age_ms_max),
    },
    Key {
        name: "policy",
        kind: QUEUE_POLICY,
        meaning: "What happens when it is full, as in [queue].",
        reload: true,
        field: |config| Field::Policy(&mut last_queue_limit(config).1.policy),
    },
];

const RATES: &[Key] = &[
    Key {
        name: "link_bytes_per_second",
        kind: integer("bytes per second, 0 for no limit", 0, u32::MAX as u64),
        meaning: "Messages sent on one link, so that a backlog does not fill it.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.rates.link_bytes_per_second),
    },
    Key {
        name: "class_0_bytes_per_second",
        kind: integer("bytes per second, 0 for no limit", 0, u32::MAX as u64),
        meaning: "Messages of class 0 that go strictly before all others; what is beyond waits its turn.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.rates.class_0_bytes_per_second),
    },
];

const RULE: &[Key] = &[
    Key {
        name: "type",
        kind: Kind::Text { form: "type, or its beginning and *", check: anything },
        meaning: "Only messages of this type. Empty: all.",
        reload: true,
        field: |config| Field::Text(&mut last_rule(config).message_type),
    },
    Key {
        name: "origin",
        kind: Kind::Text { form: "node name", check: name_or_nothing },
        meaning: "Only messages posted at this node. Empty: all.",
        reload: true,
        field: |config| Field::Text(&mut last_rule(config).origin),
    },
    Key {
        name: "to",
        kind: Kind::Texts {
            form: "queue name, or * for every registered leaf",
            check: queue_or_all,
        },
        meaning: "Where they go.",
        reload: true,
        field: |config| Field::Texts(&mut last_rule(config).to),
    },
];

const INGEST: &[Key] = &[
    Key {
        name: "folder",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "The folder. Hidden files, folders, links and *.rejected are not taken.",
        reload: false,
        field: |config| Field::Path(&mut last_ingest(config).folder),
    },
    Key {
        name: "name",
        kind: Kind::Text { form: "name", check: anything },
        meaning: "Its name in idempotency keys; keep it when the folder moves. Empty: its path.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).name),
    },
    Key {
        name: "pattern",
        kind: Kind::Text { form: "file name with * and ?", check: anything },
        meaning: "Only files whose names match.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).pattern),
    },
    Key {
        name: "format",
        kind: Kind::Choice(&["message", "json", "raw", "file"]),
        meaning: "What becomes a message: a line that is an object with type, key, body and the rest; a line of JSON; a line as it is; a whole file.",
        reload: false,
        field: |config| Field::Format(&mut last_ingest(config).format),
    },
    Key {
        name: "then",
        kind: Kind::Choice(&["move", "keep", "delete"]),
        meaning: "What becomes of a file that was taken.",
        reload: false,
        field: |config| Field::Afterwards(&mut last_ingest(config).then),
    },
    Key {
        name: "move_to",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Where taken files go, on the same file system. Empty: the folder `done` in the folder.",
        reload: false,
        field: |config| Field::Path(last_ingest(config).move_to.get_or_insert_default()),
    },
    Key {
        name: "settle_ms",
        kind: integer(MS, 0, HOUR_MS),
        meaning: "How long a file has to be unchanged before it is taken; 0 where files are renamed into the folder.",
        reload: false,
        field: |config| Field::U64(&mut last_ingest(config).settle_ms),
    },
    Key {
        name: "poll_ms",
        kind: integer(MS, 10, HOUR_MS),
        meaning: "How often the folder is looked at.",
        reload: false,
        field: |config| Field::U64(&mut last_ingest(config).poll_ms),
    },
    Key {
        name: "type",
        kind: Kind::Text { form: "type", check: anything },
        meaning: "The type of its messages, where they do not say.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).message.message_type),
    },
    Key {
        name: "content_type",
        kind: Kind::Text { form: "media type", check: anything },
        meaning: "The media type of its messages, where they do not say.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).message.content_type),
    },
    Key {
        name: "class",
        kind: integer("class", 0, 3),
        meaning: "The class of its messages, where they do not say.",
        reload: false,
        field: |config| Field::Class(&mut last_ingest(config).message.class),
    },
    Key {
        name: "to",
        kind: Kind::Texts { form: "queue name", check: queue_or_all },
        meaning: "Queues for its messages, beside what the dispatch rules say.",
        reload: false,
        field: |config| Field::Texts(&mut last_ingest(config).message.to),
    },
    Key {
        name: "type_field",
        kind: Kind::Text { form: "field name", check: anything },
        meaning: "For json: the field that gives the type.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).type_field),
    },
    Key {
        name: "key_field",
        kind: Kind::Text { form: "field name", check: anything },
        meaning: "For json: the field that gives the key.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).key_field),
    },
    Key {
        name: "message_bytes_max",
        kind: integer(BYTES, 1, 64 << 20),
        meaning: "Longest line or whole file; longer ones are rejected.",
        reload: false,
        field: |config| Field::Usize(&mut last_ingest(config).message_bytes_max),
    },
    Key {
        name: "batch_messages_max",
        kind: integer("messages", 1, 1000),
        meaning: "Messages posted at a time.",
        reload: false,
        field: |config| Field::Usize(&mut last_ingest(config).batch_messages_max),
    },
    Key {
        name: "files_max",
        kind: integer("files", 1, 10_000_000),
        meaning: "Most files looked at.",
        reload: false,
        field: |config| Field::Usize(&mut last_ingest(config).files_max),
    },
];

const SCHEMA: &[Key] = &[
    Key {
        name: "type",
        kind: Kind::Text { form: "type", check: anything },
        meaning: "The type of message, exactly.",
        reload: true,
        field: |config| Field::Text(&mut last_schema(config).message_type),
    },
    Key {
        name: "attributes",
        kind: Kind::Attributes,
        meaning: "What the JSON object in the body may hold: each attribute text, float or integer.",
        reload: true,
        field: |config| Field::Attributes(last_schema(config)),
    },
];

fn add_queue_limit(config: &mut Config) {
    config.queue_limits.push((String::new(), config.numbers.limits.queue));
}

fn last_queue_limit(config: &mut Config) -> &mut (String, QueueLimits) {
    if config.queue_limits.is_empty() {
        add_queue_limit(config);
    }
    config.queue_limits.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

fn last_rule(config: &mut Config) -> &mut DispatchRule {
    if config.rules.is_empty() {
        config.rules.push(DispatchRule::default());
    }
    config.rules.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

fn last_ingest(config: &mut Config) -> &mut IngestOptions {
    if config.ingests.is_empty() {
        config.ingests.push(IngestOptions::default());
    }
    config.ingests.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

fn last_schema(config: &mut Config) -> &mut Schema {
    if config.schemas.is_empty() {
        config.schemas.push(Schema::default());
    }
    config.schemas.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

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
