//! What a hub that stands by says to leaves.

use crate::stream::Address;
use crate::wire::{
    self, Control, FEATURE_STANDBY, Frame, FrameError, Redirect, Refuse, RefuseReason, Text,
};

/// Answers who has dialled a hub that stands by, without a machine: the dialler is told where the hub is
/// that leads, or to try another. `data` is what has come so far, `leader` where the leading hub takes
/// leaves, if that is known.
///
/// `None` when more bytes are needed, else how many bytes of `buf` are the answer; the caller sends
/// them and closes. With a `buf` of [`wire::CONTROL_FRAME_BYTES_MAX`] bytes the answer fits; with a
/// shorter one it may be empty.
///
/// # Errors
/// The first frame is no greeting: to be closed without a word.
pub fn turn_away(
    data: &[u8],
    leader: Option<&Address>,
    buf: &mut [u8],
) -> Result<Option<usize>, FrameError> {
    let hello = match wire::decode(data, wire::FRAME_BYTES_MIN)? {
        Some((Frame::Control { control: Control::Hello(hello), .. }, _)) => hello,
        Some(_) => return Err(FrameError::Payload),
        None => return Ok(None),
    };
    if hello.magic != *b"RPLC" {
        return Err(FrameError::Payload);
    }
    let refuse = |reason| Control::Refuse(Refuse { reason, retry_after_ms: 0 });
    let answer = match leader {
        _ if hello.features & FEATURE_STANDBY == 0 => refuse(RefuseReason::Busy),
        Some(leader) => Control::Redirect(Redirect { address: Text::from(leader) }),
        None => refuse(RefuseReason::Standby),
    };
    Ok(Some(wire::encode_control(0, &answer, buf).unwrap_or(0)))
}
