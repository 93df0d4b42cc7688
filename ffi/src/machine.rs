//! Driving a machine: one function for each input, one to poll.

use replcore_core::contract::{
    Answer, DialIndex, Failure, Input, Key, LinkId, Machine, Output, Query, SkipReason,
    StreamIndex, Token, Transport,
};
use replcore_core::leaf::Leaf;
use replcore_core::stream::{Cursor, Epoch, NodeId, Position};
use replcore_core::time::Instant;

use crate::check::{bytes, bytes_mut, reference_mut};
use crate::replcore_status;
use crate::status::status;

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
/// The key of a persisted record: the registration at the node in `node`.
pub const REPLCORE_KEY_REGISTRATION: u32 = 1;

/// What a machine orders. An unknown kind comes from a later library: stop, do not pass over it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_output_kind {
    /// Nothing more now; call replcore_handle_timeout at `next` (microseconds, REPLCORE_NEVER).
    Idle = 0,
    /// Write the first `len` bytes of the buffer, one frame, to `link`.
    Send = 1,
    /// Write one frame of records to `link`: a head by replcore_records_head with `stream` and
    /// `round`, then whole records of the own queue `queue` and class `message_class` from
    /// `position` and `offset` on, or a part of one, at most `bytes_max` bytes of them. Answer
    /// replcore_handle_sent or replcore_handle_gone.
    SendRecords = 2,
    /// Take the next `len` bytes of `link`: records from `position` and `offset` on, of the stream
    /// of `node`, `queue`, `message_class` and `epoch`; `completed` whole ones and `tail_bytes` of
    /// one more; compressed when `raw_bytes` is not 0. Keep them, then answer
    /// replcore_handle_taken, or replcore_handle_refused.
    TakeRecords = 3,
    /// Entries `position` up to and without `next` of the stream of `node`, `queue`,
    /// `message_class` and `epoch` will not come, for `reason`. Answer replcore_handle_taken.
    TakeSkip = 4,
    /// Throw away the next `len` bytes of `link`.
    SkipBytes = 5,
    /// Take the next `len` bytes of `link`: a call (`reason` 0) or a reply (1) of number `token`.
    TakeCall = 6,
    /// Entries of the own queue `queue` and class `message_class` before `position` are
    /// acknowledged and no longer needed.
    Release = 7,
    /// Move the entry at `position` of `queue` and `message_class` to its dead letters.
    DeadLetter = 8,
    /// Take the epoch `epoch`, give every record that is not acknowledged a new identity, start all
    /// own queues anew, make that durable, close every link, and answer replcore_handle_persisted
    /// with `token`.
    Renumber = 9,
    /// How far was the stream of `node`, `queue`, `message_class` and `epoch` taken? Answer
    /// replcore_handle_answer_inbound with `token`.
    AskInbound = 10,
    /// What does the own queue `queue` and class `message_class`, whose name is the first `len`
    /// bytes of the buffer, hold? Answer replcore_handle_answer_outbound with `token`; from then
    /// on until the link is down tell its growth by replcore_handle_appended for `link` and
    /// `stream`.
    AskOutbound = 11,
    /// May the client of `link` read `queue` as the consumer in the buffer? Answer
    /// replcore_handle_answer_denied with `token`, unless the program has consumers.
    AskSubscribe = 12,
    /// Open a link to the place numbered `dial`; then replcore_handle_link_up or
    /// replcore_handle_dial_failed.
    Dial = 13,
    /// Close `link` once what was written is out; then replcore_handle_link_down.
    Hangup = 14,
    /// Offer the bytes of `link` that were not taken again.
    Resume = 15,
    /// Store the first `len` bytes of the buffer under (`key`, `node`) in place of what it held; then
    /// replcore_handle_persisted or replcore_handle_failed with `token`.
    Persist = 16,
    /// Remove what is stored under (`key`, `node`).
    Forget = 17,
    /// Something happened; the meaning of `event` and the other fields is with the machine's kind.
    Event = 18,
    /// The buffer is too small; nothing is lost. Poll again with `len` bytes.
    NeedBuffer = 19,
    /// A broken invariant, described by the first `len` bytes of the buffer. The machine does
    /// nothing more.
    Halted = 20,
}

/// What replcore_poll found. No pointers: the same layout everywhere, 104 bytes. Which fields mean
/// something is with each kind; the others are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_output {
    /// One of REPLCORE_OUTPUT_KIND_*.
    pub kind: u32,
    /// Bytes.
    pub len: u32,
    /// A link.
    pub link: u32,
    /// A stream of that link.
    pub stream: u32,
    /// For the answer.
    pub token: u64,
    /// A node.
    pub node: u64,
    /// A queue.
    pub queue: u64,
    /// A place in a stream.
    pub position: u64,
    /// The end of a range, or a time in microseconds.
    pub next: u64,
    /// Bytes of the record at `position` that were there before.
    pub offset: u32,
    /// A class, 0 to 3.
    pub message_class: u32,
    /// An epoch.
    pub epoch: u32,
    /// Most bytes of records.
    pub bytes_max: u32,
    /// Records that are complete.
    pub completed: u32,
    /// Bytes of one more record.
    pub tail_bytes: u32,
    /// Bytes before compression.
    pub raw_bytes: u32,
    /// The round of a frame of records.
    pub round: u32,
    /// Why, or which of two.
    pub reason: u32,
    /// What happened.
    pub event: u32,
    /// A place to dial, by its number in the configuration.
    pub dial: u32,
    /// What a persisted record is about, one of REPLCORE_KEY_*.
    pub key: u32,
}

const _: () = assert!(size_of::<replcore_output>() == 104);

/// A machine, in memory of the program. May be used from one thread at a time; different machines
/// are independent, and the library has no global state. Nothing is to be freed: when it is done
/// with, the memory may be used for something else.
pub struct replcore_machine {
    magic: u64,
    pub(crate) leaf: Leaf,
}

const MAGIC: u64 = u64::from_le_bytes(*b"replcore");

impl replcore_machine {
    pub(crate) const fn of_leaf(leaf: Leaf) -> Self {
        Self { magic: MAGIC, leaf }
    }
}

/// The machine behind a pointer of the program.
///
/// # Safety
/// A `machine` that is not null is what an init function gave, or at least 8 readable bytes, and
/// nobody else uses it meanwhile.
pub(crate) unsafe fn machine<'a>(
    machine: *mut replcore_machine,
) -> Result<&'a mut replcore_machine, replcore_status> {
    if machine.is_null() {
        return Err(replcore_status::Null);
    }
    // SAFETY: not null, aligned where it is read, and the first field is the magic number's, as the
    // layout below asserts.
    if !machine.is_aligned() || unsafe { (&raw const (*machine).magic).read() } != MAGIC {
        return Err(replcore_status::Kind);
    }
    // SAFETY: it carries the number that only an init function writes.
    unsafe { reference_mut(machine) }
}

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
        machine.leaf.handle(Instant::from_micros(now_us), input?);
        Ok(())
    })())
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

const fn skip_number(reason: SkipReason) -> u32 {
    match reason {
        SkipReason::Expired => REPLCORE_SKIP_EXPIRED,
        SkipReason::Dropped => REPLCORE_SKIP_DROPPED,
        SkipReason::Purged => REPLCORE_SKIP_PURGED,
        SkipReason::Lost => REPLCORE_SKIP_LOST,
        SkipReason::Forgotten => REPLCORE_SKIP_FORGOTTEN,
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
        if key != REPLCORE_KEY_REGISTRATION {
            return Err(replcore_status::Value);
        }
        let key = Key::Registration(NodeId(node));
        machine.leaf.restore(key, data).map_err(|_| replcore_status::Restore)
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
        *taken = machine.leaf.handle(Instant::from_micros(now_us), input);
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

/// What was to be persisted or renumbered is safe.
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

/// The answer to ASK_INBOUND: the greatest epoch known of that owner, queue and class (the one
/// asked for when none is), and how far the stream was taken in it.
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

/// The answer to ASK_OUTBOUND: the epoch of the log, the first entry that is not acknowledged, and
/// how many entries were ever in the queue.
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
) -> replcore_status {
    let answer = Answer::Outbound {
        epoch: Epoch(epoch),
        released: Position(released),
        next: Position(next),
        sent: Position(next),
    };
    // SAFETY: as the caller promises.
    unsafe { give(machine, now_us, Ok(Input::Answer { token: Token(token), answer })) }
}

/// The answer to ASK_SUBSCRIBE of a program without consumers.
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

/// The next thing to do; IDLE when there is none. The bytes that go with it are in `buf` until the
/// next call. 512 bytes are always enough.
///
/// # Safety
/// `machine` is a machine, `buf` has `cap` bytes, `output` is writable; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_poll(
    machine: *mut replcore_machine,
    buf: *mut u8,
    cap: usize,
    output: *mut replcore_output,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (machine, buf) = unsafe { (self::machine(machine)?, bytes_mut(buf, cap)?) };
        // SAFETY: as the caller promises.
        let output = unsafe { reference_mut(output) }?;
        let next = machine.leaf.poll(buf);
        *output = flatten(next, buf);
        Ok(())
    })())
}

fn flatten(output: Output<replcore_core::leaf::LeafEvent>, buf: &mut [u8]) -> replcore_output {
    use replcore_output_kind as kind;
    let with = |kind: kind| replcore_output { kind: kind as u32, ..Default::default() };
    match output {
        Output::Idle { wake } => replcore_output {
            next: wake.map_or(REPLCORE_NEVER, Instant::as_micros),
            ..with(kind::Idle)
        },
        Output::Send { link, len } => {
            replcore_output { link: link.0, len: len as u32, ..with(kind::Send) }
        }
        Output::SendRecords { link, stream, queue, first, bytes_max, round } => replcore_output {
            link: link.0,
            stream: stream.0.into(),
            queue: queue.queue.0,
            message_class: queue.class.into(),
            position: first.position.0,
            offset: first.offset,
            bytes_max,
            round: round.into(),
            ..with(kind::SendRecords)
        },
        Output::TakeRecords { link, stream, source, records, len } => replcore_output {
            link: link.0,
            stream: stream.0.into(),
            position: records.first.position.0,
            offset: records.first.offset,
            completed: records.completed,
            tail_bytes: records.tail_bytes,
            raw_bytes: records.raw_bytes,
            round: records.round.into(),
            len,
            ..of_source(kind::TakeRecords, source)
        },
        Output::TakeSkip { link, stream, source, first, next, reason } => replcore_output {
            link: link.0,
            stream: stream.0.into(),
            position: first.0,
            next: next.0,
            reason: skip_number(reason),
            ..of_source(kind::TakeSkip, source)
        },
        Output::SkipBytes { link, len } => {
            replcore_output { link: link.0, len, ..with(kind::SkipBytes) }
        }
        Output::TakeCall { link, id, reply, len } => replcore_output {
            link: link.0,
            token: id.into(),
            reason: reply.into(),
            len,
            ..with(kind::TakeCall)
        },
        Output::Release { queue, through } => replcore_output {
            queue: queue.queue.0,
            message_class: queue.class.into(),
            position: through.0,
            ..with(kind::Release)
        },
        Output::DeadLetter { queue, position } => replcore_output {
            queue: queue.queue.0,
            message_class: queue.class.into(),
            position: position.0,
            ..with(kind::DeadLetter)
        },
        Output::Renumber { epoch, token } => {
            replcore_output { epoch: epoch.0, token: token.0, ..with(kind::Renumber) }
        }
        Output::Ask { token, query, len } => {
            replcore_output { token: token.0, len: len as u32, ..ask(query) }
        }
        Output::Dial { dial } => replcore_output { dial: dial.0.into(), ..with(kind::Dial) },
        Output::Hangup { link } => replcore_output { link: link.0, ..with(kind::Hangup) },
        Output::Resume { link } => replcore_output { link: link.0, ..with(kind::Resume) },
        Output::Persist { key, token, len } => {
            replcore_output { token: token.0, len: len as u32, ..of_key(kind::Persist, key) }
        }
        Output::Forget { key } => of_key(kind::Forget, key),
        Output::Event { event, len } => {
            replcore_output { len: len as u32, ..crate::leaf::event(event) }
        }
        Output::NeedBuffer { len } => replcore_output { len: len as u32, ..with(kind::NeedBuffer) },
        Output::Halted { reason } => {
            let len = reason.len().min(buf.len());
            buf[..len].copy_from_slice(&reason.as_bytes()[..len]);
            replcore_output { len: len as u32, ..with(kind::Halted) }
        }
    }
}

fn ask(query: Query) -> replcore_output {
    use replcore_output_kind as kind;
    match query {
        Query::Inbound(source) => of_source(kind::AskInbound, source),
        Query::Outbound { link, stream, queue } => replcore_output {
            kind: kind::AskOutbound as u32,
            link: link.0,
            stream: stream.0.into(),
            queue: queue.queue.0,
            message_class: queue.class.into(),
            ..Default::default()
        },
        Query::Subscribe { link, queue } => replcore_output {
            kind: kind::AskSubscribe as u32,
            link: link.0,
            queue: queue.0,
            ..Default::default()
        },
    }
}

fn of_source(
    kind: replcore_output_kind,
    source: replcore_core::stream::StreamKey,
) -> replcore_output {
    replcore_output {
        kind: kind as u32,
        node: source.owner.0,
        queue: source.queue.queue.0,
        message_class: source.queue.class.into(),
        epoch: source.epoch.0,
        ..Default::default()
    }
}

fn of_key(kind: replcore_output_kind, key: Key) -> replcore_output {
    // A leaf stores nothing else.
    let Key::Registration(node) = key else {
        return replcore_output { kind: kind as u32, ..Default::default() };
    };
    replcore_output {
        kind: kind as u32,
        node: node.0,
        key: REPLCORE_KEY_REGISTRATION,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::null_mut;

    use super::*;
    use crate::{replcore_leaf_config, replcore_leaf_init, replcore_leaf_memory};

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
        let mut memory = vec![0; size_of::<replcore_machine>() - 1];
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
}
