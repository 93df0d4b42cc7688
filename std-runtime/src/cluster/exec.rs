//! A program that runs only while this member leads.
//!
//! Between member and program stands a guard: a small process that is told the end of the lease over
//! and over, and that stops the program by itself when it is told nothing more. So the program ends in
//! time also when the member hangs, is stopped (SIGSTOP), or is killed.
//!
//! The rule: no other member can lead before the lease ends, so the program has to be gone by then.
//! SIGTERM comes when less than [`ExecOptions::stop`] of the lease is left, SIGKILL
//! [`ExecOptions::kill_margin`] before its end, both to the program's whole process group. When the
//! member resigns or stops while it leads, it goes on leading until the program has ended, up to
//! [`ExecOptions::grace`].
//!
//! A process that the kernel cannot end, or a machine whose clock stands still, breaks the rule: give
//! the term (`REPLCORE_TERM`) to whatever the program writes to.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use replcore::election::ElectionConfig;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;

use super::{Cluster, Hold};
use crate::driver::clock;

/// How a program is run.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// What is run, by `sh -c`.
    pub command: String,
    /// The program that is the guard, and its arguments: one that calls [`guard`].
    pub guard: (PathBuf, Vec<String>),
    /// SIGTERM when less than this is left of the lease. Default a third of the least election
    /// timeout; a lease that is renewed has always more.
    pub stop: Duration,
    /// SIGKILL this long before the end of the lease. Default a tenth of the same.
    pub kill_margin: Duration,
    /// How long a program may take to end when the member resigns. Default 8 s.
    pub grace: Duration,
    /// Wait before a program that has ended is started again; doubles up to `retry_max` until one
    /// has run for `retry_max`. Default 100 ms.
    pub retry_min: Duration,
    /// Longest of these waits. Default 10 s.
    pub retry_max: Duration,
    /// Beside the term, for the environment of the program.
    pub environment: Vec<(String, String)>,
}

impl ExecOptions {
    /// The defaults, for a command and a guard, at a member with these times.
    pub fn new(command: String, guard: (PathBuf, Vec<String>), election: ElectionConfig) -> Self {
        let timeout = Duration::from_millis(election.timeout_ms_min.into());
        Self {
            command,
            guard,
            stop: timeout / 3,
            kill_margin: timeout / 10,
            grace: Duration::from_secs(8),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            environment: Vec::new(),
        }
    }
}

/// Runs the program whenever the member leads, until `stopping` turns true or its sender is gone.
/// The program has ended when this has.
pub async fn run(cluster: &Cluster, options: ExecOptions, mut stopping: watch::Receiver<bool>) {
    let mut wait = options.retry_min;
    while let Some(term) = until_leading(cluster, &options, &mut stopping).await {
        let started = Instant::now();
        let hold = cluster.hold();
        match Guarded::start(&options, term) {
            Ok(mut program) => {
                tracing::info!(term, "started the program");
                program.watch(cluster, &options, &hold, &mut stopping).await;
            }
            Err(error) => tracing::error!("cannot start the program: {error}"),
        }
        drop(hold);
        if started.elapsed() > options.retry_max {
            wait = options.retry_min;
        }
        if cluster.term() == Some(term) && !ends(&stopping) {
            tracing::warn!(term, "the program is started again in {wait:?}, if this member leads");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stopping.changed() => {}
            }
            wait = (wait * 2).min(options.retry_max);
        }
    }
}

fn ends(stopping: &watch::Receiver<bool>) -> bool {
    *stopping.borrow() || stopping.has_changed().is_err()
}

/// Waits until the member leads, with enough left of the lease to start something, and means to go
/// on. Answers the term; `None` when it is time to end.
async fn until_leading(
    cluster: &Cluster,
    options: &ExecOptions,
    stopping: &mut watch::Receiver<bool>,
) -> Option<u64> {
    let mut watched = cluster.watch();
    let mut resigning = cluster.shared.resigning.subscribe();
    while !ends(stopping) {
        let resigns = *resigning.borrow_and_update();
        let term = cluster.term();
        if !resigns && term.is_some() && cluster.lease_left() > options.stop {
            return term;
        }
        let soon = tokio::time::sleep(options.stop / 2);
        tokio::select! {
            () = soon, if term.is_some() && !resigns => {}
            more = watched.changed() => if !more { return None },
            _ = resigning.changed() => {}
            _ = stopping.changed() => {}
        }
    }
    None
}

/// What the guard is told: nine bytes, a kind and a time on [`clock::now_us`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The lease ends then, unless something later is told.
    Lease(u64),
    /// The program is to end now, and is killed then, or when the lease ends.
    Stop(u64),
}

const WORD_BYTES: usize = 9;

impl Word {
    fn bytes(self) -> [u8; WORD_BYTES] {
        let (kind, at_us) = match self {
            Self::Lease(at_us) => (b'L', at_us),
            Self::Stop(at_us) => (b'S', at_us),
        };
        let mut bytes = [kind; WORD_BYTES];
        bytes[1..].copy_from_slice(&at_us.to_le_bytes());
        bytes
    }

    fn of(bytes: [u8; WORD_BYTES]) -> Option<Self> {
        let [kind, at_us @ ..] = bytes;
        match kind {
            b'L' => Some(Self::Lease(u64::from_le_bytes(at_us))),
            b'S' => Some(Self::Stop(u64::from_le_bytes(at_us))),
            _ => None,
        }
    }
}

/// The member's side: a guard that runs, with a program under it.
struct Guarded {
    guard: tokio::process::Child,
    words: tokio::net::UnixStream,
    /// The process group of the program.
    group: Option<Pid>,
}

impl Guarded {
    fn start(options: &ExecOptions, term: u64) -> std::io::Result<Self> {
        let (words, its_words) = UnixStream::pair()?;
        words.set_nonblocking(true)?;
        let (program, arguments) = &options.guard;
        let guard = tokio::process::Command::new(program)
            .args(arguments)
            .env("REPLCORE_TERM", term.to_string())
            .env(GUARD_STOP, options.stop.as_micros().to_string())
            .env(GUARD_MARGIN, options.kill_margin.as_micros().to_string())
            .env(GUARD_COMMAND, &options.command)
            .envs(options.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::from(OwnedFd::from(its_words)))
            // Ctrl-C is for the member alone, which then ends the program in order.
            .process_group(0)
            .spawn()?;
        let words = tokio::net::UnixStream::from_std(words)?;
        Ok(Self { guard, words, group: None })
    }

    /// Tells the guard. One that does not take it keeps the earlier end of the lease.
    fn tell(&self, word: Word) {
        let _ = self.words.try_write(&word.bytes());
    }

    /// Takes note of the program's process group, which the guard tells once.
    fn hear(&mut self) {
        let mut bytes = [0; 4];
        if self.group.is_none() && self.words.try_read(&mut bytes).is_ok_and(|count| count == 4) {
            self.group = Pid::from_raw(i32::from_le_bytes(bytes));
        }
    }

    /// Renews the guard's lease until the program has ended.
    async fn watch(
        &mut self,
        cluster: &Cluster,
        options: &ExecOptions,
        hold: &Hold,
        stopping: &mut watch::Receiver<bool>,
    ) {
        let mut renew = tokio::time::interval(options.stop / 2);
        let mut told = false;
        loop {
            if let Some((until_us, _)) = cluster.shared.lease.leading() {
                self.tell(Word::Lease(until_us));
            }
            self.hear();
            let stop = tokio::select! {
                ended = self.guard.wait() => {
                    self.hear();
                    return self.ended(ended);
                }
                _ = renew.tick() => !cluster.is_leader(),
                () = hold.resigning(), if !told => true,
                _ = stopping.changed(), if !told => true,
            };
            if stop && !told {
                told = true;
                let grace_us = options.grace.as_micros() as u64;
                self.tell(Word::Stop(clock::now_us() + grace_us));
            }
        }
    }

    fn ended(&self, how: std::io::Result<std::process::ExitStatus>) {
        // When somebody has killed the guard, the program is still there.
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        match how {
            Ok(status) => tracing::info!("the program has ended: {status}"),
            Err(error) => tracing::error!("the guard of the program is lost: {error}"),
        }
    }
}

const GUARD_COMMAND: &str = "REPLCORE_GUARD_COMMAND";
const GUARD_STOP: &str = "REPLCORE_GUARD_STOP_US";
const GUARD_MARGIN: &str = "REPLCORE_GUARD_MARGIN_US";

/// The guard: runs the program that its environment names and ends with it. For `main` of a program
/// that [`ExecOptions::guard`] names. Answers the exit code.
pub fn guard() -> u8 {
    let started = (|| {
        let stdin = std::io::stdin();
        let socket = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
        run_guarded(socket)
    })();
    started.unwrap_or_else(|error: std::io::Error| {
        eprintln!("replcore: cannot run the program: {error}");
        1
    })
}

fn run_guarded(mut socket: UnixStream) -> std::io::Result<u8> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (stop_us, margin_us) = (number(GUARD_STOP).unwrap_or(0), number(GUARD_MARGIN).unwrap_or(0));
    let command = std::env::var(GUARD_COMMAND).unwrap_or_default();
    let (sender, happened) = mpsc::channel();
    let words = sender.clone();
    let input = socket.try_clone()?;
    std::thread::spawn(move || read_words(input, &words));
    // Nothing starts before the end of the lease is known.
    let Ok(Seen::Word(Word::Lease(until_us))) = happened.recv() else { return Ok(1) };
    let mut plan = Plan { until_us, stop_us, margin_us, killed_at_us: None, told: false };
    if plan.due(clock::now_us()) != Due::Nothing {
        return Ok(1);
    }
    let mut program = Command::new("sh");
    program.arg("-c").arg(&command).stdin(Stdio::null()).process_group(0);
    for name in [GUARD_COMMAND, GUARD_STOP, GUARD_MARGIN] {
        program.env_remove(name);
    }
    let program = program.spawn()?;
    let group = Pid::from_child(&program);
    socket.write_all(&group.as_raw_nonzero().get().to_le_bytes())?;
    std::thread::spawn(move || wait_for(program, &sender));
    loop {
        let now_us = clock::now_us();
        match plan.due(now_us) {
            Due::Nothing => {}
            Due::Terminate => drop(kill_process_group(group, Signal::TERM)),
            Due::Kill => drop(kill_process_group(group, Signal::KILL)),
        }
        match happened.recv_timeout(plan.wait(now_us)) {
            Ok(Seen::Word(word)) => plan.hear(word),
            Ok(Seen::Ended(code)) => {
                // What it has left behind ends with it.
                let _ = kill_process_group(group, Signal::KILL);
                return Ok(code);
            }
            // The member is gone.
            Ok(Seen::Closed) => plan.killed_at_us = Some(0),
            Err(_) => {}
        }
    }
}

enum Seen {
    Word(Word),
    Closed,
    Ended(u8),
}

fn read_words(mut input: UnixStream, seen: &mpsc::Sender<Seen>) {
    let mut bytes = [0; WORD_BYTES];
    while input.read_exact(&mut bytes).is_ok() {
        let Some(word) = Word::of(bytes) else { break };
        if seen.send(Seen::Word(word)).is_err() {
            return;
        }
    }
    let _ = seen.send(Seen::Closed);
}

fn wait_for(mut program: Child, seen: &mpsc::Sender<Seen>) {
    let code = program.wait().ok().and_then(|status| status.code()).unwrap_or(1);
    let _ = seen.send(Seen::Ended(code as u8));
}

/// When the program is to be stopped.
struct Plan {
    until_us: u64,
    stop_us: u64,
    margin_us: u64,
    /// Killed then, whatever the lease says.
    killed_at_us: Option<u64>,
    /// SIGTERM was sent.
    told: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Terminate,
    Kill,
}

impl Plan {
    fn hear(&mut self, word: Word) {
        match word {
            Word::Lease(until_us) => self.until_us = self.until_us.max(until_us),
            Word::Stop(at_us) => self.killed_at_us = Some(at_us),
        }
    }

    fn kill_at_us(&self) -> u64 {
        let lease_us = self.until_us.saturating_sub(self.margin_us);
        self.killed_at_us.map_or(lease_us, |at_us| at_us.min(lease_us))
    }

    fn stop_at_us(&self) -> u64 {
        match self.killed_at_us {
            Some(_) => 0,
            None => self.until_us.saturating_sub(self.stop_us),
        }
    }

    fn due(&mut self, now_us: u64) -> Due {
        if now_us >= self.kill_at_us() {
            return Due::Kill;
        }
        if now_us >= self.stop_at_us() && !self.told {
            // Once told to end it is not told otherwise, even when the lease is renewed.
            self.told = true;
            return Due::Terminate;
        }
        Due::Nothing
    }

    /// How long there is nothing to do. A program that outlives SIGKILL is killed again.
    fn wait(&self, now_us: u64) -> Duration {
        let next_us = if self.told { self.kill_at_us() } else { self.stop_at_us() };
        Duration::from_micros(next_us.saturating_sub(now_us).clamp(1_000, 60_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(until_us: u64) -> Plan {
        Plan { until_us, stop_us: 50, margin_us: 10, killed_at_us: None, told: false }
    }

    #[test]
    fn a_program_is_told_to_end_and_killed_before_the_lease_ends() {
        let mut plan = plan(1_000);
        assert_eq!(plan.due(949), Due::Nothing);
        assert_eq!(plan.due(950), Due::Terminate);
        assert_eq!(plan.due(951), Due::Nothing, "told once");
        assert_eq!(plan.due(990), Due::Kill);
        assert_eq!(plan.due(2_000), Due::Kill, "again, until it is gone");
    }

    #[test]
    fn a_renewed_lease_moves_the_end_but_only_forward() {
        let mut plan = plan(1_000);
        plan.hear(Word::Lease(2_000));
        plan.hear(Word::Lease(1_500));
        assert_eq!(plan.due(1_900), Due::Nothing);
        assert_eq!(plan.due(1_950), Due::Terminate);
    }

    #[test]
    fn a_stop_gives_the_program_its_grace_but_never_beyond_the_lease() {
        let mut first = plan(1_000);
        first.hear(Word::Stop(500));
        assert_eq!(first.due(100), Due::Terminate);
        assert_eq!(first.due(499), Due::Nothing);
        assert_eq!(first.due(500), Due::Kill);
        let mut second = plan(1_000);
        second.hear(Word::Stop(5_000));
        assert_eq!(second.due(100), Due::Terminate);
        assert_eq!(second.due(990), Due::Kill);
    }

    #[test]
    fn words_are_read_as_they_were_written() {
        for word in [Word::Lease(7), Word::Stop(u64::MAX)] {
            assert_eq!(Word::of(word.bytes()), Some(word));
        }
        assert_eq!(Word::of([0; WORD_BYTES]), None);
    }
}
