//! Records: made of messages, checked, and read.

use core::ffi::c_char;

use replcore_core::log::crc32c;
use replcore_core::log::record::{self, Message, Record};
use replcore_core::stream::{Epoch, Name, NodeId, RecordId, Seq};
use replcore_core::time::Stamp;

use crate::check::{bytes, bytes_mut, reference_mut, sized, text};
use crate::replcore_status;
use crate::status::status;

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
    /// A queue that the poster asks for, beside what the dispatch rules say.
    pub to: *const c_char,
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
}

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
    /// The body.
    pub body_at: u32,
    /// Bytes of the body.
    pub body_len: u32,
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
        let id = unsafe { crate::check::reference(id) }?.id()?;
        // SAFETY: as the caller promises.
        let (out, written) = unsafe { (bytes_mut(out, cap)?, reference_mut(written)?) };
        // SAFETY: as the comments of the structure ask.
        let to = [unsafe { text(given.to) }?];
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
            to: if to[0].is_empty() { &[] } else { &to },
            headers: &[],
            // SAFETY: see above.
            origin_name: unsafe { text(given.origin_name) }?,
            // SAFETY: see above.
            body: unsafe { bytes(given.body, given.body_len) }?,
        };
        match record::encode(&message, id, Stamp::from_wall_ms(time_wall_ms), out, crc32c) {
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
        let place = |field: &[u8]| match field.len() {
            0 => (0, 0),
            length => ((field.as_ptr().addr() - data.as_ptr().addr()) as u32, length as u32),
        };
        let id = found.id();
        let (type_at, type_len) = place(found.message_type().as_bytes());
        let (key_at, key_len) = place(found.key());
        let (content_type_at, content_type_len) = place(found.content_type().as_bytes());
        let (origin_name_at, origin_name_len) = place(found.origin_name().as_bytes());
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
            body_at,
            body_len,
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
        let (data, id) = unsafe { (bytes_mut(data, len)?, crate::check::reference(id)?.id()?) };
        if usize::from(id.class) >= replcore_core::stream::CLASSES {
            return Err(replcore_status::Value);
        }
        Record::check(data, crc32c)?;
        record::stamp(data, id, Stamp::UNSET, crc32c);
        Ok(())
    })())
}
