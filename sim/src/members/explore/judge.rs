//! What must hold in every state of a search.

use replcore::contract::Key;
use replcore::election::{Election, ElectionSlot, Membership, Message};
use replcore::stream::NodeId;
use replcore::wire::{ConfigurationId, MemberRole};

use super::world::{State, id};
use super::{Bounds, NODES, STEP_MS};
use crate::members::configurations::{Configurations, voters_of};
use crate::members::tamper::reader;

/// What was seen of the nodes on the way to a state.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Judge {
    /// Who led in a term; who voted in a term for whom.
    led: Vec<(u64, usize)>,
    voted: Vec<(u64, usize, usize)>,
    /// What is on each disk.
    on_disk: [ConfigurationId; NODES],
    pub(super) configurations: Configurations,
}

impl Judge {
    /// A node has taken an input: two never lead in one term.
    pub(super) fn turned(
        &mut self,
        node: usize,
        election: &Election<[ElectionSlot; NODES - 1]>,
    ) -> Result<(), String> {
        if election.role() != MemberRole::Leader {
            return Ok(());
        }
        let term = election.term();
        match self.led.iter().find(|(of, _)| *of == term) {
            Some((_, leader)) if *leader == node => {}
            Some((_, leader)) => {
                return Err(format!("nodes {leader} and {node} both lead in term {term}"));
            }
            None => {
                self.led.push((term, node));
                self.led.sort_unstable();
            }
        }
        Ok(())
    }

    /// A message goes out: a node votes once in a term.
    pub(super) fn said(&mut self, from: usize, to: usize, message: &Message) -> Result<(), String> {
        let (term, whom) = match message {
            Message::VoteRequest(it) if !it.pre => (it.term, from),
            Message::VoteAnswer(it) if !it.pre && it.refusal.is_none() => (it.asked_term, to),
            _ => return Ok(()),
        };
        match self.voted.iter().find(|(of, voter, _)| (*of, *voter) == (term, from)) {
            Some((_, _, before)) if *before != whom => {
                Err(format!("node {from} votes in term {term} for {before} and for {whom}"))
            }
            Some(_) => Ok(()),
            None => {
                self.voted.push((term, from, whom));
                self.voted.sort_unstable();
                Ok(())
            }
        }
    }

    /// Members are on a disk: any two configurations that can elect share a voter.
    pub(super) fn stored(&mut self, node: usize, record: &[u8]) -> Result<(), String> {
        let mut reader = reader();
        reader.restore(Key::Members, record).map_err(|error| format!("{error:?}"))?;
        let configuration = reader.configuration();
        if configuration < self.on_disk[node] {
            return Err(format!("the configuration of node {node} goes back"));
        }
        self.on_disk[node] = configuration;
        let held = |voter: NodeId| {
            let node = (0..NODES).find(|node| id(*node) == voter)?;
            Some(self.on_disk[node])
        };
        self.configurations.add(configuration, voters_of(&reader), held)
    }
}

/// Time that two nodes have to find a leader: enough for a dozen campaigns.
const ALONE_MS: u64 = 4_000;

/// Whether any two nodes find a leader when nothing happens to them any more and the third is gone,
/// as far as the configurations that the two have let them. How often that was.
///
/// # Errors
/// Two that do not, or a rule that is broken on the way.
pub(super) fn two_alone_find_a_leader(bounds: &Bounds, state: &State) -> Result<usize, String> {
    let bounds = &Bounds { in_flight: usize::MAX, ..*bounds };
    let mut tried = 0;
    for gone in 0..NODES {
        let mut state = state.clone();
        state.clear();
        let mut there = [true; NODES];
        there[gone] = false;
        for _ in 0..ALONE_MS / STEP_MS {
            state.pass_time(bounds, &there)?;
        }
        let rest = (0..NODES).filter(|node| there[*node]);
        let suffice = rest.clone().all(|node| {
            let election = &state.nodes[node].election;
            let votes = |(_, membership): &(NodeId, Membership)| *membership == Membership::Voter;
            let left = election.members().filter(votes).filter(|(node, _)| *node != id(gone));
            left.count() >= election.quorum()
        });
        if !suffice {
            continue;
        }
        tried += 1;
        if !state.leading().any(|node| there[node]) {
            return Err(format!("without node {gone} the others find no leader"));
        }
    }
    Ok(tried)
}
