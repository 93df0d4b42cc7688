//! What a campaign's programs write down, and what is demanded of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// A file of lines that survives the kill of its writer: a line is there as a whole or not at all.
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Opens it and cuts off half a line that a killed writer left.
    pub(crate) fn open(path: &Path) -> Self {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).unwrap();
        Self { file }
    }

    /// Writes lines in one write.
    pub(crate) fn write(&mut self, lines: &str) {
        self.file.write_all(lines.as_bytes()).unwrap();
    }
}

/// All whole lines of a journal.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    text[..whole].lines().map(String::from).collect()
}

/// The class of message `number` of a producer. All four are used, the default one most.
pub(crate) fn class_of(number: u64) -> u8 {
    match number % 10 {
        0 => 0,
        1 | 2 => 1,
        3 => 3,
        _ => 2,
    }
}

/// The body of message `number` of a producer: its name first, then letters that depend on both.
pub(crate) fn body_of(producer: &str, number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ producer.len() as u64;
    let length = match number % 997 {
        0 => 300_000,
        n if n % 50 == 0 => 8_000,
        n => 60 + n as usize % 300,
    };
    let mut body = format!("{producer} {number} ");
    while body.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        body.push(char::from(b'a' + (state >> 59) as u8 % 26));
    }
    body
}

/// Reads a consumer's journal as it grows and checks it.
///
/// Lines: `start` (a new life of the consumer), `new ID PRODUCER NUMBER` (processed),
/// `again ID PRODUCER NUMBER` (delivered again and dropped, as its identity was in the journal).
pub(crate) struct Auditor {
    place: String,
    path: PathBuf,
    read: u64,
    half: String,
    /// The last number processed, by producer and class.
    processed: BTreeMap<(String, u8), u64>,
    /// The last number delivered in this life, by producer and class.
    delivered: BTreeMap<(String, u8), u64>,
    /// The last seq processed, by origin, epoch and class.
    seqs: BTreeMap<String, u64>,
    pub(crate) count: u64,
    pub(crate) again: u64,
    pub(crate) lives: u64,
}

impl Auditor {
    pub(crate) fn new(place: &str, path: &Path) -> Self {
        Self {
            place: place.into(),
            path: path.into(),
            read: 0,
            half: String::new(),
            processed: BTreeMap::new(),
            delivered: BTreeMap::new(),
            seqs: BTreeMap::new(),
            count: 0,
            again: 0,
            lives: 0,
        }
    }

    /// Checks what was written since the last look.
    pub(crate) fn look(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        // A consumer that starts cuts off half a line, so only whole lines are taken.
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = std::mem::take(&mut self.half);
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        for line in text[..whole].lines() {
            self.line(line);
        }
    }

    fn line(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let place = &self.place;
        match words[..] {
            ["start"] => {
                self.lives += 1;
                self.delivered.clear();
            }
            ["new", id, producer, number] => {
                let key = (producer.to_owned(), self.follow(producer, number));
                let number: u64 = number.parse().unwrap();
                let before = self.processed.insert(key, number);
                let expected = following(before, class_of(number));
                assert_eq!(
                    number, expected,
                    "{}: of {producer} {number} was processed after {before:?} ({id})",
                    self.place
                );
                let (origin, seq) = id.rsplit_once('/').unwrap();
                let seq: u64 = seq.parse().unwrap();
                let last = self.seqs.insert(origin.into(), seq).unwrap_or_default();
                assert!(seq > last, "{}: {id} was processed after seq {last}", self.place);
                self.count += 1;
            }
            ["again", id, producer, number] => {
                let class = self.follow(producer, number);
                let last = self.processed.get(&(producer.to_owned(), class)).copied();
                let number: u64 = number.parse().unwrap();
                assert!(
                    last >= Some(number),
                    "{}: {id} has the identity of another message",
                    self.place
                );
                self.again += 1;
            }
            _ => panic!("{place}: what is {line:?}"),
        }
    }

    /// Within one life of the consumer nothing comes twice and nothing is passed over.
    fn follow(&mut self, producer: &str, number: &str) -> u8 {
        let number: u64 = number.parse().unwrap();
        let class = class_of(number);
        let before = self.delivered.insert((producer.to_owned(), class), number);
        if let Some(before) = before {
            assert_eq!(
                number,
                following(Some(before), class),
                "{}: of {producer} {number} was delivered after {before} to one consumer",
                self.place
            );
        }
        class
    }

    /// Whether everything up to `last` of the producer was processed.
    pub(crate) fn has_all(&self, producer: &str, last: u64) -> bool {
        (0..4u8).all(|class| {
            let expected = (1..=last).rev().find(|number| class_of(*number) == class);
            self.processed.get(&(producer.to_owned(), class)).copied() == expected
        })
    }

    /// What was processed of a producer, by class.
    pub(crate) fn progress(&self, producer: &str) -> Vec<Option<u64>> {
        (0..4u8).map(|class| self.processed.get(&(producer.to_owned(), class)).copied()).collect()
    }
}

/// The number of the class that comes after `before`.
fn following(before: Option<u64>, class: u8) -> u64 {
    (before.unwrap_or(0) + 1..).find(|number| class_of(*number) == class).unwrap()
}
