//! A leaf on a microcontroller, without a heap: it posts readings, carries out commands, and keeps
//! both in a flash log, so that no reading is lost or doubled and no command is carried out twice,
//! whenever the power or the line fails.
//!
//! The link is a serial line with COBS frames or, with the feature `ethernet`, TCP. Commands are
//! messages that the hub has for this leaf; their body is text: `post N` for N more readings, `reset N`
//! to lose the power when the Nth next word is written to flash, `stack` to say how much stack was
//! used. A reading's body is its number, how many commands were carried out before it, and a digest of
//! them in order.
//!
//! With the feature `noise` the serial line is secured by a key that leaf and hub share.
#![no_std]
#![no_main]

mod app;
mod board;
#[cfg(feature = "noise")]
mod secure;

use replcore::driver::{Buffers, Framing, Session, Turn, blocking};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::log::flash::{FlashConfig, FlashLog, Foreign};
use replcore::stream::{Epoch, Name};
use replcore::transport::cobs;
use replcore::wire::CONTROL_FRAME_BYTES_MAX;
use semihosting::{println, process};

use crate::app::{App, CLASS};
use crate::board::{Clock, FRAMING, Line, Place, RamFlash};

/// The longest frame either way; the least that the protocol allows.
const FRAME_BYTES: usize = CONTROL_FRAME_BYTES_MAX;
/// A frame, sealed where the line is secured.
#[cfg(feature = "noise")]
const CONTENT_BYTES: usize = FRAME_BYTES + replcore::transport::noise::OVERHEAD_BYTES;
#[cfg(not(feature = "noise"))]
const CONTENT_BYTES: usize = FRAME_BYTES;
/// That as a packet on a serial line.
const PACKET_BYTES: usize = match FRAMING {
    Framing::Cobs => cobs::encoded_bytes_max(CONTENT_BYTES) + 1,
    Framing::Stream => 0,
};
/// Longest command that is carried out.
const COMMAND_BYTES: usize = 192;

const NAME: Name = match Name::new("mcu-1") {
    Ok(name) => name,
    Err(_) => panic!("not a name"),
};

static INCOMING: Place<[u8; cobs::decode_buffer_bytes(CONTENT_BYTES)]> = Place::empty();
static OUTGOING: Place<[u8; CONTENT_BYTES]> = Place::empty();
static PACKET: Place<[u8; PACKET_BYTES]> = Place::empty();
static COMMAND: Place<[u8; COMMAND_BYTES]> = Place::empty();
static LEAF: Place<Leaf> = Place::empty();
static SESSION: Place<Session<'static>> = Place::empty();
static APP: Place<App> = Place::empty();
static LINE: Place<Line> = Place::empty();

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    process::exit(1)
}

// What only the start needs is not on the stack afterwards: hence functions of their own.

/// Opens the log, or makes one: this board is given away with nothing else in its memory.
#[inline(never)]
fn open_log(random: u64) -> &'static mut App {
    let mut config = FlashConfig::new(NAME.node_id(), board::RECORD_PAGES);
    config.class = CLASS;
    config.foreign = Foreign::Erase;
    // SAFETY: called once, by `run`.
    let flash = unsafe { RamFlash::new() };
    match FlashLog::open(flash, config, random) {
        // SAFETY: as above.
        Ok(log) => unsafe { APP.put(|| App::new(log, NAME)) },
        Err(error) => panic!("the log: {error}"),
    }
}

#[inline(never)]
fn make_leaf(instance: u64, epoch: Epoch, random: u64) -> &'static mut Leaf {
    let mut link = LinkSettings::new(NAME, instance, epoch);
    link.frame_bytes_max = FRAME_BYTES as u32;
    link.window_bytes = 2 * FRAME_BYTES as u32;
    link.keepalive_ms = 1_000;
    link.retransmit_ms = 200;
    let mut config = LeafConfig::new(link, random ^ instance);
    config.dial.retry_ms_min = 100;
    config.dial.retry_ms_max = 2_000;
    // SAFETY: called once, by `run`.
    unsafe { LEAF.put(|| Leaf::new(config)) }
}

#[inline(never)]
fn make_session(leaf: &'static mut Leaf) -> &'static mut Session<'static> {
    // SAFETY: called once, by `run`.
    unsafe {
        let buffers = Buffers {
            incoming: INCOMING.put(|| [0; _]),
            outgoing: OUTGOING.put(|| [0; _]),
            packet: PACKET.put(|| [0; _]),
            record: COMMAND.put(|| [0; _]),
        };
        let session = Session::new(leaf, FRAMING, buffers);
        #[cfg(feature = "noise")]
        let session = session.and_then(|session| session.secured(secure::identity(NAME)));
        SESSION.put(|| session.expect("buffers of the right size"))
    }
}

#[inline(never)]
fn make_line(clock: Clock, seed: u64) -> &'static mut Line {
    // SAFETY: called once, by `run`.
    unsafe { LINE.put(|| Line::new(clock, seed)) }
}

/// The program; the board calls it once.
fn run() -> ! {
    let (mut clock, random) = board::start();
    let app = open_log(random);
    let session = make_session(make_leaf(app.instance(), app.epoch(), random));
    let line = make_line(clock.clone(), random ^ u64::from(app.epoch().0));
    println!("start: {} readings wait, {} bytes of stack", app.waiting(), board::stack_bytes());
    board::repaint_stack();
    loop {
        let posted = app.post_reading();
        match line.opened() {
            Some(true) => session.connected(clock.now()),
            Some(false) => session.disconnected(clock.now()),
            None => {}
        }
        // A line that says an error has ended.
        match blocking::turn(session, line, app, || clock.now()).unwrap_or(Turn::Disconnect) {
            Turn::Halted(reason) => panic!("{reason}"),
            Turn::Wait(_) => {}
            Turn::Connect => {
                line.open();
                #[cfg(feature = "noise")]
                session.secure(clock.now(), secure::random());
            }
            Turn::Disconnect => {
                line.close();
                session.disconnected(clock.now());
            }
        }
        if !posted {
            board::wait();
        }
    }
}
