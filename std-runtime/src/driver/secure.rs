//! One end of a line with keys.

use std::ops::Range;
use std::time::{Duration, Instant};

use replcore::stream::Name;
use replcore::transport::noise::{
    Channel, HANDSHAKE_BYTES_MAX, Identity, Initiator, Kind, Refused, Responder, Start, Took,
};

use super::count;
use crate::noise::{Noise, keys};

/// An answer is work on the node's thread, and whoever has heard start packets can send them again: so no more than
/// one is answered on a line in this time. A leaf that is not answered waits for longer.
const ANSWER_PERIOD: Duration = Duration::from_millis(50);

/// What came of a packet.
#[derive(Debug)]
pub(super) enum Came {
    /// Nothing.
    Nothing,
    /// This is to be written.
    Answer(Vec<u8>),
    /// A link begins, with this node at the other end; and perhaps its first frame.
    Link(Name, Option<Range<usize>>),
    /// A frame of the link.
    Frame(Range<usize>),
}

/// The end that begins, or the one that answers.
#[derive(Debug)]
pub(super) struct Secure {
    noise: Noise,
    end: End,
}

#[derive(Debug)]
enum End {
    Answers(Box<Answers>),
    /// Begun, with this hub.
    Begins(Box<Initiator>, Name),
    Open(Box<Channel>),
}

#[derive(Debug, Default)]
struct Answers {
    responder: Responder,
    /// Who was answered last.
    next: Option<Name>,
    answered_at: Option<Instant>,
    up: bool,
    /// The other end was told that its link is not known.
    told: bool,
}

impl Secure {
    pub(super) fn answering(noise: &Noise) -> Self {
        Self { noise: noise.clone(), end: End::Answers(Box::default()) }
    }

    /// Begins a handshake; the start packet too.
    ///
    /// # Errors
    /// There is no key for it.
    pub(super) fn beginning(
        noise: &Noise,
        own: Name,
        hub: Name,
    ) -> Result<(Self, Vec<u8>), String> {
        let identity: Identity = noise.identity(own, hub)?;
        let mut start = vec![0; HANDSHAKE_BYTES_MAX];
        let (initiator, bytes) = Initiator::start(&identity, keys::random()?, &mut start);
        start.truncate(bytes);
        Ok((Self { noise: noise.clone(), end: End::Begins(Box::new(initiator), hub) }, start))
    }

    /// Takes a packet.
    ///
    /// # Errors
    /// Why the line cannot be used, in one line without a secret.
    pub(super) fn take(&mut self, packet: &mut [u8]) -> Result<Came, String> {
        let counters = self.noise.counters();
        let refused = || {
            count(&counters.packets_refused, 1);
            Ok(Came::Nothing)
        };
        match &mut self.end {
            End::Answers(answers) => answers.take(&self.noise, packet),
            End::Begins(initiator, hub) => match initiator.finish(packet) {
                Ok(channel) => {
                    let hub = *hub;
                    count(&counters.links, 1);
                    self.end = End::Open(Box::new(channel));
                    Ok(Came::Link(hub, None))
                }
                // Left over from an earlier link.
                Err(Refused::Malformed) => refused(),
                Err(_) => {
                    count(&counters.strangers, 1);
                    Err(format!("{hub} has another key than the one here; compare both ends"))
                }
            },
            End::Open(_) if Kind::of(packet) == Some(Kind::Unknown) => {
                Err("the other end does not know the keys of this link any more".into())
            }
            End::Open(channel) => {
                channel.open(packet).map_or_else(|_| refused(), |it| Ok(Came::Frame(it)))
            }
        }
    }

    /// Makes a packet of the frame that stands behind its head.
    ///
    /// # Errors
    /// The keys of the link are used up.
    pub(super) fn seal(&mut self, packet: &mut [u8], frame_bytes: usize) -> Result<(), String> {
        let sealed = match &mut self.end {
            End::Answers(answers) => answers.responder.seal(packet, frame_bytes),
            End::Open(channel) => channel.seal(packet, frame_bytes),
            End::Begins(..) => None,
        };
        sealed
            .map(drop)
            .ok_or_else(|| "the keys of this link are used up; the next has new ones".into())
    }
}

impl Answers {
    fn take(&mut self, noise: &Noise, packet: &mut [u8]) -> Result<Came, String> {
        let counters = noise.counters();
        match self.responder.take(packet) {
            Took::Start(start) => self.start(noise, &start),
            Took::First(frame) => {
                count(&counters.links, 1);
                self.up = true;
                let name = self.next.take().ok_or("a link of nobody")?;
                Ok(Came::Link(name, Some(frame)))
            }
            Took::Frame(frame) => Ok(Came::Frame(frame)),
            Took::Unknown if !std::mem::replace(&mut self.told, true) => {
                Ok(Came::Answer(vec![Kind::Unknown.byte()]))
            }
            Took::Unknown | Took::Refused(Refused::Forged | Refused::Replayed) => {
                count(&counters.packets_refused, 1);
                Ok(Came::Nothing)
            }
            Took::Refused(refused) => {
                count(&counters.packets_refused, 1);
                match self.up {
                    true => Ok(Came::Nothing),
                    false => Err(format!("{refused}; is the other end set up for Noise?")),
                }
            }
        }
    }

    fn start(&mut self, noise: &Noise, start: &Start<'_>) -> Result<Came, String> {
        if self.answered_at.is_some_and(|at| at.elapsed() < ANSWER_PERIOD) {
            self.responder.refuse();
            count(&noise.counters().packets_refused, 1);
            return Ok(Came::Nothing);
        }
        self.answered_at = Some(Instant::now());
        let mut out = vec![0; HANDSHAKE_BYTES_MAX];
        match noise.answer(start, &mut out) {
            Ok((channel, name, bytes)) => {
                self.responder.answered(start, channel);
                self.next = Some(name);
                out.truncate(bytes);
                Ok(Came::Answer(out))
            }
            Err(error) => {
                self.responder.refuse();
                count(&noise.counters().strangers, 1);
                // A link that is up is not ended by who has not its keys.
                if self.up { Ok(Came::Nothing) } else { Err(error) }
            }
        }
    }
}
