//! Batches and entries of a log, and the head of a frame of records.

use replcore_core::log::batch::{self, Header, Stop};
use replcore_core::log::{crc32c, record};
use replcore_core::stream::{Cursor, Position};
use replcore_core::wire::{self, Records};

use super::check::{bytes, bytes_mut, reference_mut};
use super::replcore_status;
use super::status::status;

/// Bytes of a batch header in a log.
pub const REPLCORE_BATCH_HEADER_BYTES: usize = 32;
/// Bytes of a frame of records before the records.
pub const REPLCORE_RECORDS_HEAD_BYTES: usize = 40;
/// Bytes that a buffer for `replcore_poll` needs at most.
pub const REPLCORE_POLL_BYTES_MAX: usize = 512;
/// The kind of an entry that is a record. Kinds 2 to 15 are for the owner of a log.
pub const REPLCORE_ENTRY_RECORD: u32 = 1;

const _: () = assert!(REPLCORE_BATCH_HEADER_BYTES == batch::HEADER_BYTES);
const _: () = assert!(REPLCORE_RECORDS_HEAD_BYTES == wire::RECORDS_OVERHEAD_BYTES);
const _: () = assert!(REPLCORE_POLL_BYTES_MAX == wire::CONTROL_FRAME_BYTES_MAX);
const _: () = assert!(REPLCORE_ENTRY_RECORD == record::KIND_RECORD as u32);

/// A batch: what is written and synced as one and counts as a whole or not at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_batch {
    /// Which segment it stands in: what is left over of another is not taken for one of this.
    pub segment: u64,
    /// How many records the log has held before it.
    pub first_ordinal: u64,
    /// Bytes of entries that follow its header.
    pub entries_len: u32,
    /// Records in it, at most 65535.
    pub records: u32,
}

/// Writes the header of a batch whose entries are the `entries_len` bytes after the first 32 of
/// `data`. Write all of it with one call, and sync, before anything depends on it.
///
/// # Safety
/// `batch` is readable; `data` has `len` bytes and does not overlap it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_batch_encode(
    batch: *const replcore_batch,
    data: *mut u8,
    len: usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (given, data) = unsafe { (super::check::reference(batch)?, bytes_mut(data, len)?) };
        if given.entries_len > batch::BYTES_MAX {
            return Err(replcore_status::Length);
        }
        let records = u16::try_from(given.records).map_err(|_| replcore_status::Value)?;
        let Some((head, rest)) = data.split_at_mut_checked(batch::HEADER_BYTES) else {
            return Err(replcore_status::Short);
        };
        let entries = rest.get(..given.entries_len as usize).ok_or(replcore_status::Short)?;
        let header = Header {
            bytes: given.entries_len,
            segment: given.segment,
            first_ordinal: given.first_ordinal,
            entries_crc: crc32c(entries),
            records,
        };
        header.encode(head, crc32c);
        Ok(())
    })())
}

/// Checks the batch at the start of `data`, which must belong to `segment`. Its entries follow its
/// header. END where nothing was written, TORN where it was not written whole: a log that ends so
/// goes on at this place.
///
/// # Safety
/// `data` has `len` bytes, `batch` is writable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_batch_read(
    data: *const u8,
    len: usize,
    segment: u64,
    batch: *mut replcore_batch,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, batch) = unsafe { (bytes(data, len)?, reference_mut(batch)?) };
        let (header, _) = batch::read(data, segment, crc32c).map_err(|stop| match stop {
            Stop::Torn => replcore_status::Torn,
            Stop::Format(_) => replcore_status::Format,
            _ => replcore_status::End,
        })?;
        *batch = replcore_batch {
            segment: header.segment,
            first_ordinal: header.first_ordinal,
            entries_len: header.bytes,
            records: header.records.into(),
        };
        Ok(())
    })())
}

/// Says kind and length of the entry at the start of `data`, its header included; INCOMPLETE when
/// not all of it is there, and LENGTH when it is longer than `entry_bytes_max`. Its checksum is not
/// looked at: that of its batch, or `replcore_record_check`, is for that.
///
/// # Safety
/// `data` has `len` bytes, `kind` and `entry_len` are writable and do not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_entry_read(
    data: *const u8,
    len: usize,
    entry_bytes_max: u32,
    kind: *mut u32,
    entry_len: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, kind) = unsafe { (bytes(data, len)?, reference_mut(kind)?) };
        // SAFETY: as the caller promises.
        let entry_len = unsafe { reference_mut(entry_len) }?;
        *entry_len = record::entry_length(data, entry_bytes_max)?;
        *kind = data[8].into();
        Ok(())
    })())
}

/// Writes a note, an entry of `kind` 2 to 15 with `payload` from its byte 12 on, to `out`;
/// `*written` gets its length.
///
/// # Safety
/// `payload` has `len` bytes, `out` has `cap`, `written` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_entry_encode(
    kind: u32,
    payload: *const u8,
    len: usize,
    out: *mut u8,
    cap: usize,
    written: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (payload, out) = unsafe { (bytes(payload, len)?, bytes_mut(out, cap)?) };
        // SAFETY: as the caller promises.
        let written = unsafe { reference_mut(written) }?;
        if !(2..=15).contains(&kind) {
            return Err(replcore_status::Value);
        }
        if len > u32::MAX as usize - record::ENTRY_HEADER_BYTES {
            return Err(replcore_status::Length);
        }
        *written = record::encode_entry(kind as u8, payload, out, crc32c)?;
        Ok(())
    })())
}

/// What the head of a frame of records says of the bytes after it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_records {
    /// The position of the first record.
    pub position: u64,
    /// Bytes of the first record that were sent before.
    pub offset: u32,
    /// Records that the frame completes.
    pub completed: u32,
    /// Bytes of one further record that it begins or carries on and does not complete.
    pub tail_bytes: u32,
    /// Bytes of the records before compression; 0 when they are not compressed.
    pub raw_bytes: u32,
    /// From the order to send.
    pub round: u32,
    /// The stream's number on the link, from the order to send.
    pub stream: u32,
}

/// Writes the head of a frame with `len` bytes of records, for the driver to send before them, to
/// the first 40 bytes of `out`.
///
/// # Safety
/// `records` is readable; `out` has `cap` bytes and does not overlap it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_records_head(
    records: *const replcore_records,
    len: u32,
    out: *mut u8,
    cap: usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (given, out) = unsafe { (super::check::reference(records)?, bytes_mut(out, cap)?) };
        let out = out.get_mut(..wire::RECORDS_OVERHEAD_BYTES).ok_or(replcore_status::Short)?;
        if len > wire::FRAME_BYTES_MAX {
            return Err(replcore_status::Length);
        }
        let small = |number: u32| u8::try_from(number).map_err(|_| replcore_status::Value);
        let records = Records {
            first: Cursor { position: Position(given.position), offset: given.offset },
            completed: given.completed,
            tail_bytes: given.tail_bytes,
            raw_bytes: given.raw_bytes,
            round: small(given.round)?,
        };
        out.copy_from_slice(&wire::records_header(small(given.stream)?, &records, len));
        Ok(())
    })())
}

/// CRC-32C (Castagnoli) of the bytes; 0 for NULL.
///
/// # Safety
/// `data` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_crc32c(data: *const u8, len: usize) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { bytes(data, len) }.map_or(0, crc32c)
}
