//! The checkpoint: all state at one place in the log, so that recovery replays only what follows.
//!
//! ```text
//! 0   u32  crc32c of bytes 4..
//! 4        "RPLCCKP" and the format, 1
//! 12  u64  bytes of the payload
//! 20       the payload, postcard
//! ```

use std::io;

use replcore::stream::{Name, QueueId};
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::queues::Queue;
use super::{Consumer, QueueKind};
use crate::store::runs::RunList;

const MAGIC: &[u8; 8] = b"RPLCCKP\x01";
const HEADER_BYTES: usize = 20;
const TEMPORARY_NAME: &str = "checkpoint.tmp";

/// One class of one queue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LaneImage {
    pub runs: RunList,
    pub released: u64,
    pub next: u64,
    pub gaps: Vec<super::queues::Gap>,
    pub lives: Vec<replcore::stream::Life>,
}

/// One queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct QueueImage {
    /// `?` and the id in hexadecimal for a queue without a name: no name begins so.
    pub name: String,
    pub kind: QueueKind,
    pub lanes: [LaneImage; 4],
    pub totals: super::queues::Totals,
}

impl QueueImage {
    /// The field `name` of a queue.
    pub(super) fn name_of(queue: &Queue) -> String {
        if queue.is_unnamed() {
            return format!("?{:016x}", queue.id.0);
        }
        queue.name.as_str().to_owned()
    }

    /// The id of the queue.
    pub(super) fn id(&self) -> Option<QueueId> {
        match self.name.strip_prefix('?') {
            Some(id) => u64::from_str_radix(id, 16).ok().map(QueueId),
            None => Name::new(&self.name).ok().map(|name| name.queue_id()),
        }
    }
}

/// One incoming stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct StreamImage {
    pub owner: u64,
    pub queue: u64,
    pub class: u8,
    pub epoch: u32,
    pub position: u64,
}

/// The numbers known of one class of one life of an origin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OriginImage {
    pub origin: u64,
    pub epoch: u32,
    pub class: u8,
    pub ranges: Vec<(u64, u64)>,
}

/// One segment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SegmentImage {
    pub number: u64,
    pub end: u64,
    pub first_ordinal: u64,
    pub next_ordinal: u64,
    pub at_ms: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub instance: u64,
    pub sequence: u64,
    pub epoch: u32,
    /// Replay starts in this segment,
    pub segment: u64,
    /// at this offset.
    pub offset: u64,
    pub next_ordinal: u64,
    pub clock: u64,
    pub own_seqs: [u64; 4],
    pub queues: Vec<QueueImage>,
    pub streams: Vec<StreamImage>,
    pub origins: Vec<OriginImage>,
    pub states: Vec<(u8, u64, Vec<u8>)>,
    pub settings: Vec<(String, Vec<u8>)>,
    pub consumers: Vec<Consumer>,
    pub segments: Vec<SegmentImage>,
    pub copies: Vec<(u64, u64)>,
}

fn file_name(sequence: u64) -> String {
    format!("checkpoint-{sequence:016x}")
}

fn sequence_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("checkpoint-")?, 16).ok()
}

impl Checkpoint {
    /// Writes the checkpoint and removes all but the one before it.
    pub(super) fn write<D: Disk>(&self, disk: &mut D) -> io::Result<()> {
        let payload = postcard::to_allocvec(self).map_err(io::Error::other)?;
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..12].copy_from_slice(MAGIC);
        bytes[12..20].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&payload);
        drop(payload);
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        let file = disk.create(TEMPORARY_NAME, 0)?;
        let written = disk.write_at(file, 0, &bytes).and_then(|()| disk.sync_data(file));
        disk.close(file);
        written?;
        disk.rename(TEMPORARY_NAME, &file_name(self.sequence))?;
        disk.sync_names()?;
        for name in disk.list()? {
            if sequence_of(&name).is_some_and(|sequence| sequence + 1 < self.sequence) {
                disk.remove(&name)?;
            }
        }
        Ok(())
    }

    /// The sound checkpoints, newest first, and a line for each that is not.
    pub(super) fn read_all<D: Disk>(
        disk: &mut D,
        instance: u64,
    ) -> io::Result<(Vec<Self>, Vec<String>)> {
        let mut names: Vec<(u64, String)> = disk
            .list()?
            .into_iter()
            .filter_map(|name| sequence_of(&name).map(|sequence| (sequence, name)))
            .collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.0));
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        for (_, name) in names {
            match read(disk, &name)? {
                Some(checkpoint) if checkpoint.instance == instance => sound.push(checkpoint),
                _ => damaged.push(format!("{name} is damaged and was passed over")),
            }
        }
        Ok((sound, damaged))
    }
}

fn read<D: Disk>(disk: &mut D, name: &str) -> io::Result<Option<Checkpoint>> {
    let file = disk.open(name)?;
    let mut bytes = vec![0; disk.bytes(file)? as usize];
    let read = disk.read_at(file, 0, &mut bytes);
    disk.close(file);
    bytes.truncate(read?);
    let sound = bytes.len() >= HEADER_BYTES
        && bytes[4..12] == *MAGIC
        && bytes[..4] == crc32c::crc32c(&bytes[4..]).to_le_bytes()
        && bytes[12..20] == ((bytes.len() - HEADER_BYTES) as u64).to_le_bytes();
    Ok(if sound { postcard::from_bytes(&bytes[HEADER_BYTES..]).ok() } else { None })
}
