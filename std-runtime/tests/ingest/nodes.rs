//! Folders on real nodes that crash.

use std::collections::BTreeSet;
use std::fs;

use replcore_runtime::ingest::{Afterwards, FileFormat, Folder, IngestOptions, start};

use crate::common::{TestNode, eventually, hub_options, leaf_options};

fn options(folder: &std::path::Path) -> IngestOptions {
    IngestOptions {
        name: "in".into(),
        folder: folder.into(),
        format: FileFormat::Json,
        then: Afterwards::Move,
        settle_ms: 0,
        poll_ms: 10,
        batch_messages_max: 16,
        ..IngestOptions::default()
    }
}

#[tokio::test]
async fn files_arrive_at_the_hub_once_through_crashes_of_every_part_hs_21() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    let (files, lines) = (6, 500);
    for file in 0..files {
        let text: String =
            (0..lines).map(|line| format!("{{\"id\":\"{file}-{line}\"}}\n")).collect();
        fs::write(inbox.join(format!("{file}.json")), text).unwrap();
    }
    let mut hub = TestNode::start(hub_options(folder.path(), "hub"));
    let at = [("hub", hub.address())];
    let mut leaf = TestNode::start(leaf_options(folder.path(), "leaf", &at));
    let state = folder.path().join("state");
    let mut round = 0;
    while fs::read_dir(&inbox).unwrap().count() > 1 {
        let ingest = start(options(&inbox), &state, leaf.handle.clone()).unwrap();
        let before = leaf.bodies().await.len();
        eventually("it goes on", async || {
            leaf.bodies().await.len() > before + 100 || fs::read_dir(&inbox).unwrap().count() == 1
        })
        .await;
        // The folder loses its memory in every other round; keys alone have to do.
        leaf = TestNode::start(leaf.crash());
        ingest.stop();
        if round % 2 == 0 {
            fs::remove_dir_all(&state).unwrap();
        }
        if round % 3 == 0 {
            hub = TestNode::start(hub.crash());
        }
        round += 1;
        assert!(round < 1000);
    }
    assert!(round > 1, "it was never interrupted");
    let total = files * lines;
    eventually("the hub has all", async || hub.bodies().await.len() >= total).await;
    let bodies = hub.bodies().await;
    let different: BTreeSet<_> = bodies.iter().collect();
    assert_eq!((bodies.len(), different.len()), (total, total));
    for file in 0..files {
        // In the order of the file (HS-22).
        let start = format!("{{\"id\":\"{file}-");
        let of_file: Vec<_> = bodies.iter().filter(|body| body.starts_with(&start)).collect();
        let expected: Vec<_> = (0..lines).map(|line| format!("{start}{line}\"}}")).collect();
        assert!(of_file.into_iter().eq(&expected), "file {file} is out of order");
    }
}

#[tokio::test]
async fn a_bad_line_is_told_and_the_others_arrive_hs_28() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    let long = "t".repeat(300);
    let text = format!("{{\"body\":\"a\"}}\n{{\"type\":\"{long}\"}}\nx\n{{\"body\":\"b\"}}\n");
    fs::write(inbox.join("f"), text).unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let options = IngestOptions { format: FileFormat::Message, ..options(&inbox) };
    let mut inbox_folder = Folder::open(options, &folder.path().join("state")).unwrap();
    inbox_folder.pass(&hub.handle).await;
    assert_eq!(hub.bodies().await, ["a", "b"]);
    let rejected = fs::read_to_string(inbox.join("f.rejected")).unwrap();
    let mut lines: Vec<_> = rejected
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].clone())
        .collect();
    lines.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(lines, [2, 3]);
}
