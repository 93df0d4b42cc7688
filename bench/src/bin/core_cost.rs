//! What the core costs by itself: leaves and a hub in one thread, connected by memory, with logs
//! that are arrays. No system call, no lock, and in the measured part no allocation, which a
//! counting allocator confirms.
//!
//! `core_cost records LEAVES RECORDS PER_FRAME` posts records of 128 bytes at each leaf in turn and
//! carries each through the leaf's link, the hub's link, check and storing at the hub, and the
//! acknowledgement back to the leaf. `core_cost renewals LEAVES RENEWALS` lets leaves renew.
//!
//! Under `valgrind --tool=callgrind` two runs of different length give the instructions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant as Clock;

use replcore::Timer;
use replcore::contract::{
    Answer, DialIndex, Input, LinkId, Machine, Output, Query, StreamIndex, Token, Transport,
};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::log::record::{self, Message, Record};
use replcore::node::{LinkSlot, Node, NodeConfig, NodeMemory};
use replcore::stream::{Cursor, Epoch, Name, NodeId, Position, RecordId, Seq};
use replcore::time::{Instant, Stamp};
use replcore::wire::{self, CONTROL_FRAME_BYTES_MAX, Records};
use replcore_bench::Sample;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BODY_BYTES: usize = 128;
/// Granted once: how often a driver grants credit is not the core's doing.
const CREDIT_BYTES: u32 = u32::MAX;
/// Longer than any run: no keep-alive falls into the measured part.
const KEEPALIVE_MS: u32 = 1_000_000_000;

/// A leaf, its log of one queue, and the bytes on their way to it.
struct Site {
    leaf: Leaf,
    posted: u64,
    released: u64,
    watched: Option<StreamIndex>,
    to_leaf: Vec<u8>,
    to_hub: Vec<u8>,
    /// Bytes of `to_hub` that the hub has taken.
    hub_at: usize,
}

impl Site {
    fn taken_by_hub(&mut self, bytes: usize) {
        self.hub_at += bytes;
        if self.hub_at == self.to_hub.len() {
            self.to_hub.clear();
            self.hub_at = 0;
        }
    }
}

struct World<'m> {
    now: Instant,
    hub: Node<'m>,
    sites: Vec<Site>,
    /// A record as every leaf posts it; only its number is changed.
    record: Vec<u8>,
    /// What the hub has stored, over and over in the same memory.
    stored: Vec<u8>,
    stored_records: u64,
    /// Given to every poll.
    buf: [u8; CONTROL_FRAME_BYTES_MAX],
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<u64>().ok());
    match (args.first().map(String::as_str), number(1), number(2), number(3)) {
        (Some("records"), Some(leaves), Some(records), Some(per_frame)) => {
            run(leaves as usize, |world| world.records(records, per_frame));
        }
        (Some("renewals"), Some(leaves), Some(renewals), _) => {
            run(leaves as usize, |world| world.renewals(renewals));
        }
        _ => {
            eprintln!(
                "usage: core_cost records LEAVES RECORDS PER_FRAME | renewals LEAVES RENEWALS"
            );
            std::process::exit(2);
        }
    }
}

fn settings(name: &str, instance: u64) -> LinkSettings {
    let name = Name::new(name).expect("a name");
    let mut settings = LinkSettings::new(name, instance, Epoch(7));
    settings.keepalive_ms = KEEPALIVE_MS;
    settings
}

fn run(leaves: usize, measured: impl FnOnce(&mut World<'_>) -> Sample) {
    let slots = LeaseServer::slots_for(leaves as u32);
    let mut links = vec![LinkSlot::FREE; leaves];
    let mut leases = vec![LeaseSlot::FREE; slots];
    let mut lease_timers = vec![Timer::NONE; slots];
    let mut timers = vec![Timer::NONE; leaves];
    let mut ready = vec![0; leaves];
    let memory = NodeMemory {
        links: &mut links,
        leases: &mut leases,
        lease_timers: &mut lease_timers,
        dials: &mut [],
        timers: &mut timers,
        ready: &mut ready,
    };
    let mut config = NodeConfig::new(settings("hub", 1), 1);
    config.lease.admission.per_second = 0;
    let message = Message { body: &[7; BODY_BYTES], ..Message::default() };
    let mut record = vec![0; message.record_bytes().expect("a sound message")];
    record::encode(&message, RecordId::default(), Stamp(1), &mut record, crc32c::crc32c)
        .expect("it fits");
    let site = |index: usize| Site {
        leaf: Leaf::new(LeafConfig::new(
            settings(&format!("leaf-{index}"), index as u64),
            index as u64,
        )),
        posted: 0,
        released: 0,
        watched: None,
        to_leaf: Vec::with_capacity(4_096),
        to_hub: Vec::with_capacity(64 << 10),
        hub_at: 0,
    };
    let mut world = World {
        now: Instant::from_millis(1_000),
        hub: Node::new(config, memory),
        sites: (0..leaves).map(site).collect(),
        record,
        stored: vec![0; 1 << 20],
        stored_records: 0,
        buf: [0; CONTROL_FRAME_BYTES_MAX],
    };
    for index in 0..leaves {
        world.connect(index);
    }
    measured(&mut world).print();
}

/// What was measured, the time of each of `count` things, and the allocations of all.
fn result(what: &str, started: (Clock, u64), ended: (Clock, u64), count: u64) -> Sample {
    let ns = (ended.0 - started.0).as_nanos() as f64;
    let allocations = ended.1 - started.1;
    let mut sample = Sample::new(format!("core: {what}"));
    sample.figure("ns_each", ns / count as f64).figure("allocations", allocations as f64);
    sample
}

/// Now, and the allocations so far.
fn mark() -> (Clock, u64) {
    (Clock::now(), ALLOCATIONS.load(Ordering::Relaxed))
}

impl World<'_> {
    fn records(&mut self, records: u64, per_frame: u64) -> Sample {
        // Each leaf once, so that every stream is open before the measurement.
        for index in 0..self.sites.len() {
            self.post(index, per_frame);
        }
        let (started, before) = (mark(), self.stored_records);
        let rounds = records / per_frame;
        for round in 0..rounds {
            self.post(round as usize % self.sites.len(), per_frame);
        }
        let (ended, leaves) = (mark(), self.sites.len());
        let what = format!("{leaves} leaves, {per_frame} records a frame, each record");
        let sample = result(&what, started, ended, rounds * per_frame);
        assert_eq!(self.stored_records - before, rounds * per_frame);
        assert!(self.sites.iter().all(|site| site.released == site.posted));
        sample
    }

    fn renewals(&mut self, renewals: u64) -> Sample {
        let before = self.hub.stats().renewed;
        let started = mark();
        let leaves = self.sites.len() as u64;
        for round in 0..renewals.div_ceil(leaves) {
            self.now = Instant::from_millis(1_000 + 300_000 * (round + 1));
            for index in 0..self.sites.len() {
                self.sites[index].leaf.handle(self.now, Input::Timeout);
                self.settle(index);
            }
        }
        let ended = mark();
        let renewed = self.hub.stats().renewed - before;
        assert_eq!(renewed, renewals.div_ceil(leaves) * leaves);
        result(&format!("{leaves} leaves, each renewal"), started, ended, renewed)
    }

    fn connect(&mut self, index: usize) {
        let transport = Transport::Stream;
        let dialed = Some(DialIndex(0));
        let (near, far) = (LinkId(0), LinkId(index as u32));
        let leaf = &mut self.sites[index].leaf;
        leaf.handle(self.now, Input::Timeout);
        assert!(matches!(leaf.poll(&mut []), Output::Dial { .. }));
        leaf.handle(self.now, Input::LinkUp { link: near, dialed, transport, identity: None });
        leaf.handle(self.now, Input::Writable { link: near, bytes: CREDIT_BYTES });
        let up = Input::LinkUp { link: far, dialed: None, transport, identity: None };
        self.hub.handle(self.now, up);
        self.hub.handle(self.now, Input::Writable { link: far, bytes: CREDIT_BYTES });
        self.settle(index);
        assert!(self.sites[index].leaf.is_connected());
    }

    fn post(&mut self, index: usize, records: u64) {
        let site = &mut self.sites[index];
        site.posted += records;
        if let Some(stream) = site.watched {
            let next = Position(site.posted);
            site.leaf.handle(self.now, Input::Appended { link: LinkId(0), stream, next });
        }
        self.settle(index);
    }

    /// Moves bytes between a leaf and the hub until neither has anything to say.
    fn settle(&mut self, index: usize) {
        loop {
            self.drain_leaf(index);
            if self.hub_receives(index) {
                self.drain_hub(index);
            }
            // Both are drained, and only bytes make them speak again.
            if !self.leaf_receives(index) && self.sites[index].to_hub.is_empty() {
                return;
            }
        }
    }

    fn hub_receives(&mut self, index: usize) -> bool {
        let site = &mut self.sites[index];
        if site.to_hub.is_empty() {
            return false;
        }
        let data = &site.to_hub[site.hub_at..];
        let taken = self.hub.handle(self.now, Input::Recv { link: LinkId(index as u32), data });
        site.taken_by_hub(taken);
        true
    }

    fn leaf_receives(&mut self, index: usize) -> bool {
        let site = &mut self.sites[index];
        if site.to_leaf.is_empty() {
            return false;
        }
        let input = Input::Recv { link: LinkId(0), data: &site.to_leaf };
        let taken = site.leaf.handle(self.now, input);
        assert_eq!(taken, site.to_leaf.len(), "whole control frames");
        site.to_leaf.clear();
        true
    }

    fn drain_leaf(&mut self, index: usize) {
        loop {
            let site = &mut self.sites[index];
            match site.leaf.poll(&mut self.buf) {
                Output::Idle { .. } => return,
                Output::Send { len, .. } => site.to_hub.extend_from_slice(&self.buf[..len]),
                Output::SendRecords { link, stream, first, bytes_max, round, .. } => {
                    let input = self.send_records(index, link, stream, first, bytes_max, round);
                    self.sites[index].leaf.handle(self.now, input);
                }
                Output::Ask { token, query, .. } => {
                    let answer = self.answer_leaf(index, query);
                    self.sites[index].leaf.handle(self.now, Input::Answer { token, answer });
                }
                Output::Release { through, .. } => site.released = through.0,
                Output::Event { .. } => {}
                other => panic!("the leaf asks for {other:?}"),
            }
        }
    }

    fn answer_leaf(&mut self, index: usize, query: Query) -> Answer {
        let site = &mut self.sites[index];
        match query {
            Query::Outbound { stream, queue, .. } => {
                let mine = queue.class == 2;
                if mine {
                    site.watched = Some(stream);
                }
                let next = Position(if mine { site.posted } else { 0 });
                Answer::Outbound { epoch: Epoch(7), released: Position(0), next, sent: next }
            }
            Query::Inbound(source) => {
                Answer::Inbound { epoch: source.epoch, cursor: Cursor::default() }
            }
            Query::Place { position, .. } => Answer::Place { position },
            Query::Subscribe { .. } => Answer::Denied,
        }
    }

    /// Writes whole records of the leaf's log in one frame.
    fn send_records(
        &mut self,
        index: usize,
        link: LinkId,
        stream: StreamIndex,
        first: Cursor,
        bytes_max: u32,
        round: u8,
    ) -> Input<'static> {
        let site = &mut self.sites[index];
        let record_bytes = self.record.len() as u32;
        let there = site.posted - first.position.0;
        let completed = there.min(u64::from(bytes_max / record_bytes)) as u32;
        assert!(completed > 0 && first.offset == 0);
        let records = Records { first, completed, tail_bytes: 0, raw_bytes: 0, round };
        let bytes = completed * record_bytes;
        site.to_hub.extend_from_slice(&wire::records_header(stream.0, &records, bytes));
        for record in 0..u64::from(completed) {
            let id = RecordId {
                origin: NodeId(index as u64 + 1),
                epoch: Epoch(7),
                class: 2,
                seq: Seq(first.position.0 + record + 1),
            };
            record::stamp(&mut self.record, id, Stamp(1), crc32c::crc32c);
            self.sites[index].to_hub.extend_from_slice(&self.record);
        }
        let wire_bytes = bytes + wire::RECORDS_OVERHEAD_BYTES as u32;
        Input::Sent { link, stream, next: records.next(), bytes, wire_bytes }
    }

    fn drain_hub(&mut self, index: usize) {
        loop {
            match self.hub.poll(&mut self.buf) {
                Output::Idle { .. } => return,
                Output::Send { link, len } => {
                    self.sites[link.0 as usize].to_leaf.extend_from_slice(&self.buf[..len]);
                }
                Output::TakeRecords { link, stream, records, len, .. } => {
                    let at = link.0 as usize;
                    assert_eq!(at, index);
                    self.store(at, len as usize);
                    let next = records.next();
                    self.hub.handle(self.now, Input::Taken { link, stream, next, bytes: len });
                }
                Output::Ask { token, query, .. } => {
                    let answer = answer_hub(query);
                    self.hub.handle(self.now, Input::Answer { token, answer });
                }
                Output::Persist { token, .. } => self.persisted(token),
                Output::Event { .. } | Output::Release { .. } => {}
                other => panic!("the hub asks for {other:?}"),
            }
        }
    }

    fn persisted(&mut self, token: Token) {
        self.hub.handle(self.now, Input::Persisted { token });
    }

    /// Checks the next `len` bytes record by record and stores them.
    fn store(&mut self, index: usize, len: usize) {
        let site = &mut self.sites[index];
        let mut rest = &site.to_hub[site.hub_at..][..len];
        while !rest.is_empty() {
            let length = record::entry_length(rest, 1 << 20).expect("a whole record");
            let record = Record::check(&rest[..length], crc32c::crc32c).expect("a sound record");
            assert_eq!(record.body().len(), BODY_BYTES);
            self.stored[..length].copy_from_slice(record.as_bytes());
            self.stored_records += 1;
            rest = &rest[length..];
        }
        site.taken_by_hub(len);
    }
}

fn answer_hub(query: Query) -> Answer {
    match query {
        Query::Outbound { .. } => Answer::Outbound {
            epoch: Epoch(7),
            released: Position(0),
            next: Position(0),
            sent: Position(0),
        },
        Query::Inbound(source) => {
            Answer::Inbound { epoch: source.epoch, cursor: Cursor::default() }
        }
        Query::Place { position, .. } => Answer::Place { position },
        Query::Subscribe { .. } => Answer::Denied,
    }
}
