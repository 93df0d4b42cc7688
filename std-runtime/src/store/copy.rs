//! A whole copy of the leader's store, for a standby that is new or cannot go on where its log ends.
//!
//! First the state at one place in the log, without the entries of queues; then, in parts and while
//! the leader works on: the entries, the posts known by key, and all records that the log holds.
//! An entry that the leader has moved or let go in the meantime is settled by the batches that
//! follow, for which the standby asks from the place of the state on. The copy is whole once it has
//! the batches up to the end of the leader's log as of the last part.

use replcore::contract::Failure;
use replcore::log::record::{Record, entry_length};
use replcore::stream::{CLASSES, Epoch, Name, NodeId, QueueId, RecordId, Seq};
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::disk::Disk;
use super::embedded::{Config, SegmentStore};
use super::identity::{self, IdentityFile};
use super::keyed::KnownPost;
use super::replica::ShipCursor;
use super::runs::{Run, RunList};
use super::segment::length_at;
use super::{Identity, Store as _};

/// Entries of a queue, as runs, in one part.
const RUNS_MAX: usize = 1024;
/// Posts in one part.
const POSTS_MAX: usize = 512;
/// Bytes of records in one part, but for a single record that is longer.
const RECORD_BYTES: usize = 256 << 10;
/// Bytes after which a copy is written out.
const COMMIT_BYTES: usize = 1 << 20;

/// One part of a copy.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Runs { queue: u64, class: u8, runs: Vec<Run> },
    Posts(Vec<PostImage>),
    Records { first_ordinal: u64, bytes: Vec<u8> },
}

#[derive(Debug, Serialize, Deserialize)]
struct PostImage {
    key: Vec<u8>,
    epoch: u32,
    class: u8,
    seq: u64,
    at_ms: u64,
}

/// The start of a copy: whose it is, and the state.
#[derive(Serialize, Deserialize)]
struct Start {
    name: String,
    state: Checkpoint,
}

/// Where a copy is.
#[derive(Debug, Serialize, Deserialize)]
enum Stage {
    /// At this position of this one of the lanes.
    Lanes { index: usize, position: u64 },
    /// Behind this key.
    Posts { after: Vec<u8> },
    /// At this ordinal.
    Records { ordinal: u64 },
}

/// A copy under way at the leader.
#[derive(Debug, Serialize, Deserialize)]
pub struct CopyCursor {
    /// Queue, class and the position up to which entries belong to the copy.
    lanes: Vec<(u64, u8, u64)>,
    next_ordinal: u64,
    stage: Stage,
}

impl CopyCursor {
    /// What to keep where the copy is taken, for [`CopyCursor::resume`]: `None` for want of memory.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok()
    }

    /// The place alone, which is all that changes from part to part.
    pub fn place(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.stage).unwrap_or_default()
    }

    /// Goes on with a copy that was begun in the same term: `cursor` is what [`CopyCursor::to_bytes`] said
    /// at its start, `place` what [`CopyCursor::place`] said behind the last part that was taken, or
    /// empty before the first.
    /// `None` when they are not sound.
    pub fn resume(cursor: &[u8], place: &[u8]) -> Option<Self> {
        let mut cursor: Self = postcard::from_bytes(cursor).ok()?;
        if !place.is_empty() {
            cursor.stage = postcard::from_bytes(place).ok()?;
        }
        let lane_fits = match cursor.stage {
            Stage::Lanes { index, position } => {
                cursor.lanes.get(index).is_none_or(|(_, _, next)| position <= *next)
            }
            Stage::Posts { .. } | Stage::Records { .. } => true,
        };
        let classes = cursor.lanes.iter().all(|(_, class, _)| usize::from(*class) < CLASSES);
        (lane_fits && classes).then_some(cursor)
    }
}

/// What a leader needs to give a standby a copy.
#[derive(Debug)]
pub struct CopyStart {
    /// The first message of it, for [`SegmentStore::open_copy`].
    pub state: Vec<u8>,
    /// For [`SegmentStore::copy_part`].
    pub cursor: CopyCursor,
    /// For the batches that follow the copy.
    pub ship: ShipCursor,
}

impl<D: Disk> SegmentStore<D> {
    /// Begins a copy of this log as it is now. Pin it at the place of the batches that follow.
    ///
    /// # Errors
    /// The log does not work.
    pub fn start_copy(&mut self) -> Result<CopyStart, Failure> {
        if self.is_dirty() {
            self.commit_pending()?;
        }
        self.keyed.flush(self.wall_ms, None).map_err(|_| Failure::Io)?;
        // Any sequence but that of no checkpoint.
        let mut state = self.image(1);
        state.segments.clear();
        let mut lanes = Vec::new();
        for queue in &mut state.queues {
            let Some(id) = queue.id() else { continue };
            for (class, lane) in queue.lanes.iter_mut().enumerate() {
                lane.runs = RunList::default();
                lanes.push((id.0, class as u8, lane.next));
            }
        }
        let ship = ShipCursor::new(state.segment, state.offset, self.head().number);
        let name = self.log.identity.name.as_str().to_owned();
        let next_ordinal = state.next_ordinal;
        let state = postcard::to_allocvec(&Start { name, state }).map_err(|_| Failure::Io)?;
        let stage = Stage::Lanes { index: 0, position: 0 };
        Ok(CopyStart { state, cursor: CopyCursor { lanes, next_ordinal, stage }, ship })
    }

    /// Adds the next part of a copy to `out`; `false`, and nothing is added, when there is none.
    ///
    /// # Errors
    /// The disk does not work.
    pub fn copy_part(
        &mut self,
        cursor: &mut CopyCursor,
        out: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        loop {
            let part = match &cursor.stage {
                Stage::Lanes { .. } => self.copy_runs(cursor),
                Stage::Posts { after } => {
                    let posts = self.keyed.posts_after(after, POSTS_MAX);
                    let posts = posts.map_err(|_| Failure::Io)?;
                    let ordinal = self.ordinals()[0];
                    cursor.stage = match posts.last() {
                        Some(last) => Stage::Posts { after: last.0.clone() },
                        None => Stage::Records { ordinal },
                    };
                    let image = |(key, post): (Vec<u8>, KnownPost)| PostImage {
                        key,
                        epoch: post.id.epoch.0,
                        class: post.id.class,
                        seq: post.id.seq.0,
                        at_ms: post.at_ms,
                    };
                    (!posts.is_empty()).then(|| Part::Posts(posts.into_iter().map(image).collect()))
                }
                Stage::Records { ordinal } if *ordinal >= cursor.next_ordinal => return Ok(false),
                Stage::Records { ordinal } => {
                    let (part, next) = self.copy_records(*ordinal, cursor.next_ordinal)?;
                    cursor.stage = Stage::Records { ordinal: next };
                    part
                }
            };
            if let Some(part) = part {
                out.extend(postcard::to_allocvec(&part).map_err(|_| Failure::Io)?);
                return Ok(true);
            }
        }
    }

    fn copy_runs(&mut self, cursor: &mut CopyCursor) -> Option<Part> {
        let Stage::Lanes { index, position } = cursor.stage else { return None };
        let Some((queue, class, next)) = cursor.lanes.get(index).copied() else {
            cursor.stage = Stage::Posts { after: Vec::new() };
            return None;
        };
        let mut runs = Vec::new();
        if let Some(held) = self.queues.slot(QueueId(queue)).and_then(|slot| self.queues.get(slot))
        {
            held.lanes[usize::from(class)].runs.each(
                &mut self.blocks,
                &mut self.log.disk,
                &|block| block.next > position && block.first < next,
                &mut |run| {
                    runs.extend(run.part(position, next));
                    runs.len() < RUNS_MAX
                },
            );
        }
        cursor.stage = match runs.last() {
            Some(last) if runs.len() >= RUNS_MAX => Stage::Lanes { index, position: last.next() },
            _ => Stage::Lanes { index: index + 1, position: 0 },
        };
        (!runs.is_empty()).then_some(Part::Runs { queue, class, runs })
    }

    /// Records from `ordinal` on that lie together, and where to go on.
    fn copy_records(&mut self, ordinal: u64, end: u64) -> Result<(Option<Part>, u64), Failure> {
        let (mut first_ordinal, mut bytes) = (ordinal, Vec::new());
        let (mut next, mut apart) = (ordinal, false);
        self.each_record(ordinal, end - ordinal, &mut |now, record| {
            if bytes.is_empty() {
                first_ordinal = now;
            } else if now != next || bytes.len() + record.as_bytes().len() > RECORD_BYTES {
                apart = true;
                return false;
            }
            bytes.extend_from_slice(record.as_bytes());
            next = now + 1;
            true
        })?;
        let next = if apart { next } else { end };
        Ok(((!bytes.is_empty()).then_some(Part::Records { first_ordinal, bytes }), next))
    }

    /// Begins to take a copy into the empty folder `disk`; `start` is what the leader's
    /// [`CopyStart::state`] says. Until [`SegmentStore::finish_copy`] has answered, the folder is
    /// worth nothing.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn open_copy(
        mut disk: D,
        name: &Name,
        config: Config,
        start: &[u8],
    ) -> Result<Self, String> {
        let malformed = || "the copy of the leader's store is malformed".to_owned();
        let start: Start = postcard::from_bytes(start).map_err(|_| malformed())?;
        if start.name != name.as_str() || start.state.sequence == 0 {
            return Err(format!("the leader's store is that of hub {:?}", start.name));
        }
        let epoch = Epoch(start.state.epoch);
        let identity = Identity { name: *name, instance: start.state.instance, epoch };
        let config = Config { replicated: true, ..config };
        let file = IdentityFile { identity, incomplete: false };
        let io = |error: std::io::Error| format!("the folder for the copy: {error}");
        identity::write(&mut disk, &file).map_err(io)?;
        let mut store = Self::open_as(disk, config, &identity, None).map_err(io)?;
        store.begin_following()?;
        store.replica.copied_ordinal = start.state.next_ordinal;
        store.restore_checkpoint(start.state);
        Ok(store)
    }

    /// Takes the next part of a copy.
    ///
    /// # Errors
    /// The part is not sound ([`Failure::Corrupt`]), or it cannot be stored. The copy is worth
    /// nothing then.
    pub fn take_copy_part(&mut self, part: &[u8]) -> Result<(), Failure> {
        match postcard::from_bytes(part).map_err(|_| Failure::Corrupt)? {
            Part::Runs { queue, class, runs } => self.take_runs(QueueId(queue), class, &runs),
            Part::Posts(posts) => {
                let origin: NodeId = self.log.identity.name.node_id();
                for post in posts {
                    let (epoch, seq) = (Epoch(post.epoch), Seq(post.seq));
                    let id = RecordId { origin, epoch, class: post.class, seq };
                    self.keyed.add_post(&post.key, KnownPost { id, at_ms: post.at_ms });
                }
                self.flush_keyed()
            }
            Part::Records { first_ordinal, bytes } => self.take_records(first_ordinal, &bytes),
        }
    }

    fn take_runs(&mut self, queue: QueueId, class: u8, runs: &[Run]) -> Result<(), Failure> {
        let slot = self.queues.slot(queue).filter(|_| usize::from(class) < CLASSES);
        let lane = slot.and_then(|slot| self.queues.lane(slot, class)).ok_or(Failure::Corrupt)?;
        for run in runs {
            let inside =
                |first: u64| first.checked_add(run.count).is_some_and(|end| end < u64::MAX);
            let sound = run.count > 0 && inside(run.position) && inside(run.ordinal);
            if !sound || run.next() > lane.next {
                return Err(Failure::Corrupt);
            }
            lane.runs.append(*run, &mut self.blocks, &mut self.log.disk);
        }
        Ok(())
    }

    fn take_records(&mut self, first_ordinal: u64, bytes: &[u8]) -> Result<(), Failure> {
        let (mut at, mut starts) = (0, Vec::new());
        while at < bytes.len() {
            let checked = entry_length(&bytes[at..], self.config.message_bytes_max)
                .and_then(|length| Record::check(&bytes[at..at + length], crc32c::crc32c));
            starts.push(at as u32);
            at += checked.map_err(|_| Failure::Corrupt)?.as_bytes().len();
        }
        let records = starts.len() as u32;
        if records == 0 || records > super::log::BATCH_RECORDS_MAX {
            return Err(Failure::Corrupt);
        }
        self.reserve(bytes.len(), records, 1)?;
        self.log.start_at(first_ordinal);
        self.log.push(bytes, &starts);
        self.log.close_batch(&[]);
        for (ordinal, start) in (first_ordinal..).zip(starts) {
            let entry = &bytes[start as usize..];
            self.replay_keyed(&entry[..length_at(entry, 0)], ordinal);
        }
        if self.log.closed_bytes() >= COMMIT_BYTES {
            self.commit_pending()?;
        }
        self.flush_keyed()
    }

    fn flush_keyed(&mut self) -> Result<(), Failure> {
        if self.keyed.is_full() {
            self.keyed.flush(self.wall_ms, None).map_err(|_| Failure::Io)?;
        }
        Ok(())
    }

    /// All parts are there: makes the copy safe. Its batches can follow now.
    ///
    /// # Errors
    /// It cannot be made safe.
    pub fn finish_copy(&mut self) -> Result<(), Failure> {
        if self.is_dirty() {
            self.commit_pending()?;
        }
        let next = self.log.next_ordinal.max(self.replica.copied_ordinal);
        self.log.start_at(next);
        self.log.durable_ordinal = next;
        self.recount();
        let sequence = self.checkpoint_sequence;
        self.checkpoint()?;
        if self.checkpoint_sequence == sequence { Err(Failure::Full) } else { Ok(()) }
    }
}
