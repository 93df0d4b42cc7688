//! Helpers to drive a store on a disk in memory.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "shared between test binaries")]

use replcore::log::crc32c;
use replcore::log::record::{Message, Record, encode};
use replcore::rng::Rng;
use replcore::stream::{
    Cursor, Epoch, Name, Position, QueueId, QueueKey, RecordId, Seq, StreamKey,
};
use replcore::time::Stamp;
use replcore::wire::Records;
use replcore_runtime::store::{
    Arrival, Config, Disk, Fill, MemoryDisk, PostError, Posted, Route, SegmentStore, Store,
};

/// The power of a disk goes and comes back, with what was not synced kept, lost or torn at random.
pub fn power_cut(disk: &MemoryDisk, rng: &mut Rng) {
    disk.power_cut(|most| rng.between(0, most));
}

/// Routes by a closure.
pub struct RouteBy<F>(pub F);

impl<F: FnMut(&Record<'_>, Arrival, &mut Vec<Name>)> Route for RouteBy<F> {
    fn route(&mut self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        (self.0)(record, arrival, targets);
    }
}

/// Routes everything to these queues.
pub fn to(queues: &[&str]) -> impl Route {
    let names: Vec<Name> = queues.iter().map(|name| Name::new(name).unwrap()).collect();
    RouteBy(move |_: &Record<'_>, _: Arrival, targets: &mut Vec<Name>| {
        targets.extend_from_slice(&names);
    })
}

pub const NAME: &str = "node";
pub const NOW_MS: u64 = 1_700_000_000_000;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn key(queue: &str, class: u8) -> QueueKey {
    QueueKey { queue: name(queue).queue_id(), class }
}

pub fn id_of(queue: &str) -> QueueId {
    name(queue).queue_id()
}

/// Small segments and no entropy.
pub fn small() -> Config {
    Config {
        segment_bytes: 64 << 10,
        log_bytes_max: 4 << 20,
        retain_bytes: 256 << 10,
        checkpoint_bytes: 128 << 10,
        recent_bytes_max: 64 << 10,
        ..Config::new(7)
    }
}

pub fn open(disk: &MemoryDisk, config: Config) -> SegmentStore<MemoryDisk> {
    SegmentStore::open(disk.clone(), &name(NAME), config).unwrap()
}

/// An unstamped record.
pub fn message(message: &Message<'_>, class: u8) -> Vec<u8> {
    let mut out = vec![0; message.record_bytes().unwrap()];
    let id = RecordId { class, ..RecordId::default() };
    encode(message, id, Stamp::UNSET, &mut out, crc32c).unwrap();
    out
}

pub fn body(body: &[u8]) -> Vec<u8> {
    message(&Message { body, ..Message::default() }, 2)
}

pub fn post<D: Disk>(
    store: &mut SegmentStore<D>,
    bytes: &[u8],
    queues: &[&str],
) -> Result<Posted, PostError> {
    store.post(NOW_MS, &mut bytes.to_vec(), &mut to(queues))
}

/// A record of another node.
pub fn foreign(origin: &str, seq: u64, class: u8, body: &[u8]) -> Vec<u8> {
    let message = Message { body, origin_name: origin, ..Message::default() };
    let mut out = vec![0; message.record_bytes().unwrap()];
    let id =
        RecordId { origin: name(origin).node_id(), epoch: Epoch(1 << 16), class, seq: Seq(seq) };
    encode(&message, id, Stamp::from_wall_ms(NOW_MS), &mut out, crc32c).unwrap();
    out
}

pub fn stream_of(owner: &str) -> StreamKey {
    StreamKey { owner: name(owner).node_id(), queue: key("up", 2), epoch: Epoch(1 << 16) }
}

/// Whole records of a stream from `position` on.
pub fn take<D: Disk>(
    store: &mut SegmentStore<D>,
    source: &StreamKey,
    position: u64,
    records: &[Vec<u8>],
    queues: &[&str],
) -> Result<(), replcore::contract::Failure> {
    let head = Records {
        first: Cursor::at(Position(position)),
        completed: records.len() as u32,
        ..Records::default()
    };
    let arrival = Arrival::Leaf(source.owner);
    store.take(NOW_MS, source, &head, &records.concat(), arrival, &mut to(queues))
}

/// Positions and bodies.
pub type Entries = Vec<(u64, Vec<u8>)>;

/// Everything a lane holds from a position on: positions and bodies, and the gaps passed.
pub fn drain<D: Disk>(
    store: &mut SegmentStore<D>,
    queue: QueueKey,
    from: u64,
    frame: u32,
) -> (Entries, Vec<(u64, u64)>) {
    let (mut got, mut gaps) = (Vec::new(), Vec::new());
    let (mut cursor, mut part) = (Cursor::at(Position(from)), Vec::new());
    loop {
        let mut out = Vec::new();
        match store.fill(NOW_MS, queue, cursor, frame, &mut out).unwrap() {
            Fill::Empty => return (got, gaps),
            Fill::Gone { next, .. } => {
                assert!(next > cursor.position, "a gap has a width");
                gaps.push((cursor.position.0, next.0));
                cursor = Cursor::at(next);
                part.clear();
            }
            Fill::Batch(batch) => {
                assert_eq!(batch.bytes as usize, out.len());
                assert!(out.len() <= frame as usize && !out.is_empty());
                part.extend_from_slice(&out);
                for _ in 0..batch.records.completed {
                    let length = u32::from_le_bytes(part[4..8].try_into().unwrap()) as usize;
                    let record = Record::check(&part[..length], crc32c).unwrap();
                    got.push((cursor.position.0 + got_in(&cursor, &got), record.body().to_vec()));
                    part.drain(..length);
                }
                cursor = batch.records.next();
                assert_eq!(part.len(), cursor.offset as usize);
            }
        }
    }
}

fn got_in(cursor: &Cursor, got: &[(u64, Vec<u8>)]) -> u64 {
    let inside = got.iter().rev().take_while(|entry| entry.0 >= cursor.position.0).count();
    inside as u64
}
