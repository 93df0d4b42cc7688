//! Segments: the files that a log is made of.
//!
//! ```text
//! 0   u32  crc32c of bytes 4..256
//! 4        "RPLCSEG" and the format, 1
//! 12  u64  number of the segment
//! 20  u64  instance of the store
//! 28  u8   length of the node's name, then the name
//! ..       zeros up to byte 256, where the first batch starts
//! ```

use std::io;

use replcore::log::batch::{self, Stop};

use super::Identity;
use super::disk::{Disk, FileId};

/// Bytes of the header of a segment.
pub(super) const HEADER_BYTES: usize = 256;
const MAGIC: &[u8; 8] = b"RPLCSEG\x01";
/// Bytes between two entries of a sparse index.
const INDEX_STEP_BYTES: u32 = 16 << 10;
/// Damaged places of one segment that are told apart. What lies between further ones is given up
/// together.
const DAMAGE_MAX: usize = 4096;
/// Bytes of one read while scanning.
const SCAN_BYTES: usize = 256 << 10;

/// The name of the file of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("log-{number:016x}")
}

/// The name of a file that waits to become a segment.
pub(super) fn free_name(number: u64) -> String {
    format!("free-{number:016x}")
}

/// The number in a name made by [`file_name`].
pub(super) fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

/// The header of segment `number` of the store of `identity`.
pub(super) fn header(number: u64, identity: &Identity) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let name = identity.name.as_str().as_bytes();
    bytes[4..12].copy_from_slice(MAGIC);
    bytes[12..20].copy_from_slice(&number.to_le_bytes());
    bytes[20..28].copy_from_slice(&identity.instance.to_le_bytes());
    bytes[28] = name.len() as u8;
    bytes[29..29 + name.len()].copy_from_slice(name);
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether these are the bytes of some header, of whatever store.
pub(super) fn is_header(bytes: &[u8; HEADER_BYTES]) -> bool {
    bytes[..4] == crc32c::crc32c(&bytes[4..]).to_le_bytes()
}

/// A place in the sparse index of a segment: a record, and the end of the batch it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub ordinal: u64,
    pub offset: u32,
    pub batch_end: u32,
}

/// Some records of a segment, by ordinal, and what in it is damaged.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    marks: Vec<Mark>,
    /// Where batches and entries begin that are not sound, rising.
    damage: Vec<u32>,
}

impl Index {
    /// Notes a record that comes behind all that were noted, when it is far enough behind the last
    /// one, or the first behind damage: no walk from a record before gets there.
    pub(super) fn add(&mut self, mark: Mark) {
        let needed = self.marks.last().is_none_or(|last| {
            mark.offset - last.offset >= INDEX_STEP_BYTES
                || self.damage.last().is_some_and(|damage| *damage > last.offset)
        });
        if needed {
            self.marks.push(mark);
        }
    }

    /// Notes that what begins at `offset` is not sound.
    pub(super) fn add_damage(&mut self, offset: u32) {
        if self.damage.len() < DAMAGE_MAX
            && let Err(at) = self.damage.binary_search(&offset)
        {
            self.damage.insert(at, offset);
        }
    }

    /// Whether it is known, or would not be noted, that what begins at `offset` is not sound.
    pub(super) fn knows_damage(&self, offset: u32) -> bool {
        self.damage.len() >= DAMAGE_MAX || self.damage.binary_search(&offset).is_ok()
    }

    /// Places known to be damaged.
    pub(super) fn damaged_places(&self) -> usize {
        self.damage.len()
    }

    /// The last noted record at or before `ordinal`.
    pub(super) fn before(&self, ordinal: u64) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.ordinal <= ordinal);
        after.checked_sub(1).map(|at| self.marks[at])
    }

    /// The first noted record after `ordinal`.
    pub(super) fn after(&self, ordinal: u64) -> Option<Mark> {
        self.marks.get(self.marks.partition_point(|mark| mark.ordinal <= ordinal)).copied()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>() + self.damage.capacity() * size_of::<u32>()
    }
}

/// One segment of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub number: u64,
    pub file: Option<FileId>,
    /// Length of the file.
    pub capacity: u64,
    /// Where the next batch goes.
    pub end: u64,
    pub first_ordinal: u64,
    pub next_ordinal: u64,
    /// Queue entries that name a record in it.
    pub references: u64,
    /// The wall clock at its last commit.
    pub at_ms: u64,
    pub index: Option<Index>,
    /// When it was last read from, by a counter of reads.
    pub used_at: u64,
    /// Damaged places in it that were told.
    pub damage_told: usize,
    /// Damage in it was told at the start, by itself.
    pub told_at_start: bool,
}

impl Segment {
    pub(super) const fn new(number: u64, file: FileId, capacity: u64) -> Self {
        Self {
            number,
            file: Some(file),
            capacity,
            end: HEADER_BYTES as u64,
            first_ordinal: 0,
            next_ordinal: 0,
            references: 0,
            at_ms: 0,
            index: None,
            used_at: 0,
            damage_told: 0,
            told_at_start: false,
        }
    }

    /// The file, opened when it is not.
    pub(super) fn open<D: Disk>(&mut self, disk: &mut D) -> io::Result<FileId> {
        match self.file {
            Some(file) => Ok(file),
            None => {
                let file = disk.open(&file_name(self.number))?;
                self.file = Some(file);
                Ok(file)
            }
        }
    }
}

/// What a scan of a segment finds.
pub(super) enum Found {
    /// A sound batch: where it starts, its header, its entries.
    Batch(u64, batch::Header, Vec<u8>),
    /// A header that stands with entries that do not match it.
    Torn(u64, batch::Header, Vec<u8>),
    /// No batch is here.
    End(u64),
    /// Written by a later version.
    Format(u8),
}

/// Walks over the batches of a segment in big reads.
pub(super) struct Scan {
    number: u64,
    file: FileId,
    limit: u64,
    offset: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    /// A scan from `offset` to `limit`.
    pub(super) fn new(number: u64, file: FileId, offset: u64, limit: u64) -> Self {
        Self { number, file, limit, offset, window: Vec::new(), window_at: offset }
    }

    /// `bytes` at `offset`, fewer at the end.
    fn bytes<D: Disk>(&mut self, disk: &mut D, offset: u64, bytes: usize) -> io::Result<&[u8]> {
        let wanted = bytes.min(self.limit.saturating_sub(offset) as usize);
        let inside = offset >= self.window_at
            && offset + wanted as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let size = wanted.max(SCAN_BYTES).min(self.limit.saturating_sub(offset) as usize);
            self.window.resize(size, 0);
            let read = disk.read_at(self.file, offset, &mut self.window)?;
            self.window.truncate(read);
            self.window_at = offset;
        }
        let start = (offset - self.window_at) as usize;
        Ok(&self.window[start..(start + wanted).min(self.window.len())])
    }

    /// The next thing in the segment; a sound or torn batch is passed.
    pub(super) fn next<D: Disk>(&mut self, disk: &mut D) -> io::Result<Found> {
        let (at, number) = (self.offset, self.number);
        let head = self.bytes(disk, at, batch::HEADER_BYTES)?;
        let header = match batch::Header::decode(head, number, crc32c::crc32c) {
            Ok(header) => header,
            Err(Stop::Format(format)) => return Ok(Found::Format(format)),
            Err(_) => return Ok(Found::End(at)),
        };
        let start = at + batch::HEADER_BYTES as u64;
        let entries = self.bytes(disk, start, header.bytes as usize)?.to_vec();
        if entries.len() < header.bytes as usize {
            self.offset = self.limit;
            return Ok(Found::Torn(at, header, entries));
        }
        self.offset = start + u64::from(header.bytes);
        if crc32c::crc32c(&entries) != header.entries_crc {
            return Ok(Found::Torn(at, header, entries));
        }
        Ok(Found::Batch(at, header, entries))
    }

    /// Goes on at the next thing after `from` that has a sound batch header of this segment; answers
    /// whether there is one.
    pub(super) fn resync<D: Disk>(&mut self, disk: &mut D, from: u64) -> io::Result<bool> {
        let mut at = from;
        while at + batch::HEADER_BYTES as u64 <= self.limit {
            let number = self.number;
            let bytes = self.bytes(disk, at, SCAN_BYTES)?;
            if bytes.len() < batch::HEADER_BYTES {
                return Ok(false);
            }
            // The number of the segment stands in every header: look for it before computing sums.
            let wanted = number.to_le_bytes();
            for start in 0..=bytes.len() - batch::HEADER_BYTES {
                if bytes[start + 8..start + 16] == wanted
                    && batch::Header::decode(&bytes[start..], number, crc32c::crc32c).is_ok()
                {
                    self.offset = at + start as u64;
                    return Ok(true);
                }
            }
            at += (bytes.len() - batch::HEADER_BYTES + 1) as u64;
        }
        Ok(false)
    }
}

/// The length field of the entry at `at`, which must have a whole header.
pub(super) fn length_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize
}
