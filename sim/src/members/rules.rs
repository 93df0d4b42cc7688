//! What must hold of the members of a cluster, whatever happens to them.
//!
//! Judged from outside: from the frames as they go out, from the records on the disks, from the
//! clocks' true rates, and from what each node would tell a program.

use std::collections::BTreeMap;

use replcore::contract::Key;
use replcore::election::ElectionConfig;
use replcore::member::Member;
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::{ConfigurationId, Control, MemberRole};

use super::configurations::{Configurations, majority, voters_of};
use super::tamper::reader;
use crate::clock::Clock;

/// What a node's disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OnDisk {
    term: u64,
    vote: Option<NodeId>,
    configuration: ConfigurationId,
}

/// What one node has last said, and what holds for it.
#[derive(Clone, Debug)]
struct Seen {
    id: NodeId,
    disk: OnDisk,
    /// Until when it says that it leads, in the true time; 0 for not.
    claims_until_us: u64,
    claims_term: u64,
    /// The voters by its present configuration and by the one before.
    configuration: ConfigurationId,
    voters: Vec<NodeId>,
    voters_before: Vec<NodeId>,
    /// The newest heartbeat that each other node has answered to it: its term, and when it was
    /// made.
    answered: BTreeMap<usize, (u64, u64)>,
}

/// The rules, and what they have seen.
#[derive(Debug)]
pub struct Rules {
    election: ElectionConfig,
    nodes: Vec<Seen>,
    /// Who has led in a term.
    leaders: BTreeMap<u64, usize>,
    /// Whom a node has given its vote in a term.
    votes: BTreeMap<(usize, u64), NodeId>,
    /// The voters of every configuration that was ever on a disk.
    configurations: Configurations,
    /// The first rule that was broken.
    broken: Option<(usize, String)>,
}

impl Rules {
    /// Rules for these nodes.
    pub fn new(election: ElectionConfig, nodes: &[NodeId]) -> Self {
        let seen = |id: &NodeId| Seen {
            id: *id,
            disk: OnDisk::default(),
            claims_until_us: 0,
            claims_term: 0,
            configuration: ConfigurationId::default(),
            voters: Vec::new(),
            voters_before: Vec::new(),
            answered: BTreeMap::new(),
        };
        Self {
            election,
            nodes: nodes.iter().map(seen).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            configurations: Configurations::default(),
            broken: None,
        }
    }

    /// The first rule that was broken, and where.
    pub fn broken(&self) -> Option<&(usize, String)> {
        self.broken.as_ref()
    }

    pub(super) fn break_at(&mut self, node: usize, what: String) {
        self.broken.get_or_insert((node, what));
    }

    /// Whether a node says at `now_us` that it leads.
    pub fn claims(&self, node: usize, now_us: u64) -> bool {
        self.nodes[node].claims_until_us > now_us
    }

    /// How many terms have had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// How many configurations were on disks.
    pub fn configurations(&self) -> usize {
        self.configurations.len()
    }

    fn index(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// The process has ended.
    pub(super) fn ended(&mut self, node: usize) {
        self.nodes[node].claims_until_us = 0;
        // Its clock may be another from now on, and what it led is over.
        self.nodes[node].answered.clear();
    }

    /// A record is safe.
    pub(super) fn stored(&mut self, node: usize, key: Key, record: &[u8]) {
        let mut reader = reader();
        if reader.restore(key, record).is_err() {
            return self.break_at(node, format!("its record of {key:?} cannot be read"));
        }
        let before = self.nodes[node].disk;
        let disk = &mut self.nodes[node].disk;
        if key == Key::Ballot {
            (disk.term, disk.vote) = (reader.term(), reader.vote());
            let changed = before.term == disk.term && before.vote.is_some();
            if disk.term < before.term {
                let what = format!("its term went back from {} to {}", before.term, disk.term);
                self.break_at(node, what);
            } else if changed && disk.vote != before.vote {
                let what = format!("a second vote in term {} was stored", before.term);
                self.break_at(node, what);
            }
            return;
        }
        disk.configuration = reader.configuration();
        let now = disk.configuration;
        if now < before.configuration {
            let what = format!("its configuration went back from {:?} to {now:?}", before);
            self.break_at(node, what);
        }
        let on_disks: Vec<(NodeId, ConfigurationId)> =
            self.nodes.iter().map(|node| (node.id, node.disk.configuration)).collect();
        let held = |voter| on_disks.iter().find(|(id, _)| *id == voter).map(|(_, held)| *held);
        if let Err(what) = self.configurations.add(now, voters_of(&reader), held) {
            self.break_at(node, what);
        }
    }

    /// A frame goes out.
    pub(super) fn sent(
        &mut self,
        node: usize,
        to: NodeId,
        control: &Control<'_>,
        clocks: &[Clock],
        now_us: u64,
    ) {
        let disk = self.nodes[node].disk;
        let own = self.nodes[node].id;
        match control {
            Control::VoteRequest(request) if !request.pre => {
                self.voted(node, request.term, own);
                if (disk.term, disk.vote) != (request.term, Some(own)) {
                    let what = format!("asks for votes in term {} unstored", request.term);
                    self.break_at(node, what);
                }
            }
            Control::VoteAnswer(answer) if !answer.pre && answer.refusal.is_none() => {
                self.voted(node, answer.asked_term, to);
                if (disk.term, disk.vote) != (answer.asked_term, Some(to)) {
                    let what = format!("gives a vote in term {} unstored", answer.asked_term);
                    self.break_at(node, what);
                }
                self.check_promises(node, answer.asked_term, clocks, now_us);
            }
            Control::Heartbeat(beat) if (disk.term, disk.vote) != (beat.term, Some(own)) => {
                self.break_at(node, format!("leads in term {} unstored", beat.term));
            }
            Control::HeartbeatAnswer(answer) if answer.refusal.is_none() => {
                if disk.term != answer.term {
                    self.break_at(node, format!("follows in term {} unstored", answer.term));
                }
                if let Some(leader) = self.index(to) {
                    let made_us = clocks[leader].true_us(Instant::from_micros(answer.sent_us));
                    let newest = self.nodes[leader].answered.entry(node).or_default();
                    *newest = (*newest).max((answer.term, made_us));
                }
            }
            _ => {}
        }
    }

    /// A vote in a later term breaks the promise to a leader that still leads with it.
    fn check_promises(&mut self, node: usize, term: u64, clocks: &[Clock], now_us: u64) {
        let promise_us = self.promise_us(&clocks[node]);
        let broken = (0..self.nodes.len()).find(|leader| {
            let seen = &self.nodes[*leader];
            let promised = |(of, made_us): &(u64, u64)| {
                *of == seen.claims_term && *of < term && now_us + 3 < made_us + promise_us
            };
            seen.answered.get(&node).is_some_and(promised) && self.claims(*leader, now_us)
        });
        if let Some(leader) = broken {
            self.break_at(node, format!("votes while node {leader} leads by its promise"));
        }
    }

    fn voted(&mut self, node: usize, term: u64, whom: NodeId) {
        let vote = *self.votes.entry((node, term)).or_insert(whom);
        if vote != whom {
            self.break_at(node, format!("votes for two in term {term}"));
        }
    }

    /// The node has taken an input, and publishes until when it leads.
    pub(super) fn published(
        &mut self,
        node: usize,
        machine: &Member<'_>,
        clocks: &[Clock],
        now_us: u64,
    ) {
        let Some(election) = machine.election() else {
            return;
        };
        let seen = &mut self.nodes[node];
        if seen.configuration != election.configuration() {
            seen.configuration = election.configuration();
            let voters = voters_of(election);
            if seen.voters != voters {
                seen.voters_before = std::mem::replace(&mut seen.voters, voters);
            }
        }
        if election.role() == MemberRole::Leader {
            let term = election.term();
            let leader = *self.leaders.entry(term).or_insert(node);
            if leader != node {
                self.break_at(node, format!("term {term} has a second leader"));
            }
        }
        let until = election.leader_until();
        let until_us = until.map_or(0, |until| match until {
            Instant::NEVER => u64::MAX,
            until => clocks[node].true_us(until),
        });
        let before_us = self.nodes[node].claims_until_us;
        self.nodes[node].claims_until_us = until_us;
        self.nodes[node].claims_term = election.term();
        if until_us <= now_us || until_us == before_us {
            return;
        }
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        if let Some(other) = others.clone().find(|other| self.claims(*other, now_us)) {
            let what = format!("says that it leads while node {other} says so too");
            self.break_at(node, what);
        }
        self.check_lease(node, election.term(), until_us, clocks);
    }

    /// No claim may last longer than the promises of a majority, by the present members or by
    /// those before.
    fn check_lease(&mut self, node: usize, term: u64, until_us: u64, clocks: &[Clock]) {
        let seen = &self.nodes[node];
        let bound = |voters: &[NodeId]| {
            if voters == [seen.id] {
                return u64::MAX;
            }
            let mut promises: Vec<u64> = voters
                .iter()
                .map(|voter| match self.index(*voter) {
                    Some(at) if at == node => u64::MAX,
                    Some(at) => match seen.answered.get(&at) {
                        Some((of, made_us)) if *of == term => {
                            made_us + self.promise_us(&clocks[at])
                        }
                        _ => 0,
                    },
                    None => 0,
                })
                .collect();
            promises.sort_unstable_by(|one, other| other.cmp(one));
            promises.get(majority(voters.len()) - 1).copied().unwrap_or(0)
        };
        // A microsecond is lost at each change of clocks.
        let bound_us = bound(&seen.voters).max(bound(&seen.voters_before));
        if until_us > bound_us.saturating_add(3) {
            let ahead_us = until_us - bound_us;
            let what = format!("its lease goes {ahead_us} us past what a majority promised");
            self.break_at(node, what);
        }
    }

    /// How long a voter with this clock keeps a promise, in true microseconds.
    fn promise_us(&self, clock: &Clock) -> u64 {
        let shown_us = u64::from(self.election.timeout_ms_min) * 1_000;
        let far = 1_000_000_000_000;
        let start = clock.monotonic(far);
        clock.true_us(Instant::from_micros(start.as_micros() + shown_us)) - far
    }
}
