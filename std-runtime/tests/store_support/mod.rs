//! A disk in memory that forgets, tears and refuses, and helpers to drive a store on it.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "shared between test binaries")]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;

use replcore::log::crc32c;
use replcore::log::record::{Message, Record, encode};
use replcore::rng::Rng;
use replcore::stream::{
    Cursor, Epoch, Name, Position, QueueId, QueueKey, RecordId, Seq, StreamKey,
};
use replcore::time::Stamp;
use replcore::wire::Records;
use replcore_runtime::store::{
    Arrival, Config, Disk, FileId, Fill, PostError, Posted, Route, SegmentStore, Store,
};

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Set(String, usize),
    Remove(String),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_ops: Vec<NameOp>,
    open: HashMap<u32, usize>,
    next: u32,
    bytes_max: Option<u64>,
    writes_left: Option<u64>,
    sync_fails: bool,
    writes: u64,
}

/// A folder in memory. Clones share it, so that it outlives the store.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Rc<RefCell<State>>);

impl State {
    fn inode(&mut self, file: FileId) -> io::Result<&mut Inode> {
        let index = *self.open.get(&file.0).ok_or_else(|| io::Error::other("not open"))?;
        Ok(&mut self.inodes[index])
    }

    fn step(&mut self) -> io::Result<()> {
        self.writes += 1;
        match &mut self.writes_left {
            Some(0) => Err(io::Error::other("power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn room(&self, more: u64) -> io::Result<()> {
        let used: u64 =
            self.names.values().map(|index| self.inodes[*index].current.len() as u64).sum();
        match self.bytes_max {
            Some(most) if more > 0 && used + more > most => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(data);
}

impl MemoryDisk {
    /// Every operation after `writes` more fails, until [`MemoryDisk::power_cut`].
    pub fn stop_after(&self, writes: u64) {
        self.0.borrow_mut().writes_left = Some(writes);
    }

    /// Operations that changed something so far.
    pub fn writes(&self) -> u64 {
        self.0.borrow().writes
    }

    /// Bounds the bytes of all files.
    pub fn set_bytes_max(&self, most: Option<u64>) {
        self.0.borrow_mut().bytes_max = most;
    }

    /// Makes syncing fail.
    pub fn fail_syncs(&self, fail: bool) {
        self.0.borrow_mut().sync_fails = fail;
    }

    /// The power goes and comes back: what was not synced is kept, lost or torn at random.
    pub fn power_cut(&self, rng: &mut Rng) {
        let mut state = self.0.borrow_mut();
        let kept = rng.between(0, state.name_ops.len() as u64) as usize;
        let mut names = state.durable_names.clone();
        for op in &state.name_ops[..kept] {
            match op {
                NameOp::Set(name, inode) => {
                    names.retain(|_, other| other != inode);
                    names.insert(name.clone(), *inode);
                }
                NameOp::Remove(name) => {
                    names.remove(name);
                }
            }
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        state.name_ops.clear();
        for inode in &mut state.inodes {
            for (offset, data) in std::mem::take(&mut inode.pending) {
                match rng.between(0, 2) {
                    0 => {}
                    1 => put(&mut inode.durable, offset, &data),
                    _ => {
                        for (sector, part) in data.chunks(512).enumerate() {
                            if rng.between(0, 1) == 0 {
                                put(&mut inode.durable, offset + sector as u64 * 512, part);
                            }
                        }
                    }
                }
            }
            inode.current.clone_from(&inode.durable);
        }
        state.open.clear();
        state.writes_left = None;
    }

    /// The process ends and the power stays.
    pub fn kill(&self) {
        let mut state = self.0.borrow_mut();
        state.open.clear();
        state.writes_left = None;
    }

    /// The names of files.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// Changes the bytes of a file behind the store's back.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.borrow_mut();
        let index = state.names[name];
        let inode = &mut state.inodes[index];
        assert!(inode.pending.is_empty(), "damage only what is synced");
        change(&mut inode.current);
        inode.durable.clone_from(&inode.current);
    }

    /// All files of another folder take the place of those of this one.
    pub fn replace(&self, other: &Self) {
        let image = other.image();
        self.0.swap(&image.0);
    }

    /// A copy of all that is safe, as a backup would take it.
    pub fn image(&self) -> Self {
        let state = self.0.borrow();
        let mut copy = State::default();
        for (name, index) in &state.durable_names {
            let bytes = state.inodes[*index].durable.clone();
            copy.inodes.push(Inode { durable: bytes.clone(), current: bytes, pending: Vec::new() });
            copy.names.insert(name.clone(), copy.inodes.len() - 1);
        }
        copy.durable_names.clone_from(&copy.names);
        Self(Rc::new(RefCell::new(copy)))
    }
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.room(bytes)?;
        let zeros = vec![0; bytes as usize];
        state.inodes.push(Inode { durable: zeros.clone(), current: zeros, pending: Vec::new() });
        let index = state.inodes.len() - 1;
        state.names.insert(name.to_owned(), index);
        state.name_ops.push(NameOp::Set(name.to_owned(), index));
        drop(state);
        self.open(name)
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let mut state = self.0.borrow_mut();
        let index = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let id = state.next;
        state.next += 1;
        state.open.insert(id, index);
        Ok(FileId(id))
    }

    fn close(&mut self, file: FileId) {
        self.0.borrow_mut().open.remove(&file.0);
    }

    fn bytes(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.0.borrow_mut().inode(file)?.current.len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let bytes = &state.inode(file)?.current;
        let start = (offset as usize).min(bytes.len());
        let count = buf.len().min(bytes.len() - start);
        buf[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let power = state.step();
        let length = state.inode(file)?.current.len() as u64;
        state.room((offset + bytes.len() as u64).saturating_sub(length))?;
        let inode = state.inode(file)?;
        // The write at which the power goes may still have reached the medium in part.
        inode.pending.push((offset, bytes.to_vec()));
        put(&mut inode.current, offset, bytes);
        power
    }

    fn sync_data(&mut self, file: FileId) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        if state.sync_fails {
            return Err(io::Error::other("sync failed"));
        }
        let inode = state.inode(file)?;
        inode.pending.clear();
        inode.durable.clone_from(&inode.current);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let index = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), index);
        state.name_ops.push(NameOp::Set(to.to_owned(), index));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.name_ops.push(NameOp::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.durable_names = state.names.clone();
        state.name_ops.clear();
        Ok(())
    }
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
