//! One play: a machine, and everything around it drawn from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use replcore::contract::{
    Answer, DialIndex, Input, Key, LinkId, Machine, Output, StreamIndex, Token, Transport,
};
use replcore::log::crc32c;
use replcore::rng::Rng;
use replcore::stream::{Cursor, Epoch, Position, QueueKey, StreamKey};
use replcore::time::Instant;
use replcore::wire;

mod obey;
mod world;

use super::peer::Peer;
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
    /// In which the hub leads that the next link is to; 0 when hubs have no standbys.
    term: u64,
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
        term: seed % 2,
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
