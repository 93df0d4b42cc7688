//! A machine, its store and the buffers of its links: all of a node but sockets and clock.
//!
//! The caller brings bytes and time, and carries bytes away:
//!
//! ```text
//! link_up, bytes, link_down, written   whenever something happens on a link
//! turn                                 after that, and when its answer says so
//! output, next_flush, next_resume, next_dial, next_call, next_event   until there is nothing more
//! ```
//!
//! Nothing is acknowledged before [`Engine::turn`] has committed, and one commit serves all links.
//! The engine reads no clock and opens no file but through its store, so that a simulator drives
//! it as it is. Same machine, store and calls: same results.

mod link;
mod router;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

use replcore::contract::{
    Answer, DialIndex, Failure, Input, LinkId, Machine, Output, Query, StreamIndex, Token,
    Transport,
};
use replcore::stream::{Cursor, Name, NodeId, QueueId, QueueKey, StreamKey};
use replcore::time::Instant;
use replcore::wire::{
    CONTROL_FRAME_BYTES_MAX, Call, FEATURE_LZ4, RECORDS_OVERHEAD_BYTES, Records, Role, Subscribe,
    records_header,
};

pub use self::link::{CALL_PART_BYTES_MAX, IncomingCall};
use self::link::{Link, Order, Pool};
pub use self::router::{RULES_MAX, Router, TARGETS_MAX, check_rules};
use crate::options::Compression;
use crate::store::{Arrival, Consumer, Fill, Holding, PostError, Posted, QueueKind, Store};

/// What an engine is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Links open at once; the ids are below.
    pub links_max: u32,
    /// Bytes that the machine may have waiting to be written, per link. At least one frame.
    pub link_buffer_bytes: u32,
    /// Longest frame taken; also the most that a compressed frame may grow to.
    pub frame_bytes_max: u32,
    /// Calls that wait for [`Engine::next_call`]; beyond it links that call are not read.
    pub calls_max: u32,
    /// Largest call.
    pub call_bytes_max: u32,
    /// Most consumers.
    pub consumers_max: u32,
    /// Whether outgoing records are compressed where both ends can.
    pub compression: Compression,
    /// What is not waited for is made durable within this time, in milliseconds.
    pub lazy_commit_ms: u32,
    /// What is taken is reported when [`Engine::acknowledge`] says so, not when it is committed.
    pub manual_acknowledgement: bool,
    /// How often the store is given time to look after itself, in milliseconds.
    pub maintain_ms: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            links_max: 1024,
            link_buffer_bytes: 512 << 10,
            frame_bytes_max: 256 << 10,
            calls_max: 256,
            call_bytes_max: 32 << 20,
            consumers_max: 64,
            compression: Compression::None,
            lazy_commit_ms: 200,
            manual_acknowledgement: false,
            maintain_ms: 1000,
        }
    }
}

/// Counters of an engine since its start. All only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Commits that something waited for.
    pub commits: u64,
    /// Commits that found no space; what they should have covered is not safe.
    pub commits_failed: u64,
    /// Frames of records sent.
    pub records_frames_sent: u64,
    /// Bytes of records sent, before compression.
    pub record_bytes_sent: u64,
    /// Bytes that compression saved.
    pub compressed_bytes_saved: u64,
    /// Frames of records received.
    pub records_frames_received: u64,
    /// Bytes of records received, before compression.
    pub record_bytes_received: u64,
    /// Frames of records that could not be kept.
    pub records_refused: u64,
    /// Records that readers have acknowledged.
    pub records_delivered: u64,
    /// Records taken from leaves.
    pub records_fetched: u64,
    /// Calls of programs received.
    pub calls_received: u64,
    /// Links closed because a call was longer than the limit.
    pub calls_too_long: u64,
}

/// What waits for the next commit, in the order in which it came.
#[derive(Clone, Copy, Debug)]
enum Completion {
    Taken { link: LinkId, stream: StreamIndex, source: StreamKey, bytes: u32 },
    Refused { link: LinkId, stream: StreamIndex, reason: Failure },
    Persisted { token: Token },
    Failed { token: Token, reason: Failure },
}

/// Why an engine does nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The machine found a broken invariant.
    Halted(&'static str),
    /// The store does not work; what is on the medium is not known, and a restart tells.
    Store(Failure),
}

/// Something that the machine told, with its detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<E> {
    /// What happened.
    pub event: E,
    /// Bytes that go with it.
    pub detail: Vec<u8>,
}

/// What the engine needs to know of its kind of machine.
#[derive(Debug)]
pub struct Ways<M: Machine> {
    /// Lets the router follow what the machine tells, before any record that comes after it.
    pub follow: fn(&M, &mut Router, &M::Event),
    /// What is at the other end of a link, and the features that both ends have.
    pub peer: fn(&M, LinkId) -> Option<(Role, u32)>,
}

impl<M: Machine> Clone for Ways<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Ways<M> {}

/// See the [module](self).
#[derive(Debug)]
pub struct Engine<M: Machine, S: Store> {
    machine: M,
    store: S,
    router: Router,
    ways: Ways<M>,
    config: EngineConfig,
    now: Instant,
    wall_ms: u64,
    wake: Option<Instant>,
    links: Vec<Link>,
    pool: Pool,
    scratch: Vec<u8>,
    buf: Box<[u8; CONTROL_FRAME_BYTES_MAX]>,
    completions: Vec<Completion>,
    /// Somebody waits for the next commit.
    urgent: bool,
    dirty_since: Option<Instant>,
    maintain_at: Instant,
    flush: VecDeque<LinkId>,
    resume: VecDeque<LinkId>,
    dials: VecDeque<DialIndex>,
    calls: VecDeque<IncomingCall>,
    /// Links whose call waits for room in `calls`.
    held: VecDeque<LinkId>,
    events: VecDeque<Told<M::Event>>,
    /// Who reads which of the own queues.
    readers: BTreeSet<(QueueId, LinkId)>,
    /// Records taken, by leaf.
    fetched: HashMap<NodeId, u64>,
    /// Where incoming streams come from, with manual acknowledgement.
    sources: Vec<(StreamKey, LinkId, StreamIndex)>,
    counters: EngineCounters,
    stopped: Option<Stopped>,
}

impl<M: Machine, S: Store> Engine<M, S> {
    /// An engine at the time `now`; gives the machine its stored state. A record that the machine
    /// does not accept is passed over; the number of those is the second answer.
    pub fn new(
        config: EngineConfig,
        mut machine: M,
        store: S,
        router: Router,
        ways: Ways<M>,
        now: Instant,
    ) -> (Self, u32) {
        let mut refused = 0;
        store.restore(&mut |key, state| {
            refused += u32::from(machine.restore(key, state).is_err());
        });
        let engine = Self {
            machine,
            store,
            router,
            ways,
            config,
            now,
            wall_ms: 0,
            wake: Some(now),
            links: Vec::new(),
            pool: Pool::default(),
            scratch: Vec::new(),
            buf: Box::new([0; CONTROL_FRAME_BYTES_MAX]),
            completions: Vec::new(),
            urgent: false,
            dirty_since: None,
            maintain_at: now,
            flush: VecDeque::new(),
            resume: VecDeque::new(),
            dials: VecDeque::new(),
            calls: VecDeque::new(),
            held: VecDeque::new(),
            events: VecDeque::new(),
            readers: BTreeSet::new(),
            fetched: HashMap::new(),
            sources: Vec::new(),
            counters: EngineCounters::default(),
            stopped: None,
        };
        (engine, refused)
    }

    /// Sets the time of the inputs that follow. A time before the last one is ignored.
    pub fn set_time(&mut self, now: Instant, wall_ms: u64) {
        self.now = self.now.max(now);
        self.wall_ms = wall_ms;
    }

    /// The time that was set last.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The wall clock that was set last, in milliseconds since 1970.
    pub const fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// A link is open. `link` is below the configured number, and not in use.
    ///
    /// # Panics
    /// When it is not.
    pub fn link_up(
        &mut self,
        link: LinkId,
        dialed: Option<DialIndex>,
        transport: Transport,
        identity: Option<NodeId>,
    ) {
        assert!(link.0 < self.config.links_max, "link id out of range");
        if self.links.len() <= link.0 as usize {
            self.links.resize_with(link.0 as usize + 1, Link::default);
        }
        assert!(!self.links[link.0 as usize].up, "link id in use");
        self.links[link.0 as usize].up = true;
        self.feed(Input::LinkUp { link, dialed, transport, identity });
        self.feed(Input::Writable { link, bytes: self.config.link_buffer_bytes });
        self.drain();
    }

    /// An order to dial came to nothing.
    pub fn dial_failed(&mut self, dial: DialIndex) {
        self.feed(Input::DialFailed { dial });
        self.drain();
    }

    /// A link is closed.
    pub fn link_down(&mut self, link: LinkId) {
        let Some(slot) = self.links.get_mut(link.0 as usize) else { return };
        if !slot.up {
            return;
        }
        let reads = std::mem::take(&mut slot.reads);
        slot.clear(&mut self.pool);
        for queue in reads {
            self.readers.remove(&(queue, link));
        }
        self.completions.retain(|completion| match completion {
            Completion::Taken { link: of, .. } | Completion::Refused { link: of, .. } => {
                *of != link
            }
            _ => true,
        });
        self.sources.retain(|(_, of, _)| *of != link);
        self.store.unwatch(link);
        self.feed(Input::LinkDown { link });
        self.drain();
    }

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
                    Err(link::CallTooLong) => {
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
            Ok(()) if self.config.manual_acknowledgement => self.note_source(link, stream, source),
            Ok(()) => self.note_taken(link, stream, source, bytes),
            Err(reason) => {
                self.counters.records_refused += 1;
                self.links[link.0 as usize].refused |= 1 << stream.0;
                self.completions.push(Completion::Refused { link, stream, reason });
            }
        }
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
        self.store.take(self.wall_ms, source, records, body, arrival, &mut self.router)
    }

    fn note_source(&mut self, link: LinkId, stream: StreamIndex, source: StreamKey) {
        match self.sources.iter_mut().find(|(known, ..)| *known == source) {
            Some(entry) => *entry = (source, link, stream),
            None => self.sources.push((source, link, stream)),
        }
    }

    /// With [`EngineConfig::manual_acknowledgement`]: the store's place in an incoming stream has
    /// moved over `bytes` of records. Without a link the next one tells.
    pub fn acknowledge(&mut self, source: &StreamKey, bytes: u32) {
        let known = self.sources.iter().find(|(known, ..)| known == source).copied();
        if let Some((source, link, stream)) = known {
            self.note_taken(link, stream, source, bytes);
        }
    }

    /// The link and the number of an incoming stream, with
    /// [`EngineConfig::manual_acknowledgement`].
    pub fn incoming(&self, source: &StreamKey) -> Option<(LinkId, StreamIndex)> {
        let known = self.sources.iter().find(|(known, ..)| known == source);
        known.map(|(_, link, stream)| (*link, *stream))
    }

    /// One report for all frames of a stream that one commit covers.
    fn note_taken(&mut self, link: LinkId, stream: StreamIndex, source: StreamKey, bytes: u32) {
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

    /// Lets time pass, makes durable what came, and reports it. Answers when the next turn is due
    /// if nothing happens before.
    pub fn turn(&mut self, now: Instant, wall_ms: u64) -> Option<Instant> {
        self.set_time(now, wall_ms);
        if self.stopped.is_some() {
            return None;
        }
        if self.wake.is_some_and(|wake| wake <= self.now) {
            self.feed(Input::Timeout);
            self.drain();
        }
        if self.now >= self.maintain_at {
            self.maintain_at = self.now.plus_millis(u64::from(self.config.maintain_ms));
            if let Err(reason) = self.store.maintain(wall_ms) {
                self.store_failed(reason);
            }
        }
        let lazy = self.dirty_since.is_some_and(|since| self.now >= self.lazy_deadline(since));
        if self.urgent || lazy || !self.completions.is_empty() {
            self.commit();
        }
        if !self.store.dirty() {
            self.dirty_since = None;
        } else if self.dirty_since.is_none() {
            self.dirty_since = Some(self.now);
        }
        let lazy = self.dirty_since.map(|since| self.lazy_deadline(since));
        let now = if self.urgent { Some(self.now) } else { None };
        [self.wake, lazy, now, Some(self.maintain_at)].into_iter().flatten().min()
    }

    fn lazy_deadline(&self, since: Instant) -> Instant {
        since.plus_millis(u64::from(self.config.lazy_commit_ms))
    }

    fn commit(&mut self) {
        self.urgent = false;
        let outcome = if self.store.dirty() {
            self.counters.commits += 1;
            self.store.commit()
        } else {
            Ok(())
        };
        if let Err(reason) = outcome
            && reason != Failure::Full
        {
            self.store_failed(reason);
            return;
        }
        self.counters.commits_failed += u64::from(outcome.is_err());
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(completion, outcome.err());
        }
        if self.completions.is_empty() {
            // Keeps the memory for the next time.
            self.completions = completions;
        }
        while let Some(growth) = self.store.grown() {
            let (link, stream) = (growth.link, growth.stream);
            self.feed(Input::Appended { link, stream, next: growth.next });
        }
        self.drain();
    }

    fn complete(&mut self, completion: Completion, failed: Option<Failure>) {
        match (completion, failed) {
            (Completion::Taken { link, stream, source, bytes }, None) => {
                let (_, next) = self.store.inbound(&source);
                self.feed(Input::Taken { link, stream, next, bytes });
            }
            (Completion::Taken { link, stream, .. }, Some(reason))
            | (Completion::Refused { link, stream, reason }, _) => {
                self.links[link.0 as usize].refused &= !(1 << stream.0);
                self.feed(Input::Refused { link, stream, reason });
            }
            (Completion::Persisted { token }, None) => self.feed(Input::Persisted { token }),
            (Completion::Persisted { token }, Some(reason))
            | (Completion::Failed { token, reason }, _) => {
                self.feed(Input::Failed { token, reason });
            }
        }
    }

    fn store_failed(&mut self, reason: Failure) {
        self.stopped.get_or_insert(Stopped::Store(reason));
    }

    fn feed(&mut self, input: Input<'_>) {
        let taken = self.machine.handle(self.now, input);
        debug_assert_eq!(taken, 0, "only received bytes are taken");
    }

    /// Does everything that the machine asks.
    fn drain(&mut self) {
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
                    Err(reason) => {
                        self.completions.push(Completion::Refused { link, stream, reason });
                    }
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
            Output::Renumber { epoch, token } => self.renumber(epoch, token),
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

    fn send(&mut self, link: LinkId, len: usize) {
        let slot = &mut self.links[link.0 as usize];
        slot.out(&mut self.pool).extend_from_slice(&self.buf[..len]);
        slot.machine_bytes += len as u32;
        self.list(link);
    }

    fn order(&mut self, link: LinkId, order: Order) {
        let slot = &mut self.links[link.0 as usize];
        debug_assert!(slot.order.is_none(), "one order at a time");
        slot.order = Some(order);
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

    fn renumber(&mut self, epoch: replcore::stream::Epoch, token: Token) {
        self.urgent = true;
        let completion = match self.store.renumber(epoch) {
            Ok(()) => Completion::Persisted { token },
            Err(reason) => Completion::Failed { token, reason },
        };
        self.completions.push(completion);
        for index in 0..self.links.len() {
            if self.links[index].up {
                self.links[index].hangup = true;
                self.list(LinkId(index as u32));
            }
        }
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
            Query::Subscribe { queue, .. } => {
                let subscribed = self.subscribe(len);
                let free = !self.is_read(queue);
                if subscribed == Some(queue) && free { Answer::Subscribed } else { Answer::Denied }
            }
        }
    }

    fn make_queue(&mut self, len: usize) -> Option<()> {
        let text = std::str::from_utf8(&self.buf[..len]).ok()?;
        let name = Name::new(text).ok()?;
        let upstream = self.router.is_upstream(name.queue_id().0);
        let kind = if upstream { QueueKind::Upstream } else { QueueKind::Leaf };
        self.store.ensure_queue(&name, kind).ok().map(|_| ())
    }

    fn subscribe(&mut self, len: usize) -> Option<QueueId> {
        let wanted: Subscribe<'_> = postcard::from_bytes(&self.buf[..len]).ok()?;
        let consumer = Consumer {
            name: wanted.consumer.to_owned(),
            message_type: wanted.message_type.to_owned(),
        };
        let from_start = wanted.from_start;
        self.create_consumer(&consumer, from_start).ok()
    }

    /// Makes a consumer, or leaves it as it is.
    ///
    /// # Errors
    /// The table is full; nothing has changed.
    pub fn create_consumer(
        &mut self,
        consumer: &Consumer,
        from_start: bool,
    ) -> Result<QueueId, PostError> {
        let consumers = self.store.consumers();
        let known = consumers.iter().any(|known| known.name == consumer.name);
        if !known && consumers.len() >= self.config.consumers_max as usize {
            return Err(PostError::QueuesFull(self.config.consumers_max));
        }
        self.urgent = true;
        self.store.create_consumer(self.wall_ms, consumer, from_start)
    }

    /// Records taken from a leaf since the start.
    pub fn fetched(&self, leaf: NodeId) -> u64 {
        self.fetched.get(&leaf).copied().unwrap_or(0)
    }

    /// The queues that links read.
    pub fn read_queues(&self) -> impl Iterator<Item = QueueId> {
        self.readers.iter().map(|(queue, _)| *queue)
    }

    /// Whether a link reads a queue.
    pub fn is_read(&self, queue: QueueId) -> bool {
        let links = (queue, LinkId(0))..=(queue, LinkId(u32::MAX));
        self.readers.range(links).next().is_some()
    }

    /// Stores a message; see [`Store::post`]. It is acknowledged by the next turn without error.
    ///
    /// # Errors
    /// As [`Store::post`].
    pub fn post(&mut self, record: &mut [u8]) -> Result<Posted, PostError> {
        self.urgent = true;
        self.store.post(self.wall_ms, record, &mut self.router)
    }

    /// The next turn commits, whatever has changed.
    pub fn commit_soon(&mut self) {
        self.urgent = true;
    }

    fn list(&mut self, link: LinkId) {
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

    /// A link whose bytes are to be offered again, even if nothing has arrived.
    pub fn next_resume(&mut self) -> Option<LinkId> {
        self.resume.pop_front()
    }

    /// A place to dial; then [`Engine::link_up`] or [`Engine::dial_failed`].
    pub fn next_dial(&mut self) -> Option<DialIndex> {
        self.dials.pop_front()
    }

    /// A call or reply that has arrived.
    pub fn next_call(&mut self) -> Option<IncomingCall> {
        let call = self.calls.pop_front()?;
        if let Some(link) = self.held.pop_front() {
            self.resume.push_back(link);
        }
        Some(call)
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

    /// Something that the machine told.
    pub fn next_event(&mut self) -> Option<Told<M::Event>> {
        self.events.pop_front()
    }

    /// Gives the machine a command at the present time, and does what it asks then.
    pub fn command<R>(&mut self, command: impl FnOnce(&mut M, Instant) -> R) -> R {
        let result = command(&mut self.machine, self.now);
        self.drain();
        result
    }

    /// The machine, for its getters.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The store. What needs [`Engine::commit_soon`] must say so.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The router.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// The router.
    pub const fn router_mut(&mut self) -> &mut Router {
        &mut self.router
    }

    /// What has been counted.
    pub const fn counters(&self) -> EngineCounters {
        self.counters
    }

    /// Why the engine does nothing more, when it does not.
    pub const fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// The store, after a crash of everything else.
    pub fn into_store(self) -> S {
        self.store
    }
}

/// Compresses into `scratch`; `None` when that saves too little to be worth it.
fn compress<'a>(raw: &[u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    const RAW_BYTES_MIN: usize = 256;
    if raw.len() < RAW_BYTES_MIN {
        return None;
    }
    scratch.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    let length = lz4_flex::block::compress_into(raw, scratch).ok()?;
    (length < raw.len() - raw.len() / 8).then(|| &scratch[..length])
}

fn decompress(
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
