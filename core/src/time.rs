//! Time as the driver tells it, and the hybrid logical clock that stamps records.

use core::time::Duration;

/// A point on the driver's monotonic clock, in microseconds since a start of its choosing.
///
/// The core never reads a clock: every [`handle`](crate::contract::Machine::handle) and every
/// command brings the time. A time that goes backwards is treated as the last one given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// The start of the driver's clock.
    pub const ZERO: Self = Self(0);
    /// Later than any other point.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `us` microseconds after the start of the driver's clock.
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// The point `ms` milliseconds after the start of the driver's clock.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1000))
    }

    /// Microseconds since the start of the driver's clock.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This point moved `ms` milliseconds later, never past [`Instant::NEVER`].
    // A device has no 64-bit arithmetic, and this in twenty places.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub const fn plus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Whole milliseconds since `earlier`; 0 when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A hybrid logical stamp: 48 bits of milliseconds since 1970, 16 bits of counter.
///
/// Stamps of one node rise strictly, follow its wall clock, and are never behind a stamp that the
/// node has seen (Kulkarni et al., "Logical Physical Clocks", 2014). Zero means "not known": the
/// first node with a clock stamps such a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stamp(pub u64);

impl Stamp {
    /// No time known.
    pub const UNSET: Self = Self(0);

    /// The stamp of wall-clock `ms` since 1970 with a zero counter.
    pub const fn from_wall_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// Milliseconds since 1970.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> 16
    }
}

/// How far ahead of the local wall clock a foreign stamp may be and still move the local clock.
pub const DRIFT_MS_MAX: u64 = 60_000;

/// The clock that makes [`Stamp`]s.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HybridClock {
    last: Stamp,
}

impl HybridClock {
    /// A clock that has made no stamp.
    pub const fn new() -> Self {
        Self { last: Stamp::UNSET }
    }

    /// The next stamp, given the wall clock. Rises strictly even when the wall clock steps back.
    pub fn stamp(&mut self, wall_ms: u64) -> Stamp {
        let wall = Stamp::from_wall_ms(wall_ms);
        self.last = if wall > self.last { wall } else { Stamp(self.last.0.saturating_add(1)) };
        self.last
    }

    /// Takes note of a foreign stamp, so that later local stamps are above it. A stamp more than
    /// [`DRIFT_MS_MAX`] ahead of the wall clock does not move the clock; the answer is then `false`.
    pub fn observe(&mut self, wall_ms: u64, seen: Stamp) -> bool {
        if seen.wall_ms() > wall_ms.saturating_add(DRIFT_MS_MAX) {
            return false;
        }
        self.last = self.last.max(seen);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_when_the_wall_clock_steps_back() {
        let mut clock = HybridClock::new();
        let first = clock.stamp(1_000_000);
        let second = clock.stamp(1_000_000 - 86_400);
        assert!(second > first);
        assert_eq!(second.wall_ms(), 1_000_000);
    }

    #[test]
    fn a_stamp_from_far_ahead_does_not_move_the_clock() {
        let mut clock = HybridClock::new();
        assert!(!clock.observe(1_000, Stamp::from_wall_ms(1_000 + DRIFT_MS_MAX + 1)));
        assert_eq!(clock.stamp(1_000), Stamp::from_wall_ms(1_000));
        assert!(clock.observe(1_000, Stamp::from_wall_ms(5_000)));
        assert!(clock.stamp(1_001) > Stamp::from_wall_ms(5_000));
    }
}
