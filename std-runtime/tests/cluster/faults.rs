//! Who leads, while members crash, hang, and come back.

use crate::lab::{Lab, eventually};
use crate::watch::Watch;

/// QC-05, QC-16: all name the same one, the leader itself included, with host, port and metadata.
#[test]
fn all_members_name_the_leader_the_leader_itself_included() {
    let mut lab = Lab::new(3);
    for at in 0..3 {
        lab.members[at].config["metadata"] = serde_json::json!({ "server_port": 8000 + at });
    }
    lab.start_all();
    let (leader, term) = lab.leader();
    let place = format!("{:?}", lab.members[leader].address);
    eventually("everybody knows what the leader says of itself", || {
        (0..3).all(|at| {
            let Some(said) = lab.members[at].leader() else { return false };
            assert_eq!(format!("{:?}", format!("{}:{}", said.host, said.port)), place);
            said.identifier == lab.members[leader].name
                && said.term == term
                && said.metadata["server_port"] == 8000 + leader
        })
    });
}

/// QC-13: one alone elects itself; of two both are needed.
#[test]
fn one_alone_leads_and_of_two_both_are_needed() {
    let alone = Lab::start(1);
    assert!(alone.members[0].leads());
    let mut two = Lab::new(2);
    two.members[0].start();
    two.members[0].await_more("pre_votes", 3);
    assert_eq!((two.members[0].leader(), two.members[0].counter("elections_started")), (None, 0));
    two.members[1].start();
    two.leader();
}

/// QC-05, QC-27: a new leader with a greater term after each kill, and never two.
#[test]
fn a_leader_that_is_killed_is_replaced_and_comes_back_as_a_follower() {
    let mut lab = Lab::start(3);
    let watch = Watch::start(&lab);
    let mut last = 0;
    for _ in 0..4 {
        let (leader, term) = lab.leader();
        assert!(term > last, "{term} after {last}");
        last = term;
        lab.members[leader].kill();
        let (next, term) = lab.leader();
        assert!(term > last && next != leader);
        lab.members[leader].start();
        let (still, same) = lab.leader();
        assert_eq!((still, same), (next, term), "who comes back deposes nobody (QC-10)");
        last = term - 1;
    }
    assert!(watch.end() > 0);
}

/// QC-11: a leader that was stopped has no lease when it goes on, and another leads by then.
#[test]
fn a_leader_that_hangs_is_replaced_and_does_not_claim_to_lead_when_it_goes_on() {
    let mut lab = Lab::start(3);
    let watch = Watch::start(&lab);
    for _ in 0..3 {
        let (leader, term) = lab.leader();
        lab.members[leader].freeze();
        let others = lab.others(leader);
        let (next, later) = lab.leader_of(&others);
        assert!(later > term && next != leader);
        lab.members[leader].thaw();
        assert_eq!(lab.leader(), (next, later));
    }
    assert!(watch.end() > 0);
}

/// QC-14: without a majority nobody leads and nobody is named.
#[test]
fn without_a_majority_nobody_leads_until_there_is_one_again() {
    let mut lab = Lab::start(3);
    let watch = Watch::start(&lab);
    let (leader, term) = lab.leader();
    let others = lab.others(leader);
    others.iter().for_each(|at| lab.members[*at].kill());
    eventually("the leader alone knows of none", || lab.members[leader].leader().is_none());
    assert!(!lab.members[leader].leads());
    lab.members[others[0]].start();
    let (_, later) = lab.leader();
    assert!(later > term);
    watch.end();
}

/// QC-06: the term and the vote are there after a restart of all.
#[test]
fn terms_go_on_rising_after_a_restart_of_all() {
    let mut lab = Lab::start(3);
    let (_, before) = lab.leader();
    lab.members.iter_mut().for_each(super::lab::Process::kill);
    lab.start_all();
    let (_, after) = lab.leader();
    assert!(after > before, "{after} after {before}");
    for member in &lab.members {
        assert!(member.data.join("ballot").exists(), "{} has stored its vote", member.name);
    }
}

/// A disk that hangs keeps a member from voting and from nothing else: a leader goes on to lead.
#[test]
fn a_leader_whose_disk_hangs_goes_on_and_one_that_cannot_store_its_vote_does_not_vote() {
    let mut lab = Lab::new(3);
    let stall = |at: usize, lab: &Lab| lab.folder.path().join(format!("stall-{at}"));
    for at in 0..3 {
        let file = stall(at, &lab).display().to_string();
        lab.members[at].flags = vec!["--stall-file".into(), file];
    }
    lab.start_all();
    let watch = Watch::start(&lab);
    let (leader, term) = lab.leader();
    for at in 0..3 {
        std::fs::write(stall(at, &lab), "").unwrap();
    }
    let others = lab.others(leader);
    // Longer than any wait for a heartbeat.
    lab.members[others[0]].await_more("heartbeats_received", 40);
    assert_eq!(lab.leader(), (leader, term), "heartbeats do not wait for the disk");
    // Without a stored vote there is no other leader, however long it takes.
    lab.members[leader].kill();
    eventually("an election is lost for want of a vote", || {
        others.iter().any(|at| lab.members[*at].counter("elections_lost") > 0)
    });
    assert!(others.iter().all(|at| !lab.members[*at].leads()), "a vote was given unstored");
    for at in 0..3 {
        std::fs::remove_file(stall(at, &lab)).unwrap();
    }
    let (_, later) = lab.leader_of(&others);
    assert!(later > term);
    watch.end();
}

/// QC-26: a leader that is stopped or resigns hands over; its port is free at once.
#[test]
fn a_leader_that_stops_or_resigns_hands_over() {
    use replcore_runtime::cluster::api::ClusterRequest;
    let mut lab = Lab::start(3);
    let (leader, term) = lab.leader();
    lab.members[leader].ask(ClusterRequest::Resign).unwrap();
    let others = lab.others(leader);
    eventually("another leads", || others.iter().any(|at| lab.members[*at].leads()));
    let (next, later) = lab.leader();
    assert!(later > term && next != leader, "{next} in {later} after {leader} in {term}");
    let refused = lab.members[leader].ask(ClusterRequest::Resign).unwrap_err();
    assert!(refused.message.contains("does not lead"), "{refused}");
    lab.members[next].stop();
    let log = lab.members[next].log_text();
    assert!(std::net::TcpListener::bind(&lab.members[next].address).is_ok(), "{log}");
    let (third, _) = lab.leader();
    assert_ne!(third, next);
    // Handed over, so nobody had to wait for a timeout and then be elected again.
    lab.members[next].start();
    lab.leader();
}
