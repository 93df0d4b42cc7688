//! What a program chooses, by the bytes of the input.

use std::ffi::CString;

/// An input, as the choices that it makes.
pub(super) struct Choices<'a> {
    pub(super) rest: &'a [u8],
}

impl Choices<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        let (first, rest) =
            self.rest.split_first().map_or((0, self.rest), |(one, rest)| (*one, rest));
        self.rest = rest;
        first
    }

    /// Small numbers mostly, the greatest now and then.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => u64::from(u32::MAX),
            252 => u64::from(self.byte()) << 56,
            251 => u64::from(self.byte()) << 12,
            small => u64::from(small % 16),
        }
    }

    pub(super) fn small(&mut self) -> u32 {
        self.number() as u32
    }

    /// The default mostly, so that machines are made at all.
    pub(super) fn rare(&mut self) -> u32 {
        if self.byte() < 16 { self.small() } else { 0 }
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        // Exactly as long as it is said to be.
        bytes.to_vec().into_boxed_slice().into_vec()
    }

    pub(super) fn text(&mut self) -> CString {
        match self.byte() % 4 {
            0 => {
                CString::new(self.bytes().into_iter().filter(|&byte| byte != 0).collect::<Vec<_>>())
            }
            1 => CString::new("a"),
            2 => CString::new("127.0.0.1:1"),
            _ => CString::new("x".repeat(usize::from(self.byte()) * 5)),
        }
        .expect("no zero byte")
    }
}
