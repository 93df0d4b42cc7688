//! Metrics of a member (QC-30).

use super::api::ClusterStatus;
use crate::metrics::{Sample, Value, counter, seconds};

/// Counters that every member has, and what they count.
const KNOWN: &[(&str, &str)] = &[
    ("elections_started", "Elections that this member stood in"),
    ("elections_won", "Elections that it won"),
    ("elections_lost", "Elections that it did not win"),
    ("votes_granted", "Votes given to others"),
    ("votes_refused", "Votes refused to others"),
    ("heartbeats_sent", "Heartbeats sent as the leader"),
    ("heartbeats_received", "Heartbeats of a leader accepted"),
    ("heartbeats_refused", "Heartbeats refused"),
    ("leader_changes", "Times that the known leader changed"),
];

/// All samples of a member; those of one metric next to each other.
pub(crate) fn samples(status: &ClusterStatus) -> Vec<Sample> {
    let mut samples = vec![Sample::new(
        "replcore_member_info",
        "The member; always 1",
        Value::Gauge(1.0),
        [
            ("member", status.identifier.clone()),
            ("cluster", status.cluster.clone()),
            ("version", status.version.clone()),
        ],
    )];
    let flag = |flag: bool| f64::from(u8::from(flag));
    let leader = status.leader.as_ref();
    let plain = [
        ("replcore_uptime_seconds", "Time since the start", seconds(status.uptime_ms)),
        ("replcore_cluster_term", "The term", status.term as f64),
        ("replcore_cluster_is_leader", "1 while this member leads", flag(status.is_leader)),
        (
            "replcore_cluster_has_leader",
            "1 while somebody is known to lead",
            flag(leader.is_some()),
        ),
        (
            "replcore_cluster_lease_left_seconds",
            "What is left of the lease; 0 when it does not lead",
            seconds(status.lease_left_ms),
        ),
        (
            "replcore_cluster_leader_changed_seconds",
            "Time since the leader changed",
            seconds(status.leader_changed_ms_ago),
        ),
        ("replcore_cluster_voters", "Voters in the configuration", status.voters as f64),
        ("replcore_cluster_members", "Members known", status.members.len() as f64),
    ];
    for (name, help, value) in plain {
        samples.push(Sample::new(name, help, Value::Gauge(value), []));
    }
    for role in ["follower", "candidate", "leader", "learner", "peer", "joining", "removed"] {
        samples.push(Sample::new(
            "replcore_cluster_role",
            "1 for the role that this member has",
            Value::Gauge(flag(status.role == role)),
            [("role", role.into())],
        ));
    }
    if let Some(leader) = leader {
        samples.push(Sample::new(
            "replcore_cluster_leader_info",
            "Who leads; always 1",
            Value::Gauge(1.0),
            [("leader", leader.identifier.clone())],
        ));
    }
    let others = || status.members.iter().filter(|member| member.state != "self");
    for member in others() {
        samples.push(Sample::new(
            "replcore_cluster_peer_up",
            "1 while the member is heard",
            Value::Gauge(flag(member.state == "up")),
            [("peer", member.identifier.clone())],
        ));
    }
    for member in others() {
        samples.push(Sample::new(
            "replcore_cluster_peer_round_trip_seconds",
            "Round trip to the member",
            Value::Gauge(member.round_trip_us as f64 / 1e6),
            [("peer", member.identifier.clone())],
        ));
    }
    counters(status, &mut samples);
    samples
}

fn counters(status: &ClusterStatus, samples: &mut Vec<Sample>) {
    for (name, help) in KNOWN {
        let count = status.counters.get(*name).copied().unwrap_or(0);
        let name = format!("replcore_cluster_{name}");
        samples.push(Sample::new(&name, help, Value::Counter(count), []));
    }
    for (name, count) in &status.counters {
        if !KNOWN.iter().any(|(known, _)| known == name) {
            let help = format!("Counter {name} of the member");
            let (name, value) = counter(name, *count);
            samples.push(Sample::new(&format!("replcore_cluster_{name}"), &help, value, []));
        }
    }
}
