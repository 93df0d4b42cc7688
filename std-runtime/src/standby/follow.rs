//! The side that follows: takes the leader's batches, or a copy of its store, from whoever leads in
//! the latest term.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use replcore::contract::Failure;
use replcore::node::turn_away;
use replcore::stream::{Address as LeafAddress, Name};
use replcore::wire::{CONTROL_FRAME_BYTES_MAX, Progress};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::wire::{Connection, CopyPlace, Event, Message, VERSION, Welcome};
use super::{NodeStore, folder};
use crate::cluster::Cluster;
use crate::driver::{Accepted, Stream, count, wall_ms};
use crate::options::NodeOptions;
use crate::store::{FileDisk, FollowError, Head, Identity, SegmentStore, Store};
use crate::tls::Tls;

/// How often each end of a replication link says that it is there.
pub(super) const ALIVE: Duration = Duration::from_secs(1);
/// How often a follower's store looks after itself.
const MAINTAIN: Duration = Duration::from_secs(1);

/// A copy under way. When its link breaks it waits to be gone on with.
struct Copying {
    store: NodeStore,
    term: u64,
    cursor: Vec<u8>,
    place: Vec<u8>,
    /// With all parts there: it is whole once it has the batch of this number.
    through: Option<u64>,
    /// The present leader goes on with it.
    goes_on: bool,
}

/// What a standby holds. While this hub leads, the store is elsewhere.
pub(crate) struct Standby {
    pub(super) options: NodeOptions,
    pub(super) member: Name,
    tls: Option<Tls>,
    store: RefCell<Option<NodeStore>>,
    copy: RefCell<Option<Copying>>,
    /// The latest term heard of.
    term: Cell<u64>,
    head: Cell<Head>,
    identity: Cell<Identity>,
    leader: RefCell<String>,
    /// Where that one takes leaves, while it is linked.
    leaf_address: RefCell<Option<LeafAddress>>,
    /// Links that are being turned away, and those that were.
    turning_away: Cell<u32>,
    turned_away: Cell<u64>,
    /// The connection that is served; an older one ends itself.
    serving: Cell<u64>,
    /// Told when something in the fields above has changed.
    pub(crate) changed: Notify,
    failed: RefCell<Option<String>>,
    random: Cell<u64>,
    /// The member of the election that votes for this hub, once it may.
    voter: RefCell<Option<Rc<Cluster>>>,
}

/// What came of a message: whether something is to be committed or told, and the bytes that are stored.
#[derive(Default)]
struct Taken {
    commit: bool,
    bytes: u64,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads the greeting of a leaf or a program and answers that this hub stands by.
async fn answer_greeting(
    stream: &mut Stream,
    leader: impl Fn() -> Option<LeafAddress>,
) -> io::Result<()> {
    let (mut data, mut buf) = (Vec::new(), [0; CONTROL_FRAME_BYTES_MAX]);
    let len = loop {
        let bytes = poll_fn(|cx| stream.poll_read(cx, &mut buf)).await?;
        if bytes == 0 {
            return Ok(());
        }
        data.extend_from_slice(&buf[..bytes]);
        match turn_away(&data, leader().as_ref(), &mut buf) {
            Ok(Some(len)) => break len,
            Ok(None) => {}
            Err(error) => return Err(invalid(error.to_string())),
        }
    };
    let mut written = 0;
    while written < len {
        written += poll_fn(|cx| stream.poll_write(cx, &buf[written..len])).await?;
    }
    poll_fn(|cx| stream.poll_flush(cx)).await?;
    // The other end closes: if this one did, what it said could be lost.
    while poll_fn(|cx| stream.poll_read(cx, &mut buf)).await? > 0 {}
    Ok(())
}

impl Standby {
    /// Opens the folder of a hub with standbys.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) fn open(
        options: NodeOptions,
        member: Name,
        tls: Option<Tls>,
        random: u64,
    ) -> Result<Rc<Self>, String> {
        let explain = |error: io::Error| {
            format!(
                "data folder {}: a copy of another hub's store: {error}",
                options.folder.display()
            )
        };
        if options.folder.exists() {
            folder::tidy(&options.folder).map_err(explain)?;
        }
        let store = crate::node::open_store(&options, random)?;
        let (head, identity) = (store.head(), store.identity());
        Ok(Rc::new(Self {
            options,
            member,
            tls,
            store: RefCell::new(Some(store)),
            copy: RefCell::new(None),
            term: Cell::new(head.term),
            head: Cell::new(head),
            identity: Cell::new(identity),
            leader: RefCell::default(),
            leaf_address: RefCell::default(),
            turning_away: Cell::new(0),
            turned_away: Cell::new(0),
            serving: Cell::new(0),
            changed: Notify::new(),
            failed: RefCell::default(),
            random: Cell::new(random),
            voter: RefCell::default(),
        }))
    }

    /// Where its log ends. Not zero while it leads.
    pub(crate) const fn head(&self) -> Head {
        self.head.get()
    }

    /// The latest term that it has heard of.
    pub(crate) const fn term(&self) -> u64 {
        self.term.get()
    }

    /// Whom it follows; empty for nobody.
    pub(crate) fn leader(&self) -> String {
        self.leader.borrow().clone()
    }

    /// Where the hub takes leaves that leads, if that is known.
    fn leaf_address(&self) -> Option<LeafAddress> {
        let named = |voter: &Rc<Cluster>| {
            voter.leader().is_some_and(|leader| leader.identifier == *self.leader.borrow())
        };
        let leads = self.voter.borrow().as_ref().is_none_or(named);
        self.leaf_address.borrow().filter(|_| leads)
    }

    /// Links that were turned away.
    pub(crate) const fn turned_away(&self) -> u64 {
        self.turned_away.get()
    }

    /// Tells a leaf or a program where the hub is that leads, and closes.
    pub(crate) async fn turn_away(self: Rc<Self>, accepted: Accepted) {
        if self.turning_away.get() >= self.options.limits.links_max {
            return;
        }
        count(&self.turned_away, 1);
        self.turning_away.set(self.turning_away.get() + 1);
        let handshake = Duration::from_millis(self.options.deadlines.handshake_ms.into());
        let answer = async {
            let (mut stream, _) = accepted.open(self.tls.as_ref(), None, handshake).await?;
            answer_greeting(&mut stream, || self.leaf_address()).await
        };
        // Whatever comes of it: the other end dials again.
        let _ = tokio::time::timeout(2 * handshake, answer).await;
        self.turning_away.set(self.turning_away.get() - 1);
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.get()
    }

    /// From now on this member votes for the hub.
    pub(crate) fn set_voter(&self, voter: Rc<Cluster>) {
        self.voter.replace(Some(voter));
    }

    pub(crate) fn voter(&self) -> Option<Rc<Cluster>> {
        self.voter.borrow().clone()
    }

    /// From now on the election has it that this hub's log ends at `head`: its member votes for none
    /// that holds less. A term in which it has voted before is heard of when this answers, so that
    /// what is acknowledged afterwards in an earlier one is not.
    pub(crate) async fn note(&self, head: Head) {
        let voter = self.voter.borrow().clone();
        if let Some(voter) = voter {
            let progress = Progress { term: head.term, position: head.number };
            self.hear_term(voter.set_progress(progress).await);
        }
    }

    /// What the store counts, and the bytes and ordinals of its log, while it follows.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&NodeStore) -> R) -> Option<R> {
        self.store.borrow().as_ref().map(look)
    }

    /// Why it cannot go on.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// A later term has begun: whoever leads in an earlier one is refused.
    pub(crate) fn hear_term(&self, term: u64) {
        if term > self.term.get() {
            self.term.set(term);
            self.changed.notify_waiters();
        }
    }

    /// Leaves the store as a clean end leaves it.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.serving.set(self.serving.get() + 1);
        self.copy.replace(None);
        self.store.take().map_or(Ok(()), |mut store| store.close())
    }

    /// Gives the store to the hub that it becomes.
    pub(crate) fn take_store(&self, term: u64) -> Option<NodeStore> {
        self.serving.set(self.serving.get() + 1);
        self.hear_term(term);
        self.leader.replace(self.member.as_str().to_owned());
        self.copy.replace(None);
        let store = self.store.take();
        self.head.set(Head { term, ..self.head.get() });
        store
    }

    /// Opens the store again, after the hub to which it was given leads no longer. What that one has
    /// committed and nobody else has seen is there, as after a restart: the log of the next leader
    /// decides.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) fn reopen(&self) -> Result<(), String> {
        let store = crate::node::open_store(&self.options, self.next_random())?;
        if store.head().number == 0 {
            return Err(format!(
                "data folder {}: the log has lost its end; started again this hub takes a copy",
                self.options.folder.display()
            ));
        }
        self.head.set(store.head());
        self.identity.set(store.identity());
        self.leader.replace(String::new());
        self.store.replace(Some(store));
        self.changed.notify_waiters();
        Ok(())
    }

    /// Accepts for as long as it is polled.
    pub(crate) async fn accept(self: Rc<Self>, listener: TcpListener) {
        let at_once = std::sync::Arc::new(tokio::sync::Semaphore::new(super::CONNECTIONS_MAX));
        loop {
            let Ok(permit) = at_once.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let standby = self.clone();
                    tokio::task::spawn_local(async move {
                        if let Err(error) = standby.serve(stream).await {
                            tracing::info!("a replication link has ended: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a replication link: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, stream: tokio::net::TcpStream) -> io::Result<()> {
        let handshake = Duration::from_millis(self.options.deadlines.handshake_ms.into());
        let (stream, identity) = Stream::accepted(stream, self.tls.as_ref(), handshake).await?;
        if identity.is_some_and(|name| name != self.options.name) {
            return Err(invalid("its certificate is not that of this hub"));
        }
        let mut connection = Connection::new(stream);
        let hello = connection.message(handshake).await?;
        let Message::Hello { version, hub, member, term, address } = hello else {
            return Err(invalid("the first message is no greeting"));
        };
        self.note(self.head.get()).await;
        let refusal = if version != VERSION || hub != self.options.name.as_str() {
            Some(format!("this is hub `{}`, version {VERSION}", self.options.name))
        } else if member == self.member.as_str() {
            Some(format!("this is `{member}` itself"))
        } else if term > 0 && (term < self.term.get() || self.is_leading(term)) {
            Some(format!("term {} has begun", self.term.get()))
        } else if term > 0 && self.store.borrow().is_none() {
            self.hear_term(term);
            Some("it leads in an earlier term, and steps down".to_owned())
        } else {
            None
        };
        let answer = match &refusal {
            Some(reason) => Message::Refused { term: self.term.get(), reason: reason.clone() },
            None => self.welcome(term, &member, &address),
        };
        connection.queue(&answer);
        let done = refusal.is_some() || term == 0;
        let serving = self.serving.get();
        let served = if done { Ok(()) } else { self.follow(&mut connection, term).await };
        if !done && self.serving.get() == serving {
            self.leaf_address.replace(None);
        }
        // What was queued is still written: a refusal says why.
        while connection.queued_bytes() > 0 {
            let _ = tokio::time::timeout(handshake, connection.next()).await??;
        }
        served
    }

    /// Whether this hub leads itself in that term.
    fn is_leading(&self, term: u64) -> bool {
        self.store.borrow().is_none() && term == self.term.get()
    }

    fn welcome(&self, term: u64, member: &str, address: &str) -> Message {
        if term > 0 {
            self.hear_term(term);
            self.serving.set(self.serving.get() + 1);
            self.leader.replace(member.to_owned());
            self.leaf_address.replace(LeafAddress::new(address).ok());
        }
        Message::Welcome(Welcome {
            member: self.member.as_str().to_owned(),
            instance: self.identity.get().instance,
            head: self.head.get(),
            ordinal: self.look(NodeStore::durable_ordinal).unwrap_or(0),
            copy: self.copy_place(term),
        })
    }

    /// Where a copy stands with which the leader of this term may go on.
    fn copy_place(&self, term: u64) -> Option<CopyPlace> {
        if term == 0 {
            return None;
        }
        let mut copy = self.copy.borrow_mut();
        // What it has followed and not committed yet is told with the rest.
        let sound = |it: &mut Copying| it.term == term && it.store.commit().is_ok();
        if !copy.as_mut().is_some_and(sound) {
            *copy = None;
        }
        let copy = copy.as_mut()?;
        copy.goes_on = false;
        Some(CopyPlace {
            term: copy.term,
            cursor: copy.cursor.clone(),
            place: copy.place.clone(),
            done: copy.through.is_some(),
            head: copy.store.head(),
        })
    }

    /// The leader goes on with the copy that was broken off, or has no use for it.
    fn settle_copy(&self, goes_on: bool) -> io::Result<()> {
        let mut copy = self.copy.borrow_mut();
        match &mut *copy {
            Some(copy) if goes_on => copy.goes_on = true,
            None if goes_on => return Err(invalid("no copy was begun")),
            Some(there) if !there.goes_on => *copy = None,
            _ => {}
        }
        Ok(())
    }

    async fn follow(&self, connection: &mut Connection, term: u64) -> io::Result<()> {
        let serving = self.serving.get();
        let silence = Duration::from_millis(self.options.deadlines.write_stall_ms.into());
        let mut heard = tokio::time::Instant::now();
        let mut alive = tokio::time::interval(ALIVE);
        let mut bytes = 0;
        loop {
            let event = tokio::select! {
                event = connection.next() => Some(event?),
                _ = alive.tick() => None,
            };
            if self.serving.get() != serving {
                return Err(invalid("another hub leads now"));
            }
            let mut message = match event {
                Some(Event::Message(message)) => Some(message),
                Some(Event::Written) => None,
                None if heard.elapsed() > silence => return Err(io::ErrorKind::TimedOut.into()),
                None => {
                    connection.queue(&Message::Alive);
                    None
                }
            };
            let mut stored = false;
            while let Some(next) = message {
                heard = tokio::time::Instant::now();
                let taken = self.take(next, term)?;
                bytes += taken.bytes;
                stored |= taken.commit;
                message = connection.parse()?;
            }
            if stored {
                let number = self.commit()?;
                self.note(self.head.get()).await;
                if self.serving.get() != serving || self.term.get() > term {
                    return Err(invalid("another term has begun"));
                }
                let ordinal = self.look(NodeStore::durable_ordinal).unwrap_or(0);
                connection.queue(&Message::Synced { number, ordinal, bytes });
            }
        }
    }

    /// Does what a message says.
    fn take(&self, message: Message, term: u64) -> io::Result<Taken> {
        match message {
            Message::Batch(batch) => {
                self.settle_copy(false)?;
                let mut copy = self.copy.borrow_mut();
                let mut store = self.store.borrow_mut();
                let store = copy.as_mut().map(|copy| &mut copy.store).or(store.as_mut());
                let Some(store) = store else { return Err(invalid("this hub leads")) };
                match store.follow(&batch) {
                    Ok(()) => Ok(Taken { commit: true, bytes: batch.len() as u64 }),
                    Err(FollowError::Store(reason)) => {
                        Err(self
                            .fail(format!("the store of this standby does not work: {reason:?}")))
                    }
                    Err(error) => Err(invalid(format!("a batch does not fit: {error:?}"))),
                }
            }
            Message::CopyStart { state, cursor } => {
                self.start_copy(&state, cursor, term).map(|()| Taken::default())
            }
            Message::CopyResume => self.settle_copy(true).map(|()| Taken::default()),
            Message::CopyPart { part, place } => {
                self.change_copy(|copy| {
                    copy.store.take_copy_part(&part)?;
                    copy.place = place;
                    Ok(())
                })?;
                // Told now and then, so that the leader sees that the copy gets on.
                Ok(Taken { commit: true, bytes: part.len() as u64 })
            }
            Message::CopyEnd { through } => {
                self.change_copy(|copy| {
                    copy.store.finish_copy()?;
                    copy.through = Some(through);
                    Ok(())
                })?;
                Ok(Taken { commit: true, bytes: 0 })
            }
            Message::Alive => Ok(Taken::default()),
            other => Err(invalid(format!("a message that is out of place: {other:?}"))),
        }
    }

    /// Does something to the copy under way; when that fails the copy is worth nothing.
    fn change_copy(
        &self,
        change: impl FnOnce(&mut Copying) -> Result<(), Failure>,
    ) -> io::Result<()> {
        let mut copy = self.copy.borrow_mut();
        let there = copy.as_mut().filter(|copy| copy.goes_on);
        let changed = change(there.ok_or_else(|| invalid("no copy has begun"))?);
        if changed.is_err() {
            *copy = None;
        }
        changed.map_err(|reason| invalid(format!("a copy of the leader's store: {reason:?}")))
    }

    fn next_random(&self) -> u64 {
        self.random.set(replcore::rng::Rng::new(self.random.get()).next_u64());
        self.random.get()
    }

    fn start_copy(&self, state: &[u8], cursor: Vec<u8>, term: u64) -> io::Result<()> {
        self.copy.replace(None);
        let path: PathBuf = folder::copy_folder(&self.options.folder);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        tracing::info!("taking a copy of the store of `{}`", self.leader.borrow());
        let disk = FileDisk::open(&path).map_err(invalid)?;
        let config = crate::node::store_config(&self.options, self.next_random());
        let store = SegmentStore::open_copy(disk, &self.options.name, config, state);
        let store = store.map_err(invalid)?;
        let (place, through, goes_on) = (Vec::new(), None, true);
        self.copy.replace(Some(Copying { store, term, cursor, place, through, goes_on }));
        Ok(())
    }

    /// Makes safe what was taken; answers up to which number.
    fn commit(&self) -> io::Result<u64> {
        let failed = |this: &Self, reason| {
            this.fail(format!("the store of this standby does not work: {reason:?}"))
        };
        let whole = match &mut *self.copy.borrow_mut() {
            None => false,
            Some(copy) if copy.through.is_none() => return Ok(0),
            Some(copy) => {
                copy.store.commit().map_err(|reason| failed(self, reason))?;
                copy.through.is_some_and(|through| copy.store.head().number >= through)
            }
        };
        if whole {
            self.replace_store()?;
        }
        if self.copy.borrow().is_some() {
            // What it stands for until then is what was there before.
            return Ok(0);
        }
        let mut store = self.store.borrow_mut();
        let store = store.as_mut().ok_or_else(|| invalid("this hub leads"))?;
        store.commit().map_err(|reason| failed(self, reason))?;
        self.head.set(store.head());
        self.identity.set(store.identity());
        self.changed.notify_waiters();
        Ok(store.head().number)
    }

    /// The copy is whole and takes the place of the store.
    fn replace_store(&self) -> io::Result<()> {
        self.copy.replace(None);
        self.store.replace(None);
        let replaced = folder::replace(&self.options.folder)
            .map_err(|error| error.to_string())
            .and_then(|()| crate::node::open_store(&self.options, self.next_random()));
        match replaced {
            Ok(store) => {
                self.store.replace(Some(store));
                tracing::info!("the copy of the leader's store is whole");
                Ok(())
            }
            Err(error) => Err(self.fail(format!("the copy of the leader's store: {error}"))),
        }
    }

    /// It cannot go on: a restart tells what is on the disk.
    fn fail(&self, why: String) -> io::Error {
        self.failed.replace(Some(why.clone()));
        self.changed.notify_waiters();
        invalid(why)
    }

    /// Looks after the store about once a second, while it follows.
    pub(crate) async fn look_after(self: Rc<Self>) {
        loop {
            tokio::time::sleep(MAINTAIN).await;
            let kept = match &mut *self.store.borrow_mut() {
                Some(store) => store.maintain(wall_ms()),
                None => Ok(()),
            };
            if let Err(reason) = kept {
                self.fail(format!("the store of this standby does not work: {reason:?}"));
            }
        }
    }
}
