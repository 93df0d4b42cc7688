//! The clock that deadlines and leases are kept by.

use replcore::time::Instant;

/// Microseconds since a point that is the same for all processes of this machine until it starts
/// anew. Not moved by changes of the wall clock, and runs on while the machine sleeps: a lease that
/// ended in the meantime is over when it wakes.
#[cfg(target_os = "linux")]
pub(crate) fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Microseconds since the first look. Elsewhere than on Linux it may stand while the machine sleeps.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now_us() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    1 + START.get_or_init(std::time::Instant::now).elapsed().as_micros() as u64
}

/// The time of a machine whose clock started at `start_us`.
pub(crate) fn since(start_us: u64) -> Instant {
    Instant::from_micros(now_us().saturating_sub(start_us))
}
