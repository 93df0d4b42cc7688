//! CRC-32C by table, without processor help.

/// The polynomial of Castagnoli, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Bytes taken at a time, each with a table of 1 KiB: what takes time is the wait of one lookup for
/// the one before, not their number.
const BYTES_AT_A_TIME: usize = if cfg!(feature = "crc-table-large") { 8 } else { 1 };
/// Entries of a table: one for each byte, or for each half of one.
const ENTRIES: usize =
    if cfg!(all(feature = "crc-table-small", not(feature = "crc-table-large"))) { 16 } else { 256 };

/// `TABLES[distance][byte]`: what a byte comes to that so many bytes follow (Kounavis and Berry, "A
/// Systematic Approach to Building High Performance, Software-based, CRC Generators", 2005).
static TABLES: [[u32; ENTRIES]; BYTES_AT_A_TIME] = tables();

const fn tables() -> [[u32; ENTRIES]; BYTES_AT_A_TIME] {
    let mut tables = [table(); BYTES_AT_A_TIME];
    let mut distance = 1;
    while distance < BYTES_AT_A_TIME {
        let mut byte = 0;
        while byte < ENTRIES {
            tables[distance][byte] = add_byte(&tables[0], tables[distance - 1][byte], 0);
            byte += 1;
        }
        distance += 1;
    }
    tables
}

/// What the lowest bits of a sum come to, as many as tell `N` entries apart.
const fn table<const N: usize>() -> [u32; N] {
    let mut table = [0; N];
    let mut entry = 0;
    while entry < N {
        let mut crc = entry as u32;
        let mut bit = 0;
        while bit < N.trailing_zeros() {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[entry] = crc;
        entry += 1;
    }
    table
}

const fn add_byte<const N: usize>(table: &[u32; N], crc: u32, byte: u8) -> u32 {
    let mut crc = crc ^ byte as u32;
    let mut bits = 0;
    while bits < 8 {
        crc = crc >> N.trailing_zeros() ^ table[crc as usize % N];
        bits += N.trailing_zeros();
    }
    crc
}

/// What four bytes come to that `after` bytes follow.
#[cfg(feature = "crc-table-large")]
fn four(bytes: [u8; 4], after: usize) -> u32 {
    let [a, b, c, d] = bytes.map(usize::from);
    let (first, last) = (TABLES[after + 3][a] ^ TABLES[after + 2][b], TABLES[after + 1][c]);
    first ^ (last ^ TABLES[after][d])
}

#[cfg(feature = "crc-table-large")]
fn eight(crc: u32, [a, b, c, d, e, f, g, h]: [u8; 8]) -> u32 {
    // The later half does not wait for the sum of the bytes before.
    let later = four([e, f, g, h], 0);
    let earlier = u32::from_le_bytes([a, b, c, d]) ^ crc;
    later ^ four(earlier.to_le_bytes(), 4)
}

#[cfg(not(feature = "crc-table-large"))]
fn eight(crc: u32, bytes: [u8; 8]) -> u32 {
    update(crc, &bytes)
}

fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let mut rest = bytes;
    #[cfg(feature = "crc-table-large")]
    {
        while let Some((next, after)) = rest.split_first_chunk::<8>() {
            crc = eight(crc, *next);
            rest = after;
        }
        if let Some((next, after)) = rest.split_first_chunk::<4>() {
            crc = four((u32::from_le_bytes(*next) ^ crc).to_le_bytes(), 0);
            rest = after;
        }
    }
    while let Some((byte, after)) = rest.split_first() {
        crc = add_byte(&TABLES[0], crc, *byte);
        rest = after;
    }
    crc
}

/// CRC-32C by table: of 1 KiB, with the feature `crc-table-large` of 8 KiB, or with `crc-table-small`
/// of 64 bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}

/// CRC-32C by table over `head`, and then `body`.
pub(crate) fn crc32c_of_frame(head: [u8; 8], body: &[u8]) -> u32 {
    !update(eight(!0, head), body)
}

/// CRC-32C by table over what came to `crc`, and then `bytes`.
#[cfg(any(test, feature = "embedded-storage-03"))]
pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    !update(!crc, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn crc_of_the_standard_check_text() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
    }

    /// The examples of RFC 3720, appendix B.4.
    #[test]
    fn crc_of_the_examples_of_iscsi() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(&falling), 0x113f_db5c);
    }

    #[test]
    fn tables_and_single_bits_agree_at_every_length_and_cut() {
        let bytes: Vec<u8> = (0..70_u32).map(|at| (at * 31 % 251) as u8).collect();
        for length in 0..bytes.len() {
            let mut expected = !0_u32;
            for byte in &bytes[..length] {
                expected ^= u32::from(*byte);
                for _ in 0..8 {
                    expected = expected >> 1 ^ if expected & 1 == 1 { POLYNOMIAL } else { 0 };
                }
            }
            assert_eq!(crc32c(&bytes[..length]), !expected, "{length} bytes");
            let small = |crc, byte: &u8| add_byte(&table::<16>(), crc, *byte);
            assert_eq!(bytes[..length].iter().fold(!0, small), expected, "{length} bytes");
            if let Some((head, body)) = bytes[..length].split_first_chunk() {
                assert_eq!(crc32c_of_frame(*head, body), !expected, "{length} bytes");
            }
            for cut in 0..=length {
                let (first, second) = bytes[..length].split_at(cut);
                assert_eq!(
                    crc32c_append(crc32c(first), second),
                    !expected,
                    "{length} bytes, cut at {cut}"
                );
            }
        }
    }
}
