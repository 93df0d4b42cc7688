//! What members of a cluster say.

use super::format::Fields;
use replcore::wire::{
    Cluster, ConfigurationId, Control, Digest, Entry, Gossip, Heartbeat, HeartbeatAnswer,
    MemberRole, Members, Probe, ProbeAnswer, Progress, Refusal, Status, VoteAnswer, VoteRequest,
    Wish,
};

pub(crate) fn fields(control: &Control<'_>, fields: &mut Fields) {
    match control {
        Control::Cluster(it) => {
            fields.text("cluster", it.cluster);
            fields.variant("wish", it.wish);
        }
        Control::VoteRequest(it) => {
            fields.number("term", it.term);
            fields.number("campaign", it.campaign);
            fields.number("pre", it.pre);
            fields.number("handed_over", it.handed_over);
            configuration(fields, it.configuration);
            progress(fields, it.progress);
        }
        Control::VoteAnswer(it) => {
            fields.number("term", it.term);
            fields.number("asked_term", it.asked_term);
            fields.number("campaign", it.campaign);
            fields.number("pre", it.pre);
            refusal(fields, it.refusal);
            configuration(fields, it.configuration);
        }
        Control::Heartbeat(it) => {
            fields.number("term", it.term);
            fields.number("sent_us", it.sent_us);
            configuration(fields, it.configuration);
            fields.number("registry", it.registry);
        }
        Control::HeartbeatAnswer(it) => {
            fields.number("term", it.term);
            fields.number("sent_us", it.sent_us);
            refusal(fields, it.refusal);
            configuration(fields, it.configuration);
            progress(fields, it.progress);
            fields.number("registry", it.registry);
        }
        Control::Members(it) => {
            configuration(fields, it.configuration);
            fields.hex("members", it.members);
        }
        Control::HandOver(term) => fields.number("term", *term),
        Control::Gossip(it) => {
            fields.number("registry", it.registry);
            fields.number("sent_us", it.sent_us);
            fields.number("echo_us", it.echo_us);
            fields.number("held_us", it.held_us);
        }
        Control::Digest(it) => {
            fields.hex("entries", it.entries);
            fields.number("answer", it.answer);
        }
        Control::Entry(it) => {
            fields.text("name", it.name);
            fields.number("version", it.version);
            fields.number("lasting", it.lasting);
            fields.text("address", it.address);
            fields.variant("wish", it.wish);
            fields.number("priority", it.priority);
            match it.metadata {
                Some(metadata) => fields.hex("metadata", metadata),
                None => fields.0.push(("metadata".into(), "none".into())),
            }
        }
        Control::Probe(it) => fields.number("node", it.node),
        Control::ProbeAnswer(it) => {
            fields.number("node", it.node);
            match it.heard_ms {
                Some(heard_ms) => fields.number("heard_ms", heard_ms),
                None => fields.0.push(("heard_ms".into(), "none".into())),
            }
        }
        Control::Ask(number) => fields.number("number", *number),
        Control::Status(it) => {
            fields.number("number", it.number);
            fields.variant("role", it.role);
            fields.number("term", it.term);
            fields.text("leader", it.leader);
            fields.text("address", it.address);
        }
        other => panic!("{other:?} is not said between members"),
    }
}

fn configuration(fields: &mut Fields, id: ConfigurationId) {
    fields.number("configuration_term", id.term);
    fields.number("configuration_version", id.version);
}

fn progress(fields: &mut Fields, progress: Progress) {
    fields.number("progress_term", progress.term);
    fields.number("progress_position", progress.position);
}

fn refusal(fields: &mut Fields, refusal: Option<Refusal>) {
    match refusal {
        Some(refusal) => fields.variant("refusal", refusal),
        None => fields.0.push(("refusal".into(), "none".into())),
    }
}

/// Two members: the identity of "server_b" votes, that of "server_c" does not.
const MEMBERS: &[u8] = &[
    0x3c, 0x8d, 0x56, 0x05, 0x85, 0x2c, 0x9c, 0x46, 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
    0x88, 0,
];
const DIGEST: &[u8] = &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 2, 0, 0, 0];

pub(crate) fn controls() -> Vec<(&'static str, Control<'static>)> {
    let configuration = ConfigurationId { term: 7, version: 3 };
    let progress = Progress { term: 6, position: 1_000_000 };
    let request = VoteRequest {
        term: 8,
        campaign: 0x89ab_cdef,
        pre: true,
        handed_over: false,
        configuration,
        progress,
    };
    let granted = VoteAnswer {
        term: 8,
        asked_term: 8,
        campaign: 0x89ab_cdef,
        pre: false,
        refusal: None,
        configuration,
    };
    let heartbeat = Heartbeat { term: 8, sent_us: 61_000_000, configuration, registry: u64::MAX };
    let accepted = HeartbeatAnswer {
        term: 8,
        sent_us: 61_000_000,
        refusal: None,
        configuration,
        progress,
        registry: 0x0123_4567_89ab_cdef,
    };
    let entry = Entry {
        name: "server_b",
        version: 2,
        lasting: true,
        address: "10.0.0.8:5001",
        wish: Wish::Stay,
        priority: 100,
        metadata: Some(b"{\"zone\":\"north\"}"),
    };
    let silent = Entry { version: 0, address: "", wish: Wish::Leave, metadata: None, ..entry };
    let status = Status {
        number: 5,
        role: MemberRole::Follower,
        term: 8,
        leader: "server_b",
        address: "10.0.0.8:5001",
    };
    let mut all = vec![
        ("cluster", Control::Cluster(Cluster { cluster: "shop-3", wish: Wish::Stay })),
        ("cluster of one that wishes to vote", {
            Control::Cluster(Cluster { cluster: "c", wish: Wish::Voter })
        }),
        ("vote request before an election", Control::VoteRequest(request)),
        ("vote request after a hand-over", {
            Control::VoteRequest(VoteRequest { pre: false, handed_over: true, ..request })
        }),
        ("vote answer, granted", Control::VoteAnswer(granted)),
        ("heartbeat", Control::Heartbeat(heartbeat)),
        ("heartbeat answer, accepted", Control::HeartbeatAnswer(accepted)),
        ("heartbeat answer, refused: there is a later term", {
            let refusal = Some(Refusal::Term);
            Control::HeartbeatAnswer(HeartbeatAnswer { term: 9, refusal, ..accepted })
        }),
        ("members", Control::Members(Members { configuration, members: MEMBERS })),
        ("hand over", Control::HandOver(8)),
        ("gossip", {
            Control::Gossip(Gossip { registry: 1, sent_us: 500_000, echo_us: 499_000, held_us: 80 })
        }),
        ("digest", Control::Digest(Digest { entries: DIGEST, answer: true })),
        ("entry", Control::Entry(entry)),
        ("entry of one that says nothing of itself and leaves", Control::Entry(silent)),
        ("probe", Control::Probe(Probe { node: u64::MAX })),
        ("probe answer", Control::ProbeAnswer(ProbeAnswer { node: 1, heard_ms: Some(40) })),
        ("probe answer: not linked", Control::ProbeAnswer(ProbeAnswer { node: 1, heard_ms: None })),
        ("ask", Control::Ask(5)),
        ("status", Control::Status(status)),
    ];
    let refusals = [
        ("vote answer, refused: the term is over", Refusal::Term),
        ("vote answer, refused: taken", Refusal::Taken),
        ("vote answer, refused: a leader may be alive", Refusal::Leader),
        ("vote answer, refused: older configuration", Refusal::Configuration),
        ("vote answer, refused: less fresh", Refusal::Progress),
        ("vote answer, refused: a learner", Refusal::Learner),
        ("vote answer, refused: storage", Refusal::Storage),
    ];
    for (name, refusal) in refusals {
        all.push((name, Control::VoteAnswer(VoteAnswer { refusal: Some(refusal), ..granted })));
    }
    let roles = [
        ("status of one that takes part in no election", MemberRole::None),
        ("status of a learner", MemberRole::Learner),
        ("status of a pre-candidate", MemberRole::PreCandidate),
        ("status of a candidate", MemberRole::Candidate),
        ("status of a leader", MemberRole::Leader),
    ];
    for (name, role) in roles {
        all.push((name, Control::Status(Status { role, leader: "", address: "", ..status })));
    }
    all
}
