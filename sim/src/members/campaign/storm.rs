//! Faults and changes of the members, drawn one after the other.

use replcore::election::Membership;
use replcore::wire::Progress;

use super::{Checked, Run};
use crate::faults::Fault;
use crate::members::world::Disk;
use crate::network::Conditions;

/// How a fault ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heal {
    Unblock(usize, usize),
    Go(usize),
    Disk(usize),
    Line(usize, usize),
}

impl Run<'_> {
    pub(super) fn later(&mut self, ms: u64, heal: Heal) {
        self.heals.push((self.world.now_us() + ms * 1_000, heal));
    }

    fn heal_due(&mut self) {
        let now_us = self.world.now_us();
        let (due, rest): (Vec<_>, Vec<_>) =
            self.heals.iter().partition(|(at_us, _)| *at_us <= now_us);
        self.heals = rest;
        for (_, heal) in due {
            self.heal(heal);
        }
    }

    pub(super) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Unblock(from, to) => self.world.block(from, to, false),
            Heal::Go(node) => self.world.stop(node, false, false),
            Heal::Disk(node) => self.world.set_disk(node, Disk::Sound),
            Heal::Line(from, to) => self.world.set_conditions(from, to, self.conditions),
        }
    }

    pub(super) fn storm(&mut self) -> Checked<()> {
        let lossy = self.lossy();
        let count = self.world.count();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            self.world.set_conditions(from, to, lossy);
        }
        let end_us = self.world.now_us() + self.plan.duration_s * 1_000_000;
        while self.world.now_us() < end_us {
            let wait_ms = match self.rng.between(0, 2) {
                0 => self.rng.between(0, 20),
                1 => self.rng.between(0, 200),
                _ => self.rng.between(100, 800),
            };
            self.run_ms(wait_ms)?;
            self.heal_due();
            if self.rng.between(0, 2) == 0 {
                self.some_change()?;
            } else {
                self.some_fault();
            }
        }
        Ok(())
    }

    fn lossy(&mut self) -> Conditions {
        Conditions {
            loss_ppm: self.rng.between(0, 100_000) as u32,
            duplicate_ppm: self.rng.between(0, 100_000) as u32,
            reorder_ppm: self.rng.between(0, 100_000) as u32,
            ..self.conditions
        }
    }

    fn some_change(&mut self) -> Checked<()> {
        let node = self.some_node();
        match self.rng.between(0, 10) {
            0..=1 => {
                self.said += 1;
                let metadata = self.said.to_le_bytes();
                self.world.tell(node, |member, now| member.set_metadata(now, &metadata).is_ok());
            }
            2 => {
                if let Some(leader) = self.world.leader() {
                    self.world.tell(leader, |member, now| member.resign(now).is_ok());
                }
            }
            3 => {
                let progress = Progress { term: 1, position: self.rng.between(1, 4) };
                self.world.tell(node, |member, now| member.set_progress(now, progress));
            }
            4 => {
                let voter = self.rng.between(0, 3) > 0;
                self.world.tell(node, |member, now| member.join(now, voter).is_ok());
            }
            5 => {
                self.world.tell(node, |member, now| member.leave(now).is_ok());
            }
            6..=9 => self.change_member(node),
            _ => return self.changes_in_a_row(),
        }
        Ok(())
    }

    fn change_member(&mut self, node: usize) {
        let to = [Membership::Voter, Membership::Voter, Membership::Learner, Membership::None]
            [self.rng.between(0, 3) as usize];
        if let Some(leader) = self.world.leader() {
            let id = self.world.id(node);
            self.world.note(Some(leader), || format!("is to make n{node} {to:?}"));
            self.world.tell(leader, |member, now| member.change_member(now, id, to).is_ok());
        }
    }

    /// Changes that follow each other while many disks do not have the first yet.
    fn changes_in_a_row(&mut self) -> Checked<()> {
        for node in 0..self.world.count() {
            if self.world.leader() != Some(node) && self.rng.between(0, 3) > 0 {
                let ms = self.some_ms();
                self.world.set_disk(node, Disk::Slow);
                self.later(ms, Heal::Disk(node));
            }
        }
        for _ in 0..self.rng.between(2, 6) {
            let (node, ms) = (self.some_node(), self.rng.between(1, 60));
            self.change_member(node);
            self.run_ms(ms)?;
        }
        Ok(())
    }

    /// How long a fault lasts: about as long as a lease, or as a peer takes to be missed.
    fn some_ms(&mut self) -> u64 {
        match self.rng.between(0, 9) {
            0..=4 => self.rng.between(1, 300),
            5..=8 => self.rng.between(200, 1_500),
            _ => self.rng.between(1_500, 4_000),
        }
    }

    fn some_fault(&mut self) {
        let nth = self.rng.between(0, self.plan.faults.len() as u64 - 1) as usize;
        let (ms, node, other) = (self.some_ms(), self.some_node(), self.some_node());
        // The leader is where most can go wrong.
        let node = match self.world.leader() {
            Some(leader) if self.rng.between(0, 1) == 0 => leader,
            _ => node,
        };
        match self.plan.faults[nth] {
            Fault::Partition => self.partition(ms),
            Fault::OneWay => self.cut(node, other, ms),
            Fault::Reset => self.world.reset(node, other),
            Fault::Crash => self.crash(node, false, ms),
            Fault::PowerCut => self.crash(node, true, ms),
            Fault::RestartAll => {
                for node in 0..self.world.count() {
                    let ms = self.rng.between(0, 100);
                    self.crash(node, true, ms);
                }
            }
            Fault::RestartFollowers => self.restart_followers(ms),
            Fault::Hang => {
                let midway = self.rng.between(0, 1) == 0;
                self.world.stop(node, true, midway);
                self.later(ms, Heal::Go(node));
            }
            Fault::SlowDisk | Fault::DiskFull => {
                let slow = self.plan.faults[nth] == Fault::SlowDisk;
                self.world.set_disk(node, if slow { Disk::Slow } else { Disk::Failing });
                self.later(ms, Heal::Disk(node));
            }
            Fault::SlowLink => self.slow(node, other, ms),
            Fault::Flip => {
                let flips = Conditions { flip_ppm: 30_000, ..self.lossy() };
                self.change_lines(node, None, flips, ms);
            }
            Fault::WallStep | Fault::TornWrite | Fault::SetBack | Fault::DiskFlip => {}
        }
    }

    /// The leader is not heard, and those who have promised it not to vote start anew.
    fn restart_followers(&mut self, ms: u64) {
        let Some(leader) = self.world.leader() else {
            return;
        };
        for node in (0..self.world.count()).filter(|node| *node != leader) {
            self.cut(leader, node, ms);
            let (power, down_ms) = (self.rng.between(0, 1) == 0, self.rng.between(0, 20));
            self.crash(node, power, down_ms);
        }
    }

    fn crash(&mut self, node: usize, power: bool, ms: u64) {
        self.world.crash(node, power);
        // Half of them come back at once, before anybody has missed them.
        let ms = if self.rng.between(0, 1) == 0 { self.rng.between(0, 30) } else { ms };
        self.world.boot_after(node, ms * 1_000);
    }

    fn cut(&mut self, from: usize, to: usize, ms: u64) {
        self.world.block(from, to, true);
        self.later(ms, Heal::Unblock(from, to));
    }

    fn partition(&mut self, ms: u64) {
        let side = self.rng.next_u64();
        for (from, to) in self.pairs() {
            if side >> from & 1 != side >> to & 1 {
                self.cut(from, to, ms);
            }
        }
    }

    pub(super) fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.world.count();
        let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to).collect()
    }

    /// To or from a node everything takes about as long as a lease; the other way it does not.
    fn slow(&mut self, node: usize, other: usize, ms: u64) {
        let latency_us = self.rng.between(20_000, 160_000);
        let slow = Conditions { latency_us, jitter_us: 10_000, ..self.lossy() };
        match self.rng.between(0, 2) {
            0 => self.change_lines(node, Some(other), slow, ms),
            1 => self.change_lines(node, None, slow, ms),
            _ => {
                for from in 0..self.world.count() {
                    self.change_lines(from, Some(node), slow, ms);
                }
            }
        }
    }

    fn change_lines(&mut self, from: usize, to: Option<usize>, conditions: Conditions, ms: u64) {
        for at in 0..self.world.count() {
            if at != from && to.is_none_or(|to| to == at) {
                self.world.set_conditions(from, at, conditions);
                self.later(ms, Heal::Line(from, at));
            }
        }
    }
}
