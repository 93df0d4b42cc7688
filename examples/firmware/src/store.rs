//! What the application does with the log: readings out, commands in.

use core::fmt::Write as _;

use replcore::contract::{Answer, Failure};
use replcore::log::crc32c;
use replcore::log::record::{self, EntryError, Message, Record};
use replcore::stream::{Cursor, Epoch, Name, Position, RecordId, StreamKey};
use replcore::time::Stamp;
use replcore::wire::Records;

use crate::CLASS;
use crate::board::Board;
use crate::flash_log::{FlashLog, Place, RECORD_BYTES_MAX, State};

/// A record that has begun to arrive. One that is longer than the memory for it is let go by and
/// counted, so that it does not stand in the way for ever.
struct Part {
    bytes: [u8; RECORD_BYTES_MAX],
    /// Bytes that have arrived; those beyond the memory were dropped.
    len: usize,
    class: u8,
}

impl Part {
    const NONE: Self = Self { bytes: [0; RECORD_BYTES_MAX], len: 0, class: 0 };

    /// Takes bytes of `rest` up to the end of the record. Whether that was reached.
    fn take(&mut self, rest: &mut &[u8]) -> Result<bool, Failure> {
        let head = record::ENTRY_HEADER_BYTES;
        let wanted = if self.len < head { head } else { self.length()? };
        let count = rest.len().min(wanted - self.len);
        let (bytes, later) = rest.split_at(count);
        for &byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
            }
            self.len += 1;
        }
        *rest = later;
        Ok(self.len >= head && self.len == self.length()?)
    }

    fn length(&self) -> Result<usize, Failure> {
        let have = self.len.min(RECORD_BYTES_MAX);
        match record::entry_length(&self.bytes[..have], u32::MAX) {
            Ok(length) | Err(EntryError::Incomplete(length)) => Ok(length),
            Err(_) => Err(Failure::Corrupt),
        }
    }
}

/// The log and what is in memory beside it.
pub struct Store {
    pub log: FlashLog,
    name: Name,
    part: Part,
    /// Commands that were too long.
    pub too_long: u32,
}

impl Store {
    pub const fn new(log: FlashLog, name: Name) -> Self {
        Self { log, name, part: Part::NONE, too_long: 0 }
    }

    /// Whether more readings are to be posted than the log has, and it has room.
    pub fn has_work(&self) -> bool {
        self.log.posted() < u64::from(self.log.state().target) && !self.log.is_full()
    }

    /// Posts the next reading, if one is wanted and there is room for it.
    pub fn post_reading(&mut self, board: &mut Board) -> bool {
        if self.log.posted() >= u64::from(self.log.state().target) {
            return false;
        }
        let state = *self.log.state();
        let number = self.log.posted() + 1;
        let name = self.name;
        let mut body = Text { bytes: [0; 48], len: 0 };
        // The text holds the longest that three numbers make.
        let _ = write!(body, "{number} {} {:08x}", state.commands, state.digest);
        let posted = self.log.post(board, |epoch, seq, out| {
            let id = RecordId { origin: name.node_id(), epoch, class: CLASS, seq };
            let message = Message {
                message_type: "reading",
                origin_name: name.as_str(),
                body: body.as_bytes(),
                ..Message::default()
            };
            record::encode(&message, id, Stamp::UNSET, out, crc32c).unwrap_or(0)
        });
        posted.is_ok()
    }

    /// How far an incoming stream was taken.
    pub fn inbound(&self, source: &StreamKey) -> Answer {
        let state = self.log.state();
        let place = state.places[usize::from(source.queue.class) % state.places.len()];
        if state.owner != source.owner.0 || place.epoch == 0 {
            return Answer::Inbound { epoch: source.epoch, cursor: Cursor::default() };
        }
        let cursor = Cursor::at(Position(place.position));
        Answer::Inbound { epoch: Epoch(place.epoch), cursor }
    }

    /// Forgets what has begun to arrive.
    pub fn link_down(&mut self) {
        self.part.len = 0;
    }

    /// Carries out the commands in `body` and makes that durable together with how far the stream
    /// was taken. On error nothing was carried out.
    pub fn take(
        &mut self,
        board: &mut Board,
        source: &StreamKey,
        records: &Records,
        body: &[u8],
    ) -> Result<Cursor, Failure> {
        let offset = records.first.offset as usize;
        let goes_on = self.part.class == source.queue.class && self.part.len == offset;
        if records.raw_bytes != 0 || (offset > 0 && !goes_on) {
            return self.refuse(Failure::Corrupt);
        }
        if offset == 0 {
            self.part.len = 0;
            self.part.class = source.queue.class;
        }
        let mut state = self.placed(source, records.next().position);
        let (mut rest, mut completed, mut fault) = (body, 0, None);
        while !rest.is_empty() {
            match self.part.take(&mut rest) {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(reason) = self.carry_out(&mut state, &mut fault) {
                        return self.refuse(reason);
                    }
                    completed += 1;
                    self.part.len = 0;
                }
                Err(reason) => return self.refuse(reason),
            }
        }
        if completed != records.completed || self.part.len != records.next().offset as usize {
            return self.refuse(Failure::Corrupt);
        }
        if completed > 0 && self.log.store(board, state).is_err() {
            return self.refuse(Failure::Full);
        }
        if let Some(words) = fault {
            board.plan_fault(words);
        }
        Ok(records.next())
    }

    /// Notes that entries up to `next` will not come.
    pub fn skip(
        &mut self,
        board: &mut Board,
        source: &StreamKey,
        next: Position,
    ) -> Result<Cursor, Failure> {
        self.part.len = 0;
        let state = self.placed(source, next);
        self.log.store(board, state).map_err(|_| Failure::Full)?;
        Ok(Cursor::at(next))
    }

    fn refuse(&mut self, reason: Failure) -> Result<Cursor, Failure> {
        self.part.len = 0;
        Err(reason)
    }

    /// The state with the place of a stream moved.
    fn placed(&self, source: &StreamKey, position: Position) -> State {
        let mut state = *self.log.state();
        if state.owner != source.owner.0 {
            state.places = [Place::default(); 4];
            state.owner = source.owner.0;
        }
        let class = usize::from(source.queue.class) % state.places.len();
        state.places[class] = Place { epoch: source.epoch.0, position: position.0 };
        state
    }

    /// Does what the record that has arrived says.
    fn carry_out(&mut self, state: &mut State, fault: &mut Option<u32>) -> Result<(), Failure> {
        if self.part.len > RECORD_BYTES_MAX {
            self.too_long += 1;
            return Ok(());
        }
        let bytes = &self.part.bytes[..self.part.len];
        let command = Record::check(bytes, crc32c).map_err(|_| Failure::Corrupt)?.body();
        state.commands += 1;
        let parts = [state.digest.to_le_bytes(), crc32c(command).to_le_bytes()];
        state.digest = crc32c(parts.as_flattened());
        let text = core::str::from_utf8(command).unwrap_or("");
        if let Some((verb, number)) = text.split_once(' ')
            && let Ok(number) = number.parse::<u32>()
        {
            match verb {
                "post" => state.target = state.target.saturating_add(number),
                "reset" => *fault = Some(number),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A short text that is written piece by piece.
struct Text {
    bytes: [u8; 48],
    len: usize,
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
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
