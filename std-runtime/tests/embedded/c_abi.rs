//! The header and the C examples: every language and compiler they are meant for, an election among C
//! processes, and the tools that look for undefined behaviour.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use replcore_runtime::options::Address;

use crate::c_leaf::{build, build_library, socket_of, start};
use crate::common::{PATIENCE, TestNode, hub_options, leaf_options};
use crate::tools::{build_folder, has, leave_out, root, run};

const SANITIZERS: &str = "-fsanitize=address,undefined -fno-sanitize-recover=all";

#[test]
fn header_and_examples_are_c99_and_cpp17_for_gcc_and_clang_without_a_warning() {
    let root = root();
    let sources = [
        "examples/c/leaf.c",
        "examples/c/election.c",
        "examples/c/hub.c",
        "examples/c/links.c",
        "examples/c/files.c",
        "include/replcore.h",
    ];
    for (compiler, language) in
        [("gcc", "c99"), ("clang", "c99"), ("g++", "c++17"), ("clang++", "c++17")]
    {
        if !has(compiler) {
            leave_out("the C header for every compiler", compiler);
            continue;
        }
        let kind = if language == "c99" { "c" } else { "c++" };
        for source in sources {
            run(Command::new(compiler)
                .current_dir(&root)
                .args([&format!("-std={language}"), "-x", kind, "-Iinclude", "-fsyntax-only"])
                .args([
                    "-Wall",
                    "-Wextra",
                    "-Wpedantic",
                    "-Werror",
                    "-Wno-pragma-once-outside-header",
                ])
                .arg(source));
        }
    }
}

/// A program, and the lines it has printed.
struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// A member in C.
    fn member(program: &Path, folder: &Path, name: &str, list: &[String]) -> Self {
        Self::start(Command::new(program), folder, name, list)
    }

    /// Runs the command with a folder of its own, its name and a list.
    fn start(mut command: Command, folder: &Path, name: &str, list: &[String]) -> Self {
        let own = folder.join(name);
        std::fs::create_dir_all(&own).unwrap();
        let mut child = command
            .arg(own)
            .arg(name)
            .args(list)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, to) = (child.stdout.take().unwrap(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// The last line: term, leader, and a star when it is itself.
    fn latest(&self) -> String {
        self.lines.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Waits until it has printed a line that begins like this, after `seen` lines.
    fn wait_for(&self, seen: usize, start: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.lines.lock().unwrap().iter().skip(seen).any(|line| line.starts_with(start)) {
            assert!(Instant::now() < deadline, "{start}: {:?}", self.lines.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a line to its input.
    fn say(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Ends its input, and waits until it has ended by itself.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `NAME=HOST:PORT` for each, on ports that are free now.
fn places(names: &[&str]) -> Vec<String> {
    let taken: Vec<_> = names.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |at: usize| taken[at].local_addr().unwrap();
    names.iter().enumerate().map(|(at, name)| format!("{name}={}", address(at))).collect()
}

/// Waits until all name the same leader, it itself included, and returns its index.
fn leader(members: &[(&str, Program)]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let latest: Vec<String> = members.iter().map(|(_, member)| member.latest()).collect();
        let leads = latest.iter().position(|line| line.ends_with(" *"));
        if let Some(at) = leads
            && latest
                .iter()
                .all(|line| line.trim_end_matches(" *") == latest[at].trim_end_matches(" *"))
        {
            return at;
        }
        assert!(Instant::now() < deadline, "no leader that all know: {latest:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn three_c_processes_elect_a_leader_and_another_when_it_is_killed_or_resigns() {
    if !has("gcc") {
        return leave_out("an election among C processes", "gcc");
    }
    let program = build(SANITIZERS, "c-election-checked", "election");
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c"];
    let list = places(&names);
    let begin = |name| Program::member(&program, folder.path(), name, &list);
    let mut members: Vec<_> = names.map(|name| (name, begin(name))).into_iter().collect();

    let (killed, _) = members.remove(leader(&members));
    leader(&members);
    // It comes back, with the vote that it has stored.
    members.push((killed, begin(killed)));

    // On a busy machine they may elect another at any time, but not without a later term.
    let term = |line: &str| line.split(' ').next().unwrap().parse::<u64>().unwrap();
    let at = leader(&members);
    let (name, before) = (members[at].0, term(&members[at].1.latest()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = leader(&members);
        if members[now].0 != name && term(&members[now].1.latest()) > before {
            break;
        }
        members[now].1.say("resign");
        assert!(Instant::now() < deadline, "{name} still leads");
        std::thread::sleep(Duration::from_millis(200));
    }
    for (_, member) in members {
        member.finish();
    }
}

#[tokio::test]
async fn the_c_programs_are_clean_under_valgrind() {
    if !has("valgrind") {
        return leave_out("the C programs under valgrind", "valgrind");
    }
    let folder = tempfile::tempdir().unwrap();
    let wrapper = |example: &str| -> PathBuf {
        let program = build("", &format!("c-{example}-plain"), example);
        let script = folder.path().join(format!("{example}.sh"));
        let tool = "valgrind -q --leak-check=full --show-leak-kinds=definite --error-exitcode=9";
        std::fs::write(&script, format!("#!/bin/sh\nexec {tool} {} \"$@\"\n", program.display()))
            .unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        script
    };
    let mut options = hub_options(folder.path(), "hub");
    options.rules.clear();
    let hub = TestNode::start(options);
    let file = folder.path().join("leaf.log");
    start(&wrapper("leaf"), &file, socket_of(&hub), 100, 0).finish(PATIENCE).await;
    assert_eq!(hub.bodies().await.len(), 100);

    let member = Program::member(&wrapper("election"), folder.path(), "a", &places(&["a"]));
    leader(std::slice::from_ref(&("a", member)));

    let at = places(&["hub-c"])[0].split_once('=').unwrap().1.to_owned();
    let mut hub =
        Program::member(&wrapper("hub"), folder.path(), "hub-c", std::slice::from_ref(&at));
    let file = folder.path().join("c-1.log");
    let _leaf = start(&build("", "c-leaf-of-hub", "leaf"), &file, at.parse().unwrap(), 10, 0);
    hub.wait_for(0, "+ c-1 -");
    hub.say("");
    hub.wait_for(1, "c-1 here");
    hub.finish();
}

/// HS-03, HS-05, HS-09, with a leaf of this runtime.
#[test]
fn a_hub_in_c_says_who_is_here_by_lease_and_knows_whom_to_expect_after_a_kill() {
    if !has("gcc") {
        return leave_out("a table of leaves in C", "gcc");
    }
    let program = build(SANITIZERS, "c-hub-checked", "hub");
    let folder = tempfile::tempdir().unwrap();
    let at = places(&["hub"])[0].split_once('=').unwrap().1.to_owned();
    let list = [at.clone(), "1500".to_owned()];
    let mut hub = Program::member(&program, folder.path(), "hub", &list);
    let mut options = leaf_options(folder.path(), "till-7", &[("hub", Address::Tcp(at))]);
    options.advertise = "[::1]:8181".into();
    let leaf = TestNode::start(options);
    hub.wait_for(0, "+ till-7 [::1]:8181");
    hub.say("");
    hub.wait_for(1, "till-7 here");

    // The table survives a kill; the leaf comes back by itself.
    drop(hub);
    let hub = Program::member(&program, folder.path(), "hub", &list);
    hub.wait_for(0, "+ till-7 [::1]:8181");
    let options = leaf.crash();
    hub.wait_for(1, "- till-7");
    drop(hub);
    let mut hub = Program::member(&program, folder.path(), "hub", &list);
    hub.say("");
    hub.wait_for(0, "till-7 away");
    hub.wait_for(0, "! till-7");
    let leaf = TestNode::start(options);
    hub.wait_for(0, "+ till-7");
    hub.finish();
    drop(leaf);
}

/// A cluster whose members are programs in three languages.
struct Mixed {
    members: Vec<(&'static str, Program)>,
    /// Where the member of this runtime is.
    rust: String,
}

impl Mixed {
    fn start(folder: &Path, names: [&'static str; 3]) -> Self {
        let list = places(&names);
        let [c, python, rust] = names;
        let library = build_library().with_extension("so");
        let mut script = Command::new("python3");
        script
            .arg(root().join("ffi/python/tests/cluster_member.py"))
            .env("PYTHONPATH", root().join("ffi/python/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("REPLCORE_LIBRARY", library);
        let at = |index: usize| list[index].split_once('=').unwrap().1.to_owned();
        let child = Command::new(env!("CARGO_BIN_EXE_replcore"))
            .args(["cluster", "--cluster", "election", "--name", rust, "--listen", &at(2)])
            .args(["--peer", &list[0], "--peer", &list[1], "--log", "error", "--data"])
            .arg(folder.join(rust))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let members = vec![
            (c, Program::member(&build("", "c-election-mixed", "election"), folder, c, &list)),
            (python, Program::start(script, folder, python, &list)),
            (rust, Program { child, lines: Arc::default() }),
        ];
        Self { members, rust: at(2) }
    }

    /// Whom a member takes for the leader.
    fn leader_by(&self, name: &str, member: &Program) -> Option<String> {
        let line = if name == "rust" {
            let mut ask = Command::new(env!("CARGO_BIN_EXE_replcore"));
            let said = ask.args(["leader", &self.rust, "--json"]).output().unwrap().stdout;
            let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
            format!("0 {}", said["leader"]["identifier"].as_str().unwrap_or("-"))
        } else {
            member.latest()
        };
        line.split(' ').nth(1).filter(|&leader| leader != "-").map(str::to_owned)
    }

    /// Waits until all name the same leader, one of them, and returns its index.
    fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told: Vec<_> =
                self.members.iter().map(|(name, member)| self.leader_by(name, member)).collect();
            let leads = |(name, _): &(&str, Program)| {
                told.iter().all(|leader| leader.as_deref() == Some(name))
            };
            if let Some(at) = self.members.iter().position(leads) {
                return at;
            }
            assert!(Instant::now() < deadline, "no leader that all know: {told:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_cluster_of_members_in_c_python_and_rust_elects_a_leader_and_another_when_it_is_killed() {
    for program in ["gcc", "python3"] {
        if !has(program) {
            return leave_out("a cluster in three languages", program);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Mixed::start(folder.path(), ["c", "python", "rust"]);
    let (killed, program) = cluster.members.remove(cluster.leader());
    drop(program);
    let next = cluster.members[cluster.leader()].0;
    assert_ne!(next, killed);
}

#[test]
fn machines_in_threads_of_their_own_share_nothing() {
    if !has("gcc") {
        return leave_out("the C library under the thread sanitizer", "gcc");
    }
    let program = build_folder().join("c-threads");
    run(Command::new("gcc")
        .current_dir(root())
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-g",
            "-O1",
            "-fsanitize=thread",
        ])
        .args(["-Iinclude", "-o"])
        .arg(&program)
        .arg("ffi/tests/threads.c")
        .arg(build_library())
        .args(["-lpthread", "-lm", "-ldl"]));
    run(&mut Command::new(program));
}

#[test]
fn an_installed_library_is_found_by_pkg_config_and_has_a_soname() {
    if !has("pkg-config") {
        return leave_out("the installed C library", "pkg-config");
    }
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("usr");
    // In a folder of its own: the library of the other tests stays as it is.
    run(Command::new(root().join("scripts/install-c"))
        .arg(&prefix)
        .env("PROFILE", "dev")
        .env("CARGO_TARGET_DIR", build_folder().join("install-c")));
    let source = folder.path().join("program.c");
    let text = "#include <replcore.h>\nint main(void) { return replcore_abi() != REPLCORE_ABI; }\n";
    std::fs::write(&source, text).unwrap();
    let program = folder.path().join("program");
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "replcore"])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
    let flags = String::from_utf8(flags).unwrap();
    run(Command::new("cc").arg("-o").arg(&program).arg(&source).args(flags.split_whitespace()));
    // It runs with the name that is in it, not with the one it was linked by.
    std::fs::remove_file(prefix.join("lib/libreplcore.so")).unwrap();
    run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
}
