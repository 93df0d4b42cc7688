//! A leaf in C on a plain file: see `examples/c/leaf.c`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use replcore::rng::Rng;
use replcore_runtime::api::{Bytes, NewMessage, Reply, Request};
use replcore_runtime::options::Address;

use crate::common::{PATIENCE, TestNode, hub_options};
use crate::relay::Relay;
use crate::tools::{Process, build_folder, leave_out, root, run};

/// Builds the library for C.
pub(crate) fn build_library() -> PathBuf {
    let target = build_folder().parent().unwrap().to_path_buf();
    run(Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--quiet", "--package", "replcore-ffi", "--target-dir"])
        .arg(&target));
    target.join("debug/libreplcore.a")
}

/// Builds library and example with every warning an error.
pub(crate) fn build(flags: &str, program: &str, example: &str) -> PathBuf {
    let program = build_folder().join(program);
    run(Command::new(root().join("examples/c/build"))
        .env("CFLAGS", flags)
        .arg(build_library())
        .arg(&program)
        .arg(example));
    program
}

pub(crate) fn start(
    program: &Path,
    file: &Path,
    at: SocketAddr,
    count: u64,
    wanted: u64,
) -> Process {
    let child = Command::new(program)
        .arg("c-1")
        .arg(file)
        .args(["127.0.0.1", &at.port().to_string(), &count.to_string(), &wanted.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

pub(crate) fn socket_of(node: &TestNode) -> SocketAddr {
    match node.address() {
        Address::Tcp(text) | Address::Serial(text) | Address::Noise(text) => text.parse().unwrap(),
        Address::Unix(path) => panic!("{} is not TCP", path.display()),
    }
}

/// Posts messages for one queue at a node.
pub(crate) async fn post_to(node: &TestNode, queue: &str, bodies: Vec<String>) {
    let message = |body: String| NewMessage {
        message_type: "command".into(),
        to: vec![queue.into()],
        body: Bytes(body.into_bytes()),
        ..NewMessage::default()
    };
    let messages = bodies.into_iter().map(message).collect();
    let Reply::Posted { .. } = node.call(Request::Post { messages }).await else { panic!() };
}

#[tokio::test]
async fn a_leaf_in_c_loses_and_doubles_nothing_when_it_its_hub_and_the_line_die_at_random() {
    const POSTED: u64 = 6_000;
    const ROUNDS: u64 = 60;
    const PER_ROUND: u64 = 20;
    let program = build("", "c-leaf", "leaf");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leaf.log");
    let mut options = hub_options(folder.path(), "hub");
    options.rules.clear();
    let mut hub = Some(TestNode::start(options));
    let relay = Relay::tcp(socket_of(hub.as_ref().unwrap()));
    let begin = || start(&program, &file, relay.address, POSTED, ROUNDS * PER_ROUND);
    let mut leaf = begin();
    let mut rng = Rng::new(7);
    let (mut kills, mut crashes) = (0, 0);
    let command = |round: u64, n: u64| format!("command {}", round * PER_ROUND + n);
    for round in 0..ROUNDS {
        let bodies = (0..PER_ROUND).map(|n| command(round, n)).collect();
        post_to(hub.as_ref().unwrap(), "c-1", bodies).await;
        // The faults come at any moment of what goes on meanwhile.
        tokio::time::sleep(Duration::from_millis(rng.between(0, 60))).await;
        match rng.between(0, 9) {
            0..=4 => {
                leaf.kill();
                leaf = begin();
                kills += 1;
            }
            5 => {
                let options = hub.take().unwrap().crash();
                hub = Some(TestNode::start(options));
                crashes += 1;
            }
            _ => relay.cut(),
        }
    }
    let hub = hub.unwrap();
    leaf.finish(PATIENCE).await;
    assert!(kills > 10 && crashes > 2, "{kills} kills, {crashes} crashes");

    let sent: Vec<String> = (1..=POSTED).map(|n| format!("c-1 {n}")).collect();
    let at_hub = hub.bodies().await;
    let from_leaf: Vec<&String> = at_hub.iter().filter(|body| body.starts_with("c-1 ")).collect();
    assert_eq!(from_leaf.len() as u64, POSTED);
    assert!(from_leaf.into_iter().eq(sent.iter()), "out of order");

    let listed = run(Command::new(&program).arg("c-1").arg(&file));
    let listed = String::from_utf8(listed).unwrap();
    let received = listed.lines().map(|line| line.split_once(' ').unwrap().1);
    let expected = (0..ROUNDS).flat_map(|round| (0..PER_ROUND).map(move |n| command(round, n)));
    assert!(received.eq(expected), "{listed}");
}

#[tokio::test]
async fn the_c_leaf_is_clean_under_the_sanitizers_and_repairs_a_torn_log() {
    if !crate::tools::has("gcc") {
        return leave_out("the C leaf under sanitizers", "gcc");
    }
    let program =
        build("-fsanitize=address,undefined -fno-sanitize-recover=all", "c-leaf-checked", "leaf");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leaf.log");
    let mut options = hub_options(folder.path(), "hub");
    options.rules.clear();
    let hub = TestNode::start(options);
    post_to(&hub, "c-1", (0..50).map(|n| format!("{n} {}", "x".repeat(n * 500))).collect()).await;
    start(&program, &file, socket_of(&hub), 500, 50).finish(PATIENCE).await;

    // What a power cut leaves: the last batch in part.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 5]).unwrap();
    let mut torn = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut torn, &[7; 100]).unwrap();
    start(&program, &file, socket_of(&hub), 1_000, 50).finish(PATIENCE).await;
    let bodies = hub.bodies().await;
    let from_leaf = bodies.iter().filter(|body| body.starts_with("c-1 "));
    assert!(from_leaf.eq(&(1..=1_000).map(|n| format!("c-1 {n}")).collect::<Vec<_>>()));
}
