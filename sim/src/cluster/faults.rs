//! What a test does to the nodes and to the network.

use super::{Cluster, Happening, Machinery};
use crate::network::Conditions;
use crate::process::Post;

impl<M: Machinery> Cluster<M> {
    /// Ends the process of a node. `loud`: its system closes its links; else power is gone and
    /// nobody is told.
    pub fn crash(&mut self, node: usize, loud: bool) {
        let Some(process) = self.nodes[node].process.take() else { return };
        self.note(|this| {
            format!("{} crashes{}", this.name(node), if loud { "" } else { " silently" })
        });
        self.counters.crashes += 1;
        self.machinery.crash(node, process, &mut self.rng);
        let of = &mut self.nodes[node];
        of.life += 1;
        of.wake_us = None;
        of.committing = false;
        of.hung = false;
        of.missed.clear();
        for (number, index) in std::mem::take(&mut of.slots) {
            let end = self.end_of(index, node, number);
            self.links[index].up[end] = false;
            if loud {
                self.close_far_end(index, 1 - end);
            } else {
                self.links[index].pipes[1 - end].set_blocked(self.now_us, true);
                self.links[index].pipes[end].set_blocked(self.now_us, true);
            }
        }
    }

    /// Puts a line into the trace.
    pub fn remark(&mut self, node: usize, text: &str) {
        self.note(|this| format!("{} {text}", this.name(node)));
    }

    /// Starts the process of a node after a while, unless it runs.
    pub fn boot_after(&mut self, node: usize, after_us: u64) {
        self.at(self.now_us + after_us, Happening::Boot { node });
    }

    /// Has a program post at a node.
    pub fn post(&mut self, node: usize, mark: u64, post: Post) {
        self.happen(Happening::Post { node, mark, post });
    }

    /// Has a program post at a node, later.
    pub fn post_after(&mut self, node: usize, after_us: u64, mark: u64, post: Post) {
        self.at(self.now_us + after_us, Happening::Post { node, mark, post });
    }

    /// Cuts or restores one direction between two nodes, for open links and new ones.
    pub fn block(&mut self, from: usize, to: usize, blocked: bool) {
        self.note(|this| {
            let what = if blocked { "cut" } else { "restored" };
            format!("{} to {} {what}", this.name(from), this.name(to))
        });
        if blocked {
            self.counters.cuts += 1;
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
        for index in 0..self.links.len() {
            for end in 0..2 {
                let of = &mut self.links[index];
                let both = of.up[0] || of.up[1];
                if both && of.ends[1 - end].0 == from && of.ends[end].0 == to {
                    of.pipes[end].set_blocked(self.now_us, blocked);
                    self.schedule_arrival(index, end);
                }
            }
        }
    }

    /// Breaks every link between two nodes at once, as a reset does.
    pub fn reset(&mut self, one: usize, other: usize) {
        for index in 0..self.links.len() {
            let ends = [self.links[index].ends[0].0, self.links[index].ends[1].0];
            if ends == [one, other] || ends == [other, one] {
                self.counters.cuts += 1;
                for end in 0..2 {
                    let late_us = self.rng.between(0, 200_000);
                    self.at(self.now_us + late_us, Happening::Closed { link: index, end });
                }
            }
        }
    }

    /// Makes a node accept and never answer, or lets it go on with all it has missed.
    pub fn hang(&mut self, node: usize, hung: bool) {
        self.note(|this| format!("{} {}", this.name(node), if hung { "hangs" } else { "goes on" }));
        self.nodes[node].hung = hung;
        if !hung {
            for happening in std::mem::take(&mut self.nodes[node].missed) {
                self.at(self.now_us, happening);
            }
        }
    }

    /// Stops or restarts the syncs of a node's disk: a disk that hangs.
    pub fn stop_syncs(&mut self, node: usize, stopped: bool) {
        self.nodes[node].syncs_stopped = stopped;
        self.arm(node);
    }

    /// Steps the wall clock of a node.
    pub fn step_wall(&mut self, node: usize, ms: i64) {
        self.note(|this| format!("{}: wall clock stepped by {ms} ms", this.name(node)));
        self.nodes[node].spec.clock.step_wall(ms);
    }

    /// Changes how links of a node treat what is sent from now on, open ones too.
    pub fn set_conditions(&mut self, node: usize, conditions: Conditions) {
        self.nodes[node].spec.conditions = conditions;
        for link in &mut self.links {
            if link.ends.iter().any(|end| end.0 == node) {
                for pipe in &mut link.pipes {
                    pipe.set_conditions(conditions);
                }
            }
        }
    }
}
