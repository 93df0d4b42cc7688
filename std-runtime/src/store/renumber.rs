//! A new life of the log: after it was set back to an older copy, or its tail was lost.

use std::collections::BTreeMap;

use replcore::contract::Failure;
use replcore::log::record::{self, Record};
use replcore::stream::{CLASSES, Epoch, RecordId, Seq};

use super::QueueKind;
use super::disk::Disk;
use super::embedded::SegmentStore;
use super::log::ReadError;
use super::note::Note;
use super::runs::{Run, RunList};

/// Bytes of records restamped in one batch.
const BATCH_BYTES: usize = 512 << 10;

impl<D: Disk> SegmentStore<D> {
    /// Takes `epoch`. Own records on their way to other nodes get new identities; every queue
    /// starts anew at position 0. A crash before the end leaves the old life in force.
    pub(super) fn renumber_all(&mut self, epoch: Epoch) -> Result<(), Failure> {
        if self.is_dirty() {
            self.commit_pending()?;
        }
        let old_epoch = self.log.identity.epoch;
        let mut seqs = [1; CLASSES];
        let mut moved = BTreeMap::new();
        for ordinal in self.leaving_ordinals() {
            if let Some(new) = self.restamp(ordinal, epoch, &mut seqs)? {
                moved.insert(ordinal, new);
            }
        }
        self.commit_pending()?;
        self.restart_queues(&moved);
        let own = self.log.identity.name.node_id();
        for (class, next) in self.own_seqs.into_iter().enumerate() {
            if next > 1 {
                let known = self.origin((own, old_epoch, class as u8));
                known.ranges = replcore::stream::Ranges::new();
                known.ranges.insert_restored(1, next - 1);
            }
        }
        self.own_seqs = seqs;
        self.log.identity.epoch = epoch;
        self.replica.break_chain(epoch);
        self.recount();
        let sequence = self.checkpoint_sequence;
        self.checkpoint()?;
        if self.checkpoint_sequence == sequence {
            // Memory is ahead of the disk, and nothing may be said that a crash would take back.
            self.failed = true;
            return Err(Failure::Io);
        }
        Ok(())
    }

    /// The records that are on their way to other nodes, in their order.
    fn leaving_ordinals(&mut self) -> Vec<u64> {
        let mut ordinals = Vec::new();
        for (_, queue) in self.queues.iter() {
            if !matches!(queue.kind, QueueKind::Upstream | QueueKind::Leaf) {
                continue;
            }
            for lane in &queue.lanes {
                lane.runs.each(&mut self.blocks, &mut self.log.disk, &|_| true, &mut |run| {
                    ordinals.extend(run.ordinal..run.ordinal + run.count);
                    true
                });
            }
        }
        ordinals.sort_unstable();
        ordinals.dedup();
        ordinals
    }

    /// Stores a copy of an own record under a new identity; answers its ordinal.
    fn restamp(
        &mut self,
        ordinal: u64,
        epoch: Epoch,
        seqs: &mut [u64; CLASSES],
    ) -> Result<Option<u64>, Failure> {
        let own = self.log.identity.name.node_id();
        let mut bytes = match self.log.view(ordinal) {
            Ok((bytes, _)) => {
                let Ok(length) = record::entry_length(bytes, u32::MAX) else { return Ok(None) };
                bytes[..length].to_vec()
            }
            Err(ReadError::Lost(_)) => return Ok(None),
            Err(ReadError::Io) => return Err(Failure::Io),
        };
        let Ok(record) = Record::check(&bytes, crc32c::crc32c) else { return Ok(None) };
        let (old, time) = (record.id(), record.time());
        if old.origin != own {
            return Ok(None);
        }
        let seq = &mut seqs[usize::from(old.class)];
        let id = RecordId { epoch, seq: Seq(*seq), ..old };
        *seq += 1;
        record::stamp(&mut bytes, id, time, crc32c::crc32c);
        if self.log.open_bytes() > BATCH_BYTES {
            self.commit_pending()?;
        }
        self.reserve(bytes.len(), 1, 1)?;
        let new = self.log.next_ordinal;
        self.log.push(&bytes, &[0]);
        self.copies.push((new, new + 1));
        self.note(Note::Copies { first: new, count: 1 }, 0);
        Ok(Some(new))
    }

    fn restart_queues(&mut self, moved: &BTreeMap<u64, u64>) {
        let (blocks, disk) = (&mut self.blocks, &mut self.log.disk);
        for (_, queue) in self.queues.iter_mut() {
            for lane in &mut queue.lanes {
                let old = std::mem::take(&mut lane.runs);
                let mut new = RunList::default();
                let mut position = 0;
                let mut pieces = Vec::new();
                old.each(blocks, disk, &|_| true, &mut |run| {
                    pieces.push(*run);
                    true
                });
                for run in pieces {
                    for mut piece in relocated(&run, moved) {
                        piece.position = position;
                        position += piece.count;
                        new.append(piece, blocks, disk);
                    }
                }
                old.blocks().for_each(|block| blocks.free(block.slot));
                lane.runs = new;
                lane.released = 0;
                lane.next = position;
                lane.durable_next = position;
                lane.sent = 0;
                lane.gaps.clear();
            }
        }
    }
}

/// A run with the ordinals of restamped records replaced.
fn relocated(run: &Run, moved: &BTreeMap<u64, u64>) -> Vec<Run> {
    let mut out = Vec::new();
    let mut at = run.position;
    for (old, new) in moved.range(run.ordinal..run.ordinal + run.count) {
        let position = run.position + (old - run.ordinal);
        out.extend(run.part(at, position));
        if let Some(mut piece) = run.part(position, position + 1) {
            piece.ordinal = *new;
            out.push(piece);
        }
        at = position + 1;
    }
    out.extend(run.part(at, run.next()));
    out
}
