//! What can be asked of a member, and what it answers; the same over its own port, over HTTP and
//! inside the process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::Metadata;

/// A request to a member, as the value of [`crate::api::Request::Cluster`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum ClusterRequest {
    /// Everything that it knows: [`ClusterReply::Status`].
    Status,
    /// What has happened after an event: [`ClusterReply::Events`].
    Events {
        /// The id of the last event seen; `None` for the present one.
        #[serde(default)]
        after: Option<u64>,
        /// Wait up to this long for the first, in milliseconds; at most 60,000.
        #[serde(default)]
        wait_ms: u32,
    },
    /// Sets what the member says of itself.
    SetMetadata {
        /// All of it.
        metadata: Metadata,
    },
    /// The member, if it leads, hands over.
    Resign,
    /// Takes a new member into the cluster.
    Join {
        /// Its name.
        identifier: String,
        /// Where it listens, `host:port`.
        address: String,
        /// Whether it votes.
        #[serde(default = "yes")]
        voter: bool,
        /// Passed on by another member, and not to be passed on again.
        #[serde(default)]
        passed_on: bool,
    },
    /// Takes a member out of the cluster.
    Leave {
        /// Its name.
        identifier: String,
        /// Passed on by another member, and not to be passed on again.
        #[serde(default)]
        passed_on: bool,
    },
}

impl ClusterRequest {
    /// Whether it changes the cluster. With TLS it takes an administrator's certificate, or that of a
    /// member.
    pub const fn administers(&self) -> bool {
        !matches!(self, Self::Status | Self::Events { .. })
    }
}

const fn yes() -> bool {
    true
}

/// The answer to a [`ClusterRequest`], as the value of [`crate::api::Reply::Cluster`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ClusterReply {
    /// To [`ClusterRequest::Status`].
    Status(Box<ClusterStatus>),
    /// To [`ClusterRequest::Events`].
    Events {
        /// Those after the one named, oldest first.
        events: Vec<ClusterEvent>,
        /// The id to go on from.
        last: u64,
        /// Events that were let go before anybody asked for them.
        missed: u64,
    },
    /// Done.
    Done,
}

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub identifier: String,
    /// The host where the others reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// What it says of itself.
    pub metadata: Metadata,
    /// The term that it leads in: rises with every new leader. The fencing token.
    pub term: u64,
    /// How long this member has known it as the leader of the term, in milliseconds.
    pub leading_ms: u64,
}

/// A member, as another or itself sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub identifier: String,
    /// The host where the others reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// What it says of itself.
    pub metadata: Metadata,
    /// Rises whenever it says something else; 0 for what a configuration file says of it.
    pub metadata_version: u64,
    /// `leader`, `voter`, `learner`; `peer` without election; `none` for who is known and no member.
    pub role: String,
    /// `self`, `up`, `suspected`, `down`, or `unknown` while it was not heard of.
    pub state: String,
    /// Since it was last heard, in milliseconds; 0 when it never was, and for the member itself.
    pub heard_ms_ago: u64,
    /// Round trip to it, in microseconds; 0 when not known.
    pub round_trip_us: u64,
}

/// How a member is, and what it knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its name.
    pub identifier: String,
    /// The cluster.
    pub cluster: String,
    /// Version of the program.
    pub version: String,
    /// `follower`, `candidate`, `leader`, `learner`, `peer` (without election), `joining` or
    /// `removed`.
    pub role: String,
    /// Its term; 0 before the first election.
    pub term: u64,
    /// Whether it leads at this instant: its lease runs.
    pub is_leader: bool,
    /// What is left of its lease, in milliseconds; 0 when it does not lead.
    pub lease_left_ms: u64,
    /// Who leads, if anybody is known to.
    pub leader: Option<Leader>,
    /// All members that it knows, itself included, by name.
    pub members: Vec<Member>,
    /// Voters in the configuration.
    pub voters: u64,
    /// Version and term of the configuration.
    pub configuration: [u64; 2],
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Milliseconds since the leader last changed, or since the start.
    pub leader_changed_ms_ago: u64,
    /// Counters by name, as in the metrics.
    pub counters: BTreeMap<String, u64>,
}

/// Something that has happened, as the member saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterEvent {
    /// Rises, over restarts too.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// This member leads.
    BecameLeader {
        /// In this term.
        term: u64,
    },
    /// This member leads no more.
    LostLeadership {
        /// The term that it led in.
        term: u64,
    },
    /// Another leads, or nobody is known to.
    NewLeader {
        /// The term.
        term: u64,
        /// Who; `None` for nobody.
        leader: Option<String>,
    },
    /// A member is heard.
    PeerUp {
        /// Who.
        identifier: String,
    },
    /// A member is not heard any more.
    PeerDown {
        /// Who.
        identifier: String,
    },
    /// A member says something else of itself.
    PeerChanged {
        /// Who.
        identifier: String,
    },
    /// Members came or went, or others vote.
    ConfigurationChanged {
        /// Voters now.
        voters: u64,
    },
    /// This member is no part of the cluster any more.
    Removed,
}

impl Happened {
    /// The word for it, as in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BecameLeader { .. } => "became_leader",
            Self::LostLeadership { .. } => "lost_leadership",
            Self::NewLeader { .. } => "new_leader",
            Self::PeerUp { .. } => "peer_up",
            Self::PeerDown { .. } => "peer_down",
            Self::PeerChanged { .. } => "peer_changed",
            Self::ConfigurationChanged { .. } => "configuration_changed",
            Self::Removed => "removed",
        }
    }
}

impl std::fmt::Display for Happened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BecameLeader { term } => write!(f, "this member leads in term {term}"),
            Self::LostLeadership { term } => {
                write!(f, "this member leads no more, as it did in term {term}")
            }
            Self::NewLeader { term, leader: Some(leader) } => {
                write!(f, "{leader} leads in term {term}")
            }
            Self::NewLeader { term, leader: None } => write!(f, "nobody leads in term {term}"),
            Self::PeerUp { identifier } => write!(f, "{identifier} is heard"),
            Self::PeerDown { identifier } => write!(f, "{identifier} is not heard any more"),
            Self::PeerChanged { identifier } => {
                write!(f, "{identifier} says something else of itself")
            }
            Self::ConfigurationChanged { voters } => {
                write!(f, "the members have changed; {voters} vote")
            }
            Self::Removed => f.write_str("this member is no part of the cluster any more"),
        }
    }
}
