//! When the storm is over: a majority that can talk has a leader, all agree, nothing changes.

use replcore::election::Membership;

use super::{Checked, Run};
use crate::members::world::Disk;

/// A majority that can talk has a leader within this long, in seconds: dead links are noticed after
/// 1.75 s or, half greeted, after 5 s, and dialled again after 2 s.
const LEADER_S: u64 = 12;
/// All members agree on everything within this long after the last fault, in seconds. A node that
/// was itself slow takes up to 18 s to condemn a dead peer.
const AGREE_S: u64 = 40;
/// After that nothing changes for this long, in seconds.
const CALM_S: u64 = 2;

impl Run<'_> {
    pub(super) fn heal_all(&mut self) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.heal(heal);
        }
        for (from, to) in self.pairs() {
            self.world.block(from, to, false);
            self.world.set_conditions(from, to, self.conditions);
        }
    }

    /// Nodes that no configuration of any node needs for a majority: down or cut off, the others
    /// have a leader in time.
    pub(super) fn majority_alone(&mut self) -> Checked<()> {
        self.heal_all();
        for node in 0..self.world.count() {
            self.world.boot(node);
        }
        // Some of them may be behind in term, or in what they know of the members.
        let ms = self.rng.between(0, 1_500);
        self.run_ms(ms)?;
        let mut lost: Vec<usize> = Vec::new();
        for _ in 0..self.world.count() {
            let node = self.some_node();
            lost.push(node);
            if !self.all_can_spare(&lost) {
                lost.pop();
            }
        }
        lost.sort_unstable();
        lost.dedup();
        let down = self.rng.between(0, 1) == 0;
        for node in lost.iter().copied() {
            self.world.note(Some(node), || "is left out".to_owned());
            if down {
                let power = self.rng.between(0, 1) == 0;
                self.world.crash(node, power);
            } else {
                self.cut_off(node);
            }
        }
        let rest: Vec<usize> = (0..self.world.count()).filter(|it| !lost.contains(it)).collect();
        let able = |run: &Self| run.voters_of(&rest) > 0;
        if able(self) {
            // A change that was on its way may yet need one of the lost.
            let found = |run: &Self| {
                run.world.leader().is_some_and(|leader| rest.contains(&leader))
                    || !run.all_can_spare(&lost)
            };
            self.until(LEADER_S, "no leader of the majority that can talk", found)?;
        }
        if down && !lost.is_empty() && self.rng.between(0, 1) == 0 {
            let missed = |run: &Self| lost.iter().all(|lost| run.is_missed(*lost, &rest));
            self.until(AGREE_S, "a dead node is not missed by all", missed)?;
        }
        Ok(())
    }

    fn cut_off(&mut self, node: usize) {
        let (to, from) =
            [(true, true), (true, false), (false, true)][self.rng.between(0, 2) as usize];
        for other in (0..self.world.count()).filter(|other| *other != node) {
            if to {
                self.world.block(other, node, true);
            }
            if from {
                self.world.block(node, other, true);
            }
        }
    }

    fn voters_of(&self, nodes: &[usize]) -> usize {
        let votes = |node: &&usize| {
            let id = self.world.id(**node);
            self.world.machine(**node).is_some_and(|it| it.membership(id) == Membership::Voter)
        };
        nodes.iter().filter(votes).count()
    }

    /// Whether every configuration that a node has leaves a majority without the lost, and no file is
    /// wrong any more.
    fn all_can_spare(&self, lost: &[usize]) -> bool {
        let machines = || (0..self.world.count()).filter_map(|node| self.world.machine(node));
        let origins = machines().filter_map(|it| Some(it.election()?.configuration().origin()));
        let mut origins = origins.filter(|origin| *origin != 0);
        let first = origins.next();
        if origins.any(|origin| Some(origin) != first) {
            return false;
        }
        machines().all(|machine| {
            let Some(election) = machine.election() else {
                return true;
            };
            let is_lost = |id| lost.iter().any(|lost| self.world.id(*lost) == id);
            let voters = election.members().filter(|(_, it)| *it == Membership::Voter);
            let left = voters.filter(|(id, _)| !is_lost(*id)).count();
            left >= election.quorum()
        })
    }

    fn is_missed(&self, lost: usize, by: &[usize]) -> bool {
        let id = self.world.id(lost);
        by.iter().filter_map(|node| self.world.machine(*node)).all(|machine| {
            machine.peer(id).is_none_or(|peer| peer.state == replcore::registry::PeerState::Down)
        })
    }

    fn until(&mut self, within_s: u64, what: &str, done: impl Fn(&Self) -> bool) -> Checked<()> {
        let end_us = self.world.now_us() + within_s * 1_000_000;
        while !done(self) {
            if self.world.now_us() >= end_us {
                return Err((None, format!("{what}, {within_s} s after the last fault")));
            }
            self.run_ms(50)?;
        }
        Ok(())
    }

    pub(super) fn peace(&mut self) {
        self.heal_all();
        for node in 0..self.world.count() {
            self.world.stop(node, false, false);
            self.world.set_disk(node, Disk::Sound);
            self.world.boot(node);
        }
        self.world.note(None, || "peace".to_owned());
    }

    /// One leads, all members know it, have its configuration, and know all of each other.
    pub(super) fn agree(&mut self) -> Checked<()> {
        self.until(LEADER_S, "no leader", |run| run.world.leader().is_some())?;
        let end_us = self.world.now_us() + AGREE_S * 1_000_000;
        loop {
            self.run_ms(100)?;
            match self.disagreement() {
                None => return Ok(()),
                Some(what) if self.world.now_us() >= end_us => {
                    return Err((None, format!("{what}, {AGREE_S} s after the last fault")));
                }
                Some(_) => {}
            }
        }
    }

    fn disagreement(&self) -> Option<String> {
        let leader = self.world.leader();
        let Some((leader, leading)) = leader.and_then(|at| Some((at, self.world.machine(at)?)))
        else {
            return Some("no leader".to_owned());
        };
        let election = leading.election()?;
        if !leading.is_settled() {
            return Some("the configuration is not settled".to_owned());
        }
        let members: Vec<usize> = (0..self.world.count())
            .filter(|node| election.membership(self.world.id(*node)) != Membership::None)
            .collect();
        for node in members.iter().copied() {
            let Some(machine) = self.world.machine(node) else {
                return Some(format!("n{node} is down"));
            };
            let known = machine.leader().map(|it| (it.node, it.term));
            if known != Some((self.world.id(leader), leading.term())) {
                return Some(format!("n{node} knows {known:?} and not n{leader} as the leader"));
            }
            if machine.election().map(|it| it.configuration()) != Some(election.configuration()) {
                return Some(format!("n{node} has another configuration"));
            }
            for other in members.iter().copied().filter(|other| *other != node) {
                if let Some(what) = self.ignorance(node, other) {
                    return Some(what);
                }
            }
        }
        None
    }

    /// What `node` does not know of `other`.
    fn ignorance(&self, node: usize, other: usize) -> Option<String> {
        let id = self.world.id(other);
        let view = self.world.machine(node)?.peer(id);
        let own = self.world.machine(other)?.peer(id)?;
        let Some(view) = view else {
            return Some(format!("n{node} knows no n{other}"));
        };
        if (view.metadata, view.version, view.address) != (own.metadata, own.version, own.address) {
            return Some(format!("n{node} knows {view:?} of n{other}, which says {own:?}"));
        }
        (view.state != replcore::registry::PeerState::Up)
            .then(|| format!("n{node} takes n{other} for {:?}", view.state))
    }

    /// Nothing changes any more.
    pub(super) fn calm(&mut self) -> Checked<()> {
        // Wishes of the storm may still be coming true.
        self.world.quiet = true;
        let before = self.world.leader().and_then(|at| Some((at, self.world.machine(at)?.term())));
        self.run_ms(CALM_S * 1_000)?;
        let after = self.world.leader().and_then(|at| Some((at, self.world.machine(at)?.term())));
        if before != after {
            return Err((None, format!("leader and term were {before:?} and are {after:?}")));
        }
        self.disagreement().map_or(Ok(()), |what| Err((None, format!("agreed no more: {what}"))))
    }

    pub(super) fn idle(&mut self) -> Checked<()> {
        self.run_ms(300)?;
        self.agree()?;
        self.world.quiet = true;
        let leader = self.world.leader();
        let terms = self.world.rules.leaders();
        for _ in 0..self.plan.duration_s.div_ceil(10) {
            self.run_ms(10_000)?;
            if self.world.leader() != leader || self.world.rules.leaders() != terms {
                return Err((None, "another leader without any fault".to_owned()));
            }
        }
        Ok(())
    }
}
