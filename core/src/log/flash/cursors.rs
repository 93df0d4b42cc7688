//! What is durable beside the records: how far queues were acknowledged and taken.

use super::{APPLICATION_BYTES_MAX, FlashError, PLACES_MAX};
use crate::log::{crc32c, record, u32_at, u64_at};
use crate::stream::{Epoch, Life, NodeId, Position, QueueId, StreamKey};

/// The kind of the one entry in a batch of the cursor log.
const KIND: u8 = 2;
const FIXED_BYTES: usize = 48 + LIVES_MAX * LIFE_BYTES;
const LIFE_BYTES: usize = 12;
/// Earlier lives that the log remembers while it holds something of them.
pub(super) const LIVES_MAX: usize = 3;
const PLACE_BYTES: usize = 32;
/// Most bytes of the entries of one batch.
pub(super) const CURSORS_BYTES_MAX: usize =
    record::ENTRY_HEADER_BYTES + FIXED_BYTES + PLACES_MAX * PLACE_BYTES + APPLICATION_BYTES_MAX;

/// How far an incoming stream was taken. Flat, since there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Place {
    owner: NodeId,
    queue: QueueId,
    next: Position,
    epoch: Epoch,
    class: u8,
}

impl Place {
    const NONE: Self = Self {
        owner: NodeId::NONE,
        queue: QueueId(0),
        next: Position(0),
        epoch: Epoch(0),
        class: 0,
    };

    fn is_of(&self, stream: &StreamKey) -> bool {
        let StreamKey { owner, queue, .. } = *stream;
        (self.owner, self.queue, self.class) == (owner, queue.queue, queue.class)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Cursors {
    /// Drawn when the log was made.
    pub(super) instance: u64,
    /// The life of the log.
    pub(super) epoch: u32,
    /// The ordinal of the first record of this life, which has the number 1 in it.
    pub(super) base: u64,
    /// Records with lower ordinals are acknowledged.
    pub(super) released: u64,
    /// Records with lower ordinals were dropped, if not acknowledged.
    pub(super) kept: u64,
    /// Earlier lives of which something is wanted.
    pub(super) lives: [Life; LIVES_MAX],
    places: [Place; PLACES_MAX],
    places_used: u8,
    application: [u8; APPLICATION_BYTES_MAX],
    application_bytes: u8,
}

/// What a change of the cursors comes to; on error nothing was written.
pub(super) type Changed = Result<(), FlashError>;

impl Cursors {
    pub(super) const fn new(instance: u64, epoch: u32) -> Self {
        Self {
            instance,
            epoch,
            base: 0,
            released: 0,
            kept: 0,
            lives: [Life { epoch: Epoch(0), end: Position(0) }; LIVES_MAX],
            places: [Place::NONE; PLACES_MAX],
            places_used: 0,
            application: [0; APPLICATION_BYTES_MAX],
            application_bytes: 0,
        }
    }

    /// Records with lower ordinals are not wanted any more.
    pub(super) const fn gone(&self) -> u64 {
        if self.released > self.kept { self.released } else { self.kept }
    }

    pub(super) fn application(&self) -> &[u8] {
        &self.application[..usize::from(self.application_bytes)]
    }

    pub(super) fn set_application(&mut self, bytes: &[u8]) -> Result<(), FlashError> {
        let place = self.application.get_mut(..bytes.len()).ok_or(FlashError::TooLong)?;
        place.copy_from_slice(bytes);
        self.application_bytes = bytes.len() as u8;
        Ok(())
    }

    fn used(&self) -> &[Place] {
        &self.places[..usize::from(self.places_used)]
    }

    /// The epoch and place in which a stream of that owner, queue and class was taken.
    pub(super) fn place(&self, stream: &StreamKey) -> Option<(Epoch, Position)> {
        let place = self.used().iter().find(|place| place.is_of(stream))?;
        Some((place.epoch, place.next))
    }

    /// Sets the place of a stream. The places of another owner give way when there is no room: a
    /// leaf has one hub at a time.
    pub(super) fn set_place(
        &mut self,
        stream: &StreamKey,
        next: Position,
    ) -> Result<(), FlashError> {
        let used = self.used();
        let index = match used.iter().position(|place| place.is_of(stream)) {
            Some(index) => index,
            None if used.len() < PLACES_MAX => used.len(),
            None => used
                .iter()
                .position(|place| place.owner != stream.owner)
                .ok_or(FlashError::TooManyStreams)?,
        };
        let StreamKey { owner, queue, epoch } = *stream;
        self.places[index] = Place { owner, queue: queue.queue, class: queue.class, epoch, next };
        self.places_used = self.places_used.max(index as u8 + 1);
        Ok(())
    }

    /// Writes what `change` makes of them as the entry of a batch and returns its length. Not a part
    /// of the caller, whose stack would hold the copy while it writes to the flash.
    #[inline(never)]
    pub(super) fn encode_changed(
        &self,
        change: &dyn Fn(&mut Self) -> Changed,
        out: &mut [u8; CURSORS_BYTES_MAX],
    ) -> Result<usize, FlashError> {
        let mut changed = *self;
        change(&mut changed)?;
        Ok(changed.encode(out))
    }

    /// Writes them as the entry of a batch and returns its length.
    fn encode(&self, out: &mut [u8; CURSORS_BYTES_MAX]) -> usize {
        let payload = &mut out[record::ENTRY_HEADER_BYTES..];
        payload[..FIXED_BYTES].fill(0);
        payload[0..8].copy_from_slice(&self.instance.to_le_bytes());
        payload[8..16].copy_from_slice(&self.base.to_le_bytes());
        payload[16..24].copy_from_slice(&self.released.to_le_bytes());
        payload[24..32].copy_from_slice(&self.kept.to_le_bytes());
        payload[32..36].copy_from_slice(&self.epoch.to_le_bytes());
        payload[36] = self.places_used;
        payload[37] = self.application_bytes;
        for (life, out) in self.lives.iter().zip(payload[48..].chunks_exact_mut(LIFE_BYTES)) {
            out[..8].copy_from_slice(&life.end.0.to_le_bytes());
            out[8..].copy_from_slice(&life.epoch.0.to_le_bytes());
        }
        let mut at = FIXED_BYTES;
        for place in self.used() {
            let out = &mut payload[at..at + PLACE_BYTES];
            out[0..8].copy_from_slice(&place.owner.0.to_le_bytes());
            out[8..16].copy_from_slice(&place.queue.0.to_le_bytes());
            out[16..24].copy_from_slice(&place.next.0.to_le_bytes());
            out[24..28].copy_from_slice(&place.epoch.0.to_le_bytes());
            out[28..].copy_from_slice(&[place.class, 0, 0, 0]);
            at += PLACE_BYTES;
        }
        payload[at..at + self.application().len()].copy_from_slice(self.application());
        at += self.application().len();
        let length = record::ENTRY_HEADER_BYTES + at;
        record::finish_entry(KIND, &mut out[..length], crc32c);
        length
    }

    /// Takes them from the entry of a batch. Whether it is one of these; else nothing has changed.
    pub(super) fn decode(&mut self, entry: &[u8]) -> bool {
        let Some((head, payload)) = entry.split_first_chunk::<{ record::ENTRY_HEADER_BYTES }>()
        else {
            return false;
        };
        let Some((fixed, rest)) = payload.split_first_chunk::<FIXED_BYTES>() else {
            return false;
        };
        let (places_used, application_bytes) = (usize::from(fixed[36]), usize::from(fixed[37]));
        if head[8] != KIND
            || places_used > PLACES_MAX
            || application_bytes > APPLICATION_BYTES_MAX
            || rest.len() != places_used * PLACE_BYTES + application_bytes
        {
            return false;
        }
        self.instance = u64_at(fixed, 0);
        self.base = u64_at(fixed, 8);
        self.released = u64_at(fixed, 16);
        self.kept = u64_at(fixed, 24);
        self.epoch = u32_at(fixed, 32);
        for (life, bytes) in self.lives.iter_mut().zip(fixed[48..].chunks_exact(LIFE_BYTES)) {
            *life = Life { end: Position(u64_at(bytes, 0)), epoch: Epoch(u32_at(bytes, 8)) };
        }
        let (places, application) = rest.split_at(places_used * PLACE_BYTES);
        for (place, bytes) in self.places.iter_mut().zip(places.chunks_exact(PLACE_BYTES)) {
            *place = Place {
                owner: NodeId(u64_at(bytes, 0)),
                queue: QueueId(u64_at(bytes, 8)),
                next: Position(u64_at(bytes, 16)),
                epoch: Epoch(u32_at(bytes, 24)),
                class: bytes[28],
            };
        }
        self.places_used = places_used as u8;
        self.application[..application_bytes].copy_from_slice(application);
        self.application_bytes = application_bytes as u8;
        true
    }
}
