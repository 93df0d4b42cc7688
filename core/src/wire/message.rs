//! What control frames say.

use super::member::{
    Cluster, Digest, Entry, Gossip, Heartbeat, HeartbeatAnswer, Members, Probe, ProbeAnswer,
    Status, VoteAnswer, VoteRequest,
};
use super::payload::{Payload, Reader, Writer, choice, payload};
use crate::contract::SkipReason;
use crate::stream::{Address, Name};

/// Lowest version of the protocol spoken here.
pub const VERSION_MIN: u8 = 1;
/// Highest version of the protocol spoken here.
pub const VERSION_MAX: u8 = 1;
/// Streams each way on one link.
pub const STREAMS_MAX: usize = 8;
/// Queues that a leaf may register for, its own included.
pub const QUEUES_MAX: usize = 2;
/// Feature bit: frames of records may be compressed as one LZ4 block.
pub const FEATURE_LZ4: u32 = 1;
/// Feature bit: hubs may hold one log together, lead in terms and stand by ([`TermLease`],
/// [`Redirect`], [`RefuseReason::Term`], [`RefuseReason::Standby`]).
pub const FEATURE_STANDBY: u32 = 1 << 1;
/// The feature bits that have a meaning in this version.
pub const FEATURES: u32 = FEATURE_LZ4 | FEATURE_STANDBY;

/// A name or an address as it came: whether it is one shows when [`Name`] or [`Address`] is made of it. Bytes and not text, because to check that they are
/// UTF-8 takes a table.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> From<&'a Name> for Text<'a> {
    fn from(name: &'a Name) -> Self {
        Self(name.as_bytes())
    }
}

impl<'a> From<&'a Address> for Text<'a> {
    fn from(address: &'a Address) -> Self {
        Self(address.as_bytes())
    }
}

impl core::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What no name has is escaped.
impl core::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl<'a> Payload<'a> for Text<'a> {
    fn read(from: &mut Reader<'a>) -> Self {
        Self(Payload::read(from))
    }
    fn write(&self, to: &mut Writer<'_>) {
        self.0.write(to);
    }
}

/// What the sender of a [`Hello`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Role {
    /// Takes registrations and dispatches.
    Hub,
    /// Registers at a hub.
    Leaf,
    /// A program that posts or reads at a node; not registered, not dispatched to.
    Client,
    /// A member of a cluster: elections and a registry, no streams.
    Member,
}
choice!(Role { Hub, Leaf, Client, Member });

/// The first frame each way; the dialler speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hello<'a> {
    /// `RPLC`, so that a stranger is told apart from a peer.
    pub magic: [u8; 4],
    /// Lowest version the sender speaks.
    pub version_min: u8,
    /// Highest version the sender speaks; the link uses the highest that both speak.
    pub version_max: u8,
    /// What it is.
    pub role: Role,
    /// Feature bits it offers; the link has those that both offer.
    pub features: u32,
    /// The sender's name.
    pub name: Text<'a>,
    /// Drawn once, when the sender's store was made: tells a node from another of its name.
    pub instance: u64,
    /// The life of the sender's log.
    pub epoch: u32,
    /// Longest frame it takes, in bytes.
    pub frame_bytes_max: u32,
    /// It is silent for no longer than this, in milliseconds.
    pub keepalive_ms: u32,
    /// Drawn for each link: tells a repeated greeting from one after a restart, on a line that
    /// has no other way to tell.
    pub session: u32,
}
payload!(Hello<'a> {
    magic,
    version_min,
    version_max,
    role,
    features,
    name,
    instance,
    epoch,
    frame_bytes_max,
    keepalive_ms,
    session,
});

/// Why a link or a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RefuseReason {
    /// No version in common.
    Version,
    /// The name is not a name.
    Name,
    /// The certificate or key does not carry the name.
    Identity,
    /// A live node has this name and is another instance.
    NameInUse,
    /// Two names with one identity.
    Collision,
    /// The table of leaves, links or consumers is full.
    Full,
    /// Too many at once; come back after the hint.
    Busy,
    /// The receiver does not take this role.
    Role,
    /// The consumer may not be read, or is being read by another client.
    Consumer,
    /// The receiver is of another cluster.
    Cluster,
    /// The sender is no member, and is not taken in.
    Stranger,
    /// The receiver, a hub, leads in a term that is over.
    Term,
    /// The sender, a hub, stands by, and does not know who leads.
    Standby,
}
choice!(RefuseReason {
    Version,
    Name,
    Identity,
    NameInUse,
    Collision,
    Full,
    Busy,
    Role,
    Consumer,
    Cluster,
    Stranger,
    Term,
    Standby,
});

/// What is wrong and what to do about it, said from the side of who is refused.
impl core::fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Version => "no protocol version in common; update the older of the two",
            Self::Name => "the name is not a valid one",
            Self::Identity => "the certificate or key is not for this name",
            Self::NameInUse => {
                "another live node has this name; stop it, or give this one another name"
            }
            Self::Collision => "the name has the same identity as another; choose another name",
            Self::Full => "the table of peers is full; raise its limit, or forget old nodes",
            Self::Busy => "too many at once; it is tried again",
            Self::Role => "the other side does not take nodes of this role",
            Self::Consumer => "the consumer is read by another program",
            Self::Cluster => "the other side is of another cluster",
            Self::Stranger => "not a member of the cluster; join it first",
            Self::Term => "the hub leads in a term that is over; another is tried",
            Self::Standby => "the hub stands by for another; that one is tried",
        })
    }
}

/// Refuses the link; the sender then closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Refuse {
    /// Why.
    pub reason: RefuseReason,
    /// Not before this time has passed, in milliseconds; 0 for the dialler's own judgement.
    pub retry_after_ms: u32,
}
payload!(Refuse { reason, retry_after_ms });

/// A leaf registers, or renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Register<'a> {
    /// The lease it would like, in milliseconds.
    pub lease_ms: u32,
    /// Where it can be reached, `host:port`; empty for nowhere.
    pub address: Text<'a>,
    /// Queues it reads beside the one of its own name; the empty text for none.
    pub queues: [Text<'a>; QUEUES_MAX - 1],
}
payload!(Register<'a> { lease_ms, address, queues });

/// The hub's answer to [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Lease {
    /// The registration holds this long from now, in milliseconds.
    pub lease_ms: u32,
}
payload!(Lease { lease_ms });

/// In place of [`Lease`], from a hub that leads in a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TermLease {
    /// The registration holds this long from now, in milliseconds.
    pub lease_ms: u32,
    /// The term in which the hub leads. A leaf that has heard of a later one refuses it.
    pub term: u64,
}
payload!(TermLease { lease_ms, term });

/// Refuses the link: the sender stands by for the hub at this address, which leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Redirect<'a> {
    /// Where the leading hub takes leaves, `host:port`.
    pub address: Text<'a>,
}
payload!(Redirect<'a> { address });

/// A client wants to read as a named consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Subscribe<'a> {
    /// The consumer.
    pub consumer: Text<'a>,
    /// Only messages of this type; empty for all. A trailing `*` matches any rest. Counts when the
    /// consumer is new.
    pub message_type: Text<'a>,
    /// Whether a new consumer starts with what the node already holds, or with what comes.
    pub from_start: bool,
}
payload!(Subscribe<'a> { consumer, message_type, from_start });

impl<'a> Subscribe<'a> {
    /// What a driver finds in the buffer with [`crate::contract::Query::Subscribe`].
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        Reader::whole(bytes)
    }
}

/// Announces an outgoing stream; the receiver answers [`Resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Open<'a> {
    /// The sender's queue.
    pub queue: Text<'a>,
    /// The class, 0 to 3.
    pub class: u8,
    /// The life of the sender's log.
    pub epoch: u32,
    /// The first entry that the sender still holds, or the receiver's place.
    pub first: u64,
    /// `first` is the receiver's place in this life: the answer to its [`Resume`] of this round,
    /// which named a place that the sender's log does not have.
    pub placed: Option<u8>,
}
payload!(Open<'a> { queue, class, epoch, first, placed });

/// The receiver's place in a stream: the sender goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Resume {
    /// The life of the sender's log that the position is of: that of [`Open`], or an earlier one.
    pub epoch: u32,
    /// Entries before this one are safe.
    pub position: u64,
    /// Bytes of the entry at `position` that are there already.
    pub offset: u32,
    /// The sender may send this many bytes of records, counted from this frame on.
    pub credit_bytes: u32,
    /// Counts the resumes of the stream on this link, so that frames sent before are told apart.
    pub round: u8,
}
payload!(Resume { epoch, position, offset, credit_bytes, round });

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Level {
    /// It arrived.
    Received,
    /// It was written, and survives the end of the process.
    Written,
    /// It was synced, and survives the end of power.
    Synced,
    /// It was synced here and on this many standbys.
    Replicated(u8),
}

impl Payload<'_> for Level {
    fn read(from: &mut Reader<'_>) -> Self {
        match u8::read(from) {
            0 => Self::Received,
            1 => Self::Written,
            2 => Self::Synced,
            3 => Self::Replicated(u8::read(from)),
            _ => from.refuse(Self::Received),
        }
    }
    fn write(&self, to: &mut Writer<'_>) {
        match *self {
            Self::Received => 0_u8.write(to),
            Self::Written => 1_u8.write(to),
            Self::Synced => 2_u8.write(to),
            Self::Replicated(standbys) => [3, standbys].write(to),
        }
    }
}

/// Acknowledges everything before a position, and grants credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ack {
    /// Entries before this one are safe.
    pub position: u64,
    /// What "safe" means.
    pub level: Level,
    /// The sender may send this many bytes of records in all since the last [`Resume`].
    pub credit_bytes: u64,
    /// The round of that [`Resume`].
    pub round: u8,
}
payload!(Ack { position, level, credit_bytes, round });

/// Entries that will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Skip {
    /// From here,
    pub first: u64,
    /// up to here, exclusive.
    pub next: u64,
    /// Why.
    pub reason: SkipReason,
}
payload!(Skip { first, next, reason });

/// A consumer will not have this entry: to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Reject {
    /// Which.
    pub position: u64,
}
payload!(Reject { position });

/// Why a link is closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ByeReason {
    /// Nothing more to say for now.
    Done,
    /// The node stops.
    Stopping,
    /// A newer link of the same node took its place.
    Replaced,
    /// The lease ended without renewal.
    Expired,
    /// The sender knows of no link: it has started anew, on a line that does not show it.
    Unknown,
}
choice!(ByeReason { Done, Stopping, Replaced, Expired, Unknown });

/// The last frame of a link that is closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bye {
    /// Why.
    pub reason: ByeReason,
    /// Not before this time has passed, in milliseconds; 0 for the dialler's own judgement.
    pub retry_after_ms: u32,
}
payload!(Bye { reason, retry_after_ms });

/// The payload of a control frame. Its type number is in [`Control::type_number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[allow(missing_docs, reason = "each variant is named for the type it holds")]
pub enum Control<'a> {
    Hello(Hello<'a>),
    Refuse(Refuse),
    Register(Register<'a>),
    Lease(Lease),
    Subscribe(Subscribe<'a>),
    Open(Open<'a>),
    Resume(Resume),
    Ack(Ack),
    Skip(Skip),
    Reject(Reject),
    /// Answered by a `Pong` with the same number.
    Ping(u32),
    Pong(u32),
    Bye(Bye),
    Cluster(Cluster<'a>),
    VoteRequest(VoteRequest),
    VoteAnswer(VoteAnswer),
    Heartbeat(Heartbeat),
    HeartbeatAnswer(HeartbeatAnswer),
    Members(Members<'a>),
    /// The leader of this term leads no more, and asks the receiver to campaign at once.
    HandOver(u64),
    Gossip(Gossip),
    Digest(Digest<'a>),
    Entry(Entry<'a>),
    Probe(Probe),
    ProbeAnswer(ProbeAnswer),
    /// Answered by a `Status` with the same number.
    Ask(u32),
    Status(Status<'a>),
    TermLease(TermLease),
    Redirect(Redirect<'a>),
}
