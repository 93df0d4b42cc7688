//! What a running node does beside moving records: connections, requests, and looking after them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::{DialIndex, LinkId};
use replcore::lease::{LeaseSlot, LeaseState};
use replcore::node::{Node, NodeError, NodeEvent, NodeMemory};
use replcore::stream::{CLASSES, Name, NodeId, QueueId, QueueKey};
use replcore::wire::Role;
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::api::{ApiError, ErrorKind, NewMessage, NodeStatus, Outcome, Reply, Request, Status};
use crate::driver::{Accepted, Reactor, Stream, count};
use crate::engine::{Engine, IncomingCall};
use crate::handle::Pending;
use crate::noise::{Noise, NoiseCounters};
use crate::options::{Address, NodeOptions, NodeRole, Peer};
use crate::service::{Service, parse_name};
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
/// Most nodes in one answer.
const NODES_MAX: usize = 1000;

/// A running node.
pub(super) struct Host {
    pub(super) reactor: Rc<NodeReactor>,
    service: Service<Node<'static>, NodeStore>,
    options: RefCell<NodeOptions>,
    tls: Option<Tls>,
    noise: Option<Noise>,
    start: StdInstant,
    /// Connections that are open or in their TLS handshake.
    connections: Cell<u32>,
    calls_at_work: Cell<u32>,
    /// How each place that this node dials is.
    places: RefCell<Vec<String>>,
    /// Which of its addresses was connected last, by place.
    dialed_last: RefCell<BTreeMap<u16, usize>>,
    /// Where the hub is that leads, as one that stands by has said, by place: to be dialled next.
    redirected: RefCell<BTreeMap<u16, Address>>,
    stopping: Cell<bool>,
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

    fn start_calls(self: &Rc<Self>) {
        let limits = self.options.borrow().limits;
        loop {
            let mut engine = self.reactor.engine.borrow_mut();
            let busy = self.calls_at_work.get() >= limits.calls_max
                || engine.call_bytes() >= limits.call_bytes_max as usize;
            let Some(call) = (!busy).then(|| engine.next_call()).flatten() else { return };
            let client = engine.machine().peer(call.link).is_some_and(|it| it.role == Role::Client);
            drop(engine);
            if call.call.reply || !client {
                continue;
            }
            self.calls_at_work.set(self.calls_at_work.get() + 1);
            tokio::task::spawn_local(self.clone().answer_call(call));
        }
    }

    async fn answer_call(self: Rc<Self>, call: IncomingCall) {
        let caller = self.certificate_on(call.link);
        let answer = match serde_json::from_slice::<Request>(&call.payload) {
            Ok(request) => self.answer_for(caller, request).await,
            Err(error) => {
                Err(ApiError::new(ErrorKind::Invalid, format!("the call does not decode: {error}")))
            }
        };
        let payload = serde_json::to_vec(&Outcome::from(answer)).unwrap_or_default();
        self.reactor.with(|engine| engine.reply(&call, payload));
        self.calls_at_work.set(self.calls_at_work.get() - 1);
    }

    /// Serves the requests of this process.
    pub(super) async fn serve(self: Rc<Self>, requests: Requests) {
        let mut requests = requests.lock().await;
        let calls_max = self.options.borrow().limits.calls_max as usize;
        let at_work = std::sync::Arc::new(Semaphore::new(calls_max.max(1)));
        loop {
            let Ok(permit) = at_work.clone().acquire_owned().await else { return };
            // The node runs on when nobody in this process can ask any more.
            let Some(mut asked) = requests.recv().await else { return pending().await };
            let host = self.clone();
            tokio::task::spawn_local(async move {
                let answer = tokio::select! {
                    answer = host.answer_for(asked.caller, asked.request) => answer,
                    () = asked.answer.closed() => return drop(permit),
                };
                let _ = asked.answer.send(answer);
                drop(permit);
            });
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

    /// The name in the certificate at the other end of a link, if there is one.
    fn certificate_on(&self, link: LinkId) -> Option<Name> {
        let engine = self.reactor.engine.borrow();
        let peer = engine.machine().peer(link).filter(|_| engine.is_authenticated(link))?;
        Some(peer.name)
    }

    /// Answers any request of the holder of a certificate, or of somebody who needs none.
    async fn answer_for(&self, caller: Option<Name>, request: Request) -> Result<Reply, ApiError> {
        if let Some(caller) = caller.filter(|_| request.administers()) {
            let options = self.options.borrow();
            if caller != options.name && !options.administrators.contains(&caller) {
                let text = format!(
                    "{caller} may not administer {}; use its own certificate, or add {caller} to \
                     `administrators` under [tls] in its configuration",
                    options.name
                );
                return Err(ApiError::new(ErrorKind::Forbidden, text));
            }
        }
        self.answer(request).await
    }

    /// Answers any request.
    async fn answer(&self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Nodes { after, limit } => Ok(self.nodes(after.as_deref(), limit)),
            Request::Forget { node } => self.forget(&node).await,
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Post { messages } => self.post_checked(messages).await,
            other => self.service.answer(other).await.unwrap_or(Ok(Reply::Done)),
        }
    }

    /// Posts what the schemas admit: all, or those before the first that they refuse.
    async fn post_checked(&self, mut messages: Vec<NewMessage>) -> Result<Reply, ApiError> {
        let refused = {
            let options = self.options.borrow();
            messages.iter().enumerate().find_map(|(index, message)| {
                let error =
                    crate::schema::check(&options.schemas, &message.message_type, &message.body.0)
                        .err()?;
                Some(ApiError { index: Some(index), ..error })
            })
        };
        if let Some(index) = refused.as_ref().and_then(|error| error.index) {
            messages.truncate(index);
        }
        let posted = match (messages.is_empty(), &refused) {
            (true, Some(_)) => Ok(Reply::Done),
            _ => {
                let post = Request::Post { messages };
                self.service.answer(post).await.unwrap_or(Ok(Reply::Done))
            }
        };
        match (posted, refused) {
            (Ok(_), Some(error)) => Err(error),
            (posted, _) => posted,
        }
    }

    fn nodes(&self, after: Option<&str>, limit: Option<u32>) -> Reply {
        let limit = limit.map_or(100, |limit| limit as usize).clamp(1, NODES_MAX);
        let engine = self.reactor.engine.borrow();
        let after = after.unwrap_or_default();
        let mut slots: Vec<(Name, &LeaseSlot)> = engine
            .machine()
            .leases()
            .leaves()
            .filter_map(|slot| Some((slot.registration()?.name, slot)))
            .filter(|(name, _)| name.as_str() > after)
            .collect();
        slots.sort_unstable_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let more = slots.len() > limit;
        slots.truncate(limit);
        let status = |(name, slot): &(Name, &LeaseSlot)| node_status(&engine, name, slot);
        Reply::Nodes { nodes: slots.iter().map(status).collect(), more }
    }

    async fn forget(&self, node: &str) -> Result<Reply, ApiError> {
        let name = parse_name("node", node)?;
        loop {
            let turned = self.reactor.turned.notified();
            let forgotten = self.reactor.with(|engine| {
                let forgotten = engine.command(|machine, now| machine.forget(now, name.node_id()));
                if forgotten.is_ok() {
                    engine.router_mut().remove_leaf(name.node_id());
                    engine.store_mut().forget_queue(name.queue_id());
                    engine.commit_soon();
                }
                forgotten
            });
            match forgotten {
                Ok(()) => break,
                Err(NodeError::Busy) => turned.await,
                Err(_) => {
                    let text =
                        format!("no leaf {node} is registered; `nodes` shows those that are");
                    return Err(ApiError::new(ErrorKind::NotFound, text));
                }
            }
        }
        self.reactor.committed().await.map_err(crate::service::stopped)?;
        Ok(Reply::Done)
    }

    fn status(&self) -> Status {
        let options = self.options.borrow();
        let places = self.places.borrow();
        let engine = self.reactor.engine.borrow();
        let identity = engine.store().identity();
        let dialed = options.upstream_names().into_iter();
        let upstreams: BTreeMap<String, String> = dialed
            .chain(options.called_by)
            .zip(places.iter())
            .map(|(name, state)| (name.as_str().to_owned(), state.clone()))
            .collect();
        let standbys = self.lead.get().map(|lead| lead.states(engine.store()));
        let ready = !self.stopping.get()
            && engine.stopped().is_none()
            && (options.role == NodeRole::Hub
                || upstreams.values().all(|state| state == "registered"));
        Status {
            name: options.name.as_str().to_owned(),
            role: options.role.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: identity.epoch.0,
            uptime_ms: self.start.elapsed().as_millis() as u64,
            ready,
            upstreams,
            standbys: standbys.unwrap_or_default(),
            links: self.reactor.links_open().into(),
            log_bytes: engine.store().log_bytes(),
            ordinals: engine.store().ordinals(),
            counters: self.counters(&engine),
        }
    }

    fn counters(&self, engine: &NodeEngine) -> BTreeMap<String, u64> {
        let (store, of_engine) = (engine.store().counters(), engine.counters());
        let (node, sockets) = (engine.machine().stats(), &self.reactor.counters);
        let noise = |of: fn(&NoiseCounters) -> u64| {
            self.noise.as_ref().map_or(0, |noise| of(noise.counters()))
        };
        [
            ("registered", node.registered),
            ("renewed", node.renewed),
            ("expired", node.expired),
            ("peers_refused", node.refused),
            ("fetched", of_engine.records_fetched),
            ("stored", store.records_stored),
            ("stored_bytes", store.record_bytes_stored),
            ("dispatched", engine.router().dispatched()),
            ("delivered", of_engine.records_delivered),
            ("retried", node.link.repeated + store.records_known),
            ("dropped", store.dropped),
            ("messages_expired", store.expired),
            ("purged", store.purged),
            ("lost", store.lost),
            ("skipped", store.skipped),
            ("store_refused", store.refused + of_engine.records_refused),
            ("store_not_admitted", of_engine.records_not_admitted),
            ("store_records_known", store.records_known),
            ("store_posts_known", store.posts_known),
            ("store_records_corrupt", store.records_corrupt),
            ("store_commits", store.commits),
            ("store_written_bytes", store.log_bytes_written),
            ("store_sync_microseconds", store.sync_us),
            ("store_records_moved", store.records_moved),
            ("store_segments_freed", store.segments_freed),
            ("store_segments_quarantined", store.segments_quarantined),
            ("store_queues_refused", store.queues_refused),
            ("link_frames_bad_length", node.link.bad_length),
            ("link_frames_bad_checksum", node.link.bad_checksum),
            ("link_frames_bad_type", node.link.bad_type),
            ("link_frames_bad_payload", node.link.bad_payload),
            ("link_violations", node.link.violations),
            ("link_silent", node.link.silent),
            ("link_frames_repeated", node.link.repeated),
            ("link_terms_over", node.link.terms_over),
            ("link_stalled", sockets.stalled.get()),
            ("noise_links", noise(|of| of.links.get())),
            ("noise_strangers", noise(|of| of.strangers.get())),
            ("noise_packets_refused", noise(|of| of.packets_refused.get())),
            ("connections_accepted", sockets.accepted.get()),
            ("connections_refused", sockets.refused.get()),
            ("connections_dialed", sockets.dialed.get()),
            ("connections_failed", sockets.dials_failed.get()),
            ("read_bytes", sockets.bytes_read.get()),
            ("written_bytes", sockets.bytes_written.get()),
            ("records_frames_sent", of_engine.records_frames_sent),
            ("records_frames_received", of_engine.records_frames_received),
            ("compression_saved_bytes", of_engine.compressed_bytes_saved),
            ("calls", of_engine.calls_received),
            ("calls_too_long", of_engine.calls_too_long),
            ("turns", self.reactor.turns()),
        ]
        .into_iter()
        .chain(self.lead.get().into_iter().flat_map(|lead| lead.figures(engine.store())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
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

    /// Whether all that connected readers are to get has been acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.undelivered().is_empty()
    }

    /// What connected readers have not acknowledged, by queue.
    pub(super) fn undelivered(&self) -> Vec<(String, u64)> {
        let engine = self.reactor.engine.borrow();
        let store = engine.store();
        let waiting = |queue: QueueId| -> u64 {
            (0..CLASSES as u8)
                .filter_map(|class| store.holding(QueueKey { queue, class }))
                .map(|holding| holding.next.0 - holding.released.0)
                .sum()
        };
        let mut queues: Vec<QueueId> =
            engine.read_queues().filter(|queue| waiting(*queue) > 0).collect();
        queues.dedup();
        let name = |queue: QueueId| {
            let options = self.options.borrow();
            let mut upstreams =
                options.upstreams.iter().map(|peer| peer.name).chain(options.called_by);
            let upstream = upstreams.find(|name| name.queue_id() == queue);
            let text = upstream.map(|name| name.as_str().to_owned());
            text.unwrap_or_else(|| self.name_in(&engine, queue))
        };
        queues.into_iter().map(|queue| (name(queue), waiting(queue))).collect()
    }

    fn name_in(&self, engine: &NodeEngine, queue: QueueId) -> String {
        let slot = engine.machine().leases().find(NodeId(queue.0));
        let leaf = slot.and_then(LeaseSlot::registration);
        let consumers = engine.store().consumers();
        let is = |text: &str| Name::new(text).is_ok_and(|name| name.queue_id() == queue);
        match leaf {
            Some(leaf) => leaf.name.as_str().to_owned(),
            None => consumers
                .into_iter()
                .find(|consumer| is(&consumer.name))
                .map_or_else(|| format!("#{:016x}", queue.0), |consumer| consumer.name),
        }
    }

    pub(super) fn say_good_bye(&self) {
        self.reactor.with(|engine| engine.command(|machine, now| machine.stop(now)));
    }
}

fn node_status(engine: &NodeEngine, name: &Name, slot: &LeaseSlot) -> NodeStatus {
    let link: Option<LinkId> = slot.link();
    let state = match (slot.state(), link) {
        (LeaseState::Held, Some(_)) => "live",
        (LeaseState::Held, None) => "silent",
        (LeaseState::Expired, _) => "expired",
    };
    let lease_left_ms = match slot.state() {
        LeaseState::Held => slot.until().millis_since(engine.now()),
        LeaseState::Expired => 0,
    };
    let registration = slot.registration();
    let address = registration.and_then(|registration| registration.address);
    let peer = link.and_then(|link| engine.machine().peer(link));
    let queue = engine.store().queue(engine.wall_ms(), name);
    NodeStatus {
        name: name.as_str().to_owned(),
        state: state.to_owned(),
        address: address.map_or_else(String::new, |address| address.as_str().to_owned()),
        lease_left_ms,
        round_trip_us: peer.map_or(0, |peer| peer.round_trip_us.into()),
        queued: queue.as_ref().map_or(0, |queue| queue.messages.iter().sum()),
        delivered_total: queue.as_ref().map_or(0, |queue| queue.acknowledged_total),
        fetched_total: engine.fetched(name.node_id()),
    }
}
