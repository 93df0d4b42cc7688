//! Two packets, after which both ends have keys.

use core::fmt;

use clatter::crypto::cipher::ChaChaPoly;
use clatter::crypto::hash::Blake2s;
use clatter::handshakepattern::{noise_ik, noise_nn_psk0};
use clatter::{Handshaker, NqHandshakeCore};

use super::crypto::{KEY_BYTES, NoRandomness, PublicKey, SecretKey, X25519};
use super::{Channel, Kind, Refused, TAG_BYTES, VERSION};
use crate::stream::{NAME_BYTES_MAX, Name};

type Noise = NqHandshakeCore<X25519, ChaChaPoly, Blake2s, NoRandomness>;

/// What both ends mix into the handshake before the clear part of the start packet.
const PROLOGUE: &[u8] = b"replcore";
/// Of a start packet: kind, version, bytes of the name.
const SHARED_HEAD_BYTES: usize = 3;
/// Of a start packet: kind, version.
const PINNED_HEAD_BYTES: usize = 2;
/// An ephemeral key and a tag.
const MESSAGE_BYTES: usize = KEY_BYTES + TAG_BYTES;
/// That, and a sealed key.
const PINNED_MESSAGE_BYTES: usize = MESSAGE_BYTES + KEY_BYTES + TAG_BYTES;
const ANSWER_BYTES: usize = 1 + MESSAGE_BYTES;

/// The longest packet of a handshake.
pub const HANDSHAKE_BYTES_MAX: usize = SHARED_HEAD_BYTES + NAME_BYTES_MAX + MESSAGE_BYTES;

/// How the end that begins shows who it is, and knows the other.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Identity {
    /// By a key that only the two ends have. The least to set up; whoever reads it at either end can pass for
    /// both. The name travels in the clear.
    Shared {
        /// The own name.
        name: Name,
        /// The key that is shared with the hub.
        key: SecretKey,
    },
    /// By the own key pair, whose public half the hub has listed; what the hub keeps gives nobody away.
    /// Nothing that tells who speaks travels in the clear.
    Pinned {
        /// The private half of the own pair.
        own: SecretKey,
        /// The hub's public half.
        hub: PublicKey,
    },
}

/// The end that begins, after its start packet.
pub struct Initiator(Noise);

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator")
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Initiator {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Initiator");
    }
}

impl Initiator {
    /// Begins a handshake: writes the start packet to `out` and answers how many bytes it has. `random`
    /// are 32 bytes that nobody can guess, for this handshake alone.
    ///
    /// # Panics
    /// `out` has less than [`HANDSHAKE_BYTES_MAX`] bytes.
    pub fn start(identity: &Identity, random: [u8; KEY_BYTES], out: &mut [u8]) -> (Self, usize) {
        let ephemeral = SecretKey::new(random);
        let (head_bytes, bytes) = match identity {
            Identity::Shared { name, .. } => {
                let name = name.as_str().as_bytes();
                out[..SHARED_HEAD_BYTES].copy_from_slice(&[
                    Kind::StartShared.byte(),
                    VERSION,
                    name.len() as u8,
                ]);
                let head_bytes = SHARED_HEAD_BYTES + name.len();
                out[SHARED_HEAD_BYTES..head_bytes].copy_from_slice(name);
                (head_bytes, head_bytes + MESSAGE_BYTES)
            }
            Identity::Pinned { .. } => {
                out[..PINNED_HEAD_BYTES].copy_from_slice(&[Kind::StartPinned.byte(), VERSION]);
                (PINNED_HEAD_BYTES, PINNED_HEAD_BYTES + PINNED_MESSAGE_BYTES)
            }
        };
        let (head, message) = out[..bytes].split_at_mut(head_bytes);
        let mut noise = match identity {
            Identity::Shared { key, .. } => shared(true, head, key, &ephemeral),
            Identity::Pinned { own, hub } => pinned(true, head, own, &ephemeral, Some(*hub)),
        };
        let written = noise.write_message(&[], message);
        assert_eq!(written.ok(), Some(message.len()), "the pattern and its lengths do not agree");
        (Self(noise), bytes)
    }

    /// Takes the answer packet; the channel is up.
    ///
    /// # Errors
    /// [`Refused::Malformed`] and nothing has changed, or [`Refused::Forged`] and the handshake has to be begun
    /// anew: the hub has another key, or the answer is one to another start packet.
    pub fn finish(&mut self, packet: &[u8]) -> Result<Channel, Refused> {
        if Kind::of(packet) != Some(Kind::Answer) || packet.len() != ANSWER_BYTES {
            return Err(Refused::Malformed);
        }
        self.0.read_message(&packet[1..], &mut []).map_err(|_| Refused::Forged)?;
        let ciphers = self.0.get_state().split().map_err(|_| Refused::Forged)?;
        Ok(Channel::new(ciphers.initiator_to_responder, ciphers.responder_to_initiator))
    }
}

/// A start packet, read and not yet believed.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Start<'a> {
    name: Option<Name>,
    head: &'a [u8],
    message: &'a [u8],
}

impl<'a> Start<'a> {
    /// Reads a start packet.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Refused> {
        let (name, head_bytes, message_bytes) = match Kind::of(packet) {
            Some(Kind::StartShared) => {
                let name_bytes = usize::from(*packet.get(2).ok_or(Refused::Malformed)?);
                let head_bytes = SHARED_HEAD_BYTES + name_bytes;
                let name = packet.get(SHARED_HEAD_BYTES..head_bytes).ok_or(Refused::Malformed)?;
                let name = core::str::from_utf8(name).map_err(|_| Refused::Malformed)?;
                let name = Name::new(name).map_err(|_| Refused::Malformed)?;
                (Some(name), head_bytes, MESSAGE_BYTES)
            }
            Some(Kind::StartPinned) => (None, PINNED_HEAD_BYTES, PINNED_MESSAGE_BYTES),
            _ => return Err(Refused::Malformed),
        };
        if packet.len() != head_bytes + message_bytes || packet[1] != VERSION {
            return Err(Refused::Malformed);
        }
        let (head, message) = packet.split_at(head_bytes);
        Ok(Self { name, head, message })
    }

    /// Who says that it speaks: whose shared key is to be given to [`Self::answer_shared`]. `None` for one that
    /// [`Self::answer_pinned`] is for.
    pub const fn name(&self) -> Option<Name> {
        self.name
    }

    /// The end of the packet, which no other start packet has.
    pub(super) fn end(&self) -> [u8; TAG_BYTES] {
        *self.message.last_chunk().expect("a message ends with a tag")
    }

    /// Checks that the other end has the key, and writes the answer packet to `out`; the channel, and how many
    /// bytes the answer has. `random` as in [`Initiator::start`].
    ///
    /// # Errors
    /// [`Refused::Forged`], or [`Refused::Malformed`] when the start packet is of the other kind.
    ///
    /// # Panics
    /// `out` has less than [`HANDSHAKE_BYTES_MAX`] bytes.
    pub fn answer_shared(
        &self,
        key: &SecretKey,
        random: [u8; KEY_BYTES],
        out: &mut [u8],
    ) -> Result<(Channel, usize), Refused> {
        self.name.ok_or(Refused::Malformed)?;
        let mut noise = shared(false, self.head, key, &SecretKey::new(random));
        noise.read_message(self.message, &mut []).map_err(|_| Refused::Forged)?;
        answer(noise, out)
    }

    /// Checks that the other end knows this one's key and has the pair that it shows, and writes the answer
    /// packet to `out`; the channel, the other end's public key, which the caller has to know, and how many bytes
    /// the answer has. `random` as in [`Initiator::start`].
    ///
    /// # Errors
    /// [`Refused::Forged`], or [`Refused::Malformed`] when the start packet is of the other kind.
    ///
    /// # Panics
    /// `out` has less than [`HANDSHAKE_BYTES_MAX`] bytes.
    pub fn answer_pinned(
        &self,
        own: &SecretKey,
        random: [u8; KEY_BYTES],
        out: &mut [u8],
    ) -> Result<(Channel, PublicKey, usize), Refused> {
        if self.name.is_some() {
            return Err(Refused::Malformed);
        }
        let mut noise = pinned(false, self.head, own, &SecretKey::new(random), None);
        noise.read_message(self.message, &mut []).map_err(|_| Refused::Forged)?;
        let who = PublicKey(noise.get_remote_static().ok_or(Refused::Forged)?);
        let (channel, bytes) = answer(noise, out)?;
        Ok((channel, who, bytes))
    }
}

fn answer(mut noise: Noise, out: &mut [u8]) -> Result<(Channel, usize), Refused> {
    let out = &mut out[..ANSWER_BYTES];
    out[0] = Kind::Answer.byte();
    let written = noise.write_message(&[], &mut out[1..]);
    assert_eq!(written.ok(), Some(MESSAGE_BYTES), "the pattern and its lengths do not agree");
    let ciphers = noise.get_state().split().map_err(|_| Refused::Forged)?;
    let channel = Channel::new(ciphers.responder_to_initiator, ciphers.initiator_to_responder);
    Ok((channel, ANSWER_BYTES))
}

/// `NNpsk0`: whoever takes part has the key.
fn shared(begins: bool, head: &[u8], key: &SecretKey, ephemeral: &SecretKey) -> Noise {
    begin(noise_nn_psk0(), begins, head, None, ephemeral, None, Some(key))
}

/// `IK`: the one that begins knows the other's public key, and sends its own.
fn pinned(
    begins: bool,
    head: &[u8],
    own: &SecretKey,
    ephemeral: &SecretKey,
    hub: Option<PublicKey>,
) -> Noise {
    begin(noise_ik(), begins, head, Some(own), ephemeral, hub, None)
}

fn begin(
    pattern: clatter::handshakepattern::HandshakePattern,
    begins: bool,
    head: &[u8],
    own: Option<&SecretKey>,
    ephemeral: &SecretKey,
    hub: Option<PublicKey>,
    key: Option<&SecretKey>,
) -> Noise {
    let mut prologue = [0; PROLOGUE.len() + SHARED_HEAD_BYTES + NAME_BYTES_MAX];
    let bytes = PROLOGUE.len() + head.len();
    prologue[..PROLOGUE.len()].copy_from_slice(PROLOGUE);
    prologue[PROLOGUE.len()..bytes].copy_from_slice(head);
    let own = own.map(SecretKey::pair);
    let noise = Noise::new(
        pattern,
        &prologue[..bytes],
        begins,
        own,
        Some(ephemeral.pair()),
        hub.map(|key| key.0),
        None,
    );
    // Both patterns are of Diffie and Hellman's kind, and have the keys that they take.
    let Ok(mut noise) = noise else { unreachable!("the patterns are constants") };
    if let Some(key) = key {
        noise.push_psk(key.as_bytes());
    }
    noise
}
