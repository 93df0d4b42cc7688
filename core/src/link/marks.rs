//! Which streams of a link have something to do, so that finding it passes over none that has not.

use super::stream::{Inbound, Outbound};
use crate::wire::STREAMS_MAX;

/// Sets of stream numbers. Whoever changes a stream brings its marks up to date;
/// [`super::Link::marks_are_true`] is asserted wherever they are relied upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Marks {
    /// One set a byte, so that a stream is put into or taken from all of them at once.
    outbound: u32,
    inbound: u32,
}

const _: () = assert!(STREAMS_MAX <= 8, "one bit for each stream");

impl Marks {
    pub(super) const NONE: Self = Self { outbound: 0, inbound: 0 };

    /// The outgoing stream of this number has changed.
    pub(super) fn set_outbound(&mut self, stream: usize, outbound: &Outbound) {
        let marks = [
            outbound.release || outbound.dead.is_some(),
            outbound.has_word(),
            outbound.ready_to_send(),
            !outbound.is_drained(),
        ];
        put(&mut self.outbound, stream, marks);
    }

    /// The incoming stream of this number has changed.
    pub(super) fn set_inbound(&mut self, stream: usize, inbound: &Inbound) {
        let marks = [inbound.has_word(), inbound.waits_until().is_some(), false, false];
        put(&mut self.inbound, stream, marks);
    }

    /// Whether no stream has anything for the driver or for the other end.
    pub(super) fn is_silent(self) -> bool {
        self.outbound & 0x00ff_ffff | self.inbound & 0xff == 0
    }

    /// Outgoing streams with a release or a dead letter for the driver.
    pub(super) fn release(self) -> impl Iterator<Item = usize> {
        streams(self.outbound)
    }

    /// Stream numbers with a question to the store or a frame that is due, either way.
    pub(super) fn words(self) -> impl Iterator<Item = usize> {
        streams(self.outbound >> 8 | self.inbound)
    }

    /// Outgoing streams whose records may be sent.
    pub(super) fn send(self) -> impl Iterator<Item = usize> {
        streams(self.outbound >> 16)
    }

    /// Outgoing streams of which not everything is acknowledged, or not known to be.
    pub(super) fn undrained(self) -> impl Iterator<Item = usize> {
        streams(self.outbound >> 24)
    }

    /// Incoming streams that are asked for again at a time of their own.
    pub(super) fn waits(self) -> impl Iterator<Item = usize> {
        streams(self.inbound >> 8)
    }
}

fn put(sets: &mut u32, stream: usize, marks: [bool; 4]) {
    let all = u32::from_le_bytes([1; 4]) << stream;
    *sets = *sets & !all | u32::from_le_bytes(marks.map(u8::from)) << stream;
}

/// The numbers in the lowest set, rising.
fn streams(sets: u32) -> impl Iterator<Item = usize> {
    let mut rest = sets & 0xff;
    core::iter::from_fn(move || {
        let first = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (first < STREAMS_MAX).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_stream_is_in_the_sets_that_it_was_last_put_into() {
        let mut sets = 0;
        put(&mut sets, 7, [true; 4]);
        put(&mut sets, 2, [true, false, true, false]);
        put(&mut sets, 7, [true, true, false, false]);
        let found = |set| streams(sets >> (8 * set)).collect::<Vec<_>>();
        assert_eq!(
            [found(0), found(1), found(2), found(3)],
            [Vec::from([2, 7]), Vec::from([7]), Vec::from([2]), Vec::new()]
        );
    }
}
