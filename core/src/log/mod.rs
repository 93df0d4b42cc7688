//! The log format: one for raw flash, for the daemon's segment files and for a C program's file.
//!
//! A log is a run of **batches**; a batch is written and synced as one and counts as a whole or
//! not at all. A batch is a run of **entries**; the entry that matters is the **record**, whose
//! bytes are the same in every log and on every link, so that they are copied and never rebuilt.
//! `docs/wire.md` gives every byte. All integers are little-endian.

pub mod batch;
mod crc;
#[cfg(feature = "embedded-storage-03")]
pub mod flash;
pub mod record;
mod utf8;

/// A function that computes CRC-32C (Castagnoli, reflected, as in iSCSI) over bytes.
///
/// [`crc32c`] serves everywhere; a host passes one that uses its processor's instruction.
pub type Checksum = fn(&[u8]) -> u32;

pub use crc::crc32c;
#[cfg(feature = "embedded-storage-03")]
pub(crate) use crc::crc32c_append;
pub(crate) use crc::crc32c_of_frame;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
