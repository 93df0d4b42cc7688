//! What operators and consumers ask.

use replcore::contract::{Failure, SkipReason};
use replcore::log::record::{ENTRY_HEADER_BYTES, Record};
use replcore::stream::{CLASSES, Name, Position, QueueId, QueueKey, RecordId};

use super::disk::Disk;
use super::embedded::SegmentStore;
use super::keyed::latest_key;
use super::log::ReadError;
use super::note::Note;
use super::plan::matches;
use super::queues::Queue;
use super::runs::Run;
use super::segment::length_at;
use super::{Consumer, Place, PostError, Purge, QueueInfo, QueueKind};

/// Most settings of the application.
const SETTINGS_MAX: usize = 64;
/// Most bytes of one.
const SETTING_BYTES_MAX: usize = 64 << 10;

/// The name of the queue for what a consumer could not use.
fn dead_letters_of(consumer: &Name) -> Result<Name, PostError> {
    Name::new(&format!("dead/{consumer}")).map_err(|_| PostError::NameTaken(*consumer))
}

impl<D: Disk> SegmentStore<D> {
    pub(super) fn info(&self, wall_ms: u64, queue: &Queue) -> QueueInfo {
        QueueInfo {
            id: queue.id,
            name: queue.name,
            kind: queue.kind,
            messages: std::array::from_fn(|class| queue.lanes[class].runs.count),
            bytes: queue.bytes(),
            oldest_ms: queue.oldest_at_ms().map_or(0, |at_ms| wall_ms.saturating_sub(at_ms)),
            appended_total: queue.lanes.iter().map(|lane| lane.next).sum(),
            acknowledged_total: queue.totals.acknowledged,
            dropped_total: queue.totals.dropped,
            expired_total: queue.totals.expired,
            purged_total: queue.totals.purged,
        }
    }

    pub(super) fn infos(&self, wall_ms: u64, after: Option<&str>, limit: usize) -> Vec<QueueInfo> {
        let behind = |queue: &&Queue| after.is_none_or(|after| queue.name.as_str() > after);
        let mut found: Vec<&Queue> =
            self.queues.iter().map(|(_, queue)| queue).filter(behind).collect();
        found.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        found.into_iter().take(limit).map(|queue| self.info(wall_ms, queue)).collect()
    }

    /// All committed runs of a queue, class by class, oldest first, until `each` answers false.
    fn each_run(&mut self, slot: u32, each: &mut dyn FnMut(u8, &Run) -> bool) {
        let Some(queue) = self.queues.get(slot) else { return };
        let mut on = true;
        for class in 0..CLASSES as u8 {
            let lane = &queue.lanes[usize::from(class)];
            lane.runs.each(&mut self.blocks, &mut self.log.disk, &|_| true, &mut |run| {
                on = run.part(0, lane.durable_next).is_none_or(|run| each(class, &run));
                on
            });
            if !on {
                return;
            }
        }
    }

    pub(super) fn peek_entries(
        &mut self,
        queue: QueueId,
        skip: u64,
        limit: usize,
        each: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<(), Failure> {
        let Some(slot) = self.queues.slot(queue) else { return Ok(()) };
        let (mut skip, mut left) = (skip, limit as u64);
        let mut parts = Vec::new();
        self.each_run(slot, &mut |class, run| {
            let passed = skip.min(run.count);
            skip -= passed;
            if let Some(part) = run.part(run.position + passed, run.position + passed + left) {
                left -= part.count;
                parts.push((class, part));
            }
            left > 0
        });
        for (class, part) in parts {
            self.each_record(part.ordinal, part.count, &mut |ordinal, record| {
                let position = Position(part.position + (ordinal - part.ordinal));
                each(Place { class, position, ordinal }, record);
                true
            })?;
        }
        Ok(())
    }

    /// Shows committed records from `first` on, `count` ordinals, passing over lost ones, until
    /// `each` answers false.
    pub(super) fn each_record(
        &mut self,
        first: u64,
        count: u64,
        each: &mut dyn FnMut(u64, &Record<'_>) -> bool,
    ) -> Result<(), Failure> {
        let (mut ordinal, last) = (first, first.saturating_add(count));
        while ordinal < last {
            let (bytes, checked) = match self.log.view(ordinal) {
                Ok(view) => view,
                Err(ReadError::Lost(next)) => {
                    if next >= self.log.durable_ordinal {
                        return Ok(());
                    }
                    ordinal = next.max(ordinal + 1);
                    continue;
                }
                Err(ReadError::Io) => return Err(Failure::Io),
            };
            let (mut at, before) = (0, ordinal);
            while ordinal < last && at + ENTRY_HEADER_BYTES <= bytes.len() {
                let length = length_at(bytes, at).max(ENTRY_HEADER_BYTES);
                let Some(entry) = bytes.get(at..at + length) else { break };
                let record = if ordinal - before < checked {
                    Record::parse(entry)
                } else {
                    Record::check(entry, crc32c::crc32c)
                };
                // Behind the last record, or at one that is not sound, which the next view tells.
                let Ok(record) = record else { break };
                if !each(ordinal, &record) {
                    return Ok(());
                }
                at += length;
                ordinal += 1;
            }
            ordinal = ordinal.max(before + 1);
        }
        Ok(())
    }

    pub(super) fn entry_at(
        &mut self,
        queue: QueueKey,
        position: Position,
        each: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<bool, Failure> {
        let Some(run) = self.run_at(queue, position) else { return Ok(false) };
        let mut found = false;
        self.each_record(run.ordinal, 1, &mut |ordinal, record| {
            // A lost record is passed over, and the next is not the one asked for.
            if ordinal == run.ordinal {
                each(Place { class: queue.class, position, ordinal }, record);
                found = true;
            }
            false
        })?;
        Ok(found)
    }

    /// The entry at a position, as a run of one.
    fn run_at(&mut self, queue: QueueKey, position: Position) -> Option<Run> {
        let slot = self.queues.slot(queue.queue)?;
        let lane = self.queues.lane(slot, queue.class)?;
        let run = lane.runs.seek(position.0, &mut self.blocks, &mut self.log.disk)?;
        run.part(position.0, position.0.saturating_add(1))
    }

    pub(super) fn purge_entries(
        &mut self,
        queue: QueueId,
        ids: Option<&[RecordId]>,
    ) -> Result<Purge, Failure> {
        let slot = self.queues.slot(queue).ok_or(Failure::Full)?;
        let Some(ids) = ids else {
            self.reserve(0, 0, CLASSES)?;
            let messages = self.drop_entries(slot, SkipReason::Purged);
            return Ok(Purge { messages, not_found: Vec::new() });
        };
        self.commit_pending_if_dirty()?;
        let mut wanted: Vec<RecordId> = ids.to_vec();
        wanted.sort_unstable_by_key(order);
        wanted.dedup();
        let mut runs = Vec::new();
        self.each_run(slot, &mut |class, run| {
            runs.push((class, *run));
            true
        });
        let mut found = Vec::new();
        for (class, run) in runs {
            if found.len() == wanted.len() {
                break;
            }
            self.each_record(run.ordinal, run.count, &mut |ordinal, record| {
                let id = record.id();
                if wanted.binary_search_by_key(&order(&id), order).is_ok() {
                    found.push((class, run.position + (ordinal - run.ordinal), id));
                }
                found.len() < wanted.len()
            })?;
        }
        self.reserve(0, 0, found.len())?;
        for (class, position, _) in &found {
            self.drop_range(slot, *class, *position, *position + 1, SkipReason::Purged);
        }
        let missing = |id: &RecordId| found.iter().all(|found| found.2 != *id);
        let not_found = wanted.iter().copied().filter(missing).collect();
        Ok(Purge { messages: found.len() as u64, not_found })
    }

    fn commit_pending_if_dirty(&mut self) -> Result<(), Failure> {
        if self.is_dirty() { self.commit_pending() } else { Ok(()) }
    }

    pub(super) fn read_from(
        &mut self,
        from: u64,
        end: u64,
        bytes_max: usize,
        each: &mut dyn FnMut(u64, &Record<'_>) -> bool,
    ) -> Result<u64, Failure> {
        let held = self.log.segments.front().map_or(0, |first| first.first_ordinal);
        let mut ordinal = from.max(held);
        let (mut seen, mut stopped) = (0, false);
        while !stopped && seen < bytes_max && ordinal < end {
            let after = self.copies.partition_point(|copy| copy.1 <= ordinal);
            let mut last = end;
            match self.copies.get(after) {
                // Copies of older records: they were read in their first place.
                Some(copy) if copy.0 <= ordinal => {
                    ordinal = copy.1;
                    continue;
                }
                Some(copy) => last = last.min(copy.0),
                None => {}
            }
            let mut next = last;
            self.each_record(ordinal, last - ordinal, &mut |now, record| {
                seen += record.as_bytes().len();
                stopped = !each(now, record);
                next = now + 1;
                !stopped && seen < bytes_max
            })?;
            ordinal = if stopped || seen >= bytes_max { next } else { last };
        }
        Ok(ordinal.max(from))
    }

    pub(super) fn latest_of(
        &mut self,
        message_type: &str,
        key: &[u8],
        each: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<bool, Failure> {
        let key = latest_key(message_type, key);
        let Some(current) = self.keyed.current(&key).map_err(|_| Failure::Io)? else {
            return Ok(false);
        };
        self.commit_pending_if_dirty()?;
        let mut found = false;
        self.each_record(current.ordinal, 1, &mut |ordinal, record| {
            if ordinal == current.ordinal && latest_key(record.message_type(), record.key()) == key
            {
                each(ordinal, record);
                found = true;
            }
            false
        })?;
        Ok(found)
    }

    pub(super) fn put_setting_value(&mut self, name: &str, value: &[u8]) -> Result<(), Failure> {
        let known = self.settings.contains_key(name);
        let fits = name.len() <= 63
            && value.len() <= SETTING_BYTES_MAX
            && (known || value.is_empty() || self.settings.len() < SETTINGS_MAX);
        if !fits {
            return Err(Failure::Full);
        }
        let extra = name.len() + value.len();
        self.reserve(extra, 0, 1)?;
        self.note(Note::Setting { name: name.to_owned(), bytes: value.to_vec() }, extra);
        if value.is_empty() {
            self.settings.remove(name);
        } else {
            self.settings.insert(name.to_owned(), value.to_vec());
        }
        Ok(())
    }

    /// Adds a consumer whose queue exists.
    pub(super) fn add_consumer(&mut self, consumer: Consumer) {
        let Ok(name) = Name::new(&consumer.name) else { return };
        let Some(slot) = self.queues.slot(name.queue_id()) else { return };
        self.queues.claim(slot, name, QueueKind::Consumer);
        if self.consumers.iter().all(|known| known.0.name != consumer.name) {
            self.consumers.push((consumer, slot));
            self.consumers.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        }
    }

    pub(super) fn make_consumer(
        &mut self,
        wall_ms: u64,
        consumer: &Consumer,
        from_start: bool,
    ) -> Result<QueueId, PostError> {
        let name = Name::new(&consumer.name).map_err(|_| PostError::OriginName)?;
        let id = name.queue_id();
        if self.consumers.iter().any(|known| known.0.name == consumer.name) {
            return Ok(id);
        }
        if self.consumers.len() >= self.config.consumers_max as usize {
            return Err(PostError::QueuesFull(self.config.consumers_max));
        }
        // What damage may leave of it: its queue, and not what it wants.
        let is_left = |queue: &Queue| {
            queue.is_unnamed() || (queue.name == name && queue.kind == QueueKind::Consumer)
        };
        let left = self.queues.slot(id).and_then(|slot| self.queues.get(slot)).map(is_left);
        match left {
            Some(false) => return Err(PostError::NameTaken(name)),
            Some(true) if from_start => {
                self.remove_queue(id);
            }
            Some(true) | None => {}
        }
        let full = |failure| match failure {
            Failure::Full => PostError::DiskFull,
            _ => PostError::Io,
        };
        self.wall_ms = self.wall_ms.max(wall_ms);
        let slot = self.ensure(&name, QueueKind::Consumer)?;
        let extra = consumer.name.len() + consumer.message_type.len();
        self.reserve(extra, 0, 1).map_err(full)?;
        self.note(Note::Consumer(consumer.clone()), extra);
        self.add_consumer(consumer.clone());
        if from_start {
            self.fill_consumer(slot, consumer).map_err(full)?;
        }
        Ok(id)
    }

    /// Reports queues of consumers that nothing more is put into.
    pub(super) fn report_halved_consumers(&mut self) {
        let known = |name: &Name| self.consumers.iter().any(|known| known.0.name == name.as_str());
        let halved = self.queues.iter().map(|(_, queue)| queue);
        let halved =
            halved.filter(|queue| queue.kind == QueueKind::Consumer && !known(&queue.name));
        let report = |queue: &Queue| {
            format!(
                "what consumer `{}` wants is lost with a damaged part of the log; its queue is kept \
                 and gets nothing more until it is created again",
                queue.name
            )
        };
        let reports: Vec<String> = halved.map(report).collect();
        self.reports.extend(reports);
    }

    /// Puts what the log holds into the queue of a new consumer.
    fn fill_consumer(&mut self, slot: u32, consumer: &Consumer) -> Result<(), Failure> {
        self.commit_pending_if_dirty()?;
        let mut from = 0;
        while from < self.log.durable_ordinal {
            let mut found: Vec<(u64, u8, u64)> = Vec::new();
            let end = self.log.durable_ordinal;
            from = self.read_from(from, end, 1 << 20, &mut |ordinal, record| {
                if matches(&consumer.message_type, record.message_type()) {
                    found.push((ordinal, record.id().class, record.as_bytes().len() as u64));
                }
                true
            })?;
            self.reserve(0, 0, found.len())?;
            for (ordinal, class, bytes) in found {
                self.append(slot, class, ordinal, 1, bytes);
            }
            self.enforce(slot);
        }
        Ok(())
    }

    pub(super) fn drop_consumer(&mut self, name: &Name) -> bool {
        let before = self.consumers.len();
        self.consumers.retain(|known| known.0.name != name.as_str());
        if self.consumers.len() == before {
            return false;
        }
        let text = name.as_str().to_owned();
        let extra = text.len();
        self.note(Note::RemoveConsumer { name: text }, extra);
        self.remove_queue(name.queue_id());
        if let Ok(dead) = dead_letters_of(name) {
            self.remove_queue(dead.queue_id());
        }
        true
    }

    pub(super) fn add_dead_letter(
        &mut self,
        queue: QueueKey,
        position: Position,
    ) -> Result<(), Failure> {
        let Some(slot) = self.queues.slot(queue.queue) else { return Ok(()) };
        let Some(run) = self.run_at(queue, position) else { return Ok(()) };
        let Some(name) = self.queues.get(slot).map(|queue| queue.name) else { return Ok(()) };
        let dead =
            dead_letters_of(&name).and_then(|dead| self.ensure(&dead, QueueKind::DeadLetter));
        let dead = dead.map_err(|error| match error {
            PostError::Io => Failure::Io,
            _ => Failure::Full,
        })?;
        self.reserve(0, 0, 1)?;
        self.append(dead, queue.class, run.ordinal, 1, run.bytes);
        self.enforce(dead);
        Ok(())
    }
}

/// Ids in an order.
const fn order(id: &RecordId) -> (u64, u32, u8, u64) {
    (id.origin.0, id.epoch.0, id.class, id.seq.0)
}
