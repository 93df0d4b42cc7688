//! Bytes out: frames of the machine, records of the store and calls, until they are written.

use replcore::contract::{Input, LinkId, Machine, StreamIndex};
use replcore::stream::{Cursor, QueueKey};
use replcore::wire::{Call, FEATURE_LZ4, RECORDS_OVERHEAD_BYTES, Records, records_header};

use super::Engine;
use super::link::IncomingCall;
use crate::options::Compression;
use crate::store::{Fill, Store};

impl<M: Machine, S: Store> Engine<M, S> {
    pub(super) fn send(&mut self, link: LinkId, len: usize) {
        let slot = &mut self.links[link.0 as usize];
        slot.out(&mut self.pool).extend_from_slice(&self.buf[..len]);
        slot.machine_bytes += len as u32;
        self.list(link);
    }

    pub(super) fn send_records(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        round: u8,
    ) {
        let slot = &mut self.links[link.0 as usize];
        let out = slot.out(&mut self.pool);
        let start = out.len();
        out.resize(start + RECORDS_OVERHEAD_BYTES, 0);
        let filled = self.store.fill(self.wall_ms, queue, first, bytes_max, out);
        let batch = match filled {
            Ok(Fill::Batch(batch)) => batch,
            other => {
                out.truncate(start);
                match other {
                    Ok(Fill::Gone { next, reason }) => {
                        self.feed(Input::Gone { link, stream, next, reason });
                    }
                    Ok(_) => {
                        let (bytes, wire_bytes) = (0, 0);
                        self.feed(Input::Sent { link, stream, next: first, bytes, wire_bytes });
                    }
                    Err(reason) => self.store_failed(reason),
                }
                return;
            }
        };
        let body = start + RECORDS_OVERHEAD_BYTES;
        debug_assert_eq!(out.len() - body, batch.bytes as usize);
        let mut records = Records { round, raw_bytes: 0, ..batch.records };
        if self.config.compression == Compression::Lz4
            && (self.ways.peer)(&self.machine, link)
                .is_some_and(|(_, features)| features & FEATURE_LZ4 != 0)
            && let Some(compressed) = compress(&out[body..], &mut self.scratch)
        {
            records.raw_bytes = batch.bytes;
            out.truncate(body);
            out.extend_from_slice(compressed);
            self.counters.compressed_bytes_saved +=
                u64::from(batch.bytes) - compressed.len() as u64;
        }
        let len = (out.len() - body) as u32;
        out[start..body].copy_from_slice(&records_header(stream.0, &records, len));
        let wire_bytes = (out.len() - start) as u32;
        slot.machine_bytes += wire_bytes;
        self.counters.records_frames_sent += 1;
        self.counters.record_bytes_sent += u64::from(batch.bytes);
        self.list(link);
        let next = records.next();
        self.feed(Input::Sent { link, stream, next, bytes: batch.bytes, wire_bytes });
    }

    pub(super) fn list(&mut self, link: LinkId) {
        let slot = &mut self.links[link.0 as usize];
        if slot.up && !slot.listed {
            slot.listed = true;
            self.flush.push_back(link);
        }
    }

    /// A link that has something to be written or is to be closed; each once until it has more.
    pub fn next_flush(&mut self) -> Option<LinkId> {
        loop {
            let link = self.flush.pop_front()?;
            let slot = &mut self.links[link.0 as usize];
            slot.listed = false;
            if slot.up {
                return Some(link);
            }
        }
    }

    /// What is to be written to a link now.
    pub fn output(&self, link: LinkId) -> &[u8] {
        self.links.get(link.0 as usize).map_or(&[], |slot| slot.output())
    }

    /// So many bytes of [`Engine::output`] were written.
    pub fn written(&mut self, link: LinkId, bytes: usize) {
        let Some(slot) = self.links.get_mut(link.0 as usize) else { return };
        let credit = slot.written(bytes, &mut self.pool);
        if credit > 0 && !slot.hangup {
            self.feed(Input::Writable { link, bytes: credit });
            self.drain();
        }
    }

    /// Whether a link is to be closed, now that all its output is written.
    pub fn is_done(&self, link: LinkId) -> bool {
        self.links.get(link.0 as usize).is_none_or(|slot| !slot.up || slot.hangup && slot.is_idle())
    }

    /// Whether a link is to be closed as soon as its output is written.
    pub fn is_closing(&self, link: LinkId) -> bool {
        self.links.get(link.0 as usize).is_none_or(|slot| !slot.up || slot.hangup)
    }

    /// Sends a call or a reply. `false`, and nothing is sent, when the link is not open.
    pub fn send_call(&mut self, link: LinkId, call: Call, payload: Vec<u8>) -> bool {
        let Some(slot) = self.links.get_mut(link.0 as usize) else { return false };
        if !slot.up || slot.hangup {
            return false;
        }
        self.pool.call_bytes += payload.len();
        slot.calls.get_or_insert_default().outgoing.push_back((call, payload));
        slot.write_calls(&mut self.pool);
        self.list(link);
        true
    }

    /// Replies to a call, if its link is still open.
    pub fn reply(&mut self, call: &IncomingCall, payload: Vec<u8>) {
        let open = self.links.get(call.link.0 as usize).is_some_and(|slot| slot.life == call.life);
        if open {
            self.send_call(call.link, Call { reply: true, ..call.call }, payload);
        }
    }

    /// Bytes of calls and replies that wait to be written.
    pub const fn call_bytes(&self) -> usize {
        self.pool.call_bytes
    }
}

/// Compresses into `scratch`; `None` when that saves too little to be worth it.
pub(super) fn compress<'a>(raw: &[u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    const RAW_BYTES_MIN: usize = 256;
    if raw.len() < RAW_BYTES_MIN {
        return None;
    }
    scratch.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    let length = lz4_flex::block::compress_into(raw, scratch).ok()?;
    (length < raw.len() - raw.len() / 8).then(|| &scratch[..length])
}
