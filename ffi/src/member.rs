//! The member of a cluster: who is here, and who leads.

use core::ffi::{c_char, c_void};

use replcore_core::election::{ElectionEvent, ElectionSlot, Membership};
use replcore_core::member::{Member, MemberConfig, MemberEvent, MemberLink, MemberMemory};
use replcore_core::registry::{PEERS_MAX, PeerSlot};
use replcore_core::stream::{Address, Name, NodeId};
use replcore_core::time::Instant;
use replcore_core::wire::Progress;

use super::check::{bytes, reference_mut, sized, text};
use super::machine::{Memory, bytes_of_machine, member};
use super::status::status;
use super::{replcore_machine, replcore_output, replcore_output_kind, replcore_status};

/// Timing for one building: a leader that dies is replaced within a second. The default.
pub const REPLCORE_PROFILE_LAN: u32 = 0;
/// Timing for lines across the world: some seconds.
pub const REPLCORE_PROFILE_WAN: u32 = 1;
/// Timing for those that sleep: half a minute.
pub const REPLCORE_PROFILE_BATTERY: u32 = 2;
/// Votes, and can lead.
pub const REPLCORE_MEMBERSHIP_VOTER: u32 = 0;
/// Follows and does not vote.
pub const REPLCORE_MEMBERSHIP_LEARNER: u32 = 1;
/// No member of the election, or not yet: it learns from the others what the cluster is.
pub const REPLCORE_MEMBERSHIP_NONE: u32 = 2;

/// What a member tells the program, in `event` of an output of kind EVENT.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_member_event {
    /// This node leads, in the term `position`: the fencing token.
    BecameLeader = 1,
    /// This node led in the term `position`, and does no more.
    LostLeadership = 2,
    /// `node` leads in the term `position`; 0 for nobody.
    LeaderChanged = 3,
    /// Who is a member has changed.
    ConfigurationChanged = 4,
    /// This node is no member any more.
    Removed = 5,
    /// The peer `node` is there.
    PeerUp = 6,
    /// The peer `node` is not there any more.
    PeerDown = 7,
    /// What the peer `node` says of itself has changed.
    PeerChanged = 8,
    /// The peer `node` does not take this node, for `reason`, one of REPLCORE_REFUSE_*.
    Refused = 9,
    /// Something that this header does not know; may be passed over.
    Other = 10,
}

/// What a member is told at its start. All zeros but `struct_size`, `name`, `cluster` and
/// `instance` is a sound configuration: 0 and NULL mean the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_member_config {
    /// sizeof(replcore_member_config).
    pub struct_size: u32,
    /// One of REPLCORE_PROFILE_*. All members have the same.
    pub profile: u32,
    /// Drawn once and kept with what is stored: tells this member from another of its name. Not 0.
    pub instance: u64,
    /// For waits that differ; two members should not have the same.
    pub seed: u64,
    /// The member's name.
    pub name: *const c_char,
    /// The cluster's name: members of another are refused.
    pub cluster: *const c_char,
    /// Where the member can be reached, host:port.
    pub address: *const c_char,
    /// Other nodes that it can know of, 1 to 31; default 8.
    pub peers_max: u32,
    /// Links open at once; they are numbered below. Default twice `peers_max`, at least that many.
    pub links_max: u32,
    /// 1: no election; the members only know of each other.
    pub without_election: u32,
    /// What it is at its first start, one of REPLCORE_MEMBERSHIP_*.
    pub membership: u32,
    /// The greater campaigns first, 1 to 255; default 100.
    pub priority: u32,
    /// 1: as leader it admits nobody by itself who asks to join.
    pub admits_nobody: u32,
    /// The leader says so this often, in milliseconds.
    pub heartbeat_ms: u32,
    /// The shortest wait for a heartbeat before a campaign, in milliseconds.
    pub timeout_ms_min: u32,
    /// The longest wait for a heartbeat before a campaign, in milliseconds.
    pub timeout_ms_max: u32,
    /// By how much the rate of a clock may be wrong, in millionths.
    pub clock_error_ppm: u32,
    /// The least wait before dialling a peer again, in milliseconds.
    pub retry_ms_min: u32,
    /// The greatest wait before dialling a peer again, in milliseconds.
    pub retry_ms_max: u32,
    /// How long a link may take until both ends know each other, in milliseconds.
    pub handshake_ms: u32,
    /// Silence after which a peer is suspected, in milliseconds.
    pub suspect_ms: u32,
}

/// Bytes that a member of this configuration needs, wherever they begin; 0 for one that
/// replcore_member_init refuses.
///
/// # Safety
/// `config` and the texts in it are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_memory(config: *const replcore_member_config) -> usize {
    // SAFETY: as the caller promises.
    let Ok(given) = (unsafe { sized(config) }) else {
        return 0;
    };
    // SAFETY: as the caller promises.
    if unsafe { member_config(&given) }.is_err() {
        return 0;
    }
    let (peers, links) = sizes(&given);
    Memory::bytes_of::<PeerSlot>(peers)
        + Memory::bytes_of::<ElectionSlot>(peers)
        + Memory::bytes_of::<MemberLink>(links)
        + bytes_of_machine::<Member<'static>>()
}

const fn sizes(given: &replcore_member_config) -> (usize, usize) {
    let peers = if given.peers_max == 0 { 8 } else { given.peers_max as usize };
    let links = if given.links_max == 0 { 2 * peers } else { given.links_max as usize };
    (peers, links)
}

/// Makes a member in `memory`; `*machine` gets it. Then its peers are added with
/// replcore_member_add_peer, and what an earlier life has stored is given back with
/// replcore_restore; then it takes its first input.
///
/// What is stored under REPLCORE_KEY_BALLOT and REPLCORE_KEY_MEMBERS has to survive the loss of
/// power before replcore_handle_persisted is called.
///
/// # Safety
/// `memory` has `len` bytes that nothing else uses while the member is used; `config` and the texts
/// in it are readable; `machine` is writable and not inside `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_init(
    memory: *mut c_void,
    len: usize,
    config: *const replcore_member_config,
    machine: *mut *mut replcore_machine,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let given: replcore_member_config = unsafe { sized(config) }?;
        // SAFETY: as the caller promises.
        let machine = unsafe { reference_mut(machine) }?;
        // SAFETY: as the caller promises.
        let config = unsafe { member_config(&given) }?;
        let (peers, links) = sizes(&given);
        let mut memory = Memory::new(memory, len)?;
        // SAFETY: the memory is the member's alone as long as it is used.
        let memory_of_member = unsafe {
            MemberMemory {
                peers: memory.slice(peers, PeerSlot::FREE)?,
                links: memory.slice(links, MemberLink::FREE)?,
                members: memory.slice(peers, ElectionSlot::FREE)?,
            }
        };
        *machine = memory
            .member(Member::new(config, memory_of_member).map_err(|_| replcore_status::Value)?)?;
        Ok(())
    })())
}

/// # Safety
/// The texts are NULL or end in a zero byte.
unsafe fn member_config(given: &replcore_member_config) -> Result<MemberConfig, replcore_status> {
    let (peers, links) = sizes(given);
    let is_flag = |value: u32| value <= 1;
    if given.instance == 0
        || peers > PEERS_MAX
        || links < peers
        || links > 4 * PEERS_MAX
        || !is_flag(given.without_election)
        || !is_flag(given.admits_nobody)
    {
        return Err(replcore_status::Value);
    }
    // SAFETY: as the caller promises; so is the next.
    let (name, cluster) = unsafe { (text(given.name)?, text(given.cluster)?) };
    // SAFETY: see above.
    let address = unsafe { text(given.address) }?;
    let to_name = |text: &str| Name::new(text).map_err(|_| replcore_status::Name);
    let config = MemberConfig::new(to_name(name)?, to_name(cluster)?, given.instance, given.seed);
    let mut config = match given.profile {
        REPLCORE_PROFILE_LAN => config,
        REPLCORE_PROFILE_WAN => config.wan(),
        REPLCORE_PROFILE_BATTERY => config.battery(),
        _ => return Err(replcore_status::Value),
    };
    config.membership = membership(given.membership)?;
    if !address.is_empty() {
        config.address = Some(Address::new(address).map_err(|_| replcore_status::Text)?);
    }
    if given.priority != 0 {
        config.priority = u8::try_from(given.priority).map_err(|_| replcore_status::Value)?;
    }
    config.admits = given.admits_nobody == 0;
    set_timing(&mut config, given)?;
    Ok(config)
}

fn set_timing(
    config: &mut MemberConfig,
    given: &replcore_member_config,
) -> Result<(), replcore_status> {
    let set = |place: &mut u32, value: u32| {
        if value != 0 {
            *place = value;
        }
    };
    if let Some(election) = &mut config.election {
        set(&mut election.heartbeat_ms, given.heartbeat_ms);
        set(&mut election.timeout_ms_min, given.timeout_ms_min);
        set(&mut election.timeout_ms_max, given.timeout_ms_max);
        set(&mut election.clock_error_ppm, given.clock_error_ppm);
        election.check().map_err(|_| replcore_status::Value)?;
    }
    set(&mut config.dial.retry_ms_min, given.retry_ms_min);
    set(&mut config.dial.retry_ms_max, given.retry_ms_max);
    set(&mut config.handshake_ms, given.handshake_ms);
    set(&mut config.registry.suspect_ms, given.suspect_ms);
    if config.dial.retry_ms_min > config.dial.retry_ms_max {
        return Err(replcore_status::Value);
    }
    if given.without_election == 1 {
        config.election = None;
    }
    Ok(())
}

const fn membership(number: u32) -> Result<Membership, replcore_status> {
    match number {
        REPLCORE_MEMBERSHIP_VOTER => Ok(Membership::Voter),
        REPLCORE_MEMBERSHIP_LEARNER => Ok(Membership::Learner),
        REPLCORE_MEMBERSHIP_NONE => Ok(Membership::None),
        _ => Err(replcore_status::Value),
    }
}

/// Adds a peer that the program's own configuration names, before the first input; later it is a
/// peer that was made known. `address` may be NULL: then only the peer dials. `metadata` counts until
/// the peer itself has said something; NULL when the configuration says nothing. NAME for the own
/// name or one that is there already, FULL, LENGTH for more than 256 bytes of metadata.
///
/// # Safety
/// `machine` is a machine, the texts end in a zero byte, `metadata` is NULL or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_add_peer(
    machine: *mut replcore_machine,
    name: *const c_char,
    address: *const c_char,
    metadata: *const u8,
    len: usize,
    is_voter: u32,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let member = unsafe { member(machine) }?;
        // SAFETY: as the caller promises.
        let (name, address) = unsafe { (text(name)?, text(address)?) };
        // SAFETY: as the caller promises.
        let metadata = match unsafe { bytes(metadata, len) }? {
            _ if metadata.is_null() => None,
            metadata => Some(metadata),
        };
        let name = Name::new(name).map_err(|_| replcore_status::Name)?;
        let address = match address {
            "" => None,
            address => Some(Address::new(address).map_err(|_| replcore_status::Text)?),
        };
        if is_voter > 1 {
            return Err(replcore_status::Value);
        }
        Ok(member.add_known_peer(name, address, metadata, is_voter == 1)?)
    })())
}

/// Says of this node what all others can read: up to 256 bytes, in place of what it said before.
///
/// # Safety
/// `machine` is a machine, `data` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_set_metadata(
    machine: *mut replcore_machine,
    now_us: u64,
    data: *const u8,
    len: usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, data) = unsafe { (member(machine)?, bytes(data, len)?) };
        Ok(member.set_metadata(Instant::from_micros(now_us), data)?)
    })())
}

/// Leads no more and hands over to another. NOT_LEADING when this node does not lead.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_resign(
    machine: *mut replcore_machine,
    now_us: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let member = unsafe { member(machine) }?;
        Ok(member.resign(Instant::from_micros(now_us))?)
    })())
}

/// Hands over if it leads, closes every link with a good-bye and dials no more.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_stop(
    machine: *mut replcore_machine,
    now_us: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { member(machine) }?.stop(Instant::from_micros(now_us));
        Ok(())
    })())
}

/// Asks to become a voter (`is_voter` 1) or a learner (0). The leader sees to it once it hears of it.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_join(
    machine: *mut replcore_machine,
    now_us: u64,
    is_voter: u32,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let member = unsafe { member(machine) }?;
        if is_voter > 1 {
            return Err(replcore_status::Value);
        }
        Ok(member.join(Instant::from_micros(now_us), is_voter == 1)?)
    })())
}

/// Asks to be no member any more; the event REMOVED tells when. REFUSED for the only voter.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_leave(
    machine: *mut replcore_machine,
    now_us: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let member = unsafe { member(machine) }?;
        Ok(member.leave(Instant::from_micros(now_us))?)
    })())
}

/// As leader: makes the node with this id what `membership` says, one of REPLCORE_MEMBERSHIP_*.
/// NOT_LEADING, BUSY, REFUSED when no such node is connected.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_change(
    machine: *mut replcore_machine,
    now_us: u64,
    node: u64,
    membership: u32,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let member = unsafe { member(machine) }?;
        let membership = self::membership(membership)?;
        Ok(member.change_member(Instant::from_micros(now_us), NodeId(node), membership)?)
    })())
}

/// Says how fresh this node's data is: it gets votes only from those that are not fresher. `term` is
/// that in which the last entry was made, `position` the number of entries.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_set_progress(
    machine: *mut replcore_machine,
    now_us: u64,
    term: u64,
    position: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let member = unsafe { member(machine) }?;
        member.set_progress(Instant::from_micros(now_us), Progress { term, position });
        Ok(())
    })())
}

pub(crate) fn event(event: MemberEvent) -> replcore_output {
    use replcore_member_event as number;
    let of = |event: number, node: NodeId| replcore_output {
        kind: replcore_output_kind::Event as u32,
        event: event as u32,
        node: node.0,
        ..Default::default()
    };
    match event {
        MemberEvent::Election(ElectionEvent::BecameLeader { term }) => {
            replcore_output { position: term, ..of(number::BecameLeader, NodeId::NONE) }
        }
        MemberEvent::Election(ElectionEvent::LostLeadership { term }) => {
            replcore_output { position: term, ..of(number::LostLeadership, NodeId::NONE) }
        }
        MemberEvent::Election(ElectionEvent::LeaderChanged { term, leader }) => replcore_output {
            position: term,
            ..of(number::LeaderChanged, leader.unwrap_or(NodeId::NONE))
        },
        MemberEvent::Election(ElectionEvent::ConfigurationChanged { .. }) => {
            of(number::ConfigurationChanged, NodeId::NONE)
        }
        MemberEvent::Election(ElectionEvent::Removed) => of(number::Removed, NodeId::NONE),
        MemberEvent::Election(ElectionEvent::MembersDiffer { node }) => of(number::Other, node),
        MemberEvent::PeerUp { node } => of(number::PeerUp, node),
        MemberEvent::PeerDown { node } => of(number::PeerDown, node),
        MemberEvent::PeerChanged { node } => of(number::PeerChanged, node),
        MemberEvent::Refused { node, reason } => replcore_output {
            reason: super::leaf::refuse(reason) as u32,
            ..of(number::Refused, node)
        },
        _ => of(number::Other, NodeId::NONE),
    }
}
