//! Files and streams of lines as messages.
//!
//! A folder is watched by a thread of its own ([`start`]); lines of a stream go by [`post_lines`].
//! Every message gets an idempotency key, made of where it comes from, so that what is read again
//! after a crash is posted once.

mod folder;
mod journal;
mod lines;
mod post;
mod rejects;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use folder::Folder;
pub use lines::{LineFormat, LineRules};
pub use post::{LinesError, LinesOptions, LinesSummary, post_lines};

use crate::api::NewMessage;
use crate::handle::NodeHandle;

/// How the files of a folder become messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Each line is a message: a JSON object with `type`, `key`, `body` and the rest.
    Message,
    /// Each line is JSON of any shape, and the body of a message. The default.
    #[default]
    Json,
    /// Each line is the body of a message, as it is.
    Raw,
    /// Each file is the body of a message.
    File,
}

/// What becomes of a file that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Afterwards {
    /// It is moved to `move_to`. The default.
    #[default]
    Move,
    /// It stays, and is remembered.
    Keep,
    /// It is deleted.
    Delete,
}

/// A folder whose files become messages.
///
/// A file is taken when its size and its time of change have been the same for `settle_ms`; with 0
/// it is taken as soon as it is seen, which is right where files are written elsewhere and then
/// renamed into the folder. Files are taken in the order of their names. Hidden files, folders,
/// links and files named `*.rejected` are not taken.
///
/// A file is known by the folder's name, its own name, its size, its time of change and its
/// content. A file that changes in one of these is a new one, and all of it is posted. (Of a file
/// that is kept the content is read once; after that, one of the same name, size and time of change
/// in the same place of the file system is taken for the same.)
///
/// A line that is no message, or that the node refuses for good, goes into `NAME.rejected` beside
/// the file, as a JSON object with `line`, `error` and `text` (none when the line is too long), and
/// the others are taken. Empty lines are passed over. A whole file that is refused is renamed to
/// `NAME.rejected`, unless files are kept. What has this name already is not replaced: the new one
/// is `NAME.1.rejected` and so on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestOptions {
    /// The folder's name in idempotency keys. Default: its path. Keep it when the folder moves.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Only files whose names match; `*` stands for any characters and `?` for one. Default `*`.
    pub pattern: String,
    /// How files become messages.
    pub format: FileFormat,
    /// What becomes of a file that was taken.
    pub then: Afterwards,
    /// Where taken files go, on the same file system. Default: the folder `done` in the folder. A
    /// file never replaces another there: a number is put behind its name.
    pub move_to: Option<PathBuf>,
    /// How long a file has to be unchanged, in milliseconds. Default 2,000.
    pub settle_ms: u64,
    /// How often the folder is looked at, in milliseconds. Default 1,000; at least 10.
    pub poll_ms: u64,
    /// What every message has that does not say otherwise: type, key, class, headers and so on.
    pub message: NewMessage,
    /// For `json`: the name of the field that gives the type. Empty: `message.type`.
    pub type_field: String,
    /// For `json`: the name of the field that gives the key. Empty: `message.key`.
    pub key_field: String,
    /// Longest line or whole file, in bytes; longer ones are rejected. Default 16 MiB.
    pub message_bytes_max: usize,
    /// Messages posted at a time. Default 256, at most 1000; a batch also ends at 1 MiB.
    pub batch_messages_max: usize,
    /// Most files looked at. Default 100,000. With more, some are not seen until others are gone.
    pub files_max: usize,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            folder: PathBuf::new(),
            pattern: "*".into(),
            format: FileFormat::default(),
            then: Afterwards::default(),
            move_to: None,
            settle_ms: 2_000,
            poll_ms: 1_000,
            message: NewMessage::default(),
            type_field: String::new(),
            key_field: String::new(),
            message_bytes_max: 16 << 20,
            batch_messages_max: 256,
            files_max: 100_000,
        }
    }
}

impl IngestOptions {
    /// The name, or the path where there is none.
    pub fn name(&self) -> String {
        if self.name.is_empty() {
            return self.folder.to_string_lossy().into_owned();
        }
        self.name.clone()
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// One line that names the folder and the option.
    pub fn validate(&self) -> Result<(), String> {
        let of = format!("ingest of {:?}", self.folder);
        if self.folder.as_os_str().is_empty() {
            return Err("ingest: `folder` is missing".into());
        }
        if self.poll_ms < 10 {
            return Err(format!("{of}: poll_ms is {}; it has to be at least 10", self.poll_ms));
        }
        if !(1..=1000).contains(&self.batch_messages_max) {
            return Err(format!("{of}: batch_messages_max has to be 1 to 1000"));
        }
        if self.message_bytes_max == 0 || self.files_max == 0 {
            return Err(format!("{of}: message_bytes_max and files_max have to be at least 1"));
        }
        if self.move_to.is_some() && self.then != Afterwards::Move {
            return Err(format!("{of}: `move_to` is only for then = \"move\""));
        }
        let fields = !self.type_field.is_empty() || !self.key_field.is_empty();
        if fields && self.format != FileFormat::Json {
            return Err(format!("{of}: type_field and key_field are only for format = \"json\""));
        }
        if self.message.idempotency_key.is_some() || !self.message.body.0.is_empty() {
            return Err(format!("{of}: `message` takes no body and no idempotency_key"));
        }
        Ok(())
    }
}

/// Checks all folders of a node: each by itself, and that no two share a name.
///
/// # Errors
/// One line that names the folder.
pub fn validate_all(all: &[IngestOptions]) -> Result<(), String> {
    let mut names = std::collections::BTreeSet::new();
    for options in all {
        options.validate()?;
        if !names.insert(options.name()) {
            return Err(format!(
                "two ingests have the name {:?}; give each its own",
                options.name()
            ));
        }
    }
    Ok(())
}

/// What a folder has done since its start.
#[derive(Debug, Default)]
pub struct IngestCounters {
    /// Files taken.
    pub files: AtomicU64,
    /// Messages posted that were new.
    pub posted: AtomicU64,
    /// Messages that had been posted before.
    pub duplicates: AtomicU64,
    /// Lines or whole files rejected.
    pub rejected: AtomicU64,
    /// Looks at the folder or at a file that failed and will be tried again.
    pub errors: AtomicU64,
}

/// A folder that is being watched.
#[derive(Debug)]
pub struct Ingest {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
    counters: Arc<IngestCounters>,
}

/// Begins to watch a folder, on a thread of its own. `state` is a folder of the node for what has
/// to be remembered.
///
/// # Errors
/// One line: the options are out of range, a folder is not there, or no thread can be had.
pub fn start(options: IngestOptions, state: &Path, node: NodeHandle) -> Result<Ingest, String> {
    let period = Duration::from_millis(options.poll_ms);
    let folder = Folder::open(options, state)?;
    let counters = folder.counters();
    let (stop, mut stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| format!("ingest: {error}"))?;
    let work = move || {
        runtime.block_on(async move {
            tokio::select! {
                () = watch_folder(folder, node, period) => {}
                // Where it is cut off does not matter, as with a crash.
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
    };
    let thread = std::thread::Builder::new()
        .name("ingest".into())
        .spawn(work)
        .map_err(|error| format!("ingest: no thread: {error}"))?;
    Ok(Ingest { stop, thread, counters })
}

async fn watch_folder(mut folder: Folder, node: NodeHandle, period: Duration) {
    loop {
        folder.pass(&node).await;
        tokio::time::sleep(period).await;
    }
}

impl Ingest {
    /// What it has done.
    pub fn counters(&self) -> &IngestCounters {
        &self.counters
    }

    /// Stops, and waits until it has. A file that is being read goes on at the next start.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread of an ingest has panicked");
        }
    }
}
