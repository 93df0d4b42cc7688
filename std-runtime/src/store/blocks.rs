//! The file that holds the middle of long queue indexes, in blocks of fixed size.
//!
//! A block is written once and not changed. A freed one is used again only when no checkpoint that
//! is kept can name it any more. The file is synced before a checkpoint that names its blocks.

use std::collections::VecDeque;
use std::io;

use super::disk::{Disk, FileId};
use super::runs::{BlockRef, Run, decode};

/// The name of the file.
pub(super) const BLOCKS_NAME: &str = "queue-blocks";
const SLOT_BYTES: usize = 1024;
const HEADER_BYTES: usize = 8;
/// Most bytes in one block.
pub(super) const BLOCK_BYTES: usize = SLOT_BYTES - HEADER_BYTES;
/// Decoded blocks kept in memory.
const CACHED_BLOCKS: usize = 16;

/// The file, and what is free in it.
pub(super) struct Blocks {
    file: FileId,
    slots: u32,
    free: Vec<u32>,
    /// Freed since the last checkpoint, and between the last two.
    waiting: [Vec<u32>; 2],
    cache: VecDeque<(u32, Vec<Run>)>,
    unsynced: bool,
}

impl Blocks {
    /// Opens the file, making it when it is not there. `used` are the slots that the checkpoints
    /// name; the first set those of the one in force.
    pub(super) fn open<D: Disk>(
        disk: &mut D,
        used: &[u32],
        used_before: &[u32],
    ) -> io::Result<Self> {
        let file = match disk.open(BLOCKS_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = disk.create(BLOCKS_NAME, 0)?;
                disk.sync_names()?;
                file
            }
            Err(error) => return Err(error),
        };
        let in_file = (disk.bytes(file)? / SLOT_BYTES as u64) as u32;
        let named = used.iter().chain(used_before).map(|slot| slot + 1).max().unwrap_or(0);
        let slots = in_file.max(named);
        let mut taken = vec![false; slots as usize];
        used.iter().for_each(|slot| taken[*slot as usize] = true);
        let mut before = Vec::new();
        for slot in used_before {
            if !std::mem::replace(&mut taken[*slot as usize], true) {
                before.push(*slot);
            }
        }
        let free = (0..slots).rev().filter(|slot| !taken[*slot as usize]).collect();
        Ok(Self {
            file,
            slots,
            free,
            waiting: [before, Vec::new()],
            cache: VecDeque::new(),
            unsynced: false,
        })
    }

    /// Writes a block and answers its slot; `None` when there is no room.
    pub(super) fn write<D: Disk>(&mut self, disk: &mut D, payload: &[u8]) -> Option<u32> {
        debug_assert!(payload.len() <= BLOCK_BYTES);
        let slot = self.free.last().copied().unwrap_or(self.slots);
        let mut bytes = vec![0; SLOT_BYTES];
        bytes[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        disk.write_at(self.file, u64::from(slot) * SLOT_BYTES as u64, &bytes).ok()?;
        if self.free.pop().is_none() {
            self.slots += 1;
        }
        self.unsynced = true;
        Some(slot)
    }

    /// The runs of a block; `None` when it is damaged.
    pub(super) fn read<D: Disk>(&mut self, disk: &mut D, block: &BlockRef) -> Option<&[Run]> {
        if let Some(at) = self.cache.iter().position(|cached| cached.0 == block.slot) {
            return Some(&self.cache[at].1);
        }
        let mut bytes = [0; SLOT_BYTES];
        let offset = u64::from(block.slot) * SLOT_BYTES as u64;
        if disk.read_at(self.file, offset, &mut bytes).ok()? < SLOT_BYTES {
            return None;
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if word(0) != crc32c::crc32c(&bytes[4..]) {
            return None;
        }
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + word(4) as usize)?;
        let runs = decode(payload)?;
        if runs.first().map(|run| run.position) != Some(block.first) {
            return None;
        }
        if self.cache.len() == CACHED_BLOCKS {
            self.cache.pop_front();
        }
        self.cache.push_back((block.slot, runs));
        self.cache.back().map(|cached| cached.1.as_slice())
    }

    /// A block is not needed any more.
    pub(super) fn free(&mut self, slot: u32) {
        self.cache.retain(|cached| cached.0 != slot);
        self.waiting[0].push(slot);
    }

    /// Makes the blocks safe that a checkpoint is about to name.
    pub(super) fn sync<D: Disk>(&mut self, disk: &mut D) -> io::Result<()> {
        if self.unsynced {
            disk.sync_data(self.file)?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// A checkpoint is in force: what was freed before the one before it may be used again.
    pub(super) fn checkpointed(&mut self) {
        let [new, old] = &mut self.waiting;
        self.free.append(old);
        std::mem::swap(new, old);
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let numbers = self.free.capacity() + self.waiting.iter().map(Vec::capacity).sum::<usize>();
        let cached: usize = self.cache.iter().map(|cached| cached.1.capacity()).sum();
        numbers * size_of::<u32>() + cached * size_of::<Run>()
    }
}
