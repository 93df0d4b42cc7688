//! From options to a machine, a store and an engine.

use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use replcore::Timer;
use replcore::contract::LinkId;
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::node::{DialSlot, DialTarget, LinkSlot, Node, NodeConfig, NodeEvent, NodeMemory};
use replcore::rng::Rng;
use replcore::stream::{Address as ShortText, Name};
use replcore::wire::{FEATURE_LZ4, Level, Role};

use super::host::{Host, NodeEngine, NodeStore};
use crate::driver::{Reactor, ReactorConfig, entropy};
use crate::engine::{Engine, EngineConfig, Router, Ways};
use crate::noise::Noise;
use crate::options::{Compression, Durability, LinkMode, NodeOptions, NodeRole};
use crate::service::Service;
use crate::store::{Config, FileDisk, SegmentStore, Store};
use crate::tls::Tls;

/// Opens the store and puts the parts together.
pub(super) fn host(options: NodeOptions) -> Result<Rc<Host>, String> {
    let tls = prepare(&options)?;
    let mut rng = Rng::new(entropy());
    let store = open_store(&options, rng.next_u64())?;
    let memory = memory(&options);
    with_store(options, tls, store, (0, memory), &mut rng)
}

/// Checks the options and loads the TLS files.
pub(crate) fn prepare(options: &NodeOptions) -> Result<Option<Tls>, String> {
    check(options)?;
    let tls = options.tls.clone().map(Tls::load).transpose();
    let tls = tls.map_err(|error| error.to_string())?;
    if let Some(tls) = &tls
        && tls.name() != options.name
    {
        return Err(format!(
            "the certificate is for {}, but this node is {}; use the certificate of {}",
            tls.name(),
            options.name,
            options.name
        ));
    }
    Ok(tls)
}

/// Opens the store of a node.
pub(crate) fn open_store(options: &NodeOptions, random: u64) -> Result<NodeStore, String> {
    let disk = FileDisk::open(&options.folder)?;
    // The store does not know where its disk is; whoever reads the error needs to.
    let name_folder = |error: String| match error.strip_prefix("data folder: ") {
        Some(what) => format!("data folder {}: {what}", options.folder.display()),
        None => error,
    };
    let mut store = SegmentStore::open(disk, &options.name, store_config(options, random))
        .map_err(name_folder)?;
    store.set_limits(options.limits.queue, &options.queue_limits);
    for report in store.reports() {
        tracing::warn!("data folder {}: {report}", options.folder.display());
    }
    Ok(store)
}

/// Puts the parts together around a store, in memory of [`memory`] for the same options; for a hub that
/// leads in a term, if it has standbys, else in term 0.
pub(super) fn with_store(
    options: NodeOptions,
    tls: Option<Tls>,
    store: NodeStore,
    (term, memory): (u64, NodeMemory<'static>),
    rng: &mut Rng,
) -> Result<Rc<Host>, String> {
    let start = StdInstant::now();
    let noise = options.noise_keys.as_deref().map(Noise::load).transpose()?;
    let engine = engine(&options, store, (term, memory), rng);
    let reactor = Reactor::new(
        ReactorConfig {
            links_max: options.limits.links_max,
            frame_bytes_max: options.limits.frame_bytes_max,
            write_stall: Duration::from_millis(options.deadlines.write_stall_ms.into()),
        },
        engine,
    );
    let service = Service::new(
        reactor.clone(),
        options.name,
        options.consumers,
        options.limits.message_bytes_max,
    );
    service.configure_rules(options.rules.clone()).map_err(|error| error.message)?;
    Ok(Rc::new(Host::new(reactor, service, options, (tls, noise), start)))
}

fn check(options: &NodeOptions) -> Result<(), String> {
    let upstreams = options.upstreams.iter().map(|peer| peer.name);
    for upstream in upstreams.chain(options.called_by) {
        if upstream == options.name {
            return Err(format!("{} cannot be its own upstream", options.name));
        }
    }
    if let Some(caller) = options.called_by
        && options.upstreams.iter().any(|peer| peer.name == caller)
    {
        return Err(format!("{caller} is dialled and in called_by; give one of the two"));
    }
    if !options.advertise.is_empty() {
        ShortText::new(&options.advertise)
            .map_err(|error| format!("advertise = {:?}: {error}", options.advertise))?;
    }
    let limits = &options.limits;
    if limits.link_buffer_bytes < 2 * limits.frame_bytes_max {
        return Err("limits.link_buffer_bytes must be at least twice limits.frame_bytes_max".into());
    }
    Ok(())
}

/// What a store is told by the options of its node.
pub(crate) fn store_config(options: &NodeOptions, random: u64) -> Config {
    let limits = &options.limits;
    let mut config = Config::new(random);
    config.replicated = options.standby.is_some();
    config.segment_bytes = limits.segment_bytes.into();
    config.log_bytes_max = limits.log_bytes_max;
    config.sync = options.durability == Durability::Synced;
    config.message_bytes_max = limits.message_bytes_max;
    config.queues_max = limits.queues_max;
    config.consumers_max = options.consumers.consumers_max;
    config.idempotency_keys_max = limits.idempotency_keys_max.into();
    config.queue_limits = limits.queue;
    // Every leaf has up to one life in each class, and streams of its own and through others.
    config.origins_max = config.origins_max.max(limits.leaves_max.saturating_mul(2));
    config.streams_max = config.streams_max.max(limits.leaves_max.saturating_mul(4));
    config
}

fn node_config(options: &NodeOptions, store: &impl Store, rng: &mut Rng) -> NodeConfig {
    let identity = store.identity();
    let (limits, deadlines, lease) = (&options.limits, &options.deadlines, &options.lease);
    let mut link = LinkSettings::new(options.name, identity.instance, identity.epoch);
    if options.compression == Compression::Lz4 {
        link.features |= FEATURE_LZ4;
    }
    link.frame_bytes_max = limits.frame_bytes_max;
    link.window_bytes = limits.receive_window_bytes;
    link.keepalive_ms = deadlines.keepalive_ms;
    link.handshake_ms = deadlines.handshake_ms;
    if options.durability == Durability::Written {
        (link.level, link.level_min) = (Level::Written, Level::Written);
    }
    link.sharing.urgent_bytes_per_second = options.rates.class_0_bytes_per_second;
    link.sharing.backlog_bytes_per_second = options.rates.link_bytes_per_second;
    let mut config = NodeConfig::new(link, rng.next_u64());
    config.hub = options.role == NodeRole::Hub;
    config.lease.lease_ms_max = lease.lease_ms;
    config.lease.admission.per_second = lease.admissions_per_second;
    config.lease.admission.burst = lease.admissions_per_second.max(64);
    config.address = ShortText::new(&options.advertise).ok();
    config.dial.retry_ms_min = deadlines.reconnect_ms;
    config.dial.retry_ms_max = deadlines.reconnect_ms_max;
    if let LinkMode::Poll { interval_ms } = options.mode {
        config.dial.poll_interval_ms = interval_ms;
    }
    config.register.register_ms = lease.register_ms;
    config.register.lease_ms = lease.lease_ms;
    config
}

fn leak<T: Clone>(value: T, count: usize) -> &'static mut [T] {
    Box::leak(vec![value; count].into_boxed_slice())
}

/// The places that a node dials, or is dialled from.
fn dials(options: &NodeOptions) -> Vec<DialSlot> {
    let upstreams = options
        .upstream_names()
        .into_iter()
        .map(|queue| DialSlot::new(DialTarget::Upstream { queue, dials: true }));
    let callers = options
        .called_by
        .iter()
        .map(|hub| DialSlot::new(DialTarget::Upstream { queue: *hub, dials: false }));
    let leaves = options.dials.iter().map(|_| DialSlot::new(DialTarget::Leaf));
    upstreams.chain(callers).chain(leaves).collect()
}

/// Memory for a node, for the life of the process: to be used again by whoever makes several nodes.
pub(super) fn memory(options: &NodeOptions) -> NodeMemory<'static> {
    let limits = &options.limits;
    let dials = dials(options);
    // Leaves register only at a hub.
    let hub = options.role == NodeRole::Hub;
    let leases = LeaseServer::slots_for(if hub { limits.leaves_max } else { 0 });
    let owners = limits.links_max as usize + dials.len();
    NodeMemory {
        links: leak(LinkSlot::FREE, limits.links_max as usize),
        leases: leak(LeaseSlot::FREE, leases),
        lease_timers: leak(Timer::NONE, leases),
        dials: Box::leak(dials.into_boxed_slice()),
        timers: leak(Timer::NONE, owners),
        ready: leak(0, owners),
    }
}

fn engine(
    options: &NodeOptions,
    store: NodeStore,
    (term, memory): (u64, NodeMemory<'static>),
    rng: &mut Rng,
) -> NodeEngine {
    let limits = &options.limits;
    let mut config = node_config(options, &store, rng);
    config.term = term;
    memory.dials.clone_from_slice(&dials(options));
    let engine_config = EngineConfig {
        links_max: limits.links_max,
        link_buffer_bytes: limits.link_buffer_bytes,
        frame_bytes_max: limits.frame_bytes_max,
        calls_max: limits.calls_max,
        call_bytes_max: limits.call_bytes_max,
        consumers_max: options.consumers.consumers_max,
        compression: options.compression,
        ..EngineConfig::default()
    };
    let mut upstreams = options.upstream_names();
    upstreams.extend(options.called_by);
    let mut router = Router::new(options.name, config.hub, &upstreams);
    router.set_own_rule(options.own_rule.clone());
    router.set_schemas(options.schemas.clone());
    let now = replcore::time::Instant::ZERO;
    let (mut engine, refused) =
        Engine::new(engine_config, Node::new(config, memory), store, router, ways(), now);
    if refused > 0 {
        tracing::warn!(
            refused,
            "stored registrations beyond limits.leaves_max, or of a later version, are passed over"
        );
    }
    route_to_registered(&mut engine);
    engine
}

/// Lets the router of a new engine know the leaves that its node had stored as registered.
pub fn route_to_registered<S: Store>(engine: &mut Engine<Node<'static>, S>) {
    let names: Vec<Name> = engine
        .machine()
        .leases()
        .leaves()
        .filter_map(|slot| slot.registration().map(|registration| registration.name))
        .collect();
    for name in names {
        engine.router_mut().add_leaf(name);
    }
}

/// How an engine follows a [`Node`].
pub fn ways() -> Ways<Node<'static>> {
    Ways { follow, peer }
}

fn follow(node: &Node<'static>, router: &mut Router, event: &NodeEvent) {
    match *event {
        NodeEvent::LeafUp { node: leaf, .. } => {
            let slot = node.leases().find(leaf);
            if let Some(registration) = slot.and_then(LeaseSlot::registration) {
                router.add_leaf(registration.name);
            }
        }
        NodeEvent::LeaseExpired { node: leaf } => router.remove_leaf(leaf),
        _ => {}
    }
}

fn peer(node: &Node<'static>, link: LinkId) -> Option<(Role, u32)> {
    node.peer(link).map(|peer| (peer.role, peer.features))
}
