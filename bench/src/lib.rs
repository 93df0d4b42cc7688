//! What all benchmark programs share: the clock, what a process has used, and the form of results.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

/// The load of one run over two hops.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a message's body, at least 8.
    pub bytes: usize,
    /// How many messages.
    pub messages: u64,
    /// Messages posted and not acknowledged, at most.
    pub window: u64,
    /// Messages a second; 0 for as fast as the window allows.
    pub rate: u64,
}

impl Load {
    /// `BYTES MESSAGES WINDOW [RATE]` of a command line; `None` when they are not numbers.
    pub fn parse(args: &[String]) -> Option<Self> {
        let number = |at: usize| args.get(at)?.parse::<u64>().ok();
        Some(Self {
            bytes: (number(0)? as usize).max(8),
            messages: number(1)?.max(1),
            window: number(2)?.max(1),
            rate: if args.len() > 3 { number(3)? } else { 0 },
        })
    }

    /// When message `index` is due, counted from the start.
    pub fn due(&self, index: u64) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(index as f64 / rate as f64),
        }
    }

    /// A body that says when it was made.
    pub fn body(&self) -> Vec<u8> {
        let mut body: Vec<u8> = (0..self.bytes).map(|at| (at * 31 % 251) as u8).collect();
        Self::restamp(&mut body);
        body
    }

    /// Has a body say that it was made now.
    pub fn restamp(body: &mut [u8]) {
        body[..8].copy_from_slice(&now_ns().to_le_bytes());
    }
}

/// Nanoseconds since the body was made.
pub fn age_ns(body: &[u8]) -> u64 {
    now_ns() - u64::from_le_bytes(body[..8].try_into().expect("at least 8 bytes"))
}

impl core::fmt::Display for Load {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.rate {
            0 => write!(f, "{} B, window {}", self.bytes, self.window),
            rate => write!(f, "{} B, {rate}/s", self.bytes),
        }
    }
}

/// Processes whose CPU and memory belong to a result, from a start on.
#[derive(Debug)]
pub struct Meter {
    pids: Vec<u32>,
    cpu_before: f64,
    started: Instant,
}

impl Meter {
    /// Starts measuring these processes.
    pub fn start(pids: Vec<u32>) -> Self {
        let cpu_before = pids.iter().map(|pid| cpu_seconds(*pid)).sum();
        Self { pids, cpu_before, started: Instant::now() }
    }

    /// Starts measuring the processes in the environment variable `PIDS`, separated by commas.
    pub fn start_from_environment() -> Self {
        let pids = std::env::var("PIDS").unwrap_or_default();
        Self::start(pids.split(',').filter_map(|pid| pid.parse().ok()).collect())
    }

    /// What is measured began that long ago, somewhere else.
    pub fn started_before(&mut self, ns: u64) {
        let now = Instant::now();
        self.started = now.checked_sub(Duration::from_nanos(ns)).unwrap_or(now);
    }

    /// The result of `messages` messages since the start.
    pub fn finish(&self, what: String, messages: u64, latencies_ns: &mut [u64]) -> Sample {
        let elapsed = self.started.elapsed().as_secs_f64();
        let cpu = self.pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>() - self.cpu_before;
        let peak = self.pids.iter().map(|pid| memory_mib(*pid, "VmHWM")).fold(0.0, f64::max);
        let mut sample = Sample::new(what);
        sample
            .figure("messages_per_s", messages as f64 / elapsed)
            .figure("cpu_s_per_million", cpu / messages as f64 * 1e6)
            .figure("peak_rss_mib", peak)
            .latencies(latencies_ns);
        sample
    }
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

/// The Rust in the guide compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/driving-a-machine.md")]
struct Guide;
