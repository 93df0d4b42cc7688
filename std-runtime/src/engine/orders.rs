//! Orders of the machine, each done as soon as it is given.

use replcore::contract::{Answer, Input, LinkId, Machine, Output, Query};
use replcore::stream::{Name, QueueId};
use replcore::wire::{Call, Subscribe};

use super::link::Order;
use super::{Completion, Engine, Persist, Stopped, Told};
use crate::store::{Consumer, Holding, QueueKind, Store};

impl<M: Machine, S: Store> Engine<M, S> {
    /// Does everything that the machine asks.
    pub(super) fn drain(&mut self) {
        while self.stopped.is_none() {
            match self.machine.poll(&mut self.buf[..]) {
                Output::Idle { wake } => {
                    self.wake = wake;
                    return;
                }
                output => self.act(output),
            }
        }
    }

    fn act(&mut self, output: Output<M::Event>) {
        match output {
            Output::Send { link, len } => self.send(link, len),
            Output::SendRecords { link, stream, queue, first, bytes_max, round } => {
                self.send_records(link, stream, queue, first, bytes_max, round);
            }
            Output::TakeRecords { link, stream, source, records, len } => {
                self.order(link, Order::Take { stream, source, records, len });
            }
            Output::SkipBytes { link, len } => self.order(link, Order::Skip { len }),
            Output::TakeCall { link, id, reply, len } => {
                self.order(link, Order::Call { call: Call { id, reply }, len });
            }
            Output::TakeSkip { link, stream, source, first, next, reason } => {
                self.urgent = true;
                match self.store.take_skip(&source, first, next, reason) {
                    Ok(()) => self.note_taken(link, stream, source, 0),
                    Err(reason) => self.refuse_stream(link, stream, reason),
                }
            }
            Output::Release { queue, through } => {
                let before = self.store.holding(queue).map_or(through, |holding| holding.released);
                self.counters.records_delivered += through.0.saturating_sub(before.0);
                self.store.release(queue, through);
            }
            Output::DeadLetter { queue, position } => {
                self.urgent = true;
                if let Err(reason) = self.store.dead_letter(queue, position) {
                    self.store_failed(reason);
                }
            }
            Output::Place { link, stream, source, position } => {
                self.urgent = true;
                match self.store.place(&source, position) {
                    Ok(()) => self.note_taken(link, stream, source, 0),
                    Err(reason) => self.refuse_stream(link, stream, reason),
                }
            }
            Output::Ask { token, query: Query::Inbound(source), .. }
                if self.store.committed_number() > 0 =>
            {
                // A sender that goes on from before what is under way would bring some of it twice.
                self.urgent = true;
                self.completions.push(Completion::Inbound { token, source });
            }
            Output::Ask { token, query, len } => {
                let answer = self.answer(query, len);
                self.feed(Input::Answer { token, answer });
            }
            Output::Dial { dial } => self.dials.push_back(dial),
            Output::Hangup { link } => {
                self.links[link.0 as usize].hangup = true;
                self.list(link);
            }
            Output::Resume { link } => {
                if !self.resume.contains(&link) {
                    self.resume.push_back(link);
                }
            }
            Output::Persist { key, token, len } if self.config.persist_outside => {
                let record = self.buf[..len].to_vec();
                self.persists.push_back(Persist::Keep { key, token, record });
            }
            Output::Forget { key } if self.config.persist_outside => {
                self.persists.push_back(Persist::Forget { key });
            }
            Output::Persist { key, token, len } => {
                self.urgent = true;
                let completion = match self.store.persist(key, &self.buf[..len]) {
                    Ok(()) => Completion::Persisted { token },
                    Err(reason) => Completion::Failed { token, reason },
                };
                self.completions.push(completion);
            }
            Output::Forget { key } => self.store.forget(key),
            Output::Event { event, len } => {
                (self.ways.follow)(&self.machine, &mut self.router, &event);
                self.events.push_back(Told { event, detail: self.buf[..len].to_vec() });
            }
            Output::NeedBuffer { len } => {
                unreachable!("a machine asks for {len} bytes, beyond what the contract allows")
            }
            Output::Halted { reason } => {
                self.stopped.get_or_insert(Stopped::Halted(reason));
            }
            Output::Idle { .. } => {}
        }
    }

    fn order(&mut self, link: LinkId, order: Order) {
        let slot = &mut self.links[link.0 as usize];
        debug_assert!(slot.order.is_none(), "one order at a time");
        slot.order = Some(order);
    }

    fn answer(&mut self, query: Query, len: usize) -> Answer {
        match query {
            Query::Inbound(source) => {
                let (epoch, cursor) = self.store.inbound(&source);
                Answer::Inbound { epoch, cursor }
            }
            Query::Outbound { link, stream, queue } => {
                let mut holding = self.store.watch(queue, link, stream);
                if holding.is_none() {
                    holding =
                        self.make_queue(len).and_then(|()| self.store.watch(queue, link, stream));
                }
                let Some(holding) = holding else { return Answer::Denied };
                if self.readers.insert((queue.queue, link)) {
                    self.links[link.0 as usize].reads.push(queue.queue);
                }
                let epoch = self.store.identity().epoch;
                let Holding { released, next, sent } = holding;
                Answer::Outbound { epoch, released, next, sent }
            }
            Query::Place { queue, epoch, position } => {
                Answer::Place { position: self.store.place_reader(queue, epoch, position) }
            }
            Query::Subscribe { queue, .. } => {
                let subscribed = self.subscribe(len);
                let free = !self.is_read(queue);
                if subscribed == Some(queue) && free { Answer::Subscribed } else { Answer::Denied }
            }
        }
    }

    fn make_queue(&mut self, len: usize) -> Option<()> {
        let name = Name::from_bytes(&self.buf[..len]).ok()?;
        let upstream = self.router.is_upstream(name.queue_id().0);
        let kind = if upstream { QueueKind::Upstream } else { QueueKind::Leaf };
        self.store.ensure_queue(&name, kind).ok().map(|_| ())
    }

    fn subscribe(&mut self, len: usize) -> Option<QueueId> {
        let wanted = Subscribe::decode(&self.buf[..len])?;
        let consumer = Consumer {
            name: wanted.consumer.to_string(),
            message_type: wanted.message_type.to_string(),
        };
        let from_start = wanted.from_start;
        self.create_consumer(&consumer, from_start).ok()
    }
}
