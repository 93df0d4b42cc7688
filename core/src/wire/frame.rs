//! Frames: header, checks, and the two kinds whose body the driver moves.

use core::fmt;

use super::message::Control;
use super::payload::{Payload, Reader, Writer};
use crate::log::{crc32c_of_frame, u32_at, u64_at};
use crate::stream::{Cursor, Position};

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 12;
/// Longest control frame, header included. A machine's poll buffer of this size always does.
pub const CONTROL_FRAME_BYTES_MAX: usize = 512;
/// The least that a node may give as its longest frame.
pub const FRAME_BYTES_MIN: u32 = CONTROL_FRAME_BYTES_MAX as u32;
/// The most that a node may give as its longest frame.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a frame of records before the records.
pub const RECORDS_OVERHEAD_BYTES: usize = HEADER_BYTES + RECORDS_FIXED_BYTES;

const RECORDS_FIXED_BYTES: usize = 28;
const CALL_FIXED_BYTES: usize = 4;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const REFUSE: u8 = 2;
    pub(super) const REGISTER: u8 = 3;
    pub(super) const LEASE: u8 = 4;
    pub(super) const SUBSCRIBE: u8 = 5;
    pub(super) const OPEN: u8 = 6;
    pub(super) const RESUME: u8 = 7;
    pub(super) const ACK: u8 = 8;
    pub(super) const SKIP: u8 = 9;
    pub(super) const REJECT: u8 = 10;
    pub(super) const PING: u8 = 11;
    pub(super) const PONG: u8 = 12;
    pub(super) const BYE: u8 = 13;
    pub(super) const CLUSTER: u8 = 14;
    pub(super) const VOTE_REQUEST: u8 = 15;
    pub(super) const VOTE_ANSWER: u8 = 16;
    pub(super) const HEARTBEAT: u8 = 17;
    pub(super) const HEARTBEAT_ANSWER: u8 = 18;
    pub(super) const MEMBERS: u8 = 19;
    pub(super) const HAND_OVER: u8 = 20;
    pub(super) const GOSSIP: u8 = 21;
    pub(super) const DIGEST: u8 = 22;
    pub(super) const ENTRY: u8 = 23;
    pub(super) const PROBE: u8 = 24;
    pub(super) const PROBE_ANSWER: u8 = 25;
    pub(super) const ASK: u8 = 26;
    pub(super) const STATUS: u8 = 27;
    pub(super) const TERM_LEASE: u8 = 28;
    pub(super) const REDIRECT: u8 = 29;
    pub(super) const RECORDS: u8 = 32;
    pub(super) const CALL: u8 = 33;
    pub(super) const REPLY: u8 = 34;
}

/// The fixed part of a frame of records.
///
/// ```text
/// 12  u64  position of the first record
/// 20  u32  bytes of the first record that were sent before
/// 24  u32  records that this frame completes
/// 28  u32  bytes of one further record that this frame begins or carries on, 0 for none
/// 32  u32  bytes of the records before compression; 0 when they are not compressed
/// 36  u8   round of the resume that this frame answers to, then 3 zero bytes
/// 40       the records
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Records {
    /// Where the bytes start.
    pub first: Cursor,
    /// Records that are complete with them.
    pub completed: u32,
    /// Bytes of one more record, begun or carried on and not complete.
    pub tail_bytes: u32,
    /// Bytes before compression; 0 when not compressed.
    pub raw_bytes: u32,
    /// The round of the resume that this frame answers to.
    pub round: u8,
}

impl Records {
    /// Where the stream goes on after this frame.
    pub const fn next(&self) -> Cursor {
        let carried = if self.completed == 0 { self.first.offset } else { 0 };
        Cursor {
            position: Position(self.first.position.0.saturating_add(self.completed as u64)),
            offset: carried.saturating_add(self.tail_bytes),
        }
    }
}

/// The fixed part of a call or a reply: what pairs the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Call {
    /// Pairs a reply with its call.
    pub id: u32,
    /// Whether it is the reply.
    pub reply: bool,
}

/// A frame, as far as a machine looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Frame<'a> {
    /// A whole control frame.
    Control {
        /// The stream it is about, for kinds that have one.
        stream: u8,
        /// What it says.
        control: Control<'a>,
    },
    /// The head of a frame of records; `len` bytes follow it.
    Records {
        /// The stream.
        stream: u8,
        /// The fixed part.
        records: Records,
        /// Bytes that follow.
        len: u32,
    },
    /// The head of a call; `len` bytes follow it.
    Call {
        /// The fixed part.
        call: Call,
        /// Bytes that follow.
        len: u32,
    },
}

/// What is wrong with bytes that should be a frame. Counted by kind; costs the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than the limit, or too short for its type.
    Length,
    /// The checksum does not match.
    Checksum,
    /// No such type in this version.
    Type(u8),
    /// The payload does not decode.
    Payload,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("length out of range"),
            Self::Checksum => f.write_str("checksum does not match"),
            Self::Type(number) => write!(f, "unknown type {number}"),
            Self::Payload => f.write_str("payload does not decode"),
        }
    }
}

impl core::error::Error for FrameError {}

/// The frame at the start of `bytes` and how many of them it takes: all of a control frame, the
/// head of the others. `Ok(None)` when more bytes are needed. `frame_bytes_max` is the limit that
/// this side announced.
pub fn decode(
    bytes: &[u8],
    frame_bytes_max: u32,
) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    decode_as(bytes, frame_bytes_max, read_control)
}

/// The same for who is no member of a cluster: what only members say is of no known type. Its code is
/// not part of a leaf.
pub(crate) fn decode_of_link(
    bytes: &[u8],
    frame_bytes_max: u32,
) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    decode_as(bytes, frame_bytes_max, read_control_of_link)
}

fn decode_as<'a>(
    bytes: &'a [u8],
    frame_bytes_max: u32,
    read_control: impl FnOnce(u8, &mut Reader<'a>) -> Option<Control<'a>>,
) -> Result<Option<(Frame<'a>, usize)>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let payload = u32_at(head, 0);
    let (number, stream) = (head[4], head[5]);
    let fixed = match number {
        kind::RECORDS => RECORDS_FIXED_BYTES,
        kind::CALL | kind::REPLY => CALL_FIXED_BYTES,
        _ => payload as usize,
    };
    let limit =
        if number < kind::RECORDS { CONTROL_FRAME_BYTES_MAX as u32 } else { frame_bytes_max };
    if payload.saturating_add(HEADER_BYTES as u32) > limit || (payload as usize) < fixed {
        return Err(FrameError::Length);
    }
    let Some(body) = rest.get(..fixed) else {
        return Ok(None);
    };
    if sum(head, body) != u32_at(head, 8) {
        return Err(FrameError::Checksum);
    }
    let len = payload - fixed as u32;
    let frame = match number {
        kind::RECORDS => Frame::Records { stream, records: decode_records(body), len },
        kind::CALL | kind::REPLY => {
            Frame::Call { call: Call { id: u32_at(body, 0), reply: number == kind::REPLY }, len }
        }
        _ => {
            let mut payload = Reader::new(body);
            let control = read_control(number, &mut payload).ok_or(FrameError::Type(number))?;
            if !payload.is_done() {
                return Err(FrameError::Payload);
            }
            Frame::Control { stream, control }
        }
    };
    Ok(Some((frame, HEADER_BYTES + fixed)))
}

fn decode_records(body: &[u8]) -> Records {
    // Of known length, so that no field asks for it again.
    let mut fixed = [0; RECORDS_FIXED_BYTES];
    fixed.copy_from_slice(body);
    let fixed = &fixed;
    Records {
        first: Cursor { position: Position(u64_at(fixed, 0)), offset: u32_at(fixed, 8) },
        completed: u32_at(fixed, 12),
        tail_bytes: u32_at(fixed, 16),
        raw_bytes: u32_at(fixed, 20),
        round: fixed[24],
    }
}

/// Reads a control frame of a type; `None` when there is no such type.
fn read_control<'a>(number: u8, payload: &mut Reader<'a>) -> Option<Control<'a>> {
    Some(match number {
        kind::CLUSTER => Control::Cluster(Payload::read(payload)),
        kind::VOTE_REQUEST => Control::VoteRequest(Payload::read(payload)),
        kind::VOTE_ANSWER => Control::VoteAnswer(Payload::read(payload)),
        kind::HEARTBEAT => Control::Heartbeat(Payload::read(payload)),
        kind::HEARTBEAT_ANSWER => Control::HeartbeatAnswer(Payload::read(payload)),
        kind::MEMBERS => Control::Members(Payload::read(payload)),
        kind::HAND_OVER => Control::HandOver(Payload::read(payload)),
        kind::GOSSIP => Control::Gossip(Payload::read(payload)),
        kind::DIGEST => Control::Digest(Payload::read(payload)),
        kind::ENTRY => Control::Entry(Payload::read(payload)),
        kind::PROBE => Control::Probe(Payload::read(payload)),
        kind::PROBE_ANSWER => Control::ProbeAnswer(Payload::read(payload)),
        kind::ASK => Control::Ask(Payload::read(payload)),
        kind::STATUS => Control::Status(Payload::read(payload)),
        _ => return read_control_of_link(number, payload),
    })
}

fn read_control_of_link<'a>(number: u8, payload: &mut Reader<'a>) -> Option<Control<'a>> {
    Some(match number {
        kind::HELLO => Control::Hello(Payload::read(payload)),
        kind::REFUSE => Control::Refuse(Payload::read(payload)),
        kind::REGISTER => Control::Register(Payload::read(payload)),
        kind::LEASE => Control::Lease(Payload::read(payload)),
        kind::SUBSCRIBE => Control::Subscribe(Payload::read(payload)),
        kind::OPEN => Control::Open(Payload::read(payload)),
        kind::RESUME => Control::Resume(Payload::read(payload)),
        kind::ACK => Control::Ack(Payload::read(payload)),
        kind::SKIP => Control::Skip(Payload::read(payload)),
        kind::REJECT => Control::Reject(Payload::read(payload)),
        kind::PING => Control::Ping(Payload::read(payload)),
        kind::PONG => Control::Pong(Payload::read(payload)),
        kind::BYE => Control::Bye(Payload::read(payload)),
        kind::TERM_LEASE => Control::TermLease(Payload::read(payload)),
        kind::REDIRECT => Control::Redirect(Payload::read(payload)),
        _ => return None,
    })
}

impl Control<'_> {
    /// The number of the frame type that carries it.
    pub const fn type_number(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Refuse(_) => kind::REFUSE,
            Self::Register(_) => kind::REGISTER,
            Self::Lease(_) => kind::LEASE,
            Self::Subscribe(_) => kind::SUBSCRIBE,
            Self::Open(_) => kind::OPEN,
            Self::Resume(_) => kind::RESUME,
            Self::Ack(_) => kind::ACK,
            Self::Skip(_) => kind::SKIP,
            Self::Reject(_) => kind::REJECT,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::Bye(_) => kind::BYE,
            Self::Cluster(_) => kind::CLUSTER,
            Self::VoteRequest(_) => kind::VOTE_REQUEST,
            Self::VoteAnswer(_) => kind::VOTE_ANSWER,
            Self::Heartbeat(_) => kind::HEARTBEAT,
            Self::HeartbeatAnswer(_) => kind::HEARTBEAT_ANSWER,
            Self::Members(_) => kind::MEMBERS,
            Self::HandOver(_) => kind::HAND_OVER,
            Self::Gossip(_) => kind::GOSSIP,
            Self::Digest(_) => kind::DIGEST,
            Self::Entry(_) => kind::ENTRY,
            Self::Probe(_) => kind::PROBE,
            Self::ProbeAnswer(_) => kind::PROBE_ANSWER,
            Self::Ask(_) => kind::ASK,
            Self::Status(_) => kind::STATUS,
            Self::TermLease(_) => kind::TERM_LEASE,
            Self::Redirect(_) => kind::REDIRECT,
        }
    }
}

/// Writes a control frame into `buf` and returns its length; `None` when `buf` is too short.
pub fn encode_control(stream: u8, control: &Control<'_>, buf: &mut [u8]) -> Option<usize> {
    encode_control_of_member(stream, control, buf).ok()
}

/// The same, with the length that it takes when `buf` is too short.
pub(crate) fn encode_control_of_member(
    stream: u8,
    control: &Control<'_>,
    buf: &mut [u8],
) -> Result<usize, usize> {
    encode_as(stream, control, buf, write_control)
}

/// The same for who is no member of a cluster, and says nothing that only members say. That code is
/// not part of a leaf.
pub(crate) fn encode_control_of_link(
    stream: u8,
    control: &Control<'_>,
    buf: &mut [u8],
) -> Result<usize, usize> {
    encode_as(stream, control, buf, write_control_of_link)
}

fn encode_as(
    stream: u8,
    control: &Control<'_>,
    buf: &mut [u8],
    write_control: impl FnOnce(&Control<'_>, &mut Writer<'_>),
) -> Result<usize, usize> {
    let mut payload = Writer::new(buf.get_mut(HEADER_BYTES..).unwrap_or_default());
    write_control(control, &mut payload);
    let payload = payload.finish().map_err(|payload| HEADER_BYTES + payload)?;
    write_header(payload as u32, control.type_number(), stream, payload, buf);
    Ok(HEADER_BYTES + payload)
}

fn write_control(control: &Control<'_>, payload: &mut Writer<'_>) {
    match control {
        Control::Ask(number) => number.write(payload),
        Control::Cluster(cluster) => cluster.write(payload),
        Control::VoteRequest(request) => request.write(payload),
        Control::VoteAnswer(answer) => answer.write(payload),
        Control::Heartbeat(heartbeat) => heartbeat.write(payload),
        Control::HeartbeatAnswer(answer) => answer.write(payload),
        Control::Members(members) => members.write(payload),
        Control::HandOver(term) => term.write(payload),
        Control::Gossip(gossip) => gossip.write(payload),
        Control::Digest(digest) => digest.write(payload),
        Control::Entry(entry) => entry.write(payload),
        Control::Probe(probe) => probe.write(payload),
        Control::ProbeAnswer(answer) => answer.write(payload),
        Control::Status(status) => status.write(payload),
        of_link => write_control_of_link(of_link, payload),
    }
}

fn write_control_of_link(control: &Control<'_>, payload: &mut Writer<'_>) {
    match control {
        Control::Hello(hello) => hello.write(payload),
        Control::Refuse(refuse) => refuse.write(payload),
        Control::Register(register) => register.write(payload),
        Control::Lease(lease) => lease.write(payload),
        Control::Subscribe(subscribe) => subscribe.write(payload),
        Control::Open(open) => open.write(payload),
        Control::Resume(resume) => resume.write(payload),
        Control::Ack(ack) => ack.write(payload),
        Control::Skip(skip) => skip.write(payload),
        Control::Reject(reject) => reject.write(payload),
        Control::Ping(number) | Control::Pong(number) => number.write(payload),
        Control::Bye(bye) => bye.write(payload),
        Control::TermLease(lease) => lease.write(payload),
        Control::Redirect(redirect) => redirect.write(payload),
        _ => unreachable!("a link says nothing of this type"),
    }
}

/// The head of a frame with `len` bytes of records, for the driver to write before them.
pub fn records_header(stream: u8, records: &Records, len: u32) -> [u8; RECORDS_OVERHEAD_BYTES] {
    let mut head = [0; RECORDS_OVERHEAD_BYTES];
    let fixed = &mut head[HEADER_BYTES..];
    fixed[0..8].copy_from_slice(&records.first.position.0.to_le_bytes());
    fixed[8..12].copy_from_slice(&records.first.offset.to_le_bytes());
    fixed[12..16].copy_from_slice(&records.completed.to_le_bytes());
    fixed[16..20].copy_from_slice(&records.tail_bytes.to_le_bytes());
    fixed[20..24].copy_from_slice(&records.raw_bytes.to_le_bytes());
    fixed[24] = records.round;
    let payload = len + RECORDS_FIXED_BYTES as u32;
    write_header(payload, kind::RECORDS, stream, RECORDS_FIXED_BYTES, &mut head);
    head
}

/// The head of a call or reply with `len` bytes, for the driver to write before them.
pub fn call_header(call: Call, len: u32) -> [u8; HEADER_BYTES + CALL_FIXED_BYTES] {
    let mut head = [0; HEADER_BYTES + CALL_FIXED_BYTES];
    head[HEADER_BYTES..].copy_from_slice(&call.id.to_le_bytes());
    let number = if call.reply { kind::REPLY } else { kind::CALL };
    write_header(len + CALL_FIXED_BYTES as u32, number, 0, CALL_FIXED_BYTES, &mut head);
    head
}

/// Writes the header of a frame, of which `covered` bytes stand behind it already.
fn write_header(payload: u32, number: u8, stream: u8, covered: usize, frame: &mut [u8]) {
    let [a, b, c, d] = payload.to_le_bytes();
    let start = [a, b, c, d, number, stream, 0, 0];
    frame[..8].copy_from_slice(&start);
    let crc = crc32c_of_frame(start, &frame[HEADER_BYTES..HEADER_BYTES + covered]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum that a frame with this header and these bytes behind it has.
fn sum(head: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    let mut start = [0; 8];
    start.copy_from_slice(&head[..8]);
    crc32c_of_frame(start, body)
}

#[cfg(test)]
mod tests {
    use super::super::message::*;
    use super::*;

    fn frame(control: Control<'_>) -> std::vec::Vec<u8> {
        let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
        let length = encode_control(3, &control, &mut buf).unwrap();
        buf[..length].to_vec()
    }

    #[test]
    fn a_control_frame_reads_back_and_needs_all_its_bytes() {
        let name = "n".repeat(63);
        let hello = Control::Hello(Hello {
            magic: *b"RPLC",
            version_min: 1,
            version_max: 1,
            role: Role::Leaf,
            features: FEATURES,
            name: name.as_str().into(),
            instance: u64::MAX,
            epoch: u32::MAX,
            frame_bytes_max: u32::MAX,
            keepalive_ms: u32::MAX,
            session: u32::MAX,
        });
        let bytes = frame(hello);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 4096), Ok(None));
        }
        let expected = Frame::Control { stream: 3, control: hello };
        assert_eq!(decode(&bytes, 4096), Ok(Some((expected, bytes.len()))));
    }

    #[test]
    fn every_flipped_bit_of_a_control_frame_is_noticed() {
        let bytes = frame(Control::Ack(Ack {
            position: 7,
            level: Level::Synced,
            credit_bytes: 1 << 20,
            round: 1,
        }));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&damaged, 4096), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn the_head_of_records_reads_back_without_its_body() {
        let records = Records {
            first: Cursor { position: Position(9), offset: 4 },
            completed: 2,
            tail_bytes: 5,
            raw_bytes: 0,
            round: 2,
        };
        let head = records_header(1, &records, 300);
        let expected = Frame::Records { stream: 1, records, len: 300 };
        assert_eq!(decode(&head, 4096), Ok(Some((expected, RECORDS_OVERHEAD_BYTES))));
        assert_eq!(decode(&head, 300), Err(FrameError::Length));
        assert_eq!(records.next(), Cursor { position: Position(11), offset: 5 });
    }

    #[test]
    fn a_chunk_inside_one_record_carries_its_offset_on() {
        let first = Cursor { position: Position(9), offset: 100 };
        let chunk = Records { first, tail_bytes: 50, ..Records::default() };
        assert_eq!(chunk.next(), Cursor { position: Position(9), offset: 150 });
    }

    #[test]
    fn a_call_reads_back() {
        let call = Call { id: 77, reply: true };
        let head = call_header(call, 10);
        assert_eq!(decode(&head, 4096), Ok(Some((Frame::Call { call, len: 10 }, head.len()))));
    }

    #[test]
    fn the_longest_control_frame_fits() {
        let address = "a".repeat(255);
        let name = "q".repeat(63);
        let register = Register {
            lease_ms: u32::MAX,
            address: address.as_str().into(),
            queues: [name.as_str().into()],
        };
        assert!(frame(Control::Register(register)).len() <= CONTROL_FRAME_BYTES_MAX);
    }
}
