//! What comes to the machine: bytes of links, completions, posts.

use std::collections::BTreeMap;

use replcore::contract::{Failure, Input, LinkId, Machine, StreamIndex};
use replcore::stream::{Name, StreamKey};
use replcore::wire::{self, Control, Frame, Records};
use replcore_runtime::store::Arrival;

use super::{Order, Owed, TakenLater, Turn, Watching};
use crate::model::Keeper;
use crate::process::{Effect, LeaseState, Observation};

impl<M: Machine, S: Keeper> Turn<'_, M, S> {
    /// Pays what is owed, until nothing is.
    pub(super) fn settle(&mut self) {
        self.drain();
        while let Some(owed) = self.host.owed.pop_front() {
            if self.host.halted {
                return;
            }
            match owed {
                Owed::Offer { link } => {
                    self.offer(link);
                    continue;
                }
                Owed::Sent { link, stream, next, bytes, wire_bytes } => {
                    if !self.host.links.contains_key(&link) {
                        continue;
                    }
                    self.handle(Input::Sent { link, stream, next, bytes, wire_bytes });
                }
                Owed::Gone { link, stream, next, reason } => {
                    if !self.host.links.contains_key(&link) {
                        continue;
                    }
                    self.handle(Input::Gone { link, stream, next, reason });
                }
                Owed::Refused { link, stream, reason } => {
                    if !self.host.links.contains_key(&link) {
                        continue;
                    }
                    self.handle(Input::Refused { link, stream, reason });
                }
                Owed::Taken { link, stream, next, bytes } => {
                    if !self.host.links.contains_key(&link) {
                        continue;
                    }
                    self.handle(Input::Taken { link, stream, next, bytes });
                }
                Owed::Appended { link, stream, next } => {
                    if !self.host.links.contains_key(&link) {
                        continue;
                    }
                    self.handle(Input::Appended { link, stream, next });
                }
                Owed::Failed { token, reason } => {
                    self.handle(Input::Failed { token, reason });
                }
                Owed::Persisted { token } => {
                    self.handle(Input::Persisted { token });
                }
                Owed::Answer { token, answer } => {
                    self.handle(Input::Answer { token, answer });
                }
            }
            self.drain();
        }
    }

    /// Offers what a link has brought, carries out orders for its bytes, until neither goes on.
    pub(super) fn offer(&mut self, link: LinkId) {
        loop {
            if self.host.halted {
                return;
            }
            let Some(of) = self.host.links.get_mut(&link) else { return };
            if let Some(order) = of.order {
                let (Order::Take { len, .. } | Order::Skip { len }) = order;
                if of.inbox.len() < len as usize {
                    return;
                }
                of.order = None;
                let rest = of.inbox.split_off(len as usize);
                let bytes = std::mem::replace(&mut of.inbox, rest);
                if let Order::Take { stream, source, records, .. } = order {
                    self.take_records(link, stream, source, records, &bytes);
                }
                continue;
            }
            let data = std::mem::take(&mut of.inbox);
            if data.is_empty() {
                return;
            }
            let taken = self.handle(Input::Recv { link, data: &data });
            if taken > data.len() {
                return self.violation(format!("{taken} bytes taken of {}", data.len()));
            }
            if let Some(of) = self.host.links.get_mut(&link) {
                of.inbox = data[taken..].to_vec();
            }
            self.watch_registrations(link, &data[..taken]);
            self.drain();
            let ordered = self.host.links.get(&link).is_some_and(|of| of.order.is_some());
            if taken == 0 && !ordered {
                return;
            }
        }
    }

    /// A lease counts from the registration that the hub has taken, not from its answer.
    pub(super) fn watch_registrations(&mut self, link: LinkId, mut taken: &[u8]) {
        while let Ok(Some((frame, bytes))) = wire::decode(taken, u32::MAX) {
            taken = &taken[bytes.min(taken.len())..];
            match frame {
                Frame::Control { control: Control::Hello(hello), .. } => {
                    if let Ok(name) = Name::from_bytes(hello.name.0) {
                        self.host.leaf_of.insert(link, name.node_id());
                    }
                }
                Frame::Control { control: Control::Register(_), .. } => {
                    if let Some(leaf) = self.host.leaf_of.get(&link).copied() {
                        let state = LeaseState::Registered;
                        self.seen.push(Observation::Lease { leaf, state });
                    }
                }
                Frame::Control { .. } => {}
                Frame::Records { .. } | Frame::Call { .. } => return,
            }
        }
    }

    pub(super) fn take_records(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        records: Records,
        bytes: &[u8],
    ) {
        let of = self.host.links.get_mut(&link).expect("the order was on it");
        match of.refused.get(&stream) {
            Some(round) if *round == records.round => return,
            _ => of.refused.remove(&stream),
        };
        self.host.safe.insert((link, stream), source);
        let arrival = if self.host.options.hub {
            Arrival::Leaf(source.owner)
        } else {
            Arrival::Upstream(source.owner)
        };
        let mut route = Watching { routes: &self.host.options.routes, observations: self.seen };
        let wall_ms = self.now.wall_ms;
        let taken = if records.raw_bytes == 0 {
            self.host.store.take(wall_ms, &source, &records, bytes, arrival, &mut route)
        } else {
            Err(Failure::Corrupt)
        };
        match taken {
            Ok(()) => {
                let bytes = bytes.len() as u32;
                self.host.takes.push(TakenLater { link, stream, source, bytes });
            }
            Err(reason) => {
                self.seen
                    .push(Observation::Note { text: format!("{stream:?} refused: {reason:?}") });
                let of = self.host.links.get_mut(&link).expect("the order was on it");
                of.refused.insert(stream, records.round);
                self.owe(Owed::Refused { link, stream, reason });
            }
        }
    }

    pub(super) fn commit(&mut self) {
        if let Err(failure) = self.host.store.commit() {
            self.host.halted = true;
            self.effects.push(Effect::Exit { reason: format!("commit: {failure:?}") });
            return;
        }
        self.committed();
    }

    pub(super) fn committed(&mut self) {
        for (mark, id, duplicate, body) in std::mem::take(&mut self.host.posts) {
            if !duplicate {
                let (arrival, targets) = (Arrival::Local, Vec::new());
                self.seen.push(Observation::Stored { id, body, arrival, targets });
            }
            self.seen.push(Observation::Posted { mark, id, duplicate });
        }
        self.seen.push(Observation::Committed);
        for token in std::mem::take(&mut self.host.persists) {
            self.owe(Owed::Persisted { token });
        }
        // One report for each stream, of all that it completes.
        let mut sums: BTreeMap<(LinkId, StreamIndex), (StreamKey, u32)> = BTreeMap::new();
        for take in std::mem::take(&mut self.host.takes) {
            sums.entry((take.link, take.stream)).or_insert((take.source, 0)).1 += take.bytes;
        }
        for ((link, stream), (source, bytes)) in sums {
            let (_, next) = self.host.store.inbound(&source);
            self.owe(Owed::Taken { link, stream, next, bytes });
        }
        while let Some(growth) = self.host.store.grown() {
            let (link, stream, next) = (growth.link, growth.stream, growth.next);
            self.owe(Owed::Appended { link, stream, next });
        }
    }

    pub(super) fn post(&mut self, mark: u64, post: &crate::process::Post) {
        let mut bytes = post.record(&self.host.options.name);
        let mut ignored = Vec::new();
        let mut route = Watching { routes: &self.host.options.routes, observations: &mut ignored };
        match self.host.store.post(self.now.wall_ms, &mut bytes, &mut route) {
            Ok(posted) => {
                self.host.posts.push((mark, posted.id, posted.duplicate, post.body.clone()))
            }
            Err(error) => self.seen.push(Observation::PostRefused { mark, error }),
        }
    }
}
