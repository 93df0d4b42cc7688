//! Makes the machines, and what stands beside them.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use super::{Choices, Program, known};
use crate::ffi::*;

/// A structure with the size that the program says, and exactly that many bytes behind it.
fn resized<T: Copy>(structure: &T, size: u32, fill: u8) -> Vec<u64> {
    let mut words = vec![0u64; (size as usize).div_ceil(8).max(1)];
    let own = size_of::<T>().min(words.len() * 8);
    // SAFETY: no more bytes than either has.
    unsafe {
        std::ptr::copy_nonoverlapping(
            (&raw const *structure).cast::<u8>(),
            words.as_mut_ptr().cast(),
            own,
        );
        let bytes = words.as_mut_ptr().cast::<u8>();
        for at in own..words.len() * 8 {
            *bytes.add(at) = fill;
        }
        *words.as_mut_ptr().cast::<u32>() = size;
    }
    words
}

/// Memory for a machine: enough mostly.
pub(super) fn place(needed: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let bytes = match choices.byte() {
        0 => choices.number().min(4096) as usize,
        _ => needed + 16,
    };
    vec![choices.byte(); bytes]
}

type Init<T> = unsafe extern "C" fn(
    *mut c_void,
    usize,
    *const T,
    *mut *mut replcore_machine,
) -> replcore_status;

/// Makes the machine `at`, in memory that begins anywhere, of a configuration of any header.
unsafe fn init<T: Copy>(
    program: &mut Program,
    choices: &mut Choices<'_>,
    at: usize,
    config: &T,
    needed: impl FnOnce(*const T) -> usize,
    make: Init<T>,
) -> replcore_status {
    let size = match choices.byte() {
        odd @ 0..16 => u32::from(odd) * 37,
        _ => size_of::<T>() as u32,
    };
    let config = resized(config, size, choices.byte() % 2);
    let config = config.as_ptr().cast();
    let memory = place(needed(config), choices);
    let skew = usize::from(choices.byte() % 16).min(memory.len());
    program.memory[at] = memory;
    program.machines[at] = null_mut();
    let memory = &mut program.memory[at][skew..];
    // SAFETY: as in `run`.
    unsafe { make(memory.as_mut_ptr().cast(), memory.len(), config, &mut program.machines[at]) }
}

pub(super) unsafe fn init_leaf(
    program: &mut Program,
    choices: &mut Choices<'_>,
) -> replcore_status {
    // SAFETY: zeros are a value of a structure of integers and pointers.
    let mut config: replcore_leaf_config = unsafe { std::mem::zeroed() };
    let texts = [choices.text(), choices.text(), choices.text(), choices.text()];
    (config.name, config.address) = (texts[0].as_ptr(), texts[1].as_ptr());
    (config.queue, config.consumer) = (texts[2].as_ptr(), texts[3].as_ptr());
    if !choices.byte().is_multiple_of(4) {
        (config.name, config.queue, config.consumer) = (c"a".as_ptr(), null(), null());
        config.address = null();
    }
    (config.instance, config.seed) = (u64::from(choices.rare() == 0), choices.number());
    (config.epoch, config.frame_bytes_max) = (u32::from(choices.rare() == 0), choices.rare());
    (config.window_bytes, config.role) = (choices.rare(), choices.rare());
    (config.retry_ms_min, config.retry_ms_max) = (choices.rare(), choices.rare());
    (config.keepalive_ms, config.lease_ms) = (choices.rare(), choices.rare());
    (config.register_ms, config.poll_interval_ms) = (choices.rare(), choices.rare());
    // SAFETY: as in `run`.
    unsafe { init(program, choices, 0, &config, |_| replcore_leaf_memory(), replcore_leaf_init) }
}

pub(super) unsafe fn init_member(
    program: &mut Program,
    choices: &mut Choices<'_>,
) -> replcore_status {
    // SAFETY: zeros are a value of a structure of integers and pointers.
    let mut config: replcore_member_config = unsafe { std::mem::zeroed() };
    let texts = [choices.text(), choices.text(), choices.text()];
    (config.name, config.cluster) = (texts[0].as_ptr(), texts[1].as_ptr());
    config.address = texts[2].as_ptr();
    if !choices.byte().is_multiple_of(4) {
        (config.name, config.cluster, config.address) = (c"m".as_ptr(), c"c".as_ptr(), null());
    }
    (config.instance, config.seed) = (u64::from(choices.rare() == 0), choices.number());
    (config.profile, config.membership) = (choices.rare() % 4, choices.rare() % 4);
    (config.peers_max, config.links_max) = (choices.rare(), choices.rare());
    (config.without_election, config.priority) = (choices.rare() % 3, choices.rare());
    (config.heartbeat_ms, config.timeout_ms_min) = (choices.rare(), choices.rare());
    (config.timeout_ms_max, config.suspect_ms) = (choices.rare(), choices.rare());
    (config.clock_error_ppm, config.handshake_ms) = (choices.rare(), choices.rare());
    // SAFETY: as in `run`.
    unsafe {
        init(
            program,
            choices,
            1,
            &config,
            |config| replcore_member_memory(config),
            replcore_member_init,
        )
    }
}

pub(super) unsafe fn init_node(
    program: &mut Program,
    choices: &mut Choices<'_>,
) -> replcore_status {
    // SAFETY: zeros are a value of a structure of integers and pointers.
    let mut config: replcore_node_config = unsafe { std::mem::zeroed() };
    let texts = [choices.text(), choices.text(), choices.text(), choices.text()];
    (config.name, config.address) = (texts[0].as_ptr(), texts[1].as_ptr());
    config.extra_queue = texts[2].as_ptr();
    if !choices.byte().is_multiple_of(4) {
        (config.name, config.address) = (c"hub".as_ptr(), null());
        config.extra_queue = null();
    }
    let dials = [replcore_dial {
        queue: if choices.byte() < 16 { texts[3].as_ptr() } else { null() },
        kind: choices.small() % 3,
        waits: choices.rare() % 3,
    }; 2];
    (config.dials, config.dial_count) = (dials.as_ptr(), choices.small() % 3);
    (config.instance, config.seed) = (u64::from(choices.rare() == 0), choices.number());
    (config.epoch, config.without_leaves) = (u32::from(choices.rare() == 0), choices.rare() % 3);
    // Small tables, that one run can fill.
    (config.links_max, config.leaves_max) = (choices.small() % 5, choices.small() % 5);
    (config.frame_bytes_max, config.window_bytes) = (choices.rare(), choices.rare());
    (config.keepalive_ms, config.handshake_ms) = (choices.rare(), choices.rare());
    (config.lease_ms_max, config.lease_ms_min) = (choices.rare(), choices.rare());
    (config.admit_per_second, config.admit_burst) = (choices.rare(), choices.rare());
    (config.retry_ms_max, config.poll_interval_ms) = (choices.rare(), choices.rare());
    // SAFETY: as in `run`.
    unsafe {
        init(
            program,
            choices,
            2,
            &config,
            |config| replcore_node_memory(config),
            replcore_node_init,
        )
    }
}

pub(super) unsafe fn init_parts(
    program: &mut Program,
    choices: &mut Choices<'_>,
) -> replcore_status {
    // SAFETY: as in `run`.
    unsafe {
        let (entries, wait, most) = (choices.small(), choices.small(), choices.small());
        let needed = replcore_window_memory(entries).min(1 << 16);
        program.parts[0] = place(needed, choices);
        program.window = null_mut();
        let (memory, len) = (program.parts[0].as_mut_ptr().cast(), program.parts[0].len());
        let released = choices.number();
        let made = &mut program.window;
        let done = replcore_window_init(memory, len, entries, wait, most, released, made);
        assert!(known(done), "{done:?}");

        let name = choices.text();
        let config = replcore_dispatch_config {
            struct_size: size_of::<replcore_dispatch_config>() as u32,
            rules_max: choices.small() % 4,
            targets_max: choices.small() % 8,
            leaves_max: choices.small() % 4,
            upstreams_max: choices.small() % 4,
            without_leaves: choices.rare(),
            name: if choices.byte() < 16 { name.as_ptr() } else { c"hub".as_ptr() },
        };
        program.parts[1] = place(replcore_dispatch_memory(&config), choices);
        program.dispatch = null_mut();
        let (memory, len) = (program.parts[1].as_mut_ptr().cast(), program.parts[1].len());
        replcore_dispatch_init(memory, len, &config, &mut program.dispatch)
    }
}
