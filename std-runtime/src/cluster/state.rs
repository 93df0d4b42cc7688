//! What a member keeps over restarts: its vote and the configuration, each in a file of its own that
//! is replaced as a whole and synced before the member acts on it (QC-06).
//!
//! The folder belongs to one member of one cluster, and every file says so:
//!
//! ```text
//! 0   "RPLCMEMB"
//! 8   u8   format, 1
//! 9   u8   1: the term and vote; 2: the configuration
//! 10  u8   bytes of the cluster's name, u8 bytes of the member's name, then both names
//! ..  u16  bytes of the record, then the record
//! ..  u32  crc32c of everything before
//! ```
//!
//! Integers are little-endian. A file that is damaged, or of another member, is not used and not
//! overwritten: a member that has forgotten its vote may vote twice.

use std::path::Path;

use replcore::contract::Key;
use replcore::stream::Name;

use crate::store::{Disk as _, FileDisk};

const MAGIC: &[u8; 8] = b"RPLCMEMB";
const FORMAT: u8 = 1;
const FILE_BYTES_MAX: u64 = 64 << 10;
const OWNER_FILE: &str = "member";

/// Whose the folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) cluster: Name,
    pub(super) name: Name,
}

/// An open, locked folder.
pub(super) struct StateFolder {
    disk: FileDisk,
    owner: Owner,
    /// Drawn when the folder was made: tells the member from another of its name.
    pub(super) instance: u64,
}

/// The name of the file for a key, and the number of its kind; `None` for keys of others.
const fn file_of(key: Key) -> Option<(&'static str, u8)> {
    match key {
        Key::Ballot => Some(("ballot", 1)),
        Key::Members => Some(("configuration", 2)),
        Key::Registration(_) | Key::Term(_) => None,
    }
}

impl StateFolder {
    /// Opens `folder`, making it when it is not there, and locks it. `instance` is for a new one.
    ///
    /// # Errors
    /// One line that names the folder or file, and the remedy.
    pub(super) fn open(folder: &Path, owner: Owner, instance: u64) -> Result<Self, String> {
        let disk = FileDisk::open(folder)?;
        let mut state = Self { disk, owner, instance };
        state.claim(folder)?;
        Ok(state)
    }

    /// Checks whose folder it is, or takes it.
    fn claim(&mut self, folder: &Path) -> Result<(), String> {
        let explain = |error: std::io::Error| format!("data folder {}: {error}", folder.display());
        let names = self.disk.list().map_err(explain)?;
        if names.iter().any(|name| name == OWNER_FILE) {
            let bytes = self.bytes_of(OWNER_FILE).map_err(explain)?;
            let record = self.unpack(OWNER_FILE, 0, &bytes);
            let record = record.map_err(|error| format!("{}: {error}", folder.display()))?;
            let instance = record.try_into().map_err(|_| {
                format!("{}: file `{OWNER_FILE}` is damaged; {REMEDY}", folder.display())
            })?;
            self.instance = u64::from_le_bytes(instance);
            return Ok(());
        }
        // A member that ended while it made its folder may have left this.
        let temporary = temporary(OWNER_FILE);
        if let Some(foreign) = names.iter().find(|name| **name != temporary) {
            return Err(format!(
                "data folder {}: there is `{foreign}` but no `{OWNER_FILE}`, so it is not the folder \
                 of a cluster member; give this member an empty folder",
                folder.display()
            ));
        }
        self.replace(OWNER_FILE, 0, &self.instance.to_le_bytes()).map_err(explain)
    }

    /// The record of a key; `None` when there is none.
    ///
    /// # Errors
    /// One line that names the file and the remedy.
    pub(super) fn read(&mut self, key: Key) -> Result<Option<Vec<u8>>, String> {
        let Some((file, kind)) = file_of(key) else { return Ok(None) };
        let names = self.disk.list().map_err(|error| format!("cannot list: {error}"))?;
        if !names.iter().any(|name| name == file) {
            return Ok(None);
        }
        let bytes = self.bytes_of(file).map_err(|error| format!("file `{file}`: {error}"))?;
        self.unpack(file, kind, &bytes).map(Some)
    }

    /// Replaces the record of a key; it is safe when this answers.
    ///
    /// # Errors
    /// It may be the old or the new one that is kept.
    pub(super) fn write(&mut self, key: Key, record: &[u8]) -> std::io::Result<()> {
        let (file, kind) = file_of(key).ok_or(std::io::ErrorKind::InvalidInput)?;
        self.replace(file, kind, record)
    }

    /// Removes the record of a key.
    ///
    /// # Errors
    /// It may be there or not.
    pub(super) fn forget(&mut self, key: Key) -> std::io::Result<()> {
        let (file, _) = file_of(key).ok_or(std::io::ErrorKind::InvalidInput)?;
        match self.disk.remove(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.disk.sync_names()),
        }
    }

    fn bytes_of(&mut self, file: &str) -> std::io::Result<Vec<u8>> {
        let handle = self.disk.open(file)?;
        let length = self.disk.bytes(handle)?.min(FILE_BYTES_MAX);
        let mut bytes = vec![0; length as usize];
        let read = self.disk.read_at(handle, 0, &mut bytes);
        self.disk.close(handle);
        bytes.truncate(read?);
        Ok(bytes)
    }

    fn replace(&mut self, file: &str, kind: u8, record: &[u8]) -> std::io::Result<()> {
        let bytes = pack(self.owner, kind, record);
        let temporary = temporary(file);
        let handle = self.disk.create(&temporary, 0)?;
        let written =
            self.disk.write_at(handle, 0, &bytes).and_then(|()| self.disk.sync_data(handle));
        self.disk.close(handle);
        written?;
        self.disk.rename(&temporary, file)?;
        self.disk.sync_names()
    }

    fn unpack(&self, file: &str, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let damaged = || format!("file `{file}` is damaged; {REMEDY}");
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if u32::from_le_bytes(*sum) != crc32c::crc32c(body) {
            return Err(damaged());
        }
        let rest = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (&[format, found_kind, cluster_bytes, name_bytes], rest) =
            rest.split_first_chunk().ok_or_else(damaged)?;
        if format > FORMAT {
            return Err(format!(
                "file `{file}` has format {format}, and this program knows formats up to {FORMAT}; \
                 use the program that wrote it, or a newer one"
            ));
        }
        let (cluster, rest) = rest.split_at_checked(cluster_bytes.into()).ok_or_else(damaged)?;
        let (name, rest) = rest.split_at_checked(name_bytes.into()).ok_or_else(damaged)?;
        let (length, record) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        if found_kind != kind || usize::from(u16::from_le_bytes(*length)) != record.len() {
            return Err(damaged());
        }
        if cluster != self.owner.cluster.as_str().as_bytes()
            || name != self.owner.name.as_str().as_bytes()
        {
            return Err(format!(
                "file `{file}` belongs to member `{}` of cluster `{}`, not to `{}` of `{}`; give each \
                 member a folder of its own",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(cluster),
                self.owner.name,
                self.owner.cluster
            ));
        }
        Ok(record.to_vec())
    }
}

const REMEDY: &str = "to use the member again have another one remove it (`replcore leave`), then \
                      start it with an empty folder and --join";

fn temporary(file: &str) -> String {
    format!("{file}.tmp")
}

fn pack(owner: Owner, kind: u8, record: &[u8]) -> Vec<u8> {
    let (cluster, name) = (owner.cluster.as_str(), owner.name.as_str());
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[FORMAT, kind, cluster.len() as u8, name.len() as u8]);
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&(record.len() as u16).to_le_bytes());
    bytes.extend_from_slice(record);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(cluster: &str, name: &str) -> Owner {
        Owner { cluster: Name::new(cluster).unwrap(), name: Name::new(name).unwrap() }
    }

    fn open(folder: &Path, who: Owner) -> Result<StateFolder, String> {
        StateFolder::open(folder, who, 7)
    }

    #[test]
    fn what_is_written_is_there_after_a_restart_and_the_instance_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = StateFolder::open(folder.path(), owner("c", "a"), 41).unwrap();
        state.write(Key::Ballot, b"one").unwrap();
        state.write(Key::Ballot, b"two").unwrap();
        state.write(Key::Members, b"all").unwrap();
        state.forget(Key::Members).unwrap();
        drop(state);
        let mut state = StateFolder::open(folder.path(), owner("c", "a"), 42).unwrap();
        assert_eq!(state.instance, 41);
        assert_eq!(state.read(Key::Ballot).unwrap().unwrap(), b"two");
        assert_eq!(state.read(Key::Members).unwrap(), None);
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_record_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = open(folder.path(), owner("c", "a")).unwrap();
        state.write(Key::Ballot, b"one").unwrap();
        drop(state);
        std::fs::write(folder.path().join("ballot.tmp"), b"RPLC").unwrap();
        let mut state = open(folder.path(), owner("c", "a")).unwrap();
        assert_eq!(state.read(Key::Ballot).unwrap().unwrap(), b"one");
        state.write(Key::Ballot, b"two").unwrap();
        assert_eq!(state.read(Key::Ballot).unwrap().unwrap(), b"two");
    }

    #[test]
    fn a_damaged_file_is_refused_at_every_byte_and_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = open(folder.path(), owner("c", "a")).unwrap();
        state.write(Key::Ballot, b"one").unwrap();
        let path = folder.path().join("ballot");
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let error = state.read(Key::Ballot).unwrap_err();
            assert!(error.contains("`ballot` is damaged"), "{at}: {error}");
            std::fs::write(&path, &sound[..at]).unwrap();
            assert!(state.read(Key::Ballot).is_err(), "{at}");
            assert_eq!(std::fs::read(&path).unwrap(), &sound[..at]);
        }
    }

    #[test]
    fn a_folder_of_another_member_cluster_or_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = open(folder.path(), owner("c", "a")).unwrap();
        state.write(Key::Ballot, b"one").unwrap();
        let second = open(folder.path(), owner("c", "a")).err().unwrap();
        assert!(second.contains("in use by process"), "{second}");
        drop(state);
        for other in [owner("c", "b"), owner("d", "a")] {
            let error = open(folder.path(), other).err().unwrap();
            assert!(error.contains("belongs to member `a` of cluster `c`"), "{error}");
        }
        // The file of another member, copied into a folder of its own.
        let mine = tempfile::tempdir().unwrap();
        let mut state = open(mine.path(), owner("c", "b")).unwrap();
        std::fs::copy(folder.path().join("ballot"), mine.path().join("ballot")).unwrap();
        let error = state.read(Key::Ballot).unwrap_err();
        assert!(error.contains("belongs to member `a`"), "{error}");
        let node = tempfile::tempdir().unwrap();
        std::fs::write(node.path().join("identity"), "replcore data folder").unwrap();
        let error = open(node.path(), owner("c", "a")).err().unwrap();
        assert!(error.contains("not the folder of a cluster member"), "{error}");
    }
}
