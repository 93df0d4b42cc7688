//! Lives of the log: each start of a node begins one, so that no number is ever given twice, not
//! even by a log that was set back to an older copy.

use replcore::contract::Failure;
use replcore::stream::{CLASSES, Epoch, Life, Position, QueueKey, place_after};

use super::disk::Disk;
use super::embedded::SegmentStore;
use super::note::{NOTE_BYTES_MAX, Note};
use super::queues::Lane;

/// Earlier lives that one class of a queue remembers while it holds something of them.
const LIVES_MAX: usize = 16;

impl Lane {
    /// A life of the log ends.
    fn end_life(&mut self, epoch: Epoch) {
        self.sent = self.released;
        self.forget_lives();
        if self.next <= self.released {
            return;
        }
        if self.lives.len() >= LIVES_MAX {
            // A reader is in the life of its last acknowledgement, the oldest, or in a late one.
            self.lives.remove(LIVES_MAX / 2);
        }
        self.lives.push(Life { epoch, end: Position(self.next) });
    }

    /// Forgets lives of which everything is acknowledged.
    pub(super) fn forget_lives(&mut self) {
        let released = Position(self.released);
        self.lives.retain(|life| life.end > released);
    }
}

impl<D: Disk> SegmentStore<D> {
    /// Begins a new life of the log, and makes that durable: before, nothing may be said of it.
    pub(super) fn begin_life(&mut self, random: u64) -> Result<(), Failure> {
        let before = later(self.log.identity.epoch, self.epoch_seen);
        self.enter_life(before.next(random));
        self.life_due = true;
        match self.reserve(0, 0, 1) {
            Ok(()) => {
                self.close_batch()?;
                self.commit_pending()?;
                // Also where nothing else waits for the disk.
                self.log.sync_all().map_err(|_| Failure::Io)
            }
            // It goes before the first thing that is written.
            Err(Failure::Full) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// From here on the log is in the life `epoch`.
    pub(super) fn enter_life(&mut self, epoch: Epoch) {
        let old = self.log.identity.epoch;
        if old == epoch {
            return;
        }
        for (_, queue) in self.queues.iter_mut() {
            queue.lanes.iter_mut().for_each(|lane| lane.end_life(old));
        }
        let own = self.log.identity.name.node_id();
        for class in 0..CLASSES {
            let next = std::mem::replace(&mut self.own_seqs[class], 1);
            if next > 1 {
                let known = self.origin((own, old, class as u8));
                known.ranges = replcore::stream::Ranges::new();
                known.ranges.insert_restored(1, next - 1);
            }
        }
        self.log.identity.epoch = epoch;
    }

    /// The note of a life that has just begun and is not in the log yet.
    pub(super) fn take_life_note(&mut self) -> Option<Note> {
        let epoch = self.log.identity.epoch.0;
        std::mem::take(&mut self.life_due).then_some(Note::Life { epoch })
    }

    /// Bytes that [`SegmentStore::take_life_note`] may take in the next batch.
    pub(super) const fn life_bytes(&self) -> usize {
        if self.life_due { NOTE_BYTES_MAX } else { 0 }
    }

    /// Where a reader goes on that was `position` far in the life `epoch`, or in a log that is gone.
    pub(super) fn place_reader(
        &mut self,
        queue: QueueKey,
        epoch: Epoch,
        position: Position,
    ) -> Position {
        let present = self.log.identity.epoch;
        let lane =
            self.queues.slot(queue.queue).and_then(|slot| self.queues.lane(slot, queue.class));
        let Some(lane) = lane else { return Position(0) };
        let released = Position(lane.released);
        let place = if epoch == present {
            let sent = Position(lane.sent.max(lane.released));
            if position <= sent { position } else { position.min(released) }
        } else {
            place_after(&lane.lives, epoch, position, released)
        };
        lane.sent = lane.sent.max(place.0);
        place
    }
}

/// Of two epochs the one of the later life, by its count.
pub(super) const fn later(one: Epoch, other: Epoch) -> Epoch {
    if other.0 >> 16 > one.0 >> 16 { other } else { one }
}
