//! What the engine keeps per link: small while the link is idle.

use std::collections::VecDeque;

use replcore::contract::{LinkId, StreamIndex};
use replcore::stream::{QueueId, StreamKey};
use replcore::wire::{Call, Records, STREAMS_MAX, call_header};

/// Most bytes of one part of a call. A peer that takes calls takes frames of this size and
/// [`replcore::wire::HEADER_BYTES`] and 5 more.
pub const CALL_PART_BYTES_MAX: usize = 32 << 10;
/// A buffer that grew beyond this is given back as soon as it is empty.
const KEPT_BYTES_MAX: usize = 1 << 10;

/// The first byte of a part of a call: whether more parts follow.
const MORE: u8 = 1;
const LAST: u8 = 0;

/// An order about bytes that follow on a link.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Records for the store.
    Take { stream: StreamIndex, source: StreamKey, records: Records, len: u32 },
    /// Nothing of interest.
    Skip { len: u32 },
    /// A part of a call or reply.
    Call { call: Call, len: u32 },
}

/// What is used seldom, and made only then.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// A call of which not all parts are there yet.
    pub(super) incoming: Option<(Call, Vec<u8>)>,
    /// Calls and replies to be written, and how much of the first was.
    pub(super) outgoing: VecDeque<(Call, Vec<u8>)>,
    written: usize,
}

/// What all links of an engine have together.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Buffers that no link uses.
    spare: Vec<Vec<u8>>,
    /// Bytes of calls and replies that are not written yet.
    pub(super) call_bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    /// Counts the links that have had this number.
    pub(super) life: u32,
    pub(super) up: bool,
    /// Whether the other end has proved who it is.
    pub(super) authenticated: bool,
    /// To be closed once `out` is written.
    pub(super) hangup: bool,
    /// In the list of links with something to write or to close.
    pub(super) listed: bool,
    pub(super) order: Option<Order>,
    /// Bytes of `out` that were written.
    out_at: usize,
    out: Vec<u8>,
    /// Bytes of `out` that count against the machine's credit.
    pub(super) machine_bytes: u32,
    /// Streams whose bytes are thrown away until the machine knows of the refusal.
    pub(super) refused: u8,
    pub(super) calls: Option<Box<Calls>>,
    /// Own queues that are read over it.
    pub(super) reads: Vec<QueueId>,
}

const _: () = assert!(STREAMS_MAX <= 8, "one bit for each stream");

impl Link {
    pub(super) fn output(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    pub(super) fn is_idle(&self) -> bool {
        self.out_at == self.out.len()
            && self.calls.as_ref().is_none_or(|calls| calls.outgoing.is_empty())
    }

    /// The buffer to add to.
    pub(super) fn out(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.out.capacity() == 0
            && let Some(buffer) = pool.spare.pop()
        {
            self.out = buffer;
        }
        // Moved only when more follows: most often all of it is written before.
        if self.out_at > self.out.len() / 2 {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        &mut self.out
    }

    /// `bytes` of the output were written. Returns the credit that the machine gets back.
    pub(super) fn written(&mut self, bytes: usize, pool: &mut Pool) -> u32 {
        self.out_at += bytes;
        debug_assert!(self.out_at <= self.out.len());
        if self.out_at >= self.out.len() {
            self.out_at = 0;
            self.out.clear();
            if self.out.capacity() > KEPT_BYTES_MAX {
                pool.give_back(std::mem::take(&mut self.out));
            }
        }
        let credit = self.machine_bytes.min(bytes as u32);
        self.machine_bytes -= credit;
        self.write_calls(pool);
        credit
    }

    /// Moves parts of calls into the output while there is little in it.
    pub(super) fn write_calls(&mut self, pool: &mut Pool) {
        let Some(mut calls) = self.calls.take() else { return };
        while self.out.len() - self.out_at < CALL_PART_BYTES_MAX {
            let Some((call, payload)) = calls.outgoing.front() else { break };
            let end = payload.len().min(calls.written + CALL_PART_BYTES_MAX);
            let part = &payload[calls.written..end];
            let last = end == payload.len();
            let head = call_header(*call, part.len() as u32 + 1);
            let out = self.out(pool);
            out.extend_from_slice(&head);
            out.push(if last { LAST } else { MORE });
            out.extend_from_slice(part);
            calls.written = end;
            if last {
                pool.call_bytes -= payload.len();
                calls.outgoing.pop_front();
                calls.written = 0;
            }
        }
        if calls.incoming.is_some() || !calls.outgoing.is_empty() {
            self.calls = Some(calls);
        }
    }

    /// Adds a part of an incoming call. `Ok(Some(..))` when it is complete.
    pub(super) fn call_part(
        &mut self,
        call: Call,
        part: &[u8],
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, CallTooLong> {
        let calls = self.calls.get_or_insert_default();
        let (flag, part) = part.split_first().unwrap_or((&LAST, &[]));
        let (of, mut payload) = calls.incoming.take().unwrap_or((call, Vec::new()));
        if of != call {
            payload.clear();
        }
        if payload.len() + part.len() > bytes_max {
            return Err(CallTooLong);
        }
        payload.extend_from_slice(part);
        if *flag == MORE {
            calls.incoming = Some((call, payload));
            return Ok(None);
        }
        if calls.outgoing.is_empty() {
            self.calls = None;
        }
        Ok(Some(payload))
    }

    /// The link is no more; what it used can be used by others.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        if let Some(calls) = &self.calls {
            pool.call_bytes -=
                calls.outgoing.iter().map(|(_, payload)| payload.len()).sum::<usize>();
        }
        let out = std::mem::take(&mut self.out);
        let (listed, life) = (self.listed, self.life.wrapping_add(1));
        *self = Self { listed, life, ..Self::default() };
        pool.give_back(out);
    }
}

/// A call has more bytes than the limit.
pub(super) struct CallTooLong;

const SPARE_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 1 << 20;

impl Pool {
    fn give_back(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if self.spare.len() < SPARE_MAX && (KEPT_BYTES_MAX..=SPARE_BYTES_MAX).contains(&capacity) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// A call or reply of an application, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingCall {
    /// Where it came from.
    pub link: LinkId,
    /// Tells the link from later ones with its number.
    pub life: u32,
    /// Pairs a reply with its call; whether it is the reply.
    pub call: Call,
    /// What it says.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_written_in_parts_is_moved_only_when_more_is_added() {
        let (mut link, mut pool) = (Link::default(), Pool::default());
        link.out(&mut pool).extend(0..100);
        let start = link.output().as_ptr();
        link.written(30, &mut pool);
        link.written(40, &mut pool);
        assert_eq!(link.output().as_ptr(), start.wrapping_add(70));
        link.out(&mut pool).extend(100..110);
        assert_eq!(link.output(), (70..110).collect::<Vec<u8>>());
        assert_eq!(link.output().as_ptr(), start, "what was written takes no room");
    }
}
