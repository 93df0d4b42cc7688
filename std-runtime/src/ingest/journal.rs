//! What a folder remembers about its files: how far each was taken.
//!
//! A file of JSON lines to which each step adds one; the last line about a file holds. It spares
//! the reading of what was posted already, and for files that are kept it remembers for longer
//! than the node remembers idempotency keys. When it is lost, files in the folder are read again
//! and their messages posted under the same keys. A torn last line is passed over.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Lines beyond those that count, after which the file is written anew.
const SUPERSEDED_MAX: usize = 10_000;

/// How a file looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    pub(crate) size: u64,
    pub(crate) changed_ns: u64,
}

/// How far a file was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The file's name, in lossless form.
    pub(crate) file: FileName,
    #[serde(flatten)]
    pub(crate) look: Look,
    /// Its number in the file system; not in `identity`, because a copy has another.
    pub(crate) inode: u64,
    /// Of its names, look and content; in idempotency keys.
    pub(crate) identity: [u8; 16],
    /// Lines taken.
    pub(crate) line: u64,
    /// Where the next begins.
    pub(crate) offset: u64,
    /// Bytes of rejected lines written.
    pub(crate) rejected_bytes: u64,
    /// All of it is posted.
    pub(crate) done: bool,
}

/// A file name: text, or bytes where it is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct FileName(crate::api::Bytes);

impl FileName {
    pub(crate) fn new(name: &std::ffi::OsStr) -> Self {
        Self(crate::api::Bytes(name.as_encoded_bytes().to_vec()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }
}

/// The file of what is remembered.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    entries: HashMap<FileName, Entry>,
    superseded: usize,
}

impl Journal {
    /// Opens or makes the journal at `path`.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let mut entries = HashMap::new();
        if path.exists() {
            for line in BufReader::new(File::open(&path)?).split(b'\n') {
                // A line that is none is the end of a write that was cut off.
                if let Ok(entry) = serde_json::from_slice::<Entry>(&line?) {
                    entries.insert(entry.file.clone(), entry);
                }
            }
        }
        let file = write_anew(&path, &entries)?;
        Ok(Self { path, file, entries, superseded: 0 })
    }

    /// What is remembered of the file with this name and look.
    pub(crate) fn get(&self, name: &FileName, look: Look) -> Option<&Entry> {
        self.entries.get(name).filter(|entry| entry.look == look)
    }

    /// Remembers `entry`; durably, when it says that the file is done.
    pub(crate) fn put(&mut self, entry: Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        if entry.done {
            self.file.sync_data()?;
        }
        if self.entries.insert(entry.file.clone(), entry).is_some() {
            self.superseded += 1;
        }
        self.tidy()
    }

    /// Forgets the files that `is_there` does not know.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&FileName) -> bool) -> io::Result<()> {
        let before = self.entries.len();
        self.entries.retain(|name, _| is_there(name));
        self.superseded += before - self.entries.len();
        self.tidy()
    }

    fn tidy(&mut self) -> io::Result<()> {
        if self.superseded > SUPERSEDED_MAX.max(2 * self.entries.len()) {
            self.file = write_anew(&self.path, &self.entries)?;
            self.superseded = 0;
        }
        Ok(())
    }
}

/// Writes the journal beside its place and moves it there; gives it open for more.
fn write_anew(path: &Path, entries: &HashMap<FileName, Entry>) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut out = io::BufWriter::new(File::create(&beside)?);
    for entry in entries.values() {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(|error| error.into_error())?.sync_data()?;
    fs::rename(&beside, path)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, line: u64) -> Entry {
        Entry {
            file: FileName::new(name.as_ref()),
            look: Look { size: 7, changed_ns: 1_790_000_000_123_456_789 },
            inode: 12,
            identity: [200; 16],
            line,
            offset: line * 10,
            rejected_bytes: 0,
            done: false,
        }
    }

    #[test]
    fn the_last_entry_of_a_file_holds_and_a_torn_one_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(path.clone()).unwrap();
        for line in 1..=3 {
            journal.put(entry("a", line)).unwrap();
        }
        journal.put(entry("b", 9)).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let journal = Journal::open(path.clone()).unwrap();
            let ends = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
            let found = journal.get(&entry("a", 0).file, entry("a", 0).look);
            // The closing brace without the line end is a whole entry as well.
            let line = found.map_or(0, |entry| entry.line);
            assert!(line == ends.min(3) || line == (ends + 1).min(3), "cut at {cut}: {line}");
        }
        let other = Look { size: 8, ..entry("b", 0).look };
        assert_eq!(journal.get(&entry("b", 0).file, other), None);
    }

    #[test]
    fn the_journal_does_not_grow_with_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(path.clone()).unwrap();
        for line in 0..SUPERSEDED_MAX as u64 + 1000 {
            journal.put(entry("a", line)).unwrap();
        }
        let bytes = fs::metadata(&path).unwrap().len();
        assert!(bytes < 500_000, "{bytes}");
        journal.retain(|_| false).unwrap();
        assert!(Journal::open(path.clone()).is_ok());
    }
}
