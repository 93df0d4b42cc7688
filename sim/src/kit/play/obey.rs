//! What the machine puts out is done, and held against the rules of the contract.

use replcore::contract::{Answer, Key, LinkId, Machine, Output, Query, StreamIndex, Token};
use replcore::stream::{Cursor, Name, Position, QueueKey, StreamKey};
use replcore::wire::{self, Control, Frame, Level};

use super::super::peer::some_records;
use super::super::{Subject, Violation};
use super::{Lane, Owed, Play, Queue};

impl<S: Subject> Play<'_, S> {
    pub(super) fn obey(
        &mut self,
        output: Output<<S::Machine as Machine>::Event>,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        match output {
            Output::Send { link, .. } => self.sent_frame(link, bytes),
            Output::SendRecords { link, stream, queue, first, bytes_max, .. } => {
                self.send_records(link, stream, queue, first, bytes_max)
            }
            Output::TakeRecords { link, stream, source, records, len } => {
                self.take_records(link, stream, source, records, len)
            }
            Output::TakeSkip { link, stream, source, next, .. } => {
                let next = Cursor::at(next);
                self.link(link, "TakeSkip")?.expected.insert(stream, next);
                self.sources.insert((link, stream), source);
                let owed = Owed::Taken { link, stream, source, next, bytes: 0 };
                self.owe(Lane::Stream(link, stream, false), owed);
                Ok(())
            }
            Output::SkipBytes { link, len } | Output::TakeCall { link, len, .. } => {
                let of = self.link(link, "SkipBytes")?;
                let before = of.order.replace((len, None));
                if before.is_some() {
                    return self
                        .broken(6, format!("an order on {link:?} before the last was done"));
                }
                Ok(())
            }
            Output::Release { queue, through } => self.release(queue, through),
            Output::DeadLetter { .. } => Ok(()),
            Output::Place { link, stream, source, position } => {
                let next = Cursor::at(position);
                self.link(link, "Place")?.expected.insert(stream, next);
                self.sources.insert((link, stream), source);
                let owed = Owed::Taken { link, stream, source, next, bytes: 0 };
                self.owe(Lane::Stream(link, stream, false), owed);
                Ok(())
            }
            Output::Ask { token, query, .. } => self.ask(token, query, bytes),
            Output::Dial { dial } => {
                if self.dials.contains(&dial) {
                    return self.broken(9, format!("{dial:?} twice"));
                }
                self.dials.push(dial);
                Ok(())
            }
            Output::Hangup { link } => {
                let of = self.link(link, "Hangup")?;
                if std::mem::replace(&mut of.hung_up, true) {
                    return self.broken(9, format!("{link:?} hung up twice"));
                }
                Ok(())
            }
            Output::Resume { link } => {
                self.link(link, "Resume")?;
                self.resume.insert(link);
                Ok(())
            }
            Output::Persist { key, token, .. } => {
                self.token(token)?;
                *self.unsafe_keys.entry(key).or_insert(0) += 1;
                self.owe(Lane::Disk, Owed::Persisted { token, key, state: Some(bytes.to_vec()) });
                Ok(())
            }
            Output::Forget { key } => {
                self.keyed.remove(&key);
                // What is on its way to the disk is forgotten with it.
                for owed in self.owed.values_mut().flatten() {
                    if let Owed::Persisted { key: of, state, .. } = owed
                        && *of == key
                    {
                        *state = None;
                    }
                }
                Ok(())
            }
            Output::Event { .. } => Ok(()),
            Output::NeedBuffer { .. } | Output::Halted { .. } | Output::Idle { .. } => Ok(()),
        }
    }

    pub(super) fn spend(&mut self, link: LinkId, bytes: u64) -> Result<(), Violation> {
        let credit = self.link(link, "Send")?.credit;
        if bytes > credit {
            return self.broken(8, format!("{bytes} bytes on {link:?} with credit {credit}"));
        }
        self.link(link, "Send")?.credit -= bytes;
        Ok(())
    }

    pub(super) fn sent_frame(&mut self, link: LinkId, bytes: &[u8]) -> Result<(), Violation> {
        self.spend(link, bytes.len() as u64)?;
        let (stream, control) = match wire::decode(bytes, u32::MAX) {
            Ok(Some((Frame::Control { stream, control }, taken))) if taken == bytes.len() => {
                (stream, control)
            }
            other => return self.broken(6, format!("sends {other:?}")),
        };
        let unsafe_keys = self.unsafe_keys.values().any(|count| *count > 0);
        let of = self.link(link, "Send")?;
        of.peer.heard(stream, &control);
        let index = StreamIndex(stream);
        let safe = of.safe.get(&index).map_or(0, |position| position.0);
        match control {
            Control::Ack(ack) if ack.level >= Level::Written && ack.position > safe => {
                self.broken(11, format!("{ack:?} while {safe} is safe"))
            }
            Control::Resume(resume) => {
                if resume.position > safe {
                    return self.broken(11, format!("{resume:?} while {safe} is safe"));
                }
                let cursor = Cursor { position: Position(resume.position), offset: resume.offset };
                of.expected.insert(index, cursor);
                of.refused.remove(&index);
                Ok(())
            }
            Control::Lease(_) | Control::TermLease(_) if unsafe_keys && self.peer_unsafe(link) => {
                self.broken(11, "a lease is granted before its registration is safe")
            }
            _ => Ok(()),
        }
    }

    /// Whether the registration of the peer of a link was never on the disk.
    pub(super) fn peer_unsafe(&self, link: LinkId) -> bool {
        let key = Key::Registration(self.links[&link].peer.name.node_id());
        self.unsafe_keys.get(&key).is_some_and(|count| *count > 0) && !self.keyed.contains_key(&key)
    }

    pub(super) fn send_records(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
    ) -> Result<(), Violation> {
        let overhead = wire::RECORDS_OVERHEAD_BYTES as u64;
        let of = self.link(link, "SendRecords")?;
        if u64::from(bytes_max) + overhead > of.credit {
            let credit = of.credit;
            return self.broken(8, format!("{bytes_max} bytes of records with credit {credit}"));
        }
        let limit = u64::from(of.peer.frame_bytes_max);
        if u64::from(bytes_max) + overhead > limit {
            return self.broken(8, format!("{bytes_max} bytes of records in frames of {limit}"));
        }
        let Some(held) = self.queues.get_mut(&queue) else {
            return self.broken(11, format!("sends {queue:?}, which it never asked for"));
        };
        if bytes_max == 0 || first.position.0 >= held.next {
            let next = held.next;
            return self.broken(8, format!("sends {bytes_max} bytes at {first:?} of {next}"));
        }
        let (records, bytes) = some_records(first, held.next, bytes_max);
        let next = records.next();
        held.sent = held.sent.max(next.position.0);
        let wire_bytes = overhead as u32 + bytes;
        self.spend(link, u64::from(wire_bytes))?;
        self.link(link, "SendRecords")?.peer.heard_records(stream.0, next, bytes);
        let owed = Owed::Sent { link, stream, next, bytes, wire_bytes };
        self.owe(Lane::Stream(link, stream, true), owed);
        Ok(())
    }

    pub(super) fn take_records(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        records: wire::Records,
        len: u32,
    ) -> Result<(), Violation> {
        let of = self.link(link, "TakeRecords")?;
        let expected = of.expected.get(&stream).copied().unwrap_or_default();
        let refused = of.refused.contains(&stream);
        let next = records.next();
        let before = of.order.replace((len, (!refused).then_some((stream, next, len))));
        if before.is_some() {
            return self.broken(6, format!("an order on {link:?} before the last was done"));
        }
        if records.first != expected && !refused {
            return self
                .broken(11, format!("takes {:?} while {expected:?} is next", records.first));
        }
        of.expected.insert(stream, next);
        self.sources.insert((link, stream), source);
        Ok(())
    }

    pub(super) fn release(&mut self, queue: QueueKey, through: Position) -> Result<(), Violation> {
        let said = self.links.values().filter_map(|link| link.peer.acknowledged.get(&queue)).max();
        let Some(held) = self.queues.get_mut(&queue) else {
            return self.broken(11, format!("releases {queue:?}, which it never asked for"));
        };
        let most = said.copied().unwrap_or(0).max(held.released);
        if through.0 > held.next {
            let next = held.next;
            return self.broken(11, format!("releases {through:?} of {next} in {queue:?}"));
        }
        let _ = most;
        held.released = held.released.max(through.0);
        Ok(())
    }

    pub(super) fn ask(
        &mut self,
        token: Token,
        query: Query,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        self.token(token)?;
        let (answer, stream) = match query {
            Query::Inbound(source) => {
                let cursor = self.inbound.get(&source).copied().unwrap_or_default();
                (Answer::Inbound { epoch: source.epoch, cursor }, None)
            }
            Query::Outbound { link, stream, queue } => {
                self.link(link, "Ask")?;
                let name = Name::from_bytes(bytes).ok();
                if name.is_none_or(|name| name.queue_id() != queue.queue) {
                    return self.broken(6, format!("asks for {queue:?} by the name {name:?}"));
                }
                let next = self.rng.between(0, 30);
                let held = self.queues.entry(queue).or_insert(Queue { released: 0, next, sent: 0 });
                self.watched.insert((link, stream), queue);
                let answer = Answer::Outbound {
                    epoch: self.epoch,
                    released: Position(held.released),
                    next: Position(held.next),
                    sent: Position(held.next),
                };
                (answer, Some((link, stream)))
            }
            Query::Place { queue, position, .. } => {
                let Some(held) = self.queues.get_mut(&queue) else {
                    return self
                        .broken(11, format!("places in {queue:?}, which it never asked for"));
                };
                let most = position.0.min(held.next).max(held.released);
                let place = self.rng.between(held.released, most);
                held.sent = held.sent.max(place);
                (Answer::Place { position: Position(place) }, None)
            }
            Query::Subscribe { link, .. } => {
                self.link(link, "Ask")?;
                let denied = self.rng.between(0, 3) == 0;
                (if denied { Answer::Denied } else { Answer::Subscribed }, None)
            }
        };
        self.owe(Lane::Answers(token), Owed::Answer { token, answer, stream });
        // An incoming stream that is opened is at the place just told, on whatever link it is.
        if let Answer::Inbound { cursor, .. } = answer {
            for of in self.links.values_mut() {
                for stream in 0..wire::STREAMS_MAX as u8 {
                    let safe = of.safe.entry(StreamIndex(stream)).or_default();
                    *safe = (*safe).max(cursor.position);
                }
            }
        }
        Ok(())
    }
}
