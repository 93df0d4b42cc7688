//! Records: made of messages, checked, and read.

use core::ffi::c_char;

use replcore_core::log::crc32c;
use replcore_core::log::record::{self, Message, Record};
use replcore_core::stream::{Epoch, Name, NodeId, RecordId, Seq};
use replcore_core::time::{HybridClock, Stamp};

use super::check::{bytes, bytes_mut, reference_mut, sized, slice, text};
use super::replcore_status;
use super::status::status;

/// What a program posts. All zeros but `struct_size` is an empty message; NULL and 0 mean "not
/// given".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_message {
    /// sizeof(replcore_message).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// What kind of message it is; dispatch rules look at it. At most 255 bytes.
    pub message_type: *const c_char,
    /// The media type of the body. At most 1024 bytes.
    pub content_type: *const c_char,
    /// Queues that the poster asks for, beside what the dispatch rules say.
    pub to: *const *const c_char,
    /// The name of the node where it is posted.
    pub origin_name: *const c_char,
    /// What the message is about. At most 1024 bytes.
    pub key: *const u8,
    /// Bytes of the key.
    pub key_len: usize,
    /// Names the act of posting: a second post of the same key at one node is the same message. At
    /// most 1024 bytes.
    pub idempotency_key: *const u8,
    /// Bytes of the idempotency key.
    pub idempotency_key_len: usize,
    /// The body.
    pub body: *const u8,
    /// Bytes of the body.
    pub body_len: usize,
    /// When it is no longer worth delivering, in milliseconds since 1970; 0 for never.
    pub expires_wall_ms: u64,
    /// The time at the origin as a stamp that rises with every message, by replcore_stamp_next; 0
    /// for the plain time that replcore_record_encode is given.
    pub stamp: u64,
    /// Pairs of name and value for the applications.
    pub headers: *const replcore_header,
    /// How many pairs, at most 32.
    pub header_count: u32,
    /// How many queues `to` has, at most 32.
    pub to_count: u32,
}

/// A pair of name and value that applications hang on a message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_header {
    /// Its name, at most 1024 bytes.
    pub name: *const c_char,
    /// Its value.
    pub value: *const u8,
    /// Bytes of the value.
    pub value_len: usize,
}

/// Most headers, and most queues asked for, that a message can be given here.
const LIST_MAX: u32 = 32;

/// What a record is called, for ever and on every hop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_record_id {
    /// The node where it was posted: the id of that node's name. 0: no node has stamped it yet.
    pub origin: u64,
    /// The number within origin, epoch and class; the first is 1.
    pub seq: u64,
    /// The life of the origin's log.
    pub epoch: u32,
    /// The class, 0 (most urgent) to 3.
    pub message_class: u32,
}

/// What is in a record. Each `_at` is an offset from the start of the record, 0 with a length of 0
/// when it was not given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_record {
    /// Its identity.
    pub id: replcore_record_id,
    /// The time at its origin in milliseconds since 1970; 0 when not known.
    pub time_wall_ms: u64,
    /// When it is no longer worth delivering, in milliseconds since 1970; 0 for never.
    pub expires_wall_ms: u64,
    /// The type.
    pub type_at: u32,
    /// Bytes of the type.
    pub type_len: u32,
    /// The key.
    pub key_at: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// The media type of the body.
    pub content_type_at: u32,
    /// Bytes of the media type.
    pub content_type_len: u32,
    /// The name of the origin.
    pub origin_name_at: u32,
    /// Bytes of the name of the origin.
    pub origin_name_len: u32,
    /// What names the act of posting.
    pub idempotency_key_at: u32,
    /// Bytes of it.
    pub idempotency_key_len: u32,
    /// The body.
    pub body_at: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// How many queues it asks for; replcore_record_to gives them.
    pub to_count: u32,
    /// How many headers it has; replcore_record_header gives them.
    pub header_count: u32,
    /// The time at its origin as a stamp, of which `time_wall_ms` is the greater part; of two
    /// messages with one type and key the one with the greater stamp is the current one.
    pub stamp: u64,
}

/// Where a part of a record stands: offsets from the start of the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_part {
    /// The name.
    pub name_at: u32,
    /// Bytes of the name.
    pub name_len: u32,
    /// The value; of a queue asked for there is none.
    pub value_at: u32,
    /// Bytes of the value.
    pub value_len: u32,
}

impl replcore_record_id {
    fn id(&self) -> Result<RecordId, replcore_status> {
        Ok(RecordId {
            origin: NodeId(self.origin),
            epoch: Epoch(self.epoch),
            class: u8::try_from(self.message_class).map_err(|_| replcore_status::Value)?,
            seq: Seq(self.seq),
        })
    }
}

/// The id of the node or queue of this name.
///
/// # Safety
/// `name` ends in a zero byte, `id` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_name_id(name: *const c_char, id: *mut u64) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (name, id) = unsafe { (text(name)?, reference_mut(id)?) };
        *id = Name::new(name).map_err(|_| replcore_status::Name)?.node_id().0;
        Ok(())
    })())
}

/// The stamp after `last`, at the wall time `wall_ms`: greater than `last` even when the clock of the
/// wall was set back. Keep the greatest that was given out or seen in a record.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_stamp_next(last: u64, wall_ms: u64) -> u64 {
    let mut clock = HybridClock::new();
    // At the time of `last` itself nothing is too far ahead.
    clock.observe(Stamp(last).wall_ms(), Stamp(last));
    clock.stamp(wall_ms.min(u64::MAX >> 16)).0
}

/// Writes the message as a record with the identity `id` and the time `time_wall_ms` (0 when not
/// known) to `out`; `*written` gets its length. After SHORT `*written` says how many bytes `out`
/// needs.
///
/// # Safety
/// `message` and what it points to are as its comments say, `id` is readable, `out` has `cap`
/// bytes, `written` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_record_encode(
    message: *const replcore_message,
    id: *const replcore_record_id,
    time_wall_ms: u64,
    out: *mut u8,
    cap: usize,
    written: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let given: replcore_message = unsafe { sized(message) }?;
        // SAFETY: as the caller promises.
        let id = unsafe { super::check::reference(id) }?.id()?;
        // SAFETY: as the caller promises.
        let (out, written) = unsafe { (bytes_mut(out, cap)?, reference_mut(written)?) };
        // Gone through where they are, not copied: a device has little stack.
        // SAFETY: as the comments of the structure ask; so is the line after.
        let to = unsafe { queues(&given) }?;
        // SAFETY: see above.
        let headers = unsafe { headers(&given) }?;
        let message = Message {
            // SAFETY: as the comments of the structure ask; so are the five that follow.
            message_type: unsafe { text(given.message_type) }?,
            // SAFETY: see above.
            key: unsafe { bytes(given.key, given.key_len) }?,
            // SAFETY: see above.
            content_type: unsafe { text(given.content_type) }?,
            // SAFETY: see above.
            idempotency_key: unsafe { bytes(given.idempotency_key, given.idempotency_key_len) }?,
            expires_wall_ms: given.expires_wall_ms,
            // SAFETY: see above.
            origin_name: unsafe { text(given.origin_name) }?,
            // SAFETY: see above.
            body: unsafe { bytes(given.body, given.body_len) }?,
            ..Message::default()
        };
        let time = match given.stamp {
            0 => Stamp::from_wall_ms(time_wall_ms),
            stamp => Stamp(stamp),
        };
        match record::encode_lists(&message, to, headers, id, time, out, crc32c) {
            Ok(length) => *written = length,
            Err(error) => {
                if let record::MessageError::Short(needed) = error {
                    *written = needed;
                }
                return Err(error.into());
            }
        }
        Ok(())
    })())
}

/// The queues that a message asks for, all of them sound.
///
/// # Safety
/// As the comments of the structure ask, as long as the iterator is used.
unsafe fn queues<'m>(
    given: &replcore_message,
) -> Result<impl Iterator<Item = &'m str> + Clone, replcore_status> {
    // SAFETY: as the caller promises; so are the two below.
    let names = unsafe { slice(given.to, given.to_count, LIST_MAX) }?;
    for &name in names {
        // SAFETY: see above.
        unsafe { text(name) }?;
    }
    // SAFETY: see above.
    Ok(names.iter().map(|&name| unsafe { text(name) }.unwrap_or_default()))
}

/// The headers of a message, all of them sound.
///
/// # Safety
/// As the comments of the structure ask, as long as the iterator is used.
unsafe fn headers<'m>(
    given: &replcore_message,
) -> Result<impl Iterator<Item = (&'m str, &'m [u8])> + Clone, replcore_status> {
    // SAFETY: as the caller promises; so are the two below.
    let headers: &'m [_] = unsafe { slice(given.headers, given.header_count, LIST_MAX) }?;
    for header in headers {
        // SAFETY: see above.
        unsafe { pair(header) }?;
    }
    // SAFETY: see above.
    Ok(headers.iter().map(|header| unsafe { pair(header) }.unwrap_or_default()))
}

/// Name and value of a header.
///
/// # Safety
/// As the comments of the structure ask, as long as the two are used.
unsafe fn pair<'m>(header: &replcore_header) -> Result<(&'m str, &'m [u8]), replcore_status> {
    // SAFETY: as the caller promises.
    unsafe { Ok((text(header.name)?, bytes(header.value, header.value_len)?)) }
}

/// Where `field` stands in `data`, of which it is a part: offset and length.
fn place(data: &[u8], field: &[u8]) -> (u32, u32) {
    match field.len() {
        0 => (0, 0),
        length => ((field.as_ptr().addr() - data.as_ptr().addr()) as u32, length as u32),
    }
}

/// Says where the queue that a record asks for stands, the one of this `index` from 0. END when
/// it asks for fewer.
///
/// # Safety
/// `data` has `len` bytes, `part` is writable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_record_to(
    data: *const u8,
    len: usize,
    index: u32,
    part: *mut replcore_part,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, part) = unsafe { (bytes(data, len)?, reference_mut(part)?) };
        let name = Record::parse(data)?.to().nth(index as usize).ok_or(replcore_status::End)?;
        let (name_at, name_len) = place(data, name.as_bytes());
        *part = replcore_part { name_at, name_len, ..replcore_part::default() };
        Ok(())
    })())
}

/// Says where the header of this `index` from 0 stands in a record. END when it has fewer.
///
/// # Safety
/// `data` has `len` bytes, `part` is writable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_record_header(
    data: *const u8,
    len: usize,
    index: u32,
    part: *mut replcore_part,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, part) = unsafe { (bytes(data, len)?, reference_mut(part)?) };
        let record = Record::parse(data)?;
        let (name, value) = record.headers().nth(index as usize).ok_or(replcore_status::End)?;
        let (name_at, name_len) = place(data, name.as_bytes());
        let (value_at, value_len) = place(data, value);
        *part = replcore_part { name_at, name_len, value_at, value_len };
        Ok(())
    })())
}

/// Checks form and checksum of the record that is all of `data` and says what is in it.
///
/// # Safety
/// `data` has `len` bytes, `record` is writable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_record_check(
    data: *const u8,
    len: usize,
    record: *mut replcore_record,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, record) = unsafe { (bytes(data, len)?, reference_mut(record)?) };
        let found = Record::check(data, crc32c)?;
        let place = |field| place(data, field);
        let id = found.id();
        let (type_at, type_len) = place(found.message_type().as_bytes());
        let (key_at, key_len) = place(found.key());
        let (content_type_at, content_type_len) = place(found.content_type().as_bytes());
        let (origin_name_at, origin_name_len) = place(found.origin_name().as_bytes());
        let (idempotency_key_at, idempotency_key_len) = place(found.idempotency_key());
        let (body_at, body_len) = place(found.body());
        *record = replcore_record {
            id: replcore_record_id {
                origin: id.origin.0,
                seq: id.seq.0,
                epoch: id.epoch.0,
                message_class: id.class.into(),
            },
            time_wall_ms: found.time().wall_ms(),
            expires_wall_ms: found.expires_wall_ms(),
            type_at,
            type_len,
            key_at,
            key_len,
            content_type_at,
            content_type_len,
            origin_name_at,
            origin_name_len,
            idempotency_key_at,
            idempotency_key_len,
            body_at,
            body_len,
            to_count: found.to().count() as u32,
            header_count: found.headers().count() as u32,
            stamp: found.time().0,
        };
        Ok(())
    })())
}

/// Gives the record in `data` a new identity and makes its checksum anew.
///
/// # Safety
/// `data` has `len` bytes, `id` is readable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_record_stamp(
    data: *mut u8,
    len: usize,
    id: *const replcore_record_id,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, id) = unsafe { (bytes_mut(data, len)?, super::check::reference(id)?.id()?) };
        if usize::from(id.class) >= replcore_core::stream::CLASSES {
            return Err(replcore_status::Value);
        }
        Record::check(data, crc32c)?;
        record::stamp(data, id, Stamp::UNSET, crc32c);
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use core::ptr::null;

    use super::*;

    fn message() -> replcore_message {
        // SAFETY: zeros are a value of a structure of integers and pointers.
        let mut message: replcore_message = unsafe { core::mem::zeroed() };
        message.struct_size = size_of::<replcore_message>() as u32;
        message
    }

    fn encode(message: &replcore_message) -> Result<Vec<u8>, replcore_status> {
        let id = replcore_record_id { origin: 1, seq: 2, epoch: 3, message_class: 1 };
        let (mut out, mut written) = (vec![0; 4096], 0);
        // SAFETY: the pointers are of live values and the length is that of the buffer.
        let done = unsafe {
            replcore_record_encode(message, &id, 5, out.as_mut_ptr(), out.len(), &mut written)
        };
        out.truncate(written);
        if done == replcore_status::Ok { Ok(out) } else { Err(done) }
    }

    #[test]
    fn queues_headers_key_and_stamp_of_a_message_are_read_back() {
        let to = [c"till-7".as_ptr(), c"till-8".as_ptr()];
        let header = |name: &'static core::ffi::CStr, value: &'static [u8]| replcore_header {
            name: name.as_ptr(),
            value: value.as_ptr(),
            value_len: value.len(),
        };
        let headers = [header(c"unit", b"C"), header(c"raw", &[0, 255])];
        let mut given = message();
        (given.to, given.to_count) = (to.as_ptr(), 2);
        (given.headers, given.header_count) = (headers.as_ptr(), 2);
        (given.idempotency_key, given.idempotency_key_len) = (b"k".as_ptr(), 1);
        given.stamp = replcore_stamp_next(7 << 16, 3);
        let record = encode(&given).unwrap();

        let (mut found, mut part) = (replcore_record::default(), replcore_part::default());
        let text = |at: u32, len: u32| &record[at as usize..][..len as usize];
        let (data, len) = (record.as_ptr(), record.len());
        // SAFETY: the record is live and so are the two that are written to.
        unsafe {
            assert_eq!(replcore_record_check(data, len, &mut found), replcore_status::Ok);
            assert_eq!((found.to_count, found.header_count), (2, 2));
            assert_eq!((found.stamp, found.time_wall_ms), ((7 << 16) + 1, 7));
            assert_eq!(text(found.idempotency_key_at, found.idempotency_key_len), b"k");
            assert_eq!(replcore_record_to(data, len, 1, &mut part), replcore_status::Ok);
            assert_eq!(text(part.name_at, part.name_len), b"till-8");
            assert_eq!(replcore_record_to(data, len, 2, &mut part), replcore_status::End);
            assert_eq!(replcore_record_header(data, len, 1, &mut part), replcore_status::Ok);
            assert_eq!(text(part.name_at, part.name_len), b"raw");
            assert_eq!(text(part.value_at, part.value_len), [0, 255]);
            assert_eq!(replcore_record_header(data, len, 2, &mut part), replcore_status::End);
        }
    }

    #[test]
    fn lists_that_are_null_or_too_long_are_refused() {
        let mut given = message();
        (given.to, given.to_count) = (null(), 1);
        assert_eq!(encode(&given), Err(replcore_status::Null));
        let many = [c"q".as_ptr(); LIST_MAX as usize + 1];
        (given.to, given.to_count) = (many.as_ptr(), many.len() as u32);
        assert_eq!(encode(&given), Err(replcore_status::Length));
        given.to_count -= 1;
        assert!(encode(&given).is_ok());
        // A header that knew neither lists nor stamp.
        given.struct_size = core::mem::offset_of!(replcore_message, stamp) as u32;
        assert!(encode(&given).is_ok());
    }

    #[test]
    fn stamps_rise_whatever_the_clock_does() {
        assert_eq!(replcore_stamp_next(0, 7), 7 << 16);
        assert_eq!(replcore_stamp_next(7 << 16, 5), (7 << 16) + 1);
        assert_eq!(replcore_stamp_next(u64::MAX, u64::MAX), u64::MAX);
    }
}
