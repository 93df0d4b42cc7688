//! Every configuration that was ever on a disk, and which of them can elect.

use std::collections::BTreeMap;

use replcore::election::{Election, ElectionSlot, Membership};
use replcore::stream::NodeId;
use replcore::wire::ConfigurationId;

/// The voters of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Configurations(BTreeMap<ConfigurationId, Vec<NodeId>>);

/// The voters of the present configuration, sorted.
pub(super) fn voters_of<S>(election: &Election<S>) -> Vec<NodeId>
where
    S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>,
{
    let voter = |(id, membership)| (membership == Membership::Voter).then_some(id);
    let mut voters: Vec<NodeId> = election.members().filter_map(voter).collect();
    voters.sort_unstable();
    voters
}

pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Configurations {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A configuration is on a disk. `held` says which one is on the disk of a voter, `None` when
    /// that is not known.
    ///
    /// A configuration can elect as long as some majority of it has nothing newer. Any two that can
    /// must share a voter in every pair of their majorities.
    ///
    /// # Errors
    /// Two that do not, or two of one name.
    pub(super) fn add(
        &mut self,
        id: ConfigurationId,
        voters: Vec<NodeId>,
        held: impl Fn(NodeId) -> Option<ConfigurationId>,
    ) -> Result<(), String> {
        let known = self.0.entry(id).or_insert_with(|| voters.clone());
        if *known != voters {
            return Err(format!("there are two configurations {id:?}"));
        }
        let able: Vec<(ConfigurationId, &Vec<NodeId>)> = self
            .0
            .iter()
            .filter(|(id, voters)| {
                let older = |voter: &&NodeId| held(**voter).is_none_or(|held| held <= **id);
                voters.iter().filter(older).count() >= majority(voters.len())
            })
            .map(|(id, voters)| (*id, voters))
            .collect();
        for (at, (one, its)) in able.iter().enumerate() {
            for (other, others) in &able[at + 1..] {
                let common = its.iter().filter(|it| others.contains(it)).count();
                let all = its.len() + others.len() - common;
                if majority(its.len()) + majority(others.len()) <= all {
                    return Err(format!("{one:?} and {other:?} can both elect, apart"));
                }
            }
        }
        Ok(())
    }
}
