//! The folder of a standby: a copy of the leader's store is made beside what is there, and takes its
//! place when it is whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The folder in the data folder in which a copy is made.
const COPY_NAME: &str = "copy";
/// The file in it that says that it is whole, and what belongs to it.
const COMPLETE_NAME: &str = "complete";
const LOCK_NAME: &str = "lock";
/// What names of the store's files begin with.
const STORE_PREFIXES: [&str; 7] =
    ["log-", "free-", "checkpoint", "damaged-", "queue-blocks", "identity", "index.redb"];

/// Where a copy is made.
pub(super) fn copy_folder(folder: &Path) -> PathBuf {
    folder.join(COPY_NAME)
}

/// Goes on with a copy that was whole when the process ended, and throws away one that was not. No
/// store is open.
pub(super) fn tidy(folder: &Path) -> io::Result<()> {
    let copy = copy_folder(folder);
    match fs::read_to_string(copy.join(COMPLETE_NAME)) {
        Ok(names) => take_place(folder, &copy, names.lines()),
        Err(_) if copy.exists() => fs::remove_dir_all(copy),
        Err(_) => Ok(()),
    }
}

/// A copy is whole and closed, and so is the store that it replaces.
pub(super) fn replace(folder: &Path) -> io::Result<()> {
    let copy = copy_folder(folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(&copy)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name != LOCK_NAME && !name.ends_with(".tmp") {
            names.push(name);
        }
    }
    let mut file = File::create(copy.join("complete.tmp"))?;
    file.write_all(names.join("\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(copy.join("complete.tmp"), copy.join(COMPLETE_NAME))?;
    File::open(&copy)?.sync_all()?;
    take_place(folder, &copy, names.iter().map(String::as_str))
}

/// Every step can be done again after the power went.
fn take_place<'a>(
    folder: &Path,
    copy: &Path,
    names: impl Iterator<Item = &'a str>,
) -> io::Result<()> {
    let names: Vec<&str> = names.collect();
    for name in &names {
        match fs::rename(copy.join(name), folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let of_store = STORE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if of_store && entry.file_type()?.is_file() && !names.contains(&name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    File::open(folder)?.sync_all()?;
    fs::remove_dir_all(copy)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QC-33: wherever the power goes, the folder is the old store or the copy, never a mixture.
    #[test]
    fn a_copy_takes_the_place_of_a_store_whole_or_not_at_all() {
        for done in 0..4 {
            let base = tempfile::tempdir().unwrap();
            let folder = base.path();
            let copy = copy_folder(folder);
            fs::create_dir(&copy).unwrap();
            let write = |at: &Path, text: &str| fs::write(at, text).unwrap();
            write(&folder.join("log-1"), "old");
            write(&folder.join("log-2"), "old");
            write(&folder.join("other"), "not of the store");
            let names = ["identity", "log-1", "log-3"];
            names.iter().for_each(|name| write(&copy.join(name), "new"));
            if done > 0 {
                // Cut short behind the mark and some of the renames.
                write(&copy.join(COMPLETE_NAME), &names.join("\n"));
                for name in &names[..done - 1] {
                    fs::rename(copy.join(name), folder.join(name)).unwrap();
                }
            }
            tidy(folder).unwrap();
            assert!(!copy.exists());
            let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
            let expected = if done > 0 { "new" } else { "old" };
            assert_eq!(read("log-1").as_deref(), Some(expected), "{done}");
            assert_eq!(read("log-2").is_some(), done == 0);
            assert_eq!(read("log-3").is_some(), done > 0);
            assert!(read("other").is_some());
        }
    }
}
