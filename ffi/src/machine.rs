//! What all machines have in common: where they live, and how they are told apart.

use core::ffi::c_void;

use replcore_core::leaf::Leaf;
#[cfg(feature = "member")]
use replcore_core::member::Member;
#[cfg(feature = "node")]
use replcore_core::node::Node;

use super::check::reference;
use super::replcore_status;

/// "Never", as a time.
pub const REPLCORE_NEVER: u64 = u64::MAX;
/// "Nobody dialled", in replcore_handle_link_up.
pub const REPLCORE_NOT_DIALED: u32 = u32::MAX;
/// A link that keeps order and loses nothing until it breaks, such as TCP.
pub const REPLCORE_TRANSPORT_STREAM: u32 = 1;
/// A link that may lose, repeat or reorder frames, such as a serial line under COBS.
pub const REPLCORE_TRANSPORT_DATAGRAM: u32 = 2;
/// Why something could not be kept: no space now.
pub const REPLCORE_FAILURE_FULL: u32 = 1;
/// Why something could not be kept: the bytes are not what they should be.
pub const REPLCORE_FAILURE_CORRUPT: u32 = 2;
/// Why something could not be kept: the medium does not work.
pub const REPLCORE_FAILURE_IO: u32 = 3;
/// Why entries will not come: their time to live had ended.
pub const REPLCORE_SKIP_EXPIRED: u32 = 1;
/// Why entries will not come: the queue was at its limit and drops the oldest.
pub const REPLCORE_SKIP_DROPPED: u32 = 2;
/// Why entries will not come: an operator purged them.
pub const REPLCORE_SKIP_PURGED: u32 = 3;
/// Why entries will not come: the medium lost them.
pub const REPLCORE_SKIP_LOST: u32 = 4;
/// Why entries will not come: acknowledged before, and no longer held.
pub const REPLCORE_SKIP_FORGOTTEN: u32 = 5;
/// Bytes that a name or address takes with the zero behind it.
pub const REPLCORE_NAME_BYTES: usize = 64;
/// The key of a persisted record: the registration at the node in `node`.
pub const REPLCORE_KEY_REGISTRATION: u32 = 1;

/// The key of a persisted record: the term and the vote of a member.
pub const REPLCORE_KEY_BALLOT: u32 = 2;
/// The key of a persisted record: the configuration of a member's cluster.
pub const REPLCORE_KEY_MEMBERS: u32 = 3;
/// The key of a persisted record: the latest term in which the hub in `node` has taken this node in.
pub const REPLCORE_KEY_TERM: u32 = 4;

/// A machine, in memory of the program. May be used from one thread at a time; different machines
/// are independent, and the library has no global state. It must stay where it was made: a copy is
/// not a machine. Nothing is to be freed: when it is done with, the memory may be used for
/// something else.
pub struct replcore_machine {
    magic: u64,
    /// Where it was made.
    place: usize,
}

const LEAF: u64 = u64::from_le_bytes(*b"replleaf");
#[cfg(feature = "member")]
const MEMBER: u64 = u64::from_le_bytes(*b"replmemb");
#[cfg(feature = "node")]
const NODE: u64 = u64::from_le_bytes(*b"replnode");

/// A machine behind the head that tells its kind.
#[repr(C)]
pub(crate) struct Of<M> {
    head: replcore_machine,
    machine: M,
}

/// A machine that a program has given.
pub(crate) enum Kind<'a> {
    Leaf(&'a mut Leaf),
    #[cfg(feature = "member")]
    Member(&'a mut Member<'static>),
    #[cfg(feature = "node")]
    Node(&'a mut Node<'static>),
}

/// The machine behind a pointer of the program.
///
/// # Safety
/// A `machine` that is not null is what an init function gave, or at least 16 readable bytes, and
/// nobody else uses it meanwhile.
pub(crate) unsafe fn machine<'a>(
    machine: *mut replcore_machine,
) -> Result<Kind<'a>, replcore_status> {
    // SAFETY: as the caller promises.
    let magic = unsafe { magic_of(machine) }?;
    // SAFETY: the head is one that only `place` writes, in front of a machine of that kind and at this
    // very place.
    unsafe {
        match magic {
            LEAF => Ok(Kind::Leaf(behind(machine))),
            #[cfg(feature = "member")]
            MEMBER => Ok(Kind::Member(behind(machine))),
            #[cfg(feature = "node")]
            NODE => Ok(Kind::Node(behind(machine))),
            _ => Err(replcore_status::Kind),
        }
    }
}

/// What the head in front of a machine, or of a part with memory of its own, says it is.
///
/// # Safety
/// As for [`machine`].
unsafe fn magic_of(machine: *mut replcore_machine) -> Result<u64, replcore_status> {
    if !machine.is_null() && !machine.is_aligned() {
        return Err(replcore_status::Kind);
    }
    // SAFETY: as the caller promises; the head is all that is read before it is known to be one.
    let head = unsafe { reference(machine) }?;
    if head.place == machine.addr() { Ok(head.magic) } else { Err(replcore_status::Kind) }
}

/// # Safety
/// There is an `M` with its head, and nobody else uses it.
unsafe fn behind<'a, M>(machine: *mut replcore_machine) -> &'a mut M {
    // SAFETY: as the caller promises.
    unsafe { &mut (*machine.cast::<Of<M>>()).machine }
}

/// The part of this kind behind a pointer of the program.
///
/// # Safety
/// As for [`machine`], and only `M` is placed with this `magic`.
pub(crate) unsafe fn part<'a, M>(
    pointer: *mut c_void,
    magic: u64,
) -> Result<&'a mut M, replcore_status> {
    let pointer = pointer.cast();
    // SAFETY: as the caller promises.
    if unsafe { magic_of(pointer) }? != magic {
        return Err(replcore_status::Kind);
    }
    // SAFETY: only `place` writes this head, in front of an `M` and at this very place.
    Ok(unsafe { behind(pointer) })
}

/// The leaf behind a pointer of the program.
///
/// # Safety
/// As for [`machine`].
pub(crate) unsafe fn leaf<'a>(
    pointer: *mut replcore_machine,
) -> Result<&'a mut Leaf, replcore_status> {
    // SAFETY: as the caller promises.
    unsafe { part(pointer.cast(), LEAF) }
}

/// The member behind a pointer of the program.
///
/// # Safety
/// As for [`machine`].
#[cfg(feature = "member")]
pub(crate) unsafe fn member<'a>(
    pointer: *mut replcore_machine,
) -> Result<&'a mut Member<'static>, replcore_status> {
    // SAFETY: as the caller promises.
    unsafe { part(pointer.cast(), MEMBER) }
}

/// The node behind a pointer of the program.
///
/// # Safety
/// As for [`machine`].
#[cfg(feature = "node")]
pub(crate) unsafe fn node<'a>(
    pointer: *mut replcore_machine,
) -> Result<&'a mut Node<'static>, replcore_status> {
    // SAFETY: as the caller promises.
    unsafe { part(pointer.cast(), NODE) }
}

/// The caller's memory, given out from its start. Holds nothing that has to be dropped.
pub(crate) struct Memory {
    rest: *mut u8,
    len: usize,
}

impl Memory {
    pub(crate) const fn new(memory: *mut c_void, len: usize) -> Result<Self, replcore_status> {
        if memory.is_null() {
            return Err(replcore_status::Null);
        }
        Ok(Self { rest: memory.cast(), len })
    }

    /// What a value takes of the memory at most, wherever it begins.
    /// More than there is for a count that no memory holds.
    pub(crate) const fn bytes_of<T>(count: usize) -> usize {
        count.saturating_mul(size_of::<T>()).saturating_add(align_of::<T>() - 1)
    }

    /// Room for `count` values, aligned.
    fn take<T>(&mut self, count: usize) -> Result<*mut T, replcore_status> {
        let skipped = self.rest.align_offset(align_of::<T>());
        let bytes = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(skipped));
        let bytes = bytes.filter(|&bytes| bytes <= self.len).ok_or(replcore_status::Short)?;
        let place = self.rest.wrapping_add(skipped).cast();
        self.rest = self.rest.wrapping_add(bytes);
        self.len -= bytes;
        Ok(place)
    }

    /// A slice of `count` copies of `value`.
    ///
    /// # Safety
    /// The memory is the caller's alone, for as long as the slice is used.
    pub(crate) unsafe fn slice<T: Clone>(
        &mut self,
        count: usize,
        value: T,
    ) -> Result<&'static mut [T], replcore_status> {
        let place = self.take::<T>(count)?;
        for at in 0..count {
            // SAFETY: inside the memory, aligned, and there is nothing there to drop.
            unsafe { place.add(at).write(value.clone()) };
        }
        // SAFETY: written just now, ours alone by the caller's word, and given out once.
        Ok(unsafe { core::slice::from_raw_parts_mut(place, count) })
    }

    /// The last thing in the memory: what the program gets a pointer to.
    pub(crate) fn place<M>(
        mut self,
        magic: u64,
        machine: M,
    ) -> Result<*mut replcore_machine, replcore_status> {
        let place = self.take::<Of<M>>(1)?;
        let head = replcore_machine { magic, place: place.addr() };
        // SAFETY: inside the memory, aligned, and there is nothing there to drop.
        unsafe { place.write(Of { head, machine }) };
        Ok(place.cast())
    }

    pub(crate) fn leaf(self, leaf: Leaf) -> Result<*mut replcore_machine, replcore_status> {
        self.place(LEAF, leaf)
    }

    #[cfg(feature = "member")]
    pub(crate) fn member(
        self,
        member: Member<'static>,
    ) -> Result<*mut replcore_machine, replcore_status> {
        self.place(MEMBER, member)
    }

    #[cfg(feature = "node")]
    pub(crate) fn node(
        self,
        node: Node<'static>,
    ) -> Result<*mut replcore_machine, replcore_status> {
        self.place(NODE, node)
    }
}

/// Bytes that a machine needs, wherever they begin.
pub(crate) const fn bytes_of_machine<M>() -> usize {
    Memory::bytes_of::<Of<M>>(1)
}

#[cfg(test)]
mod tests {
    use core::ptr::null_mut;

    use replcore_core::wire;

    use super::super::*;
    use super::*;

    fn config() -> replcore_leaf_config {
        // SAFETY: zeros are a value of a structure of integers and pointers.
        let mut config: replcore_leaf_config = unsafe { core::mem::zeroed() };
        config.struct_size = size_of::<replcore_leaf_config>() as u32;
        config.name = c"mcu".as_ptr();
        (config.instance, config.epoch) = (7, 1 << 16);
        config
    }

    fn init(
        memory: &mut [u8],
        config: &replcore_leaf_config,
    ) -> (replcore_status, *mut replcore_machine) {
        let mut leaf = null_mut();
        // SAFETY: the pointers are of live values and the length is that of the memory.
        let done = unsafe {
            replcore_leaf_init(memory.as_mut_ptr().cast(), memory.len(), config, &mut leaf)
        };
        (done, leaf)
    }

    #[test]
    fn a_leaf_works_wherever_its_memory_begins_and_says_when_it_is_too_small() {
        for offset in 0..9 {
            let mut memory = vec![0xaa; replcore_leaf_memory() + offset];
            let (done, leaf) = init(&mut memory[offset..], &config());
            assert_eq!(done, replcore_status::Ok);
            let (mut output, mut buf) = (replcore_output::default(), [0; 512]);
            // SAFETY: the machine was made above, the others are live values.
            unsafe {
                assert_eq!(replcore_handle_timeout(leaf, 1), replcore_status::Ok);
                let done = replcore_poll(leaf, buf.as_mut_ptr(), buf.len(), &mut output);
                assert_eq!(done, replcore_status::Ok);
            }
            assert_eq!(output.kind, replcore_output_kind::Dial as u32);
        }
        let mut memory = vec![0; size_of::<Of<Leaf>>() - 1];
        assert_eq!(init(&mut memory, &config()).0, replcore_status::Short);
    }

    #[test]
    fn configurations_are_checked() {
        let mut memory = vec![0; replcore_leaf_memory()];
        let mut refused = |change: fn(&mut replcore_leaf_config)| {
            let mut changed = config();
            change(&mut changed);
            init(&mut memory, &changed).0
        };
        assert_eq!(refused(|config| config.name = core::ptr::null()), replcore_status::Name);
        assert_eq!(refused(|config| config.name = c"a b".as_ptr()), replcore_status::Name);
        assert_eq!(refused(|config| config.instance = 0), replcore_status::Value);
        assert_eq!(refused(|config| config.frame_bytes_max = 100), replcore_status::Value);
        assert_eq!(refused(|config| config.struct_size = 2), replcore_status::StructSize);
        // A header that knew fewer fields: the others are defaults.
        assert_eq!(refused(|config| config.struct_size -= 8), replcore_status::Ok);
    }

    #[test]
    fn null_foreign_and_senseless_arguments_are_answered_and_change_nothing() {
        let mut memory = vec![0; replcore_leaf_memory()];
        let (_, leaf) = init(&mut memory, &config());
        let mut foreign = vec![0u64; 1024];
        let mut taken = 77;
        // SAFETY: pointers are null, of live values, or of enough memory that is no machine.
        unsafe {
            assert_eq!(replcore_handle_timeout(null_mut(), 0), replcore_status::Null);
            let foreign = foreign.as_mut_ptr().cast();
            assert_eq!(replcore_handle_timeout(foreign, 0), replcore_status::Kind);
            let skewed = leaf.cast::<u8>().add(1).cast();
            assert_eq!(replcore_handle_timeout(skewed, 0), replcore_status::Kind);
            let recv = replcore_handle_recv(leaf, 0, 0, core::ptr::null(), 5, &mut taken);
            assert_eq!((recv, taken), (replcore_status::Null, 77));
            let recv = replcore_handle_recv(leaf, 0, 0, core::ptr::null(), 0, null_mut());
            assert_eq!(recv, replcore_status::Null);
            assert_eq!(replcore_handle_link_up(leaf, 0, 0, 0, 9, 0), replcore_status::Value);
            assert_eq!(replcore_handle_refused(leaf, 0, 0, 0, 9), replcore_status::Value);
            assert_eq!(replcore_handle_taken(leaf, 0, 0, 256, 0, 0, 0), replcore_status::Value);
            assert_eq!(replcore_poll(leaf, null_mut(), 512, null_mut()), replcore_status::Null);
        }
    }

    fn member_config() -> replcore_member_config {
        // SAFETY: zeros are a value of a structure of integers and pointers.
        let mut config: replcore_member_config = unsafe { core::mem::zeroed() };
        config.struct_size = size_of::<replcore_member_config>() as u32;
        (config.name, config.cluster, config.instance) = (c"a".as_ptr(), c"c".as_ptr(), 7);
        config
    }

    fn make_member(memory: &mut [u8]) -> (replcore_status, *mut replcore_machine) {
        let mut made = null_mut();
        // SAFETY: the pointers are of live values and the length is that of the memory.
        let done = unsafe {
            let memory = (memory.as_mut_ptr().cast(), memory.len());
            replcore_member_init(memory.0, memory.1, &member_config(), &mut made)
        };
        (done, made)
    }

    #[test]
    fn a_member_alone_stores_its_ballot_and_leads_wherever_its_memory_begins() {
        // SAFETY: the configuration is a live value.
        let size = unsafe { replcore_member_memory(&member_config()) };
        for offset in 0..9 {
            let mut memory = vec![0xaa; size + offset];
            let (done, member) = make_member(&mut memory[offset..]);
            assert_eq!(done, replcore_status::Ok);
            let (mut output, mut buf, mut now) = (replcore_output::default(), [0; 512], 1);
            // SAFETY: the machine was made above, the others are live values.
            unsafe {
                while replcore_member_leader_until(member) == 0 {
                    assert!(now < 10_000_000, "leads in time");
                    replcore_handle_timeout(member, now);
                    loop {
                        replcore_poll(member, buf.as_mut_ptr(), buf.len(), &mut output);
                        if output.kind == replcore_output_kind::Idle as u32 {
                            break;
                        }
                        if output.kind == replcore_output_kind::Persist as u32 {
                            assert!(output.key >= REPLCORE_KEY_BALLOT);
                            replcore_handle_persisted(member, now, output.token);
                        }
                    }
                    now = output.next;
                }
                assert_eq!(replcore_member_role(member), replcore_role::Leader);
                let (mut leader, mut own) = (replcore_leader::default(), core::mem::zeroed());
                assert_eq!(replcore_member_leader(member, &mut leader), replcore_status::Ok);
                let done = replcore_member_peer(member, leader.node, &mut own);
                assert_eq!((done, own.name[0] as u8, own.name[1]), (replcore_status::Ok, b'a', 0));
                let none = replcore_member_peer_at(member, 0, &mut own);
                assert_eq!(none, replcore_status::End);
                assert_eq!(replcore_member_settled(member), 1);
                assert_eq!(replcore_member_settled(null_mut()), 0);
                link_of_a_program(member, now.min(20_000_000));
            }
        }
        for short in [0, 1, size / 2, size - 32] {
            assert_eq!(make_member(&mut vec![0; short]).0, replcore_status::Short);
        }
    }

    /// A program greets a member, which then knows its name.
    ///
    /// # Safety
    /// `member` is a member that has no link.
    unsafe fn link_of_a_program(member: *mut replcore_machine, now: u64) {
        let hello = wire::Hello {
            magic: *b"RPLC",
            version_min: 1,
            version_max: 1,
            role: wire::Role::Client,
            features: 0,
            name: "tool".into(),
            instance: 3,
            epoch: 0,
            frame_bytes_max: 65_536,
            keepalive_ms: 1_000,
            session: 1,
        };
        let mut frame = [0; wire::CONTROL_FRAME_BYTES_MAX];
        let len = wire::encode_control(0, &wire::Control::Hello(hello), &mut frame).unwrap();
        let (mut name, mut taken, mut is_member) = ([0; REPLCORE_NAME_BYTES], 0, 7);
        // SAFETY: as the caller promises; the others are live values.
        unsafe {
            let stream = REPLCORE_TRANSPORT_STREAM;
            let up = replcore_handle_link_up(member, now, 0, REPLCORE_NOT_DIALED, stream, 0);
            assert_eq!(up, replcore_status::Ok);
            let mut peer =
                |cap| replcore_member_link_peer(member, 0, name.as_mut_ptr(), cap, &mut is_member);
            assert_eq!(peer(64), replcore_status::End, "it has not greeted");
            let heard = replcore_handle_recv(member, now, 0, frame.as_ptr(), len, &mut taken);
            assert_eq!((heard, taken), (replcore_status::Ok, len));
            assert_eq!(peer(4), replcore_status::Short);
            assert_eq!(peer(5), replcore_status::Ok);
        }
        assert!(name.iter().zip(b"tool\0").all(|(given, wanted)| *given as u8 == *wanted));
        assert_eq!(is_member, 0);
    }

    #[test]
    fn a_machine_of_another_kind_and_one_that_was_moved_are_refused() {
        let mut of_leaf = vec![0u8; replcore_leaf_memory()];
        let (_, leaf) = init(&mut of_leaf, &config());
        // SAFETY: the configuration is a live value.
        let mut of_member = vec![0u8; unsafe { replcore_member_memory(&member_config()) }];
        let (_, member) = make_member(&mut of_member);
        // SAFETY: both machines were made above, and the copy has as many bytes as a leaf.
        unsafe {
            assert_eq!(replcore_leaf_stop(member, 0), replcore_status::Kind);
            assert_eq!(replcore_member_stop(leaf, 0), replcore_status::Kind);
            assert_eq!(replcore_member_leader_until(leaf), 0);
            let mut copy = vec![0u64; size_of::<Of<Leaf>>() / 8];
            leaf.cast::<u64>().copy_to(copy.as_mut_ptr(), copy.len());
            let copy = copy.as_mut_ptr().cast();
            assert_eq!(replcore_handle_timeout(copy, 0), replcore_status::Kind);
            // Memory that is used for something else is no machine any more.
            of_leaf.fill(0xff);
            assert_eq!(replcore_handle_timeout(leaf, 0), replcore_status::Kind);
        }
    }

    #[test]
    fn configurations_of_members_are_checked() {
        let size_of_changed = |change: fn(&mut replcore_member_config)| {
            let mut changed = member_config();
            change(&mut changed);
            // SAFETY: the configuration is a live value.
            unsafe { replcore_member_memory(&changed) }
        };
        assert!(size_of_changed(|_| ()) > 0);
        let wrong: [fn(&mut replcore_member_config); 10] = [
            |config| config.cluster = core::ptr::null(),
            |config| config.instance = 0,
            |config| config.peers_max = 32,
            |config| (config.peers_max, config.links_max) = (8, 7),
            |config| config.links_max = u32::MAX,
            |config| config.profile = 3,
            |config| config.membership = 3,
            |config| config.priority = 256,
            |config| config.timeout_ms_min = 60,
            |config| config.without_election = 2,
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            assert_eq!(size_of_changed(change), 0, "change {number}");
        }
    }
}
