//! What a running node does beside moving records: its connections, and looking after them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::DialIndex;
use replcore::lease::LeaseSlot;
use replcore::node::{Node, NodeEvent, NodeMemory};
use replcore::stream::{Name, NodeId};
use tokio::sync::{Mutex, mpsc};

use crate::driver::{Accepted, Reactor, Stream, count};
use crate::engine::Engine;
use crate::handle::Pending;
use crate::noise::Noise;
use crate::options::{Address, NodeOptions, Peer};
use crate::service::Service;
use crate::standby::Lead;
use crate::store::{FileDisk, SegmentStore, Store};
use crate::tls::Tls;

pub(crate) type NodeStore = SegmentStore<FileDisk>;
pub(crate) type NodeEngine = Engine<Node<'static>, NodeStore>;
pub(crate) type NodeReactor = Reactor<Node<'static>, NodeStore>;

/// Where the requests of this process come from, for whatever serves them now.
pub(super) type Requests = Rc<Mutex<mpsc::Receiver<Pending>>>;

/// How often the TLS files and the file of keys are looked at.
const FILES_PERIOD: Duration = Duration::from_secs(5);

/// A running node.
pub(super) struct Host {
    pub(super) reactor: Rc<NodeReactor>,
    pub(super) service: Service<Node<'static>, NodeStore>,
    pub(super) options: RefCell<NodeOptions>,
    tls: Option<Tls>,
    pub(super) noise: Option<Noise>,
    pub(super) start: StdInstant,
    /// Connections that are open or in their TLS handshake.
    connections: Cell<u32>,
    pub(super) calls_at_work: Cell<u32>,
    /// How each place that this node dials is.
    pub(super) places: RefCell<Vec<String>>,
    /// Which of its addresses was connected last, by place.
    dialed_last: RefCell<BTreeMap<u16, usize>>,
    /// Where the hub is that leads, as one that stands by has said, by place: to be dialled next.
    redirected: RefCell<BTreeMap<u16, Address>>,
    pub(super) stopping: Cell<bool>,
    /// How this hub leads the others that hold its log.
    pub(super) lead: OnceCell<Rc<Lead>>,
}

impl Host {
    pub(super) fn new(
        reactor: Rc<NodeReactor>,
        service: Service<Node<'static>, NodeStore>,
        options: NodeOptions,
        (tls, noise): (Option<Tls>, Option<Noise>),
        start: StdInstant,
    ) -> Self {
        let places = options.upstream_names().len()
            + usize::from(options.called_by.is_some())
            + options.dials.len();
        Self {
            reactor,
            service,
            options: RefCell::new(options),
            tls,
            noise,
            start,
            connections: Cell::new(0),
            calls_at_work: Cell::new(0),
            places: RefCell::new(vec!["not connected yet".to_owned(); places]),
            dialed_last: RefCell::default(),
            redirected: RefCell::default(),
            stopping: Cell::new(false),
            lead: OnceCell::new(),
        }
    }

    /// Whether one more connection may be accepted. Dials keep a place each.
    fn has_room(&self) -> bool {
        let kept = self.places.borrow().len() as u32;
        !self.stopping.get()
            && self.connections.get() + kept < self.options.borrow().limits.links_max
    }

    fn handshake(&self) -> Duration {
        Duration::from_millis(self.options.borrow().deadlines.handshake_ms.into())
    }

    pub(super) fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.options.borrow().deadlines.drain_ms.into())
    }

    /// Takes an accepted connection, if there is room for it.
    pub(super) fn take(self: &Rc<Self>, accepted: Accepted) {
        if self.has_room() {
            count(&self.reactor.counters.accepted, 1);
            tokio::task::spawn_local(self.clone().run_accepted(accepted));
        } else {
            count(&self.reactor.counters.refused, 1);
        }
    }

    /// Runs an accepted connection to its end.
    async fn run_accepted(self: Rc<Self>, accepted: Accepted) {
        self.connections.set(self.connections.get() + 1);
        let noise = self.noise.as_ref();
        let opened = accepted.open(self.tls.as_ref(), noise, self.handshake()).await;
        match opened {
            Ok((stream, identity)) => self.run_links(stream, None, identity).await,
            Err(error) => {
                count(&self.reactor.counters.refused, 1);
                tracing::info!("a connection came to nothing: {error}");
            }
        }
        self.connections.set(self.connections.get() - 1);
    }

    /// Runs the links that come one after the other on a stream.
    async fn run_links(
        &self,
        mut stream: Stream,
        dialed: Option<DialIndex>,
        mut identity: Option<Name>,
    ) {
        loop {
            stream = self.reactor.clone().run_link(stream, dialed, identity).await;
            identity = stream.next_link().await;
            if identity.is_none() || dialed.is_some() {
                return;
            }
        }
    }

    /// Who is configured at a place, and where this node dials it, if it does: a hub that has
    /// standbys is at one of several addresses.
    fn place(&self, dial: DialIndex) -> Option<(Name, Vec<Address>)> {
        let options = self.options.borrow();
        let addresses = |name: Name| {
            let of_hub = options.upstreams.iter().filter(|peer| peer.name == name);
            (name, of_hub.map(|peer| peer.address.clone()).collect())
        };
        let upstreams = options.upstream_names().into_iter().map(addresses);
        let callers = options.called_by.iter().map(|name| (*name, Vec::new()));
        let dialed = |peer: &Peer| (peer.name, vec![peer.address.clone()]);
        let leaves = options.dials.iter().map(dialed);
        upstreams.chain(callers).chain(leaves).nth(usize::from(dial.0))
    }

    fn set_place(&self, dial: DialIndex, state: impl Into<String>) {
        if let Some(place) = self.places.borrow_mut().get_mut(usize::from(dial.0)) {
            *place = state.into();
        }
    }

    async fn dial(self: Rc<Self>, dial: DialIndex) {
        let Some((wanted, mut addresses)) = self.place(dial) else { return };
        // Behind the one that was connected last: it has just ended.
        let behind = self.dialed_last.borrow().get(&dial.0).map_or(0, |last| last + 1);
        let leader = self.redirected.borrow_mut().remove(&dial.0);
        let first = match leader {
            Some(leader) => addresses.iter().position(|it| *it == leader).unwrap_or_else(|| {
                addresses.push(leader);
                addresses.len() - 1
            }),
            None => behind,
        };
        for at in first..first + addresses.len() {
            let at = at % addresses.len();
            match self.dial_at(wanted, &addresses[at]).await {
                Ok((stream, identity)) => {
                    self.dialed_last.borrow_mut().insert(dial.0, at);
                    count(&self.reactor.counters.dialed, 1);
                    self.set_place(dial, "connected");
                    return self.run_links(stream, Some(dial), identity).await;
                }
                Err(error) => {
                    count(&self.reactor.counters.dials_failed, 1);
                    let text = format!("cannot connect to {}: {error}", addresses[at]);
                    tracing::info!("{wanted}: {text}");
                    self.set_place(dial, text);
                }
            }
        }
        if !addresses.is_empty() {
            self.reactor.with(|engine| engine.dial_failed(dial));
        }
    }

    async fn dial_at(
        &self,
        wanted: Name,
        address: &Address,
    ) -> Result<(Stream, Option<Name>), String> {
        let connect = Duration::from_millis(self.options.borrow().deadlines.connect_ms.into());
        let dialed = match (address, &self.noise) {
            (Address::Noise(address), Some(noise)) => {
                self.dial_noise(wanted, address, noise, connect).await
            }
            _ => Stream::dial(address, self.tls.as_ref(), connect, self.handshake()).await,
        };
        match dialed.map_err(|error| error.to_string())? {
            (_, Some(name)) if name != wanted => {
                Err(format!("the certificate or key there is for {name}, not for {wanted}"))
            }
            opened => Ok(opened),
        }
    }

    /// Dials with Noise: an upstream, where this node begins, or a leaf, which does.
    async fn dial_noise(
        &self,
        wanted: Name,
        address: &str,
        noise: &Noise,
        connect: Duration,
    ) -> std::io::Result<(Stream, Option<Name>)> {
        let (own, is_leaf) = {
            let options = self.options.borrow();
            (options.name, !options.upstreams.iter().any(|peer| peer.name == wanted))
        };
        match is_leaf {
            true => Stream::dial_answering(address, noise, connect, self.handshake()).await,
            false => {
                Stream::beginning(address, noise, (own, wanted), connect, self.handshake()).await
            }
        }
    }

    /// Follows what the turn has brought.
    pub(super) fn after_turn(self: &Rc<Self>) {
        loop {
            let event = self.reactor.engine.borrow_mut().next_event();
            let Some(told) = event else { break };
            self.note(told.event, &told.detail);
        }
        loop {
            let dial = self.reactor.engine.borrow_mut().next_dial();
            let Some(dial) = dial else { break };
            tokio::task::spawn_local(self.clone().dial(dial));
        }
        self.start_calls();
    }

    fn note(&self, event: NodeEvent, detail: &[u8]) {
        match event {
            NodeEvent::LeafUp { node, .. } => {
                tracing::info!(leaf = self.name_of(node), "a leaf has registered");
            }
            NodeEvent::LeafDown { node } => {
                tracing::info!(leaf = self.name_of(node), "the link of a leaf has ended");
            }
            NodeEvent::LeaseExpired { node } => {
                tracing::warn!(leaf = self.name_of(node), "a lease has ended; its queue is kept");
            }
            NodeEvent::PeerRefused { node, reason } => {
                tracing::warn!(node = self.name_of(node), "a peer was refused: {reason}");
            }
            NodeEvent::Registered { dial, lease_ms } => self.registered(dial, lease_ms),
            NodeEvent::UpstreamRefused { dial, reason } => {
                let text = format!("refused: {reason}");
                if let Some((upstream, _)) = self.place(dial) {
                    tracing::warn!(%upstream, "{text}");
                }
                self.set_place(dial, text);
            }
            NodeEvent::Redirected { dial } => {
                let leader = String::from_utf8_lossy(detail).into_owned();
                self.set_place(dial, format!("the hub there stands by; {leader} leads"));
                let noise = |address: &Address| matches!(address, Address::Noise(_));
                // What is told is where there is no Noise: with keys the next of its own is tried.
                if !self.place(dial).is_some_and(|(_, addresses)| addresses.iter().any(noise)) {
                    self.redirected.borrow_mut().insert(dial.0, Address::Tcp(leader));
                }
            }
            NodeEvent::DialDown { dial } => {
                let mut places = self.places.borrow_mut();
                let place = places.get_mut(usize::from(dial.0));
                if let Some(place) =
                    place.filter(|place| matches!(place.as_str(), "connected" | "registered"))
                {
                    *place = "the link has ended".to_owned();
                }
            }
            _ => {}
        }
    }

    /// The link to an upstream works, if it is the right one that answered.
    fn registered(&self, dial: DialIndex, lease_ms: u32) {
        let Some((wanted, addresses)) = self.place(dial) else { return };
        let engine = self.reactor.engine.borrow();
        let link = engine.machine().dial(dial).and_then(|place| place.link());
        let there = link.and_then(|link| engine.machine().peer(link));
        drop(engine);
        match (link, there) {
            (Some(link), Some(there)) if there.name != wanted => {
                let text = format!("{} is at the other end, not {wanted}", there.name);
                let last = self.dialed_last.borrow().get(&dial.0).copied().unwrap_or(0);
                let place = addresses.get(last).map_or("called_by".into(), ToString::to_string);
                tracing::error!("{place}: {text}; correct the name or the address");
                self.set_place(dial, text);
                self.reactor.cut(link);
            }
            _ => {
                tracing::info!(upstream = %wanted, lease_ms, "registered");
                self.set_place(dial, "registered");
            }
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        let engine = self.reactor.engine.borrow();
        let slot = engine.machine().leases().find(node);
        match slot.and_then(LeaseSlot::registration) {
            Some(registration) => registration.name.as_str().to_owned(),
            None => format!("#{:016x}", node.0),
        }
    }

    /// Ends the node as a crash would, once all its tasks are gone: closes the store, and gives back the
    /// memory of the machine. `None` when something still runs.
    pub(super) fn dismantle(self: Rc<Self>) -> Option<(NodeOptions, NodeMemory<'static>)> {
        let Self { reactor, service, options, lead, .. } = Rc::into_inner(self)?;
        drop((service, lead));
        let (node, store) = Rc::into_inner(reactor)?.into_engine().into_parts();
        drop(store);
        Some((options.into_inner(), node.into_memory()))
    }

    /// About once a second: peers that hang, and the TLS files.
    pub(super) async fn look_after(self: Rc<Self>) {
        let watching = async {
            match &self.tls {
                Some(tls) => tls.clone().watch(FILES_PERIOD).await,
                None => pending().await,
            }
        };
        let watching_keys = async {
            match &self.noise {
                Some(noise) => noise.clone().watch(FILES_PERIOD).await,
                None => pending().await,
            }
        };
        let cutting = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.reactor.cut_stalled();
            }
        };
        tokio::join!(watching, watching_keys, cutting);
    }

    /// Takes what may change while the node runs.
    pub(super) fn reload(&self, new: NodeOptions) -> Result<(), String> {
        let old = self.options.borrow().clone();
        let mut like_old = new.clone();
        like_old.rules = old.rules.clone();
        like_old.limits.queue = old.limits.queue;
        like_old.queue_limits = old.queue_limits.clone();
        like_old.deadlines = old.deadlines;
        like_old.schemas = old.schemas.clone();
        like_old.administrators = old.administrators.clone();
        if like_old != old {
            return Err(
                "only rules, schemas, limits of queues, deadlines, administrators and the contents \
                        of the TLS files and of the file of keys can change while the node runs; restart it for the rest"
                    .into(),
            );
        }
        // Before the rest, so that bad files leave everything as it was.
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|error| format!("TLS files: {error}"))?;
        }
        if let Some(noise) = &self.noise {
            noise.reload()?;
        }
        if new.rules != old.rules {
            self.service.configure_rules(new.rules.clone()).map_err(|error| error.message)?;
        }
        self.reactor
            .with(|engine| engine.store_mut().set_limits(new.limits.queue, &new.queue_limits));
        self.reactor.with(|engine| engine.router_mut().set_schemas(new.schemas.clone()));
        *self.options.borrow_mut() = new;
        Ok(())
    }

    /// Takes no posts and no connections any more.
    pub(super) fn stop_taking(&self) {
        self.stopping.set(true);
        self.service.stop();
    }

    pub(super) fn say_good_bye(&self) {
        self.reactor.with(|engine| engine.command(|machine, now| machine.stop(now)));
    }
}
