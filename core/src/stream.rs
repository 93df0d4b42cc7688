//! Who and what: names, identities of records, positions in streams, and sets of sequence numbers.

use core::fmt;

/// Longest node or queue name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Number of classes. Class 0 is for control and real-time records and goes strictly first, under
/// a token bucket; 1 (high), 2 (normal) and 3 (bulk) share what is left 8 : 4 : 1.
pub const CLASSES: usize = 4;

/// The class of records that were given none.
pub const CLASS_DEFAULT: u8 = 2;

/// A name of a node or a queue: 1 to 63 bytes of letters, digits, `.`, `_`, `-`, `:` and `/`.
///
/// Names are the authority and are what certificates carry; [`NodeId`] and [`QueueId`] are
/// derived from them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Characters);

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NameError {
    /// The text has no bytes.
    Empty,
    /// The text has more than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// The byte at this index is not allowed in a name.
    Byte(usize),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name needs at least one character"),
            Self::TooLong => write!(f, "a name has at most {NAME_BYTES_MAX} bytes"),
            Self::Byte(at) => {
                write!(f, "character {} is not one of A-Z a-z 0-9 . _ - : /", at + 1)
            }
        }
    }
}

impl core::error::Error for NameError {}

/// What a [`Name`] and an [`Address`] are made of: 1 to [`NAME_BYTES_MAX`] bytes of visible ASCII.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Characters {
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
}

impl Characters {
    /// Those of a name, or else any. A flag and not a function, because a constant cannot be made
    /// through a function pointer.
    const fn new(source: &[u8], is_name: bool) -> Result<Self, NameError> {
        if source.is_empty() {
            return Err(NameError::Empty);
        }
        if source.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        let mut at = 0;
        while at < source.len() {
            let byte = source[at];
            let allowed = if is_name {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/')
            } else {
                byte.is_ascii_graphic()
            };
            if !allowed {
                return Err(NameError::Byte(at));
            }
            bytes[at] = byte;
            at += 1;
        }
        Ok(Self { bytes, len: source.len() as u8 })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn as_str(&self) -> &str {
        // Only ASCII gets past `new`.
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

impl Name {
    /// The name `text`.
    ///
    /// # Errors
    /// The text is empty, too long, or has a byte that no name has.
    pub const fn new(text: &str) -> Result<Self, NameError> {
        Self::from_bytes(text.as_bytes())
    }

    /// The name of these characters.
    ///
    /// # Errors
    /// There are none or too many, or there is one that no name has.
    pub const fn from_bytes(text: &[u8]) -> Result<Self, NameError> {
        match Characters::new(text, true) {
            Ok(characters) => Ok(Self(characters)),
            Err(error) => Err(error),
        }
    }

    /// The characters of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The identity of the node of this name.
    pub const fn node_id(&self) -> NodeId {
        NodeId(self.hash())
    }

    /// The identity of the queue of this name.
    pub const fn queue_id(&self) -> QueueId {
        QueueId(self.hash())
    }

    /// FNV-1a with 64 bits (Fowler, Noll, Vo), then the finaliser of SplitMix64, with 0 moved to 1.
    const fn hash(&self) -> u64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut at = 0;
        while at < self.0.len as usize {
            hash = (hash ^ self.0.bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        hash = crate::rng::mix(hash);
        if hash == 0 { 1 } else { hash }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Name {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

/// Where a node can be reached, as it says itself: `host:port`, 1 to 63 bytes of visible ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(Characters);

impl Address {
    /// The address `text`. It is passed on and shown, not resolved.
    ///
    /// # Errors
    /// The text is empty, too long, or has a byte that is not visible ASCII.
    pub const fn new(text: &str) -> Result<Self, NameError> {
        Self::from_bytes(text.as_bytes())
    }

    /// The address of these characters.
    ///
    /// # Errors
    /// There are none or too many, or there is one that is not visible ASCII.
    pub const fn from_bytes(text: &[u8]) -> Result<Self, NameError> {
        match Characters::new(text, false) {
            Ok(characters) => Ok(Self(characters)),
            Err(error) => Err(error),
        }
    }

    /// The characters of the address.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Address {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

/// A node, by the hash of its [`Name`]. Zero is nobody. Two names with one id cannot both
/// register: the second is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NodeId(pub u64);

impl NodeId {
    /// Nobody: the origin of a record that no node has stamped yet.
    pub const NONE: Self = Self(0);
}

/// A queue of some node, by the hash of its [`Name`]. The owner refuses two names with one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct QueueId(pub u64);

/// A life of a node's log: from one start of the node to the next. The high 16 bits count lives,
/// the low 16 bits are random, so that a log that was set back to an older copy does not live a
/// life again that others remember. Epochs are told apart, not ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of a fresh log.
    pub const fn first(random: u64) -> Self {
        Self(1 << 16 | (random as u32 & 0xffff))
    }

    /// The epoch of the next life. The count goes from 65,535 back to 1.
    pub const fn next(self, random: u64) -> Self {
        let life = self.0 >> 16;
        let life = if life == 0xffff { 1 } else { life + 1 };
        Self(life << 16 | (random as u32 & 0xffff))
    }
}

/// How a queue stood when a life of its log ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Life {
    /// The life.
    pub epoch: Epoch,
    /// The number of entries that the queue had ever held.
    pub end: Position,
}

/// Where a reader goes on that has its place in a queue from an earlier life of the queue's log.
///
/// `lives` are the lives that the log remembers of itself, in any order; it may forget those that
/// ended with everything released. A log that was set back lacks entries of the life in which it
/// was copied, and lives after that: what the reader has beyond the end of a life, or of a life
/// that is not remembered, stood in a log that is gone, and what stands in its place now is other.
/// After Kafka's leader epochs (KIP-101, KIP-279).
pub fn place_after(
    lives: &[Life],
    epoch: Epoch,
    position: Position,
    released: Position,
) -> Position {
    match lives.iter().find(|life| life.epoch == epoch) {
        Some(life) => position.min(life.end),
        // It may be known already, by identity; and not to send it again could lose it.
        None => position.min(released),
    }
}

/// The number of a record within (origin, epoch, class). Starts at 1; 0 is no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Seq(pub u64);

/// A place in a stream: the number of entries before it. Dense, starts at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Position(pub u64);

/// What a record is called, for ever and on every hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RecordId {
    /// The node where the record was posted.
    pub origin: NodeId,
    /// The life of the origin's log.
    pub epoch: Epoch,
    /// The class, 0 to 3; each class of an origin is numbered by itself.
    pub class: u8,
    /// The number within origin, epoch and class.
    pub seq: Seq,
}

/// One class of one queue: what a node sends as a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct QueueKey {
    /// The queue.
    pub queue: QueueId,
    /// The class, 0 to 3.
    pub class: u8,
}

/// A stream as its receiver knows it: whose, in which life of the owner's log, which queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StreamKey {
    /// The node that owns the queue.
    pub owner: NodeId,
    /// The queue and class.
    pub queue: QueueKey,
    /// The life of the owner's log.
    pub epoch: Epoch,
}

/// A reader's place in a stream, down to the byte: `offset` bytes of the record at `position`
/// are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Cursor {
    /// Records before this one are complete.
    pub position: Position,
    /// Bytes of the record at `position` that are already there.
    pub offset: u32,
}

impl Cursor {
    /// The start of the record at `position`.
    pub const fn at(position: Position) -> Self {
        Self { position, offset: 0 }
    }
}

/// What came of adding a number to [`Ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Insert {
    /// It was not there and is now.
    New,
    /// It was there already.
    Known,
    /// It was not there and is now; to make room the lowest gap was closed, so that `closed`
    /// numbers that never came count as known from now on.
    NewClosing {
        /// How many numbers the gap held.
        closed: u64,
    },
}

/// A set of sequence numbers as at most `N` ranges. What arrives in order costs one range.
///
/// This is what makes an arrival over several paths count once, without a table of message ids
/// and without a time window. When a further range does not fit, the lowest gap is closed:
/// a number in it is then taken for known if it still comes. On a single path that is harmless,
/// because a path keeps the order and a gap behind it is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ranges<const N: usize> {
    /// Inclusive bounds, rising, never touching.
    ranges: [(u64, u64); N],
    len: usize,
}

impl<const N: usize> Default for Ranges<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ranges<N> {
    /// The empty set.
    pub const fn new() -> Self {
        assert!(N >= 2, "closing a gap takes two ranges");
        Self { ranges: [(0, 0); N], len: 0 }
    }

    /// The ranges, rising, bounds inclusive.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.ranges[..self.len]
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.as_slice().partition_point(|range| range.0 <= number);
        after > 0 && self.ranges[after - 1].1 >= number
    }

    /// The greatest number in the set.
    pub fn last(&self) -> Option<u64> {
        self.as_slice().last().map(|range| range.1)
    }

    /// Adds `number`. Constant time when it follows the greatest number.
    pub fn insert(&mut self, number: u64) -> Insert {
        let after = match self.last() {
            Some(last) if number > last => self.len,
            _ => self.as_slice().partition_point(|range| range.0 <= number),
        };
        if after > 0 && self.ranges[after - 1].1 >= number {
            return Insert::Known;
        }
        let joins_before = after > 0 && self.ranges[after - 1].1 + 1 == number;
        let joins_after = after < self.len && number + 1 == self.ranges[after].0;
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[after - 1].1 = self.ranges[after].1;
                self.remove(after);
            }
            (true, false) => self.ranges[after - 1].1 = number,
            (false, true) => self.ranges[after].0 = number,
            (false, false) => return self.insert_range(after, number),
        }
        Insert::New
    }

    /// Adds every number of `low..=high`; used to restore a stored set.
    pub fn insert_restored(&mut self, low: u64, high: u64) {
        debug_assert!(low <= high);
        debug_assert!(self.last().is_none_or(|last| last < low));
        if self.len == N {
            self.ranges[self.len - 1].1 = high;
        } else {
            self.ranges[self.len] = (low, high);
            self.len += 1;
        }
    }

    fn insert_range(&mut self, at: usize, number: u64) -> Insert {
        if self.len < N {
            self.ranges.copy_within(at..self.len, at + 1);
            self.ranges[at] = (number, number);
            self.len += 1;
            return Insert::New;
        }
        if at == 0 {
            // Below everything that is remembered: its gap is the lowest, and closing it is all.
            let closed = self.ranges[0].0 - number - 1;
            self.ranges[0].0 = number;
            return Insert::NewClosing { closed };
        }
        let closed = self.ranges[1].0 - self.ranges[0].1 - 1;
        self.ranges[1].0 = self.ranges[0].0;
        self.remove(0);
        // `number` may have been inside the gap just closed; it is new all the same.
        if at > 1 {
            self.ranges.copy_within(at - 1..self.len, at);
            self.ranges[at - 1] = (number, number);
            self.len += 1;
            return Insert::NewClosing { closed };
        }
        Insert::NewClosing { closed: closed - 1 }
    }

    fn remove(&mut self, at: usize) {
        self.ranges.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_checked() {
        assert_eq!(Name::new("till-7.shop-3").unwrap().as_str(), "till-7.shop-3");
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("a b"), Err(NameError::Byte(1)));
        assert_eq!(Name::new(&"x".repeat(64)), Err(NameError::TooLong));
    }

    #[test]
    fn the_lives_of_a_log_are_told_apart_also_when_the_count_is_used_up() {
        let epoch = Epoch::first(0xffff);
        assert_eq!((epoch, epoch.next(7)), (Epoch(0x1_ffff), Epoch(0x2_0007)));
        assert_eq!(Epoch(0xffff_0001).next(9), Epoch(0x1_0009));
    }

    #[test]
    fn a_reader_goes_on_where_its_log_and_the_present_one_part() {
        let life = |epoch, end| Life { epoch: Epoch(epoch), end: Position(end) };
        let lives = [life(1, 10), life(2, 14)];
        let place =
            |epoch, position| place_after(&lives, Epoch(epoch), Position(position), Position(5)).0;
        assert_eq!([place(1, 7), place(2, 14)], [7, 14], "what it has is what is there");
        assert_eq!(
            place(1, 12),
            10,
            "two entries of life 1 are lost, and others have their numbers"
        );
        assert_eq!(place(9, 12), 5, "a life that this log never had: from what is acknowledged");
        assert_eq!(place(9, 3), 3, "and what it lacks of that is told as a gap");
    }

    #[test]
    fn ranges_agree_with_a_set_while_they_fit() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut ranges = Ranges::<64>::new();
            let mut set = BTreeSet::new();
            for _ in 0..100 {
                let number = rng.between(1, 60);
                let expected = if set.insert(number) { Insert::New } else { Insert::Known };
                assert_eq!(ranges.insert(number), expected);
            }
            for number in 0..62 {
                assert_eq!(ranges.contains(number), set.contains(&number));
            }
            assert!(ranges.as_slice().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn full_ranges_close_the_lowest_gap_and_say_how_wide_it_was() {
        let mut ranges = Ranges::<2>::new();
        ranges.insert(1);
        ranges.insert(5);
        assert_eq!(ranges.insert(10), Insert::NewClosing { closed: 3 });
        assert_eq!(ranges.as_slice(), [(1, 5), (10, 10)]);
        assert_eq!(ranges.insert(3), Insert::Known);
    }

    #[test]
    fn a_number_inside_the_gap_that_is_closed_for_it_is_new() {
        let mut ranges = Ranges::<2>::new();
        ranges.insert(1);
        ranges.insert(9);
        assert_eq!(ranges.insert(5), Insert::NewClosing { closed: 6 });
        assert_eq!(ranges.as_slice(), [(1, 9)]);
        assert_eq!(ranges.insert(20), Insert::New);
        assert_eq!(ranges.insert(0), Insert::New);
    }
}
