//! Whether peers are there.

use super::{PeerSlot, PeerState, Registry, RegistryEvent};
use crate::time::Instant;

/// A node's own slowness counts at most this often.
const HEALTH_MAX: u8 = 8;

impl Registry<'_> {
    /// The peer was heard.
    pub(crate) fn heard(&mut self, at: usize, now: Instant) {
        let peer = &mut self.peers[at];
        peer.heard_at = peer.heard_at.max(now);
        if peer.state != PeerState::Up {
            peer.state = PeerState::Up;
            peer.since = now;
        }
    }

    /// Another node has heard the peer so long ago.
    pub(crate) fn heard_elsewhere(&mut self, at: usize, now: Instant, heard_ms: u32) {
        let ago_us = u64::from(heard_ms).saturating_mul(1_000);
        let heard_at = Instant::from_micros(now.as_micros().saturating_sub(ago_us));
        if self.peers[at].state == PeerState::Suspect && now < self.suspect_at(heard_at) {
            self.heard(at, heard_at);
        }
    }

    /// The link to the peer has ended.
    pub(crate) fn lost(&mut self, at: usize, now: Instant) {
        let peer = &mut self.peers[at];
        if peer.state == PeerState::Up {
            peer.state = PeerState::Suspect;
            peer.since = now;
            self.suspected |= 1 << at;
        }
    }

    fn patience(&self) -> u64 {
        1 + u64::from(self.health)
    }

    fn suspect_at(&self, heard_at: Instant) -> Instant {
        heard_at.plus_millis(u64::from(self.config.suspect_ms) * self.patience())
    }

    fn due_at(&self, peer: &PeerSlot) -> Instant {
        match peer.state {
            _ if peer.is_free() => Instant::NEVER,
            PeerState::Up => self.suspect_at(peer.heard_at),
            PeerState::Suspect => {
                peer.since.plus_millis(u64::from(self.config.confirm_ms) * self.patience())
            }
            PeerState::Down if peer.lasting || peer.dialing || peer.link.is_some() => {
                Instant::NEVER
            }
            PeerState::Down => peer.since.plus_millis(self.config.entry_lease_ms.into()),
        }
    }

    /// Does what is due. Answers the set of peers that the others are to be asked about.
    pub(crate) fn tick(&mut self, now: Instant) -> u32 {
        let mut fell_silent = 0_u32;
        let late_by_ms = u64::from(self.config.keepalive_ms);
        let mut late = false;
        for at in 0..self.peers.len() {
            let due_at = self.due_at(&self.peers[at]);
            if now < due_at {
                continue;
            }
            late |= now >= due_at.plus_millis(late_by_ms);
            let peer = &mut self.peers[at];
            match peer.state {
                PeerState::Up => {
                    peer.state = PeerState::Suspect;
                    peer.since = now;
                    fell_silent |= 1 << at;
                }
                PeerState::Suspect => {
                    peer.state = PeerState::Down;
                    peer.since = now;
                }
                PeerState::Down => *peer = PeerSlot::FREE,
            }
        }
        self.judge_oneself(now, fell_silent.count_ones(), late);
        core::mem::take(&mut self.suspected) | fell_silent
    }

    /// When most peers fall silent at once, or a deadline was served late, this node may be what
    /// is slow: it gets more patient, and less so again with every quiet while.
    fn judge_oneself(&mut self, now: Instant, fell_silent: u32, late: bool) {
        let up = self.peers.iter().filter(|peer| peer.state == PeerState::Up).count() as u32;
        if late || (fell_silent > 1 && fell_silent > up) {
            self.health = (self.health + 1).min(HEALTH_MAX);
            self.health_at = now.plus_millis(u64::from(self.config.suspect_ms) * 2);
        } else if now >= self.health_at {
            self.health = self.health.saturating_sub(1);
            self.health_at = if self.health == 0 {
                Instant::NEVER
            } else {
                now.plus_millis(u64::from(self.config.suspect_ms) * 2)
            };
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        let peers = self.peers.iter().map(|peer| self.due_at(peer));
        peers.fold(self.health_at, Instant::min)
    }

    /// The next thing to tell.
    pub(crate) fn take_event(&mut self) -> Option<RegistryEvent> {
        for peer in self.peers.iter_mut().filter(|peer| !peer.is_free()) {
            let there = peer.state != PeerState::Down;
            if peer.told.unwrap_or(false) != there {
                peer.told = Some(there);
                let node = peer.node;
                return Some(if there {
                    RegistryEvent::Up(node)
                } else {
                    RegistryEvent::Down(node)
                });
            }
            if core::mem::take(&mut peer.changed) {
                return Some(RegistryEvent::Changed(peer.node));
            }
        }
        None
    }
}
