//! NOR flash in the manner of small microcontrollers, played by RAM that the start-up code leaves
//! alone: pages are erased to ones, each word is written once. The power can be made to fail in the
//! middle of what it does.

use core::convert::Infallible;

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

use super::reset;

#[cfg(board = "microbit")]
const SIZES: (usize, u16) = (1024, 3);
#[cfg(not(board = "microbit"))]
const SIZES: (usize, u16) = (4096, 6);

const PAGE_BYTES: usize = SIZES.0;
/// Pages for records; two more are for cursors.
pub const RECORD_PAGES: u16 = SIZES.1;
const BYTES: usize = PAGE_BYTES * (RECORD_PAGES as usize + 2);
/// Words that are erased in one step.
const ERASE_STEP_WORDS: usize = 64;

unsafe extern "C" {
    /// From the linker script; [`BYTES`] behind it are nobody else's.
    static mut _log_start: u32;
}

/// The memory of the log.
#[derive(Debug)]
pub struct RamFlash {
    /// Steps until the power fails, while that is planned: a word written, or some erased.
    steps_to_fault: Option<u32>,
}

impl RamFlash {
    /// The only one.
    ///
    /// # Safety
    /// Once.
    pub const unsafe fn new() -> Self {
        Self { steps_to_fault: None }
    }

    /// Cuts the power, as it were, after so many more steps.
    pub fn plan_fault(&mut self, steps: u32) {
        self.steps_to_fault = Some(steps);
    }

    fn word(index: usize) -> *mut u32 {
        assert!(index < BYTES / 4);
        // SAFETY: the memory is there, and the index is within it.
        unsafe { (&raw mut _log_start).add(index) }
    }

    /// Writes a word, or half of it when the power fails.
    fn set(&mut self, index: usize, value: u32, last_of_step: bool) {
        let fails = self.steps_to_fault == Some(0);
        let value = if fails { value | 0xffff } else { value };
        // SAFETY: within the memory, which only `self` uses. Volatile, so that a reset finds it.
        unsafe { Self::word(index).write_volatile(value) };
        if fails {
            reset();
        }
        if last_of_step {
            self.steps_to_fault = self.steps_to_fault.map(|left| left - 1);
        }
    }
}

impl ErrorType for RamFlash {
    type Error = Infallible;
}

impl ReadNorFlash for RamFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
        let from = offset as usize;
        assert!(from + bytes.len() <= BYTES);
        let start = Self::word(0).cast::<u8>();
        // SAFETY: within the memory, which only `self` writes, through raw pointers.
        unsafe { core::ptr::copy_nonoverlapping(start.add(from), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn capacity(&self) -> usize {
        BYTES
    }
}

impl NorFlash for RamFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
        for index in from as usize / 4..to as usize / 4 {
            self.set(index, u32::MAX, index % ERASE_STEP_WORDS == 0);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
        for (index, word) in bytes.chunks_exact(4).enumerate() {
            let index = offset as usize / 4 + index;
            // SAFETY: as in `set`.
            let before = unsafe { Self::word(index).read_volatile() };
            assert!(before == u32::MAX, "a word of flash is written once");
            self.set(index, u32::from_le_bytes([word[0], word[1], word[2], word[3]]), true);
        }
        Ok(())
    }
}
