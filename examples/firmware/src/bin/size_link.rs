//! A leaf on a serial line that keeps nothing: link, lease client, streams, COBS, loop. See
//! `docs/sizes.md`.
#![no_std]
#![no_main]

#[allow(dead_code, unused_imports, reason = "the firmware uses the rest")]
#[path = "../board/mod.rs"]
mod board;

use replcore::contract::Failure;
use replcore::driver::{Buffers, Fill, Framing, QueueState, Session, Store, blocking};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::stream::{Cursor, Epoch, Name, Position, QueueKey, StreamKey};
use replcore::transport::cobs;
use replcore::wire::CONTROL_FRAME_BYTES_MAX;

use crate::board::{Line, Place};

const FRAME_BYTES: usize = CONTROL_FRAME_BYTES_MAX;
const NAME: Name = match Name::new("size") {
    Ok(name) => name,
    Err(_) => panic!("not a name"),
};

/// The longest packet.
#[cfg(feature = "noise")]
const PACKET_BYTES: usize = FRAME_BYTES + replcore::transport::noise::OVERHEAD_BYTES;
#[cfg(not(feature = "noise"))]
const PACKET_BYTES: usize = FRAME_BYTES;

#[cfg(feature = "noise")]
static IDENTITY: Place<replcore::transport::noise::Identity> = Place::empty();
static INCOMING: Place<[u8; cobs::decode_buffer_bytes(PACKET_BYTES)]> = Place::empty();
static OUTGOING: Place<[u8; PACKET_BYTES]> = Place::empty();
static PACKET: Place<[u8; cobs::encoded_bytes_max(PACKET_BYTES) + 1]> = Place::empty();
static RECORD: Place<[u8; 192]> = Place::empty();
static LEAF: Place<Leaf> = Place::empty();
static SESSION: Place<Session<'static>> = Place::empty();

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    board::reset()
}

/// Takes everything and forgets it at once.
struct Nothing(Position);

impl Store for Nothing {
    fn queue(&mut self, _: QueueKey) -> QueueState {
        QueueState::default()
    }

    fn fill(&mut self, _: QueueKey, _: Cursor, _: &mut [u8]) -> Result<Fill, Failure> {
        Err(Failure::Io)
    }

    fn release(&mut self, _: QueueKey, _: Position) {}

    fn place(&mut self, _: &StreamKey) -> Option<(Epoch, Position)> {
        None
    }

    fn take(&mut self, _: &StreamKey, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn commit(&mut self, _: &StreamKey, next: Position) -> Result<(), Failure> {
        self.0 = next;
        Ok(())
    }

    fn discard(&mut self) {}

    fn place_reader(&mut self, _: QueueKey, _: Epoch, position: Position) -> Position {
        position
    }
}

fn run() -> ! {
    let (mut clock, random) = board::start();
    let mut link = LinkSettings::new(NAME, random, Epoch::first(random));
    link.frame_bytes_max = FRAME_BYTES as u32;
    // SAFETY: each place once.
    let session = unsafe {
        let leaf = LEAF.put(|| Leaf::new(LeafConfig::new(link, random)));
        let buffers = Buffers {
            incoming: INCOMING.put(|| [0; _]),
            outgoing: OUTGOING.put(|| [0; _]),
            packet: PACKET.put(|| [0; _]),
            record: RECORD.put(|| [0; _]),
        };
        let session = Session::new(leaf, Framing::Cobs, buffers);
        #[cfg(feature = "noise")]
        let session = session.and_then(|session| {
            let key = replcore::transport::noise::SecretKey::new([random as u8; _]);
            let name = NAME;
            let identity = replcore::transport::noise::Identity::Shared { name, key };
            session.secured(IDENTITY.put(|| identity))
        });
        SESSION.put(|| session.expect("buffers of the right size"))
    };
    let mut store = Nothing(Position(0));
    loop {
        let Ok(turn) = blocking::turn(session, &mut Line, &mut store, || clock.now());
        #[cfg(feature = "noise")]
        if turn == replcore::driver::Turn::Connect {
            session.secure(clock.now(), [random as u8; _]);
        }
        #[cfg(not(feature = "noise"))]
        let _ = turn;
        board::wait();
    }
}
