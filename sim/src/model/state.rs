//! What a store holds, as plainly as it can be said.
//!
//! The state is the fold of a journal: [`State::apply`] is the only thing that changes it, so that
//! a crash is a shorter journal and a restored copy of the folder is an old one.

use std::collections::{BTreeMap, BTreeSet};

use replcore::contract::{Key, SkipReason};
use replcore::log::record::Record;
use replcore::stream::{
    Epoch, Life, Name, NodeId, Position, QueueId, QueueKey, RecordId, StreamKey, place_after,
};
use replcore_runtime::store::{Identity, LimitPolicy, QueueKind};

/// One change of a store.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are named for what they hold")]
pub enum Op {
    /// A record was stored, and queued for `targets`.
    Record { bytes: Vec<u8>, targets: Vec<Name> },
    /// An incoming stream was taken up to here.
    Inbound { source: StreamKey, next: Position },
    /// A queue exists.
    Queue { name: Name, kind: QueueKind },
    /// A queue's entries before a position are gone, because they were acknowledged or dropped.
    Release { queue: QueueKey, through: Position, dropped: bool },
    /// The machine's state.
    Persist { key: Key, state: Vec<u8> },
    /// No longer the machine's state.
    Forget { key: Key },
    /// An incoming stream goes on here, in the present life of its owner's log.
    Place { source: StreamKey, position: Position },
    /// A new life of the log.
    Life { epoch: Epoch },
}

/// One class of one queue: places of records in the log, by position.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// What it holds.
    pub entries: BTreeMap<u64, usize>,
    /// The number of entries it has ever held.
    pub next: u64,
    /// The same, of what is committed.
    pub committed: u64,
    /// Everything before is acknowledged or dropped.
    pub released: u64,
    /// Everything before was dropped unread, unless it was acknowledged.
    pub dropped: u64,
    /// Entries before this were acknowledged or given out in this life of the log.
    pub sent: u64,
    /// How it stood at the end of earlier lives.
    pub lives: Vec<Life>,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: QueueKind,
    /// Its classes.
    pub classes: [Class; 4],
}

/// All that a store holds.
#[derive(Clone, Debug)]
pub struct State {
    /// Who it belongs to.
    pub identity: Identity,
    /// The log: bytes of each record, in the order in which they were stored.
    pub records: Vec<Vec<u8>>,
    /// Identities that have been stored.
    pub known: BTreeSet<(NodeId, Epoch, u8, u64)>,
    /// Idempotency keys of own posts.
    pub posted: BTreeMap<Vec<u8>, RecordId>,
    /// Queues by id.
    pub queues: BTreeMap<QueueId, Queue>,
    /// How far incoming streams were taken: the last epoch and the position in it.
    pub inbound: BTreeMap<(NodeId, QueueKey), (Epoch, u64)>,
    /// The machine's state.
    pub keyed: BTreeMap<Key, Vec<u8>>,
    /// The last number given in each class.
    pub seq: [u64; 4],
}

/// The order in which identities are kept in sets.
pub const fn known_key(id: &RecordId) -> (NodeId, Epoch, u8, u64) {
    (id.origin, id.epoch, id.class, id.seq.0)
}

impl State {
    /// The state of a new store.
    pub const fn new(identity: Identity) -> Self {
        Self {
            identity,
            records: Vec::new(),
            known: BTreeSet::new(),
            posted: BTreeMap::new(),
            queues: BTreeMap::new(),
            inbound: BTreeMap::new(),
            keyed: BTreeMap::new(),
            seq: [0; 4],
        }
    }

    /// Makes one change.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Record { bytes, targets } => self.record(bytes, targets),
            Op::Inbound { source, next } => {
                let place =
                    self.inbound.entry((source.owner, source.queue)).or_insert((source.epoch, 0));
                if source.epoch == place.0 {
                    place.1 = place.1.max(next.0);
                }
            }
            Op::Place { source, position } => {
                self.inbound.insert((source.owner, source.queue), (source.epoch, position.0));
            }
            Op::Queue { name, kind } => {
                self.queues.entry(name.queue_id()).or_insert_with(|| Queue {
                    name: *name,
                    kind: *kind,
                    classes: Default::default(),
                });
            }
            Op::Release { queue, through, dropped } => self.release(*queue, through.0, *dropped),
            Op::Persist { key, state } => {
                self.keyed.insert(*key, state.clone());
            }
            Op::Forget { key } => {
                self.keyed.remove(key);
            }
            Op::Life { epoch } => self.begin_life(*epoch),
        }
    }

    fn record(&mut self, bytes: &[u8], targets: &[Name]) {
        let record = Record::parse(bytes).expect("only whole records are journaled");
        let id = record.id();
        self.known.insert(known_key(&id));
        if id.origin == self.identity.name.node_id() && id.epoch == self.identity.epoch {
            let seq = &mut self.seq[usize::from(id.class)];
            *seq = (*seq).max(id.seq.0);
            if !record.idempotency_key().is_empty() {
                self.posted.insert(record.idempotency_key().to_vec(), id);
            }
        }
        let place = self.records.len();
        self.records.push(bytes.to_vec());
        for name in targets {
            self.apply(&Op::Queue { name: *name, kind: QueueKind::Leaf });
            let queue = self.queues.get_mut(&name.queue_id()).expect("it was just made");
            let class = &mut queue.classes[usize::from(id.class)];
            class.entries.insert(class.next, place);
            class.next += 1;
        }
    }

    fn release(&mut self, queue: QueueKey, through: u64, dropped: bool) {
        let Some(queue) = self.class_mut(queue) else { return };
        let through = through.min(queue.next);
        queue.entries = queue.entries.split_off(&through);
        queue.released = queue.released.max(through);
        if dropped {
            queue.dropped = queue.dropped.max(through);
        }
    }

    /// Numbers begin anew, and every queue remembers where the life before has left it.
    fn begin_life(&mut self, epoch: Epoch) {
        for class in self.queues.values_mut().flat_map(|queue| &mut queue.classes) {
            class.lives.push(Life { epoch: self.identity.epoch, end: Position(class.next) });
            class.sent = class.released;
        }
        self.identity.epoch = epoch;
        self.seq = [0; 4];
    }

    /// Where a reader goes on that was `position` far in the life `epoch`.
    pub fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position {
        let present = self.identity.epoch;
        let Some(class) = self.class_mut(queue) else { return Position(0) };
        let sent = class.sent.max(class.released);
        let now = Life { epoch: present, end: Position(sent) };
        let released = Position(class.released);
        let place = if epoch == present && position > now.end {
            position.min(released)
        } else {
            class.lives.push(now);
            let place = place_after(&class.lives, epoch, position, released);
            class.lives.pop();
            place
        };
        class.sent = sent.max(place.0);
        place
    }

    /// One class of one queue.
    pub fn class(&self, key: QueueKey) -> Option<&Class> {
        self.queues.get(&key.queue)?.classes.get(usize::from(key.class))
    }

    /// The same, to change it.
    pub fn class_mut(&mut self, key: QueueKey) -> Option<&mut Class> {
        self.queues.get_mut(&key.queue)?.classes.get_mut(usize::from(key.class))
    }

    /// Everything that is there is committed now.
    pub fn committed(&mut self) {
        for class in self.queues.values_mut().flat_map(|queue| &mut queue.classes) {
            class.committed = class.next;
        }
    }

    /// Why the entries of a class from `from` to the next one held are not there.
    pub const fn gone_reason(class: &Class, from: u64) -> SkipReason {
        if from < class.dropped { SkipReason::Dropped } else { SkipReason::Forgotten }
    }

    /// Messages in all classes of a queue.
    pub fn depth(queue: &Queue) -> u64 {
        queue.classes.iter().map(|class| class.entries.len() as u64).sum()
    }
}

/// A limit that holds for every queue of a model store.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Most messages in one queue.
    pub messages_max: u64,
    /// What happens at it. `DropByClass` is treated as `DropOldest`.
    pub policy: LimitPolicy,
}
