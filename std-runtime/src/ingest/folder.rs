//! A folder of files, taken one after the other.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::journal::{Entry, FileName, Journal, Look};
use super::lines::{Line, LineFormat, LineRules, LineSplitter};
use super::post::{Batch, READ_BYTES, Taken, is_final};
use super::rejects::{REJECTED, Rejects, free_place, show_rejected};
use super::{Afterwards, FileFormat, IngestCounters, IngestOptions};
use crate::api::{ApiError, Bytes, NewMessage, PostedId, Reply, Request};
use crate::handle::NodeHandle;

/// A file that was seen.
#[derive(Debug)]
struct Seen {
    look: Look,
    inode: u64,
    since: Instant,
    /// See [`Entry::identity`]; once it is known.
    identity: Option<[u8; 16]>,
    done: bool,
    /// An error was told about it.
    told: bool,
}

/// Why a file was not taken to its end in this pass.
#[derive(Debug)]
enum Trouble {
    Io(io::Error),
    Node(ApiError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Node(error) => error.fmt(f),
        }
    }
}

/// A folder whose files are taken pass by pass. Files are read with blocking calls, so it wants a
/// thread of its own; see [`super::start`].
#[derive(Debug)]
pub struct Folder {
    options: IngestOptions,
    name: String,
    /// `None` when a file is a message.
    rules: Option<LineRules>,
    move_to: PathBuf,
    journal: Journal,
    seen: HashMap<FileName, Seen>,
    counters: Arc<IngestCounters>,
    folder_told: bool,
}

impl Folder {
    /// Opens the folder; `state` is where its journal is kept.
    ///
    /// # Errors
    /// One line: an option is out of range, or a folder or the journal cannot be used.
    pub fn open(options: IngestOptions, state: &Path) -> Result<Self, String> {
        options.validate()?;
        let name = options.name();
        let of =
            |path: &Path, error: io::Error| format!("ingest {name}: {}: {error}", path.display());
        fs::read_dir(&options.folder).map_err(|error| of(&options.folder, error))?;
        let move_to = options.move_to.clone().unwrap_or_else(|| options.folder.join("done"));
        if options.then == Afterwards::Move {
            fs::create_dir_all(&move_to).map_err(|error| of(&move_to, error))?;
        }
        fs::create_dir_all(state).map_err(|error| of(state, error))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
        let number = u128::from_be_bytes(first_16(hash.as_ref()));
        let path = state.join(format!("ingest-{number:032x}.journal"));
        let journal = Journal::open(path.clone()).map_err(|error| of(&path, error))?;
        let format = match options.format {
            FileFormat::Message => Some(LineFormat::Message),
            FileFormat::Json => Some(LineFormat::Json),
            FileFormat::Raw => Some(LineFormat::Raw),
            FileFormat::File => None,
        };
        let rules = format.map(|format| LineRules {
            format,
            message: options.message.clone(),
            type_field: options.type_field.clone(),
            key_field: options.key_field.clone(),
        });
        Ok(Self {
            options,
            name,
            rules,
            move_to,
            journal,
            seen: HashMap::new(),
            counters: Arc::default(),
            folder_told: false,
        })
    }

    /// What it has done.
    pub fn counters(&self) -> Arc<IngestCounters> {
        Arc::clone(&self.counters)
    }

    /// Looks at the folder once and takes every file that is complete. What fails is logged, counted
    /// and tried again in the next pass. It may be cut off anywhere.
    pub async fn pass(&mut self, node: &NodeHandle) {
        let names = match self.scan() {
            Ok(names) => names,
            Err(error) => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.folder_told, true) {
                    tracing::error!("ingest {}: {error}; it is tried again", self.name);
                }
                return;
            }
        };
        self.folder_told = false;
        for name in names {
            let Err(trouble) = self.take(&name, node).await else { continue };
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
            let key = FileName::new(&name);
            let told = self.seen.get_mut(&key).map(|seen| std::mem::replace(&mut seen.told, true));
            if told == Some(false) {
                let path = self.options.folder.join(&name);
                tracing::error!("ingest {}: {trouble}; it is tried again", path.display());
            }
            if let Trouble::Node(_) = trouble {
                // The next file would meet the same.
                return;
            }
        }
    }

    /// The complete files in the order of their names.
    fn scan(&mut self) -> io::Result<Vec<OsString>> {
        let mut found = HashMap::new();
        let mut ready = Vec::new();
        let now = Instant::now();
        for entry in fs::read_dir(&self.options.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.wants(&name) {
                continue;
            }
            if found.len() == self.options.files_max {
                tracing::warn!(
                    "ingest {}: more than {} files in {}; some wait until others are gone",
                    self.name,
                    self.options.files_max,
                    self.options.folder.display()
                );
                break;
            }
            // It may have been taken away since the folder was read.
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let key = FileName::new(&name);
            let (look, inode) = (look(&metadata), metadata.ino());
            let seen = match self.seen.remove(&key) {
                Some(seen) if seen.look == look && seen.inode == inode => seen,
                _ => Seen { look, inode, since: now, identity: None, done: false, told: false },
            };
            let settled = now.duration_since(seen.since).as_millis();
            if !seen.done && settled >= u128::from(self.options.settle_ms) {
                ready.push(name);
            }
            found.insert(key, seen);
        }
        self.seen = found;
        let seen = &self.seen;
        self.journal.retain(|name| seen.contains_key(name))?;
        ready.sort();
        Ok(ready)
    }

    fn wants(&self, name: &OsString) -> bool {
        let name = name.as_encoded_bytes();
        !name.starts_with(b".")
            && !name.ends_with(REJECTED.as_bytes())
            && matches(self.options.pattern.as_bytes(), name)
    }

    /// Takes one file to its end.
    async fn take(&mut self, name: &OsString, node: &NodeHandle) -> Result<(), Trouble> {
        let path = self.options.folder.join(name);
        let key = FileName::new(name);
        let Some(mut entry) = self.entry(&key, &path)? else { return Ok(()) };
        let look = entry.look;
        let mut refused = false;
        if !entry.done {
            let rejected_before = self.counters.rejected.load(Ordering::Relaxed);
            if self.rules.is_some() {
                self.take_lines(&mut entry, &path, node).await?;
            } else {
                refused = !self.take_whole(&entry, &path, node).await?;
            }
            if fs::symlink_metadata(&path).map(|metadata| self::look(&metadata) != look)? {
                tracing::warn!(
                    "ingest {}: it has changed while it was read, and is taken anew as another \
                     file; write elsewhere and rename, or raise settle_ms",
                    path.display()
                );
                return Ok(());
            }
            let rejected = self.counters.rejected.load(Ordering::Relaxed) - rejected_before;
            tracing::info!("ingest {}: taken, {rejected} rejected", path.display());
            self.counters.files.fetch_add(1, Ordering::Relaxed);
        }
        self.put_away(entry, &path, refused)?;
        if self.options.then != Afterwards::Keep {
            // What comes under this name is another file, whatever it looks like.
            self.seen.remove(&key);
        } else if let Some(seen) = self.seen.get_mut(&key) {
            seen.done = true;
        }
        Ok(())
    }

    /// What is remembered of a file, or the beginning. A file that is kept is believed by its looks
    /// to be the one that is remembered, or all would be read again at every start; of others the
    /// content must be the same.
    fn entry(&mut self, key: &FileName, path: &Path) -> io::Result<Option<Entry>> {
        let Some(seen) = self.seen.get(key) else { return Ok(None) };
        let (look, inode) = (seen.look, seen.inode);
        let remembered = self.journal.get(key, look).cloned();
        let kept = self.options.then == Afterwards::Keep;
        if let Some(entry) = remembered.as_ref().filter(|entry| kept && entry.inode == inode) {
            return Ok(Some(entry.clone()));
        }
        let identity = match seen.identity {
            Some(identity) => identity,
            None => self.identity(key, look, path)?,
        };
        if let Some(seen) = self.seen.get_mut(key) {
            seen.identity = Some(identity);
        }
        Ok(Some(match remembered {
            Some(entry) if entry.identity == identity => Entry { inode, ..entry },
            _ => Entry {
                file: key.clone(),
                look,
                inode,
                identity,
                line: 0,
                offset: 0,
                rejected_bytes: 0,
                done: false,
            },
        }))
    }

    /// Remembers that the file is done, makes rejected lines visible, and does with it as told. Each
    /// step may be the last before a crash; the next pass then goes on with those that are left.
    fn put_away(&mut self, mut entry: Entry, path: &Path, refused: bool) -> io::Result<()> {
        if refused && self.options.then != Afterwards::Keep {
            return fs::rename(path, free_place(path, REJECTED));
        }
        let rejected_bytes = entry.rejected_bytes;
        if !entry.done {
            entry.done = true;
            self.journal.put(entry)?;
        }
        show_rejected(path, rejected_bytes)?;
        match self.options.then {
            Afterwards::Keep => Ok(()),
            Afterwards::Delete => fs::remove_file(path),
            Afterwards::Move => {
                let name = path.file_name().unwrap_or_default();
                fs::rename(path, free_place(&self.move_to.join(name), ""))
            }
        }
    }

    async fn take_lines(
        &mut self,
        entry: &mut Entry,
        path: &Path,
        node: &NodeHandle,
    ) -> Result<(), Trouble> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(entry.offset))?;
        let mut splitter =
            LineSplitter::new(self.options.message_bytes_max, entry.line, entry.offset);
        let mut rejects = Rejects::open(path, entry.rejected_bytes);
        let mut buffer = vec![0; READ_BYTES];
        let mut batch = Batch::default();
        let mut last = (entry.line, entry.offset);
        loop {
            let count = file.read(&mut buffer)?;
            let mut keep = |line: Line| {
                last = (line.number, line.end);
                batch.push(line);
            };
            if count == 0 {
                splitter.finish(&mut keep);
            } else {
                splitter.push(&buffer[..count], &mut keep);
            }
            if count == 0 || batch.is_full(self.options.batch_messages_max) {
                self.post(&mut batch, entry, node, &mut rejects).await?;
                entry.rejected_bytes = rejects.written()?;
                let rejected = std::mem::take(&mut rejects.pending);
                self.counters.rejected.fetch_add(rejected, Ordering::Relaxed);
                (entry.line, entry.offset) = last;
                if count == 0 {
                    return Ok(());
                }
                self.journal.put(entry.clone())?;
            }
        }
    }

    async fn post(
        &self,
        batch: &mut Batch,
        entry: &Entry,
        node: &NodeHandle,
        rejects: &mut Rejects,
    ) -> Result<(), Trouble> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let mut taken = Taken::default();
        let name = |line: u64| Some(message_key(entry.identity, line));
        let mut post = async |messages: Vec<NewMessage>| post(node, messages).await;
        let mut reject = |line: &Line, error: &str| rejects.add(line, error);
        let max = self.options.batch_messages_max;
        let result = batch.post(max, rules, name, &mut post, &mut reject, &mut taken).await;
        self.count(taken);
        result.map_err(Trouble::Node)
    }

    fn count(&self, taken: Taken) {
        self.counters.posted.fetch_add(taken.posted, Ordering::Relaxed);
        self.counters.duplicates.fetch_add(taken.duplicates, Ordering::Relaxed);
    }

    /// Posts a file as one message. False when it is refused for good.
    async fn take_whole(
        &self,
        entry: &Entry,
        path: &Path,
        node: &NodeHandle,
    ) -> Result<bool, Trouble> {
        let refuse = |error: &str| {
            self.counters.rejected.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("ingest {}: rejected: {error}", path.display());
        };
        let limit = self.options.message_bytes_max;
        if entry.look.size > limit as u64 {
            refuse(&format!("it has more than {limit} bytes (message_bytes_max)"));
            return Ok(false);
        }
        let mut body = Vec::new();
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut body)?;
        let mut message = self.options.message.clone();
        message.idempotency_key = Some(message_key(entry.identity, 0));
        message.body = Bytes(body);
        let file_name = Bytes(entry.file.as_bytes().to_vec());
        message.headers.entry("file-name".into()).or_insert(file_name);
        match post(node, vec![message]).await {
            Ok(ids) => {
                let duplicates = ids.iter().filter(|id| id.duplicate).count() as u64;
                self.count(Taken { posted: 1 - duplicates.min(1), duplicates });
                Ok(true)
            }
            Err(error) if is_final(error.kind) => {
                refuse(&error.message);
                Ok(false)
            }
            Err(error) => Err(Trouble::Node(error)),
        }
    }

    /// What a file is in idempotency keys: its names, how it looks, and its content.
    fn identity(&self, name: &FileName, look: Look, path: &Path) -> io::Result<[u8; 16]> {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [self.name.as_bytes(), name.as_bytes()] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(&look.size.to_be_bytes());
        hash.update(&look.changed_ns.to_be_bytes());
        let mut file = File::open(path)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(first_16(hash.finish().as_ref()));
            }
            hash.update(&buffer[..count]);
        }
    }
}

async fn post(node: &NodeHandle, messages: Vec<NewMessage>) -> Result<Vec<PostedId>, ApiError> {
    match node.call(Request::Post { messages }).await? {
        Reply::Posted { ids } => Ok(ids),
        other => Err(ApiError::new(
            crate::api::ErrorKind::Unavailable,
            format!("the node answered amiss: {other:?}"),
        )),
    }
}

/// The idempotency key of a line of a file.
fn message_key(identity: [u8; 16], line: u64) -> Bytes {
    let mut key = identity.to_vec();
    key.extend_from_slice(&line.to_be_bytes());
    Bytes(key)
}

fn look(metadata: &fs::Metadata) -> Look {
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Look {
        size: metadata.len(),
        changed_ns: changed.map_or(0, |time: Duration| time.as_nanos() as u64),
    }
}

fn first_16(hash: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    first
}

/// Whether `pattern` with `*` and `?` matches all of `name`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            // Let the last star take one more.
            _ => match &mut star {
                Some((star_at, taken)) => {
                    *taken += 1;
                    at = *star_at + 1;
                    in_name = *taken;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("*.json", "a.json", true),
            ("*.json", "a.jsonl", false),
            ("a?c*e", "abcdde", true),
            ("a?c*e", "ac", false),
            ("*a*b", "xaxbxab", true),
            ("", "", true),
            ("", "x", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // Many stars cost no more than the product of the lengths.
        assert!(!matches(&b"*a".repeat(50), &b"a".repeat(49)));
    }
}
