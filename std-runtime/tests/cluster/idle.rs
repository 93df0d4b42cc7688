//! What a member costs while nothing happens.

use serde_json::{Value, json};

use crate::lab::Lab;

/// QC-32: what a member costs while nothing happens, for each heartbeat, and no connection is made anew.
#[test]
fn an_idle_member_writes_and_wakes_as_often_as_its_heartbeats_ask_for() {
    let mut lab = Lab::start(3);
    let (leader, term) = lab.leader();
    let [one, other] = lab.others(leader)[..] else { panic!("three run") };
    // Entries and links have settled.
    lab.members[one].await_more("heartbeats_received", 10);
    let counters = |at: usize| -> Value { json!(lab.members[at].status().unwrap().counters) };
    let before = counters(leader);
    lab.members[other].await_more("heartbeats_received", 40);
    let after = counters(leader);
    let grown = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    let heartbeats = grown("heartbeats_sent");
    assert!(heartbeats >= 60, "{heartbeats}");
    // The first of the two answers is in it as well.
    let bytes = grown("written_bytes").saturating_sub(8_192) / heartbeats;
    let turns = grown("turns").saturating_sub(20) / heartbeats;
    assert!(bytes <= 100 && turns <= 4, "{bytes} bytes and {turns} turns for a heartbeat");
    assert_eq!(grown("connections_dialed"), 0);
    assert_eq!(grown("connections_accepted"), 1, "the second question");
    assert_eq!(lab.leader(), (leader, term));
}
