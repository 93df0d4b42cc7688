//! A hostile or mistaken C program: every function of the interface, in any order, with pointers that are
//! null, skewed, or of another kind of machine, with memory and buffers of every size, and with
//! configurations of headers that never were.
//!
//! What is checked: a status that the header knows, nothing written after an error, outputs of kinds that
//! the header knows, and that a drain ends. Buffers have exactly the bytes that they are said to have, so
//! that an address sanitizer sees a byte too many.

mod choices;
mod formats;
mod make;
mod noise;

use std::ffi::c_char;
use std::ptr::{null, null_mut};

use replcore::wire::{
    self, CONTROL_FRAME_BYTES_MAX, Control, Hello, Lease, Open, Register, Resume, Role, Subscribe,
};

use self::choices::Choices;
use self::formats::{formats, wire_record};
use self::make::{init_leaf, init_member, init_node, init_parts};
use self::noise::{Lines, noise};
use crate::ffi::*;

/// Outputs in one drain after which it counts as endless.
const OUTPUTS_MAX: usize = 20_000;

fn known(status: replcore_status) -> bool {
    ((replcore_status::Forged as i32)..=0).contains(&(status as i32))
}

/// What the program has.
struct Program {
    memory: [Vec<u8>; 3],
    machines: [*mut replcore_machine; 3],
    /// A dispatch and a window with their memory.
    parts: [Vec<u8>; 2],
    dispatch: *mut replcore_dispatch,
    window: *mut replcore_window,
    lines: Lines,
    /// Memory that is no machine.
    foreign: Vec<u64>,
    now: u64,
}

impl Program {
    fn machine(&self, choices: &mut Choices<'_>) -> *mut replcore_machine {
        match choices.byte() {
            0 => null_mut(),
            1 => self.foreign.as_ptr().cast_mut().cast(),
            2 => self.machines[0].wrapping_byte_add(1),
            3 => self.dispatch.cast(),
            4 => self.lines.ends[1].cast(),
            number => self.machines[usize::from(number % 3)],
        }
    }

    fn dispatch(&self, choices: &mut Choices<'_>) -> *mut replcore_dispatch {
        match choices.byte() {
            0..8 => self.machine(choices).cast(),
            _ => self.dispatch,
        }
    }

    fn window(&self, choices: &mut Choices<'_>) -> *mut replcore_window {
        match choices.byte() {
            0..8 => self.machine(choices).cast(),
            _ => self.window,
        }
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut choices = Choices { rest: data };
    let mut program = Program {
        memory: [const { Vec::new() }; 3],
        machines: [null_mut(); 3],
        parts: [const { Vec::new() }; 2],
        dispatch: null_mut(),
        window: null_mut(),
        lines: Lines::default(),
        foreign: vec![choices.number(); 1024],
        now: 1,
    };
    while !choices.rest.is_empty() {
        program.now = program.now.saturating_add(choices.number().min(1 << 40));
        // SAFETY: what each function asks of its caller beyond what it checks is kept: lengths are
        // those of the memory, texts end in a zero byte, nothing overlaps.
        let status = unsafe {
            match choices.byte() % 16 {
                10 => init_node(&mut program, &mut choices),
                11 => init_parts(&mut program, &mut choices),
                15 => noise(&mut program, &mut choices),
                12 => dispatch(&program, &mut choices),
                13 => window(&program, &mut choices),
                8 | 9 | 14 => greet(&program, &mut choices),
                0 => init_leaf(&mut program, &mut choices),
                1 => init_member(&mut program, &mut choices),
                2 | 3 => input(&program, &mut choices),
                4 => receive(&program, &mut choices),
                5 => command(&program, &mut choices),
                6 => look(&program, &mut choices),
                _ => formats(&mut choices),
            }
        };
        assert!(known(status), "{status:?}");
        drain(&program, &mut choices);
    }
}

unsafe fn dispatch(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let made = program.dispatch(choices);
    let names = [c"a", c"b", c"hub", c"*", c"x"];
    let mut name = || names[usize::from(choices.byte() % 5)].as_ptr();
    let to = [name(), name(), name()];
    let text = choices.text();
    // SAFETY: as in `run`.
    unsafe {
        match choices.byte() % 8 {
            0..3 => {
                let count = choices.small() % 4;
                let origin = if choices.byte() < 128 { null() } else { to[0] };
                replcore_dispatch_add_rule(made, text.as_ptr(), origin, to.as_ptr(), count)
            }
            3 => replcore_dispatch_clear_rules(made),
            4 => replcore_dispatch_set_leaf(made, to[0], choices.small() % 3),
            5 => replcore_dispatch_add_upstream(made, to[0]),
            _ => {
                let (from, peer) = (choices.small() % 4, choices.number());
                let record = wire_record(choices);
                let cap = usize::from(choices.byte() % 4);
                let mut out: Vec<replcore_destination> = Vec::with_capacity(cap);
                let (data, len) = (record.as_ptr(), record.len());
                let (out, mut count) = (out.as_mut_ptr(), 77);
                let status =
                    replcore_dispatch_record(made, from, peer, data, len, out, cap, &mut count);
                match status {
                    replcore_status::Ok => assert!(count <= cap),
                    replcore_status::Short => assert!(count > cap),
                    _ => assert_eq!(count, 77, "written after {status:?}"),
                }
                status
            }
        }
    }
}

unsafe fn window(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let (made, now) = (program.window(choices), program.now);
    // SAFETY: as in `run`.
    unsafe {
        let released = replcore_window_released(made);
        let status = match choices.byte() % 6 {
            0..3 => {
                let mut next = replcore_next { kind: 77, ..Default::default() };
                let status = replcore_window_take(made, now, choices.number(), &mut next);
                assert!(status == replcore_status::Ok || next.kind == 77);
                status
            }
            3 => replcore_window_settle(made, released.wrapping_add(choices.number())),
            4 => replcore_window_gone(made, choices.number()),
            _ => replcore_window_give_back(made, now),
        };
        assert!(replcore_window_released(made) >= released);
        let _ = replcore_window_outstanding(made);
        let _ = replcore_window_is_outstanding(made, choices.number());
        status
    }
}

unsafe fn input(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let (machine, now) = (program.machine(choices), program.now);
    let (link, stream) = (choices.rare(), choices.small() % 9);
    // SAFETY: as in `run`.
    unsafe {
        match choices.byte() % 17 {
            0 => replcore_handle_timeout(machine, now),
            15 => replcore_handle_answer_subscribed(machine, now, choices.number()),
            16 => replcore_handle_answer_denied(machine, now, choices.number()),
            1 | 2 => replcore_handle_link_up(
                machine,
                now,
                link,
                choices.small(),
                choices.small() % 4,
                choices.number(),
            ),
            3 => replcore_handle_link_down(machine, now, link),
            4 => replcore_handle_dial_failed(machine, now, link),
            5 => replcore_handle_writable(machine, now, link, choices.small()),
            6 => replcore_handle_persisted(machine, now, choices.number()),
            7 => replcore_handle_failed(machine, now, choices.number(), choices.small()),
            8 => {
                replcore_handle_gone(machine, now, link, stream, choices.number(), choices.small())
            }
            9 => replcore_handle_refused(machine, now, link, stream, choices.small()),
            10 => replcore_handle_appended(machine, now, link, stream, choices.number()),
            11 => {
                let (position, offset) = (choices.number(), choices.small());
                let (bytes, wire_bytes) = (choices.small(), choices.small());
                let at = (position, offset);
                replcore_handle_sent(machine, now, link, stream, at.0, at.1, bytes, wire_bytes)
            }
            12 => {
                let (position, offset, bytes) =
                    (choices.number(), choices.small(), choices.small());
                replcore_handle_taken(machine, now, link, stream, position, offset, bytes)
            }
            13 => {
                let (token, epoch) = (choices.number(), choices.small());
                let (position, offset) = (choices.number(), choices.small());
                replcore_handle_answer_inbound(machine, now, token, epoch, position, offset)
            }
            _ => {
                let (token, epoch) = (choices.number(), choices.small());
                let (released, next) = (choices.number(), choices.number());
                let sent = choices.number();
                replcore_handle_answer_outbound(machine, now, token, epoch, released, next, sent)
            }
        }
    }
}

/// What gets a machine going: an open link with credit, and a frame of a peer that is right.
unsafe fn greet(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let (machine, now) = (program.machine(choices), program.now);
    let role = [Role::Hub, Role::Member, Role::Leaf, Role::Client][usize::from(choices.byte() % 4)];
    let hello = Hello {
        magic: *b"RPLC",
        version_min: 1,
        version_max: 1,
        role,
        features: 0,
        name: if role == Role::Hub {
            "hub".into()
        } else {
            ["b", "c", "d"][usize::from(choices.byte() % 3)].into()
        },
        instance: choices.number(),
        epoch: 7,
        frame_bytes_max: 65_536,
        keepalive_ms: 1_000,
        session: choices.byte().into(),
    };
    let stream = choices.byte() % 8;
    let link = choices.rare();
    let control = match choices.byte() % 8 {
        0..3 => Control::Hello(hello),
        6 => Control::Register(Register {
            lease_ms: choices.small(),
            address: "h:1".into(),
            queues: [["", "x"][usize::from(choices.byte() % 2)].into()],
        }),
        7 => Control::Subscribe(Subscribe {
            consumer: "x".into(),
            message_type: "".into(),
            from_start: false,
        }),
        3 => Control::Lease(Lease { lease_ms: 900_000 }),
        4 => Control::Open(Open {
            queue: "a".into(),
            class: choices.byte() % 4,
            epoch: 7,
            first: choices.number(),
            placed: choices.byte().checked_sub(200),
        }),
        _ => Control::Resume(Resume {
            epoch: choices.small(),
            position: choices.number(),
            offset: choices.small(),
            credit_bytes: 65_536,
            round: choices.byte() % 2,
        }),
    };
    let mut frame = [0; CONTROL_FRAME_BYTES_MAX];
    let length = wire::encode_control(stream, &control, &mut frame).expect("it fits");
    let mut taken = 0;
    // SAFETY: as in `run`.
    unsafe {
        if choices.byte() < 128 {
            replcore_handle_link_up(machine, now, link, choices.small() % 2, 1, 0);
            replcore_handle_writable(machine, now, link, 1 << 20);
        }
        replcore_handle_recv(machine, now, link, frame.as_ptr(), length, &mut taken)
    }
}

unsafe fn receive(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let (machine, link, data) = (program.machine(choices), choices.small(), choices.bytes());
    let mut taken = 77;
    let pointer = if choices.byte() == 0 { null() } else { data.as_ptr() };
    // SAFETY: as in `run`.
    let status = unsafe {
        replcore_handle_recv(machine, program.now, link, pointer, data.len(), &mut taken)
    };
    match status {
        replcore_status::Ok => assert!(taken <= data.len()),
        _ => assert_eq!(taken, 77, "written after {status:?}"),
    }
    status
}

unsafe fn command(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let (machine, now) = (program.machine(choices), program.now);
    let data = choices.bytes();
    let (pointer, len) = (data.as_ptr(), data.len());
    // SAFETY: as in `run`.
    unsafe {
        match choices.byte() % 13 {
            11 => replcore_node_stop(machine, now),
            12 => {
                let mut id = choices.number();
                if choices.byte() < 200 {
                    replcore_name_id([c"b", c"c"][(id % 2) as usize].as_ptr(), &mut id);
                }
                replcore_node_forget(machine, now, id)
            }
            0 => replcore_leaf_stop(machine, now),
            1 => replcore_leaf_reject(machine, now, choices.small(), choices.number()),
            2 => replcore_restore(machine, choices.small(), choices.number(), pointer, len),
            3 | 4 => {
                let (name, address) = (choices.text(), choices.text());
                let voter = choices.small() % 3;
                let texts = (name.as_ptr(), address.as_ptr());
                replcore_member_add_peer(machine, texts.0, texts.1, pointer, len, voter)
            }
            5 => replcore_member_set_metadata(machine, now, pointer, len),
            6 => replcore_member_resign(machine, now),
            7 => replcore_member_join(machine, now, choices.small()),
            8 => replcore_member_leave(machine, now),
            9 => replcore_member_change(machine, now, choices.number(), choices.small()),
            _ => replcore_member_set_progress(machine, now, choices.number(), choices.number()),
        }
    }
}

unsafe fn look(program: &Program, choices: &mut Choices<'_>) -> replcore_status {
    let machine = program.machine(choices);
    let mut text: Vec<c_char> = vec![0; usize::from(choices.byte() % 80)];
    let (mut node, mut leader) = (0, replcore_leader::default());
    // SAFETY: as in `run`; zeros are a value of the structure.
    unsafe {
        let mut peer: replcore_peer = std::mem::zeroed();
        let mut link = replcore_link_stats::default();
        let mut counters = replcore_member_counters::default();
        let mut is_member = 0;
        let _ = replcore_member_settled(machine)
            + replcore_leaf_connected(machine)
            + replcore_leaf_drained(machine);
        let _ = replcore_leaf_round_trip_us(machine);
        let _ = (replcore_member_role(machine), replcore_member_term(machine));
        let _ = replcore_member_leader_until(machine);
        let statuses = [
            replcore_leaf_peer(machine, text.as_mut_ptr(), text.len()),
            replcore_leaf_stats(machine, &mut link),
            replcore_member_leader(machine, &mut leader),
            replcore_member_peer(machine, choices.number(), &mut peer),
            replcore_member_peer_at(machine, choices.small(), &mut peer),
            replcore_member_stats(machine, &mut counters),
            replcore_member_link_peer(
                machine,
                choices.small(),
                text.as_mut_ptr(),
                text.len(),
                &mut is_member,
            ),
            look_at_node(machine, choices),
        ];
        assert!(statuses.into_iter().all(known));
        let dial = choices.small();
        replcore_member_dial_target(machine, dial, text.as_mut_ptr(), text.len(), &mut node)
    }
}

unsafe fn look_at_node(
    machine: *mut replcore_machine,
    choices: &mut Choices<'_>,
) -> replcore_status {
    // SAFETY: as in `run`; zeros are values of the structures.
    unsafe {
        let (mut lease, mut peer) = (std::mem::zeroed(), std::mem::zeroed());
        let mut counters = replcore_node_counters::default();
        let mut state = replcore_dial_state::default();
        let (mut place, mut leaves) = (0, 0);
        while replcore_node_lease_next(machine, &mut place, &mut lease) == replcore_status::Ok {
            leaves += 1;
            let found = replcore_node_lease(machine, lease.node, &mut lease);
            assert_eq!(found, replcore_status::Ok);
        }
        assert_eq!(leaves, replcore_node_leases(machine));
        place = choices.small();
        let statuses = [
            replcore_node_lease_next(machine, &mut place, &mut lease),
            replcore_node_lease(machine, choices.number(), &mut lease),
            replcore_node_peer(machine, choices.small(), &mut peer),
            replcore_node_dial(machine, choices.small(), &mut state),
        ];
        assert!(statuses.into_iter().all(known));
        replcore_node_stats(machine, &mut counters)
    }
}

/// Polls all machines, with buffers of any size, and answers some of what they ask.
fn drain(program: &Program, choices: &mut Choices<'_>) {
    for machine in program.machines {
        let mut buf = vec![0u8; usize::from(choices.byte()) * 3];
        let mut output = replcore_output { kind: 99, ..Default::default() };
        for polled in 0.. {
            assert!(polled < OUTPUTS_MAX, "a drain without end");
            // SAFETY: a machine or null, and a buffer of that length.
            let status =
                unsafe { replcore_poll(machine, buf.as_mut_ptr(), buf.len(), &mut output) };
            if status != replcore_status::Ok {
                assert_eq!((status, output.kind), (replcore_status::Null, 99));
                break;
            }
            assert!(output.kind <= replcore_output_kind::AskPlace as u32);
            assert_ne!(output.kind, replcore_output_kind::Halted as u32, "halted");
            if output.kind == replcore_output_kind::NeedBuffer as u32 {
                assert!(output.len as usize > buf.len());
                buf.resize(output.len as usize, 0);
            } else if output.kind == replcore_output_kind::Idle as u32 {
                break;
            } else if !choices.byte().is_multiple_of(4) {
                // SAFETY: a machine.
                unsafe { answer(machine, program.now, &output) };
            }
        }
    }
}

/// What a program that keeps nothing answers, so that machines get beyond their questions.
unsafe fn answer(machine: *mut replcore_machine, now: u64, output: &replcore_output) {
    use replcore_output_kind as kind;
    let (link, stream, token) = (output.link, output.stream, output.token);
    let is = |kind: kind| output.kind == kind as u32;
    // SAFETY: as the caller promises.
    let status = unsafe {
        if is(kind::Persist) {
            replcore_handle_persisted(machine, now, token)
        } else if is(kind::AskInbound) {
            replcore_handle_answer_inbound(machine, now, token, output.epoch, 0, 0)
        } else if is(kind::AskOutbound) {
            replcore_handle_answer_outbound(machine, now, token, 7, 0, 3, 3)
        } else if is(kind::AskPlace) {
            replcore_handle_answer_place(machine, now, token, 0)
        } else if is(kind::AskSubscribe) {
            replcore_handle_answer_subscribed(machine, now, token)
        } else if is(kind::SendRecords) {
            let next = output.position + 1;
            replcore_handle_sent(machine, now, link, stream, next, 0, 64, 104)
        } else if is(kind::TakeSkip) {
            replcore_handle_taken(machine, now, link, stream, output.next, 0, 0)
        } else if is(kind::Hangup) {
            replcore_handle_link_down(machine, now, link)
        } else {
            replcore_status::Ok
        }
    };
    assert_eq!(status, replcore_status::Ok);
}
