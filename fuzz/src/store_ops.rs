//! Operations on the embedded store against a model that is a few lists, with power cuts.
//!
//! The model says what a queue must hold: exactly the bodies that were stored and routed to it, in
//! order, less what was released. After a power cut everything that was committed must be there,
//! and of what was not committed a part from the front, at most.

use std::collections::BTreeMap;

use replcore::contract::Failure;
use replcore::log::crc32c;
use replcore::log::record::{self, Message, Record};
use replcore::stream::{Cursor, Epoch, Name, NodeId, Position, QueueKey, RecordId, Seq, StreamKey};
use replcore::time::Stamp;
use replcore::wire::Records;
use replcore_runtime::store::{
    Arrival, Config, Fill, MemoryDisk, PostError, Route, SegmentStore, Store,
};

const QUEUES: [&str; 2] = ["a", "b"];

/// Routes by the letters of the message's type.
struct ByType;

impl Route for ByType {
    fn route(&mut self, record: &Record<'_>, _arrival: Arrival, targets: &mut Vec<Name>) {
        for queue in QUEUES {
            if record.message_type().contains(queue) {
                targets.push(name(queue));
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// What one class of one queue should hold.
#[derive(Clone, Default)]
struct Expected {
    /// Every body ever put in, in order; bodies are unique numbers.
    bodies: Vec<u64>,
    /// How many of them are released.
    released: usize,
}

/// Everything that a commit makes safe.
#[derive(Clone, Default)]
struct Model {
    queues: BTreeMap<(usize, u8), Expected>,
    /// Of each of two incoming streams of one origin: records taken.
    taken: [u64; 2],
    /// Records of that origin that were stored by either.
    stored: u64,
    /// Bodies by idempotency key.
    keys: BTreeMap<u8, RecordId>,
}

struct World<'a> {
    rest: &'a [u8],
    disk: MemoryDisk,
    store: Option<SegmentStore<MemoryDisk>>,
    now: Model,
    /// As of the last commit that succeeded.
    safe: Model,
    wall_ms: u64,
    bodies: u64,
    lives: u64,
    /// The log is never full, so that nothing in it is given up.
    roomy: bool,
    /// Idempotency keys of posts that were not committed when the power went.
    unsure: Vec<u8>,
}

/// Runs one input; its first byte chooses the size of the log.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut world = World {
        rest: data,
        disk: MemoryDisk::default(),
        store: None,
        now: Model::default(),
        safe: Model::default(),
        wall_ms: 1_000_000,
        bodies: 0,
        lives: 0,
        roomy: choice & 1 != 0,
        unsure: Vec::new(),
    };
    world.open();
    while !world.rest.is_empty() {
        match world.byte() % 16 {
            0..=4 => world.post(),
            5..=7 => world.take(),
            8..=10 => world.commit(),
            11 => world.release(),
            12 => world.check(),
            13 => world.maintain(),
            14 => {
                let changes = world.byte() % 16;
                world.disk.stop_after(changes.into());
            }
            _ => world.crash(),
        }
    }
    world.crash();
    world.commit();
    world.check();
}

impl World<'_> {
    fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    fn store(&mut self) -> &mut SegmentStore<MemoryDisk> {
        self.store.as_mut().expect("the store is open")
    }

    fn open(&mut self) {
        self.lives += 1;
        let mut config = Config::new(self.lives);
        config.segment_bytes = 64 << 10;
        config.log_bytes_max = if self.roomy { 64 << 20 } else { 512 << 10 };
        config.retain_bytes = if self.roomy { 64 << 20 } else { 64 << 10 };
        config.checkpoint_bytes = 16 << 10;
        config.recent_bytes_max = 8 << 10;
        config.current_keys_max = 64;
        let store = SegmentStore::open(self.disk.clone(), &name("node"), config);
        self.store = Some(store.expect("a store that lost power opens again"));
    }

    /// A record of the size class `size`, whose body starts with a number of its own.
    fn record(
        &mut self,
        class: u8,
        size: u8,
        route: u8,
        key: &[u8],
        id: RecordId,
    ) -> (u64, Vec<u8>) {
        self.bodies += 1;
        let number = self.bodies;
        let bytes = match size % 16 {
            15 => 9_000,
            14 => 3_000,
            small => 8 + usize::from(small) * 20,
        };
        let mut body = vec![size; bytes];
        body[..8].copy_from_slice(&number.to_le_bytes());
        let message_type = ["a", "b", "ab", "none"][usize::from(route) % 4];
        let message =
            Message { message_type, body: &body, idempotency_key: key, ..Message::default() };
        let mut out = vec![0; message.record_bytes().expect("sound")];
        let id = RecordId { class, ..id };
        record::encode(&message, id, Stamp::UNSET, &mut out, crc32c).expect("it fits");
        (number, out)
    }

    fn expect(&mut self, class: u8, route: u8, number: u64) {
        for (queue, letter) in QUEUES.iter().enumerate() {
            if ["a", "b", "ab", "none"][usize::from(route) % 4].contains(letter) {
                self.now.queues.entry((queue, class)).or_default().bodies.push(number);
            }
        }
    }

    fn post(&mut self) {
        let (class, size, route, key) =
            (self.byte() % 4, self.byte(), self.byte(), self.byte() % 16);
        let key_bytes = [key];
        let key_used: &[u8] = if key < 4 { &key_bytes } else { &[] };
        let (number, mut bytes) = self.record(class, size, route, key_used, RecordId::default());
        let wall_ms = self.wall_ms;
        match self.store().post(wall_ms, &mut bytes, &mut ByType) {
            Ok(posted) if posted.duplicate && self.unsure.contains(&key) => {
                self.unsure.retain(|unsure| *unsure != key);
                self.now.keys.insert(key, posted.id);
            }
            Ok(posted) if posted.duplicate => {
                assert_eq!(self.now.keys.get(&key), Some(&posted.id), "another post's id");
            }
            Ok(posted) => {
                if key < 4 {
                    self.unsure.retain(|unsure| *unsure != key);
                    let known = self.now.keys.insert(key, posted.id);
                    assert_eq!(known, None, "posted twice under one key");
                }
                self.expect(posted.id.class, route, number);
            }
            Err(PostError::DiskFull | PostError::Io) => {}
            Err(other) => panic!("a sound post was refused: {other:?}"),
        }
    }

    /// The next records of a leaf's stream, by one of two paths that carry the same records.
    fn take(&mut self) {
        let (path, count) = (usize::from(self.byte() % 2), self.byte() % 4);
        let path_queue = QueueKey { queue: name(["up", "down"][path]).queue_id(), class: 2 };
        let source = StreamKey { owner: NodeId(77), queue: path_queue, epoch: Epoch(5) };
        let first = self.now.taken[path];
        let mut bytes = Vec::new();
        let mut numbers = Vec::new();
        for at in first..first + u64::from(count) + 1 {
            let seq = Seq(at + 1);
            let id = RecordId { origin: NodeId(77), epoch: Epoch(5), class: 2, seq };
            // The body depends on nothing but the sequence number: no identity has two bodies.
            let saved = std::mem::replace(&mut self.bodies, 1_000_000 + at);
            let (number, record) = self.record(2, at as u8 % 14, at as u8, &[], id);
            self.bodies = saved;
            numbers.push((at, number));
            bytes.extend(record);
        }
        let completed = numbers.len() as u32;
        let cursor = Cursor::at(Position(first));
        let records = Records { first: cursor, completed, ..Records::default() };
        let wall_ms = self.wall_ms;
        let arrival = Arrival::Leaf(NodeId(77));
        match self.store().take(wall_ms, &source, &records, &bytes, arrival, &mut ByType) {
            Ok(()) => {
                self.now.taken[path] += u64::from(completed);
                for (at, number) in numbers {
                    if at >= self.now.stored {
                        self.now.stored = at + 1;
                        self.expect(2, at as u8, number);
                    }
                }
            }
            Err(Failure::Full | Failure::Io) => {}
            Err(Failure::Corrupt) => panic!("sound records were refused as damaged"),
        }
    }

    fn commit(&mut self) {
        self.wall_ms += 7;
        match self.store().commit() {
            Ok(()) => self.safe = self.now.clone(),
            Err(_) => self.crash(),
        }
    }

    fn release(&mut self) {
        let (queue, class, count) = (usize::from(self.byte() % 2), self.byte() % 4, self.byte());
        let key = QueueKey { queue: name(QUEUES[queue]).queue_id(), class };
        // Only what is committed was ever sent, and so only that is acknowledged.
        let Some(holding) = self.store().holding(key) else { return };
        let there = (holding.next.0 - holding.released.0) as usize;
        let count = usize::from(count % 64).min(there);
        self.store().release(key, Position(holding.released.0 + count as u64));
        if let Some(expected) = self.now.queues.get_mut(&(queue, class)) {
            expected.released += count;
        }
    }

    fn maintain(&mut self) {
        self.wall_ms += u64::from(self.byte()) * 50;
        let wall_ms = self.wall_ms;
        if self.store().maintain(wall_ms).is_err() {
            self.crash();
        }
    }

    fn crash(&mut self) {
        self.store = None;
        let disk = self.disk.clone();
        disk.power_cut(|most| u64::from(self.byte()) % (most + 1));
        self.open();
        // What is there now is what counts; it must lie between what was safe and what was asked.
        for queue in 0..QUEUES.len() {
            for class in 0..4 {
                self.check_recovered(queue, class);
            }
        }
        for path in 0..2 {
            let queue = QueueKey { queue: name(["up", "down"][path]).queue_id(), class: 2 };
            let source = StreamKey { owner: NodeId(77), queue, epoch: Epoch(5) };
            let taken = self.store().inbound(&source).1.position.0;
            assert!(taken >= self.safe.taken[path], "a place went back behind a commit");
            assert!(taken <= self.now.taken[path], "a place beyond what was taken");
            self.now.taken[path] = taken;
        }
        let taken = self.now.taken;
        self.now.stored = taken[0].max(taken[1]);
        // A key that was not safe may or may not be known; the next post with it tells.
        let unsafe_keys = self.now.keys.keys().filter(|key| !self.safe.keys.contains_key(key));
        self.unsure.extend(unsafe_keys);
        self.now.keys.clone_from(&self.safe.keys);
        if !self.roomy {
            // This disk keeps no index file: keys are found in the log alone, as far as it goes
            // back.
            self.unsure.extend(self.now.keys.keys());
            self.now.keys.clear();
        }
        self.safe = self.now.clone();
    }

    fn check_recovered(&mut self, queue: usize, class: u8) {
        let found = self.read(queue, class);
        let now = self.now.queues.get(&(queue, class)).cloned().unwrap_or_default();
        let safe = self.safe.queues.get(&(queue, class)).cloned().unwrap_or_default();
        let fits = (safe.released..=now.released).any(|released| {
            (safe.bodies.len().max(released)..=now.bodies.len())
                .any(|end| now.bodies[released..end] == found)
        });
        assert!(
            fits,
            "queue {queue} class {class} after a power cut: holds {found:?}; safe are {:?} less \
             {}, asked for were {:?} less {}",
            safe.bodies, safe.released, now.bodies, now.released
        );
        self.now.queues.insert((queue, class), Expected { bodies: found, released: 0 });
    }

    fn check(&mut self) {
        for queue in 0..QUEUES.len() {
            for class in 0..4 {
                let found = self.read(queue, class);
                let now = self.now.queues.get(&(queue, class)).cloned().unwrap_or_default();
                let safe = self.safe.queues.get(&(queue, class)).cloned().unwrap_or_default();
                // A release counts at once. What is shown is committed, by this model's commit or
                // by one that the store made for itself; either way it has to stay.
                let end = now.released + found.len();
                assert!(
                    end >= safe.bodies.len() && now.bodies.get(now.released..end) == Some(&found),
                    "queue {queue} class {class} shows {found:?} of {:?} less {}, {} are safe",
                    now.bodies,
                    now.released,
                    safe.bodies.len()
                );
                self.safe.queues.entry((queue, class)).or_default().bodies =
                    now.bodies[..end].to_vec();
            }
        }
    }

    /// The bodies that a queue holds, read in frames of a size chosen by the input.
    fn read(&mut self, queue: usize, class: u8) -> Vec<u64> {
        let bytes_max = [300, 1_000, 4_000, 60_000][usize::from(self.byte() % 4)];
        let key = QueueKey { queue: name(QUEUES[queue]).queue_id(), class };
        let wall_ms = self.wall_ms;
        let Some(holding) = self.store().holding(key) else { return Vec::new() };
        let mut cursor = Cursor::at(holding.released);
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            match self.store().fill(wall_ms, key, cursor, bytes_max, &mut bytes).expect("reads") {
                Fill::Empty => break,
                Fill::Gone { next, reason } => panic!("gone up to {next:?}: {reason:?}"),
                Fill::Batch(batch) => {
                    assert_eq!(bytes.len() - before, batch.bytes as usize);
                    assert!(batch.bytes <= bytes_max && batch.bytes > 0);
                    assert_eq!(batch.records.first, cursor);
                    cursor = batch.records.next();
                }
            }
        }
        assert_eq!(cursor, Cursor::at(holding.next), "the queue ends before its end");
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = record::entry_length(rest, u32::MAX).expect("a whole record");
            let record = Record::check(&rest[..length], crc32c).expect("a sound record");
            assert_eq!(record.id().class, class);
            found.push(u64::from_le_bytes(record.body()[..8].try_into().unwrap()));
            rest = &rest[length..];
        }
        found
    }
}
