//! Clusters of machines over model stores: every node is a [`Leaf`] or a [`Node`] in a [`Host`].

use replcore::contract::Machine;
use replcore::leaf::{Leaf, LeafConfig, LeafEvent};
use replcore::link::LinkSettings;
use replcore::node::{DialSlot, DialTarget, Node, NodeConfig, NodeEvent};
use replcore::rng::Rng;
use replcore::stream::{Name, NodeId, RecordId};
use replcore::time::Instant;

use crate::cluster::Machinery;
use crate::host::{Host, HostOptions, Routes};
use crate::kit::node_memory;
use crate::model::{Limit, Medium, ModelStore, StoreBugs};
use crate::process::{Effect, LeaseState, Now, Observation, Process, Stimulus};

/// What a node of the cluster is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Takes registrations of these leaves and dispatches to them.
    Hub {
        /// Its leaves.
        leaves: Vec<Name>,
    },
    /// A leaf of one hub, by the small composition.
    Leaf {
        /// The hub.
        hub: Name,
    },
    /// A leaf of several hubs, by the large composition.
    Gateway {
        /// The hubs, in the order in which it dials them.
        hubs: Vec<Name>,
    },
}

/// Times and limits of all nodes of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a lease is, in milliseconds.
    pub lease_ms: u32,
    /// How often a leaf registers, in milliseconds.
    pub register_ms: u32,
    /// Keep-alive of links, in milliseconds.
    pub keepalive_ms: u32,
    /// Interval of poll mode, in milliseconds; 0 for push.
    pub poll_interval_ms: u32,
    /// Bytes of records that may be under way on one stream.
    pub window_bytes: u32,
    /// Longest frame.
    pub frame_bytes_max: u32,
    /// A limit of every queue.
    pub limit: Option<Limit>,
    /// Ways in which the stores are broken.
    pub bugs: StoreBugs,
    /// Dispatch sends back (HS-18 broken).
    pub bug_sends_back: bool,
    /// Admissions per second at a hub, and how many at once.
    pub admission: (u32, u32),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: 900_000,
            register_ms: 300_000,
            keepalive_ms: 10_000,
            poll_interval_ms: 0,
            window_bytes: 1 << 20,
            frame_bytes_max: 4_096,
            limit: None,
            bugs: StoreBugs::default(),
            bug_sends_back: false,
            admission: (1_000, 1_000),
        }
    }
}

/// A node of the cluster while it runs.
#[derive(Debug)]
pub enum MachineProcess {
    /// The small composition.
    Leaf(Box<Host<Leaf, ModelStore>>),
    /// The large one.
    Node(Box<Host<Node<'static>, ModelStore>>),
}

impl MachineProcess {
    /// What it keeps.
    pub const fn store(&self) -> &ModelStore {
        match self {
            Self::Leaf(host) => host.store(),
            Self::Node(host) => host.store(),
        }
    }

    /// What it keeps, to break it.
    pub const fn store_mut(&mut self) -> &mut ModelStore {
        match self {
            Self::Leaf(host) => host.store_mut(),
            Self::Node(host) => host.store_mut(),
        }
    }

    fn into_store(self) -> ModelStore {
        match self {
            Self::Leaf(host) => host.into_store(),
            Self::Node(host) => host.into_store(),
        }
    }
}

impl Process for MachineProcess {
    fn take(
        &mut self,
        now: Now,
        stimulus: Stimulus<'_>,
        effects: &mut Vec<Effect>,
        observations: &mut Vec<Observation>,
    ) {
        match self {
            Self::Leaf(host) => host.take(now, stimulus, effects, observations),
            Self::Node(host) => host.take(now, stimulus, effects, observations),
        }
    }

    fn held(&mut self) -> Vec<RecordId> {
        match self {
            Self::Leaf(host) => host.held(),
            Self::Node(host) => host.held(),
        }
    }

    fn wake(&self) -> Option<Instant> {
        match self {
            Self::Leaf(host) => host.wake(),
            Self::Node(host) => host.wake(),
        }
    }

    fn dirty(&self) -> bool {
        match self {
            Self::Leaf(host) => host.dirty(),
            Self::Node(host) => host.dirty(),
        }
    }

    fn frame_bytes_max(&self) -> u32 {
        match self {
            Self::Leaf(host) => host.frame_bytes_max(),
            Self::Node(host) => host.frame_bytes_max(),
        }
    }
}

/// Keeps the media and starts the processes.
#[derive(Debug)]
pub struct Machines {
    names: Vec<Name>,
    kinds: Vec<Kind>,
    media: Vec<Option<Medium>>,
    settings: Settings,
    seed: u64,
    links_max: usize,
}

impl Machines {
    /// The keeper of nodes of these names and kinds, all new.
    pub fn new(nodes: Vec<(Name, Kind)>, settings: Settings, links_max: usize, seed: u64) -> Self {
        let (names, kinds): (Vec<Name>, Vec<Kind>) = nodes.into_iter().unzip();
        let media = names.iter().map(|name| Some(Medium::new(*name, seed))).collect();
        Self { names, kinds, media, settings, seed, links_max }
    }

    /// The medium of a node that does not run.
    pub fn medium_mut(&mut self, node: usize) -> Option<&mut Medium> {
        self.media[node].as_mut()
    }

    fn link_settings(&self, store: &ModelStore) -> LinkSettings {
        let identity = store.state().identity;
        let mut link = LinkSettings::new(identity.name, identity.instance, identity.epoch);
        link.keepalive_ms = self.settings.keepalive_ms;
        link.window_bytes = self.settings.window_bytes;
        link.frame_bytes_max = self.settings.frame_bytes_max;
        link
    }

    fn host<M: Machine>(
        &self,
        machine: M,
        store: ModelStore,
        routes: Routes,
        hub: bool,
        lease_of: crate::host::LeaseOf<M::Event>,
    ) -> Host<M, ModelStore> {
        let options = HostOptions {
            name: store.state().identity.name,
            hub,
            frame_bytes_max: self.settings.frame_bytes_max,
            routes,
        };
        Host::start(machine, store, options, lease_of)
    }

    fn start_hub(&self, store: ModelStore, leaves: &[Name], seed: u64) -> MachineProcess {
        let mut config = NodeConfig::new(self.link_settings(&store), seed);
        config.lease.lease_ms_max = self.settings.lease_ms;
        config.lease.lease_ms_min = self.settings.lease_ms.min(config.lease.lease_ms_min);
        config.lease.admission.per_second = self.settings.admission.0;
        config.lease.admission.burst = self.settings.admission.1;
        let memory = node_memory(self.links_max, leaves.len() as u32 + 2, Vec::new());
        let routes = Routes {
            leaves: leaves.to_vec(),
            bug_sends_back: self.settings.bug_sends_back,
            ..Routes::default()
        };
        let host = self.host(Node::new(config, memory), store, routes, true, node_lease);
        MachineProcess::Node(Box::new(host))
    }

    fn start_gateway(&self, store: ModelStore, hubs: &[Name], seed: u64) -> MachineProcess {
        let mut config = NodeConfig::new(self.link_settings(&store), seed);
        config.hub = false;
        config.register.lease_ms = self.settings.lease_ms;
        config.register.register_ms = self.settings.register_ms;
        config.dial.poll_interval_ms = self.settings.poll_interval_ms;
        let upstream =
            |queue: &Name| DialSlot::new(DialTarget::Upstream { queue: *queue, dials: true });
        let memory = node_memory(hubs.len() + 1, 1, hubs.iter().map(upstream).collect());
        let routes = Routes { upstreams: hubs.to_vec(), ..Routes::default() };
        let host = self.host(Node::new(config, memory), store, routes, false, node_lease);
        MachineProcess::Node(Box::new(host))
    }

    fn start_leaf(&self, store: ModelStore, hub: Name, seed: u64) -> MachineProcess {
        let mut config = LeafConfig::new(self.link_settings(&store), seed);
        config.queue = Some(hub);
        config.lease.lease_ms = self.settings.lease_ms;
        config.lease.register_ms = self.settings.register_ms;
        config.dial.poll_interval_ms = self.settings.poll_interval_ms;
        let routes = Routes { upstreams: vec![hub], ..Routes::default() };
        let host = self.host(Leaf::new(config), store, routes, false, leaf_lease);
        MachineProcess::Leaf(Box::new(host))
    }
}

fn node_lease(event: &NodeEvent) -> Option<(NodeId, LeaseState)> {
    match *event {
        NodeEvent::LeaseExpired { node } => Some((node, LeaseState::Expired)),
        NodeEvent::PeerRefused { node, .. } => Some((node, LeaseState::Refused)),
        _ => None,
    }
}

const fn leaf_lease(_event: &LeafEvent) -> Option<(NodeId, LeaseState)> {
    None
}

impl Machinery for Machines {
    type Process = MachineProcess;

    fn start(&mut self, node: usize, life: u32, _now: Now) -> MachineProcess {
        let medium = self.media[node].take().expect("a node runs once at a time");
        let store = ModelStore::open(medium, self.settings.limit, self.settings.bugs);
        let seed =
            Rng::new(self.seed ^ u64::from(life) << 32 ^ self.names[node].node_id().0).next_u64();
        match self.kinds[node].clone() {
            Kind::Hub { leaves } => self.start_hub(store, &leaves, seed),
            Kind::Leaf { hub } => self.start_leaf(store, hub, seed),
            Kind::Gateway { hubs } => self.start_gateway(store, &hubs, seed),
        }
    }

    fn crash(&mut self, node: usize, process: MachineProcess, rng: &mut Rng) {
        let mut medium = process.into_store().into_medium();
        medium.crash(rng, self.settings.bugs);
        self.media[node] = Some(medium);
    }
}
