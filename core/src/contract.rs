//! Driving a machine: feed, drain, sleep.
//!
//! Every machine of this crate, and both compositions ([`crate::leaf`], [`crate::node`]), is driven
//! the same way:
//!
//! ```text
//! handle(now, input)  ->  poll, act; poll, act; ... Idle { wake }  ->  wait  ->  handle ...
//! ```
//!
//! Rules for a driver:
//!
//! 1. Before the first `handle`, feed back stored state with [`Machine::restore`], in any order.
//! 2. Every turn: one `handle` or one command, then `poll` until [`Output::Idle`]. Do what each
//!    output asks, in order. Bytes in the buffer are valid until the next `poll`.
//! 3. After `Idle`, wait for input or until `wake`, whichever is first; at `wake` give
//!    [`Input::Timeout`]. Early, late or needless ones are harmless. `wake` is never in the past.
//! 4. [`Input::Recv`] answers how many bytes were taken, always whole frames; every other input
//!    answers 0. Keep the rest in front of what arrives next. Offer it again when more arrives, and
//!    after a drain in which the link had an order to take or skip bytes, or [`Output::Resume`].
//! 5. [`Input::Writable`] adds credit, in bytes; credit dies with the link. Nothing is sent
//!    without it. Grant at least one frame of the largest size when the link's buffer is empty.
//! 6. Completions ([`Input::Persisted`], [`Input::Taken`], [`Input::Sent`], [`Input::Answer`])
//!    may come in any order across streams and must come in order within one. The machine itself
//!    withholds what depends on them: a driver cannot acknowledge too early.
//! 7. Link ids are small numbers below the configured number of links, chosen by the driver. After
//!    `LinkDown` was handled no output names that link, and the driver reports nothing more for
//!    it; then the number may be used again.
//! 8. A skipped drain is never unsafe and loses no state, but answers come later. Drain before
//!    sleeping.
//! 9. Same configuration, seed, restored state, inputs, commands and order: same outputs, byte for
//!    byte.
//!
//! Records do not pass through a machine. It decides; the driver moves the bytes between its log
//! and its links by position ([`Output::SendRecords`], [`Output::TakeRecords`]).

use core::fmt::Debug;

use crate::stream::{Cursor, Epoch, NodeId, Position, QueueId, QueueKey, StreamKey};
use crate::time::Instant;

/// What every machine can do. See the [module](self) for the rules of driving one.
pub trait Machine {
    /// What it tells the application.
    type Event: Copy + Debug;

    /// Gives back a record that an earlier life asked to [`Output::Persist`] and did not forget.
    ///
    /// # Errors
    /// Nothing has changed; the machine works without that record.
    fn restore(&mut self, key: Key, record: &[u8]) -> Result<(), RestoreError>;

    /// Takes one input at the time `now`. Bounded work. Returns the bytes taken of a
    /// [`Input::Recv`], 0 for every other input.
    fn handle(&mut self, now: Instant, input: Input<'_>) -> usize;

    /// The next thing to do, [`Output::Idle`] when there is none. Repeated at `Idle` it answers
    /// the same in constant time. `buf` needs [`crate::wire::CONTROL_FRAME_BYTES_MAX`] bytes; with
    /// fewer it may answer [`Output::NeedBuffer`] and nothing is lost.
    fn poll(&mut self, buf: &mut [u8]) -> Output<Self::Event>;
}

/// A connection, numbered by the driver: below the configured number of links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LinkId(pub u32);

/// A stream of one link, numbered by its sender: below [`crate::wire::STREAMS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StreamIndex(pub u8);

/// One of the places a node was configured to dial, in the order of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DialIndex(pub u16);

/// Names an order whose completion the driver reports. Rises within one life of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Token(pub u64);

/// What a persisted record is about. A later record with the same key replaces the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Key {
    /// The registration of this leaf at this hub.
    Registration(NodeId),
    /// The term of this member and its vote in it.
    Ballot,
    /// The configuration of this member's cluster.
    Members,
    /// The latest term in which a hub of this name has taken this node in, or, of this node's own
    /// name, in which it led: a [`crate::lease::HubTerm`].
    Term(NodeId),
}

/// What a link can do to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Transport {
    /// Keeps order and loses nothing until it breaks: TCP, TLS, a Unix socket. `Recv` may bring
    /// any part of a frame.
    Stream,
    /// May lose, repeat, reorder or drop damaged frames: a serial line under COBS, UDP. Each
    /// `Recv` brings one whole frame, and what is not taken of it is gone.
    Datagram,
}

/// What the driver tells a machine.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Time has passed.
    Timeout,
    /// A link is open.
    LinkUp {
        /// The number the driver gave it.
        link: LinkId,
        /// The order that it fulfils, when this node dialled.
        dialed: Option<DialIndex>,
        /// What it does to frames.
        transport: Transport,
        /// Who the other end has proved to be, when the layer below authenticates.
        identity: Option<NodeId>,
    },
    /// A dial failed, or an open link is closed. Credit and orders of the link are void.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// A dial failed before there was a link.
    DialFailed {
        /// Which order.
        dial: DialIndex,
    },
    /// Bytes have arrived.
    Recv {
        /// Where.
        link: LinkId,
        /// All that is there and was not taken yet.
        data: &'a [u8],
    },
    /// The link can take this many bytes more.
    Writable {
        /// Which.
        link: LinkId,
        /// Bytes added to its credit.
        bytes: u32,
    },
    /// A [`Output::Persist`] is safe.
    Persisted {
        /// The token of the order.
        token: Token,
    },
    /// A [`Output::Persist`] could not be done.
    Failed {
        /// The token of the order.
        token: Token,
        /// Why.
        reason: Failure,
    },
    /// A [`Output::SendRecords`] was written to the link's buffer, in one frame.
    Sent {
        /// The link of the order.
        link: LinkId,
        /// The stream of the order.
        stream: StreamIndex,
        /// Where the next order starts.
        next: Cursor,
        /// Bytes of records sent, before compression.
        bytes: u32,
        /// Bytes that the frame took of the link's credit.
        wire_bytes: u32,
    },
    /// The records from where a [`Output::SendRecords`] would start up to `next` are not there
    /// any more, or not to be sent.
    Gone {
        /// The link of the order.
        link: LinkId,
        /// The stream of the order.
        stream: StreamIndex,
        /// The first that is there.
        next: Position,
        /// Why the others are not.
        reason: SkipReason,
    },
    /// Everything before `next` of an incoming stream is safe, at the level the store gives.
    Taken {
        /// The link of the orders.
        link: LinkId,
        /// The stream of the orders.
        stream: StreamIndex,
        /// Where the stream goes on. Never before an earlier report, but for [`Output::Place`].
        next: Cursor,
        /// Bytes of records, before compression, of the orders that this report completes.
        bytes: u32,
    },
    /// Bytes of a [`Output::TakeRecords`] could not be kept. Bytes of later orders of this stream
    /// are to be thrown away until the machine has asked the sender to go back.
    Refused {
        /// The link of the order.
        link: LinkId,
        /// The stream of the order.
        stream: StreamIndex,
        /// Why.
        reason: Failure,
    },
    /// An outgoing queue that was asked for with [`Query::Outbound`] has grown.
    Appended {
        /// The link that asked.
        link: LinkId,
        /// Its stream.
        stream: StreamIndex,
        /// The number of entries that the queue has ever held.
        next: Position,
    },
    /// The answer to an [`Output::Ask`].
    Answer {
        /// The token of the question.
        token: Token,
        /// What the store knows.
        answer: Answer,
    },
}

/// Why something could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// No space; tried again later.
    Full,
    /// The bytes are not what they should be.
    Corrupt,
    /// The medium does not work.
    Io,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "no space",
            Self::Corrupt => "damaged bytes",
            Self::Io => "reading or writing fails",
        })
    }
}

/// Why a receiver will not get a range of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SkipReason {
    /// Its time to live ended before it was sent.
    Expired,
    /// The queue was at its limit and drops the oldest.
    Dropped,
    /// An operator purged it.
    Purged,
    /// The medium lost it.
    Lost,
    /// The receiver's own log was set back, and the sender no longer holds what it had
    /// acknowledged before.
    Forgotten,
}
crate::wire::payload::choice!(SkipReason { Expired, Dropped, Purged, Lost, Forgotten });

/// What a machine asks of the store. The answer comes as [`Input::Answer`], now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Query {
    /// How far an incoming stream was taken: [`Answer::Inbound`].
    Inbound(StreamKey),
    /// What an own queue holds: [`Answer::Outbound`]. From then on until `LinkDown` the driver
    /// reports every growth of it with [`Input::Appended`]. The name of the queue is in the buffer.
    Outbound {
        /// Who reads it.
        link: LinkId,
        /// The stream it will be.
        stream: StreamIndex,
        /// Which queue and class.
        queue: QueueKey,
    },
    /// Where a reader of an own queue goes on that has its place from an earlier life of this log, or
    /// from a copy of it that is gone: [`Answer::Place`], found by [`crate::stream::place_after`].
    Place {
        /// The queue and class.
        queue: QueueKey,
        /// The life that the reader names.
        epoch: Epoch,
        /// What it had taken in that life.
        position: Position,
    },
    /// Whether a client may read as the consumer whose [`crate::wire::Subscribe`] is in the
    /// buffer: [`Answer::Subscribed`] or [`Answer::Denied`].
    Subscribe {
        /// Where the client is.
        link: LinkId,
        /// The queue of the consumer.
        queue: QueueId,
    },
}

/// What a store answers to a [`Query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Answer {
    /// To [`Query::Inbound`].
    Inbound {
        /// The last epoch in which something of that owner, queue and class was taken; the one asked
        /// for when nothing was.
        epoch: Epoch,
        /// How far the stream was taken, in that epoch.
        cursor: Cursor,
    },
    /// To [`Query::Outbound`].
    Outbound {
        /// The life of this log.
        epoch: Epoch,
        /// Everything before is acknowledged.
        released: Position,
        /// The number of entries that the queue has ever held.
        next: Position,
        /// Nobody else can have an entry from here on in this life of the log: those before were
        /// acknowledged, read from the queue since the log was opened, or answered as a place. A
        /// reader that has more has it from another queue of this name. `next` from a driver that
        /// cannot tell.
        sent: Position,
    },
    /// To [`Query::Place`].
    Place {
        /// The reader goes on here.
        position: Position,
    },
    /// The consumer exists now.
    Subscribed,
    /// The consumer may not be read, or there is no room for one more queue.
    Denied,
}

/// What a machine asks of its driver. Exhaustive on purpose: no driver may pass over an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<E> {
    /// Write `buf[..len]`, one whole frame, to the link. Within the credit.
    Send {
        /// Where.
        link: LinkId,
        /// Bytes.
        len: usize,
    },
    /// Write one frame of records of an own queue, made with [`crate::wire::records_header`]:
    /// whole records from `first` on, or a part of one, at most `bytes_max` bytes of them and
    /// within the frame limit. Answer [`Input::Sent`], or [`Input::Gone`].
    SendRecords {
        /// Where.
        link: LinkId,
        /// Its number on the link.
        stream: StreamIndex,
        /// The queue and class.
        queue: QueueKey,
        /// Where to start.
        first: Cursor,
        /// Most bytes of records, before compression.
        bytes_max: u32,
        /// To be written in the frame's [`crate::wire::Records::round`].
        round: u8,
    },
    /// Take the next `len` bytes of the link: records of an incoming stream. Check them, keep
    /// them, answer [`Input::Taken`] once they are safe, or [`Input::Refused`].
    TakeRecords {
        /// Where from.
        link: LinkId,
        /// Its number on the link.
        stream: StreamIndex,
        /// Which stream.
        source: StreamKey,
        /// What the frame says of the bytes.
        records: crate::wire::Records,
        /// How many.
        len: u32,
    },
    /// Note that a range of an incoming stream will not come; then answer [`Input::Taken`].
    TakeSkip {
        /// Where from.
        link: LinkId,
        /// Its number on the link.
        stream: StreamIndex,
        /// Which stream.
        source: StreamKey,
        /// From here,
        first: Position,
        /// up to here, exclusive.
        next: Position,
        /// Why.
        reason: SkipReason,
    },
    /// Throw away the next `len` bytes of the link: what they say is had already.
    SkipBytes {
        /// Where from.
        link: LinkId,
        /// How many.
        len: u32,
    },
    /// Take the next `len` bytes of the link: a call or reply of an application, passed on whole.
    TakeCall {
        /// Where from.
        link: LinkId,
        /// Pairs a reply with its call.
        id: u32,
        /// Whether it is a reply.
        reply: bool,
        /// How many bytes.
        len: u32,
    },
    /// Entries of an own queue before `through` are acknowledged and no longer needed by it.
    Release {
        /// The queue and class.
        queue: QueueKey,
        /// Everything before.
        through: Position,
    },
    /// A consumer refused the entry: move it to the dead letters of that queue. It is released
    /// with the next [`Output::Release`].
    DeadLetter {
        /// The consumer's queue and class.
        queue: QueueKey,
        /// The entry.
        position: Position,
    },
    /// The owner of an incoming stream says where it goes on in the present life of the owner's log.
    /// Note that place in `source`, whatever was noted of the stream before; then answer
    /// [`Input::Taken`], or [`Input::Refused`].
    Place {
        /// Where from.
        link: LinkId,
        /// Its number on the link.
        stream: StreamIndex,
        /// Which stream, in the present life.
        source: StreamKey,
        /// Everything before is had.
        position: Position,
    },
    /// Answer the question with [`Input::Answer`]; `buf[..len]` goes with it.
    Ask {
        /// For the answer.
        token: Token,
        /// What is asked.
        query: Query,
        /// Bytes of the question in the buffer.
        len: usize,
    },
    /// Open a link there; then [`Input::LinkUp`] or [`Input::DialFailed`].
    Dial {
        /// Where.
        dial: DialIndex,
    },
    /// Close the link once what was written is out, within the driver's deadline; then
    /// [`Input::LinkDown`].
    Hangup {
        /// Which.
        link: LinkId,
    },
    /// Offer the bytes that were not taken again.
    Resume {
        /// Of this link.
        link: LinkId,
    },
    /// Store `buf[..len]` under `key` in place of what it held; then [`Input::Persisted`] or
    /// [`Input::Failed`].
    Persist {
        /// The key.
        key: Key,
        /// For the answer.
        token: Token,
        /// Bytes.
        len: usize,
    },
    /// Remove what is stored under `key`. No answer.
    Forget {
        /// The key.
        key: Key,
    },
    /// Tell the application; `buf[..len]` goes with it.
    Event {
        /// What happened.
        event: E,
        /// Bytes of detail in the buffer.
        len: usize,
    },
    /// The buffer is too small; nothing is lost. Poll again with this many bytes.
    NeedBuffer {
        /// How many.
        len: usize,
    },
    /// A broken invariant that cannot be contained. The machine does nothing more.
    Halted {
        /// Which.
        reason: &'static str,
    },
    /// Nothing more for now.
    Idle {
        /// When to give [`Input::Timeout`]; `None` for not before other input.
        wake: Option<Instant>,
    },
}

/// Why a stored record was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RestoreError {
    /// Not a record of this machine, or of a later version.
    Malformed,
    /// No room for it in the memory given.
    Full,
    /// The machine has handled input already.
    Started,
}

/// The examples of `docs/driving-a-machine.md` run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/driving-a-machine.md")]
pub struct DrivingAMachine;
