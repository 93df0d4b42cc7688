//! What the machine puts out is done.

use replcore::contract::{Answer, LinkId, Machine, Output, Query, StreamIndex, Token};
use replcore::stream::{Cursor, Name, QueueKey};
use replcore::wire::{self, Control, Frame};
use replcore_runtime::store::{Fill, QueueKind};

use super::{Order, Owed, TakenLater, Turn};
use crate::model::Keeper;
use crate::process::{Effect, Observation};

impl<M: Machine, S: Keeper> Turn<'_, M, S> {
    pub(super) fn obey(&mut self, output: Output<M::Event>) {
        match output {
            Output::Send { link, len } => self.send(link, len),
            Output::SendRecords { link, stream, queue, first, bytes_max, round } => {
                self.send_records(link, stream, queue, first, bytes_max, round);
            }
            Output::TakeRecords { link, stream, source, records, len } => {
                self.order(link, Order::Take { stream, source, records, len });
            }
            Output::TakeSkip { link, stream, source, first, next, reason } => {
                match self.host.store.take_skip(&source, first, next, reason) {
                    Ok(()) => self.host.takes.push(TakenLater { link, stream, source, bytes: 0 }),
                    Err(reason) => self.owe(Owed::Refused { link, stream, reason }),
                }
            }
            Output::SkipBytes { link, len } | Output::TakeCall { link, len, .. } => {
                self.order(link, Order::Skip { len });
            }
            Output::Release { queue, through } => {
                let before = self.host.released.entry(queue).or_insert(0);
                if through.0 < *before {
                    let before = *before;
                    self.violation(format!(
                        "release of {queue:?} back from {before} to {through:?}"
                    ));
                } else {
                    *before = through.0;
                }
                self.host.store.release(queue, through);
            }
            Output::DeadLetter { queue, position } => {
                let _ = self.host.store.dead_letter(queue, position);
            }
            Output::Place { link, stream, source, position } => {
                match self.host.store.place(&source, position) {
                    Ok(()) => self.host.takes.push(TakenLater { link, stream, source, bytes: 0 }),
                    Err(reason) => self.owe(Owed::Refused { link, stream, reason }),
                }
            }
            Output::Ask { token, query, len } => self.answer(token, query, len),
            Output::Dial { dial } => self.effects.push(Effect::Dial { dial }),
            Output::Hangup { link } => {
                if self.linked(link, "Hangup") {
                    self.effects.push(Effect::Hangup { link });
                }
            }
            Output::Resume { link } => self.owe(Owed::Offer { link }),
            Output::Persist { key, token, len } => {
                let state = self.host.buffer[..len].to_vec();
                match self.host.store.persist(key, &state) {
                    Ok(()) => self.host.persists.push(token),
                    Err(reason) => self.owe(Owed::Failed { token, reason }),
                }
            }
            Output::Forget { key } => self.host.store.forget(key),
            Output::Event { event, len } => {
                debug_assert!(len <= self.host.buffer.len());
                if let Some((leaf, state)) = (self.host.lease_of)(&event) {
                    self.seen.push(Observation::Lease { leaf, state });
                }
                self.seen.push(Observation::Note { text: format!("{event:?}") });
            }
            Output::NeedBuffer { .. } | Output::Halted { .. } | Output::Idle { .. } => {
                unreachable!("handled by the drain")
            }
        }
    }

    pub(super) fn owe(&mut self, owed: Owed) {
        self.host.owed.push_back(owed);
    }

    pub(super) fn linked(&mut self, link: LinkId, what: &str) -> bool {
        let there = self.host.links.contains_key(&link);
        if !there {
            self.violation(format!("{what} for {link:?}, which is down"));
        }
        there
    }

    pub(super) fn spend(&mut self, link: LinkId, bytes: usize) {
        let Some(of) = self.host.links.get_mut(&link) else { return };
        let credit = of.credit;
        of.credit = credit.saturating_sub(bytes as u64);
        if bytes as u64 > credit {
            self.violation(format!("{bytes} bytes sent on {link:?} with credit {credit}"));
        }
    }

    pub(super) fn send(&mut self, link: LinkId, len: usize) {
        if !self.linked(link, "Send") {
            return;
        }
        self.spend(link, len);
        let bytes = self.host.buffer[..len].to_vec();
        match wire::decode(&bytes, u32::MAX) {
            Ok(Some((Frame::Control { stream, control }, taken))) if taken == len => {
                self.check_promise(link, StreamIndex(stream), &control);
                self.seen.push(Observation::Note { text: format!("{link:?} > {control:?}") });
            }
            other => self.violation(format!("Send of something else than a frame: {other:?}")),
        }
        self.effects.push(Effect::Send { link, bytes });
    }

    /// What is acknowledged must be safe.
    pub(super) fn check_promise(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        control: &Control<'_>,
    ) {
        let position = match control {
            Control::Ack(ack) => ack.position,
            Control::Resume(resume) => resume.position,
            _ => return,
        };
        let Some(source) = self.host.safe.get(&(link, stream)).copied() else {
            // Nothing came on it yet: the place is one that the store has told.
            if position > 0 && !self.host.told.contains(&position) {
                self.violation(format!("{control:?} on {stream:?} that nothing came on"));
            }
            return;
        };
        let (epoch, cursor) = self.host.store.inbound(&source);
        if epoch == source.epoch && position > cursor.position.0 {
            self.violation(format!("{control:?} while {cursor:?} of {source:?} is safe"));
        }
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
        if !self.linked(link, "SendRecords") {
            return;
        }
        let mut bytes = vec![0; wire::RECORDS_OVERHEAD_BYTES];
        let filled = self.host.store.fill(self.now.wall_ms, queue, first, bytes_max, &mut bytes);
        match filled {
            Ok(Fill::Batch(mut batch)) => {
                batch.records.round = round;
                if batch.bytes == 0 || batch.bytes > bytes_max {
                    self.violation(format!("{} bytes filled of {bytes_max}", batch.bytes));
                }
                let head = wire::records_header(stream.0, &batch.records, batch.bytes);
                bytes[..head.len()].copy_from_slice(&head);
                self.spend(link, bytes.len());
                self.seen.push(Observation::Note {
                    text: format!(
                        "{link:?} > {stream:?} {:?} {} bytes",
                        batch.records, batch.bytes
                    ),
                });
                let wire_bytes = bytes.len() as u32;
                self.effects.push(Effect::Send { link, bytes });
                let next = batch.records.next();
                self.owe(Owed::Sent { link, stream, next, bytes: batch.bytes, wire_bytes });
            }
            Ok(Fill::Gone { next, reason }) => {
                self.owe(Owed::Gone { link, stream, next, reason });
            }
            Ok(Fill::Empty) => {
                self.owe(Owed::Sent { link, stream, next: first, bytes: 0, wire_bytes: 0 });
            }
            Err(failure) => self.violation(format!("fill of {queue:?} at {first:?}: {failure:?}")),
        }
    }

    pub(super) fn order(&mut self, link: LinkId, order: Order) {
        if !self.linked(link, "an order") {
            return;
        }
        let of = self.host.links.get_mut(&link).expect("checked");
        let before = of.order.replace(order);
        if let Some(before) = before {
            self.violation(format!("{order:?} on {link:?} before {before:?} was done"));
        }
    }

    pub(super) fn answer(&mut self, token: Token, query: Query, len: usize) {
        let answer = match query {
            Query::Inbound(source) => {
                let (epoch, cursor) = self.host.store.inbound(&source);
                self.host.told.insert(cursor.position.0);
                Answer::Inbound { epoch, cursor }
            }
            Query::Outbound { link, stream, queue } => {
                let name = std::str::from_utf8(&self.host.buffer[..len]).unwrap_or("");
                let name = match Name::new(name) {
                    Ok(name) if name.queue_id() == queue.queue => name,
                    other => return self.violation(format!("Outbound asks for {other:?}")),
                };
                let kind =
                    if self.host.options.hub { QueueKind::Leaf } else { QueueKind::Upstream };
                let store = &mut self.host.store;
                store.ensure_queue(&name, kind).expect("there is room for its queues");
                let holding = store.watch(queue, link, stream).expect("it exists now");
                Answer::Outbound {
                    epoch: store.identity().epoch,
                    released: holding.released,
                    next: holding.next,
                    sent: holding.sent,
                }
            }
            Query::Place { queue, epoch, position } => {
                let position = self.host.store.place_reader(queue, epoch, position);
                Answer::Place { position }
            }
            Query::Subscribe { .. } => Answer::Denied,
        };
        self.seen.push(Observation::Note { text: format!("{query:?}: {answer:?}") });
        self.owe(Owed::Answer { token, answer });
    }
}
