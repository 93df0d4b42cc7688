//! A folder in memory, for tests, simulations and fuzzing of a store: a power cut makes it forget and
//! tear what was not synced, and it fills up, lies, fails, takes damage and is set back when told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use super::disk::{Disk, FileId};

/// What a medium writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    /// What is on the medium.
    durable: Vec<u8>,
    /// What a reader sees.
    current: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, u64),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, File>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    open: BTreeMap<u32, u64>,
    next_open: u32,
    bytes_max: Option<u64>,
    /// Changes until the power goes.
    changes_left: Option<u64>,
    /// It has gone.
    off: bool,
    lies: bool,
    syncs_fail: bool,
    changes: u64,
    syncs: u64,
}

/// A folder in memory. Clones are the same folder, so that it outlives the store on it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Rc<RefCell<State>>);

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl File {
    fn new(bytes: usize) -> Self {
        let zeros = vec![0; bytes];
        Self { durable: zeros.clone(), current: zeros, pending: Vec::new() }
    }

    fn sync(&mut self) {
        for (offset, data) in std::mem::take(&mut self.pending) {
            put(&mut self.durable, offset, &data);
        }
    }

    /// Of each sector the medium has what it held after some of the writes, for every sector
    /// another number of them: a system writes its cache back in any order.
    fn tear(&mut self, choose: &mut impl FnMut(u64) -> u64) {
        let writes = std::mem::take(&mut self.pending);
        let sectors: BTreeSet<usize> = writes
            .iter()
            .filter(|(_, data)| !data.is_empty())
            .flat_map(|(at, data)| at / SECTOR_BYTES..=(at + data.len() - 1) / SECTOR_BYTES)
            .collect();
        let mood = choose(3);
        for sector in sectors {
            let kept = match mood {
                0 => 0,
                1 => writes.len(),
                _ => choose(writes.len() as u64) as usize,
            };
            let (low, high) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
            for (at, data) in &writes[..kept] {
                let (from, to) = (low.max(*at), high.min(at + data.len()));
                if from < to {
                    put(&mut self.durable, from, &data[from - at..to - at]);
                }
            }
        }
        self.current.clone_from(&self.durable);
    }
}

impl State {
    fn file(&mut self, id: FileId) -> io::Result<&mut File> {
        let index = self.open.get(&id.0).ok_or_else(|| io::Error::other("not open"))?;
        self.files.get_mut(index).ok_or_else(|| io::Error::other("no such file"))
    }

    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => {
                self.off = true;
                Err(io::Error::other("the power is off"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|index| self.files[index].current.len() as u64).sum()
    }

    fn room(&self, more: u64) -> io::Result<()> {
        match self.bytes_max {
            Some(most) if more > 0 && self.used() + more > most => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    /// Drops what has no name any more.
    fn collect(&mut self) {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|index, _| named.contains(index));
    }
}

impl MemoryDisk {
    /// The power goes in the middle of the change after `changes` more of them; nothing works from
    /// then on until [`MemoryDisk::power_cut`].
    pub fn stop_after(&self, changes: u64) {
        self.0.borrow_mut().changes_left = Some(changes);
    }

    /// Whether [`MemoryDisk::stop_after`] has come true.
    pub fn is_off(&self) -> bool {
        self.0.borrow().off
    }

    /// Bounds the bytes of all files; `None` lifts it.
    pub fn set_bytes_max(&self, most: Option<u64>) {
        self.0.borrow_mut().bytes_max = most;
    }

    /// Whether syncs do nothing and say that they did.
    pub fn set_lies(&self, lies: bool) {
        self.0.borrow_mut().lies = lies;
    }

    /// Whether syncs of files fail.
    pub fn set_syncs_fail(&self, fail: bool) {
        self.0.borrow_mut().syncs_fail = fail;
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.0.borrow().used()
    }

    /// Calls that change something, syncs among them, so far.
    pub fn changes(&self) -> u64 {
        self.0.borrow().changes
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// The names of the files, rising.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// The process is gone and its system stays: everything written is kept.
    pub fn process_ended(&self) {
        let mut state = self.0.borrow_mut();
        state.open.clear();
        state.changes_left = None;
        state.off = false;
    }

    /// The power goes and comes back: what was not synced is kept, lost or torn by sectors.
    /// `choose` decides: it is given the most and answers a number from 0 to that.
    pub fn power_cut(&self, mut choose: impl FnMut(u64) -> u64) {
        let mut state = self.0.borrow_mut();
        let changes = std::mem::take(&mut state.name_changes);
        let kept = choose(changes.len() as u64) as usize;
        let mut names = std::mem::take(&mut state.durable_names);
        for change in &changes[..kept] {
            match change {
                NameChange::Set(name, file) => {
                    names.retain(|_, other| other != file);
                    names.insert(name.clone(), *file);
                }
                NameChange::Remove(name) => {
                    names.remove(name);
                }
            }
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        state.collect();
        for file in state.files.values_mut() {
            file.tear(&mut choose);
        }
        state.open.clear();
        state.changes_left = None;
        state.off = false;
    }

    /// Another folder with a copy of what is safe now, as a backup takes it.
    pub fn image(&self) -> Self {
        let mut copy = self.0.borrow().clone();
        copy.names.clone_from(&copy.durable_names);
        copy.name_changes.clear();
        copy.open.clear();
        copy.changes_left = None;
        copy.off = false;
        copy.bytes_max = None;
        copy.collect();
        for file in copy.files.values_mut() {
            file.pending.clear();
            file.current.clone_from(&file.durable);
        }
        Self(Rc::new(RefCell::new(copy)))
    }

    /// Sets the folder back to what is safe in another, while nothing runs on it.
    pub fn restore(&self, other: &Self) {
        let image = other.image().0.take();
        let mut state = self.0.borrow_mut();
        let (lies, changes, syncs) = (state.lies, state.changes, state.syncs);
        *state = State { lies, changes, syncs, ..image };
    }

    /// Changes what is on the medium of a file behind the store's back. Whether there is such a file.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(index) = state.names.get(name).copied() else { return false };
        let Some(file) = state.files.get_mut(&index) else { return false };
        change(&mut file.durable);
        file.current.clone_from(&file.durable);
        for (offset, data) in &file.pending {
            put(&mut file.current, *offset, data);
        }
        true
    }
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        state.room(bytes)?;
        let index = state.next_file;
        state.next_file += 1;
        state.files.insert(index, File::new(bytes as usize));
        state.names.insert(name.to_owned(), index);
        state.name_changes.push(NameChange::Set(name.to_owned(), index));
        drop(state);
        self.open(name)
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let mut state = self.0.borrow_mut();
        let index = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let id = state.next_open;
        state.next_open += 1;
        state.open.insert(id, index);
        Ok(FileId(id))
    }

    fn close(&mut self, file: FileId) {
        self.0.borrow_mut().open.remove(&file.0);
    }

    fn bytes(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.0.borrow_mut().file(file)?.current.len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let bytes = &state.file(file)?.current;
        let start = (offset as usize).min(bytes.len());
        let count = buf.len().min(bytes.len() - start);
        buf[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let power = state.change();
        let length = state.file(file)?.current.len() as u64;
        state.room((offset + bytes.len() as u64).saturating_sub(length))?;
        let file = state.file(file)?;
        // The write at which the power goes may still have reached the medium in part.
        file.pending.push((offset as usize, bytes.to_vec()));
        put(&mut file.current, offset as usize, bytes);
        power
    }

    fn sync_data(&mut self, file: FileId) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        state.syncs += 1;
        if state.syncs_fail {
            return Err(io::Error::other("the sync failed"));
        }
        if !state.lies {
            state.file(file)?.sync();
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        let index = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), index);
        state.name_changes.push(NameChange::Set(to.to_owned(), index));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.name_changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        if !state.lies {
            state.durable_names = state.names.clone();
            state.name_changes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use replcore::rng::Rng;

    use super::*;

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_be_lost_by_sectors() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut disk = MemoryDisk::default();
            let file = disk.create("a", 4096).unwrap();
            disk.sync_names().unwrap();
            disk.write_at(file, 0, &[1; 512]).unwrap();
            disk.sync_data(file).unwrap();
            disk.write_at(file, 512, &[2; 1024]).unwrap();
            let mut rng = Rng::new(seed);
            disk.power_cut(|most| rng.between(0, most));
            let file = disk.open("a").unwrap();
            let mut bytes = [0; 1536];
            disk.read_at(file, 0, &mut bytes).unwrap();
            assert_eq!(bytes[..512], [1; 512]);
            for sector in bytes[512..].chunks(512) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
            }
            match (bytes[512], bytes[1024]) {
                (0, 0) => lost += 1,
                (2, 2) => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 10 && kept > 10 && torn > 10, "{lost} {kept} {torn}");
    }

    #[test]
    fn a_name_is_safe_only_after_it_was_synced() {
        let mut there = 0;
        for seed in 0..100 {
            let mut disk = MemoryDisk::default();
            disk.create("safe", 10).unwrap();
            disk.sync_names().unwrap();
            disk.create("new", 10).unwrap();
            let mut rng = Rng::new(seed);
            disk.power_cut(|most| rng.between(0, most));
            let names = disk.list().unwrap();
            assert!(names.contains(&"safe".to_owned()));
            there += usize::from(names.len() == 2);
        }
        assert!(there > 10 && there < 90, "{there}");
    }

    #[test]
    fn a_full_disk_takes_no_more_and_an_image_brings_the_past_back() {
        let mut disk = MemoryDisk::default();
        let file = disk.create("a", 100).unwrap();
        disk.sync_names().unwrap();
        let image = disk.image();
        disk.set_bytes_max(Some(100));
        assert_eq!(disk.create("b", 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.write_at(file, 0, &[7; 100]).unwrap();
        disk.sync_data(file).unwrap();
        disk.set_bytes_max(None);
        disk.create("b", 1).unwrap();
        disk.restore(&image);
        assert_eq!(disk.list().unwrap(), ["a"]);
        let file = disk.open("a").unwrap();
        let mut byte = [1];
        disk.read_at(file, 0, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }
}
