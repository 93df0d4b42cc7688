//! Frames on a serial line.

use replcore_core::transport::cobs::{self, Decoder};

use super::check::{bytes, bytes_mut, reference_mut};
use super::replcore_status;
use super::status::status;

/// Most bytes that a frame of `frame_bytes` takes on a serial line, delimiter included.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_cobs_encoded_max(frame_bytes: usize) -> usize {
    cobs::encoded_bytes_max(frame_bytes.min(usize::MAX / 2))
}

/// Writes `frame` with its CRC-32C as one COBS packet, delimiter included, to `out`; `*written`
/// gets its length. SHORT when `cap` is less than it needs, which is never more than
/// `replcore_cobs_encoded_max`.
///
/// # Safety
/// `frame` has `len` bytes, `out` has `cap`, `written` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_cobs_encode(
    frame: *const u8,
    len: usize,
    out: *mut u8,
    cap: usize,
    written: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (frame, out) = unsafe { (bytes(frame, len)?, bytes_mut(out, cap)?) };
        // SAFETY: as the caller promises.
        let written = unsafe { reference_mut(written) }?;
        *written = cobs::encode(frame, out).ok_or(replcore_status::Short)?;
        Ok(())
    })())
}

/// Makes frames of the bytes of a serial line as they come. All zeros at the start; not for the
/// program to look into.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_cobs_decoder {
    /// Not for the program.
    pub state: [u64; 8],
}

const _: () = assert!(size_of::<Decoder>() <= size_of::<replcore_cobs_decoder>());
const _: () = assert!(align_of::<Decoder>() <= align_of::<replcore_cobs_decoder>());

impl replcore_cobs_decoder {
    /// The decoder in this memory.
    ///
    /// # Safety
    /// The memory is all zeros, or as an earlier call left it.
    unsafe fn decoder(&mut self) -> &mut Decoder {
        // SAFETY: size and alignment are checked above; a decoder is made of integers and a flag,
        // so that zeros are one, and earlier calls left one.
        unsafe { &mut *self.state.as_mut_ptr().cast::<Decoder>() }
    }
}

/// The packets dropped so far because they were damaged or did not fit; 0 for NULL.
///
/// # Safety
/// `decoder` is NULL or points to a decoder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_cobs_bad(decoder: *mut replcore_cobs_decoder) -> u64 {
    // SAFETY: as the caller promises.
    match unsafe { reference_mut(decoder) } {
        // SAFETY: as the caller promises.
        Ok(decoder) => unsafe { decoder.decoder() }.counters().bad(),
        Err(_) => 0,
    }
}

/// Takes bytes of `line` up to the end of the first sound frame, or all of them; `*taken` gets how
/// many. `*frame_len` gets the length of the frame that is then at the start of `buf`, or
/// SIZE_MAX when there is none yet. Give the rest of the line again once the frame is used. `buf`
/// has to be the same until then, with room for the longest frame and 4 bytes more; longer packets
/// are dropped and counted.
///
/// # Safety
/// `decoder`, `taken` and `frame_len` are writable, `line` has `len` bytes and `buf` has `cap`;
/// they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_cobs_take(
    decoder: *mut replcore_cobs_decoder,
    line: *const u8,
    len: usize,
    buf: *mut u8,
    cap: usize,
    taken: *mut usize,
    frame_len: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (decoder, line) = unsafe { (reference_mut(decoder)?, bytes(line, len)?) };
        // SAFETY: as the caller promises.
        let (buf, taken) = unsafe { (bytes_mut(buf, cap)?, reference_mut(taken)?) };
        // SAFETY: as the caller promises.
        let frame_len = unsafe { reference_mut(frame_len) }?;
        // SAFETY: as the caller promises.
        let done = unsafe { decoder.decoder() }.take(line, buf);
        *taken = done.bytes;
        *frame_len = done.frame.unwrap_or(usize::MAX);
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_a_decoder_at_the_start_of_a_line() {
        let mut zeros = replcore_cobs_decoder::default();
        // SAFETY: all zeros.
        let decoder = unsafe { zeros.decoder() };
        assert_eq!(format!("{decoder:?}"), format!("{:?}", Decoder::new()));
    }

    #[test]
    fn a_frame_goes_over_the_line() {
        let (mut line, mut buf, mut written) = ([0; 64], [0; 64], 0);
        // SAFETY: each pointer has the bytes that the length beside it says.
        unsafe {
            let done =
                replcore_cobs_encode(b"frame".as_ptr(), 5, line.as_mut_ptr(), 64, &mut written);
            assert_eq!(done, replcore_status::Ok);
            let (mut decoder, mut taken, mut len) = (replcore_cobs_decoder::default(), 0, 0);
            let done = replcore_cobs_take(
                &mut decoder,
                line.as_ptr(),
                written,
                buf.as_mut_ptr(),
                64,
                &mut taken,
                &mut len,
            );
            assert_eq!((done, taken, len), (replcore_status::Ok, written, 5));
            assert_eq!(buf[..5], *b"frame");
            assert_eq!(replcore_cobs_bad(&mut decoder), 0);
            let short =
                replcore_cobs_encode(b"frame".as_ptr(), 5, line.as_mut_ptr(), 5, &mut written);
            assert_eq!(short, replcore_status::Short);
        }
    }
}
