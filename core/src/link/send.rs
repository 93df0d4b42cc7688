//! What goes out on a link: control frames, questions to the store, orders for records.

use super::stream::{Inbound, InboundState, Outbound, OutboundState};
use super::{Link, LinkSettings, Local, Order, Phase, TOKEN_INBOUND, due, next_token};
use crate::contract::{Output, Query, StreamIndex};
use crate::stream::{CLASSES, Cursor, Name, Position};
use crate::time::Instant;
use crate::wire::{self, Control};

impl<const QUEUES: usize> Link<QUEUES> {
    /// The next thing to do on this link, if there is one that the credit allows.
    pub(crate) fn poll<'l, E>(
        &mut self,
        now: Instant,
        settings: &'l LinkSettings,
        local: &dyn Fn() -> Local<'l>,
        tokens: &mut u32,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        if self.order.is_some() {
            return self.poll_order();
        }
        match self.phase {
            Phase::Down | Phase::Closed => None,
            Phase::Closing => self.poll_closing(now, settings, local, buf),
            Phase::Greeting | Phase::Open => {
                if self.due & !due::STREAMS != 0
                    && let Some(output) = self.poll_due(now, settings, local, buf)
                {
                    return Some(output);
                }
                if self.due & due::STREAMS == 0 || self.phase != Phase::Open {
                    return None;
                }
                self.poll_streams(now, settings, tokens, buf)
            }
        }
    }

    fn poll_order<E>(&mut self) -> Option<Output<E>> {
        let link = self.id;
        Some(match self.order.take()? {
            Order::Skip { len } => Output::SkipBytes { link, len },
            Order::Call { id, reply, len } => Output::TakeCall { link, id, reply, len },
            Order::Take { stream, records, len } => {
                let source = self.streams.inbound()[usize::from(stream)].source;
                Output::TakeRecords { link, stream: StreamIndex(stream), source, records, len }
            }
            Order::TakeSkip { stream, first, next, reason } => {
                let source = self.streams.inbound()[usize::from(stream)].source;
                let stream = StreamIndex(stream);
                Output::TakeSkip { link, stream, source, first, next, reason }
            }
            Order::Place { stream, position } => {
                let source = self.streams.inbound()[usize::from(stream)].source;
                Output::Place { link, stream: StreamIndex(stream), source, position }
            }
        })
    }

    fn poll_closing<'l, E>(
        &mut self,
        now: Instant,
        settings: &'l LinkSettings,
        local: &dyn Fn() -> Local<'l>,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        // What was acknowledged to us is kept even when the link goes.
        if let Some(output) = self.poll_release() {
            return Some(output);
        }
        if self.due & (due::REFUSE | due::BYE | due::HELLO) != 0 {
            let sent = self.poll_due(now, settings, local, buf);
            if matches!(sent, Some(Output::Send { .. } | Output::NeedBuffer { .. })) {
                return sent;
            }
        }
        // Without credit the last word is not worth waiting for.
        self.phase = Phase::Closed;
        Some(Output::Hangup { link: self.id })
    }

    fn poll_due<'l, E>(
        &mut self,
        now: Instant,
        settings: &'l LinkSettings,
        local: &dyn Fn() -> Local<'l>,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        if self.due & due::RESUME_INPUT != 0 {
            self.due &= !due::RESUME_INPUT;
            return Some(Output::Resume { link: self.id });
        }
        let (bit, control) = self.next_due(settings, local)?;
        let output = self.send(now, 0, &control, buf)?;
        if let Output::Send { .. } = output {
            self.due &= !bit;
        }
        Some(output)
    }

    fn next_due<'l>(
        &self,
        settings: &'l LinkSettings,
        local: &dyn Fn() -> Local<'l>,
    ) -> Option<(u16, Control<'l>)> {
        let first = |bit| self.due & bit != 0;
        if first(due::HELLO) {
            let hello = wire::Hello {
                magic: *b"RPLC",
                version_min: wire::VERSION_MIN,
                version_max: wire::VERSION_MAX,
                role: self.role,
                features: settings.features,
                name: wire::Text::from(&settings.name),
                instance: settings.instance,
                epoch: settings.epoch.0,
                frame_bytes_max: settings.frame_bytes_max,
                keepalive_ms: settings.keepalive_ms,
                session: self.session,
            };
            return Some((due::HELLO, Control::Hello(hello)));
        }
        if first(due::REFUSE) {
            return Some((due::REFUSE, Control::Refuse(self.refuse)));
        }
        if first(due::PONG) {
            return Some((due::PONG, Control::Pong(self.pong)));
        }
        if first(due::REGISTER) {
            return Some((due::REGISTER, Control::Register(local().register)));
        }
        if first(due::LEASE) {
            let lease = self.lease;
            let in_term = lease.term > 0 && self.peer_has(wire::FEATURE_STANDBY);
            let control = if in_term {
                Control::TermLease(lease)
            } else {
                Control::Lease(wire::Lease { lease_ms: lease.lease_ms })
            };
            return Some((due::LEASE, control));
        }
        if first(due::SUBSCRIBE)
            && let Some(subscribe) = local().subscribe
        {
            return Some((due::SUBSCRIBE, Control::Subscribe(subscribe)));
        }
        if first(due::PING) {
            return Some((due::PING, Control::Ping(self.ping)));
        }
        first(due::BYE).then_some((due::BYE, Control::Bye(self.bye)))
    }

    /// A control frame as an output: `NeedBuffer` when `buf` is short, `None` without credit,
    /// whatever the buffer, so that an idle link stays idle when it is polled with a short one.
    fn send<E>(
        &mut self,
        now: Instant,
        stream: u8,
        control: &Control<'_>,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        let encoded = wire::encode_control_of_link(stream, control, buf);
        let (Ok(len) | Err(len)) = encoded;
        let credit_bytes = self.credit_bytes.checked_sub(len as u32)?;
        if encoded.is_err() {
            return Some(Output::NeedBuffer { len });
        }
        self.credit_bytes = credit_bytes;
        self.said_at = now;
        Some(Output::Send { link: self.id, len })
    }

    fn poll_streams<E>(
        &mut self,
        now: Instant,
        settings: &LinkSettings,
        tokens: &mut u32,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        if self.streams.is_silent() {
            self.due &= !due::STREAMS;
            return None;
        }
        if let Some(output) = self.poll_release() {
            return Some(output);
        }
        let mut blocked = false;
        for stream in self.streams.words() {
            if let Some(output) = self.poll_question(stream, tokens, buf) {
                return Some(output);
            }
            let queue = self.queue_of(stream).copied();
            let inbound = &self.streams.inbound()[stream];
            let outbound = self.streams.outbound().get(stream);
            let due = next_stream_frame(inbound, outbound, queue.as_ref(), settings);
            let Some(control) = due else {
                continue;
            };
            match self.send(now, stream as u8, &control, buf) {
                Some(output) => {
                    if let Output::Send { .. } = output {
                        self.stream_frame_sent(stream, &control, now);
                    }
                    return Some(output);
                }
                None => blocked = true,
            }
        }
        if !blocked && let Some(output) = self.poll_records(now, settings) {
            return Some(output);
        }
        // Nothing more until something changes; `writable` looks again.
        self.due &= !due::STREAMS;
        None
    }

    fn poll_release<E>(&mut self) -> Option<Output<E>> {
        let stream = self.streams.release().next()?;
        self.streams.change_outbound(stream, |outbound| {
            let queue = outbound.key;
            if let Some(position) = outbound.dead.take() {
                return Output::DeadLetter { queue, position };
            }
            outbound.release = false;
            Output::Release { queue, through: outbound.released }
        })
    }

    fn poll_question<E>(
        &mut self,
        stream: usize,
        tokens: &mut u32,
        buf: &mut [u8],
    ) -> Option<Output<E>> {
        let link = self.id;
        let name = self.queue_of(stream);
        let asks = |outbound: &&Outbound| outbound.asks_store();
        if let Some(outbound) = self.streams.outbound().get(stream).filter(asks) {
            let queue = outbound.key;
            let (asked, query, len) = if outbound.state == OutboundState::Place {
                let position = outbound.cursor.position;
                let query = Query::Place { queue, epoch: outbound.claimed, position };
                (OutboundState::Placing, query, 0)
            } else {
                let name = name?.as_bytes();
                let Some(space) = buf.get_mut(..name.len()) else {
                    return Some(Output::NeedBuffer { len: wire::CONTROL_FRAME_BYTES_MAX });
                };
                space.copy_from_slice(name);
                let query = Query::Outbound { link, stream: StreamIndex(stream as u8), queue };
                (OutboundState::Asked, query, name.len())
            };
            let token = next_token(tokens, link, stream as u8);
            self.streams.change_outbound(stream, |outbound| {
                (outbound.state, outbound.asked) = (asked, token);
            });
            return Some(Output::Ask { token, query, len });
        }
        let inbound = &self.streams.inbound()[stream];
        if inbound.state == InboundState::Ask {
            let query = Query::Inbound(inbound.source);
            let token = next_token(tokens, link, stream as u8 | TOKEN_INBOUND);
            self.streams.change_inbound(stream, |inbound| {
                (inbound.state, inbound.asked) = (InboundState::Asked, token);
            });
            return Some(Output::Ask { token, query, len: 0 });
        }
        None
    }

    /// The queue that an outgoing stream is of.
    fn queue_of(&self, stream: usize) -> Option<&Name> {
        self.queues.get(stream / CLASSES)?.as_ref()
    }

    fn stream_frame_sent(&mut self, stream: usize, control: &Control<'_>, now: Instant) {
        match control {
            Control::Open(_) => self.streams.change_outbound(stream, |outbound| {
                outbound.state = OutboundState::Announced;
                outbound.moved_at = now;
            }),
            Control::Skip(skip) => self.streams.change_outbound(stream, |outbound| {
                outbound.skip = None;
                outbound.cursor = Cursor::at(Position(skip.next));
            }),
            Control::Resume(_) => self.streams.change_inbound(stream, |inbound| {
                inbound.resume = false;
                inbound.ack = false;
            }),
            Control::Ack(_) => self.streams.change_inbound(stream, |inbound| inbound.ack = false),
            Control::Reject(_) => {
                self.streams.change_inbound(stream, |inbound| inbound.reject = None)
            }
            _ => None,
        };
    }

    fn poll_records<E>(&mut self, now: Instant, settings: &LinkSettings) -> Option<Output<E>> {
        let frame_bytes = self.peer.as_ref()?.frame_bytes_max;
        let overhead = wire::RECORDS_OVERHEAD_BYTES as u32;
        let room = self.credit_bytes.min(frame_bytes).saturating_sub(overhead);
        if room == 0 {
            return None;
        }
        let mut ready = [false; CLASSES];
        for stream in self.streams.send() {
            ready[usize::from(self.streams.outbound()[stream].key.class)] = true;
        }
        let class = match self.scheduler.pick(now, &settings.sharing, ready, frame_bytes) {
            Ok(class) => class,
            Err(until) => {
                self.held_back_until = until;
                return None;
            }
        };
        let class_of = |stream: &usize| self.streams.outbound()[*stream].key.class;
        let stream = self.streams.send().find(|stream| class_of(stream) == class)?;
        let link = self.id;
        self.streams.change_outbound(stream, |outbound| {
            let bytes_max = room.min(outbound.credit_bytes());
            outbound.ordered = true;
            // Other frames may be sent before the answer comes; they have the rest of the credit.
            outbound.reserved_bytes = overhead + bytes_max;
            self.credit_bytes -= outbound.reserved_bytes;
            Output::SendRecords {
                link,
                stream: StreamIndex(stream as u8),
                queue: outbound.key,
                first: outbound.cursor,
                bytes_max,
                round: outbound.round,
            }
        })
    }
}

/// What one stream number has to say next, of its incoming and its outgoing stream.
fn next_stream_frame<'q>(
    inbound: &Inbound,
    outbound: Option<&Outbound>,
    queue: Option<&'q Name>,
    settings: &LinkSettings,
) -> Option<Control<'q>> {
    if let Some(position) = inbound.reject {
        return Some(Control::Reject(wire::Reject { position: position.0 }));
    }
    if inbound.resume && inbound.state == InboundState::Running {
        return Some(Control::Resume(wire::Resume {
            epoch: inbound.taken_epoch.0,
            position: inbound.taken.position.0,
            offset: inbound.taken.offset,
            credit_bytes: settings.window_bytes,
            round: inbound.round,
        }));
    }
    if inbound.ack && inbound.state == InboundState::Running {
        return Some(Control::Ack(wire::Ack {
            position: inbound.taken.position.0,
            level: settings.level,
            credit_bytes: inbound.safe_bytes + u64::from(settings.window_bytes),
            round: inbound.round,
        }));
    }
    let outbound = outbound?;
    if outbound.state == OutboundState::Announce {
        return Some(Control::Open(wire::Open {
            queue: wire::Text::from(queue?),
            class: outbound.key.class,
            epoch: settings.epoch.0,
            first: outbound.placed.map_or(outbound.released, |_| outbound.cursor.position).0,
            placed: outbound.placed,
        }));
    }
    let skip = outbound.skip?;
    let reason = outbound.skip_reason;
    Some(Control::Skip(wire::Skip { first: skip.first.0, next: skip.next.0, reason }))
}
