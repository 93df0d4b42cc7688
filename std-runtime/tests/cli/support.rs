//! The real program, run and watched.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Long enough for a machine that is busy with everything else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_replcore");

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Succeeds or shows what was said.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Fails with `code` and one line, which is answered.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let said: Vec<_> = self.err.lines().filter(|line| line.starts_with("replcore: ")).collect();
        assert_eq!(said.len(), 1, "one line: {self:?}");
        said[0].to_owned()
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Run {
    run_with(arguments, "", &[])
}

/// Runs it with input and environment.
pub(crate) fn run_with(arguments: &[&str], input: &str, environment: &[(&str, &Path)]) -> Run {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A node that runs until this is dropped.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) http: String,
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Node {
    /// Starts the program with these arguments and waits until it listens.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = lines(child.stderr.take().unwrap());
        let out = lines(child.stdout.take().unwrap());
        let mut http = String::new();
        let deadline = Instant::now() + DEADLINE;
        let address = loop {
            match out.recv_timeout(deadline - Instant::now()) {
                Ok(line) => {
                    if let Some((_, address)) = line.split_once(" answers HTTP on ") {
                        http = address.into();
                    }
                    if let Some((_, address)) = line.split_once(" listens on ") {
                        break address.to_owned();
                    }
                }
                Err(_) => panic!("it does not listen: {:?}", log.try_iter().collect::<Vec<_>>()),
            }
        };
        Self { address, http, child, log }
    }

    pub(crate) fn hub(folder: &Path, more: &[&str]) -> Self {
        let data = folder.join("hub");
        let base = ["hub", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        Self::start(&[&base, more].concat())
    }

    pub(crate) fn leaf(folder: &Path, name: &str, hub: &str, more: &[&str]) -> Self {
        let data = folder.join(name);
        let data = data.to_str().unwrap();
        let base = ["leaf", name, "--listen", "127.0.0.1:0", "--broker", hub, "--data", data];
        Self::start(&[&base, more].concat())
    }

    /// Waits for a line of its log that holds `text`.
    #[track_caller]
    pub(crate) fn logs(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(deadline - Instant::now()) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("not in its log: {text}: {seen:?}");
    }

    /// What it has logged since it was last looked at.
    pub(crate) fn log(&self) -> String {
        self.log.try_iter().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Ends it by SIGTERM; answers its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("-TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Runs the program again until what it prints is as wanted.
#[track_caller]
pub(crate) fn until(arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let last = run(arguments);
        if last.code == 0 && wanted(&last.out) {
            return last.out;
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {last:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Objects, one a line.
pub(crate) fn objects(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
