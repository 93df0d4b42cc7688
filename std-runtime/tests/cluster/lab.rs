//! Members as processes, in a folder, on an address of loopback that no other test uses.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use replcore_runtime::api::{ApiError, Reply, Request};
use replcore_runtime::cluster::api::{ClusterReply, ClusterRequest};
use replcore_runtime::cluster::{ClusterStatus, Leader};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::session;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `done` says so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Notes that a test was left out for want of something, for the summary of the test command.
pub(crate) fn leave_out(test: &str, why: &str) {
    eprintln!("{test} is left out: {why}");
    if let Some(path) = std::env::var_os("REPLCORE_LEFT_OUT") {
        use std::io::Write as _;
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}

/// Members `a`, `b`, `c`, ... of one cluster.
pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) members: Vec<Process>,
}

impl Lab {
    /// So many members that know each other; none runs yet.
    pub(crate) fn new(count: usize) -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // All of 127.0.0.0/8 is loopback: with an address of its own a test chooses its ports.
        let host = format!("127.{}.{}.{}", 1 + process / 256 % 250, process % 256, 2 + number);
        Self::at(&vec![host; count])
    }

    /// One member at each of these addresses.
    pub(crate) fn at(hosts: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |at: usize| (name_of(at), hosts[at].clone(), 7001 + at as u16);
        let members = (0..hosts.len())
            .map(|at| {
                let (name, host, port) = place(at);
                let peers: Vec<_> = (0..hosts.len())
                    .filter(|other| *other != at)
                    .map(|other| {
                        let (name, host, port) = place(other);
                        json!({ "identifier": name, "host": host, "port": port })
                    })
                    .collect();
                let mut config = config(&name, &host, port, folder.path());
                config["peers"] = json!(peers);
                Process::new(&name, format!("{host}:{port}"), folder.path(), config)
            })
            .collect();
        Self { folder, members }
    }

    /// One more member, with these keys in its file.
    pub(crate) fn add(&mut self, keys: Value) -> usize {
        let at = self.members.len();
        let name = name_of(at);
        let host = self.members[0].address.rsplit_once(':').unwrap().0.to_owned();
        let port = 7001 + at as u16;
        let mut config = config(&name, &host, port, self.folder.path());
        for (key, value) in keys.as_object().unwrap() {
            config[key] = value.clone();
        }
        let address = format!("{host}:{port}");
        self.members.push(Process::new(&name, address, self.folder.path(), config));
        at
    }

    /// All run, and agree on who leads.
    pub(crate) fn start(count: usize) -> Self {
        let mut lab = Self::new(count);
        lab.start_all();
        lab.leader();
        lab
    }

    pub(crate) fn start_all(&mut self) {
        self.members.iter_mut().for_each(Process::start);
    }

    /// Waits until all members that run name one leader, which says so itself; its index and term.
    #[track_caller]
    pub(crate) fn leader(&mut self) -> (usize, u64) {
        let running: Vec<_> =
            (0..self.members.len()).filter(|at| self.members[*at].runs()).collect();
        self.leader_of(&running)
    }

    /// Waits until these members name one leader, which is one of them and says so itself.
    #[track_caller]
    pub(crate) fn leader_of(&mut self, some: &[usize]) -> (usize, u64) {
        let mut found = (0, 0);
        eventually("one leader", || {
            let said: Vec<_> = some.iter().map(|at| self.members[*at].leader()).collect();
            let Some(Some(first)) = said.first().cloned() else { return false };
            let same = |it: &Option<Leader>| {
                it.as_ref()
                    .is_some_and(|it| (&it.identifier, it.term) == (&first.identifier, first.term))
            };
            let Some(at) = self.members.iter().position(|it| it.name == first.identifier) else {
                return false;
            };
            found = (at, first.term);
            some.contains(&at) && said.iter().all(same) && self.members[at].leads()
        });
        found
    }

    /// The others that run.
    pub(crate) fn others(&self, at: usize) -> Vec<usize> {
        (0..self.members.len()).filter(|it| *it != at && self.members[*it].runs()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in &self.members {
                let text = member.log_text();
                let lines: Vec<_> = text.lines().collect();
                eprintln!("--- the end of the log of {}", member.name);
                for line in &lines[lines.len().saturating_sub(25)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}

/// The times are longer than those of any profile for one site, so that a machine that is busy with
/// everything else is not taken for a dead member.
fn config(name: &str, host: &str, port: u16, folder: &Path) -> Value {
    json!({
        "identifier": name,
        "listen_host": host,
        "listen_port": port,
        "data_folder": folder.join(name),
        "heartbeat_ms": 100,
        "timeout_ms_min": 1500,
        "timeout_ms_max": 3000,
    })
}

fn name_of(at: usize) -> String {
    char::from(b'a' + at as u8).to_string()
}

/// A member that runs as a process, or could.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) data: PathBuf,
    /// Its configuration file.
    pub(crate) config: Value,
    /// Flags beside the file.
    pub(crate) flags: Vec<String>,
    /// What is run before the program: a command that runs another.
    pub(crate) wrapper: Vec<String>,
    log: PathBuf,
    file: PathBuf,
    child: Option<Child>,
}

impl Process {
    fn new(name: &str, address: String, folder: &Path, config: Value) -> Self {
        Self {
            name: name.into(),
            address,
            data: folder.join(name),
            config,
            flags: Vec::new(),
            wrapper: Vec::new(),
            log: folder.join(format!("{name}.log")),
            file: folder.join(format!("{name}.json")),
            child: None,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process, which ends when this one does. It need not be ready yet.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let file = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let output = || Stdio::from(File::try_clone(&file).unwrap());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.wrapper);
        command.arg(env!("CARGO_BIN_EXE_replcore")).arg("cluster");
        fs::write(&self.file, self.config.to_string()).unwrap();
        command.arg(&self.file).args(&self.flags);
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        let spawned = command.spawn();
        self.child = Some(spawned.unwrap_or_else(|error| panic!("cannot start setpriv: {error}")));
    }

    /// Starts the process and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.spawn();
        let name = self.name.clone();
        eventually(&format!("{name} answers"), || {
            self.assert_alive();
            self.status().is_some()
        });
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{} has ended by itself ({status}): {}", self.name, self.log_text());
        }
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let mut ended = None;
        eventually("the process ends", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_end();
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// # Errors
    /// What it answers, or that it does not.
    pub(crate) fn ask(&self, request: ClusterRequest) -> Result<ClusterReply, ApiError> {
        match session::call(&self.address, &Request::Cluster(request))? {
            Reply::Cluster(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn status(&self) -> Option<ClusterStatus> {
        match self.ask(ClusterRequest::Status) {
            Ok(ClusterReply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// Whom it takes for the leader.
    pub(crate) fn leader(&self) -> Option<Leader> {
        self.status()?.leader
    }

    /// Whether it says that it leads.
    pub(crate) fn leads(&self) -> bool {
        self.status().is_some_and(|status| status.is_leader)
    }

    /// One of its counters; 0 while it does not answer.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().and_then(|it| it.counters.get(name).copied()).unwrap_or_default()
    }

    /// Waits until one of its counters has grown by so much: a time as the member itself sees it.
    #[track_caller]
    pub(crate) fn await_more(&self, name: &str, more: u64) {
        let before = self.counter(name);
        eventually(&format!("{name} of {} grows by {more}", self.name), || {
            self.counter(name) >= before + more
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), Signal::CONT);
        }
        self.kill();
    }
}
