//! A folder in memory that loses power: what was not synced may be kept, lost or torn.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::rc::Rc;

use replcore_runtime::store::{Disk, FileId};

type Inode = usize;

#[derive(Default)]
struct Content {
    safe: Vec<u8>,
    now: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Default)]
struct Inner {
    contents: Vec<Content>,
    names: BTreeMap<String, Inode>,
    /// The names after each change since the last sync of names; the first is what is safe.
    histories: Vec<BTreeMap<String, Inode>>,
    open: HashMap<FileId, Inode>,
    next: u32,
    /// Changes that still work; then everything fails.
    fuse: Option<u32>,
}

/// A folder in memory; clones are the same folder.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Rc<RefCell<Inner>>,
}

impl Inner {
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn names_change(&mut self) {
        if self.histories.is_empty() {
            self.histories.push(self.names.clone());
        }
    }

    fn content(&mut self, file: FileId) -> io::Result<&mut Content> {
        let inode = self.open.get(&file).ok_or_else(|| io::Error::other("not open"))?;
        Ok(&mut self.contents[*inode])
    }

    fn add(&mut self, inode: Inode) -> FileId {
        let id = FileId(self.next);
        self.next += 1;
        self.open.insert(id, inode);
        id
    }
}

impl MemoryDisk {
    /// Lets that many changes pass, then cuts the power.
    pub fn cut_after(&self, changes: u32) {
        self.inner.borrow_mut().fuse = Some(changes);
    }

    /// Power comes back. `choose` says, for each thing that was not safe, how much of it is there.
    pub fn recover(&self, mut choose: impl FnMut() -> u8) {
        let mut inner = self.inner.borrow_mut();
        inner.fuse = None;
        inner.open.clear();
        if !inner.histories.is_empty() {
            let now = inner.names.clone();
            inner.histories.push(now);
            let at = usize::from(choose()) % inner.histories.len();
            inner.names = inner.histories.swap_remove(at);
            inner.histories.clear();
        }
        for content in &mut inner.contents {
            for (offset, bytes) in std::mem::take(&mut content.unsynced) {
                let kept = match choose() % 4 {
                    0 => 0,
                    1 => usize::from(choose()) * bytes.len() / 256,
                    _ => bytes.len(),
                };
                put(&mut content.safe, offset, &bytes[..kept]);
            }
            content.now.clone_from(&content.safe);
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.inner.borrow().names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<FileId> {
        let mut inner = self.inner.borrow_mut();
        inner.burn()?;
        inner.names_change();
        let zeros = vec![0; bytes as usize];
        inner.contents.push(Content { safe: zeros.clone(), now: zeros, unsynced: Vec::new() });
        let inode = inner.contents.len() - 1;
        inner.names.insert(name.to_owned(), inode);
        let names = inner.names.clone();
        inner.histories.push(names);
        Ok(inner.add(inode))
    }

    fn open(&mut self, name: &str) -> io::Result<FileId> {
        let mut inner = self.inner.borrow_mut();
        let inode = *inner.names.get(name).ok_or_else(not_found)?;
        Ok(inner.add(inode))
    }

    fn close(&mut self, file: FileId) {
        self.inner.borrow_mut().open.remove(&file);
    }

    fn bytes(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.inner.borrow_mut().content(file)?.now.len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.borrow_mut();
        let there = inner.content(file)?.now.get(offset as usize..).unwrap_or(&[]);
        let length = there.len().min(buf.len());
        buf[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let works = inner.burn();
        // A write that was cut off may have happened in part.
        let content = inner.content(file)?;
        content.unsynced.push((offset as usize, bytes.to_vec()));
        put(&mut content.now, offset as usize, bytes);
        works
    }

    fn sync_data(&mut self, file: FileId) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.burn()?;
        let content = inner.content(file)?;
        for (offset, bytes) in std::mem::take(&mut content.unsynced) {
            put(&mut content.safe, offset, &bytes);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.burn()?;
        inner.names_change();
        let inode = inner.names.remove(from).ok_or_else(not_found)?;
        inner.names.insert(to.to_owned(), inode);
        let names = inner.names.clone();
        inner.histories.push(names);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.burn()?;
        inner.names_change();
        inner.names.remove(name).ok_or_else(not_found)?;
        let names = inner.names.clone();
        inner.histories.push(names);
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.burn()?;
        inner.histories.clear();
        Ok(())
    }
}
