//! Links between the nodes of a world: dialled, cut, slow, reset; and what arrives on them.

use replcore::contract::{DialIndex, Input, LinkId, Transport};
use replcore::wire;

use super::{End, Event, World};
use crate::members::tamper::{self, Bug};
use crate::network::{Conditions, Pipe};

impl World<'_> {
    /// Cuts or restores one direction between two nodes.
    pub fn block(&mut self, from: usize, to: usize, blocked: bool) {
        if self.blocked[from][to] == blocked {
            return;
        }
        self.blocked[from][to] = blocked;
        self.note(None, || {
            format!("n{from} to n{to} {}", if blocked { "is cut" } else { "passes again" })
        });
        let now_us = self.now_us;
        self.each_pipe(from, to, |pipe| pipe.set_blocked(now_us, blocked));
    }

    /// How one direction between two nodes is from now on.
    pub fn set_conditions(&mut self, from: usize, to: usize, conditions: Conditions) {
        self.conditions[from][to] = conditions;
        self.each_pipe(from, to, |pipe| pipe.set_conditions(conditions));
    }

    fn each_pipe(&mut self, from: usize, to: usize, change: impl Fn(&mut Pipe)) {
        for line in 0..self.lines.len() {
            for end in 0..2 {
                let ends = &mut self.lines[line];
                if (ends[end].node, ends[1 - end].node) == (from, to) {
                    change(&mut ends[end].pipe);
                    self.expect(line, end);
                }
            }
        }
    }

    /// Breaks every link between two nodes.
    pub fn reset(&mut self, one: usize, other: usize) {
        self.note(None, || format!("links between n{one} and n{other} are reset"));
        for line in 0..self.lines.len() {
            let ends = &self.lines[line];
            if [(one, other), (other, one)].contains(&(ends[0].node, ends[1].node)) {
                self.tell_down(line, 0);
                self.tell_down(line, 1);
            }
        }
    }

    pub(super) fn dialed(&mut self, from: usize, dial: u16, to: Option<usize>) {
        let Some(to) = to else {
            return self.input(from, Input::DialFailed { dial: DialIndex(dial) });
        };
        let cut = self.blocked[from][to] || self.blocked[to][from];
        let free = |world: &Self, node: usize| {
            let slot = world.nodes[node].links.iter().position(Option::is_none)?;
            Some(LinkId(slot as u32))
        };
        let (own, other) = (free(self, from), free(self, to));
        let datagram = self.transport == Transport::Datagram;
        let answers = datagram || (self.nodes[to].machine.is_some() && !cut && other.is_some());
        let (Some(own), true) = (own, answers) else {
            return self.input(from, Input::DialFailed { dial: DialIndex(dial) });
        };
        let line = self.lines.len();
        let pipe = |world: &mut Self, from: usize, to: usize| {
            let seed = world.rng.next_u64();
            let mut pipe = Pipe::new(world.transport, world.conditions[from][to], seed);
            pipe.set_blocked(world.now_us, world.blocked[from][to]);
            pipe
        };
        let pipes = [pipe(self, from, to), pipe(self, to, from)];
        let [out, back] = pipes;
        let other = other.filter(|_| !datagram);
        self.lines.push([End::new(from, Some(own), out), End::new(to, other, back)]);
        self.nodes[from].links[own.0 as usize] = Some((line, 0));
        self.post(0, Event::Up { line, end: 0, link: own, dialed: Some(dial) });
        if let Some(other) = other {
            self.nodes[to].links[other.0 as usize] = Some((line, 1));
            self.post(0, Event::Up { line, end: 1, link: other, dialed: None });
        }
    }

    pub(super) fn up(&mut self, line: usize, end: usize, link: LinkId, dialed: Option<u16>) {
        if self.lines[line][end].link != Some(link) {
            return;
        }
        let node = self.lines[line][end].node;
        let transport = self.transport;
        let dialed = dialed.map(DialIndex);
        self.input(node, Input::LinkUp { link, dialed, transport, identity: None });
        let bytes = self.lines[line][end].pipe.room().max(wire::FRAME_BYTES_MIN);
        self.input(node, Input::Writable { link, bytes });
    }

    /// That end learns that the link is gone.
    pub(super) fn tell_down(&mut self, line: usize, end: usize) {
        if let Some(link) = self.lines[line][end].link {
            let from = self.lines[line][1 - end].node;
            let after_us = self.conditions[from][self.lines[line][end].node].latency_us;
            self.post(after_us, Event::Down { line, end, link });
        }
    }

    pub(super) fn down(&mut self, line: usize, end: usize, link: LinkId) {
        let at = &mut self.lines[line][end];
        if at.link != Some(link) {
            return;
        }
        at.close();
        let node = at.node;
        self.nodes[node].links[link.0 as usize] = None;
        self.input(node, Input::LinkDown { link });
    }

    /// Something may arrive at `end`, from the pipe of the other.
    pub(super) fn expect(&mut self, line: usize, from: usize) {
        if let Some(at_us) = self.lines[line][from].pipe.next_us() {
            self.post_at(at_us, Event::Arrive { line, end: 1 - from });
        }
    }

    pub(super) fn arrive(&mut self, line: usize, end: usize) {
        let node = self.lines[line][end].node;
        if !self.lines[line][end].inbox.is_empty() {
            self.offer(line, end);
        }
        let mut came = 0;
        loop {
            if self.nodes[node].stopped {
                self.nodes[node].held.push(Event::Arrive { line, end });
                break;
            }
            let Some(bytes) = self.lines[line][1 - end].pipe.receive(self.now_us) else {
                break;
            };
            came += bytes.len() as u32;
            if self.nodes[node].machine.is_none() {
                continue;
            }
            if self.lines[line][end].link.is_none() && !self.reopen(line, end) {
                continue;
            }
            self.lines[line][end].inbox.extend_from_slice(&bytes);
            if let Some(bug) = self.bug {
                self.tamper_incoming(bug, line, end);
            }
            self.offer(line, end);
        }
        if self.transport == Transport::Stream && came > 0 {
            self.credit(line, 1 - end, came);
        }
        self.expect(line, 1 - end);
    }

    /// Bytes have come for a link that is closed here. On a line the other end is told; a datagram
    /// opens the link anew at the end that was dialled.
    fn reopen(&mut self, line: usize, end: usize) -> bool {
        let node = self.lines[line][end].node;
        if self.transport == Transport::Stream {
            self.tell_down(line, 1 - end);
            return false;
        }
        let free = self.nodes[node].links.iter().position(Option::is_none);
        let (1, Some(slot)) = (end, free) else {
            return false;
        };
        self.nodes[node].links[slot] = Some((line, end));
        self.lines[line][end].link = Some(LinkId(slot as u32));
        self.up(line, end, LinkId(slot as u32), None);
        true
    }

    /// Gives a node what has arrived and was not taken.
    fn offer(&mut self, line: usize, end: usize) {
        let node = self.lines[line][end].node;
        let Some(link) = self.lines[line][end].link else {
            return;
        };
        let mut data = std::mem::take(&mut self.lines[line][end].inbox);
        let taken = self.take(node, Input::Recv { link, data: &data });
        data.drain(..taken);
        if self.transport == Transport::Datagram {
            data.clear();
        }
        let at = &mut self.lines[line][end];
        at.tampered_bytes = at.tampered_bytes.saturating_sub(taken).min(data.len());
        // More may have been put there by a drain.
        if self.lines[line][end].link == Some(link) {
            data.append(&mut self.lines[line][end].inbox);
            self.lines[line][end].inbox = data;
        }
        self.finish(node);
    }

    /// Each whole frame that has arrived at `end` is tampered with once.
    fn tamper_incoming(&mut self, bug: Bug, line: usize, end: usize) {
        let node = self.lines[line][end].node;
        let now = self.clock(node);
        let mut twice = Vec::new();
        loop {
            let at = &mut self.lines[line][end];
            let rest = &at.inbox[at.tampered_bytes..];
            let (Some(len), Some(machine)) = (tamper::first_frame(rest), &self.nodes[node].machine)
            else {
                break;
            };
            let frame = &rest[..len];
            if bug.counts_twice(frame, machine) {
                twice.push(frame.to_vec());
            }
            let start = at.tampered_bytes;
            at.tampered_bytes += len;
            if let Some(frames) = bug.incoming(frame, machine, now) {
                at.tampered_bytes = start + frames.len();
                at.inbox.splice(start..start + len, frames);
            }
        }
        if let Some(link) = self.lines[line][end].link {
            for frame in twice {
                self.say_again(node, link, &frame);
            }
        }
    }

    /// A frame that came on `link` comes from another node as well.
    fn say_again(&mut self, node: usize, link: LinkId, frame: &[u8]) {
        for slot in 0..self.nodes[node].links.len() {
            if let Some((line, end)) = self.nodes[node].links[slot]
                && slot as u32 != link.0
                && self.lines[line][end].inbox.is_empty()
            {
                let link = LinkId(slot as u32);
                self.take(node, Input::Recv { link, data: frame });
                return;
            }
        }
    }

    fn credit(&mut self, line: usize, end: usize, bytes: u32) {
        let at = &mut self.lines[line][end];
        at.spent_bytes += bytes;
        if at.spent_bytes >= 4_096
            && let Some(link) = at.link
        {
            let bytes = std::mem::take(&mut at.spent_bytes);
            let node = at.node;
            if self.nodes[node].stopped {
                self.lines[line][end].spent_bytes += bytes;
            } else {
                self.input(node, Input::Writable { link, bytes });
            }
        }
    }
}
