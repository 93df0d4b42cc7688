//! Pages in a ring, and batches in a page.
//!
//! Each life of a page has a number, one higher than the life begun before it, and stands in page
//! number modulo pages. So every page is erased as often as every other, and the newest page is the
//! one with the greatest number. The high half of a batch's segment number is a tag drawn when the
//! log was made: bytes that an application wrote, or an older log, are not taken for a batch.

use embedded_storage::nor_flash::NorFlash;

use super::device::{Device, STEP_BYTES, Written};
use super::{FlashCounters, FlashError};
use crate::log::batch::{HEADER_BYTES, Header};
use crate::log::{crc32c, u64_at};

const HEAD_BYTES: u32 = HEADER_BYTES as u32;

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Ring {
    /// Where the first page is.
    start: u32,
    page_bytes: u32,
    pages: u32,
    pub(super) tag: u32,
    /// The life that batches are appended to; 0 before the first.
    pub(super) newest: u32,
    /// Where in its page the next batch goes.
    end: u32,
}

/// A batch whose header is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) header: Header,
    /// Its entries are right too. Else it counts for nothing but the room it takes.
    pub(super) whole: bool,
    /// Where its entries are.
    pub(super) entries_at: u32,
}

impl Ring {
    pub(super) const fn new(start: u32, page_bytes: u32, pages: u32, tag: u32) -> Self {
        Self { start, page_bytes, pages, tag, newest: 0, end: page_bytes }
    }

    const fn page_start(&self, life: u32) -> u32 {
        self.start + life % self.pages * self.page_bytes
    }

    const fn segment(&self, life: u32) -> u64 {
        (self.tag as u64) << 32 | life as u64
    }

    pub(super) const fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    /// The oldest life that the ring can still hold while `newest` is the newest.
    pub(super) const fn oldest_possible(&self) -> u32 {
        let oldest = (self.newest + 1).saturating_sub(self.pages);
        if oldest == 0 { 1 } else { oldest }
    }

    /// The tag, life and first header of the page with this index, whatever the tag.
    pub(super) fn page<F: NorFlash>(
        &self,
        device: &mut Device<F>,
        index: u32,
    ) -> Result<Option<(u32, u32, Header)>, FlashError> {
        let mut bytes = [0; HEADER_BYTES];
        device.read(self.start + index * self.page_bytes, &mut bytes)?;
        let segment = u64_at(&bytes, 8);
        let life = segment as u32;
        if life == 0 || life % self.pages != index {
            return Ok(None);
        }
        let header = Header::decode(&bytes, segment, crc32c).ok();
        Ok(header.map(|header| ((segment >> 32) as u32, life, header)))
    }

    /// The first header of a life that the ring still holds.
    pub(super) fn life<F: NorFlash>(
        &self,
        device: &mut Device<F>,
        life: u32,
    ) -> Result<Option<Header>, FlashError> {
        let page = self.page(device, life % self.pages)?;
        Ok(page.filter(|page| page.0 == self.tag && page.1 == life).map(|page| page.2))
    }

    /// The newest life with this ring's tag and below `below`.
    pub(super) fn newest_below<F: NorFlash>(
        &self,
        device: &mut Device<F>,
        below: u32,
    ) -> Result<u32, FlashError> {
        let mut newest = 0;
        for index in 0..self.pages {
            if let Some((tag, life, _)) = self.page(device, index)?
                && tag == self.tag
                && life < below
            {
                newest = newest.max(life);
            }
        }
        Ok(newest)
    }

    /// The next batch of a life at or after `at`, which is moved behind it. Where there is no sound
    /// header the search goes on at the next whole step.
    pub(super) fn next_batch<F: NorFlash>(
        &self,
        device: &mut Device<F>,
        life: u32,
        at: &mut u32,
    ) -> Result<Option<Batch>, FlashError> {
        let page = self.page_start(life);
        while *at + HEAD_BYTES <= self.page_bytes {
            let mut bytes = [0; HEADER_BYTES];
            device.read(page + *at, &mut bytes)?;
            let Ok(header) = Header::decode(&bytes, self.segment(life), crc32c) else {
                *at = (*at + 1).next_multiple_of(STEP_BYTES);
                continue;
            };
            let entries_at = page + *at + HEAD_BYTES;
            if header.bytes > self.page_bytes - *at - HEAD_BYTES {
                *at = (*at + 1).next_multiple_of(STEP_BYTES);
                continue;
            }
            let sum = device.checksum(&[], entries_at, entries_at + header.bytes)?;
            *at = (*at + HEAD_BYTES + header.bytes).next_multiple_of(Device::<F>::UNIT_BYTES);
            return Ok(Some(Batch { header, whole: sum == header.entries_crc, entries_at }));
        }
        Ok(None)
    }

    /// Takes `life` as the one to append to. `after` is the place behind its last batch, which is
    /// `whole` or not. Every word of a write that may have been under way when the power failed is
    /// left alone.
    pub(super) fn resume<F: NorFlash>(
        &mut self,
        device: &mut Device<F>,
        life: u32,
        (after, whole): (u32, bool),
    ) -> Result<(), FlashError> {
        let page = self.page_start(life);
        let written = device.written_end(page, page + self.page_bytes)? - page;
        self.newest = life;
        self.end = if written <= after && whole {
            after
        } else {
            written.max(after).next_multiple_of(STEP_BYTES) + STEP_BYTES
        };
        Ok(())
    }

    /// Whether a batch with so many bytes of entries goes into the page that is begun.
    pub(super) const fn fits(&self, bytes: usize) -> bool {
        self.newest > 0 && self.end as usize + HEADER_BYTES + bytes <= self.page_bytes as usize
    }

    /// Appends a batch, in a page of its own where the one that is begun has no room for it or does
    /// not take it. Pages up to life `limit` may be erased for that.
    ///
    /// # Errors
    /// [`FlashError::Full`] when no page is left, [`FlashError::WornOut`] when one was and does not
    /// work. The log holds what it held.
    pub(super) fn append<F: NorFlash>(
        &mut self,
        device: &mut Device<F>,
        limit: u32,
        header: Header,
        entries: &[u8],
        counters: &mut FlashCounters,
    ) -> Result<(), FlashError> {
        let (mut life, mut at) = (self.newest, self.end);
        let mut error = FlashError::Full;
        loop {
            if life > 0 && at as usize + HEADER_BYTES + entries.len() <= self.page_bytes as usize {
                let mut bytes = [0; HEADER_BYTES];
                Header { segment: self.segment(life), ..header }.encode(&mut bytes, crc32c);
                if device.write(self.page_start(life) + at, [&bytes, entries])? == Written::Done {
                    let length = (HEADER_BYTES + entries.len()) as u32;
                    self.newest = life;
                    self.end = at + length.next_multiple_of(Device::<F>::UNIT_BYTES);
                    return Ok(());
                }
                counters.writes_failed += 1;
                error = FlashError::WornOut;
                if life == self.newest {
                    self.end = self.page_bytes;
                }
            }
            (life, at) = match life.checked_add(1) {
                Some(life) if life <= limit => (life, 0),
                _ => return Err(error),
            };
            let page = self.page_start(life);
            counters.pages_erased += 1;
            if device.erase(page, page + self.page_bytes)? == Written::Failed {
                counters.writes_failed += 1;
                error = FlashError::WornOut;
                at = self.page_bytes;
            }
        }
    }

    /// How often each page was erased, as far as the lives tell.
    pub(super) const fn erased_each(&self) -> u32 {
        self.newest.div_ceil(self.pages)
    }
}
