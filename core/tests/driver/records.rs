//! Records and runs of them.

use replcore::log::crc32c;
use replcore::log::record::{self, Message, Record};
use replcore::stream::{Cursor, Epoch, NodeId, RecordId, Seq};
use replcore::time::Stamp;
use replcore::wire::Records;

/// The class of all records here.
pub(crate) const CLASS: u8 = 2;

pub(crate) fn record(origin: NodeId, number: u64, body: &[u8]) -> Vec<u8> {
    let id = RecordId { origin, epoch: Epoch(1 << 16), class: CLASS, seq: Seq(number) };
    let message = Message { body, ..Message::default() };
    let mut out = vec![0; message.record_bytes().unwrap()];
    record::encode(&message, id, Stamp::UNSET, &mut out, crc32c).unwrap();
    out
}

/// The bodies of a run of whole records.
pub(crate) fn bodies(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Ok(length) = record::entry_length(bytes, u32::MAX) {
        found.push(Record::check(&bytes[..length], crc32c).unwrap().body().to_vec());
        bytes = &bytes[length..];
    }
    found
}

/// Whole records from `first` on, or a part of one.
pub(crate) fn fill(
    queue: &[Vec<u8>],
    first: Cursor,
    most: usize,
    next: usize,
) -> Option<(Records, Vec<u8>)> {
    let (mut body, mut records) = (Vec::new(), Records { first, ..Records::default() });
    let mut offset = first.offset as usize;
    for record in queue.get(first.position.0 as usize..next)? {
        let rest = &record[offset..];
        if body.len() + rest.len() > most {
            if body.is_empty() {
                body.extend_from_slice(&rest[..most]);
                records.tail_bytes = most as u32;
            }
            break;
        }
        body.extend_from_slice(rest);
        records.completed += 1;
        offset = 0;
    }
    (!body.is_empty()).then_some((records, body))
}
