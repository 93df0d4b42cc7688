//! A log on a flash, and what it should hold.

use embedded_storage::nor_flash::NorFlash;
use replcore::log::crc32c;
use replcore::log::flash::{FlashConfig, FlashError, FlashFill, FlashLog};
use replcore::log::record::{self, Message, Record};
use replcore::rng::Rng;
use replcore::stream::{Cursor, Epoch, NodeId, Position, QueueId, QueueKey, RecordId, StreamKey};
use replcore::time::Stamp;

use crate::nor::Nor;

pub(crate) const ORIGIN: NodeId = NodeId(77);
pub(crate) const RECORD_PAGES: u16 = 3;
pub(crate) const PAGES: usize = RECORD_PAGES as usize + 2;
pub(crate) const STREAM: StreamKey = StreamKey {
    owner: NodeId(5),
    queue: QueueKey { queue: QueueId(6), class: 1 },
    epoch: Epoch(0x10001),
};

pub(crate) fn config() -> FlashConfig {
    FlashConfig::new(ORIGIN, RECORD_PAGES)
}

pub(crate) fn append<F: NorFlash>(
    log: &mut FlashLog<F>,
    body: &[u8],
) -> Result<Position, FlashError> {
    let mut bytes = [0; 1200];
    let message = Message { body, ..Message::default() };
    let length =
        record::encode(&message, RecordId::default(), Stamp::UNSET, &mut bytes, crc32c).unwrap();
    log.append(&mut bytes[..length])
}

/// Reads the whole queue in frames of random size and gives the bodies back, each with its
/// position.
pub(crate) fn read_all<F: NorFlash>(log: &mut FlashLog<F>, rng: &mut Rng) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut cursor = Cursor::at(log.queue_released());
    let (mut bytes, mut buf, mut last) = (Vec::new(), [0; 500], None);
    loop {
        let space = rng.between(1, buf.len() as u64) as usize;
        match log.fill(cursor, &mut buf[..space]).unwrap() {
            FlashFill::End => break,
            FlashFill::Gone { next, .. } => {
                assert!(next > cursor.position && bytes.is_empty());
                last = None;
                cursor = Cursor::at(next);
            }
            FlashFill::Records(records, length) => {
                let mut position = cursor.position.0;
                bytes.extend_from_slice(&buf[..length]);
                cursor = records.next();
                let mut rest = &bytes[..];
                while let Ok(length) = record::entry_length(rest, 2000) {
                    let record = Record::check(&rest[..length], crc32c).unwrap();
                    let id = record.id();
                    assert_eq!((id.origin, id.class), (ORIGIN, 2));
                    // Each life numbers from 1, and what was posted in it stands in a row.
                    let (epoch, seq) = last.unwrap_or((id.epoch, id.seq.0 - 1));
                    let begins = id.seq.0 == 1 && id.epoch != epoch;
                    assert!(begins || (id.epoch, id.seq.0) == (epoch, seq + 1), "{id:?}");
                    last = Some((id.epoch, id.seq.0));
                    found.push((position, record.body().to_vec()));
                    position += 1;
                    rest = &rest[length..];
                }
                bytes = rest.to_vec();
                assert_eq!(bytes.len(), cursor.offset as usize);
            }
        }
    }
    assert_eq!(cursor, Cursor::at(log.queue_next()));
    found
}

/// What the log should hold.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// All bodies ever stored, with those of which it is not known at the end.
    stored: Vec<Vec<u8>>,
    /// How many of them are acknowledged.
    released: usize,
    /// The last of `stored` was under way when the power failed: there or not.
    in_doubt: bool,
    /// How far the stream was taken, and whether the last step of that is in doubt.
    taken: u64,
    take_in_doubt: bool,
}

impl Model {
    /// Does the next thing to the log. Whether the power held.
    pub(crate) fn turn<const R: usize, const W: usize>(
        &mut self,
        log: &mut FlashLog<&mut Nor<R, W>>,
        turn: u64,
    ) -> bool {
        match turn % 4 {
            0 | 1 => {
                let mut body = turn.to_le_bytes().to_vec();
                body.resize(8 + turn as usize * 7 % 40, turn as u8);
                let done = append(log, &body);
                if done.is_ok() || log.flash().dead {
                    self.stored.push(body);
                    self.in_doubt = done.is_err();
                } else {
                    assert_eq!(done, Err(FlashError::Full));
                }
            }
            2 => self.take(log),
            // The acknowledgements come in runs, so that the log is now full and now empty.
            _ if turn / 40 % 2 == 1 => {
                let waiting = log.waiting().min(6);
                log.release(Position(log.queue_released().0 + waiting));
                self.released += waiting as usize;
            }
            _ if turn % 8 == 3 => {
                let _ = log.sync();
            }
            _ => self.take(log),
        }
        !log.flash().dead
    }

    fn take<const R: usize, const W: usize>(&mut self, log: &mut FlashLog<&mut Nor<R, W>>) {
        let next = self.taken + 1;
        let done = log.take(&STREAM, Position(next), &next.to_le_bytes());
        self.taken = next;
        self.take_in_doubt = done.is_err();
        assert!(done.is_ok() || log.flash().dead, "{done:?}");
    }

    /// Checks a log that was just opened, and forgets what was in doubt.
    pub(crate) fn check<F: NorFlash>(&mut self, log: &mut FlashLog<F>, what: &str) {
        let found = read_all(log, &mut Rng::new(1));
        let positions = (log.queue_released().0..).take(found.len());
        assert!(found.iter().map(|found| found.0).eq(positions), "{what}: a gap");
        let found: Vec<Vec<u8>> = found.into_iter().map(|found| found.1).collect();
        let total = log.appended() as usize;
        let least = self.stored.len() - usize::from(self.in_doubt);
        assert!(total == self.stored.len() || total == least, "{what}: {total} records");
        self.stored.truncate(total);
        self.in_doubt = false;
        // A release that was not written is forgotten; the receiver knows what comes again.
        let from = total - found.len();
        assert!(from <= self.released.min(total), "{what}: {from} gone");
        assert_eq!(found, &self.stored[from..], "{what}");
        self.released = from;

        let taken = log.place(&STREAM).map_or(0, |place| place.1.0);
        let least = self.taken - u64::from(self.take_in_doubt);
        assert!(taken == self.taken || taken == least, "{what}: taken {taken}");
        let application = if taken == 0 { Vec::new() } else { taken.to_le_bytes().to_vec() };
        assert_eq!(log.application(), application, "{what}");
        (self.taken, self.take_in_doubt) = (taken, false);
    }
}
