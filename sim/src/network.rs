//! One direction of a link between two simulated nodes.
//!
//! A [`Pipe`] takes bytes at one time and gives them back at a later one. What happens in between
//! is drawn from a seeded generator: on a byte stream delay and arbitrary cuts into segments, on
//! datagrams also loss, repetition and reordering, on both flipped bits where asked for.

use std::collections::BTreeMap;

use replcore::contract::Transport;
use replcore::rng::Rng;

/// How a link treats what is sent over it. Chances are in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Least time from one end to the other, in microseconds.
    pub latency_us: u64,
    /// Added to the latency, from 0 to this, drawn for each frame or segment.
    pub jitter_us: u64,
    /// A datagram is lost. No effect on streams.
    pub loss_ppm: u32,
    /// A datagram arrives twice. No effect on streams.
    pub duplicate_ppm: u32,
    /// A datagram takes up to ten times as long, so that later ones pass it. No effect on streams.
    pub reorder_ppm: u32,
    /// One bit of a datagram or segment is flipped.
    pub flip_ppm: u32,
    /// Bytes that pass in a second; 0 for no limit.
    pub rate_bytes: u64,
    /// Bytes that may be on their way; the sender gets no credit beyond.
    pub window_bytes: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency_us: 1_000,
            jitter_us: 500,
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            flip_ppm: 0,
            rate_bytes: 0,
            window_bytes: 64 * 1024,
        }
    }
}

/// What one direction has done, in bytes, frames and faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames or segments given to the pipe.
    pub sent: u64,
    /// Frames or segments that came out.
    pub received: u64,
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams repeated.
    pub duplicated: u64,
    /// Bits flipped.
    pub flipped: u64,
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Pipe {
    transport: Transport,
    conditions: Conditions,
    rng: Rng,
    /// By time of arrival, then by order of sending.
    flights: BTreeMap<(u64, u64), Vec<u8>>,
    sent: u64,
    bytes_in_flight: u64,
    /// When the last byte sent so far has left, under the rate.
    left_us: u64,
    /// The latest arrival that nothing passes, but for datagrams that are reordered.
    arrived_us: u64,
    /// When set, nothing arrives.
    blocked: bool,
    counters: Counters,
}

impl Pipe {
    /// An empty pipe.
    pub const fn new(transport: Transport, conditions: Conditions, seed: u64) -> Self {
        Self {
            transport,
            conditions,
            rng: Rng::new(seed),
            flights: BTreeMap::new(),
            sent: 0,
            bytes_in_flight: 0,
            left_us: 0,
            arrived_us: 0,
            blocked: false,
            counters: Counters { sent: 0, received: 0, lost: 0, duplicated: 0, flipped: 0 },
        }
    }

    /// Changes how it treats what is sent from now on.
    pub const fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// What it has done so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Cuts or restores this direction. What is on its way on a stream waits; datagrams are lost.
    pub fn set_blocked(&mut self, now_us: u64, blocked: bool) {
        if blocked && self.transport == Transport::Datagram {
            self.counters.lost += self.flights.len() as u64;
            self.flights.clear();
            self.bytes_in_flight = 0;
        }
        if self.blocked && !blocked {
            // A stream sends again what was held back; it arrives one latency from now.
            let held = std::mem::take(&mut self.flights);
            for ((due_us, order), bytes) in held {
                let due_us = due_us.max(now_us + self.conditions.latency_us);
                self.arrived_us = self.arrived_us.max(due_us);
                self.flights.insert((due_us, order), bytes);
            }
        }
        self.blocked = blocked;
    }

    /// Bytes that may still be put on their way.
    pub fn room(&self) -> u32 {
        u64::from(self.conditions.window_bytes).saturating_sub(self.bytes_in_flight) as u32
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Sends `bytes`: one datagram, or the next bytes of a stream.
    pub fn send(&mut self, now_us: u64, bytes: &[u8]) {
        self.counters.sent += 1;
        match self.transport {
            Transport::Stream => self.send_stream(now_us, bytes),
            Transport::Datagram => self.send_datagram(now_us, bytes),
        }
    }

    fn send_stream(&mut self, now_us: u64, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Any cut is possible, one byte at a time included, though rarely.
            let part = match self.rng.between(0, 15) {
                0 => self.rng.between(1, 16.min(rest.len() as u64)) as usize,
                1..=4 => self.rng.between(1, rest.len() as u64) as usize,
                _ => rest.len(),
            };
            let (segment, later) = rest.split_at(part);
            let due_us = self.due(now_us, segment.len()).max(self.arrived_us);
            self.arrived_us = due_us;
            self.fly(due_us, segment);
            rest = later;
        }
    }

    fn send_datagram(&mut self, now_us: u64, bytes: &[u8]) {
        if self.blocked || self.chance(self.conditions.loss_ppm) {
            self.counters.lost += 1;
            return;
        }
        let mut due_us = self.due(now_us, bytes.len()).max(self.arrived_us);
        if self.chance(self.conditions.reorder_ppm) {
            let late = self.conditions.latency_us + self.conditions.jitter_us;
            due_us += self.rng.between(0, late.saturating_mul(9));
        } else {
            // Jitter delays a whole queue of datagrams and does not shuffle it.
            self.arrived_us = due_us;
        }
        self.fly(due_us, bytes);
        if self.chance(self.conditions.duplicate_ppm) {
            self.counters.duplicated += 1;
            let again_us = self.due(now_us, 0);
            self.fly(again_us, bytes);
        }
    }

    fn due(&mut self, now_us: u64, bytes: usize) -> u64 {
        let rate = self.conditions.rate_bytes;
        if let Some(took_us) = (bytes as u64 * 1_000_000).checked_div(rate) {
            self.left_us = self.left_us.max(now_us) + took_us;
        } else {
            self.left_us = now_us;
        }
        let jitter_us = self.rng.between(0, self.conditions.jitter_us);
        self.left_us + self.conditions.latency_us + jitter_us
    }

    fn fly(&mut self, due_us: u64, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if self.chance(self.conditions.flip_ppm) {
            let bit = self.rng.between(0, bytes.len() as u64 * 8 - 1);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.counters.flipped += 1;
        }
        self.bytes_in_flight += bytes.len() as u64;
        self.flights.insert((due_us, self.sent), bytes);
        self.sent += 1;
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.between(0, 999_999) < u64::from(ppm)
    }

    /// When the next bytes arrive; `None` when nothing is on its way or the direction is cut.
    pub fn next_us(&self) -> Option<u64> {
        if self.blocked { None } else { self.flights.first_key_value().map(|(key, _)| key.0) }
    }

    /// What has arrived by now: one datagram, or some bytes of a stream.
    pub fn receive(&mut self, now_us: u64) -> Option<Vec<u8>> {
        if self.next_us()? > now_us {
            return None;
        }
        let (_, bytes) = self.flights.pop_first()?;
        self.bytes_in_flight -= bytes.len() as u64;
        self.counters.received += 1;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(pipe: &mut Pipe) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(at_us) = pipe.next_us() {
            all.extend(pipe.receive(at_us));
        }
        all
    }

    #[test]
    fn a_stream_keeps_every_byte_and_the_order_whatever_the_jitter() {
        for seed in 0..100 {
            let conditions = Conditions {
                jitter_us: 50_000,
                loss_ppm: 500_000,
                duplicate_ppm: 500_000,
                reorder_ppm: 500_000,
                ..Conditions::default()
            };
            let mut pipe = Pipe::new(Transport::Stream, conditions, seed);
            let sent: Vec<u8> = (0..=255).collect();
            for (at_us, part) in sent.chunks(10).enumerate() {
                pipe.send(at_us as u64, part);
            }
            assert_eq!(drain(&mut pipe).concat(), sent);
        }
    }

    #[test]
    fn datagrams_are_lost_repeated_and_reordered_but_never_cut() {
        let conditions = Conditions {
            loss_ppm: 200_000,
            duplicate_ppm: 200_000,
            reorder_ppm: 200_000,
            ..Conditions::default()
        };
        let mut pipe = Pipe::new(Transport::Datagram, conditions, 7);
        for number in 0..1_000u32 {
            pipe.send(u64::from(number) * 100, &number.to_le_bytes());
        }
        let got: Vec<u32> = drain(&mut pipe)
            .iter()
            .map(|bytes| u32::from_le_bytes(bytes[..].try_into().unwrap()))
            .collect();
        let counters = pipe.counters();
        assert!(counters.lost > 100 && counters.duplicated > 100);
        assert_eq!(got.len() as u64, 1_000 - counters.lost + counters.duplicated);
        assert!(got.windows(2).any(|pair| pair[0] > pair[1]), "none was passed by another");
    }

    #[test]
    fn a_cut_holds_a_stream_back_and_loses_datagrams() {
        for (transport, expected) in [(Transport::Stream, 2), (Transport::Datagram, 0)] {
            let conditions = Conditions { jitter_us: 0, ..Conditions::default() };
            let mut pipe = Pipe::new(transport, conditions, 1);
            pipe.send(0, b"a");
            pipe.set_blocked(10, true);
            pipe.send(20, b"b");
            assert_eq!(pipe.next_us(), None);
            pipe.set_blocked(5_000, false);
            assert!(pipe.next_us().is_none_or(|at_us| at_us >= 5_000));
            assert_eq!(drain(&mut pipe).len(), expected);
        }
    }

    #[test]
    fn a_rate_spreads_bytes_over_time() {
        let conditions = Conditions { jitter_us: 0, rate_bytes: 1_000, ..Conditions::default() };
        let mut pipe = Pipe::new(Transport::Datagram, conditions, 1);
        pipe.send(0, &[0; 500]);
        pipe.send(0, &[0; 500]);
        pipe.receive(501_000).unwrap();
        assert_eq!(pipe.next_us(), Some(1_001_000));
    }
}
