//! What driving a machine takes of a store, and no more: the part of the runtime's [`Store`] that
//! the model store has to play. Every real store has it.

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::stream::{Cursor, Epoch, Name, Position, QueueId, QueueKey, RecordId, StreamKey};
use replcore::wire::Records;
use replcore_runtime::store::{
    Arrival, Fill, Growth, Holding, Identity, PostError, Posted, QueueKind, Route, Store,
};

/// A store, as a driver of a machine needs it. Documented at [`Store`].
pub trait Keeper {
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

    /// Notes that an incoming stream goes on at `position` in the epoch of `source`.
    fn place(&mut self, source: &StreamKey, position: Position) -> Result<(), Failure>;

    /// The last epoch in which something was taken of the owner, queue and class of `source`, and
    /// how far the stream was taken and made durable in that epoch, counting the part of a record
    /// kept in memory.
    fn inbound(&mut self, source: &StreamKey) -> (Epoch, Cursor);

    /// Makes sure that a queue exists.
    ///
    /// # Errors
    /// The table of queues is full, or another name has the same id; nothing has changed.
    fn ensure_queue(&mut self, name: &Name, kind: QueueKind) -> Result<QueueId, PostError>;

    /// What a queue holds. Until [`Keeper::unwatch`] its growth is reported by [`Keeper::grown`].
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

    /// Where a reader of an own queue goes on that was `position` far in the life `epoch`.
    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position;

    /// The identities of all records in the log, oldest first.
    fn held(&mut self) -> Vec<RecordId>;

    /// Whether something waits for [`Keeper::commit`].
    fn dirty(&self) -> bool;

    /// Writes and syncs everything that came since the last commit, as one.
    fn commit(&mut self) -> Result<(), Failure>;
}

impl<S: Store> Keeper for S {
    fn identity(&self) -> Identity {
        Store::identity(self)
    }

    fn restore(&self, each: &mut dyn FnMut(Key, &[u8])) {
        Store::restore(self, each)
    }

    fn post(
        &mut self,
        wall_ms: u64,
        bytes: &mut [u8],
        route: &mut dyn Route,
    ) -> Result<Posted, PostError> {
        Store::post(self, wall_ms, bytes, route)
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
        Store::take(self, wall_ms, source, records, bytes, arrival, route)
    }

    fn take_skip(
        &mut self,
        source: &StreamKey,
        first: Position,
        next: Position,
        reason: SkipReason,
    ) -> Result<(), Failure> {
        Store::take_skip(self, source, first, next, reason)
    }

    fn place(&mut self, source: &StreamKey, position: Position) -> Result<(), Failure> {
        Store::place(self, source, position)
    }

    fn inbound(&mut self, source: &StreamKey) -> (Epoch, Cursor) {
        Store::inbound(self, source)
    }

    fn ensure_queue(&mut self, name: &Name, kind: QueueKind) -> Result<QueueId, PostError> {
        Store::ensure_queue(self, name, kind)
    }

    fn watch(&mut self, queue: QueueKey, link: LinkId, stream: StreamIndex) -> Option<Holding> {
        Store::watch(self, queue, link, stream)
    }

    fn unwatch(&mut self, link: LinkId) {
        Store::unwatch(self, link)
    }

    fn grown(&mut self) -> Option<Growth> {
        Store::grown(self)
    }

    fn fill(
        &mut self,
        wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure> {
        Store::fill(self, wall_ms, queue, first, bytes_max, out)
    }

    fn release(&mut self, queue: QueueKey, through: Position) {
        Store::release(self, queue, through)
    }

    fn dead_letter(&mut self, queue: QueueKey, position: Position) -> Result<(), Failure> {
        Store::dead_letter(self, queue, position)
    }

    fn persist(&mut self, key: Key, state: &[u8]) -> Result<(), Failure> {
        Store::persist(self, key, state)
    }

    fn forget(&mut self, key: Key) {
        Store::forget(self, key)
    }

    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position {
        Store::place_reader(self, queue, epoch, position)
    }

    fn held(&mut self) -> Vec<RecordId> {
        let mut held = Vec::new();
        let mut from = 0;
        loop {
            let before = held.len();
            let next = Store::read(self, from, usize::MAX, &mut |_, record| {
                held.push(record.id());
                true
            });
            match next {
                Ok(next) if held.len() > before && next > from => from = next,
                _ => return held,
            }
        }
    }

    fn dirty(&self) -> bool {
        Store::dirty(self)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        Store::commit(self)
    }
}
