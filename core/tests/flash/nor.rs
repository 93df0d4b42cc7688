//! A NOR flash whose power can fail at every step, and whose pages can wear out.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};
use replcore::rng::Rng;

pub(crate) const PAGE_BYTES: usize = 1024;
/// Steps of one erasure: it can be cut before any of them.
const ERASE_STEPS: u64 = 3;

/// Flash with units of `READ` and `WRITE` bytes. A step is the programming of one unit or a part of
/// an erasure.
#[derive(Clone, Debug)]
pub(crate) struct Nor<const READ: usize = 1, const WRITE: usize = 4> {
    pub(crate) bytes: Vec<u8>,
    /// Units that were written, or may have been, since they were erased.
    touched: Vec<bool>,
    /// Erasures, by page.
    pub(crate) erased: Vec<u32>,
    /// Steps until the power fails.
    pub(crate) steps_left: Option<u64>,
    pub(crate) steps: u64,
    pub(crate) dead: bool,
    /// Pages that take no more writes.
    pub(crate) worn: Vec<bool>,
    rng: Rng,
}

#[derive(Debug)]
pub(crate) struct Broken;

impl NorFlashError for Broken {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const READ: usize, const WRITE: usize> Nor<READ, WRITE> {
    pub(crate) fn new(pages: usize, fill: u8) -> Self {
        let bytes = vec![fill; pages * PAGE_BYTES];
        Self {
            touched: vec![fill != 0xff; bytes.len() / WRITE],
            bytes,
            erased: vec![0; pages],
            steps_left: None,
            steps: 0,
            dead: false,
            worn: vec![false; pages],
            rng: Rng::new(0),
        }
    }

    /// The power is back, and fails again after so many steps.
    pub(crate) fn restart(&mut self, steps_left: Option<u64>, seed: u64) {
        (self.dead, self.steps_left, self.steps) = (false, steps_left, 0);
        self.rng = Rng::new(seed);
    }

    /// Takes a step. Whether there was power for it.
    fn step(&mut self) -> bool {
        self.steps += 1;
        match &mut self.steps_left {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.dead
    }

    fn program(&mut self, at: usize, byte: u8, keep: u8) {
        // Bits only go from one to zero; those of `keep` have not gone yet.
        self.bytes[at] &= byte | keep;
    }

    /// What a cut leaves of a write: the unit under way in part, perhaps something of later ones,
    /// and doubt about every unit of the call that shows anything.
    fn tear(&mut self, offset: usize, bytes: &[u8], from: usize) {
        let order_is_kept = self.rng.between(0, 1) == 0;
        let end = if order_is_kept { (from + WRITE).min(bytes.len()) } else { bytes.len() };
        for (index, &byte) in bytes.iter().enumerate().take(end).skip(from) {
            let random = self.rng.next_u64();
            let keep = [0xff, 0, random as u8][(random >> 32) as usize % 3];
            self.program(offset + index, byte, keep);
        }
        let area = &self.bytes[offset..offset + bytes.len()];
        if area.iter().any(|&byte| byte != 0xff) {
            self.touched[offset / WRITE..(offset + bytes.len()) / WRITE].fill(true);
        }
    }
}

impl<const READ: usize, const WRITE: usize> ErrorType for Nor<READ, WRITE> {
    type Error = Broken;
}

impl<const READ: usize, const WRITE: usize> ReadNorFlash for Nor<READ, WRITE> {
    const READ_SIZE: usize = READ;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Broken> {
        check_read(self, offset, bytes.len()).expect("a read within the flash");
        if self.dead {
            return Err(Broken);
        }
        let at = offset as usize;
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const READ: usize, const WRITE: usize> NorFlash for Nor<READ, WRITE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = PAGE_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Broken> {
        check_erase(self, from, to).expect("whole pages within the flash");
        let pages = from as usize / PAGE_BYTES..to as usize / PAGE_BYTES;
        for page in pages {
            for _ in 0..ERASE_STEPS {
                if self.dead || !self.step() {
                    return Err(Broken);
                }
                // Until it is done, any bit may be one already.
                for at in page * PAGE_BYTES..(page + 1) * PAGE_BYTES {
                    let random = self.rng.next_u64();
                    self.bytes[at] |= [0, 0xff, random as u8][(random >> 32) as usize % 3];
                }
            }
            self.erased[page] += 1;
            if self.worn[page] {
                return Err(Broken);
            }
            self.bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0xff);
            let units = PAGE_BYTES / WRITE;
            self.touched[page * units..(page + 1) * units].fill(false);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Broken> {
        check_write(self, offset, bytes.len()).expect("whole units within the flash");
        let offset = offset as usize;
        for from in (0..bytes.len()).step_by(WRITE) {
            if self.dead {
                return Err(Broken);
            }
            if !self.step() {
                self.tear(offset, bytes, from);
                return Err(Broken);
            }
            let unit = (offset + from) / WRITE;
            assert!(!self.touched[unit], "the unit at {} is written twice", offset + from);
            self.touched[unit] = true;
            for (index, &byte) in bytes[from..from + WRITE].iter().enumerate() {
                // What is worn keeps a bit that should go, and says nothing.
                let keep = u8::from(self.worn[(offset + from) / PAGE_BYTES]) << 7;
                self.program(offset + from + index, byte, keep);
            }
        }
        Ok(())
    }
}
