//! Many deadlines, the earliest first, in the caller's memory.

use crate::time::Instant;

/// One place of a heap of deadlines, and where one owner stands in it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Timer {
    /// The deadline at this place.
    deadline: Instant,
    /// The owner that stands at this place.
    owner: u32,
    /// The place of the owner of this number, plus one; 0 for none.
    place: u32,
}

impl Timer {
    /// No deadline.
    pub const NONE: Self = Self { deadline: Instant::NEVER, owner: 0, place: 0 };
}

/// A binary heap with a place for each owner, so that a deadline moves in logarithmic time. The
/// owners are the numbers below the length of the memory given.
#[derive(Debug)]
pub(crate) struct Timers<'m> {
    timers: &'m mut [Timer],
    len: usize,
    /// The earliest deadline.
    earliest: Instant,
}

impl<'m> Timers<'m> {
    pub(crate) fn new(timers: &'m mut [Timer]) -> Self {
        timers.fill(Timer::NONE);
        Self { timers, len: 0, earliest: Instant::NEVER }
    }

    pub(crate) fn into_memory(self) -> &'m mut [Timer] {
        self.timers
    }

    /// The earliest deadline; [`Instant::NEVER`] when there is none.
    pub(crate) const fn earliest(&self) -> Instant {
        self.earliest
    }

    /// The owner with the earliest deadline, when that has come.
    pub(crate) fn due(&self, now: Instant) -> Option<u32> {
        (self.len > 0 && now >= self.earliest).then(|| self.timers[0].owner)
    }

    pub(crate) fn deadline(&self, owner: u32) -> Instant {
        match self.timers[owner as usize].place {
            0 => Instant::NEVER,
            place => self.timers[place as usize - 1].deadline,
        }
    }

    /// Sets the deadline of an owner; [`Instant::NEVER`] for none.
    pub(crate) fn set(&mut self, owner: u32, deadline: Instant) {
        let place = self.timers[owner as usize].place as usize;
        match (place.checked_sub(1), deadline) {
            (None, Instant::NEVER) => return,
            (None, _) => {
                self.len += 1;
                self.rise(self.len - 1, owner, deadline);
            }
            (Some(place), _) if self.timers[place].deadline == deadline => return,
            (Some(place), Instant::NEVER) => self.remove(place),
            (Some(place), _) if deadline < self.timers[place].deadline => {
                self.rise(place, owner, deadline);
            }
            (Some(place), _) => self.sink(place, owner, deadline),
        }
        self.earliest = if self.len == 0 { Instant::NEVER } else { self.timers[0].deadline };
    }

    fn remove(&mut self, place: usize) {
        let gone = self.timers[place].owner;
        self.timers[gone as usize].place = 0;
        self.len -= 1;
        if place < self.len {
            let Timer { owner, deadline, .. } = self.timers[self.len];
            if place > 0 && deadline < self.timers[(place - 1) / 2].deadline {
                self.rise(place, owner, deadline);
            } else {
                self.sink(place, owner, deadline);
            }
        }
    }

    fn put(&mut self, place: usize, owner: u32, deadline: Instant) {
        self.timers[place].owner = owner;
        self.timers[place].deadline = deadline;
        self.timers[owner as usize].place = place as u32 + 1;
    }

    /// Puts an owner at `place` or nearer to the front, with those that are later behind it.
    fn rise(&mut self, mut place: usize, owner: u32, deadline: Instant) {
        while place > 0 {
            let parent = (place - 1) / 2;
            let above = self.timers[parent];
            if above.deadline <= deadline {
                break;
            }
            self.put(place, above.owner, above.deadline);
            place = parent;
        }
        self.put(place, owner, deadline);
    }

    /// Puts an owner at `place` or further from the front, with those that are earlier before it.
    fn sink(&mut self, mut place: usize, owner: u32, deadline: Instant) {
        loop {
            let left = 2 * place + 1;
            if left >= self.len {
                break;
            }
            let right = (left + 1).min(self.len - 1);
            let earlier = self.timers[right].deadline < self.timers[left].deadline;
            let child = if earlier { right } else { left };
            let below = self.timers[child];
            if deadline <= below.deadline {
                break;
            }
            self.put(place, below.owner, below.deadline);
            place = child;
        }
        self.put(place, owner, deadline);
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
                let earliest = model.values().min().copied();
                assert_eq!(timers.earliest(), earliest.unwrap_or(Instant::NEVER));
                let due = timers.due(timers.earliest()).map(|owner| model[&owner]);
                assert_eq!(due, earliest);
                for owner in 0..16 {
                    let deadline = model.get(&owner).copied().unwrap_or(Instant::NEVER);
                    assert_eq!(timers.deadline(owner), deadline);
                }
            }
        }
    }
}
