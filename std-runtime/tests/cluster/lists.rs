//! Lists of peers that do not go together.

use serde_json::json;

use crate::lab::{Lab, eventually};

/// Takes a peer out of the file of a member.
fn strike(lab: &mut Lab, of: usize, peer: &str) {
    let peers = lab.members[of].config["peers"].as_array_mut().unwrap();
    peers.retain(|it| it["identifier"] != peer);
}

fn says_that_they_differ(lab: &Lab, at: usize, other: &str) -> bool {
    let what = format!("{other} was started with other members than this one");
    lab.members[at].log_text().contains(&what)
}

/// QC-02, QC-05: two whose lists differ elect nobody, and each says so by name; a third with the list
/// of one of them makes a majority, and the other is put right.
#[test]
fn members_with_different_lists_say_so_and_the_majority_puts_the_other_right() {
    let mut lab = Lab::new(3);
    strike(&mut lab, 1, "c");
    lab.members[0].start();
    lab.members[1].start();
    eventually("both say so", || {
        says_that_they_differ(&lab, 0, "b") && says_that_they_differ(&lab, 1, "a")
    });
    lab.members[0].await_more("pre_votes", 3);
    for member in &lab.members[..2] {
        assert_eq!((member.leader(), member.counter("elections_started")), (None, 0));
        assert!(member.counter("members_differ") > 0);
    }
    lab.members[2].start();
    lab.leader();
    eventually("b has the members of the others", || {
        lab.members[1].status().is_some_and(|it| it.voters == 3)
    });
}

/// QC-23: whoever was started without its peers leads itself alone, in terms as great as you like, and
/// the cluster that has it among its members does not follow.
#[test]
fn a_member_started_alone_by_mistake_does_not_take_the_cluster_over() {
    let mut lab = Lab::new(3);
    lab.members[2].config["peers"] = json!([]);
    lab.start_all();
    let (leader, term) = lab.leader_of(&[0, 1]);
    let alone = |lab: &Lab| lab.members[2].status().map_or(0, |it| it.term);
    while alone(&lab) <= term {
        lab.members[2].kill();
        lab.members[2].start();
        eventually("it leads alone", || lab.members[2].leads());
    }
    eventually("it has turned them away", || lab.members[2].counter("strangers") > 0);
    eventually("and they say so", || {
        lab.members[leader].log_text().contains("a link with c was refused: not a member")
    });
    lab.members[1 - leader].await_more("heartbeats_received", 20);
    assert_eq!(lab.leader_of(&[0, 1]), (leader, term));
    assert_eq!(lab.members[leader].status().unwrap().voters, 3);
}
