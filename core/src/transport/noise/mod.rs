//! Links without TLS that only two ends can read and write: the Noise protocol framework (Perrin,
//! revision 34) with X25519, ChaCha20-Poly1305 and BLAKE2s.
//!
//! ```text
//! leaf                                      hub
//! Initiator::start   --- start packet --->  Responder::take, then Start::answer_shared or answer_pinned
//! Initiator::finish  <-- answer packet ---
//! Channel::seal      --- frame packet --->  Responder::take: the link is up
//! Channel::open      <-- frame packet ----  Responder::seal
//! ```
//!
//! The end that begins, the leaf, shows who it is in one of two ways ([`Identity`]): by a key that it
//! shares with the hub (`NNpsk0`), or by a key pair of its own, when it also knows the hub by the hub's
//! public key (`IK`). Either way each link has keys of its own, of which nothing is left when it ends.
//!
//! A packet holds one frame and counts up. One that is not later than the last, or was changed, is refused,
//! counted and passed over. One that is lost is no fault: these packets are for links that may lose
//! frames, under [`super::cobs`]. There is no window for packets out of order.
//!
//! A start packet may be an old one that somebody sends again. So the hub takes nobody to be there before
//! it has opened a frame packet, and keeps the link that it has until then ([`Responder`]).
//!
//! Nothing here draws randomness: the caller hands in 32 fresh random bytes for each handshake. Bytes that
//! others can guess, or that were used before, give the link away. Keys are cleared from memory when they
//! are dropped, and are not shown by `Debug`.

mod channel;
mod crypto;
mod handshake;
mod responder;

pub use channel::Channel;
pub use crypto::{KEY_BYTES, PublicKey, SecretKey};
pub use handshake::{HANDSHAKE_BYTES_MAX, Identity, Initiator, Start};
pub use responder::{Responder, Took};

/// The version of these packets, in each start packet. It is not that of the frames within.
pub const VERSION: u8 = 1;

/// Bytes of a packet before its frame: the kind, and the counter.
pub const HEAD_BYTES: usize = 5;
/// Bytes of a packet behind its frame: the authentication tag.
pub const TAG_BYTES: usize = 16;
/// Bytes that a packet has beside its frame.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// What the first byte of a packet says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Kind {
    /// Begins a handshake, with a name and the key that is shared with it.
    StartShared,
    /// Begins a handshake, with a key pair and the hub's public key.
    StartPinned,
    /// The hub's part of the handshake.
    Answer,
    /// A frame.
    Frame,
    /// The hub does not know the link of a packet: begin a handshake. Whoever reaches the line can make
    /// this one, as they can cut the line.
    Unknown,
}

impl Kind {
    /// What `packet` says that it is; `None` when it is nothing of this version.
    pub fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? {
            1 => Some(Self::StartShared),
            2 => Some(Self::StartPinned),
            3 => Some(Self::Answer),
            4 => Some(Self::Frame),
            5 => Some(Self::Unknown),
            _ => None,
        }
    }

    /// The first byte of such a packet; all of it of [`Self::Unknown`].
    pub const fn byte(self) -> u8 {
        match self {
            Self::StartShared => 1,
            Self::StartPinned => 2,
            Self::Answer => 3,
            Self::Frame => 4,
            Self::Unknown => 5,
        }
    }
}

/// Why a packet is refused. Nothing has changed but counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Refused {
    /// It is no packet of the kind that is due, or of another version, or too short.
    Malformed,
    /// It was made with another key, or was changed under way.
    Forged,
    /// It was there before, or a later one was.
    Replayed,
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a Noise packet that is due here",
            Self::Forged => "made with another key, or changed under way",
            Self::Replayed => "replayed, or out of order",
        })
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests;
