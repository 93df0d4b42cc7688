//! The node: a hub, a gateway, or a leaf of several hubs.

use core::ffi::{c_char, c_void};

use replcore_core::Timer;
use replcore_core::contract::DialIndex;
use replcore_core::lease::{LeaseServer, LeaseSlot};
use replcore_core::link::LinkSettings;
use replcore_core::node::{
    DialSlot, DialTarget, LinkSlot, Node, NodeConfig, NodeError, NodeEvent, NodeMemory,
};
use replcore_core::stream::{Address, Epoch, Name, NodeId};
use replcore_core::time::Instant;

use super::check::{reference_mut, sized, slice, text};
use super::leaf::{or, refuse, set_link};
use super::machine::{Memory, bytes_of_machine, node};
use super::status::status;
use super::{replcore_machine, replcore_output, replcore_output_kind, replcore_status};

/// What a node tells the program, in `event` of an output of kind EVENT.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_node_event {
    /// The leaf `node` is registered, and on `link`.
    LeafUp = 1,
    /// The link of the registered leaf `node` has ended. Its lease runs on.
    LeafDown = 2,
    /// The leaf `node` has not renewed: it is not served until it registers again. Keep its queue.
    LeaseExpired = 3,
    /// A link or a registration of `node`, 0 when that is not known, was refused for `reason`, one of
    /// REPLCORE_REFUSE_*.
    PeerRefused = 4,
    /// The hub at the place `dial` has granted a lease of `next` milliseconds, for the first time on
    /// this link.
    Registered = 5,
    /// The hub at the place `dial` refuses this node, for `reason`. It tries again later.
    UpstreamRefused = 6,
    /// The link to the place `dial` has ended.
    DialDown = 7,
    /// Something that this header does not know; may be passed over.
    Other = 8,
}

/// A hub above this node, at which it registers.
pub const REPLCORE_DIAL_UPSTREAM: u32 = 0;
/// A leaf below this node, which does not dial by itself.
pub const REPLCORE_DIAL_LEAF: u32 = 1;

/// A place that a node dials, or waits for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_dial {
    /// UPSTREAM: the own queue that the hub reads; NULL for `hub`.
    pub queue: *const c_char,
    /// One of REPLCORE_DIAL_*.
    pub kind: u32,
    /// UPSTREAM: 1 when the node does not dial, but waits for that hub to.
    pub waits: u32,
}

/// Most places that a node is told to dial here.
const DIALS_MAX: u32 = 1024;

/// What a node is told at its start. All zeros but `struct_size`, `name`, `instance` and `epoch` is a
/// sound configuration, of a hub: 0 and NULL mean the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_node_config {
    /// sizeof(replcore_node_config).
    pub struct_size: u32,
    /// The life of the node's log, as of a leaf. Not 0.
    pub epoch: u32,
    /// Drawn once, when the node's log was made, and kept with it. Not 0.
    pub instance: u64,
    /// For jitter; two nodes should not have the same.
    pub seed: u64,
    /// The node's name.
    pub name: *const c_char,
    /// A queue of the hubs above to read beside the one of the node's name.
    pub extra_queue: *const c_char,
    /// Where the node can be reached, host:port; told to the hubs above.
    pub address: *const c_char,
    /// The places to dial, in the order of their numbers; at most 1024.
    pub dials: *const replcore_dial,
    /// How many places.
    pub dial_count: u32,
    /// Links open at once, those that it dials included; they are numbered below. At most 65,536;
    /// default 64. About 2 KiB of memory each.
    pub links_max: u32,
    /// Leaves that may be registered, at most 1,000,000; default 64. About 450 bytes of memory each.
    pub leaves_max: u32,
    /// 1: no hub, no leaf may register.
    pub without_leaves: u32,
    /// Longest frame to take, in bytes, 512 to 1,048,576; default 65,536.
    pub frame_bytes_max: u32,
    /// Bytes of records that may be under way on one incoming stream; default 1,048,576.
    pub window_bytes: u32,
    /// Something is sent at least this often, in milliseconds; default 10,000.
    pub keepalive_ms: u32,
    /// On a line that loses frames: silence after which something is said again; default 1,000.
    pub retransmit_ms: u32,
    /// Greeting and registration must be through by then, in milliseconds; default 5,000.
    pub handshake_ms: u32,
    /// A stream for which there was no room is asked for again after this time, in milliseconds;
    /// default 1,000.
    pub full_retry_ms: u32,
    /// The longest lease to grant, in milliseconds; default 900,000.
    pub lease_ms_max: u32,
    /// The shortest lease to grant, in milliseconds, at most `lease_ms_max`; default 1,000.
    pub lease_ms_min: u32,
    /// Registrations a second to admit, renewals not counted; default any number.
    pub admit_per_second: u32,
    /// Registrations that may come at once, when there is such a limit; default 64.
    pub admit_burst: u32,
    /// Who is turned away is asked to come back within this time, in milliseconds; default 2,000.
    pub admit_spread_ms: u32,
    /// The least wait before dialling again, in milliseconds; default 500.
    pub retry_ms_min: u32,
    /// The greatest wait before dialling again, in milliseconds; default 30,000.
    pub retry_ms_max: u32,
    /// 0 holds the links to hubs open; otherwise it dials at this interval, in milliseconds.
    pub poll_interval_ms: u32,
    /// The registration at the hubs above is renewed this often, in milliseconds; default 300,000.
    pub register_ms: u32,
    /// The lease to ask the hubs above for, in milliseconds; default 900,000.
    pub register_lease_ms: u32,
}

/// How many of each thing a node has.
struct Sizes {
    links: usize,
    leases: usize,
    dials: usize,
}

fn sizes(given: &replcore_node_config) -> Result<Sizes, replcore_status> {
    let (links, leaves) = (or(given.links_max, 64), or(given.leaves_max, 64));
    if links > 65_536 || leaves > 1_000_000 || given.dial_count > DIALS_MAX {
        return Err(replcore_status::Value);
    }
    let leases = LeaseServer::slots_for(leaves);
    Ok(Sizes { links: links as usize, leases, dials: given.dial_count as usize })
}

/// Bytes that a node of this configuration needs, wherever they begin; 0 for one that
/// replcore_node_init refuses.
///
/// # Safety
/// `config` and what it points to are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_memory(config: *const replcore_node_config) -> usize {
    // SAFETY: as the caller promises.
    let Ok(given) = (unsafe { sized(config) }) else {
        return 0;
    };
    // SAFETY: as the caller promises.
    let sound = unsafe { node_config(&given).and_then(|_| dial_targets(&given)) };
    let (Ok(sizes), true) = (sizes(&given), sound.is_ok_and(|mut all| all.all(|it| it.is_ok())))
    else {
        return 0;
    };
    let owners = sizes.links + sizes.dials;
    Memory::bytes_of::<LinkSlot>(sizes.links)
        .saturating_add(Memory::bytes_of::<LeaseSlot>(sizes.leases))
        .saturating_add(Memory::bytes_of::<Timer>(sizes.leases))
        .saturating_add(Memory::bytes_of::<DialSlot>(sizes.dials))
        .saturating_add(Memory::bytes_of::<Timer>(owners))
        .saturating_add(Memory::bytes_of::<u32>(owners))
        .saturating_add(bytes_of_machine::<Node<'static>>())
}

/// Makes a node in `memory`; `*machine` gets it. Then what an earlier life has stored is given back with
/// replcore_restore, and it takes its first input.
///
/// As a hub it keeps the table of leaves, each under its lease, and sends each what the queues of its
/// name hold. Which queues a record goes to is for the program to say: replcore_dispatch_record does
/// as the daemon. What is stored under REPLCORE_KEY_REGISTRATION may be lost: then the hub does not
/// know whom to expect after a restart. So may what is stored under REPLCORE_KEY_TERM: then a gateway
/// takes whichever hub above it that it finds first, also one whose term is over.
///
/// # Safety
/// `memory` has `len` bytes that nothing else uses while the node is used; `config` and what it points
/// to are readable; `machine` is writable and not inside `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_init(
    memory: *mut c_void,
    len: usize,
    config: *const replcore_node_config,
    machine: *mut *mut replcore_machine,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let given: replcore_node_config = unsafe { sized(config) }?;
        // SAFETY: as the caller promises.
        let machine = unsafe { reference_mut(machine) }?;
        let sizes = sizes(&given)?;
        // SAFETY: as the caller promises; so is the next.
        let config = unsafe { node_config(&given) }?;
        // SAFETY: see above.
        let targets = unsafe { dial_targets(&given) }?;
        let owners = sizes.links + sizes.dials;
        let mut memory = Memory::new(memory, len)?;
        // SAFETY: the memory is the node's alone as long as it is used.
        let memory_of_node = unsafe {
            NodeMemory {
                links: memory.slice(sizes.links, LinkSlot::FREE)?,
                leases: memory.slice(sizes.leases, LeaseSlot::FREE)?,
                lease_timers: memory.slice(sizes.leases, Timer::NONE)?,
                dials: memory.slice(sizes.dials, DialSlot::new(DialTarget::Leaf))?,
                timers: memory.slice(owners, Timer::NONE)?,
                ready: memory.slice(owners, 0)?,
            }
        };
        for (slot, target) in memory_of_node.dials.iter_mut().zip(targets) {
            *slot = DialSlot::new(target?);
        }
        *machine = memory.node(Node::new(config, memory_of_node))?;
        Ok(())
    })())
}

/// # Safety
/// The texts are NULL or end in a zero byte.
unsafe fn node_config(given: &replcore_node_config) -> Result<NodeConfig, replcore_status> {
    if given.instance == 0 || given.epoch == 0 || given.without_leaves > 1 {
        return Err(replcore_status::Value);
    }
    // SAFETY: as the caller promises; so is the next.
    let (own, extra) = unsafe { (text(given.name)?, text(given.extra_queue)?) };
    // SAFETY: see above.
    let address = unsafe { text(given.address) }?;
    let name = |text: &str| Name::new(text).map_err(|_| replcore_status::Name);
    let mut link = LinkSettings::new(name(own)?, given.instance, Epoch(given.epoch));
    let bytes = (given.frame_bytes_max, given.window_bytes);
    set_link(&mut link, bytes, (given.keepalive_ms, given.retransmit_ms))?;
    link.handshake_ms = or(given.handshake_ms, link.handshake_ms);
    link.full_retry_ms = or(given.full_retry_ms, link.full_retry_ms);
    let mut config = NodeConfig::new(link, given.seed);
    config.hub = given.without_leaves == 0;
    if !address.is_empty() {
        config.address = Some(Address::new(address).map_err(|_| replcore_status::Text)?);
    }
    if !extra.is_empty() {
        config.extra_queue = Some(name(extra)?);
    }
    set_timing(&mut config, given)?;
    Ok(config)
}

const fn set_timing(
    config: &mut NodeConfig,
    given: &replcore_node_config,
) -> Result<(), replcore_status> {
    let lease = &mut config.lease;
    lease.lease_ms_max = or(given.lease_ms_max, lease.lease_ms_max);
    lease.lease_ms_min = or(given.lease_ms_min, lease.lease_ms_min);
    lease.admission.per_second = given.admit_per_second;
    lease.admission.burst = or(given.admit_burst, lease.admission.burst);
    lease.admission.spread_ms = or(given.admit_spread_ms, lease.admission.spread_ms);
    let dial = &mut config.dial;
    dial.retry_ms_min = or(given.retry_ms_min, dial.retry_ms_min);
    dial.retry_ms_max = or(given.retry_ms_max, dial.retry_ms_max);
    dial.poll_interval_ms = given.poll_interval_ms;
    config.register.register_ms = or(given.register_ms, config.register.register_ms);
    config.register.lease_ms = or(given.register_lease_ms, config.register.lease_ms);
    if dial.retry_ms_min > dial.retry_ms_max || lease.lease_ms_min > lease.lease_ms_max {
        return Err(replcore_status::Value);
    }
    Ok(())
}

/// The places of a configuration, one after the other.
///
/// # Safety
/// `dials` has `dial_count` places, whose texts are NULL or end in a zero byte.
unsafe fn dial_targets<'a>(
    given: &replcore_node_config,
) -> Result<impl Iterator<Item = Result<DialTarget, replcore_status>> + use<'a>, replcore_status> {
    // SAFETY: as the caller promises.
    let dials: &'a [replcore_dial] = unsafe { slice(given.dials, given.dial_count, DIALS_MAX) }?;
    Ok(dials.iter().map(|dial| {
        let dials = match dial.waits {
            0 => true,
            1 => false,
            _ => return Err(replcore_status::Value),
        };
        // SAFETY: as the caller promises.
        let queue = match unsafe { text(dial.queue) }? {
            "" => "hub",
            queue => queue,
        };
        let queue = Name::new(queue).map_err(|_| replcore_status::Name)?;
        match dial.kind {
            REPLCORE_DIAL_UPSTREAM => Ok(DialTarget::Upstream { queue, dials }),
            REPLCORE_DIAL_LEAF if dials => Ok(DialTarget::Leaf),
            _ => Err(replcore_status::Value),
        }
    }))
}

/// Has the node close every link with a good-bye, dial no more and take no link.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_stop(
    machine: *mut replcore_machine,
    now_us: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { node(machine) }?.stop(Instant::from_micros(now_us));
        Ok(())
    })())
}

/// Forgets the leaf `leaf`, an id, that is gone for good; its link is closed if it has one. END when no
/// such leaf is registered, BUSY when the last such command was not drained yet.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_forget(
    machine: *mut replcore_machine,
    now_us: u64,
    leaf: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let node = unsafe { node(machine) }?;
        node.forget(Instant::from_micros(now_us), NodeId(leaf)).map_err(|error| match error {
            NodeError::NotFound => replcore_status::End,
            _ => replcore_status::Busy,
        })
    })())
}

pub(crate) fn event(event: NodeEvent) -> replcore_output {
    use replcore_node_event as number;
    let of = |event: number| replcore_output {
        kind: replcore_output_kind::Event as u32,
        event: event as u32,
        ..Default::default()
    };
    let about = |event: number, node: NodeId| replcore_output { node: node.0, ..of(event) };
    let at = |event: number, dial: DialIndex| replcore_output { dial: dial.0.into(), ..of(event) };
    match event {
        NodeEvent::LeafUp { node, link } => {
            replcore_output { link: link.0, ..about(number::LeafUp, node) }
        }
        NodeEvent::LeafDown { node } => about(number::LeafDown, node),
        NodeEvent::LeaseExpired { node } => about(number::LeaseExpired, node),
        NodeEvent::PeerRefused { node, reason } => {
            replcore_output { reason: refuse(reason) as u32, ..about(number::PeerRefused, node) }
        }
        NodeEvent::Registered { dial, lease_ms } => {
            replcore_output { next: lease_ms.into(), ..at(number::Registered, dial) }
        }
        NodeEvent::UpstreamRefused { dial, reason } => {
            replcore_output { reason: refuse(reason) as u32, ..at(number::UpstreamRefused, dial) }
        }
        NodeEvent::DialDown { dial } => at(number::DialDown, dial),
        _ => of(number::Other),
    }
}

#[cfg(test)]
mod tests;
