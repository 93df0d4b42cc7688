//! Frames in packets, once both ends have the keys.

use core::fmt;

use clatter::cipherstate::CipherState;
use clatter::crypto::cipher::ChaChaPoly;

use super::{HEAD_BYTES, Kind, OVERHEAD_BYTES, Refused, TAG_BYTES};

/// The keys of a link, one for each way, and how far its packets have counted.
pub struct Channel {
    seals: CipherState<ChaChaPoly>,
    opens: CipherState<ChaChaPoly>,
    /// The counter of the next packet; none left when it is past the last of 32 bits.
    next: u64,
    /// The least counter that is taken.
    due: u64,
    refused: u32,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("next", &self.next).field("due", &self.due).finish()
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Channel {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Channel {{ next: {}, due: {} }}", self.next, self.due);
    }
}

impl Channel {
    pub(super) fn new(seals: CipherState<ChaChaPoly>, opens: CipherState<ChaChaPoly>) -> Self {
        Self { seals, opens, next: 0, due: 0, refused: 0 }
    }

    /// Makes a packet of the frame of `frame_bytes` that stands in `packet` behind [`HEAD_BYTES`], and
    /// answers how many bytes it has. `None`, and the frame stays readable, when the link has sent 2^32 packets:
    /// its keys are used up, and it has to end.
    ///
    /// # Panics
    /// `packet` has no room for the frame and [`OVERHEAD_BYTES`].
    pub fn seal(&mut self, packet: &mut [u8], frame_bytes: usize) -> Option<usize> {
        let counter = u32::try_from(self.next).ok()?;
        let packet = &mut packet[..frame_bytes + OVERHEAD_BYTES];
        let (head, body) = packet.split_at_mut(HEAD_BYTES);
        head[0] = Kind::Frame.byte();
        head[1..].copy_from_slice(&counter.to_le_bytes());
        self.seals.set_nonce(self.next);
        self.seals.encrypt_with_ad_in_place(&[], body, frame_bytes).ok()?;
        self.next += 1;
        Some(packet.len())
    }

    /// Takes a packet, and answers where in it the frame stands.
    ///
    /// # Errors
    /// It is refused, and counted; what is in `packet` is of no use.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<core::ops::Range<usize>, Refused> {
        let opened = self.try_open(packet);
        if opened.is_err() {
            self.refused = self.refused.saturating_add(1);
        }
        opened
    }

    fn try_open(&mut self, packet: &mut [u8]) -> Result<core::ops::Range<usize>, Refused> {
        if Kind::of(packet) != Some(Kind::Frame) || packet.len() < OVERHEAD_BYTES {
            return Err(Refused::Malformed);
        }
        let counter = u64::from(crate::log::u32_at(packet, 1));
        if counter < self.due {
            return Err(Refused::Replayed);
        }
        let body = &mut packet[HEAD_BYTES..];
        let bytes = body.len();
        self.opens.set_nonce(counter);
        let opened = self.opens.decrypt_with_ad_in_place(&[], body, bytes);
        opened.map_err(|_| Refused::Forged)?;
        self.due = counter + 1;
        Ok(HEAD_BYTES..packet.len() - TAG_BYTES)
    }

    /// Whether a packet has been opened, so that the other end is known to have the keys now.
    pub const fn is_confirmed(&self) -> bool {
        self.due > 0
    }

    /// How many packets were refused.
    pub const fn refused(&self) -> u32 {
        self.refused
    }

    #[cfg(test)]
    pub(super) fn set_next(&mut self, next: u64) {
        self.next = next;
    }
}
