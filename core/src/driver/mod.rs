//! Loops that drive a [`Leaf`] on a device over one line.
//!
//! [`Session`] is all of it but the line: it frames, keeps what has arrived in part, does what the
//! machine orders at a [`Store`], and says what is to be written. [`blocking::turn`] moves its
//! bytes over `embedded-io`, [`asynchronous::turn`] over `embedded-io-async`. Features are named
//! after the versions of those traits; no other module of this crate names them.
//!
//! ```text
//! application    store: records in, records out           session: everything between
//! loop {         turn(session, line, store, ...)  ->  Turn::Wait(wake), or open or close the line
//!                post to the store, read sensors, sleep until `wake` or a byte
//! }
//! ```

#[cfg(feature = "embedded-io-async-07")]
pub mod asynchronous;
#[cfg(feature = "embedded-io-07")]
pub mod blocking;
mod part;
mod session;

pub use session::{Buffers, BuffersError, Framing, Session, Step};

use crate::contract::{Failure, SkipReason};
use crate::leaf::LeafEvent;
use crate::stream::{Cursor, Epoch, Position, QueueKey, StreamKey};
use crate::wire::Records;

#[cfg(doc)]
use crate::leaf::Leaf;

/// Most bytes that a turn reads from the line at once.
const CHUNK_BYTES: usize = 64;

/// How far an own queue is. Of a class that is never used, all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct QueueState {
    /// The life of the log.
    pub epoch: Epoch,
    /// Everything before is acknowledged.
    pub released: Position,
    /// The number of entries that the queue has ever held.
    pub next: Position,
}

/// What a store copied for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Fill {
    /// So many bytes, which are these records.
    Records(Records, usize),
    /// Records up to `next` are not there any more.
    Gone {
        /// The first that is there; after the one asked for.
        next: Position,
        /// Why the others are not.
        reason: SkipReason,
    },
}

/// What a device keeps: its own queue, and how far it has taken the queues of its hub.
///
/// Records arrive one by one with [`Store::take`] and are made durable together, with the place
/// that they end at, by [`Store::commit`]: so each counts once, whenever the power fails.
pub trait Store {
    /// How far an own queue is.
    fn queue(&mut self, queue: QueueKey) -> QueueState;

    /// Copies what an own queue holds from `first` on to `out`: whole records, or a part of the
    /// first. Asked only for what [`Self::queue`] says is there.
    ///
    /// # Errors
    /// The link is given up, and all of it tried again later.
    fn fill(&mut self, queue: QueueKey, first: Cursor, out: &mut [u8]) -> Result<Fill, Failure>;

    /// Entries of an own queue before `through` are no longer needed.
    fn release(&mut self, queue: QueueKey, through: Position);

    /// The epoch and place in which a stream of that owner, queue and class was taken; `None` when
    /// it never was.
    fn place(&mut self, stream: &StreamKey) -> Option<(Epoch, Position)>;

    /// Takes one whole record, unchecked. It counts only with the next [`Self::commit`].
    ///
    /// # Errors
    /// Neither it nor those since the last commit count.
    fn take(&mut self, stream: &StreamKey, record: &[u8]) -> Result<(), Failure>;

    /// Makes durable, as one, what was taken since the last commit and that the stream was taken up
    /// to `next` in its epoch, whatever its place was before.
    ///
    /// # Errors
    /// None of it counts.
    fn commit(&mut self, stream: &StreamKey, next: Position) -> Result<(), Failure>;

    /// What was taken since the last commit does not count.
    fn discard(&mut self);

    /// Where the reader of an own queue goes on that was `position` far in the life `epoch` of this
    /// log, or in a copy of it that is gone; see [`crate::stream::place_after`].
    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position;

    /// Something has happened that people may want to know.
    fn event(&mut self, event: LeafEvent) {
        let _ = event;
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Turn {
    /// Everything is done until the line has bytes, the store has more, or this time.
    Wait(Option<crate::time::Instant>),
    /// Open the line; then [`Session::connected`] or [`Session::disconnected`]. Never on lines that
    /// are always there, unless they are secured: then draw randomness, for `Session::secure`.
    Connect,
    /// Close the line; then [`Session::disconnected`].
    Disconnect,
    /// A broken invariant; the machine does nothing more.
    Halted(&'static str),
}
