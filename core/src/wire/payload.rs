//! How fields are written, in control frames and in the small records that machines store: section 3
//! of `docs/wire.md`.
//!
//! Not by `serde`: read and written so, what a leaf says and hears took 5 KB of a device's flash, three
//! times as much as this does. A field is one call, and whether all went well is asked once, at the end.

/// Fields, in the order in which they are sent.
pub(crate) trait Payload<'a> {
    fn read(from: &mut Reader<'a>) -> Self;
    fn write(&self, to: &mut Writer<'_>);
}

/// Reads fields. Once something is wrong it gives zeros and empty texts, which nobody gets to see.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Reader<'a> {
    /// What `bytes` hold, to their end; `None` when they hold anything else.
    pub(crate) fn whole<T: Payload<'a>>(bytes: &'a [u8]) -> Option<T> {
        let mut from = Self::new(bytes);
        let value = T::read(&mut from);
        from.is_done().then_some(value)
    }

    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, broken: false }
    }

    /// Whether everything was what it should be, and nothing is left.
    pub(super) const fn is_done(&self) -> bool {
        !self.broken && self.rest.is_empty()
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            self.broken = true;
            return &[];
        };
        self.rest = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// An integer of at most `bytes_max` bytes.
    fn varint(&mut self, bytes_max: u32) -> u64 {
        let mut value = 0;
        for at in 0..bytes_max {
            let byte = self.byte();
            // Of 64 bits the tenth byte has the last.
            self.broken |= at == 9 && byte > 1;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return value;
            }
        }
        self.broken = true;
        0
    }

    /// Something of `value`'s type, in place of what is none.
    pub(super) const fn refuse<T: Copy>(&mut self, value: T) -> T {
        self.broken = true;
        value
    }

    /// One of what the list has.
    pub(crate) fn choice<T: Copy>(&mut self, all: &[T]) -> T {
        let number = usize::from(self.byte());
        all.get(number).copied().unwrap_or_else(|| self.refuse(all[0]))
    }
}

/// Writes fields, and counts what did not fit.
pub(crate) struct Writer<'b> {
    room: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    /// Writes `value` into `room`: how many bytes it takes, or, when there are fewer, would take.
    pub(crate) fn whole<'a>(value: &impl Payload<'a>, room: &'b mut [u8]) -> Result<usize, usize> {
        let mut to = Self::new(room);
        value.write(&mut to);
        to.finish()
    }

    pub(super) const fn new(room: &'b mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    pub(super) const fn finish(self) -> Result<usize, usize> {
        if self.len <= self.room.len() { Ok(self.len) } else { Err(self.len) }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.room.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.bytes(&[value as u8]);
    }
}

impl Payload<'_> for u8 {
    fn read(from: &mut Reader<'_>) -> Self {
        from.byte()
    }
    fn write(&self, to: &mut Writer<'_>) {
        to.bytes(&[*self]);
    }
}

impl Payload<'_> for bool {
    fn read(from: &mut Reader<'_>) -> Self {
        let byte = from.byte();
        from.broken |= byte > 1;
        byte == 1
    }
    fn write(&self, to: &mut Writer<'_>) {
        u8::from(*self).write(to);
    }
}

impl Payload<'_> for u32 {
    fn read(from: &mut Reader<'_>) -> Self {
        let value = from.varint(5);
        from.broken |= value > u64::from(Self::MAX);
        value as Self
    }
    fn write(&self, to: &mut Writer<'_>) {
        to.varint(u64::from(*self));
    }
}

impl Payload<'_> for u64 {
    fn read(from: &mut Reader<'_>) -> Self {
        from.varint(10)
    }
    fn write(&self, to: &mut Writer<'_>) {
        to.varint(*self);
    }
}

impl<'a> Payload<'a> for &'a [u8] {
    fn read(from: &mut Reader<'a>) -> Self {
        let len = u32::read(from) as usize;
        from.bytes(len)
    }
    fn write(&self, to: &mut Writer<'_>) {
        to.varint(self.len() as u64);
        to.bytes(self);
    }
}

impl<'a> Payload<'a> for &'a str {
    fn read(from: &mut Reader<'a>) -> Self {
        let bytes = Payload::read(from);
        core::str::from_utf8(bytes).unwrap_or_else(|_| from.refuse(""))
    }
    fn write(&self, to: &mut Writer<'_>) {
        self.as_bytes().write(to);
    }
}

impl<'a, T: Payload<'a>> Payload<'a> for Option<T> {
    fn read(from: &mut Reader<'a>) -> Self {
        bool::read(from).then(|| T::read(from))
    }
    fn write(&self, to: &mut Writer<'_>) {
        self.is_some().write(to);
        if let Some(value) = self {
            value.write(to);
        }
    }
}

/// As many as the length says, which is not sent.
impl<'a, T: Payload<'a>, const LEN: usize> Payload<'a> for [T; LEN] {
    fn read(from: &mut Reader<'a>) -> Self {
        core::array::from_fn(|_| T::read(from))
    }
    fn write(&self, to: &mut Writer<'_>) {
        for value in self {
            value.write(to);
        }
    }
}

/// Lists the fields of a type. A macro, so that what is read cannot differ from what is written.
macro_rules! payload {
    ($name:ident $(<$life:lifetime>)? { $($field:ident),+ $(,)? }) => {
        impl<'a> $crate::wire::payload::Payload<'a> for $name $(<$life>)? {
            fn read(from: &mut $crate::wire::payload::Reader<'a>) -> Self {
                Self { $($field: $crate::wire::payload::Payload::read(from)),+ }
            }
            fn write(&self, to: &mut $crate::wire::payload::Writer<'_>) {
                $($crate::wire::payload::Payload::write(&self.$field, to);)+
            }
        }
    };
}
pub(crate) use payload;

/// Lists the values of a choice, by which it is numbered from 0.
macro_rules! choice {
    ($name:ident { $($value:ident),+ $(,)? }) => {
        impl $name {
            const ALL: &[Self] = &[$(Self::$value),+];
        }
        const _: () = {
            let mut at = 0;
            while at < $name::ALL.len() {
                assert!($name::ALL[at] as usize == at, "not in the order of their numbers");
                at += 1;
            }
        };
        impl $crate::wire::payload::Payload<'_> for $name {
            fn read(from: &mut $crate::wire::payload::Reader<'_>) -> Self {
                from.choice(Self::ALL)
            }
            fn write(&self, to: &mut $crate::wire::payload::Writer<'_>) {
                $crate::wire::payload::Payload::write(&(*self as u8), to);
            }
        }
    };
}
pub(crate) use choice;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bytes are read as, and that nothing shorter is.
    fn read<'a, T: Payload<'a>>(bytes: &'a [u8]) -> Option<T> {
        for cut in 0..bytes.len() {
            assert!(Reader::whole::<T>(&bytes[..cut]).is_none(), "{cut} bytes");
        }
        Reader::whole(bytes)
    }

    #[test]
    fn integers_read_back_and_too_large_ones_do_not() {
        for bits in 0..64 {
            for value in [1 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut buf = [0; 10];
                let len = Writer::whole(&value, &mut buf).unwrap();
                assert_eq!(read(&buf[..len]), Some(value));
                assert_eq!(read::<u32>(&buf[..len]), u32::try_from(value).ok());
            }
        }
        assert_eq!(read::<u64>(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]), None);
        assert_eq!(Reader::whole::<u32>(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), None, "five bytes");
        assert_eq!(Reader::whole::<u64>(&[0xff; 11]), None);
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        assert_eq!(read::<bool>(&[2]), None);
        assert_eq!(read::<&str>(&[2, 0xc3, 0xa9]), Some("\u{e9}"));
        assert_eq!(read::<&str>(&[1, 0xc3]), None);
        assert_eq!(Reader::whole::<&[u8]>(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]), None);
        assert_eq!(read::<Option<u8>>(&[1, 7]), Some(Some(7)));
        assert_eq!(Reader::whole::<Option<u8>>(&[0, 7]), None, "something is left");
        assert_eq!(Reader::new(&[4]).choice(&[1, 2, 3]), 1);
        assert_eq!(read::<crate::wire::Role>(&[4]), None);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let text = "four";
        for room in 0..5 {
            assert_eq!(Writer::whole(&text, &mut [0; 5][..room]), Err(5));
        }
        assert_eq!(Writer::whole(&text, &mut [0; 5]), Ok(5));
    }
}
