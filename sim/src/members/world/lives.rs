//! The lives of the nodes of a world: processes start, stop and end, machines lose power.

use replcore::contract::{Input, Machine, Transport};
use replcore::member::Member;
use replcore::time::Instant;

use super::{Disk, Event, World, address, name};
use crate::clock::Clock;
use crate::members::tamper::Bug;

impl<'m> World<'m> {
    /// Starts the process, if it is down and there is memory for one more life.
    pub fn boot(&mut self, node: usize) {
        if self.nodes[node].machine.is_some() {
            return;
        }
        let (count, seed) = (self.count(), self.rng.next_u64());
        let Some(memory) = self.memory.next() else {
            return;
        };
        let own = &mut self.nodes[node];
        let mut config = own.spec.config;
        config.seed = seed;
        let mut machine =
            Member::new(config, memory.borrow(count.max(9))).expect("the timing is sound");
        for peer in &own.spec.peers {
            let name = name(peer.node);
            let known = machine.add_known_peer(
                name,
                Some(address(peer.node)),
                peer.metadata.as_deref(),
                peer.voter,
            );
            assert!(known.is_ok(), "a peer of a file finds no room: {known:?}");
        }
        let mut unread = None;
        for (key, record) in &own.safe {
            let tampered = self.bug.and_then(|bug| bug.at_start(*key, record));
            let record = tampered.as_ref().unwrap_or(record);
            unread = machine.restore(*key, record).err().or(unread);
        }
        own.machine = Some(machine);
        own.life += 1;
        self.note(Some(node), || {
            format!("starts{}", if unread.is_some() { ", cannot read its disk" } else { "" })
        });
        if unread.is_some() {
            self.rules.break_at(node, format!("its own record is refused: {unread:?}"));
        }
        let early_us = if self.bug == Some(Bug::NoSilence) { 160_000 } else { 0 };
        let now = self.clock(node).as_micros() - early_us;
        let metadata = self.nodes[node].spec.metadata.clone();
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.handle(Instant::from_micros(now), Input::Timeout);
            if let Some(metadata) = metadata {
                let set = machine.set_metadata(Instant::from_micros(now), &metadata);
                debug_assert!(set.is_ok());
            }
        }
        self.input(node, Input::Timeout);
    }

    /// Starts the process after so many microseconds.
    pub fn boot_after(&mut self, node: usize, us: u64) {
        let life = self.nodes[node].life;
        self.post(us, Event::Boot { node, life });
    }

    /// Ends the process. What was on its way to the disk is there or not. With `power` the peers
    /// are not told, and the clock starts anew.
    pub fn crash(&mut self, node: usize, power: bool) {
        if self.nodes[node].machine.take().is_none() {
            return;
        }
        self.crashes += 1;
        self.note(Some(node), || if power { "loses power" } else { "ends" }.to_owned());
        self.rules.ended(node);
        let own = &mut self.nodes[node];
        own.life += 1;
        own.wake_us = u64::MAX;
        (own.stopped, own.stops_midway, own.undrained) = (false, false, false);
        own.held.clear();
        for slot in 0..self.nodes[node].links.len() {
            if let Some((line, end)) = self.nodes[node].links[slot].take() {
                self.lines[line][end].close();
                if !power && self.transport == Transport::Stream {
                    self.tell_down(line, 1 - end);
                }
            }
        }
        if power {
            let offset_us = self.rng.between(1_000_000, 1_000_000_000);
            self.clocks[node] = Clock::new(self.nodes[node].spec.drift_ppm, offset_us);
        }
    }

    /// Stops the process, as by SIGSTOP, or lets it go on. What it said still stands meanwhile.
    /// With `midway` it stops in the middle of its next turn.
    pub fn stop(&mut self, node: usize, stopped: bool, midway: bool) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        self.note(Some(node), || if stopped { "is stopped" } else { "goes on" }.to_owned());
        if stopped && midway {
            self.nodes[node].stops_midway = true;
            return;
        }
        self.nodes[node].stopped = stopped;
        self.nodes[node].stops_midway = false;
        if stopped {
            return;
        }
        if std::mem::take(&mut self.nodes[node].undrained) {
            self.drain(node);
        }
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.post(0, event);
        }
        self.post(0, Event::Wake { node });
    }

    /// What the disk does from now on.
    pub fn set_disk(&mut self, node: usize, disk: Disk) {
        self.note(Some(node), || format!("its disk is {disk:?}"));
        self.nodes[node].disk = disk;
    }

    /// Gives a command to a node that is up and not stopped.
    pub fn tell<T>(
        &mut self,
        node: usize,
        command: impl FnOnce(&mut Member<'m>, Instant) -> T,
    ) -> Option<T> {
        if self.nodes[node].stopped {
            return None;
        }
        let now = self.clock(node);
        let answer = command(self.nodes[node].machine.as_mut()?, now);
        self.publish(node);
        self.drain(node);
        Some(answer)
    }
}
