//! What each end of a line has, and what it makes of packets.

use core::ops::Range;

use replcore_core::transport::noise::{
    Channel, HANDSHAKE_BYTES_MAX, Identity, Initiator, KEY_BYTES, Kind, Refused, Responder, Start,
    Took,
};

use super::super::replcore_status;
use super::{
    REPLCORE_NOISE_FIRST, REPLCORE_NOISE_FORGED, REPLCORE_NOISE_FRAME, REPLCORE_NOISE_LOST,
    REPLCORE_NOISE_MALFORMED, REPLCORE_NOISE_REFUSED, REPLCORE_NOISE_REPLAYED,
    REPLCORE_NOISE_START, REPLCORE_NOISE_UNKNOWN, REPLCORE_NOISE_UP, replcore_noise_taken,
};

/// Where the name stands in a start packet that has one: behind kind, version and its length.
const NAME_AT: usize = 3;

pub(super) enum End {
    Begins(Begins),
    Answers(Answers),
}

/// The end that begins, and what of it was refused before.
pub(super) struct Begins {
    phase: Phase,
    refused: u32,
}

#[expect(clippy::large_enum_variant, reason = "there is one in a line, and no heap")]
enum Phase {
    Closed,
    Begun(Initiator),
    Open(Channel),
}

#[derive(Default)]
pub(super) struct Answers {
    responder: Responder,
    made: Option<Answer>,
}

/// An answer that was made, and does not count yet.
struct Answer {
    channel: Channel,
    start: [u8; HANDSHAKE_BYTES_MAX],
    start_bytes: usize,
}

impl End {
    pub(super) fn take(&mut self, packet: &mut [u8]) -> replcore_noise_taken {
        match self {
            Self::Begins(begins) => begins.take(packet),
            Self::Answers(answers) => answers.take(packet),
        }
    }

    pub(super) fn seal(&mut self, packet: &mut [u8], frame_bytes: usize) -> Option<usize> {
        match self {
            Self::Begins(Begins { phase: Phase::Open(channel), .. }) => {
                channel.seal(packet, frame_bytes)
            }
            Self::Begins(_) => None,
            Self::Answers(answers) => answers.responder.seal(packet, frame_bytes),
        }
    }

    pub(super) fn refused(&self) -> u32 {
        match self {
            Self::Begins(begins) => begins.refused(),
            Self::Answers(answers) => answers.responder.refused(),
        }
    }

    /// Forgets the link; what was dropped has cleared its keys.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Begins(begins) => begins.close(),
            Self::Answers(answers) => *answers = Answers::default(),
        }
    }
}

impl Begins {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Closed, refused: 0 }
    }

    pub(super) fn start(
        &mut self,
        identity: &Identity,
        random: [u8; KEY_BYTES],
        out: &mut [u8],
    ) -> usize {
        self.close();
        let (initiator, length) = Initiator::start(identity, random, out);
        self.phase = Phase::Begun(initiator);
        length
    }

    fn take(&mut self, packet: &mut [u8]) -> replcore_noise_taken {
        match &mut self.phase {
            Phase::Open(_) if Kind::of(packet) == Some(Kind::Unknown) => {
                of_kind(REPLCORE_NOISE_LOST)
            }
            Phase::Open(channel) => channel.open(packet).map_or_else(refused, frame),
            // What is left over from an earlier link is no answer, and does no harm.
            Phase::Begun(_) if Kind::of(packet) != Some(Kind::Answer) => {
                refused(Refused::Malformed)
            }
            Phase::Begun(initiator) => match initiator.finish(packet) {
                Ok(channel) => {
                    self.phase = Phase::Open(channel);
                    of_kind(REPLCORE_NOISE_UP)
                }
                Err(error) => {
                    self.refused = self.refused.saturating_add(1);
                    if error == Refused::Forged {
                        self.phase = Phase::Closed;
                    }
                    refused(error)
                }
            },
            Phase::Closed => refused(Refused::Malformed),
        }
    }

    fn refused(&self) -> u32 {
        match &self.phase {
            Phase::Open(channel) => self.refused.saturating_add(channel.refused()),
            Phase::Closed | Phase::Begun(_) => self.refused,
        }
    }

    fn close(&mut self) {
        self.refused = self.refused();
        self.phase = Phase::Closed;
    }
}

impl Answers {
    fn take(&mut self, packet: &mut [u8]) -> replcore_noise_taken {
        match self.responder.take(packet) {
            Took::Start(start) => {
                let name_bytes = start.name().map_or(0, |name| name.as_str().len());
                let at = if name_bytes == 0 { 0 } else { NAME_AT };
                replcore_noise_taken { at, len: name_bytes, ..of_kind(REPLCORE_NOISE_START) }
            }
            Took::First(place) => {
                replcore_noise_taken { kind: REPLCORE_NOISE_FIRST, ..frame(place) }
            }
            Took::Frame(place) => frame(place),
            Took::Unknown => of_kind(REPLCORE_NOISE_UNKNOWN),
            Took::Refused(why) => refused(why),
        }
    }

    /// Keeps an answer to the start packet until it counts.
    pub(super) fn made(&mut self, channel: Channel, packet: &[u8]) {
        let mut start = [0; HANDSHAKE_BYTES_MAX];
        start[..packet.len()].copy_from_slice(packet);
        self.made = Some(Answer { channel, start, start_bytes: packet.len() });
    }

    /// The answer that was made counts.
    pub(super) fn answered(&mut self) -> Result<(), replcore_status> {
        let answer = self.made.take().ok_or(replcore_status::Refused)?;
        let start = Start::parse(&answer.start[..answer.start_bytes])?;
        self.responder.answered(&start, answer.channel);
        Ok(())
    }

    pub(super) fn refuse(&mut self) {
        self.made = None;
        self.responder.refuse();
    }
}

fn of_kind(kind: u32) -> replcore_noise_taken {
    replcore_noise_taken { kind, ..Default::default() }
}

fn frame(place: Range<usize>) -> replcore_noise_taken {
    let (at, len) = (place.start, place.len());
    replcore_noise_taken { at, len, ..of_kind(REPLCORE_NOISE_FRAME) }
}

fn refused(why: Refused) -> replcore_noise_taken {
    let reason = match why {
        Refused::Forged => REPLCORE_NOISE_FORGED,
        Refused::Replayed => REPLCORE_NOISE_REPLAYED,
        _ => REPLCORE_NOISE_MALFORMED,
    };
    replcore_noise_taken { reason, ..of_kind(REPLCORE_NOISE_REFUSED) }
}

impl From<Refused> for replcore_status {
    fn from(why: Refused) -> Self {
        if why == Refused::Malformed { Self::Malformed } else { Self::Forged }
    }
}
