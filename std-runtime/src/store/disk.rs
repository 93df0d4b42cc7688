//! What the store asks of a file system: a small set of calls that a simulator can put faults in.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// An open file of a [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// One folder of files.
///
/// What was written is safe only after [`Disk::sync_data`]; what was created, renamed or removed
/// only after [`Disk::sync_names`]. Before that a power cut may keep, lose or tear it.
pub trait Disk {
    /// The names of all files.
    fn list(&mut self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros, replacing one of the same name, with its content synced, and
    /// opens it.
    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId>;

    /// May begin the work of the same [`Disk::create`], which is to follow.
    fn create_ahead(&mut self, _name: &str, _bytes: u64) {}

    /// Whether the work of [`Disk::create_ahead`] is under way, so that [`Disk::create`] would wait.
    fn is_creating(&self) -> bool {
        false
    }

    /// Opens a file that exists.
    fn open(&mut self, name: &str) -> io::Result<FileId>;

    /// Closes a file.
    fn close(&mut self, file: FileId);

    /// The length of a file.
    fn bytes(&mut self, file: FileId) -> io::Result<u64>;

    /// Reads from `offset` until `buf` is full or the file ends; answers how many bytes.
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written to a file safe.
    fn sync_data(&mut self, file: FileId) -> io::Result<()>;

    /// Renames a file, replacing one of the new name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes what was created, renamed and removed safe.
    fn sync_names(&mut self) -> io::Result<()>;

    /// Where the keyed database may keep its file. With `None` it lives in memory and is made
    /// again from the log at each start.
    fn index_path(&self) -> Option<PathBuf> {
        None
    }
}

/// The name of the file that keeps two processes out of one folder.
const LOCK_NAME: &str = "lock";
/// The name of the keyed database's file.
pub(super) const INDEX_NAME: &str = "index.redb";
const ZEROS_BYTES: usize = 128 << 10;

/// A folder of the operating system, locked against other processes.
pub struct FileDisk {
    folder: PathBuf,
    names: File,
    files: HashMap<FileId, File>,
    next: u32,
    ahead: Option<(String, u64, JoinHandle<io::Result<File>>)>,
    _lock: File,
}

impl FileDisk {
    /// Opens `folder`, making it when it is not there, and locks it.
    ///
    /// # Errors
    /// One line that names the folder and the reason.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let explain = |error: io::Error| format!("data folder {}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(explain)?;
        let lock = lock(folder)?;
        let names = File::open(folder).map_err(explain)?;
        Ok(Self {
            folder: folder.to_owned(),
            names,
            files: HashMap::new(),
            next: 0,
            ahead: None,
            _lock: lock,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn add(&mut self, file: File) -> FileId {
        let id = FileId(self.next);
        self.next = self.next.wrapping_add(1);
        self.files.insert(id, file);
        id
    }

    fn file(&self, id: FileId) -> io::Result<&File> {
        self.files.get(&id).ok_or_else(|| io::Error::other("a file that is not open"))
    }
}

fn lock(folder: &Path) -> Result<File, String> {
    let path = folder.join(LOCK_NAME);
    let explain = |error: io::Error| format!("lock file {}: {error}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(explain)?;
    if let Err(error) = file.try_lock() {
        if let std::fs::TryLockError::Error(error) = error {
            return Err(explain(error));
        }
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        return Err(format!(
            "data folder {} is in use by process {}; stop it, or give this node another folder",
            folder.display(),
            if holder.trim().is_empty() { "?" } else { holder.trim() },
        ));
    }
    file.set_len(0).map_err(explain)?;
    file.rewind().map_err(explain)?;
    writeln!(file, "{}", std::process::id()).map_err(explain)?;
    Ok(file)
}

fn make_zeroed(path: &Path, bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; ZEROS_BYTES.min(bytes as usize)];
    let mut at = 0;
    let mut fill = || {
        while at < bytes {
            let part = zeros.len().min((bytes - at) as usize);
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.sync_all()
    };
    if let Err(error) = fill() {
        // Give the space back at once: a half-made file helps nobody on a full disk.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

impl Disk for FileDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let (true, Ok(name)) =
                (entry.file_type()?.is_file(), entry.file_name().into_string())
                && name != LOCK_NAME
                && name != INDEX_NAME
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId> {
        let file = match self.ahead.take() {
            Some((ahead, size, made)) => {
                let made = made.join().unwrap_or_else(|_| Err(io::Error::other("helper died")));
                if (ahead.as_str(), size) == (name, bytes) {
                    made?
                } else {
                    if made.is_ok() {
                        std::fs::remove_file(self.path(&ahead))?;
                    }
                    make_zeroed(&self.path(name), bytes)?
                }
            }
            None => make_zeroed(&self.path(name), bytes)?,
        };
        Ok(self.add(file))
    }

    fn create_ahead(&mut self, name: &str, bytes: u64) {
        if self.ahead.is_none() {
            let path = self.path(name);
            let made = std::thread::Builder::new()
                .name("replcore-segment".into())
                .spawn(move || make_zeroed(&path, bytes));
            // Without a helper the work is simply done when it is needed.
            self.ahead = made.ok().map(|made| (name.to_owned(), bytes, made));
        }
    }

    fn is_creating(&self) -> bool {
        self.ahead.as_ref().is_some_and(|(_, _, made)| !made.is_finished())
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        Ok(self.add(file))
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    fn bytes(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.file(file)?.metadata()?.len())
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.file(file)?;
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(file)?.write_all_at(bytes, offset)
    }

    fn sync_data(&mut self, file: FileId) -> io::Result<()> {
        self.file(file)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.names.sync_all()
    }

    fn index_path(&self) -> Option<PathBuf> {
        Some(self.path(INDEX_NAME))
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        if let Some((_, _, made)) = self.ahead.take() {
            let _ = made.join();
        }
    }
}
