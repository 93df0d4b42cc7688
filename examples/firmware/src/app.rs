//! What the application does with the log: readings out, commands in.

use core::fmt::Write as _;

use replcore::contract::Failure;
use replcore::driver::{Fill, QueueState, Store};
use replcore::log::crc32c;
use replcore::log::flash::{FlashError, FlashFill, FlashLog};
use replcore::log::record::{self, Message, Record};
use replcore::stream::{Cursor, Epoch, Name, Position, QueueKey, RecordId, StreamKey};
use replcore::time::Stamp;
use semihosting::println;

use crate::board::{self, RamFlash};

/// The class of all readings.
pub const CLASS: u8 = 2;
/// Longest record of a reading.
const RECORD_BYTES_MAX: usize = 128;
const STATE_BYTES: usize = 16;

/// What the application keeps in the log beside its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Commands carried out, and a digest of them in order.
    commands: u64,
    digest: u32,
    /// Readings to post in all.
    target: u32,
}

impl State {
    fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        out[0..8].copy_from_slice(&self.commands.to_le_bytes());
        out[8..12].copy_from_slice(&self.digest.to_le_bytes());
        out[12..16].copy_from_slice(&self.target.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let commands = u64::from(word(0)) | u64::from(word(4)) << 32;
        Self { commands, digest: word(8), target: word(12) }
    }
}

/// The log and what is in memory beside it.
pub struct App {
    log: FlashLog<RamFlash>,
    name: Name,
    state: State,
    /// What the state will be when the commands that have arrived are durable.
    staged: State,
    fault: Option<u32>,
}

impl App {
    pub fn new(log: FlashLog<RamFlash>, name: Name) -> Self {
        let state = State::decode(log.application());
        Self { log, name, state, staged: state, fault: None }
    }

    pub const fn instance(&self) -> u64 {
        self.log.instance()
    }

    pub const fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    pub const fn waiting(&self) -> u64 {
        self.log.waiting()
    }

    /// Whether more readings are to be posted than the log has.
    fn wants_reading(&self) -> bool {
        self.log.appended() < u64::from(self.state.target)
    }

    /// Posts the next reading, if one is wanted and there is room for it. Whether one was posted.
    pub fn post_reading(&mut self) -> bool {
        if !self.wants_reading() {
            return false;
        }
        let mut body = Text { bytes: [0; 48], len: 0 };
        // The text holds the longest that three numbers make.
        let number = self.log.appended() + 1;
        let _ = write!(body, "{number} {} {:08x}", self.state.commands, self.state.digest);
        let message = Message {
            message_type: "reading",
            origin_name: self.name.as_str(),
            body: &body.bytes[..body.len],
            ..Message::default()
        };
        let mut bytes = [0; RECORD_BYTES_MAX];
        let id = RecordId { class: CLASS, ..RecordId::default() };
        let Ok(len) = record::encode(&message, id, Stamp::UNSET, &mut bytes, crc32c) else {
            return false;
        };
        match self.log.append(&mut bytes[..len]) {
            Ok(_) => true,
            Err(FlashError::Full) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Store for App {
    fn queue(&mut self, queue: QueueKey) -> QueueState {
        let epoch = self.log.epoch();
        if queue.class != CLASS {
            return QueueState { epoch, ..QueueState::default() };
        }
        let (released, next) = (self.log.queue_released(), self.log.queue_next());
        QueueState { epoch, released, next }
    }

    fn fill(&mut self, _: QueueKey, first: Cursor, out: &mut [u8]) -> Result<Fill, Failure> {
        match self.log.fill(first, out) {
            Ok(FlashFill::Records(records, bytes)) => Ok(Fill::Records(records, bytes)),
            Ok(FlashFill::Gone { next, reason }) => Ok(Fill::Gone { next, reason }),
            Ok(FlashFill::End) | Err(_) => Err(Failure::Io),
        }
    }

    fn release(&mut self, queue: QueueKey, through: Position) {
        if queue.class == CLASS {
            self.log.release(through);
        }
    }

    fn place(&mut self, stream: &StreamKey) -> Option<(Epoch, Position)> {
        self.log.place(stream)
    }

    /// Does what a command says, as far as that is memory.
    fn take(&mut self, _: &StreamKey, record: &[u8]) -> Result<(), Failure> {
        let command = Record::check(record, crc32c).map_err(|_| Failure::Corrupt)?.body();
        let state = &mut self.staged;
        state.commands += 1;
        let parts = [state.digest.to_le_bytes(), crc32c(command).to_le_bytes()];
        state.digest = crc32c(parts.as_flattened());
        let text = core::str::from_utf8(command).unwrap_or("");
        if let Some((verb, number)) = text.split_once(' ')
            && let Ok(number) = number.parse::<u32>()
        {
            match verb {
                "post" => state.target = state.target.saturating_add(number),
                "reset" => self.fault = Some(number),
                _ => {}
            }
        } else if text == "stack" {
            println!("stack: {} bytes", board::stack_bytes());
        }
        Ok(())
    }

    fn commit(&mut self, stream: &StreamKey, next: Position) -> Result<(), Failure> {
        let done = self.log.take(stream, next, &self.staged.encode());
        match done {
            Ok(()) => self.state = self.staged,
            Err(_) => {
                self.discard();
                return Err(Failure::Full);
            }
        }
        if let Some(steps) = self.fault.take() {
            self.log.flash().plan_fault(steps);
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.staged = self.state;
        self.fault = None;
    }

    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position {
        if queue.class == CLASS { self.log.place_reader(epoch, position) } else { Position(0) }
    }
}

/// A short text that is written piece by piece.
struct Text {
    bytes: [u8; 48],
    len: usize,
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
