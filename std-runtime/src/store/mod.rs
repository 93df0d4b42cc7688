//! Where a node keeps its records: the [`Store`] trait and the embedded store behind it.
//!
//! A node has one log. A queue is an index of places in it. Everything that a call changes becomes
//! durable together, with the next [`Store::commit`]; only after it may anything be acknowledged.

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::log::record::{EntryError, MessageError, Record};
use replcore::stream::{
    CLASSES, Cursor, Epoch, Name, NodeId, Position, QueueId, QueueKey, RecordId, StreamKey,
};
use replcore::wire::Records;

mod blocks;
mod checkpoint;
mod copy;
mod disk;
mod embedded;
mod facade;
mod identity;
mod intake;
mod keyed;
mod lives;
mod log;
mod memory_disk;
mod note;
mod operate;
mod outlet;
mod plan;
mod queues;
mod reclaim;
mod recovery;
mod replay;
mod replica;
mod runs;
mod salvage;
mod segment;
mod survey;

pub use copy::{CopyCursor, CopyStart};
pub use disk::{Disk, FileDisk, FileId};
pub use embedded::{Config, SegmentStore};
pub use memory_disk::MemoryDisk;
pub use replica::{FollowError, Head, ShipCursor, Shipped};

/// Who a store belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub name: Name,
    /// Drawn when the store was made.
    pub instance: u64,
    /// The life of the log.
    pub epoch: Epoch,
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum QueueKind {
    /// Read by the leaf of its name.
    Leaf,
    /// Read by an upstream hub.
    Upstream,
    /// Read by programs, with explicit acknowledgement.
    Consumer,
    /// What a consumer could not use.
    DeadLetter,
}

/// What happens when a queue is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitPolicy {
    /// New messages are refused.
    Refuse,
    /// The oldest of the queue are dropped.
    DropOldest,
    /// The oldest of the least urgent class are dropped.
    DropByClass,
    /// `Refuse` for the queue to a hub above, whose poster can be told; `DropOldest` for queues that
    /// others read, so that one dead reader does not stop the node for all (HS-13).
    ByKind,
}

impl LimitPolicy {
    /// What it means for a queue of this kind; never [`LimitPolicy::ByKind`].
    pub const fn resolve(self, kind: QueueKind) -> Self {
        match (self, kind) {
            (Self::ByKind, QueueKind::Upstream) => Self::Refuse,
            (Self::ByKind, _) => Self::DropOldest,
            (policy, _) => policy,
        }
    }
}

/// Limits of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QueueLimits {
    /// Most messages; 0 for no limit.
    pub messages_max: u64,
    /// Most bytes; 0 for no limit.
    pub bytes_max: u64,
    /// Longest wait, in milliseconds; 0 for no limit. Older messages are dropped.
    pub age_ms_max: u64,
    /// What happens at the first two.
    pub policy: LimitPolicy,
}

/// How a record came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A program posted it here.
    Local,
    /// This leaf sent it to this hub.
    Leaf(NodeId),
    /// A hub above this node sent it.
    Upstream(NodeId),
}

/// Decides the queues of a record when it is stored. The store calls it once for each record that
/// is new, and makes the decision durable with the record.
pub trait Route {
    /// Adds the queues of `record` to `targets`. Queues that do not exist are made, up to the
    /// store's limit, as [`QueueKind::Leaf`].
    fn route(&mut self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>);

    /// Whether [`Route::admit`] is to be asked of the posts that come.
    fn is_choosy(&self) -> bool {
        false
    }

    /// Whether a post is taken. One that is not is passed over: its stream goes on.
    fn admit(&mut self, _record: &Record<'_>) -> bool {
        true
    }
}

/// Why a post was not taken. Nothing of it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The message is not sound.
    Message(MessageError),
    /// The record would have more bytes than the limit, which is given.
    TooLarge(u32),
    /// This queue refuses at its limit.
    QueueFull(Name),
    /// The table of queues is full; the limit is given.
    QueuesFull(u32),
    /// Another queue has this name, or another name the same id.
    NameTaken(Name),
    /// The bytes are not a sound record.
    Record(EntryError),
    /// The record names another node as its origin.
    OriginName,
    /// The disk is full, or the log is at its configured bound and nothing in it may go.
    DiskFull,
    /// The disk does not work.
    Io,
}

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The record's identity.
    pub id: RecordId,
    /// It was there before, under the same idempotency key.
    pub duplicate: bool,
}

/// A run of bytes for a frame of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What to write into the frame's fixed part (its `round` and `raw_bytes` are the caller's).
    pub records: Records,
    /// How many bytes were added to the buffer.
    pub bytes: u32,
}

/// What [`Store::fill`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Bytes were added.
    Batch(Batch),
    /// Nothing is there from the cursor up to this position; go on there.
    Gone {
        /// The first entry to be had.
        next: Position,
        /// Why the others are not.
        reason: SkipReason,
    },
    /// The queue ends at the cursor.
    Empty,
}

/// A watched queue that has grown: tell the machine with `Input::Appended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The watching link.
    pub link: LinkId,
    /// Its stream.
    pub stream: StreamIndex,
    /// The number of entries that the queue has ever held.
    pub next: Position,
}

/// What an own queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Everything before is acknowledged.
    pub released: Position,
    /// The number of entries that the queue has ever held.
    pub next: Position,
    /// Nobody else can have an entry from here on in this life of the log: those before were
    /// acknowledged, or given out by [`Store::fill`] or [`Store::place_reader`] since the start.
    pub sent: Position,
}

/// How one queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its id.
    pub id: QueueId,
    /// Its name; `unnamed-` and its id while damage has taken the name.
    pub name: Name,
    /// What it is for.
    pub kind: QueueKind,
    /// Messages in it, by class.
    pub messages: [u64; CLASSES],
    /// Bytes of the records in it; within a run of records that is partly acknowledged an
    /// estimate.
    pub bytes: u64,
    /// How long the oldest has waited here, in milliseconds; 0 when it is empty.
    pub oldest_ms: u64,
    /// Messages ever put in.
    pub appended_total: u64,
    /// Messages acknowledged.
    pub acknowledged_total: u64,
    /// Messages dropped at a limit or lost by the medium.
    pub dropped_total: u64,
    /// Messages whose time to live ended in it.
    pub expired_total: u64,
    /// Messages purged by an operator.
    pub purged_total: u64,
}

/// Where an entry of a queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The class and position in the queue.
    pub class: u8,
    /// The position in that class.
    pub position: Position,
    /// The place in this node's log.
    pub ordinal: u64,
}

/// A consumer as it was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Consumer {
    /// Its name, which is also the name of its queue.
    pub name: String,
    /// Only messages of this type; a trailing `*` matches any rest; empty for all.
    pub message_type: String,
}

/// What came of [`Store::purge`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// Messages that went.
    pub messages: u64,
    /// Ids that were not in the queue.
    pub not_found: Vec<RecordId>,
}

/// Counters of a store since its start. All only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records stored.
    pub records_stored: u64,
    /// Bytes of records stored.
    pub record_bytes_stored: u64,
    /// Records passed over because they were here already.
    pub records_known: u64,
    /// Posts answered with the id of an earlier one, by idempotency key.
    pub posts_known: u64,
    /// Bytes or records refused as damaged or malformed.
    pub records_corrupt: u64,
    /// Numbers taken for known because the set of numbers of an origin had no room for more gaps.
    pub gaps_closed: u64,
    /// Commits.
    pub commits: u64,
    /// Bytes written to the log, notes and headers included.
    pub log_bytes_written: u64,
    /// Messages dropped at a limit of a queue.
    pub dropped: u64,
    /// Queue entries passed over because their time to live had ended.
    pub expired: u64,
    /// Queue entries purged by an operator.
    pub purged: u64,
    /// Queue entries whose records the medium has lost.
    pub lost: u64,
    /// Entries of incoming streams that their senders said will not come.
    pub skipped: u64,
    /// Posts and frames refused at a limit of a queue or of the log.
    pub refused: u64,
    /// Targets passed over because the table of queues is full.
    pub queues_refused: u64,
    /// Origins forgotten because the table of origins is full.
    pub origins_forgotten: u64,
    /// Incoming streams forgotten because the table of streams is full.
    pub streams_forgotten: u64,
    /// Parts of records thrown away because too many bytes were staged.
    pub staged_dropped: u64,
    /// Records copied forward so that an old segment could go.
    pub records_moved: u64,
    /// Segments freed.
    pub segments_freed: u64,
    /// Segments found damaged.
    pub segments_quarantined: u64,
    /// Stamps of other nodes too far ahead of the wall clock to be believed.
    pub stamps_ahead: u64,
    /// Microseconds spent in syncing.
    pub sync_us: u64,
}

/// A place for records, queues, cursors and the machine's own state.
pub trait Store {
    /// Who it belongs to.
    fn identity(&self) -> Identity;

    /// Calls `each` with every persisted state of the machine, for `Machine::restore`.
    fn restore(&self, each: &mut dyn FnMut(Key, &[u8]));

    /// Stores the unstamped record in `bytes` (made by [`replcore::log::record::encode`] with a
    /// default identity), giving it an identity and a time. The class is the one in the record.
    fn post(
        &mut self,
        wall_ms: u64,
        bytes: &mut [u8],
        route: &mut dyn Route,
    ) -> Result<Posted, PostError>;

    /// Takes `bytes` of an incoming stream. Whole records are checked and stored, a part of one is
    /// kept in memory for the frame that goes on with it. Records known by identity are passed
    /// over and counted. A producer's records (`arrival` is [`Arrival::Local`]) are stamped here.
    ///
    /// On error nothing of these bytes was stored, and the part of a record that was kept in memory
    /// and that they went on with is thrown away as well.
    fn take(
        &mut self,
        wall_ms: u64,
        source: &StreamKey,
        records: &Records,
        bytes: &[u8],
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure>;

    /// Notes that a range of an incoming stream will not come.
    fn take_skip(
        &mut self,
        source: &StreamKey,
        first: Position,
        next: Position,
        reason: SkipReason,
    ) -> Result<(), Failure>;

    /// Notes that an incoming stream goes on at `position` in the epoch of `source`, whatever was
    /// noted of it before.
    ///
    /// # Errors
    /// Nothing has changed.
    fn place(&mut self, source: &StreamKey, position: Position) -> Result<(), Failure>;

    /// The last epoch in which something was taken of the owner, queue and class of `source`, and
    /// how far the stream was taken and made durable in that epoch, counting the part of a record
    /// kept in memory. A store may hold on to what it has answered.
    fn inbound(&mut self, source: &StreamKey) -> (Epoch, Cursor);

    /// Bytes of records that have just come again although they were reported before. A store that
    /// reports what it takes as soon as it is committed has none.
    fn taken_again(&mut self, _source: &StreamKey) -> u32 {
        0
    }

    /// Makes sure that a queue exists.
    ///
    /// # Errors
    /// The table of queues is full, or another name has the same id; nothing has changed.
    fn ensure_queue(&mut self, name: &Name, kind: QueueKind) -> Result<QueueId, PostError>;

    /// What a queue holds, as far as it is committed. `None` when there is no such queue.
    fn holding(&self, queue: QueueKey) -> Option<Holding>;

    /// What a queue holds. Until [`Store::unwatch`] its growth is reported by [`Store::grown`].
    /// `None` when there is no such queue.
    fn watch(&mut self, queue: QueueKey, link: LinkId, stream: StreamIndex) -> Option<Holding>;

    /// Ends all watching of a link.
    fn unwatch(&mut self, link: LinkId);

    /// The watched queues that have grown by what was committed; each once, until it grows again.
    fn grown(&mut self) -> Option<Growth>;

    /// Adds to `out` what an own queue holds from `first` on: whole records, or, when the first
    /// does not fit, a part of it; at most `bytes_max` bytes. Committed records only.
    fn fill(
        &mut self,
        wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure>;

    /// Where a reader of an own queue goes on that was `position` far in the life `epoch` of this
    /// log, or in a copy of it that is gone; see [`replcore::stream::place_after`].
    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position;

    /// Entries of an own queue before `through` are acknowledged.
    fn release(&mut self, queue: QueueKey, through: Position);

    /// Puts an entry of a consumer's queue into its dead letters.
    fn dead_letter(&mut self, queue: QueueKey, position: Position) -> Result<(), Failure>;

    /// Stores a machine's state under `key`.
    fn persist(&mut self, key: Key, state: &[u8]) -> Result<(), Failure>;

    /// Removes a machine's state.
    fn forget(&mut self, key: Key);

    /// Work for about once a second: drops what is over an age limit, forgets old idempotency
    /// keys, frees segments. Bounded.
    fn maintain(&mut self, wall_ms: u64) -> Result<(), Failure>;

    /// Sets the limits of queues: `default` for all but the named ones. What is over a lowered
    /// limit goes with the next append to the queue.
    fn set_limits(&mut self, default: QueueLimits, named: &[(Name, QueueLimits)]);

    /// Stores `value` under `name` for the application, with the next commit; an empty value
    /// removes it. Meant for a few small settings: at most 64 names of at most 63 bytes, at most
    /// 64 KiB each.
    ///
    /// # Errors
    /// [`Failure::Full`] beyond these limits; nothing has changed.
    fn put_setting(&mut self, name: &str, value: &[u8]) -> Result<(), Failure>;

    /// What [`Store::put_setting`] stored.
    fn setting(&self, name: &str) -> Option<&[u8]>;

    /// The queue of this name.
    fn queue(&self, wall_ms: u64, name: &Name) -> Option<QueueInfo>;

    /// At most `limit` queues by name, beginning after the name `after`.
    fn queues(&self, wall_ms: u64, after: Option<&str>, limit: usize) -> Vec<QueueInfo>;

    /// Shows entries of a queue to `each`, class by class, oldest first: passes over `skip`, then
    /// at most `limit`. Committed ones only.
    fn peek(
        &mut self,
        queue: QueueId,
        skip: u64,
        limit: usize,
        each: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<(), Failure>;

    /// Drops all entries of a queue, or those of the records named.
    ///
    /// # Errors
    /// [`Failure::Full`] when there is no such queue.
    fn purge(&mut self, queue: QueueId, ids: Option<&[RecordId]>) -> Result<Purge, Failure>;

    /// Removes a queue with its entries. Whether there was one.
    fn forget_queue(&mut self, queue: QueueId) -> bool;

    /// The record of one entry of a queue. Whether it is there.
    fn entry(
        &mut self,
        queue: QueueKey,
        position: Position,
        each: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<bool, Failure>;

    /// Shows committed records from ordinal `from` on, in the order in which they were stored,
    /// until `each` answers false or about `bytes_max` bytes were looked at. Answers the ordinal
    /// to go on from.
    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        each: &mut dyn FnMut(u64, &Record<'_>) -> bool,
    ) -> Result<u64, Failure>;

    /// Shows the current record of a type and key, the one with the latest origin time, with its
    /// ordinal. Whether there is one.
    fn latest(
        &mut self,
        message_type: &str,
        key: &[u8],
        each: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<bool, Failure>;

    /// Makes a consumer and its queue, or leaves it as it is. `from_start`: a new one begins with
    /// the matching records that the log holds.
    fn create_consumer(
        &mut self,
        wall_ms: u64,
        consumer: &Consumer,
        from_start: bool,
    ) -> Result<QueueId, PostError>;

    /// All consumers, by name.
    fn consumers(&self) -> Vec<Consumer>;

    /// Removes a consumer, its queue and its dead letters. Whether there was one.
    fn remove_consumer(&mut self, name: &Name) -> bool;

    /// What has been counted.
    fn counters(&self) -> Counters;

    /// Bytes of the log on disk, spare segments included.
    fn log_bytes(&self) -> u64;

    /// The first ordinal held, and the end of what readers may see.
    fn ordinals(&self) -> [u64; 2];

    /// Commits and leaves the medium as a clean end leaves it.
    fn close(&mut self) -> Result<(), Failure>;

    /// Whether something waits for [`Store::commit`].
    fn dirty(&self) -> bool;

    /// Writes and syncs everything that came since the last commit, as one. After
    /// [`Failure::Io`] the store takes nothing more: what is on the medium is not known, and only
    /// a restart tells.
    fn commit(&mut self) -> Result<(), Failure>;

    /// The number of the last batch committed, in a log that several hubs hold; otherwise 0.
    fn committed_number(&self) -> u64 {
        0
    }

    /// As many standbys as must hold the batches up to this number: readers may see them now. Answers
    /// the last one through which they do.
    fn show_through(&mut self, number: u64) -> u64 {
        number
    }
}
