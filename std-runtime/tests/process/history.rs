//! Folders that were restored from an older copy.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::harness::{Lab, Node, assert_once, eventually};

fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Demands that no identity has two bodies at the nodes that were not restored: what a restored
/// node posted before it learned of that got new identities before it went anywhere.
fn assert_one_body_each(nodes: &[&Node]) {
    let mut bodies = HashMap::new();
    for node in nodes {
        for message in node.read_from(0) {
            let body = message.message.body.0;
            let known = bodies.insert(message.id.clone(), body.clone());
            if let Some(known) = known {
                assert_eq!(known, body, "{}: {} has two bodies", node.name, message.id);
            }
        }
    }
}

#[test]
fn a_leaf_restored_from_an_older_copy_takes_a_new_life_and_loses_nothing_new() {
    let lab = Lab::new("old-leaf");
    let mut hub = lab.hub("hub", 9000);
    hub.start();
    let mut leaf = lab.leaf("leaf", 9001, &[hub.as_broker()]);
    let mut other = lab.leaf("other", 9002, &[hub.as_broker()]);
    leaf.start();
    other.start();
    eventually("both register", || hub.live_leaves() == 2);
    let mut posted = leaf.post_run("old", 1, 50);
    posted.extend(hub.post_run("hub-old", 1, 50));
    eventually("all is everywhere", || {
        [&hub, &leaf, &other].iter().all(|node| node.bodies().len() == 100)
    });
    leaf.stop();
    let copy = lab.folder.join("copy");
    copy_folder(&leaf.folder, &copy);
    leaf.start();
    posted.extend(leaf.post_run("gone", 1, 50));
    posted.extend(hub.post_run("hub-new", 1, 50));
    eventually("all is everywhere", || {
        [&hub, &leaf, &other].iter().all(|node| node.bodies().len() == 200)
    });
    let epoch = leaf.status().unwrap().epoch;
    // The restored leaf does not know of the 50, and posts others before it meets its hub.
    leaf.kill();
    hub.kill();
    copy_folder(&copy, &leaf.folder);
    leaf.start();
    posted.extend(leaf.post_run("again", 1, 70));
    hub.start();
    eventually("what it posted arrives", || {
        hub.bodies().len() >= 270 && other.bodies().len() >= 270
    });
    posted.extend(leaf.post_run("later", 1, 10));
    posted.extend(hub.post_run("hub-later", 1, 10));
    eventually("and goes on arriving", || hub.bodies().len() >= 290 && other.bodies().len() >= 290);
    assert_ne!(leaf.status().unwrap().epoch, epoch, "the leaf lives a life again");
    assert_once("hub", &posted, &hub.bodies());
    assert_once("other", &posted, &other.bodies());
    assert_one_body_each(&[&hub, &other]);
    let at_leaf = leaf.bodies();
    for body in posted.iter().filter(|body| body.starts_with("hub-later")) {
        assert!(at_leaf.contains(body), "{body} did not come to the restored leaf");
    }
    // And through a restart of everything.
    for node in [&mut hub, &mut leaf, &mut other] {
        node.kill();
    }
    for node in [&mut hub, &mut leaf, &mut other] {
        node.start();
    }
    posted.extend(leaf.post_run("last", 1, 10));
    eventually("the last arrive", || other.bodies().len() >= 300);
    assert_once("other", &posted, &other.bodies());
    assert_one_body_each(&[&hub, &other]);
}

#[test]
fn a_hub_restored_from_an_older_copy_loses_nothing_new_and_doubles_nothing() {
    let lab = Lab::new("old-hub");
    let mut hub = lab.hub("hub", 9000);
    hub.start();
    let mut one = lab.leaf("one", 9001, &[hub.as_broker()]);
    let mut two = lab.leaf("two", 9002, &[hub.as_broker()]);
    one.start();
    two.start();
    eventually("both register", || hub.live_leaves() == 2);
    let mut posted = one.post_run("one-old", 1, 50);
    posted.extend(hub.post_run("hub-old", 1, 50));
    eventually("all is everywhere", || {
        [&hub, &one, &two].iter().all(|node| node.bodies().len() == 100)
    });
    hub.stop();
    let copy = lab.folder.join("copy");
    copy_folder(&hub.folder, &copy);
    hub.start();
    // These the restored hub will not know; the leaves do.
    posted.extend(one.post_run("one-gone", 1, 30));
    posted.extend(hub.post_run("hub-gone", 1, 30));
    eventually("all is everywhere", || {
        [&hub, &one, &two].iter().all(|node| node.bodies().len() == 160)
    });
    hub.kill();
    copy_folder(&copy, &hub.folder);
    // What is posted while it is away, and what it posts itself before it meets a leaf, is new.
    let mut new = one.post_run("one-new", 1, 40);
    one.freeze();
    two.freeze();
    hub.start();
    new.extend(hub.post_run("hub-new", 1, 40));
    one.thaw();
    two.thaw();
    eventually("the new ones arrive", || {
        [&one, &two].iter().all(|node| node.bodies().len() >= 240)
    });
    new.extend(two.post_run("two-new", 1, 20));
    new.extend(hub.post_run("hub-new", 41, 60));
    eventually("and go on arriving", || [&one, &two].iter().all(|node| node.bodies().len() >= 280));
    posted.extend(new.iter().cloned());
    assert_once("one", &posted, &one.bodies());
    assert_once("two", &posted, &two.bodies());
    let at_hub = hub.bodies();
    for body in &new {
        let count = at_hub.iter().filter(|it| it == &body).count();
        assert_eq!(count, 1, "hub: {body}");
    }
    assert_one_body_each(&[&one, &two]);
}
