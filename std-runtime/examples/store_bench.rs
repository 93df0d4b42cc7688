//! Measures the embedded store by itself, on one thread: a leaf's store takes a producer's records
//! and fills frames for the hub; a hub's store takes these frames and fills frames for a consumer.
//! Every batch is committed before it is forwarded, as the node does it.
//!
//! `cargo run --release --example store_bench -- [FOLDER [RECORDS [BYTES [BATCH]]]]`; `FOLDER`
//! should be on the disk to be measured. Default: a folder beside the target, 2,000,000 records of
//! 128 bytes, 1,000 records a batch.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replcore::log::crc32c;
use replcore::log::record::{Message, Record, encode};
use replcore::stream::{Cursor, Epoch, Name, NodeId, Position, QueueKey, RecordId, StreamKey};
use replcore::time::Stamp;
use replcore::wire::Records;
use replcore_runtime::store::{Arrival, Config, FileDisk, Fill, Route, SegmentStore, Store};

struct To(Name);

impl Route for To {
    fn route(&mut self, _: &Record<'_>, _: Arrival, targets: &mut Vec<Name>) {
        targets.push(self.0);
    }
}

struct Node {
    store: SegmentStore<FileDisk>,
    route: To,
    queue: QueueKey,
    cursor: Cursor,
    take: Duration,
    commit: Duration,
    fill: Duration,
}

impl Node {
    fn new(folder: &Path, name: &str, queue: &str, sync: bool) -> Self {
        let _ = std::fs::remove_dir_all(folder);
        let disk = FileDisk::open(folder).unwrap();
        let config = Config { sync, ..Config::new(1) };
        let store = SegmentStore::open(disk, &Name::new(name).unwrap(), config).unwrap();
        let queue_name = Name::new(queue).unwrap();
        Self {
            store,
            route: To(queue_name),
            queue: QueueKey { queue: queue_name.queue_id(), class: 2 },
            cursor: Cursor::default(),
            take: Duration::ZERO,
            commit: Duration::ZERO,
            fill: Duration::ZERO,
        }
    }

    /// Takes a frame, commits, and fills the next one.
    fn hop(
        &mut self,
        source: &StreamKey,
        records: &Records,
        bytes: &[u8],
        arrival: Arrival,
        out: &mut Vec<u8>,
    ) -> Records {
        let now = 1_700_000_000_000;
        let start = Instant::now();
        self.store.take(now, source, records, bytes, arrival, &mut self.route).unwrap();
        let taken = Instant::now();
        self.store.commit().unwrap();
        let committed = Instant::now();
        out.clear();
        let filled = self.store.fill(now, self.queue, self.cursor, 1 << 20, out).unwrap();
        let Fill::Batch(batch) = filled else { panic!("{filled:?}") };
        self.cursor = batch.records.next();
        self.store.release(self.queue, self.cursor.position);
        self.take += taken - start;
        self.commit += committed - taken;
        self.fill += committed.elapsed();
        batch.records
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(|| PathBuf::from("target/store-bench"), PathBuf::from);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (records, body, batch) = (number(2_000_000), number(128) as usize, number(1000));
    for sync in [true, false] {
        run(&folder, records, body, batch, sync);
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// Nanoseconds that this thread has run.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn run(folder: &Path, records: u64, body: usize, batch: u64, sync: bool) {
    let mut leaf = Node::new(&folder.join("leaf"), "leaf", "hub", sync);
    let mut hub = Node::new(&folder.join("hub"), "hub", "reader", sync);
    let message = Message { body: &vec![b'x'; body], message_type: "bench", ..Message::default() };
    let mut record = vec![0; message.record_bytes().unwrap()];
    let id = RecordId { class: 2, ..RecordId::default() };
    encode(&message, id, Stamp::UNSET, &mut record, crc32c).unwrap();
    let frame = record.repeat(batch as usize);
    let stream = |owner: &str, queue: &str| StreamKey {
        owner: Name::new(owner).unwrap().node_id(),
        queue: QueueKey { queue: Name::new(queue).unwrap().queue_id(), class: 2 },
        epoch: Epoch(1),
    };
    let (producer, uplink) = (stream("producer", "out"), stream("leaf", "hub"));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (start, cpu) = (Instant::now(), cpu_ns());
    for round in 0..records / batch {
        let head = Records {
            first: Cursor::at(Position(round * batch)),
            completed: batch as u32,
            ..Records::default()
        };
        let head = leaf.hop(&producer, &head, &frame, Arrival::Local, &mut first);
        hub.hop(&uplink, &head, &first, Arrival::Leaf(NodeId(uplink.owner.0)), &mut second);
    }
    let total = start.elapsed();
    let cpu = (cpu_ns() - cpu) / records;
    let rate = records as f64 / total.as_secs_f64();
    println!(
        "{} {body} B, {batch} a batch, both hops on one thread: {rate:.0} records/s, {cpu} ns of CPU a record",
        if sync { "synced" } else { "not synced" }
    );
    for (name, node) in [("leaf", &leaf), ("hub", &hub)] {
        let each = |time: Duration| time.as_nanos() as f64 / records as f64;
        let counters = node.store.counters();
        println!(
            "  {name}: per record take {:.0} ns, commit {:.0} ns (of it sync {:.0}), fill {:.0} ns; \
             {:.1} us a sync; {} segments freed; {} KiB in buffers and indexes",
            each(node.take),
            each(node.commit),
            counters.sync_us as f64 * 1000.0 / records as f64,
            each(node.fill),
            counters.sync_us as f64 / counters.commits as f64,
            counters.segments_freed,
            node.store.memory_bytes() / 1024,
        );
    }
}
