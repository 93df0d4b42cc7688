//! Records as they arrive: whole, or in parts that are put together.

use crate::contract::Failure;
use crate::log::record::{self, EntryError};

/// A record that has begun to arrive. One that is longer than the memory for it is let go by and
/// counted, so that it does not stand in the way for ever.
#[derive(Debug)]
pub(super) struct Part<'a> {
    memory: &'a mut [u8],
    /// Bytes that have arrived; those beyond the memory were dropped.
    len: usize,
    /// The stream and class that it belongs to.
    of: u8,
}

impl<'a> Part<'a> {
    pub(super) const fn new(memory: &'a mut [u8]) -> Self {
        Self { memory, len: 0, of: 0 }
    }

    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    /// Bytes of the record that has begun to arrive.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes that go on at `offset` are about to come. Whether that is where it is.
    pub(super) fn goes_on(&mut self, of: u8, offset: usize) -> bool {
        if offset == 0 {
            (self.len, self.of) = (0, of);
        }
        self.of == of && self.len == offset
    }

    /// Takes bytes of `rest` up to the end of the record. Whether that was reached.
    ///
    /// # Errors
    /// What came is no entry.
    pub(super) fn take(&mut self, rest: &mut &[u8]) -> Result<bool, Failure> {
        let head = record::ENTRY_HEADER_BYTES;
        let wanted = if self.len < head { head } else { self.length()? };
        let count = rest.len().min(wanted - self.len);
        let (bytes, later) = rest.split_at(count);
        let room = self.memory.get_mut(self.len..).unwrap_or_default();
        let kept = room.len().min(count);
        room[..kept].copy_from_slice(&bytes[..kept]);
        self.len += count;
        *rest = later;
        Ok(self.len >= head && self.len == self.length()?)
    }

    fn length(&self) -> Result<usize, Failure> {
        let have = self.len.min(self.memory.len());
        match record::entry_length(&self.memory[..have], u32::MAX) {
            Ok(length) | Err(EntryError::Incomplete(length)) => Ok(length),
            Err(_) => Err(Failure::Corrupt),
        }
    }

    /// The record, once it is complete; `None` when it was longer than the memory for it.
    pub(super) fn record(&self) -> Option<&[u8]> {
        self.memory.get(..self.len)
    }
}
