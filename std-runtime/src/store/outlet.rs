//! What goes out: the records of own queues, by position.

use replcore::contract::{Failure, SkipReason};
use replcore::log::record::{ENTRY_HEADER_BYTES, KIND_RECORD, Record};
use replcore::stream::{CLASSES, Cursor, Position, QueueKey};
use replcore::wire::Records;

use super::disk::Disk;
use super::embedded::SegmentStore;
use super::log::ReadError;
use super::runs::Run;
use super::segment::length_at;
use super::{Batch, Fill};

/// What ended a copy of records.
enum Ended {
    /// The run, or the room for bytes.
    Done,
    /// The record at this ordinal has expired.
    Expired(u64),
    /// Records up to this ordinal are lost.
    Lost(u64),
}

/// A copy under way.
struct Copy<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    bytes_max: usize,
    /// Bytes of the first record that were sent before.
    offset: usize,
    completed: u32,
    tail_bytes: u32,
    wall_ms: u64,
}

impl Copy<'_> {
    const fn is_empty(&self) -> bool {
        self.completed == 0 && self.tail_bytes == 0
    }

    fn room(&self) -> usize {
        self.bytes_max - (self.out.len() - self.start)
    }
}

impl<D: Disk> SegmentStore<D> {
    pub(super) fn fill_bytes(
        &mut self,
        wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure> {
        let fill = self.find_bytes(wall_ms, queue, first, bytes_max, out)?;
        let next = match fill {
            Fill::Batch(batch) => first.position.0 + u64::from(batch.records.completed),
            Fill::Gone { next, .. } => next.0,
            Fill::Empty => 0,
        };
        if let Some(slot) = self.queues.slot(queue.queue)
            && let Some(lane) = self.queues.lane(slot, queue.class)
        {
            lane.sent = lane.sent.max(next);
        }
        Ok(fill)
    }

    fn find_bytes(
        &mut self,
        wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure> {
        if self.failed {
            return Err(Failure::Io);
        }
        let Some(slot) = self.queues.slot(queue.queue) else { return Ok(Fill::Empty) };
        if usize::from(queue.class) >= CLASSES {
            return Ok(Fill::Empty);
        }
        self.expire_by_age(slot, wall_ms);
        let Some(lane) = self.queues.lane(slot, queue.class) else { return Ok(Fill::Empty) };
        let durable = lane.durable_next;
        let start = out.len();
        let mut copy = Copy {
            out,
            start,
            bytes_max: bytes_max as usize,
            offset: first.offset as usize,
            completed: 0,
            tail_bytes: 0,
            wall_ms,
        };
        let mut position = first.position.0;
        while copy.room() > 0 && copy.tail_bytes == 0 && position < durable {
            let Some(lane) = self.queues.lane(slot, queue.class) else { break };
            let found = lane.runs.seek(position, &mut self.blocks, &mut self.log.disk);
            let held = found.as_ref().map_or(durable, |run| run.position).min(durable);
            if held > position {
                if copy.is_empty() {
                    return Ok(Fill::Gone { next: Position(held), reason: lane.reason(position) });
                }
                break;
            }
            let Some(run) = found.and_then(|run| run.part(position, durable)) else { break };
            let before = copy.completed;
            let ended = self.copy_run(&run, &mut copy)?;
            position += u64::from(copy.completed - before);
            let (gap, reason) = match ended {
                Ended::Done => continue,
                Ended::Expired(ordinal) => (ordinal - run.ordinal + 1, SkipReason::Expired),
                Ended::Lost(next) => {
                    let next = next.saturating_sub(run.ordinal).clamp(1, run.count);
                    (next, SkipReason::Lost)
                }
            };
            if copy.is_empty() {
                let next = run.position + gap;
                self.drop_range(slot, queue.class, run.position, next, reason);
                return Ok(Fill::Gone { next: Position(next), reason });
            }
            break;
        }
        let (completed, tail_bytes) = (copy.completed, copy.tail_bytes);
        if completed == 0 && tail_bytes == 0 {
            return Ok(Fill::Empty);
        }
        let records = Records { first, completed, tail_bytes, ..Records::default() };
        Ok(Fill::Batch(Batch { records, bytes: (out.len() - start) as u32 }))
    }

    fn copy_run(&mut self, run: &Run, copy: &mut Copy<'_>) -> Result<Ended, Failure> {
        let last = run.ordinal + run.count;
        let mut ordinal = run.ordinal;
        while ordinal < last && copy.room() > 0 && copy.tail_bytes == 0 {
            let (bytes, checked) = match self.log.view(ordinal) {
                Ok(view) => view,
                Err(ReadError::Lost(next)) => return Ok(Ended::Lost(next)),
                Err(ReadError::Io) => return Err(Failure::Io),
            };
            let most = last - ordinal;
            let (seen, expired) = copy_view(bytes, checked, most, copy);
            if seen == 0 && !expired && copy.tail_bytes == 0 && copy.room() > 0 {
                return Ok(Ended::Lost(ordinal + 1));
            }
            ordinal += seen;
            if expired {
                return Ok(Ended::Expired(ordinal));
            }
        }
        Ok(Ended::Done)
    }

    /// Drops what has waited longer than the queue allows.
    pub(super) fn expire_by_age(&mut self, slot: u32, wall_ms: u64) {
        let Some(queue) = self.queues.get(slot) else { return };
        let most = queue.limits.age_ms_max;
        if most == 0 {
            return;
        }
        for class in 0..CLASSES as u8 {
            loop {
                let Some(lane) = self.queues.lane(slot, class) else { return };
                let Some(front) = lane.runs.front().copied() else { break };
                if wall_ms.saturating_sub(front.at_ms) <= most {
                    break;
                }
                self.drop_range(slot, class, front.position, front.next(), SkipReason::Dropped);
            }
        }
    }
}

/// Copies records of a view, at most `most`, up to one that is not sound, which the next view tells;
/// answers how many it passed, and whether the next has expired.
fn copy_view(bytes: &[u8], checked: u64, most: u64, copy: &mut Copy<'_>) -> (u64, bool) {
    let room = copy.room() + copy.offset;
    let (mut at, mut seen) = (0, 0);
    let mut expired = false;
    let mut whole = true;
    while seen < most && at + ENTRY_HEADER_BYTES <= bytes.len() {
        let length = length_at(bytes, at);
        if bytes[at + 8] != KIND_RECORD || length < ENTRY_HEADER_BYTES {
            break;
        }
        let Some(entry) = bytes.get(at..at + length) else { break };
        let has_attributes = entry[10] != 0 || entry[11] != 0;
        if seen >= checked && Record::check(entry, crc32c::crc32c).is_err() {
            break;
        }
        // One begun is carried to its end: its reader has a part of it already.
        let begun = copy.is_empty() && seen == 0 && copy.offset > 0;
        if has_attributes && !begun && is_expired(entry, copy.wall_ms) {
            expired = true;
            break;
        }
        if at + length > room {
            whole = false;
            break;
        }
        at += length;
        seen += 1;
    }
    if seen > 0 {
        copy.out.extend_from_slice(&bytes[copy.offset.min(at)..at]);
        copy.offset = 0;
        copy.completed += seen as u32;
    } else if !whole && copy.completed == 0 {
        // The first record does not fit: a part of it.
        let from = copy.offset;
        let part = &bytes[from..room.min(bytes.len())];
        copy.out.extend_from_slice(part);
        copy.tail_bytes = part.len() as u32;
    }
    if !whole && copy.tail_bytes == 0 {
        // The next does not fit behind the others: enough for this frame.
        copy.bytes_max = copy.out.len() - copy.start;
    }
    (seen, expired)
}

fn is_expired(entry: &[u8], wall_ms: u64) -> bool {
    let expires = Record::parse(entry).map_or(0, |record| record.expires_wall_ms());
    expires != 0 && expires <= wall_ms
}
