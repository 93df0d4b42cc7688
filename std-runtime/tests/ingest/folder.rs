//! Folders of files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use replcore_runtime::api::{ErrorKind, NewMessage};
use replcore_runtime::ingest::{
    Afterwards, FileFormat, Folder, IngestOptions, start, validate_all,
};
use tempfile::TempDir;

use crate::support::{BODY_BYTES_MAX, FakeNode};

/// A folder with its state, both gone at the end of the test.
struct Bench {
    folder: TempDir,
    state: TempDir,
    node: FakeNode,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
            node: FakeNode::default(),
        }
    }

    fn options(&self, format: FileFormat, then: Afterwards) -> IngestOptions {
        IngestOptions {
            name: "in".into(),
            folder: self.folder.path().into(),
            format,
            then,
            settle_ms: 0,
            batch_messages_max: 4,
            message_bytes_max: 2 * BODY_BYTES_MAX,
            ..IngestOptions::default()
        }
    }

    fn open(&self, options: IngestOptions) -> Folder {
        Folder::open(options, self.state.path()).unwrap()
    }

    /// One pass of a folder that was just opened: all that a restart keeps is on disk.
    async fn restart_and_pass(&self, options: &IngestOptions) -> Folder {
        let mut folder = self.open(options.clone());
        folder.pass(&self.node.start()).await;
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file elsewhere and renames it into the folder, with a fixed time of change.
    fn put(&self, name: &str, content: &str) {
        let beside = self.path(".put");
        fs::write(&beside, content).unwrap();
        let file = File::options().write(true).open(&beside).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    fn lose_journal(&self) {
        for entry in fs::read_dir(self.state.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn expected(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("{{\"n\":{n}}}")).collect()
}

#[tokio::test]
async fn files_are_taken_in_order_and_moved_kept_or_deleted_as_told() {
    for (then, left, done) in [
        (Afterwards::Move, vec!["done"], vec!["a.json", "b.json"]),
        (Afterwards::Keep, vec!["a.json", "b.json"], vec![]),
        (Afterwards::Delete, vec![], vec![]),
    ] {
        let bench = Bench::new();
        bench.put("b.json", &lines(10, 20));
        bench.put("a.json", &lines(0, 10));
        let options = bench.options(FileFormat::Json, then);
        let mut folder = bench.open(options.clone());
        let node = bench.node.start();
        for _ in 0..3 {
            folder.pass(&node).await;
        }
        bench.restart_and_pass(&options).await;
        assert_eq!(bench.node.bodies(), expected(0, 20), "{then:?}");
        assert_eq!(bench.names(), left);
        if then == Afterwards::Move {
            assert_eq!(names(&bench.path("done")), done);
        }
        let counters = folder.counters();
        assert_eq!(counters.files.load(Ordering::Relaxed), 2);
        assert_eq!(counters.posted.load(Ordering::Relaxed), 20);
    }
}

#[tokio::test]
async fn a_crash_at_any_message_loses_and_doubles_nothing_hs_21() {
    let text = lines(0, 23);
    for crash_after in 0..=23 {
        for journal_lost in [false, true] {
            let bench = Bench::new();
            let options = bench.options(FileFormat::Json, Afterwards::Move);
            bench.put("a.json", &text);
            bench.node.refuse(crash_after, ErrorKind::Unavailable);
            bench.restart_and_pass(&options).await;
            bench.node.accept();
            if journal_lost {
                bench.lose_journal();
            }
            bench.restart_and_pass(&options).await;
            assert_eq!(bench.node.bodies(), expected(0, 23), "after {crash_after}");
            assert_eq!(names(&bench.path("done")), ["a.json"]);
        }
    }
}

#[tokio::test]
async fn a_crash_between_the_last_post_and_the_move_doubles_nothing_hs_21() {
    for format in [FileFormat::Json, FileFormat::File] {
        for journal_lost in [false, true] {
            let bench = Bench::new();
            let options = bench.options(format, Afterwards::Move);
            bench.put("a.json", &lines(0, 9));
            bench.restart_and_pass(&options).await;
            let posted = bench.node.messages().len();
            // The state before the move: the file is there as it was.
            fs::rename(bench.path("done/a.json"), bench.path("a.json")).unwrap();
            if journal_lost {
                bench.lose_journal();
            }
            bench.restart_and_pass(&options).await;
            assert_eq!(bench.node.messages().len(), posted);
            assert_eq!(bench.names(), ["done"]);
        }
    }
}

#[tokio::test]
async fn after_a_restart_a_file_goes_on_where_it_was() {
    let bench = Bench::new();
    let options = bench.options(FileFormat::Json, Afterwards::Keep);
    let long = format!("{{\"n\":\"{}\"}}", "x".repeat(300 << 10));
    bench.put("a.json", &format!("{long}\n").repeat(40));
    bench.node.refuse(30, ErrorKind::Full);
    bench.restart_and_pass(&options).await;
    bench.node.accept();
    let posts = bench.node.posts();
    bench.restart_and_pass(&options).await;
    assert_eq!(bench.node.messages().len(), 40);
    assert!(bench.node.posts() - posts < 8, "it began anew");
}

#[tokio::test]
async fn the_same_content_under_another_name_or_time_is_another_file() {
    let bench = Bench::new();
    let options = bench.options(FileFormat::Raw, Afterwards::Delete);
    bench.put("a", "same");
    bench.put("b", "same");
    bench.restart_and_pass(&options).await;
    bench.put("a", "same");
    File::options()
        .write(true)
        .open(bench.path("a"))
        .unwrap()
        .set_modified(SystemTime::now())
        .unwrap();
    bench.restart_and_pass(&options).await;
    assert_eq!(bench.node.bodies(), ["same"; 3]);
}

#[tokio::test]
async fn bad_lines_go_beside_the_file_once_whatever_happens_hs_28() {
    for crash_after in 0..=8 {
        let bench = Bench::new();
        let options = bench.options(FileFormat::Message, Afterwards::Move);
        let mut text = String::new();
        for n in 0..8 {
            text.push_str(&format!("{{\"body\":\"{n}\"}}\n"));
            text.push_str(if n % 2 == 0 { "nonsense\n" } else { "{\"class\":7}\n" });
        }
        bench.put("a", &text);
        bench.put("a.rejected", "of an earlier file\n");
        bench.node.refuse(crash_after, ErrorKind::Full);
        bench.restart_and_pass(&options).await;
        bench.node.accept();
        bench.restart_and_pass(&options).await;
        bench.restart_and_pass(&options).await;
        assert_eq!(bench.node.bodies(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(bench.names(), ["a.1.rejected", "a.rejected", "done"], "{crash_after}");
        let rejected = fs::read_to_string(bench.path("a.1.rejected")).unwrap();
        let mut numbers = Vec::new();
        for line in rejected.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(!line["error"].as_str().unwrap().is_empty());
            assert!(line["text"] == "nonsense" || line["text"] == "{\"class\":7}");
            numbers.push(line["line"].as_u64().unwrap());
        }
        numbers.sort();
        assert_eq!(numbers, [2, 4, 6, 8, 10, 12, 14, 16]);
    }
}

#[tokio::test]
async fn a_whole_file_is_a_message_and_one_that_is_refused_is_set_aside() {
    let bench = Bench::new();
    let message = NewMessage { message_type: "photo".into(), ..NewMessage::default() };
    let options = IngestOptions { message, ..bench.options(FileFormat::File, Afterwards::Delete) };
    bench.put("a.png", "pixels\n");
    bench.put("b.png", &"x".repeat(BODY_BYTES_MAX + 1));
    bench.put("c.png", &"x".repeat(2 * BODY_BYTES_MAX + 1));
    let folder = bench.restart_and_pass(&options).await;
    let [stored] = &bench.node.messages()[..] else { panic!() };
    assert_eq!(stored.message.body.0, b"pixels\n");
    assert_eq!(stored.message.headers["file-name"].0, b"a.png");
    assert_eq!(stored.message.message_type, "photo");
    assert_eq!(bench.names(), ["b.png.rejected", "c.png.rejected"]);
    assert_eq!(folder.counters().rejected.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn only_files_that_match_and_are_settled_are_taken() {
    let bench = Bench::new();
    for name in [".hidden", "a.txt", "a.json.rejected", "b.json"] {
        bench.put(name, "{}\n");
    }
    fs::create_dir(bench.path("folder.json")).unwrap();
    std::os::unix::fs::symlink(bench.path("a.txt"), bench.path("link.json")).unwrap();
    let options = IngestOptions {
        pattern: "*.json*".into(),
        settle_ms: 60_000,
        ..bench.options(FileFormat::Json, Afterwards::Delete)
    };
    bench.restart_and_pass(&options).await;
    assert!(bench.node.messages().is_empty(), "it may not be complete");
    bench.restart_and_pass(&IngestOptions { settle_ms: 0, ..options }).await;
    assert_eq!(bench.node.messages().len(), 1);
    assert!(!bench.path("b.json").exists());
}

#[tokio::test]
async fn a_file_that_still_grows_is_left_until_it_does_not() {
    let bench = Bench::new();
    let options =
        IngestOptions { settle_ms: 300, ..bench.options(FileFormat::Raw, Afterwards::Delete) };
    let mut folder = bench.open(options);
    let node = bench.node.start();
    for n in 0..20 {
        // Each look finds another size, so that the time begins anew.
        fs::write(bench.path("a"), "x".repeat(n + 1)).unwrap();
        folder.pass(&node).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bench.node.messages().is_empty());
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while bench.path("a").exists() {
        assert!(std::time::Instant::now() < deadline);
        folder.pass(&node).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.node.bodies(), ["x".repeat(20)]);
}

#[tokio::test]
async fn files_that_are_kept_are_not_read_again_after_a_restart() {
    let bench = Bench::new();
    let options = bench.options(FileFormat::Json, Afterwards::Keep);
    for n in 0..5 {
        bench.put(&format!("{n}.json"), &lines(n, n + 1));
    }
    bench.restart_and_pass(&options).await;
    let posts = bench.node.posts();
    bench.restart_and_pass(&options).await;
    assert_eq!(bench.node.posts(), posts);
}

#[tokio::test]
async fn a_taken_file_replaces_no_other() {
    let bench = Bench::new();
    let options = bench.options(FileFormat::Raw, Afterwards::Move);
    for n in 0..3 {
        bench.put("a", &n.to_string());
        bench.restart_and_pass(&options).await;
    }
    assert_eq!(names(&bench.path("done")), ["a", "a.1", "a.2"]);
    assert_eq!(bench.node.bodies(), ["0", "1", "2"]);
}

#[tokio::test]
async fn a_file_that_looks_like_one_before_but_has_other_content_is_not_lost() {
    for then in [Afterwards::Move, Afterwards::Delete, Afterwards::Keep] {
        let bench = Bench::new();
        let mut folder = bench.open(bench.options(FileFormat::Raw, then));
        let node = bench.node.start();
        // Name, size and time of change are the same each time.
        for n in 0..3 {
            bench.put("a", &n.to_string());
            folder.pass(&node).await;
        }
        assert_eq!(bench.node.bodies(), ["0", "1", "2"], "{then:?}");
    }
}

#[tokio::test]
async fn a_folder_that_is_away_for_a_while_does_no_harm() {
    let bench = Bench::new();
    let mut folder = bench.open(bench.options(FileFormat::Raw, Afterwards::Delete));
    let node = bench.node.start();
    let away = bench.folder.path().with_extension("away");
    fs::rename(bench.folder.path(), &away).unwrap();
    folder.pass(&node).await;
    assert_eq!(folder.counters().errors.load(Ordering::Relaxed), 1);
    fs::rename(&away, bench.folder.path()).unwrap();
    bench.put("a", "x");
    folder.pass(&node).await;
    assert_eq!(bench.node.bodies(), ["x"]);
}

#[test]
fn a_folder_is_watched_on_a_thread_until_it_is_stopped() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::new();
        let mut options = bench.options(FileFormat::Raw, Afterwards::Delete);
        options.poll_ms = 10;
        let ingest = start(options, bench.state.path(), bench.node.start()).unwrap();
        bench.put("a", "x\ny\n");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while bench.path("a").exists() {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(ingest.counters().posted.load(Ordering::Relaxed), 2);
        ingest.stop();
    });
}

#[test]
fn options_out_of_range_are_named() {
    let bench = Bench::new();
    let good = bench.options(FileFormat::Json, Afterwards::Move);
    for (options, told) in [
        (IngestOptions { folder: PathBuf::new(), ..good.clone() }, "folder"),
        (IngestOptions { poll_ms: 0, ..good.clone() }, "poll_ms"),
        (IngestOptions { batch_messages_max: 0, ..good.clone() }, "batch_messages_max"),
        (IngestOptions { files_max: 0, ..good.clone() }, "files_max"),
        (
            IngestOptions { format: FileFormat::Raw, key_field: "k".into(), ..good.clone() },
            "key_field",
        ),
        (
            IngestOptions { then: Afterwards::Keep, move_to: Some("x".into()), ..good.clone() },
            "move_to",
        ),
    ] {
        let error = options.validate().unwrap_err();
        assert!(error.contains(told) && !error.contains('\n'), "{error}");
    }
    assert!(validate_all(&[good.clone(), good.clone()]).unwrap_err().contains("\"in\""));
    let nowhere = IngestOptions { folder: bench.path("none"), ..good };
    assert!(Folder::open(nowhere, bench.state.path()).unwrap_err().contains("none"));
}
