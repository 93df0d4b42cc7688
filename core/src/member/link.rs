//! One link of a member: greeting, keep-alive, and what is due on it.

use crate::contract::{Input, Transport};
use crate::registry::RegistryConfig;
use crate::rng::Rng;
use crate::stream::{Name, NodeId};
use crate::time::Instant;
use crate::wire::{self, Role};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Phase {
    /// No link.
    Down,
    /// The other end has not greeted, or has not said of which cluster it is.
    Greeting,
    /// Both are known to each other.
    Open,
    /// To be closed as soon as the last frames are out.
    Closing,
    /// The driver was asked to close it.
    Closed,
}

/// Frames that are due. Each can be made again from state.
pub(super) mod due {
    pub(in super::super) const HELLO: u16 = 1;
    pub(in super::super) const CLUSTER: u16 = 1 << 1;
    pub(in super::super) const PONG: u16 = 1 << 2;
    pub(in super::super) const STATUS: u16 = 1 << 3;
    /// The configuration, to who is no member of it.
    pub(in super::super) const MEMBERS: u16 = 1 << 4;
    pub(in super::super) const DIGEST: u16 = 1 << 5;
    /// A digest that asks for no digest.
    pub(in super::super) const DIGEST_ANSWER: u16 = 1 << 6;
    pub(in super::super) const GOSSIP: u16 = 1 << 7;
    pub(in super::super) const PING: u16 = 1 << 8;
    pub(in super::super) const REFUSE: u16 = 1 << 9;
    pub(in super::super) const BYE: u16 = 1 << 10;
    /// The driver keeps bytes that can be taken now.
    pub(in super::super) const RESUME_INPUT: u16 = 1 << 11;
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Greeting {
    pub(super) name: Name,
    pub(super) role: Role,
    pub(super) instance: u64,
    pub(super) keepalive_ms: u32,
    pub(super) session: u32,
}

/// One link of a [`super::Member`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemberLink {
    pub(super) phase: Phase,
    pub(super) transport: Transport,
    /// The slot of the peer that was dialled.
    pub(super) dialed: Option<u16>,
    pub(super) identity: Option<NodeId>,
    pub(super) greeting: Option<Greeting>,
    /// The slot of the peer at the other end, once it is known to be one.
    pub(super) peer: Option<u8>,
    pub(super) session: u32,
    pub(super) credit_bytes: u32,
    pub(super) due: u16,
    /// Entries to be sent, by their bits.
    pub(super) entries: u32,
    /// Peers that the other end is to be asked about, and those that it has asked about.
    pub(super) probes: u32,
    pub(super) probe_answers: u32,
    pub(super) opened_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) said_at: Instant,
    /// No digest is asked for before.
    pub(super) digest_at: Instant,
    pub(super) refuse: wire::Refuse,
    pub(super) bye: wire::Bye,
    /// The number to be answered by a status, and by a pong.
    pub(super) ask: u32,
    pub(super) pong: u32,
    /// A call of a client whose bytes the driver is to take.
    pub(super) call: Option<(wire::Call, u32)>,
    /// When the other end made its last gossip, on its clock, and when that was heard.
    pub(super) gossip_us: u64,
    pub(super) gossip_at: Instant,
}

impl MemberLink {
    /// No link.
    pub const FREE: Self = Self {
        phase: Phase::Down,
        transport: Transport::Stream,
        dialed: None,
        identity: None,
        greeting: None,
        peer: None,
        session: 0,
        credit_bytes: 0,
        due: 0,
        entries: 0,
        probes: 0,
        probe_answers: 0,
        opened_at: Instant::ZERO,
        heard_at: Instant::ZERO,
        said_at: Instant::ZERO,
        digest_at: Instant::ZERO,
        refuse: wire::Refuse { reason: wire::RefuseReason::Busy, retry_after_ms: 0 },
        bye: wire::Bye { reason: wire::ByeReason::Done, retry_after_ms: 0 },
        ask: 0,
        pong: 0,
        call: None,
        gossip_us: 0,
        gossip_at: Instant::ZERO,
    };

    /// Begins a link, as `input` ([`Input::LinkUp`]) says. The dialler greets at once.
    pub(super) fn up(&mut self, now: Instant, input: &Input<'_>, rng: &mut Rng) {
        let &Input::LinkUp { dialed, transport, identity, .. } = input else {
            return;
        };
        *self = Self {
            phase: Phase::Greeting,
            transport,
            dialed: dialed.map(|dial| dial.0),
            identity,
            session: rng.next_u64() as u32,
            opened_at: now,
            heard_at: now,
            said_at: now,
            ..Self::FREE
        };
        if dialed.is_some() {
            self.due |= due::HELLO | due::CLUSTER;
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    /// Whether a program is at the other end.
    pub(super) fn is_client(&self) -> bool {
        self.phase == Phase::Open && self.greeting.is_some_and(|it| it.role == Role::Client)
    }

    /// The slot of the peer, as long as there is more to say than good-bye.
    pub(super) fn open_peer(&self) -> Option<usize> {
        self.peer.filter(|_| self.phase == Phase::Open).map(usize::from)
    }

    /// Closes without a word.
    pub(super) fn abandon(&mut self) {
        if matches!(self.phase, Phase::Greeting | Phase::Open) {
            self.due = 0;
            self.phase = Phase::Closing;
        }
    }

    /// Refuses the other end and closes.
    pub(super) fn refuse(&mut self, reason: wire::RefuseReason, retry_after_ms: u32) {
        if matches!(self.phase, Phase::Greeting | Phase::Open) {
            self.refuse = wire::Refuse { reason, retry_after_ms };
            self.due = (self.due & due::MEMBERS) | due::REFUSE;
            self.phase = Phase::Closing;
        }
    }

    /// Says good-bye and closes.
    pub(super) fn close(&mut self, reason: wire::ByeReason) {
        match self.phase {
            Phase::Open => {
                self.bye = wire::Bye { reason, retry_after_ms: 0 };
                self.due = due::BYE;
                self.phase = Phase::Closing;
            }
            Phase::Greeting => self.abandon(),
            Phase::Down | Phase::Closing | Phase::Closed => {}
        }
    }

    /// Finishes the greeting as the end that was dialled, and closes: another link stays.
    pub(super) fn close_greeting(&mut self) {
        let greets = if self.dialed.is_none() { due::HELLO | due::CLUSTER } else { 0 };
        self.phase = Phase::Open;
        self.close(wire::ByeReason::Replaced);
        self.due |= greets;
    }

    /// What made no sense: in a stream nothing after it can be trusted; a damaged datagram is a
    /// lost one.
    pub(super) fn distrust(&mut self) {
        if self.transport == Transport::Stream {
            self.abandon();
        }
    }

    fn silence_deadline(&self) -> Instant {
        match &self.greeting {
            Some(greeting) if self.phase == Phase::Open => {
                self.heard_at.plus_millis(u64::from(greeting.keepalive_ms) * 7 / 2)
            }
            _ => Instant::NEVER,
        }
    }

    fn greets_again(&self) -> bool {
        self.phase == Phase::Greeting
            && self.dialed.is_some()
            && self.transport == Transport::Datagram
            && self.due & due::CLUSTER == 0
    }

    /// Does what is due at `now`. Whether the link was given up for silence.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        handshake_ms: u32,
        config: &RegistryConfig,
    ) -> bool {
        if !matches!(self.phase, Phase::Greeting | Phase::Open) {
            return false;
        }
        let late =
            self.phase == Phase::Greeting && now >= self.opened_at.plus_millis(handshake_ms.into());
        if late || now >= self.silence_deadline() {
            self.abandon();
            return true;
        }
        if now < self.said_at.plus_millis(config.keepalive_ms.into()) {
            return false;
        }
        if self.greets_again() {
            self.due |= due::HELLO | due::CLUSTER;
        } else if self.phase == Phase::Open {
            self.due |= if self.peer.is_some() { due::GOSSIP } else { due::PING };
        }
        false
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self, handshake_ms: u32, config: &RegistryConfig) -> Instant {
        let speak_at = self.said_at.plus_millis(config.keepalive_ms.into());
        match self.phase {
            Phase::Greeting => {
                let late_at = self.opened_at.plus_millis(handshake_ms.into());
                if self.greets_again() { late_at.min(speak_at) } else { late_at }
            }
            Phase::Open => {
                let silence_at = self.silence_deadline();
                let speaks = self.due & (due::GOSSIP | due::PING) != 0;
                if speaks { silence_at } else { silence_at.min(speak_at) }
            }
            Phase::Down | Phase::Closing | Phase::Closed => Instant::NEVER,
        }
    }
}
