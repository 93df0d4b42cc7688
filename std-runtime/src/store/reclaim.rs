//! Checkpoints, and giving back what is no longer needed.

use std::collections::BTreeMap;

use replcore::contract::{Failure, SkipReason};
use replcore::log::record::{KIND_RECORD, Record};
use replcore::stream::CLASSES;
use replcore::time::HybridClock;

use super::checkpoint::{Checkpoint, OriginImage, SegmentImage, StreamImage};
use super::disk::Disk;
use super::embedded::SegmentStore;
use super::log::ReadError;
use super::note::Note;
use super::queues::NoteAt;
use super::runs::Run;
use super::segment::length_at;

/// Bytes of records copied forward in one batch.
const COPY_BYTES: usize = 512 << 10;
/// Records copied forward in one batch.
const COPY_RECORDS: usize = 8192;
/// Bytes of copies after which they are committed.
const COMMIT_BYTES: usize = 1 << 20;

/// A part of a queue that names records of a segment.
#[derive(Clone, Copy, Debug)]
struct Piece {
    slot: u32,
    class: u8,
    run: Run,
}

/// The stamp that a clock gave last.
pub(super) fn last_stamp(clock: &HybridClock) -> u64 {
    let mut clock = *clock;
    clock.stamp(0).0 - 1
}

impl<D: Disk> SegmentStore<D> {
    /// Writes a checkpoint. Nothing may be pending. That there is no room for one is no error.
    pub(super) fn checkpoint(&mut self) -> Result<(), Failure> {
        debug_assert!(!self.is_dirty());
        self.bytes_at_checkpoint = self.log.written_bytes;
        if self.blocks.sync(&mut self.log.disk).is_err() {
            self.failed = true;
            return Err(Failure::Io);
        }
        let sequence = self.checkpoint_sequence + 1;
        // When this fails the tables are made again from the log at the next start.
        let _ = self.keyed.flush(self.wall_ms, Some(sequence));
        let image = self.image(sequence);
        if image.write(&mut self.log.disk).is_ok() {
            self.checkpoint_sequence = sequence;
            self.replay_from = [self.replay_from[1], image.segment];
            self.blocks.checkpointed();
        }
        Ok(())
    }

    pub(super) fn image(&self, sequence: u64) -> Checkpoint {
        let current = self.log.segments.back();
        Checkpoint {
            instance: self.log.identity.instance,
            sequence,
            epoch: self.log.identity.epoch.0,
            segment: current.map_or(0, |segment| segment.number),
            offset: current.map_or(0, |segment| segment.end),
            next_ordinal: self.log.next_ordinal,
            clock: last_stamp(&self.clock),
            own_seqs: self.own_seqs,
            queues: self.queues.image(),
            streams: self
                .streams
                .iter()
                .map(|(name, stream)| StreamImage {
                    owner: name.0.0,
                    queue: name.1.queue.0,
                    class: name.1.class,
                    epoch: stream.epoch.0,
                    position: stream.position,
                })
                .collect(),
            origins: self
                .origins
                .iter()
                .map(|(key, origin)| OriginImage {
                    origin: key.0.0,
                    epoch: key.1.0,
                    class: key.2,
                    ranges: origin.ranges.as_slice().to_vec(),
                })
                .collect(),
            states: self.states.iter().map(|(key, state)| (key.0, key.1, state.clone())).collect(),
            settings: self
                .settings
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .chain(self.replica.setting())
                .collect(),
            consumers: self.consumers.iter().map(|consumer| consumer.0.clone()).collect(),
            segments: self
                .log
                .segments
                .iter()
                .map(|segment| SegmentImage {
                    number: segment.number,
                    end: segment.end,
                    first_ordinal: segment.first_ordinal,
                    next_ordinal: segment.next_ordinal,
                    at_ms: segment.at_ms,
                })
                .collect(),
            copies: self.copies.clone(),
        }
    }

    /// Whether the log is near its bound.
    pub(super) fn is_pressed(&self) -> bool {
        self.log.bytes() + 2 * self.config.segment_bytes > self.config.log_bytes_max
    }

    /// Frees segments that no queue and no checkpoint needs, the oldest first, while more than
    /// `keep_bytes` are held, at most `most`. Answers how many.
    pub(super) fn free_unneeded(&mut self, keep_bytes: u64, most: usize) -> usize {
        let (mut at, mut freed) = (0, 0);
        let bound = self.free_bound();
        while freed < most
            && self.log.held_bytes() > keep_bytes
            && self.log.segments.get(at).is_some_and(|segment| segment.number < bound)
        {
            if self.log.segments[at].references == 0 && self.pieces(at).is_empty() {
                self.free_segment(at);
                freed += 1;
            } else {
                at += 1;
            }
        }
        freed
    }

    /// Segments from this number on stay: recovery replays them, or a standby is to get them. When
    /// space is short a standby has to take a copy instead.
    fn free_bound(&self) -> u64 {
        let pinned = if self.is_pressed() { u64::MAX } else { self.replica.pinned };
        self.replay_from[0].min(pinned)
    }

    fn free_segment(&mut self, at: usize) {
        let Some(segment) = self.log.segments.remove(at) else { return };
        self.log.retire(segment);
        self.counters.segments_freed += 1;
        let first = self.log.segments.front().map_or(0, |first| first.first_ordinal);
        self.copies.retain(|copy| copy.1 > first);
    }

    /// Gives back what is over the bounds; at most one segment is copied forward.
    pub(super) fn reclaim(&mut self) -> Result<(), Failure> {
        self.tell_damage();
        self.free_unneeded(self.config.retain_bytes, usize::MAX);
        let old = self.wall_ms.saturating_sub(self.config.retain_ms);
        while self.config.retain_ms > 0
            && self.log.segments.front().is_some_and(|segment| segment.at_ms < old)
            && self.free_unneeded(0, 1) > 0
        {}
        if self.log.held_bytes() <= self.config.retain_bytes && !self.is_pressed() {
            return Ok(());
        }
        if self.is_pressed() {
            self.free_unneeded(0, 2);
        }
        if self.replica.is_following() {
            // What the leader copies forward comes with its batches.
            return Ok(());
        }
        let bound = self.free_bound();
        let sparse = self
            .log
            .segments
            .iter()
            .enumerate()
            .filter(|(_, segment)| segment.number < bound)
            .map(|(at, segment)| {
                let records = (segment.next_ordinal - segment.first_ordinal).max(1);
                (segment.references * 1000 / records, at)
            })
            .min();
        let Some((_, at)) = sparse else { return Ok(()) };
        match self.copy_forward(at) {
            // There is no room to copy to; posts are refused until acknowledgements make some.
            Err(Failure::Full) => Ok(()),
            copied => copied,
        }
    }

    /// The parts of queues that name records of a segment.
    fn pieces(&mut self, at: usize) -> Vec<Piece> {
        let segment = &self.log.segments[at];
        self.pieces_in(segment.first_ordinal, segment.next_ordinal)
    }

    /// How many queue entries name records with ordinals in `first..next`.
    pub(super) fn count_entries(&mut self, first: u64, next: u64) -> u64 {
        self.pieces_in(first, next).iter().map(|piece| piece.run.count).sum()
    }

    fn pieces_in(&mut self, first: u64, next: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (blocks, disk) = (&mut self.blocks, &mut self.log.disk);
        for (slot, queue) in self.queues.iter() {
            for class in 0..CLASSES as u8 {
                queue.lanes[usize::from(class)].runs.each(
                    blocks,
                    disk,
                    &|block| block.ordinal_first < next && block.ordinal_next > first,
                    &mut |run| {
                        if let Some(run) = part_by_ordinal(run, first, next) {
                            pieces.push(Piece { slot, class, run });
                        }
                        true
                    },
                );
            }
        }
        pieces
    }

    /// Copies the records of a segment that queues need to the end of the log and frees it, when
    /// that gives back at least half of it, or a tenth when space is short.
    fn copy_forward(&mut self, at: usize) -> Result<(), Failure> {
        let pieces = self.pieces(at);
        let segment = &self.log.segments[at];
        let (number, records) = (segment.number, segment.next_ordinal - segment.first_ordinal);
        let ranges = merged(&pieces);
        let live: u64 = ranges.iter().map(|range| range.1 - range.0).sum();
        let worth = if self.is_pressed() { live * 10 <= records * 9 } else { live * 2 <= records };
        if !worth {
            return Ok(());
        }
        let mut chunk = Chunk::default();
        for (first, next) in ranges {
            let mut ordinal = first;
            while ordinal < next {
                ordinal = self.gather(ordinal, next, &mut chunk)?;
                if chunk.bytes.len() >= COPY_BYTES || chunk.starts.len() >= COPY_RECORDS {
                    self.store_copies(&mut chunk, &pieces)?;
                    // Copies that are not committed are all in memory.
                    if self.log.open_bytes() >= COMMIT_BYTES {
                        self.commit_pending()?;
                    }
                }
            }
        }
        self.store_copies(&mut chunk, &pieces)?;
        self.commit_pending()?;
        let Some(at) = self.log.segments.iter().position(|segment| segment.number == number) else {
            return Ok(());
        };
        for piece in self.pieces(at) {
            // It cannot be read any more.
            let Piece { slot, class, run } = piece;
            self.drop_range(slot, class, run.position, run.next(), SkipReason::Lost);
        }
        self.commit_pending()?;
        if let Some(at) = self.log.segments.iter().position(|segment| segment.number == number) {
            self.free_segment(at);
        }
        Ok(())
    }

    /// Adds records from `ordinal` on to a chunk; answers where to go on.
    fn gather(&mut self, ordinal: u64, next: u64, chunk: &mut Chunk) -> Result<u64, Failure> {
        let (bytes, checked) = match self.log.view(ordinal) {
            Ok(view) => view,
            Err(ReadError::Lost(after)) => return Ok(after.clamp(ordinal + 1, next)),
            Err(ReadError::Io) => return Err(Failure::Io),
        };
        let (mut at, mut now) = (0, ordinal);
        while now < next && at + 12 <= bytes.len() && chunk.bytes.len() < COPY_BYTES {
            let length = length_at(bytes, at);
            let Some(entry) = bytes.get(at..at + length.max(12)) else { break };
            if entry[8] != KIND_RECORD {
                break;
            }
            if now - ordinal >= checked && Record::check(entry, crc32c::crc32c).is_err() {
                break;
            }
            chunk.starts.push(chunk.bytes.len() as u32);
            chunk.old.push(now);
            chunk.bytes.extend_from_slice(entry);
            at += length;
            now += 1;
        }
        Ok(now.max(ordinal + u64::from(now == ordinal)))
    }

    fn store_copies(&mut self, chunk: &mut Chunk, pieces: &[Piece]) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (chunk.old.first().copied(), chunk.old.last().copied())
        else {
            return Ok(());
        };
        let touched = |piece: &&Piece| part_by_ordinal(&piece.run, first, last + 1).is_some();
        let mut lanes: BTreeMap<(u32, u8), usize> = BTreeMap::new();
        for piece in pieces.iter().filter(touched) {
            *lanes.entry((piece.slot, piece.class)).or_default() +=
                piece.run.count.min(chunk.old.len() as u64) as usize;
        }
        let notes: usize = lanes.values().sum::<usize>().min(lanes.len() * chunk.old.len());
        self.reserve(chunk.bytes.len(), chunk.starts.len() as u32, notes + 1)?;
        let base = self.log.next_ordinal;
        self.log.push(&chunk.bytes, &chunk.starts);
        let count = chunk.old.len() as u64;
        self.counters.records_moved += count;
        self.copies.push((base, base + count));
        self.note(Note::Copies { first: base, count }, 0);
        for (slot, class) in lanes.into_keys() {
            self.move_entries(slot, class, &chunk.old, base);
        }
        chunk.clear();
        Ok(())
    }

    /// Makes entries of a lane that name the records `old` name their copies from `base` on.
    fn move_entries(&mut self, slot: u32, class: u8, old: &[u64], base: u64) {
        let (first, next) = (old[0], old[old.len() - 1] + 1);
        let mut moved = Vec::new();
        let Some(queue) = self.queues.get_mut(slot) else { return };
        let id = queue.id.0;
        let lane = &mut queue.lanes[usize::from(class)];
        lane.route = NoteAt::default();
        lane.release = NoteAt::default();
        lane.runs.edit(
            &mut self.blocks,
            &mut self.log.disk,
            &|block| block.ordinal_first < next && block.ordinal_next > first,
            &mut |run, out| {
                let Some(part) = part_by_ordinal(run, first, next) else {
                    out.push(*run);
                    return;
                };
                out.extend(run.part(0, part.position));
                let mut position = part.position;
                while position < part.next() {
                    let ordinal = part.ordinal + (position - part.position);
                    let (to, count) = new_places(old, base, ordinal, part.next() - position);
                    let Some(mut piece) = run.part(position, position + count) else { break };
                    if let Some(to) = to {
                        piece.ordinal = to;
                        moved.push((piece, ordinal));
                    }
                    out.push(piece);
                    position += count;
                }
                out.extend(run.part(part.next(), u64::MAX));
            },
        );
        for (piece, from) in moved {
            self.log.refer(from, piece.count, false);
            self.log.refer(piece.ordinal, piece.count, true);
            let (position, ordinal, count) = (piece.position, piece.ordinal, piece.count);
            self.note(Note::Moved { queue: id, class, position, ordinal, count }, 0);
        }
    }

    pub(super) fn maintain_all(&mut self, wall_ms: u64) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure::Io);
        }
        self.wall_ms = wall_ms;
        let aged: Vec<u32> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.limits.age_ms_max > 0 && !self.replica.is_following())
            .map(|(slot, _)| slot)
            .collect();
        for slot in aged {
            self.expire_by_age(slot, wall_ms);
        }
        if self.tell_damage() {
            self.commit_pending()?;
            self.checkpoint()?;
        }
        if self.log.held_bytes() > self.config.retain_bytes || self.is_pressed() {
            self.commit_pending()?;
            if self.log.current_number() > self.replay_from[1] {
                self.checkpoint()?;
            }
            self.reclaim()?;
        }
        Ok(())
    }
}

/// Records on their way to the end of the log.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    /// Their ordinals so far, rising.
    old: Vec<u64>,
}

impl Chunk {
    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.old.clear();
    }
}

/// The part of a run whose ordinals are in `first..next`.
fn part_by_ordinal(run: &Run, first: u64, next: u64) -> Option<Run> {
    let low = first.max(run.ordinal);
    let high = next.min(run.ordinal + run.count);
    if low >= high {
        return None;
    }
    run.part(run.position + (low - run.ordinal), run.position + (high - run.ordinal))
}

/// The ranges of ordinals that pieces name, rising and apart.
fn merged(pieces: &[Piece]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = pieces
        .iter()
        .map(|piece| (piece.run.ordinal, piece.run.ordinal + piece.run.count))
        .collect();
    ranges.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.0 <= last.1 => last.1 = last.1.max(range.1),
            _ => out.push(range),
        }
    }
    out
}

/// Where the record `ordinal` and those behind it have gone, and how many of at most `most` went
/// there together; `None` for those that were not copied.
fn new_places(old: &[u64], base: u64, ordinal: u64, most: u64) -> (Option<u64>, u64) {
    let at = old.partition_point(|known| *known < ordinal);
    match old.get(at) {
        Some(known) if *known == ordinal => {
            let same = |index: &usize| old[at + index] == ordinal + *index as u64;
            let left = (old.len() - at).min(most as usize);
            let count = (0..left).take_while(same).count();
            (Some(base + at as u64), count as u64)
        }
        Some(known) => (None, (known - ordinal).min(most)),
        None => (None, most),
    }
}
