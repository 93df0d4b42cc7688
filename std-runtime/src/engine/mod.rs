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
//! Nothing is acknowledged before [`Engine::turn`] has committed, and one commit serves all links. At
//! a hub with standbys nothing is acknowledged, dispatched or shown before [`Engine::replicated`]
//! says that they have it; commits go on meanwhile.
//! The engine reads no clock and opens no file but through its store, so that a simulator drives
//! it as it is. Same machine, store and calls: same results.

mod intake;
mod link;
mod orders;
mod router;
mod sending;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

use replcore::contract::{
    Answer, DialIndex, Failure, Input, Key, LinkId, Machine, StreamIndex, Token, Transport,
};
use replcore::stream::{NodeId, QueueId, StreamKey};
use replcore::time::Instant;
use replcore::wire::{CONTROL_FRAME_BYTES_MAX, Role};

pub(crate) use self::intake::REFUSAL_ID;
pub use self::link::{CALL_PART_BYTES_MAX, IncomingCall};
use self::link::{Link, Pool};
pub use self::router::{RULES_MAX, Router, TARGETS_MAX, check_rules};
use crate::options::Compression;
use crate::store::{Consumer, PostError, Posted, Store};

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
    /// What the machine wants persisted is not for the store but for the caller, who may take longer
    /// than a turn: see [`Engine::next_persist`].
    pub persist_outside: bool,
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
            persist_outside: false,
        }
    }
}

/// State of the machine that the caller keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Replace what is kept under the key; then [`Engine::persisted`].
    Keep {
        /// The key.
        key: Key,
        /// For the answer.
        token: Token,
        /// Bytes.
        record: Vec<u8>,
    },
    /// Remove what is kept under the key. No answer.
    Forget {
        /// The key.
        key: Key,
    },
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
    /// Records of programs that no schema admits.
    pub records_not_admitted: u64,
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
    Taken {
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        bytes: u32,
    },
    Refused {
        link: LinkId,
        stream: StreamIndex,
        reason: Failure,
    },
    Persisted {
        token: Token,
    },
    Failed {
        token: Token,
        reason: Failure,
    },
    /// How far this stream was taken, once all of it that is under way is safe.
    Inbound {
        token: Token,
        source: StreamKey,
    },
}

impl Completion {
    /// The link that it is for; a report for one that is down is void.
    const fn link(&self) -> Option<LinkId> {
        match self {
            Self::Taken { link, .. } | Self::Refused { link, .. } => Some(*link),
            Self::Persisted { .. } | Self::Failed { .. } | Self::Inbound { .. } => None,
        }
    }
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
    /// Completions whose commit is not replicated yet: its number, and why it failed.
    waiting: VecDeque<(u64, Completion, Option<Failure>)>,
    /// Commits up to this number are held by as many standbys as must hold them.
    replicated: u64,
    /// Somebody waits for the next commit.
    urgent: bool,
    dirty_since: Option<Instant>,
    maintain_at: Instant,
    flush: VecDeque<LinkId>,
    resume: VecDeque<LinkId>,
    dials: VecDeque<DialIndex>,
    persists: VecDeque<Persist>,
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
            waiting: VecDeque::new(),
            replicated: 0,
            urgent: false,
            dirty_since: None,
            maintain_at: now,
            flush: VecDeque::new(),
            resume: VecDeque::new(),
            dials: VecDeque::new(),
            persists: VecDeque::new(),
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

    /// Ends the engine as a crash would, and gives back what it was made of.
    pub fn into_parts(self) -> (M, S) {
        (self.machine, self.store)
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
        self.links[link.0 as usize].authenticated = identity.is_some();
        self.feed(Input::LinkUp { link, dialed, transport, identity });
        self.feed(Input::Writable { link, bytes: self.config.link_buffer_bytes });
        self.drain();
    }

    /// An order to dial came to nothing.
    pub fn dial_failed(&mut self, dial: DialIndex) {
        self.feed(Input::DialFailed { dial });
        self.drain();
    }

    /// Whether the other end of a link has proved, by a certificate, to be who it says it is.
    pub fn is_authenticated(&self, link: LinkId) -> bool {
        self.links.get(link.0 as usize).is_some_and(|slot| slot.up && slot.authenticated)
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
        self.completions.retain(|completion| completion.link() != Some(link));
        self.waiting.retain(|(_, completion, _)| completion.link() != Some(link));
        self.sources.retain(|(_, of, _)| *of != link);
        self.store.unwatch(link);
        self.feed(Input::LinkDown { link });
        self.drain();
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
        let number = self.store.committed_number();
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            if number == 0 {
                self.complete(completion, outcome.err());
            } else {
                // What failed waits too: reports of a stream come in order.
                self.waiting.push_back((number, completion, outcome.err()));
            }
        }
        if self.completions.is_empty() {
            // Keeps the memory for the next time.
            self.completions = completions;
        }
        self.report();
    }

    /// Commits up to `number` are held by as many standbys as must hold them. What waited for that
    /// is reported and dispatched; take a turn afterwards.
    pub fn replicated(&mut self, number: u64) {
        if number > self.replicated && self.stopped.is_none() {
            // What is not shown yet is not reported either: the reports say what is seen.
            self.replicated = self.replicated.max(self.store.show_through(number));
            self.report();
        }
    }

    /// Whether everything up to the commit of this number may be answered for.
    pub const fn is_replicated(&self, number: u64) -> bool {
        number <= self.replicated
    }

    /// Tells the machine what is safe now.
    fn report(&mut self) {
        while let Some((number, completion, failed)) = self.waiting.front().copied() {
            if !self.is_replicated(number) {
                break;
            }
            self.waiting.pop_front();
            self.complete(completion, failed);
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
            (Completion::Inbound { token, source }, _) => {
                let (epoch, cursor) = self.store.inbound(&source);
                self.feed(Input::Answer { token, answer: Answer::Inbound { epoch, cursor } });
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

    /// A link whose bytes are to be offered again, even if nothing has arrived.
    pub fn next_resume(&mut self) -> Option<LinkId> {
        self.resume.pop_front()
    }

    /// A place to dial; then [`Engine::link_up`] or [`Engine::dial_failed`].
    pub fn next_dial(&mut self) -> Option<DialIndex> {
        self.dials.pop_front()
    }

    /// State that the caller is to keep, with [`EngineConfig::persist_outside`]. In order.
    pub fn next_persist(&mut self) -> Option<Persist> {
        self.persists.pop_front()
    }

    /// What [`Engine::next_persist`] asked for is safe, or is not.
    pub fn persisted(&mut self, token: Token, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.feed(Input::Persisted { token }),
            Err(reason) => self.feed(Input::Failed { token, reason }),
        }
        self.drain();
    }

    /// A call or reply that has arrived.
    pub fn next_call(&mut self) -> Option<IncomingCall> {
        let call = self.calls.pop_front()?;
        if let Some(link) = self.held.pop_front() {
            self.resume.push_back(link);
        }
        Some(call)
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
