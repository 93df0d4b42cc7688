//! What a session does beside when its line is secured by [`crate::transport::noise`].

use core::ops::Range;

use super::{BuffersError, Framing, Session};
use crate::time::Instant;
use crate::transport::cobs;
use crate::transport::noise::{
    Channel, HEAD_BYTES, Identity, Initiator, KEY_BYTES, Kind, OVERHEAD_BYTES, TAG_BYTES,
};
use crate::wire::CONTROL_FRAME_BYTES_MAX;

#[cfg(doc)]
use crate::driver::Turn;

/// How long the hub has for its answer, in milliseconds. Then the line counts as one that could not be
/// opened, and a new handshake is begun when it is time to dial again.
const ANSWER_MS: u64 = 5_000;

/// Where a line is on its way to keys.
#[expect(clippy::large_enum_variant, reason = "there is one in a session, and no heap")]
#[derive(Debug)]
enum Phase {
    Closed,
    /// The start packet is out, or about to be; the answer is due by then.
    Greeting {
        initiator: Initiator,
        until: Instant,
    },
    Open(Channel),
}

/// What came of a packet.
#[derive(Debug)]
enum Came {
    /// Nothing for the machine.
    Nothing,
    /// The line is open.
    Opened,
    /// The hub does not know the link.
    Lost,
    /// A frame, which stands here.
    Frame(Range<usize>),
}

/// One end of a secured line, the one that begins.
#[derive(Debug)]
pub(super) struct Secure<'a> {
    identity: &'a Identity,
    phase: Phase,
    /// Packets of earlier links and handshakes that were refused.
    refused: u32,
}

impl<'a> Secure<'a> {
    const fn new(identity: &'a Identity) -> Self {
        Self { identity, phase: Phase::Closed, refused: 0 }
    }

    /// Begins a handshake: writes its start packet to `out`, and answers its length.
    fn start(&mut self, now: Instant, random: [u8; KEY_BYTES], out: &mut [u8]) -> usize {
        self.close();
        let (initiator, bytes) = Initiator::start(self.identity, random, out);
        self.phase = Phase::Greeting { initiator, until: now.plus_millis(ANSWER_MS) };
        bytes
    }

    /// Forgets the keys.
    fn close(&mut self) {
        self.refused = self.refused();
        self.phase = Phase::Closed;
    }

    /// Until when the answer is waited for.
    const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Greeting { until, .. } => Some(until),
            Phase::Closed | Phase::Open(_) => None,
        }
    }

    /// Packets that were refused since the start.
    fn refused(&self) -> u32 {
        match &self.phase {
            Phase::Open(channel) => self.refused.saturating_add(channel.refused()),
            Phase::Closed | Phase::Greeting { .. } => self.refused,
        }
    }

    /// Takes a packet.
    fn take(&mut self, packet: &mut [u8]) -> Came {
        match &mut self.phase {
            Phase::Open(_) if Kind::of(packet) == Some(Kind::Unknown) => Came::Lost,
            Phase::Open(channel) => channel.open(packet).map_or(Came::Nothing, Came::Frame),
            // What is left over from an earlier link is no answer, and does no harm.
            Phase::Greeting { .. } if Kind::of(packet) != Some(Kind::Answer) => Came::Nothing,
            Phase::Greeting { initiator, .. } => match initiator.finish(packet) {
                Ok(channel) => {
                    self.phase = Phase::Open(channel);
                    Came::Opened
                }
                Err(_) => {
                    self.refused = self.refused.saturating_add(1);
                    Came::Nothing
                }
            },
            Phase::Closed => Came::Nothing,
        }
    }

    /// Makes a packet of a frame, as [`Channel::seal`] does. `None` when the link has to end.
    fn seal(&mut self, packet: &mut [u8], frame_bytes: usize) -> Option<usize> {
        match &mut self.phase {
            Phase::Open(channel) => channel.seal(packet, frame_bytes),
            Phase::Closed | Phase::Greeting { .. } => None,
        }
    }
}

impl<'a> Session<'a> {
    /// The same on a line of packets that only the hub can read: see [`crate::transport::noise`].
    /// [`Turn::Connect`] comes on it, also when the line is always there, and is answered by
    /// [`Self::secure`].
    ///
    /// # Errors
    /// A buffer is too short.
    ///
    /// # Panics
    /// The framing is not [`Framing::Cobs`].
    pub fn secured(mut self, identity: &'a Identity) -> Result<Self, BuffersError> {
        assert!(self.framing == Framing::Cobs, "packets are for links that may lose them");
        let frame = self.leaf.frame_bytes_max() as usize;
        let incoming = cobs::decode_buffer_bytes(frame + OVERHEAD_BYTES);
        if self.incoming.len() < incoming {
            return Err(BuffersError::Incoming(incoming));
        }
        let outgoing = CONTROL_FRAME_BYTES_MAX + OVERHEAD_BYTES;
        if self.outgoing.len() < outgoing {
            return Err(BuffersError::Outgoing(outgoing));
        }
        self.secure = Some(Secure::new(identity));
        Ok(self)
    }

    /// The line that was wanted is open: begins a handshake on it. `random` are 32 bytes that nobody can
    /// guess, fresh for each call. When no answer is there within 5 s, the machine dials again as it does when a
    /// line cannot be opened.
    ///
    /// # Panics
    /// The session is not [`Self::secured`].
    pub fn secure(&mut self, now: Instant, random: [u8; KEY_BYTES]) {
        let Some(secure) = &mut self.secure else { panic!("the session has no keys") };
        self.start_bytes = secure.start(now, random, self.outgoing);
        self.lead = true;
    }

    /// Packets on a secured line that were refused: replayed, changed, or made with another key.
    pub fn packets_refused(&self) -> u32 {
        self.secure.as_ref().map_or(0, Secure::refused)
    }

    pub(super) const fn is_secured(&self) -> bool {
        self.secure.is_some()
    }

    /// Where in `outgoing` frames stand.
    pub(super) fn frame_room(&self) -> Range<usize> {
        match self.is_secured() {
            true => HEAD_BYTES..self.outgoing.len() - TAG_BYTES,
            false => 0..self.outgoing.len(),
        }
    }

    /// Where in the packet of `len` bytes in `incoming` its frame stands, if it holds one.
    pub(super) fn unpack(&mut self, now: Instant, len: usize) -> Option<Range<usize>> {
        let Some(secure) = &mut self.secure else { return Some(0..len) };
        match secure.take(&mut self.incoming[..len]) {
            Came::Frame(frame) => return Some(frame),
            Came::Opened => self.connected(now),
            Came::Lost => self.disconnected(now),
            Came::Nothing => {}
        }
        None
    }

    /// Makes what goes out of the frame in `outgoing`; its length. `None` when the link has to end.
    pub(super) fn seal(&mut self, len: usize) -> Option<usize> {
        match &mut self.secure {
            Some(secure) => secure.seal(self.outgoing, len),
            None => Some(len),
        }
    }

    /// Makes a start packet what is to be written, if there is one.
    pub(super) fn write_start(&mut self) -> bool {
        let len = core::mem::take(&mut self.start_bytes);
        if len > 0 {
            self.write_packet(len);
        }
        len > 0
    }

    /// When the answer to a start packet is due, if one is; past that the line could not be opened.
    pub(super) fn answer_due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.secure.as_ref()?.deadline()?;
        if now >= due {
            self.disconnected(now);
            return None;
        }
        Some(due)
    }

    pub(super) fn forget_keys(&mut self) {
        self.start_bytes = 0;
        if let Some(secure) = &mut self.secure {
            secure.close();
        }
    }
}
