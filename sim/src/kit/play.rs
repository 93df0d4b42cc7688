//! One play: a machine, and everything around it drawn from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use replcore::contract::{
    Answer, DialIndex, Failure, Input, Key, LinkId, Machine, Output, Query, SkipReason,
    StreamIndex, Token, Transport,
};
use replcore::log::crc32c;
use replcore::rng::Rng;
use replcore::stream::{Cursor, Epoch, Name, Position, QueueKey, StreamKey};
use replcore::time::Instant;
use replcore::wire::{self, Control, Frame, Level};

use super::peer::{Peer, some_records};
use super::{Allocations, Subject, Variation, Violation};

/// What a play has put out.
pub(crate) struct Played {
    /// Each output with the step it came in.
    pub(crate) log: Vec<(usize, String)>,
}

impl Played {
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.log.iter().flat_map(|(_, line)| line.bytes()) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        digest
    }
}

/// What is owed when the bytes of an order are there: stream, where it goes on, bytes.
type Ordered = (StreamIndex, Cursor, u32);

struct Link {
    peer: Peer,
    transport: Transport,
    credit: u64,
    inbox: Vec<u8>,
    /// Bytes of the inbox that go to an order, and what is then owed.
    order: Option<(u32, Option<Ordered>)>,
    /// Where each incoming stream goes on, as far as orders went.
    expected: BTreeMap<StreamIndex, Cursor>,
    refused: BTreeSet<StreamIndex>,
    /// What an incoming stream may be acknowledged to.
    safe: BTreeMap<StreamIndex, Position>,
    hung_up: bool,
}

/// A completion that is owed.
#[derive(Clone, Debug)]
enum Owed {
    Persisted { token: Token, key: Key, state: Option<Vec<u8>> },
    Taken { link: LinkId, stream: StreamIndex, source: StreamKey, next: Cursor, bytes: u32 },
    Sent { link: LinkId, stream: StreamIndex, next: Cursor, bytes: u32, wire_bytes: u32 },
    Answer { token: Token, answer: Answer, stream: Option<(LinkId, StreamIndex)> },
}

/// Completions come in order within a lane and in any order between lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Disk,
    Stream(LinkId, StreamIndex, bool),
    Answers(Token),
}

struct Queue {
    released: u64,
    next: u64,
    sent: u64,
}

struct Play<'a, S: Subject> {
    subject: &'a S,
    machine: S::Machine,
    rng: Rng,
    buffers: Option<Rng>,
    variation: Variation,
    /// Tell what happens, to understand a failure.
    talkative: bool,
    allocations: Option<Allocations>,
    seed: u64,
    now: Instant,
    /// The time last given to the machine.
    given: Instant,
    /// This machine was told a time.
    started: bool,
    step: usize,
    log: Vec<(usize, String)>,
    links: BTreeMap<LinkId, Link>,
    owed: BTreeMap<Lane, VecDeque<Owed>>,
    dials: Vec<DialIndex>,
    keyed: BTreeMap<Key, Vec<u8>>,
    /// Registrations on their way to the disk.
    unsafe_keys: BTreeMap<Key, u32>,
    inbound: BTreeMap<StreamKey, Cursor>,
    queues: BTreeMap<QueueKey, Queue>,
    watched: BTreeMap<(LinkId, StreamIndex), QueueKey>,
    sources: BTreeMap<(LinkId, StreamIndex), StreamKey>,
    last_token: Token,
    epoch: Epoch,
    idle: Option<Instant>,
    resume: BTreeSet<LinkId>,
}

/// Plays once.
pub(crate) fn play<S: Subject>(
    subject: &S,
    seed: u64,
    steps: usize,
    variation: Variation,
    allocations: Option<Allocations>,
) -> Result<Played, Violation> {
    let mut play = Play {
        subject,
        machine: subject.machine(seed),
        rng: Rng::new(seed),
        buffers: variation.buffers.map(Rng::new),
        variation,
        talkative: std::env::var_os("REPLCORE_KIT_TRACE").is_some(),
        allocations,
        seed,
        now: Instant::from_millis(1_000),
        given: Instant::from_millis(1_000),
        started: false,
        step: 0,
        log: Vec::new(),
        links: BTreeMap::new(),
        owed: BTreeMap::new(),
        dials: Vec::new(),
        keyed: BTreeMap::new(),
        unsafe_keys: BTreeMap::new(),
        inbound: BTreeMap::new(),
        queues: BTreeMap::new(),
        watched: BTreeMap::new(),
        sources: BTreeMap::new(),
        last_token: Token(0),
        epoch: Epoch(1 << 16 | 3),
        idle: None,
        resume: BTreeSet::new(),
    };
    play.feed(Input::Timeout)?;
    for step in 0..steps {
        play.step = step;
        play.act()?;
    }
    Ok(Played { log: play.log })
}

impl<S: Subject> Play<'_, S> {
    fn broken<T>(&self, rule: u8, what: impl Into<String>) -> Result<T, Violation> {
        Err(Violation { rule, step: self.step, what: what.into() })
    }

    fn act(&mut self) -> Result<(), Violation> {
        // In every third step no time passes: there one variation lets it go back.
        if self.no_time() {
            self.now = self.given;
        } else if self.rng.between(0, 2) == 0 {
            self.now = Instant::from_micros(self.now.as_micros() + self.rng.between(0, 300_000));
        }
        match self.rng.between(0, 99) {
            0..=9 => self.sleep(),
            10..=14 => self.link_up(),
            15 => self.link_down(),
            16..=19 => self.dial_fails(),
            20..=54 => self.talk(),
            55..=57 => self.garbage(),
            58..=69 => self.grant(),
            70..=89 => self.complete(),
            90..=94 => self.append(),
            95..=96 => {
                let now = self.now;
                if !self.subject.command(&mut self.machine, now, &mut self.rng) {
                    return Ok(());
                }
                self.given = now;
                self.drain()?;
                // A command may leave what is due by now to the next input, so that one is needed.
                let needless = std::mem::take(&mut self.variation.needless_timeouts);
                self.feed(Input::Timeout)?;
                self.variation.needless_timeouts = needless;
                Ok(())
            }
            97 => self.crash(),
            _ => self.feed(Input::Timeout),
        }
    }

    /// Waits until the machine wants to be woken.
    fn sleep(&mut self) -> Result<(), Violation> {
        match self.idle {
            Some(wake) if wake > self.now && !self.no_time() => {
                self.now = wake;
                self.feed(Input::Timeout)
            }
            _ => Ok(()),
        }
    }

    /// Gives a timeout that nobody asked for, before anything is due.
    fn needless(&mut self) -> Result<(), Violation> {
        // A wake at the next instant says that something is due already.
        let soon = Instant::from_micros(self.given.as_micros() + 1);
        if self.idle.is_some_and(|wake| wake <= self.now.max(soon)) || !self.started {
            return Ok(());
        }
        let mark = self.log.len();
        let before = self.idle;
        self.machine.handle(self.now, Input::Timeout);
        self.drain()?;
        let said = self.log.split_off(mark);
        if said.len() != 1 || self.idle != before {
            let what = format!("idle until {before:?}, then after a needless timeout: {said:?}");
            return self.broken(4, what);
        }
        Ok(())
    }

    fn no_time(&self) -> bool {
        self.step.is_multiple_of(3)
    }

    fn feed(&mut self, input: Input<'_>) -> Result<(), Violation> {
        self.feed_counted(input)?;
        Ok(())
    }

    fn feed_counted(&mut self, input: Input<'_>) -> Result<usize, Violation> {
        let mut now = self.now;
        if self.variation.needless_timeouts {
            self.needless()?;
        }
        self.given = now;
        if self.no_time() && self.variation.backwards && self.started {
            now = Instant::from_micros(now.as_micros() - 900_000);
        }
        self.started = true;
        let given = match &input {
            Input::Recv { data, .. } => Some(data.len()),
            _ => None,
        };
        if self.talkative {
            eprintln!("{:>5} {:>12} {input:?}", self.step, now.as_micros());
        }
        let before = self.allocations.map(|count| count());
        let taken = self.machine.handle(now, input);
        self.count_allocations(before, "handle")?;
        match given {
            Some(given) if taken > given => {
                return self.broken(6, format!("{taken} bytes taken of {given}"));
            }
            None if taken > 0 => {
                return self.broken(6, format!("{taken} bytes taken of {input:?}"));
            }
            _ => {}
        }
        if given.is_none() {
            self.drain()?;
        }
        Ok(taken)
    }

    fn count_allocations(&self, before: Option<u64>, during: &str) -> Result<(), Violation> {
        let Some((before, count)) = before.zip(self.allocations) else { return Ok(()) };
        let made = count() - before;
        if made > 0 {
            return self.broken(14, format!("{made} allocations during {during}"));
        }
        Ok(())
    }

    /// A buffer size for the next poll.
    fn buffer_len(&mut self) -> usize {
        match &mut self.buffers {
            None => 2048,
            Some(rng) => match rng.between(0, 3) {
                0 => 0,
                1 => rng.between(0, 16) as usize,
                2 => rng.between(0, 100) as usize,
                _ => 2048,
            },
        }
    }

    fn poll(
        &mut self,
        buffer: &mut [u8],
    ) -> Result<Output<<S::Machine as Machine>::Event>, Violation> {
        let before = self.allocations.map(|count| count());
        let output = self.machine.poll(buffer);
        self.count_allocations(before, "poll")?;
        Ok(output)
    }

    fn drain(&mut self) -> Result<(), Violation> {
        let mut buffer = vec![0; 4096];
        let mut needed = None;
        for _ in 0..self.subject.outputs_max() {
            let len = needed.take().unwrap_or_else(|| self.buffer_len());
            let output = self.poll(&mut buffer[..len])?;
            match output {
                Output::NeedBuffer { len: wanted } => {
                    if wanted <= len || wanted > buffer.len() {
                        return self.broken(7, format!("{wanted} bytes wanted with {len}"));
                    }
                    needed = Some(wanted);
                    continue;
                }
                Output::Idle { wake } => return self.idle(wake),
                Output::Halted { reason } => return self.broken(6, format!("halted: {reason}")),
                _ => {}
            }
            let used = detail(&output);
            if used > len {
                return self.broken(7, format!("{used} bytes put out with a buffer of {len}"));
            }
            if self.talkative {
                eprintln!("        {output:?} {:?}", wire::decode(&buffer[..used], u32::MAX));
            }
            self.log.push((self.step, format!("{output:?} {:08x}", crc32c(&buffer[..used]))));
            self.obey(output, &buffer[..used])?;
        }
        self.broken(1, format!("{} outputs and no end", self.subject.outputs_max()))
    }

    fn idle(&mut self, wake: Option<Instant>) -> Result<(), Violation> {
        let expected: Output<<S::Machine as Machine>::Event> = Output::Idle { wake };
        for len in [0, 2048] {
            let again = self.poll(&mut vec![0; len])?;
            if format!("{again:?}") != format!("{expected:?}") {
                return self.broken(2, format!("{expected:?}, then {again:?}"));
            }
        }
        if wake.is_some_and(|wake| wake <= self.given) {
            return self.broken(3, format!("wake {wake:?} at {:?}", self.now));
        }
        if self.talkative {
            eprintln!("        {expected:?}");
        }
        self.idle = wake;
        self.log.push((self.step, format!("{expected:?}")));
        Ok(())
    }

    fn link(&mut self, link: LinkId, what: &str) -> Result<&mut Link, Violation> {
        if !self.links.contains_key(&link) {
            return self.broken(9, format!("{what} for {link:?}, which is down"));
        }
        Ok(self.links.get_mut(&link).expect("checked"))
    }

    fn token(&mut self, token: Token) -> Result<(), Violation> {
        if token <= self.last_token {
            return self.broken(10, format!("{token:?} after {:?}", self.last_token));
        }
        self.last_token = token;
        Ok(())
    }

    fn owe(&mut self, lane: Lane, owed: Owed) {
        self.owed.entry(lane).or_default().push_back(owed);
    }

    fn obey(
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

    fn spend(&mut self, link: LinkId, bytes: u64) -> Result<(), Violation> {
        let credit = self.link(link, "Send")?.credit;
        if bytes > credit {
            return self.broken(8, format!("{bytes} bytes on {link:?} with credit {credit}"));
        }
        self.link(link, "Send")?.credit -= bytes;
        Ok(())
    }

    fn sent_frame(&mut self, link: LinkId, bytes: &[u8]) -> Result<(), Violation> {
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
            Control::Lease(_) if unsafe_keys && self.peer_unsafe(link) => {
                self.broken(11, "a lease is granted before its registration is safe")
            }
            _ => Ok(()),
        }
    }

    /// Whether the registration of the peer of a link was never on the disk.
    fn peer_unsafe(&self, link: LinkId) -> bool {
        let key = Key::Registration(self.links[&link].peer.name.node_id());
        self.unsafe_keys.get(&key).is_some_and(|count| *count > 0) && !self.keyed.contains_key(&key)
    }

    fn send_records(
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

    fn take_records(
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

    fn release(&mut self, queue: QueueKey, through: Position) -> Result<(), Violation> {
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

    fn ask(&mut self, token: Token, query: Query, bytes: &[u8]) -> Result<(), Violation> {
        self.token(token)?;
        let (answer, stream) = match query {
            Query::Inbound(source) => {
                let cursor = self.inbound.get(&source).copied().unwrap_or_default();
                (Answer::Inbound { epoch: source.epoch, cursor }, None)
            }
            Query::Outbound { link, stream, queue } => {
                self.link(link, "Ask")?;
                let name = std::str::from_utf8(bytes).ok().and_then(|text| Name::new(text).ok());
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

    fn link_up(&mut self) -> Result<(), Violation> {
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
        let peer = Peer::new(role, name, &mut self.rng);
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

    fn some_link(&mut self) -> Option<LinkId> {
        let count = self.links.len() as u64;
        if count == 0 {
            return None;
        }
        let nth = self.rng.between(0, count - 1) as usize;
        self.links.keys().nth(nth).copied()
    }

    fn link_down(&mut self) -> Result<(), Violation> {
        let hung_up = self.links.iter().find(|(_, of)| of.hung_up).map(|(link, _)| *link);
        let Some(link) = hung_up.or_else(|| self.some_link()) else { return Ok(()) };
        self.drop_link(link);
        self.feed(Input::LinkDown { link })
    }

    fn drop_link(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.resume.remove(&link);
        self.owed.retain(|lane, _| !matches!(lane, Lane::Stream(of, ..) if *of == link));
        self.watched.retain(|(of, _), _| *of != link);
        self.sources.retain(|(of, _), _| *of != link);
    }

    fn dial_fails(&mut self) -> Result<(), Violation> {
        if self.dials.is_empty() || self.rng.between(0, 1) == 0 {
            return self.link_up();
        }
        let dial = self.dials.remove(0);
        self.feed(Input::DialFailed { dial })
    }

    /// A peer says something; the machine gets it in pieces of any size.
    fn talk(&mut self) -> Result<(), Violation> {
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

    fn garbage(&mut self) -> Result<(), Violation> {
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
    fn offer(&mut self, link: LinkId) -> Result<(), Violation> {
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

    fn grant(&mut self) -> Result<(), Violation> {
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
    fn complete(&mut self) -> Result<(), Violation> {
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

    fn taken(
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
    fn append(&mut self) -> Result<(), Violation> {
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
    fn crash(&mut self) -> Result<(), Violation> {
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

fn detail<E>(output: &Output<E>) -> usize {
    match output {
        Output::Send { len, .. }
        | Output::Persist { len, .. }
        | Output::Event { len, .. }
        | Output::Ask { len, .. } => *len,
        _ => 0,
    }
}
