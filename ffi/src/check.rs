//! From pointers to references. Everything that can be checked is; what cannot is what the header
//! asks of its caller: a pointer with a length has that many bytes behind it, nobody else writes
//! there meanwhile, and out-parameters do not overlap other memory of the same call.

use core::ffi::c_char;

use replcore_core::log::record::KEY_BYTES_MAX;

use super::machine::REPLCORE_NAME_BYTES;
use super::replcore_status;

/// The bytes at `data`; none for length 0, whatever the pointer.
///
/// # Safety
/// A `data` that is not null has `len` readable bytes, unchanged while the result is used.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize) -> Result<&'a [u8], replcore_status> {
    check_length(data.is_null(), len)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, a length that a slice may have, readable by the caller's word.
    Ok(unsafe { core::slice::from_raw_parts(data, len) })
}

/// The writable bytes at `data`; none for length 0, whatever the pointer.
///
/// # Safety
/// A `data` that is not null has `len` bytes that nobody else uses while the result is.
pub(crate) unsafe fn bytes_mut<'a>(
    data: *mut u8,
    len: usize,
) -> Result<&'a mut [u8], replcore_status> {
    check_length(data.is_null(), len)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not null, a length that a slice may have, ours alone by the caller's word. Bytes
    // that were never written are passed on to code that writes before it reads.
    Ok(unsafe { core::slice::from_raw_parts_mut(data, len) })
}

fn check_length(null: bool, len: usize) -> Result<(), replcore_status> {
    if len > isize::MAX as usize {
        return Err(replcore_status::Length);
    }
    if null && len > 0 {
        return Err(replcore_status::Null);
    }
    Ok(())
}

/// The values at `data`; none for a count of 0, whatever the pointer.
///
/// # Safety
/// A `data` that is not null has `count` readable values, unchanged while the result is used.
pub(crate) unsafe fn slice<'a, T>(
    data: *const T,
    count: u32,
    count_max: u32,
) -> Result<&'a [T], replcore_status> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > count_max {
        return Err(replcore_status::Length);
    }
    // SAFETY: as the caller promises; null and skew are told apart by the function.
    unsafe { reference(data) }?;
    // SAFETY: not null and aligned, a few values, readable by the caller's word.
    Ok(unsafe { core::slice::from_raw_parts(data, count as usize) })
}

/// What `pointer` points to.
///
/// # Safety
/// A `pointer` that is not null and is aligned points to a `T` that nobody writes meanwhile.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T) -> Result<&'a T, replcore_status> {
    if !pointer.is_aligned() {
        return Err(replcore_status::Null);
    }
    // SAFETY: aligned, and null is told apart by the function itself; the rest is the caller's.
    unsafe { pointer.as_ref() }.ok_or(replcore_status::Null)
}

/// What `pointer` points to, to be changed.
///
/// # Safety
/// A `pointer` that is not null and is aligned points to a `T` that nobody else uses meanwhile.
pub(crate) unsafe fn reference_mut<'a, T>(pointer: *mut T) -> Result<&'a mut T, replcore_status> {
    if !pointer.is_aligned() {
        return Err(replcore_status::Null);
    }
    // SAFETY: aligned, and null is told apart by the function itself; the rest is the caller's.
    unsafe { pointer.as_mut() }.ok_or(replcore_status::Null)
}

/// The text that ends in a zero byte; empty for null.
///
/// # Safety
/// A `text` that is not null is readable up to a zero byte or for `KEY_BYTES_MAX + 1` bytes.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, replcore_status> {
    if text.is_null() {
        return Ok("");
    }
    let mut len = 0;
    // SAFETY: no byte past the first zero is read, and none past the limit.
    while unsafe { *text.add(len) } != 0 {
        len += 1;
        if len > KEY_BYTES_MAX {
            return Err(replcore_status::Text);
        }
    }
    // SAFETY: these bytes were read just now.
    let bytes = unsafe { bytes(text.cast(), len) }?;
    core::str::from_utf8(bytes).map_err(|_| replcore_status::Text)
}

/// Writes `text` to the start of `out`, with a zero byte behind it.
pub(crate) fn write_text(out: &mut [u8], text: &str) -> Result<(), replcore_status> {
    let out = out.get_mut(..text.len() + 1).ok_or(replcore_status::Short)?;
    out[..text.len()].copy_from_slice(text.as_bytes());
    out[text.len()] = 0;
    Ok(())
}

/// A text of at most 63 bytes, with zeros behind it.
pub(crate) fn characters(text: &str) -> [c_char; REPLCORE_NAME_BYTES] {
    let mut out = [0; REPLCORE_NAME_BYTES];
    for (place, byte) in out.iter_mut().zip(text.bytes().take(REPLCORE_NAME_BYTES - 1)) {
        *place = byte as c_char;
    }
    out
}

/// A structure whose first field is its size, as far as the caller's header knew it: a shorter one
/// gets zeros for what it lacks, a longer one may have only zeros there.
///
/// # Safety
/// A `source` that is not null points to a `u32` size and that many readable bytes in all. `T`
/// begins with that field and all-zero bytes are a value of it.
pub(crate) unsafe fn sized<T: Copy>(source: *const T) -> Result<T, replcore_status> {
    // SAFETY: a pointer that is not null has at least the size field behind it.
    let size = unsafe { *reference(source.cast::<u32>())? } as usize;
    let own_size = size_of::<T>();
    // A size that no header has had would cut a pointer in two.
    if size < size_of::<u32>() || size > 4 * own_size || !size.is_multiple_of(align_of::<T>()) {
        return Err(replcore_status::StructSize);
    }
    // SAFETY: the structure says that it has this many bytes.
    let given = unsafe { bytes(source.cast(), size) }?;
    if given.iter().skip(own_size).any(|&byte| byte != 0) {
        return Err(replcore_status::StructSize);
    }
    // SAFETY: zeros are a value of every structure this is used with: integers and pointers.
    let mut value: T = unsafe { core::mem::zeroed() };
    // SAFETY: no more bytes than either has, and a fresh local does not overlap the caller's.
    unsafe {
        let copied = size.min(own_size);
        core::ptr::copy_nonoverlapping(given.as_ptr(), (&raw mut value).cast::<u8>(), copied);
    }
    Ok(value)
}
