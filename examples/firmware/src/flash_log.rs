//! Records and places in raw flash, in the log format of the core.
//!
//! Pages are used in a ring: segment n of the log stands in page n modulo [`PAGES`], is erased
//! before it is used, and begins with a batch that holds the whole [`State`]. So the newest page
//! tells everything but the records before it, and the oldest page may go as soon as its records
//! are released. A batch begins at a word and counts as a whole or not at all; where a power cut
//! has torn one, the rest of the page is left as it is and the log goes on in the next page.

use replcore::log::batch::{self, Header};
use replcore::log::crc32c;
use replcore::log::record::{self, Entries, KIND_RECORD, Record};
use replcore::stream::{Cursor, Epoch, Position, RecordId, Seq};
use replcore::time::Stamp;
use replcore::wire::Records;

/// Bytes of a page, the unit of erasure.
pub const PAGE_BYTES: usize = 4096;
/// Pages of the log.
pub const PAGES: usize = 8;
/// Longest record kept here.
pub const RECORD_BYTES_MAX: usize = 256;

const STATE_KIND: u8 = 2;
const STATE_BYTES: usize = 100;
const BATCH_BYTES_MAX: usize = 1024;
/// A page that holds nothing.
const NO_SEGMENT: u64 = u64::MAX;

/// Memory that is erased by pages to ones and written once, word by word.
pub trait Flash {
    /// What a page holds now.
    fn page(&self, page: usize) -> &[u8];
    /// Writes whole words that were not written since the page was erased.
    fn program(&mut self, page: usize, at: usize, words: &[u8]);
    /// Sets all bits of a page.
    fn erase(&mut self, page: usize);
}

/// How far an incoming stream was taken, by its epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub epoch: u32,
    pub position: u64,
}

/// Everything durable beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Drawn when the log was made.
    pub instance: u64,
    /// The life of the log.
    pub epoch: u32,
    /// The ordinal of the record at position 0 of the outgoing queue.
    pub base: u64,
    /// Records with lower ordinals are acknowledged.
    pub released: u64,
    /// The node that owns the incoming streams.
    pub owner: u64,
    /// How far they were taken, by class.
    pub places: [Place; 4],
    /// Commands carried out, and a digest of them in order: what the application keeps.
    pub commands: u64,
    pub digest: u32,
    /// Readings to post in all.
    pub target: u32,
}

impl State {
    fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        out[0..8].copy_from_slice(&self.instance.to_le_bytes());
        out[8..16].copy_from_slice(&self.base.to_le_bytes());
        out[16..24].copy_from_slice(&self.released.to_le_bytes());
        out[24..32].copy_from_slice(&self.owner.to_le_bytes());
        out[32..40].copy_from_slice(&self.commands.to_le_bytes());
        out[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        out[44..48].copy_from_slice(&self.digest.to_le_bytes());
        out[48..52].copy_from_slice(&self.target.to_le_bytes());
        for (index, place) in self.places.iter().enumerate() {
            let at = 52 + index * 12;
            out[at..at + 8].copy_from_slice(&place.position.to_le_bytes());
            out[at + 8..at + 12].copy_from_slice(&place.epoch.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STATE_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let place =
            |index: usize| Place { position: long(52 + index * 12), epoch: word(60 + index * 12) };
        Some(Self {
            instance: long(0),
            base: long(8),
            released: long(16),
            owner: long(24),
            commands: long(32),
            epoch: word(40),
            digest: word(44),
            target: word(48),
            places: [place(0), place(1), place(2), place(3)],
        })
    }
}

/// The log has no room until records are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The log: what is where. The records themselves stay in flash.
pub struct FlashLog {
    state: State,
    /// The state in flash, to write it again only when it has changed.
    written: State,
    /// The segment being written, and where its next batch goes.
    segment: u64,
    end: usize,
    /// By page: the segment it holds and the ordinal of its first record.
    pages: [(u64, u64); PAGES],
    /// The ordinal of the next record.
    next: u64,
}

impl FlashLog {
    /// Reads the log in `flash`. Where there is none, makes one for a node with that `instance` and
    /// the first epoch.
    pub fn open(flash: &mut impl Flash, random: u64) -> Self {
        let mut log = Self {
            state: State::default(),
            written: State::default(),
            segment: NO_SEGMENT,
            end: PAGE_BYTES,
            pages: [(NO_SEGMENT, 0); PAGES],
            next: 0,
        };
        for page in 0..PAGES {
            let bytes = flash.page(page);
            let segment = u64_at(bytes, 8);
            let sound = segment % PAGES as u64 == page as u64 && segment != NO_SEGMENT;
            if let (true, Ok((header, _))) = (sound, batch::read(bytes, segment, crc32c)) {
                log.pages[page] = (segment, header.first_ordinal);
            }
        }
        let newest =
            log.pages.iter().map(|page| page.0).filter(|&segment| segment != NO_SEGMENT).max();
        let Some(newest) = newest else {
            log.state.instance = random | 1;
            log.state.epoch = Epoch::first(random >> 32).0;
            return log;
        };
        log.segment = newest;
        // A page that is missing in the row, or damaged, ends what the log still holds.
        let row =
            |age: &u64| newest.checked_sub(*age).is_some_and(|s| log.pages[log.page_of(s)].0 == s);
        let held = (0..PAGES as u64).take_while(row).count() as u64;
        for page in &mut log.pages {
            if page.0 != NO_SEGMENT && page.0 + held <= newest {
                page.0 = NO_SEGMENT;
            }
        }
        log.read_newest(flash);
        // A page with acknowledged records may have gone before their release was written.
        let oldest = log.pages.iter().filter(|page| page.0 != NO_SEGMENT).map(|page| page.1).min();
        log.state.released = log.state.released.max(oldest.unwrap_or(0));
        log.written = log.state;
        log
    }

    fn read_newest(&mut self, flash: &impl Flash) {
        let page = self.page_of(self.segment);
        let bytes = flash.page(page);
        let mut at = 0;
        while let Ok((header, entries)) = batch::read(&bytes[at..], self.segment, crc32c) {
            for (kind, entry) in Entries::new(entries) {
                if kind == STATE_KIND
                    && let Some(state) = State::decode(&entry[record::ENTRY_HEADER_BYTES..])
                {
                    self.state = state;
                }
            }
            self.next = header.first_ordinal + u64::from(header.records);
            at = words(at + batch::HEADER_BYTES + header.bytes as usize);
        }
        // What is torn cannot be written over.
        let clean = bytes[at..].iter().all(|&byte| byte == 0xff);
        self.end = if clean { at } else { PAGE_BYTES };
    }

    /// What is durable, with the changes of this life that are not yet.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The number of records ever in the outgoing queue.
    pub const fn queue_next(&self) -> Position {
        Position(self.next - self.state.base)
    }

    /// Everything before is acknowledged.
    pub const fn queue_released(&self) -> Position {
        Position(self.state.released.saturating_sub(self.state.base))
    }

    /// Records that are not acknowledged.
    pub const fn unreleased(&self) -> u64 {
        self.next - self.state.released
    }

    /// Records posted since the log was made.
    pub const fn posted(&self) -> u64 {
        self.next
    }

    /// Whether a record may have no room until others are released.
    pub fn is_full(&self) -> bool {
        let needed = words(batch::HEADER_BYTES + RECORD_BYTES_MAX)
            + words(record::ENTRY_HEADER_BYTES + STATE_BYTES);
        self.end + needed > PAGE_BYTES && !self.has_page(true)
    }

    /// Entries of the outgoing queue before `through` are acknowledged. Durable with the next batch;
    /// until then a restart sends some again, and the receiver knows them.
    pub fn release(&mut self, through: Position) {
        let ordinal = (self.state.base + through.0).min(self.next);
        self.state.released = self.state.released.max(ordinal);
    }

    /// Stores a state. Durable when this returns.
    pub fn store(&mut self, flash: &mut impl Flash, state: State) -> Result<(), Full> {
        let before = self.state;
        self.state = state;
        self.append(flash, &[]).inspect_err(|_| self.state = before)
    }

    /// Stores a record that `make` writes for the place it gets. Durable when this returns.
    pub fn post(
        &mut self,
        flash: &mut impl Flash,
        make: impl FnOnce(Epoch, Seq, &mut [u8]) -> usize,
    ) -> Result<(), Full> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let seq = Seq(self.next - self.state.base + 1);
        let length = make(Epoch(self.state.epoch), seq, &mut bytes);
        self.append(flash, &bytes[..length])
    }

    /// Takes another epoch: what is not acknowledged gets new identities when it is sent, always
    /// the same, and the queue begins anew with it.
    pub fn renumber(&mut self, flash: &mut impl Flash, epoch: Epoch) -> Result<(), Full> {
        let state = State { epoch: epoch.0, base: self.state.released, ..self.state };
        self.store(flash, state)
    }

    fn append(&mut self, flash: &mut impl Flash, record: &[u8]) -> Result<(), Full> {
        let mut buf = [0xff; BATCH_BYTES_MAX];
        let mut length = self.batch(self.state != self.written, record, &mut buf);
        if self.end + words(length) > PAGE_BYTES {
            self.begin_page(flash, !record.is_empty())?;
            length = self.batch(true, record, &mut buf);
        }
        let page = self.page_of(self.segment);
        flash.program(page, self.end, &buf[..words(length)]);
        if self.end == 0 {
            self.pages[page] = (self.segment, self.next);
        }
        self.end += words(length);
        self.next += u64::from(!record.is_empty());
        self.written = self.state;
        Ok(())
    }

    /// Puts together a batch for the current segment.
    fn batch(&self, with_state: bool, record: &[u8], buf: &mut [u8]) -> usize {
        let mut length = batch::HEADER_BYTES + record.len();
        buf[batch::HEADER_BYTES..length].copy_from_slice(record);
        if with_state {
            let state = self.state.encode();
            let room = &mut buf[length..];
            // The buffer holds the longest record and a state.
            length += record::encode_entry(STATE_KIND, &state, room, crc32c).unwrap_or(0);
        }
        let header = Header {
            bytes: (length - batch::HEADER_BYTES) as u32,
            segment: self.segment,
            first_ordinal: self.next,
            entries_crc: crc32c(&buf[batch::HEADER_BYTES..length]),
            records: u16::from(!record.is_empty()),
        };
        header.encode(buf, crc32c);
        buf[length..words(length)].fill(0xff);
        length
    }

    fn begin_page(&mut self, flash: &mut impl Flash, for_record: bool) -> Result<(), Full> {
        if !self.has_page(for_record) {
            return Err(Full);
        }
        let segment = self.segment.wrapping_add(1);
        let page = self.page_of(segment);
        self.pages[page].0 = NO_SEGMENT;
        flash.erase(page);
        (self.segment, self.end) = (segment, 0);
        Ok(())
    }

    /// Whether the log can go on in another page. Records leave a page free, so that states can be
    /// written while the queue is full.
    fn has_page(&self, for_record: bool) -> bool {
        let segment = self.segment.wrapping_add(1);
        self.may_go(self.page_of(segment))
            && (!for_record || self.may_go(self.page_of(segment + 1)))
    }

    /// Whether a page holds nothing that is still wanted.
    fn may_go(&self, page: usize) -> bool {
        let (segment, _) = self.pages[page];
        if segment == NO_SEGMENT {
            return true;
        }
        if segment == self.segment {
            return false;
        }
        // Its records end where those of the page after it begin.
        self.pages[self.page_of(segment + 1)].1 <= self.state.released
    }

    fn page_of(&self, segment: u64) -> usize {
        (segment % PAGES as u64) as usize
    }

    /// Copies what the outgoing queue holds from `first` on to `out`: whole records, or a part of
    /// the first. The head of the frame and the bytes of it; `None` at the end of the queue.
    pub fn fill(
        &self,
        flash: &impl Flash,
        first: Cursor,
        out: &mut [u8],
    ) -> Option<(Records, usize)> {
        let mut records = Records { first, ..Records::default() };
        let mut ordinal = self.state.base + first.position.0;
        let (mut offset, mut at) = (first.offset as usize, 0);
        let mut copy = [0; RECORD_BYTES_MAX];
        while let Some(length) = self.read(flash, ordinal, &mut copy) {
            let rest = copy[..length].get(offset..)?;
            if rest.len() <= out.len() - at {
                out[at..at + rest.len()].copy_from_slice(rest);
                at += rest.len();
                records.completed += 1;
                (ordinal, offset) = (ordinal + 1, 0);
                continue;
            }
            if records.completed == 0 {
                at = out.len();
                out.copy_from_slice(&rest[..at]);
                records.tail_bytes = at as u32;
            }
            break;
        }
        (at > 0).then_some((records, at))
    }

    /// Copies one record, with its identity of this epoch.
    fn read(&self, flash: &impl Flash, ordinal: u64, out: &mut [u8]) -> Option<usize> {
        if ordinal < self.state.released || ordinal >= self.next {
            return None;
        }
        let live = self.pages.iter().filter(|page| page.0 != NO_SEGMENT && page.1 <= ordinal);
        let &(segment, _) = live.max_by_key(|page| page.0)?;
        let bytes = flash.page(self.page_of(segment));
        let mut at = 0;
        while let Ok(header) = Header::decode(&bytes[at..], segment, crc32c) {
            let entries = &bytes[at + batch::HEADER_BYTES..][..header.bytes as usize];
            if ordinal < header.first_ordinal + u64::from(header.records) {
                let mut own = Entries::new(entries).filter(|entry| entry.0 == KIND_RECORD);
                let (_, record) = own.nth((ordinal - header.first_ordinal) as usize)?;
                let out = out.get_mut(..record.len())?;
                out.copy_from_slice(record);
                let id = Record::parse(record).ok()?.id();
                if id.epoch.0 != self.state.epoch {
                    let seq = Seq(ordinal - self.state.base + 1);
                    let id = RecordId { epoch: Epoch(self.state.epoch), seq, ..id };
                    record::stamp(out, id, Stamp::UNSET, crc32c);
                }
                return Some(record.len());
            }
            at = words(at + batch::HEADER_BYTES + header.bytes as usize);
        }
        None
    }
}

/// The next length that is whole words.
const fn words(length: usize) -> usize {
    (length + 3) & !3
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
