//! What comes in: posts, and the bytes of incoming streams.

use replcore::contract::{Failure, Key};
use replcore::log::record::{ENTRY_HEADER_BYTES, Record, entry_length};
use replcore::stream::{CLASSES, Cursor, Epoch, NodeId, Position, QueueKey, StreamKey};
use replcore::wire::Records;

use super::disk::Disk;
use super::embedded::{SegmentStore, Staged, Stream};
use super::note::Note;
use super::plan::refusal;
use super::queues::NoteAt;
use super::{Arrival, PostError, Posted, Route};

/// The number under which a machine's key is stored.
const fn state_key(key: Key) -> (u8, u64) {
    match key {
        Key::Registration(NodeId(id)) => (1, id),
        Key::Ballot => (2, 0),
        Key::Members => (3, 0),
        Key::Term(NodeId(id)) => (4, id),
    }
}

impl<D: Disk> SegmentStore<D> {
    pub(super) fn restore_states(&self, each: &mut dyn FnMut(Key, &[u8])) {
        for ((tag, id), state) in &self.states {
            match tag {
                1 => each(Key::Registration(NodeId(*id)), state),
                2 => each(Key::Ballot, state),
                3 => each(Key::Members, state),
                4 => each(Key::Term(NodeId(*id)), state),
                _ => {}
            }
        }
    }

    pub(super) fn persist_state(&mut self, key: Key, state: &[u8]) -> Result<(), Failure> {
        self.reserve(state.len(), 0, 1)?;
        let (tag, id) = state_key(key);
        self.note(Note::State { tag, id, bytes: state.to_vec() }, state.len());
        self.states.insert((tag, id), state.to_vec());
        Ok(())
    }

    pub(super) fn forget_state(&mut self, key: Key) {
        let (tag, id) = state_key(key);
        if self.states.remove(&(tag, id)).is_some() {
            self.note(Note::State { tag, id, bytes: Vec::new() }, 0);
        }
    }

    pub(super) fn post_record(
        &mut self,
        wall_ms: u64,
        bytes: &mut [u8],
        route: &mut dyn Route,
    ) -> Result<Posted, PostError> {
        self.wall_ms = wall_ms;
        if bytes.len() > self.config.message_bytes_max as usize {
            return Err(PostError::TooLarge(self.config.message_bytes_max));
        }
        let record = Record::check(bytes, crc32c::crc32c).map_err(refusal)?;
        let name = record.origin_name();
        if !name.is_empty() && name != self.log.identity.name.as_str() {
            return Err(PostError::OriginName);
        }
        let failed = |store: &mut Self, failure| match failure {
            Failure::Full => match store.refusing() {
                Some(queue) => PostError::QueueFull(queue),
                None => PostError::DiskFull,
            },
            Failure::Corrupt => PostError::OriginName,
            Failure::Io => PostError::Io,
        };
        self.last_refusing = None;
        self.plan_records(bytes, 1, Arrival::Local, route)
            .map_err(|failure| failed(self, failure))?;
        if let Some(known) = self.plan.posted {
            return Ok(Posted { id: known.id, duplicate: true });
        }
        let (size, records, notes) = self.plan_size();
        if let Err(failure) = self.reserve(size, records, notes) {
            self.undo_plan();
            self.counters.refused += 1;
            return Err(failed(self, failure));
        }
        let id = self.store_plan(bytes, Arrival::Local).ok_or(PostError::Io)?;
        Ok(Posted { id, duplicate: false })
    }

    /// The queue that refused the last plan.
    fn refusing(&mut self) -> Option<replcore::stream::Name> {
        self.last_refusing.take()
    }

    /// Where an incoming stream stands, with what this call has added and not yet committed.
    fn position(&self, source: &StreamKey) -> Result<u64, Failure> {
        match self.streams.get(&(source.owner, source.queue)) {
            // A life in which this stream was not placed, or which it has left.
            Some(stream) if stream.epoch != source.epoch => Err(Failure::Corrupt),
            Some(stream) => Ok(stream.position),
            None => Ok(0),
        }
    }

    pub(super) fn take_bytes(
        &mut self,
        wall_ms: u64,
        source: &StreamKey,
        records: &Records,
        bytes: &[u8],
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure::Io);
        }
        self.wall_ms = wall_ms;
        if usize::from(source.queue.class) >= CLASSES {
            return Err(Failure::Corrupt);
        }
        let position = self.position(source)?;
        let staged = self.staged.get(source).filter(|staged| staged.position == position);
        let had = staged.map_or(0, |staged| staged.bytes.len());
        let here = Cursor { position: Position(position), offset: had as u32 };
        if records.first != here {
            let old = records.next() <= here;
            // A part that is missing here was thrown away: the sender has to go back for it.
            return if old { Ok(()) } else { Err(Failure::Full) };
        }
        if had == 0 {
            return self.take_whole(source, position, records, bytes, 0, arrival, route);
        }
        let Some(mut staged) = self.unstage(source) else { return Err(Failure::Full) };
        staged.bytes.extend_from_slice(bytes);
        // What is not taken loses the staged part with it. A flipped bit may be in that, and kept it
        // would spoil every further try; and after no room the sender begins again with the record.
        self.take_whole(source, position, records, &staged.bytes, had, arrival, route)
    }

    /// Takes bytes that begin with the start of the record at `position`; `had` of them were there.
    #[allow(clippy::too_many_arguments, reason = "the parts of one frame")]
    fn take_whole(
        &mut self,
        source: &StreamKey,
        position: u64,
        records: &Records,
        bytes: &[u8],
        had: usize,
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        let end = self.plan_records(bytes, records.completed, arrival, route)?;
        let tail = &bytes[end..];
        let carried = if records.completed == 0 { had } else { 0 };
        let whole = tail.len() >= ENTRY_HEADER_BYTES
            && !matches!(
                entry_length(tail, self.config.message_bytes_max),
                Err(replcore::log::record::EntryError::Incomplete(_))
            );
        if tail.len() != carried + records.tail_bytes as usize || whole {
            self.undo_plan();
            self.counters.records_corrupt += 1;
            return Err(Failure::Corrupt);
        }
        if records.completed > 0 {
            let (size, new, notes) = self.plan_size();
            if let Err(failure) = self.reserve(size, new, notes + 1) {
                self.undo_plan();
                self.counters.refused += 1;
                return Err(failure);
            }
            self.store_plan(bytes, arrival);
            self.advance(source, position + u64::from(records.completed));
        }
        if !tail.is_empty() {
            let position = position + u64::from(records.completed);
            let used_at = self.used();
            self.stage(*source, Staged { position, bytes: tail.to_vec(), used_at });
        }
        Ok(())
    }

    pub(super) fn take_gap(
        &mut self,
        source: &StreamKey,
        first: Position,
        next: Position,
    ) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure::Io);
        }
        let position = self.position(source)?;
        if next.0 <= position {
            return Ok(());
        }
        if first.0 > position {
            return Err(Failure::Corrupt);
        }
        self.reserve(0, 0, 1)?;
        self.unstage(source);
        self.counters.skipped += next.0 - position;
        self.advance(source, next.0);
        Ok(())
    }

    pub(super) fn place_stream(
        &mut self,
        source: &StreamKey,
        position: Position,
    ) -> Result<(), Failure> {
        self.reserve(0, 0, 1)?;
        self.unstage(source);
        let name = (source.owner, source.queue);
        self.streams.remove(&name);
        self.advance(source, position.0);
        if let Some(stream) = self.streams.get_mut(&name) {
            // Everything before it was durable in the life before.
            stream.durable = position.0;
        }
        Ok(())
    }

    fn unstage(&mut self, source: &StreamKey) -> Option<Staged> {
        let staged = self.staged.remove(source)?;
        self.staged_bytes -= staged.bytes.len();
        Some(staged)
    }

    /// Keeps a part of a record in place of what was kept of that stream; too much of others goes.
    fn stage(&mut self, source: StreamKey, staged: Staged) {
        self.unstage(&source);
        self.staged_bytes += staged.bytes.len();
        self.staged.insert(source, staged);
        while self.staged_bytes > self.config.staged_bytes_max {
            let oldest = self.staged.iter().min_by_key(|staged| staged.1.used_at);
            let Some(oldest) = oldest.map(|staged| *staged.0) else { return };
            self.unstage(&oldest);
            self.counters.staged_dropped += 1;
        }
    }

    /// Moves the cursor of an incoming stream and notes it.
    fn advance(&mut self, source: &StreamKey, position: u64) {
        let name = (source.owner, source.queue);
        self.make_room_for_stream(&name);
        let used_at = self.used();
        let fresh = Stream {
            epoch: source.epoch,
            position: 0,
            durable: 0,
            note: NoteAt::default(),
            used_at,
        };
        let stream = self.streams.entry(name).or_insert(fresh);
        if stream.epoch != source.epoch {
            *stream = fresh;
        }
        stream.position = position;
        stream.used_at = used_at;
        let at = stream.note;
        let epoch_now = source.epoch.0;
        if let Some(Note::Cursor { position: noted, epoch, .. }) = self.noted(at)
            && *epoch == epoch_now
        {
            *noted = position;
            return;
        }
        let at = self.note(cursor_note(&name, source.epoch, position), 0);
        if let Some(stream) = self.streams.get_mut(&name) {
            stream.note = at;
        }
        self.dirty_streams.push(name);
    }

    /// At the limit of streams the one not heard of for longest is forgotten.
    pub(super) fn make_room_for_stream(&mut self, name: &(NodeId, QueueKey)) {
        let full = self.streams.len() >= self.config.streams_max as usize;
        if full && !self.streams.contains_key(name) {
            let oldest = self.streams.iter().min_by_key(|stream| stream.1.used_at);
            if let Some(oldest) = oldest.map(|stream| *stream.0) {
                self.streams.remove(&oldest);
                self.counters.streams_forgotten += 1;
            }
        }
    }

    pub(super) fn inbound_cursor(&self, source: &StreamKey) -> (Epoch, Cursor) {
        let Some(stream) = self.streams.get(&(source.owner, source.queue)) else {
            return (source.epoch, self.staged_cursor(source, 0));
        };
        let known = StreamKey { epoch: stream.epoch, ..*source };
        (stream.epoch, self.staged_cursor(&known, stream.durable))
    }

    fn staged_cursor(&self, source: &StreamKey, position: u64) -> Cursor {
        let staged = self.staged.get(source).filter(|staged| staged.position == position);
        let offset = staged.map_or(0, |staged| staged.bytes.len() as u32);
        Cursor { position: Position(position), offset }
    }
}

fn cursor_note(name: &(NodeId, QueueKey), epoch: Epoch, position: u64) -> Note {
    Note::Cursor {
        owner: name.0.0,
        queue: name.1.queue.0,
        class: name.1.class,
        epoch: epoch.0,
        position,
    }
}
