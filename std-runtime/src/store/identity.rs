//! The file that says whose a data folder is, as text that a person can read.

use replcore::stream::{Epoch, Name};

use super::Identity;
use super::disk::Disk;

/// The name of the file.
const FILE_NAME: &str = "identity";
const TEMPORARY_NAME: &str = "identity.tmp";
const FIRST_LINE: &str = "replcore data folder";
const FORMAT: u32 = 1;
const BYTES_MAX: u64 = 4096;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdentityFile {
    pub identity: Identity,
    /// The log has a hole: it follows no leader's before it has a copy of it, or leads.
    pub incomplete: bool,
}

/// Reads the file; `None` when the folder has none and is empty.
pub(super) fn read<D: Disk>(disk: &mut D, name: &Name) -> Result<Option<IdentityFile>, String> {
    let io = |error: std::io::Error| format!("data folder: {error}");
    let names = disk.list().map_err(io)?;
    if !names.iter().any(|found| found == FILE_NAME) {
        let foreign = names.iter().find(|found| found.as_str() != TEMPORARY_NAME);
        return match foreign {
            None => Ok(None),
            Some(found) => Err(format!(
                "data folder: there is `{found}` but no `{FILE_NAME}`, so it is not a data folder \
                 of replcore; give this node an empty folder"
            )),
        };
    }
    let file = disk.open(FILE_NAME).map_err(io)?;
    let bytes = disk.bytes(file).map_err(io)?.min(BYTES_MAX);
    let mut text = vec![0; bytes as usize];
    let read = disk.read_at(file, 0, &mut text);
    disk.close(file);
    text.truncate(read.map_err(io)?);
    let text = String::from_utf8_lossy(&text);
    let found = parse(&text)?;
    if found.identity.name != *name {
        return Err(format!(
            "data folder: it belongs to node `{}`, not to `{name}`; give each node its own folder",
            found.identity.name
        ));
    }
    Ok(Some(found))
}

fn parse(text: &str) -> Result<IdentityFile, String> {
    let damaged = |what: &str| {
        format!("data folder: file `{FILE_NAME}` is damaged ({what}); restore it from a copy")
    };
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(damaged("its first line"));
    }
    let field = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        found.ok_or_else(|| damaged(key))
    };
    let format: u32 = field("format")?.parse().map_err(|_| damaged("format"))?;
    if format > FORMAT {
        return Err(format!(
            "data folder: it has format {format}, and this program knows formats up to {FORMAT}; \
             use the program that wrote it, or a newer one"
        ));
    }
    let sum =
        format!("{:08x}", crc32c::crc32c(text.split("\nsum ").next().unwrap_or("").as_bytes()));
    if field("sum")? != sum {
        return Err(damaged("sum"));
    }
    let name = Name::new(field("name")?).map_err(|_| damaged("name"))?;
    let instance = u64::from_str_radix(field("instance")?, 16).map_err(|_| damaged("instance"))?;
    let epoch = field("epoch")?.parse().map_err(|_| damaged("epoch"))?;
    let incomplete = field("incomplete")? == "yes";
    Ok(IdentityFile { identity: Identity { name, instance, epoch: Epoch(epoch) }, incomplete })
}

/// Writes the file in place of the old one.
pub(super) fn write<D: Disk>(disk: &mut D, file: &IdentityFile) -> std::io::Result<()> {
    let identity = &file.identity;
    let text = format!(
        "{FIRST_LINE}\nformat {FORMAT}\nname {}\ninstance {:016x}\nepoch {}\nincomplete {}",
        identity.name,
        identity.instance,
        identity.epoch.0,
        if file.incomplete { "yes" } else { "no" },
    );
    let text = format!("{text}\nsum {:08x}\n", crc32c::crc32c(text.as_bytes()));
    let handle = disk.create(TEMPORARY_NAME, 0)?;
    let written = disk.write_at(handle, 0, text.as_bytes()).and_then(|()| disk.sync_data(handle));
    disk.close(handle);
    written?;
    disk.rename(TEMPORARY_NAME, FILE_NAME)?;
    disk.sync_names()
}
