//! Whether this member leads, for any thread at any time: one load and a look at the clock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::driver::clock;

/// The lease of the member, as its thread has last published it.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// The end of the lease on [`clock::now_us`]; 0 without one.
    until_us: AtomicU64,
    /// The term of the lease.
    term: AtomicU64,
}

impl Lease {
    /// The member leads in `term` until `until_us`; 0 for not at all. For one thread only.
    pub(super) fn publish(&self, term: u64, until_us: u64) {
        if until_us > 0 && self.term.load(Ordering::Relaxed) != term {
            // Nobody may pair the new end with the old term.
            self.until_us.store(0, Ordering::SeqCst);
            self.term.store(term, Ordering::SeqCst);
        }
        self.until_us.store(until_us, Ordering::SeqCst);
    }

    /// Whether the lease runs. True means that it ran at an instant during the call.
    #[inline]
    pub(super) fn is_leader(&self) -> bool {
        // The end first: a clock read before could be older than the lease.
        let until_us = self.until_us.load(Ordering::Acquire);
        until_us > 0 && clock::now_us() < until_us
    }

    /// The end of the lease on [`clock::now_us`] and its term, while it runs.
    pub(super) fn leading(&self) -> Option<(u64, u64)> {
        loop {
            let term = self.term.load(Ordering::SeqCst);
            let until_us = self.until_us.load(Ordering::SeqCst);
            if term == self.term.load(Ordering::SeqCst) {
                return (clock::now_us() < until_us).then_some((until_us, term));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_the_clock_alone() {
        let lease = Lease::default();
        assert!(!lease.is_leader());
        lease.publish(7, clock::now_us() + 20_000);
        assert_eq!(lease.leading().map(|(_, term)| term), Some(7));
        while lease.is_leader() {
            std::thread::yield_now();
        }
        assert_eq!(lease.leading(), None);
        lease.publish(7, 0);
        lease.publish(9, u64::MAX);
        assert_eq!(lease.leading(), Some((u64::MAX, 9)));
    }

    #[test]
    fn a_reader_never_pairs_a_lease_with_the_term_of_another() {
        let lease = std::sync::Arc::new(Lease::default());
        let writer = std::sync::Arc::clone(&lease);
        // The end of the lease tells its term, so that a wrong pair shows.
        let far = |term: u64| u64::MAX / 2 + term;
        let writing = std::thread::spawn(move || {
            for term in 1..200_000 {
                writer.publish(term, far(term));
                if term % 3 == 0 {
                    writer.publish(term, 0);
                }
            }
        });
        while !writing.is_finished() {
            if let Some((until_us, term)) = lease.leading() {
                assert_eq!(until_us, far(term));
            }
        }
        writing.join().unwrap();
    }
}
