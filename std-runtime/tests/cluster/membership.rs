//! Members that come and go, and what they say of themselves.

use replcore_runtime::cluster::api::ClusterRequest;
use serde_json::json;

use crate::lab::{Lab, eventually};
use crate::watch::Watch;

fn metadata(text: serde_json::Value) -> replcore_runtime::cluster::Metadata {
    serde_json::from_value(text).unwrap()
}

/// The names of the voters that a member knows.
fn voters(lab: &Lab, at: usize) -> Vec<String> {
    let Some(status) = lab.members[at].status() else { return Vec::new() };
    let votes =
        |it: &replcore_runtime::cluster::Member| ["leader", "voter"].contains(&it.role.as_str());
    status.members.into_iter().filter(votes).map(|it| it.identifier).collect()
}

/// QC-19: a newcomer asks any member and is a member; removal likewise; the quorum follows.
#[test]
fn a_newcomer_joins_by_any_member_votes_and_can_leave_again() {
    let mut lab = Lab::start(3);
    let watch = Watch::start(&lab);
    let (leader, _) = lab.leader();
    let follower = lab.others(leader)[0];
    let by = lab.members[follower].address.clone();
    let new = lab.add(json!({ "join": by }));
    lab.members[new].start();
    eventually("all know four voters", || (0..4).all(|at| voters(&lab, at).len() == 4));
    // Of four, three are needed: with two away nobody leads.
    let (leader, _) = lab.leader();
    let others = lab.others(leader);
    let (away, left) = (&others[..2], others[2]);
    away.iter().for_each(|at| lab.members[*at].kill());
    eventually("two of four do not lead", || {
        lab.members[leader].leader().is_none() && lab.members[left].leader().is_none()
    });
    away.iter().for_each(|at| lab.members[*at].start());
    let (leader, _) = lab.leader();
    let gone = if leader == new { lab.others(new)[0] } else { new };
    let asked = lab.others(gone).into_iter().find(|at| *at != leader).unwrap();
    let identifier = lab.members[gone].name.clone();
    let leave = ClusterRequest::Leave { identifier: identifier.clone(), passed_on: false };
    lab.members[asked].ask(leave.clone()).unwrap();
    lab.members[gone].kill();
    let rest: Vec<_> = (0..4).filter(|at| *at != gone).collect();
    eventually("three voters are left", || rest.iter().all(|at| voters(&lab, *at).len() == 3));
    lab.leader_of(&rest);
    let again = lab.members[asked].ask(leave).unwrap_err();
    assert!(again.message.contains("there is no member"), "{again}");
    watch.end();
}

/// QC-19: a member that is gone for good can be taken out, so that it does not count.
#[test]
fn a_member_that_is_gone_can_be_taken_out() {
    let mut lab = Lab::start(3);
    let (leader, _) = lab.leader();
    let [gone, other] = lab.others(leader)[..] else { panic!() };
    lab.members[gone].kill();
    let identifier = lab.members[gone].name.clone();
    lab.members[other].ask(ClusterRequest::Leave { identifier, passed_on: false }).unwrap();
    assert_eq!(voters(&lab, leader).len(), 2);
}

/// QC-34: a learner knows who leads, and does not count.
#[test]
fn a_learner_is_told_and_does_not_vote() {
    let mut lab = Lab::start(3);
    let by = lab.members[0].address.clone();
    let learner = lab.add(json!({ "join": [by], "learner": true }));
    lab.members[learner].start();
    eventually("it is a learner", || {
        lab.members[learner].status().is_some_and(|it| it.role == "learner" && it.voters == 3)
    });
    let (leader, term) = lab.leader();
    assert_ne!(leader, learner);
    for at in lab.others(leader).into_iter().filter(|at| *at != learner) {
        lab.members[at].kill();
    }
    eventually("a learner is no majority", || lab.members[leader].leader().is_none());
    assert_eq!(lab.members[learner].status().unwrap().term, term);
}

/// QC-17: what a member says of itself is seen by all, also when it changes, and after a restart of
/// who has said it.
#[test]
fn metadata_is_said_by_its_owner_and_seen_by_all() {
    let mut lab = Lab::new(3);
    // In the way of the seed: in the files of the others.
    for at in [0, 1] {
        for peer in lab.members[at].config["peers"].as_array_mut().unwrap() {
            if peer["identifier"] == "c" {
                peer["metadata"] = json!({ "server_port": 8003 });
            }
        }
    }
    lab.start_all();
    let all_see = |lab: &Lab, wanted: &serde_json::Value| {
        (0..3).all(|at| {
            let Some(status) = lab.members[at].status() else { return false };
            let seen = status.members.iter().find(|it| it.identifier == "c");
            seen.is_some_and(|it| json!(it.metadata) == *wanted)
        })
    };
    eventually("the word of the files", || all_see(&lab, &json!({ "server_port": 8003 })));
    let said = json!({ "server_port": 9, "zone": "x" });
    let set = ClusterRequest::SetMetadata { metadata: metadata(said.clone()) };
    lab.members[2].ask(set).unwrap();
    eventually("the word of the owner", || all_see(&lab, &said));
    lab.members[2].kill();
    lab.members[2].start();
    eventually("the word of the owner, after a restart", || all_see(&lab, &said));
    let large = metadata(json!({ "k": "v".repeat(300) }));
    let refused = lab.members[2].ask(ClusterRequest::SetMetadata { metadata: large }).unwrap_err();
    assert!(refused.message.contains("at most 256"), "{refused}");
    assert!(all_see(&lab, &said), "nothing has changed");
}

/// QC-20: without election everybody knows who is here, and nobody leads.
#[test]
fn without_a_leader_members_know_of_each_other() {
    let mut lab = Lab::new(3);
    for member in &mut lab.members {
        member.config["masterless"] = json!(true);
    }
    lab.start_all();
    let up = |lab: &Lab, at: usize| {
        let status = lab.members[at].status();
        status.map_or(0, |it| it.members.iter().filter(|it| it.state == "up").count())
    };
    eventually("all see each other", || (0..3).all(|at| up(&lab, at) == 2));
    lab.members[2].kill();
    eventually("who is gone is down", || (0..2).all(|at| up(&lab, at) == 1));
    assert!((0..2).all(|at| lab.members[at].leader().is_none()));
    lab.members[2].start();
    eventually("and is back", || (0..3).all(|at| up(&lab, at) == 2));
}
