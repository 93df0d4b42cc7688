//! A hub with an upstream hub, whose leaves, clients and upstream are hostile.

use replcore::Timer;
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::node::{DialSlot, DialTarget, LinkSlot, Node, NodeConfig, NodeMemory};
use replcore::stream::{Epoch, Name};

use crate::machine;

const LINKS: usize = 4;
const LEAVES: u32 = 3;

/// Runs one input; its first byte chooses the configuration.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let name = |text| Name::new(text).expect("a name");
    let mut config =
        NodeConfig::new(LinkSettings::new(name("a"), 1, Epoch(machine::EPOCH)), u64::from(choice));
    config.hub = choice & 1 == 0;
    config.lease.admission.per_second = u32::from(choice & 2);
    let upstream = DialTarget::Upstream { queue: name("hub"), dials: choice & 4 == 0 };
    let mut dials = [DialSlot::new(upstream), DialSlot::new(DialTarget::Leaf)];
    let mut links = [LinkSlot::FREE; LINKS];
    let slots = LeaseServer::slots_for(LEAVES);
    let mut leases = vec![LeaseSlot::FREE; slots];
    let mut lease_timers = vec![Timer::NONE; slots];
    let mut timers = vec![Timer::NONE; LINKS + dials.len()];
    let mut ready = vec![0; LINKS + dials.len()];
    let memory = NodeMemory {
        links: &mut links,
        leases: &mut leases,
        lease_timers: &mut lease_timers,
        dials: &mut dials,
        timers: &mut timers,
        ready: &mut ready,
    };
    machine::run(data, Node::new(config, memory), LINKS, |node, now, choice| match choice % 16 {
        0 => node.stop(now),
        _ => {
            let names = ["a", "b", "c", "hub"];
            let name = name(names[usize::from(choice) % names.len()]);
            let _ = node.forget(now, name.node_id());
            let _ = (node.stats(), node.leases().len());
        }
    });
}
