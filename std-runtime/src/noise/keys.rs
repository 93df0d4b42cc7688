//! The file of keys: read, checked, made and added to.
//!
//! ```text
//! private HEX          this node's own pair, by its private half
//! NAME public HEX      the node NAME has the pair with this public half
//! NAME psk HEX         a key that only the node NAME and this one have
//! ```
//!
//! A key is 64 hexadecimal digits. What follows `#` is a comment. The file has to be for its owner only.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use replcore::stream::Name;
use replcore::transport::noise::{KEY_BYTES, PublicKey, SecretKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Longest file: about 50,000 keys.
const FILE_BYTES_MAX: u64 = 8 << 20;
const FOR_OWNER: u32 = 0o600;

/// What a file of keys holds.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) own: Option<SecretKey>,
    pub(super) shared: HashMap<Name, SecretKey>,
    pub(super) public: HashMap<PublicKey, Name>,
}

impl Keys {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names the file and the line, and no key.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let at = path.display();
        let failed = |error| format!("cannot read the keys in {at}: {error}");
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "{at} has keys and is open to others (mode {mode:03o}): chmod 600 {at}"
            ));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("{at} is longer than {FILE_BYTES_MAX} bytes"));
        }
        Self::parse(&text).map_err(|(line, error)| format!("{at}:{line}: {error}"))
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut keys = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            keys.add(&words).map_err(|error| (index + 1, error))?;
        }
        Ok(keys)
    }

    fn add(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            [] => Ok(()),
            ["private", key] => match self.own.replace(SecretKey::new(parse_key(key)?)) {
                Some(_) => Err("a second private key; a node has one".into()),
                None => Ok(()),
            },
            [name, kind @ ("psk" | "public"), key] => {
                let key = parse_key(key)?;
                let name = Name::new(name).map_err(|error| format!("name `{name}`: {error}"))?;
                let twice = match kind {
                    "psk" => self.shared.insert(name, SecretKey::new(key)).is_some(),
                    _ => self.public.insert(PublicKey(key), name).is_some_and(|had| had != name),
                };
                match (twice, kind) {
                    (false, _) => Ok(()),
                    (true, "psk") => Err(format!("a second psk of {name}; keep one")),
                    (true, _) => Err("two nodes with this public key: which one has it?".into()),
                }
            }
            _ => Err("not a key; write `private KEY`, `NAME psk KEY` or `NAME public KEY`".into()),
        }
    }
}

/// The key in 64 hexadecimal digits.
///
/// # Errors
/// It is none; in one line that does not show it.
pub(crate) fn parse_key(text: &str) -> Result<[u8; KEY_BYTES], String> {
    let wrong =
        || format!("a key has {} hexadecimal digits; make one with `replcore key`", 2 * KEY_BYTES);
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(key)
}

/// A key as it is written.
pub(crate) fn hex(key: &[u8; KEY_BYTES]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes that nobody can guess.
///
/// # Errors
/// The system has none.
pub(crate) fn random() -> Result<[u8; KEY_BYTES], String> {
    let mut bytes = [0; KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes)
}

/// Makes a pair, and a file with its private half; the public half.
///
/// # Errors
/// One line; nothing was changed, above all nothing overwritten.
pub(crate) fn make(path: &Path) -> Result<PublicKey, String> {
    let own = SecretKey::new(random()?);
    write(path, &format!("private {}\n", hex(own.as_bytes())), true)?;
    Ok(own.public())
}

/// The public half of the pair in a file.
///
/// # Errors
/// The file is not good, or has none.
pub(crate) fn public(path: &Path) -> Result<PublicKey, String> {
    let own = Keys::read(path)?.own;
    let own = own.ok_or_else(|| format!("{} has no private key", path.display()))?;
    Ok(own.public())
}

/// Adds a node's public key to a file.
///
/// # Errors
/// One line; nothing was changed.
pub(crate) fn add(path: &Path, name: &Name, key: PublicKey) -> Result<(), String> {
    append(path, &["public", &hex(&key.0)], name)
}

/// Makes a key for the node `name` and this one, `own`: adds it to the file at `path`, and makes the file for
/// the other end.
///
/// # Errors
/// One line; no key was made.
pub(crate) fn share(path: &Path, own: &Name, name: &Name, other: &Path) -> Result<(), String> {
    let key = hex(&random()?);
    write(other, &format!("{own} psk {key}\n"), true)?;
    append(path, &["psk", &key], name).inspect_err(|_| {
        // Of no use alone, and in the way of the next attempt.
        let _ = std::fs::remove_file(other);
    })
}

/// Adds a line that goes with those that are there.
fn append(path: &Path, words: &[&str; 2], name: &Name) -> Result<(), String> {
    let at = path.display();
    let (mut keys, ends) = match path.exists() {
        true => (
            Keys::read(path)?,
            std::fs::read(path).is_ok_and(|it| it.ends_with(b"\n") || it.is_empty()),
        ),
        false => (Keys::default(), true),
    };
    let [kind, key] = words;
    keys.add(&[name.as_str(), kind, key]).map_err(|error| format!("{at}: {error}"))?;
    let line = format!("{}{name} {kind} {key}\n", if ends { "" } else { "\n" });
    write(path, &line, false)
}

fn write(path: &Path, text: &str, new: bool) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.append(true).create(!new).create_new(new).mode(FOR_OWNER);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => format!(
            "{} is there already and nothing was changed; move it away to make a new one",
            path.display()
        ),
        _ => format!("cannot write {}: {error}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn what_is_made_is_read_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file);
        let (hub, till_7, till_8) = (path("hub"), path("till-7"), path("till-8"));
        let at_hub = make(&hub).unwrap();
        let at_leaf = make(&till_7).unwrap();
        add(&hub, &name("till-7"), at_leaf).unwrap();
        share(&hub, &name("hub"), &name("till-8"), &till_8).unwrap();
        assert_eq!(public(&hub).unwrap(), at_hub);
        let keys = Keys::read(&hub).unwrap();
        assert_eq!(keys.public[&at_leaf], name("till-7"));
        let other = Keys::read(&till_8).unwrap();
        assert_eq!(keys.shared[&name("till-8")].as_bytes(), other.shared[&name("hub")].as_bytes());
        let before = std::fs::read(&hub).unwrap();
        assert!(make(&hub).unwrap_err().contains("there already"));
        assert!(
            share(&hub, &name("hub"), &name("till-8"), &path("x")).unwrap_err().contains("psk")
        );
        assert!(add(&hub, &name("till-9"), at_leaf).unwrap_err().contains("two nodes"));
        assert_eq!(std::fs::read(&hub).unwrap(), before);
        assert!(!path("x").exists());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::read(&path).unwrap_err();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_the_key() {
        let key = "0123456789abcdef".repeat(4);
        for (text, line, what) in [
            (format!("private {key}\nprivate {key}"), 2, "second private"),
            (format!("\ntill-7 psk {key} # x\ntill-7 psk {key}"), 3, "second psk"),
            (format!("a public {key}\nb public {key}"), 2, "two nodes"),
            (format!("till 7 psk {key}"), 1, "not a key"),
            (format!("till-7 pks {key}"), 1, "not a key"),
            (format!("till\u{e9} psk {key}"), 1, "name"),
            (format!("till-7 psk {}", &key[1..]), 1, "64 hexadecimal digits"),
            (format!("private {}g", &key[1..]), 1, "64 hexadecimal digits"),
        ] {
            let (at, error) = Keys::parse(&text).unwrap_err();
            assert!(at == line && error.contains(what), "{text}: {at}: {error}");
            assert!(!error.contains("0123456789") && !error.contains("123456789a"), "{error}");
        }
        assert!(Keys::parse("# nothing\n\n").is_ok());
    }
}
