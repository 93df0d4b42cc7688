//! The hub's end of a line: one link, and perhaps the next.

use core::ops::Range;

use super::{Channel, Kind, Refused, Start, TAG_BYTES};

/// What came of a packet.
#[derive(Debug)]
pub enum Took<'a> {
    /// Somebody begins: find the key, make the answer with it, send it, and tell
    /// [`Responder::answered`].
    Start(Start<'a>),
    /// Who was answered last has shown that it is there: its link begins, with the frame that stands here. The
    /// link before it, if there was one, has ended.
    First(Range<usize>),
    /// A frame of the link, which stands here.
    Frame(Range<usize>),
    /// A packet of a link that is not known here. A [`Kind::Unknown`] packet would have the other end begin.
    Unknown,
    /// The packet is refused, and counted.
    Refused(Refused),
}

/// The hub's end of a line. A link goes on until who begins anew has shown that it has the keys: start
/// packets can be sent again by anybody, and end nothing.
#[derive(Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Responder {
    channel: Option<Channel>,
    /// Answered, and not heard of since.
    next: Option<Channel>,
    /// The end of the start packet that was answered last.
    answered: [u8; TAG_BYTES],
    refused: u32,
}

impl Responder {
    /// Takes a packet.
    pub fn take<'a>(&mut self, packet: &'a mut [u8]) -> Took<'a> {
        let took = match Kind::of(packet) {
            Some(Kind::Frame) => self.frame(packet),
            Some(Kind::StartShared | Kind::StartPinned) if packet.ends_with(&self.answered) => {
                Took::Refused(Refused::Replayed)
            }
            _ => Start::parse(packet).map_or_else(Took::Refused, Took::Start),
        };
        if matches!(took, Took::Refused(_)) {
            self.refused = self.refused.saturating_add(1);
        }
        took
    }

    fn frame<'a>(&mut self, packet: &mut [u8]) -> Took<'a> {
        // A packet that does not open is left as it is.
        if let Some(next) = &mut self.next
            && let Ok(frame) = next.open(packet)
        {
            self.channel = self.next.take();
            return Took::First(frame);
        }
        match &mut self.channel {
            Some(channel) => channel.open(packet).map_or_else(Took::Refused, Took::Frame),
            None if self.next.is_none() => Took::Unknown,
            None => Took::Refused(Refused::Forged),
        }
    }

    /// The start packet was answered: this channel is up once it is heard of.
    pub fn answered(&mut self, start: &Start<'_>, channel: Channel) {
        self.answered = start.end();
        self.next = Some(channel);
    }

    /// A start packet that is not to be answered, since nobody here knows its key.
    pub fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    /// Makes a packet of a frame of the link, as [`Channel::seal`] does; `None` also where no link is up.
    pub fn seal(&mut self, packet: &mut [u8], frame_bytes: usize) -> Option<usize> {
        self.channel.as_mut()?.seal(packet, frame_bytes)
    }

    /// How many packets were refused on this line.
    pub const fn refused(&self) -> u32 {
        self.refused
    }
}
