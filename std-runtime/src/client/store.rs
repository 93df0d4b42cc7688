//! What a program at a node holds, in memory: records to post, and messages that it reads.

use std::collections::VecDeque;

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::log::record::{Entries, Record};
use replcore::stream::{
    CLASSES, Cursor, Epoch, Life, Name, Position, QueueId, QueueKey, RecordId, StreamKey,
};
use replcore::wire::Records;

use super::outbox::Outbox;
use crate::store::{
    Arrival, Consumer, Counters, Fill, Growth, Holding, Identity, Place, PostError, Posted, Purge,
    QueueInfo, QueueKind, QueueLimits, Route, Store,
};

/// A message that has arrived and was not handed to the program yet.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) source: StreamKey,
    pub(super) position: Position,
    pub(super) bytes: Vec<u8>,
}

/// What was received in one piece: a record, or positions at which nothing comes.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The position behind it.
    end: Position,
    /// Bytes of the record; 0 for a skip.
    bytes: u32,
    /// The checksum of the record, which is over its identity and body.
    checksum: [u8; 4],
}

/// One incoming stream.
#[derive(Debug)]
struct Incoming {
    source: StreamKey,
    /// Settled before this.
    settled: Position,
    /// Handed out or waiting before this.
    received: Position,
    /// Where the stream on the present link is.
    cursor: Cursor,
    /// The other end was told of a place on the present link. What is settled from then on it hears
    /// of when it has sent from there.
    told: bool,
    /// Bytes that came on the present link and were settled before.
    again_bytes: u32,
    /// A record of which not all bytes are there.
    part: Vec<u8>,
    /// What was received from the place on that the other end was told of, or is beyond.
    pieces: VecDeque<Piece>,
    /// Earlier lives of the other log, oldest first, and up to where their positions mean the same.
    lives: Vec<Life>,
}

/// Earlier lives that are remembered of a stream, for messages that the program still holds.
const LIVES_MAX: usize = 64;

#[derive(Debug)]
struct Watch {
    queue: QueueKey,
    link: LinkId,
    stream: StreamIndex,
    told: Position,
}

/// The store of a client. Nothing in it survives the process.
#[derive(Debug)]
pub(crate) struct ClientStore {
    identity: Identity,
    queue: QueueId,
    outboxes: [Outbox; CLASSES],
    watches: Vec<Watch>,
    incoming: Vec<Incoming>,
    pub(super) inbox: VecDeque<Arrived>,
    record_bytes_max: u32,
}

impl ClientStore {
    pub(crate) fn new(identity: Identity, queue: QueueId, record_bytes_max: u32) -> Self {
        Self {
            identity,
            queue,
            outboxes: Default::default(),
            watches: Vec::new(),
            incoming: Vec::new(),
            inbox: VecDeque::new(),
            record_bytes_max,
        }
    }

    pub(super) fn outbox(&mut self, class: u8) -> &mut Outbox {
        &mut self.outboxes[usize::from(class) % CLASSES]
    }

    /// Records and bytes that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> (usize, usize) {
        let records = self.outboxes.iter().map(Outbox::len).sum();
        (records, self.outboxes.iter().map(Outbox::bytes).sum())
    }

    /// The stream, in the present life of the other log, that the message at `position` came on in
    /// the life of `source`. `None` when the other log was set back since and has, or will have,
    /// another there: what it holds comes again.
    pub(super) fn present(&self, source: &StreamKey, position: Position) -> Option<StreamKey> {
        let known = self.incoming.iter().find(|known| known.is(source))?;
        let same = known.source.epoch == source.epoch
            || known.lives.iter().any(|life| life.epoch == source.epoch && position < life.end);
        same.then_some(known.source)
    }

    /// Everything of the stream (of [`ClientStore::present`]) before `through` is settled. Returns
    /// how many bytes of records that are.
    pub(super) fn settle(&mut self, source: &StreamKey, through: Position) -> u32 {
        let Some(incoming) = self.incoming.iter_mut().find(|known| known.source == *source) else {
            return 0;
        };
        let mut bytes = 0u32;
        let first = incoming.pieces.partition_point(|piece| piece.end <= incoming.settled);
        let settles = |piece: &&Piece| piece.end <= through || piece.bytes == 0;
        for piece in incoming.pieces.range(first..).take_while(settles) {
            incoming.settled = piece.end;
            bytes = bytes.saturating_add(piece.bytes);
        }
        incoming.drop_settled();
        bytes
    }

    fn stream(&mut self, source: &StreamKey) -> &mut Incoming {
        let at = self.incoming.iter().position(|known| known.is(source)).unwrap_or_else(|| {
            self.incoming.push(Incoming::new(*source));
            self.incoming.len() - 1
        });
        &mut self.incoming[at]
    }
}

impl Incoming {
    const fn new(source: StreamKey) -> Self {
        Self {
            source,
            settled: Position(0),
            received: Position(0),
            cursor: Cursor::at(Position(0)),
            told: false,
            again_bytes: 0,
            part: Vec::new(),
            pieces: VecDeque::new(),
            lives: Vec::new(),
        }
    }

    /// Whether it is the stream of `source`, in whatever life of the other log.
    fn is(&self, source: &StreamKey) -> bool {
        self.source.owner == source.owner && self.source.queue == source.queue
    }

    /// Where the other end is to go on, as far as it was told.
    fn place_told(&self) -> Position {
        self.settled.min(self.cursor.position)
    }

    /// Another link.
    fn rest(&mut self) {
        self.cursor = Cursor::at(self.settled);
        self.told = false;
        self.again_bytes = 0;
        self.part = Vec::new();
        self.drop_settled();
    }

    /// Forgets settled pieces that do not come again.
    fn drop_settled(&mut self) {
        while self.pieces.front().is_some_and(|piece| piece.end <= self.place_told()) {
            self.pieces.pop_front();
        }
    }

    /// Goes on at `position` in another life of the other log. Whether what was received counts: it
    /// does when the other log has all that it was told of, as far as the same comes again.
    fn place(&mut self, source: &StreamKey, position: Position) -> bool {
        let goes_on = position == self.place_told();
        if goes_on {
            if self.lives.len() >= LIVES_MAX {
                self.lives.remove(0);
            }
            self.lives.push(Life { epoch: self.source.epoch, end: Position(u64::MAX) });
            self.source = *source;
        } else {
            *self = Self { settled: position, received: position, ..Self::new(*source) };
        }
        self.cursor = Cursor::at(position);
        self.told = true;
        self.part = Vec::new();
        goes_on
    }

    /// Takes a whole record; what was handed out before a broken link comes again and is dropped.
    fn push(&mut self, bytes: Vec<u8>, inbox: &mut VecDeque<Arrived>) {
        let position = self.cursor.position;
        let end = Position(position.0 + 1);
        let length = bytes.len() as u32;
        let mut checksum = [0; 4];
        checksum.copy_from_slice(&bytes[..4]);
        self.cursor = Cursor::at(end);
        if position < self.received {
            let known = self.pieces.binary_search_by_key(&end, |piece| piece.end);
            let known = known.is_ok_and(|at| {
                let piece = &self.pieces[at];
                piece.bytes == length && piece.checksum == checksum
            });
            if known {
                if position < self.settled {
                    self.again_bytes = self.again_bytes.saturating_add(length);
                }
                self.drop_settled();
                return;
            }
            self.part_ways(position, inbox);
        }
        self.received = end;
        self.pieces.push_back(Piece { end, bytes: length, checksum });
        inbox.push_back(Arrived { source: self.source, position, bytes });
    }

    /// From `position` on the other log, set back and written anew, holds other messages than those
    /// that came from it before: what was received from there on does not count.
    fn part_ways(&mut self, position: Position, inbox: &mut VecDeque<Arrived>) {
        self.pieces.truncate(self.pieces.partition_point(|piece| piece.end <= position));
        self.settled = self.settled.min(position);
        self.received = position;
        self.lives.iter_mut().for_each(|life| life.end = life.end.min(position));
        let stream = self.source;
        inbox.retain(|arrived| {
            let same = (arrived.source.owner, arrived.source.queue) == (stream.owner, stream.queue);
            !same || arrived.position < position
        });
    }
}

impl Store for ClientStore {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn restore(&self, _each: &mut dyn FnMut(Key, &[u8])) {}

    fn post(&mut self, _: u64, _: &mut [u8], _: &mut dyn Route) -> Result<Posted, PostError> {
        Err(PostError::Io)
    }

    fn take(
        &mut self,
        _wall_ms: u64,
        source: &StreamKey,
        records: &Records,
        bytes: &[u8],
        _arrival: Arrival,
        _route: &mut dyn Route,
    ) -> Result<(), Failure> {
        let record_bytes_max = self.record_bytes_max as usize;
        let mut inbox = std::mem::take(&mut self.inbox);
        let incoming = self.stream(source);
        if incoming.source != *source || records.first != incoming.cursor {
            self.inbox = inbox;
            return Err(Failure::Corrupt);
        }
        incoming.told = true;
        let mut completed = 0;
        let mut rest = bytes;
        if !incoming.part.is_empty() && records.completed > 0 {
            let length = u32::from_le_bytes([
                incoming.part[4],
                incoming.part[5],
                incoming.part[6],
                incoming.part[7],
            ]) as usize;
            let missing = length.saturating_sub(incoming.part.len()).min(rest.len());
            incoming.part.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            let whole = std::mem::take(&mut incoming.part);
            incoming.push(whole, &mut inbox);
            completed = 1;
        }
        let whole = rest.len().saturating_sub(records.tail_bytes as usize);
        for (_, entry) in Entries::new(&rest[..whole]) {
            incoming.push(entry.to_vec(), &mut inbox);
            completed += 1;
        }
        let tail = &rest[whole..];
        incoming.part.extend_from_slice(tail);
        incoming.cursor.offset = incoming.part.len() as u32;
        let sound = completed == records.completed
            && (incoming.part.is_empty() || incoming.part.len() >= 8)
            && incoming.part.len() <= record_bytes_max;
        self.inbox = inbox;
        if sound { Ok(()) } else { Err(Failure::Corrupt) }
    }

    fn take_skip(
        &mut self,
        source: &StreamKey,
        first: Position,
        next: Position,
        _reason: SkipReason,
    ) -> Result<(), Failure> {
        let incoming = self.stream(source);
        if incoming.source != *source || first > incoming.cursor.position {
            return Err(Failure::Corrupt);
        }
        incoming.told = true;
        incoming.part.clear();
        incoming.cursor = Cursor::at(next.max(incoming.cursor.position));
        if incoming.received < next {
            // Nothing will come there; but the order of settlement is kept.
            let all_settled = incoming.settled == incoming.received;
            incoming.received = next;
            if all_settled {
                incoming.settled = next;
            } else {
                incoming.pieces.push_back(Piece { end: next, bytes: 0, checksum: [0; 4] });
            }
        }
        incoming.drop_settled();
        Ok(())
    }

    /// What the program has settled: from there it comes again after a broken link.
    fn inbound(&mut self, source: &StreamKey) -> (Epoch, Cursor) {
        match self.incoming.iter_mut().find(|known| known.is(source)) {
            Some(known) => {
                if !std::mem::replace(&mut known.told, true) {
                    known.cursor = Cursor::at(known.settled);
                }
                (known.source.epoch, Cursor::at(known.place_told()))
            }
            None => (source.epoch, Cursor::default()),
        }
    }

    fn taken_again(&mut self, source: &StreamKey) -> u32 {
        let known = self.incoming.iter_mut().find(|known| known.source == *source);
        known.map_or(0, |known| std::mem::take(&mut known.again_bytes))
    }

    fn place(&mut self, source: &StreamKey, position: Position) -> Result<(), Failure> {
        if !self.stream(source).place(source, position) {
            let other = |arrived: &Arrived| {
                (arrived.source.owner, arrived.source.queue) != (source.owner, source.queue)
            };
            self.inbox.retain(other);
        }
        Ok(())
    }

    /// No earlier process has left anything here.
    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position {
        let released = self.outbox(queue.class).released();
        let sent = self.outbox(queue.class).sent().max(released);
        let known = epoch == self.identity.epoch && position <= sent;
        if known { position } else { position.min(released) }
    }

    fn ensure_queue(&mut self, name: &Name, _kind: QueueKind) -> Result<QueueId, PostError> {
        Ok(name.queue_id())
    }

    fn holding(&self, queue: QueueKey) -> Option<Holding> {
        let outbox = self.outboxes.get(usize::from(queue.class))?;
        let held = queue.queue == self.queue;
        let (released, next) = (outbox.released(), outbox.next());
        held.then(|| Holding { released, next, sent: outbox.sent().max(released) })
    }

    fn watch(&mut self, queue: QueueKey, link: LinkId, stream: StreamIndex) -> Option<Holding> {
        let holding = self.holding(queue)?;
        self.watches.retain(|watch| watch.queue != queue);
        self.watches.push(Watch { queue, link, stream, told: holding.next });
        Some(holding)
    }

    fn unwatch(&mut self, link: LinkId) {
        self.watches.retain(|watch| watch.link != link);
        self.incoming.iter_mut().for_each(Incoming::rest);
    }

    fn grown(&mut self) -> Option<Growth> {
        for watch in &mut self.watches {
            let next = self.outboxes[usize::from(watch.queue.class)].next();
            if next > watch.told {
                watch.told = next;
                return Some(Growth { link: watch.link, stream: watch.stream, next });
            }
        }
        None
    }

    fn fill(
        &mut self,
        _wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure> {
        Ok(self.outboxes[usize::from(queue.class)].fill(first, bytes_max, out))
    }

    fn release(&mut self, queue: QueueKey, through: Position) {
        self.outboxes[usize::from(queue.class)].release(through);
    }

    fn dead_letter(&mut self, _: QueueKey, _: Position) -> Result<(), Failure> {
        Ok(())
    }

    fn persist(&mut self, _: Key, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn forget(&mut self, _: Key) {}

    fn maintain(&mut self, _: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn set_limits(&mut self, _: QueueLimits, _: &[(Name, QueueLimits)]) {}

    fn put_setting(&mut self, _: &str, _: &[u8]) -> Result<(), Failure> {
        Err(Failure::Full)
    }

    fn setting(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn queue(&self, _: u64, _: &Name) -> Option<QueueInfo> {
        None
    }

    fn queues(&self, _: u64, _: Option<&str>, _: usize) -> Vec<QueueInfo> {
        Vec::new()
    }

    fn peek(
        &mut self,
        _: QueueId,
        _: u64,
        _: usize,
        _: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn purge(&mut self, _: QueueId, _: Option<&[RecordId]>) -> Result<Purge, Failure> {
        Err(Failure::Full)
    }

    fn forget_queue(&mut self, _: QueueId) -> bool {
        false
    }

    fn entry(
        &mut self,
        _: QueueKey,
        _: Position,
        _: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<bool, Failure> {
        Ok(false)
    }

    fn read(
        &mut self,
        from: u64,
        _: usize,
        _: &mut dyn FnMut(u64, &Record<'_>) -> bool,
    ) -> Result<u64, Failure> {
        Ok(from)
    }

    fn latest(
        &mut self,
        _: &str,
        _: &[u8],
        _: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<bool, Failure> {
        Ok(false)
    }

    fn create_consumer(&mut self, _: u64, _: &Consumer, _: bool) -> Result<QueueId, PostError> {
        Err(PostError::QueuesFull(0))
    }

    fn consumers(&self) -> Vec<Consumer> {
        Vec::new()
    }

    fn remove_consumer(&mut self, _: &Name) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn log_bytes(&self) -> u64 {
        0
    }

    fn ordinals(&self) -> [u64; 2] {
        [0, 0]
    }

    fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn dirty(&self) -> bool {
        false
    }

    fn commit(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use replcore::log::crc32c;
    use replcore::log::record::{Message, encode};
    use replcore::time::Stamp;

    use super::*;

    fn stream(epoch: u32) -> StreamKey {
        let queue = QueueKey { queue: Name::new("reader").unwrap().queue_id(), class: 2 };
        StreamKey { owner: Name::new("node").unwrap().node_id(), queue, epoch: Epoch(epoch) }
    }

    fn client() -> ClientStore {
        let name = Name::new("program").unwrap();
        let identity = Identity { name, instance: 1, epoch: Epoch(1) };
        ClientStore::new(identity, name.queue_id(), 1 << 20)
    }

    fn take(client: &mut ClientStore, epoch: u32, first: u64, count: u32) -> Result<(), Failure> {
        take_bodies(client, epoch, first, &vec![b"body"; count as usize])
    }

    fn take_bodies(
        client: &mut ClientStore,
        epoch: u32,
        first: u64,
        bodies: &[&[u8; 4]],
    ) -> Result<(), Failure> {
        struct Nowhere;
        impl Route for Nowhere {
            fn route(&mut self, _: &Record<'_>, _: Arrival, _: &mut Vec<Name>) {}
        }
        let mut bytes = Vec::new();
        for body in bodies {
            let message = Message { body: *body, ..Message::default() };
            let start = bytes.len();
            bytes.resize(start + message.record_bytes().unwrap(), 0);
            let out = &mut bytes[start..];
            encode(&message, RecordId::default(), Stamp(1), out, crc32c).unwrap();
        }
        let first = Cursor::at(Position(first));
        let completed = bodies.len() as u32;
        let records = Records { first, completed, tail_bytes: 0, raw_bytes: 0, round: 0 };
        let source = stream(epoch);
        client.take(0, &source, &records, &bytes, Arrival::Upstream(source.owner), &mut Nowhere)
    }

    /// HS-16: nothing comes twice to a program that goes on, also when it settles messages between the
    /// answer to a node that has started again and what the node makes of it.
    #[test]
    fn what_is_settled_while_a_node_looks_for_the_place_does_not_come_again() {
        let mut client = client();
        take(&mut client, 1, 0, 5).unwrap();
        client.settle(&stream(1), Position(2));
        client.unwatch(LinkId(0));
        client.settle(&stream(1), Position(3));
        // The node has started again, and asks. Then the program settles one more.
        assert_eq!(client.inbound(&stream(2)), (Epoch(1), Cursor::at(Position(3))));
        let bytes = client.settle(&stream(1), Position(4));
        assert!(bytes > 0);
        client.place(&stream(2), Position(3)).unwrap();
        assert_eq!(client.inbound(&stream(2)), (Epoch(2), Cursor::at(Position(3))));
        client.inbox.clear();
        take(&mut client, 2, 3, 3).unwrap();
        let came: Vec<_> = client.inbox.iter().map(|arrived| arrived.position.0).collect();
        assert_eq!(came, [5], "3 and 4 were handed out before");
        assert_eq!(client.taken_again(&stream(2)), bytes, "their room is given back");
        assert_eq!(client.inbound(&stream(2)), (Epoch(2), Cursor::at(Position(4))));
    }

    /// HS-22: a node that was set back to a copy made after the last acknowledgement has other messages
    /// behind that than the program holds. They come, also where the program settles the old ones
    /// first, and the old ones settle nothing of them.
    #[test]
    fn other_messages_at_places_that_a_program_has_seen_before_the_node_was_set_back_come_to_it() {
        for settled_before in [2, 5] {
            let mut client = client();
            take(&mut client, 1, 0, 5).unwrap();
            client.settle(&stream(1), Position(2));
            client.inbox.clear();
            client.unwatch(LinkId(0));
            assert_eq!(client.inbound(&stream(2)), (Epoch(1), Cursor::at(Position(2))));
            client.place(&stream(2), Position(2)).unwrap();
            client.settle(&stream(2), Position(settled_before));
            take_bodies(&mut client, 2, 2, &[b"body", b"new1", b"new2"]).unwrap();
            let came: Vec<_> = client.inbox.iter().map(|arrived| arrived.position.0).collect();
            assert_eq!(came, [3, 4], "2 was handed out before");
            assert_eq!(client.present(&stream(1), Position(2)), Some(stream(2)));
            assert_eq!(client.present(&stream(1), Position(3)), None);
            assert_eq!(client.present(&stream(2), Position(3)), Some(stream(2)));
            client.settle(&stream(2), Position(5));
            assert_eq!(client.inbound(&stream(2)), (Epoch(2), Cursor::at(Position(5))));
        }
    }

    /// A node that was set back says so with an earlier place.
    #[test]
    fn what_a_node_has_lost_comes_as_it_is_there_now() {
        let mut client = client();
        take(&mut client, 1, 0, 5).unwrap();
        client.settle(&stream(1), Position(4));
        client.unwatch(LinkId(0));
        assert_eq!(client.inbound(&stream(2)), (Epoch(1), Cursor::at(Position(4))));
        client.place(&stream(2), Position(2)).unwrap();
        take(&mut client, 2, 2, 1).unwrap();
        let came: Vec<_> = client.inbox.iter().map(|arrived| arrived.position.0).collect();
        assert_eq!(came, [2]);
    }
}
