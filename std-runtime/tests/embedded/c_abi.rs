//! The header and the C examples: every language and compiler they are meant for, an election among C
//! processes, and the tools that look for undefined behaviour.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::c_leaf::{build, build_library, socket_of, start};
use crate::common::{PATIENCE, TestNode, hub_options};
use crate::tools::{build_folder, has, leave_out, root, run};

const SANITIZERS: &str = "-fsanitize=address,undefined -fno-sanitize-recover=all";

#[test]
fn header_and_examples_are_c99_and_cpp17_for_gcc_and_clang_without_a_warning() {
    let root = root();
    let sources = ["examples/c/leaf.c", "examples/c/election.c", "include/replcore.h"];
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

/// A member that is a C program, and the lines it has printed.
struct Member {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Member {
    fn start(program: &Path, folder: &Path, name: &str, list: &[String]) -> Self {
        let own = folder.join(name);
        std::fs::create_dir_all(&own).unwrap();
        let mut child = Command::new(program)
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

    /// Ends its input, and waits until it has ended by itself.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Member {
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
fn leader(members: &[(&str, Member)]) -> usize {
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
    let begin = |name| Member::start(&program, folder.path(), name, &list);
    let mut members: Vec<_> = names.map(|name| (name, begin(name))).into_iter().collect();

    let (killed, _) = members.remove(leader(&members));
    leader(&members);
    // It comes back, with the vote that it has stored.
    members.push((killed, begin(killed)));

    // On a busy machine they may elect another at any time, but not without a later term.
    use std::io::Write as _;
    let term = |line: &str| line.split(' ').next().unwrap().parse::<u64>().unwrap();
    let at = leader(&members);
    let (name, before) = (members[at].0, term(&members[at].1.latest()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = leader(&members);
        if members[now].0 != name && term(&members[now].1.latest()) > before {
            break;
        }
        let leading = &mut members[now].1.child;
        leading.stdin.as_mut().unwrap().write_all(b"resign\n").unwrap();
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

    let member = Member::start(&wrapper("election"), folder.path(), "a", &places(&["a"]));
    leader(std::slice::from_ref(&("a", member)));
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
