//! A NOR flash by addresses: reads of any place and length, writes that are checked.

use embedded_storage::nor_flash::NorFlash;

use super::FlashError;
use crate::log::{crc32c, crc32c_append};

/// The most that one call writes, and the step in which a page is searched after a torn batch.
/// Read and write units of a flash have to divide it.
pub(super) const STEP_BYTES: u32 = 64;
const STEP: usize = STEP_BYTES as usize;
/// What erased flash reads as.
const ERASED: u8 = 0xff;

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The flash refused it, or reads back something else.
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Device<F> {
    pub(super) flash: F,
}

impl<F: NorFlash> Device<F> {
    /// The unit in which batches are placed.
    pub(super) const UNIT_BYTES: u32 = if F::WRITE_SIZE < 4 { 4 } else { F::WRITE_SIZE as u32 };

    /// Whether the units of this flash are ones that this module can work with.
    pub(super) const FITS: bool = STEP.is_multiple_of(F::READ_SIZE)
        && STEP.is_multiple_of(F::WRITE_SIZE)
        && F::ERASE_SIZE.is_multiple_of(STEP);

    pub(super) fn read(&mut self, at: u32, out: &mut [u8]) -> Result<(), FlashError> {
        if F::READ_SIZE == 1 {
            return self.flash.read(at, out).map_err(|_| FlashError::Device);
        }
        let mut chunk = [0; STEP];
        let mut done = 0;
        while done < out.len() {
            let from = at + done as u32;
            let skip = (from % STEP_BYTES) as usize;
            self.flash.read(from - skip as u32, &mut chunk).map_err(|_| FlashError::Device)?;
            let count = (STEP - skip).min(out.len() - done);
            out[done..done + count].copy_from_slice(&chunk[skip..skip + count]);
            done += count;
        }
        Ok(())
    }

    /// Shows `look` the bytes of `from..to` in pieces, until it answers `false`.
    fn visit(
        &mut self,
        from: u32,
        to: u32,
        mut look: impl FnMut(u32, &[u8]) -> bool,
    ) -> Result<(), FlashError> {
        let mut chunk = [0; STEP];
        let mut at = from;
        while at < to {
            let count = STEP_BYTES.min(to - at);
            let bytes = &mut chunk[..count as usize];
            self.read(at, bytes)?;
            if !look(at, bytes) {
                break;
            }
            at += count;
        }
        Ok(())
    }

    /// CRC-32C over `head` and then `from..to` of the flash.
    pub(super) fn checksum(&mut self, head: &[u8], from: u32, to: u32) -> Result<u32, FlashError> {
        let mut crc = crc32c(head);
        self.visit(from, to, |_, bytes| {
            crc = crc32c_append(crc, bytes);
            true
        })?;
        Ok(crc)
    }

    /// The end of what was written in `from..to`: the place after the last byte that is not erased.
    pub(super) fn written_end(&mut self, from: u32, to: u32) -> Result<u32, FlashError> {
        let mut end = from;
        self.visit(from, to, |at, bytes| {
            if let Some(last) = bytes.iter().rposition(|&byte| byte != ERASED) {
                end = at + last as u32 + 1;
            }
            true
        })?;
        Ok(end)
    }

    pub(super) fn is_erased(&mut self, from: u32, to: u32) -> Result<bool, FlashError> {
        let mut erased = true;
        self.visit(from, to, |_, bytes| {
            erased = bytes.iter().all(|&byte| byte == ERASED);
            erased
        })?;
        Ok(erased)
    }

    /// Erases `from..to` and looks whether it is.
    pub(super) fn erase(&mut self, from: u32, to: u32) -> Result<Written, FlashError> {
        if self.flash.erase(from, to).is_err() || !self.is_erased(from, to)? {
            return Ok(Written::Failed);
        }
        Ok(Written::Done)
    }

    /// Writes the parts one after the other from `at` on, filled up to whole units, and reads them
    /// back. Rising, each unit once.
    pub(super) fn write(&mut self, at: u32, parts: [&[u8]; 2]) -> Result<Written, FlashError> {
        let total = parts[0].len() + parts[1].len();
        let mut bytes = parts[0].iter().chain(parts[1]);
        let mut done = 0;
        while done < total {
            let mut chunk = [ERASED; STEP];
            let count = STEP.min(total - done);
            for (place, byte) in chunk[..count].iter_mut().zip(&mut bytes) {
                *place = *byte;
            }
            let chunk = &chunk[..count.next_multiple_of(Self::UNIT_BYTES as usize)];
            let place = at + done as u32;
            let mut back = [0; STEP];
            let back = &mut back[..chunk.len()];
            if self.flash.write(place, chunk).is_err() {
                return Ok(Written::Failed);
            }
            self.read(place, back)?;
            if back != chunk {
                return Ok(Written::Failed);
            }
            done += count;
        }
        Ok(Written::Done)
    }
}
