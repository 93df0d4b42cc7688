//! The embedded store: its parts, and how they become durable together.

use std::collections::{BTreeMap, HashMap, VecDeque};

use replcore::contract::{Failure, LinkId, SkipReason, StreamIndex};
use replcore::stream::{Epoch, NodeId, Position, QueueId, QueueKey, Ranges, StreamKey};
use replcore::time::HybridClock;

use super::blocks::Blocks;
use super::disk::Disk;
use super::keyed::Keyed;
use super::log::Log;
use super::note::{NOTE_BYTES_MAX, Note};
use super::plan::Plan;
use super::queues::{NoteAt, Queues};
use super::replica::Replica;
use super::{Consumer, Counters, Growth, LimitPolicy, PostError, QueueKind, QueueLimits};

/// What a store is told when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of a segment. Default 16 MiB; 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Most bytes of the log on disk, spare segments included. Default 4 GiB; at least four
    /// segments. What no queue needs goes first; what queues need is never dropped for this.
    pub log_bytes_max: u64,
    /// Bytes of the log that are kept to be read although no queue needs them. Default 64 MiB.
    pub retain_bytes: u64,
    /// How long such records are kept at most, in milliseconds; 0 for no limit, the default.
    pub retain_ms: u64,
    /// Bytes of the log between two checkpoints, which is what a start has to replay. Default
    /// 32 MiB.
    pub checkpoint_bytes: u64,
    /// Memory for the newest batches, from which readers that keep up are served. Default 2 MiB.
    pub recent_bytes_max: usize,
    /// Whether a commit is synced. Default yes.
    pub sync: bool,
    /// Largest record. Default 16 MiB; at most 64 MiB.
    pub message_bytes_max: u32,
    /// Most queues. Default 4,096. About 1 KiB each.
    pub queues_max: u32,
    /// Most consumers. Default 64.
    pub consumers_max: u32,
    /// Most origins, each class of each life counted. Default 8,192. About 1.1 KiB each. At the
    /// limit the one not heard of for longest is forgotten.
    pub origins_max: u32,
    /// Most incoming streams. Default 16,384. About 100 bytes each. At the limit the one not heard
    /// of for longest is forgotten.
    pub streams_max: u32,
    /// Most bytes of incomplete records, of all streams together. Default 32 MiB.
    pub staged_bytes_max: usize,
    /// Idempotency keys that are remembered. Default 65,536.
    pub idempotency_keys_max: u64,
    /// How long they are remembered, in milliseconds. Default seven days.
    pub idempotency_ms_max: u64,
    /// Most pairs of type and key of which the current record is known. Default 1,000,000.
    pub current_keys_max: u64,
    /// Limits of queues that were given none of their own.
    pub queue_limits: QueueLimits,
    /// Whether the log is one that several hubs hold: the store follows until
    /// [`SegmentStore::promote`]. Default no. Commits must be synced.
    pub replicated: bool,
    /// Something random, for the identity of a fresh store and for epochs.
    pub random: u64,
}

impl Config {
    /// The defaults, with `random` from a source of entropy.
    pub const fn new(random: u64) -> Self {
        Self {
            segment_bytes: 16 << 20,
            log_bytes_max: 4 << 30,
            retain_bytes: 64 << 20,
            retain_ms: 0,
            checkpoint_bytes: 32 << 20,
            recent_bytes_max: 2 << 20,
            sync: true,
            message_bytes_max: 16 << 20,
            queues_max: 4096,
            consumers_max: 64,
            origins_max: 8192,
            streams_max: 16_384,
            staged_bytes_max: 32 << 20,
            idempotency_keys_max: 65_536,
            idempotency_ms_max: 7 * 24 * 3600 * 1000,
            current_keys_max: 1_000_000,
            queue_limits: QueueLimits {
                messages_max: 0,
                bytes_max: 1 << 30,
                age_ms_max: 0,
                policy: LimitPolicy::ByKind,
            },
            replicated: false,
            random,
        }
    }
}

/// An incoming stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub epoch: Epoch,
    pub position: u64,
    pub durable: u64,
    pub note: NoteAt,
    pub used_at: u64,
}

/// The numbers known of one class of one life of an origin.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub ranges: Ranges<64>,
    pub used_at: u64,
}

/// The part of a record that has arrived.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub position: u64,
    pub bytes: Vec<u8>,
    pub used_at: u64,
}

/// A stream whatever its epoch.
pub(super) type StreamName = (NodeId, QueueKey);

/// The embedded store. See [`super::Store`] for what its methods do.
pub struct SegmentStore<D: Disk> {
    pub(super) config: Config,
    pub(super) log: Log<D>,
    pub(super) blocks: Blocks,
    pub(super) keyed: Keyed,
    pub(super) clock: HybridClock,
    pub(super) wall_ms: u64,
    pub(super) own_seqs: [u64; 4],
    pub(super) queues: Queues,
    pub(super) streams: HashMap<StreamName, Stream>,
    pub(super) staged: HashMap<StreamKey, Staged>,
    pub(super) staged_bytes: usize,
    pub(super) origins: HashMap<(NodeId, Epoch, u8), Origin>,
    pub(super) states: BTreeMap<(u8, u64), Vec<u8>>,
    pub(super) settings: BTreeMap<String, Vec<u8>>,
    pub(super) consumers: Vec<(Consumer, u32)>,
    /// Ordinals of records that are copies of older ones, as rising ranges.
    pub(super) copies: Vec<(u64, u64)>,
    pub(super) pending: Vec<Note>,
    /// Bytes that pending notes take beyond [`NOTE_BYTES_MAX`] each.
    pub(super) pending_extra: usize,
    pub(super) batch: u64,
    pub(super) dirty_streams: Vec<StreamName>,
    pub(super) touched: Vec<(u32, u8)>,
    pub(super) grown: VecDeque<Growth>,
    pub(super) watched: HashMap<LinkId, Vec<(u32, u8)>>,
    pub(super) plan: Plan,
    pub(super) counters: Counters,
    pub(super) uses: u64,
    pub(super) checkpoint_sequence: u64,
    /// Where replay would start from the two checkpoints, older first.
    pub(super) replay_from: [u64; 2],
    pub(super) bytes_at_checkpoint: u64,
    pub(super) reports: Vec<String>,
    /// The queue that refused the last plan.
    pub(super) last_refusing: Option<replcore::stream::Name>,
    /// At the start a part of the log was found damaged or missing that no checkpoint covers.
    pub(super) lost_tail: bool,
    /// The life that has begun is not noted in the log yet.
    pub(super) life_due: bool,
    /// The epoch of the latest life of which the log holds an own record.
    pub(super) epoch_seen: Epoch,
    pub(super) failed: bool,
    pub(super) replica: Replica,
}

impl<D: Disk> SegmentStore<D> {
    /// What was found damaged at the start and since, one line each; the first 64 since.
    pub fn reports(&self) -> &[String] {
        &self.reports
    }

    /// Adds a note to the open batch.
    pub(super) fn note(&mut self, note: Note, extra: usize) -> NoteAt {
        self.pending.push(note);
        self.pending_extra += extra;
        NoteAt { batch: self.batch, index: self.pending.len() }
    }

    /// The pending note at a place, if the batch is still open.
    pub(super) fn noted(&mut self, at: NoteAt) -> Option<&mut Note> {
        if at.batch != self.batch || at.index == 0 {
            return None;
        }
        self.pending.get_mut(at.index - 1)
    }

    /// The most bytes that the pending notes take.
    pub(super) fn pending_bytes(&self) -> usize {
        // One more for the mark of a further batch of one commit, and one for its number.
        let own = 1 + usize::from(self.replica.is_leading());
        (self.pending.len() + own) * NOTE_BYTES_MAX + self.pending_extra + self.life_bytes()
    }

    /// Makes sure that this much can be stored, before anything is accepted.
    pub(super) fn reserve(
        &mut self,
        bytes: usize,
        records: u32,
        notes: usize,
    ) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure::Io);
        }
        let alone = bytes + (notes + 1) * NOTE_BYTES_MAX;
        if self.log.fits(alone + self.pending_bytes(), records) {
            return Ok(());
        }
        self.prepare(alone)?;
        if self.log.open_records() > 0 || !self.pending.is_empty() {
            self.close_batch()?;
        }
        if !self.log.fits(alone + self.pending_bytes(), records) {
            self.prepare(alone + NOTE_BYTES_MAX)?;
            self.log.roll();
        }
        Ok(())
    }

    /// Prepares the next segment, freeing what nobody needs if there is no room.
    pub(super) fn prepare(&mut self, bytes: usize) -> Result<(), Failure> {
        match self.log.prepare(bytes) {
            // Acknowledgements that are not committed yet must not free what they acknowledge.
            Err(Failure::Full) if !self.is_dirty() && self.free_unneeded(0, 2) > 0 => {
                self.log.prepare(bytes)
            }
            prepared => prepared,
        }
    }

    /// Ends the open batch with the notes that belong to it.
    pub(super) fn close_batch(&mut self) -> Result<(), Failure> {
        let mut notes = Vec::new();
        if self.log.has_closed() {
            Note::Continues.write(&mut notes);
        }
        let own = notes.len();
        if let Some(life) = self.take_life_note() {
            life.write(&mut notes);
        }
        self.pending.iter().for_each(|note| note.write(&mut notes));
        if self.replica.is_leading() {
            self.replica.number_batch(self.log.open_entries(), own, &mut notes);
        }
        if !self.log.fits_bytes(notes.len()) {
            // Only acknowledgements, which are taken without asking, can lead here.
            self.prepare(self.log.open_bytes() + notes.len())?;
            self.log.roll();
        }
        self.log.close_batch(&notes);
        self.pending.clear();
        self.pending.shrink_to(4096);
        self.pending_extra = 0;
        self.batch += 1;
        Ok(())
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.log.open_records() > 0 || !self.pending.is_empty() || self.log.has_closed()
    }

    pub(super) fn commit_all(&mut self) -> Result<(), Failure> {
        if !self.failed && !self.is_dirty() {
            return Ok(());
        }
        self.commit_pending()?;
        self.after_commit()
    }

    /// Writes and syncs what is pending, and nothing else.
    pub(super) fn commit_pending(&mut self) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure::Io);
        }
        if self.log.open_records() > 0 || !self.pending.is_empty() {
            self.close_batch()?;
        }
        if self.log.commit(self.wall_ms).is_err() {
            self.failed = true;
            return Err(Failure::Io);
        }
        self.replica.committed();
        self.counters.commits += 1;
        self.counters.log_bytes_written = self.log.written_bytes;
        self.counters.sync_us = self.log.sync_us;
        self.committed();
        Ok(())
    }

    fn committed(&mut self) {
        if self.replica.is_leading() {
            self.keep_in_flight();
            return;
        }
        for name in self.dirty_streams.drain(..) {
            if let Some(stream) = self.streams.get_mut(&name) {
                stream.durable = stream.position;
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        for (slot, class) in touched.drain(..) {
            let Some(lane) = self.queues.lane(slot, class) else { continue };
            lane.touched = false;
            let next = lane.next;
            self.show(slot, class, next);
        }
        self.touched = touched;
    }

    /// Lets readers have the entries of a lane before `next`.
    pub(super) fn show(&mut self, slot: u32, class: u8, next: u64) {
        let Some(lane) = self.queues.lane(slot, class) else { return };
        lane.durable_next = next;
        for (link, stream) in &lane.watchers {
            let next = Position(next);
            self.grown.push_back(Growth { link: *link, stream: *stream, next });
        }
    }

    /// What a commit brings with it now and then.
    fn after_commit(&mut self) -> Result<(), Failure> {
        if self.keyed.is_full() {
            // What does not get into the database stays in memory and is tried again.
            let _ = self.keyed.flush(self.wall_ms, None);
        }
        let grown = self.log.written_bytes - self.bytes_at_checkpoint;
        let rolled = self.log.current_number() > self.replay_from[1];
        if grown >= self.config.checkpoint_bytes || (rolled && self.is_pressed()) {
            self.checkpoint()?;
            self.reclaim()?;
        }
        self.log.prepare_ahead();
        Ok(())
    }

    /// The slot of the queue of this name, made when there is none.
    pub(super) fn ensure(
        &mut self,
        name: &replcore::stream::Name,
        kind: QueueKind,
    ) -> Result<u32, PostError> {
        if let Some(slot) = self.queues.slot(name.queue_id()) {
            match self.queues.get(slot) {
                Some(queue) if queue.name == *name => return Ok(slot),
                Some(queue) if queue.is_unnamed() => {}
                _ => return Err(PostError::NameTaken(*name)),
            }
            self.note_queue(name, kind)?;
            self.queues.claim(slot, *name, kind);
            return Ok(slot);
        }
        if self.queues.len() >= self.config.queues_max as usize {
            self.counters.queues_refused += 1;
            return Err(PostError::QueuesFull(self.config.queues_max));
        }
        self.note_queue(name, kind)?;
        Ok(self.queues.add(*name, kind))
    }

    fn note_queue(
        &mut self,
        name: &replcore::stream::Name,
        kind: QueueKind,
    ) -> Result<(), PostError> {
        self.reserve(0, 0, 2).map_err(|failure| match failure {
            Failure::Full => PostError::DiskFull,
            _ => PostError::Io,
        })?;
        self.note(Note::Queue { name: name.as_str().to_owned(), kind }, NOTE_BYTES_MAX);
        Ok(())
    }

    /// Removes a queue with its entries.
    pub(super) fn remove_queue(&mut self, id: QueueId) -> bool {
        let Some(slot) = self.queues.slot(id) else { return false };
        self.drop_entries(slot, SkipReason::Purged);
        self.note(Note::ForgetQueue { queue: id.0 }, 0);
        self.queues.remove(id);
        self.touched.retain(|touched| touched.0 != slot);
        self.replica.forget_lanes(slot);
        for lanes in self.watched.values_mut() {
            lanes.retain(|lane| lane.0 != slot);
        }
        true
    }

    /// Adds a run of records to a lane, and the note that says so.
    pub(super) fn append(&mut self, slot: u32, class: u8, ordinal: u64, count: u64, bytes: u64) {
        let at_ms = self.wall_ms;
        let Some(queue) = self.queues.get_mut(slot) else { return };
        let id = queue.id;
        let lane = &mut queue.lanes[usize::from(class)];
        let position = lane.next;
        let run = super::runs::Run { position, ordinal, count, bytes, at_ms };
        lane.runs.append(run, &mut self.blocks, &mut self.log.disk);
        lane.next += count;
        if !lane.touched {
            lane.touched = true;
            self.touched.push((slot, class));
        }
        let at = lane.route;
        self.log.refer(ordinal, count, true);
        if let Some(Note::Route { position: first, ordinal: from, count: had, bytes: size, .. }) =
            self.noted(at)
            && *from + *had == ordinal
            && *first + *had == position
        {
            *had += count;
            *size += bytes;
            return;
        }
        let route = Note::Route { queue: id.0, class, position, ordinal, count, bytes, at_ms };
        let at = self.note(route, 0);
        if let Some(lane) = self.queues.lane(slot, class) {
            lane.route = at;
            lane.release = NoteAt::default();
        }
    }

    /// Drops what a queue has over its limits.
    pub(super) fn enforce(&mut self, slot: u32) {
        while let Some(class) = self.queues.get(slot).and_then(super::queues::Queue::overflowing) {
            let Some(queue) = self.queues.get(slot) else { return };
            let Some(front) = queue.lanes[class].runs.front() else { return };
            let limits = &queue.limits;
            let excess =
                |have: u64, most: u64| if most == 0 { 0 } else { have.saturating_sub(most) };
            let messages = excess(queue.messages(), limits.messages_max);
            let bytes = excess(queue.bytes(), limits.bytes_max);
            let by_bytes = (u128::from(bytes) * u128::from(front.count))
                .div_ceil(u128::from(front.bytes.max(1))) as u64;
            let count = messages.max(by_bytes).clamp(1, front.count);
            let (first, next) = (front.position, front.position + count);
            self.drop_range(slot, class as u8, first, next, SkipReason::Dropped);
        }
    }

    /// Drops every entry of a queue; answers how many.
    pub(super) fn drop_entries(&mut self, slot: u32, reason: SkipReason) -> u64 {
        let mut dropped = 0;
        for class in 0..4 {
            let Some(lane) = self.queues.lane(slot, class) else { return dropped };
            let next = lane.next;
            if let Some(front) = lane.runs.front().copied() {
                dropped += self.drop_range(slot, class, front.position, next, reason);
            }
        }
        dropped
    }

    /// Drops the entries of a lane in `first..next`, notes and counts them; answers how many.
    pub(super) fn drop_range(
        &mut self,
        slot: u32,
        class: u8,
        first: u64,
        next: u64,
        reason: SkipReason,
    ) -> u64 {
        let dropped = self.apply_drop(slot, class, first, next, reason);
        let Some(queue) = self.queues.get_mut(slot) else { return 0 };
        let id = queue.id.0;
        let lane = &mut queue.lanes[usize::from(class)];
        lane.route = NoteAt::default();
        lane.release = NoteAt::default();
        self.note(Note::Drop { queue: id, class, first, next, reason }, 0);
        match reason {
            SkipReason::Expired => self.counters.expired += dropped,
            SkipReason::Purged => self.counters.purged += dropped,
            SkipReason::Lost => self.counters.lost += dropped,
            SkipReason::Dropped | SkipReason::Forgotten => self.counters.dropped += dropped,
        }
        dropped
    }

    /// Drops the entries of a lane in `first..next`; answers how many there were.
    pub(super) fn apply_drop(
        &mut self,
        slot: u32,
        class: u8,
        first: u64,
        next: u64,
        reason: SkipReason,
    ) -> u64 {
        let Some(queue) = self.queues.get_mut(slot) else { return 0 };
        let lane = &mut queue.lanes[usize::from(class)];
        let mut dropped = 0;
        let mut gone = Vec::new();
        if lane.runs.front().is_some_and(|front| front.position >= first) {
            lane.runs.release(next, &mut self.blocks, &mut self.log.disk, &mut |run| {
                dropped += run.count;
                gone.push((run.ordinal, run.count));
            });
        } else {
            lane.runs.edit(
                &mut self.blocks,
                &mut self.log.disk,
                &|block| block.first < next && block.next > first,
                &mut |run, out| {
                    out.extend(run.part(0, first));
                    if let Some(part) = run.part(first, next) {
                        dropped += part.count;
                        gone.push((part.ordinal, part.count));
                    }
                    out.extend(run.part(next, u64::MAX));
                },
            );
        }
        lane.add_gap(first, next, reason);
        match reason {
            SkipReason::Expired => queue.totals.expired += dropped,
            SkipReason::Purged => queue.totals.purged += dropped,
            _ => queue.totals.dropped += dropped,
        }
        for (ordinal, count) in gone {
            self.log.refer(ordinal, count, false);
        }
        dropped
    }

    /// Entries of a lane before `through` are acknowledged. Whether that was news.
    pub(super) fn apply_release(&mut self, slot: u32, class: u8, through: u64) -> bool {
        let Some(queue) = self.queues.get_mut(slot) else { return false };
        let lane = &mut queue.lanes[usize::from(class)];
        let through = through.min(lane.next);
        if through <= lane.released {
            return false;
        }
        lane.released = through;
        let log = &mut self.log;
        let mut gone = [(0, 0); 8];
        let mut used = 0;
        let mut acknowledged = 0;
        let mut more = Vec::new();
        lane.runs.release(through, &mut self.blocks, &mut log.disk, &mut |run| {
            acknowledged += run.count;
            match gone.get_mut(used) {
                Some(place) => *place = (run.ordinal, run.count),
                None => more.push((run.ordinal, run.count)),
            }
            used += 1;
        });
        queue.totals.acknowledged += acknowledged;
        lane.trim();
        for (ordinal, count) in gone.iter().take(used).chain(&more) {
            self.log.refer(*ordinal, *count, false);
        }
        true
    }

    pub(super) fn release_entries(&mut self, queue: QueueKey, through: Position) {
        let Some(slot) = self.queues.slot(queue.queue) else { return };
        if usize::from(queue.class) >= 4 || !self.apply_release(slot, queue.class, through.0) {
            return;
        }
        let Some(lane) = self.queues.lane(slot, queue.class) else { return };
        let (at, through) = (lane.release, lane.released);
        if let Some(Note::Release { through: noted, .. }) = self.noted(at) {
            *noted = through;
            return;
        }
        let note = Note::Release { queue: queue.queue.0, class: queue.class, through };
        let at = self.note(note, 0);
        if let Some(lane) = self.queues.lane(slot, queue.class) {
            lane.release = at;
        }
    }

    pub(super) fn watch_lane(
        &mut self,
        queue: QueueKey,
        link: LinkId,
        stream: StreamIndex,
    ) -> Option<super::Holding> {
        let slot = self.queues.slot(queue.queue)?;
        let lane = self.queues.lane(slot, queue.class)?;
        lane.watchers.retain(|watcher| *watcher != (link, stream));
        lane.watchers.push((link, stream));
        let holding = lane.holding();
        self.watched.entry(link).or_default().push((slot, queue.class));
        Some(holding)
    }

    pub(super) fn unwatch_link(&mut self, link: LinkId) {
        for (slot, class) in self.watched.remove(&link).unwrap_or_default() {
            if let Some(lane) = self.queues.lane(slot, class) {
                lane.watchers.retain(|watcher| watcher.0 != link);
            }
        }
        self.grown.retain(|growth| growth.link != link);
    }

    /// A number that rises with every use, to tell what was not used for longest.
    pub(super) fn used(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Bytes of memory that grow with what the store holds, apart from its tables.
    pub fn memory_bytes(&self) -> usize {
        let lists: usize = self
            .queues
            .iter()
            .flat_map(|(_, queue)| &queue.lanes)
            .map(|lane| lane.runs.memory_bytes())
            .sum();
        lists
            + self.log.memory_bytes()
            + self.blocks.memory_bytes()
            + self.keyed.memory_bytes()
            + self.staged_bytes
    }
}
