//! The log format: one for raw flash, for the daemon's segment files and for a C program's file.
//!
//! A log is a run of **batches**; a batch is written and synced as one and counts as a whole or
//! not at all. A batch is a run of **entries**; the entry that matters is the **record**, whose
//! bytes are the same in every log and on every link, so that they are copied and never rebuilt.
//! `docs/wire.md` gives every byte. All integers are little-endian.

pub mod batch;
#[cfg(feature = "embedded-storage-03")]
pub mod flash;
pub mod record;

/// A function that computes CRC-32C (Castagnoli, reflected, as in iSCSI) over bytes.
///
/// [`crc32c`] serves everywhere; a host passes one that uses its processor's instruction.
pub type Checksum = fn(&[u8]) -> u32;

#[cfg(feature = "crc-table-large")]
type Table = crc::Table<16>;
#[cfg(not(feature = "crc-table-large"))]
type Table = crc::Table<1>;

static CASTAGNOLI: crc::Crc<u32, Table> = crc::Crc::<u32, Table>::new(&crc::CRC_32_ISCSI);

/// CRC-32C by table, without processor help.
pub fn crc32c(bytes: &[u8]) -> u32 {
    CASTAGNOLI.checksum(bytes)
}

/// CRC-32C by table over `first` and then `second`.
pub(crate) fn crc32c_of_two(first: &[u8], second: &[u8]) -> u32 {
    let mut digest = CASTAGNOLI.digest();
    digest.update(first);
    digest.update(second);
    digest.finalize()
}

/// CRC-32C by table, piece by piece.
#[cfg(feature = "embedded-storage-03")]
fn crc32c_digest() -> crc::Digest<'static, u32, Table> {
    CASTAGNOLI.digest()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_of_the_standard_check_text() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32c_of_two(b"1234", b"56789"), 0xe306_9283);
    }
}
