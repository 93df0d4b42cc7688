//! A leaf on a serial line with its flash log, and no application: it posts empty records and keeps
//! how far it has taken what comes. See `docs/sizes.md`.
#![no_std]
#![no_main]

#[allow(dead_code, unused_imports, reason = "the firmware uses the rest")]
#[path = "../board/mod.rs"]
mod board;

use replcore::contract::Failure;
use replcore::driver::{Buffers, Fill, Framing, QueueState, Session, Store, blocking};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::log::flash::{FlashConfig, FlashFill, FlashLog};
use replcore::log::{crc32c, record};
use replcore::stream::{Cursor, Epoch, Name, Position, QueueKey, RecordId, StreamKey};
use replcore::time::Stamp;
use replcore::transport::cobs;
use replcore::wire::CONTROL_FRAME_BYTES_MAX;

use crate::board::{Line, Place, RECORD_PAGES, RamFlash};

const FRAME_BYTES: usize = CONTROL_FRAME_BYTES_MAX;
const NAME: Name = match Name::new("size") {
    Ok(name) => name,
    Err(_) => panic!("not a name"),
};

static INCOMING: Place<[u8; cobs::decode_buffer_bytes(FRAME_BYTES)]> = Place::empty();
static OUTGOING: Place<[u8; FRAME_BYTES]> = Place::empty();
static PACKET: Place<[u8; cobs::encoded_bytes_max(FRAME_BYTES) + 1]> = Place::empty();
static RECORD: Place<[u8; 192]> = Place::empty();
static LEAF: Place<Leaf> = Place::empty();
static SESSION: Place<Session<'static>> = Place::empty();
static LOG: Place<Kept> = Place::empty();

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    board::reset()
}

struct Kept(FlashLog<RamFlash>);

impl Store for Kept {
    fn queue(&mut self, _: QueueKey) -> QueueState {
        let (released, next) = (self.0.queue_released(), self.0.queue_next());
        QueueState { epoch: self.0.epoch(), released, next }
    }

    fn fill(&mut self, _: QueueKey, first: Cursor, out: &mut [u8]) -> Result<Fill, Failure> {
        match self.0.fill(first, out) {
            Ok(FlashFill::Records(records, bytes)) => Ok(Fill::Records(records, bytes)),
            Ok(FlashFill::Gone { next, reason }) => Ok(Fill::Gone { next, reason }),
            Ok(FlashFill::End) | Err(_) => Err(Failure::Io),
        }
    }

    fn release(&mut self, _: QueueKey, through: Position) {
        self.0.release(through);
    }

    fn place(&mut self, stream: &StreamKey) -> Option<(Epoch, Position)> {
        self.0.place(stream)
    }

    fn take(&mut self, _: &StreamKey, record: &[u8]) -> Result<(), Failure> {
        record::Record::check(record, crc32c).map_err(|_| Failure::Corrupt)?;
        Ok(())
    }

    fn commit(&mut self, stream: &StreamKey, next: Position) -> Result<(), Failure> {
        self.0.take(stream, next, &[]).map_err(|_| Failure::Full)
    }

    fn discard(&mut self) {}

    fn place_reader(&mut self, _: QueueKey, epoch: Epoch, position: Position) -> Position {
        self.0.place_reader(epoch, position)
    }
}

fn run() -> ! {
    let (mut clock, random) = board::start();
    let config = FlashConfig::new(NAME.node_id(), RECORD_PAGES);
    // SAFETY: each place once, and the flash once.
    let (log, session) = unsafe {
        let log = FlashLog::open(RamFlash::new(), config, random);
        let log = LOG.put(|| Kept(log.unwrap_or_else(|_| board::reset())));
        let mut link = LinkSettings::new(NAME, log.0.instance(), log.0.epoch());
        link.frame_bytes_max = FRAME_BYTES as u32;
        let buffers = Buffers {
            incoming: INCOMING.put(|| [0; _]),
            outgoing: OUTGOING.put(|| [0; _]),
            packet: PACKET.put(|| [0; _]),
            record: RECORD.put(|| [0; _]),
        };
        let leaf = LEAF.put(|| Leaf::new(LeafConfig::new(link, random)));
        let session = Session::new(leaf, Framing::Cobs, buffers);
        (log, SESSION.put(|| session.expect("buffers of the right size")))
    };
    loop {
        let mut bytes = [0; record::RECORD_HEADER_BYTES];
        let id = RecordId { class: 2, ..RecordId::default() };
        let message = record::Message::default();
        if record::encode(&message, id, Stamp::UNSET, &mut bytes, crc32c).is_ok() {
            // Without room it is posted later.
            let _ = log.0.append(&mut bytes);
        }
        let Ok(_) = blocking::turn(session, &mut Line, log, || clock.now());
        board::wait();
    }
}
