//! From bytes to stored records: check, tell new from known, route, and only then store.

use replcore::contract::Failure;
use replcore::log::record::{self, EntryError, Record};
use replcore::stream::{Epoch, Name, NodeId, Ranges, RecordId, Seq};
use replcore::time::Stamp;

use super::disk::Disk;
use super::embedded::{Origin, SegmentStore};
use super::keyed::{Current, KnownPost, latest_key};
use super::log::BATCH_RECORDS_MAX;
use super::{Arrival, LimitPolicy, PostError, QueueKind, Route};

/// Records that lie together, are new, of one class and go to the same queues.
#[derive(Clone, Copy, Debug)]
struct PlannedRun {
    start: u32,
    end: u32,
    first: u32,
    count: u32,
    class: u8,
    slots: (u32, u32),
}

/// What is to be done with the records of one call. Kept to save allocations.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Where each new record starts.
    starts: Vec<u32>,
    runs: Vec<PlannedRun>,
    slots: Vec<u32>,
    record_slots: Vec<u32>,
    targets: Vec<Name>,
    last_targets: Vec<Name>,
    target_slots: Vec<u32>,
    known: u64,
    closed_gaps: u64,
    /// Indexes into `starts` of records that have a key.
    keyed: Vec<u32>,
    /// Idempotency keys noted, to be taken back on failure.
    keys: Vec<Vec<u8>>,
    /// Sets of numbers as they were before, to be put back on failure.
    before: Vec<((NodeId, Epoch, u8), Option<Ranges<64>>)>,
    pub posted: Option<KnownPost>,
}

impl Plan {
    fn clear(&mut self) {
        self.starts.clear();
        self.runs.clear();
        self.slots.clear();
        self.last_targets.clear();
        self.target_slots.clear();
        self.known = 0;
        self.closed_gaps = 0;
        self.keyed.clear();
        self.keys.clear();
        self.before.clear();
        self.posted = None;
    }

    fn add(&mut self, start: usize, end: usize, class: u8) {
        let (start, end) = (start as u32, end as u32);
        let first = self.starts.len() as u32;
        self.starts.push(start);
        if let Some(last) = self.runs.last_mut()
            && last.end == start
            && last.class == class
            && self.slots[last.slots.0 as usize..last.slots.1 as usize] == self.record_slots[..]
        {
            last.end = end;
            last.count += 1;
            return;
        }
        let from = self.slots.len() as u32;
        self.slots.extend_from_slice(&self.record_slots);
        let slots = (from, self.slots.len() as u32);
        self.runs.push(PlannedRun { start, end, first, count: 1, class, slots });
    }
}

/// Whether a type matches a filter: equal, or with the same beginning when that ends in `*`.
pub(super) fn matches(filter: &str, message_type: &str) -> bool {
    match filter.strip_suffix('*') {
        Some(beginning) => message_type.starts_with(beginning),
        None => filter.is_empty() || filter == message_type,
    }
}

impl<D: Disk> SegmentStore<D> {
    /// Plans the records at the start of `bytes`, `count` of them, and answers where they end. On
    /// error nothing has changed.
    pub(super) fn plan_records(
        &mut self,
        bytes: &[u8],
        count: u32,
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<usize, Failure> {
        let mut plan = std::mem::take(&mut self.plan);
        plan.clear();
        let planned = check_all(bytes, count, arrival, self)
            .and_then(|end| self.plan_checked(&mut plan, bytes, end, arrival, route).map(|()| end));
        self.clear_planned(&plan);
        if planned.is_err() {
            self.undo(&mut plan);
        }
        self.plan = plan;
        planned
    }

    fn clear_planned(&mut self, plan: &Plan) {
        for slot in &plan.slots {
            if let Some(queue) = self.queues.get_mut(*slot) {
                queue.planned = (0, 0);
            }
        }
    }

    /// Takes back what planning has remembered, for records that are not stored after all.
    pub(super) fn undo_plan(&mut self) {
        let mut plan = std::mem::take(&mut self.plan);
        self.undo(&mut plan);
        self.plan = plan;
    }

    fn undo(&mut self, plan: &mut Plan) {
        for key in plan.keys.drain(..) {
            self.keyed.remove_post(&key);
        }
        for (key, ranges) in plan.before.drain(..) {
            match (ranges, self.origins.get_mut(&key)) {
                (Some(ranges), Some(origin)) => origin.ranges = ranges,
                _ => {
                    self.origins.remove(&key);
                }
            }
        }
    }

    fn plan_checked(
        &mut self,
        plan: &mut Plan,
        bytes: &[u8],
        end: usize,
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        let mut at = 0;
        let mut seqs = self.own_seqs;
        let choosy = arrival == Arrival::Local && route.is_choosy();
        while at < end {
            let length = super::segment::length_at(bytes, at);
            let next = at + length;
            let record = Record::parse(&bytes[at..next]).map_err(|_| Failure::Corrupt)?;
            let id = record.id();
            if choosy && !route.admit(&record) {
                at = next;
                continue;
            }
            let new = match arrival {
                Arrival::Local => self.plan_post(plan, &record, &mut seqs)?,
                _ => self.plan_arrival(plan, &record),
            };
            if !new {
                plan.known += 1;
                at = next;
                continue;
            }
            self.plan_targets(plan, &record, arrival, route)?;
            for slot in &plan.record_slots {
                let Some(queue) = self.queues.get_mut(*slot) else { continue };
                if queue.limits.policy != LimitPolicy::Refuse {
                    continue;
                }
                queue.planned.0 += 1;
                queue.planned.1 += length as u64;
                let (messages, size) = queue.planned;
                if queue.refuses(messages, size) {
                    self.counters.refused += 1;
                    self.last_refusing = Some(queue.name);
                    plan.slots.extend_from_slice(&plan.record_slots);
                    return Err(Failure::Full);
                }
            }
            if !record.key().is_empty() {
                plan.keyed.push(plan.starts.len() as u32);
            }
            plan.add(at, next, id.class);
            at = next;
        }
        if plan.starts.len() > BATCH_RECORDS_MAX as usize {
            return Err(Failure::Corrupt);
        }
        Ok(())
    }

    /// Whether a post is new under its idempotency key, which is noted then.
    fn plan_post(
        &mut self,
        plan: &mut Plan,
        record: &Record<'_>,
        seqs: &mut [u64; 4],
    ) -> Result<bool, Failure> {
        let class = record.id().class;
        let key = record.idempotency_key();
        let seq = &mut seqs[usize::from(class)];
        if !key.is_empty() {
            if self.keyed.is_stuck() {
                return Err(Failure::Full);
            }
            let known = self.keyed.post(key, self.wall_ms).map_err(|_| Failure::Io)?;
            if known.is_some() {
                self.counters.posts_known += 1;
                plan.posted = known;
                return Ok(false);
            }
            let identity = &self.log.identity;
            let id = RecordId {
                origin: identity.name.node_id(),
                epoch: identity.epoch,
                class,
                seq: Seq(*seq),
            };
            self.keyed.add_post(key, KnownPost { id, at_ms: self.wall_ms });
            plan.keys.push(key.to_vec());
        }
        *seq += 1;
        Ok(true)
    }

    /// Whether a record of another node is new, which is noted then.
    fn plan_arrival(&mut self, plan: &mut Plan, record: &Record<'_>) -> bool {
        let id = record.id();
        let identity = &self.log.identity;
        if id.origin == identity.name.node_id() && id.epoch == identity.epoch {
            let own = &mut self.own_seqs[usize::from(id.class)];
            if id.seq.0 < *own {
                return false;
            }
            // A record of this node that its log has lost: its number is taken.
            *own = id.seq.0.saturating_add(1);
        }
        if !self.clock.observe(self.wall_ms, record.time()) {
            self.counters.stamps_ahead += 1;
        }
        let key = (id.origin, id.epoch, id.class);
        if plan.before.last().is_none_or(|before| before.0 != key)
            && !plan.before.iter().any(|before| before.0 == key)
        {
            let ranges = self.origins.get(&key).map(|origin| origin.ranges);
            plan.before.push((key, ranges));
        }
        match self.origin(key).ranges.insert(id.seq.0) {
            replcore::stream::Insert::New => true,
            replcore::stream::Insert::Known => false,
            replcore::stream::Insert::NewClosing { closed } => {
                plan.closed_gaps += closed;
                true
            }
        }
    }

    /// What is known of an origin. At the limit the one not heard of for longest makes room.
    pub(super) fn origin(&mut self, key: (NodeId, Epoch, u8)) -> &mut Origin {
        let full = self.origins.len() >= self.config.origins_max as usize;
        if full && !self.origins.contains_key(&key) {
            let oldest = self.origins.iter().min_by_key(|origin| origin.1.used_at);
            if let Some(oldest) = oldest.map(|origin| *origin.0) {
                self.origins.remove(&oldest);
                self.counters.origins_forgotten += 1;
            }
        }
        self.uses += 1;
        let used_at = self.uses;
        let origin =
            self.origins.entry(key).or_insert_with(|| Origin { ranges: Ranges::new(), used_at });
        origin.used_at = used_at;
        origin
    }

    /// Finds the queues of a record into `plan.record_slots`.
    fn plan_targets(
        &mut self,
        plan: &mut Plan,
        record: &Record<'_>,
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        plan.targets.clear();
        route.route(record, arrival, &mut plan.targets);
        if plan.targets != plan.last_targets {
            plan.target_slots.clear();
            for name in &plan.targets {
                match self.ensure(name, QueueKind::Leaf) {
                    Ok(slot) => {
                        if !plan.target_slots.contains(&slot) {
                            plan.target_slots.push(slot);
                        }
                    }
                    Err(PostError::DiskFull) => return Err(Failure::Full),
                    Err(PostError::Io) => return Err(Failure::Io),
                    // Counted; one queue that cannot be made does not stop the others.
                    Err(_) => {}
                }
            }
            plan.last_targets.clone_from(&plan.targets);
        }
        plan.record_slots.clone_from(&plan.target_slots);
        if !self.consumers.is_empty() {
            let message_type = record.message_type();
            for (consumer, slot) in &self.consumers {
                if matches(&consumer.message_type, message_type)
                    && !plan.record_slots.contains(slot)
                {
                    plan.record_slots.push(*slot);
                }
            }
        }
        Ok(())
    }

    /// Bytes, records and notes that storing the plan takes.
    pub(super) fn plan_size(&self) -> (usize, u32, usize) {
        let bytes = self.plan.runs.iter().map(|run| (run.end - run.start) as usize).sum();
        let routes = self.plan.runs.iter().map(|run| (run.slots.1 - run.slots.0) as usize).sum();
        (bytes, self.plan.starts.len() as u32, routes)
    }

    /// Stores the planned records of `bytes`; space was made sure of. Answers the id of the first.
    pub(super) fn store_plan(&mut self, bytes: &[u8], arrival: Arrival) -> Option<RecordId> {
        let mut plan = std::mem::take(&mut self.plan);
        let mut first_id = None;
        let base = self.log.next_ordinal;
        let starts = std::mem::take(&mut plan.starts);
        for run in &plan.runs {
            let ordinal = self.log.next_ordinal;
            let (from, to) = (run.start as usize, run.end as usize);
            let starts = &starts[run.first as usize..(run.first + run.count) as usize];
            self.log.push(&bytes[from..to], starts);
            if arrival == Arrival::Local {
                let seqs = &mut self.own_seqs[usize::from(run.class)];
                let identity = self.log.identity;
                let first = stamp_run(
                    self.log.last_pushed(to - from),
                    &identity,
                    run.class,
                    seqs,
                    &mut self.clock,
                    self.wall_ms,
                );
                first_id = first_id.or(Some(first));
            }
            let size = u64::from(run.end - run.start);
            self.counters.records_stored += u64::from(run.count);
            self.counters.record_bytes_stored += size;
            for at in run.slots.0..run.slots.1 {
                let slot = plan.slots[at as usize];
                self.append(slot, run.class, ordinal, u64::from(run.count), size);
            }
        }
        for index in &plan.keyed {
            let at = starts[*index as usize] as usize;
            let length = super::segment::length_at(bytes, at);
            self.index_current(&bytes[at..at + length], base + u64::from(*index), arrival);
        }
        for at in 0..plan.slots.len() {
            self.enforce(plan.slots[at]);
        }
        self.counters.records_known += plan.known;
        self.counters.gaps_closed += plan.closed_gaps;
        plan.starts = starts;
        plan.keys.clear();
        plan.before.clear();
        self.plan = plan;
        first_id
    }

    /// Makes a record with a key the current one, if it is later than what is.
    pub(super) fn index_current(&mut self, bytes: &[u8], ordinal: u64, arrival: Arrival) {
        let Ok(record) = Record::parse(bytes) else { return };
        let own = self.log.identity.name.node_id();
        let (stamp, origin) = match arrival {
            // Records of one batch are stamped in order; the last stamp given is not before it.
            Arrival::Local if record.time() == Stamp::UNSET => {
                let mut clock = self.clock;
                (clock.stamp(0).0 - 1, own.0)
            }
            Arrival::Local => (record.time().0, own.0),
            _ => (record.time().0, record.id().origin.0),
        };
        let key = latest_key(record.message_type(), record.key());
        let new = Current { stamp, origin, ordinal };
        let Ok(old) = self.keyed.current(&key) else { return };
        let later = match old {
            None => true,
            Some(old) if old.stamp != stamp => old.stamp < stamp,
            Some(old) if old.origin == origin => true,
            Some(old) => self.beats(&record, origin, &old),
        };
        if later {
            self.keyed.set_current(key, new);
        }
    }

    /// Of two records of one time: the greater value is the later, then the greater origin.
    fn beats(&mut self, record: &Record<'_>, origin: u64, old: &Current) -> bool {
        let body = self.log.view(old.ordinal).ok().and_then(|(bytes, _)| {
            let length = record::entry_length(bytes, u32::MAX).ok()?;
            Some(Record::parse(&bytes[..length]).ok()?.body().to_vec())
        });
        match body {
            Some(body) if body != record.body() => record.body() > body.as_slice(),
            _ => origin > old.origin,
        }
    }
}

/// Checks the form, the checksum and the names of `count` records; answers where they end.
fn check_all<D: Disk>(
    bytes: &[u8],
    count: u32,
    arrival: Arrival,
    store: &mut SegmentStore<D>,
) -> Result<usize, Failure> {
    let own = store.log.identity.name;
    let most = store.config.message_bytes_max;
    let mut at = 0;
    let mut last: Option<(NodeId, &str)> = None;
    for _ in 0..count {
        let checked = record::entry_length(&bytes[at..], most)
            .and_then(|length| Record::check(&bytes[at..at + length], crc32c::crc32c));
        let Ok(record) = checked else {
            store.counters.records_corrupt += 1;
            return Err(Failure::Corrupt);
        };
        let (id, name) = (record.id(), record.origin_name());
        let sound = if arrival == Arrival::Local {
            id.origin == NodeId::NONE && (name.is_empty() || name == own.as_str())
        } else {
            let seen = last == Some((id.origin, name)) || name.is_empty();
            let honest = || Name::new(name).is_ok_and(|name| name.node_id() == id.origin);
            id.origin != NodeId::NONE && id.seq.0 > 0 && (seen || honest())
        };
        if !sound {
            store.counters.records_corrupt += 1;
            return Err(Failure::Corrupt);
        }
        last = Some((id.origin, name));
        at += record.as_bytes().len();
    }
    Ok(at)
}

/// Gives the records in `bytes` their identities; answers the first.
fn stamp_run(
    bytes: &mut [u8],
    identity: &super::Identity,
    class: u8,
    seq: &mut u64,
    clock: &mut replcore::time::HybridClock,
    wall_ms: u64,
) -> RecordId {
    let id = |seq: u64| RecordId {
        origin: identity.name.node_id(),
        epoch: identity.epoch,
        class,
        seq: Seq(seq),
    };
    let first = id(*seq);
    let mut at = 0;
    while at < bytes.len() {
        let length = super::segment::length_at(bytes, at);
        record::stamp(&mut bytes[at..at + length], id(*seq), clock.stamp(wall_ms), crc32c::crc32c);
        *seq += 1;
        at += length;
    }
    first
}

/// What a post that is not a sound record is answered.
pub(super) const fn refusal(error: EntryError) -> PostError {
    PostError::Record(error)
}
