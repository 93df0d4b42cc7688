//! The streams of a link both ways, and which of them have something to do, so that finding it
//! passes over none that has not.

use super::stream::{Inbound, Outbound};
use crate::stream::CLASSES;
use crate::wire::STREAMS_MAX;

/// All streams of a link: outgoing ones for each class of `QUEUES` queues, incoming ones as the
/// other end has them. Only [`Self::change_outbound`] and [`Self::change_inbound`] let a stream be
/// changed, and they bring its marks up to date.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Streams<const QUEUES: usize> {
    outbound: [[Outbound; CLASSES]; QUEUES],
    inbound: [Inbound; STREAMS_MAX],
    /// Sets of stream numbers, one a byte, so that a stream is put into or taken from all of them
    /// at once.
    outbound_marks: u32,
    inbound_marks: u32,
}

const _: () = assert!(STREAMS_MAX <= 8, "one bit for each stream");

impl<const QUEUES: usize> Streams<QUEUES> {
    /// All bytes are zero, so that an image holds no picture of it.
    pub(super) const FREE: Self = Self {
        outbound: [[Outbound::FREE; CLASSES]; QUEUES],
        inbound: [Inbound::FREE; STREAMS_MAX],
        outbound_marks: 0,
        inbound_marks: 0,
    };

    /// Makes them [`Self::FREE`], in place.
    pub(super) fn clear(&mut self) {
        self.outbound.as_flattened_mut().fill(Outbound::FREE);
        self.inbound.fill(Inbound::FREE);
        (self.outbound_marks, self.inbound_marks) = (0, 0);
    }

    pub(super) fn outbound(&self) -> &[Outbound] {
        self.outbound.as_flattened()
    }

    pub(super) fn inbound(&self) -> &[Inbound; STREAMS_MAX] {
        &self.inbound
    }

    /// Changes the outgoing stream of this number; `None` when there is none.
    pub(super) fn change_outbound<T>(
        &mut self,
        stream: usize,
        change: impl FnOnce(&mut Outbound) -> T,
    ) -> Option<T> {
        let outbound = self.outbound.as_flattened_mut().get_mut(stream)?;
        let result = change(outbound);
        mark_outbound(&mut self.outbound_marks, stream, outbound);
        Some(result)
    }

    /// Changes the incoming stream of this number; `None` when there is none.
    pub(super) fn change_inbound<T>(
        &mut self,
        stream: usize,
        change: impl FnOnce(&mut Inbound) -> T,
    ) -> Option<T> {
        let inbound = self.inbound.get_mut(stream)?;
        let result = change(inbound);
        mark_inbound(&mut self.inbound_marks, stream, inbound);
        Some(result)
    }

    /// Whether no stream has anything for the driver or for the other end.
    pub(super) fn is_silent(&self) -> bool {
        self.outbound_marks & 0x00ff_ffff | self.inbound_marks & 0xff == 0
    }

    /// Outgoing streams with a release or a dead letter for the driver.
    pub(super) fn release(&self) -> impl Iterator<Item = usize> + use<QUEUES> {
        numbers(self.outbound_marks)
    }

    /// Stream numbers with a question to the store or a frame that is due, either way.
    pub(super) fn words(&self) -> impl Iterator<Item = usize> + use<QUEUES> {
        numbers(self.outbound_marks >> 8 | self.inbound_marks)
    }

    /// Outgoing streams whose records may be sent.
    pub(super) fn send(&self) -> impl Iterator<Item = usize> + use<QUEUES> {
        numbers(self.outbound_marks >> 16)
    }

    /// Outgoing streams of which not everything is acknowledged, or not known to be.
    pub(super) fn undrained(&self) -> impl Iterator<Item = usize> + use<QUEUES> {
        numbers(self.outbound_marks >> 24)
    }

    /// Incoming streams that are asked for again at a time of their own.
    pub(super) fn waits(&self) -> impl Iterator<Item = usize> + use<QUEUES> {
        numbers(self.inbound_marks >> 8)
    }
}

// Both are called from every change of a stream: in each of them they would be most of its code.

#[inline(never)]
fn mark_outbound(sets: &mut u32, stream: usize, outbound: &Outbound) {
    put(sets, stream, outbound.marks());
}

#[inline(never)]
fn mark_inbound(sets: &mut u32, stream: usize, inbound: &Inbound) {
    put(sets, stream, inbound.marks());
}

fn put(sets: &mut u32, stream: usize, marks: [bool; 4]) {
    let all = u32::from_le_bytes([1; 4]) << stream;
    *sets = *sets & !all | u32::from_le_bytes(marks.map(u8::from)) << stream;
}

/// The numbers in the lowest set, rising.
fn numbers(sets: u32) -> impl Iterator<Item = usize> {
    let mut rest = sets & 0xff;
    core::iter::from_fn(move || {
        let first = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (first < STREAMS_MAX).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::super::stream::OutboundState;
    use super::*;
    use crate::stream::Position;
    use crate::time::Instant;
    use std::vec::Vec;

    #[test]
    fn a_stream_is_in_the_sets_that_its_last_change_puts_it_into() {
        let mut streams = Streams::<2>::FREE;
        streams.change_outbound(7, |outbound| outbound.state = OutboundState::Ask);
        streams.change_outbound(2, |outbound| {
            outbound.state = OutboundState::Running;
            outbound.next = Position(3);
            outbound.granted_bytes = 9;
            outbound.release = true;
        });
        streams.change_inbound(5, |inbound| {
            inbound.wait_until(Instant::NEVER);
            inbound.reject = Some(Position(1));
        });
        let sets = |streams: &Streams<2>| {
            [
                streams.release().collect::<Vec<_>>(),
                streams.words().collect(),
                streams.send().collect(),
                streams.undrained().collect(),
                streams.waits().collect(),
            ]
        };
        assert_eq!(
            sets(&streams).map(Vec::from),
            [Vec::from([2]), Vec::from([5, 7]), Vec::from([2]), Vec::from([2, 7]), Vec::from([5])]
        );
        streams.change_outbound(2, |outbound| *outbound = Outbound::FREE);
        streams.change_outbound(7, |outbound| outbound.state = OutboundState::Quiet);
        streams.change_inbound(5, |inbound| *inbound = Inbound::FREE);
        assert_eq!(sets(&streams), [const { Vec::new() }; 5]);
        assert!(streams.is_silent());
        assert_eq!(streams.change_inbound(STREAMS_MAX, |_| ()), None);
    }
}
