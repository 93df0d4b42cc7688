//! Machines broken on purpose, to see that the kit notices.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use replcore::contract::{Input, Key, Machine, Output, RestoreError, Token};
use replcore::stream::{Cursor, NodeId};
use replcore::time::Instant;

/// A way in which a machine may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Acts as if what it asked to keep were safe at once.
    AckBeforeDurable,
    /// Always wants to be woken now.
    BusyTimer,
    /// Goes on naming a wake time that has passed.
    StaleWake,
    /// Sends twice what the link can take.
    CreditOverrun,
    /// Loses what did not fit the buffer.
    LossyNeedBuffer,
    /// Learns only with the next input that a link is down.
    DeadLink,
    /// Gives one token twice.
    TokenReuse,
    /// Behaves as its place in memory or the number of its siblings wants.
    Nondeterminism,
    /// Never gets to `Idle`.
    EndlessDrain,
    /// Says something else when asked again.
    RestlessIdle,
    /// Does something at every timeout, needed or not.
    EagerTimeout,
    /// Believes a clock that goes backwards.
    BelievesClock,
    /// Takes more bytes than there were.
    TakesTooMuch,
    /// Says that it took bytes of an input that brought none.
    TakesOfOthers,
    /// Does not take back what it persisted.
    RefusesRestore,
    /// Uses the heap.
    Allocates,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::AckBeforeDurable,
        Self::BusyTimer,
        Self::StaleWake,
        Self::CreditOverrun,
        Self::LossyNeedBuffer,
        Self::DeadLink,
        Self::TokenReuse,
        Self::Nondeterminism,
        Self::EndlessDrain,
        Self::RestlessIdle,
        Self::EagerTimeout,
        Self::BelievesClock,
        Self::TakesTooMuch,
        Self::TakesOfOthers,
        Self::RefusesRestore,
        Self::Allocates,
    ];
}

/// Counts mutants, for the bug that depends on it.
static SIBLINGS: AtomicU64 = AtomicU64::new(0);

/// A machine with one bug.
#[derive(Debug)]
pub struct Mutant<M: Machine> {
    inner: M,
    bug: Bug,
    sibling: u64,
    now: Instant,
    stale: Option<Instant>,
    pending: Option<replcore::contract::LinkId>,
    buffer: Vec<u8>,
    polls: u64,
    extra: bool,
    token: Token,
}

impl<M: Machine> Mutant<M> {
    /// Breaks `inner`.
    pub fn new(inner: M, bug: Bug) -> Self {
        Self {
            inner,
            bug,
            sibling: SIBLINGS.fetch_add(1, Ordering::Relaxed),
            now: Instant::ZERO,
            stale: None,
            pending: None,
            buffer: vec![0; 4096],
            polls: 0,
            extra: false,
            token: Token(0),
        }
    }

    fn mutate(&mut self, output: Output<M::Event>) -> Output<M::Event> {
        match (self.bug, output) {
            (Bug::AckBeforeDurable, Output::Persist { token, .. }) => {
                self.inner.handle(self.now, Input::Persisted { token });
                output
            }
            (Bug::AckBeforeDurable, Output::TakeRecords { link, stream, records, len, .. }) => {
                let next: Cursor = records.next();
                self.inner.handle(self.now, Input::Taken { link, stream, next, bytes: len });
                output
            }
            (Bug::BusyTimer, Output::Idle { .. }) => Output::Idle { wake: Some(self.now) },
            (Bug::StaleWake, Output::Idle { wake }) => {
                self.stale = self.stale.or(wake);
                Output::Idle { wake: self.stale }
            }
            (Bug::TokenReuse, Output::Persist { key, token, len }) => {
                let token = if self.token == Token(0) { token } else { self.token };
                self.token = token;
                Output::Persist { key, token, len }
            }
            (Bug::TokenReuse, Output::Ask { token, query, len }) => {
                let token = if self.token == Token(0) { token } else { self.token };
                self.token = token;
                Output::Ask { token, query, len }
            }
            (Bug::Nondeterminism, Output::Idle { wake: Some(wake) }) => {
                Output::Idle { wake: Some(wake.plus_millis(self.sibling + 1)) }
            }
            (Bug::EndlessDrain, Output::Idle { .. }) => forget(),
            (Bug::RestlessIdle, Output::Idle { wake }) => {
                let wake = wake.unwrap_or(self.now).plus_millis(self.polls % 7 + 1);
                Output::Idle { wake: Some(wake) }
            }
            (Bug::EagerTimeout | Bug::BelievesClock, Output::Idle { .. }) if self.extra => {
                self.extra = false;
                forget()
            }
            _ => output,
        }
    }
}

fn forget<E>() -> Output<E> {
    Output::Forget { key: Key::Registration(NodeId(1)) }
}

impl<M: Machine> Machine for Mutant<M> {
    type Event = M::Event;

    fn restore(&mut self, key: Key, record: &[u8]) -> Result<(), RestoreError> {
        if self.bug == Bug::RefusesRestore {
            return Err(RestoreError::Malformed);
        }
        self.inner.restore(key, record)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) -> usize {
        if self.bug == Bug::BelievesClock && now < self.now {
            self.extra = true;
        }
        self.now = now.max(self.now);
        if let Some(link) = self.pending.take() {
            self.inner.handle(now, Input::LinkDown { link });
        }
        match (self.bug, input) {
            (Bug::DeadLink, Input::LinkDown { link }) => {
                self.pending = Some(link);
                0
            }
            (Bug::CreditOverrun, Input::Writable { link, bytes }) => {
                self.inner.handle(now, Input::Writable { link, bytes: bytes.saturating_mul(2) })
            }
            (Bug::EagerTimeout, Input::Timeout) => {
                self.extra = true;
                self.inner.handle(now, input)
            }
            (Bug::TakesTooMuch, Input::Recv { .. }) => self.inner.handle(now, input) + 1,
            (Bug::TakesOfOthers, Input::Timeout) => self.inner.handle(now, input) + 1,
            _ => self.inner.handle(now, input),
        }
    }

    fn poll(&mut self, buf: &mut [u8]) -> Output<M::Event> {
        self.polls += 1;
        if self.bug == Bug::Allocates {
            black_box(vec![0u8; 8]);
        }
        if self.bug != Bug::LossyNeedBuffer {
            let output = self.inner.poll(buf);
            return self.mutate(output);
        }
        let mut own = core::mem::take(&mut self.buffer);
        let output = self.inner.poll(&mut own);
        let len = match output {
            Output::Send { len, .. }
            | Output::Persist { len, .. }
            | Output::Event { len, .. }
            | Output::Ask { len, .. } => len,
            _ => 0,
        };
        let output = if len > buf.len() {
            Output::NeedBuffer { len }
        } else {
            buf[..len].copy_from_slice(&own[..len]);
            output
        };
        self.buffer = own;
        output
    }
}
