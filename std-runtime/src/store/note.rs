//! What the log says beside its records: everything that is durable and is no record.

use replcore::contract::SkipReason;
use replcore::log::record::{ENTRY_HEADER_BYTES, encode_entry};
use serde::{Deserialize, Serialize};

use super::{Consumer, QueueKind};

/// The kind of an entry that holds a [`Note`].
pub(super) const KIND_NOTE: u8 = 2;
/// The most bytes that a note of fixed size takes in a batch.
pub(super) const NOTE_BYTES_MAX: usize = 96;

/// One note. Positions and ordinals are absolute, so that a note counts by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Note {
    /// This batch was written and synced together with the one before it.
    Continues,
    /// Entries were appended to a queue.
    Route { queue: u64, class: u8, position: u64, ordinal: u64, count: u64, bytes: u64, at_ms: u64 },
    /// An incoming stream was taken up to here.
    Cursor { owner: u64, queue: u64, class: u8, epoch: u32, position: u64 },
    /// A queue was made.
    Queue { name: String, kind: QueueKind },
    /// A queue was removed.
    ForgetQueue { queue: u64 },
    /// Entries before `through` are acknowledged.
    Release { queue: u64, class: u8, through: u64 },
    /// Entries went unacknowledged.
    Drop { queue: u64, class: u8, first: u64, next: u64, reason: SkipReason },
    /// A machine's state; empty when it was removed.
    State { tag: u8, id: u64, bytes: Vec<u8> },
    /// An application's setting; empty when it was removed.
    Setting { name: String, bytes: Vec<u8> },
    /// A consumer was made.
    Consumer(Consumer),
    /// A consumer was removed.
    RemoveConsumer { name: String },
    /// The records of this batch are copies; queues name them under these ordinals from now on.
    Copies { first: u64, count: u64 },
    /// An entry of a queue has moved to a copy.
    Moved { queue: u64, class: u8, position: u64, ordinal: u64, count: u64 },
    /// The batch has this number in a log that several hubs hold, and follows the one `before`.
    /// The last note of its batch.
    Numbered { term: u64, number: u64, before: (u64, u32) },
    /// A life of the log begins; the records of this batch belong to it already. The first note
    /// of its batch that is handed on.
    Life { epoch: u32 },
}

impl Note {
    /// Adds the note to `out` as an entry.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let payload = postcard::to_allocvec(self).expect("a note can always be written");
        let at = out.len();
        out.resize(at + ENTRY_HEADER_BYTES + payload.len(), 0);
        encode_entry(KIND_NOTE, &payload, &mut out[at..], crc32c::crc32c)
            .expect("the space was made");
    }

    /// The note in an entry of kind [`KIND_NOTE`]; `None` when it does not decode.
    pub(super) fn read(entry: &[u8]) -> Option<Self> {
        postcard::from_bytes(entry.get(ENTRY_HEADER_BYTES..)?).ok()
    }
}
