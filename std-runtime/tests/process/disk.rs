//! Disks that are full, too small, or damaged.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use replcore_runtime::api::ErrorKind;

use crate::harness::{Lab, Node, assert_once, assert_ordered, eventually, leave_out, within};

/// A small file system in memory; unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let size = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder);
        let done = command.output().is_ok_and(|output| output.status.success());
        done.then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Posts until it is refused; returns what was acknowledged and the refusal.
fn fill(node: &Node, from: u32) -> (Vec<String>, replcore_runtime::api::ApiError) {
    let filler = "z".repeat(4000);
    let mut acknowledged = Vec::new();
    for number in from..from + 100_000 {
        let body = format!("{filler}{}-{number}", node.name);
        match node.post(std::slice::from_ref(&body)) {
            Ok(_) => acknowledged.push(body),
            Err(error) => return (acknowledged, error),
        }
    }
    panic!("{} was never full", node.name);
}

#[test]
fn a_full_disk_refuses_posts_loses_nothing_and_goes_on_when_there_is_room() {
    let test = "a_full_disk_refuses_posts_loses_nothing_and_goes_on_when_there_is_room";
    let lab = Lab::new("full");
    let mut hub = lab.hub("hub", 9000);
    let mut leaf = lab.leaf("leaf", 9001, &[hub.as_broker()]);
    let Some(disk) = SmallDisk::mount(leaf.folder.clone(), "12m") else {
        return leave_out(test, "the right to mount a file system");
    };
    leaf.start();
    // Something else takes most of the disk.
    let ballast = disk.0.parent().unwrap().join("leaf/../leaf-ballast");
    let _ = fs::remove_file(&ballast);
    let (mut expected, error) = fill(&leaf, 1);
    println!("full after {} messages: {error}", expected.len());
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("space"), "the error does not say why: {error}");
    leaf.assert_alive();
    assert_once("the full leaf", &expected, &leaf.bodies());
    // A restart with a full disk loses nothing either.
    leaf.kill();
    leaf.start();
    assert_once("the full leaf after a restart", &expected, &leaf.bodies());
    // Room returns, and no restart is needed.
    let grow = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk.0).output();
    assert!(grow.unwrap().status.success());
    let mut number = 100_001;
    eventually("posts are taken again", || {
        let body = format!("leaf-{number}");
        number += 1;
        let taken = leaf.post(std::slice::from_ref(&body)).is_ok();
        if taken {
            expected.push(body);
        }
        taken
    });
    hub.start();
    eventually("everything arrives", || hub.bodies().len() >= expected.len());
    assert_once("hub", &expected, &hub.bodies());
    assert_ordered("hub", &hub.bodies());
    leaf.stop();
}

/// What the hub receives when its disk is full stays where it was, and comes when there is room.
#[test]
fn a_hub_with_a_full_disk_acknowledges_nothing_it_cannot_keep() {
    let test = "a_hub_with_a_full_disk_acknowledges_nothing_it_cannot_keep";
    let lab = Lab::new("full-hub");
    let mut hub = lab.hub("hub", 9000);
    let mut leaf = lab.leaf("leaf", 9001, &[hub.as_broker()]);
    let Some(disk) = SmallDisk::mount(hub.folder.clone(), "12m") else {
        return leave_out(test, "the right to mount a file system");
    };
    hub.start();
    leaf.start();
    let filler = "z".repeat(4000);
    let mut expected = Vec::new();
    for round in 0..60 {
        let bodies: Vec<_> =
            (1..=100).map(|number| format!("{filler}leaf-{}", round * 100 + number)).collect();
        leaf.post(&bodies).unwrap();
        expected.extend(bodies);
    }
    let mut before = 0;
    eventually("the hub takes no more", || {
        std::thread::sleep(Duration::from_millis(500));
        hub.assert_alive();
        let now = hub.counter("stored");
        let stands = now > 0 && now == before;
        before = now;
        stands
    });
    println!("the hub stands at {before} of {}", expected.len());
    assert!(before < expected.len() as u64, "the disk was not small enough");
    hub.kill();
    hub.start();
    let grow = Command::new("mount").args(["-o", "remount,size=96m"]).arg(&disk.0).output();
    assert!(grow.unwrap().status.success());
    eventually("everything arrives", || hub.bodies().len() >= expected.len());
    assert_once("hub", &expected, &hub.bodies());
    assert_ordered("hub", &hub.bodies());
    eventually("the leaf's queue is empty", || {
        leaf.queue("hub").is_some_and(|queue| queue.messages == 0)
    });
    hub.stop();
}

/// HS-26: a leaf that is away for long costs the hub what its queue may hold, and no more.
#[test]
fn a_leaf_away_for_long_costs_no_more_than_its_queue_and_gets_the_rest() {
    let lab = Lab::new("away");
    const BOUND: u64 = 16 << 20;
    let mut hub = lab.hub("hub", 9000);
    hub.set("limits", &format!("log_bytes_max = {BOUND}"));
    hub.set("queue", "bytes_max = 4194304").set("queue", "policy = \"drop_oldest\"");
    hub.start();
    let brokers = [hub.as_broker()];
    let (mut away, mut here) = (lab.leaf("away", 9001, &brokers), lab.leaf("here", 9002, &brokers));
    away.start();
    here.start();
    eventually("both register", || hub.live_leaves() == 2);
    let first = hub.post_run("first", 1, 20);
    eventually("the first are there", || away.bodies().len() == 20 && here.bodies().len() == 20);
    away.kill();
    let filler = "w".repeat(4000);
    let mut posted = 0u32;
    let mut bound_held = 0;
    // Ten times the queue, three times the log.
    for _ in 0..120 {
        let bodies: Vec<_> = (1..=100).map(|at| format!("{filler}hub-{}", posted + at)).collect();
        hub.post(&bodies).unwrap();
        posted += 100;
        let bytes = hub.status().unwrap().log_bytes;
        bound_held = bound_held.max(bytes);
    }
    println!("the log took at most {bound_held} of {BOUND} bytes");
    assert!(bound_held <= BOUND, "{bound_held} bytes of log");
    let queue = hub.queue("away").unwrap();
    assert!(queue.dropped_total > 0 && queue.messages > 0, "{queue:?}");
    assert_eq!(queue.dropped_total + queue.messages, u64::from(posted), "{queue:?}");
    eventually("the leaf that is here has everything", || {
        here.counter("stored") >= u64::from(posted) || here.bodies().len() >= posted as usize + 20
    });
    // Through a restart of the hub the backlog stays.
    hub.kill();
    hub.start();
    let kept = hub.queue("away").unwrap();
    assert_eq!(kept.messages, queue.messages);
    away.start();
    eventually("the rest arrives", || hub.queue("away").is_some_and(|it| it.messages == 0));
    let got = away.bodies();
    let rest: Vec<_> = (posted + 1 - kept.messages as u32..=posted)
        .map(|number| format!("{filler}hub-{number}"))
        .collect();
    assert_once("away", first.iter().chain(&rest), &got);
    assert_ordered("away", &got);
    assert!(away.counter("skipped") > 0, "the leaf was not told of the gap");
}

#[test]
fn a_damaged_segment_is_set_aside_and_the_rest_is_served() {
    let lab = Lab::new("damaged");
    let mut hub = lab.hub("hub", 9000);
    hub.set("limits", "segment_bytes = 262144").start();
    let filler = "v".repeat(1000);
    let mut posted = Vec::new();
    for round in 0..30 {
        let bodies: Vec<_> =
            (1..=100).map(|at| format!("{filler}hub-{}", round * 100 + at)).collect();
        hub.post(&bodies).unwrap();
        posted.extend(bodies);
    }
    hub.stop();
    let mut segments: Vec<_> = fs::read_dir(&hub.folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::metadata(path).unwrap().len() >= 200_000)
        .filter(|path| fs::read(path).unwrap().windows(40).any(|it| it == &filler.as_bytes()[..40]))
        .collect();
    segments.sort();
    println!("segments: {segments:?}");
    assert!(segments.len() >= 6, "too few segments to damage an old one");
    let damaged = &segments[2];
    let mut bytes = fs::read(damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(damaged, bytes).unwrap();
    hub.start();
    let got = hub.bodies();
    println!("{} of {} are left", got.len(), posted.len());
    assert!(got.iter().all(|body| posted.contains(body)), "bodies that were never posted");
    assert!(got.len() < posted.len() && got.len() >= posted.len() - 600, "{}", got.len());
    assert_ordered("hub", &got);
    assert_eq!(got.last(), posted.last());
    within(Duration::from_secs(60), "the damage is counted", || {
        hub.counter("store_segments_quarantined") == 1
    });
    let reported = hub.log_text();
    let name = damaged.file_name().unwrap().to_string_lossy().into_owned();
    assert!(reported.contains(&name), "the damage is not reported: {reported}");
    hub.post_run("hub", 100_000, 100_010);
    hub.kill();
    hub.start();
    assert_eq!(hub.bodies().len(), got.len() + 11);
}

/// HS-02: a start that is killed at any moment of its first run leaves a folder that starts.
#[test]
fn a_first_start_that_is_killed_leaves_a_folder_that_starts() {
    let lab = Lab::new("first-start");
    let mut hub = lab.hub("hub", 9000);
    for round in 0..40u64 {
        hub.spawn();
        std::thread::sleep(Duration::from_micros(500 * round));
        hub.kill();
        if round % 4 == 3 {
            hub.start();
            hub.post_run("first", round as u32, round as u32);
            hub.kill();
            let _ = fs::remove_dir_all(&hub.folder);
        }
    }
    hub.start();
}
