//! What all benchmark programs share: the clock, what a process has used, and the form of results.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of the machine's monotonic clock, the same in every process: a message carries the
/// time at which it was posted in the first 8 bytes of its body.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU seconds that a process has used, user and system; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15; the name in field 2 may hold spaces, so count after its bracket.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// A line of `/proc/PID/status` that is in kB, in MiB: `VmRSS` now, `VmHWM` the peak.
pub fn memory_mib(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// One result: what was measured, and figures by name. Printed as one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// What was measured, the same text for every repetition.
    pub what: String,
    /// Figures by name; the unit is in the name.
    pub figures: BTreeMap<String, f64>,
}

impl Sample {
    /// A result without figures.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), figures: BTreeMap::new() }
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: f64) -> &mut Self {
        self.figures.insert(name.into(), value);
        self
    }

    /// Adds percentiles of latencies given in nanoseconds.
    pub fn latencies(&mut self, latencies_ns: &mut [u64]) -> &mut Self {
        latencies_ns.sort_unstable();
        if let Some(last) = latencies_ns.last() {
            let ms = |ns: u64| ns as f64 / 1e6;
            let at = |part: usize| ms(latencies_ns[latencies_ns.len() * part / 100]);
            self.figure("p50_ms", at(50)).figure("p99_ms", at(99)).figure("max_ms", ms(*last));
        }
        self
    }

    /// Prints the result.
    pub fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("a result is plain data"));
    }
}
