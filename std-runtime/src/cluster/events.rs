//! What has happened, for everybody who wants to know, each at their own pace.
//!
//! The member's thread only ever adds to a ring of the last [`EVENTS_MAX`]; who reads too slowly
//! misses some and is told how many. So a handler may take its time, or fail, without harm (QC-18).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::api::{ClusterEvent, Happened};
use crate::driver::wall_ms;

/// Events that are kept.
pub(super) const EVENTS_MAX: usize = 1024;
/// Handlers at once.
pub const HANDLERS_MAX: usize = 16;

#[derive(Debug)]
struct Ring {
    events: VecDeque<ClusterEvent>,
    /// The id before the first event.
    start: u64,
    last: u64,
    closed: bool,
}

/// The last events, and who waits for the next.
#[derive(Debug)]
pub(super) struct EventLog {
    ring: Mutex<Ring>,
    grown: Condvar,
    last: watch::Sender<u64>,
    handlers: AtomicU64,
    pub(super) handlers_panicked: AtomicU64,
    pub(super) missed: AtomicU64,
}

/// Some events, and where to go on.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<ClusterEvent>,
    pub(super) last: u64,
    pub(super) missed: u64,
}

impl EventLog {
    pub(super) fn new() -> Self {
        // Ids rise over restarts, so that a reader who comes back with an old one misses nothing new.
        let last = wall_ms();
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), start: last, last, closed: false }),
            grown: Condvar::new(),
            last: watch::Sender::new(last),
            handlers: AtomicU64::new(0),
            handlers_panicked: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event.
    pub(super) fn tell(&self, what: Happened) {
        let mut ring = self.ring();
        ring.last += 1;
        let last = ring.last;
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        ring.events.push_back(ClusterEvent { id: last, time_ms: wall_ms(), what });
        drop(ring);
        self.grown.notify_all();
        self.last.send_replace(last);
    }

    /// Nothing will be added any more.
    pub(super) fn close(&self) {
        let mut ring = self.ring();
        ring.closed = true;
        let last = ring.last;
        drop(ring);
        self.grown.notify_all();
        self.last.send_replace(last);
    }

    /// The id of the last event.
    pub(super) fn last(&self) -> u64 {
        self.ring().last
    }

    /// Told whenever an event is added.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Those after `after`.
    pub(super) fn after(&self, after: u64) -> Batch {
        let ring = self.ring();
        self.batch(&ring, after)
    }

    fn batch(&self, ring: &Ring, after: u64) -> Batch {
        let events: Vec<_> = ring.events.iter().filter(|it| it.id > after).cloned().collect();
        let before = events.first().map_or(ring.last, |event| event.id - 1);
        // An id of an earlier life of the member is before the start; of that nothing is missed here.
        let missed = before.saturating_sub(after.max(ring.start));
        self.missed.fetch_add(missed, Ordering::Relaxed);
        Batch { events, last: ring.last, missed }
    }

    /// Waits for events after `after`; `None` when there will be none.
    fn wait(&self, after: u64) -> Option<Batch> {
        let mut ring = self.ring();
        loop {
            if ring.last > after {
                return Some(self.batch(&ring, after));
            }
            if ring.closed {
                return None;
            }
            ring = self.grown.wait(ring).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Calls `handler` with every event from now on, on a thread of its own. A handler that panics is
    /// called again with the next event.
    ///
    /// # Errors
    /// [`HANDLERS_MAX`] are there already, or there is no thread; in one line.
    pub(super) fn handle(
        self: &Arc<Self>,
        mut handler: impl FnMut(&ClusterEvent) + Send + 'static,
    ) -> Result<(), String> {
        if self.handlers.fetch_add(1, Ordering::Relaxed) >= HANDLERS_MAX as u64 {
            self.handlers.fetch_sub(1, Ordering::Relaxed);
            return Err(format!("{HANDLERS_MAX} handlers of events are the limit"));
        }
        let log = Arc::clone(self);
        let mut after = self.last();
        let call = move || {
            while let Some(batch) = log.wait(after) {
                after = batch.last;
                for event in &batch.events {
                    if catch_unwind(AssertUnwindSafe(|| handler(event))).is_err() {
                        log.handlers_panicked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new().name("cluster events".into()).spawn(call);
        spawned.map(drop).map_err(|error| format!("cannot start a thread for events: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(term: u64) -> Happened {
        Happened::BecameLeader { term }
    }

    #[test]
    fn a_handler_that_panics_or_is_slow_loses_no_other_event() {
        let log = Arc::new(EventLog::new());
        let (sender, seen) = std::sync::mpsc::channel();
        log.handle(move |event| {
            let Happened::BecameLeader { term } = event.what else { return };
            assert!(term != 2, "a handler that fails");
            std::thread::sleep(std::time::Duration::from_millis(1));
            sender.send(term).unwrap();
        })
        .unwrap();
        for term in 1..=20 {
            log.tell(event(term));
        }
        log.close();
        let seen: Vec<_> = seen.iter().collect();
        assert_eq!(seen, [1].into_iter().chain(3..=20).collect::<Vec<_>>());
        assert_eq!(log.handlers_panicked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_is_too_slow_is_told_how_much_was_missed() {
        let log = EventLog::new();
        let start = log.last();
        for term in 0..EVENTS_MAX as u64 + 10 {
            log.tell(event(term));
        }
        let batch = log.after(start);
        assert_eq!((batch.events.len(), batch.missed), (EVENTS_MAX, 10));
        assert_eq!(batch.events[0].what, event(10));
        let batch = log.after(batch.last);
        assert_eq!((batch.events.len(), batch.missed), (0, 0));
    }

    #[test]
    fn there_are_no_more_handlers_than_the_limit() {
        let log = Arc::new(EventLog::new());
        for _ in 0..HANDLERS_MAX {
            log.handle(|_| {}).unwrap();
        }
        assert!(log.handle(|_| {}).unwrap_err().contains("the limit"));
        log.close();
    }
}
