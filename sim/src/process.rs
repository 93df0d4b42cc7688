//! What a simulated node is to the simulation: something that takes stimuli and has effects.
//!
//! Two kinds of process exist: [`crate::host::Host`], a small driver written for the simulation
//! that runs any machine over any store, and the daemon's own engine.

use std::fmt::Debug;

use replcore::contract::{DialIndex, LinkId, Transport};
use replcore::log::crc32c;
use replcore::log::record::{Message, encode};
use replcore::stream::{Name, NodeId, RecordId};
use replcore::time::{Instant, Stamp};
use replcore_runtime::store::{Arrival, PostError};

/// The time as one node sees it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Its monotonic clock.
    pub monotonic: Instant,
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum Stimulus<'a> {
    /// Its wake time has come, or nothing at all.
    Timeout,
    /// A connection is open.
    LinkUp { link: LinkId, dialed: Option<DialIndex>, transport: Transport, peer: Option<NodeId> },
    /// A connection is closed.
    LinkDown { link: LinkId },
    /// A dial came to nothing.
    DialFailed { dial: DialIndex },
    /// Bytes, or one datagram, have arrived.
    Received { link: LinkId, bytes: &'a [u8] },
    /// So many bytes more may be sent.
    Writable { link: LinkId, bytes: u32 },
    /// The disk is ready to sync what waits.
    Commit,
    /// A program posts a message. The answer is an [`Observation::Posted`] or
    /// [`Observation::PostRefused`] with the same mark.
    Post { mark: u64, post: &'a Post },
}

/// A message to post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The class, 0 to 3.
    pub class: u8,
    /// The type.
    pub message_type: &'static str,
    /// The idempotency key; empty for none.
    pub idempotency_key: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl Post {
    /// The record of it, posted at the node `origin`: unnumbered and unstamped, for a store to complete.
    pub(crate) fn record(&self, origin: &Name) -> Vec<u8> {
        let message = Message {
            message_type: self.message_type,
            idempotency_key: &self.idempotency_key,
            origin_name: origin.as_str(),
            body: &self.body,
            ..Message::default()
        };
        let id = RecordId { class: self.class, ..RecordId::default() };
        let mut bytes = vec![0; message.record_bytes().expect("the message is sound")];
        encode(&message, id, Stamp::UNSET, &mut bytes, crc32c).expect("the room is right");
        bytes
    }
}

/// What a process wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum Effect {
    /// Send bytes on a link; on a datagram link they are one datagram.
    Send { link: LinkId, bytes: Vec<u8> },
    /// Open a connection.
    Dial { dial: DialIndex },
    /// Close a connection, once what was sent is out.
    Hangup { link: LinkId },
    /// The process can do nothing more and ends.
    Exit { reason: String },
}

/// What can be seen of a process, for the invariants and the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum Observation {
    /// The process has started, and finds these records in its log.
    Started {
        /// Oldest first.
        held: Vec<RecordId>,
    },
    /// A record is new in its log. Safe only with the next [`Observation::Committed`].
    Stored { id: RecordId, body: Vec<u8>, arrival: Arrival, targets: Vec<Name> },
    /// A record was in its log when it started.
    Found { id: RecordId, body: Vec<u8> },
    /// Everything stored so far is safe.
    Committed,
    /// A post was taken and is safe: the program was told so.
    Posted { mark: u64, id: RecordId, duplicate: bool },
    /// A post was not taken.
    PostRefused { mark: u64, error: PostError },
    /// The consumer at this node has read a record from its queue and acknowledged it.
    Consumed { id: RecordId },
    /// A leaf's registration, as its hub sees it.
    Lease { leaf: NodeId, state: LeaseState },
    /// A rule was broken; seen by the process itself.
    Violation { what: String },
    /// Something for the trace only.
    Note { text: String },
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It holds, from now on or still.
    Registered,
    /// It has ended without renewal.
    Expired,
    /// It was refused.
    Refused,
}

/// A simulated node while it runs.
pub trait Process: Debug {
    /// Takes one stimulus; adds what is to be done and what was seen.
    fn take(
        &mut self,
        now: Now,
        stimulus: Stimulus<'_>,
        effects: &mut Vec<Effect>,
        observations: &mut Vec<Observation>,
    );

    /// Why it could not start, when it could not.
    fn broken(&self) -> Option<String> {
        None
    }

    /// The identities of the records in its log, oldest first.
    fn held(&mut self) -> Vec<RecordId>;

    /// When it wants a [`Stimulus::Timeout`].
    fn wake(&self) -> Option<Instant>;

    /// Whether it waits for a [`Stimulus::Commit`].
    fn dirty(&self) -> bool;

    /// Most bytes that a link must be able to hold, so that the largest frame passes.
    fn frame_bytes_max(&self) -> u32;
}
