//! What could not be taken of a file, beside it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lines::Line;
use crate::api::Bytes;

/// Files end with this when they hold what could not be taken.
pub(crate) const REJECTED: &str = ".rejected";
/// Rejected lines of one file that are logged one by one; the others only count.
const LOGGED_MAX: u64 = 10;

/// Rejected lines on their way into a hidden file, which becomes visible when all is taken.
pub(crate) struct Rejects {
    path: PathBuf,
    of: PathBuf,
    bytes: u64,
    file: Option<File>,
    logged: u64,
    /// Rejected and not yet counted.
    pub(crate) pending: u64,
    error: Option<io::Error>,
}

impl Rejects {
    /// Goes on after `bytes`; what is beyond was written before a crash, and comes again.
    pub(crate) fn open(path: &Path, bytes: u64) -> Self {
        Self {
            path: rejected_part(path),
            of: path.into(),
            bytes,
            file: None,
            logged: 0,
            pending: 0,
            error: None,
        }
    }

    pub(crate) fn add(&mut self, line: &Line, error: &str) {
        self.pending += 1;
        self.logged += 1;
        if self.logged <= LOGGED_MAX {
            tracing::warn!("ingest {} line {}: rejected: {error}", self.of.display(), line.number);
        }
        if let Err(error) = self.write(line, error) {
            self.error.get_or_insert(error);
        }
    }

    fn write(&mut self, line: &Line, error: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file =
                    OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
                self.bytes = self.bytes.min(file.metadata()?.len());
                file.set_len(self.bytes)?;
                file.seek(SeekFrom::End(0))?;
                self.file.insert(file)
            }
        };
        let text = line.text.clone().map(Bytes);
        let mut out = serde_json::to_vec(&serde_json::json!({
            "line": line.number,
            "error": error,
            "text": text,
        }))?;
        out.push(b'\n');
        file.write_all(&out)?;
        self.bytes += out.len() as u64;
        Ok(())
    }

    /// How many bytes are written and synced.
    pub(crate) fn written(&mut self) -> io::Result<u64> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        Ok(self.bytes)
    }
}

/// Gives the gathered rejected lines of a file the name under which people look for them.
pub(crate) fn show_rejected(path: &Path, bytes: u64) -> io::Result<()> {
    let part = rejected_part(path);
    let file = match OpenOptions::new().write(true).open(&part) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if bytes == 0 {
        return fs::remove_file(part);
    }
    // What is beyond was written for lines that the node took at last.
    file.set_len(bytes)?;
    fs::rename(part, free_place(path, REJECTED))
}

/// `path` with `suffix`, or with a number between them: the first place where nothing is.
pub(crate) fn free_place(path: &Path, suffix: &str) -> PathBuf {
    let mut place = with_suffix(path, suffix);
    let mut number = 1u64;
    while place.exists() {
        place = with_suffix(path, &format!(".{number}{suffix}"));
        number += 1;
    }
    place
}

/// Where rejected lines of a file are gathered.
fn rejected_part(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(REJECTED);
    path.with_file_name(name)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
