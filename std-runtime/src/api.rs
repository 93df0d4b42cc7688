//! What can be asked of a running node, by a call over the binary protocol, over HTTP, or inside
//! the process. One vocabulary: a [`Request`] in, a [`Reply`] or an [`ApiError`] out, all JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::cluster::api::{ClusterReply, ClusterRequest};

/// A question or an order to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Request {
    /// Posts messages; all are taken, or the first that is refused is named and none after it.
    Post {
        /// What to post, in order.
        messages: Vec<NewMessage>,
    },
    /// Reads what the node holds, in the order in which it stored it.
    Read {
        /// Start with the message of this ordinal, or the first one held after it.
        #[serde(default)]
        from: u64,
        /// At most this many; 1 to 1000, default 100.
        #[serde(default)]
        limit: Option<u32>,
        /// Only this type; a trailing `*` matches any rest.
        #[serde(default)]
        message_type: Option<String>,
        /// Only this key.
        #[serde(default)]
        key: Option<Bytes>,
        /// Wait up to this long for a first message, in milliseconds; at most 60,000.
        #[serde(default)]
        wait_ms: u32,
    },
    /// The current message of a type and key: the one with the latest origin time.
    Latest {
        /// The type.
        message_type: String,
        /// The key.
        key: Bytes,
    },
    /// Lists queues by name.
    Queues {
        /// Names after this one.
        #[serde(default)]
        after: Option<String>,
        /// At most this many; default 100.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Looks at the next messages of a queue without taking them.
    Peek {
        /// The queue.
        queue: String,
        /// Pass over this many.
        #[serde(default)]
        skip: u64,
        /// At most this many; default 10.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Drops messages of a queue: all, or those with the given ids.
    Purge {
        /// The queue.
        queue: String,
        /// Which; `None` for all.
        #[serde(default)]
        ids: Option<Vec<String>>,
    },
    /// Lists the leaves that have registered, by name.
    Nodes {
        /// Names after this one.
        #[serde(default)]
        after: Option<String>,
        /// At most this many; default 100.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Forgets a leaf that is gone for good: its registration and its queue.
    Forget {
        /// Its name.
        node: String,
    },
    /// How the node is.
    Status,
    /// Lists consumers by name.
    Consumers,
    /// Makes a consumer, or leaves it as it is.
    Subscribe {
        /// Its name.
        consumer: String,
        /// Only this type; a trailing `*` matches any rest. Not given: all for a new consumer,
        /// whatever it was made for otherwise. Another type than that is a conflict.
        #[serde(default)]
        message_type: Option<String>,
        /// Start with what the node already holds.
        #[serde(default)]
        from_start: bool,
    },
    /// The next messages of a consumer; they come again until acknowledged or rejected.
    Fetch {
        /// The consumer.
        consumer: String,
        /// At most this many; default 100.
        #[serde(default)]
        limit: Option<u32>,
        /// Wait up to this long for a first message, in milliseconds.
        #[serde(default)]
        wait_ms: u32,
    },
    /// Says which fetched messages are done (`ack`) and which can never be (`reject`: to the dead
    /// letters). An id that is not outstanding is a per-id answer and no error.
    Settle {
        /// The consumer.
        consumer: String,
        /// Ids that are done.
        #[serde(default)]
        ack: Vec<String>,
        /// Ids for the dead letters.
        #[serde(default)]
        reject: Vec<String>,
    },
    /// Removes a consumer and its place.
    Unsubscribe {
        /// Its name.
        consumer: String,
    },
    /// The dispatch rules in force.
    Rules,
    /// Replaces the dispatch rules, now and after a restart.
    SetRules {
        /// The new rules.
        rules: Vec<DispatchRule>,
    },
    /// Asks a member of a cluster.
    Cluster(ClusterRequest),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "few are alive at once, and each is moved rarely")]
pub enum Reply {
    /// To [`Request::Post`]: the ids, in order.
    Posted {
        /// One for each message.
        ids: Vec<PostedId>,
    },
    /// To [`Request::Read`], [`Request::Peek`] and [`Request::Fetch`].
    Messages {
        /// The messages.
        messages: Vec<StoredMessage>,
        /// The ordinal to go on from; for a peek the number to skip.
        next: u64,
    },
    /// To [`Request::Latest`].
    Latest {
        /// The message, if there is one.
        message: Option<StoredMessage>,
    },
    /// To [`Request::Queues`].
    Queues {
        /// A page of them.
        queues: Vec<QueueStatus>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::Purge`].
    Purged {
        /// How many messages went.
        messages: u64,
        /// Ids that were not in the queue.
        not_found: Vec<String>,
    },
    /// To [`Request::Nodes`].
    Nodes {
        /// A page of them.
        nodes: Vec<NodeStatus>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Consumers`].
    Consumers {
        /// All of them.
        consumers: Vec<ConsumerStatus>,
    },
    /// To [`Request::Settle`].
    Settled {
        /// Ids that were outstanding and are settled.
        settled: u64,
        /// Ids that were not outstanding.
        not_found: Vec<String>,
    },
    /// To [`Request::Rules`] and [`Request::SetRules`].
    Rules {
        /// The rules in force.
        rules: Vec<DispatchRule>,
    },
    /// To [`Request::Cluster`].
    Cluster(ClusterReply),
    /// Done, nothing to tell.
    Done,
}

/// A [`Reply`] or an [`ApiError`], as it travels back over the binary protocol:
/// `{"ok": reply}` or `{"error": error}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one at a time, and gone at once")]
pub enum Outcome {
    /// It was done.
    Ok(Reply),
    /// It was not.
    Error(ApiError),
}

impl From<Result<Reply, ApiError>> for Outcome {
    fn from(result: Result<Reply, ApiError>) -> Self {
        result.map_or_else(Self::Error, Self::Ok)
    }
}

impl From<Outcome> for Result<Reply, ApiError> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok(reply) => Ok(reply),
            Outcome::Error(error) => Err(error),
        }
    }
}

/// Answers the bytes of a call: with those of an [`Outcome`].
pub(crate) async fn answer_call(
    call: &[u8],
    answer: impl AsyncFnOnce(Request) -> Result<Reply, ApiError>,
) -> Vec<u8> {
    let answer = match serde_json::from_slice(call) {
        Ok(request) => answer(request).await,
        Err(error) => {
            Err(ApiError::new(ErrorKind::Invalid, format!("the call does not decode: {error}")))
        }
    };
    serde_json::to_vec(&Outcome::from(answer)).unwrap_or_default()
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// One line: what is wrong, with the thing's name, and what to do.
    pub message: String,
    /// For a list in the request: the index of the item, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// Kinds of errors; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is malformed or out of range: 400.
    Invalid,
    /// The certificate is not one of an administrator: 403.
    Forbidden,
    /// No such queue, node, consumer or message: 404.
    NotFound,
    /// It contradicts the present state: 409.
    Conflict,
    /// A message is over the limit: 413.
    TooLarge,
    /// A queue or table is at its limit and refuses: 429.
    Full,
    /// The disk is full or does not work, or the node is stopping: 503.
    Unavailable,
}

impl Request {
    /// Whether it changes what belongs to others: other programs' messages, the table of leaves, the
    /// rules. With TLS it takes an administrator's certificate.
    pub const fn administers(&self) -> bool {
        match self {
            Self::Purge { .. } | Self::Forget { .. } | Self::SetRules { .. } => true,
            Self::Cluster(request) => request.administers(),
            _ => false,
        }
    }
}

impl ApiError {
    /// An error of `kind` saying `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), index: None }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// Bytes in JSON: a string when they are UTF-8, else `{"base64": "..."}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Base64 { base64: String },
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            Form::Base64 { base64 } => {
                BASE64.decode(base64).map(Self).map_err(serde::de::Error::custom)
            }
        }
    }
}

/// A message to post.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// What kind of message it is.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub message_type: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    /// Class 0 to 3; default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// Media type of the body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// Names the act of posting: a second post with the same key is the same message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Bytes>,
    /// Not worth delivering after this time, in milliseconds from the post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Queues to put it in, beside what the dispatch rules say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// For the applications.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Bytes>,
    /// The body.
    #[serde(default)]
    pub body: Bytes,
}

/// The id given to a posted message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostedId {
    /// `origin/epoch/class/seq`.
    pub id: String,
    /// It had been posted before under the same idempotency key.
    #[serde(default)]
    pub duplicate: bool,
}

/// A message that a node holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// `origin/epoch/class/seq`; the origin's name where the node knows it, else its id in hex.
    pub id: String,
    /// Its place in this node's log.
    pub ordinal: u64,
    /// The node where it was posted.
    pub origin: String,
    /// The time there, in milliseconds since 1970; 0 when not known.
    pub time_ms: u64,
    /// The time there as RFC 3339 text; empty when not known.
    pub time: String,
    /// How often it has been delivered to the consumer asking; 0 elsewhere.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deliveries: u32,
    /// Type, key, body and the rest.
    #[serde(flatten)]
    pub message: NewMessage,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a queue is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Its name.
    pub name: String,
    /// `leaf`, `upstream`, `consumer` or `dead_letter`.
    pub kind: String,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Messages in it by class.
    pub messages_by_class: [u64; 4],
    /// How long the oldest has waited, in milliseconds.
    pub oldest_ms: u64,
    /// Messages ever put in.
    pub appended_total: u64,
    /// Messages acknowledged.
    pub acknowledged_total: u64,
    /// Messages dropped at a limit.
    pub dropped_total: u64,
    /// Messages whose time to live ended in it.
    pub expired_total: u64,
    /// Whether the reader is connected.
    pub connected: bool,
}

/// How a leaf is, as its hub sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `live`, `silent` (registered, no link) or `expired`.
    pub state: String,
    /// Where it says it can be reached.
    pub address: String,
    /// What is left of its lease, in milliseconds.
    pub lease_left_ms: u64,
    /// Round trip of the last ping, in microseconds; 0 when not known.
    pub round_trip_us: u64,
    /// Messages waiting for it.
    pub queued: u64,
    /// Messages delivered to it and acknowledged.
    pub delivered_total: u64,
    /// Messages taken from it.
    pub fetched_total: u64,
}

/// How a consumer is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Only this type; empty for all.
    pub message_type: String,
    /// Messages not yet acknowledged.
    pub messages: u64,
    /// Messages delivered and neither acknowledged nor rejected.
    pub outstanding: u64,
    /// Messages delivered again.
    pub redelivered_total: u64,
    /// Messages moved to the dead letters.
    pub dead_total: u64,
    /// Whether a client is connected as it.
    pub connected: bool,
}

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// `hub` or `leaf`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// The life of its log.
    pub epoch: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Whether every upstream is connected and registered (a leaf), or it takes links (a hub).
    pub ready: bool,
    /// The upstreams, by name: `connected`, `registered`, or why not.
    pub upstreams: BTreeMap<String, String>,
    /// The hubs that stand by for this one, by name. At a hub that stands by: the one that leads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standbys: BTreeMap<String, StandbyStatus>,
    /// Links open.
    pub links: u64,
    /// Bytes of its log on disk.
    pub log_bytes: u64,
    /// First ordinal held, and the next to be given.
    pub ordinals: [u64; 2],
    /// Counters by name, as in the metrics.
    pub counters: BTreeMap<String, u64>,
}

/// One of several hubs that hold one log, as another sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// `following`, `copying` (it takes a whole copy first) or `disconnected`; `leading` for the one
    /// that leads.
    pub state: String,
    /// Batches of the log that are not safe there yet.
    pub lag_batches: u64,
    /// Records in them; all that the log holds while a copy is taken.
    pub lag_records: u64,
    /// Bytes of the log, about.
    pub lag_bytes: u64,
}

/// Where messages go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchRule {
    /// Only this type; a trailing `*` matches any rest; empty for all.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub message_type: String,
    /// Only from this origin; empty for all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// The queues; `*` for every registered leaf.
    pub to: Vec<String>,
}
