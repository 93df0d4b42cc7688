//! A hub machine in memory at the other end of a device's line, with real records.

use replcore::contract::{
    Answer, Input, LinkId, Machine, Output, Query, SkipReason, StreamIndex, Transport,
};
use replcore::driver::Framing;
use replcore::lease::{LeaseServer, LeaseSlot};
use replcore::link::LinkSettings;
use replcore::node::{LinkSlot, Node, NodeConfig, NodeMemory};
use replcore::stream::{Cursor, Epoch, Name, Position, StreamKey};
use replcore::time::Instant;
use replcore::transport::cobs;
use replcore::wire::{FRAME_BYTES_MIN, Records, records_header};
use replcore::{Timer, wire};

use crate::records;

const LINK: LinkId = LinkId(0);

/// Records that come next.
type Take = (StreamIndex, StreamKey, Records);

pub(crate) struct Hub {
    node: Node<'static>,
    framing: Framing,
    decoder: cobs::Decoder,
    frame: Vec<u8>,
    /// Bytes that came over a stream and are not used yet.
    unread: Vec<u8>,
    order: Option<(Option<Take>, u32)>,
    pub(crate) output: Vec<u8>,
    up: bool,
    /// The records that came, and the place in their stream.
    pub(crate) bytes: Vec<u8>,
    taken: Option<(StreamKey, Cursor)>,
    pub(crate) gaps: Vec<(Position, Position, SkipReason)>,
    /// What is for the device.
    queue: Vec<Vec<u8>>,
    pub(crate) released: u64,
    watcher: Option<StreamIndex>,
}

impl Hub {
    pub(crate) fn new(framing: Framing) -> Self {
        let name = Name::new("central").unwrap();
        let mut settings = LinkSettings::new(name, 7, Epoch(1 << 16));
        settings.retransmit_ms = 200;
        settings.keepalive_ms = 500;
        let slots = LeaseServer::slots_for(8);
        let node = Node::new(
            NodeConfig::new(settings, 1),
            NodeMemory {
                links: vec![LinkSlot::FREE; 2].leak(),
                leases: vec![LeaseSlot::FREE; slots].leak(),
                lease_timers: vec![Timer::NONE; slots].leak(),
                dials: Vec::new().leak(),
                timers: vec![Timer::NONE; 2].leak(),
                ready: vec![0; 2].leak(),
            },
        );
        Self {
            node,
            framing,
            decoder: cobs::Decoder::new(),
            frame: vec![0; cobs::decode_buffer_bytes(wire::FRAME_BYTES_MAX as usize)],
            unread: Vec::new(),
            order: None,
            output: Vec::new(),
            up: false,
            bytes: Vec::new(),
            taken: None,
            gaps: Vec::new(),
            queue: Vec::new(),
            released: 0,
            watcher: None,
        }
    }

    /// The records that came, in order.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        records::bodies(&self.bytes)
    }

    pub(crate) fn post(&mut self, now: Instant, body: &[u8]) {
        let number = self.queue.len() as u64 + 1;
        self.queue.push(records::record(Name::new("central").unwrap().node_id(), number, body));
        if let Some(stream) = self.watcher {
            let next = Position(number);
            self.feed(now, Input::Appended { link: LINK, stream, next });
        }
    }

    /// The line has broken, as a stream's does.
    pub(crate) fn cut(&mut self, now: Instant) {
        if self.up {
            (self.up, self.watcher, self.order) = (false, None, None);
            self.unread.clear();
            self.output.clear();
            self.feed(now, Input::LinkDown { link: LINK });
        }
    }

    fn feed(&mut self, now: Instant, input: Input<'_>) -> usize {
        let taken = self.node.handle(now, input);
        self.drain(now);
        taken
    }

    /// Takes what came over the line.
    pub(crate) fn turn(&mut self, now: Instant, line: &[u8]) {
        if !self.up && (self.framing == Framing::Cobs || !line.is_empty()) {
            self.up = true;
            let transport = match self.framing {
                Framing::Cobs => Transport::Datagram,
                Framing::Stream => Transport::Stream,
            };
            let (dialed, identity) = (None, None);
            self.feed(now, Input::LinkUp { link: LINK, dialed, transport, identity });
            self.feed(now, Input::Writable { link: LINK, bytes: 1 << 20 });
        }
        self.feed(now, Input::Timeout);
        match self.framing {
            Framing::Cobs => {
                let mut rest = line;
                while !rest.is_empty() {
                    let taken = self.decoder.take(rest, &mut self.frame);
                    rest = &rest[taken.bytes..];
                    if let Some(len) = taken.frame {
                        self.unread = self.frame[..len].to_vec();
                        self.consume(now);
                        self.order = None;
                    }
                }
            }
            Framing::Stream => {
                self.unread.extend_from_slice(line);
                self.consume(now);
            }
        }
    }

    fn consume(&mut self, now: Instant) {
        loop {
            if let Some((take, len)) = self.order {
                if self.unread.len() < len as usize {
                    return;
                }
                self.order = None;
                let rest = self.unread.split_off(len as usize);
                let body = core::mem::replace(&mut self.unread, rest);
                if let Some((stream, source, records)) = take {
                    self.take(now, stream, source, &records, &body);
                }
                continue;
            }
            let bytes = core::mem::take(&mut self.unread);
            let used = self.feed(now, Input::Recv { link: LINK, data: &bytes });
            self.unread = bytes[used..].to_vec();
            if used == 0 {
                return;
            }
        }
    }

    fn take(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        source: StreamKey,
        records: &Records,
        body: &[u8],
    ) {
        let cursor = self.taken.map_or(Cursor::default(), |taken| taken.1);
        assert_eq!(cursor, records.first, "a gap or a repetition");
        self.bytes.extend_from_slice(body);
        let next = records.next();
        self.taken = Some((source, next));
        self.feed(now, Input::Taken { link: LINK, stream, next, bytes: body.len() as u32 });
    }

    fn drain(&mut self, now: Instant) {
        let mut buf = vec![0; FRAME_BYTES_MIN as usize];
        loop {
            match self.node.poll(&mut buf) {
                Output::Idle { .. } => return,
                Output::Send { len, .. } => {
                    self.write(&buf[..len]);
                    let bytes = len as u32;
                    self.node.handle(now, Input::Writable { link: LINK, bytes });
                }
                Output::SendRecords { stream, first, bytes_max, round, .. } => {
                    self.send(now, stream, first, bytes_max as usize, round);
                }
                Output::TakeRecords { stream, source, records, len, .. } => {
                    self.order = Some((Some((stream, source, records)), len));
                }
                Output::SkipBytes { len, .. } => self.order = Some((None, len)),
                Output::TakeSkip { stream, source, first, next, reason, .. } => {
                    self.gaps.push((first, next, reason));
                    let next = Cursor::at(next);
                    self.taken = Some((source, next));
                    self.node.handle(now, Input::Taken { link: LINK, stream, next, bytes: 0 });
                }
                Output::Place { stream, source, position, .. } => {
                    let next = Cursor::at(position);
                    self.taken = Some((source, next));
                    self.node.handle(now, Input::Taken { link: LINK, stream, next, bytes: 0 });
                }
                Output::Release { through, .. } => self.released = through.0,
                Output::Ask { token, query, .. } => {
                    let answer = self.answer(query);
                    self.node.handle(now, Input::Answer { token, answer });
                }
                Output::Hangup { .. } => {
                    (self.up, self.watcher) = (false, None);
                    self.node.handle(now, Input::LinkDown { link: LINK });
                }
                Output::Persist { token, .. } => {
                    self.node.handle(now, Input::Persisted { token });
                }
                Output::Halted { reason } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Inbound(source) => {
                let same = |taken: &(StreamKey, Cursor)| taken.0.queue == source.queue;
                let (epoch, cursor) = match self.taken.filter(same) {
                    Some((key, cursor)) => (key.epoch, cursor),
                    None => (source.epoch, Cursor::default()),
                };
                Answer::Inbound { epoch, cursor }
            }
            Query::Outbound { stream, queue, .. } if queue.class == records::CLASS => {
                self.watcher = Some(stream);
                let next = Position(self.queue.len() as u64);
                let released = Position(self.released);
                Answer::Outbound { epoch: Epoch(1 << 16), released, next, sent: next }
            }
            Query::Outbound { .. } => {
                let zero = Position(0);
                Answer::Outbound { epoch: Epoch(1 << 16), released: zero, next: zero, sent: zero }
            }
            Query::Place { position, .. } => Answer::Place { position },
            Query::Subscribe { .. } => Answer::Denied,
        }
    }

    fn send(&mut self, now: Instant, stream: StreamIndex, first: Cursor, most: usize, round: u8) {
        let next = self.queue.len();
        let (records, body) =
            records::fill(&self.queue, first, most, next).expect("something to send");
        let records = Records { round, ..records };
        let mut frame = records_header(stream.0, &records, body.len() as u32).to_vec();
        frame.extend_from_slice(&body);
        self.write(&frame);
        let (next, wire_bytes, bytes) = (records.next(), frame.len() as u32, body.len() as u32);
        self.node.handle(now, Input::Sent { link: LINK, stream, next, bytes, wire_bytes });
        self.node.handle(now, Input::Writable { link: LINK, bytes: wire_bytes });
    }

    fn write(&mut self, frame: &[u8]) {
        match self.framing {
            Framing::Stream => self.output.extend_from_slice(frame),
            Framing::Cobs => {
                let mut packet = vec![0; cobs::encoded_bytes_max(frame.len())];
                let len = cobs::encode(frame, &mut packet).unwrap();
                self.output.extend_from_slice(&packet[..len]);
            }
        }
    }
}
