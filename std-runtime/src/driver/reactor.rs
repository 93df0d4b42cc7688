//! Sockets to engine and back, all on one thread: a task for each link, and one that takes turns.
//!
//! A link's task reads what is there, gives it to the engine, and wakes the turn. The runtime runs
//! tasks in the order in which they were woken, so the turn comes after all links that had
//! something to read, and one commit serves them all. After it the links with output are woken.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use replcore::contract::{DialIndex, Failure, LinkId, Machine, Transport};
use replcore::link::LinkStats;
use replcore::stream::Name;
use replcore::time::Instant;
use replcore::wire::{CONTROL_FRAME_BYTES_MAX, RECORDS_OVERHEAD_BYTES};
use tokio::sync::Notify;

use super::alarm::Alarm;
use super::clock;
use super::stream::Stream;
use crate::engine::{Engine, Stopped};
use crate::store::Store;

/// How a reactor treats its links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReactorConfig {
    pub(crate) links_max: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) write_stall: Duration,
}

/// Most bytes that one link reads before the others have their turn.
const READ_BYTES_PER_WAKE: usize = 1 << 20;
/// Room in the read buffer beyond one frame, so that one read brings many.
const READ_AHEAD_BYTES: usize = 256 << 10;
/// A remainder that grew beyond this gives its memory away when it is empty.
const KEPT_BYTES_MAX: usize = 512;

#[derive(Debug, Default)]
struct LinkTask {
    waker: Option<Waker>,
    /// Offer what was left over again.
    resume: bool,
    /// Close now.
    cut: bool,
    used: bool,
    /// When output began to wait without any of it being taken.
    stalled_since: Option<StdInstant>,
}

/// Everything that the tasks of one node share.
pub(crate) struct Reactor<M: Machine, S: Store> {
    pub(crate) engine: RefCell<Engine<M, S>>,
    config: ReactorConfig,
    /// What [`clock::now_us`] said at the start of the machine's clock.
    start_us: u64,
    links: RefCell<Vec<LinkTask>>,
    free: RefCell<Vec<u32>>,
    open: Cell<u32>,
    buffer: RefCell<Vec<u8>>,
    /// Memory for the next remainder, given away by the last: of about one frame.
    spare: Cell<Vec<u8>>,
    turn: RefCell<Option<Waker>>,
    turn_due: Cell<bool>,
    /// Rises with every turn.
    turns: Cell<u64>,
    /// Told after every turn.
    pub(crate) turned: Notify,
    pub(crate) counters: ReactorCounters,
    /// Called with the engine whenever something was given to it, before any byte of what it answers
    /// is written.
    observer: OnceCell<Observer<M, S>>,
}

type Observer<M, S> = Box<dyn Fn(&Engine<M, S>)>;

/// Counters of a reactor since its start.
#[derive(Debug, Default)]
pub(crate) struct ReactorCounters {
    pub(crate) accepted: Cell<u64>,
    pub(crate) refused: Cell<u64>,
    pub(crate) dialed: Cell<u64>,
    pub(crate) dials_failed: Cell<u64>,
    pub(crate) stalled: Cell<u64>,
    pub(crate) bytes_read: Cell<u64>,
    pub(crate) bytes_written: Cell<u64>,
}

impl ReactorCounters {
    /// These and those of the machine's links, as a status names them.
    pub(crate) fn figures(&self, link: &LinkStats) -> [(&'static str, u64); 13] {
        [
            ("link_frames_bad_length", link.bad_length),
            ("link_frames_bad_checksum", link.bad_checksum),
            ("link_frames_bad_type", link.bad_type),
            ("link_frames_bad_payload", link.bad_payload),
            ("link_violations", link.violations),
            ("link_silent", link.silent),
            ("link_stalled", self.stalled.get()),
            ("connections_accepted", self.accepted.get()),
            ("connections_refused", self.refused.get()),
            ("connections_dialed", self.dialed.get()),
            ("connections_failed", self.dials_failed.get()),
            ("read_bytes", self.bytes_read.get()),
            ("written_bytes", self.bytes_written.get()),
        ]
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get().saturating_add(by));
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl<M: Machine + 'static, S: Store + 'static> Reactor<M, S> {
    pub(crate) fn new(config: ReactorConfig, engine: Engine<M, S>) -> Rc<Self> {
        let frame = config.frame_bytes_max as usize + RECORDS_OVERHEAD_BYTES;
        Rc::new(Self {
            engine: RefCell::new(engine),
            config,
            start_us: clock::now_us(),
            links: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
            buffer: RefCell::new(vec![0; frame + CONTROL_FRAME_BYTES_MAX + READ_AHEAD_BYTES]),
            spare: Cell::default(),
            turn: RefCell::new(None),
            turn_due: Cell::new(true),
            turns: Cell::new(0),
            turned: Notify::new(),
            counters: ReactorCounters::default(),
            observer: OnceCell::new(),
        })
    }

    /// The engine, once all tasks of the node are gone.
    pub(crate) fn into_engine(self) -> Engine<M, S> {
        self.engine.into_inner()
    }

    pub(crate) fn now(&self) -> Instant {
        clock::since(self.start_us)
    }

    /// What [`clock::now_us`] said at the start of the machine's clock.
    pub(crate) fn start_us(&self) -> u64 {
        self.start_us
    }

    /// Gives the engine the present time and lends it.
    pub(crate) fn with<R>(&self, then: impl FnOnce(&mut Engine<M, S>) -> R) -> R {
        let mut engine = self.engine.borrow_mut();
        engine.set_time(self.now(), wall_ms());
        let result = then(&mut engine);
        self.observed(&engine);
        drop(engine);
        self.wake_turn();
        result
    }

    /// Has `observer` called with the engine whenever something was given to it, before any byte of
    /// what it answers is written. Counts once.
    pub(crate) fn observe(&self, observer: impl Fn(&Engine<M, S>) + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    fn observed(&self, engine: &Engine<M, S>) {
        if let Some(observer) = self.observer.get() {
            observer(engine);
        }
    }

    /// Number of links open.
    pub(crate) fn links_open(&self) -> u32 {
        self.open.get()
    }

    /// Whether one more link may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.open.get() < self.config.links_max
    }

    /// Number of turns taken.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    pub(crate) fn wake_turn(&self) {
        if !self.turn_due.replace(true)
            && let Some(waker) = self.turn.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// Waits until a commit covers everything that was done before the call, and standbys have it.
    ///
    /// # Errors
    /// It does not: there was no space for it, or the engine has stopped.
    pub(crate) async fn committed(&self) -> Result<(), Stopped> {
        let before = self.turns.get();
        let failed = || self.engine.borrow().counters().commits_failed;
        let failed_before = failed();
        let mut number = None;
        loop {
            let turned = self.turned.notified();
            if let Some(stopped) = self.engine.borrow().stopped() {
                return Err(stopped);
            }
            if self.turns.get() > before {
                if number.is_none() && failed() != failed_before {
                    return Err(Stopped::Store(Failure::Full));
                }
                let engine = self.engine.borrow();
                let number = *number.get_or_insert_with(|| engine.store().committed_number());
                if engine.is_replicated(number) {
                    return Ok(());
                }
            }
            turned.await;
        }
    }

    /// Runs one link until either end closes it; gives the stream back, on which another may have begun.
    pub(crate) async fn run_link(
        self: Rc<Self>,
        mut stream: Stream,
        dialed: Option<DialIndex>,
        identity: Option<Name>,
    ) -> Stream {
        let Some(link) = self.add_link() else {
            if let Some(dial) = dialed {
                self.with(|engine| engine.dial_failed(dial));
            }
            return stream;
        };
        self.with(|engine| {
            let identity = identity.map(|name| name.node_id());
            engine.link_up(link, dialed, stream.transport(), identity);
        });
        let mut rest = Vec::new();
        let outcome = poll_fn(|cx| self.poll_link(cx, link, &mut stream, &mut rest)).await;
        if let Err(error) = outcome {
            tracing::debug!(link = link.0, %error, "a link broke");
        }
        self.with(|engine| engine.link_down(link));
        self.links.borrow_mut()[link.0 as usize] = LinkTask::default();
        self.free.borrow_mut().push(link.0);
        self.open.set(self.open.get() - 1);
        stream
    }

    fn add_link(&self) -> Option<LinkId> {
        if !self.has_room() {
            return None;
        }
        self.open.set(self.open.get() + 1);
        let mut links = self.links.borrow_mut();
        let number = self.free.borrow_mut().pop().unwrap_or_else(|| {
            links.push(LinkTask::default());
            links.len() as u32 - 1
        });
        links[number as usize].used = true;
        Some(LinkId(number))
    }

    fn poll_link(
        &self,
        cx: &mut Context<'_>,
        link: LinkId,
        stream: &mut Stream,
        rest: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        {
            let mut links = self.links.borrow_mut();
            let task = &mut links[link.0 as usize];
            if task.cut {
                return Poll::Ready(Ok(()));
            }
            if !task.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                task.waker = Some(cx.waker().clone());
            }
            if std::mem::take(&mut task.resume) && !rest.is_empty() {
                drop(links);
                self.offer_rest(link, rest);
            }
        }
        let mut read = 0;
        loop {
            if self.poll_output(cx, link, stream)?.is_ready() && self.engine.borrow().is_done(link)
            {
                return Poll::Ready(Ok(()));
            }
            match self.poll_input(cx, link, stream, rest)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(bytes) => read += bytes,
                Poll::Pending => return Poll::Pending,
            }
            if read >= READ_BYTES_PER_WAKE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Writes what is to be written. Pending when the peer takes no more for now.
    fn poll_output(
        &self,
        cx: &mut Context<'_>,
        link: LinkId,
        stream: &mut Stream,
    ) -> io::Result<Poll<()>> {
        let mut engine = self.engine.borrow_mut();
        let mut wrote = false;
        let polled = loop {
            let output = engine.output(link);
            if output.is_empty() {
                break Poll::Ready(());
            }
            match stream.poll_write(cx, output)? {
                Poll::Ready(bytes) => {
                    wrote = true;
                    count(&self.counters.bytes_written, bytes as u64);
                    engine.written(link, bytes);
                }
                Poll::Pending => break Poll::Pending,
            }
        };
        // Even when nothing was written: what a layer holds back from before may go out now.
        let flushed = stream.poll_flush(cx)?;
        let waits = polled.is_pending() || flushed.is_pending();
        if wrote {
            drop(engine);
            self.wake_turn();
            let since = waits.then(StdInstant::now);
            self.links.borrow_mut()[link.0 as usize].stalled_since = since;
        } else if !waits {
            self.links.borrow_mut()[link.0 as usize].stalled_since = None;
        } else {
            let task = &mut self.links.borrow_mut()[link.0 as usize];
            task.stalled_since.get_or_insert_with(StdInstant::now);
        }
        // A link is closed once all is out, what a layer holds back included.
        Ok(if waits { Poll::Pending } else { Poll::Ready(()) })
    }

    /// Reads once, and gives the engine what came. Ready(0) at the end of the stream.
    fn poll_input(
        &self,
        cx: &mut Context<'_>,
        link: LinkId,
        stream: &mut Stream,
        rest: &mut Vec<u8>,
    ) -> io::Result<Poll<usize>> {
        let mut buffer = self.buffer.borrow_mut();
        let kept = rest.len();
        if buffer.len() - kept < READ_AHEAD_BYTES {
            // More than a frame is there and the machine takes none of it: it will say when.
            return Ok(Poll::Pending);
        }
        let bytes = match stream.poll_read(cx, &mut buffer[kept..])? {
            Poll::Ready(0) => return Ok(Poll::Ready(0)),
            Poll::Ready(bytes) => bytes,
            Poll::Pending => return Ok(Poll::Pending),
        };
        count(&self.counters.bytes_read, bytes as u64);
        buffer[..kept].copy_from_slice(rest);
        let data = &buffer[..kept + bytes];
        let taken = self.with(|engine| engine.bytes(link, data));
        if stream.transport() == Transport::Stream {
            // What is not taken of a datagram is gone, and comes again if it matters.
            keep(rest, &data[taken..], &self.spare);
        }
        Ok(Poll::Ready(bytes))
    }

    fn offer_rest(&self, link: LinkId, rest: &mut Vec<u8>) {
        let taken = self.with(|engine| engine.bytes(link, rest));
        if taken == rest.len() {
            keep(rest, &[], &self.spare);
        } else {
            rest.drain(..taken);
        }
    }

    /// Closes a link without more ado.
    pub(crate) fn cut(&self, link: LinkId) {
        let mut links = self.links.borrow_mut();
        let Some(task) = links.get_mut(link.0 as usize) else { return };
        task.cut = true;
        if let Some(waker) = &task.waker {
            waker.wake_by_ref();
        }
    }

    /// Closes links whose peer has taken nothing for too long. For about once a second.
    pub(crate) fn cut_stalled(&self) {
        let now = StdInstant::now();
        let mut links = self.links.borrow_mut();
        for task in links.iter_mut().filter(|task| task.used && !task.cut) {
            let stalled = task
                .stalled_since
                .is_some_and(|since| now.duration_since(since) > self.config.write_stall);
            if stalled {
                count(&self.counters.stalled, 1);
                task.cut = true;
                if let Some(waker) = &task.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }

    /// Waits until there is something to do, or the alarm rings.
    async fn turn_due(&self, alarm: &mut Alarm) {
        poll_fn(|cx| {
            if self.turn_due.replace(false) {
                return Poll::Ready(());
            }
            let mut turn = self.turn.borrow_mut();
            if !turn.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *turn = Some(cx.waker().clone());
            }
            alarm.poll(cx)
        })
        .await;
    }

    /// Takes turns until the engine stops. `after` is called after each turn with the engine free.
    pub(crate) async fn run_turns(self: Rc<Self>, mut after: impl FnMut(&Rc<Self>)) -> Stopped {
        let mut alarm = Alarm::new(self.start_us);
        loop {
            self.turn_due(&mut alarm).await;
            {
                let mut engine = self.engine.borrow_mut();
                alarm.set(engine.turn(self.now(), wall_ms()));
                self.observed(&engine);
            }
            self.turns.set(self.turns.get() + 1);
            self.wake_links();
            self.turned.notify_waiters();
            if let Some(stopped) = self.engine.borrow().stopped() {
                return stopped;
            }
            after(&self);
        }
    }

    fn wake_links(&self) {
        let mut engine = self.engine.borrow_mut();
        let mut links = self.links.borrow_mut();
        let mut wake = |link: LinkId, resume: bool| {
            if let Some(task) = links.get_mut(link.0 as usize)
                && task.used
            {
                task.resume |= resume;
                if let Some(waker) = &task.waker {
                    waker.wake_by_ref();
                }
            }
        };
        while let Some(link) = engine.next_flush() {
            wake(link, false);
        }
        while let Some(link) = engine.next_resume() {
            wake(link, true);
        }
    }
}

/// Keeps `bytes` in `rest`. The memory of a long remainder that is gone is for the next that comes,
/// on whatever link: a link that rests holds none, and a busy one does not ask for it anew.
fn keep(rest: &mut Vec<u8>, bytes: &[u8], spare: &Cell<Vec<u8>>) {
    if bytes.is_empty() && rest.capacity() > KEPT_BYTES_MAX {
        spare.set(std::mem::take(rest));
        return;
    }
    if rest.capacity() < bytes.len() && bytes.len() > KEPT_BYTES_MAX {
        *rest = spare.take();
    }
    rest.clear();
    rest.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_rests_holds_no_memory_and_the_next_remainder_has_it() {
        let (spare, mut rest, mut other) = (Cell::default(), Vec::new(), Vec::new());
        let long = [7; 4 * KEPT_BYTES_MAX];
        keep(&mut rest, &long, &spare);
        assert_eq!(rest, long);
        let memory = rest.as_ptr();
        keep(&mut rest, &[], &spare);
        assert_eq!((rest.len(), rest.capacity()), (0, 0));
        keep(&mut rest, &long[..9], &spare);
        keep(&mut other, &long[1..], &spare);
        assert_eq!((rest.len(), &other[..]), (9, &long[1..]));
        assert_eq!(other.as_ptr(), memory, "a short remainder leaves it to a long one");
    }
}
