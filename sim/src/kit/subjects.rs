//! The machines that the kit is run over.

use replcore::Timer;
use replcore::contract::DialIndex;
use replcore::election::{ElectionSlot, Membership};
use replcore::leaf::{ConsumerConfig, Leaf, LeafConfig};
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::member::{Member, MemberConfig, MemberLink, MemberMemory};
use replcore::node::{DialSlot, DialTarget, LinkSlot, Node, NodeConfig, NodeMemory};
use replcore::registry::PeerSlot;
use replcore::rng::Rng;
use replcore::stream::{Address, Epoch, Name};
use replcore::time::Instant;
use replcore::wire::Role;

use super::member_peer::VOTERS;
use super::{Bug, Mutant, Subject};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a constant name is sound")
}

/// A leaf that registers at a hub.
#[derive(Clone, Copy, Debug)]
pub struct LeafSubject {
    /// A leaf or a client.
    pub role: Role,
    /// Poll mode with this interval, in milliseconds; 0 for push.
    pub poll_interval_ms: u32,
}

impl Subject for LeafSubject {
    type Machine = Leaf;

    fn name(&self) -> &'static str {
        match (self.role, self.poll_interval_ms) {
            (Role::Client, _) => "leaf as client",
            (_, 0) => "leaf",
            _ => "leaf in poll mode",
        }
    }

    fn machine(&self, seed: u64) -> Leaf {
        let link = LinkSettings::new(name("leaf-1"), 7, Epoch(1 << 16 | 3));
        let mut config = LeafConfig::new(link, seed);
        config.role = self.role;
        config.dial.poll_interval_ms = self.poll_interval_ms;
        if self.role == Role::Client {
            config.queue = Some(name("post"));
            config.consumer =
                Some(ConsumerConfig { name: name("reader"), message_type: None, from_start: true });
        }
        Leaf::new(config)
    }

    fn links_max(&self) -> u32 {
        1
    }

    fn peer(&self, _dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name) {
        if rng.between(0, 19) == 0 {
            (Role::Leaf, name("leaf-2"))
        } else {
            (Role::Hub, name("hub"))
        }
    }

    fn command(&self, machine: &mut Leaf, now: Instant, rng: &mut Rng) -> bool {
        let commands = self.role == Role::Client && rng.between(0, 3) == 0;
        if commands {
            let stream = replcore::contract::StreamIndex(rng.between(0, 3) as u8);
            let position = replcore::stream::Position(rng.between(0, 30));
            // A stream that is not there is an answer and no fault.
            let _ = machine.reject(now, stream, position);
        }
        commands
    }
}

/// Any of the others, broken.
#[derive(Clone, Copy, Debug)]
pub struct Broken<S> {
    /// The subject.
    pub subject: S,
    /// How it is broken.
    pub bug: Bug,
}

impl<S: Subject> Subject for Broken<S> {
    type Machine = Mutant<S::Machine>;

    fn name(&self) -> &'static str {
        self.subject.name()
    }

    fn machine(&self, seed: u64) -> Self::Machine {
        Mutant::new(self.subject.machine(seed), self.bug)
    }

    fn links_max(&self) -> u32 {
        self.subject.links_max()
    }

    fn peer(&self, dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name) {
        self.subject.peer(dialed, rng)
    }

    fn outputs_max(&self) -> usize {
        self.subject.outputs_max()
    }
}

/// A node: a hub with an upstream of its own and a leaf that it dials.
#[derive(Clone, Copy, Debug)]
pub struct NodeSubject {
    /// Whether leaves may register.
    pub hub: bool,
}

/// Memory for a node that lives as long as the process. A play makes a few dozen nodes; their
/// memory is small here and is not given back.
pub(crate) fn node_memory(links: usize, leaves: u32, dials: Vec<DialSlot>) -> NodeMemory<'static> {
    let (leases, owners) = (LeaseServer::slots_for(leaves), links + dials.len());
    NodeMemory {
        links: vec![LinkSlot::FREE; links].leak(),
        leases: vec![LeaseSlot::FREE; leases].leak(),
        lease_timers: vec![Timer::NONE; leases].leak(),
        dials: dials.leak(),
        timers: vec![Timer::NONE; owners].leak(),
        ready: vec![0; owners].leak(),
    }
}

impl Subject for NodeSubject {
    type Machine = Node<'static>;

    fn name(&self) -> &'static str {
        if self.hub { "hub" } else { "gateway" }
    }

    fn machine(&self, seed: u64) -> Node<'static> {
        let link = LinkSettings::new(name("leaf-1"), 7, Epoch(1 << 16 | 3));
        let mut config = NodeConfig::new(link, seed);
        config.hub = self.hub;
        config.lease.lease_ms_min = 1_000;
        let mut dials =
            vec![DialSlot::new(DialTarget::Upstream { queue: name("up"), dials: true })];
        dials.push(if self.hub {
            DialSlot::new(DialTarget::Leaf)
        } else {
            DialSlot::new(DialTarget::Upstream { queue: name("up-2"), dials: false })
        });
        Node::new(config, node_memory(4, 3, dials))
    }

    fn links_max(&self) -> u32 {
        4
    }

    fn peer(&self, dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name) {
        match dialed {
            Some(DialIndex(0)) => (Role::Hub, name("top")),
            Some(_) => (Role::Leaf, name("leaf-9")),
            None => match rng.between(0, 9) {
                0..=2 => (Role::Leaf, name("leaf-3")),
                3..=5 => (Role::Leaf, name("leaf-4")),
                6 => (Role::Leaf, name("leaf-5")),
                7..=8 => (Role::Client, name("program")),
                _ => (Role::Hub, name("top-2")),
            },
        }
    }

    fn command(&self, machine: &mut Node<'static>, now: Instant, rng: &mut Rng) -> bool {
        let commands = rng.between(0, 9) == 0;
        if commands {
            let leaf = name(if rng.between(0, 1) == 0 { "leaf-3" } else { "leaf-4" });
            // A leaf that is not there is an answer and no fault.
            let _ = machine.forget(now, leaf.node_id());
        }
        commands
    }
}

/// A member of a cluster of three, with or without elections.
#[derive(Clone, Copy, Debug)]
pub struct MemberSubject {
    /// Whether there are elections.
    pub election: bool,
}

impl Subject for MemberSubject {
    type Machine = Member<'static>;

    fn name(&self) -> &'static str {
        if self.election { "member" } else { "member without election" }
    }

    fn machine(&self, seed: u64) -> Member<'static> {
        let mut config = MemberConfig::new(name("leaf-1"), name("cluster"), 7, seed);
        config.address = Address::new("host:1").ok();
        if !self.election {
            config.election = None;
        }
        let members = if self.election { 4 } else { 0 };
        let memory = MemberMemory {
            peers: vec![PeerSlot::FREE; 4].leak(),
            links: vec![MemberLink::FREE; 4].leak(),
            members: vec![ElectionSlot::FREE; members].leak(),
        };
        let mut member = Member::new(config, memory).expect("the timing is sound");
        for voter in &VOTERS[1..] {
            let address = Address::new("host:2").ok();
            member.add_known_peer(name(voter), address, None, true).expect("there is room");
        }
        member
    }

    fn links_max(&self) -> u32 {
        4
    }

    fn peer(&self, dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name) {
        match (dialed, rng.between(0, 9)) {
            (Some(DialIndex(0)), 1..) => (Role::Member, name(VOTERS[1])),
            (Some(_), 1..) => (Role::Member, name(VOTERS[2])),
            (None, 0..=3) => (Role::Member, name(VOTERS[1])),
            (None, 4..=6) => (Role::Member, name(VOTERS[2])),
            (None, 7) => (Role::Member, name("member-4")),
            (None, 8) => (Role::Client, name("program")),
            _ => (Role::Leaf, name("leaf-9")),
        }
    }

    fn command(&self, machine: &mut Member<'static>, now: Instant, rng: &mut Rng) -> bool {
        // What cannot be done is an answer and no fault.
        match rng.between(0, 19) {
            0 => drop(machine.resign(now)),
            1 => drop(machine.set_metadata(now, b"metadata")),
            2 => drop(machine.leave(now)),
            3 => drop(machine.join(now, true)),
            4 => drop(machine.change_member(now, name(VOTERS[2]).node_id(), Membership::Learner)),
            _ => return false,
        }
        true
    }
}
