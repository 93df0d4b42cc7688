//! Wall clocks that are stepped, by libfaketime.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Lab, Node, assert_once, assert_ordered, eventually, leave_out};

const DAY_SECONDS: i64 = 86_400;

fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join("faketime/libfaketime.so.1"))
        .find(|path| path.exists())
}

/// The wall clock of one node.
struct WallClock(PathBuf);

impl WallClock {
    fn of(lab: &Lab, node: &mut Node, library: &Path) -> Self {
        let file = lab.folder.join(format!("{}.clock", node.name));
        fs::write(&file, "+0\n").unwrap();
        node.environment("LD_PRELOAD", &library.display().to_string());
        node.environment("FAKETIME_TIMESTAMP_FILE", &file.display().to_string());
        node.environment("FAKETIME_NO_CACHE", "1");
        // Only the wall clock steps.
        node.environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        node.environment("DONT_FAKE_MONOTONIC", "1");
        Self(file)
    }

    fn step(&self, seconds: i64) {
        fs::write(&self.0, format!("{seconds:+}\n")).unwrap();
    }
}

#[test]
fn wall_clocks_stepped_by_a_day_disturb_neither_leases_nor_order_nor_delivery() {
    let test = "wall_clocks_stepped_by_a_day_disturb_neither_leases_nor_order_nor_delivery";
    let Some(library) = library() else { return leave_out(test, "libfaketime") };
    let lab = Lab::new("clock");
    let mut hub = lab.hub("hub", 9000);
    let hub_clock = WallClock::of(&lab, &mut hub, &library);
    hub.start();
    let mut one = lab.leaf("one", 9001, &[hub.as_broker()]);
    let one_clock = WallClock::of(&lab, &mut one, &library);
    let mut two = lab.leaf("two", 9002, &[hub.as_broker()]);
    one.start();
    two.start();
    eventually("both register", || hub.live_leaves() == 2);
    let mut expected = Vec::new();
    let mut last = 0u32;
    let steps = [
        (DAY_SECONDS, 0),
        (-DAY_SECONDS, 0),
        (0, DAY_SECONDS),
        (0, -DAY_SECONDS),
        (-DAY_SECONDS, DAY_SECONDS),
        (0, 0),
    ];
    for (of_hub, of_one) in steps {
        hub_clock.step(of_hub);
        one_clock.step(of_one);
        for node in [&hub, &one, &two] {
            expected.extend(node.post_run(&node.name, last + 1, last + 30));
        }
        last += 30;
        let all = |node: &Node| node.bodies().len() >= expected.len();
        eventually("everything is everywhere", || all(&hub) && all(&one) && all(&two));
        assert_eq!(hub.live_leaves(), 2, "a step of the clock cost a lease");
        let shown = one.read_from(0).last().map(|message| message.time_ms).unwrap();
        assert!(shown > 0);
        // A restart with the clock where it now is.
        hub.kill();
        one.kill();
        expected.extend(two.post_run("two", last + 1, last + 10));
        one.start();
        expected.extend(one.post_run("one", last + 1, last + 10));
        last += 10;
        hub.start();
        eventually("both are back", || hub.live_leaves() == 2);
    }
    let all = |node: &Node| node.bodies().len() >= expected.len();
    eventually("everything is everywhere", || all(&hub) && all(&one) && all(&two));
    for node in [&hub, &one, &two] {
        assert_once(&node.name, &expected, &node.bodies());
        assert_ordered(&node.name, &node.bodies());
    }
    assert_eq!(hub.counter("expired"), 0);
}
