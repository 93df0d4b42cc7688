//! Entries of a log, and the record, the entry that travels.
//!
//! ```text
//! 0   u32  crc32c of bytes 4..length
//! 4   u32  length of the whole entry, this header included
//! 8   u8   kind: 1 record; 2 to 15 for what the owner of a log notes beside its records
//! 9   u8   class, 0 to 3 (records; else 0)
//! 10  u16  bytes of attributes (records; else 0)
//! -- records only --
//! 12  u32  epoch of the origin
//! 16  u64  origin
//! 24  u64  sequence number within origin, epoch and class
//! 32  u64  origin time, a hybrid stamp; 0 when not known
//! 40       attributes: tag u8, length u16, bytes; by rising tag, unknown tags are passed over:
//!          1 type, 2 key, 3 content type, 4 expiry (u64, ms since 1970), 5 idempotency key,
//!          6 a queue asked for, 7 a header (u16 length of its name, name, value), 8 origin name
//! ..       body, to the end
//! ```
//!
//! A record's checksum is made once, at its origin, over identity and body; every node checks it
//! and none replaces it. A producer without an identity of its own sends records whose origin,
//! epoch and number are zero; the node that takes them fills these in ([`stamp`]) and makes the
//! checksum anew.

use core::fmt;

use super::utf8::is_utf8;
use super::{Checksum, u16_at, u32_at, u64_at};
use crate::stream::{CLASSES, Epoch, NodeId, RecordId, Seq};
use crate::time::Stamp;

/// Bytes of the header that every entry has.
pub const ENTRY_HEADER_BYTES: usize = 12;
/// Bytes of a record before its attributes.
pub const RECORD_HEADER_BYTES: usize = 40;
/// The kind of a record.
pub const KIND_RECORD: u8 = 1;
/// Longest type of a message, in bytes.
pub const TYPE_BYTES_MAX: usize = 255;
/// Longest key, content type, idempotency key or header name, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Most bytes of attributes in one record.
pub const ATTRIBUTES_BYTES_MAX: usize = u16::MAX as usize;

mod tag {
    pub(super) const TYPE: u8 = 1;
    pub(super) const KEY: u8 = 2;
    pub(super) const CONTENT_TYPE: u8 = 3;
    pub(super) const EXPIRES: u8 = 4;
    pub(super) const IDEMPOTENCY_KEY: u8 = 5;
    pub(super) const TO: u8 = 6;
    pub(super) const HEADER: u8 = 7;
    pub(super) const ORIGIN_NAME: u8 = 8;
}

/// What a program posts. Only the body is wanted; an empty text or slice means "not given".
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Message<'a> {
    /// What kind of message it is; dispatch rules look at it. At most [`TYPE_BYTES_MAX`] bytes.
    pub message_type: &'a str,
    /// What the message is about; of two messages with one type and key the one with the later
    /// origin time is the current one. At most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The media type of the body.
    pub content_type: &'a str,
    /// Names the act of posting: a second post with the same key at the same node is the same
    /// message.
    pub idempotency_key: &'a [u8],
    /// When the message is no longer worth delivering, in milliseconds since 1970; 0 for never.
    pub expires_wall_ms: u64,
    /// Queues that the poster asks for, beside what the dispatch rules say.
    pub to: &'a [&'a str],
    /// Pairs of name and value for the applications.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The name of the node where it is posted, so that every reader can show it. The store that
    /// stamps the record refuses the name of another node.
    pub origin_name: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Why a message cannot be made into a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MessageError {
    /// The class is above 3.
    Class,
    /// The type has more than [`TYPE_BYTES_MAX`] bytes.
    TypeTooLong,
    /// A key, content type, header name or queue name is longer than [`KEY_BYTES_MAX`] bytes.
    KeyTooLong,
    /// All attributes together have more than [`ATTRIBUTES_BYTES_MAX`] bytes.
    AttributesTooLong,
    /// The buffer needs this many bytes.
    Short(usize),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class => f.write_str("the class is not 0, 1, 2 or 3"),
            Self::TypeTooLong => write!(f, "the type has more than {TYPE_BYTES_MAX} bytes"),
            Self::KeyTooLong => write!(f, "a key or name has more than {KEY_BYTES_MAX} bytes"),
            Self::AttributesTooLong => {
                write!(f, "type, key and headers have more than {ATTRIBUTES_BYTES_MAX} bytes")
            }
            Self::Short(needed) => write!(f, "the buffer needs {needed} bytes"),
        }
    }
}

impl core::error::Error for MessageError {}

impl Message<'_> {
    /// Bytes of the record that [`encode`] makes of this message.
    pub fn record_bytes(&self) -> Result<usize, MessageError> {
        let attributes = self.attribute_bytes(self.queue_names(), self.header_pairs())?;
        Ok(RECORD_HEADER_BYTES + attributes + self.body.len())
    }

    fn queue_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.to.iter().copied()
    }

    fn header_pairs(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.headers.iter().copied()
    }

    fn attribute_bytes<'l>(
        &self,
        to: impl Iterator<Item = &'l str>,
        headers: impl Iterator<Item = (&'l str, &'l [u8])>,
    ) -> Result<usize, MessageError> {
        if self.message_type.len() > TYPE_BYTES_MAX {
            return Err(MessageError::TypeTooLong);
        }
        let mut total = if self.expires_wall_ms == 0 { 0 } else { 3 + 8 };
        let texts = [
            self.message_type.len(),
            self.key.len(),
            self.content_type.len(),
            self.idempotency_key.len(),
            self.origin_name.len(),
        ];
        for length in texts.into_iter().chain(to.map(str::len)) {
            if length > KEY_BYTES_MAX {
                return Err(MessageError::KeyTooLong);
            }
            total += if length == 0 { 0 } else { 3 + length };
        }
        for (name, value) in headers {
            if name.len() > KEY_BYTES_MAX {
                return Err(MessageError::KeyTooLong);
            }
            total = total.saturating_add(3 + 2 + name.len() + value.len());
        }
        if total > ATTRIBUTES_BYTES_MAX {
            return Err(MessageError::AttributesTooLong);
        }
        Ok(total)
    }
}

/// Writes bytes one after the other; the space was checked before.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn attribute(&mut self, tag: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put(&[tag]);
            self.put(&(bytes.len() as u16).to_le_bytes());
            self.put(bytes);
        }
    }
}

/// Writes `message` as a record into `out` and returns its length. `id` with origin
/// [`NodeId::NONE`] makes a record that its node still has to [`stamp`].
pub fn encode(
    message: &Message<'_>,
    id: RecordId,
    time: Stamp,
    out: &mut [u8],
    checksum: Checksum,
) -> Result<usize, MessageError> {
    encode_lists(message, message.queue_names(), message.header_pairs(), id, time, out, checksum)
}

/// [`encode`] for whoever has queues and headers in another form than slices: `to` and `headers` stand for
/// those of `message`. Each is gone through twice, and has to give the same both times.
pub fn encode_lists<'l>(
    message: &Message<'_>,
    to: impl Iterator<Item = &'l str> + Clone,
    headers: impl Iterator<Item = (&'l str, &'l [u8])> + Clone,
    id: RecordId,
    time: Stamp,
    out: &mut [u8],
    checksum: Checksum,
) -> Result<usize, MessageError> {
    if usize::from(id.class) >= CLASSES {
        return Err(MessageError::Class);
    }
    let attributes = message.attribute_bytes(to.clone(), headers.clone())?;
    let length = RECORD_HEADER_BYTES + attributes + message.body.len();
    if out.len() < length {
        return Err(MessageError::Short(length));
    }
    let out = &mut out[..length];
    out[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    out[8] = KIND_RECORD;
    out[9] = id.class;
    out[10..12].copy_from_slice(&(attributes as u16).to_le_bytes());
    // `stamp` leaves a time alone: here it would be what the buffer held before.
    out[32..40].fill(0);
    let mut writer = Writer { out, at: RECORD_HEADER_BYTES };
    writer.attribute(tag::TYPE, message.message_type.as_bytes());
    writer.attribute(tag::KEY, message.key);
    writer.attribute(tag::CONTENT_TYPE, message.content_type.as_bytes());
    if message.expires_wall_ms != 0 {
        writer.attribute(tag::EXPIRES, &message.expires_wall_ms.to_le_bytes());
    }
    writer.attribute(tag::IDEMPOTENCY_KEY, message.idempotency_key);
    for name in to {
        writer.attribute(tag::TO, name.as_bytes());
    }
    for (name, value) in headers {
        writer.put(&[tag::HEADER]);
        writer.put(&((2 + name.len() + value.len()) as u16).to_le_bytes());
        writer.put(&(name.len() as u16).to_le_bytes());
        writer.put(name.as_bytes());
        writer.put(value);
    }
    writer.attribute(tag::ORIGIN_NAME, message.origin_name.as_bytes());
    writer.put(message.body);
    debug_assert_eq!(writer.at, length);
    stamp(out, id, time, checksum);
    Ok(length)
}

/// Gives the record in `bytes` its identity and, where it has none, its time; then makes its
/// checksum. `id.class` replaces the class that was asked for.
///
/// # Panics
/// When `bytes` is shorter than a record header: only whole records are stamped.
pub fn stamp(bytes: &mut [u8], id: RecordId, time: Stamp, checksum: Checksum) {
    put_id(bytes, id);
    if u64_at(bytes, 32) == 0 {
        bytes[32..40].copy_from_slice(&time.0.to_le_bytes());
    }
    let crc = checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Writes an identity into the header of a record, whose checksum no longer fits it then.
pub(crate) fn put_id(header: &mut [u8], id: RecordId) {
    header[9] = id.class;
    header[12..16].copy_from_slice(&id.epoch.0.to_le_bytes());
    header[16..24].copy_from_slice(&id.origin.0.to_le_bytes());
    header[24..32].copy_from_slice(&id.seq.0.to_le_bytes());
}

/// Writes an entry of a kind other than a record and returns its length.
///
/// # Errors
/// [`MessageError::Short`] when `out` has not room for header and payload.
pub fn encode_entry(
    kind: u8,
    payload: &[u8],
    out: &mut [u8],
    checksum: Checksum,
) -> Result<usize, MessageError> {
    debug_assert!(kind != KIND_RECORD);
    let length = ENTRY_HEADER_BYTES + payload.len();
    let Some(out) = out.get_mut(..length) else {
        return Err(MessageError::Short(length));
    };
    out[ENTRY_HEADER_BYTES..].copy_from_slice(payload);
    finish_entry(kind, out, checksum);
    Ok(length)
}

/// Makes the header of an entry whose payload is in place. `entry` is all of it.
pub(crate) fn finish_entry(kind: u8, entry: &mut [u8], checksum: Checksum) {
    let length = entry.len() as u32;
    entry[4..8].copy_from_slice(&length.to_le_bytes());
    entry[8] = kind;
    entry[9..ENTRY_HEADER_BYTES].fill(0);
    let crc = checksum(&entry[4..]);
    entry[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Why bytes are not an entry or not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EntryError {
    /// More bytes are needed: this many in all as far as can be told.
    Incomplete(usize),
    /// The length is below a header or above the limit given.
    Length(u32),
    /// The checksum does not match.
    Checksum,
    /// The entry is not a record.
    Kind(u8),
    /// The class is above 3, or the attributes do not fit or are malformed.
    Malformed,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete(needed) => write!(f, "incomplete, {needed} bytes wanted"),
            Self::Length(length) => write!(f, "a length of {length} is out of range"),
            Self::Checksum => f.write_str("the checksum does not match"),
            Self::Kind(kind) => write!(f, "kind {kind} is not a record"),
            Self::Malformed => f.write_str("class or attributes are malformed"),
        }
    }
}

impl core::error::Error for EntryError {}

/// The length of the entry at the start of `bytes`, when all of it is there.
pub fn entry_length(bytes: &[u8], bytes_max: u32) -> Result<usize, EntryError> {
    if bytes.len() < 8 {
        return Err(EntryError::Incomplete(ENTRY_HEADER_BYTES));
    }
    let length = u32_at(bytes, 4);
    if (length as usize) < ENTRY_HEADER_BYTES || length > bytes_max {
        return Err(EntryError::Length(length));
    }
    if bytes.len() < length as usize {
        return Err(EntryError::Incomplete(length as usize));
    }
    Ok(length as usize)
}

/// The entries in `bytes`, one after the other, unchecked: for the inside of a checked batch.
/// Ends at the first thing that has not the form of an entry.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The entries in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Entries<'a> {
    /// The kind of an entry and all its bytes.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = entry_length(self.rest, u32::MAX).ok()?;
        let (entry, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some((entry[8], entry))
    }
}

/// A whole record whose form was checked. Reading a field costs a load.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id())
            .field("type", &self.message_type())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl<'a> Record<'a> {
    /// The record that is all of `bytes`, with form and checksum checked.
    pub fn check(bytes: &'a [u8], checksum: Checksum) -> Result<Self, EntryError> {
        let record = Self::parse(bytes)?;
        if u32_at(bytes, 0) != checksum(&bytes[4..]) {
            return Err(EntryError::Checksum);
        }
        record.check_attributes()?;
        Ok(record)
    }

    /// The record that is all of `bytes`, whose checksum was checked when it was stored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let length = entry_length(bytes, u32::MAX)?;
        if length != bytes.len() || length < RECORD_HEADER_BYTES {
            return Err(EntryError::Length(length as u32));
        }
        if bytes[8] != KIND_RECORD {
            return Err(EntryError::Kind(bytes[8]));
        }
        let attributes = usize::from(u16_at(bytes, 10));
        if usize::from(bytes[9]) >= CLASSES || RECORD_HEADER_BYTES + attributes > length {
            return Err(EntryError::Malformed);
        }
        Ok(Self { bytes })
    }

    fn check_attributes(&self) -> Result<(), EntryError> {
        let mut rest = self.attribute_bytes();
        while !rest.is_empty() {
            if rest.len() < 3 {
                return Err(EntryError::Malformed);
            }
            let length = 3 + usize::from(u16_at(rest, 1));
            let value = rest.get(3..length).ok_or(EntryError::Malformed)?;
            let text = || is_utf8(value);
            let sound = match rest[0] {
                tag::TYPE => value.len() <= TYPE_BYTES_MAX && text(),
                tag::CONTENT_TYPE | tag::TO | tag::ORIGIN_NAME => {
                    value.len() <= KEY_BYTES_MAX && text()
                }
                tag::KEY | tag::IDEMPOTENCY_KEY => value.len() <= KEY_BYTES_MAX,
                tag::EXPIRES => value.len() == 8,
                tag::HEADER => split_header(value).is_some_and(|(name, _)| is_utf8(name)),
                _ => true,
            };
            if !sound {
                return Err(EntryError::Malformed);
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    /// All bytes of the record, as stored and as sent.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The identity; origin [`NodeId::NONE`] when no node has stamped it.
    pub fn id(&self) -> RecordId {
        RecordId {
            origin: NodeId(u64_at(self.bytes, 16)),
            epoch: Epoch(u32_at(self.bytes, 12)),
            class: self.bytes[9],
            seq: Seq(u64_at(self.bytes, 24)),
        }
    }

    /// The time at the origin; [`Stamp::UNSET`] when not known.
    pub fn time(&self) -> Stamp {
        Stamp(u64_at(self.bytes, 32))
    }

    fn attribute_bytes(&self) -> &'a [u8] {
        let end = RECORD_HEADER_BYTES + usize::from(u16_at(self.bytes, 10));
        &self.bytes[RECORD_HEADER_BYTES..end]
    }

    fn attributes(&self, wanted: u8) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.attribute_bytes();
        core::iter::from_fn(move || {
            loop {
                if rest.len() < 3 {
                    return None;
                }
                let length = 3 + usize::from(u16_at(rest, 1));
                let (tag, value) = (rest[0], rest.get(3..length)?);
                rest = &rest[length..];
                if tag == wanted {
                    return Some(value);
                }
            }
        })
    }

    fn bytes_of(&self, wanted: u8) -> &'a [u8] {
        self.attributes(wanted).next().unwrap_or(&[])
    }

    fn text_of(&self, wanted: u8) -> &'a str {
        core::str::from_utf8(self.bytes_of(wanted)).unwrap_or("")
    }

    /// What kind of message it is; empty when not given.
    pub fn message_type(&self) -> &'a str {
        self.text_of(tag::TYPE)
    }

    /// What the message is about; empty when not given.
    pub fn key(&self) -> &'a [u8] {
        self.bytes_of(tag::KEY)
    }

    /// The media type of the body; empty when not given.
    pub fn content_type(&self) -> &'a str {
        self.text_of(tag::CONTENT_TYPE)
    }

    /// What names the act of posting; empty when not given.
    pub fn idempotency_key(&self) -> &'a [u8] {
        self.bytes_of(tag::IDEMPOTENCY_KEY)
    }

    /// When it is no longer worth delivering, in milliseconds since 1970; 0 for never.
    pub fn expires_wall_ms(&self) -> u64 {
        let value = self.bytes_of(tag::EXPIRES);
        if value.len() == 8 { u64_at(value, 0) } else { 0 }
    }

    /// The queues that the poster asked for.
    pub fn to(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.attributes(tag::TO).filter_map(|name| core::str::from_utf8(name).ok())
    }

    /// Pairs of name and value for the applications.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.attributes(tag::HEADER).filter_map(|header| {
            let (name, value) = split_header(header)?;
            Some((core::str::from_utf8(name).ok()?, value))
        })
    }

    /// The name of the origin; empty when it was not given.
    pub fn origin_name(&self) -> &'a str {
        self.text_of(tag::ORIGIN_NAME)
    }

    /// The body.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES + usize::from(u16_at(self.bytes, 10))..]
    }
}

fn split_header(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let name_length = usize::from(u16::from_le_bytes([*value.first()?, *value.get(1)?]));
    let name = value.get(2..2 + name_length)?;
    Some((name, &value[2 + name_length..]))
}

#[cfg(test)]
mod tests {
    use super::super::crc32c;
    use super::*;

    fn sample() -> Message<'static> {
        Message {
            message_type: "sensor",
            key: b"boiler",
            content_type: "text/plain",
            idempotency_key: b"a-1",
            expires_wall_ms: 77,
            to: &["242", "243"],
            headers: &[("unit", b"C"), ("empty", b"")],
            origin_name: "cellar",
            body: b"21.5",
        }
    }

    fn id() -> RecordId {
        RecordId { origin: NodeId(9), epoch: Epoch(0x10002), class: 1, seq: Seq(5) }
    }

    fn encoded() -> std::vec::Vec<u8> {
        // What a buffer holds before does not show.
        let mut out = std::vec![0xaa; 512];
        let length = encode(&sample(), id(), Stamp(33), &mut out, crc32c).unwrap();
        out.truncate(length);
        out
    }

    #[test]
    fn every_field_reads_back() {
        let bytes = encoded();
        let record = Record::check(&bytes, crc32c).unwrap();
        let message = sample();
        assert_eq!((record.id(), record.time()), (id(), Stamp(33)));
        assert_eq!(record.message_type(), message.message_type);
        assert_eq!(record.key(), message.key);
        assert_eq!(record.content_type(), message.content_type);
        assert_eq!(record.idempotency_key(), message.idempotency_key);
        assert_eq!(record.expires_wall_ms(), 77);
        assert!(record.to().eq(["242", "243"]));
        assert!(record.headers().eq([("unit", &b"C"[..]), ("empty", b"")]));
        assert_eq!(record.origin_name(), "cellar");
        assert_eq!(record.body(), message.body);
        assert_eq!(bytes.len(), message.record_bytes().unwrap());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = encoded();
        for cut in 0..bytes.len() {
            assert!(Record::check(&bytes[..cut], crc32c).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::check(&damaged, crc32c).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn stamping_keeps_a_known_time_and_sets_an_unknown_one() {
        let mut bytes = encoded();
        let other = RecordId { seq: Seq(6), ..id() };
        stamp(&mut bytes, other, Stamp(99), crc32c);
        let record = Record::check(&bytes, crc32c).unwrap();
        assert_eq!((record.id(), record.time()), (other, Stamp(33)));

        let mut out = [0; 64];
        let plain = Message { body: b"x", ..Message::default() };
        let length = encode(&plain, RecordId::default(), Stamp::UNSET, &mut out, crc32c).unwrap();
        stamp(&mut out[..length], other, Stamp(99), crc32c);
        assert_eq!(Record::check(&out[..length], crc32c).unwrap().time(), Stamp(99));
    }

    #[test]
    fn malformed_attributes_with_a_right_checksum_are_refused() {
        let mut bytes = encoded();
        bytes[RECORD_HEADER_BYTES + 1] = 0xff;
        let crc = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Record::check(&bytes, crc32c).unwrap_err(), EntryError::Malformed);
    }

    #[test]
    fn limits_are_said_before_anything_is_written() {
        let long = "t".repeat(TYPE_BYTES_MAX + 1);
        let message = Message { message_type: &long, ..Message::default() };
        let mut out = [0; 16];
        let refused = encode(&message, id(), Stamp::UNSET, &mut out, crc32c);
        assert_eq!(refused, Err(MessageError::TypeTooLong));
        let message = Message { body: &[1; 64], ..Message::default() };
        let refused = encode(&message, id(), Stamp::UNSET, &mut out, crc32c);
        assert_eq!(refused, Err(MessageError::Short(104)));
        assert_eq!(out, [0; 16]);
    }

    #[test]
    fn entries_are_walked_and_end_at_what_is_no_entry() {
        let mut log = encoded();
        let mut note = [0; 32];
        let length = encode_entry(2, b"note", &mut note, crc32c).unwrap();
        log.extend_from_slice(&note[..length]);
        log.extend_from_slice(&[0; 40]);
        let kinds: std::vec::Vec<u8> = Entries::new(&log).map(|entry| entry.0).collect();
        assert_eq!(kinds, [1, 2]);
    }
}
