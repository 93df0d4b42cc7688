//! A leaf on a microcontroller, without a heap: it posts readings, carries out commands, and keeps
//! both in a flash log, so that no reading is lost or doubled and no command is carried out twice,
//! whenever the power or the line fails.
//!
//! The link is a serial line with COBS frames. Commands are messages that the hub has for this
//! leaf; their body is text: `post N` for N more readings, `reset N` to lose the power when the
//! Nth next word is written to flash. A reading's body is its number, how many commands were carried
//! out before it, and a digest of them in order.
#![no_std]
#![no_main]

mod board;
mod flash_log;
mod store;

use cortex_m as _;
use cortex_m_semihosting::hprintln;
use replcore::contract::{Answer, Input, LinkId, Machine, Output, Query, StreamIndex, Transport};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::stream::{Cursor, Epoch, Name, Position};
use replcore::time::Instant;
use replcore::transport::cobs;
use replcore::wire::{CONTROL_FRAME_BYTES_MAX, RECORDS_OVERHEAD_BYTES, records_header};

use crate::board::Board;
use crate::flash_log::FlashLog;
use crate::store::Store;

/// The longest frame either way; the least that the protocol allows.
const FRAME_BYTES: usize = CONTROL_FRAME_BYTES_MAX;
const LINK: LinkId = LinkId(0);
/// Credit: as much as the line may hold back. The port takes bytes at once.
const CREDIT_BYTES: u32 = 4 * FRAME_BYTES as u32;
/// The class of all readings.
const CLASS: u8 = 2;

const NAME: Name = match Name::new("mcu-1") {
    Ok(name) => name,
    Err(_) => panic!("not a name"),
};

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    cortex_m_semihosting::debug::exit(cortex_m_semihosting::debug::EXIT_FAILURE);
    cortex_m::peripheral::SCB::sys_reset()
}

/// Everything but the machine.
struct Driver {
    board: Board,
    store: Store,
    link_up: bool,
    /// The stream that sends the readings, once the machine has asked for it.
    watching: Option<StreamIndex>,
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let Some(mut board) = Board::start() else {
        panic!("started twice");
    };
    let random = board.entropy();
    let log = FlashLog::open(&mut board, random);
    let state = *log.state();
    hprintln!("start: epoch {:#x}, {} readings wait", state.epoch, log.unreleased());

    let mut link = LinkSettings::new(NAME, state.instance, Epoch(state.epoch));
    link.frame_bytes_max = FRAME_BYTES as u32;
    link.window_bytes = 2 * FRAME_BYTES as u32;
    link.keepalive_ms = 1_000;
    link.retransmit_ms = 200;
    let mut config = LeafConfig::new(link, random ^ state.instance);
    config.dial.retry_ms_min = 100;
    config.dial.retry_ms_max = 2_000;
    let mut leaf = Leaf::new(config);
    let mut driver = Driver { board, store: Store::new(log, NAME), link_up: false, watching: None };
    driver.run(&mut leaf)
}

impl Driver {
    fn now(&mut self) -> Instant {
        Instant::from_micros(self.board.now_us())
    }

    fn run(&mut self, leaf: &mut Leaf) -> ! {
        let mut decoder = cobs::Decoder::new();
        let mut frame = [0; cobs::decode_buffer_bytes(FRAME_BYTES)];
        // What noise or a reset has begun on the line ends here.
        self.board.send(&[cobs::DELIMITER]);
        loop {
            while let Some(byte) = self.board.receive() {
                if let Some(len) = decoder.take(&[byte], &mut frame).frame {
                    self.receive(leaf, &frame[..len]);
                }
            }
            if self.store.post_reading(&mut self.board)
                && let Some(stream) = self.watching
            {
                let next = self.store.log.queue_next();
                let now = self.now();
                leaf.handle(now, Input::Appended { link: LINK, stream, next });
            } else {
                let now = self.now();
                leaf.handle(now, Input::Timeout);
            }
            self.drain(leaf, &[]);
            if !self.store.has_work() {
                self.board.wait();
            }
        }
    }

    /// Gives one datagram to the machine. What it does not take is dropped, and comes again.
    fn receive(&mut self, leaf: &mut Leaf, frame: &[u8]) {
        if self.link_up {
            let now = self.now();
            let taken = leaf.handle(now, Input::Recv { link: LINK, data: frame });
            self.drain(leaf, &frame[taken..]);
        }
    }

    /// Does what the machine orders. `rest` is what it has not taken of the datagram.
    fn drain(&mut self, leaf: &mut Leaf, rest: &[u8]) {
        let mut buf = [0; FRAME_BYTES];
        loop {
            let output = leaf.poll(&mut buf);
            let now = self.now();
            match output {
                Output::Idle { .. } => return,
                Output::Send { len, .. } => self.send(leaf, &buf[..len]),
                Output::SendRecords { stream, first, bytes_max, round, .. } => {
                    self.send_records(leaf, stream, first, bytes_max, round, &mut buf);
                }
                Output::TakeRecords { stream, source, records, len, .. } => {
                    let body = rest.get(..len as usize).unwrap_or(&[]);
                    let done = self.store.take(&mut self.board, &source, &records, body);
                    let input = match done {
                        Ok(next) => Input::Taken { link: LINK, stream, next, bytes: len },
                        Err(reason) => Input::Refused { link: LINK, stream, reason },
                    };
                    leaf.handle(now, input);
                }
                Output::TakeSkip { stream, source, next, .. } => {
                    let input = match self.store.skip(&mut self.board, &source, next) {
                        Ok(next) => Input::Taken { link: LINK, stream, next, bytes: 0 },
                        Err(reason) => Input::Refused { link: LINK, stream, reason },
                    };
                    leaf.handle(now, input);
                }
                Output::Release { queue, through } if queue.class == CLASS => {
                    self.store.log.release(through);
                }
                Output::Renumber { epoch, token } => {
                    // Without room it is ordered again: nothing is sent before.
                    if self.store.log.renumber(&mut self.board, epoch).is_ok() {
                        self.watching = None;
                        leaf.handle(now, Input::Persisted { token });
                    } else {
                        cortex_m::peripheral::SCB::sys_reset();
                    }
                }
                Output::Ask { token, query, .. } => {
                    let answer = self.answer(query);
                    leaf.handle(now, Input::Answer { token, answer });
                }
                Output::Dial { dial } => {
                    self.link_up = true;
                    let (transport, identity) = (Transport::Datagram, None);
                    let dialed = Some(dial);
                    leaf.handle(now, Input::LinkUp { link: LINK, dialed, transport, identity });
                    leaf.handle(now, Input::Writable { link: LINK, bytes: CREDIT_BYTES });
                }
                Output::Hangup { .. } => {
                    self.link_up = false;
                    self.watching = None;
                    self.store.link_down();
                    leaf.handle(now, Input::LinkDown { link: LINK });
                }
                // The rest of a datagram is dropped in any case; events are for people; the others
                // are not ordered of a leaf with one queue and nothing to persist.
                _ => {}
            }
        }
    }

    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Inbound(source) => self.store.inbound(&source),
            Query::Outbound { stream, queue, .. } => {
                let log = &self.store.log;
                let epoch = Epoch(log.state().epoch);
                if queue.class == CLASS {
                    self.watching = Some(stream);
                    let (released, next) = (log.queue_released(), log.queue_next());
                    Answer::Outbound { epoch, released, next, sent: next }
                } else {
                    Answer::Outbound {
                        epoch,
                        released: Position(0),
                        next: Position(0),
                        sent: Position(0),
                    }
                }
            }
            Query::Subscribe { .. } => Answer::Denied,
        }
    }

    fn send_records(
        &mut self,
        leaf: &mut Leaf,
        stream: StreamIndex,
        first: Cursor,
        bytes_max: u32,
        round: u8,
        buf: &mut [u8; FRAME_BYTES],
    ) {
        let (head, body) = buf.split_at_mut(RECORDS_OVERHEAD_BYTES);
        let room = body.len().min(bytes_max as usize);
        let now = self.now();
        let Some((mut records, bytes)) = self.store.log.fill(&self.board, first, &mut body[..room])
        else {
            // Released meanwhile, or lost by the flash.
            let next = self.store.log.queue_released();
            let reason = replcore::contract::SkipReason::Lost;
            leaf.handle(now, Input::Gone { link: LINK, stream, next, reason });
            return;
        };
        records.round = round;
        head.copy_from_slice(&records_header(stream.0, &records, bytes as u32));
        let wire_bytes = (RECORDS_OVERHEAD_BYTES + bytes) as u32;
        let next = records.next();
        leaf.handle(now, Input::Sent { link: LINK, stream, next, bytes: bytes as u32, wire_bytes });
        self.send(leaf, &buf[..wire_bytes as usize]);
    }

    /// Writes one frame to the line and gives its credit back.
    fn send(&mut self, leaf: &mut Leaf, frame: &[u8]) {
        let mut line = [0; cobs::encoded_bytes_max(FRAME_BYTES)];
        if let Some(len) = cobs::encode(frame, &mut line) {
            self.board.send(&line[..len]);
        }
        let now = self.now();
        leaf.handle(now, Input::Writable { link: LINK, bytes: frame.len() as u32 });
    }
}
