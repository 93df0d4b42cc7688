//! What a leading hub and its standbys say to each other, and the connection it goes over.
//!
//! ```text
//! 0   u32  bytes that follow the checksum
//! 4   u32  crc32c of them
//! 8        the message, postcard
//! ```

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::driver::Stream;
use crate::store::Head;

/// The version of these messages.
pub(super) const VERSION: u8 = 2;
const HEADER_BYTES: usize = 8;
/// Longest message taken: the largest batch and the state of the largest store fit. Memory is taken
/// as bytes arrive, not as they are announced.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// One message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The first from whoever dialled.
    Hello {
        version: u8,
        /// The hub that they are together.
        hub: String,
        /// Who asks.
        member: String,
        /// The term in which it leads; 0 for one that only asks how far the other is.
        term: u64,
        /// Where it takes leaves; empty when that is not known.
        address: String,
    },
    /// The answer of a standby: who it is, and where its log and a copy that was broken off end.
    Welcome(Welcome),
    /// The answer of one that has heard of a later term, or is another hub.
    Refused { term: u64, reason: String },
    /// A batch; see `SegmentStore::follow`.
    Batch(#[serde(with = "serde_bytes_vec")] Vec<u8>),
    /// A copy begins; the cursor is for [`CopyPlace`].
    CopyStart {
        #[serde(with = "serde_bytes_vec")]
        state: Vec<u8>,
        #[serde(with = "serde_bytes_vec")]
        cursor: Vec<u8>,
    },
    /// The copy of which the standby has told goes on.
    CopyResume,
    /// A part of it, and the place behind.
    CopyPart {
        #[serde(with = "serde_bytes_vec")]
        part: Vec<u8>,
        #[serde(with = "serde_bytes_vec")]
        place: Vec<u8>,
    },
    /// It is whole once the batch of this number is there.
    CopyEnd { through: u64 },
    /// Everything up to this batch is safe at the standby; 0 while it takes a copy. The end of its
    /// records, and how many bytes of batches and parts it has stored since the greeting.
    Synced { number: u64, ordinal: u64, bytes: u64 },
    /// Nothing; says that the other end is there.
    Alive,
}

/// Who a standby is, and how far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) member: String,
    pub(super) instance: u64,
    /// Where its log ends.
    pub(super) head: Head,
    /// The end of its records.
    pub(super) ordinal: u64,
    pub(super) copy: Option<CopyPlace>,
}

/// Where a copy stands that was broken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CopyPlace {
    /// Of the leader that gave it: the log of another may lack what parts of it have in them.
    pub(super) term: u64,
    #[serde(with = "serde_bytes_vec")]
    pub(super) cursor: Vec<u8>,
    /// Behind the last part; empty before the first.
    #[serde(with = "serde_bytes_vec")]
    pub(super) place: Vec<u8>,
    /// All parts are there.
    pub(super) done: bool,
    /// The last batch that it has.
    pub(super) head: Head,
}

/// Bytes as one run, which `Vec<u8>` by itself is not for serde.
mod serde_bytes_vec {
    use serde::de::{Deserializer, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// What a wait on a connection has brought.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    Message(Message),
    /// All that was queued is written.
    Written,
}

/// A connection between a leading hub and a standby.
pub(super) struct Connection {
    stream: Stream,
    inbox: Vec<u8>,
    /// Bytes of `inbox` that were taken.
    taken: usize,
    out: Vec<u8>,
    /// Bytes of `out` that were written.
    written: usize,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, inbox: Vec::new(), taken: 0, out: Vec::new(), written: 0 }
    }

    /// Queues a message; [`Connection::next`] writes it.
    pub(super) fn queue(&mut self, message: &Message) {
        let at = self.out.len();
        self.out.resize(at + HEADER_BYTES, 0);
        // Into a vector, writing cannot fail.
        let Ok(out) = postcard::to_extend(message, std::mem::take(&mut self.out)) else { return };
        self.out = out;
        let (head, body) = self.out[at..].split_at_mut(HEADER_BYTES);
        head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    }

    /// Bytes that wait to be written.
    pub(super) fn queued_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Waits for a message, or until what was queued is written. Can be dropped and called again.
    ///
    /// # Errors
    /// The connection is at its end, or the other side does not keep to the format.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Connection::next`], for a message only, within a time.
    ///
    /// # Errors
    /// As there, or nothing came in time.
    pub(super) async fn message(&mut self, within: Duration) -> io::Result<Message> {
        let wait = async {
            loop {
                if let Event::Message(message) = self.next().await? {
                    return Ok(message);
                }
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing came in time");
        tokio::time::timeout(within, wait).await.map_err(late)?
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        let had = self.queued_bytes() > 0;
        let wrote = self.poll_write(cx)?;
        if let Some(message) = self.parse()? {
            return Poll::Ready(Ok(Event::Message(message)));
        }
        if had && wrote {
            return Poll::Ready(Ok(Event::Written));
        }
        loop {
            let end = self.inbox.len();
            self.inbox.resize(end + READ_BYTES, 0);
            let read = self.stream.poll_read(cx, &mut self.inbox[end..]);
            self.inbox.truncate(end + if let Poll::Ready(Ok(bytes)) = read { bytes } else { 0 });
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(_)) => {}
            }
            if let Some(message) = self.parse()? {
                return Poll::Ready(Ok(Event::Message(message)));
            }
        }
    }

    /// Writes what can be written; whether that was all.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.written < self.out.len() {
            match self.stream.poll_write(cx, &self.out[self.written..])? {
                Poll::Ready(bytes) => self.written += bytes,
                Poll::Pending => break,
            }
        }
        let all = self.written == self.out.len();
        if all {
            self.out.clear();
            self.written = 0;
            self.out.shrink_to(READ_BYTES);
        }
        Ok(self.stream.poll_flush(cx)?.is_ready() && all)
    }

    /// A message that is there already.
    ///
    /// # Errors
    /// The other side does not keep to the format.
    pub(super) fn parse(&mut self) -> io::Result<Option<Message>> {
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let waiting = &self.inbox[self.taken..];
        let Some((head, rest)) = waiting.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let bytes = number(0) as usize;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(malformed("a message is longer than any may be"));
        }
        let Some(body) = rest.get(..bytes) else {
            if self.taken > 0 {
                self.inbox.drain(..self.taken);
                self.taken = 0;
            }
            return Ok(None);
        };
        if crc32c::crc32c(body) != number(4) {
            return Err(malformed("a message does not match its checksum"));
        }
        let message =
            postcard::from_bytes(body).map_err(|_| malformed("a message does not decode"))?;
        self.taken += HEADER_BYTES + bytes;
        if self.taken == self.inbox.len() {
            self.inbox.clear();
            self.inbox.shrink_to(2 * READ_BYTES);
            self.taken = 0;
        }
        Ok(Some(message))
    }
}
