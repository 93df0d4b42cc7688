//! What a member knows: of itself, of the leader, of its peers.

use core::ffi::c_char;

use replcore_core::contract::{DialIndex, LinkId};
use replcore_core::election::{ElectionStats, Membership};
use replcore_core::registry::{PeerState, PeerView};
use replcore_core::stream::NodeId;
use replcore_core::time::Instant;
use replcore_core::wire::{METADATA_BYTES_MAX, MemberRole, Role};

use super::check::{bytes_mut, characters, reference_mut, write_text};
use super::leaf::link_stats;
use super::machine::{REPLCORE_NAME_BYTES, REPLCORE_NEVER, member};
use super::member::{
    REPLCORE_MEMBERSHIP_LEARNER, REPLCORE_MEMBERSHIP_NONE, REPLCORE_MEMBERSHIP_VOTER,
};
use super::status::status;
use super::{replcore_link_stats, replcore_machine, replcore_status};

/// What a member does in the election.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_role {
    /// Takes part in no election.
    None = 0,
    /// Follows, does not vote.
    Learner = 1,
    /// Follows, votes.
    Follower = 2,
    /// Asks whether it would be voted for.
    PreCandidate = 3,
    /// Asks for votes.
    Candidate = 4,
    /// Leads. Whether it may say so is what replcore_member_leader_until tells.
    Leader = 5,
}

/// Whether a peer is there.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_peer_state {
    /// Not heard of, or given up.
    Down = 0,
    /// Was there, and has fallen silent. Still counts as there.
    Suspect = 1,
    /// There.
    Up = 2,
}

/// Who leads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_leader {
    /// Who.
    pub node: u64,
    /// Its term: the fencing token.
    pub term: u64,
    /// Since when this node knows it, in microseconds on this node's clock.
    pub since_us: u64,
}

/// Most bytes of metadata.
pub const REPLCORE_METADATA_BYTES: usize = 256;

const _: () = assert!(REPLCORE_METADATA_BYTES == METADATA_BYTES_MAX);

/// What is known of a node. No pointers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct replcore_peer {
    /// Its id.
    pub node: u64,
    /// Its name, with a zero byte behind it.
    pub name: [c_char; REPLCORE_NAME_BYTES],
    /// Where it can be reached, with a zero byte behind it; empty when that is not known.
    pub address: [c_char; REPLCORE_NAME_BYTES],
    /// What it says of itself, or the configuration says of it.
    pub metadata: [u8; REPLCORE_METADATA_BYTES],
    /// Bytes of metadata.
    pub metadata_len: u32,
    /// How many times it has spoken of itself; 0 when all is from the configuration.
    pub version: u32,
    /// What it is in the election, one of REPLCORE_MEMBERSHIP_*.
    pub membership: u32,
    /// One of REPLCORE_PEER_STATE_*.
    pub state: u32,
    /// 1 when it is linked to this node.
    pub is_linked: u32,
    /// The greater campaigns first.
    pub priority: u32,
    /// Round trip, in microseconds; 0 when not known.
    pub round_trip_us: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a member has counted since its start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_member_counters {
    /// Of its links.
    pub link: replcore_link_stats,
    /// Frames sent.
    pub frames_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats accepted.
    pub heartbeats_accepted: u64,
    /// Heartbeats refused.
    pub heartbeats_refused: u64,
    /// Times it asked whether it would be voted for.
    pub pre_votes: u32,
    /// Elections it was a candidate in.
    pub elections: u32,
    /// Elections won.
    pub won: u32,
    /// Elections not won.
    pub lost: u32,
    /// Votes given to others.
    pub votes_given: u32,
    /// Votes refused to others.
    pub votes_refused: u32,
    /// Times it led no more because a majority did not answer.
    pub quorum_lost: u32,
    /// Times the known leader changed.
    pub changes: u32,
    /// Messages from nodes that are no members.
    pub strangers: u32,
    /// Messages with a term too far ahead to be true.
    pub implausible: u32,
    /// Heartbeats of a second leader of one term: two nodes run with one name.
    pub conflicts: u32,
    /// Configurations that make no sense.
    pub malformed: u32,
    /// Times the vote or the configuration could not be stored.
    pub store_failed: u32,
    /// Links of another cluster.
    pub wrong_cluster: u32,
    /// Links that have proved to be another than they say.
    pub wrong_identity: u32,
    /// Links of a second node with one name.
    pub name_in_use: u32,
}

/// What the member does in the election, one of REPLCORE_ROLE_NONE to REPLCORE_ROLE_LEADER; NONE for
/// what is not a member.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_role(machine: *mut replcore_machine) -> replcore_role {
    // SAFETY: as the caller promises.
    match unsafe { member(machine) }.map_or(MemberRole::None, |member| member.role()) {
        MemberRole::None => replcore_role::None,
        MemberRole::Learner => replcore_role::Learner,
        MemberRole::Follower => replcore_role::Follower,
        MemberRole::PreCandidate => replcore_role::PreCandidate,
        MemberRole::Candidate => replcore_role::Candidate,
        MemberRole::Leader => replcore_role::Leader,
    }
}

/// The term that this node is in; 0 without an election.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_term(machine: *mut replcore_machine) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { member(machine) }.map_or(0, |member| member.term())
}

/// Until when this node may say that it leads, in microseconds; 0 when it may not, REPLCORE_NEVER for
/// the only voter. Read it after every input and command, before the outputs are done, and keep it
/// where whoever asks compares it with the clock, anew each time: the answer is yes while the clock is
/// before it.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_leader_until(machine: *mut replcore_machine) -> u64 {
    // SAFETY: as the caller promises.
    let until = unsafe { member(machine) }.map_or(None, |member| member.leader_until());
    until.map_or(0, Instant::as_micros)
}

const _: () = assert!(Instant::NEVER.as_micros() == REPLCORE_NEVER);

/// Who leads, this node included, as far as is known here. END while nobody is known to.
///
/// # Safety
/// `machine` is a machine, `leader` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_leader(
    machine: *mut replcore_machine,
    leader: *mut replcore_leader,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, leader) = unsafe { (member(machine)?, reference_mut(leader)?) };
        let known = member.leader().ok_or(replcore_status::End)?;
        *leader = replcore_leader {
            node: known.node.0,
            term: known.term,
            since_us: known.since.as_micros(),
        };
        Ok(())
    })())
}

/// What is known of a node by its id, this node included. END when nothing is.
///
/// # Safety
/// `machine` is a machine, `peer` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_peer(
    machine: *mut replcore_machine,
    node: u64,
    peer: *mut replcore_peer,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, peer) = unsafe { (member(machine)?, reference_mut(peer)?) };
        let view = member.peer(NodeId(node)).ok_or(replcore_status::End)?;
        *peer = flatten(&view, member.membership(view.node));
        Ok(())
    })())
}

/// What is known of the other node of this `index` from 0. END when there are fewer.
///
/// # Safety
/// `machine` is a machine, `peer` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_peer_at(
    machine: *mut replcore_machine,
    index: u32,
    peer: *mut replcore_peer,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, peer) = unsafe { (member(machine)?, reference_mut(peer)?) };
        let view = member.peers().nth(index as usize).ok_or(replcore_status::End)?;
        *peer = flatten(&view, member.membership(view.node));
        Ok(())
    })())
}

/// Where the place of an order DIAL is: writes its address with a zero byte behind it to `out`; 64
/// bytes are always enough. `*node` gets whom is to be found there. END when the order is out of
/// date.
///
/// # Safety
/// `machine` is a machine, `out` has `cap` bytes, `node` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_dial_target(
    machine: *mut replcore_machine,
    dial: u32,
    out: *mut c_char,
    cap: usize,
    node: *mut u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, out) = unsafe { (member(machine)?, bytes_mut(out.cast(), cap)?) };
        // SAFETY: as the caller promises.
        let node = unsafe { reference_mut(node) }?;
        let dial = DialIndex(u16::try_from(dial).map_err(|_| replcore_status::Value)?);
        let view = member.dial_target(dial).ok_or(replcore_status::End)?;
        let address = view.address.ok_or(replcore_status::End)?;
        write_text(out, address)?;
        *node = view.node.0;
        Ok(())
    })())
}

/// Who is at the other end of a link: writes its name with a zero byte behind it to `out`; 64 bytes are
/// always enough. `*is_member` gets 1 for a node that takes part in clusters, and 0 for a program. END before
/// it has greeted, and for a link that is not open.
///
/// # Safety
/// `machine` is a machine, `out` has `cap` bytes, `is_member` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_link_peer(
    machine: *mut replcore_machine,
    link: u32,
    out: *mut c_char,
    cap: usize,
    is_member: *mut u32,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, out) = unsafe { (member(machine)?, bytes_mut(out.cast(), cap)?) };
        // SAFETY: as the caller promises.
        let is_member = unsafe { reference_mut(is_member) }?;
        let (name, role) = member.link_peer(LinkId(link)).ok_or(replcore_status::End)?;
        write_text(out, name.as_str())?;
        *is_member = (role == Role::Member).into();
        Ok(())
    })())
}

/// Whether a majority has stored the present configuration, so that the leader may change it again: 1, or
/// 0; 0 for what is not a member.
///
/// # Safety
/// `machine` is a machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_settled(machine: *mut replcore_machine) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { member(machine) }.is_ok_and(|member| member.is_settled()).into()
}

/// What the member has counted since its start.
///
/// # Safety
/// `machine` is a machine, `stats` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_member_stats(
    machine: *mut replcore_machine,
    stats: *mut replcore_member_counters,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (member, stats) = unsafe { (member(machine)?, reference_mut(stats)?) };
        let counted = member.stats();
        *stats = replcore_member_counters {
            link: link_stats(&counted.link),
            frames_sent: counted.frames_sent,
            bytes_sent: counted.bytes_sent,
            wrong_cluster: counted.wrong_cluster,
            wrong_identity: counted.wrong_identity,
            name_in_use: counted.name_in_use,
            ..election_stats(&counted.election)
        };
        stats.strangers += counted.strangers;
        Ok(())
    })())
}

fn election_stats(counted: &ElectionStats) -> replcore_member_counters {
    replcore_member_counters {
        heartbeats_sent: counted.heartbeats_sent,
        heartbeats_accepted: counted.heartbeats_accepted,
        heartbeats_refused: counted.heartbeats_refused,
        pre_votes: counted.pre_votes,
        elections: counted.elections,
        won: counted.won,
        lost: counted.lost,
        votes_given: counted.votes_given,
        votes_refused: counted.votes_refused,
        quorum_lost: counted.quorum_lost,
        changes: counted.changes,
        strangers: counted.strangers,
        implausible: counted.implausible,
        conflicts: counted.conflicts,
        malformed: counted.malformed,
        store_failed: counted.store_failed,
        ..Default::default()
    }
}

fn flatten(view: &PeerView<'_>, membership: Membership) -> replcore_peer {
    let mut metadata = [0; REPLCORE_METADATA_BYTES];
    metadata[..view.metadata.len()].copy_from_slice(view.metadata);
    replcore_peer {
        node: view.node.0,
        name: characters(view.name),
        address: characters(view.address.unwrap_or("")),
        metadata,
        metadata_len: view.metadata.len() as u32,
        version: view.version,
        membership: match membership {
            Membership::Voter => REPLCORE_MEMBERSHIP_VOTER,
            Membership::Learner => REPLCORE_MEMBERSHIP_LEARNER,
            Membership::None => REPLCORE_MEMBERSHIP_NONE,
        },
        state: match view.state {
            PeerState::Down => replcore_peer_state::Down,
            PeerState::Suspect => replcore_peer_state::Suspect,
            PeerState::Up => replcore_peer_state::Up,
        } as u32,
        is_linked: view.linked.into(),
        priority: view.priority.into(),
        round_trip_us: view.round_trip_us,
        reserved: 0,
    }
}
