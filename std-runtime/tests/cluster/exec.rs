//! The program that runs only at the leader.

use std::fs;
use std::path::PathBuf;

use replcore_runtime::cluster::api::ClusterRequest;
use serde_json::json;

use crate::lab::{Lab, eventually};

/// A program that says when it starts, and when another is still there: it holds a lock.
fn with_program(lab: &mut Lab) -> PathBuf {
    let log = lab.folder.path().join("runs");
    let lock = lab.folder.path().join("lock");
    let (log_text, lock_text) = (log.display(), lock.display());
    let command = format!(
        "flock -n {lock_text} sh -c 'echo run $REPLCORE_NAME $REPLCORE_TERM >>{log_text}; \
         sleep 1000' || echo clash $REPLCORE_NAME $REPLCORE_TERM >>{log_text}"
    );
    for member in &mut lab.members {
        member.config["exec"] = json!(command);
    }
    log
}

fn lines(log: &PathBuf) -> Vec<String> {
    fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[track_caller]
fn runs_at(log: &PathBuf, name: &str, term: u64) {
    let wanted = format!("run {name} {term}");
    eventually(&wanted, || lines(log).contains(&wanted));
    let lines = lines(log);
    assert!(!lines.iter().any(|line| line.starts_with("clash")), "two at once: {lines:?}");
}

/// A program runs at the leader and nowhere else, with the term, whatever ends the leadership.
#[test]
fn a_program_runs_at_the_leader_and_nowhere_else() {
    let mut lab = Lab::new(3);
    let log = with_program(&mut lab);
    lab.start_all();
    let (leader, term) = lab.leader();
    runs_at(&log, &lab.members[leader].name.clone(), term);

    // It hangs: its guard ends the program before another member can lead.
    lab.members[leader].freeze();
    let others = lab.others(leader);
    let (next, term) = lab.leader_of(&others);
    runs_at(&log, &lab.members[next].name.clone(), term);
    lab.members[leader].thaw();
    lab.leader();

    // It is killed.
    lab.members[next].kill();
    let (leader, term) = lab.leader();
    runs_at(&log, &lab.members[leader].name.clone(), term);
    lab.members[next].start();

    // It resigns: the program ends first.
    lab.members[leader].ask(ClusterRequest::Resign).unwrap();
    let (next, term) = lab.leader();
    assert_ne!(next, leader);
    runs_at(&log, &lab.members[next].name.clone(), term);

    // It is stopped.
    lab.members[next].stop();
    let (last, term) = lab.leader();
    runs_at(&log, &lab.members[last].name.clone(), term);
    lab.members[last].stop();
}

/// A program that ends is started again as long as the member leads.
#[test]
fn a_program_that_ends_is_started_again() {
    let mut lab = Lab::new(1);
    let log = lab.folder.path().join("runs");
    let command = format!("echo run a $REPLCORE_TERM $REPLCORE_CLUSTER >>{}", log.display());
    lab.members[0].config["exec"] = json!(command);
    lab.start_all();
    eventually("three runs", || lines(&log).len() >= 3);
    let (_, term) = lab.leader();
    assert!(lines(&log).iter().all(|line| *line == format!("run a {term} default")));
}
