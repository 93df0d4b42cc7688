//! Another member, as an election knows it.

use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::{ConfigurationId, Progress, Refusal};

/// What is to be said to a member.
pub(super) mod due {
    pub(in crate::election) const VOTE_REQUEST: u8 = 1;
    pub(in crate::election) const VOTE_ANSWER: u8 = 1 << 1;
    pub(in crate::election) const HEARTBEAT: u8 = 1 << 2;
    pub(in crate::election) const HEARTBEAT_ANSWER: u8 = 1 << 3;
    pub(in crate::election) const HAND_OVER: u8 = 1 << 4;
    pub(in crate::election) const MEMBERS: u8 = 1 << 5;
}

/// A vote that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Asked {
    pub(super) term: u64,
    pub(super) campaign: u32,
    pub(super) pre: bool,
    pub(super) refusal: Option<Refusal>,
}

/// A heartbeat that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Beat {
    pub(super) term: u64,
    pub(super) sent_us: u64,
    pub(super) refusal: Option<Refusal>,
}

/// Another member, as the election knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElectionSlot {
    /// [`NodeId::NONE`] when the slot is free.
    pub(super) node: NodeId,
    pub(super) voter: bool,
    pub(super) due: u8,
    /// It has given its vote, or said that it would, in the present campaign.
    pub(super) granted: bool,
    /// It goes back to other first members.
    pub(super) foreign: Foreign,
    pub(super) round_trip_us: u32,
    pub(super) asked: Asked,
    pub(super) beat: Beat,
    /// When the next heartbeat is due to it.
    pub(super) heartbeat_at: Instant,
    /// When the newest heartbeat was made that it has accepted; zero for none.
    pub(super) acked_at: Instant,
    /// The configuration it had then.
    pub(super) acked_configuration: ConfigurationId,
    pub(super) progress: Progress,
}

impl ElectionSlot {
    /// No member.
    pub const FREE: Self = Self {
        node: NodeId::NONE,
        voter: false,
        due: 0,
        granted: false,
        foreign: Foreign::No,
        round_trip_us: 0,
        asked: Asked { term: 0, campaign: 0, pre: false, refusal: None },
        beat: Beat { term: 0, sent_us: 0, refusal: None },
        heartbeat_at: Instant::NEVER,
        acked_at: Instant::ZERO,
        acked_configuration: ConfigurationId { term: 0, version: 0 },
        progress: Progress { term: 0, position: 0 },
    };

    /// Who it is; [`NodeId::NONE`] when the slot is free.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Whether it votes.
    pub const fn is_voter(&self) -> bool {
        self.voter
    }
}

/// Whether a member goes back to other first members, and whether that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Foreign {
    No,
    Seen,
    Told,
}
