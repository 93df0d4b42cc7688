//! The leaf.

use core::ffi::{c_char, c_void};

use replcore_core::contract::StreamIndex;
use replcore_core::leaf::{ConsumerConfig, Leaf, LeafConfig, LeafEvent};
use replcore_core::link::{LinkSettings, LinkStats};
use replcore_core::stream::{Address, Epoch, Life, Name, Position, place_after};
use replcore_core::time::Instant;
use replcore_core::wire::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, RefuseReason, Role};

use super::check::{bytes, bytes_mut, reference_mut, sized, text, write_text};
use super::machine::{Memory, bytes_of_machine, leaf};
use super::status::status;
use super::{replcore_machine, replcore_output, replcore_output_kind, replcore_status};

/// What a leaf tells the program, in `event` of an output of kind EVENT.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_leaf_event {
    /// The node at the other end is `node`.
    Connected = 1,
    /// The hub has granted a lease of `next` milliseconds, for the first time on this link.
    Registered = 2,
    /// The other end refuses, for `reason`, one of REPLCORE_REFUSE_*. The leaf tries again later.
    Refused = 3,
    /// The link has ended. The leaf dials again by itself.
    Disconnected = 4,
    /// Something that this header does not know; may be passed over.
    Other = 5,
}

/// Why a node refuses another.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_refuse {
    /// No version in common.
    Version = 1,
    /// The name is not a name.
    Name = 2,
    /// The certificate does not carry the name.
    Identity = 3,
    /// A live node has this name and is another instance.
    NameInUse = 4,
    /// Two names with one identity.
    Collision = 5,
    /// The table of leaves, links or consumers is full.
    Full = 6,
    /// Too many at once.
    Busy = 7,
    /// The receiver does not take this role.
    Role = 8,
    /// The consumer may not be read, or is being read by another client.
    Consumer = 9,
    /// The other end is of another cluster.
    Cluster = 10,
    /// This node is no member of the other's cluster.
    Stranger = 11,
    /// The other end, a hub, leads in a term that is over: the leaf refuses it. Dial another.
    Term = 12,
    /// The other end, a hub, stands by for another. Dial that one.
    Standby = 13,
}

/// What a leaf is told at its start. All zeros but `struct_size`, `name`, `instance` and `epoch` is
/// a sound configuration: 0 and NULL mean the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_leaf_config {
    /// sizeof(replcore_leaf_config).
    pub struct_size: u32,
    /// The life of the leaf's log; replcore_epoch_first makes the first one, replcore_epoch_next that
    /// of each later start. Not 0.
    pub epoch: u32,
    /// Drawn once, when the leaf's log was made, and kept with it. Not 0.
    pub instance: u64,
    /// For jitter; two leaves should not have the same.
    pub seed: u64,
    /// The leaf's name.
    pub name: *const c_char,
    /// A queue of the hub to read beside the one of the leaf's name.
    pub extra_queue: *const c_char,
    /// Where the leaf can be reached, host:port.
    pub address: *const c_char,
    /// Longest frame to take, in bytes, 512 to 1,048,576; default 65,536.
    pub frame_bytes_max: u32,
    /// Bytes of records that may be under way on one incoming stream; default 1,048,576.
    pub window_bytes: u32,
    /// Something is sent at least this often, in milliseconds; default 10,000.
    pub keepalive_ms: u32,
    /// On a line that loses frames: silence after which something is said again; default 1,000.
    pub retransmit_ms: u32,
    /// The least wait before dialling again, in milliseconds; default 500.
    pub retry_ms_min: u32,
    /// The greatest wait before dialling again, in milliseconds; default 30,000.
    pub retry_ms_max: u32,
    /// The registration is renewed this often, in milliseconds; default 300,000.
    pub register_ms: u32,
    /// The lease to ask for, in milliseconds; default 900,000.
    pub lease_ms: u32,
    /// 0 holds the link open. Otherwise the leaf dials at this interval, in milliseconds, exchanges
    /// what there is and closes.
    pub poll_interval_ms: u32,
    /// One of REPLCORE_ROLE_*; default a leaf.
    pub role: u32,
    /// The own queue that the other end reads; default `hub`.
    pub queue: *const c_char,
    /// The consumer that a client reads as; NULL when it only posts.
    pub consumer: *const c_char,
    /// Only messages of this type, when the consumer is new; NULL for all.
    pub consumer_type: *const c_char,
    /// 1: a new consumer starts with what the node already holds.
    pub consumer_from_start: u32,
    /// 1: does not dial, but waits for its hub to.
    pub waits: u32,
}

/// Registers at a hub, posts to it and receives what the hub's queue of its name holds.
pub const REPLCORE_ROLE_LEAF: u32 = 0;
/// A program at a node: its records get their identity there, and it reads as a consumer.
pub const REPLCORE_ROLE_CLIENT: u32 = 1;
/// What another end of a link may be beside those two: a hub.
pub const REPLCORE_ROLE_HUB: u32 = 2;

/// What a link has counted. Noise is counted here and never becomes an error.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_link_stats {
    /// Frames with a length out of range.
    pub bad_length: u64,
    /// Frames whose checksum did not match.
    pub bad_checksum: u64,
    /// Frames of an unknown type.
    pub bad_type: u64,
    /// Frames whose payload did not decode.
    pub bad_payload: u64,
    /// Frames that made no sense where they came.
    pub violations: u64,
    /// Links given up because the other end fell silent.
    pub silent: u64,
    /// Frames of records that brought nothing new.
    pub repeated: u64,
    /// Times a receiving end went back to the last safe position.
    pub went_back: u64,
    /// Times the store had no room.
    pub full: u64,
    /// Acknowledgements that promised less than is asked for.
    pub below_level: u64,
}

/// The epoch of a fresh log, made from a random number.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_epoch_first(random: u64) -> u32 {
    Epoch::first(random).0
}

/// The epoch after `epoch`, made from a random number. A log takes it at each start, and makes that
/// durable before it posts anything or makes a machine, so that no number is given twice even by a
/// log that was set back to an older copy.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_epoch_next(epoch: u32, random: u64) -> u32 {
    Epoch(epoch).next(random).0
}

/// How a queue stood when a life of its log ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_life {
    /// The number of entries that the queue had ever held.
    pub end: u64,
    /// The life.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where a reader goes on that was `position` far in the life `epoch`: at most at the end of that
/// life, if it is among the `count` at `lives`, and else at most at `released`. A log may forget
/// lives that ended with everything released.
///
/// # Safety
/// `lives` has `count` lives, `place` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_place_after(
    lives: *const replcore_life,
    count: usize,
    epoch: u32,
    position: u64,
    released: u64,
    place: *mut u64,
) -> replcore_status {
    status((|| {
        let length = count.checked_mul(size_of::<replcore_life>());
        // SAFETY: as the caller promises.
        let lives = unsafe { bytes(lives.cast(), length.ok_or(replcore_status::Length)?) }?;
        // SAFETY: as the caller promises.
        let place = unsafe { reference_mut(place) }?;
        // Read by bytes: the pointer of a C program need not be aligned.
        let known = lives.chunks_exact(size_of::<replcore_life>()).find_map(|life| {
            let (end, rest) = life.split_first_chunk()?;
            let known = Epoch(u32::from_ne_bytes(*rest.first_chunk()?));
            let end = Position(u64::from_ne_bytes(*end));
            (known.0 == epoch).then_some(Life { epoch: known, end })
        });
        let (epoch, position) = (Epoch(epoch), Position(position));
        *place = place_after(known.as_slice(), epoch, position, Position(released)).0;
        Ok(())
    })())
}

/// Bytes that a leaf needs, wherever they begin.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_leaf_memory() -> usize {
    bytes_of_machine::<Leaf>()
}

/// Makes a leaf in `memory`; `*machine` gets it. Its links are numbered 0, and it has one: tell it
/// that the link is down before it is up again. It dials place 0.
///
/// # Safety
/// `memory` has `len` bytes that nothing else uses while the leaf is used; `config` and the texts
/// in it are readable; `machine` is writable and not inside `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_init(
    memory: *mut c_void,
    len: usize,
    config: *const replcore_leaf_config,
    machine: *mut *mut replcore_machine,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let given: replcore_leaf_config = unsafe { sized(config) }?;
        // SAFETY: as the caller promises.
        let machine = unsafe { reference_mut(machine) }?;
        // SAFETY: the texts are as the caller promises.
        let leaf = Leaf::new(unsafe { leaf_config(&given) }?);
        *machine = Memory::new(memory, len)?.leaf(leaf)?;
        Ok(())
    })())
}

/// # Safety
/// The texts are NULL or end in a zero byte.
unsafe fn leaf_config(given: &replcore_leaf_config) -> Result<LeafConfig, replcore_status> {
    let is_flag = |value: u32| value <= 1;
    if given.instance == 0
        || given.epoch == 0
        || !is_flag(given.consumer_from_start)
        || !is_flag(given.waits)
    {
        return Err(replcore_status::Value);
    }
    let name = |text: &str| Name::new(text).map_err(|_| replcore_status::Name);
    // SAFETY: as the caller promises; so are the two that follow.
    let (own, extra) = unsafe { (text(given.name)?, text(given.extra_queue)?) };
    // SAFETY: see above.
    let address = unsafe { text(given.address) }?;
    let mut link = LinkSettings::new(name(own)?, given.instance, Epoch(given.epoch));
    let bytes = (given.frame_bytes_max, given.window_bytes);
    set_link(&mut link, bytes, (given.keepalive_ms, given.retransmit_ms))?;
    let mut config = LeafConfig::new(link, given.seed);
    if !extra.is_empty() {
        config.extra_queue = Some(name(extra)?);
    }
    config.role = match given.role {
        REPLCORE_ROLE_LEAF => Role::Leaf,
        REPLCORE_ROLE_CLIENT => Role::Client,
        _ => return Err(replcore_status::Value),
    };
    // SAFETY: as the caller promises.
    let queue = unsafe { text(given.queue) }?;
    if !queue.is_empty() {
        config.queue = Some(name(queue)?);
    }
    // SAFETY: as the caller promises.
    config.consumer = unsafe { consumer(given) }?;
    if config.consumer.is_some() && config.role != Role::Client {
        return Err(replcore_status::Value);
    }
    config.dials = given.waits == 0;
    if !address.is_empty() {
        config.address = Some(Address::new(address).map_err(|_| replcore_status::Text)?);
    }
    config.dial.retry_ms_min = or(given.retry_ms_min, config.dial.retry_ms_min);
    config.dial.retry_ms_max = or(given.retry_ms_max, config.dial.retry_ms_max);
    config.dial.poll_interval_ms = given.poll_interval_ms;
    config.lease.register_ms = or(given.register_ms, config.lease.register_ms);
    config.lease.lease_ms = or(given.lease_ms, config.lease.lease_ms);
    Ok(config)
}

/// A number of a configuration, of which 0 means the default.
pub(crate) const fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

/// What the links of a leaf and of a node are told alike: longest frame and window, then keep-alive and
/// retransmission.
pub(crate) fn set_link(
    link: &mut LinkSettings,
    (frame_bytes_max, window_bytes): (u32, u32),
    (keepalive_ms, retransmit_ms): (u32, u32),
) -> Result<(), replcore_status> {
    link.frame_bytes_max = or(frame_bytes_max, link.frame_bytes_max);
    if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&link.frame_bytes_max) {
        return Err(replcore_status::Value);
    }
    link.window_bytes = or(window_bytes, link.window_bytes);
    link.keepalive_ms = or(keepalive_ms, link.keepalive_ms);
    link.retransmit_ms = or(retransmit_ms, link.retransmit_ms);
    Ok(())
}

/// # Safety
/// The texts are NULL or end in a zero byte.
unsafe fn consumer(
    given: &replcore_leaf_config,
) -> Result<Option<ConsumerConfig>, replcore_status> {
    // SAFETY: as the caller promises.
    let (name, message_type) = unsafe { (text(given.consumer)?, text(given.consumer_type)?) };
    if name.is_empty() {
        return Ok(None);
    }
    let message_type = match message_type {
        "" => None,
        text => Some(Address::new(text).map_err(|_| replcore_status::Text)?),
    };
    Ok(Some(ConsumerConfig {
        name: Name::new(name).map_err(|_| replcore_status::Name)?,
        message_type,
        from_start: given.consumer_from_start == 1,
    }))
}

/// Has the leaf close its link with a good-bye and dial no more.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_stop(
    machine: *mut replcore_machine,
    now_us: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { leaf(machine) }?.stop(Instant::from_micros(now_us));
        Ok(())
    })())
}

/// Refuses an entry that came on an incoming stream of a consumer; it still has to be reported as
/// taken. REFUSED when there is no such stream, or an earlier refusal is not out yet.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_reject(
    machine: *mut replcore_machine,
    now_us: u64,
    stream: u32,
    position: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let leaf = unsafe { leaf(machine) }?;
        let stream = StreamIndex(u8::try_from(stream).map_err(|_| replcore_status::Value)?);
        let rejected = leaf.reject(Instant::from_micros(now_us), stream, Position(position));
        rejected.map_err(|_| replcore_status::Refused)
    })())
}

/// Whether the leaf is registered at its hub: 1, or 0; 0 for what is not a leaf.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_connected(machine: *mut replcore_machine) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { leaf(machine) }.is_ok_and(|leaf| leaf.is_connected()).into()
}

/// Whether everything that the program has reported of the own queue is acknowledged: 1, or 0; 0
/// for what is not a leaf, or is not connected.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_drained(machine: *mut replcore_machine) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { leaf(machine) }.is_ok_and(|leaf| leaf.is_drained()).into()
}

/// Round trip of the last ping, in microseconds; 0 when not known, and for what is not a leaf.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_round_trip_us(machine: *mut replcore_machine) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { leaf(machine) }.map_or(0, |leaf| leaf.round_trip_us())
}

/// Writes the name of the node at the other end to `out`, with a zero byte behind it; 64 bytes are
/// always enough. An empty text while it is not known.
///
/// # Safety
/// `machine` is a machine, `out` has `cap` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_peer(
    machine: *mut replcore_machine,
    out: *mut c_char,
    cap: usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (leaf, out) = unsafe { (leaf(machine)?, bytes_mut(out.cast(), cap)?) };
        write_text(out, leaf.peer().as_ref().map_or("", Name::as_str))
    })())
}

/// What the leaf's links have counted since the start.
///
/// # Safety
/// `machine` is a machine, `stats` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_leaf_stats(
    machine: *mut replcore_machine,
    stats: *mut replcore_link_stats,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (leaf, stats) = unsafe { (leaf(machine)?, reference_mut(stats)?) };
        *stats = link_stats(&leaf.stats());
        Ok(())
    })())
}

pub(crate) const fn link_stats(counted: &LinkStats) -> replcore_link_stats {
    replcore_link_stats {
        bad_length: counted.bad_length,
        bad_checksum: counted.bad_checksum,
        bad_type: counted.bad_type,
        bad_payload: counted.bad_payload,
        violations: counted.violations,
        silent: counted.silent,
        repeated: counted.repeated,
        went_back: counted.went_back,
        full: counted.full,
        below_level: counted.below_level,
    }
}

pub(crate) fn event(event: LeafEvent) -> replcore_output {
    use replcore_leaf_event as number;
    let of = |event: number| replcore_output {
        kind: replcore_output_kind::Event as u32,
        event: event as u32,
        ..Default::default()
    };
    match event {
        LeafEvent::Connected { node } => replcore_output { node: node.0, ..of(number::Connected) },
        LeafEvent::Registered { lease_ms } => {
            replcore_output { next: lease_ms.into(), ..of(number::Registered) }
        }
        LeafEvent::Refused { reason } => {
            replcore_output { reason: refuse(reason) as u32, ..of(number::Refused) }
        }
        LeafEvent::Disconnected => of(number::Disconnected),
        _ => of(number::Other),
    }
}

pub(crate) const fn refuse(reason: RefuseReason) -> replcore_refuse {
    match reason {
        RefuseReason::Version => replcore_refuse::Version,
        RefuseReason::Name => replcore_refuse::Name,
        RefuseReason::Identity => replcore_refuse::Identity,
        RefuseReason::NameInUse => replcore_refuse::NameInUse,
        RefuseReason::Collision => replcore_refuse::Collision,
        RefuseReason::Full => replcore_refuse::Full,
        RefuseReason::Busy => replcore_refuse::Busy,
        RefuseReason::Role => replcore_refuse::Role,
        RefuseReason::Consumer => replcore_refuse::Consumer,
        RefuseReason::Cluster => replcore_refuse::Cluster,
        RefuseReason::Stranger => replcore_refuse::Stranger,
        RefuseReason::Term => replcore_refuse::Term,
        RefuseReason::Standby => replcore_refuse::Standby,
    }
}
