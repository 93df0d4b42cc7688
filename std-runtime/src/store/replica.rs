//! A log that several hubs hold: its batches are numbered, handed on, and followed.
//!
//! One hub leads and writes; the others take its batches as they are and apply them as recovery
//! would, so that each holds the same queues under the same positions. Segments are laid out by
//! each for itself. A batch names its number, the term of the hub that wrote it, and the batch
//! before it with a checksum over everything up to there: two logs that agree in one such place
//! agree in all before it (the log matching property of Raft; Ongaro and Ousterhout, "In Search of
//! an Understandable Consensus Algorithm", 2014).

use std::collections::{BTreeMap, VecDeque};

use replcore::contract::Failure;
use replcore::log::record::{ENTRY_HEADER_BYTES, KIND_RECORD, Record};
use replcore::stream::Epoch;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::embedded::{SegmentStore, StreamName};
use super::note::{KIND_NOTE, Note};
use super::segment::{Found, HEADER_BYTES, Scan, length_at};

/// Under this name the place in the log stands among the settings of a checkpoint. No application
/// can use it: a name of its own has a length of at least one and no control character.
const SETTING: &str = "\0head";
/// Commits in flight that are told apart; beyond it the newest are shown together.
const FLIGHTS_MAX: usize = 1024;
/// Bytes in front of the entries of a batch that is handed on.
const BATCH_HEAD_BYTES: usize = 12;

/// A place in a log that several hubs hold: the last batch before it. Ordered by how much of what
/// was ever acknowledged a log that ends there can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// The term of the hub that wrote the batch; 0 before the first.
    pub term: u64,
    /// Its number; 0 before the first.
    pub number: u64,
    /// A checksum over all batches up to it.
    pub chain: u32,
}

/// Why a batch of the leader was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowError {
    /// It does not go on where this log ends: one of the two logs is not a part of the other.
    Diverged,
    /// It is not a sound batch.
    Malformed,
    /// It could not be stored.
    Store(Failure),
}

/// Where a standby is in the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShipCursor {
    segment: u64,
    offset: u64,
    number: u64,
}

impl ShipCursor {
    /// The number of the segment in which it goes on; see [`SegmentStore::pin`].
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// The number of the batch before it.
    pub const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn new(segment: u64, offset: u64, number: u64) -> Self {
        Self { segment, offset, number }
    }
}

/// What [`SegmentStore::ship`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// The next batch was added to the buffer.
    Batch,
    /// There is none yet.
    End,
    /// It is not held any more, or cannot be read: the standby needs a copy.
    Gone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Alone,
    Following,
    Leading,
}

/// What readers may see once a batch is replicated; of several batches when there are too many.
#[derive(Debug, Default)]
struct Flight {
    first: u64,
    number: u64,
    ordinal: u64,
    streams: BTreeMap<StreamName, (Epoch, u64)>,
    lanes: BTreeMap<(u32, u8), u64>,
}

/// The part of a store that several hubs have in common.
#[derive(Debug)]
pub(super) struct Replica {
    mode: Mode,
    term: u64,
    /// The last batch that was closed.
    last: Head,
    /// The last batch that is safe here.
    committed: Head,
    /// Readers may see records before this one.
    visible_ordinal: u64,
    flights: VecDeque<Flight>,
    /// Records before this one come with the copy that is being taken.
    pub copied_ordinal: u64,
    /// Segments from here on are to be handed to a standby.
    pub pinned: u64,
}

impl Replica {
    pub(super) const fn new(replicated: bool) -> Self {
        Self {
            mode: if replicated { Mode::Following } else { Mode::Alone },
            term: 0,
            last: Head { term: 0, number: 0, chain: 0 },
            committed: Head { term: 0, number: 0, chain: 0 },
            visible_ordinal: 0,
            flights: VecDeque::new(),
            copied_ordinal: 0,
            pinned: u64::MAX,
        }
    }

    pub(super) fn is_leading(&self) -> bool {
        self.mode == Mode::Leading
    }

    pub(super) fn is_following(&self) -> bool {
        self.mode == Mode::Following
    }

    pub(super) fn committed_number(&self) -> u64 {
        if self.is_leading() { self.committed.number } else { 0 }
    }

    /// Everything closed is safe.
    pub(super) const fn committed(&mut self) {
        self.committed = self.last;
    }

    /// Numbers the batch that ends with `notes`; `own` bytes of them are not handed on.
    pub(super) fn number_batch(&mut self, records: &[u8], own: usize, notes: &mut Vec<u8>) {
        let before = (self.last.term, self.last.chain);
        let number = self.last.number + 1;
        Note::Numbered { term: self.term, number, before }.write(notes);
        let chain = chain_over(self.last.chain, records, &notes[own..]);
        self.last = Head { term: self.term, number, chain };
    }

    /// Follows a batch that is being replayed. One without a number was written by a hub alone.
    pub(super) fn pass(&mut self, entries: &[u8]) {
        if self.mode == Mode::Alone {
            return;
        }
        let parts = Parts::of(entries);
        self.last = match parts.numbered {
            Some((term, number, before)) => {
                let (records, notes) = entries.split_at(parts.record_bytes);
                let chain = chain_over(before.1, records, &notes[parts.own_bytes..]);
                Head { term, number, chain }
            }
            None => Head::default(),
        };
        self.committed = self.last;
    }

    /// The place in the log, as a checkpoint keeps it.
    pub(super) fn setting(&self) -> Option<(String, Vec<u8>)> {
        let bytes = postcard::to_allocvec(&self.last).ok()?;
        (self.mode != Mode::Alone).then(|| (SETTING.to_owned(), bytes))
    }

    /// Takes the place in the log from the settings of a checkpoint.
    pub(super) fn restore(&mut self, settings: &mut BTreeMap<String, Vec<u8>>) {
        if let Some(bytes) = settings.remove(SETTING)
            && let Ok(head) = postcard::from_bytes(&bytes)
        {
            self.last = head;
            self.committed = head;
        }
    }

    /// A queue is gone; another may get its slot.
    pub(super) fn forget_lanes(&mut self, slot: u32) {
        for flight in &mut self.flights {
            flight.lanes.retain(|lane, _| lane.0 != slot);
        }
    }
}

fn chain_over(before: u32, records: &[u8], notes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, records), notes)
}

/// What a batch's entries are made of.
#[derive(Default)]
struct Parts {
    record_bytes: usize,
    /// Where each record starts.
    starts: Vec<u32>,
    /// Bytes of the note that only says how this store wrote the batch.
    own_bytes: usize,
    notes: usize,
    numbered: Option<(u64, u64, (u64, u32))>,
    /// Nothing is behind the last whole entry, and the records come first.
    sound: bool,
}

impl Parts {
    fn of(entries: &[u8]) -> Self {
        let mut parts = Self::default();
        let (mut at, mut last) = (0, None);
        while at + ENTRY_HEADER_BYTES <= entries.len() {
            let length = length_at(entries, at).max(ENTRY_HEADER_BYTES);
            let Some(entry) = entries.get(at..at + length) else { break };
            match entry[8] {
                KIND_RECORD if parts.notes == 0 => {
                    parts.starts.push(at as u32);
                    parts.record_bytes = at + length;
                }
                KIND_NOTE => {
                    let first = parts.notes == 0;
                    parts.notes += 1;
                    last = Some(entry);
                    if first && Note::read(entry) == Some(Note::Continues) {
                        parts.own_bytes = length;
                    }
                }
                _ => return parts,
            }
            at += length;
        }
        if let Some(Note::Numbered { term, number, before }) = last.and_then(Note::read) {
            parts.numbered = Some((term, number, before));
        }
        parts.sound = at == entries.len();
        parts
    }
}

impl<D: Disk> SegmentStore<D> {
    /// The last batch that is safe here.
    pub const fn head(&self) -> Head {
        self.replica.committed
    }

    /// The end of what is safe here.
    pub const fn durable_ordinal(&self) -> u64 {
        self.log.durable_ordinal
    }

    /// The end of what readers may see.
    pub(super) fn visible_ordinal(&self) -> u64 {
        if self.replica.is_leading() {
            self.replica.visible_ordinal
        } else {
            self.log.durable_ordinal
        }
    }

    /// After opening: a log with a hole is no part of another, so that this store needs a copy. That
    /// is remembered until it has one, or leads.
    pub(super) fn begin_following(&mut self) -> Result<(), String> {
        self.set_slack(true);
        if self.lost_tail {
            self.replica.last = Head::default();
            self.replica.committed = Head::default();
            self.write_identity(true)?;
        }
        Ok(())
    }

    /// A follower keeps more than its leader does: segments end elsewhere, nothing is copied forward
    /// here, and a new consumer may be given records that no queue has named for a while.
    fn set_slack(&mut self, more: bool) {
        let slack = 4 * self.config.segment_bytes;
        let (retain, log) = (self.config.retain_bytes, self.config.log_bytes_max);
        (self.config.retain_bytes, self.config.log_bytes_max) = if more {
            (retain.saturating_add(slack), log.saturating_add(2 * slack))
        } else {
            (retain.saturating_sub(slack), log.saturating_sub(2 * slack))
        };
        self.log.set_bytes_max(self.config.log_bytes_max);
    }

    /// Becomes the hub that writes, in a `term` above all before. What was taken as a follower is
    /// this log's own from now on; a first batch says so, and begins a new life of the log: make the
    /// machine that speaks of the log afterwards. Readers see the log as it is: the caller
    /// lets nobody read before that batch is replicated.
    ///
    /// # Errors
    /// The term is not above that of the log ([`Failure::Corrupt`]), or the log cannot be written.
    pub fn promote(&mut self, term: u64, random: u64) -> Result<(), Failure> {
        if !self.replica.is_following() || term <= self.replica.last.term {
            return Err(Failure::Corrupt);
        }
        if self.is_dirty() {
            self.commit_pending()?;
        }
        self.replica.mode = Mode::Leading;
        self.replica.term = term;
        self.replica.visible_ordinal = self.log.durable_ordinal;
        self.set_slack(false);
        if std::mem::take(&mut self.lost_tail) {
            self.write_identity(false).map_err(|_| Failure::Io)?;
        }
        // What another hub gave out, or this one has lost, may be known elsewhere.
        self.begin_life(random)
    }

    /// What was committed and is not replicated yet waits here.
    pub(super) fn keep_in_flight(&mut self) {
        let replica = &mut self.replica;
        let (number, ordinal) = (replica.committed.number, self.log.durable_ordinal);
        let last = replica.flights.back().map_or(replica.visible_ordinal, |flight| flight.ordinal);
        if self.dirty_streams.is_empty() && self.touched.is_empty() && ordinal == last {
            // There is nothing to see, and what came before does not wait for it.
            return;
        }
        if replica.flights.len() < FLIGHTS_MAX {
            replica.flights.push_back(Flight { first: number, ..Flight::default() });
        }
        let Some(flight) = replica.flights.back_mut() else { return };
        (flight.number, flight.ordinal) = (number, ordinal);
        for name in self.dirty_streams.drain(..) {
            if let Some(stream) = self.streams.get(&name) {
                flight.streams.insert(name, (stream.epoch, stream.position));
            }
        }
        for (slot, class) in self.touched.drain(..) {
            let Some(lane) = self.queues.lane(slot, class) else { continue };
            lane.touched = false;
            flight.lanes.insert((slot, class), lane.next);
        }
    }

    /// Shows readers what enough standbys hold, and answers through which batch all is shown: less than
    /// `number` where later ones are shown together with it.
    pub(super) fn show_replicated(&mut self, number: u64) -> u64 {
        while self.replica.flights.front().is_some_and(|flight| flight.number <= number) {
            let Some(flight) = self.replica.flights.pop_front() else { break };
            self.replica.visible_ordinal = flight.ordinal;
            for (name, (epoch, position)) in flight.streams {
                if let Some(stream) = self.streams.get_mut(&name)
                    && stream.epoch == epoch
                {
                    stream.durable = position;
                }
            }
            for ((slot, class), next) in flight.lanes {
                self.show(slot, class, next);
            }
        }
        self.replica
            .flights
            .front()
            .map_or(number, |flight| number.min(flight.first.saturating_sub(1)))
    }

    /// Takes the leader's next batch, as [`SegmentStore::ship`] gave it there; it is safe with the
    /// next [`super::Store::commit`].
    ///
    /// # Errors
    /// See [`FollowError`]; nothing has changed.
    pub fn follow(&mut self, batch: &[u8]) -> Result<(), FollowError> {
        if !self.replica.is_following() {
            return Err(FollowError::Diverged);
        }
        let (first_ordinal, entries) = read_batch(batch).ok_or(FollowError::Malformed)?;
        let parts = Parts::of(entries);
        let Some((term, number, before)) = parts.numbered else {
            return Err(FollowError::Malformed);
        };
        if !parts.sound || parts.own_bytes > 0 || !all_sound(entries) {
            return Err(FollowError::Malformed);
        }
        let head = self.replica.last;
        let follows = number == head.number + 1 && before == (head.term, head.chain);
        if !follows || term < head.term || first_ordinal < self.log.next_ordinal {
            return Err(FollowError::Diverged);
        }
        let records = parts.starts.len() as u32;
        self.make_room(entries.len(), records).map_err(FollowError::Store)?;
        self.log.start_at(first_ordinal);
        let (record_bytes, notes) = entries.split_at(parts.record_bytes);
        if records > 0 {
            self.log.push(record_bytes, &parts.starts);
        }
        let mut all_notes = Vec::with_capacity(notes.len() + ENTRY_HEADER_BYTES + 1);
        if self.log.has_closed() {
            Note::Continues.write(&mut all_notes);
        }
        all_notes.extend_from_slice(notes);
        self.log.close_batch(&all_notes);
        self.batch += 1;
        self.replay_entries(first_ordinal, entries);
        let chain = chain_over(head.chain, record_bytes, notes);
        self.replica.last = Head { term, number, chain };
        Ok(())
    }

    fn make_room(&mut self, bytes: usize, records: u32) -> Result<(), Failure> {
        match self.reserve(bytes, records, 1) {
            // Segments are freed only when nothing is pending.
            Err(Failure::Full) if self.is_dirty() => {
                self.commit_all()?;
                self.reserve(bytes, records, 1)
            }
            reserved => reserved,
        }
    }

    /// Keeps the segments from `segment` on for standbys, while space is not short; `u64::MAX` for
    /// none.
    pub const fn pin(&mut self, segment: u64) {
        self.replica.pinned = segment;
    }

    /// Where a standby whose log ends at `head` goes on; `None` when it has to take a copy.
    ///
    /// # Errors
    /// The disk does not work.
    pub fn ship_from(&mut self, head: Head) -> std::io::Result<Option<ShipCursor>> {
        if head.number == 0 || head.number > self.replica.committed.number {
            return Ok(None);
        }
        for index in (0..self.log.segments.len()).rev() {
            let mut scan = self.scan(index, HEADER_BYTES as u64)?;
            let segment = self.log.segments[index].number;
            let (mut first, mut unnumbered) = (true, false);
            while let Found::Batch(at, _, entries) = scan.next(&mut self.log.disk)? {
                let end = at + (replcore::log::batch::HEADER_BYTES + entries.len()) as u64;
                let Some((_, number, before)) = Parts::of(&entries).numbered else {
                    unnumbered = true;
                    continue;
                };
                if first && number > head.number + 1 {
                    break;
                }
                first = false;
                if number == head.number + 1 {
                    let same = before == (head.term, head.chain);
                    return Ok(same.then(|| ShipCursor::new(segment, at, head.number)));
                }
                if number == head.number && head == self.replica.committed {
                    return Ok(Some(ShipCursor::new(segment, end, number)));
                }
            }
            if unnumbered {
                // Of a copy, or of a hub that was alone; nothing before it is numbered.
                break;
            }
        }
        Ok(None)
    }

    /// Bytes of the log behind a place in it.
    pub fn bytes_behind(&self, cursor: &ShipCursor) -> u64 {
        if cursor.number >= self.replica.committed.number {
            return 0;
        }
        let behind = self.log.segments.iter().filter(|it| it.number >= cursor.segment);
        let start = |number: u64| {
            if number == cursor.segment { cursor.offset } else { HEADER_BYTES as u64 }
        };
        behind.map(|segment| segment.end.saturating_sub(start(segment.number))).sum()
    }

    fn scan(&mut self, index: usize, from: u64) -> std::io::Result<Scan> {
        let segment = &mut self.log.segments[index];
        let file = segment.open(&mut self.log.disk)?;
        Ok(Scan::new(segment.number, file, from, segment.end))
    }

    /// Adds the batch behind `cursor` to `out`, for [`SegmentStore::follow`], and moves on. Only
    /// what is safe here is handed on.
    ///
    /// # Errors
    /// The disk does not work.
    pub fn ship(&mut self, cursor: &mut ShipCursor, out: &mut Vec<u8>) -> std::io::Result<Shipped> {
        if cursor.number >= self.replica.committed.number {
            return Ok(Shipped::End);
        }
        loop {
            let segments = &self.log.segments;
            let index = segments.partition_point(|segment| segment.number < cursor.segment);
            let Some(segment) = segments.get(index) else { return Ok(Shipped::Gone) };
            if segment.number != cursor.segment {
                return Ok(Shipped::Gone);
            }
            let mut scan = self.scan(index, cursor.offset)?;
            match scan.next(&mut self.log.disk)? {
                Found::Batch(at, header, entries) => {
                    let parts = Parts::of(&entries);
                    let follows = |numbered: (u64, u64, _)| numbered.1 == cursor.number + 1;
                    if !parts.numbered.is_some_and(follows) {
                        return Ok(Shipped::Gone);
                    }
                    write_batch(header.first_ordinal, &entries, &parts, out);
                    cursor.offset =
                        at + (replcore::log::batch::HEADER_BYTES + entries.len()) as u64;
                    cursor.number += 1;
                    return Ok(Shipped::Batch);
                }
                Found::End(_) if cursor.offset >= self.log.segments[index].end => {
                    let Some(next) = self.log.segments.get(index + 1) else {
                        return Ok(Shipped::Gone);
                    };
                    *cursor = ShipCursor::new(next.number, HEADER_BYTES as u64, cursor.number);
                }
                _ => return Ok(Shipped::Gone),
            }
        }
    }
}

fn write_batch(first_ordinal: u64, entries: &[u8], parts: &Parts, out: &mut Vec<u8>) {
    let (records, notes) = entries.split_at(parts.record_bytes);
    out.extend_from_slice(&first_ordinal.to_le_bytes());
    let bytes = (entries.len() - parts.own_bytes) as u32;
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(records);
    out.extend_from_slice(&notes[parts.own_bytes..]);
}

/// The first ordinal and the entries of a batch that was handed on.
fn read_batch(batch: &[u8]) -> Option<(u64, &[u8])> {
    let (head, entries) = batch.split_at_checked(BATCH_HEAD_BYTES)?;
    let first_ordinal = u64::from_le_bytes(head[..8].try_into().ok()?);
    let bytes = u32::from_le_bytes(head[8..].try_into().ok()?);
    (entries.len() == bytes as usize && first_ordinal < u64::MAX / 2)
        .then_some((first_ordinal, entries))
}

/// Whether every entry matches its checksum and can be read.
fn all_sound(entries: &[u8]) -> bool {
    let (mut at, mut sound) = (0, true);
    while sound && at < entries.len() {
        let entry = &entries[at..at + length_at(entries, at).max(ENTRY_HEADER_BYTES)];
        sound = if entry[8] == KIND_RECORD {
            Record::check(entry, crc32c::crc32c).is_ok()
        } else {
            entry[..4] == crc32c::crc32c(&entry[4..]).to_le_bytes() && Note::read(entry).is_some()
        };
        at += entry.len();
    }
    sound
}
