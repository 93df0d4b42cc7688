//! A store in memory, simple enough to be the reference: a journal, a state that is its fold, and
//! a mark how much of it is on the medium.

mod keeper;
mod state;

use std::collections::BTreeMap;

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::log::crc32c;
use replcore::log::record::{EntryError, Record, entry_length, stamp};
use replcore::rng::Rng;
use replcore::stream::{
    Cursor, Epoch, Name, NodeId, Position, QueueId, QueueKey, RecordId, Seq, StreamKey,
};
use replcore::time::HybridClock;
use replcore::wire::Records;
use replcore_runtime::store::{
    Arrival, Batch, Fill, Growth, Holding, Identity, LimitPolicy, PostError, Posted, QueueKind,
    Route,
};

pub use keeper::Keeper;
pub use state::{Class, Limit, Op, Queue, State, known_key};

/// Longest record that a model store takes.
pub const RECORD_BYTES_MAX: u32 = 1 << 20;

/// Ways to break a store on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreBugs {
    /// What was committed since the last few commits is lost in a crash all the same.
    pub commit_forgets: bool,
    /// Records that are known by identity are stored again.
    pub no_dedupe: bool,
    /// A queue hands out each entry in the wrong order now and then.
    pub swaps: bool,
    /// No start begins a new life, and after a crash numbers are given again.
    pub reuses_numbers: bool,
    /// One byte of a body changes on its way out, with a checksum made anew.
    pub rewrites_bodies: bool,
}

/// The part of a store that survives the end of its process.
#[derive(Clone, Debug)]
pub struct Medium {
    identity: Identity,
    journal: Vec<Op>,
    committed: usize,
    /// Where each commit ended, for crashes that lose some and for older copies.
    commits: Vec<usize>,
    /// Starts so far. What stands for chance in epochs is not set back with a copy.
    starts: u64,
}

impl Medium {
    /// The medium of a new node. The name and `seed` decide instance and epoch.
    pub const fn new(name: Name, seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ name.node_id().0);
        let instance = rng.next_u64();
        let epoch = Epoch::first(rng.next_u64());
        let identity = Identity { name, instance, epoch };
        Self { identity, journal: Vec::new(), committed: 0, commits: Vec::new(), starts: 0 }
    }

    /// Ends the process. What was not committed is lost, or kept up to some point.
    pub fn crash(&mut self, rng: &mut Rng, bugs: StoreBugs) {
        let mut safe = self.committed;
        if bugs.commit_forgets {
            self.commits.truncate(self.commits.len().saturating_sub(2));
            safe = self.commits.last().copied().unwrap_or(0);
        }
        let kept = match rng.between(0, 2) {
            0 => rng.between(safe as u64, self.journal.len() as u64) as usize,
            _ => safe,
        };
        self.journal.truncate(kept);
        self.committed = kept;
    }

    /// Puts back a copy made at `commits` commits ago, at most at the beginning.
    pub fn set_back(&mut self, commits: usize) {
        self.commits.truncate(self.commits.len().saturating_sub(commits));
        self.committed = self.commits.last().copied().unwrap_or(0);
        self.journal.truncate(self.committed);
    }

    /// How many commits were made.
    pub fn commits(&self) -> usize {
        self.commits.len()
    }
}

/// A record of a stream that has not come whole yet.
#[derive(Clone, Debug)]
struct Partial {
    position: Position,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    queue: QueueKey,
    told: u64,
}

/// The store.
#[derive(Debug)]
pub struct ModelStore {
    medium: Medium,
    state: State,
    clock: HybridClock,
    partials: BTreeMap<(NodeId, QueueKey), (Epoch, Partial)>,
    /// How far incoming streams were taken, of what is on the medium.
    durable_inbound: BTreeMap<(NodeId, QueueKey), (Epoch, u64)>,
    watches: BTreeMap<(LinkId, StreamIndex), Watch>,
    limit: Option<Limit>,
    /// The disk is full: nothing that grows is taken.
    pub full: bool,
    /// The ways in which it is broken.
    pub bugs: StoreBugs,
    fills: u64,
}

impl ModelStore {
    /// Opens what is on the medium.
    pub fn open(mut medium: Medium, limit: Option<Limit>, bugs: StoreBugs) -> Self {
        let mut state = State::new(medium.identity);
        for op in &medium.journal {
            state.apply(op);
        }
        state.committed();
        if bugs.reuses_numbers {
            for seq in &mut state.seq {
                *seq = seq.saturating_sub(1);
            }
        } else if medium.starts > 0 {
            let random = Rng::new(medium.identity.instance ^ medium.starts).next_u64();
            let life = Op::Life { epoch: state.identity.epoch.next(random) };
            state.apply(&life);
            medium.journal.push(life);
            medium.committed = medium.journal.len();
            medium.commits.push(medium.committed);
        }
        medium.starts += 1;
        Self {
            durable_inbound: state.inbound.clone(),
            medium,
            state,
            clock: HybridClock::new(),
            partials: BTreeMap::new(),
            watches: BTreeMap::new(),
            limit,
            full: false,
            bugs,
            fills: 0,
        }
    }

    /// Gives the medium back, at the end of the process.
    pub fn into_medium(self) -> Medium {
        self.medium
    }

    /// What it holds.
    pub const fn state(&self) -> &State {
        &self.state
    }

    fn apply(&mut self, op: Op) {
        self.state.apply(&op);
        self.medium.journal.push(op);
    }

    /// Makes room under the queues' limit, or says which queue refuses.
    fn make_room(&mut self, targets: &[Name]) -> Result<(), PostError> {
        let Some(limit) = self.limit else { return Ok(()) };
        let over = |state: &State, name: &Name| {
            let queue = state.queues.get(&name.queue_id());
            queue.is_some_and(|queue| State::depth(queue) >= limit.messages_max)
        };
        for name in targets {
            if !over(&self.state, name) {
                continue;
            }
            if limit.policy == LimitPolicy::Refuse {
                return Err(PostError::QueueFull(*name));
            }
            let queue = &self.state.queues[&name.queue_id()];
            let oldest = queue
                .classes
                .iter()
                .enumerate()
                .filter_map(|(class, held)| Some((held.entries.first_key_value()?, class)))
                .min_by_key(|((_, place), _)| **place);
            if let Some(((position, _), class)) = oldest {
                let queue = QueueKey { queue: name.queue_id(), class: class as u8 };
                let through = Position(position + 1);
                self.apply(Op::Release { queue, through, dropped: true });
            }
        }
        Ok(())
    }

    fn stamp_here(&mut self, wall_ms: u64, bytes: &mut [u8]) -> RecordId {
        let class = bytes[9];
        let id = RecordId {
            origin: self.state.identity.name.node_id(),
            epoch: self.state.identity.epoch,
            class,
            seq: Seq(self.state.seq[usize::from(class)] + 1),
        };
        stamp(bytes, id, self.clock.stamp(wall_ms), crc32c);
        id
    }

    fn targets(route: &mut dyn Route, bytes: &[u8], arrival: Arrival) -> Vec<Name> {
        let record = Record::parse(bytes).expect("it was checked");
        let mut targets = Vec::new();
        route.route(&record, arrival, &mut targets);
        targets.sort();
        targets.dedup();
        targets
    }

    /// Stores one checked record of an incoming stream.
    fn take_one(
        &mut self,
        wall_ms: u64,
        mut bytes: Vec<u8>,
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        let id = Record::parse(&bytes).map_err(|_| Failure::Corrupt)?.id();
        if id.origin == NodeId::NONE {
            self.stamp_here(wall_ms, &mut bytes);
        } else if self.state.known.contains(&known_key(&id)) {
            if !self.bugs.no_dedupe {
                return Ok(());
            }
            self.state.known.remove(&known_key(&id));
        }
        let targets = Self::targets(route, &bytes, arrival);
        self.make_room(&targets).map_err(|_| Failure::Full)?;
        self.apply(Op::Record { bytes, targets });
        Ok(())
    }

    fn taken(&self, source: &StreamKey) -> Result<u64, Failure> {
        match self.state.inbound.get(&(source.owner, source.queue)) {
            Some((epoch, position)) if *epoch == source.epoch => Ok(*position),
            Some(_) => Err(Failure::Corrupt),
            None => Ok(0),
        }
    }
}

/// Splits `bytes` into whole records and a rest, all records checked.
fn split(bytes: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Failure> {
    let mut whole = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        match entry_length(rest, RECORD_BYTES_MAX) {
            Ok(length) => {
                let (record, later) = rest.split_at(length);
                Record::check(record, crc32c).map_err(|_| Failure::Corrupt)?;
                whole.push(record);
                rest = later;
            }
            Err(EntryError::Incomplete(_)) => break,
            Err(_) => return Err(Failure::Corrupt),
        }
    }
    Ok((whole, rest))
}

impl Keeper for ModelStore {
    fn identity(&self) -> Identity {
        self.state.identity
    }

    fn restore(&self, each: &mut dyn FnMut(Key, &[u8])) {
        for (key, state) in &self.state.keyed {
            each(*key, state);
        }
    }

    fn post(
        &mut self,
        wall_ms: u64,
        bytes: &mut [u8],
        route: &mut dyn Route,
    ) -> Result<Posted, PostError> {
        let record = Record::parse(bytes).expect("the caller encoded it");
        if !record.idempotency_key().is_empty()
            && let Some(id) = self.state.posted.get(record.idempotency_key())
        {
            return Ok(Posted { id: *id, duplicate: true });
        }
        if self.full {
            return Err(PostError::DiskFull);
        }
        let targets = Self::targets(route, bytes, Arrival::Local);
        self.make_room(&targets)?;
        let id = self.stamp_here(wall_ms, bytes);
        self.apply(Op::Record { bytes: bytes.to_vec(), targets });
        Ok(Posted { id, duplicate: false })
    }

    fn take(
        &mut self,
        wall_ms: u64,
        source: &StreamKey,
        records: &Records,
        bytes: &[u8],
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        if self.full {
            return Err(Failure::Full);
        }
        let key = (source.owner, source.queue);
        let mut all = Vec::new();
        if records.first.offset > 0 {
            match self.partials.get(&key) {
                Some((epoch, partial))
                    if *epoch == source.epoch
                        && partial.position == records.first.position
                        && partial.bytes.len() == records.first.offset as usize =>
                {
                    all.extend_from_slice(&partial.bytes);
                }
                _ => return Err(Failure::Corrupt),
            }
        }
        all.extend_from_slice(bytes);
        // What does not check takes the part in memory with it: the fault may be in that.
        let partial = self.partials.remove(&key);
        let (whole, rest) = split(&all)?;
        let next = records.next();
        if whole.len() != records.completed as usize || rest.len() != next.offset as usize {
            return Err(Failure::Corrupt);
        }
        let place = self.taken(source)?;
        if records.first.position.0 > place {
            return Err(Failure::Corrupt);
        }
        let whole: Vec<Vec<u8>> = whole.into_iter().map(<[u8]>::to_vec).collect();
        let rest = rest.to_vec();
        for (position, record) in (records.first.position.0..).zip(whole) {
            // What came before in this stream, on an earlier link perhaps, is not taken again.
            if position >= place || self.bugs.no_dedupe {
                let taken = self.take_one(wall_ms, record, arrival, route);
                if let Err(failure) = taken {
                    // The records before it stay: they are whole, and known when they come again.
                    let next = Position(position);
                    self.apply(Op::Inbound { source: *source, next });
                    if let Some(partial) = partial {
                        self.partials.insert(key, partial);
                    }
                    return Err(failure);
                }
            }
        }
        self.apply(Op::Inbound { source: *source, next: next.position });
        if rest.is_empty() {
            self.partials.remove(&key);
        } else {
            let partial = Partial { position: next.position, bytes: rest };
            self.partials.insert(key, (source.epoch, partial));
        }
        Ok(())
    }

    fn take_skip(
        &mut self,
        source: &StreamKey,
        _first: Position,
        next: Position,
        _reason: SkipReason,
    ) -> Result<(), Failure> {
        self.apply(Op::Inbound { source: *source, next });
        self.partials.remove(&(source.owner, source.queue));
        Ok(())
    }

    fn place(&mut self, source: &StreamKey, position: Position) -> Result<(), Failure> {
        if self.full {
            return Err(Failure::Full);
        }
        self.apply(Op::Place { source: *source, position });
        self.partials.remove(&(source.owner, source.queue));
        Ok(())
    }

    fn inbound(&mut self, source: &StreamKey) -> (Epoch, Cursor) {
        let key = (source.owner, source.queue);
        // Only what is on the medium counts.
        let Some((epoch, position)) = self.durable_inbound.get(&key).copied() else {
            return (source.epoch, Cursor::default());
        };
        let mut cursor = Cursor::at(Position(position));
        match self.partials.get(&key) {
            Some((of, partial)) if *of == epoch && partial.position.0 == position => {
                cursor.offset = partial.bytes.len() as u32;
            }
            _ => {}
        }
        (epoch, cursor)
    }

    fn ensure_queue(&mut self, name: &Name, kind: QueueKind) -> Result<QueueId, PostError> {
        if !self.state.queues.contains_key(&name.queue_id()) {
            self.apply(Op::Queue { name: *name, kind });
        }
        Ok(name.queue_id())
    }

    fn watch(&mut self, queue: QueueKey, link: LinkId, stream: StreamIndex) -> Option<Holding> {
        let class = self.state.class(queue)?;
        let holding = Holding {
            released: Position(class.released),
            next: Position(class.committed),
            sent: Position(class.sent.max(class.released)),
        };
        self.watches.insert((link, stream), Watch { queue, told: class.committed });
        Some(holding)
    }

    fn unwatch(&mut self, link: LinkId) {
        self.watches.retain(|(of, _), _| *of != link);
    }

    fn grown(&mut self) -> Option<Growth> {
        for ((link, stream), watch) in &mut self.watches {
            let next = self.state.class(watch.queue).map_or(0, |class| class.committed);
            if next > watch.told {
                watch.told = next;
                return Some(Growth { link: *link, stream: *stream, next: Position(next) });
            }
        }
        None
    }

    fn fill(
        &mut self,
        _wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure> {
        self.fills += 1;
        let Some(class) = self.state.class(queue) else { return Ok(Fill::Empty) };
        let Some((held, _)) = class.entries.range(first.position.0..class.committed).next() else {
            return Ok(if first.position.0 < class.committed.min(class.released) {
                let next = Position(class.committed.min(class.released));
                Fill::Gone { next, reason: State::gone_reason(class, first.position.0) }
            } else {
                Fill::Empty
            });
        };
        if *held > first.position.0 {
            let reason = State::gone_reason(class, first.position.0);
            return Ok(Fill::Gone { next: Position(*held), reason });
        }
        let mut records = Records { first, ..Records::default() };
        let start = out.len();
        let mut room = bytes_max as usize;
        let mut offset = first.offset as usize;
        for (at, place) in class.entries.range(first.position.0..class.committed) {
            if *at != first.position.0 + u64::from(records.completed) {
                break;
            }
            let swapped = self.bugs.swaps && self.fills.is_multiple_of(7) && offset == 0;
            let place = if swapped { class.entries.get(&(at ^ 1)).unwrap_or(place) } else { place };
            let bytes = &self.state.records[*place][offset..];
            if bytes.len() > room {
                if records.completed == 0 {
                    out.extend_from_slice(&bytes[..room]);
                    records.tail_bytes = room as u32;
                }
                break;
            }
            out.extend_from_slice(bytes);
            if self.bugs.rewrites_bodies && offset == 0 && self.fills.is_multiple_of(5) {
                let from = out.len() - bytes.len();
                let last = out.len() - 1;
                out[last] ^= 1;
                let crc = crc32c(&out[from + 4..]);
                out[from..from + 4].copy_from_slice(&crc.to_le_bytes());
            }
            room -= bytes.len();
            records.completed += 1;
            offset = 0;
        }
        let given = first.position.0 + u64::from(records.completed);
        if let Some(class) = self.state.class_mut(queue) {
            class.sent = class.sent.max(given);
        }
        Ok(Fill::Batch(Batch { records, bytes: (out.len() - start) as u32 }))
    }

    fn release(&mut self, queue: QueueKey, through: Position) {
        self.apply(Op::Release { queue, through, dropped: false });
    }

    fn dead_letter(&mut self, _queue: QueueKey, _position: Position) -> Result<(), Failure> {
        // The model has no consumers.
        Err(Failure::Io)
    }

    fn persist(&mut self, key: Key, state: &[u8]) -> Result<(), Failure> {
        if self.full {
            return Err(Failure::Full);
        }
        self.apply(Op::Persist { key, state: state.to_vec() });
        Ok(())
    }

    fn forget(&mut self, key: Key) {
        self.apply(Op::Forget { key });
    }

    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position {
        self.state.place_reader(queue, epoch, position)
    }

    fn held(&mut self) -> Vec<RecordId> {
        let id = |bytes: &Vec<u8>| Record::parse(bytes).expect("it was stored whole").id();
        self.state.records.iter().map(id).collect()
    }

    fn dirty(&self) -> bool {
        self.medium.committed < self.medium.journal.len()
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.medium.committed = self.medium.journal.len();
        self.medium.commits.push(self.medium.committed);
        self.state.committed();
        self.durable_inbound.clone_from(&self.state.inbound);
        Ok(())
    }
}
