//! Opening a store: the newest checkpoint, and the log behind it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use replcore::contract::Failure;
use replcore::log::record::{Entries, KIND_RECORD};
use replcore::rng::Rng;
use replcore::stream::{CLASSES, Epoch, Name, NodeId, QueueId, QueueKey};
use replcore::time::{HybridClock, Stamp};

use super::blocks::Blocks;
use super::checkpoint::{Checkpoint, SegmentImage};
use super::disk::Disk;
use super::embedded::{Config, Origin, SegmentStore};
use super::identity::{self, IdentityFile};
use super::keyed::{Keyed, KeyedLimits};
use super::log::{Log, LogConfig};
use super::note::{KIND_NOTE, Note};
use super::plan::Plan;
use super::queues::Queues;
use super::replica::Replica;
use super::segment::{self, Found, HEADER_BYTES, Scan, Segment};
use super::{Counters, Identity};

impl<D: Disk> SegmentStore<D> {
    /// Opens the store of node `name` on `disk`, making it when the folder is empty.
    ///
    /// # Errors
    /// One line that names what is wrong and what to do; nothing has changed.
    pub fn open(mut disk: D, name: &Name, mut config: Config) -> Result<Self, String> {
        config.segment_bytes =
            config.segment_bytes.clamp(64 << 10, 1 << 30).min((config.log_bytes_max / 8).max(4096));
        let mut rng = Rng::new(config.random);
        let found = identity::read(&mut disk, name)?;
        let fresh = found.is_none();
        let file = match found {
            Some(file) => file,
            None => {
                let instance = rng.next_u64();
                let epoch = Epoch::first(rng.next_u64());
                IdentityFile {
                    identity: Identity { name: *name, instance, epoch },
                    incomplete: false,
                }
            }
        };
        if fresh {
            identity::write(&mut disk, &file)
                .map_err(|error| format!("data folder: file `identity`: {error}"))?;
        }
        // A store that was made just now begins its first life; one that follows is in its leader's.
        let life = (!fresh && !config.replicated).then(|| rng.next_u64());
        let opened = Self::open_as(disk, config, &file.identity, life);
        let mut store = opened.map_err(|error| format!("data folder: {error}"))?;
        if config.replicated {
            store.lost_tail |= !fresh && file.incomplete;
            store.begin_following()?;
        }
        Ok(store)
    }

    pub(super) fn write_identity(&mut self, incomplete: bool) -> Result<(), String> {
        let file = IdentityFile { identity: self.log.identity, incomplete };
        identity::write(&mut self.log.disk, &file)
            .map_err(|error| format!("data folder: file `identity`: {error}"))
    }

    pub(super) fn open_as(
        mut disk: D,
        config: Config,
        identity: &Identity,
        life: Option<u64>,
    ) -> std::io::Result<Self> {
        let (mut checkpoints, mut reports) = Checkpoint::read_all(&mut disk, identity.instance)?;
        let slots_of = |checkpoint: &Checkpoint| -> Vec<u32> {
            checkpoint
                .queues
                .iter()
                .flat_map(|queue| &queue.lanes)
                .flat_map(|lane| lane.runs.blocks())
                .map(|block| block.slot)
                .collect()
        };
        let used = checkpoints.first().map(slots_of).unwrap_or_default();
        let before = checkpoints.get(1).map(slots_of).unwrap_or_default();
        let older = checkpoints.get(1).map(|checkpoint| checkpoint.segment);
        let checkpoint =
            if checkpoints.is_empty() { Checkpoint::default() } else { checkpoints.swap_remove(0) };
        drop(checkpoints);
        let blocks = Blocks::open(&mut disk, &used, &before)?;
        let limits = KeyedLimits {
            posts_max: config.idempotency_keys_max,
            post_ms_max: config.idempotency_ms_max,
            latest_max: config.current_keys_max,
        };
        let path = disk.index_path();
        let origin = identity.name.node_id();
        let (keyed, keyed_through) =
            Keyed::open(path.as_deref(), identity.instance, origin, limits)
                .map_err(std::io::Error::other)?;
        let files = find_segments(&mut disk, identity, &checkpoint, &mut reports)?;
        let log_config = LogConfig {
            segment_bytes: config.segment_bytes,
            log_bytes_max: config.log_bytes_max,
            recent_bytes_max: config.recent_bytes_max,
            sync: config.sync,
        };
        let mut log = Log::new(disk, *identity, log_config, files.segments, files.next_number);
        log.next_ordinal = checkpoint.next_ordinal;
        let quarantined = reports.len() as u64;
        let lost_tail = files.lost_tail || (checkpoint.sequence == 0 && quarantined > 0);
        let mut store = Self {
            config,
            log,
            blocks,
            keyed,
            clock: HybridClock::new(),
            wall_ms: 0,
            own_seqs: [1; CLASSES],
            queues: Queues::new(config.queue_limits),
            streams: HashMap::new(),
            staged: HashMap::new(),
            staged_bytes: 0,
            origins: HashMap::new(),
            states: BTreeMap::new(),
            settings: BTreeMap::new(),
            consumers: Vec::new(),
            copies: Vec::new(),
            pending: Vec::new(),
            pending_extra: 0,
            batch: 1,
            dirty_streams: Vec::new(),
            touched: Vec::new(),
            grown: VecDeque::new(),
            watched: HashMap::new(),
            plan: Plan::default(),
            counters: Counters { segments_quarantined: quarantined, ..Counters::default() },
            uses: 0,
            checkpoint_sequence: checkpoint.sequence,
            replay_from: [older.unwrap_or(0), checkpoint.segment],
            bytes_at_checkpoint: 0,
            reports,
            last_refusing: None,
            lost_tail,
            life_due: false,
            epoch_seen: Epoch(0),
            failed: false,
            replica: Replica::new(config.replicated),
        };
        let (from, at) = (checkpoint.segment, checkpoint.offset);
        let rebuild = keyed_through < checkpoint.sequence;
        let fresh = checkpoint.sequence == 0;
        store.restore_checkpoint(checkpoint);
        if rebuild {
            store.rebuild_keyed(from, at)?;
        }
        let replayed = store.replay(from, at)?;
        store.report_missing(&files.missing);
        store.report_halved_consumers();
        store.finish_open(fresh || replayed, life)?;
        Ok(store)
    }

    pub(super) fn restore_checkpoint(&mut self, checkpoint: Checkpoint) {
        if checkpoint.sequence == 0 {
            return;
        }
        self.log.identity.epoch = Epoch(checkpoint.epoch);
        self.clock.observe(u64::MAX, Stamp(checkpoint.clock));
        self.own_seqs = checkpoint.own_seqs;
        self.queues.restore(checkpoint.queues);
        for image in checkpoint.streams {
            let name =
                (NodeId(image.owner), QueueKey { queue: QueueId(image.queue), class: image.class });
            self.set_stream(name, Epoch(image.epoch), image.position);
        }
        for image in checkpoint.origins {
            let mut origin = Origin { ranges: replcore::stream::Ranges::new(), used_at: 0 };
            for (low, high) in image.ranges {
                origin.ranges.insert_restored(low, high);
            }
            self.origins.insert((NodeId(image.origin), Epoch(image.epoch), image.class), origin);
        }
        self.states =
            checkpoint.states.into_iter().map(|(tag, id, state)| ((tag, id), state)).collect();
        self.settings = checkpoint.settings.into_iter().collect();
        self.replica.restore(&mut self.settings);
        for consumer in checkpoint.consumers {
            self.add_consumer(consumer);
        }
        self.copies = checkpoint.copies;
    }

    /// Makes the tables found by key again from all that the log holds before the checkpoint.
    fn rebuild_keyed(&mut self, from: u64, at: u64) -> std::io::Result<()> {
        for index in 0..self.log.segments.len() {
            let segment = &mut self.log.segments[index];
            if segment.number > from {
                break;
            }
            let number = segment.number;
            let end = if number == from { at } else { segment.end };
            let file = segment.open(&mut self.log.disk)?;
            let mut scan = Scan::new(number, file, HEADER_BYTES as u64, end);
            loop {
                match scan.next(&mut self.log.disk)? {
                    Found::Batch(_, header, entries) => {
                        let mut ordinal = header.first_ordinal;
                        for (kind, entry) in Entries::new(&entries) {
                            if kind == KIND_RECORD {
                                self.replay_keyed(entry, ordinal);
                                ordinal += 1;
                            }
                        }
                    }
                    Found::Torn(..) => {}
                    Found::End(offset) => {
                        if offset >= end || !scan.resync(&mut self.log.disk, offset + 1)? {
                            break;
                        }
                    }
                    Found::Format(_) => break,
                }
            }
            if self.keyed.is_full() {
                self.keyed.flush(0, None).map_err(std::io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Replays the log from a place on. Whether there was anything.
    fn replay(&mut self, from: u64, at: u64) -> std::io::Result<bool> {
        let mut replayed = false;
        self.drop_empty_segments(from)?;
        let mut index = self.log.segments.partition_point(|segment| segment.number < from);
        while index < self.log.segments.len() {
            let number = self.log.segments[index].number;
            let start = if number == from { at } else { HEADER_BYTES as u64 };
            let last = index + 1 == self.log.segments.len();
            replayed |= self.replay_segment(index, start, last)?;
            // After the end of the process alone, the tail may be written and not yet safe.
            let file = self.log.segments[index].open(&mut self.log.disk)?;
            self.log.disk.sync_data(file)?;
            index += 1;
        }
        Ok(replayed)
    }

    /// Removes segments at the end that were prepared and not used.
    fn drop_empty_segments(&mut self, from: u64) -> std::io::Result<()> {
        while let Some(last) = self.log.segments.back_mut().filter(|last| last.number > from) {
            let (number, capacity) = (last.number, last.capacity);
            let file = last.open(&mut self.log.disk)?;
            let mut scan = Scan::new(number, file, HEADER_BYTES as u64, capacity);
            let empty = matches!(scan.next(&mut self.log.disk)?, Found::End(_))
                && next_sound(&mut self.log.disk, &mut scan, HEADER_BYTES as u64)?.is_none();
            if !empty {
                break;
            }
            self.log.disk.close(file);
            self.log.disk.remove(&segment::file_name(number))?;
            self.log.segments.pop_back();
        }
        Ok(())
    }

    fn replay_segment(&mut self, index: usize, start: u64, last: bool) -> std::io::Result<bool> {
        let next_ordinal = self.log.next_ordinal;
        let segment = &mut self.log.segments[index];
        let (number, capacity) = (segment.number, segment.capacity);
        if start == HEADER_BYTES as u64 {
            segment.first_ordinal = next_ordinal;
        }
        segment.end = start;
        segment.next_ordinal = next_ordinal;
        let file = segment.open(&mut self.log.disk)?;
        let mut scan = Scan::new(number, file, start, capacity);
        let mut replayed = false;
        loop {
            let (at, torn) = match scan.next(&mut self.log.disk)? {
                Found::Batch(at, header, entries) => {
                    self.replay_batch(index, at, &header, &entries);
                    replayed = true;
                    continue;
                }
                Found::Torn(at, header, entries) => (at, Some((header, entries))),
                Found::End(at) => (at, None),
                Found::Format(format) => {
                    return Err(std::io::Error::other(format!(
                        "file {} has log format {format}, which this program does not know; use \
                         the program that wrote it, or a newer one",
                        segment::file_name(number)
                    )));
                }
            };
            let mut probe = Scan::new(number, file, at, capacity);
            let sound = next_sound(&mut self.log.disk, &mut probe, at + 1)?;
            // What follows in the same commit was not acknowledged either.
            let damaged = match sound {
                Some((_, continues)) => !continues,
                None => torn.is_some() && !last,
            };
            if !damaged {
                if torn.is_some() || sound.is_some() {
                    self.clean_tail(index, at)?;
                }
                return Ok(replayed);
            }
            replayed = true;
            self.quarantine(index, at, torn);
            match sound {
                Some((offset, _)) => scan = Scan::new(number, file, offset, capacity),
                None => return Ok(true),
            }
        }
    }

    /// Overwrites what a power cut has left behind the last batch, so that it is never taken for
    /// a part of the log. The first header goes last: until then it says that nothing follows.
    fn clean_tail(&mut self, index: usize, at: u64) -> std::io::Result<()> {
        let capacity = self.log.segments[index].capacity;
        let file = self.log.segments[index].open(&mut self.log.disk)?;
        let zeros = vec![0; 256 << 10];
        let head = replcore::log::batch::HEADER_BYTES as u64;
        let mut offset = at + head;
        while offset < capacity {
            let part = zeros.len().min((capacity - offset) as usize);
            self.log.disk.write_at(file, offset, &zeros[..part])?;
            offset += part as u64;
        }
        self.log.disk.sync_data(file)?;
        let part = head.min(capacity - at) as usize;
        self.log.disk.write_at(file, at, &zeros[..part])?;
        self.log.disk.sync_data(file)
    }

    /// Reports segments that are not there although a queue names records in them.
    fn report_missing(&mut self, missing: &[SegmentImage]) {
        for image in missing {
            let (first, next) = (image.first_ordinal, image.next_ordinal);
            let needed = self.count_entries(first, next);
            if needed > 0 {
                self.counters.segments_quarantined += 1;
                self.reports.push(format!(
                    "segment {} is not there; it held {} records from ordinal {first} on, which \
                     queues name {needed} times",
                    segment::file_name(image.number),
                    next - first,
                ));
            }
        }
    }

    fn finish_open(&mut self, changed: bool, life: Option<u64>) -> std::io::Result<()> {
        let failed = |_: Failure| std::io::Error::other("no room for the log");
        self.log.durable_ordinal = self.log.next_ordinal;
        self.recount();
        if self.log.segments.is_empty() {
            self.log.prepare(0).map_err(failed)?;
            self.log.roll();
        }
        if let Some(random) = life {
            self.begin_life(random).map_err(failed)?;
        }
        if changed {
            self.checkpoint().map_err(failed)?;
        }
        self.log.written_bytes = 0;
        self.bytes_at_checkpoint = 0;
        Ok(())
    }

    /// Counts anew how often queues name the records of each segment.
    pub(super) fn recount(&mut self) {
        self.log.segments.iter_mut().for_each(|segment| segment.references = 0);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (_, queue) in self.queues.iter() {
            for lane in &queue.lanes {
                let log = &mut self.log;
                runs.clear();
                lane.runs.each(&mut self.blocks, &mut log.disk, &|_| true, &mut |run| {
                    runs.push((run.ordinal, run.count));
                    true
                });
                runs.iter().for_each(|run| log.refer(run.0, run.1, true));
            }
        }
    }
}

/// The next sound batch after `from`, and whether it was committed together with the one before.
fn next_sound<D: Disk>(
    disk: &mut D,
    scan: &mut Scan,
    mut from: u64,
) -> std::io::Result<Option<(u64, bool)>> {
    while scan.resync(disk, from)? {
        match scan.next(disk)? {
            Found::Batch(at, _, entries) => {
                let notes = Entries::new(&entries).filter(|entry| entry.0 == KIND_NOTE);
                let first = notes.filter_map(|entry| Note::read(entry.1)).next();
                return Ok(Some((at, first == Some(Note::Continues))));
            }
            Found::Torn(at, ..) | Found::End(at) => from = at + 1,
            Found::Format(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// The files of the log.
#[derive(Default)]
struct Files {
    segments: VecDeque<Segment>,
    next_number: u64,
    /// A segment is missing that was written after the checkpoint.
    lost_tail: bool,
    /// Segments that the checkpoint names and that are not there: freed since, or lost.
    missing: Vec<SegmentImage>,
}

fn find_segments<D: Disk>(
    disk: &mut D,
    identity: &Identity,
    checkpoint: &Checkpoint,
    reports: &mut Vec<String>,
) -> std::io::Result<Files> {
    let mut files = Files { next_number: 1, ..Files::default() };
    let mut numbers = Vec::new();
    for name in disk.list()? {
        if let Some(number) = segment::number_of(&name) {
            numbers.push(number);
        } else if name.starts_with("free-") || name.ends_with(".tmp") {
            // Made ahead or half made: whether its zeros are safe is not known.
            disk.remove(&name)?;
        }
    }
    numbers.sort_unstable();
    files.next_number = numbers.last().map_or(1, |last| last + 1).max(checkpoint.segment + 1);
    for number in &numbers {
        let name = segment::file_name(*number);
        let image = checkpoint.segments.iter().find(|image| image.number == *number);
        if image.is_none() && *number < checkpoint.segment {
            // Freed before the checkpoint; the power went before its name did.
            disk.remove(&name)?;
            continue;
        }
        let file = disk.open(&name)?;
        let header = segment::header(*number, identity);
        let mut head = [0; HEADER_BYTES];
        let read = disk.read_at(file, 0, &mut head)?;
        if read == HEADER_BYTES && !segment::is_header(&head) {
            // The number in its batches says as well whose they are.
            let capacity = disk.bytes(file)?;
            let mut scan = Scan::new(*number, file, HEADER_BYTES as u64, capacity);
            if next_sound(disk, &mut scan, HEADER_BYTES as u64)?.is_some() {
                disk.write_at(file, 0, &header)?;
                disk.sync_data(file)?;
                head = header;
                reports.push(format!("segment {name} had no sound header; it was written anew"));
            }
        }
        if read < HEADER_BYTES || head != header {
            let aside = format!("damaged-{number:016x}");
            disk.close(file);
            disk.rename(&name, &aside)?;
            files.lost_tail |= *number >= checkpoint.segment;
            let held = image.map_or(String::new(), |image| {
                format!(
                    ", with {} records from ordinal {} on",
                    image.next_ordinal - image.first_ordinal,
                    image.first_ordinal
                )
            });
            reports.push(format!("segment {name} has no sound header; it is now {aside}{held}"));
            continue;
        }
        let mut segment = Segment::new(*number, file, disk.bytes(file)?);
        if let Some(image) = image {
            segment.end = image.end;
            segment.first_ordinal = image.first_ordinal;
            segment.next_ordinal = image.next_ordinal;
            segment.at_ms = image.at_ms;
        } else {
            segment.first_ordinal = checkpoint.next_ordinal;
            segment.next_ordinal = checkpoint.next_ordinal;
        }
        files.segments.push_back(segment);
    }
    let gone = |image: &&SegmentImage| !numbers.contains(&image.number);
    files.missing = checkpoint.segments.iter().filter(gone).copied().collect();
    files.lost_tail |= files.missing.iter().any(|image| image.number >= checkpoint.segment);
    Ok(files)
}
