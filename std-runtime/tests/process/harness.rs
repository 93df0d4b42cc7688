//! Processes of nodes in a folder, on an address of loopback that no other test uses.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use replcore_runtime::api::{
    ApiError, Bytes, NewMessage, QueueStatus, Reply, Request, Status, StoredMessage,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::session;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until `done` says so.
#[track_caller]
pub(crate) fn eventually(what: &str, done: impl FnMut() -> bool) {
    within(PATIENCE, what, done);
}

/// Waits until `done` says so, for at most `patience`. Returns how long it took.
#[track_caller]
pub(crate) fn within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(LOOK);
    }
    start.elapsed()
}

/// The folder and the addresses of one test.
pub(crate) struct Lab {
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    host: String,
    test: String,
}

impl Lab {
    /// A fresh folder for `test`. The seed is that of `REPLCORE_SEED`, else one of the clock.
    pub(crate) fn new(test: &str) -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // All of 127.0.0.0/8 is loopback: with an address of its own a test chooses its ports.
        let host = format!("127.{}.{}.{}", 1 + process / 256 % 250, process % 256, 2 + number);
        let folder = std::env::temp_dir().join(format!("replcore-{test}-{process}-{number}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = std::env::var("REPLCORE_SEED").ok().and_then(|text| text.parse().ok());
        Self { folder, seed: seed.unwrap_or_else(clock), host, test: test.into() }
    }

    /// An address of this test.
    pub(crate) fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    /// A hub named `name`.
    pub(crate) fn hub(&self, name: &str, port: u16) -> Node {
        self.node("hub", name, port, &[])
    }

    /// A leaf of the hubs, each `name@host:port`.
    pub(crate) fn leaf(&self, name: &str, port: u16, hubs: &[String]) -> Node {
        self.node("leaf", name, port, hubs)
    }

    fn node(&self, role: &str, name: &str, port: u16, hubs: &[String]) -> Node {
        let address = self.address(port);
        let mut node = Node {
            name: name.into(),
            address: address.clone(),
            folder: self.folder.join(name),
            config: self.folder.join(format!("{name}.toml")),
            log: self.folder.join(format!("{name}.log")),
            sections: Vec::new(),
            environment: Vec::new(),
            program: program_of(role),
            child: None,
        };
        let folder = node.folder.display().to_string();
        node.set("", &format!("role = {role:?}"));
        node.set("", &format!("name = {name:?}"));
        node.set("", &format!("listen = [{address:?}]"));
        node.set("", &format!("data_folder = {folder:?}"));
        if !hubs.is_empty() {
            node.set("", &format!("brokers = {hubs:?}"));
        }
        for line in ["reconnect_ms = 20", "reconnect_ms_max = 300", "keepalive_ms = 1000"] {
            node.set("deadlines", line);
        }
        node.set("limits", "segment_bytes = 1048576");
        node.set("consumers", "deliveries_max = 1000000");
        node
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
            return;
        }
        eprintln!("\n{} failed; seed {}; folder {}", self.test, self.seed, self.folder.display());
        let mut logs: Vec<_> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|it| it == "log"))
            .collect();
        logs.sort();
        for path in logs.iter().take(12) {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- the end of {}", path.display());
            for line in &lines[lines.len().saturating_sub(15)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// A node that runs as a process, or could.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) folder: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// Lines of its configuration by table.
    sections: Vec<(String, Vec<String>)>,
    environment: Vec<(String, String)>,
    /// What is run: a program and its first arguments.
    program: Vec<String>,
    child: Option<Child>,
}

/// The program that was built with these tests. For leaves `REPLCORE_LEAF_PROGRAM` names another, such as one
/// for another processor with its emulator before it.
fn program_of(role: &str) -> Vec<String> {
    let other = std::env::var("REPLCORE_LEAF_PROGRAM").ok().filter(|_| role == "leaf");
    let words = |text: String| text.split_whitespace().map(String::from).collect();
    other.map_or_else(|| vec![env!("CARGO_BIN_EXE_replcore").into()], words)
}

impl Node {
    /// Puts a line into a table of the configuration, in place of one with the same key.
    pub(crate) fn set(&mut self, section: &str, line: &str) -> &mut Self {
        let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let at = self.sections.iter().position(|(name, _)| name == section).unwrap_or_else(|| {
            self.sections.push((section.into(), Vec::new()));
            self.sections.len() - 1
        });
        let lines = &mut self.sections[at].1;
        lines.retain(|known| key(known) != key(line));
        lines.push(line.into());
        self
    }

    /// Gives it files of its own beside another node of its name.
    pub(crate) fn folder_at(&mut self, lab: &Lab, name: &str) {
        self.folder = lab.folder.join(name);
        self.config = lab.folder.join(format!("{name}.toml"));
        self.log = lab.folder.join(format!("{name}.log"));
        let folder = self.folder.display().to_string();
        self.set("", &format!("data_folder = {folder:?}"));
    }

    /// Sets a variable of the environment of later starts.
    pub(crate) fn environment(&mut self, variable: &str, value: &str) -> &mut Self {
        self.environment.retain(|(known, _)| known != variable);
        self.environment.push((variable.into(), value.into()));
        self
    }

    /// How a leaf names this node as its hub.
    pub(crate) fn as_broker(&self) -> String {
        format!("{}@{}", self.name, self.address)
    }

    /// Starts the process. It need not be ready yet.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let mut text = String::new();
        for (name, lines) in &self.sections {
            if !name.is_empty() {
                text += &format!("[{name}]\n");
            }
            text += &(lines.join("\n") + "\n");
        }
        fs::write(&self.config, text).unwrap();
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).arg("run").arg("--config").arg(&self.config);
        command.envs(self.environment.iter().map(|(variable, value)| (variable, value)));
        self.child = Some(start_process(command, &self.log));
    }

    /// Starts the process and waits until it answers.
    pub(crate) fn start(&mut self) -> &mut Self {
        self.spawn();
        self.wait_ready();
        self
    }

    /// Waits until it answers that it runs.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.assert_alive();
            match self.call(&Request::Status) {
                Ok(_) => return,
                Err(error) => {
                    assert!(Instant::now() < deadline, "{} is not ready: {error}", self.name);
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Fails when the process has ended by itself.
    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(status) = child.try_wait().unwrap() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let end: Vec<_> = log.lines().rev().take(5).collect();
            panic!("{} has ended by itself ({status}): {end:?}", self.name);
        }
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

    /// Freezes it: its sockets stay open, and it answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// What it has written to standard error.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn call(&self, request: &Request) -> Result<Reply, ApiError> {
        session::call(&self.address, request)
    }

    pub(crate) fn status(&self) -> Option<Status> {
        match self.call(&Request::Status) {
            Ok(Reply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// One of its counters; 0 while it does not answer.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().and_then(|it| it.counters.get(name).copied()).unwrap_or_default()
    }

    /// Posts bodies; each counts as acknowledged when this answers.
    ///
    /// # Errors
    /// What the node answers.
    pub(crate) fn post(&self, bodies: &[String]) -> Result<Reply, ApiError> {
        self.post_class(bodies, None)
    }

    /// As [`Node::post`], in a class.
    pub(crate) fn post_class(
        &self,
        bodies: &[String],
        class: Option<u8>,
    ) -> Result<Reply, ApiError> {
        let message = |body: &String| NewMessage {
            message_type: "test".into(),
            class,
            body: Bytes(body.clone().into_bytes()),
            ..NewMessage::default()
        };
        self.call(&Request::Post { messages: bodies.iter().map(message).collect() })
    }

    /// Posts `prefix-FROM` to `prefix-TO`, both included; all have to be taken.
    #[track_caller]
    pub(crate) fn post_run(&self, prefix: &str, from: u32, to: u32) -> Vec<String> {
        let bodies: Vec<_> = (from..=to).map(|number| format!("{prefix}-{number}")).collect();
        for some in bodies.chunks(500) {
            self.post(some).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
        bodies
    }

    /// Everything that it holds from `from` on; nothing while it does not answer.
    pub(crate) fn read_from(&self, mut from: u64) -> Vec<StoredMessage> {
        let mut all = Vec::new();
        loop {
            let limit = Some(1000);
            let request = Request::Read { from, limit, message_type: None, key: None, wait_ms: 0 };
            let Ok(Reply::Messages { messages, next }) = self.call(&request) else { return all };
            if messages.is_empty() {
                return all;
            }
            all.extend(messages);
            from = next;
        }
    }

    /// The bodies of what it holds, in its order.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let text = |it: StoredMessage| String::from_utf8_lossy(&it.message.body.0).into_owned();
        self.read_from(0).into_iter().map(text).collect()
    }

    pub(crate) fn queue(&self, name: &str) -> Option<QueueStatus> {
        let request = Request::Queues { after: None, limit: Some(1000) };
        let Ok(Reply::Queues { queues, .. }) = self.call(&request) else { return None };
        queues.into_iter().find(|queue| queue.name == name)
    }

    /// Leaves whose lease runs and which have a link.
    pub(crate) fn live_leaves(&self) -> usize {
        let request = Request::Nodes { after: None, limit: Some(1000) };
        let Ok(Reply::Nodes { nodes, .. }) = self.call(&request) else { return 0 };
        nodes.iter().filter(|node| node.state == "live").count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), Signal::CONT);
        }
        self.kill();
    }
}

/// Starts `command` with its output at the end of the file `log`. It ends when this process does.
pub(crate) fn start_process(command: Command, log: &Path) -> Child {
    let mut file = OpenOptions::new().create(true).append(true).open(log).unwrap();
    writeln!(file, "--- start").unwrap();
    let output = || Stdio::from(File::try_clone(&file).unwrap());
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "KILL", "--"]);
    guarded.arg(command.get_program()).args(command.get_args());
    for (variable, value) in command.get_envs() {
        guarded.env(variable, value.unwrap_or_default());
    }
    guarded.stdin(Stdio::null()).stdout(output()).stderr(output());
    guarded.spawn().unwrap_or_else(|error| panic!("cannot start setpriv (util-linux): {error}"))
}

/// Whether `status` is that of a process killed by SIGKILL.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// Notes that a test was left out for want of something, for the summary of the test command.
pub(crate) fn leave_out(test: &str, why: &str) {
    eprintln!("{test} is left out: {why}");
    if let Some(path) = std::env::var_os("REPLCORE_LEFT_OUT") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}

/// Demands that `got` has each of `expected` once and nothing else.
#[track_caller]
pub(crate) fn assert_once<'a>(
    place: &str,
    expected: impl IntoIterator<Item = &'a String>,
    got: &[String],
) {
    let mut counts = std::collections::BTreeMap::<&str, i64>::new();
    for body in got {
        *counts.entry(body).or_default() += 1;
    }
    for body in expected {
        *counts.entry(body).or_default() -= 1;
    }
    let few = |wanted: fn(i64) -> bool| -> Vec<_> {
        counts.iter().filter(|(_, count)| wanted(**count)).map(|it| *it.0).take(20).collect()
    };
    let (lost, doubled) = (few(|count| count < 0), few(|count| count > 0));
    assert!(lost.is_empty() && doubled.is_empty(), "{place}: lost {lost:?}, doubled {doubled:?}");
}

/// Demands that the numbers after the last `-` rise for each prefix.
#[track_caller]
pub(crate) fn assert_ordered(place: &str, got: &[String]) {
    let mut last = std::collections::BTreeMap::<&str, u64>::new();
    for body in got {
        let Some((prefix, number)) = body.rsplit_once('-') else { continue };
        let number: u64 = number.parse().unwrap();
        let before = last.insert(prefix, number).unwrap_or_default();
        assert!(before < number, "{place}: {prefix}-{number} came after {prefix}-{before}");
    }
}
