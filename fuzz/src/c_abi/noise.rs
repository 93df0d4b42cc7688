//! Lines without TLS: both ends, with packets of their own, changed ones, and any bytes.

use std::ptr::{null, null_mut};

use super::make::place;
use super::{Choices, Program};
use crate::ffi::*;

const SHARED: [u8; 32] = [7; 32];
const OWN: [u8; 32] = [8; 32];

/// The ends of a line with their memory, and what was on the line last.
pub(super) struct Lines {
    memory: [Vec<u8>; 2],
    pub(super) ends: [*mut replcore_noise; 2],
    packet: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { memory: [const { Vec::new() }; 2], ends: [null_mut(); 2], packet: Vec::new() }
    }
}

fn init(lines: &mut Lines, choices: &mut Choices<'_>) -> replcore_status {
    let end = usize::from(choices.byte() % 2);
    let memory = place(replcore_noise_memory(), choices);
    lines.memory[end] = memory;
    lines.ends[end] = null_mut();
    let memory = &mut lines.memory[end];
    let role = if choices.byte() < 16 { choices.small() } else { end as u32 + 1 };
    let made = &mut lines.ends[end];
    // SAFETY: as in `run`.
    unsafe { replcore_noise_init(memory.as_mut_ptr().cast(), memory.len(), role, made) }
}

pub(super) unsafe fn noise(program: &mut Program, choices: &mut Choices<'_>) -> replcore_status {
    let mut lines = std::mem::take(&mut program.lines);
    let line = match choices.byte() {
        0 => program.machine(choices).cast(),
        number => lines.ends[usize::from(number % 2)],
    };
    // Of what the other end made, or any.
    match choices.byte() % 8 {
        0 => lines.packet = choices.bytes(),
        1 => {
            let at = usize::from(choices.byte()) % lines.packet.len().max(1);
            if let Some(byte) = lines.packet.get_mut(at) {
                *byte ^= choices.byte();
            }
        }
        _ => {}
    }
    // SAFETY: as in `run`.
    let status = unsafe {
        match choices.byte() % 9 {
            0 => init(&mut lines, choices),
            1 => start(line, &mut lines.packet, choices),
            2 | 3 => take(line, &mut lines.packet),
            4 => answer(line, &mut lines.packet, choices),
            5 => replcore_noise_answered(line),
            6 => seal(line, &mut lines.packet, choices),
            7 => replcore_noise_refuse(line),
            _ => {
                let _ = replcore_noise_refused(line);
                replcore_noise_forget(line)
            }
        }
    };
    program.lines = lines;
    status
}

/// Room for a packet: exactly enough mostly.
fn room(choices: &mut Choices<'_>) -> Vec<u8> {
    let short = choices.byte() == 0;
    let bytes = if short { choices.byte().into() } else { REPLCORE_NOISE_HANDSHAKE_BYTES_MAX };
    vec![0; bytes]
}

/// What was written replaces the packet.
fn written(status: replcore_status, mut out: Vec<u8>, length: usize, packet: &mut Vec<u8>) {
    if status == replcore_status::Ok {
        assert!(length <= out.len());
        out.truncate(length);
        *packet = out.into_boxed_slice().into_vec();
    } else {
        assert_eq!(length, 77, "written after {status:?}");
    }
}

unsafe fn start(
    line: *mut replcore_noise,
    packet: &mut Vec<u8>,
    choices: &mut Choices<'_>,
) -> replcore_status {
    let text = choices.text();
    let random = [choices.byte(); 32];
    let key = |given: bool, key: &[u8; 32]| if given { key.as_ptr() } else { null() };
    let kind = choices.byte();
    let mut hub = [0; 32];
    let (mut out, mut length) = (room(choices), 77);
    // SAFETY: as in `run`.
    unsafe {
        replcore_noise_public(OWN.as_ptr(), hub.as_mut_ptr());
        let identity = replcore_noise_identity {
            struct_size: size_of::<replcore_noise_identity>() as u32,
            reserved: 0,
            name: if kind < 32 { text.as_ptr() } else { c"leaf".as_ptr() },
            shared_key: key(kind.is_multiple_of(2), &SHARED),
            own_key: key(kind % 2 == 1 || kind < 4, &SHARED),
            hub_key: key(kind % 2 == 1, &hub),
        };
        let (to, cap) = (out.as_mut_ptr(), out.len());
        let status = replcore_noise_start(line, &identity, random.as_ptr(), to, cap, &mut length);
        written(status, out, length, packet);
        status
    }
}

unsafe fn take(line: *mut replcore_noise, packet: &mut [u8]) -> replcore_status {
    let mut taken = replcore_noise_taken { kind: 77, ..Default::default() };
    // SAFETY: as in `run`.
    let status =
        unsafe { replcore_noise_take(line, packet.as_mut_ptr(), packet.len(), &mut taken) };
    if status == replcore_status::Ok {
        assert!(taken.kind <= REPLCORE_NOISE_UNKNOWN && taken.reason <= REPLCORE_NOISE_REPLAYED);
        assert!(taken.at + taken.len <= packet.len());
    } else {
        assert_eq!(taken.kind, 77, "written after {status:?}");
    }
    status
}

unsafe fn answer(
    line: *mut replcore_noise,
    packet: &mut Vec<u8>,
    choices: &mut Choices<'_>,
) -> replcore_status {
    let (random, mut shown) = ([choices.byte(); 32], [0; 32]);
    let (mut out, mut length) = (room(choices), 77);
    let (to, cap) = (out.as_mut_ptr(), out.len());
    let (start, len, random) = (packet.as_ptr(), packet.len(), random.as_ptr());
    // SAFETY: as in `run`.
    let status = unsafe {
        if packet.first() == Some(&1) {
            let key = SHARED.as_ptr();
            replcore_noise_answer_shared(line, start, len, key, random, to, cap, &mut length)
        } else {
            let (key, shown) = (OWN.as_ptr(), shown.as_mut_ptr());
            replcore_noise_answer_pinned(line, start, len, key, random, to, cap, &mut length, shown)
        }
    };
    written(status, out, length, packet);
    status
}

unsafe fn seal(
    line: *mut replcore_noise,
    packet: &mut Vec<u8>,
    choices: &mut Choices<'_>,
) -> replcore_status {
    let frame = usize::from(choices.byte());
    let room = frame + REPLCORE_NOISE_OVERHEAD_BYTES - usize::from(choices.byte() == 0);
    let (mut out, mut length) = (vec![3; room], 77);
    let claimed = if choices.byte() == 0 { choices.number() as usize } else { frame };
    let (to, cap) = (out.as_mut_ptr(), out.len());
    // SAFETY: as in `run`.
    let status = unsafe { replcore_noise_seal(line, to, cap, claimed, &mut length) };
    written(status, out, length, packet);
    status
}
