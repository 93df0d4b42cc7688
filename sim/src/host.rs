//! A small driver that runs any machine over any store, and watches both.
//!
//! It is written from the contract alone and shares no code with the daemon's driver, so that a
//! misreading of the contract in one of the two shows as a difference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use replcore::contract::{
    Answer, Failure, Input, LinkId, Machine, Output, Query, StreamIndex, Token, Transport,
};
use replcore::log::crc32c;
use replcore::log::record::{Message, Record, encode};
use replcore::stream::{Cursor, Name, NodeId, QueueKey, RecordId, StreamKey};
use replcore::time::{Instant, Stamp};
use replcore::wire::{self, Control, Frame, Records};
use replcore_runtime::store::{Arrival, Fill, QueueKind, Route};

use crate::model::Keeper;
use crate::process::{Effect, LeaseState, Now, Observation, Process, Stimulus};

/// More outputs than this in one drain are taken for an endless one.
const OUTPUTS_MAX: usize = 20_000;

/// What a host must know beside its machine and its store.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The node's name.
    pub name: Name,
    /// Whether records that come over links it accepted are a leaf's.
    pub hub: bool,
    /// Longest frame that its machine takes.
    pub frame_bytes_max: u32,
    /// Where a record goes that arrives in this way.
    pub routes: Routes,
}

/// Dispatch of a simulated node.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Queues of leaves: every record goes there, except to where it came from.
    pub leaves: Vec<Name>,
    /// Queues of upstream hubs: records posted here, or that came from a leaf, go there.
    pub upstreams: Vec<Name>,
    /// Break the rule that nothing goes back (HS-18), to see that the checks notice.
    pub bug_sends_back: bool,
}

impl Routes {
    fn targets(&self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        let came_from = match arrival {
            Arrival::Leaf(node) | Arrival::Upstream(node) => Some(node),
            Arrival::Local => None,
        };
        for leaf in &self.leaves {
            let id = leaf.node_id();
            let back = Some(id) == came_from || id == record.id().origin;
            if !back || self.bug_sends_back {
                targets.push(*leaf);
            }
        }
        if !matches!(arrival, Arrival::Upstream(_)) {
            targets.extend(&self.upstreams);
        }
    }
}

struct Watching<'a> {
    routes: &'a Routes,
    observations: &'a mut Vec<Observation>,
}

impl Route for Watching<'_> {
    fn route(&mut self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        self.routes.targets(record, arrival, targets);
        // A record posted here is not stamped yet; its store tells its identity later.
        if arrival != Arrival::Local {
            self.observations.push(Observation::Stored {
                id: record.id(),
                body: record.body().to_vec(),
                arrival,
                targets: targets.clone(),
            });
        }
    }
}

/// Bytes of a link that go somewhere else than to the machine.
#[derive(Clone, Copy, Debug)]
enum Order {
    Take { stream: StreamIndex, source: StreamKey, records: Records, len: u32 },
    Skip { len: u32 },
}

#[derive(Debug)]
struct Link {
    transport: Transport,
    inbox: Vec<u8>,
    order: Option<Order>,
    /// Streams of which nothing is taken until the sender went back: the round they were in.
    refused: BTreeMap<StreamIndex, u8>,
    credit: u64,
}

#[derive(Debug)]
struct TakenLater {
    link: LinkId,
    stream: StreamIndex,
    source: StreamKey,
    bytes: u32,
}

/// An input that the host owes its machine.
#[derive(Debug)]
enum Owed {
    Sent {
        link: LinkId,
        stream: StreamIndex,
        next: Cursor,
        bytes: u32,
        wire_bytes: u32,
    },
    Gone {
        link: LinkId,
        stream: StreamIndex,
        next: replcore::stream::Position,
        reason: replcore::contract::SkipReason,
    },
    Refused {
        link: LinkId,
        stream: StreamIndex,
        reason: Failure,
    },
    Failed {
        token: Token,
        reason: Failure,
    },
    Persisted {
        token: Token,
    },
    Taken {
        link: LinkId,
        stream: StreamIndex,
        next: Cursor,
        bytes: u32,
    },
    Appended {
        link: LinkId,
        stream: StreamIndex,
        next: replcore::stream::Position,
    },
    Answer {
        token: Token,
        answer: Answer,
    },
    Offer {
        link: LinkId,
    },
}

/// How a host tells what its machine's events mean.
pub type LeaseOf<E> = fn(&E) -> Option<(NodeId, LeaseState)>;

/// A machine, a store and the bytes between them and the links.
pub struct Host<M: Machine, S: Keeper> {
    machine: M,
    store: S,
    options: HostOptions,
    lease_of: LeaseOf<M::Event>,
    links: BTreeMap<LinkId, Link>,
    owed: VecDeque<Owed>,
    takes: Vec<TakenLater>,
    persists: Vec<Token>,
    posts: Vec<(u64, RecordId, bool, Vec<u8>)>,
    buffer: Vec<u8>,
    wake: Option<Instant>,
    /// The time that the machine was told last.
    told_at: Instant,
    halted: bool,
    /// For each incoming stream how far it is safe, to hold acknowledgements against.
    safe: BTreeMap<(LinkId, StreamIndex), StreamKey>,
    /// Positions of incoming streams that the store has told.
    told: BTreeSet<u64>,
    released: BTreeMap<QueueKey, u64>,
    /// Leaves by their links.
    leaf_of: BTreeMap<LinkId, NodeId>,
}

impl<M: Machine, S: Keeper> Debug for Host<M, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl<M: Machine, S: Keeper> Host<M, S> {
    /// Starts a node: gives the machine what the store kept for it.
    ///
    /// # Panics
    /// When the machine does not take back what it had persisted.
    pub fn start(
        mut machine: M,
        mut store: S,
        options: HostOptions,
        lease_of: LeaseOf<M::Event>,
    ) -> Self {
        store.restore(&mut |key, state| {
            machine.restore(key, state).expect("a machine takes back what it persisted");
        });
        for name in &options.routes.upstreams {
            store.ensure_queue(name, QueueKind::Upstream).expect("there is room for its queues");
        }
        for name in &options.routes.leaves {
            store.ensure_queue(name, QueueKind::Leaf).expect("there is room for its queues");
        }
        Self {
            machine,
            store,
            options,
            lease_of,
            links: BTreeMap::new(),
            owed: VecDeque::new(),
            takes: Vec::new(),
            persists: Vec::new(),
            posts: Vec::new(),
            buffer: vec![0; 64],
            wake: None,
            told_at: Instant::ZERO,
            halted: false,
            safe: BTreeMap::new(),
            told: BTreeSet::new(),
            released: BTreeMap::new(),
            leaf_of: BTreeMap::new(),
        }
    }

    /// What it keeps.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// What it keeps, to break it.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The machine.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Ends the process; what was not committed is the store's affair.
    pub fn into_store(self) -> S {
        self.store
    }
}

/// One turn of a host: its parts and where effects and observations go.
struct Turn<'a, M: Machine, S: Keeper> {
    host: &'a mut Host<M, S>,
    now: Now,
    effects: &'a mut Vec<Effect>,
    seen: &'a mut Vec<Observation>,
}

impl<M: Machine, S: Keeper> Turn<'_, M, S> {
    fn violation(&mut self, what: String) {
        self.seen.push(Observation::Violation { what });
    }

    fn handle(&mut self, input: Input<'_>) -> usize {
        let recv = matches!(input, Input::Recv { .. });
        self.host.told_at = self.now.monotonic;
        let taken = self.host.machine.handle(self.now.monotonic, input);
        if !recv && taken != 0 {
            self.violation(format!("{taken} bytes taken of an input that brings none"));
        }
        taken
    }

    /// Polls until idle and does what is asked.
    fn drain(&mut self) {
        let mut outputs = 0;
        loop {
            let mut buffer = std::mem::take(&mut self.host.buffer);
            let output = self.host.machine.poll(&mut buffer);
            self.host.buffer = buffer;
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                self.violation(format!("more than {OUTPUTS_MAX} outputs in one drain"));
                self.host.halted = true;
                return;
            }
            match output {
                Output::Idle { wake } => {
                    if wake.is_some_and(|wake| wake <= self.host.told_at) {
                        self.violation(format!("wake {wake:?} is not after {:?}", self.now));
                    }
                    self.host.wake = wake;
                    return;
                }
                Output::NeedBuffer { len } => {
                    if len <= self.host.buffer.len() {
                        self.violation(format!("wants {len} bytes of buffer and has them"));
                        self.host.halted = true;
                        return;
                    }
                    self.host.buffer.resize(len, 0);
                }
                Output::Halted { reason } => {
                    self.host.halted = true;
                    self.violation(format!("halted: {reason}"));
                    return;
                }
                output => self.obey(output),
            }
        }
    }

    fn obey(&mut self, output: Output<M::Event>) {
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

    fn owe(&mut self, owed: Owed) {
        self.host.owed.push_back(owed);
    }

    fn linked(&mut self, link: LinkId, what: &str) -> bool {
        let there = self.host.links.contains_key(&link);
        if !there {
            self.violation(format!("{what} for {link:?}, which is down"));
        }
        there
    }

    fn spend(&mut self, link: LinkId, bytes: usize) {
        let Some(of) = self.host.links.get_mut(&link) else { return };
        let credit = of.credit;
        of.credit = credit.saturating_sub(bytes as u64);
        if bytes as u64 > credit {
            self.violation(format!("{bytes} bytes sent on {link:?} with credit {credit}"));
        }
    }

    fn send(&mut self, link: LinkId, len: usize) {
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
    fn check_promise(&mut self, link: LinkId, stream: StreamIndex, control: &Control<'_>) {
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

    fn send_records(
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

    fn order(&mut self, link: LinkId, order: Order) {
        if !self.linked(link, "an order") {
            return;
        }
        let of = self.host.links.get_mut(&link).expect("checked");
        let before = of.order.replace(order);
        if let Some(before) = before {
            self.violation(format!("{order:?} on {link:?} before {before:?} was done"));
        }
    }

    fn answer(&mut self, token: Token, query: Query, len: usize) {
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

    /// Pays what is owed, until nothing is.
    fn settle(&mut self) {
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
    fn offer(&mut self, link: LinkId) {
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
    fn watch_registrations(&mut self, link: LinkId, mut taken: &[u8]) {
        while let Ok(Some((frame, bytes))) = wire::decode(taken, u32::MAX) {
            taken = &taken[bytes.min(taken.len())..];
            match frame {
                Frame::Control { control: Control::Hello(hello), .. } => {
                    if let Ok(name) = Name::new(hello.name) {
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

    fn take_records(
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

    fn commit(&mut self) {
        if let Err(failure) = self.host.store.commit() {
            self.host.halted = true;
            self.effects.push(Effect::Exit { reason: format!("commit: {failure:?}") });
            return;
        }
        self.committed();
    }

    fn committed(&mut self) {
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

    fn post(&mut self, mark: u64, post: &crate::process::Post) {
        let name = self.host.options.name;
        let message = Message {
            message_type: post.message_type,
            idempotency_key: &post.idempotency_key,
            origin_name: name.as_str(),
            body: &post.body,
            ..Message::default()
        };
        let id = RecordId { class: post.class, ..RecordId::default() };
        let mut bytes = vec![0; message.record_bytes().expect("the message is sound")];
        encode(&message, id, Stamp::UNSET, &mut bytes, crc32c).expect("the room is right");
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

impl<M: Machine, S: Keeper> Process for Host<M, S> {
    fn take(
        &mut self,
        now: Now,
        stimulus: Stimulus<'_>,
        effects: &mut Vec<Effect>,
        observations: &mut Vec<Observation>,
    ) {
        if self.halted {
            return;
        }
        let mut turn = Turn { host: self, now, effects, seen: observations };
        match stimulus {
            Stimulus::Timeout => {
                turn.handle(Input::Timeout);
            }
            Stimulus::LinkUp { link, dialed, transport, peer } => {
                turn.host.links.insert(
                    link,
                    Link {
                        transport,
                        inbox: Vec::new(),
                        order: None,
                        refused: BTreeMap::new(),
                        credit: 0,
                    },
                );
                turn.handle(Input::LinkUp { link, dialed, transport, identity: peer });
            }
            Stimulus::LinkDown { link } => {
                turn.host.links.remove(&link);
                turn.host.leaf_of.remove(&link);
                turn.host.takes.retain(|take| take.link != link);
                turn.host.safe.retain(|(of, _), _| *of != link);
                turn.host.store.unwatch(link);
                turn.handle(Input::LinkDown { link });
            }
            Stimulus::DialFailed { dial } => {
                turn.handle(Input::DialFailed { dial });
            }
            Stimulus::Received { link, bytes } => {
                let Some(of) = turn.host.links.get_mut(&link) else { return };
                let datagram = of.transport == Transport::Datagram;
                of.inbox.extend_from_slice(bytes);
                turn.offer(link);
                if datagram && let Some(of) = turn.host.links.get_mut(&link) {
                    // What was not taken of a datagram is gone.
                    of.inbox.clear();
                    of.order = None;
                }
            }
            Stimulus::Writable { link, bytes } => {
                let Some(of) = turn.host.links.get_mut(&link) else { return };
                of.credit += u64::from(bytes);
                turn.handle(Input::Writable { link, bytes });
            }
            Stimulus::Commit => turn.commit(),
            Stimulus::Post { mark, post } => turn.post(mark, post),
        }
        turn.settle();
    }

    fn held(&mut self) -> Vec<RecordId> {
        self.store.held()
    }

    fn wake(&self) -> Option<Instant> {
        if self.halted { None } else { self.wake }
    }

    fn dirty(&self) -> bool {
        !self.halted
            && (self.store.dirty()
                || !self.posts.is_empty()
                || !self.takes.is_empty()
                || !self.persists.is_empty())
    }

    fn frame_bytes_max(&self) -> u32 {
        self.options.frame_bytes_max
    }
}
