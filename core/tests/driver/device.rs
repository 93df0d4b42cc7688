//! What a device is made of: a line and a store, in memory.

use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;
use std::collections::VecDeque;
use std::rc::Rc;

use replcore::contract::{Failure, SkipReason};
use replcore::driver::{Fill, QueueState, Store};
use replcore::log::crc32c;
use replcore::log::record::Record;
use replcore::stream::{Cursor, Epoch, NodeId, Position, QueueKey, StreamKey};

use crate::records;

/// Bytes under way, each way.
#[derive(Clone, Default)]
pub(crate) struct Line(pub(crate) Rc<RefCell<LineBytes>>);

#[derive(Default)]
pub(crate) struct LineBytes {
    pub(crate) to_hub: Vec<u8>,
    pub(crate) to_device: VecDeque<u8>,
    /// The connection has ended: reading says so once all is read.
    pub(crate) ended: bool,
}

impl Line {
    fn read_now(&self, buf: &mut [u8]) -> Option<usize> {
        let bytes = &mut self.0.borrow_mut();
        if bytes.to_device.is_empty() && !bytes.ended {
            return None;
        }
        let count = buf.len().min(bytes.to_device.len());
        for place in &mut buf[..count] {
            *place = bytes.to_device.pop_front().unwrap();
        }
        Some(count)
    }
}

impl embedded_io::ErrorType for Line {
    type Error = Infallible;
}

impl embedded_io::Read for Line {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
        Ok(self.read_now(buf).expect("a turn reads only what is there"))
    }
}

impl embedded_io::ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        let bytes = self.0.borrow();
        Ok(!bytes.to_device.is_empty() || bytes.ended)
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, buf: &[u8]) -> Result<usize, Infallible> {
        // In pieces, as a port takes them.
        let count = buf.len().min(100);
        self.0.borrow_mut().to_hub.extend_from_slice(&buf[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl embedded_io_async::Read for Line {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
        poll_fn(|_| match self.read_now(buf) {
            Some(count) => Poll::Ready(Ok(count)),
            None => Poll::Pending,
        })
        .await
    }
}

impl embedded_io_async::Write for Line {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, Infallible> {
        embedded_io::Write::write(self, buf)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A store whose other handle the test holds.
#[derive(Clone)]
pub(crate) struct Memory(pub(crate) Rc<RefCell<MemoryInner>>);

#[derive(Default)]
pub(crate) struct MemoryInner {
    origin: NodeId,
    queue: Vec<Vec<u8>>,
    pub(crate) released: u64,
    /// Records before this are gone.
    pub(crate) held_from: u64,
    place: Option<(StreamKey, Position)>,
    staged: Vec<Vec<u8>>,
    pub(crate) taken: Vec<Vec<u8>>,
    pub(crate) commits: u32,
    /// The next so many commits find no room.
    pub(crate) full: u32,
    /// The next so many reads fail.
    pub(crate) unreadable: u32,
}

impl Memory {
    pub(crate) fn new(origin: NodeId) -> Self {
        Self(Rc::new(RefCell::new(MemoryInner { origin, ..MemoryInner::default() })))
    }

    pub(crate) fn post(&self, body: &[u8]) {
        let inner = &mut self.0.borrow_mut();
        let record = records::record(inner.origin, inner.queue.len() as u64 + 1, body);
        inner.queue.push(record);
    }
}

impl Store for Memory {
    fn queue(&mut self, queue: QueueKey) -> QueueState {
        let inner = self.0.borrow();
        let epoch = Epoch(1 << 16);
        match queue.class == records::CLASS {
            true => QueueState {
                epoch,
                released: Position(inner.released),
                next: Position(inner.queue.len() as u64),
            },
            false => QueueState { epoch, ..QueueState::default() },
        }
    }

    fn fill(&mut self, _: QueueKey, first: Cursor, out: &mut [u8]) -> Result<Fill, Failure> {
        let inner = &mut self.0.borrow_mut();
        if inner.unreadable > 0 {
            inner.unreadable -= 1;
            return Err(Failure::Io);
        }
        if first.position.0 < inner.held_from {
            let next = Position(inner.held_from);
            return Ok(Fill::Gone { next, reason: SkipReason::Dropped });
        }
        let filled = records::fill(&inner.queue, first, out.len(), inner.queue.len());
        let (records, body) = filled.expect("asked only for what is there");
        out[..body.len()].copy_from_slice(&body);
        Ok(Fill::Records(records, body.len()))
    }

    fn release(&mut self, _: QueueKey, through: Position) {
        self.0.borrow_mut().released = through.0;
    }

    fn place(&mut self, stream: &StreamKey) -> Option<(Epoch, Position)> {
        let inner = self.0.borrow();
        let same = |place: &(StreamKey, Position)| place.0.queue == stream.queue;
        inner.place.filter(same).map(|(stream, next)| (stream.epoch, next))
    }

    fn take(&mut self, _: &StreamKey, record: &[u8]) -> Result<(), Failure> {
        let record = Record::check(record, crc32c).map_err(|_| Failure::Corrupt)?;
        self.0.borrow_mut().staged.push(record.body().to_vec());
        Ok(())
    }

    fn commit(&mut self, stream: &StreamKey, next: Position) -> Result<(), Failure> {
        let inner = &mut self.0.borrow_mut();
        if inner.full > 0 {
            inner.full -= 1;
            return Err(Failure::Full);
        }
        let staged = core::mem::take(&mut inner.staged);
        inner.taken.extend(staged);
        inner.place = Some((*stream, next));
        inner.commits += 1;
        Ok(())
    }

    fn discard(&mut self) {
        self.0.borrow_mut().staged.clear();
    }

    fn place_reader(&mut self, _: QueueKey, _: Epoch, _: Position) -> Position {
        panic!("nothing was set back");
    }
}
