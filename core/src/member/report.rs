//! What a member tells: events, why a command was not done, and what it has counted.

use crate::election::{ChangeError, ElectionEvent, ElectionStats};
use crate::link::LinkStats;
use crate::stream::NodeId;
use crate::wire::RefuseReason;

/// What a [`Member`](super::Member) tells the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MemberEvent {
    /// Leadership, and the members.
    Election(ElectionEvent),
    /// A peer is there.
    PeerUp {
        /// Who.
        node: NodeId,
    },
    /// A peer is not there any more.
    PeerDown {
        /// Who.
        node: NodeId,
    },
    /// A peer says something else of itself, or is new: [`Member::peer`](super::Member::peer).
    PeerChanged {
        /// Who.
        node: NodeId,
    },
    /// A link was refused, by this node or by the other.
    Refused {
        /// The other, as far as it has said who it is.
        node: NodeId,
        /// Why.
        reason: RefuseReason,
    },
}

/// Why a command was not done. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MemberError {
    /// The identifier is this node's own.
    OwnName,
    /// There is a peer of this name already, or of this identity.
    Duplicate,
    /// No room for one more peer.
    Full,
    /// More than [`METADATA_BYTES_MAX`](crate::wire::METADATA_BYTES_MAX) bytes of metadata.
    MetadataTooLong,
    /// There is no election in this cluster.
    NoElection,
    /// This node does not lead.
    NotLeading,
    /// The only voter cannot leave.
    OnlyVoter,
    /// No such peer, or it is not linked.
    NotConnected,
    /// The change before is not through: try again.
    Busy,
}

impl core::fmt::Display for MemberError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OwnName => "the name is this node's own",
            Self::Duplicate => "there is a peer of this name already",
            Self::Full => "no room for one more peer",
            Self::MetadataTooLong => "metadata is longer than 256 bytes",
            Self::NoElection => "there is no election in this cluster",
            Self::NotLeading => "this node does not lead: ask the leader",
            Self::OnlyVoter => "the only voter cannot leave",
            Self::NotConnected => "no such peer is connected",
            Self::Busy => "the last change is not through yet: try again",
        })
    }
}

impl core::error::Error for MemberError {}

impl From<ChangeError> for MemberError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotLeading => Self::NotLeading,
            ChangeError::Itself | ChangeError::Busy => Self::Busy,
            ChangeError::Full => Self::Full,
        }
    }
}

/// What a [`Member`](super::Member) has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct MemberStats {
    /// Of the election.
    pub election: ElectionStats,
    /// Of all links: frames that were no frames, and links that fell silent.
    pub link: LinkStats,
    /// Frames sent.
    pub frames_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Links refused to nodes that are no members and are not taken in.
    pub strangers: u32,
    /// Links refused to nodes of another cluster.
    pub wrong_cluster: u32,
    /// Links refused to nodes that are not who they say.
    pub wrong_identity: u32,
    /// Links refused to a second node of a name.
    pub name_in_use: u32,
    /// Entries and links that found no room, and entries that made no sense.
    pub entries_refused: u32,
    /// How much longer this node waits before it takes a peer for down, since it may itself be
    /// slow: 0 for no longer, 8 for nine times as long.
    pub health: u8,
}
