//! The side that leads: hands its log to every standby and tells the engine what enough of them hold.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use replcore::contract::Failure;

use super::follow::{ALIVE, Standby};
use super::wire::{Connection, Event, Message, VERSION};
use super::{NodeReactor, StandbyOptions};
use crate::driver::Stream;
use crate::options::{Address, NodeOptions, Peer};
use crate::store::{CopyCursor, Head, ShipCursor, Shipped, Store};
use crate::tls::Tls;

/// How long to wait before a standby is dialled again.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes that wait to be written to one standby, beyond one batch or part.
const QUEUED_BYTES_MAX: usize = 1 << 20;

/// How one standby is.
#[derive(Clone, Debug)]
struct Follower {
    state: &'static str,
    /// Everything up to this batch is safe there.
    synced: u64,
    /// It is to get the segments from here on.
    pinned: u64,
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
}

impl Lead {
    pub(crate) fn new(
        reactor: Rc<NodeReactor>,
        options: StandbyOptions,
        standby: Rc<Standby>,
        tls: Option<Tls>,
        term: u64,
    ) -> Rc<Self> {
        let fresh = Follower { state: "not connected", synced: 0, pinned: u64::MAX };
        let followers = RefCell::new(vec![fresh; options.peers.len()]);
        let (noted, replicated) = (Cell::new(0), Cell::new(0));
        Rc::new(Self { reactor, options, standby, tls, term, followers, noted, replicated })
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

    /// The term in which it leads, the last batch committed, and the last that enough standbys hold.
    pub(crate) fn figures(&self) -> [u64; 3] {
        let committed = self.reactor.engine.borrow().store().committed_number();
        [self.term, committed, self.replicated.get()]
    }

    /// Every standby with how it is and how many batches it lacks.
    pub(crate) fn states(&self) -> Vec<(String, String)> {
        let committed = self.reactor.engine.borrow().store().committed_number();
        let followers = self.followers.borrow();
        let state = |(peer, follower): (&Peer, &Follower)| {
            let lacks = committed.saturating_sub(follower.synced);
            (peer.name.as_str().to_owned(), format!("{}, {lacks} batches behind", follower.state))
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
        loop {
            if let Err(error) = self.serve(index).await {
                tracing::debug!("standby `{}`: {error}", self.options.peers[index].name);
            }
            self.set(index, |follower| {
                if follower.state != "not connected" {
                    tracing::warn!("standby `{}` is gone", self.options.peers[index].name);
                }
                follower.state = "not connected";
                follower.pinned = u64::MAX;
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
        let peer = &self.options.peers[index];
        let mut connection = dial(&self.standby, peer, self.tls.as_ref()).await?;
        let (instance, head) = greet(&self.standby, &mut connection, self.term).await?;
        let mut copying = None;
        let mut cursor = {
            let mut engine = self.reactor.engine.borrow_mut();
            let store = engine.store_mut();
            let same = store.identity().instance == instance;
            let cursor = if same { store.ship_from(head)? } else { None };
            match cursor {
                Some(cursor) => cursor,
                None => {
                    let start = store.start_copy().map_err(failed)?;
                    connection.queue(&Message::CopyStart(start.state));
                    copying = Some(start.cursor);
                    start.ship
                }
            }
        };
        let what = if copying.is_some() { "takes a copy" } else { "follows" };
        tracing::info!("standby `{}` {what}", peer.name);
        self.set(index, |follower| {
            follower.state = what;
            follower.synced = if copying.is_some() { 0 } else { head.number };
        });
        self.advance();
        self.ship(index, &mut connection, &mut cursor, copying).await
    }

    async fn ship(
        &self,
        index: usize,
        connection: &mut Connection,
        cursor: &mut ShipCursor,
        mut copying: Option<CopyCursor>,
    ) -> io::Result<()> {
        let silence = Duration::from_millis(self.standby.options.deadlines.write_stall_ms.into());
        let mut heard = tokio::time::Instant::now();
        let mut alive = tokio::time::interval(ALIVE);
        loop {
            let turned = self.reactor.turned.notified();
            self.fill(connection, cursor, &mut copying)?;
            self.set(index, |follower| follower.pinned = cursor.segment());
            tokio::select! {
                event = connection.next() => match event? {
                    Event::Message(message) => {
                        heard = tokio::time::Instant::now();
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
            Message::Synced { number } => {
                self.set(index, |follower| {
                    if *number > 0 {
                        follower.state = "follows";
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

    /// Queues what the standby lacks while there is room.
    fn fill(
        &self,
        connection: &mut Connection,
        cursor: &mut ShipCursor,
        copying: &mut Option<CopyCursor>,
    ) -> io::Result<()> {
        let mut engine = self.reactor.engine.borrow_mut();
        let store = engine.store_mut();
        while connection.queued_bytes() < QUEUED_BYTES_MAX {
            let mut bytes = Vec::new();
            if let Some(copy) = copying {
                if store.copy_part(copy, &mut bytes).map_err(failed)? {
                    connection.queue(&Message::CopyPart(bytes));
                    continue;
                }
                connection.queue(&Message::CopyEnd { through: store.committed_number() });
                *copying = None;
            }
            match store.ship(cursor, &mut bytes)? {
                Shipped::Batch => connection.queue(&Message::Batch(bytes)),
                Shipped::End => return Ok(()),
                Shipped::Gone => return Err(io::Error::other("it is too far behind for this log")),
            }
        }
        Ok(())
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

/// Greets another hub, as the leader in `term`; whose log it has, and where that ends.
async fn greet(
    standby: &Standby,
    connection: &mut Connection,
    term: u64,
) -> io::Result<(u64, Head)> {
    connection.queue(&Message::Hello {
        version: VERSION,
        hub: standby.options.name.as_str().to_owned(),
        member: standby.member.as_str().to_owned(),
        term,
        address: leaf_address(&standby.options),
    });
    let handshake = Duration::from_millis(standby.options.deadlines.handshake_ms.into());
    match connection.message(handshake).await? {
        Message::Welcome { instance, head, .. } => Ok((instance, head)),
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
    greet(standby, &mut connection, 0).await.map(|(_, head)| head)
}
