//! The clock that deadlines and leases are kept by.

use replcore::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Runs on while the machine sleeps, so that a lease that ended in the meantime is over when it
/// wakes.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// Elsewhere it may stand while the machine sleeps.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Microseconds since a point that is the same for all processes of this machine until it starts
/// anew. Not moved by changes of the wall clock.
pub(crate) fn now_us() -> u64 {
    let time = clock_gettime(CLOCK);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// The time of a machine whose clock started at `start_us`.
pub(crate) fn since(start_us: u64) -> Instant {
    Instant::from_micros(now_us().saturating_sub(start_us))
}
