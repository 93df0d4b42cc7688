//! What a driver does for its machine: give it an input, publish, do what is asked.

use replcore::contract::{DialIndex, Input, Key, LinkId, Machine, Output, Token, Transport};
use replcore::election::Membership;
use replcore::member::MemberEvent;
use replcore::wire;

use super::{Disk, Event, World};
use crate::members::tamper::{self, Bug};

impl World<'_> {
    pub(super) fn input(&mut self, node: usize, input: Input<'_>) {
        self.take(node, input);
        self.finish(node);
    }

    pub(super) fn take(&mut self, node: usize, input: Input<'_>) -> usize {
        let now = self.clock(node);
        let Some(machine) = &mut self.nodes[node].machine else {
            return 0;
        };
        self.events += 1;
        let mark = self.now_us ^ (node as u64) << 56;
        self.digest = (self.digest ^ mark).wrapping_mul(0x0000_0100_0000_01b3);
        machine.handle(now, input)
    }

    /// The rest of a turn: publish, then do what is asked.
    pub(super) fn finish(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].stops_midway) {
            self.nodes[node].stopped = true;
            self.nodes[node].undrained = true;
            return;
        }
        self.drain(node);
    }

    pub(super) fn publish(&mut self, node: usize) {
        if let Some(machine) = &self.nodes[node].machine {
            self.rules.published(node, machine, &self.clocks, self.now_us);
        }
    }

    pub(super) fn drain(&mut self, node: usize) {
        self.publish(node);
        let mut buf = [0; wire::CONTROL_FRAME_BYTES_MAX];
        for _ in 0..10_000 {
            let Some(machine) = &mut self.nodes[node].machine else {
                return;
            };
            match machine.poll(&mut buf) {
                Output::Idle { wake } => {
                    let wake_us = wake.map_or(u64::MAX, |wake| self.clocks[node].true_us(wake));
                    let wake_us = wake_us.max(self.now_us);
                    let own = &mut self.nodes[node];
                    if own.wake_us != wake_us {
                        own.wake_us = wake_us;
                        if wake_us < u64::MAX {
                            self.post_at(wake_us, Event::Wake { node });
                        }
                    }
                    return;
                }
                Output::Send { link, len } => self.send(node, link, &buf[..len]),
                Output::Persist { key, token, len } => self.persist(node, key, token, &buf[..len]),
                Output::Dial { dial } => self.dial(node, dial),
                Output::Hangup { link } => self.hang_up(node, link),
                Output::Event { event, .. } => self.told(node, event),
                Output::Resume { link } => {
                    if let Some((line, end)) = self.nodes[node].links[link.0 as usize] {
                        self.post(0, Event::Arrive { line, end });
                    }
                }
                other => {
                    return self.rules.break_at(node, format!("a member never wants {other:?}"));
                }
            }
        }
        self.rules.break_at(node, "its drain does not end".to_owned());
    }

    fn send(&mut self, node: usize, link: LinkId, frame: &[u8]) {
        let Some((line, end)) = self.nodes[node].links[link.0 as usize] else {
            return self.rules.break_at(node, format!("sends on {link:?}, which is down"));
        };
        let tampered = self.bug.and_then(|bug| bug.outgoing(frame));
        let frame = tampered.as_deref().unwrap_or(frame);
        let to = self.lines[line][1 - end].node;
        if let Some(control) = tamper::control(frame) {
            self.rules.sent(node, self.ids[to], &control, &self.clocks, self.now_us);
            self.note(Some(node), || format!("to n{to}: {control:?}"));
        }
        self.lines[line][end].pipe.send(self.now_us, frame);
        self.expect(line, end);
        if self.transport == Transport::Datagram {
            // What is sent is gone. The credit comes back with the next turn.
            self.lines[line][end].spent_bytes += frame.len() as u32;
            if self.lines[line][end].spent_bytes >= 4_096 {
                let bytes = std::mem::take(&mut self.lines[line][end].spent_bytes);
                self.take(node, Input::Writable { link, bytes });
                self.publish(node);
            }
        }
    }

    fn persist(&mut self, node: usize, key: Key, token: Token, record: &[u8]) {
        let (low, high) = self.nodes[node].spec.sync_us;
        let (took_us, keeps, says) = match self.nodes[node].disk {
            Disk::Sound => (self.rng.between(low, high), true, true),
            Disk::Slow => (self.rng.between(low, 2_000_000), true, true),
            Disk::Failing => (self.rng.between(low, high), self.rng.between(0, 3) == 0, false),
        };
        let life = self.nodes[node].life;
        let record = record.to_vec();
        self.note(Some(node), || format!("stores {key:?}, in {took_us} us"));
        if self.bug == Some(Bug::VoteBeforeStored) && says && key == Key::Ballot {
            self.take(node, Input::Persisted { token });
            self.publish(node);
        }
        self.post(took_us, Event::Stored { node, life, token, key, record, keeps, says });
    }

    fn dial(&mut self, node: usize, dial: DialIndex) {
        let Some(machine) = &self.nodes[node].machine else {
            return;
        };
        let Some(target) = machine.dial_target(dial) else {
            return self.rules.break_at(node, format!("dials {dial:?}, which is nobody"));
        };
        let to = self.ids.iter().position(|id| *id == target.node);
        let after_us = to.map_or(100, |to| 2 * self.conditions[node][to].latency_us);
        let life = self.nodes[node].life;
        self.post(after_us, Event::Dialed { from: node, dial: dial.0, to, life });
    }

    fn hang_up(&mut self, node: usize, link: LinkId) {
        if let Some((line, end)) = self.nodes[node].links[link.0 as usize] {
            if self.transport == Transport::Stream
                && !self.blocked[node][self.lines[line][1 - end].node]
            {
                // What was said before still gets there.
                let rest_us = 3 * self.conditions[node][self.lines[line][1 - end].node].latency_us;
                if let Some(link) = self.lines[line][1 - end].link {
                    self.post(rest_us, Event::Down { line, end: 1 - end, link });
                }
            }
            self.post(0, Event::Down { line, end, link });
        }
    }

    fn told(&mut self, node: usize, event: MemberEvent) {
        self.note(Some(node), || format!("{event:?}"));
        if let MemberEvent::PeerDown { node: peer } = event
            && self.quiet
            && let Some(at) = self.ids.iter().position(|id| *id == peer)
            && let Some(leading) = self.leader().and_then(|leader| self.machine(leader))
            && leading.membership(peer) != Membership::None
            && leading.membership(self.ids[node]) != Membership::None
            && self.nodes[at].machine.is_some()
            && !self.blocked[at][node]
            && !self.blocked[node][at]
        {
            self.rules.break_at(node, format!("takes n{at}, which lives, for dead"));
        }
    }
}
