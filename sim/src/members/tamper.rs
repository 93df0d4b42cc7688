//! Members broken on purpose. Nothing is changed inside a machine: what it says, what it is told
//! and what is on its disk is tampered with, so that it behaves as if it had the bug.

use replcore::contract::Key;
use replcore::election::{Election, ElectionConfig, ElectionSlot, Membership};
use replcore::member::Member;
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::{self, Control, HEADER_BYTES, HeartbeatAnswer, VoteAnswer};

/// A way in which every member of a world is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A vote is given before it is on the disk.
    VoteBeforeStored,
    /// A second candidate of a term gets a vote too.
    TwoVotes,
    /// A vote is not on the disk any more after a restart.
    VoteForgotten,
    /// A lease is counted from when the answer came, not from when the heartbeat was made.
    LeaseFromAnswer,
    /// A voter that has started anew votes at once, whatever it promised before.
    NoSilence,
    /// Half of an even number of voters is taken for a majority.
    HalfIsMajority,
    /// The members are changed before a majority has the change before.
    ChangeUnsettled,
    /// The answer to a question before a vote does not say a later term than was asked from.
    PreVoteHidesTerm,
}

impl Bug {
    /// All of them, with the names that the tool takes.
    pub const ALL: [(&'static str, Self); 8] = [
        ("vote-before-stored", Self::VoteBeforeStored),
        ("two-votes", Self::TwoVotes),
        ("vote-forgotten", Self::VoteForgotten),
        ("lease-from-answer", Self::LeaseFromAnswer),
        ("no-silence", Self::NoSilence),
        ("half-is-majority", Self::HalfIsMajority),
        ("change-unsettled", Self::ChangeUnsettled),
        ("pre-vote-hides-term", Self::PreVoteHidesTerm),
    ];

    /// What goes out in place of `frame`.
    pub(super) fn outgoing(self, frame: &[u8]) -> Option<Vec<u8>> {
        let Control::VoteAnswer(answer) = control(frame)? else {
            return None;
        };
        let answer = match self {
            Self::TwoVotes if !answer.pre && answer.refusal == Some(wire::Refusal::Taken) => {
                VoteAnswer { refusal: None, ..answer }
            }
            Self::PreVoteHidesTerm if answer.pre => {
                let term = answer.term.min(answer.asked_term.saturating_sub(1));
                VoteAnswer { term, ..answer }
            }
            _ => return None,
        };
        Some(encoded(&Control::VoteAnswer(answer)))
    }

    /// What arrives in place of `frame` at `machine`.
    pub(super) fn incoming(
        self,
        frame: &[u8],
        machine: &Member<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let Control::HeartbeatAnswer(answer) = control(frame)? else {
            return None;
        };
        match self {
            Self::LeaseFromAnswer => {
                let answer = HeartbeatAnswer { sent_us: now.as_micros(), ..answer };
                Some(encoded(&Control::HeartbeatAnswer(answer)))
            }
            Self::ChangeUnsettled => {
                // First the truth, so that the configuration is sent to who lacks it.
                let configuration = machine.election()?.configuration();
                let answer = HeartbeatAnswer { configuration, ..answer };
                Some([frame, &encoded(&Control::HeartbeatAnswer(answer))].concat())
            }
            _ => None,
        }
    }

    /// Whether `frame`, which has arrived at `machine`, is to arrive from a second voter as well.
    pub(super) fn counts_twice(self, frame: &[u8], machine: &Member<'_>) -> bool {
        let granted =
            matches!(control(frame), Some(Control::VoteAnswer(it)) if it.refusal.is_none());
        self == Self::HalfIsMajority
            && granted
            && machine.election().is_some_and(|election| {
                let voters = election.members().filter(|(_, it)| *it == Membership::Voter);
                voters.count() % 2 == 0
            })
    }

    /// What is on the disk in place of `record` when a node starts.
    pub(super) fn at_start(self, key: Key, record: &[u8]) -> Option<Vec<u8>> {
        if self != Self::VoteForgotten || key != Key::Ballot {
            return None;
        }
        // A ballot ends with the vote: the node's identity, of up to ten bytes of seven bits.
        let vote_at = 1 + 1 + record.get(1..)?.iter().position(|byte| byte & 0x80 == 0)?;
        let mut without = record.get(..vote_at)?.to_vec();
        without.push(0);
        Some(without)
    }
}

/// A whole control frame, decoded.
pub(super) fn control(frame: &[u8]) -> Option<Control<'_>> {
    match wire::decode(frame, wire::FRAME_BYTES_MIN) {
        Ok(Some((wire::Frame::Control { control, .. }, _))) => Some(control),
        _ => None,
    }
}

fn encoded(control: &Control<'_>) -> Vec<u8> {
    let mut buf = vec![0; wire::CONTROL_FRAME_BYTES_MAX];
    let len = wire::encode_control(0, control, &mut buf).unwrap_or(0);
    buf.truncate(len);
    buf
}

/// The bytes of the first whole frame in `bytes`, if there is one.
pub(super) fn first_frame(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(..4)?;
    let payload = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
    let len = HEADER_BYTES + payload;
    (bytes.len() >= len).then_some(len)
}

/// An election that is only there to read records with.
pub(super) fn reader() -> Election<[ElectionSlot; 31]> {
    Election::new(ElectionConfig::lan(), NodeId(u64::MAX), 0, [ElectionSlot::FREE; 31])
        .expect("the timing is sound")
}
