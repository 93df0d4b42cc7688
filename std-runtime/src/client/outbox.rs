//! Records on their way from a program to its node, in memory.

use std::collections::VecDeque;

use replcore::stream::{Cursor, Position};
use replcore::wire::Records;

use crate::store::{Batch, Fill};

/// The records of one class that the node has not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Bytes at the start of `bytes` that are acknowledged.
    start: usize,
    /// The end of each record, counted from the first byte ever appended.
    ends: VecDeque<u64>,
    /// Bytes ever acknowledged; the first of `bytes[start..]`.
    base: u64,
    released: u64,
    /// Records before this were given to the link at some time.
    sent: u64,
}

impl Outbox {
    pub(super) const fn sent(&self) -> Position {
        Position(self.sent)
    }

    pub(super) const fn released(&self) -> Position {
        Position(self.released)
    }

    pub(super) fn next(&self) -> Position {
        Position(self.released + self.ends.len() as u64)
    }

    /// Records that are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes that are not acknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Adds what `write` writes into the `length` bytes it is given.
    pub(super) fn append<E>(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Position, E> {
        let at = self.bytes.len();
        self.bytes.resize(at + length, 0);
        match write(&mut self.bytes[at..]) {
            Ok(written) => self.bytes.truncate(at + written),
            Err(error) => {
                self.bytes.truncate(at);
                return Err(error);
            }
        }
        let position = self.next();
        self.ends.push_back(self.base + self.bytes() as u64);
        Ok(position)
    }

    pub(super) fn release(&mut self, through: Position) {
        let count = through.0.saturating_sub(self.released).min(self.ends.len() as u64) as usize;
        let Some(end) = count.checked_sub(1).map(|last| self.ends[last]) else { return };
        self.ends.drain(..count);
        self.released += count as u64;
        self.start += (end - self.base) as usize;
        self.base = end;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    pub(super) fn fill(&mut self, first: Cursor, bytes_max: u32, out: &mut Vec<u8>) -> Fill {
        if first.position >= self.next() {
            return Fill::Empty;
        }
        let Some(index) = first.position.0.checked_sub(self.released).map(|at| at as usize) else {
            return Fill::Gone {
                next: self.released(),
                reason: replcore::contract::SkipReason::Dropped,
            };
        };
        let record_start = if index == 0 { self.base } else { self.ends[index - 1] };
        let from = record_start + u64::from(first.offset);
        let limit = from + u64::from(bytes_max);
        let last = self.ends.partition_point(|end| *end <= limit).max(index);
        let completed = last - index;
        let to = if completed == 0 { limit } else { self.ends[last - 1] };
        let at = |offset: u64| self.start + (offset - self.base) as usize;
        out.extend_from_slice(&self.bytes[at(from)..at(to)]);
        let bytes = (to - from) as u32;
        let tail_bytes = if completed == 0 { bytes } else { 0 };
        self.sent = self.sent.max(first.position.0 + completed as u64);
        let completed = completed as u32;
        let records = Records { first, completed, tail_bytes, raw_bytes: 0, round: 0 };
        Fill::Batch(Batch { records, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(lengths: &[usize]) -> Outbox {
        let mut outbox = Outbox::default();
        for (index, length) in lengths.iter().enumerate() {
            let write = |bytes: &mut [u8]| {
                bytes.fill(index as u8 + 1);
                Ok::<_, ()>(bytes.len())
            };
            outbox.append(*length, write).unwrap();
        }
        outbox
    }

    fn fill(
        outbox: &mut Outbox,
        position: u64,
        offset: u32,
        bytes_max: u32,
    ) -> (u32, u32, Vec<u8>) {
        let mut out = Vec::new();
        let first = Cursor { position: Position(position), offset };
        let Fill::Batch(batch) = outbox.fill(first, bytes_max, &mut out) else { panic!() };
        assert_eq!(batch.bytes as usize, out.len());
        (batch.records.completed, batch.records.tail_bytes, out)
    }

    #[test]
    fn whole_records_go_together_and_a_long_one_in_parts() {
        let mut outbox = outbox(&[2, 3, 10]);
        assert_eq!(fill(&mut outbox, 0, 0, 7), (2, 0, vec![1, 1, 2, 2, 2]));
        assert_eq!(fill(&mut outbox, 2, 0, 4), (0, 4, vec![3; 4]));
        assert_eq!(fill(&mut outbox, 2, 4, 4), (0, 4, vec![3; 4]));
        assert_eq!(fill(&mut outbox, 2, 8, 4), (1, 0, vec![3; 2]));
        assert_eq!(outbox.fill(Cursor::at(Position(3)), 9, &mut Vec::new()), Fill::Empty);
    }

    #[test]
    fn what_is_acknowledged_is_gone_and_the_rest_keeps_its_place() {
        let mut outbox = outbox(&[2, 3, 4]);
        outbox.release(Position(1));
        assert_eq!(fill(&mut outbox, 1, 1, 100), (2, 0, vec![2, 2, 3, 3, 3, 3]));
        outbox.release(Position(1));
        assert_eq!(
            (outbox.released(), outbox.next(), outbox.bytes()),
            (Position(1), Position(3), 7)
        );
        outbox.release(Position(9));
        assert_eq!(
            (outbox.released(), outbox.next(), outbox.bytes()),
            (Position(3), Position(3), 0)
        );
    }
}
