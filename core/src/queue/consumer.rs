//! The place of a named consumer in a queue: what was delivered and is not settled yet.
//!
//! Positions are delivered in order, settled in any order, delivered again when they are not
//! settled in time, and given up for dead after a number of deliveries. The queue is released up
//! to the lowest position that is not settled. What is in here is lost with the process: then
//! everything that is not released is delivered again, and counts anew.

use crate::stream::Position;
use crate::time::Instant;

/// One position between the lowest unsettled and the highest delivered.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Entry {
    /// When it is delivered again.
    deadline: Instant,
    /// How often it was delivered.
    deliveries: u32,
    settled: bool,
}

/// How a consumer is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct WindowConfig {
    /// A position that is not settled for this long is delivered again.
    pub ack_wait_ms: u32,
    /// After this many deliveries it is dead. At least 1.
    pub deliveries_max: u32,
}

/// What a consumer gets next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Next {
    /// Deliver this position; it has been delivered `deliveries` times, with this one.
    Deliver {
        /// Which.
        position: Position,
        /// How often, from 1.
        deliveries: u32,
    },
    /// This position was delivered as often as it may be: to the dead letters with it. It counts
    /// as settled.
    Dead {
        /// Which.
        position: Position,
    },
    /// Nothing before this time, unless the queue grows or something is settled.
    Nothing {
        /// The next time that something is due again; `None` when nothing is outstanding.
        wake: Option<Instant>,
    },
}

/// The window over a memory of `Entry`s, as many as may be outstanding: 16 bytes each.
#[derive(Clone, Debug)]
pub struct Window<M> {
    memory: M,
    config: WindowConfig,
    /// The lowest position that is not settled.
    released: Position,
    /// The lowest position that was never delivered.
    next: Position,
    outstanding: u32,
    /// No deadline is earlier.
    due: Instant,
}

impl<M: AsRef<[Entry]> + AsMut<[Entry]>> Window<M> {
    /// A window that starts at `released`, the first position that was not settled in an earlier
    /// life.
    ///
    /// # Panics
    /// When the memory is empty: nothing could ever be delivered.
    pub fn new(config: WindowConfig, released: Position, memory: M) -> Self {
        assert!(!memory.as_ref().is_empty(), "a window needs room for one position");
        Self { memory, config, released, next: released, outstanding: 0, due: Instant::NEVER }
    }

    /// Everything before is settled: the queue may be released up to here.
    pub const fn released(&self) -> Position {
        self.released
    }

    /// How many positions are delivered and not settled.
    pub const fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// The lowest position that was never delivered.
    pub const fn next(&self) -> Position {
        self.next
    }

    /// What comes next, and notes that it was delivered. `end` is the number of entries that the
    /// queue has ever held. Constant time, except that a deadline that has passed costs a look at
    /// every outstanding position.
    pub fn take(&mut self, now: Instant, end: Position) -> Next {
        if now >= self.due
            && let Some(next) = self.take_overdue(now)
        {
            return next;
        }
        let room = self.next.0 - self.released.0 < self.memory.as_ref().len() as u64;
        if self.next >= end || !room {
            let wake = (self.outstanding > 0).then_some(self.due);
            return Next::Nothing { wake };
        }
        let position = self.next;
        self.next.0 += 1;
        self.outstanding += 1;
        let deadline = now.plus_millis(u64::from(self.config.ack_wait_ms));
        self.due = self.due.min(deadline);
        *self.entry(position) = Entry { deadline, deliveries: 1, settled: false };
        Next::Deliver { position, deliveries: 1 }
    }

    fn take_overdue(&mut self, now: Instant) -> Option<Next> {
        let mut due = Instant::NEVER;
        let mut found = None;
        for number in self.released.0..self.next.0 {
            let entry = *self.entry(Position(number));
            if entry.settled {
                continue;
            }
            if entry.deadline <= now && found.is_none() {
                found = Some(Position(number));
            } else {
                due = due.min(entry.deadline);
            }
        }
        self.due = due;
        let position = found?;
        let deliveries = self.entry(position).deliveries;
        if deliveries >= self.config.deliveries_max {
            self.settle(position);
            return Some(Next::Dead { position });
        }
        let deadline = now.plus_millis(u64::from(self.config.ack_wait_ms));
        self.due = self.due.min(deadline);
        *self.entry(position) = Entry { deadline, deliveries: deliveries + 1, settled: false };
        Some(Next::Deliver { position, deliveries: deliveries + 1 })
    }

    /// The consumer is done with `position`, one way or the other. `false`, and nothing changes,
    /// when it is not outstanding.
    pub fn settle(&mut self, position: Position) -> bool {
        if !self.is_outstanding(position) {
            return false;
        }
        self.entry(position).settled = true;
        self.outstanding -= 1;
        self.advance();
        true
    }

    /// Whether `position` is delivered and not settled.
    pub fn is_outstanding(&self, position: Position) -> bool {
        (self.released..self.next).contains(&position) && !self.at(position).settled
    }

    /// The queue holds nothing before `first` any more. Positions before it that were never
    /// delivered will not be, and those outstanding count as settled.
    pub fn gone(&mut self, first: Position) {
        if first >= self.next {
            (self.released, self.next) = (first.max(self.released), first);
            (self.outstanding, self.due) = (0, Instant::NEVER);
            return;
        }
        for number in self.released.0..first.0 {
            let entry = self.entry(Position(number));
            if !entry.settled {
                entry.settled = true;
                self.outstanding -= 1;
            }
        }
        self.advance();
    }

    /// The consumer has gone away with what it had: all of that is due at `now`.
    pub fn give_back(&mut self, now: Instant) {
        for number in self.released.0..self.next.0 {
            self.entry(Position(number)).deadline = now;
        }
        self.due = if self.outstanding > 0 { now } else { Instant::NEVER };
    }

    fn advance(&mut self) {
        while self.released < self.next && self.at(self.released).settled {
            self.released.0 += 1;
        }
        if self.outstanding == 0 {
            self.due = Instant::NEVER;
        }
    }

    fn at(&self, position: Position) -> &Entry {
        let memory = self.memory.as_ref();
        &memory[(position.0 % memory.len() as u64) as usize]
    }

    fn entry(&mut self, position: Position) -> &mut Entry {
        let memory = self.memory.as_mut();
        &mut memory[(position.0 % memory.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    const CONFIG: WindowConfig = WindowConfig { ack_wait_ms: 100, deliveries_max: 3 };

    fn window(len: usize) -> Window<std::vec::Vec<Entry>> {
        Window::new(CONFIG, Position(0), std::vec![Entry::default(); len])
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn deliver(position: u64, deliveries: u32) -> Next {
        Next::Deliver { position: Position(position), deliveries }
    }

    #[test]
    fn settled_out_of_order_the_release_waits_for_the_lowest() {
        let mut window = window(8);
        for position in 0..3 {
            assert_eq!(window.take(at(0), Position(3)), deliver(position, 1));
        }
        assert_eq!(window.take(at(0), Position(3)), Next::Nothing { wake: Some(at(100)) });
        assert!(window.settle(Position(2)));
        assert!(window.settle(Position(1)));
        assert_eq!(window.released(), Position(0));
        assert!(!window.settle(Position(1)), "HS-27: settled twice is an answer, not an error");
        assert!(!window.settle(Position(7)));
        assert!(window.settle(Position(0)));
        assert_eq!((window.released(), window.outstanding()), (Position(3), 0));
        assert_eq!(window.take(at(500), Position(3)), Next::Nothing { wake: None });
    }

    #[test]
    fn what_is_not_settled_in_time_comes_again_and_then_dies() {
        let mut window = window(8);
        assert_eq!(window.take(at(0), Position(1)), deliver(0, 1));
        assert_eq!(window.take(at(99), Position(1)), Next::Nothing { wake: Some(at(100)) });
        assert_eq!(window.take(at(100), Position(1)), deliver(0, 2));
        assert_eq!(window.take(at(200), Position(1)), deliver(0, 3));
        assert_eq!(window.take(at(300), Position(1)), Next::Dead { position: Position(0) });
        assert_eq!((window.released(), window.outstanding()), (Position(1), 0));
    }

    #[test]
    fn a_full_window_delivers_nothing_new() {
        let mut window = window(2);
        assert_eq!(window.take(at(0), Position(9)), deliver(0, 1));
        assert_eq!(window.take(at(0), Position(9)), deliver(1, 1));
        assert_eq!(window.take(at(0), Position(9)), Next::Nothing { wake: Some(at(100)) });
        window.settle(Position(1));
        assert_eq!(window.take(at(0), Position(9)), Next::Nothing { wake: Some(at(100)) });
        window.settle(Position(0));
        assert_eq!(window.take(at(0), Position(9)), deliver(2, 1));
    }

    #[test]
    fn what_the_queue_dropped_is_not_waited_for() {
        let mut window = window(4);
        window.take(at(0), Position(9));
        window.take(at(0), Position(9));
        window.gone(Position(1));
        assert_eq!((window.released(), window.outstanding()), (Position(1), 1));
        window.gone(Position(6));
        assert_eq!((window.released(), window.outstanding()), (Position(6), 0));
        assert_eq!(window.take(at(0), Position(9)), deliver(6, 1));
    }

    #[test]
    fn what_a_reader_left_behind_comes_again_at_once() {
        let mut window = window(4);
        window.take(at(0), Position(2));
        window.give_back(at(10));
        assert_eq!(window.take(at(10), Position(2)), deliver(0, 2));
        assert_eq!(window.take(at(10), Position(2)), deliver(1, 1));
    }

    /// The same rules over a map, without a bound on memory or time.
    #[derive(Default)]
    struct Model {
        outstanding: BTreeMap<u64, (u64, u32)>,
        next: u64,
    }

    impl Model {
        fn released(&self) -> u64 {
            self.outstanding.keys().next().copied().unwrap_or(self.next)
        }

        fn take(&mut self, now: u64, end: u64, room: u64) -> Next {
            let due = self.outstanding.iter().find(|(_, entry)| entry.0 <= now);
            if let Some((&position, &(_, deliveries))) = due {
                if deliveries >= CONFIG.deliveries_max {
                    self.outstanding.remove(&position);
                    return Next::Dead { position: Position(position) };
                }
                self.outstanding.insert(position, (now + 100, deliveries + 1));
                return deliver(position, deliveries + 1);
            }
            if self.next < end && self.next - self.released() < room {
                self.outstanding.insert(self.next, (now + 100, 1));
                self.next += 1;
                return deliver(self.next - 1, 1);
            }
            let wake = self.outstanding.values().map(|entry| entry.0).min().map(at);
            Next::Nothing { wake }
        }

        fn gone(&mut self, first: u64) {
            self.outstanding = self.outstanding.split_off(&first);
            self.next = self.next.max(first);
        }
    }

    #[test]
    fn a_window_agrees_with_the_model() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let (mut window, mut model) = (window(6), Model::default());
            let (mut now, mut end) = (0, 0);
            for _ in 0..300 {
                match rng.between(0, 9) {
                    0..=4 => {
                        let mut next = window.take(at(now), Position(end));
                        let expected = model.take(now, end, 6);
                        if let (Next::Nothing { wake: got }, Next::Nothing { wake }) =
                            (next, expected)
                        {
                            // The window may ask to be looked at too early, never too late.
                            assert!(got <= wake && got.is_some() == wake.is_some());
                            next = expected;
                        }
                        assert_eq!(next, expected, "seed {seed}");
                    }
                    5..=6 => {
                        let position = rng.between(model.released(), end + 1);
                        let was = model.outstanding.remove(&position).is_some();
                        assert_eq!(window.settle(Position(position)), was, "seed {seed}");
                    }
                    7 => now += rng.between(0, 70),
                    8 => end += rng.between(0, 3),
                    _ => {
                        let first = rng.between(model.released(), end);
                        model.gone(first);
                        window.gone(Position(first));
                    }
                }
                assert_eq!(window.released().0, model.released(), "seed {seed}");
                assert_eq!(window.outstanding() as usize, model.outstanding.len());
            }
        }
    }
}
