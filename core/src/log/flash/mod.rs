//! A log on raw NOR flash, for a device with one queue: records that wait for the hub, and the
//! cursors beside them.
//!
//! ```text
//! region   cursor pages, at least 2 | record pages, at least 2      a page is one unit of erasure
//! page     batch, batch, ... erased words                           batches as in `log::batch`
//! ```
//!
//! Records and cursors are two rings of pages. A page is erased just before it is used again, in
//! turn, so that all pages of a ring wear alike; between two erasures every word is written once.
//! A batch counts as a whole or not at all. Where a power cut has torn one, the log goes on behind
//! it in the same page, and leaves alone every word that may have been under way. A page whose
//! erasure was cut is erased again before it is used. Before a page of records is erased the
//! cursors that allow it are written.
//!
//! The whole table of contents is a few numbers: the rest is read from the flash when it is wanted.
//! Work of every call is bounded by the pages of the region.
//!
//! What is stored is the bytes of records as [`record::encode`] makes them, so that sending is
//! a copy. One log holds one class of one queue.

mod cursors;
mod device;
mod ring;

use embedded_storage::nor_flash::NorFlash;

use self::cursors::{CURSORS_BYTES_MAX, Changed, Cursors, LIVES_MAX};
use self::device::Device;
use self::ring::{Batch, Ring};
use super::batch::{HEADER_BYTES, Header};
use super::crc32c;
use super::record::{self, RECORD_HEADER_BYTES};
use crate::contract::SkipReason;
use crate::rng::Rng;
use crate::stream::{Cursor, Epoch, Life, NodeId, Position, RecordId, Seq, StreamKey, place_after};
use crate::time::Stamp;
use crate::wire::Records;

/// Most bytes that an application keeps in the log beside its records.
pub const APPLICATION_BYTES_MAX: usize = 64;
/// Most incoming streams whose place is kept.
pub const PLACES_MAX: usize = 8;
/// Fewest pages of each kind: one is kept while the other is erased.
pub const PAGES_MIN: u16 = 2;
/// The least that a page may have: the longest cursors fit twice.
pub const PAGE_BYTES_MIN: usize = 1024;

/// What becomes of a region that holds something, and no log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Foreign {
    /// [`FlashError::NotOurs`], and nothing is changed.
    #[default]
    Refuse,
    /// It is erased and a log made there. So is a log that is damaged beyond use.
    Erase,
}

/// What becomes of a record when no page is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WhenFull {
    /// [`FlashError::Full`], and nothing is changed.
    #[default]
    Refuse,
    /// The oldest page of records is dropped and counted; the reader is told.
    DropOldest,
}

/// Where a log is and how it behaves. A log is opened with the pages it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FlashConfig {
    /// Who posts the records.
    pub origin: NodeId,
    /// The class of all records, 0 to 3. Default 2.
    pub class: u8,
    /// Where the region starts, in bytes; whole pages.
    pub start: u32,
    /// Pages for cursors, at least [`PAGES_MIN`]. Default 2.
    pub cursor_pages: u16,
    /// Pages for records, at least [`PAGES_MIN`].
    pub record_pages: u16,
    /// What becomes of a region that is not a log.
    pub foreign: Foreign,
    /// What becomes of a record when no page is free.
    pub when_full: WhenFull,
}

impl FlashConfig {
    /// A region at the start of the flash, with the defaults.
    pub const fn new(origin: NodeId, record_pages: u16) -> Self {
        Self {
            origin,
            class: 2,
            start: 0,
            cursor_pages: PAGES_MIN,
            record_pages,
            foreign: Foreign::Refuse,
            when_full: WhenFull::Refuse,
        }
    }
}

/// Why something was not done. Nothing has changed that a later call would not mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlashError {
    /// The region does not fit the flash, a page is below [`PAGE_BYTES_MIN`], there are fewer than
    /// [`PAGES_MIN`] of a kind, a unit of the flash does not divide 64, or the class is above 3.
    Region,
    /// The region holds something else. [`Foreign::Erase`] would make a log of it.
    NotOurs,
    /// No page is free: release records first.
    Full,
    /// Every page that could be used was tried and does not take what is written. What is stored
    /// can still be read.
    WornOut,
    /// The flash cannot be read.
    Device,
    /// The record does not fit a page, or is shorter than a record; or the application's bytes
    /// are more than [`APPLICATION_BYTES_MAX`].
    TooLong,
    /// [`PLACES_MAX`] streams of one owner have a place already.
    TooManyStreams,
}

impl core::fmt::Display for FlashError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Region => "the region does not fit the flash or the rules for pages",
            Self::NotOurs => "the region holds something that is not a log",
            Self::Full => "no page is free; release records first",
            Self::WornOut => "no page takes what is written; the flash is worn out",
            Self::Device => "the flash cannot be read",
            Self::TooLong => "too long for a page",
            Self::TooManyStreams => "no room for the place of one more stream",
        })
    }
}

impl core::error::Error for FlashError {}

/// What was counted since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FlashCounters {
    /// Pages erased.
    pub pages_erased: u32,
    /// Erasures and writes that failed or read back wrong.
    pub writes_failed: u32,
    /// Records dropped because the log was full.
    pub dropped: u64,
    /// Records that should be there and are not.
    pub lost: u64,
}

/// What [`FlashLog::fill`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FlashFill {
    /// So many bytes, which are these records. The round is for the caller to set.
    Records(Records, usize),
    /// Records up to `next` are not there any more.
    Gone {
        /// The first that is there.
        next: Position,
        /// Why the others are not.
        reason: SkipReason,
    },
    /// The queue ends before.
    End,
}

/// The log. See the [module](self).
#[derive(Debug)]
pub struct FlashLog<F> {
    device: Device<F>,
    config: FlashConfig,
    records: Ring,
    cursor_ring: Ring,
    cursors: Cursors,
    /// The cursors in memory differ from those in flash.
    dirty: bool,
    /// No page of records before this life holds anything that is wanted.
    oldest: u32,
    /// The ordinal of the next record.
    next: u64,
    /// Where reading may go on: life, place in its page, ordinal of what is there.
    hint: (u32, u32, u64),
    counters: FlashCounters,
}

impl<F: NorFlash> FlashLog<F> {
    /// Opens the log in a region and begins a new life of it, so that no number is ever given twice;
    /// or makes a log where the region is erased. `random` should differ from start to start and
    /// between devices.
    ///
    /// # Errors
    /// [`FlashError::Region`], [`FlashError::NotOurs`], [`FlashError::WornOut`] or
    /// [`FlashError::Device`].
    pub fn open(flash: F, config: FlashConfig, random: u64) -> Result<Self, FlashError> {
        let device = Device { flash };
        let page_bytes = F::ERASE_SIZE as u32;
        let (cursor_pages, record_pages) =
            (u32::from(config.cursor_pages), u32::from(config.record_pages));
        let bytes = u64::from(page_bytes) * u64::from(cursor_pages + record_pages);
        let fits = Device::<F>::FITS
            && F::ERASE_SIZE >= PAGE_BYTES_MIN
            && config.cursor_pages >= PAGES_MIN
            && config.record_pages >= PAGES_MIN
            && config.start.is_multiple_of(page_bytes)
            && u64::from(config.start) + bytes <= device.flash.capacity() as u64
            && usize::from(config.class) < crate::stream::CLASSES;
        if !fits {
            return Err(FlashError::Region);
        }
        let records_start = config.start + page_bytes * cursor_pages;
        let mut log = Self {
            device,
            config,
            records: Ring::new(records_start, page_bytes, record_pages, 0),
            cursor_ring: Ring::new(config.start, page_bytes, cursor_pages, 0),
            cursors: Cursors::new(0, 0),
            dirty: false,
            oldest: 1,
            next: 0,
            hint: (0, 0, 0),
            counters: FlashCounters::default(),
        };
        if log.find_cursors()? {
            log.find_records()?;
            log.begin_life(random);
        } else if config.foreign == Foreign::Erase || log.is_fresh()? {
            log.make(random)?;
        } else {
            return Err(FlashError::NotOurs);
        }
        Ok(log)
    }

    /// Reads the newest cursors. Whether there are any.
    fn find_cursors(&mut self) -> Result<bool, FlashError> {
        let mut newest = 0;
        for index in 0..u32::from(self.config.cursor_pages) {
            if let Some((tag, life, _)) = self.cursor_ring.page(&mut self.device, index)?
                && life > newest
            {
                newest = life;
                self.cursor_ring.tag = tag;
            }
        }
        // A page whose first batch is torn says nothing; the one before it is still there.
        while newest > 0 {
            let (mut at, mut after, mut found) = (0, (0, true), false);
            while let Some(batch) =
                self.cursor_ring.next_batch(&mut self.device, newest, &mut at)?
            {
                let mut entry = [0; CURSORS_BYTES_MAX];
                let entry = entry.get_mut(..batch.header.bytes as usize);
                if let Some(entry) = entry.filter(|_| batch.whole) {
                    self.device.read(batch.entries_at, entry)?;
                    found |= self.cursors.decode(entry);
                }
                after = (at, batch.whole);
            }
            if found {
                self.records.tag = self.cursor_ring.tag;
                self.cursor_ring.resume(&mut self.device, newest, after)?;
                return Ok(true);
            }
            newest = self.cursor_ring.newest_below(&mut self.device, newest)?;
        }
        Ok(false)
    }

    /// Finds the ends of the records.
    fn find_records(&mut self) -> Result<(), FlashError> {
        self.next = self.cursors.gone();
        let newest = self.records.newest_below(&mut self.device, u32::MAX)?;
        if newest == 0 {
            return Ok(());
        }
        let (mut at, mut after) = (0, (0, true));
        if let Some(header) = self.records.life(&mut self.device, newest)? {
            self.next = self.next.max(header.first_ordinal);
        }
        while let Some(batch) = self.records.next_batch(&mut self.device, newest, &mut at)? {
            let records = if batch.whole { u64::from(batch.header.records) } else { 0 };
            self.next = self.next.max(batch.header.first_ordinal + records);
            after = (at, batch.whole);
        }
        self.records.resume(&mut self.device, newest, after)?;
        self.oldest = self.records.oldest_possible();
        self.trim()
    }

    /// On flash that takes nothing more the old life goes on, and only reading is of use.
    fn begin_life(&mut self, random: u64) {
        let end = Position(self.next);
        let _ = self.change(&|cursors| {
            let (epoch, gone) = (Epoch(cursors.epoch), Position(cursors.gone()));
            for life in &mut cursors.lives {
                if life.end <= gone {
                    *life = Life::default();
                }
            }
            if end > gone {
                // The oldest is kept, where the last acknowledgement was, and the latest.
                let free = cursors.lives.iter().position(|life| life.epoch == Epoch(0));
                cursors.lives[free.unwrap_or(LIVES_MAX / 2)] = Life { epoch, end };
            }
            cursors.epoch = epoch.next(Rng::new(random).next_u64()).0;
            cursors.base = end.0;
            Ok(())
        });
    }

    /// Where the reader of the queue goes on that was `position` far in the life `epoch`, or in
    /// a copy of this log that is gone.
    pub fn place_reader(&self, epoch: Epoch, position: Position) -> Position {
        if epoch == self.epoch() && position <= self.queue_next() {
            return position;
        }
        place_after(&self.cursors.lives, epoch, position, self.queue_released())
    }

    /// Whether nothing stands in the region but, perhaps, the beginning of a first write.
    fn is_fresh(&mut self) -> Result<bool, FlashError> {
        let page_bytes = F::ERASE_SIZE as u32;
        let pages = u32::from(self.config.cursor_pages) + u32::from(self.config.record_pages);
        // Cursors are first written to the page of life 1.
        let first = self.config.start + page_bytes;
        let allowed = first..first + (HEADER_BYTES + CURSORS_BYTES_MAX) as u32;
        let end = self.config.start + page_bytes * pages;
        Ok(self.device.is_erased(self.config.start, allowed.start)?
            && self.device.is_erased(allowed.end, end)?)
    }

    /// Makes an empty log.
    fn make(&mut self, random: u64) -> Result<(), FlashError> {
        let mut rng = Rng::new(random);
        let tag = rng.next_u64() as u32;
        self.cursors = Cursors::new(rng.next_u64() | 1, Epoch::first(rng.next_u64()).0);
        (self.records.tag, self.cursor_ring.tag) = (tag, tag);
        // What is left of another log must not be found beside the new one.
        let page_bytes = F::ERASE_SIZE as u32;
        for page in 0..u32::from(self.config.cursor_pages) + u32::from(self.config.record_pages) {
            let from = self.config.start + page * page_bytes;
            if !self.device.is_erased(from, from + page_bytes)? {
                self.device.erase(from, from + page_bytes)?;
            }
        }
        self.change(&|_| Ok(()))
    }

    /// The random number that was drawn when the log was made.
    pub const fn instance(&self) -> u64 {
        self.cursors.instance
    }

    /// The life of the log.
    pub const fn epoch(&self) -> Epoch {
        Epoch(self.cursors.epoch)
    }

    /// The number of records ever in the queue.
    pub const fn queue_next(&self) -> Position {
        Position(self.next)
    }

    /// Everything before is acknowledged or dropped.
    pub const fn queue_released(&self) -> Position {
        Position(self.cursors.gone())
    }

    /// Records that wait for an acknowledgement.
    pub const fn waiting(&self) -> u64 {
        self.next - self.cursors.gone()
    }

    /// Records appended since the log was made, whatever became of them.
    pub const fn appended(&self) -> u64 {
        self.next
    }

    /// What was counted.
    pub const fn counters(&self) -> FlashCounters {
        self.counters
    }

    /// How often each page was erased in the life of the log: of cursors, of records.
    pub const fn erased_each(&self) -> (u32, u32) {
        (self.cursor_ring.erased_each(), self.records.erased_each())
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> F {
        self.device.flash
    }

    /// The flash itself, for what its board can do beside the log. Its region is the log's.
    pub fn flash(&mut self) -> &mut F {
        &mut self.device.flash
    }

    /// The application's bytes.
    pub fn application(&self) -> &[u8] {
        self.cursors.application()
    }

    /// Appends a record that [`record::encode`] made; its identity is set here. Durable when this
    /// returns.
    ///
    /// # Errors
    /// [`FlashError::Full`], [`FlashError::WornOut`], [`FlashError::TooLong`] or
    /// [`FlashError::Device`]. The queue holds what it held.
    pub fn append(&mut self, record: &mut [u8]) -> Result<Position, FlashError> {
        let length_max = self.records.page_bytes() as usize - HEADER_BYTES;
        if record.len() < RECORD_HEADER_BYTES || record.len() > length_max {
            return Err(FlashError::TooLong);
        }
        let position = self.queue_next();
        record::stamp(record, self.id_at(position), Stamp::UNSET, crc32c);
        if !self.records.fits(record.len()) {
            self.make_room()?;
        }
        let header = self.header(record, 1);
        let limit = self.record_limit();
        let (ring, device) = (&mut self.records, &mut self.device);
        ring.append(device, limit, header, record, &mut self.counters)?;
        self.next += 1;
        Ok(position)
    }

    fn id_at(&self, position: Position) -> RecordId {
        RecordId {
            origin: self.config.origin,
            epoch: self.epoch(),
            class: self.config.class,
            seq: Seq(position.0 - self.cursors.base + 1),
        }
    }

    fn header(&self, entries: &[u8], records: u16) -> Header {
        Header {
            bytes: entries.len() as u32,
            segment: 0,
            first_ordinal: self.next,
            entries_crc: crc32c(entries),
            records,
        }
    }

    /// The newest life that records may begin.
    const fn record_limit(&self) -> u32 {
        self.oldest.saturating_add(self.config.record_pages as u32 - 1)
    }

    /// Lets pages go that hold nothing that is wanted; drops one that does where that is the policy.
    fn make_room(&mut self) -> Result<(), FlashError> {
        self.trim()?;
        if self.records.newest >= self.record_limit() {
            if self.config.when_full == WhenFull::Refuse {
                return Err(FlashError::Full);
            }
            self.drop_oldest()?;
        }
        // The page that is erased next may hold what only the cursors in memory have let go.
        self.sync()
    }

    /// The first life after `life` that the ring holds, and its first ordinal.
    fn life_after(&mut self, life: u32) -> Result<Option<(u32, u64)>, FlashError> {
        for life in life + 1..=self.records.newest {
            if let Some(header) = self.records.life(&mut self.device, life)? {
                return Ok(Some((life, header.first_ordinal)));
            }
        }
        Ok(None)
    }

    fn trim(&mut self) -> Result<(), FlashError> {
        while let Some((life, first)) = self.life_after(self.oldest)? {
            if first > self.cursors.gone() {
                break;
            }
            self.oldest = life;
        }
        Ok(())
    }

    fn drop_oldest(&mut self) -> Result<(), FlashError> {
        let Some((_, first)) = self.life_after(self.oldest)? else {
            return Err(FlashError::Full);
        };
        self.counters.dropped += first.saturating_sub(self.cursors.gone());
        self.cursors.kept = self.cursors.kept.max(first);
        self.dirty = true;
        self.trim()
    }

    /// Changes the cursors and makes that durable; or neither. What is to be written is made of a
    /// copy, and the change is made again once it is written.
    fn change(&mut self, change: &dyn Fn(&mut Cursors) -> Changed) -> Changed {
        let mut entry = [0; CURSORS_BYTES_MAX];
        let length = self.cursors.encode_changed(change, &mut entry)?;
        let entry = &entry[..length];
        let header = self.header(entry, 0);
        let ring = &mut self.cursor_ring;
        // The page with the newest cursors stays until newer ones are in another.
        let limit = ring.newest.saturating_add(u32::from(self.config.cursor_pages) - 1);
        ring.append(&mut self.device, limit, header, entry, &mut self.counters)?;
        self.dirty = false;
        change(&mut self.cursors)
    }

    /// Entries of the queue before `through` are acknowledged. Durable with what is written next of
    /// the cursors; until then a restart sends some again, and the receiver knows them.
    pub fn release(&mut self, through: Position) {
        let ordinal = through.0.min(self.next);
        if ordinal > self.cursors.released {
            self.cursors.released = ordinal;
            self.dirty = true;
        }
    }

    /// Makes the acknowledgements durable that are not yet.
    ///
    /// # Errors
    /// [`FlashError::WornOut`] or [`FlashError::Device`]; they are kept in memory.
    pub fn sync(&mut self) -> Result<(), FlashError> {
        if self.dirty { self.change(&|_| Ok(())) } else { Ok(()) }
    }

    /// How far a stream of that owner, queue and class was taken, and in which epoch; `None` when
    /// it never was.
    pub fn place(&self, stream: &StreamKey) -> Option<(Epoch, Position)> {
        self.cursors.place(stream)
    }

    /// Notes, as one write, that a stream was taken up to `next` and what that made of the
    /// application's bytes. Durable when this returns.
    ///
    /// # Errors
    /// [`FlashError::TooLong`], [`FlashError::TooManyStreams`], [`FlashError::WornOut`] or
    /// [`FlashError::Device`]; neither has changed.
    pub fn take(
        &mut self,
        stream: &StreamKey,
        next: Position,
        application: &[u8],
    ) -> Result<(), FlashError> {
        self.change(&|cursors| {
            cursors.set_place(stream, next)?;
            cursors.set_application(application)
        })
    }

    /// Stores the application's bytes. Durable when this returns.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn set_application(&mut self, application: &[u8]) -> Result<(), FlashError> {
        self.change(&|cursors| cursors.set_application(application))
    }

    /// Copies what the queue holds from `first` on to `out`: whole records, or a part of the first.
    ///
    /// # Errors
    /// [`FlashError::Device`].
    pub fn fill(&mut self, first: Cursor, out: &mut [u8]) -> Result<FlashFill, FlashError> {
        let mut records = Records { first, ..Records::default() };
        let mut ordinal = first.position.0;
        if ordinal < self.cursors.gone() {
            let dropped = ordinal >= self.cursors.released;
            let reason = if dropped { SkipReason::Dropped } else { SkipReason::Lost };
            return Ok(FlashFill::Gone { next: self.queue_released(), reason });
        }
        let (mut offset, mut at) = (first.offset as usize, 0);
        while at < out.len() && ordinal < self.next {
            let found = self.locate(ordinal)?;
            let here = found.filter(|batch| batch.header.first_ordinal == ordinal);
            let Some(batch) = here.filter(|batch| offset < batch.header.bytes as usize) else {
                if records.completed > 0 {
                    break;
                }
                // A reader that has more of a record than there is gets no more of it either.
                let held = found.map_or(self.next, |batch| batch.header.first_ordinal);
                let next = held.max(ordinal + 1);
                self.counters.lost += next - ordinal;
                return Ok(FlashFill::Gone { next: Position(next), reason: SkipReason::Lost });
            };
            let rest = batch.header.bytes as usize - offset;
            let room = &mut out[at..];
            if rest > room.len() {
                if records.completed == 0 {
                    records.tail_bytes = room.len() as u32;
                    self.device.read(batch.entries_at + offset as u32, room)?;
                    at = out.len();
                }
                break;
            }
            self.device.read(batch.entries_at + offset as u32, &mut room[..rest])?;
            at += rest;
            records.completed += 1;
            (ordinal, offset) = (ordinal + 1, 0);
        }
        Ok(if at == 0 { FlashFill::End } else { FlashFill::Records(records, at) })
    }

    /// The batch with the record `ordinal`, or the first after it.
    fn locate(&mut self, ordinal: u64) -> Result<Option<Batch>, FlashError> {
        let (mut life, mut at, from) = self.hint;
        if life < self.oldest || from > ordinal {
            (life, at) = (self.oldest, 0);
            while let Some((after, first)) = self.life_after(life)? {
                if first > ordinal {
                    break;
                }
                life = after;
            }
        }
        loop {
            let mut behind = at;
            while let Some(batch) = self.records.next_batch(&mut self.device, life, &mut behind)? {
                if batch.whole && batch.header.first_ordinal >= ordinal {
                    self.hint = (life, at, batch.header.first_ordinal);
                    return Ok(Some(batch));
                }
                at = behind;
            }
            match self.life_after(life)? {
                Some((after, _)) => (life, at) = (after, 0),
                None => return Ok(None),
            }
        }
    }
}
