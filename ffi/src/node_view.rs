//! What a node knows: of its leaves, of its links, of the hubs above it.

use core::ffi::c_char;

use replcore_core::contract::{DialIndex, LinkId};
use replcore_core::lease::{LeaseSlot, LeaseState};
use replcore_core::stream::NodeId;
use replcore_core::wire::{self, Role};

use super::check::{bytes, characters, reference_mut};
use super::leaf::{REPLCORE_ROLE_CLIENT, REPLCORE_ROLE_HUB, REPLCORE_ROLE_LEAF, link_stats};
use super::machine::{REPLCORE_NAME_BYTES, node};
use super::status::status;
use super::{replcore_link_stats, replcore_machine, replcore_status};

/// "On no link", where a link is told.
pub const REPLCORE_NO_LINK: u32 = u32::MAX;

/// A registered leaf. No pointers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct replcore_lease {
    /// Its id.
    pub node: u64,
    /// Tells it from another leaf of its name.
    pub instance: u64,
    /// When its lease ends or ended, in microseconds on this node's clock.
    pub until_us: u64,
    /// The lease it asked for, in milliseconds.
    pub lease_ms: u32,
    /// The link it is on, or REPLCORE_NO_LINK.
    pub link: u32,
    /// 1 while its lease runs; 0 when it has ended.
    pub is_held: u32,
    /// Zero.
    pub reserved: u32,
    /// Its name, with a zero byte behind it.
    pub name: [c_char; REPLCORE_NAME_BYTES],
    /// Where it can be reached, with a zero byte behind it; empty when it did not say.
    pub address: [c_char; REPLCORE_NAME_BYTES],
    /// A queue that it reads beside the one of its name; empty for none.
    pub queue: [c_char; REPLCORE_NAME_BYTES],
}

/// Who is at the other end of a link.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct replcore_link_peer {
    /// Its id.
    pub node: u64,
    /// One of REPLCORE_ROLE_LEAF, REPLCORE_ROLE_CLIENT, REPLCORE_ROLE_HUB.
    pub role: u32,
    /// Round trip of the last ping, in microseconds; 0 when not known.
    pub round_trip_us: u32,
    /// Its name, with a zero byte behind it.
    pub name: [c_char; REPLCORE_NAME_BYTES],
}

/// What is known of a place to dial.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_dial_state {
    /// The link there, or REPLCORE_NO_LINK.
    pub link: u32,
    /// 1 when the hub there has granted a lease on that link.
    pub is_registered: u32,
}

/// What a node has counted since its start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_node_counters {
    /// Of its links, those that have ended included.
    pub link: replcore_link_stats,
    /// Registrations granted.
    pub registered: u64,
    /// Renewals granted.
    pub renewed: u64,
    /// Leases that ended without renewal.
    pub expired: u64,
    /// Links and registrations refused.
    pub refused: u64,
}

/// How many leaves are in the table, those whose lease has ended included; 0 for what is not a node.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_leases(machine: *mut replcore_machine) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { node(machine) }.map_or(0, |node| node.leases().len())
}

/// What is known of the leaf of this id. END when it is not in the table.
///
/// # Safety
/// `machine` is a machine, `lease` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_lease(
    machine: *mut replcore_machine,
    leaf: u64,
    lease: *mut replcore_lease,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (node, lease) = unsafe { (node(machine)?, reference_mut(lease)?) };
        let found = node.leases().find(NodeId(leaf)).and_then(flatten);
        *lease = found.ok_or(replcore_status::End)?;
        Ok(())
    })())
}

/// The leaves in turn, in no order: `*place` is 0 at first, and gets where the next call goes on. END
/// behind the last. One that registers or is forgotten between two calls may be told twice or not.
///
/// # Safety
/// `machine` is a machine, `place` and `lease` are writable and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_lease_next(
    machine: *mut replcore_machine,
    place: *mut u32,
    lease: *mut replcore_lease,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (node, place) = unsafe { (node(machine)?, reference_mut(place)?) };
        // SAFETY: as the caller promises.
        let lease = unsafe { reference_mut(lease) }?;
        let (slot, found) = node.leases().leaf_from(*place).ok_or(replcore_status::End)?;
        *lease = flatten(found).ok_or(replcore_status::End)?;
        *place = slot + 1;
        Ok(())
    })())
}

fn flatten(slot: &LeaseSlot) -> Option<replcore_lease> {
    let registration = slot.registration()?;
    Some(replcore_lease {
        node: registration.name.node_id().0,
        instance: registration.instance,
        until_us: slot.until().as_micros(),
        lease_ms: registration.lease_ms,
        link: slot.link().map_or(REPLCORE_NO_LINK, |link| link.0),
        is_held: u32::from(slot.state() == LeaseState::Held),
        reserved: 0,
        name: characters(registration.name.as_str()),
        address: characters(registration.address.as_ref().map_or("", |text| text.as_str())),
        queue: characters(registration.queue.as_ref().map_or("", |queue| queue.as_str())),
    })
}

/// Who is at the other end of a link. END while that is not known, and for a link that is not open.
///
/// # Safety
/// `machine` is a machine, `peer` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_peer(
    machine: *mut replcore_machine,
    link: u32,
    peer: *mut replcore_link_peer,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (node, peer) = unsafe { (node(machine)?, reference_mut(peer)?) };
        let known = node.peer(LinkId(link)).ok_or(replcore_status::End)?;
        *peer = replcore_link_peer {
            node: known.name.node_id().0,
            role: match known.role {
                Role::Leaf => REPLCORE_ROLE_LEAF,
                Role::Client => REPLCORE_ROLE_CLIENT,
                // Members of clusters get no further than the greeting.
                Role::Hub | Role::Member => REPLCORE_ROLE_HUB,
            },
            round_trip_us: known.round_trip_us,
            name: characters(known.name.as_str()),
        };
        Ok(())
    })())
}

/// What is known of the place numbered `dial`. END when there are fewer.
///
/// # Safety
/// `machine` is a machine, `state` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_dial(
    machine: *mut replcore_machine,
    dial: u32,
    state: *mut replcore_dial_state,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (node, state) = unsafe { (node(machine)?, reference_mut(state)?) };
        let dial = DialIndex(u16::try_from(dial).map_err(|_| replcore_status::End)?);
        let known = node.dial(dial).ok_or(replcore_status::End)?;
        *state = replcore_dial_state {
            link: known.link().map_or(REPLCORE_NO_LINK, |link| link.0),
            is_registered: known.is_registered().into(),
        };
        Ok(())
    })())
}

/// What the node has counted since its start. Passes over all links.
///
/// # Safety
/// `machine` is a machine, `stats` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_node_stats(
    machine: *mut replcore_machine,
    stats: *mut replcore_node_counters,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (node, stats) = unsafe { (node(machine)?, reference_mut(stats)?) };
        let counted = node.stats();
        *stats = replcore_node_counters {
            link: link_stats(&counted.link),
            registered: counted.registered,
            renewed: counted.renewed,
            expired: counted.expired,
            refused: counted.refused,
        };
        Ok(())
    })())
}

/// What a client that wants to read asks for. No pointers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct replcore_subscribe {
    /// The name of the consumer, with a zero byte behind it.
    pub consumer: [c_char; REPLCORE_NAME_BYTES],
    /// Only messages of this type, when the consumer is new; empty for all.
    pub message_type: [c_char; REPLCORE_NAME_BYTES],
    /// 1: a new consumer starts with what the node already holds.
    pub from_start: u32,
}

/// Reads what the buffer holds with an order ASK_SUBSCRIBE: its first `len` bytes. MALFORMED when that
/// is something else.
///
/// # Safety
/// `data` has `len` bytes, `subscribe` is writable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_subscribe_read(
    data: *const u8,
    len: usize,
    subscribe: *mut replcore_subscribe,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (data, subscribe) = unsafe { (bytes(data, len)?, reference_mut(subscribe)?) };
        let asked = wire::Subscribe::decode(data).ok_or(replcore_status::Malformed)?;
        let text = |text: wire::Text<'_>| {
            str::from_utf8(text.0).map(characters).map_err(|_| replcore_status::Malformed)
        };
        *subscribe = replcore_subscribe {
            consumer: text(asked.consumer)?,
            message_type: text(asked.message_type)?,
            from_start: asked.from_start.into(),
        };
        Ok(())
    })())
}
