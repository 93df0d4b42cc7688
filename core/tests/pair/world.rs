//! A hub and leaves on perfect or cut links in virtual time, with stores in memory.

use std::collections::{BTreeMap, VecDeque};

use replcore::contract::{
    Answer, Input, Key, LinkId, Machine, Output, Query, SkipReason, StreamIndex, Transport,
};
use replcore::leaf::LeafEvent;
use replcore::node::NodeEvent;
use replcore::stream::{
    Cursor, Epoch, Life, Name, Position, QueueId, QueueKey, StreamKey, place_after,
};
use replcore::time::Instant;
use replcore::wire;

/// What both compositions say, as far as tests look at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Leaf(LeafEvent),
    Node(NodeEvent),
}

impl From<LeafEvent> for Said {
    fn from(event: LeafEvent) -> Self {
        Self::Leaf(event)
    }
}

impl From<NodeEvent> for Said {
    fn from(event: NodeEvent) -> Self {
        Self::Node(event)
    }
}

/// Records are single bytes: enough to see which came, in which order.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) queues: BTreeMap<QueueKey, Queue>,
    pub(crate) taken: BTreeMap<StreamKey, (Cursor, Vec<u8>)>,
    pub(crate) state: BTreeMap<Key, Vec<u8>>,
    pub(crate) skipped: Vec<(Position, Position, SkipReason)>,
    pub(crate) placed: Vec<Position>,
    pub(crate) dead: Vec<Position>,
    pub(crate) full: bool,
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) records: Vec<u8>,
    pub(crate) released: u64,
    /// Everything before is gone.
    pub(crate) held_from: u64,
    /// Earlier lives of the log.
    pub(crate) lives: Vec<Life>,
    /// Nobody has entries from here on, if that is not the end.
    pub(crate) sent: Option<u64>,
    watcher: Option<(LinkId, StreamIndex)>,
}

/// A machine, its store, and the bytes of its links.
pub(crate) struct Site<M> {
    pub(crate) machine: M,
    pub(crate) store: Store,
    pub(crate) outgoing: BTreeMap<LinkId, Vec<u8>>,
    pub(crate) incoming: BTreeMap<LinkId, Vec<u8>>,
    pub(crate) dials: VecDeque<u16>,
    pub(crate) hangups: Vec<LinkId>,
    pub(crate) said: Vec<Said>,
    /// What went with the last event that had something.
    pub(crate) detail: Vec<u8>,
    pub(crate) wake: Option<Instant>,
    pub(crate) buffer_bytes: usize,
    pub(crate) frame_bytes_sent_max: u32,
    /// Completions are given back only when the test says so.
    pub(crate) hold_completions: bool,
    /// The store has held completions, so that it may be asked for what it has.
    pub(crate) slow: bool,
    held: Vec<(LinkId, StreamIndex, Cursor, u32)>,
    body: BTreeMap<LinkId, Body>,
}

enum Body {
    Take(StreamIndex, StreamKey, wire::Records, u32),
    Skip(u32),
}

impl<M: Machine> Site<M>
where
    Said: From<M::Event>,
{
    pub(crate) fn new(machine: M) -> Self {
        Self {
            machine,
            store: Store::default(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            dials: VecDeque::new(),
            hangups: Vec::new(),
            said: Vec::new(),
            detail: Vec::new(),
            wake: None,
            buffer_bytes: wire::CONTROL_FRAME_BYTES_MAX,
            frame_bytes_sent_max: 0,
            hold_completions: false,
            slow: false,
            held: Vec::new(),
            body: BTreeMap::new(),
        }
    }

    pub(crate) fn input(&mut self, now: Instant, input: Input<'_>) {
        self.machine.handle(now, input);
        self.drain(now);
    }

    pub(crate) fn up(&mut self, now: Instant, link: LinkId, dialed: Option<u16>) {
        self.up_over(now, link, dialed, Transport::Stream);
    }

    pub(crate) fn up_over(
        &mut self,
        now: Instant,
        link: LinkId,
        dialed: Option<u16>,
        transport: Transport,
    ) {
        self.outgoing.insert(link, Vec::new());
        self.incoming.insert(link, Vec::new());
        let dialed = dialed.map(replcore::contract::DialIndex);
        self.input(now, Input::LinkUp { link, dialed, transport, identity: None });
        self.input(now, Input::Writable { link, bytes: 1 << 20 });
    }

    pub(crate) fn down(&mut self, now: Instant, link: LinkId) {
        self.outgoing.remove(&link);
        self.incoming.remove(&link);
        self.body.remove(&link);
        self.held.retain(|held| held.0 != link);
        for queue in self.store.queues.values_mut() {
            queue.watcher = queue.watcher.filter(|watcher| watcher.0 != link);
        }
        self.input(now, Input::LinkDown { link });
    }

    pub(crate) fn post(&mut self, now: Instant, queue: &str, class: u8, records: &[u8]) {
        let key = QueueKey { queue: Name::new(queue).unwrap().queue_id(), class };
        let queue = self.store.queues.entry(key).or_default();
        queue.records.extend_from_slice(records);
        let next = Position(queue.records.len() as u64);
        if let Some((link, stream)) = queue.watcher {
            self.input(now, Input::Appended { link, stream, next });
        }
    }

    pub(crate) fn queue(&self, queue: &str, class: u8) -> &Queue {
        let queue = QueueId(Name::new(queue).unwrap().queue_id().0);
        &self.store.queues[&QueueKey { queue, class }]
    }

    /// All records that were taken, of all streams.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.store.taken.values().flat_map(|taken| taken.1.clone()).collect()
    }

    /// Gives the bytes that have arrived to the machine.
    pub(crate) fn read(&mut self, now: Instant) {
        for link in self.incoming.keys().copied().collect::<Vec<_>>() {
            while let Some(bytes) = self.incoming.get_mut(&link).map(core::mem::take) {
                let used = self.consume(now, link, &bytes);
                let Some(kept) = self.incoming.get_mut(&link) else {
                    break;
                };
                kept.extend_from_slice(&bytes[used..]);
                if used == 0 {
                    break;
                }
            }
        }
    }

    /// Gives one whole frame to the machine; what it does not take is gone.
    pub(crate) fn datagram(&mut self, now: Instant, link: LinkId, frame: &[u8]) {
        let used = self.consume(now, link, frame);
        if self.body.contains_key(&link) {
            let rest = used + self.consume(now, link, &frame[used..]);
            assert_eq!(rest, frame.len(), "a body that is not the rest of its datagram");
        }
    }

    fn consume(&mut self, now: Instant, link: LinkId, bytes: &[u8]) -> usize {
        match self.body.get(&link) {
            None => {
                let used = self.machine.handle(now, Input::Recv { link, data: bytes });
                assert!(used <= bytes.len());
                self.drain(now);
                used
            }
            Some(Body::Skip(len) | Body::Take(.., len)) if bytes.len() < *len as usize => 0,
            Some(_) => match self.body.remove(&link) {
                Some(Body::Take(stream, source, records, len)) => {
                    let used = len as usize;
                    self.take(now, link, stream, source, &records, &bytes[..used]);
                    used
                }
                Some(Body::Skip(len)) => len as usize,
                None => 0,
            },
        }
    }

    fn take(
        &mut self,
        now: Instant,
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        records: &wire::Records,
        bytes: &[u8],
    ) {
        if self.store.full {
            let reason = replcore::contract::Failure::Full;
            return self.input(now, Input::Refused { link, stream, reason });
        }
        let (cursor, taken) = self.store.taken.entry(source).or_default();
        if self.slow && records.first < *cursor {
            // Asked for again before the store had reported it. Had already, or what is new cannot
            // be told from what is not: the stores of this project say so.
            if records.next() > *cursor {
                let reason = replcore::contract::Failure::Full;
                self.input(now, Input::Refused { link, stream, reason });
            }
            return;
        }
        assert_eq!(*cursor, records.first, "a gap or a repetition reached the store");
        taken.extend_from_slice(bytes);
        *cursor = records.next();
        let (next, bytes) = (*cursor, bytes.len() as u32);
        if self.hold_completions {
            self.held.push((link, stream, next, bytes));
        } else {
            self.input(now, Input::Taken { link, stream, next, bytes });
        }
    }

    pub(crate) fn complete(&mut self, now: Instant) {
        for (link, stream, next, bytes) in core::mem::take(&mut self.held) {
            self.input(now, Input::Taken { link, stream, next, bytes });
        }
    }

    fn drain(&mut self, now: Instant) {
        for _ in 0..100_000 {
            let mut buf = vec![0; self.buffer_bytes];
            let output = self.machine.poll(&mut buf);
            let input = match output {
                Output::Idle { wake } => {
                    assert!(wake.is_none_or(|wake| wake > now), "a wake-up in the past");
                    self.wake = wake;
                    return;
                }
                output => self.order(output, &buf),
            };
            if let Some(input) = input {
                self.machine.handle(now, input);
            }
        }
        panic!("a drain does not end");
    }

    /// Does what an output asks; the answer, if there is one.
    fn order(&mut self, output: Output<M::Event>, buf: &[u8]) -> Option<Input<'static>> {
        match output {
            Output::Send { link, len } => {
                self.outgoing.get_mut(&link).unwrap().extend_from_slice(&buf[..len]);
                return Some(Input::Writable { link, bytes: len as u32 });
            }
            Output::SendRecords { link, stream, queue, first, bytes_max, round } => {
                return Some(self.send(link, stream, queue, first, bytes_max, round));
            }
            Output::TakeRecords { link, stream, source, records, len } => {
                self.body.insert(link, Body::Take(stream, source, records, len));
            }
            Output::TakeSkip { link, stream, source, first, next, reason } => {
                self.store.skipped.push((first, next, reason));
                let cursor = Cursor::at(next);
                self.store.taken.entry(source).or_default().0 = cursor;
                return Some(Input::Taken { link, stream, next: cursor, bytes: 0 });
            }
            Output::SkipBytes { link, len } | Output::TakeCall { link, len, .. } => {
                self.body.insert(link, Body::Skip(len));
            }
            Output::Release { queue, through } => {
                let queue = self.store.queues.get_mut(&queue).unwrap();
                assert!(through.0 >= queue.released, "a release went back");
                queue.released = through.0;
            }
            Output::DeadLetter { position, .. } => self.store.dead.push(position),
            Output::Ask { token, query, .. } => {
                return Some(Input::Answer { token, answer: self.answer(query) });
            }
            Output::Dial { dial } => self.dials.push_back(dial.0),
            Output::Hangup { link } => self.hangups.push(link),
            Output::Persist { key, token, len } => {
                self.store.state.insert(key, buf[..len].to_vec());
                return Some(Input::Persisted { token });
            }
            Output::Forget { key } => {
                self.store.state.remove(&key);
            }
            Output::Place { link, stream, source, position } => {
                if self.store.full {
                    let reason = replcore::contract::Failure::Full;
                    return Some(Input::Refused { link, stream, reason });
                }
                let next = Cursor::at(position);
                self.store.placed.push(position);
                self.store.taken.entry(source).or_default().0 = next;
                return Some(Input::Taken { link, stream, next, bytes: 0 });
            }
            Output::Event { event, len } => {
                self.said.push(event.into());
                if len > 0 {
                    self.detail = buf[..len].to_vec();
                }
            }
            Output::NeedBuffer { len } => self.buffer_bytes = len,
            Output::Resume { .. } => {}
            Output::Halted { reason } => panic!("halted: {reason}"),
            Output::Idle { .. } => {}
        }
        None
    }

    fn send(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        round: u8,
    ) -> Input<'static> {
        let queue = &self.store.queues[&queue];
        let from = first.position.0;
        if from < queue.held_from {
            let next = Position(queue.held_from);
            return Input::Gone { link, stream, next, reason: SkipReason::Dropped };
        }
        let until = (from + u64::from(bytes_max)).min(queue.records.len() as u64);
        let bytes = &queue.records[from as usize..until as usize];
        assert!(!bytes.is_empty(), "asked to send what is not there");
        let completed = bytes.len() as u32;
        let records = wire::Records { first, completed, tail_bytes: 0, raw_bytes: 0, round };
        let head = wire::records_header(stream.0, &records, completed);
        let wire_bytes = head.len() as u32 + completed;
        self.frame_bytes_sent_max = self.frame_bytes_sent_max.max(wire_bytes);
        let outgoing = self.outgoing.get_mut(&link).unwrap();
        outgoing.extend_from_slice(&head);
        outgoing.extend_from_slice(bytes);
        Input::Sent { link, stream, next: records.next(), bytes: completed, wire_bytes }
    }

    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Inbound(source) => {
                let known = self
                    .store
                    .taken
                    .iter()
                    .rev()
                    .find(|(key, _)| key.owner == source.owner && key.queue == source.queue);
                match known {
                    Some((key, (cursor, _))) => {
                        Answer::Inbound { epoch: key.epoch, cursor: *cursor }
                    }
                    None => Answer::Inbound { epoch: source.epoch, cursor: Cursor::default() },
                }
            }
            Query::Outbound { link, stream, queue } => {
                let queue = self.store.queues.entry(queue).or_default();
                queue.watcher = Some((link, stream));
                Answer::Outbound {
                    epoch: Epoch(0),
                    released: Position(queue.released),
                    next: Position(queue.records.len() as u64),
                    sent: Position(queue.sent.unwrap_or(queue.records.len() as u64)),
                }
            }
            Query::Place { queue, epoch, position } => {
                let queue = &self.store.queues[&queue];
                let released = Position(queue.released);
                Answer::Place { position: place_after(&queue.lives, epoch, position, released) }
            }
            Query::Subscribe { .. } => Answer::Subscribed,
        }
    }
}

/// Moves bytes both ways until nothing moves any more.
pub(crate) fn exchange<A: Machine, B: Machine>(
    now: Instant,
    a: &mut Site<A>,
    link_a: LinkId,
    b: &mut Site<B>,
    link_b: LinkId,
) where
    Said: From<A::Event> + From<B::Event>,
{
    for _ in 0..1_000 {
        let mut moved = 0;
        if let (Some(out), Some(into)) = (a.outgoing.get_mut(&link_a), b.incoming.get_mut(&link_b))
        {
            moved += out.len();
            into.append(out);
        }
        if let (Some(out), Some(into)) = (b.outgoing.get_mut(&link_b), a.incoming.get_mut(&link_a))
        {
            moved += out.len();
            into.append(out);
        }
        a.read(now);
        b.read(now);
        if moved == 0 {
            return;
        }
    }
    panic!("the exchange does not end");
}
