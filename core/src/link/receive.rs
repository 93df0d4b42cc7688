//! What comes in on a link: frames, and the driver's completions.

use super::stream::{Fit, Inbound, InboundState, Outbound, OutboundState};
use super::{
    FRAMES_PER_INPUT_MAX, Link, LinkSettings, Order, Peer, Phase, TOKEN_INBOUND, Upcall, due,
};
use crate::contract::{Answer, Failure, SkipReason, StreamIndex, Token, Transport};
use crate::stream::{CLASSES, Cursor, Epoch, Name, Position, QueueKey, StreamKey};
use crate::time::Instant;
use crate::wire::{self, Control, Frame};

impl<const QUEUES: usize> Link<QUEUES> {
    /// Takes frames from the start of `data` until one concerns the owner, is followed by bytes
    /// for the driver, or is not complete.
    pub(crate) fn recv<'d>(
        &mut self,
        now: Instant,
        data: &'d [u8],
        settings: &LinkSettings,
    ) -> (usize, Option<Upcall<'d>>) {
        if !data.is_empty() {
            self.heard_at = now;
        }
        let mut taken = 0;
        for _ in 0..FRAMES_PER_INPUT_MAX {
            let done = taken == data.len() || self.order.is_some();
            if done || !matches!(self.phase, Phase::Greeting | Phase::Open) {
                return (taken, None);
            }
            match wire::decode_of_link(&data[taken..], settings.frame_bytes_max) {
                Ok(None) => return (taken, None),
                Ok(Some((frame, bytes))) => {
                    taken += bytes;
                    if let Some(upcall) = self.frame(now, &frame, settings) {
                        return (taken, Some(upcall));
                    }
                }
                Err(error) => {
                    self.malformed(error);
                    return (taken, None);
                }
            }
        }
        if taken < data.len() {
            self.due |= due::RESUME_INPUT;
        }
        (taken, None)
    }

    fn malformed(&mut self, error: wire::FrameError) {
        match error {
            wire::FrameError::Length => self.stats.bad_length += 1,
            wire::FrameError::Checksum => self.stats.bad_checksum += 1,
            wire::FrameError::Type(_) => self.stats.bad_type += 1,
            wire::FrameError::Payload => self.stats.bad_payload += 1,
        }
        // A damaged datagram is a lost one. In a stream nothing after it can be trusted.
        if self.transport == Transport::Stream {
            self.abandon();
        }
    }

    fn violation(&mut self) {
        self.stats.violations += 1;
        if self.transport == Transport::Stream {
            self.abandon();
        }
    }

    fn frame<'d>(
        &mut self,
        now: Instant,
        frame: &Frame<'d>,
        settings: &LinkSettings,
    ) -> Option<Upcall<'d>> {
        match *frame {
            Frame::Control { control: Control::Hello(hello), .. } => self.hello(hello, settings),
            Frame::Control { control: Control::Refuse(refuse), .. } => {
                self.abandon();
                Some(Upcall::Refused(refuse))
            }
            Frame::Control { control: Control::Redirect(redirect), .. } => {
                self.abandon();
                Some(Upcall::Redirected(redirect))
            }
            _ if self.phase != Phase::Open => {
                self.violation();
                self.pass_over(frame);
                if self.phase == Phase::Greeting && self.dialed.is_none() {
                    // On a line that does not break the dialler still believes in the link of an
                    // earlier life of this node. Told so, it greets again at once.
                    self.bye = wire::Bye { reason: wire::ByeReason::Unknown, retry_after_ms: 0 };
                    self.due |= due::BYE;
                }
                None
            }
            Frame::Control { stream, ref control } => self.control(now, stream, control, settings),
            Frame::Records { stream, records, len } => {
                self.records(stream, records, len, settings);
                None
            }
            Frame::Call { call, len } => {
                self.order = Some(Order::Call { id: call.id, reply: call.reply, len });
                None
            }
        }
    }

    /// Has the driver throw away the body of a frame that is not wanted.
    fn pass_over(&mut self, frame: &Frame<'_>) {
        if let Frame::Records { len, .. } | Frame::Call { len, .. } = *frame
            && len > 0
        {
            self.order = Some(Order::Skip { len });
        }
    }

    fn hello<'d>(&mut self, hello: wire::Hello<'d>, settings: &LinkSettings) -> Option<Upcall<'d>> {
        if let Some(peer) = &self.peer {
            if self.transport == Transport::Datagram && peer.has_said(&hello) {
                // Our answer was lost, or the line repeats frames. Only the end that answers does
                // so again: if both did, one repetition would echo for ever.
                if self.dialed.is_none() {
                    self.due |= due::HELLO;
                }
            } else if self.transport == Transport::Datagram {
                // The other end has started anew without the line noticing: so do we.
                self.abandon();
            } else {
                self.violation();
            }
            return None;
        }
        if hello.magic != *b"RPLC" {
            self.violation();
            return None;
        }
        if hello.version_min > wire::VERSION_MAX || hello.version_max < wire::VERSION_MIN {
            self.refuse(wire::RefuseReason::Version, 0);
            return None;
        }
        let Ok(name) = Name::from_bytes(hello.name.0) else {
            self.refuse(wire::RefuseReason::Name, 0);
            return None;
        };
        if self.identity.is_some_and(|identity| identity != name.node_id()) {
            self.refuse(wire::RefuseReason::Identity, 0);
            return None;
        }
        self.peer = Some(Peer {
            name,
            id: name.node_id(),
            role: hello.role,
            instance: hello.instance,
            epoch: hello.epoch,
            features: hello.features & settings.features,
            frame_bytes_max: hello
                .frame_bytes_max
                .clamp(wire::FRAME_BYTES_MIN, wire::FRAME_BYTES_MAX),
            keepalive_ms: hello.keepalive_ms.max(1),
            session: hello.session,
        });
        self.phase = Phase::Open;
        self.due &= !due::BYE;
        if self.dialed.is_none() {
            self.due |= due::HELLO;
        }
        Some(Upcall::Greeted)
    }

    fn control<'d>(
        &mut self,
        now: Instant,
        stream: u8,
        control: &Control<'d>,
        settings: &LinkSettings,
    ) -> Option<Upcall<'d>> {
        match *control {
            Control::Register(register) => return Some(Upcall::Register(register)),
            Control::Lease(wire::Lease { lease_ms }) => {
                return Some(Upcall::Lease(wire::TermLease { lease_ms, term: 0 }));
            }
            Control::TermLease(lease) => return Some(Upcall::Lease(lease)),
            Control::Subscribe(subscribe) => return Some(Upcall::Subscribe(subscribe)),
            Control::Bye(bye) => {
                self.abandon();
                return Some(Upcall::Bye(bye));
            }
            Control::Ping(number) => {
                self.pong = number;
                self.due |= due::PONG;
            }
            Control::Pong(number) => self.pong_heard(now, number),
            Control::Open(open) => self.open(stream, open),
            Control::Resume(resume) => self.resume(now, stream, resume, settings),
            Control::Ack(ack) => self.acknowledged(now, stream, ack, settings),
            Control::Skip(skip) => self.skip(stream, skip),
            Control::Reject(reject) => self.rejected(stream, reject),
            // These are taken in `frame`.
            Control::Hello(_) | Control::Refuse(_) | Control::Redirect(_) => {}
            // `decode_of_link` gives none of the others.
            _ => self.violation(),
        }
        None
    }

    fn pong_heard(&mut self, now: Instant, number: u32) {
        if number == self.ping
            && let Some(at) = self.ping_at.take()
        {
            let micros = now.as_micros().saturating_sub(at.as_micros());
            self.round_trip_us = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
        }
    }

    fn open(&mut self, stream: u8, open: wire::Open<'_>) {
        let (Some(peer), Ok(queue)) = (&self.peer, Name::from_bytes(open.queue.0)) else {
            return self.violation();
        };
        if usize::from(open.class) >= CLASSES {
            return self.violation();
        }
        if self.lease_first && !self.settled && self.transport == Transport::Datagram {
            // The lease was overtaken or lost. The other end announces the stream again.
            return;
        }
        let source = StreamKey {
            owner: peer.id,
            queue: QueueKey { queue: queue.queue_id(), class: open.class },
            epoch: Epoch(open.epoch),
        };
        let at = usize::from(stream);
        let Some(inbound) = self.streams.inbound().get(at) else {
            return self.violation();
        };
        match inbound.state {
            InboundState::Free => {
                let asks = Inbound { state: InboundState::Ask, source, ..Inbound::FREE };
                self.streams.change_inbound(at, |inbound| *inbound = asks);
            }
            _ if inbound.source != source => return self.violation(),
            InboundState::Running => self.opened_again(stream, open),
            // The answer is under way, or the store has no room.
            InboundState::Ask | InboundState::Asked | InboundState::Waiting => {}
        }
        self.due |= due::STREAMS;
    }

    fn opened_again(&mut self, stream: u8, open: wire::Open<'_>) {
        let position = Position(open.first);
        let placed = self.streams.change_inbound(usize::from(stream), |inbound| {
            let placed = open.placed.is_some_and(|round| inbound.place(position, round));
            if !placed {
                // The sender has heard nothing from us: say again where we are.
                inbound.go_back();
            }
            placed
        });
        if placed == Some(true) {
            self.order = Some(Order::Place { stream, position });
        } else {
            self.stats.went_back += 1;
        }
    }

    fn resume(&mut self, now: Instant, stream: u8, resume: wire::Resume, settings: &LinkSettings) {
        let stream = usize::from(stream);
        let Some(outbound) = self.streams.outbound().get(stream) else {
            return self.violation();
        };
        match outbound.state {
            OutboundState::Announced | OutboundState::Running => {
                let epoch = settings.epoch;
                let resume = |outbound: &mut Outbound| outbound.resume(now, &resume, epoch);
                self.streams.change_outbound(stream, resume);
                self.due |= due::STREAMS;
            }
            // It is repeated, or the receiver has gone back again: it is asked for once more.
            OutboundState::Announce | OutboundState::Place | OutboundState::Placing
                if self.transport == Transport::Datagram => {}
            _ => self.violation(),
        }
    }

    fn acknowledged(&mut self, now: Instant, stream: u8, ack: wire::Ack, settings: &LinkSettings) {
        let safe = ack.level >= settings.level_min;
        let acknowledged = self.streams.change_outbound(usize::from(stream), |outbound| {
            let running = outbound.state == OutboundState::Running;
            self.stats.below_level += u64::from(running && !safe);
            running && outbound.acknowledge(now, &ack, safe)
        });
        if acknowledged != Some(true) {
            return self.violation();
        }
        self.moved_at = now;
        self.due |= due::STREAMS;
    }

    fn skip(&mut self, stream: u8, skip: wire::Skip) {
        let at = usize::from(stream);
        let Some(inbound) = self.streams.inbound().get(at) else {
            return self.violation();
        };
        if inbound.state != InboundState::Running || skip.first >= skip.next {
            return self.violation();
        }
        let (first, next) = (Position(skip.first), Position(skip.next));
        let expected = inbound.expected.position;
        if inbound.resume || next <= expected {
            self.streams.change_inbound(at, |inbound| inbound.ack = true);
        } else if first <= expected {
            self.streams.change_inbound(at, |inbound| inbound.expected = Cursor::at(next));
            let reason = skip.reason;
            self.order = Some(Order::TakeSkip { stream, first: expected, next, reason });
        } else {
            self.go_back_for_gap(at);
        }
        self.due |= due::STREAMS;
    }

    fn rejected(&mut self, stream: u8, reject: wire::Reject) {
        let (stream, position) = (usize::from(stream), Position(reject.position));
        match self.streams.outbound().get(stream) {
            Some(outbound)
                if outbound.state == OutboundState::Running
                    && position >= outbound.released
                    && position < outbound.next =>
            {
                self.streams.change_outbound(stream, |outbound| outbound.dead = Some(position));
                self.due |= due::STREAMS;
            }
            _ => self.violation(),
        }
    }

    fn records(&mut self, stream: u8, records: wire::Records, len: u32, settings: &LinkSettings) {
        let raw_bytes = if records.raw_bytes == 0 { len } else { records.raw_bytes };
        let skip = (len > 0).then_some(Order::Skip { len });
        let at = usize::from(stream);
        let Some(inbound) = self.streams.inbound().get(at) else {
            self.order = skip;
            return self.violation();
        };
        let next = records.next();
        let arrived_bytes = inbound.arrived_bytes + u64::from(raw_bytes);
        let granted = arrived_bytes <= inbound.safe_bytes + u64::from(settings.window_bytes);
        match inbound.fit(records.first, next, records.round) {
            Fit::Next if raw_bytes > 0 && next > records.first && granted => {
                self.streams.change_inbound(at, |inbound| {
                    inbound.expected = next;
                    inbound.arrived_bytes = arrived_bytes;
                });
                self.order = Some(Order::Take { stream, records, len });
            }
            // More than was granted, or a frame that says nothing.
            Fit::Next => {
                self.order = skip;
                self.violation();
            }
            Fit::Known => {
                self.stats.repeated += 1;
                // Of an earlier round: the resume has told the sender where we are, or will.
                let present = inbound.state == InboundState::Running
                    && !inbound.resume
                    && records.round == inbound.round;
                // The sender, sent back further than the store is, has spent credit on it.
                let spent = present && self.transport == Transport::Stream && granted;
                self.streams.change_inbound(at, |inbound| {
                    if spent {
                        inbound.arrived_bytes = arrived_bytes;
                        inbound.safe_bytes += u64::from(raw_bytes);
                    }
                    inbound.ack |= present;
                });
                self.order = skip;
                self.due |= due::STREAMS;
            }
            Fit::Gap => {
                self.order = skip;
                if self.transport == Transport::Stream {
                    return self.violation();
                }
                self.go_back_for_gap(at);
                self.due |= due::STREAMS;
            }
        }
    }

    /// Something of an incoming stream is missing, on a line that loses frames.
    fn go_back_for_gap(&mut self, stream: usize) {
        let went_back = self.streams.change_inbound(stream, Inbound::miss);
        self.stats.went_back += u64::from(went_back == Some(true));
    }

    // Completions.

    pub(crate) fn sent(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        next: Cursor,
        bytes: u32,
        wire_bytes: u32,
    ) {
        self.said_at = now;
        let sent = self.streams.change_outbound(usize::from(stream.0), |outbound| {
            outbound.sent(now, next, bytes);
            (outbound.return_reserved(), outbound.key.class)
        });
        if let Some((reserved, class)) = sent {
            self.return_credit(reserved, wire_bytes);
            self.scheduler.charge(class, bytes);
            self.due |= due::STREAMS;
        }
    }

    /// An order for records is answered: of the credit kept for it only `used` bytes went.
    fn return_credit(&mut self, reserved: u32, used: u32) {
        self.credit_bytes = self.credit_bytes.saturating_add(reserved.saturating_sub(used));
    }

    pub(crate) fn gone(&mut self, stream: StreamIndex, next: Position, reason: SkipReason) {
        let gone = self.streams.change_outbound(usize::from(stream.0), |outbound| {
            outbound.gone(next, reason);
            outbound.return_reserved()
        });
        if let Some(reserved) = gone {
            self.return_credit(reserved, 0);
            self.due |= due::STREAMS;
        }
    }

    pub(crate) fn taken(&mut self, now: Instant, stream: StreamIndex, next: Cursor, bytes: u32) {
        let safe = |inbound: &mut Inbound| inbound.safe(next, bytes);
        if let Some(went_back) = self.streams.change_inbound(usize::from(stream.0), safe) {
            self.stats.went_back += u64::from(went_back);
            self.moved_at = now;
            self.due |= due::STREAMS;
        }
    }

    pub(crate) fn refused(
        &mut self,
        now: Instant,
        stream: StreamIndex,
        failure: Failure,
        settings: &LinkSettings,
    ) {
        let stream = usize::from(stream.0);
        if self.streams.inbound().get(stream).is_none() {
            return;
        }
        // What was kept of a record may be part of what could not be.
        let whole = |inbound: &Inbound| Cursor::at(inbound.taken.position);
        match failure {
            Failure::Full => {
                self.stats.full += 1;
                let until = now.plus_millis(u64::from(settings.full_retry_ms));
                self.streams.change_inbound(stream, |inbound| {
                    inbound.taken = whole(inbound);
                    inbound.wait_until(until);
                });
            }
            Failure::Corrupt => {
                self.streams.change_inbound(stream, |inbound| {
                    inbound.taken = whole(inbound);
                    inbound.go_back();
                });
                self.stats.went_back += 1;
                self.due |= due::STREAMS;
                self.violation();
            }
            Failure::Io => self.abandon(),
        }
    }

    pub(crate) fn appended(&mut self, now: Instant, stream: StreamIndex, next: Position) {
        let grown = |outbound: &mut Outbound| outbound.grown(now, next);
        if self.streams.change_outbound(usize::from(stream.0), grown).is_some() {
            self.due |= due::STREAMS;
        }
    }

    /// Takes the answer to a question of this link. Answers to another life's questions are
    /// passed over.
    pub(crate) fn answer(&mut self, now: Instant, token: Token, answer: Answer) {
        let stream = usize::from(token.0 as u8 & !TOKEN_INBOUND);
        let awaited = if token.0 as u8 & TOKEN_INBOUND != 0 {
            self.answer_inbound(stream, token, answer)
        } else {
            self.answer_outbound(now, stream, token, answer)
        };
        if awaited {
            self.due |= due::STREAMS;
        }
    }

    /// Whether the answer was waited for.
    fn answer_inbound(&mut self, stream: usize, token: Token, answer: Answer) -> bool {
        let awaited = self.streams.change_inbound(stream, |inbound| {
            match (inbound.state, answer) {
                _ if token != inbound.asked => return false,
                (InboundState::Asked, Answer::Inbound { epoch, cursor }) => {
                    inbound.known(epoch, cursor);
                }
                _ => return false,
            }
            true
        });
        awaited == Some(true)
    }

    /// Whether the answer was waited for.
    fn answer_outbound(
        &mut self,
        now: Instant,
        stream: usize,
        token: Token,
        answer: Answer,
    ) -> bool {
        let awaited = self.streams.change_outbound(stream, |outbound| {
            match (outbound.state, answer) {
                _ if token != outbound.asked => return false,
                (OutboundState::Asked, Answer::Outbound { released, next, sent, .. }) => {
                    outbound.known(now, released, next, sent);
                }
                (OutboundState::Placing, Answer::Place { position }) => {
                    outbound.place(now, position);
                }
                _ => return false,
            }
            true
        });
        awaited == Some(true)
    }
}
