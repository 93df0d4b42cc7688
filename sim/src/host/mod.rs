//! A small driver that runs any machine over any store, and watches both.
//!
//! It is written from the contract alone and shares no code with the daemon's driver, so that a
//! misreading of the contract in one of the two shows as a difference.

mod intake;
mod orders;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use replcore::contract::{
    Answer, Failure, Input, LinkId, Machine, Output, StreamIndex, Token, Transport,
};
use replcore::log::record::Record;
use replcore::stream::{Cursor, Name, NodeId, QueueKey, RecordId, StreamKey};
use replcore::time::Instant;
use replcore::wire::Records;
use replcore_runtime::store::{Arrival, QueueKind, Route};

use crate::model::Keeper;
use crate::process::{Effect, LeaseState, Now, Observation, Process, Stimulus};

/// More outputs than this in one drain are taken for an endless one.
const OUTPUTS_MAX: usize = 20_000;

/// What a host must know beside its machine and its store.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The node's name.
    pub name: Name,
    /// Whether records that come over links it accepted are a leaf's.
    pub hub: bool,
    /// Longest frame that its machine takes.
    pub frame_bytes_max: u32,
    /// Where a record goes that arrives in this way.
    pub routes: Routes,
}

/// Dispatch of a simulated node.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Queues of leaves: every record goes there, except to where it came from.
    pub leaves: Vec<Name>,
    /// Queues of upstream hubs: records posted here, or that came from a leaf, go there.
    pub upstreams: Vec<Name>,
    /// Break the rule that nothing goes back (HS-18), to see that the checks notice.
    pub bug_sends_back: bool,
}

impl Routes {
    fn targets(&self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        let came_from = match arrival {
            Arrival::Leaf(node) | Arrival::Upstream(node) => Some(node),
            Arrival::Local => None,
        };
        for leaf in &self.leaves {
            let id = leaf.node_id();
            let back = Some(id) == came_from || id == record.id().origin;
            if !back || self.bug_sends_back {
                targets.push(*leaf);
            }
        }
        if !matches!(arrival, Arrival::Upstream(_)) {
            targets.extend(&self.upstreams);
        }
    }
}

struct Watching<'a> {
    routes: &'a Routes,
    observations: &'a mut Vec<Observation>,
}

impl Route for Watching<'_> {
    fn route(&mut self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        self.routes.targets(record, arrival, targets);
        // A record posted here is not stamped yet; its store tells its identity later.
        if arrival != Arrival::Local {
            self.observations.push(Observation::Stored {
                id: record.id(),
                body: record.body().to_vec(),
                arrival,
                targets: targets.clone(),
            });
        }
    }
}

/// Bytes of a link that go somewhere else than to the machine.
#[derive(Clone, Copy, Debug)]
enum Order {
    Take { stream: StreamIndex, source: StreamKey, records: Records, len: u32 },
    Skip { len: u32 },
}

#[derive(Debug)]
struct Link {
    transport: Transport,
    inbox: Vec<u8>,
    order: Option<Order>,
    /// Streams of which nothing is taken until the sender went back: the round they were in.
    refused: BTreeMap<StreamIndex, u8>,
    credit: u64,
}

#[derive(Debug)]
struct TakenLater {
    link: LinkId,
    stream: StreamIndex,
    source: StreamKey,
    bytes: u32,
}

/// An input that the host owes its machine.
#[derive(Debug)]
enum Owed {
    Sent {
        link: LinkId,
        stream: StreamIndex,
        next: Cursor,
        bytes: u32,
        wire_bytes: u32,
    },
    Gone {
        link: LinkId,
        stream: StreamIndex,
        next: replcore::stream::Position,
        reason: replcore::contract::SkipReason,
    },
    Refused {
        link: LinkId,
        stream: StreamIndex,
        reason: Failure,
    },
    Failed {
        token: Token,
        reason: Failure,
    },
    Persisted {
        token: Token,
    },
    Taken {
        link: LinkId,
        stream: StreamIndex,
        next: Cursor,
        bytes: u32,
    },
    Appended {
        link: LinkId,
        stream: StreamIndex,
        next: replcore::stream::Position,
    },
    Answer {
        token: Token,
        answer: Answer,
    },
    Offer {
        link: LinkId,
    },
}

/// How a host tells what its machine's events mean.
pub type LeaseOf<E> = fn(&E) -> Option<(NodeId, LeaseState)>;

/// A machine, a store and the bytes between them and the links.
pub struct Host<M: Machine, S: Keeper> {
    machine: M,
    store: S,
    options: HostOptions,
    lease_of: LeaseOf<M::Event>,
    links: BTreeMap<LinkId, Link>,
    owed: VecDeque<Owed>,
    takes: Vec<TakenLater>,
    persists: Vec<Token>,
    posts: Vec<(u64, RecordId, bool, Vec<u8>)>,
    buffer: Vec<u8>,
    wake: Option<Instant>,
    /// The time that the machine was told last.
    told_at: Instant,
    halted: bool,
    /// For each incoming stream how far it is safe, to hold acknowledgements against.
    safe: BTreeMap<(LinkId, StreamIndex), StreamKey>,
    /// Positions of incoming streams that the store has told.
    told: BTreeSet<u64>,
    released: BTreeMap<QueueKey, u64>,
    /// Leaves by their links.
    leaf_of: BTreeMap<LinkId, NodeId>,
}

impl<M: Machine, S: Keeper> Debug for Host<M, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl<M: Machine, S: Keeper> Host<M, S> {
    /// Starts a node: gives the machine what the store kept for it.
    ///
    /// # Panics
    /// When the machine does not take back what it had persisted.
    pub fn start(
        mut machine: M,
        mut store: S,
        options: HostOptions,
        lease_of: LeaseOf<M::Event>,
    ) -> Self {
        store.restore(&mut |key, state| {
            machine.restore(key, state).expect("a machine takes back what it persisted");
        });
        for name in &options.routes.upstreams {
            store.ensure_queue(name, QueueKind::Upstream).expect("there is room for its queues");
        }
        for name in &options.routes.leaves {
            store.ensure_queue(name, QueueKind::Leaf).expect("there is room for its queues");
        }
        Self {
            machine,
            store,
            options,
            lease_of,
            links: BTreeMap::new(),
            owed: VecDeque::new(),
            takes: Vec::new(),
            persists: Vec::new(),
            posts: Vec::new(),
            buffer: vec![0; 64],
            wake: None,
            told_at: Instant::ZERO,
            halted: false,
            safe: BTreeMap::new(),
            told: BTreeSet::new(),
            released: BTreeMap::new(),
            leaf_of: BTreeMap::new(),
        }
    }

    /// What it keeps.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// What it keeps, to break it.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The machine.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Ends the process; what was not committed is the store's affair.
    pub fn into_store(self) -> S {
        self.store
    }
}

/// One turn of a host: its parts and where effects and observations go.
struct Turn<'a, M: Machine, S: Keeper> {
    host: &'a mut Host<M, S>,
    now: Now,
    effects: &'a mut Vec<Effect>,
    seen: &'a mut Vec<Observation>,
}

impl<M: Machine, S: Keeper> Turn<'_, M, S> {
    fn violation(&mut self, what: String) {
        self.seen.push(Observation::Violation { what });
    }

    fn handle(&mut self, input: Input<'_>) -> usize {
        let recv = matches!(input, Input::Recv { .. });
        self.host.told_at = self.now.monotonic;
        let taken = self.host.machine.handle(self.now.monotonic, input);
        if !recv && taken != 0 {
            self.violation(format!("{taken} bytes taken of an input that brings none"));
        }
        taken
    }

    /// Polls until idle and does what is asked.
    fn drain(&mut self) {
        let mut outputs = 0;
        loop {
            let mut buffer = std::mem::take(&mut self.host.buffer);
            let output = self.host.machine.poll(&mut buffer);
            self.host.buffer = buffer;
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                self.violation(format!("more than {OUTPUTS_MAX} outputs in one drain"));
                self.host.halted = true;
                return;
            }
            match output {
                Output::Idle { wake } => {
                    if wake.is_some_and(|wake| wake <= self.host.told_at) {
                        self.violation(format!("wake {wake:?} is not after {:?}", self.now));
                    }
                    self.host.wake = wake;
                    return;
                }
                Output::NeedBuffer { len } => {
                    if len <= self.host.buffer.len() {
                        self.violation(format!("wants {len} bytes of buffer and has them"));
                        self.host.halted = true;
                        return;
                    }
                    self.host.buffer.resize(len, 0);
                }
                Output::Halted { reason } => {
                    self.host.halted = true;
                    self.violation(format!("halted: {reason}"));
                    return;
                }
                output => self.obey(output),
            }
        }
    }
}

impl<M: Machine, S: Keeper> Process for Host<M, S> {
    fn take(
        &mut self,
        now: Now,
        stimulus: Stimulus<'_>,
        effects: &mut Vec<Effect>,
        observations: &mut Vec<Observation>,
    ) {
        if self.halted {
            return;
        }
        let mut turn = Turn { host: self, now, effects, seen: observations };
        match stimulus {
            Stimulus::Timeout => {
                turn.handle(Input::Timeout);
            }
            Stimulus::LinkUp { link, dialed, transport, peer } => {
                turn.host.links.insert(
                    link,
                    Link {
                        transport,
                        inbox: Vec::new(),
                        order: None,
                        refused: BTreeMap::new(),
                        credit: 0,
                    },
                );
                turn.handle(Input::LinkUp { link, dialed, transport, identity: peer });
            }
            Stimulus::LinkDown { link } => {
                turn.host.links.remove(&link);
                turn.host.leaf_of.remove(&link);
                turn.host.takes.retain(|take| take.link != link);
                turn.host.safe.retain(|(of, _), _| *of != link);
                turn.host.store.unwatch(link);
                turn.handle(Input::LinkDown { link });
            }
            Stimulus::DialFailed { dial } => {
                turn.handle(Input::DialFailed { dial });
            }
            Stimulus::Received { link, bytes } => {
                let Some(of) = turn.host.links.get_mut(&link) else { return };
                let datagram = of.transport == Transport::Datagram;
                of.inbox.extend_from_slice(bytes);
                turn.offer(link);
                if datagram && let Some(of) = turn.host.links.get_mut(&link) {
                    // What was not taken of a datagram is gone.
                    of.inbox.clear();
                    of.order = None;
                }
            }
            Stimulus::Writable { link, bytes } => {
                let Some(of) = turn.host.links.get_mut(&link) else { return };
                of.credit += u64::from(bytes);
                turn.handle(Input::Writable { link, bytes });
            }
            Stimulus::Commit => turn.commit(),
            Stimulus::Post { mark, post } => turn.post(mark, post),
        }
        turn.settle();
    }

    fn held(&mut self) -> Vec<RecordId> {
        self.store.held()
    }

    fn wake(&self) -> Option<Instant> {
        if self.halted { None } else { self.wake }
    }

    fn dirty(&self) -> bool {
        !self.halted
            && (self.store.dirty()
                || !self.posts.is_empty()
                || !self.takes.is_empty()
                || !self.persists.is_empty())
    }

    fn frame_bytes_max(&self) -> u32 {
        self.options.frame_bytes_max
    }
}
