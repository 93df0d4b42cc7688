//! What a member knows, as it is told to others.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use replcore::election::Membership;
use replcore::member::Member as Machine;
use replcore::registry::{PeerState, PeerView};
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::MemberRole;

use super::api::{ClusterStatus, Leader, Member};
use super::host::Host;
use super::options::Metadata;
use super::shared::View;
use crate::driver::clock;

/// What this member knows, as of now.
pub(super) fn view(host: &Host) -> View {
    View { at_us: clock::now_us(), status: status(host) }
}

/// What this member knows, as of now.
pub(super) fn status(host: &Host) -> ClusterStatus {
    let now = host.reactor.now();
    let engine = host.reactor.engine.borrow();
    let machine = engine.machine();
    let leading = host.shared.lease.leading();
    let left_us = leading.map_or(0, |(until_us, _)| until_us.saturating_sub(clock::now_us()));
    let own = host.options.name.node_id();
    let mut members: Vec<_> = machine.peers().map(|peer| member(machine, now, &peer)).collect();
    members.extend(machine.peer(own).map(|view| Member {
        state: "self".into(),
        heard_ms_ago: 0,
        round_trip_us: 0,
        ..member(machine, now, &view)
    }));
    members.sort_unstable_by(|one, other| one.identifier.cmp(&other.identifier));
    let election = machine.election();
    let configuration = election.map(|election| election.configuration()).unwrap_or_default();
    let changed_at = election.map_or(Instant::ZERO, |election| election.changed_at());
    ClusterStatus {
        identifier: host.options.name.as_str().to_owned(),
        cluster: host.options.cluster.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: role(machine, leading.is_some(), configuration.change()).to_owned(),
        term: machine.term(),
        is_leader: leading.is_some(),
        lease_left_ms: (left_us / 1000).min(MS_MAX),
        leader: leader(machine, now, leading.is_some().then_some(own)),
        members,
        voters: voters(machine),
        configuration: [configuration.change(), configuration.term],
        uptime_ms: host.start.elapsed().as_millis() as u64,
        leader_changed_ms_ago: now.millis_since(changed_at),
        counters: counters(host),
    }
}

/// The lease of a member that is the only voter has no end; this is one that JSON can hold.
const MS_MAX: u64 = 1 << 53;

fn role(machine: &Machine<'static>, leads: bool, configuration: u64) -> &'static str {
    match machine.role() {
        MemberRole::Leader if leads => "leader",
        // It has lost its lease and has not noticed, or has won and has no lease yet.
        MemberRole::Leader | MemberRole::PreCandidate | MemberRole::Candidate => "candidate",
        MemberRole::Follower => "follower",
        MemberRole::Learner => "learner",
        MemberRole::None if machine.election().is_none() => "peer",
        MemberRole::None if configuration == 0 => "joining",
        MemberRole::None => "removed",
    }
}

/// Who leads. `own` when this member does: it is the last to know of a lease that has ended.
fn leader(machine: &Machine<'static>, now: Instant, own: Option<NodeId>) -> Option<Leader> {
    let known = machine.leader()?;
    let view = machine.peer(known.node)?;
    if view.name == own_name(machine) && own.is_none() {
        return None;
    }
    let (host, port) = host_port(view.address);
    Some(Leader {
        identifier: view.name.to_owned(),
        host,
        port,
        metadata: metadata_of(view.metadata),
        term: known.term,
        leading_ms: now.millis_since(known.since),
    })
}

fn own_name<'a>(machine: &'a Machine<'static>) -> &'a str {
    let own = machine.election().and_then(|election| machine.peer(election.own()));
    own.map_or("", |own| own.name)
}

fn member(machine: &Machine<'static>, now: Instant, view: &PeerView<'_>) -> Member {
    let (host, port) = host_port(view.address);
    let leads = machine.leader().is_some_and(|leader| leader.node == view.node);
    let role = match machine.membership(view.node) {
        _ if machine.election().is_none() => "peer",
        _ if leads => "leader",
        Membership::Voter => "voter",
        Membership::Learner => "learner",
        Membership::None => "none",
    };
    let state = match view.state {
        PeerState::Up => "up",
        PeerState::Suspect => "suspected",
        PeerState::Down if view.heard_at == Instant::ZERO => "unknown",
        PeerState::Down => "down",
    };
    Member {
        identifier: view.name.to_owned(),
        host,
        port,
        metadata: metadata_of(view.metadata),
        metadata_version: view.version.into(),
        role: role.into(),
        state: state.into(),
        heard_ms_ago: match view.heard_at {
            Instant::ZERO => 0,
            heard_at => now.millis_since(heard_at),
        },
        round_trip_us: view.round_trip_us.into(),
    }
}

/// Voters in the configuration.
pub(super) fn voters(machine: &Machine<'static>) -> u64 {
    machine.election().map_or(0, |election| {
        election.members().filter(|(_, membership)| *membership == Membership::Voter).count() as u64
    })
}

/// The name of a node, or its identity where that is all that is known.
pub(super) fn name_of(machine: &Machine<'static>, node: NodeId) -> String {
    match machine.peer(node) {
        Some(view) => view.name.to_owned(),
        None => format!("#{:016x}", node.0),
    }
}

fn host_port(address: Option<&str>) -> (String, u16) {
    let Some((host, port)) = address.and_then(|address| address.rsplit_once(':')) else {
        return (String::new(), 0);
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), port.parse().unwrap_or(0))
}

/// What a member says of itself. A member of another make may say something that is no JSON object:
/// then it is the value of `base64`.
fn metadata_of(bytes: &[u8]) -> Metadata {
    if bytes.is_empty() {
        return Metadata::new();
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let mut metadata = Metadata::new();
        metadata.insert("base64".into(), BASE64.encode(bytes).into());
        metadata
    })
}

fn counters(host: &Host) -> BTreeMap<String, u64> {
    let engine = host.reactor.engine.borrow();
    let member = engine.machine().stats();
    let election = member.election;
    let events = &host.shared.events;
    let read =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    [
        ("elections_started", election.elections.into()),
        ("elections_won", election.won.into()),
        ("elections_lost", election.lost.into()),
        ("pre_votes", election.pre_votes.into()),
        ("votes_granted", election.votes_given.into()),
        ("votes_refused", election.votes_refused.into()),
        ("quorum_lost", election.quorum_lost.into()),
        ("leader_changes", election.changes.into()),
        ("heartbeats_sent", election.heartbeats_sent),
        ("heartbeats_received", election.heartbeats_accepted),
        ("heartbeats_refused", election.heartbeats_refused),
        ("terms_implausible", election.implausible.into()),
        ("leaders_conflicting", election.conflicts.into()),
        ("configurations_malformed", election.malformed.into()),
        ("members_differ", election.foreign.into()),
        ("store_failed", election.store_failed.into()),
        ("strangers", u64::from(member.strangers) + u64::from(election.strangers)),
        ("wrong_cluster", member.wrong_cluster.into()),
        ("wrong_identity", member.wrong_identity.into()),
        ("name_in_use", member.name_in_use.into()),
        ("entries_refused", member.entries_refused.into()),
        ("frames_sent", member.frames_sent),
        ("turns", host.reactor.turns()),
        ("events_missed", read(&events.missed)),
        ("handlers_panicked", read(&events.handlers_panicked)),
    ]
    .into_iter()
    .chain(host.reactor.counters.figures(&member.link))
    .map(|(name, value): (&str, u64)| (name.to_owned(), value))
    .collect()
}
