//! The side that leads: hands its log to every standby and tells the engine what enough of them hold.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use replcore::contract::Failure;
use tokio::time::Instant;

use super::follow::{ALIVE, Standby};
use super::wire::{Connection, Event, Message, VERSION, Welcome};
use super::{NodeReactor, NodeStore, StandbyOptions};
use crate::api::StandbyStatus;
use crate::driver::{Stream, count};
use crate::options::{Address, NodeOptions, Peer};
use crate::store::{CopyCursor, Head, ShipCursor, Shipped, Store};
use crate::tls::Tls;

/// How long to wait before a standby is dialled again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a copy whose link has broken can be gone on with: for so long the log behind it is kept.
const COPY_KEPT: Duration = Duration::from_secs(60);
/// Bytes that wait to be written to one standby, beyond one batch or part.
const QUEUED_BYTES_MAX: usize = 1 << 20;

/// How one standby is.
#[derive(Clone, Debug)]
struct Follower {
    state: FollowerState,
    /// Everything up to this batch is safe there; 0 while it takes a copy.
    synced: u64,
    /// The end of its records.
    ordinal: u64,
    /// Behind what it was given last.
    cursor: Option<ShipCursor>,
    /// Bytes that it was given on the present link, and those of them that it has stored.
    given_bytes: u64,
    stored_bytes: u64,
    /// It is to get the segments from here on.
    pinned: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FollowerState {
    Disconnected,
    Copying,
    Following,
}

impl Follower {
    const NEW: Self = Self {
        state: FollowerState::Disconnected,
        synced: 0,
        ordinal: 0,
        cursor: None,
        given_bytes: 0,
        stored_bytes: 0,
        pinned: u64::MAX,
    };

    fn status(&self, store: &NodeStore) -> StandbyStatus {
        let lag_batches = store.committed_number().saturating_sub(self.synced);
        let end = store.durable_ordinal();
        let (lag_records, lag_bytes) = match &self.cursor {
            _ if lag_batches == 0 => (0, 0),
            Some(cursor) if self.synced > 0 => {
                let under_way = self.given_bytes.saturating_sub(self.stored_bytes);
                (end.saturating_sub(self.ordinal), under_way + store.bytes_behind(cursor))
            }
            // All that is held, less what a copy has of it.
            _ => {
                let held = end.saturating_sub(store.ordinals()[0]);
                (held, store.log_bytes().saturating_sub(self.stored_bytes))
            }
        };
        let state = match self.state {
            FollowerState::Disconnected => "disconnected",
            FollowerState::Copying => "copying",
            FollowerState::Following => "following",
        };
        StandbyStatus { state: state.to_owned(), lag_batches, lag_records, lag_bytes }
    }
}

/// What a standby is given, and from where on.
struct Way {
    ship: ShipCursor,
    /// Parts of a copy go before.
    parts: Option<CopyCursor>,
    /// It takes a copy, if only the end of one.
    copy: bool,
}

/// A hub that leads.
pub(crate) struct Lead {
    reactor: Rc<NodeReactor>,
    options: StandbyOptions,
    standby: Rc<Standby>,
    tls: Option<Tls>,
    term: u64,
    followers: RefCell<Vec<Follower>>,
    /// What the election has of this hub's log.
    noted: Cell<u64>,
    replicated: Cell<u64>,
    /// Copies begun, and those that went on after their link had broken.
    copies: Cell<u64>,
    copies_resumed: Cell<u64>,
}

impl Lead {
    pub(crate) fn new(
        reactor: Rc<NodeReactor>,
        options: StandbyOptions,
        standby: Rc<Standby>,
        tls: Option<Tls>,
        term: u64,
    ) -> Rc<Self> {
        let followers = RefCell::new(vec![Follower::NEW; options.peers.len()]);
        Rc::new(Self {
            reactor,
            options,
            standby,
            tls,
            term,
            followers,
            noted: Cell::new(0),
            replicated: Cell::new(0),
            copies: Cell::new(0),
            copies_resumed: Cell::new(0),
        })
    }

    /// Serves every standby for as long as the node runs.
    pub(crate) fn start(self: &Rc<Self>) {
        for index in 0..self.options.peers.len() {
            tokio::task::spawn_local(self.clone().run_follower(index));
        }
        tokio::task::spawn_local(self.clone().note());
    }

    /// Keeps the election informed: this hub's own member, once it no longer leads, must vote for none
    /// that lacks what was acknowledged.
    async fn note(self: Rc<Self>) {
        loop {
            let turned = self.reactor.turned.notified();
            let number = self.reactor.engine.borrow().store().committed_number();
            if number > self.noted.get() {
                self.standby.note(Head { term: self.term, number, chain: 0 }).await;
                if self.standby.term() > self.term {
                    // Its days are over, and nothing more is acknowledged.
                    return;
                }
                self.noted.set(number);
                self.advance();
            } else {
                turned.await;
            }
        }
    }

    /// Its counters.
    pub(crate) fn figures(&self, store: &NodeStore) -> [(&'static str, u64); 5] {
        [
            ("replication_term", self.term),
            ("replication_committed", store.committed_number()),
            ("replication_replicated", self.replicated.get()),
            ("replication_copies", self.copies.get()),
            ("replication_copies_resumed", self.copies_resumed.get()),
        ]
    }

    /// How every standby is, and what it lacks.
    pub(crate) fn states(&self, store: &NodeStore) -> BTreeMap<String, StandbyStatus> {
        let followers = self.followers.borrow();
        let state = |(peer, follower): (&Peer, &Follower)| {
            (peer.name.as_str().to_owned(), follower.status(store))
        };
        self.options.peers.iter().zip(followers.iter()).map(state).collect()
    }

    /// Tells the engine what enough standbys hold; after every turn, and when one has synced.
    pub(crate) fn advance(&self) {
        let committed = self.reactor.engine.borrow().store().committed_number();
        let needed = usize::from(self.options.acknowledge);
        let number = match needed.checked_sub(1) {
            None => committed,
            Some(at) => {
                let mut synced: Vec<u64> =
                    self.followers.borrow().iter().map(|follower| follower.synced).collect();
                synced.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
                synced.get(at).copied().unwrap_or(0).min(committed)
            }
        };
        let number = number.min(self.noted.get());
        if number > self.replicated.get() {
            self.replicated.set(number);
            self.reactor.with(|engine| engine.replicated(number));
        }
    }

    async fn run_follower(self: Rc<Self>, index: usize) {
        let mut kept_until = Instant::now();
        loop {
            if let Err(error) = self.serve(index).await {
                tracing::debug!("standby `{}`: {error}", self.options.peers[index].name);
            }
            self.set(index, |follower| {
                if follower.state != FollowerState::Disconnected {
                    tracing::warn!("standby `{}` is gone", self.options.peers[index].name);
                }
                if follower.state == FollowerState::Copying {
                    kept_until = Instant::now() + COPY_KEPT;
                }
                follower.state = FollowerState::Disconnected;
                if Instant::now() >= kept_until {
                    follower.pinned = u64::MAX;
                }
            });
            tokio::time::sleep(RETRY).await;
        }
    }

    fn set(&self, index: usize, change: impl FnOnce(&mut Follower)) {
        change(&mut self.followers.borrow_mut()[index]);
        let pinned = self.followers.borrow().iter().map(|it| it.pinned).min();
        self.reactor.engine.borrow_mut().store_mut().pin(pinned.unwrap_or(u64::MAX));
    }

    async fn serve(&self, index: usize) -> io::Result<()> {
        let mut connection =
            dial(&self.standby, &self.options.peers[index], self.tls.as_ref()).await?;
        let welcome = greet(&self.standby, &mut connection, self.term).await?;
        let mut way = self.way(&welcome, &mut connection)?;
        let what = if way.copy { "takes a copy" } else { "follows" };
        tracing::info!("standby `{}` {what}", self.options.peers[index].name);
        self.set(index, |follower| {
            let (synced, ordinal) = (welcome.head.number, welcome.ordinal);
            *follower = Follower { pinned: way.ship.segment(), ..Follower::NEW };
            if way.copy {
                follower.state = FollowerState::Copying;
            } else {
                follower.state = FollowerState::Following;
                (follower.synced, follower.ordinal) = (synced, ordinal);
            }
        });
        self.advance();
        self.ship(index, &mut connection, &mut way).await
    }

    /// Where a standby goes on, and tells it so unless it only follows: a copy that was broken off goes on; a
    /// log that is a part of this one goes on; else a copy begins.
    fn way(&self, welcome: &Welcome, connection: &mut Connection) -> io::Result<Way> {
        let mut engine = self.reactor.engine.borrow_mut();
        let store = engine.store_mut();
        if let Some(place) = welcome.copy.as_ref().filter(|place| place.term == self.term)
            && let Some(parts) = CopyCursor::resume(&place.cursor, &place.place)
            && let Some(ship) = store.ship_from(place.head)?
        {
            count(&self.copies_resumed, 1);
            connection.queue(&Message::CopyResume);
            return Ok(Way { ship, parts: (!place.done).then_some(parts), copy: true });
        }
        if store.identity().instance == welcome.instance
            && let Some(ship) = store.ship_from(welcome.head)?
        {
            return Ok(Way { ship, parts: None, copy: false });
        }
        let start = store.start_copy().map_err(failed)?;
        let cursor = start.cursor.to_bytes().ok_or_else(|| failed(Failure::Io))?;
        count(&self.copies, 1);
        connection.queue(&Message::CopyStart { state: start.state, cursor });
        Ok(Way { ship: start.ship, parts: Some(start.cursor), copy: true })
    }

    async fn ship(
        &self,
        index: usize,
        connection: &mut Connection,
        way: &mut Way,
    ) -> io::Result<()> {
        let silence = Duration::from_millis(self.standby.options.deadlines.write_stall_ms.into());
        let mut heard = Instant::now();
        let mut alive = tokio::time::interval(ALIVE);
        loop {
            let turned = self.reactor.turned.notified();
            let given_bytes = self.fill(connection, way)?;
            self.set(index, |follower| {
                follower.pinned = way.ship.segment();
                follower.cursor = Some(way.ship);
                follower.given_bytes += given_bytes;
            });
            tokio::select! {
                event = connection.next() => match event? {
                    Event::Message(message) => {
                        heard = Instant::now();
                        self.hear(index, &message)?;
                    }
                    Event::Written => {}
                },
                () = turned => {}
                _ = alive.tick() => {
                    if heard.elapsed() > silence {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    connection.queue(&Message::Alive);
                }
            }
        }
    }

    fn hear(&self, index: usize, message: &Message) -> io::Result<()> {
        match message {
            Message::Synced { number, ordinal, bytes } => {
                self.set(index, |follower| {
                    follower.stored_bytes = *bytes;
                    if *number > 0 {
                        follower.state = FollowerState::Following;
                        follower.ordinal = *ordinal;
                    }
                    follower.synced = follower.synced.max(*number);
                });
                self.advance();
                Ok(())
            }
            Message::Alive => Ok(()),
            other => Err(io::Error::other(format!("it said {other:?}"))),
        }
    }

    /// Queues what the standby lacks while there is room; answers how many bytes of parts and batches.
    fn fill(&self, connection: &mut Connection, way: &mut Way) -> io::Result<u64> {
        let mut engine = self.reactor.engine.borrow_mut();
        let store = engine.store_mut();
        let mut given_bytes = 0;
        while connection.queued_bytes() < QUEUED_BYTES_MAX {
            let mut bytes = Vec::new();
            if let Some(cursor) = &mut way.parts {
                if store.copy_part(cursor, &mut bytes).map_err(failed)? {
                    given_bytes += bytes.len() as u64;
                    connection.queue(&Message::CopyPart { part: bytes, place: cursor.place() });
                    continue;
                }
                connection.queue(&Message::CopyEnd { through: store.committed_number() });
                way.parts = None;
            }
            match store.ship(&mut way.ship, &mut bytes)? {
                Shipped::Batch => {
                    given_bytes += bytes.len() as u64;
                    connection.queue(&Message::Batch(bytes));
                }
                Shipped::End => break,
                Shipped::Gone => return Err(io::Error::other("it is too far behind for this log")),
            }
        }
        Ok(given_bytes)
    }
}

/// Where leaves are to dial this hub; empty when its options do not say.
fn leaf_address(options: &NodeOptions) -> String {
    let listens = options.listen.iter().find_map(|address| match address {
        Address::Tcp(text) => Some(text.as_str()),
        _ => None,
    });
    let text = if options.advertise.is_empty() { listens } else { Some(&*options.advertise) };
    // One that stands for all of this machine's addresses says nothing to another.
    let anywhere = |text: &str| text.parse().is_ok_and(|it: SocketAddr| it.ip().is_unspecified());
    text.filter(|text| !anywhere(text)).unwrap_or_default().to_owned()
}

/// Greets another hub, as the leader in `term`; how far it is.
async fn greet(standby: &Standby, connection: &mut Connection, term: u64) -> io::Result<Welcome> {
    connection.queue(&Message::Hello {
        version: VERSION,
        hub: standby.options.name.as_str().to_owned(),
        member: standby.member.as_str().to_owned(),
        term,
        address: leaf_address(&standby.options),
    });
    let handshake = Duration::from_millis(standby.options.deadlines.handshake_ms.into());
    match connection.message(handshake).await? {
        Message::Welcome(welcome) => Ok(welcome),
        Message::Refused { term, reason } => {
            standby.hear_term(term);
            Err(io::Error::other(format!("it refuses this hub: {reason}")))
        }
        other => Err(io::Error::other(format!("it answered {other:?}"))),
    }
}

fn failed(reason: Failure) -> io::Error {
    io::Error::other(format!("the store does not work: {reason:?}"))
}

/// Opens a connection to another hub of the group.
pub(super) async fn dial(
    standby: &Standby,
    peer: &Peer,
    tls: Option<&Tls>,
) -> io::Result<Connection> {
    let deadlines = &standby.options.deadlines;
    let connect = Duration::from_millis(deadlines.connect_ms.into());
    let handshake = Duration::from_millis(deadlines.handshake_ms.into());
    let (stream, identity) = Stream::dial(&peer.address, tls, connect, handshake).await?;
    match identity {
        Some(name) if name != standby.options.name => {
            Err(io::Error::other(format!("the certificate there is for {name}")))
        }
        _ => Ok(Connection::new(stream)),
    }
}

/// Whether all other hubs are there and none holds anything: a group that has never begun.
pub(crate) async fn all_empty(standby: &Standby, own: &StandbyOptions, tls: Option<&Tls>) -> bool {
    for peer in &own.peers {
        if !matches!(ask(standby, peer, tls).await, Ok(head) if head.number == 0) {
            return false;
        }
    }
    true
}

/// Where the log of another hub ends.
async fn ask(standby: &Standby, peer: &Peer, tls: Option<&Tls>) -> io::Result<Head> {
    let mut connection = dial(standby, peer, tls).await?;
    greet(standby, &mut connection, 0).await.map(|welcome| welcome.head)
}
