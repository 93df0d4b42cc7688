//! What a machine orders.

use replcore_core::contract::{Key, Machine as _, Output, Query, SkipReason};
use replcore_core::time::Instant;

use super::check::{bytes_mut, reference_mut};
use super::machine::{
    Kind, REPLCORE_KEY_BALLOT, REPLCORE_KEY_MEMBERS, REPLCORE_KEY_REGISTRATION, REPLCORE_KEY_TERM,
    REPLCORE_NEVER, REPLCORE_SKIP_DROPPED, REPLCORE_SKIP_EXPIRED, REPLCORE_SKIP_FORGOTTEN,
    REPLCORE_SKIP_LOST, REPLCORE_SKIP_PURGED,
};
use super::status::status;
use super::{replcore_machine, replcore_status};

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
    /// The stream of `node`, `queue`, `message_class` and `epoch` goes on at `position`, whatever was
    /// noted of it before: its owner has begun a new life of its log. Make that durable and answer
    /// replcore_handle_taken, or replcore_handle_refused.
    Place = 9,
    /// How far was the stream of `node`, `queue`, `message_class` and `epoch` taken? Answer
    /// replcore_handle_answer_inbound with `token`.
    AskInbound = 10,
    /// What does the own queue `queue` and class `message_class`, whose name is the first `len`
    /// bytes of the buffer, hold? Answer replcore_handle_answer_outbound with `token`; from then
    /// on until the link is down tell its growth by replcore_handle_appended for `link` and
    /// `stream`.
    AskOutbound = 11,
    /// May the client of `link` read `queue` as the consumer in the buffer, which
    /// replcore_subscribe_read reads? Answer replcore_handle_answer_subscribed or
    /// replcore_handle_answer_denied with `token`.
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
    /// Where does a reader of the own queue `queue` and class `message_class` go on that was
    /// `position` far in the life `epoch` of this log, or in a copy of it that is gone? Ask
    /// replcore_place_after and answer replcore_handle_answer_place with `token`.
    AskPlace = 21,
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
    /// A place to dial, by its number: of a node in the order of its configuration, of a member see
    /// replcore_member_dial_target.
    pub dial: u32,
    /// What a persisted record is about, one of REPLCORE_KEY_*.
    pub key: u32,
}

const _: () = assert!(size_of::<replcore_output>() == 104);

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
        let (machine, buf) = unsafe { (super::machine::machine(machine)?, bytes_mut(buf, cap)?) };
        // SAFETY: as the caller promises.
        let output = unsafe { reference_mut(output) }?;
        *output = match machine {
            Kind::Leaf(leaf) => flatten(leaf.poll(buf), buf, super::leaf::event),
            #[cfg(feature = "member")]
            Kind::Member(member) => flatten(member.poll(buf), buf, super::member::event),
            #[cfg(feature = "node")]
            Kind::Node(node) => flatten(node.poll(buf), buf, super::node::event),
        };
        Ok(())
    })())
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

fn flatten<E>(
    output: Output<E>,
    buf: &mut [u8],
    of_event: fn(E) -> replcore_output,
) -> replcore_output {
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
        Output::Place { link, stream, source, position } => replcore_output {
            link: link.0,
            stream: stream.0.into(),
            position: position.0,
            ..of_source(kind::Place, source)
        },
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
        Output::Event { event, len } => replcore_output { len: len as u32, ..of_event(event) },
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
        Query::Place { queue, epoch, position } => replcore_output {
            kind: kind::AskPlace as u32,
            queue: queue.queue.0,
            message_class: queue.class.into(),
            epoch: epoch.0,
            position: position.0,
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
    let (key, node) = match key {
        Key::Registration(node) => (REPLCORE_KEY_REGISTRATION, node.0),
        Key::Ballot => (REPLCORE_KEY_BALLOT, 0),
        Key::Members => (REPLCORE_KEY_MEMBERS, 0),
        Key::Term(hub) => (REPLCORE_KEY_TERM, hub.0),
    };
    replcore_output { kind: kind as u32, node, key, ..Default::default() }
}
