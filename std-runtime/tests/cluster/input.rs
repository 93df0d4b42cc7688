//! Hostile and foreign input: bytes, strangers, folders.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use replcore::rng::Rng;
use serde_json::json;

use crate::lab::{Lab, eventually};

/// QC-24: bytes of any kind cost a connection and no more.
#[test]
fn bytes_that_are_no_frames_harm_nobody() {
    let mut lab = Lab::start(3);
    let (leader, term) = lab.leader();
    let mut rng = Rng::new(7);
    let mut connections = Vec::new();
    for round in 0..200u32 {
        let at = round as usize % 3;
        let Ok(mut stream) = TcpStream::connect(&lab.members[at].address) else { continue };
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let bytes: Vec<u8> = match round % 4 {
            // Nothing at all: it must go by its deadline.
            0 => Vec::new(),
            1 => (0..rng.between(1, 3000)).map(|_| rng.next_u64() as u8).collect(),
            // A length beyond any limit, and the head of a frame that never comes.
            2 => [&u32::MAX.to_le_bytes()[..], &[1; 40]].concat(),
            _ => [&100u32.to_le_bytes()[..], &[1, 0, 0, 0, 1, 2, 3, 4, b'R', b'P']].concat(),
        };
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 64]);
        connections.push(stream);
    }
    assert_eq!(lab.leader(), (leader, term), "nobody was disturbed");
    drop(connections);
    let damaged: u64 = ["link_frames_bad_length", "link_frames_bad_checksum"]
        .iter()
        .map(|counter| (0..3).map(|at| lab.members[at].counter(counter)).sum::<u64>())
        .sum();
    assert!(damaged > 0, "they were counted");
}

/// A flood of connections takes all places of strangers, and the members go on.
#[test]
fn more_connections_than_there_are_places_for_do_not_disturb_the_members() {
    let mut lab = Lab::start(3);
    let (leader, term) = lab.leader();
    let address = lab.members[leader].address.clone();
    let flood: Vec<_> = (0..300).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    assert!(flood.len() > 100);
    let other = lab.others(leader)[0];
    lab.members[other].await_more("heartbeats_received", 20);
    drop(flood);
    assert_eq!(lab.leader(), (leader, term));
    eventually("they were refused", || lab.members[leader].counter("connections_refused") > 0);
}

/// QC-23: a member of another cluster, and one that nobody knows, are counted and ignored.
#[test]
fn members_of_another_cluster_and_strangers_are_ignored() {
    let mut lab = Lab::start(3);
    let (leader, term) = lab.leader();
    let (host, port) = lab.members[leader].address.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let peer = json!([{ "identifier": lab.members[leader].name, "host": host, "port": port }]);
    let other = lab.add(json!({ "peers": peer, "cluster": "elsewhere" }));
    lab.members[other].start();
    let stranger = lab.add(json!({ "peers": peer }));
    lab.members[stranger].start();
    eventually("both were turned away", || {
        let count = |counter| lab.members[leader].counter(counter);
        count("wrong_cluster") > 0 && count("strangers") > 0
    });
    let three = [0, 1, 2];
    assert_eq!(lab.leader_of(&three), (leader, term));
    assert!(!lab.members[other].leads() && !lab.members[stranger].leads());
    let members = lab.members[leader].status().unwrap().members;
    assert_eq!(members.len(), 3, "{members:?}");
}

/// A stored state that is torn, or of another member or cluster: a clear report, and nothing starts.
#[test]
fn a_state_that_is_damaged_or_of_another_is_refused_with_a_clear_report() {
    let mut lab = Lab::start(3);
    lab.members.iter_mut().for_each(crate::lab::Process::kill);
    let run = |flags: &[&str]| {
        let program = env!("CARGO_BIN_EXE_replcore");
        let output = Command::new(program).arg("cluster").args(flags).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = text.lines().find(|line| line.starts_with("replcore: "));
        assert_eq!(output.status.code(), Some(7), "{text}");
        said.unwrap_or_else(|| panic!("nothing said: {text}")).to_owned()
    };
    let data = lab.members[0].data.clone();
    let folder = data.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--data", folder];
    let other_name = run(&[&["--name", "b"], &listen[..]].concat());
    assert!(other_name.contains("belongs to member `a` of cluster `default`"), "{other_name}");
    let other_cluster = run(&[&["--name", "a", "--cluster", "x"], &listen[..]].concat());
    assert!(other_cluster.contains("not to `a` of `x`"), "{other_cluster}");
    for file in ["ballot", "configuration"] {
        let path = data.join(file);
        let sound = std::fs::read(&path).unwrap();
        std::fs::write(&path, &sound[..sound.len() - 3]).unwrap();
        let torn = run(&[&["--name", "a"], &listen[..]].concat());
        assert!(
            torn.contains(&format!("`{file}` is damaged")) && torn.contains("--join"),
            "{torn}"
        );
        assert_eq!(std::fs::read(&path).unwrap().len(), sound.len() - 3, "left as it is");
        std::fs::write(&path, &sound).unwrap();
    }
    lab.start_all();
    lab.leader();
}

/// A file with wrong entries starts, and says what it has passed over.
#[test]
fn wrong_peers_are_reported_in_the_log() {
    let mut lab = Lab::new(3);
    let peers = lab.members[0].config["peers"].as_array_mut().unwrap();
    let first = peers[0].clone();
    peers.push(first);
    peers.push(json!({ "host": "h", "port": 0, "identifier": "z" }));
    peers.push(json!({ "host": "h", "port": 1, "identifier": "a" }));
    lab.start_all();
    lab.leader();
    let log = lab.members[0].log_text();
    for what in ["is there already", "port is missing", "this member itself"] {
        assert!(log.contains(what), "{what}: {log}");
    }
}

/// The commands find the leader from any member, and say by their exit code when there is none.
#[test]
fn the_commands_ask_any_member() {
    let mut lab = Lab::start(3);
    let (leader, term) = lab.leader();
    let other = lab.others(leader)[0];
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_replcore")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), said)
    };
    let address = lab.members[other].address.clone();
    let (code, said) = run(&["leader", &address, "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 0);
    assert_eq!(said["leader"]["identifier"], lab.members[leader].name);
    assert_eq!(said["term"], term);
    let (code, said) = run(&["members", &address]);
    assert_eq!((code, said.lines().count()), (0, 4), "{said}");
    let metadata = r#"{"k": 1}"#;
    assert_eq!(run(&["members", "set-metadata", &address, metadata]).0, 0);
    assert!(run(&["members", &address]).1.contains(r#"{"k":1}"#));
    assert_eq!(run(&["resign", &address]).0, 5, "it does not lead");
    assert_eq!(run(&["resign", &lab.members[leader].address]).0, 0);
    let (next, _) = lab.leader();
    for at in lab.others(next) {
        lab.members[at].kill();
    }
    let address = lab.members[next].address.clone();
    eventually("nobody leads", || run(&["leader", &address]).0 == 6);
    lab.members[next].kill();
    assert_eq!(run(&["leader", &address]).0, 4);
}
