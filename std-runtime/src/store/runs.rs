//! The index of one class of one queue: which entry is which record, as runs.
//!
//! What is appended in order collapses to one run. Of a long sparse index only both ends are in
//! memory; the middle is in blocks of a file ([`super::blocks`]).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::blocks::{BLOCK_BYTES, Blocks};
use super::disk::Disk;

/// Entries with dense positions whose records have dense ordinals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub position: u64,
    pub ordinal: u64,
    pub count: u64,
    /// Bytes of the records; an estimate once a part of the run is gone.
    pub bytes: u64,
    /// When the first of them was appended here, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Run {
    pub(super) const fn next(&self) -> u64 {
        self.position + self.count
    }

    /// The part of the run in `first..next` by position.
    pub(super) fn part(&self, first: u64, next: u64) -> Option<Self> {
        let (low, high) = (first.max(self.position), next.min(self.next()));
        if low >= high {
            return None;
        }
        let share = |count: u64| {
            (u128::from(self.bytes) * u128::from(count) / u128::from(self.count)) as u64
        };
        let bytes = share(high - self.position) - share(low - self.position);
        let ordinal = self.ordinal + (low - self.position);
        Some(Self { position: low, ordinal, count: high - low, bytes, at_ms: self.at_ms })
    }

    fn extend(&mut self, more: &Self) -> bool {
        let follows = self.next() == more.position && self.ordinal + self.count == more.ordinal;
        // Ages are kept to the second; one run may not hide the age of what came much later.
        if !follows || more.at_ms.saturating_sub(self.at_ms) > 1000 {
            return false;
        }
        self.count += more.count;
        self.bytes += more.bytes;
        true
    }
}

/// A block of runs that is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockRef {
    pub slot: u32,
    pub first: u64,
    pub next: u64,
    pub ordinal_first: u64,
    pub ordinal_next: u64,
    pub count: u64,
    pub bytes: u64,
}

/// Runs kept in memory at each end of a list before a block of them is written out.
const END_RUNS: usize = 256;

/// All runs of one class of one queue, by position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunList {
    head: VecDeque<Run>,
    middle: VecDeque<BlockRef>,
    tail: VecDeque<Run>,
    /// Entries in the list.
    pub count: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

impl RunList {
    /// Adds a run behind all others. Constant time, but for a block written now and then.
    pub(super) fn append<D: Disk>(&mut self, run: Run, blocks: &mut Blocks, disk: &mut D) {
        debug_assert!(run.count > 0);
        self.count += run.count;
        self.bytes += run.bytes;
        let only_head = self.middle.is_empty() && self.tail.is_empty();
        let end = if only_head { &mut self.head } else { &mut self.tail };
        if end.back_mut().is_some_and(|last| last.extend(&run)) {
            return;
        }
        if only_head && self.head.len() < END_RUNS {
            self.head.push_back(run);
            return;
        }
        self.tail.push_back(run);
        if self.tail.len() > 2 * END_RUNS {
            self.spill(blocks, disk);
        }
    }

    fn spill<D: Disk>(&mut self, blocks: &mut Blocks, disk: &mut D) {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        let runs = encode(self.tail.make_contiguous(), &mut bytes);
        // Without room on the disk the runs stay in memory.
        if let Some(slot) = blocks.write(disk, &bytes) {
            let block = describe(slot, &self.tail.make_contiguous()[..runs]);
            self.middle.push_back(block);
            self.tail.drain(..runs);
        }
    }

    /// Makes the oldest runs the head again after some were taken away.
    fn refill<D: Disk>(&mut self, blocks: &mut Blocks, disk: &mut D) {
        while self.head.is_empty() {
            let Some(block) = self.middle.pop_front() else {
                std::mem::swap(&mut self.head, &mut self.tail);
                return;
            };
            match blocks.read(disk, &block) {
                Some(runs) => self.head.extend(runs.iter().copied()),
                None => {
                    // Damaged: its entries are a hole in the list from now on.
                    self.count -= block.count;
                    self.bytes -= block.bytes;
                }
            }
            blocks.free(block.slot);
        }
    }

    /// The oldest run.
    pub(super) fn front(&self) -> Option<&Run> {
        self.head.front()
    }

    /// The first run that ends after `position`.
    pub(super) fn seek<D: Disk>(
        &self,
        position: u64,
        blocks: &mut Blocks,
        disk: &mut D,
    ) -> Option<Run> {
        if let Some(run) = seek_in(&self.head, position) {
            return Some(run);
        }
        let mut at = self.middle.partition_point(|block| block.next <= position);
        while let Some(block) = self.middle.get(at) {
            let found = blocks.read(disk, block).and_then(|runs| {
                runs.get(runs.partition_point(|run| run.next() <= position)).copied()
            });
            if found.is_some() {
                return found;
            }
            at += 1;
        }
        seek_in(&self.tail, position)
    }

    /// Takes away the entries before `through`; `gone` sees every run of them.
    pub(super) fn release<D: Disk>(
        &mut self,
        through: u64,
        blocks: &mut Blocks,
        disk: &mut D,
        gone: &mut dyn FnMut(&Run),
    ) {
        while let Some(front) = self.head.front_mut() {
            let Some(part) = front.part(front.position, through) else { break };
            gone(&part);
            self.count -= part.count;
            self.bytes -= part.bytes;
            if part.count == front.count {
                self.head.pop_front();
            } else if let Some(rest) = front.part(through, front.next()) {
                *front = rest;
            }
            self.refill(blocks, disk);
        }
    }

    /// Calls `change` with every run that may hold ordinals or positions of interest and puts in
    /// its place what that adds to the list. Blocks for which `touch` answers false are left.
    pub(super) fn edit<D: Disk>(
        &mut self,
        blocks: &mut Blocks,
        disk: &mut D,
        touch: &dyn Fn(&BlockRef) -> bool,
        change: &mut dyn FnMut(&Run, &mut Vec<Run>),
    ) {
        let mut out = Self::default();
        let mut changed = Vec::new();
        let head = std::mem::take(&mut self.head);
        let middle = std::mem::take(&mut self.middle);
        let tail = std::mem::take(&mut self.tail);
        for run in &head {
            change(run, &mut changed);
        }
        out.head.extend(changed.drain(..));
        for block in middle {
            if !touch(&block) {
                out.middle.push_back(block);
                continue;
            }
            if let Some(runs) = blocks.read(disk, &block) {
                for run in runs {
                    change(run, &mut changed);
                }
            }
            blocks.free(block.slot);
            while !changed.is_empty() {
                let mut bytes = Vec::with_capacity(BLOCK_BYTES);
                let runs = encode(&changed, &mut bytes);
                let Some(slot) = blocks.write(disk, &bytes) else {
                    break;
                };
                out.middle.push_back(describe(slot, &changed[..runs]));
                changed.drain(..runs);
            }
            if !changed.is_empty() {
                // No room for a block: everything so far goes to memory.
                out.unspill(blocks, disk);
                out.head.extend(changed.drain(..));
            }
        }
        for run in &tail {
            change(run, &mut changed);
        }
        out.tail.extend(changed.drain(..));
        out.refill(blocks, disk);
        out.count = out.runs_in_memory().map(|run| run.count).sum::<u64>()
            + out.middle.iter().map(|block| block.count).sum::<u64>();
        out.bytes = out.runs_in_memory().map(|run| run.bytes).sum::<u64>()
            + out.middle.iter().map(|block| block.bytes).sum::<u64>();
        *self = out;
    }

    fn unspill<D: Disk>(&mut self, blocks: &mut Blocks, disk: &mut D) {
        for block in std::mem::take(&mut self.middle) {
            if let Some(runs) = blocks.read(disk, &block) {
                self.head.extend(runs.iter().copied());
            }
            blocks.free(block.slot);
        }
    }

    /// Calls `each` with every run, oldest first, until it answers false.
    pub(super) fn each<D: Disk>(
        &self,
        blocks: &mut Blocks,
        disk: &mut D,
        touch: &dyn Fn(&BlockRef) -> bool,
        each: &mut dyn FnMut(&Run) -> bool,
    ) {
        for run in &self.head {
            if !each(run) {
                return;
            }
        }
        for block in self.middle.iter().filter(|block| touch(block)) {
            for run in blocks.read(disk, block).map(<[Run]>::to_vec).unwrap_or_default() {
                if !each(&run) {
                    return;
                }
            }
        }
        for run in &self.tail {
            if !each(run) {
                return;
            }
        }
    }

    fn runs_in_memory(&self) -> impl Iterator<Item = &Run> {
        self.head.iter().chain(&self.tail)
    }

    /// The blocks that hold its middle.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &BlockRef> {
        self.middle.iter()
    }

    /// Bytes of memory that it takes beyond its own size.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.head.capacity() + self.tail.capacity()) * size_of::<Run>()
            + self.middle.capacity() * size_of::<BlockRef>()
    }

    /// Gives back memory that a past peak took.
    pub(super) fn trim(&mut self) {
        if self.head.capacity() > 4 * END_RUNS.max(self.head.len()) {
            self.head.shrink_to_fit();
        }
        if self.tail.is_empty() {
            self.tail.shrink_to_fit();
        }
    }
}

fn seek_in(runs: &VecDeque<Run>, position: u64) -> Option<Run> {
    runs.get(runs.partition_point(|run| run.next() <= position)).copied()
}

fn describe(slot: u32, runs: &[Run]) -> BlockRef {
    let last = runs[runs.len() - 1];
    BlockRef {
        slot,
        first: runs[0].position,
        next: last.next(),
        ordinal_first: runs.iter().map(|run| run.ordinal).min().unwrap_or(0),
        ordinal_next: runs.iter().map(|run| run.ordinal + run.count).max().unwrap_or(0),
        count: runs.iter().map(|run| run.count).sum(),
        bytes: runs.iter().map(|run| run.bytes).sum(),
    }
}

/// Puts as many runs as fit into one block; answers how many. Numbers are differences to the run
/// before, as variable-length integers; ordinals may go back (records moved to a newer segment).
fn encode(runs: &[Run], out: &mut Vec<u8>) -> usize {
    let (mut position, mut ordinal, mut at_ms) = (0, 0, 0);
    for (index, run) in runs.iter().enumerate() {
        let before = out.len();
        put(out, run.position - position);
        put_signed(out, run.ordinal.wrapping_sub(ordinal));
        put(out, run.count);
        put(out, run.bytes);
        put_signed(out, run.at_ms.wrapping_sub(at_ms));
        if out.len() > BLOCK_BYTES {
            out.truncate(before);
            return index;
        }
        (position, ordinal, at_ms) = (run.next(), run.ordinal + run.count, run.at_ms);
    }
    runs.len()
}

/// The runs of a block, whose checksum was checked.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let (mut position, mut ordinal, mut at_ms) = (0_u64, 0_u64, 0_u64);
    while !bytes.is_empty() {
        position = position.checked_add(take(&mut bytes)?)?;
        ordinal = ordinal.wrapping_add(take_signed(&mut bytes)?);
        let (count, size) = (take(&mut bytes)?, take(&mut bytes)?);
        at_ms = at_ms.wrapping_add(take_signed(&mut bytes)?);
        runs.push(Run { position, ordinal, count, bytes: size, at_ms });
        position = position.checked_add(count)?;
        ordinal = ordinal.checked_add(count)?;
    }
    Some(runs)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, difference: u64) {
    let signed = difference as i64;
    put(out, ((signed << 1) ^ (signed >> 63)) as u64);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_signed(bytes: &mut &[u8]) -> Option<u64> {
    let number = take(bytes)?;
    Some((number >> 1) ^ (number & 1).wrapping_neg())
}
