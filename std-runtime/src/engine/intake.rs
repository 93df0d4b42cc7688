//! Bytes in: what arrives on a link goes to the machine, or where the machine has ordered it.

use replcore::contract::{Failure, Input, LinkId, Machine, StreamIndex};
use replcore::stream::StreamKey;
use replcore::wire::{Call, Records, Role};

use super::link::{CallTooLong, IncomingCall, Order};
use super::router::Admission;
use super::{Completion, Engine};
use crate::api::{ApiError, Outcome};
use crate::store::{Arrival, Store};

/// The number of replies to no call: they tell of posts in a stream that are not stored.
pub(crate) const REFUSAL_ID: u32 = u32::MAX;

impl<M: Machine, S: Store> Engine<M, S> {
    /// Takes bytes that arrived on a link; answers how many. The rest is to be offered again in
    /// front of what arrives next, or when [`Engine::next_resume`] names the link. It is never more
    /// than one frame, unless the machine holds the link back.
    pub fn bytes(&mut self, link: LinkId, data: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(slot) = self.links.get(link.0 as usize) else { return data.len() };
            if !slot.up || slot.hangup || self.stopped.is_some() {
                return data.len();
            }
            let rest = &data[at..];
            if let Some(order) = slot.order {
                match self.follow_order(link, order, rest) {
                    Some(taken) => at += taken,
                    None => return at,
                }
                continue;
            }
            if rest.is_empty() {
                return at;
            }
            let taken = self.machine.handle(self.now, Input::Recv { link, data: rest });
            at += taken;
            self.drain();
            if taken == 0 && self.links[link.0 as usize].order.is_none() {
                return at;
            }
        }
    }

    /// Does what was ordered about the bytes at the start of `rest`; answers how many that took,
    /// `None` when it cannot be done yet.
    fn follow_order(&mut self, link: LinkId, order: Order, rest: &[u8]) -> Option<usize> {
        let index = link.0 as usize;
        match order {
            Order::Skip { len } => {
                let taken = rest.len().min(len as usize);
                let left = len - taken as u32;
                self.links[index].order = (left > 0).then_some(Order::Skip { len: left });
                (taken > 0 || left == 0).then_some(taken)
            }
            Order::Take { stream, source, records, len } => {
                let body = rest.get(..len as usize)?;
                self.links[index].order = None;
                self.take(link, stream, source, &records, body);
                Some(body.len())
            }
            Order::Call { call, len } => {
                let part = rest.get(..len as usize)?;
                if self.calls.len() >= self.config.calls_max as usize {
                    if !self.held.contains(&link) {
                        self.held.push_back(link);
                    }
                    return None;
                }
                self.links[index].order = None;
                let bytes_max = self.config.call_bytes_max as usize;
                match self.links[index].call_part(call, part, bytes_max) {
                    Ok(Some(payload)) => {
                        self.counters.calls_received += 1;
                        let life = self.links[index].life;
                        self.calls.push_back(IncomingCall { link, life, call, payload });
                    }
                    Ok(None) => {}
                    Err(CallTooLong) => {
                        self.counters.calls_too_long += 1;
                        self.links[index].hangup = true;
                        self.list(link);
                    }
                }
                Some(part.len())
            }
        }
    }

    fn take(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        records: &Records,
        body: &[u8],
    ) {
        self.urgent = true;
        if self.links[link.0 as usize].refused & 1 << stream.0 != 0 {
            return;
        }
        let bytes = if records.raw_bytes == 0 { body.len() as u32 } else { records.raw_bytes };
        let taken = if records.raw_bytes == 0 {
            self.store_records(link, &source, records, body)
        } else {
            let mut raw = std::mem::take(&mut self.scratch);
            let taken = decompress(body, records.raw_bytes, self.config.frame_bytes_max, &mut raw)
                .and_then(|()| self.store_records(link, &source, records, &raw));
            self.scratch = raw;
            taken
        };
        self.counters.records_frames_received += 1;
        self.counters.record_bytes_received += u64::from(bytes);
        match taken {
            Ok(()) if self.config.manual_acknowledgement => {
                self.note_source(link, stream, source);
                let again = self.store.taken_again(&source);
                if again > 0 {
                    self.note_taken(link, stream, source, again);
                }
            }
            Ok(()) => self.note_taken(link, stream, source, bytes),
            Err(reason) => {
                self.counters.records_refused += 1;
                self.refuse_stream(link, stream, reason);
            }
        }
    }

    /// Nothing more is taken of a stream until the machine knows that something was not.
    pub(super) fn refuse_stream(&mut self, link: LinkId, stream: StreamIndex, reason: Failure) {
        self.links[link.0 as usize].refused |= 1 << stream.0;
        self.completions.push(Completion::Refused { link, stream, reason });
    }

    fn store_records(
        &mut self,
        link: LinkId,
        source: &StreamKey,
        records: &Records,
        body: &[u8],
    ) -> Result<(), Failure> {
        let arrival = match (self.ways.peer)(&self.machine, link) {
            Some((Role::Hub, _)) => Arrival::Upstream(source.owner),
            Some((Role::Leaf, _)) => {
                let completed = u64::from(records.completed);
                self.counters.records_fetched += completed;
                *self.fetched.entry(source.owner).or_default() += completed;
                Arrival::Leaf(source.owner)
            }
            _ => Arrival::Local,
        };
        if arrival != Arrival::Local {
            return self.store.take(self.wall_ms, source, records, body, arrival, &mut self.router);
        }
        self.router.begin_stream();
        let taken = self.store.take(self.wall_ms, source, records, body, arrival, &mut self.router);
        if let Some(admission) = self.router.end_stream().filter(|_| taken.is_ok()) {
            self.tell_not_admitted(link, source, records, admission);
        }
        taken
    }

    /// Tells a program which of its posts is not stored, and why: once for each frame, as long as it
    /// reads what it is told.
    fn tell_not_admitted(
        &mut self,
        link: LinkId,
        source: &StreamKey,
        records: &Records,
        admission: Admission,
    ) {
        let Some((index, error)) = admission.first else { return };
        self.counters.records_not_admitted += admission.refused;
        let post = records.first.position.0 + index + 1;
        let others = match admission.refused - 1 {
            0 => String::new(),
            others => format!("; nor are {others} after it"),
        };
        let class = source.queue.class;
        let message = format!("post {post} of class {class} is not stored: {error}{others}");
        tracing::debug!("a program posts what no schema admits: {message}");
        if self.call_bytes() < self.config.call_bytes_max as usize {
            let outcome = Outcome::Error(ApiError { message, ..error });
            let payload = serde_json::to_vec(&outcome).unwrap_or_default();
            self.send_call(link, Call { id: REFUSAL_ID, reply: true }, payload);
        }
    }

    fn note_source(&mut self, link: LinkId, stream: StreamIndex, source: StreamKey) {
        match self.sources.iter_mut().find(|(known, ..)| *known == source) {
            Some(entry) => *entry = (source, link, stream),
            None => self.sources.push((source, link, stream)),
        }
    }

    /// With [`super::EngineConfig::manual_acknowledgement`]: the store's place in an incoming stream has
    /// moved over `bytes` of records. Without a link the next one tells.
    pub fn acknowledge(&mut self, source: &StreamKey, bytes: u32) {
        let known = self.sources.iter().find(|(known, ..)| known == source).copied();
        if let Some((source, link, stream)) = known {
            self.note_taken(link, stream, source, bytes);
        }
    }

    /// The link and the number of an incoming stream, with
    /// [`super::EngineConfig::manual_acknowledgement`].
    pub fn incoming(&self, source: &StreamKey) -> Option<(LinkId, StreamIndex)> {
        let known = self.sources.iter().find(|(known, ..)| known == source);
        known.map(|(_, link, stream)| (*link, *stream))
    }

    /// One report for all frames of a stream that one commit covers.
    pub(super) fn note_taken(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        bytes: u32,
    ) {
        const LOOK_BACK: usize = 4;
        for earlier in self.completions.iter_mut().rev().take(LOOK_BACK) {
            if let Completion::Taken { link: of, stream: its, source: from, bytes: sum } = earlier
                && (*of, *its, *from) == (link, stream, source)
            {
                *sum = sum.saturating_add(bytes);
                return;
            }
        }
        self.completions.push(Completion::Taken { link, stream, source, bytes });
    }
}

pub(super) fn decompress(
    body: &[u8],
    raw_bytes: u32,
    raw_bytes_max: u32,
    raw: &mut Vec<u8>,
) -> Result<(), Failure> {
    if raw_bytes > raw_bytes_max {
        return Err(Failure::Corrupt);
    }
    raw.resize(raw_bytes as usize, 0);
    match lz4_flex::block::decompress_into(body, raw) {
        Ok(length) if length == raw.len() => Ok(()),
        _ => Err(Failure::Corrupt),
    }
}
