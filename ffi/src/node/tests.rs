//! A node and a leaf, connected by memory.

use core::ptr::{null, null_mut};

use super::super::*;
use super::*;

fn config() -> replcore_node_config {
    // SAFETY: zeros are a value of a structure of integers and pointers.
    let mut config: replcore_node_config = unsafe { core::mem::zeroed() };
    config.struct_size = size_of::<replcore_node_config>() as u32;
    config.name = c"hub".as_ptr();
    (config.instance, config.epoch) = (9, 1 << 16);
    config
}

/// A machine, its memory, and what it has said.
struct Party {
    machine: *mut replcore_machine,
    _memory: Vec<u8>,
    outputs: Vec<replcore_output>,
    /// The record of the last order to persist.
    record: Vec<u8>,
}

impl Party {
    fn new(
        size: usize,
        init: impl FnOnce(*mut c_void, usize, *mut *mut replcore_machine) -> replcore_status,
    ) -> Self {
        let (mut memory, mut machine) = (vec![0xaa; size], null_mut());
        let done = init(memory.as_mut_ptr().cast(), memory.len(), &mut machine);
        assert_eq!(done, replcore_status::Ok);
        Self { machine, _memory: memory, outputs: Vec::new(), record: Vec::new() }
    }

    fn hub(config: &replcore_node_config) -> Self {
        // SAFETY: the pointers are of live values and the length is that of the memory.
        unsafe {
            Self::new(replcore_node_memory(config), |memory, len, made| {
                replcore_node_init(memory, len, config, made)
            })
        }
    }

    fn leaf() -> Self {
        // SAFETY: zeros are a value of a structure of integers and pointers.
        let mut config: replcore_leaf_config = unsafe { core::mem::zeroed() };
        config.struct_size = size_of::<replcore_leaf_config>() as u32;
        config.name = c"till-7".as_ptr();
        config.address = c"[::1]:8181".as_ptr();
        (config.instance, config.epoch, config.lease_ms) = (7, 1 << 16, 60_000);
        // SAFETY: as above.
        Self::new(replcore_leaf_memory(), |memory, len, made| unsafe {
            replcore_leaf_init(memory, len, &config, made)
        })
    }

    fn link_up(&self, link: u32, dialed: u32) {
        // SAFETY: the machine was made by the test.
        unsafe {
            let up = replcore_handle_link_up(self.machine, 1, link, dialed, 1, 0);
            assert_eq!(up, replcore_status::Ok);
            replcore_handle_writable(self.machine, 1, link, 1 << 20);
        }
    }

    /// Drains it; what it sends goes to the other's link. True when there was something to do.
    fn drain_to(&mut self, other: &Self, link: u32) -> bool {
        let (mut buf, mut worked) = ([0u8; REPLCORE_POLL_BYTES_MAX], false);
        loop {
            let mut output = replcore_output::default();
            // SAFETY: the machines were made by the test, the others are live values.
            unsafe {
                replcore_poll(self.machine, buf.as_mut_ptr(), buf.len(), &mut output);
                if output.kind == replcore_output_kind::Idle as u32 {
                    return worked;
                }
                let (data, len, mut taken) = (buf.as_ptr(), output.len as usize, 0);
                if output.kind == replcore_output_kind::Send as u32 {
                    replcore_handle_recv(other.machine, 1, link, data, len, &mut taken);
                    assert_eq!(taken, len);
                } else if output.kind == replcore_output_kind::Persist as u32 {
                    self.record = buf[..len].to_vec();
                    replcore_handle_persisted(self.machine, 1, output.token);
                } else if output.kind == replcore_output_kind::AskOutbound as u32 {
                    let token = output.token;
                    replcore_handle_answer_outbound(self.machine, 1, token, 1 << 16, 0, 0, 0);
                } else if output.kind == replcore_output_kind::AskInbound as u32 {
                    let (token, epoch) = (output.token, output.epoch);
                    replcore_handle_answer_inbound(self.machine, 1, token, epoch, 0, 0);
                }
            }
            (worked, _) = (true, self.outputs.push(output));
        }
    }

    fn told(&self, number: u32) -> Option<&replcore_output> {
        let is = |output: &&replcore_output| {
            output.kind == replcore_output_kind::Event as u32 && output.event == number
        };
        self.outputs.iter().find(is)
    }
}

fn settle(hub: &mut Party, leaf: &mut Party) {
    while hub.drain_to(leaf, 0) | leaf.drain_to(hub, 3) {}
}

fn lease_of(hub: &Party) -> Result<replcore_lease, replcore_status> {
    // SAFETY: zeros are a value of the structure; the machine was made by the test.
    unsafe {
        let (mut lease, mut again, mut place) =
            (core::mem::zeroed::<replcore_lease>(), core::mem::zeroed(), 0);
        let done = replcore_node_lease_next(hub.machine, &mut place, &mut lease);
        if done != replcore_status::Ok {
            return Err(done);
        }
        let end = replcore_node_lease_next(hub.machine, &mut place, &mut again);
        assert_eq!(end, replcore_status::End);
        let found = replcore_node_lease(hub.machine, lease.node, &mut again);
        assert_eq!((found, again.name), (replcore_status::Ok, lease.name));
        Ok(lease)
    }
}

fn text_of(characters: &[c_char]) -> String {
    let bytes = characters.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0);
    String::from_utf8(bytes.collect()).unwrap()
}

/// HS-03, HS-05, HS-09.
#[test]
fn a_leaf_registers_at_a_hub_is_let_go_at_the_end_of_its_lease_and_known_after_a_restart() {
    let (mut hub, mut leaf) = (Party::hub(&config()), Party::leaf());
    hub.link_up(3, REPLCORE_NOT_DIALED);
    leaf.link_up(0, 0);
    settle(&mut hub, &mut leaf);
    let up = hub.told(replcore_node_event::LeafUp as u32).unwrap();
    assert_eq!((up.link, hub.record.is_empty()), (3, false));
    assert!(leaf.told(replcore_leaf_event::Registered as u32).is_some());
    let lease = lease_of(&hub).unwrap();
    assert_eq!((lease.node, lease.link, lease.is_held, lease.lease_ms), (up.node, 3, 1, 60_000));
    assert_eq!(
        (text_of(&lease.name), text_of(&lease.address)),
        ("till-7".into(), "[::1]:8181".into())
    );
    // SAFETY: zeros are values of the structures; the machine was made above.
    unsafe {
        let mut peer: replcore_link_peer = core::mem::zeroed();
        assert_eq!(replcore_node_peer(hub.machine, 3, &mut peer), replcore_status::Ok);
        assert_eq!((peer.node, peer.role), (lease.node, REPLCORE_ROLE_LEAF));
        assert_eq!(replcore_node_peer(hub.machine, 4, &mut peer), replcore_status::End);
        replcore_handle_timeout(hub.machine, lease.until_us);
        hub.drain_to(&leaf, 0);
        assert!(hub.told(replcore_node_event::LeaseExpired as u32).is_some());
        assert_eq!(lease_of(&hub).unwrap().is_held, 0);
        let mut stats = replcore_node_counters::default();
        replcore_node_stats(hub.machine, &mut stats);
        assert_eq!((stats.registered, stats.expired), (1, 1));

        let again = Party::hub(&config());
        let (data, len) = (hub.record.as_ptr(), hub.record.len());
        let key = REPLCORE_KEY_REGISTRATION;
        let done = replcore_restore(again.machine, key, lease.node, data, len);
        assert_eq!(done, replcore_status::Ok);
        replcore_handle_timeout(again.machine, 50);
        let held = lease_of(&again).unwrap();
        assert_eq!((held.is_held, held.until_us), (1, 60_000_050));
        assert_eq!(replcore_node_leases(again.machine), 1);
        assert_eq!(replcore_node_forget(again.machine, 60, lease.node), replcore_status::Ok);
        assert_eq!(replcore_node_forget(again.machine, 60, lease.node), replcore_status::Busy);
        assert_eq!(lease_of(&again).err(), Some(replcore_status::End));
    }
}

#[test]
fn a_node_registers_at_a_hub_above_it() {
    let mut hub = Party::hub(&config());
    let dial = replcore_dial { queue: null(), kind: REPLCORE_DIAL_UPSTREAM, waits: 0 };
    let below = replcore_node_config {
        name: c"shop".as_ptr(),
        dials: &dial,
        dial_count: 1,
        instance: 5,
        ..config()
    };
    let mut gateway = Party::hub(&below);
    // SAFETY: the machine was made above.
    unsafe { replcore_handle_timeout(gateway.machine, 1) };
    gateway.drain_to(&hub, 3);
    assert_eq!(gateway.outputs[0].kind, replcore_output_kind::Dial as u32);
    gateway.link_up(0, 0);
    hub.link_up(3, REPLCORE_NOT_DIALED);
    settle(&mut hub, &mut gateway);
    assert!(gateway.told(replcore_node_event::Registered as u32).is_some());
    let mut state = replcore_dial_state::default();
    // SAFETY: the machine was made above.
    unsafe {
        assert_eq!(replcore_node_dial(gateway.machine, 0, &mut state), replcore_status::Ok);
        assert_eq!((state.link, state.is_registered), (0, 1));
        assert_eq!(replcore_node_dial(gateway.machine, 1, &mut state), replcore_status::End);
        assert_eq!(replcore_leaf_stop(gateway.machine, 2), replcore_status::Kind);
        assert_eq!(replcore_node_stop(gateway.machine, 2), replcore_status::Ok);
    }
    gateway.drain_to(&hub, 3);
    let hung_up = gateway.outputs.last().unwrap().kind;
    assert_eq!(hung_up, replcore_output_kind::Hangup as u32);
}

#[test]
fn configurations_of_nodes_are_checked() {
    // SAFETY: the configurations are live values.
    let size = |config: &replcore_node_config| unsafe { replcore_node_memory(config) };
    let whole = size(&config());
    assert!(whole > 0);
    // A header that knew fewer fields: the others are defaults.
    assert_eq!(size(&replcore_node_config { struct_size: 48, ..config() }), whole);
    let bad_dial = replcore_dial { queue: c"a b".as_ptr(), kind: 0, waits: 0 };
    let odd_dial = replcore_dial { queue: null(), kind: REPLCORE_DIAL_LEAF, waits: 1 };
    let wrong: [&dyn Fn(&mut replcore_node_config); 10] = [
        &|config| config.name = null(),
        &|config| config.instance = 0,
        &|config| config.epoch = 0,
        &|config| config.links_max = 65_537,
        &|config| config.leaves_max = u32::MAX,
        &|config| config.without_leaves = 2,
        &|config| (config.lease_ms_min, config.lease_ms_max) = (10, 9),
        &|config| config.dial_count = 1,
        &|config| (config.dials, config.dial_count) = (&bad_dial, 1),
        &|config| (config.dials, config.dial_count) = (&odd_dial, 1),
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let mut changed = config();
        change(&mut changed);
        assert_eq!(size(&changed), 0, "change {number}");
        let (mut memory, mut made) = (vec![0u8; whole], null_mut());
        // SAFETY: the pointers are of live values and the length is that of the memory.
        let done =
            unsafe { replcore_node_init(memory.as_mut_ptr().cast(), whole, &changed, &mut made) };
        assert_ne!(done, replcore_status::Ok, "change {number}");
    }
    for short in [0, 1, whole / 2, whole - 64] {
        let (mut memory, mut made) = (vec![0u8; short], null_mut());
        // SAFETY: as above.
        let done =
            unsafe { replcore_node_init(memory.as_mut_ptr().cast(), short, &config(), &mut made) };
        assert_eq!(done, replcore_status::Short);
    }
}
