//! What happens around a machine: links, bytes of peers, completions, crashes.

use std::collections::{BTreeMap, BTreeSet};

use replcore::contract::{
    Answer, Failure, Input, LinkId, Machine, SkipReason, StreamIndex, Token, Transport,
};
use replcore::stream::{Cursor, Position, StreamKey};
use replcore::wire::{self};

use super::super::peer::Peer;
use super::super::{Subject, Violation};
use super::{Lane, Link, Owed, Play};

impl<S: Subject> Play<'_, S> {
    pub(super) fn link_up(&mut self) -> Result<(), Violation> {
        let link = LinkId(self.rng.between(0, u64::from(self.subject.links_max()) - 1) as u32);
        if self.links.contains_key(&link) {
            return Ok(());
        }
        let dialed = if self.dials.is_empty() { None } else { Some(self.dials.remove(0)) };
        let (role, name) = self.subject.peer(dialed, &mut self.rng);
        let transport = match self.rng.between(0, 3) {
            0 => Transport::Datagram,
            _ => Transport::Stream,
        };
        if self.term > 0 && self.rng.between(0, 9) == 0 {
            self.term += 1;
        }
        let peer = Peer::new(role, name, self.term, &mut self.rng);
        self.links.insert(
            link,
            Link {
                peer,
                transport,
                credit: 0,
                inbox: Vec::new(),
                order: None,
                expected: BTreeMap::new(),
                refused: BTreeSet::new(),
                safe: BTreeMap::new(),
                hung_up: false,
            },
        );
        self.feed(Input::LinkUp { link, dialed, transport, identity: None })
    }

    pub(super) fn some_link(&mut self) -> Option<LinkId> {
        let count = self.links.len() as u64;
        if count == 0 {
            return None;
        }
        let nth = self.rng.between(0, count - 1) as usize;
        self.links.keys().nth(nth).copied()
    }

    pub(super) fn link_down(&mut self) -> Result<(), Violation> {
        let hung_up = self.links.iter().find(|(_, of)| of.hung_up).map(|(link, _)| *link);
        let Some(link) = hung_up.or_else(|| self.some_link()) else { return Ok(()) };
        self.drop_link(link);
        self.feed(Input::LinkDown { link })
    }

    pub(super) fn drop_link(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.resume.remove(&link);
        self.owed.retain(|lane, _| !matches!(lane, Lane::Stream(of, ..) if *of == link));
        self.watched.retain(|(of, _), _| *of != link);
        self.sources.retain(|(of, _), _| *of != link);
    }

    pub(super) fn dial_fails(&mut self) -> Result<(), Violation> {
        if self.dials.is_empty() || self.rng.between(0, 1) == 0 {
            return self.link_up();
        }
        let dial = self.dials.remove(0);
        self.feed(Input::DialFailed { dial })
    }

    /// A peer says something; the machine gets it in pieces of any size.
    pub(super) fn talk(&mut self) -> Result<(), Violation> {
        let Some(link) = self.some_link() else { return self.link_up() };
        let hostile = self.seed.is_multiple_of(3);
        let of = self.links.get_mut(&link).expect("it is there");
        if of.hung_up {
            return self.link_down();
        }
        let mut frame = Vec::new();
        of.peer.say(&mut self.rng, hostile, &mut frame);
        if of.transport == Transport::Datagram {
            of.inbox = frame;
            self.offer(link)?;
            if let Some(of) = self.links.get_mut(&link) {
                of.inbox.clear();
                of.order = None;
            }
            return Ok(());
        }
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let part = match self.rng.between(0, 3) {
                0 => self.rng.between(1, rest.len() as u64) as usize,
                _ => rest.len(),
            };
            let Some(of) = self.links.get_mut(&link) else { break };
            of.inbox.extend_from_slice(&rest[..part]);
            rest = &rest[part..];
            self.offer(link)?;
        }
        Ok(())
    }

    pub(super) fn garbage(&mut self) -> Result<(), Violation> {
        let Some(link) = self.some_link() else { return Ok(()) };
        if !self.seed.is_multiple_of(3) {
            return Ok(());
        }
        let len = self.rng.between(1, 40);
        let bytes: Vec<u8> = (0..len).map(|_| self.rng.next_u64() as u8).collect();
        self.links.get_mut(&link).expect("it is there").inbox.extend_from_slice(&bytes);
        self.offer(link)
    }

    /// Offers what a link has, and carries out orders for its bytes, until neither goes on.
    pub(super) fn offer(&mut self, link: LinkId) -> Result<(), Violation> {
        loop {
            let Some(of) = self.links.get_mut(&link) else { return Ok(()) };
            if let Some((len, owed)) = of.order {
                if of.inbox.len() < len as usize {
                    return Ok(());
                }
                of.order = None;
                of.inbox.drain(..len as usize);
                if let Some((stream, next, bytes)) = owed {
                    let source = self.sources[&(link, stream)];
                    let owed = Owed::Taken { link, stream, source, next, bytes };
                    self.owe(Lane::Stream(link, stream, false), owed);
                }
                continue;
            }
            let data = std::mem::take(&mut of.inbox);
            if data.is_empty() {
                return Ok(());
            }
            let taken = self.feed_counted(Input::Recv { link, data: &data })?;
            if let Some(of) = self.links.get_mut(&link) {
                of.inbox = data[taken..].to_vec();
            }
            self.drain()?;
            let again = self.resume.remove(&link);
            let ordered = self.links.get(&link).is_some_and(|of| of.order.is_some());
            if taken == 0 && !ordered && !again {
                // A machine that needs more than the longest control frame takes nothing ever.
                let stuck = self.links.get(&link).is_some_and(|of| {
                    of.inbox.len() > wire::FRAME_BYTES_MAX as usize && !of.hung_up
                });
                if stuck {
                    return self.broken(6, format!("{link:?} is stuck"));
                }
                return Ok(());
            }
        }
    }

    pub(super) fn grant(&mut self) -> Result<(), Violation> {
        let Some(link) = self.some_link() else { return Ok(()) };
        let bytes = match self.rng.between(0, 3) {
            0 => self.rng.between(1, 20),
            1 => self.rng.between(1, 600),
            _ => 4_096,
        } as u32;
        self.links.get_mut(&link).expect("it is there").credit += u64::from(bytes);
        self.feed(Input::Writable { link, bytes })?;
        if self.resume.remove(&link) { self.offer(link) } else { Ok(()) }
    }

    /// One completion comes, of any lane.
    pub(super) fn complete(&mut self) -> Result<(), Violation> {
        let count = self.owed.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let nth = self.rng.between(0, count - 1) as usize;
        let lane = *self.owed.keys().nth(nth).expect("counted");
        let queue = self.owed.get_mut(&lane).expect("it is there");
        let owed = queue.pop_front().expect("empty lanes are removed");
        if queue.is_empty() {
            self.owed.remove(&lane);
        }
        match owed {
            Owed::Persisted { token, key, state } => {
                *self.unsafe_keys.entry(key).or_insert(1) -= 1;
                if self.rng.between(0, 9) == 0 {
                    return self.feed(Input::Failed { token, reason: Failure::Full });
                }
                self.keyed.extend(state.map(|state| (key, state)));
                self.feed(Input::Persisted { token })
            }
            Owed::Taken { link, stream, source, next, bytes } => {
                self.taken(link, stream, source, next, bytes)
            }
            Owed::Sent { link, stream, next, bytes, wire_bytes } => {
                self.feed(Input::Sent { link, stream, next, bytes, wire_bytes })
            }
            Owed::Answer { token, answer, stream } => {
                let up = stream.is_none_or(|(link, _)| self.links.contains_key(&link));
                if !up {
                    return Ok(());
                }
                let answer = match (answer, stream) {
                    // What the queue holds by now.
                    (Answer::Outbound { epoch, .. }, Some(stream)) => {
                        let Some(held) =
                            self.watched.get(&stream).and_then(|queue| self.queues.get(queue))
                        else {
                            return Ok(());
                        };
                        let (released, next) = (Position(held.released), Position(held.next));
                        Answer::Outbound { epoch, released, next, sent: next }
                    }
                    (answer, _) => answer,
                };
                self.feed(Input::Answer { token, answer })
            }
        }
    }

    pub(super) fn taken(
        &mut self,
        link: LinkId,
        stream: StreamIndex,
        source: StreamKey,
        next: Cursor,
        bytes: u32,
    ) -> Result<(), Violation> {
        let of = self.links.get_mut(&link).expect("lanes of dead links are removed");
        if self.rng.between(0, 19) == 0 && bytes > 0 {
            // It could not be kept, nor what came after it.
            of.refused.insert(stream);
            self.owed.remove(&Lane::Stream(link, stream, false));
            if let Some((_, owed)) = &mut of.order
                && owed.is_some_and(|(of, ..)| of == stream)
            {
                *owed = None;
            }
            let reason = if self.rng.between(0, 1) == 0 { Failure::Full } else { Failure::Corrupt };
            return self.feed(Input::Refused { link, stream, reason });
        }
        let safe = of.safe.entry(stream).or_default();
        *safe = (*safe).max(next.position);
        // What was on its way to the disk when the stream went back need not come again.
        let expected = of.expected.entry(stream).or_default();
        *expected = (*expected).max(next);
        let place = self.inbound.entry(source).or_default();
        *place = (*place).max(next);
        self.feed(Input::Taken { link, stream, next, bytes })
    }

    /// An own queue grows, or loses its oldest entries.
    pub(super) fn append(&mut self) -> Result<(), Violation> {
        let count = self.watched.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let nth = self.rng.between(0, count - 1) as usize;
        let (&(link, stream), &queue) = self.watched.iter().nth(nth).expect("counted");
        let Some(held) = self.queues.get_mut(&queue) else { return Ok(()) };
        held.next += self.rng.between(1, 10);
        let next = Position(held.next);
        let _ = SkipReason::Dropped;
        self.feed(Input::Appended { link, stream, next })
    }

    /// The process ends and starts again; what was on its way to the disk is there or is not.
    pub(super) fn crash(&mut self) -> Result<(), Violation> {
        for owed in std::mem::take(&mut self.owed).into_values().flatten() {
            if self.rng.between(0, 1) == 0 {
                continue;
            }
            match owed {
                Owed::Persisted { key, state, .. } => {
                    self.keyed.extend(state.map(|state| (key, state)));
                }
                Owed::Taken { source, next, .. } => {
                    let place = self.inbound.entry(source).or_default();
                    *place = (*place).max(next);
                }
                _ => {}
            }
        }
        for place in self.inbound.values_mut() {
            // The part of a record that was only in memory is gone.
            place.offset = 0;
        }
        self.links.clear();
        self.dials.clear();
        self.watched.clear();
        self.sources.clear();
        self.unsafe_keys.clear();
        self.resume.clear();
        self.last_token = Token(0);
        self.idle = None;
        self.started = false;
        self.machine = self.subject.machine(self.seed ^ self.step as u64);
        for (key, state) in &self.keyed {
            if let Err(error) = self.machine.restore(*key, state) {
                return self.broken(12, format!("{key:?} is not taken back: {error:?}"));
            }
        }
        self.log.push((self.step, "crash".to_owned()));
        self.feed(Input::Timeout)
    }
}
