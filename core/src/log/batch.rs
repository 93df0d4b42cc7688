//! Batches: what is written and synced as one.
//!
//! ```text
//! 0   u32  crc32c of bytes 4..32
//! 4   u32  bytes of entries that follow, at most 2^31; 0 for none
//! 8   u64  number of the segment (on flash: of the erase page's life) it was written to
//! 16  u64  ordinal of the first record in it: how many records the log has held before
//! 24  u32  crc32c of the entries
//! 28  u16  records in it
//! 30  u8   format, 1
//! 31  u8   0
//! ```
//!
//! The segment number keeps what is left over in a recycled segment from being read again: a
//! batch counts only under the number of the segment it stands in.

use super::{Checksum, u16_at, u32_at, u64_at};

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 32;
/// The version of the log format written here.
pub const FORMAT: u8 = 1;
/// Most bytes of entries in one batch.
pub const BYTES_MAX: u32 = 1 << 31;

/// A batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Header {
    /// Bytes of entries that follow the header.
    pub bytes: u32,
    /// The segment it belongs to.
    pub segment: u64,
    /// The ordinal of its first record.
    pub first_ordinal: u64,
    /// CRC-32C of the entries.
    pub entries_crc: u32,
    /// Records in it.
    pub records: u16,
}

/// Why bytes are not a batch. [`Stop::End`] is the normal end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Stop {
    /// No batch was written here: zeros, the left-over of another segment, or too few bytes.
    End,
    /// The header stands but its entries do not match: torn by a power cut, or damaged since.
    Torn,
    /// Written by a later version, with this format number.
    Format(u8),
}

impl Header {
    /// Writes the header to the first [`HEADER_BYTES`] of `out`.
    ///
    /// # Panics
    /// When `out` is shorter.
    pub fn encode(&self, out: &mut [u8], checksum: Checksum) {
        debug_assert!(self.bytes <= BYTES_MAX);
        out[4..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_ordinal.to_le_bytes());
        out[24..28].copy_from_slice(&self.entries_crc.to_le_bytes());
        out[28..30].copy_from_slice(&self.records.to_le_bytes());
        out[30] = FORMAT;
        out[31] = 0;
        let crc = checksum(&out[4..HEADER_BYTES]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header at the start of `bytes`, which must belong to `segment`.
    pub fn decode(bytes: &[u8], segment: u64, checksum: Checksum) -> Result<Self, Stop> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0) != checksum(&bytes[4..HEADER_BYTES]) {
            return Err(Stop::End);
        }
        if bytes[30] != FORMAT {
            return Err(Stop::Format(bytes[30]));
        }
        let header = Self {
            bytes: u32_at(bytes, 4),
            segment: u64_at(bytes, 8),
            first_ordinal: u64_at(bytes, 16),
            entries_crc: u32_at(bytes, 24),
            records: u16_at(bytes, 28),
        };
        if header.segment != segment || header.bytes > BYTES_MAX {
            return Err(Stop::End);
        }
        Ok(header)
    }
}

/// The batch at the start of `bytes`: its header and its entries, both checked.
pub fn read(bytes: &[u8], segment: u64, checksum: Checksum) -> Result<(Header, &[u8]), Stop> {
    let header = Header::decode(bytes, segment, checksum)?;
    let entries = bytes[HEADER_BYTES..].get(..header.bytes as usize).ok_or(Stop::Torn)?;
    if checksum(entries) != header.entries_crc {
        return Err(Stop::Torn);
    }
    Ok((header, entries))
}

#[cfg(test)]
mod tests {
    use super::super::crc32c;
    use super::*;

    fn sample(entries: &[u8]) -> std::vec::Vec<u8> {
        let mut out = std::vec![0; HEADER_BYTES];
        let header = Header {
            bytes: entries.len() as u32,
            segment: 7,
            first_ordinal: 40,
            entries_crc: crc32c(entries),
            records: 3,
        };
        header.encode(&mut out, crc32c);
        out.extend_from_slice(entries);
        out
    }

    #[test]
    fn a_batch_reads_back() {
        let bytes = sample(b"entries");
        let (header, entries) = read(&bytes, 7, crc32c).unwrap();
        assert_eq!((header.first_ordinal, header.records, entries), (40, 3, &b"entries"[..]));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = sample(b"entries");
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut], 7, crc32c).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged, 7, crc32c).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_other_segments_are_the_end() {
        assert_eq!(read(&[0; 64], 7, crc32c), Err(Stop::End));
        assert_eq!(read(&sample(b"x"), 8, crc32c), Err(Stop::End));
    }
}
