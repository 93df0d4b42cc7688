//! Where a node keeps its records: the [`Store`] trait and the embedded store behind it.
//!
//! A node has one log. A queue is an index of places in it. Everything that a call changes becomes
//! durable together, with the next [`Store::commit`]; only after it may anything be acknowledged.

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::log::record::{MessageError, Record};
use replcore::stream::{
    Cursor, Epoch, Name, NodeId, Position, QueueId, QueueKey, RecordId, StreamKey,
};
use replcore::wire::Records;

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
    /// On error nothing of these bytes was stored.
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

    /// The greatest epoch known of the owner, queue and class of `source`, and how far the stream
    /// was taken and made durable in that epoch, counting the part of a record kept in memory.
    fn inbound(&self, source: &StreamKey) -> (Epoch, Cursor);

    /// Makes sure that a queue exists.
    ///
    /// # Errors
    /// The table of queues is full, or another name has the same id; nothing has changed.
    fn ensure_queue(&mut self, name: &Name, kind: QueueKind) -> Result<QueueId, PostError>;

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

    /// Entries of an own queue before `through` are acknowledged.
    fn release(&mut self, queue: QueueKey, through: Position);

    /// Puts an entry of a consumer's queue into its dead letters.
    fn dead_letter(&mut self, queue: QueueKey, position: Position) -> Result<(), Failure>;

    /// Stores a machine's state under `key`.
    fn persist(&mut self, key: Key, state: &[u8]) -> Result<(), Failure>;

    /// Removes a machine's state.
    fn forget(&mut self, key: Key);

    /// Takes a new epoch: every record of this node that some upstream queue still holds gets a new
    /// identity, and all own queues start anew at position 0 with what they hold.
    fn renumber(&mut self, epoch: Epoch) -> Result<(), Failure>;

    /// Whether something waits for [`Store::commit`].
    fn dirty(&self) -> bool;

    /// Writes and syncs everything that came since the last commit, as one. After an error the
    /// store takes nothing more: what is on the medium is not known, and only a restart tells.
    fn commit(&mut self) -> Result<(), Failure>;
}
