//! The clocks of one simulated node: a monotonic one that drifts, and a wall clock that steps.

use replcore::time::Instant;

/// The clocks of one node, as functions of the simulation's own time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Parts per million by which the monotonic clock runs fast (or slow, when negative).
    drift_ppm: i64,
    /// What the monotonic clock shows at time zero of the simulation.
    offset_us: u64,
    /// By how much the wall clock is off, in milliseconds.
    wall_step_ms: i64,
}

/// The wall-clock time at time zero of the simulation, in milliseconds since 1970.
pub const WALL_START_MS: u64 = 1_790_000_000_000;

impl Clock {
    /// A clock that runs `drift_ppm` fast and shows `offset_us` at the start.
    ///
    /// # Panics
    /// When the drift is a tenth or more: no real clock is that bad.
    pub const fn new(drift_ppm: i64, offset_us: u64) -> Self {
        assert!(drift_ppm > -100_000 && drift_ppm < 100_000);
        Self { drift_ppm, offset_us, wall_step_ms: 0 }
    }

    /// What the monotonic clock shows at `true_us` of the simulation.
    pub const fn monotonic(&self, true_us: u64) -> Instant {
        let shown = true_us as i128 * (1_000_000 + self.drift_ppm) as i128 / 1_000_000;
        Instant::from_micros(self.offset_us + shown as u64)
    }

    /// The first time of the simulation at which the monotonic clock shows `at` or later.
    pub const fn true_us(&self, at: Instant) -> u64 {
        let shown = at.as_micros().saturating_sub(self.offset_us) as u128;
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let true_us = (shown * 1_000_000).div_ceil(rate);
        if true_us > u64::MAX as u128 { u64::MAX } else { true_us as u64 }
    }

    /// What the wall clock shows, in milliseconds since 1970.
    pub const fn wall_ms(&self, true_us: u64) -> u64 {
        (WALL_START_MS + true_us / 1_000).saturating_add_signed(self.wall_step_ms)
    }

    /// Steps the wall clock by `ms`, forward or back. The monotonic clock takes no notice.
    pub const fn step_wall(&mut self, ms: i64) {
        self.wall_step_ms += ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_time_is_reached_when_it_is_due_whatever_the_drift() {
        for drift_ppm in [-500, -1, 0, 1, 500] {
            let clock = Clock::new(drift_ppm, 77);
            for at_us in [77, 78, 1_000_000, 86_400_000_000] {
                let at = Instant::from_micros(at_us);
                let true_us = clock.true_us(at);
                assert!(clock.monotonic(true_us) >= at);
                assert!(true_us == 0 || clock.monotonic(true_us - 1) < at);
            }
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_leaves_the_monotonic_clock_alone() {
        let mut clock = Clock::new(0, 0);
        let before = clock.monotonic(5_000);
        clock.step_wall(-86_400_000);
        assert_eq!(clock.monotonic(5_000), before);
        assert_eq!(clock.wall_ms(5_000), WALL_START_MS + 5 - 86_400_000);
    }
}
