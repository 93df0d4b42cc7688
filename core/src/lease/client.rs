//! The leaf's side: when to dial, when to register, when to renew.

use crate::link::Backoff;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::TermLease;

/// When a node dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DialTiming {
    /// The least wait before dialling again, in milliseconds; default 500.
    pub retry_ms_min: u32,
    /// The greatest wait before dialling again, in milliseconds; default 30,000.
    pub retry_ms_max: u32,
    /// A link that stood this long ends the growth of the waits, in milliseconds; default 10,000.
    pub stable_ms: u32,
    /// 0 (the default) holds the link open, and messages leave at once. Otherwise the node dials
    /// at this interval, in milliseconds, exchanges what there is and closes: for those that sleep.
    pub poll_interval_ms: u32,
    /// In poll mode the link is closed when nothing has moved for this long, in milliseconds;
    /// default 500. On a slow line it is kept for twice what greeting and registering took.
    pub linger_ms: u32,
}

impl DialTiming {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            retry_ms_min: 500,
            retry_ms_max: 30_000,
            stable_ms: 10_000,
            poll_interval_ms: 0,
            linger_ms: 500,
        }
    }
}

impl Default for DialTiming {
    fn default() -> Self {
        Self::new()
    }
}

/// When a leaf registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeaseTiming {
    /// It renews this often, in milliseconds; default 300,000.
    pub register_ms: u32,
    /// The lease it asks for, in milliseconds; default 900,000.
    pub lease_ms: u32,
    /// A registration that is not answered by then has failed, in milliseconds; default 5,000.
    pub answer_ms: u32,
}

impl LeaseTiming {
    /// The defaults.
    pub const fn new() -> Self {
        Self { register_ms: 300_000, lease_ms: 900_000, answer_ms: 5_000 }
    }
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum DialState {
    /// Dials at this time.
    Waiting(Instant),
    /// The driver was asked to dial.
    Dialing,
    /// A link stands since then.
    Up(Instant),
}

/// Decides when to dial one place.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Dialer {
    state: DialState,
    backoff: Backoff,
    hint_ms: u32,
    /// The other end has said who is to be dialled in its place: at once, but for a second time
    /// without a wait in between.
    redirected: bool,
    followed: bool,
    /// In poll mode: when the present interval ends.
    round_ends_at: Instant,
}

impl Dialer {
    pub(crate) const fn new() -> Self {
        Self {
            state: DialState::Waiting(Instant::ZERO),
            backoff: Backoff::new(),
            hint_ms: 0,
            redirected: false,
            followed: false,
            round_ends_at: Instant::ZERO,
        }
    }

    /// Whether to dial now; it then counts as dialling.
    pub(crate) fn dial(&mut self, now: Instant, timing: &DialTiming) -> bool {
        match self.state {
            DialState::Waiting(until) if now >= until => {
                self.state = DialState::Dialing;
                self.round_ends_at = now.plus_millis(timing.poll_interval_ms.into());
                true
            }
            _ => false,
        }
    }

    pub(crate) fn up(&mut self, now: Instant) {
        self.state = DialState::Up(now);
    }

    /// The other end asked not to be dialled before this time has passed.
    pub(crate) fn hint(&mut self, retry_after_ms: u32) {
        self.hint_ms = retry_after_ms;
    }

    /// The other end stands by, and knows who leads.
    pub(crate) fn redirect(&mut self) {
        self.redirected = !self.followed;
    }

    /// A dial failed or a link has ended. `done`: it ended because there was nothing more to say.
    pub(crate) fn down(&mut self, now: Instant, done: bool, timing: &DialTiming, rng: &mut Rng) {
        if let DialState::Up(since) = self.state
            && (done || now >= since.plus_millis(timing.stable_ms.into()))
        {
            self.backoff.reset();
        }
        let hint_ms = core::mem::take(&mut self.hint_ms);
        self.followed = core::mem::take(&mut self.redirected);
        let until = if self.followed {
            now
        } else if done && hint_ms == 0 && timing.poll_interval_ms > 0 {
            self.round_ends_at.max(now)
        } else {
            let wait_ms =
                self.backoff.next_ms(timing.retry_ms_min, timing.retry_ms_max, hint_ms, rng);
            now.plus_millis(wait_ms)
        };
        self.state = DialState::Waiting(until);
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self.state {
            DialState::Waiting(until) => until,
            DialState::Dialing | DialState::Up(_) => Instant::NEVER,
        }
    }
}

/// What a grant of the hub means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// The first on this link.
    First,
    /// A renewal.
    Again,
    /// Nothing: a hub of a later term was heard of.
    TermOver,
}

/// What a lease client has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseDue {
    /// Register, now.
    Register,
    /// The answer did not come: the link is no good.
    Failed,
}

/// A term in which a hub leads. Terms of one log are above each other; those of another, made anew
/// after all that held the log were lost, begin anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HubTerm {
    /// The term; 0 for none.
    pub term: u64,
    /// The instance of the log.
    pub instance: u64,
}

impl HubTerm {
    /// Bytes of a term that is stored.
    pub const BYTES: usize = 16;

    /// As it is stored under [`crate::contract::Key::Term`]: term and instance, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.term.to_le_bytes());
        bytes[8..].copy_from_slice(&self.instance.to_le_bytes());
        bytes
    }

    /// A term from what was stored; `None` when that is no term.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (term, instance) = bytes.split_first_chunk()?;
        let instance = instance.try_into().ok()?;
        Some(Self { term: u64::from_le_bytes(*term), instance: u64::from_le_bytes(instance) })
    }

    /// Whether a hub of this term is to be refused by who has heard of `known`.
    const fn is_over(self, known: Self) -> bool {
        self.instance == known.instance && self.term < known.term
    }
}

/// The leaf's side of one registration, on one link.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct LeaseClient {
    asked_at: Option<Instant>,
    renew_at: Instant,
    held_until: Option<Instant>,
    /// The latest term in which a hub has granted a lease.
    term: HubTerm,
}

impl LeaseClient {
    /// No link, nothing to do.
    pub(crate) const fn new() -> Self {
        Self {
            asked_at: None,
            renew_at: Instant::NEVER,
            held_until: None,
            term: HubTerm { term: 0, instance: 0 },
        }
    }

    /// A link stands: register at once.
    pub(crate) fn start(&mut self, now: Instant) {
        *self = Self { renew_at: now, term: self.term, ..Self::new() };
    }

    /// The link is gone.
    pub(crate) fn stop(&mut self) {
        *self = Self { term: self.term, ..Self::new() };
    }

    /// The latest term in which a hub has granted a lease.
    pub(crate) const fn term(&self) -> HubTerm {
        self.term
    }

    /// A hub has granted a lease in this term, in an earlier life of this node.
    pub(crate) fn restore_term(&mut self, term: HubTerm) {
        self.term = term;
    }

    /// Whether a hub with a term was heard of, so that one may come whose term is over.
    pub(crate) const fn knows_a_term(&self) -> bool {
        self.term.term > 0
    }

    pub(crate) fn due(&mut self, now: Instant, timing: &LeaseTiming) -> Option<LeaseDue> {
        if let Some(asked_at) = self.asked_at
            && now >= asked_at.plus_millis(timing.answer_ms.into())
        {
            self.stop();
            return Some(LeaseDue::Failed);
        }
        if self.asked_at.is_none() && now >= self.renew_at {
            self.asked_at = Some(now);
            return Some(LeaseDue::Register);
        }
        None
    }

    /// The hub, whose log is of `instance`, has granted a lease. Nothing changes when its term is over.
    pub(crate) fn granted(
        &mut self,
        now: Instant,
        lease: TermLease,
        instance: u64,
        timing: &LeaseTiming,
    ) -> Granted {
        let TermLease { lease_ms, term } = lease;
        let term = HubTerm { term, instance };
        if term.is_over(self.term) {
            return Granted::TermOver;
        }
        self.term = term;
        let first = self.held_until.is_none();
        let asked_at = self.asked_at.take().unwrap_or(now);
        self.held_until = Some(asked_at.plus_millis(lease_ms.into()));
        // A hub that grants less than asked for is renewed at a third of what it grants.
        let renew_ms = timing.register_ms.min(lease_ms / 3).max(1);
        self.renew_at = asked_at.plus_millis(renew_ms.into());
        if first { Granted::First } else { Granted::Again }
    }

    pub(crate) fn held(&self) -> bool {
        self.held_until.is_some()
    }

    pub(crate) fn deadline(&self, timing: &LeaseTiming) -> Instant {
        match self.asked_at {
            Some(asked_at) => asked_at.plus_millis(timing.answer_ms.into()),
            None => self.renew_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: LeaseTiming = LeaseTiming::new();

    /// HS-03, HS-04.
    #[test]
    fn registers_at_once_and_again_every_300_s() {
        let mut client = LeaseClient::new();
        let start = Instant::from_millis(1_000);
        client.start(start);
        assert_eq!(client.due(start, &TIMING), Some(LeaseDue::Register));
        let lease = TermLease { lease_ms: 900_000, term: 0 };
        let granted = client.granted(start.plus_millis(80), lease, 1, &TIMING);
        assert_eq!(granted, Granted::First);
        assert_eq!(client.deadline(&TIMING), start.plus_millis(300_000));
        assert_eq!(client.due(start.plus_millis(299_999), &TIMING), None);
        let renewal = client.due(start.plus_millis(300_000), &TIMING);
        assert_eq!(renewal, Some(LeaseDue::Register));
    }

    /// QC-33: also after a restart; but a log that was made anew has terms of its own.
    #[test]
    fn a_hub_whose_term_is_over_is_refused_unless_its_log_is_another() {
        let grant = |client: &mut LeaseClient, term: u64, instance: u64| {
            let lease = TermLease { lease_ms: 900_000, term };
            client.granted(Instant::ZERO, lease, instance, &TIMING)
        };
        let mut client = LeaseClient::new();
        assert_eq!(grant(&mut client, 5, 1), Granted::First);
        let mut restarted = LeaseClient::new();
        restarted.restore_term(HubTerm::from_bytes(&client.term().to_bytes()).unwrap());
        for client in [&mut client, &mut restarted] {
            assert_eq!(grant(client, 4, 1), Granted::TermOver);
            assert_eq!(grant(client, 0, 1), Granted::TermOver);
            assert_ne!(grant(client, 6, 1), Granted::TermOver);
            assert_ne!(grant(client, 1, 2), Granted::TermOver);
            assert_eq!(grant(client, 0, 2), Granted::TermOver);
        }
        assert_eq!(HubTerm::from_bytes(&[0; 15]), None);
        assert_eq!(HubTerm::from_bytes(&[0; 17]), None);
    }

    #[test]
    fn an_answer_that_does_not_come_fails_the_link() {
        let mut client = LeaseClient::new();
        client.start(Instant::ZERO);
        client.due(Instant::ZERO, &TIMING);
        assert_eq!(client.due(Instant::from_millis(5_000), &TIMING), Some(LeaseDue::Failed));
        assert_eq!(client.deadline(&TIMING), Instant::NEVER);
    }

    /// HS-04: a failed registration is tried again sooner, with back-off and jitter.
    #[test]
    fn failures_are_retried_after_growing_scattered_waits() {
        let timing = DialTiming::new();
        let (mut dialer, mut rng) = (Dialer::new(), Rng::new(3));
        let mut now = Instant::ZERO;
        for _ in 0..20 {
            assert!(dialer.dial(now, &timing));
            dialer.down(now, false, &timing, &mut rng);
            let wait_ms = dialer.deadline().millis_since(now);
            assert!((500..=30_000).contains(&wait_ms), "{wait_ms}");
            now = dialer.deadline();
        }
    }

    /// QC-33: a redirect is followed at once, but two hubs that name each other are not dialled in turn
    /// without a wait.
    #[test]
    fn a_redirect_is_followed_at_once_and_a_second_one_after_a_wait() {
        let timing = DialTiming::new();
        let (mut dialer, mut rng) = (Dialer::new(), Rng::new(3));
        let mut now = Instant::ZERO;
        for round in 0..6 {
            assert!(dialer.dial(now, &timing));
            dialer.up(now);
            dialer.redirect();
            dialer.down(now, false, &timing, &mut rng);
            let wait_ms = dialer.deadline().millis_since(now);
            assert_eq!(wait_ms == 0, round % 2 == 0, "{round}: {wait_ms}");
            now = dialer.deadline();
        }
    }

    #[test]
    fn in_poll_mode_the_next_dial_is_one_interval_after_the_last() {
        let timing = DialTiming { poll_interval_ms: 10_000, ..DialTiming::new() };
        let (mut dialer, mut rng) = (Dialer::new(), Rng::new(3));
        assert!(dialer.dial(Instant::ZERO, &timing));
        dialer.up(Instant::from_millis(20));
        dialer.down(Instant::from_millis(700), true, &timing, &mut rng);
        assert_eq!(dialer.deadline(), Instant::from_millis(10_000));
    }
}
