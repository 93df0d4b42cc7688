//! Links between nodes: bytes on their way, dials, ends.

use replcore::contract::{DialIndex, LinkId};

use super::{CONNECT_TIMEOUT_US, Cluster, Happening, Link, Machinery};
use crate::network::Pipe;
use crate::process::Stimulus;

impl<M: Machinery> Cluster<M> {
    pub(super) fn end_of(&self, index: usize, node: usize, link: LinkId) -> usize {
        usize::from(self.links[index].ends[0] != (node, link))
    }

    pub(super) fn schedule_arrival(&mut self, link: usize, to: usize) {
        if let Some(at_us) = self.links[link].pipes[to].next_us() {
            self.at(at_us, Happening::Arrive { link, to });
        }
    }

    pub(super) fn arrive(&mut self, link: usize, to: usize) {
        let (node, number) = self.links[link].ends[to];
        if !self.links[link].up[to] {
            return;
        }
        if let Some(bytes) = self.links[link].pipes[to].receive(self.now_us) {
            self.counters.bytes += bytes.len() as u64;
            self.schedule_arrival(link, to);
            // The space that it took can be filled again.
            let back_us = self.now_us + self.rng.between(0, 1_000);
            self.at(back_us, Happening::Credit { link, end: 1 - to });
            self.give(node, Stimulus::Received { link: number, bytes: &bytes });
        }
    }

    pub(super) fn credit(&mut self, link: usize, end: usize) {
        let of = &mut self.links[link];
        if !of.up[end] {
            return;
        }
        let room = u64::from(of.pipes[1 - end].room());
        let grant = room.saturating_sub(of.granted[end]);
        let (node, number) = of.ends[end];
        if grant > 0 {
            of.granted[end] += grant;
            self.give(node, Stimulus::Writable { link: number, bytes: grant as u32 });
        }
    }

    pub(super) fn dial(&mut self, node: usize, dial: DialIndex) {
        let life = self.nodes[node].life;
        let spec = &self.nodes[node].spec;
        let peer = spec.dials[usize::from(dial.0)];
        let (transport, conditions) = (spec.transport, spec.conditions);
        let latency_us = conditions.latency_us + self.rng.between(0, conditions.jitter_us);
        let cut = self.blocked.contains(&(node, peer)) || self.blocked.contains(&(peer, node));
        let refused = self.nodes[peer].process.is_none() && !self.nodes[peer].hung;
        let full = self.nodes[peer].slots.len() >= self.nodes[peer].spec.links_max as usize;
        if cut || refused || full {
            let wait_us = if cut { CONNECT_TIMEOUT_US } else { 2 * latency_us };
            self.note(|this| format!("{} dials {} in vain", this.name(node), this.name(peer)));
            self.at(self.now_us + wait_us, Happening::DialFailed { node, dial, life });
            return;
        }
        let Some(near) = self.free_slot(node) else {
            self.at(self.now_us + 1, Happening::DialFailed { node, dial, life });
            return;
        };
        let index = self.links.len();
        self.nodes[node].slots.insert(near, index);
        let far = self.free_slot(peer).expect("it is not full");
        self.nodes[peer].slots.insert(far, index);
        let seed = self.rng.next_u64();
        self.links.push(Link {
            ends: [(node, near), (peer, far)],
            up: [false, false],
            pipes: [
                Pipe::new(transport, conditions, seed),
                Pipe::new(transport, conditions, !seed),
            ],
            granted: [0, 0],
        });
        self.counters.links += 1;
        self.note(|this| format!("{} dials {}", this.name(node), this.name(peer)));
        let peer_life = self.nodes[peer].life;
        let there_us = self.now_us + latency_us;
        self.at(there_us, Happening::Opened { link: index, end: 1, life: peer_life });
        self.at(there_us + latency_us, Happening::Opened { link: index, end: 0, life });
    }

    /// A link number that is not in use; not the lowest, so that a number left behind is noticed.
    pub(super) fn free_slot(&mut self, node: usize) -> Option<LinkId> {
        let of = &mut self.nodes[node];
        for _ in 0..of.spec.links_max {
            let link = LinkId(of.next_slot);
            of.next_slot = (of.next_slot + 1) % of.spec.links_max;
            if !of.slots.contains_key(&link) {
                return Some(link);
            }
        }
        None
    }

    pub(super) fn opened(&mut self, link: usize, end: usize, life: u32) {
        let (node, number) = self.links[link].ends[end];
        let there = self.nodes[node].slots.get(&number) == Some(&link);
        if !there || self.nodes[node].life != life {
            return;
        }
        self.links[link].up[end] = true;
        let transport = self.nodes[self.links[link].ends[0].0].spec.transport;
        let dialed = (end == 0).then(|| {
            let peer = self.links[link].ends[1].0;
            let dials = &self.nodes[node].spec.dials;
            DialIndex(dials.iter().position(|to| *to == peer).expect("it was dialled") as u16)
        });
        self.give(node, Stimulus::LinkUp { link: number, dialed, transport, peer: None });
        self.credit(link, end);
        self.schedule_arrival(link, end);
    }

    /// One end learns that the link is closed.
    pub(super) fn close_end(&mut self, link: usize, end: usize) {
        let (node, number) = self.links[link].ends[end];
        if self.nodes[node].slots.get(&number) != Some(&link) {
            return;
        }
        self.nodes[node].slots.remove(&number);
        let was_up = std::mem::replace(&mut self.links[link].up[end], false);
        self.note(|this| format!("{} loses {number:?}", this.name(node)));
        if was_up {
            self.give(node, Stimulus::LinkDown { link: number });
        } else if end == 0 {
            let peer = self.links[link].ends[1].0;
            let dials = &self.nodes[node].spec.dials;
            let dial = dials.iter().position(|to| *to == peer).expect("it was dialled") as u16;
            self.give(node, Stimulus::DialFailed { dial: DialIndex(dial) });
        }
    }

    /// The end `end` learns, when all that was sent to it has arrived, that the other has closed.
    pub(super) fn close_far_end(&mut self, link: usize, end: usize) {
        let mut pipe = self.links[link].pipes[end].clone();
        let mut last_us = self.now_us + 1_000;
        if pipe.next_us().is_none() && !pipe.is_empty() {
            // Cut: it learns nothing, until its own keep-alive tells.
            return;
        }
        while let Some(at_us) = pipe.next_us() {
            last_us = last_us.max(at_us + 1);
            pipe.receive(at_us);
        }
        let (near, far) = (self.links[link].ends[1 - end].0, self.links[link].ends[end].0);
        if !self.blocked.contains(&(near, far)) {
            self.at(last_us, Happening::Closed { link, end });
        }
    }
}
