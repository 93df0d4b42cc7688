//! What is found by key: posts by idempotency key, current records by type and key.
//!
//! Both are made from the log and can be made again from it. The newest entries are in memory; they
//! go to a database file in big transactions, which become durable when a checkpoint is made.

use std::collections::HashMap;
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};
use replcore::stream::{Epoch, NodeId, RecordId, Seq};

const POSTS: TableDefinition<'_, &[u8], (u32, u8, u64, u64)> = TableDefinition::new("posts");
const POSTS_BY_AGE: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("posts_by_age");
const LATEST: TableDefinition<'_, &[u8], (u64, u64, u64)> = TableDefinition::new("latest");
const LATEST_BY_AGE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("latest_by_age");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const CACHE_BYTES: usize = 1 << 20;
/// Bytes of keys in memory before they go to the database.
const MEMORY_BYTES_MAX: usize = 256 << 10;
/// What an entry in memory costs beside its key.
const ENTRY_BYTES: usize = 96;
/// Entries of the old that go in one transaction, so that none takes long.
const EXPIRED_MAX: u64 = 4096;

/// A post that is remembered by its idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownPost {
    pub id: RecordId,
    pub at_ms: u64,
}

/// The current record of a type and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub stamp: u64,
    pub origin: u64,
    pub ordinal: u64,
}

/// Bounds of the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyedLimits {
    pub posts_max: u64,
    pub post_ms_max: u64,
    pub latest_max: u64,
}

/// The tables.
pub(super) struct Keyed {
    database: Database,
    limits: KeyedLimits,
    origin: NodeId,
    posts: HashMap<Vec<u8>, KnownPost>,
    latest: HashMap<Vec<u8>, Current>,
    memory_bytes: usize,
}

/// The key of [`LATEST`]: the type cannot hold a zero length and a key at once, so its length goes
/// in front.
pub(super) fn latest_key(message_type: &str, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message_type.len() + key.len());
    bytes.push(message_type.len() as u8);
    bytes.extend_from_slice(message_type.as_bytes());
    bytes.extend_from_slice(key);
    bytes
}

type Result<T> = std::result::Result<T, redb::Error>;

impl Keyed {
    /// Opens the tables of the store `instance`; a file that cannot be used is made anew. Answers
    /// the sequence of the checkpoint up to which they are complete.
    pub(super) fn open(
        path: Option<&Path>,
        instance: u64,
        origin: NodeId,
        limits: KeyedLimits,
    ) -> Result<(Self, u64)> {
        let builder = || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder
        };
        let fresh = |path: Option<&Path>| -> Result<Database> {
            Ok(match path {
                Some(path) => {
                    let _ = std::fs::remove_file(path);
                    builder().create(path)?
                }
                None => builder().create_with_backend(InMemoryBackend::new())?,
            })
        };
        let database = match path {
            Some(path) => match builder().create(path) {
                Ok(database) => database,
                Err(_) => fresh(Some(path))?,
            },
            None => fresh(None)?,
        };
        let keyed = |database| Self {
            database,
            limits,
            origin,
            posts: HashMap::new(),
            latest: HashMap::new(),
            memory_bytes: 0,
        };
        let this = keyed(database);
        match this.complete_through(instance) {
            Ok(Some(sequence)) => Ok((this, sequence)),
            _ => {
                drop(this);
                let this = keyed(fresh(path)?);
                let write = this.database.begin_write()?;
                write.open_table(META)?.insert("instance", instance)?;
                write.open_table(POSTS)?;
                write.open_table(POSTS_BY_AGE)?;
                write.open_table(LATEST)?;
                write.open_table(LATEST_BY_AGE)?;
                write.commit()?;
                Ok((this, 0))
            }
        }
    }

    fn complete_through(&self, instance: u64) -> Result<Option<u64>> {
        let read = self.database.begin_read()?;
        let meta = read.open_table(META)?;
        if meta.get("instance")?.map(|value| value.value()) != Some(instance) {
            return Ok(None);
        }
        Ok(Some(meta.get("checkpoint")?.map_or(0, |value| value.value())))
    }

    /// The post that had this key.
    pub(super) fn post(&self, key: &[u8], wall_ms: u64) -> Result<Option<KnownPost>> {
        let found = match self.posts.get(key) {
            Some(post) => Some(*post),
            None => self.stored_post(key)?,
        };
        let young =
            |post: &KnownPost| wall_ms.saturating_sub(post.at_ms) <= self.limits.post_ms_max;
        Ok(found.filter(young))
    }

    fn stored_post(&self, key: &[u8]) -> Result<Option<KnownPost>> {
        let read = self.database.begin_read()?;
        let found = read.open_table(POSTS)?.get(key)?.map(|value| {
            let (epoch, class, seq, at_ms) = value.value();
            let id = RecordId { origin: self.origin, epoch: Epoch(epoch), class, seq: Seq(seq) };
            KnownPost { id, at_ms }
        });
        Ok(found)
    }

    /// Posts whose keys come after `after`, at most `limit`, by key. Those in memory are not among
    /// them: see [`Self::flush`].
    pub(super) fn posts_after(
        &self,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, KnownPost)>> {
        let read = self.database.begin_read()?;
        let posts = read.open_table(POSTS)?;
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut found = Vec::new();
        for entry in posts.range::<&[u8]>(range)?.take(limit) {
            let (key, value) = entry?;
            let (epoch, class, seq, at_ms) = value.value();
            let id = RecordId { origin: self.origin, epoch: Epoch(epoch), class, seq: Seq(seq) };
            found.push((key.value().to_vec(), KnownPost { id, at_ms }));
        }
        Ok(found)
    }

    /// Remembers a post.
    pub(super) fn add_post(&mut self, key: &[u8], post: KnownPost) {
        if self.posts.insert(key.to_vec(), post).is_none() {
            self.memory_bytes += key.len() + ENTRY_BYTES;
        }
    }

    /// Takes back a post that was not stored after all.
    pub(super) fn remove_post(&mut self, key: &[u8]) {
        if self.posts.remove(key).is_some() {
            self.memory_bytes -= key.len() + ENTRY_BYTES;
        }
    }

    /// The current record under a key made by [`latest_key`].
    pub(super) fn current(&self, key: &[u8]) -> Result<Option<Current>> {
        if let Some(current) = self.latest.get(key) {
            return Ok(Some(*current));
        }
        let read = self.database.begin_read()?;
        let found = read.open_table(LATEST)?.get(key)?.map(|value| {
            let (stamp, origin, ordinal) = value.value();
            Current { stamp, origin, ordinal }
        });
        Ok(found)
    }

    /// Makes a record the current one.
    pub(super) fn set_current(&mut self, key: Vec<u8>, current: Current) {
        let bytes = key.len() + ENTRY_BYTES;
        if self.latest.insert(key, current).is_none() {
            self.memory_bytes += bytes;
        }
    }

    /// Whether so much is in memory that it should go to the database.
    pub(super) fn is_full(&self) -> bool {
        self.memory_bytes > MEMORY_BYTES_MAX
    }

    /// Whether so much is in memory that nothing more may be added.
    pub(super) fn is_stuck(&self) -> bool {
        self.memory_bytes > 16 * MEMORY_BYTES_MAX
    }

    /// Bytes in memory, the cache of the database not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Moves what is in memory to the database; with `checkpoint` so that it survives the end of
    /// power. Everything in memory must be committed in the log.
    pub(super) fn flush(&mut self, wall_ms: u64, checkpoint: Option<u64>) -> Result<()> {
        let mut write = self.database.begin_write()?;
        write.set_durability(if checkpoint.is_some() {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        write.set_quick_repair(checkpoint.is_some());
        {
            let mut posts = write.open_table(POSTS)?;
            let mut by_age = write.open_table(POSTS_BY_AGE)?;
            let order = by_age.last()?.map_or(0, |last| last.0.value().1 + 1);
            for (order, (key, post)) in (order..).zip(&self.posts) {
                let id = post.id;
                posts.insert(key.as_slice(), (id.epoch.0, id.class, id.seq.0, post.at_ms))?;
                by_age.insert((post.at_ms, order), key.as_slice())?;
            }
            let mut left = EXPIRED_MAX;
            while left > 0 {
                let too_many = by_age.len()? > self.limits.posts_max;
                let Some(first) = by_age.first()? else { break };
                let (age, key) = (first.0.value(), first.1.value().to_vec());
                drop(first);
                if !too_many && wall_ms.saturating_sub(age.0) <= self.limits.post_ms_max {
                    break;
                }
                by_age.remove(age)?;
                let current = posts.get(key.as_slice())?.map(|value| value.value().3);
                if current.is_some_and(|at_ms| at_ms <= age.0) {
                    posts.remove(key.as_slice())?;
                }
                left -= 1;
            }
            let mut latest = write.open_table(LATEST)?;
            let mut by_age = write.open_table(LATEST_BY_AGE)?;
            for (key, current) in &self.latest {
                let value = (current.stamp, current.origin, current.ordinal);
                if let Some(old) = latest.insert(key.as_slice(), value)? {
                    by_age.remove(old.value().2)?;
                }
                by_age.insert(current.ordinal, key.as_slice())?;
            }
            while by_age.len()? > self.limits.latest_max {
                let Some((_, key)) = by_age.pop_first()? else { break };
                latest.remove(key.value())?;
            }
            if let Some(sequence) = checkpoint {
                write.open_table(META)?.insert("checkpoint", sequence)?;
            }
        }
        write.commit()?;
        self.posts.clear();
        self.latest.clear();
        self.memory_bytes = 0;
        Ok(())
    }
}
