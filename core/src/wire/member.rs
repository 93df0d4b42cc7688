//! What members of a cluster say to each other.

use super::payload::{choice, payload};

/// Most members of a cluster, learners and this one included.
pub const MEMBERS_MAX: usize = 32;
/// Most bytes of what a member says of itself.
pub const METADATA_BYTES_MAX: usize = 256;
/// Bytes of one member in [`Members::members`].
pub const MEMBER_BYTES: usize = 9;
/// Bytes of one entry in [`Digest::entries`].
pub const DIGEST_ENTRY_BYTES: usize = 12;

/// What a node wants to be in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Wish {
    /// What the configuration says.
    #[default]
    Stay,
    /// A member that votes.
    Voter,
    /// A member that does not vote.
    Learner,
    /// No member any more.
    Leave,
}
choice!(Wish { Stay, Voter, Learner, Leave });

/// Follows [`super::Hello`] of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cluster<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// What the sender wants to be.
    pub wish: Wish,
}
payload!(Cluster<'a> { cluster, wish });

/// Which configuration of a cluster: a later term, or a greater version of one term, is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConfigurationId {
    /// The term of the leader that made it, or that took it over; 0 for the first.
    pub term: u64,
    /// 0 for none at all; else see [`Self::origin`] and [`Self::change`].
    pub version: u64,
}
payload!(ConfigurationId { term, version });

impl ConfigurationId {
    /// Bits of the version that are the origin. With so few the version takes 5 bytes in a frame.
    const ORIGIN_BITS: u32 = 24;

    /// The first configuration, of members with this checksum.
    pub(crate) const fn first(checksum: u64) -> Self {
        let origin = checksum & ((1 << Self::ORIGIN_BITS) - 1);
        let origin = if origin == 0 { 1 } else { origin };
        Self { term: 0, version: 1 << Self::ORIGIN_BITS | origin }
    }

    /// The lower 24 bits of the version: a checksum of the first members that this configuration
    /// goes back to, and 0 for none at all. Nodes whose configurations differ in it are of different
    /// clusters, whatever the names of these.
    pub const fn origin(self) -> u32 {
        (self.version & ((1 << Self::ORIGIN_BITS) - 1)) as u32
    }

    /// The rest of the version: 1 for the first members, and one more with each change.
    pub const fn change(self) -> u64 {
        self.version >> Self::ORIGIN_BITS
    }

    /// The one after this, in the same term; `None` when there is none.
    pub(crate) const fn next(self) -> Option<Self> {
        match self.version.checked_add(1 << Self::ORIGIN_BITS) {
            Some(version) => Some(Self { term: self.term, version }),
            None => None,
        }
    }
}

/// How far a node has followed what it stands by for. Greater is fresher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Progress {
    /// The term in which the last entry was made.
    pub term: u64,
    /// The number of entries.
    pub position: u64,
}
payload!(Progress { term, position });

/// A candidate asks for a vote, or whether it would get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VoteRequest {
    /// The term that the vote is for.
    pub term: u64,
    /// Tells the campaigns of a candidate apart.
    pub campaign: u32,
    /// Only whether it would get one: nobody's term changes.
    pub pre: bool,
    /// The leader of the term before has handed over to the sender.
    pub handed_over: bool,
    /// The sender's configuration.
    pub configuration: ConfigurationId,
    /// How fresh the sender is.
    pub progress: Progress,
}
payload!(VoteRequest { term, campaign, pre, handed_over, configuration, progress });

/// Why a vote is not given, or a heartbeat not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refusal {
    /// The term is over: the answer carries a later one.
    Term,
    /// The vote of this term is given to another, or another leads in it.
    Taken,
    /// A leader may be alive: it was heard of too lately, or this node has just started.
    Leader,
    /// The configuration is older than the answerer's, or the sender has no vote in that.
    Configuration,
    /// The answerer is fresher.
    Progress,
    /// One of the two does not vote.
    Learner,
    /// The answerer cannot store its vote or the term.
    Storage,
}
choice!(Refusal { Term, Taken, Leader, Configuration, Progress, Learner, Storage });

/// Answers a [`VoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VoteAnswer {
    /// The answerer's term.
    pub term: u64,
    /// The term of the request.
    pub asked_term: u64,
    /// The campaign of the request.
    pub campaign: u32,
    /// Whether it answers a question before a vote.
    pub pre: bool,
    /// Why not; nothing when granted.
    pub refusal: Option<Refusal>,
    /// The answerer's configuration, as it is stored.
    pub configuration: ConfigurationId,
}
payload!(VoteAnswer { term, asked_term, campaign, pre, refusal, configuration });

/// The leader says that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Heartbeat {
    /// The leader's term.
    pub term: u64,
    /// When it was made, on the leader's clock; repeated in the answer.
    pub sent_us: u64,
    /// The leader's configuration, as it is stored.
    pub configuration: ConfigurationId,
    /// The digest of the leader's registry.
    pub registry: u64,
}
payload!(Heartbeat { term, sent_us, configuration, registry });

/// Answers a [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HeartbeatAnswer {
    /// The answerer's term.
    pub term: u64,
    /// Of the heartbeat.
    pub sent_us: u64,
    /// Why it was not accepted; nothing when it was.
    pub refusal: Option<Refusal>,
    /// The answerer's configuration, as it is stored.
    pub configuration: ConfigurationId,
    /// How fresh the answerer is.
    pub progress: Progress,
    /// The digest of the answerer's registry.
    pub registry: u64,
}
payload!(HeartbeatAnswer { term, sent_us, refusal, configuration, progress, registry });

/// A whole configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Members<'a> {
    /// Which.
    pub configuration: ConfigurationId,
    /// For each member its identity, little-endian, and one byte: 1 when it votes, else 0.
    pub members: &'a [u8],
}
payload!(Members<'a> { configuration, members });

/// Two members that are not leader and follower: the link is alive, and so is the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gossip {
    /// The digest of the sender's registry.
    pub registry: u64,
    /// When it was made, on the sender's clock.
    pub sent_us: u64,
    /// The last `sent_us` heard from the receiver, 0 for none,
    pub echo_us: u64,
    /// and how long ago that was heard.
    pub held_us: u64,
}
payload!(Gossip { registry, sent_us, echo_us, held_us });

/// Which versions of which entries the sender has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Digest<'a> {
    /// For each entry the identity of its owner, 64 bits, and the version, 32 bits, little-endian.
    pub entries: &'a [u8],
    /// Whether the receiver is asked for what it has and the sender has not.
    pub answer: bool,
}
payload!(Digest<'a> { entries, answer });

/// What a node says of itself, as it passes from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Entry<'a> {
    /// The owner's name.
    pub name: &'a str,
    /// Counts what the owner has said; 0 for what stands of it in the file of another.
    pub version: u32,
    /// It is of the sender's configuration or file: kept while the owner is away.
    pub lasting: bool,
    /// Where it can be reached, `host:port`; empty for nowhere.
    pub address: &'a str,
    /// What it wants to be.
    pub wish: Wish,
    /// The greater campaigns first.
    pub priority: u8,
    /// What it says of itself; nothing when it leaves that to the files of the others.
    pub metadata: Option<&'a [u8]>,
}
payload!(Entry<'a> { name, version, lasting, address, wish, priority, metadata });

/// Has the receiver heard of a node?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Probe {
    /// The node, by its identity.
    pub node: u64,
}
payload!(Probe { node });

/// Answers a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ProbeAnswer {
    /// The node, by its identity.
    pub node: u64,
    /// How long ago it was heard, in milliseconds; nothing when it is not linked.
    pub heard_ms: Option<u32>,
}
payload!(ProbeAnswer { node, heard_ms });

/// What a member is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MemberRole {
    /// Takes part in no election: there is none, or it is no member.
    None,
    /// Follows, does not vote.
    Learner,
    /// Follows, votes.
    Follower,
    /// Asks whether it would be voted for.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}
choice!(MemberRole { None, Learner, Follower, PreCandidate, Candidate, Leader });

/// Answers an ask: who the sender is and whom it takes for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Status<'a> {
    /// The number of the question.
    pub number: u32,
    /// What the sender is.
    pub role: MemberRole,
    /// Its term.
    pub term: u64,
    /// The leader's name; empty when it knows of none: try again.
    pub leader: &'a str,
    /// Where the leader can be reached; empty when not known.
    pub address: &'a str,
}
payload!(Status<'a> { number, role, term, leader, address });
