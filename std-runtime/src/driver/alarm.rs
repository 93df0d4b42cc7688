//! When the next turn is due.
//!
//! On Linux this is a timer of the system, on the clock of the deadlines: exact to the microsecond,
//! on time after the machine has slept, and one system call to set. A timer of tokio's rings up to a
//! millisecond late, wakes the poller each time that it is set, and once more on its way to a
//! deadline more than 64 ms ahead.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use replcore::time::Instant;
use tokio::time::Sleep;

use super::clock;

/// Rings at a time, or before it.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: Timer,
    /// What [`clock::now_us`] said at the start of the machine's clock.
    start_us: u64,
    /// When it rings, until that has been heard.
    set_for: Option<Instant>,
}

#[derive(Debug)]
enum Timer {
    #[cfg(target_os = "linux")]
    System(system::Timer),
    /// Elsewhere, and where the system gives no timer.
    Tokio(Pin<Box<Sleep>>),
}

impl Alarm {
    /// Rings at once.
    pub(super) fn new(start_us: u64) -> Self {
        let mut alarm = Self { timer: Timer::new(), start_us, set_for: None };
        alarm.set(Some(Instant::ZERO));
        alarm
    }

    /// It is to ring at `at`. It may ring before, at a time that was asked for earlier: who hears it
    /// looks at what is due, and sets it again.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at.filter(|at| self.set_for.is_none_or(|set_for| *at < set_for)) else {
            return;
        };
        let at_us = self.start_us.saturating_add(at.as_micros());
        self.timer.set(at_us);
        self.set_for = Some(at);
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.set_for.is_none() {
            return Poll::Pending;
        }
        let polled = self.timer.poll(cx);
        if polled.is_ready() {
            self.set_for = None;
        }
        polled
    }
}

/// A timer that cannot count this far rings early.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Timer {
    fn new() -> Self {
        #[cfg(target_os = "linux")]
        match system::Timer::new() {
            Ok(timer) => return Self::System(timer),
            Err(error) => tracing::debug!("the system gives no timer: {error}"),
        }
        Self::Tokio(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// Sets it for a time on [`clock::now_us`].
    fn set(&mut self, at_us: u64) {
        match self {
            #[cfg(target_os = "linux")]
            Self::System(timer) => timer.set(at_us),
            Self::Tokio(sleep) => {
                let left = Duration::from_micros(at_us.saturating_sub(clock::now_us()));
                sleep.as_mut().reset(tokio::time::Instant::now() + left.min(SLEEP_MAX));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::System(timer) => timer.poll(cx),
            Self::Tokio(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[expect(
            deprecated,
            reason = "a descriptor that is owned stays what it is, and what is to be used instead is unsafe"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            // The clock of `clock::now_us`.
            let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        pub(super) fn set(&self, at_us: u64) {
            // Zero would stop it.
            let at_us = at_us.max(1);
            let it_value = Timespec {
                tv_sec: (at_us / 1_000_000) as i64,
                tv_nsec: (at_us % 1_000_000 * 1000) as _,
            };
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let time = Itimerspec { it_interval, it_value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &time)
                .expect("a timer takes any time");
        }

        pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
            match ready!(self.0.poll_read_ready(cx)) {
                // What it has counted is not read: to be set again takes that away.
                Ok(mut ready) => {
                    ready.clear_ready();
                    Poll::Ready(())
                }
                // The runtime ends.
                Err(_) => Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Both timers, whatever the system is.
    fn alarms() -> Vec<Alarm> {
        let sleep = Timer::Tokio(Box::pin(tokio::time::sleep(Duration::ZERO)));
        [Timer::new(), sleep]
            .map(|timer| Alarm { timer, start_us: clock::now_us(), set_for: None })
            .into()
    }

    async fn ring(alarm: &mut Alarm) -> Instant {
        poll_fn(|cx| alarm.poll(cx)).await;
        clock::since(alarm.start_us)
    }

    #[tokio::test]
    async fn an_alarm_rings_at_its_time_and_once() {
        for mut alarm in alarms() {
            for ms in [3, 0, 5] {
                let at = clock::since(alarm.start_us).plus_millis(ms);
                alarm.set(Some(at));
                // A later time is for whoever hears this one.
                alarm.set(Some(at.plus_millis(600_000)));
                alarm.set(None);
                assert!(ring(&mut alarm).await >= at);
                let again = poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await;
                assert!(again.is_pending());
            }
        }
    }

    #[tokio::test]
    async fn an_alarm_takes_an_earlier_time_and_any_late_one() {
        for mut alarm in alarms() {
            alarm.set(Some(Instant::NEVER));
            assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
            let at = clock::since(alarm.start_us).plus_millis(2);
            alarm.set(Some(at));
            assert!(ring(&mut alarm).await >= at);
        }
    }
}
