//! One function for each input of a machine.

use replcore_core::contract::{
    Answer, DialIndex, Failure, Input, Key, LinkId, Machine, SkipReason, StreamIndex, Token,
    Transport,
};
use replcore_core::stream::{Cursor, Epoch, NodeId, Position};
use replcore_core::time::Instant;

use super::check::{bytes, reference_mut};
use super::machine::*;
use super::replcore_status;
use super::status::status;

/// Gives one input to the machine.
///
/// # Safety
/// As for [`machine`].
unsafe fn give(
    pointer: *mut replcore_machine,
    now_us: u64,
    input: Result<Input<'_>, replcore_status>,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let machine = unsafe { machine(pointer) }?;
        take(machine, now_us, input?);
        Ok(())
    })())
}

fn take(machine: Kind<'_>, now_us: u64, input: Input<'_>) -> usize {
    let now = Instant::from_micros(now_us);
    match machine {
        Kind::Leaf(leaf) => leaf.handle(now, input),
        #[cfg(feature = "member")]
        Kind::Member(member) => member.handle(now, input),
        #[cfg(feature = "node")]
        Kind::Node(node) => node.handle(now, input),
    }
}

fn stream_index(stream: u32) -> Result<StreamIndex, replcore_status> {
    u8::try_from(stream).map(StreamIndex).map_err(|_| replcore_status::Value)
}

fn failure(reason: u32) -> Result<Failure, replcore_status> {
    match reason {
        REPLCORE_FAILURE_FULL => Ok(Failure::Full),
        REPLCORE_FAILURE_CORRUPT => Ok(Failure::Corrupt),
        REPLCORE_FAILURE_IO => Ok(Failure::Io),
        _ => Err(replcore_status::Value),
    }
}

fn skip_reason(reason: u32) -> Result<SkipReason, replcore_status> {
    match reason {
        REPLCORE_SKIP_EXPIRED => Ok(SkipReason::Expired),
        REPLCORE_SKIP_DROPPED => Ok(SkipReason::Dropped),
        REPLCORE_SKIP_PURGED => Ok(SkipReason::Purged),
        REPLCORE_SKIP_LOST => Ok(SkipReason::Lost),
        REPLCORE_SKIP_FORGOTTEN => Ok(SkipReason::Forgotten),
        _ => Err(replcore_status::Value),
    }
}

/// Before the first input: gives back what an earlier life ordered to be stored under
/// (`key`, `node`) and not to be forgotten.
///
/// # Safety
/// `machine` is a machine, `data` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_restore(
    machine: *mut replcore_machine,
    key: u32,
    node: u64,
    data: *const u8,
    len: usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (machine, data) = unsafe { (self::machine(machine)?, bytes(data, len)?) };
        let key = match key {
            REPLCORE_KEY_REGISTRATION => Key::Registration(NodeId(node)),
            REPLCORE_KEY_BALLOT => Key::Ballot,
            REPLCORE_KEY_MEMBERS => Key::Members,
            REPLCORE_KEY_TERM => Key::Term(NodeId(node)),
            _ => return Err(replcore_status::Value),
        };
        let restored = match machine {
            Kind::Leaf(leaf) => leaf.restore(key, data),
            #[cfg(feature = "member")]
            Kind::Member(member) => member.restore(key, data),
            #[cfg(feature = "node")]
            Kind::Node(node) => node.restore(key, data),
        };
        restored.map_err(|_| replcore_status::Restore)
    })())
}

/// Time has passed.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_timeout(
    machine: *mut replcore_machine,
    now_us: u64,
) -> replcore_status {
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Timeout)) }
}

/// The link numbered `link` is open. `dialed` is the place that was to be dialled, or
/// REPLCORE_NOT_DIALED; `transport` one of REPLCORE_TRANSPORT_*; `identity` the node that the other
/// end has proved to be, 0 when it proved nothing.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_link_up(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    dialed: u32,
    transport: u32,
    identity: u64,
) -> replcore_status {
    let input = (|| {
        let transport = match transport {
            REPLCORE_TRANSPORT_STREAM => Transport::Stream,
            REPLCORE_TRANSPORT_DATAGRAM => Transport::Datagram,
            _ => return Err(replcore_status::Value),
        };
        let dialed = match dialed {
            REPLCORE_NOT_DIALED => None,
            dial => Some(DialIndex(u16::try_from(dial).map_err(|_| replcore_status::Value)?)),
        };
        let identity = (identity != 0).then_some(NodeId(identity));
        Ok(Input::LinkUp { link: LinkId(link), dialed, transport, identity })
    })();
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// An open link is closed.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_link_down(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
) -> replcore_status {
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::LinkDown { link: LinkId(link) })) }
}

/// The dial numbered `dial` failed before there was a link.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_dial_failed(
    machine: *mut replcore_machine,
    now_us: u64,
    dial: u32,
) -> replcore_status {
    let input = match u16::try_from(dial) {
        Ok(dial) => Ok(Input::DialFailed { dial: DialIndex(dial) }),
        Err(_) => Err(replcore_status::Value),
    };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// Bytes have come on a link: all that were not taken yet, on a datagram link one frame. `*taken`
/// gets how many the machine took; keep the rest in front of what comes next, and offer it again
/// when more comes, and after a drain with an order to take or skip bytes of the link or to resume
/// it. What is left of a datagram is to be thrown away once its orders are done.
///
/// # Safety
/// `machine` is a machine, `data` has `len` bytes, `taken` is writable and does not overlap them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_recv(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    data: *const u8,
    len: usize,
    taken: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (machine, data) = unsafe { (self::machine(machine)?, bytes(data, len)?) };
        // SAFETY: as the caller promises.
        let taken = unsafe { reference_mut(taken) }?;
        let input = Input::Recv { link: LinkId(link), data };
        *taken = take(machine, now_us, input);
        Ok(())
    })())
}

/// The link can take `bytes` bytes more.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_writable(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    bytes: u32,
) -> replcore_status {
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Writable { link: LinkId(link), bytes })) }
}

/// What was to be persisted is safe.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_persisted(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
) -> replcore_status {
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Persisted { token: Token(token) })) }
}

/// What was to be persisted could not be, for `reason`, one of REPLCORE_FAILURE_*.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_failed(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
    reason: u32,
) -> replcore_status {
    let input = failure(reason).map(|reason| Input::Failed { token: Token(token), reason });
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// A frame of records was written: the next starts at `position` and `offset`; `bytes` of records
/// were in it, and it took `wire_bytes` in all.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_sent(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    stream: u32,
    position: u64,
    offset: u32,
    bytes: u32,
    wire_bytes: u32,
) -> replcore_status {
    let input = stream_index(stream).map(|stream| Input::Sent {
        link: LinkId(link),
        stream,
        next: Cursor { position: Position(position), offset },
        bytes,
        wire_bytes,
    });
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// The records to be sent are not there up to `next`, for `reason`, one of REPLCORE_SKIP_*.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_gone(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    stream: u32,
    next: u64,
    reason: u32,
) -> replcore_status {
    let input = stream_index(stream).and_then(|stream| {
        let reason = skip_reason(reason)?;
        Ok(Input::Gone { link: LinkId(link), stream, next: Position(next), reason })
    });
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// Everything of an incoming stream before `position`, and `offset` bytes of the record there, is
/// safe. `bytes` of records are in the orders that this completes.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_taken(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    stream: u32,
    position: u64,
    offset: u32,
    bytes: u32,
) -> replcore_status {
    let input = stream_index(stream).map(|stream| Input::Taken {
        link: LinkId(link),
        stream,
        next: Cursor { position: Position(position), offset },
        bytes,
    });
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// Records could not be kept, for `reason`, one of REPLCORE_FAILURE_*.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_refused(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    stream: u32,
    reason: u32,
) -> replcore_status {
    let input = stream_index(stream).and_then(|stream| {
        let reason = failure(reason)?;
        Ok(Input::Refused { link: LinkId(link), stream, reason })
    });
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// An own queue that `link` asked for has grown: `next` entries were ever in it.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_appended(
    machine: *mut replcore_machine,
    now_us: u64,
    link: u32,
    stream: u32,
    next: u64,
) -> replcore_status {
    let input = stream_index(stream).map(|stream| Input::Appended {
        link: LinkId(link),
        stream,
        next: Position(next),
    });
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, input) }
}

/// The answer to ASK_INBOUND: the last epoch in which something of that owner, queue and class was
/// taken (the one asked for when nothing was), and how far.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_answer_inbound(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
    epoch: u32,
    position: u64,
    offset: u32,
) -> replcore_status {
    let cursor = Cursor { position: Position(position), offset };
    let answer = Answer::Inbound { epoch: Epoch(epoch), cursor };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Answer { token: Token(token), answer })) }
}

/// The answer to ASK_OUTBOUND: the epoch of the log, the first entry that is not acknowledged, how
/// many entries were ever in the queue, and from which entry on (`sent`) nobody else can have one in
/// this life of the log: those before were acknowledged, read from the queue since the log was opened,
/// or answered as a place. A program that cannot tell gives `next` for it.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_answer_outbound(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
    epoch: u32,
    released: u64,
    next: u64,
    sent: u64,
) -> replcore_status {
    let answer = Answer::Outbound {
        epoch: Epoch(epoch),
        released: Position(released),
        next: Position(next),
        sent: Position(sent),
    };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Answer { token: Token(token), answer })) }
}

/// The answer to ASK_PLACE: the reader goes on at `position`.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_answer_place(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
    position: u64,
) -> replcore_status {
    let answer = Answer::Place { position: Position(position) };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Answer { token: Token(token), answer })) }
}

/// The answer to ASK_SUBSCRIBE: the consumer exists now, and the client reads its queue.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_answer_subscribed(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
) -> replcore_status {
    let input = Input::Answer { token: Token(token), answer: Answer::Subscribed };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(input)) }
}

/// The answer to ASK_SUBSCRIBE of a program without consumers, or without room for one more; and to
/// ASK_OUTBOUND of one that has no room for the queue.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_handle_answer_denied(
    machine: *mut replcore_machine,
    now_us: u64,
    token: u64,
) -> replcore_status {
    let input = Input::Answer { token: Token(token), answer: Answer::Denied };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(input)) }
}
