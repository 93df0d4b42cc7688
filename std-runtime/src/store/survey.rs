//! What a whole segment holds, and what of a damaged batch can be trusted.

use std::io;

use replcore::log::batch::{self, Header};
use replcore::log::record::{ENTRY_HEADER_BYTES, Record};

use super::disk::{Disk, FileId};
use super::note::KIND_NOTE;
use super::segment::{self, Found, Index, Mark, Scan, Segment, length_at};

/// What is sound by itself in a batch whose checksum does not match.
#[derive(Default)]
pub(super) struct Remains<'a> {
    /// Ordinals, offsets and bytes of records.
    pub records: Vec<(u64, usize, &'a [u8])>,
    pub notes: Vec<&'a [u8]>,
    /// Offsets of entries that are not sound, and of what follows where no entry can be told.
    pub damage: Vec<usize>,
}

/// Finds the sound entries of a damaged batch. The records come first, and the header says how
/// many: a record behind a damaged entry counts only when all of them are found one behind the
/// other, since a damaged length would give it the place of another.
pub(super) fn remains<'a>(header: &Header, entries: &'a [u8]) -> Remains<'a> {
    let count = u64::from(header.records);
    let mut found = Remains::default();
    let (mut offset, mut items, mut in_front) = (0, 0, 0);
    while let Some(entry) = entry_at(entries, offset) {
        let sound = entry[..4] == crc32c::crc32c(&entry[4..]).to_le_bytes();
        if sound && entry[8] == KIND_NOTE {
            found.notes.push(entry);
        } else if found.notes.is_empty() && Record::check(entry, crc32c::crc32c).is_ok() {
            found.records.push((header.first_ordinal + items, offset, entry));
            items += 1;
        } else {
            if found.damage.is_empty() {
                in_front = found.records.len();
            }
            found.damage.push(offset);
            items += u64::from(found.notes.is_empty());
        }
        offset += entry.len();
    }
    if offset < entries.len() || offset < header.bytes as usize {
        if found.damage.is_empty() {
            in_front = found.records.len();
        }
        found.damage.push(offset);
    }
    let end = header.first_ordinal + count;
    let in_place = items >= count && found.records.last().is_none_or(|last| last.0 < end);
    if !in_place {
        found.records.truncate(in_front);
    }
    found
}

fn entry_at(entries: &[u8], offset: usize) -> Option<&[u8]> {
    if offset + ENTRY_HEADER_BYTES > entries.len() {
        return None;
    }
    let length = length_at(entries, offset);
    entries.get(offset..offset.checked_add(length.max(ENTRY_HEADER_BYTES))?)
}

/// What a segment holds, as read from its file.
#[derive(Default)]
pub(super) struct Survey {
    pub index: Index,
    /// Records that it held and that cannot be read.
    pub lost: u64,
    /// The first of them.
    pub first_lost: u64,
    /// What comes next is behind damage.
    broken: bool,
    /// Where the last batch ended.
    next_ordinal: u64,
}

impl Survey {
    /// Reads the file of a segment up to `end`.
    pub(super) fn of<D: Disk>(
        segment: &Segment,
        file: FileId,
        end: u64,
        disk: &mut D,
    ) -> io::Result<Self> {
        let mut survey = Self { next_ordinal: segment.first_ordinal, ..Self::default() };
        let mut scan = Scan::new(segment.number, file, segment::HEADER_BYTES as u64, end);
        loop {
            match scan.next(disk)? {
                Found::Batch(at, header, entries) => survey.sound_batch(at, &header, &entries),
                Found::Torn(at, header, entries) => survey.damaged_batch(at, &header, &entries),
                Found::End(at) => {
                    if at >= end {
                        break;
                    }
                    survey.damage(at);
                    if !scan.resync(disk, at + 1)? {
                        break;
                    }
                }
                Found::Format(_) => break,
            }
        }
        if survey.broken {
            survey.lose(survey.next_ordinal, segment.next_ordinal);
        }
        Ok(survey)
    }

    fn damage(&mut self, offset: u64) {
        self.index.add_damage(offset as u32);
        self.broken = true;
    }

    fn lose(&mut self, first: u64, next: u64) {
        if first < next {
            if self.lost == 0 {
                self.first_lost = first;
            }
            self.lost += next - first;
        }
    }

    /// A batch begins; whole batches may be missing in front of it.
    fn begin(&mut self, header: &Header) {
        if self.broken {
            self.lose(self.next_ordinal, header.first_ordinal);
        }
        self.next_ordinal = header.first_ordinal + u64::from(header.records);
    }

    fn record(&mut self, mark: Mark) {
        self.broken = false;
        self.index.add(mark);
    }

    fn sound_batch(&mut self, at: u64, header: &Header, entries: &[u8]) {
        self.begin(header);
        let start = at as u32 + batch::HEADER_BYTES as u32;
        let batch_end = start + header.bytes;
        let mut offset = 0;
        for ordinal in header.first_ordinal..self.next_ordinal {
            let Some(entry) = entry_at(entries, offset) else { break };
            self.record(Mark { ordinal, offset: start + offset as u32, batch_end });
            offset += entry.len();
        }
    }

    fn damaged_batch(&mut self, at: u64, header: &Header, entries: &[u8]) {
        self.begin(header);
        let start = at + batch::HEADER_BYTES as u64;
        let batch_end = start as u32 + header.bytes;
        let found = remains(header, entries);
        let mut damage = found.damage.into_iter().peekable();
        let mut next = header.first_ordinal;
        for (ordinal, offset, _) in found.records {
            while let Some(before) = damage.next_if(|place| *place < offset) {
                self.damage(start + before as u64);
            }
            self.lose(next, ordinal);
            next = ordinal + 1;
            self.record(Mark { ordinal, offset: (start as usize + offset) as u32, batch_end });
        }
        for place in damage {
            self.damage(start + place as u64);
        }
        self.lose(next, self.next_ordinal);
    }
}
