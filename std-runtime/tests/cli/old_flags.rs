//! EX-1: the five numbered steps, as they are written.

use std::path::Path;
use std::process::Command;

use crate::support::{PROGRAM, free_port, run, run_with};

/// The five steps, with a wait where a person would wait, and what both nodes hold afterwards. A
/// post at each of them, so that both directions are seen.
const STEPS: &str = r#"
    replcore() { "$PROGRAM" "$@"; }
    eventually() { for _ in $(seq 300); do "$@" && return 0; sleep 0.1; done; return 1; }
    four() { test "$(replcore read "localhost:$1" --json 2>/dev/null | wc -l)" = 4; }
    posted() { replcore replicate -x "$1" >/dev/null 2>&1; }
    trap 'kill $hub $leaf 2>/dev/null; wait' EXIT
    set -e
    replcore replicate -i -k central
    replcore replicate -i -k cm_1
    "$PROGRAM" replicate -c -k central -p 8080 -d 242 >/dev/null 2>&1 & hub=$!
    "$PROGRAM" replicate -l 242 -k cm_1 -p 8181 -b localhost:8080 >/dev/null 2>&1 & leaf=$!
    eventually posted localhost:8080
    eventually posted localhost:8181
    eventually four 8080
    eventually four 8181
    replcore read localhost:8080 --json
    replcore read localhost:8181 --json
"#;

/// EX-1, HS-01, HS-16, HS-17, HS-31. In a network of its own where the system allows one, so that
/// the ports are those of the text; else on ports that are free.
#[test]
fn the_five_steps_of_the_old_example_work_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let own_network = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"])
        .output()
        .is_ok_and(|output| output.status.success());
    let output = if own_network {
        let script = format!("ip link set lo up\n{STEPS}");
        let start = ["--user", "--map-root-user", "--net", "bash", "-c", &script];
        shell("unshare", &start, folder.path())
    } else {
        let ports = [free_port().to_string(), free_port().to_string()];
        let script = STEPS.replace("8080", &ports[0]).replace("8181", &ports[1]);
        shell("bash", &["-c", &script], folder.path())
    };
    let held: Vec<serde_json::Value> = output
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(held.len(), 8, "four at each node: {output}");
    for node in held.chunks(4) {
        let from = |origin: &str| node.iter().filter(|it| it["origin"] == origin).count();
        assert_eq!((from("hub"), from("242")), (2, 2), "{output}");
    }
}

fn shell(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PROGRAM", PROGRAM)
        .env("REPLCORE_DATA", folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

/// HS-02: a second initialise changes nothing and succeeds.
#[test]
fn initialising_twice_is_as_good_as_once() {
    let folder = tempfile::tempdir().unwrap();
    let base = [("REPLCORE_DATA", folder.path())];
    let initialise = || run_with(&["replicate", "-i", "-k", "central"], "", &base).ok();
    initialise();
    std::fs::write(folder.path().join("central/kept"), "x").unwrap();
    initialise();
    assert_eq!(std::fs::read(folder.path().join("central/kept")).unwrap(), b"x");
}

#[test]
fn a_missing_keyspace_role_or_broker_is_told_with_the_help() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (vec!["-c"], "-k KEYSPACE"),
        (vec!["-k", "central"], "-c, or -l ID"),
        (vec!["-l", "242", "-k", "cm_1"], "-b HOST:PORT"),
        (vec!["-c", "-k", "nowhere"], "replicate -i -k nowhere"),
    ] {
        let arguments = [&["replicate"], arguments.as_slice()].concat();
        let ended = run_with(&arguments, "", &[("REPLCORE_DATA", folder.path())]);
        let help = ended.err.contains("--keyspace");
        assert!(help || said.contains("-i"), "{ended:?}");
        let line = ended.fails(1);
        assert!(line.contains(said), "{line}");
    }
    let unknown = run(&["replicate", "--nonsense"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
}

#[test]
fn cassandra_is_said_not_to_be_there_yet() {
    let said = run(&["replicate", "-c", "-k", "central", "-s", "db.example"]).fails(1);
    assert!(said.contains("Cassandra is not there yet"), "{said}");
}
