//! What the records and notes of the log mean for a store that is being opened.

use replcore::contract::SkipReason;
use replcore::log::batch::Header;
use replcore::log::record::{Entries, KIND_RECORD, Record};
use replcore::stream::{CLASSES, Epoch, Name, NodeId, QueueId, QueueKey};
use replcore::time::Stamp;

use super::Arrival;
use super::disk::Disk;
use super::embedded::{SegmentStore, Stream};
use super::keyed::KnownPost;
use super::lives::later;
use super::note::{KIND_NOTE, Note};
use super::queues::NoteAt;
use super::runs::Run;

impl<D: Disk> SegmentStore<D> {
    pub(super) fn replay_batch(&mut self, index: usize, at: u64, header: &Header, entries: &[u8]) {
        self.log.next_ordinal = header.first_ordinal + u64::from(header.records);
        let segment = &mut self.log.segments[index];
        segment.end = at + replcore::log::batch::HEADER_BYTES as u64 + u64::from(header.bytes);
        segment.next_ordinal = self.log.next_ordinal;
        self.replica.pass(entries);
        self.replay_entries(header.first_ordinal, entries);
    }

    /// What the entries of a batch mean, wherever it stands.
    pub(super) fn replay_entries(&mut self, first_ordinal: u64, entries: &[u8]) {
        let mut ordinal = first_ordinal;
        let notes = Entries::new(entries).filter(|entry| entry.0 == KIND_NOTE);
        self.replay_life(notes.map(|entry| entry.1));
        for (kind, entry) in Entries::new(entries) {
            match kind {
                KIND_RECORD => {
                    self.replay_record(entry, ordinal);
                    ordinal += 1;
                }
                KIND_NOTE => {
                    if let Some(note) = Note::read(entry) {
                        self.replay_note(note);
                    }
                }
                // Of a later version that this one may pass over.
                _ => {}
            }
        }
        if self.keyed.is_full() {
            let _ = self.keyed.flush(0, None);
        }
    }

    /// Enters the life that a batch begins, if it does: its note is the first, or follows the mark
    /// of a further batch.
    pub(super) fn replay_life<'a>(&mut self, notes: impl Iterator<Item = &'a [u8]>) {
        for note in notes.take(2).filter_map(Note::read) {
            if let Note::Life { epoch } = note {
                self.enter_life(Epoch(epoch));
            }
        }
    }

    pub(super) fn replay_record(&mut self, entry: &[u8], ordinal: u64) {
        let Ok(record) = Record::parse(entry) else { return };
        let id = record.id();
        self.clock.observe(u64::MAX, record.time().min(Stamp(u64::MAX >> 1)));
        let identity = &self.log.identity;
        let own = id.origin == identity.name.node_id();
        if own {
            self.epoch_seen = later(self.epoch_seen, id.epoch);
        }
        if own && id.epoch == identity.epoch {
            let next = &mut self.own_seqs[usize::from(id.class)];
            *next = (*next).max(id.seq.0.saturating_add(1));
        } else {
            self.origin((id.origin, id.epoch, id.class)).ranges.insert(id.seq.0);
        }
        self.replay_keyed(entry, ordinal);
    }

    pub(super) fn replay_keyed(&mut self, entry: &[u8], ordinal: u64) {
        let Ok(record) = Record::parse(entry) else { return };
        let id = record.id();
        let key = record.idempotency_key();
        if !key.is_empty() && id.origin == self.log.identity.name.node_id() {
            let at_ms = record.time().wall_ms();
            self.keyed.add_post(key, KnownPost { id, at_ms });
        }
        if !record.key().is_empty() {
            let origin = id.origin;
            self.index_current(entry, ordinal, Arrival::Upstream(origin));
        }
    }

    pub(super) fn set_stream(&mut self, name: (NodeId, QueueKey), epoch: Epoch, position: u64) {
        let used_at = self.used();
        let note = NoteAt::default();
        let stream = Stream { epoch, position, durable: position, note, used_at };
        self.make_room_for_stream(&name);
        self.streams.insert(name, stream);
    }

    pub(super) fn replay_note(&mut self, note: Note) {
        let lane_of = |store: &Self, queue: u64, class: u8| {
            store.queues.slot(QueueId(queue)).filter(|_| usize::from(class) < CLASSES)
        };
        match note {
            // A life is entered before the records of its batch.
            Note::Continues | Note::Numbered { .. } | Note::Life { .. } => {}
            Note::Route { queue, class, position, ordinal, count, bytes, at_ms } => {
                let run = Run { position, ordinal, count, bytes, at_ms };
                self.wall_ms = self.wall_ms.max(at_ms);
                if let Some(slot) = lane_of(self, queue, class).or_else(|| self.unnamed(queue)) {
                    self.replay_route(slot, class, &run);
                }
            }
            Note::Cursor { owner, queue, class, epoch, position } => {
                let name = (NodeId(owner), QueueKey { queue: QueueId(queue), class });
                self.set_stream(name, Epoch(epoch), position);
            }
            Note::Queue { name, kind } => {
                if let Ok(name) = Name::new(&name) {
                    match self.queues.slot(name.queue_id()) {
                        Some(slot) => self.queues.claim(slot, name, kind),
                        None => {
                            self.queues.add(name, kind);
                        }
                    }
                }
            }
            Note::ForgetQueue { queue } => {
                if let Some(slot) = self.queues.slot(QueueId(queue)) {
                    self.clear_blocks(slot);
                    self.queues.remove(QueueId(queue));
                }
            }
            Note::Release { queue, class, through } => {
                if let Some(slot) = lane_of(self, queue, class) {
                    self.apply_release(slot, class, through);
                }
            }
            Note::Drop { queue, class, first, next, reason } => {
                if let Some(slot) = lane_of(self, queue, class) {
                    self.apply_drop(slot, class, first, next, reason);
                }
            }
            Note::State { tag, id, bytes } => {
                if bytes.is_empty() {
                    self.states.remove(&(tag, id));
                } else {
                    self.states.insert((tag, id), bytes);
                }
            }
            Note::Setting { name, bytes } => {
                if bytes.is_empty() {
                    self.settings.remove(&name);
                } else {
                    self.settings.insert(name, bytes);
                }
            }
            Note::Consumer(consumer) => self.add_consumer(consumer),
            Note::RemoveConsumer { name } => self.consumers.retain(|known| known.0.name != name),
            Note::Copies { first, count } => self.copies.push((first, first + count)),
            Note::Moved { queue, class, position, ordinal, count } => {
                if let Some(slot) = lane_of(self, queue, class) {
                    self.replay_move(slot, class, position, ordinal, count);
                }
            }
        }
    }

    /// A queue that the log names and does not know: the note that made it was damaged.
    fn unnamed(&mut self, queue: u64) -> Option<u32> {
        let room = self.queues.len() < self.config.queues_max as usize;
        if !room || self.queues.slot(QueueId(queue)).is_some() {
            return None;
        }
        self.queues.add_unnamed(QueueId(queue))
    }

    fn replay_route(&mut self, slot: u32, class: u8, run: &Run) {
        let Some(lane) = self.queues.lane(slot, class) else { return };
        if run.position > lane.next {
            let from = lane.next;
            lane.add_gap(from, run.position, SkipReason::Lost);
            lane.next = run.position;
        }
        let Some(part) = run.part(lane.next, u64::MAX) else { return };
        lane.next = part.next();
        lane.durable_next = lane.next;
        lane.runs.append(part, &mut self.blocks, &mut self.log.disk);
        self.log.refer(part.ordinal, part.count, true);
    }

    fn replay_move(&mut self, slot: u32, class: u8, position: u64, ordinal: u64, count: u64) {
        let Some(lane) = self.queues.lane(slot, class) else { return };
        let next = position + count;
        let mut moved = Vec::new();
        lane.runs.edit(
            &mut self.blocks,
            &mut self.log.disk,
            &|block| block.first < next && block.next > position,
            &mut |run, out| {
                out.extend(run.part(0, position));
                if let Some(mut part) = run.part(position, next) {
                    let from = part.ordinal;
                    part.ordinal = ordinal + (part.position - position);
                    moved.push((from, part));
                    out.push(part);
                }
                out.extend(run.part(next, u64::MAX));
            },
        );
        for (from, part) in moved {
            self.log.refer(from, part.count, false);
            self.log.refer(part.ordinal, part.count, true);
        }
    }

    fn clear_blocks(&mut self, slot: u32) {
        let Some(queue) = self.queues.get(slot) else { return };
        let slots: Vec<u32> = queue
            .lanes
            .iter()
            .flat_map(|lane| lane.runs.blocks())
            .map(|block| block.slot)
            .collect();
        slots.into_iter().for_each(|slot| self.blocks.free(slot));
    }
}
