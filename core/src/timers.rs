//! Many deadlines, the earliest first, in the caller's memory.

use crate::time::Instant;

/// One owner's deadline and its place in the heap.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Timer {
    deadline: Instant,
    /// Place in the heap, plus one; 0 for none.
    place: u32,
    /// The owner that stands at this place of the heap. Belongs to the heap, not to this owner.
    owner: u32,
}

impl Timer {
    /// No deadline.
    pub const NONE: Self = Self { deadline: Instant::NEVER, place: 0, owner: 0 };
}

/// A binary heap with a place for each owner, so that a deadline moves in logarithmic time. The
/// owners are the numbers below the length of the memory given.
#[derive(Debug)]
pub(crate) struct Timers<'m> {
    timers: &'m mut [Timer],
    len: usize,
}

impl<'m> Timers<'m> {
    pub(crate) fn new(timers: &'m mut [Timer]) -> Self {
        timers.fill(Timer::NONE);
        Self { timers, len: 0 }
    }

    /// The owner with the earliest deadline.
    pub(crate) fn earliest(&self) -> Option<(Instant, u32)> {
        if self.len == 0 {
            return None;
        }
        let owner = self.timers[0].owner;
        Some((self.timers[owner as usize].deadline, owner))
    }

    pub(crate) fn deadline(&self, owner: u32) -> Instant {
        self.timers[owner as usize].deadline
    }

    /// Sets the deadline of an owner; [`Instant::NEVER`] for none.
    pub(crate) fn set(&mut self, owner: u32, deadline: Instant) {
        let timer = &mut self.timers[owner as usize];
        if timer.deadline == deadline {
            return;
        }
        timer.deadline = deadline;
        match (timer.place, deadline) {
            (0, Instant::NEVER) => {}
            (0, _) => {
                let place = self.len;
                self.len += 1;
                self.put(place, owner);
                self.rise(place);
            }
            (place, Instant::NEVER) => self.remove(place as usize - 1),
            (place, _) => {
                self.rise(place as usize - 1);
                let place = self.timers[owner as usize].place as usize - 1;
                self.sink(place);
            }
        }
    }

    fn remove(&mut self, place: usize) {
        let gone = self.timers[place].owner;
        self.timers[gone as usize].place = 0;
        self.len -= 1;
        if place < self.len {
            let last = self.timers[self.len].owner;
            self.put(place, last);
            self.rise(place);
            let place = self.timers[last as usize].place as usize - 1;
            self.sink(place);
        }
    }

    fn put(&mut self, place: usize, owner: u32) {
        self.timers[place].owner = owner;
        self.timers[owner as usize].place = place as u32 + 1;
    }

    fn deadline_at(&self, place: usize) -> Instant {
        self.timers[self.timers[place].owner as usize].deadline
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (owner_a, owner_b) = (self.timers[a].owner, self.timers[b].owner);
        self.put(a, owner_b);
        self.put(b, owner_a);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.deadline_at(parent) <= self.deadline_at(place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            if left >= self.len {
                return;
            }
            let right = left + 1;
            let smaller = if right < self.len && self.deadline_at(right) < self.deadline_at(left) {
                right
            } else {
                left
            };
            if self.deadline_at(place) <= self.deadline_at(smaller) {
                return;
            }
            self.swap(place, smaller);
            place = smaller;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn the_earliest_agrees_with_a_sorted_map() {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut memory = [Timer::NONE; 16];
            let mut timers = Timers::new(&mut memory);
            let mut model = BTreeMap::new();
            for _ in 0..300 {
                let owner = rng.between(0, 15) as u32;
                if rng.between(0, 3) == 0 {
                    timers.set(owner, Instant::NEVER);
                    model.remove(&owner);
                } else {
                    let deadline = Instant::from_micros(rng.between(0, 50));
                    timers.set(owner, deadline);
                    model.insert(owner, deadline);
                }
                let earliest = timers.earliest().map(|(deadline, _)| deadline);
                assert_eq!(earliest, model.values().min().copied());
            }
        }
    }
}
