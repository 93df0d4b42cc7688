//! The log: batches under way, batches just committed, and the segments behind them.

use std::collections::VecDeque;
use std::io;

use replcore::contract::Failure;
use replcore::log::batch::{self, HEADER_BYTES as BATCH_HEADER_BYTES};
use replcore::log::record::{ENTRY_HEADER_BYTES, KIND_RECORD};

use super::Identity;
use super::disk::{Disk, FileId};
use super::segment::{self, Index, Mark, Segment, length_at};
use super::survey::Survey;

/// Where an empty segment ends.
const FIRST_END: u64 = segment::HEADER_BYTES as u64;
/// Every so many records of a batch their place is noted.
const MARK_RECORDS: u32 = 64;
/// Bytes of one read of records.
const READ_BYTES: usize = 128 << 10;
/// Indexes of segments kept in memory, that of the newest included.
const INDEXES_MAX: usize = 16;
/// Files of segments kept open.
const OPEN_MAX: usize = 64;
/// Most records of one batch.
pub(super) const BATCH_RECORDS_MAX: u32 = u16::MAX as u32;

/// A batch: under way, written, or just committed.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    segment: u64,
    offset: u64,
    first_ordinal: u64,
    records: u32,
    /// Where the records end and the notes begin.
    records_end: usize,
    /// Where every [`MARK_RECORDS`]th record starts.
    marks: Vec<u32>,
}

impl Buffer {
    /// What it takes while it is kept.
    const fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.marks.capacity() * size_of::<u32>()
    }
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// It is not held; the next that may be has this ordinal.
    Lost(u64),
    /// The disk does not work.
    Io,
}

/// Damage that was met while reading and is not told yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damage {
    pub segment: u64,
    /// Other damage in this segment was met before.
    pub again: bool,
    /// What the segment held.
    pub first_ordinal: u64,
    pub records: u64,
    /// What of it cannot be read, and the first of that.
    pub lost: u64,
    pub first_lost: u64,
}

/// Where a walk over a segment ended.
#[derive(Clone, Copy, Debug)]
enum Walked {
    /// At the record, which is sound and here in the window; whole entries follow up to the end.
    Found(usize, usize),
    /// Behind the place where it would be.
    Missing,
    /// At something that is not sound.
    Damaged(u32),
}

/// Sizes of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogConfig {
    pub segment_bytes: u64,
    pub log_bytes_max: u64,
    pub recent_bytes_max: usize,
    pub sync: bool,
}

/// The log.
pub(super) struct Log<D> {
    pub disk: D,
    pub identity: Identity,
    config: LogConfig,
    pub segments: VecDeque<Segment>,
    spare: Option<Segment>,
    /// Files that may become segments: name and length.
    pool: Vec<(String, u64)>,
    next_number: u64,
    open: Buffer,
    closed: Vec<Buffer>,
    recent: VecDeque<Buffer>,
    /// Memory that `recent` takes.
    recent_bytes: usize,
    idle: Vec<Vec<u8>>,
    /// Bytes of the last batch: the next is likely to be as long.
    last_batch_bytes: usize,
    pub next_ordinal: u64,
    /// Records before this one are committed.
    pub durable_ordinal: u64,
    window: Vec<u8>,
    /// Where in its file the window begins.
    window_at: u64,
    reads: u64,
    /// At most one for each segment and commit.
    pub damage: Vec<Damage>,
    pub written_bytes: u64,
    pub sync_us: u64,
}

/// A failure to make space, as the caller is told.
pub(super) fn failure_of(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Failure::Full
        }
        _ => Failure::Io,
    }
}

impl<D: Disk> Log<D> {
    /// A log with these segments, the last of which goes on.
    pub(super) fn new(
        disk: D,
        identity: Identity,
        config: LogConfig,
        segments: VecDeque<Segment>,
        next_number: u64,
    ) -> Self {
        let next_ordinal = segments.back().map_or(0, |last| last.next_ordinal);
        Self {
            disk,
            identity,
            config,
            segments,
            spare: None,
            pool: Vec::new(),
            next_number,
            open: Buffer::default(),
            closed: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            idle: Vec::new(),
            last_batch_bytes: 0,
            next_ordinal,
            durable_ordinal: next_ordinal,
            window: Vec::new(),
            window_at: 0,
            reads: 0,
            damage: Vec::new(),
            written_bytes: 0,
            sync_us: 0,
        }
    }

    /// Whether a batch with `bytes` more entries and `records` more records fits where the open
    /// batch would go.
    pub(super) fn fits(&self, bytes: usize, records: u32) -> bool {
        let Some(current) = self.segments.back() else { return false };
        let have = self.open.bytes.len().max(BATCH_HEADER_BYTES);
        current.end + (have + bytes) as u64 <= current.capacity
            && self.open.records + records <= BATCH_RECORDS_MAX
    }

    /// Whether only the count of records keeps a batch from going on.
    pub(super) fn fits_bytes(&self, bytes: usize) -> bool {
        self.fits(bytes, 0)
    }

    /// Bytes on disk, with what waits to be used.
    pub(super) fn bytes(&self) -> u64 {
        let segments = self.segments.iter().chain(&self.spare);
        segments.map(|segment| segment.capacity).sum::<u64>()
            + self.pool.iter().map(|file| file.1).sum::<u64>()
    }

    /// Sets the most bytes on disk.
    pub(super) const fn set_bytes_max(&mut self, most: u64) {
        self.config.log_bytes_max = most;
    }

    /// Bytes of segments that hold something.
    pub(super) fn held_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.capacity).sum()
    }

    /// Makes sure that there is a segment to go on in with room for a batch of `bytes`.
    pub(super) fn prepare(&mut self, bytes: usize) -> Result<(), Failure> {
        let needed = (segment::HEADER_BYTES + BATCH_HEADER_BYTES + bytes) as u64;
        if self.spare.as_ref().is_some_and(|spare| spare.capacity >= needed) {
            return Ok(());
        }
        let capacity = self.config.segment_bytes.max(needed.next_multiple_of(4096));
        let pooled = self.pool.iter().position(|file| file.1 == capacity);
        if pooled.is_none() && self.bytes() + capacity > self.config.log_bytes_max {
            self.drop_pool();
            if self.bytes() + capacity > self.config.log_bytes_max {
                return Err(Failure::Full);
            }
        }
        self.make_spare(capacity, pooled).map_err(|error| failure_of(&error))
    }

    /// Gives files back that wait to be used: their size may be the wrong one.
    fn drop_pool(&mut self) {
        for (name, _) in std::mem::take(&mut self.pool) {
            let _ = self.disk.remove(&name);
        }
    }

    fn make_spare(&mut self, capacity: u64, pooled: Option<usize>) -> io::Result<()> {
        if let Some(small) = self.spare.take() {
            self.retire(small);
        }
        let number = self.next_number;
        let (name, file) = match pooled {
            Some(at) => {
                // Its old name must be gone for good before its content is.
                self.disk.sync_names()?;
                let name = self.pool[at].0.clone();
                let file = self.disk.open(&name)?;
                self.pool.swap_remove(at);
                (name, file)
            }
            None => {
                let name = segment::free_name(number);
                let file = self.disk.create(&name, capacity)?;
                (name, file)
            }
        };
        let made = self.start_segment(number, &name, file);
        if let Err(error) = made {
            self.disk.close(file);
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        self.next_number += 1;
        self.spare = Some(Segment::new(number, file, capacity));
        Ok(())
    }

    fn start_segment(&mut self, number: u64, name: &str, file: FileId) -> io::Result<()> {
        self.disk.write_at(file, 0, &segment::header(number, &self.identity))?;
        self.disk.sync_data(file)?;
        self.disk.rename(name, &segment::file_name(number))?;
        self.disk.sync_names()
    }

    /// Goes on in the segment that was prepared; the open batch will be the first in it.
    pub(super) fn roll(&mut self) {
        let Some(mut next) = self.spare.take() else { return };
        next.first_ordinal = self.next_ordinal - u64::from(self.open.records);
        next.next_ordinal = next.first_ordinal;
        next.index = Some(Index::default());
        self.segments.push_back(next);
        let capacity = self.config.segment_bytes;
        if self.pool.is_empty() && self.bytes() + capacity <= self.config.log_bytes_max {
            let name = segment::free_name(self.next_number);
            self.disk.create_ahead(&name, capacity);
        }
    }

    /// Prepares the next segment while there is time. That it fails is told when it is needed.
    pub(super) fn prepare_ahead(&mut self) {
        let half_full =
            self.segments.back().is_none_or(|current| current.end > current.capacity / 2);
        // A file that is still being made is waited for only when there is no room without it.
        if self.spare.is_none() && half_full && !self.disk.is_creating() {
            let _ = self.prepare(0);
        }
    }

    /// A segment is not needed any more: its file may become another.
    pub(super) fn retire(&mut self, segment: Segment) {
        let name = segment::file_name(segment.number);
        if let Some(file) = segment.file {
            self.disk.close(file);
        }
        let free = segment::free_name(segment.number);
        let keep = segment.capacity == self.config.segment_bytes && self.pool.len() < 4;
        if keep && self.disk.rename(&name, &free).is_ok() {
            self.pool.push((free, segment.capacity));
        } else {
            let _ = self.disk.remove(&name);
        }
    }

    /// Adds records to the open batch; `starts` are their places in `bytes`. The caller has seen
    /// to it that they fit.
    pub(super) fn push(&mut self, bytes: &[u8], starts: &[u32]) {
        self.begin();
        let at = self.open.bytes.len();
        let base = starts.first().copied().unwrap_or(0);
        let first = (MARK_RECORDS - self.open.records % MARK_RECORDS) % MARK_RECORDS;
        for start in starts.iter().skip(first as usize).step_by(MARK_RECORDS as usize) {
            self.open.marks.push(at as u32 + start - base);
        }
        self.open.bytes.extend_from_slice(bytes);
        self.open.records += starts.len() as u32;
        self.next_ordinal += starts.len() as u64;
    }

    /// The last `bytes` bytes that were pushed.
    pub(super) fn last_pushed(&mut self, bytes: usize) -> &mut [u8] {
        let at = self.open.bytes.len() - bytes;
        &mut self.open.bytes[at..]
    }

    /// Bytes of the open batch.
    pub(super) fn open_bytes(&self) -> usize {
        self.open.bytes.len()
    }

    fn begin(&mut self) {
        if self.open.bytes.is_empty() {
            if let Some(idle) = self.idle.pop() {
                self.open.bytes = idle;
            }
            self.open.bytes.clear();
            self.open.bytes.reserve(self.last_batch_bytes);
            self.open.bytes.resize(BATCH_HEADER_BYTES, 0);
            self.open.first_ordinal = self.next_ordinal;
        }
    }

    /// What is in the open batch so far.
    pub(super) fn open_entries(&self) -> &[u8] {
        self.open.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default()
    }

    /// Whether the open batch has records.
    pub(super) fn open_records(&self) -> u32 {
        self.open.records
    }

    /// The number of the segment that is written to.
    pub(super) fn current_number(&self) -> u64 {
        self.segments.back().map_or(0, |current| current.number)
    }

    /// Whether batches wait to be written.
    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// The next batch begins at this ordinal, behind a gap. No batch is open.
    pub(super) fn start_at(&mut self, ordinal: u64) {
        debug_assert!(self.open.bytes.is_empty(), "no batch is open");
        self.next_ordinal = ordinal;
        if let Some(last) = self.segments.back_mut().filter(|last| last.end == FIRST_END) {
            last.first_ordinal = ordinal;
            last.next_ordinal = ordinal;
        }
    }

    /// Bytes of the batches that wait to be written.
    pub(super) fn closed_bytes(&self) -> usize {
        self.closed.iter().map(|batch| batch.bytes.len()).sum()
    }

    /// Ends the open batch with `notes`, which fit.
    pub(super) fn close_batch(&mut self, notes: &[u8]) {
        self.begin();
        let mut batch = std::mem::take(&mut self.open);
        batch.records_end = batch.bytes.len();
        batch.bytes.extend_from_slice(notes);
        let Some(current) = self.segments.back_mut() else { return };
        let entries = &batch.bytes[BATCH_HEADER_BYTES..];
        let header = batch::Header {
            bytes: entries.len() as u32,
            segment: current.number,
            first_ordinal: batch.first_ordinal,
            entries_crc: crc32c::crc32c(entries),
            records: batch.records as u16,
        };
        header.encode(&mut batch.bytes, crc32c::crc32c);
        batch.segment = current.number;
        batch.offset = current.end;
        assert!(current.end + batch.bytes.len() as u64 <= current.capacity, "a batch fits");
        current.end += batch.bytes.len() as u64;
        self.last_batch_bytes = batch.bytes.len();
        self.closed.push(batch);
    }

    /// Writes and syncs the batches that were closed.
    pub(super) fn commit(&mut self, wall_ms: u64) -> io::Result<()> {
        let mut at = 0;
        while at < self.closed.len() {
            let number = self.closed[at].segment;
            let first = self.segments.partition_point(|segment| segment.number < number);
            let file = self.segments[first].open(&mut self.disk)?;
            while let Some(batch) = self.closed.get(at).filter(|batch| batch.segment == number) {
                self.disk.write_at(file, batch.offset, &batch.bytes)?;
                self.written_bytes += batch.bytes.len() as u64;
                at += 1;
            }
            if self.config.sync {
                let started = std::time::Instant::now();
                self.disk.sync_data(file)?;
                self.sync_us += started.elapsed().as_micros() as u64;
            }
            self.segments[first].at_ms = wall_ms;
        }
        for batch in std::mem::take(&mut self.closed) {
            self.keep_recent(batch);
        }
        self.durable_ordinal = self.next_ordinal;
        Ok(())
    }

    /// Syncs every open segment, for a log whose commits are not synced.
    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        for segment in &mut self.segments {
            if let Some(file) = segment.file {
                self.disk.sync_data(file)?;
            }
        }
        Ok(())
    }

    fn keep_recent(&mut self, mut batch: Buffer) {
        let position = self.segments.partition_point(|segment| segment.number < batch.segment);
        let target = &mut self.segments[position];
        target.next_ordinal = batch.first_ordinal + u64::from(batch.records);
        if let Some(index) = &mut target.index {
            let batch_end = (batch.offset + batch.bytes.len() as u64) as u32;
            for (at, mark) in batch.marks.iter().enumerate() {
                let ordinal = batch.first_ordinal + at as u64 * u64::from(MARK_RECORDS);
                let offset = batch.offset as u32 + mark;
                index.add(Mark { ordinal, offset, batch_end });
            }
        }
        if batch.records > 0 {
            // Room that is left over counts against what is kept. A little of it is for the batch
            // that gets this memory next: giving back and asking anew costs more than that.
            if batch.bytes.capacity() / 2 > batch.bytes.len() {
                batch.bytes.shrink_to_fit();
            }
            self.recent_bytes += batch.memory_bytes();
            self.recent.push_back(batch);
        } else {
            self.reuse(batch.bytes);
        }
        while self.recent_bytes > self.config.recent_bytes_max {
            let Some(old) = self.recent.pop_front() else { break };
            self.recent_bytes -= old.memory_bytes();
            self.reuse(old.bytes);
        }
    }

    /// Keeps a buffer for the next batch, unless it is too big to be kept for nothing.
    fn reuse(&mut self, bytes: Vec<u8>) {
        if self.idle.len() < 2 && bytes.capacity() <= self.config.recent_bytes_max / 2 {
            self.idle.push(bytes);
        }
    }

    /// The segment that holds `ordinal`.
    pub(super) fn segment_of(&self, ordinal: u64) -> Option<usize> {
        let after = self.segments.partition_point(|segment| segment.first_ordinal <= ordinal);
        // Several segments may start with one ordinal, when the earlier ones hold only notes.
        let at = after.checked_sub(1)?;
        Some(at)
    }

    /// Adds to (`more`) or takes from the references of the segments that hold these ordinals.
    pub(super) fn refer(&mut self, first: u64, count: u64, more: bool) {
        let next = first + count;
        let Some(mut at) = self.segment_of(first) else { return };
        let mut low = first;
        while low < next {
            let end = self.segments.get(at + 1).map_or(u64::MAX, |after| after.first_ordinal);
            let part = end.min(next).saturating_sub(low);
            let references = &mut self.segments[at].references;
            *references = if more { *references + part } else { references.saturating_sub(part) };
            low += part;
            at += 1;
        }
    }

    /// The bytes of committed records from `ordinal` on: whole records one after the other, and how
    /// many of them are known to be sound.
    pub(super) fn view(&mut self, ordinal: u64) -> Result<(&[u8], u64), ReadError> {
        if ordinal >= self.durable_ordinal {
            return Err(ReadError::Lost(ordinal));
        }
        let after = self.recent.partition_point(|batch| batch.first_ordinal <= ordinal);
        if let Some(at) = after.checked_sub(1)
            && ordinal < self.recent[at].first_ordinal + u64::from(self.recent[at].records)
        {
            let batch = &self.recent[at];
            let within = (ordinal - batch.first_ordinal) as u32;
            let mut offset = batch.marks[(within / MARK_RECORDS) as usize] as usize;
            for _ in 0..within % MARK_RECORDS {
                offset += length_at(&batch.bytes, offset);
            }
            return Ok((&batch.bytes[offset..batch.records_end], u64::MAX));
        }
        self.view_disk(ordinal)
    }

    fn view_disk(&mut self, ordinal: u64) -> Result<(&[u8], u64), ReadError> {
        let at = self.segment_of(ordinal).ok_or(ReadError::Lost(
            self.segments.front().map_or(self.next_ordinal, |first| first.first_ordinal),
        ))?;
        let next_segment =
            self.segments.get(at + 1).map_or(self.next_ordinal, |after| after.first_ordinal);
        if ordinal >= self.segments[at].next_ordinal {
            return Err(ReadError::Lost(next_segment));
        }
        self.reads += 1;
        self.segments[at].used_at = self.reads;
        let mut walked = self.find(at, ordinal).map_err(|_| ReadError::Io)?;
        if let Walked::Damaged(offset) = walked
            && !self.segments[at].index.as_ref().is_some_and(|index| index.knows_damage(offset))
        {
            // It was sound when the index was made.
            self.segments[at].index = None;
            walked = self.find(at, ordinal).map_err(|_| ReadError::Io)?;
        }
        match (walked, &mut self.segments[at].index) {
            (Walked::Found(start, end), _) => Ok((&self.window[start..end], 1)),
            (walked, Some(index)) => {
                if let Walked::Damaged(offset) = walked {
                    index.add_damage(offset);
                }
                let next = index.after(ordinal).map_or(next_segment, |mark| mark.ordinal);
                Err(ReadError::Lost(next))
            }
            (_, None) => Err(ReadError::Io),
        }
    }

    /// Walks to `ordinal` in a segment, from the last record before it that is in the index.
    fn find(&mut self, at: usize, ordinal: u64) -> io::Result<Walked> {
        self.index(at)?;
        let file = self.segments[at].open(&mut self.disk)?;
        let (number, limit) = (self.segments[at].number, self.written_end(at));
        let mark = self.segments[at].index.as_ref().and_then(|index| index.before(ordinal));
        match mark {
            Some(mark) => self.walk(file, number, limit, mark, ordinal),
            None => Ok(Walked::Missing),
        }
    }

    /// Where the batches of a segment end that are written.
    fn written_end(&self, at: usize) -> u64 {
        let segment = &self.segments[at];
        let waits = self.closed.iter().find(|batch| batch.segment == segment.number);
        waits.map_or(segment.end, |batch| batch.offset)
    }

    fn walk(
        &mut self,
        file: FileId,
        number: u64,
        limit: u64,
        mark: Mark,
        ordinal: u64,
    ) -> io::Result<Walked> {
        let (mut offset, mut batch_end) = (u64::from(mark.offset), u64::from(mark.batch_end));
        let mut now = mark.ordinal;
        self.fill_window(file, offset, READ_BYTES, limit)?;
        loop {
            if offset >= batch_end {
                if offset >= limit {
                    return Ok(Walked::Missing);
                }
                let head = self.show(file, offset, BATCH_HEADER_BYTES, limit)?;
                let Ok(header) = batch::Header::decode(head, number, crc32c::crc32c) else {
                    return Ok(Walked::Damaged(offset as u32));
                };
                offset += BATCH_HEADER_BYTES as u64;
                batch_end = (offset + u64::from(header.bytes)).min(limit);
                now = header.first_ordinal;
                if now > ordinal {
                    return Ok(Walked::Missing);
                }
                continue;
            }
            let head = self.show(file, offset, ENTRY_HEADER_BYTES, batch_end)?;
            let length = if head.len() < ENTRY_HEADER_BYTES { 0 } else { length_at(head, 0) };
            let entry = self.show(file, offset, length, batch_end)?;
            let whole = entry.len() == length && length >= ENTRY_HEADER_BYTES;
            if !whole || entry[..4] != crc32c::crc32c(&entry[4..]).to_le_bytes() {
                return Ok(Walked::Damaged(offset as u32));
            }
            if entry[8] == KIND_RECORD && now == ordinal {
                let start = (offset - self.window_at) as usize;
                let end = self.window.len().min((batch_end - self.window_at) as usize);
                return Ok(Walked::Found(start, end));
            }
            now += u64::from(entry[8] == KIND_RECORD);
            offset += length as u64;
        }
    }

    /// `bytes` of a file from `at` on, fewer at `limit`. Neither is before the window.
    fn show(&mut self, file: FileId, at: u64, bytes: usize, limit: u64) -> io::Result<&[u8]> {
        let wanted = bytes.min(limit.saturating_sub(at) as usize);
        if at + wanted as u64 > self.window_at + self.window.len() as u64 {
            self.fill_window(file, at, wanted.max(READ_BYTES), limit)?;
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..(start + wanted).min(self.window.len())])
    }

    fn fill_window(&mut self, file: FileId, at: u64, bytes: usize, limit: u64) -> io::Result<()> {
        let size = bytes.min(limit.saturating_sub(at) as usize);
        self.window.resize(size, 0);
        if size <= READ_BYTES {
            self.window.shrink_to(READ_BYTES);
        }
        let read = self.disk.read_at(file, at, &mut self.window)?;
        self.window.truncate(read);
        self.window_at = at;
        Ok(())
    }

    /// Makes sure that the index of a segment is in memory.
    pub(super) fn index(&mut self, at: usize) -> io::Result<()> {
        if self.segments[at].index.is_some() {
            return Ok(());
        }
        self.shed();
        let file = self.segments[at].open(&mut self.disk)?;
        let end = self.written_end(at);
        let survey = Survey::of(&self.segments[at], file, end, &mut self.disk)?;
        let segment = &mut self.segments[at];
        let (places, told) = (survey.index.damaged_places(), segment.damage_told);
        segment.index = Some(survey.index);
        segment.damage_told = places.max(told);
        if places <= told || std::mem::take(&mut segment.told_at_start) {
            return Ok(());
        }
        let damage = Damage {
            segment: segment.number,
            again: told > 0,
            first_ordinal: segment.first_ordinal,
            records: segment.next_ordinal - segment.first_ordinal,
            lost: survey.lost,
            first_lost: survey.first_lost,
        };
        match self.damage.iter_mut().find(|known| known.segment == damage.segment) {
            Some(known) => *known = Damage { again: known.again, ..damage },
            None => self.damage.push(damage),
        }
        Ok(())
    }

    /// Forgets indexes and closes files that were not used for longest.
    fn shed(&mut self) {
        let last = self.segments.len().saturating_sub(1);
        for (index, most) in [(true, INDEXES_MAX), (false, OPEN_MAX)] {
            let has = |segment: &Segment| {
                if index { segment.index.is_some() } else { segment.file.is_some() }
            };
            while self.segments.iter().filter(|segment| has(segment)).count() >= most {
                let oldest = (0..last)
                    .filter(|at| has(&self.segments[*at]))
                    .min_by_key(|at| self.segments[*at].used_at);
                let Some(at) = oldest else { break };
                if index {
                    self.segments[at].index = None;
                } else if let Some(file) = self.segments[at].file.take() {
                    self.disk.close(file);
                }
            }
        }
    }

    /// Bytes of memory that buffers and indexes take.
    pub(super) fn memory_bytes(&self) -> usize {
        let indexes: usize =
            self.segments.iter().flat_map(|segment| &segment.index).map(Index::memory_bytes).sum();
        let buffers: usize = self.recent.iter().map(|batch| batch.bytes.capacity()).sum();
        indexes + buffers + self.open.bytes.capacity() + self.window.capacity()
    }
}
