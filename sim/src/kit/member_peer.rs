//! What a member might say to a member in the conformance kit.

use replcore::rng::Rng;
use replcore::stream::{Name, NodeId};
use replcore::wire::{
    Cluster, ConfigurationId, Control, Digest, Entry, Gossip, Heartbeat, HeartbeatAnswer, Members,
    Probe, ProbeAnswer, Progress, Refusal, VoteAnswer, VoteRequest, Wish,
};

/// The voters of the cluster that the kit plays.
pub(crate) const VOTERS: [&str; 3] = ["leaf-1", "member-2", "member-3"];

/// What a member has heard that it may answer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    request: Option<VoteRequest>,
    heartbeat: Option<Heartbeat>,
    term: u64,
    /// The first members that the machine goes back to.
    origin: u32,
}

impl Heard {
    /// The machine has sent a control frame.
    pub(crate) fn hear(&mut self, control: &Control<'_>) {
        match control {
            Control::VoteRequest(request) => {
                self.request = Some(*request);
                self.origin = request.configuration.origin();
            }
            Control::Heartbeat(heartbeat) => {
                self.heartbeat = Some(*heartbeat);
                self.term = self.term.max(heartbeat.term);
            }
            Control::Members(members) => self.origin = members.configuration.origin(),
            Control::VoteAnswer(answer) => self.term = self.term.max(answer.term),
            Control::HeartbeatAnswer(answer) => self.term = self.term.max(answer.term),
            _ => {}
        }
    }

    /// Says one thing, now and then one that no member should; `each` takes it.
    pub(crate) fn say(
        &self,
        own: Name,
        rng: &mut Rng,
        hostile: bool,
        each: &mut dyn FnMut(&Control<'_>),
    ) {
        let wild = hostile && rng.between(0, 9) == 0;
        let term = if wild { rng.next_u64() } else { self.term + rng.between(0, 1) };
        let configuration = ConfigurationId {
            term: if wild { rng.next_u64() } else { rng.between(0, self.term) },
            version: rng.between(1, 3) << 24 | u64::from(self.origin),
        };
        let progress = Progress { term: 0, position: rng.between(0, 1) };
        match rng.between(0, 13) {
            0..=2 => self.answer_vote(rng, configuration, each),
            3..=5 => self.answer_heartbeat(rng, configuration, progress, each),
            6 => each(&Control::VoteRequest(VoteRequest {
                term,
                campaign: rng.next_u64() as u32,
                pre: rng.between(0, 1) == 0,
                handed_over: rng.between(0, 3) == 0,
                configuration,
                progress,
            })),
            7 | 8 => {
                let (sent_us, registry) = (rng.next_u64() >> 20, rng.next_u64());
                each(&Control::Heartbeat(Heartbeat { term, sent_us, configuration, registry }));
            }
            9 => {
                let bytes = member_bytes(rng);
                each(&Control::Members(Members { configuration, members: &bytes }));
            }
            10 => each(&Control::HandOver(term)),
            11 => {
                let long = [b'm'; 256];
                let metadata = &long[..rng.between(0, 256) as usize];
                let other = VOTERS[rng.between(0, 2) as usize];
                each(&Control::Entry(Entry {
                    name: if rng.between(0, 1) == 0 { own.as_str() } else { other },
                    version: rng.between(0, 3) as u32,
                    lasting: rng.between(0, 1) == 0,
                    address: if rng.between(0, 1) == 0 { "" } else { "host:1" },
                    wish: [Wish::Stay, Wish::Voter, Wish::Leave][rng.between(0, 2) as usize],
                    priority: rng.between(0, 200) as u8,
                    metadata: (rng.between(0, 1) == 0).then_some(metadata),
                }));
            }
            12 => {
                let entries: Vec<u8> =
                    (0..rng.between(0, 60)).map(|_| rng.next_u64() as u8).collect();
                each(&Control::Digest(Digest { entries: &entries, answer: true }));
            }
            _ => self.small_talk(rng, each),
        }
    }

    fn answer_vote(
        &self,
        rng: &mut Rng,
        configuration: ConfigurationId,
        each: &mut dyn FnMut(&Control<'_>),
    ) {
        let Some(request) = self.request else {
            return each(&Control::Ping(1));
        };
        let refusal = (rng.between(0, 3) == 0).then_some(Refusal::Leader);
        each(&Control::VoteAnswer(VoteAnswer {
            term: request.term - u64::from(request.pre),
            asked_term: request.term,
            campaign: request.campaign,
            pre: request.pre,
            refusal,
            configuration,
        }));
    }

    fn answer_heartbeat(
        &self,
        rng: &mut Rng,
        configuration: ConfigurationId,
        progress: Progress,
        each: &mut dyn FnMut(&Control<'_>),
    ) {
        let Some(heartbeat) = self.heartbeat else {
            return each(&Control::Ping(2));
        };
        let known = rng.between(0, 2) > 0;
        each(&Control::HeartbeatAnswer(HeartbeatAnswer {
            term: heartbeat.term,
            sent_us: heartbeat.sent_us,
            refusal: (rng.between(0, 9) == 0).then_some(Refusal::Storage),
            configuration: if known { heartbeat.configuration } else { configuration },
            progress,
            registry: rng.next_u64(),
        }));
    }

    fn small_talk(&self, rng: &mut Rng, each: &mut dyn FnMut(&Control<'_>)) {
        let node = Name::new(VOTERS[rng.between(0, 2) as usize]).map_or(0, |name| name.node_id().0);
        match rng.between(0, 3) {
            0 => each(&Control::Probe(Probe { node })),
            1 => {
                let heard_ms = (rng.between(0, 1) == 0).then_some(rng.between(0, 2_000) as u32);
                each(&Control::ProbeAnswer(ProbeAnswer { node, heard_ms }));
            }
            2 => each(&Control::Ask(rng.next_u64() as u32)),
            _ => {
                let (registry, sent_us) = (rng.next_u64(), rng.next_u64() >> 20);
                let (echo_us, held_us) = (rng.next_u64() >> 30, rng.between(0, 1_000));
                each(&Control::Gossip(Gossip { registry, sent_us, echo_us, held_us }));
            }
        }
    }
}

/// Of which cluster a member says it is.
pub(crate) fn cluster(rng: &mut Rng, hostile: bool) -> Cluster<'static> {
    let cluster = if hostile && rng.between(0, 9) == 0 { "other" } else { "cluster" };
    let wish = if rng.between(0, 1) == 0 { Wish::Voter } else { Wish::Stay };
    Cluster { cluster, wish }
}

fn member_bytes(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for voter in VOTERS {
        if rng.between(0, 3) > 0 {
            let node = Name::new(voter).map_or(NodeId::NONE, |name| name.node_id());
            bytes.extend_from_slice(&node.0.to_le_bytes());
            bytes.push(u8::from(rng.between(0, 3) > 0));
        }
    }
    bytes
}
