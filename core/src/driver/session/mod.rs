//! A leaf on one line, but for the line.

use super::part::Part;
use super::{Fill, QueueState, Store, Turn};
use crate::contract::{
    Answer, DialIndex, Failure, Input, LinkId, Machine, Output, Query, StreamIndex, Transport,
};
use crate::leaf::{Leaf, LeafEvent};
use crate::stream::{CLASSES, Cursor, Position, QueueKey, StreamKey};
use crate::time::Instant;
use crate::transport::cobs;
use crate::wire::{CONTROL_FRAME_BYTES_MAX, RECORDS_OVERHEAD_BYTES, Records, records_header};

#[cfg(feature = "noise")]
mod secure;

const LINK: LinkId = LinkId(0);

/// What stands between frames and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Framing {
    /// A serial line that is always there and may lose bytes: COBS packets with a checksum.
    Cobs,
    /// A connection that keeps every byte in order until it breaks: TCP.
    Stream,
}

/// The caller's memory. A frame is at most what
/// [`frame_bytes_max`](crate::link::LinkSettings::frame_bytes_max) of the leaf says. On a secured line
/// `incoming` and `outgoing` take a packet's overhead more, and `packet` what follows of it.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// For a frame that arrives; [`cobs::decode_buffer_bytes`] of the longest.
    pub incoming: &'a mut [u8],
    /// For a frame that is sent, at least [`CONTROL_FRAME_BYTES_MAX`] bytes.
    pub outgoing: &'a mut [u8],
    /// With [`Framing::Cobs`], for its packet: [`cobs::encoded_bytes_max`] of `outgoing` and one
    /// more. Else empty.
    pub packet: &'a mut [u8],
    /// For a record that arrives in parts. Longer ones are let go by and counted.
    pub record: &'a mut [u8],
}

/// A buffer is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BuffersError {
    /// `incoming` needs this many bytes.
    Incoming(usize),
    /// `outgoing` needs this many bytes.
    Outgoing(usize),
    /// `packet` needs this many bytes.
    Packet(usize),
    /// `record` needs this many bytes.
    Record(usize),
}

/// What is to be done next with the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// Write all of [`Session::output`].
    Write,
    /// Nothing to write.
    Done(Turn),
}

/// What was ordered about the bytes that come next.
#[derive(Clone, Copy, Debug)]
enum Order {
    Take { stream: StreamIndex, source: StreamKey, records: Records, len: u32 },
    Skip { len: u32 },
}

/// A queue that the machine watches, and how far it was told that it goes.
#[derive(Clone, Copy, Debug)]
struct Watch {
    stream: StreamIndex,
    queue: QueueKey,
    told: Position,
}

/// A leaf on one line. See the [module](super).
#[derive(Debug)]
pub struct Session<'a> {
    leaf: &'a mut Leaf,
    framing: Framing,
    decoder: cobs::Decoder,
    incoming: &'a mut [u8],
    /// Of `incoming`: bytes that are there, and how many of them are done with.
    have: usize,
    done: usize,
    /// Offering the rest of `incoming` again may come to something.
    offer: bool,
    part: Part<'a>,
    outgoing: &'a mut [u8],
    packet: &'a mut [u8],
    /// Bytes to write, and the credit that comes back when they are written.
    output: usize,
    credit: u32,
    /// The next packet ends first what noise or a reset has begun on the line.
    lead: bool,
    connected: bool,
    order: Option<Order>,
    watches: [Option<Watch>; CLASSES],
    /// The connection is of no use any more.
    broken: bool,
    /// Records let go by because they were longer than the memory for one.
    too_long: u32,
    #[cfg(feature = "noise")]
    secure: Option<secure::Secure<'a>>,
    /// Bytes of a start packet that is to be written.
    #[cfg(feature = "noise")]
    start_bytes: usize,
}

impl<'a> Session<'a> {
    /// A session without a connection.
    ///
    /// # Errors
    /// A buffer is too short.
    pub fn new(
        leaf: &'a mut Leaf,
        framing: Framing,
        buffers: Buffers<'a>,
    ) -> Result<Self, BuffersError> {
        let incoming = cobs::decode_buffer_bytes(leaf.frame_bytes_max() as usize);
        let packet = match framing {
            Framing::Cobs => cobs::encoded_bytes_max(buffers.outgoing.len()) + 1,
            Framing::Stream => 0,
        };
        if buffers.incoming.len() < incoming {
            return Err(BuffersError::Incoming(incoming));
        }
        if buffers.outgoing.len() < CONTROL_FRAME_BYTES_MAX {
            return Err(BuffersError::Outgoing(CONTROL_FRAME_BYTES_MAX));
        }
        if buffers.packet.len() < packet {
            return Err(BuffersError::Packet(packet));
        }
        if buffers.record.len() < crate::log::record::RECORD_HEADER_BYTES {
            return Err(BuffersError::Record(crate::log::record::RECORD_HEADER_BYTES));
        }
        Ok(Self {
            leaf,
            framing,
            decoder: cobs::Decoder::new(),
            incoming: buffers.incoming,
            have: 0,
            done: 0,
            offer: false,
            part: Part::new(buffers.record),
            outgoing: buffers.outgoing,
            packet: buffers.packet,
            output: 0,
            credit: 0,
            lead: true,
            connected: false,
            order: None,
            watches: [None; CLASSES],
            broken: false,
            too_long: 0,
            #[cfg(feature = "noise")]
            secure: None,
            #[cfg(feature = "noise")]
            start_bytes: 0,
        })
    }

    /// The machine, for its commands and what it has counted.
    pub fn leaf(&mut self) -> &mut Leaf {
        self.leaf
    }

    /// What came over a serial line.
    pub const fn line_counters(&self) -> cobs::Counters {
        self.decoder.counters()
    }

    /// Records that were let go by because they were longer than the memory for one.
    pub const fn records_too_long(&self) -> u32 {
        self.too_long
    }

    /// The line that was wanted is open.
    pub fn connected(&mut self, now: Instant) {
        (self.connected, self.have, self.done, self.lead) = (true, 0, 0, true);
        let transport = match self.framing {
            Framing::Cobs => Transport::Datagram,
            Framing::Stream => Transport::Stream,
        };
        let dialed = Some(DialIndex(0));
        self.leaf.handle(now, Input::LinkUp { link: LINK, dialed, transport, identity: None });
        // Every frame is written before the next is asked for, so one is enough.
        let bytes = self.frame_room().len() as u32;
        self.leaf.handle(now, Input::Writable { link: LINK, bytes });
    }

    /// The line is closed, or could not be opened.
    pub fn disconnected(&mut self, now: Instant) {
        (self.have, self.done, self.output, self.credit) = (0, 0, 0, 0);
        self.broken = false;
        (self.order, self.offer, self.watches) = (None, false, [None; CLASSES]);
        self.part.forget();
        self.forget_keys();
        let input = match self.connected {
            true => Input::LinkDown { link: LINK },
            false => Input::DialFailed { dial: DialIndex(0) },
        };
        self.connected = false;
        self.leaf.handle(now, input);
    }

    /// How many bytes [`Self::receive`] takes at the most; 0 while those that are there have to wait.
    pub fn room(&self) -> usize {
        match self.framing {
            Framing::Cobs => usize::MAX,
            Framing::Stream => self.incoming.len() - (self.have - self.done),
        }
    }

    /// Takes bytes that the line has brought and answers how many. Before the rest is given, and
    /// before the session is left alone, [`Self::step`] until it is done.
    pub fn receive(&mut self, now: Instant, line: &[u8]) -> usize {
        match self.framing {
            Framing::Cobs => {
                let taken = self.decoder.take(line, self.incoming);
                let frame = taken.frame.and_then(|len| self.unpack(now, len));
                if let Some(frame) = frame.filter(|_| self.connected) {
                    (self.have, self.done, self.order) = (frame.end, frame.start, None);
                    self.offer(now);
                }
                taken.bytes
            }
            Framing::Stream => {
                self.make_room();
                let room = &mut self.incoming[self.have..];
                let count = room.len().min(line.len());
                room[..count].copy_from_slice(&line[..count]);
                self.have += count;
                self.offer(now);
                count
            }
        }
    }

    /// Moves what is not done with to the start of `incoming`. In pieces that do not overlap: `memmove`,
    /// which copies such that do, takes 700 bytes of a device's flash.
    fn make_room(&mut self) {
        let (mut to, mut from) = (0, self.done);
        while to < from && from < self.have {
            let count = (from - to).min(self.have - from);
            let (before, rest) = self.incoming.split_at_mut(from);
            before[to..to + count].copy_from_slice(&rest[..count]);
            (to, from) = (to + count, from + count);
        }
        (self.have, self.done) = (self.have - self.done, 0);
    }

    /// What a turn comes to when the line has ended: a serial line only pauses.
    pub(super) fn at_end(&self, turn: Turn) -> Turn {
        match self.framing {
            Framing::Cobs if !self.is_secured() => turn,
            Framing::Cobs | Framing::Stream => Turn::Disconnect,
        }
    }

    /// Gives the machine what is there, unless it has ordered what to do with it.
    fn offer(&mut self, now: Instant) {
        self.offer = false;
        if self.order.is_none() && self.done < self.have {
            let data = &self.incoming[self.done..self.have];
            self.done += self.leaf.handle(now, Input::Recv { link: LINK, data });
        }
    }

    /// What is to be written.
    pub fn output(&self) -> &[u8] {
        match self.framing {
            Framing::Cobs => &self.packet[..self.output],
            Framing::Stream => &self.outgoing[..self.output],
        }
    }

    /// Does what is due, up to the next write. Asking for a step says that the last write is done.
    pub fn step<S: Store>(&mut self, now: Instant, store: &mut S) -> Step {
        self.output = 0;
        if self.write_start() {
            return Step::Write;
        }
        let answer_due = self.answer_due(now);
        if self.credit > 0 {
            let bytes = core::mem::take(&mut self.credit);
            self.leaf.handle(now, Input::Writable { link: LINK, bytes });
        }
        self.tell_growth(now, store);
        self.leaf.handle(now, Input::Timeout);
        loop {
            if self.broken {
                return Step::Done(Turn::Disconnect);
            }
            if self.follow_order(now, store) {
                continue;
            }
            let room = self.frame_room();
            match self.leaf.poll(&mut self.outgoing[room]) {
                Output::Idle { wake } => {
                    if self.offer && self.order.is_none() && self.done < self.have {
                        self.offer(now);
                        continue;
                    }
                    return Step::Done(Turn::Wait(earlier(wake, answer_due)));
                }
                Output::Send { len, .. } => {
                    if self.write(len) {
                        return Step::Write;
                    }
                }
                Output::SendRecords { stream, queue, first, bytes_max, round, .. } => {
                    let order = (stream, queue, first, bytes_max, round);
                    if let Some(len) = self.fill(now, store, order)
                        && self.write(len)
                    {
                        return Step::Write;
                    }
                }
                Output::Dial { .. } if self.framing == Framing::Cobs && !self.is_secured() => {
                    self.connected(now);
                }
                Output::Dial { .. } => return Step::Done(Turn::Connect),
                Output::Hangup { .. } if self.framing == Framing::Cobs => self.disconnected(now),
                Output::Hangup { .. } => return Step::Done(Turn::Disconnect),
                Output::Halted { reason } => return Step::Done(Turn::Halted(reason)),
                output => self.obey(now, store, output),
            }
        }
    }

    /// Does what needs neither the line nor another poll.
    fn obey<S: Store>(&mut self, now: Instant, store: &mut S, output: Output<LeafEvent>) {
        match output {
            Output::TakeRecords { stream, source, records, len, .. } => {
                let is_there = self.have - self.done >= len as usize;
                if self.framing == Framing::Cobs && !is_there {
                    // What is not in its datagram never comes.
                    return self.report(now, stream, Err(Failure::Corrupt), len);
                }
                self.order = Some(Order::Take { stream, source, records, len });
            }
            Output::SkipBytes { len, .. } | Output::TakeCall { len, .. } => {
                self.order = Some(Order::Skip { len });
            }
            Output::TakeSkip { stream, source, next, .. } => {
                self.part.forget();
                let committed = store.commit(&source, next);
                self.report(now, stream, committed.map(|()| Cursor::at(next)), 0);
            }
            Output::Release { queue, through } => store.release(queue, through),
            Output::Place { stream, source, position, .. } => {
                self.part.forget();
                let committed = store.commit(&source, position);
                self.report(now, stream, committed.map(|()| Cursor::at(position)), 0);
            }
            Output::Ask { token, query, .. } => {
                let answer = self.answer(store, query);
                self.leaf.handle(now, Input::Answer { token, answer });
            }
            Output::Resume { .. } => self.offer = self.framing == Framing::Stream,
            Output::Event { event, .. } => store.event(event),
            // `outgoing` is never too short, and nothing else is ordered of a leaf.
            _ => {}
        }
    }

    /// Does what was ordered about the bytes that are there. Whether that was anything.
    fn follow_order<S: Store>(&mut self, now: Instant, store: &mut S) -> bool {
        let rest = self.have - self.done;
        match self.order {
            Some(Order::Skip { len }) if rest > 0 || len == 0 => {
                let count = rest.min(len as usize);
                self.done += count;
                let len = len - count as u32;
                self.order = (len > 0).then_some(Order::Skip { len });
            }
            Some(Order::Take { stream, source, records, len }) if rest >= len as usize => {
                self.order = None;
                let from = self.done;
                self.done += len as usize;
                let taken = self.take(store, stream, &source, &records, from..self.done);
                self.report(now, stream, taken, len);
            }
            _ => return false,
        }
        // What is not taken of a datagram is gone.
        self.offer = self.framing == Framing::Stream;
        true
    }

    fn report(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        taken: Result<Cursor, Failure>,
        bytes: u32,
    ) {
        let input = match taken {
            Ok(next) => Input::Taken { link: LINK, stream, next, bytes },
            Err(reason) => Input::Refused { link: LINK, stream, reason },
        };
        self.leaf.handle(now, input);
    }

    /// Takes the records in a part of `incoming`: all or, on error, none.
    fn take<S: Store>(
        &mut self,
        store: &mut S,
        stream: StreamIndex,
        source: &StreamKey,
        records: &Records,
        body: core::ops::Range<usize>,
    ) -> Result<Cursor, Failure> {
        let taken = self.take_parts(store, stream, source, records, body);
        if taken.is_err() {
            store.discard();
            self.part.forget();
        }
        taken
    }

    fn take_parts<S: Store>(
        &mut self,
        store: &mut S,
        stream: StreamIndex,
        source: &StreamKey,
        records: &Records,
        body: core::ops::Range<usize>,
    ) -> Result<Cursor, Failure> {
        let next = records.next();
        if records.raw_bytes != 0 || !self.part.goes_on(stream.0, records.first.offset as usize) {
            return Err(Failure::Corrupt);
        }
        let (mut rest, mut completed) = (&self.incoming[body], 0);
        while !rest.is_empty() {
            if self.part.take(&mut rest)? {
                match self.part.record() {
                    Some(record) => store.take(source, record)?,
                    None => self.too_long += 1,
                }
                completed += 1;
                self.part.forget();
            }
        }
        if completed != records.completed || self.part.len() != next.offset as usize {
            return Err(Failure::Corrupt);
        }
        if completed > 0 {
            store.commit(source, next.position)?;
        }
        Ok(next)
    }

    fn tell_growth<S: Store>(&mut self, now: Instant, store: &mut S) {
        for watch in self.watches.iter_mut().flatten() {
            let next = store.queue(watch.queue).next;
            if next > watch.told {
                watch.told = next;
                let stream = watch.stream;
                self.leaf.handle(now, Input::Appended { link: LINK, stream, next });
            }
        }
    }

    fn answer<S: Store>(&mut self, store: &mut S, query: Query) -> Answer {
        match query {
            Query::Inbound(source) => {
                let (epoch, position) = store.place(&source).unwrap_or((source.epoch, Position(0)));
                Answer::Inbound { epoch, cursor: Cursor::at(position) }
            }
            Query::Outbound { stream, queue, .. } => {
                let QueueState { epoch, released, next } = store.queue(queue);
                if let Some(watch) = self.watches.get_mut(usize::from(queue.class)) {
                    *watch = Some(Watch { stream, queue, told: next });
                }
                Answer::Outbound { epoch, released, next, sent: next }
            }
            Query::Place { queue, epoch, position } => {
                Answer::Place { position: store.place_reader(queue, epoch, position) }
            }
            Query::Subscribe { .. } => Answer::Denied,
        }
    }

    /// Puts a frame of records together; its length. Where there is none the machine is told.
    fn fill<S: Store>(
        &mut self,
        now: Instant,
        store: &mut S,
        (stream, queue, first, bytes_max, round): (StreamIndex, QueueKey, Cursor, u32, u8),
    ) -> Option<usize> {
        let room = self.frame_room();
        let (head, body) = self.outgoing[room].split_at_mut(RECORDS_OVERHEAD_BYTES);
        let room = body.len().min(bytes_max as usize);
        match store.fill(queue, first, &mut body[..room]) {
            Ok(Fill::Records(records, bytes)) => {
                let records = Records { round, ..records };
                head.copy_from_slice(&records_header(stream.0, &records, bytes as u32));
                let (next, len) = (records.next(), RECORDS_OVERHEAD_BYTES + bytes);
                let (bytes, wire_bytes) = (bytes as u32, len as u32);
                let input = Input::Sent { link: LINK, stream, next, bytes, wire_bytes };
                self.leaf.handle(now, input);
                Some(len)
            }
            Ok(Fill::Gone { next, reason }) => {
                self.leaf.handle(now, Input::Gone { link: LINK, stream, next, reason });
                None
            }
            Err(_) => {
                // Read again with the next connection.
                match self.framing {
                    Framing::Cobs => self.disconnected(now),
                    Framing::Stream => self.broken = true,
                }
                None
            }
        }
    }

    /// Makes the frame in `outgoing` what is to be written. Whether there is anything: a frame for a
    /// connection that has just ended is dropped.
    fn write(&mut self, len: usize) -> bool {
        if !self.connected {
            return false;
        }
        let Some(len_sealed) = self.seal(len) else {
            self.broken = true;
            return false;
        };
        self.credit = len as u32;
        match self.framing {
            Framing::Stream => self.output = len_sealed,
            Framing::Cobs => self.write_packet(len_sealed),
        }
        true
    }

    /// Makes the first bytes of `outgoing` a packet that is to be written.
    fn write_packet(&mut self, len: usize) {
        let lead = usize::from(core::mem::take(&mut self.lead));
        self.packet[0] = cobs::DELIMITER;
        // The packet has room for everything that fits `outgoing`.
        let content = &self.outgoing[..len];
        self.output = cobs::encode(content, &mut self.packet[lead..]).unwrap_or(0) + lead;
    }
}

/// What a line without keys does in place of what `secure` has.
#[cfg(not(feature = "noise"))]
impl Session<'_> {
    const fn is_secured(&self) -> bool {
        false
    }

    fn frame_room(&self) -> core::ops::Range<usize> {
        0..self.outgoing.len()
    }

    fn unpack(&mut self, _: Instant, len: usize) -> Option<core::ops::Range<usize>> {
        Some(0..len)
    }

    fn seal(&mut self, len: usize) -> Option<usize> {
        Some(len)
    }

    fn write_start(&mut self) -> bool {
        false
    }

    fn answer_due(&mut self, _: Instant) -> Option<Instant> {
        None
    }

    fn forget_keys(&mut self) {}
}

/// The earlier of two times, where both are.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
