//! What a link is told, and what it counts.

use super::schedule::Sharing;
use crate::stream::{Epoch, Name};
use crate::wire::{FEATURE_STANDBY, Level};

/// What all links of a node have in common.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LinkSettings {
    /// The node's name.
    pub name: Name,
    /// Drawn once, when the node's store was made.
    pub instance: u64,
    /// The life of the node's log.
    pub epoch: Epoch,
    /// Feature bits to offer, of [`crate::wire::FEATURES`]. Default
    /// [`crate::wire::FEATURE_STANDBY`], which takes nothing of the driver.
    pub features: u32,
    /// Longest frame to take, in bytes, [`crate::wire::FRAME_BYTES_MIN`] to
    /// [`crate::wire::FRAME_BYTES_MAX`]; default 65,536.
    pub frame_bytes_max: u32,
    /// Bytes of records that may be under way on one incoming stream; default 1,048,576. The
    /// driver needs room for that much from each stream that sends at once.
    pub window_bytes: u32,
    /// Something is sent at least this often, in milliseconds; default 10,000. The other end is
    /// given up when it was silent for three and a half times what it promised.
    pub keepalive_ms: u32,
    /// Greeting and registration must be through by then, in milliseconds; default 5,000.
    pub handshake_ms: u32,
    /// On a line that loses frames: silence after which something is said again, in milliseconds;
    /// default 1,000.
    pub retransmit_ms: u32,
    /// A stream for which the store had no room is asked for again after this many milliseconds;
    /// default 1,000.
    pub full_retry_ms: u32,
    /// What this node's acknowledgements promise; default synced.
    pub level: Level,
    /// The least promise on which this node frees what it sent; default synced.
    pub level_min: Level,
    /// How outgoing bytes are shared among classes.
    pub sharing: Sharing,
}

impl LinkSettings {
    /// The defaults, for a node of this name, instance and epoch.
    pub const fn new(name: Name, instance: u64, epoch: Epoch) -> Self {
        Self {
            name,
            instance,
            epoch,
            features: FEATURE_STANDBY,
            frame_bytes_max: 65_536,
            window_bytes: 1 << 20,
            keepalive_ms: 10_000,
            handshake_ms: 5_000,
            retransmit_ms: 1_000,
            full_retry_ms: 1_000,
            level: Level::Synced,
            level_min: Level::Synced,
            sharing: Sharing::new(),
        }
    }
}

/// What a link has counted. Noise is counted here and never becomes an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LinkStats {
    /// Frames with a length out of range.
    pub bad_length: u64,
    /// Frames whose checksum did not match.
    pub bad_checksum: u64,
    /// Frames of an unknown type.
    pub bad_type: u64,
    /// Frames whose payload did not decode.
    pub bad_payload: u64,
    /// Frames that made no sense where they came.
    pub violations: u64,
    /// Links given up because the other end fell silent.
    pub silent: u64,
    /// Frames of records that brought nothing new.
    pub repeated: u64,
    /// Times a receiving end went back to the last safe position.
    pub went_back: u64,
    /// Times the store had no room.
    pub full: u64,
    /// Acknowledgements that promised less than is asked for.
    pub below_level: u64,
    /// Hubs refused because a hub of a later term was heard of.
    pub terms_over: u64,
}

impl LinkStats {
    pub(super) const ZERO: Self = Self {
        bad_length: 0,
        bad_checksum: 0,
        bad_type: 0,
        bad_payload: 0,
        violations: 0,
        silent: 0,
        repeated: 0,
        went_back: 0,
        full: 0,
        below_level: 0,
        terms_over: 0,
    };

    /// Adds the counts of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.bad_length += other.bad_length;
        self.bad_checksum += other.bad_checksum;
        self.bad_type += other.bad_type;
        self.bad_payload += other.bad_payload;
        self.violations += other.violations;
        self.silent += other.silent;
        self.repeated += other.repeated;
        self.went_back += other.went_back;
        self.full += other.full;
        self.below_level += other.below_level;
        self.terms_over += other.terms_over;
    }
}
