//! When to dial again, and how fast things may pass.

use crate::rng::Rng;
use crate::time::Instant;

/// Waits that grow and scatter: each is drawn between `base_ms` and three times the one before, up
/// to `cap_ms` ("decorrelated jitter", M. Brooker, "Exponential Backoff And Jitter", 2015). Peers
/// cut off together do not come back together.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Backoff {
    last_ms: u64,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { last_ms: 0 }
    }

    /// The next wait, in milliseconds; at least `hint_ms`, which the other end asked for.
    pub(crate) fn next_ms(
        &mut self,
        base_ms: u32,
        cap_ms: u32,
        hint_ms: u32,
        rng: &mut Rng,
    ) -> u64 {
        let base_ms = u64::from(base_ms.max(1));
        let cap_ms = u64::from(cap_ms).max(base_ms);
        let upper_ms = self.last_ms.saturating_mul(3).clamp(base_ms, cap_ms);
        self.last_ms = rng.between(base_ms, upper_ms);
        let hint_ms = u64::from(hint_ms);
        self.last_ms.max(hint_ms + rng.between(0, hint_ms / 4))
    }

    /// Forgets the growth, after a link that proved stable.
    pub(crate) const fn reset(&mut self) {
        self.last_ms = 0;
    }
}

/// Lets `per_second` units pass, and `burst` at once. A rate of 0 lets everything pass.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct TokenBucket {
    /// Millionths of a unit; below zero after a unit larger than what was there.
    level: i64,
    at: Instant,
}

impl TokenBucket {
    pub(crate) const fn full(burst: u32) -> Self {
        Self { level: burst as i64 * 1_000_000, at: Instant::ZERO }
    }

    /// Whether a unit may pass now.
    pub(crate) fn ready(&mut self, now: Instant, per_second: u32, burst: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let passed_us = now.as_micros().saturating_sub(self.at.as_micros());
        self.at = self.at.max(now);
        let full = i64::from(burst) * 1_000_000;
        let gain = i64::try_from(passed_us.saturating_mul(u64::from(per_second))).unwrap_or(full);
        self.level = self.level.saturating_add(gain).min(full);
        self.level > 0
    }

    /// Counts units that passed; more than there were is a debt.
    pub(crate) fn take(&mut self, units: u32) {
        self.level = self.level.saturating_sub(i64::from(units) * 1_000_000);
    }

    /// When a unit may pass, after [`Self::ready`] said no; or, when that is far off, when to look again.
    /// Up to 2 ms late, because it divides no more than 32 bits, for which devices have an instruction.
    pub(crate) fn ready_at(&self, per_second: u32) -> Instant {
        const STEP_BITS: u32 = 10;
        let missing = u32::try_from(self.level.wrapping_neg() >> STEP_BITS).unwrap_or(u32::MAX);
        let steps = missing / per_second.max(1) + 1;
        let wait_us = u64::from(steps) << STEP_BITS;
        Instant::from_micros(self.at.as_micros().saturating_add(wait_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_between_base_and_cap_and_scatter() {
        let mut rng = Rng::new(1);
        let mut backoff = Backoff::new();
        let waits: std::vec::Vec<u64> =
            (0..50).map(|_| backoff.next_ms(100, 5_000, 0, &mut rng)).collect();
        assert!(waits.iter().all(|wait| (100..=5_000).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > 1_000));
        let distinct: std::collections::BTreeSet<_> = waits.iter().collect();
        assert!(distinct.len() > 25);
    }

    #[test]
    fn a_hint_is_kept_to() {
        let mut rng = Rng::new(1);
        let wait = Backoff::new().next_ms(100, 5_000, 60_000, &mut rng);
        assert!((60_000..=75_000).contains(&wait));
    }

    #[test]
    fn a_bucket_lets_its_rate_pass_over_time() {
        let mut bucket = TokenBucket::full(10);
        let mut passed = 0;
        let mut now = Instant::ZERO;
        while now < Instant::from_millis(10_000) {
            if bucket.ready(now, 5, 10) {
                bucket.take(1);
                passed += 1;
            } else {
                now = bucket.ready_at(5);
            }
        }
        assert!((59..=61).contains(&passed), "{passed}");
    }
}
