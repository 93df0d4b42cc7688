//! The bytes on a link: frames and what is in them. No state lives here.
//!
//! ```text
//! 0   u32  bytes of payload that follow the header
//! 4   u8   type
//! 5   u8   stream, for types that have one; else 0
//! 6   u16  flags, 0 unless the type says otherwise
//! 8   u32  crc32c of bytes 0..8 and of the payload; for records and calls of the fixed part alone
//! ```
//!
//! The payload of a control frame is a list of fields, the fixed parts of [`Records`] and [`Call`] have
//! fixed places. `docs/wire.md` specifies every byte, `core/tests/vectors` has examples to test against.

mod frame;
mod member;
mod message;
pub(crate) mod payload;

pub use frame::{
    CONTROL_FRAME_BYTES_MAX, Call, FRAME_BYTES_MAX, FRAME_BYTES_MIN, Frame, FrameError,
    HEADER_BYTES, RECORDS_OVERHEAD_BYTES, Records, call_header, decode, encode_control,
    records_header,
};
pub(crate) use frame::{decode_of_link, encode_control_of_link, encode_control_of_member};
pub use member::{
    Cluster, ConfigurationId, DIGEST_ENTRY_BYTES, Digest, Entry, Gossip, Heartbeat,
    HeartbeatAnswer, MEMBER_BYTES, MEMBERS_MAX, METADATA_BYTES_MAX, MemberRole, Members, Probe,
    ProbeAnswer, Progress, Refusal, Status, VoteAnswer, VoteRequest, Wish,
};
pub use message::{
    Ack, Bye, ByeReason, Control, FEATURE_LZ4, FEATURE_STANDBY, FEATURES, Hello, Lease, Level,
    Open, QUEUES_MAX, Redirect, Refuse, RefuseReason, Register, Reject, Resume, Role, STREAMS_MAX,
    Skip, Subscribe, TermLease, Text, VERSION_MAX, VERSION_MIN,
};
