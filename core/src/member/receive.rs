//! What comes in: links, and what is said on them.

use super::link::{Greeting, MemberLink, Phase, due};
use super::{CALL_FRAME_BYTES_MAX, Member, election_membership};
use crate::contract::{Input, LinkId, Transport};
use crate::election::{Election, Membership, Message};
use crate::registry::{Merged, PeerState};
use crate::stream::{Name, NodeId};
use crate::time::Instant;
use crate::wire::{self, ByeReason, Control, Frame, FrameError, RefuseReason, Role, Wish};

/// Frames handled in one `Recv`; then the driver is asked to offer the rest again.
const FRAMES_PER_INPUT_MAX: u32 = 64;

impl Member<'_> {
    /// Takes an input; returns the bytes taken of a `Recv`.
    pub(super) fn input(&mut self, input: &Input<'_>) -> usize {
        match *input {
            Input::Persisted { token } => self.stored(token, true),
            Input::Failed { token, .. } => self.stored(token, false),
            Input::DialFailed { dial } => {
                let timing = &self.config.dial;
                if let Some(peer) = self.registry.peers.get_mut(usize::from(dial.0)) {
                    peer.dialing = false;
                    if peer.link.is_none() {
                        peer.dialer.down(self.now, false, timing, &mut self.rng);
                    } else {
                        peer.dialer.up(self.now);
                    }
                }
            }
            Input::LinkUp { link, dialed, .. } => {
                let stopping = self.stopping;
                if let Some(peer) =
                    dialed.and_then(|dial| self.registry.peers.get_mut(usize::from(dial.0)))
                {
                    // Until the link ends, or belongs to the peer, it is not dialled again.
                    peer.dialing = false;
                    peer.dialer.up(self.now);
                }
                if let Some(slot) = self.links.get_mut(link.0 as usize) {
                    slot.up(self.now, input, &mut self.rng);
                    self.links_end = self.links_end.max(link.0 as usize + 1);
                    if stopping {
                        slot.abandon();
                    }
                }
            }
            Input::LinkDown { link } => self.link_down(link),
            Input::Recv { link, data } => return self.recv(link, data),
            Input::Writable { link, bytes } => {
                if let Some(slot) = self.links.get_mut(link.0 as usize) {
                    slot.credit_bytes = slot.credit_bytes.saturating_add(bytes);
                }
            }
            _ => {}
        }
        0
    }

    fn link_down(&mut self, id: LinkId) {
        let Some(slot) = self.links.get_mut(id.0 as usize).filter(|slot| !slot.is_down()) else {
            return;
        };
        let ended = core::mem::replace(slot, MemberLink::FREE);
        let used = self.links.iter().rposition(|slot| !slot.is_down());
        self.links_end = used.map_or(0, |last| last + 1);
        let timing = &self.config.dial;
        for at in [ended.peer.map(usize::from), ended.dialed.map(usize::from)] {
            let Some(peer) = at.and_then(|at| self.registry.peers.get_mut(at)) else {
                continue;
            };
            if peer.link == Some(id) {
                peer.link = None;
                peer.dialer.down(self.now, false, timing, &mut self.rng);
                let at = at.unwrap_or_default();
                self.registry.lost(at, self.now);
            } else if peer.link.is_none() && peer.dialer.deadline() == Instant::NEVER {
                peer.dialer.down(self.now, false, timing, &mut self.rng);
            }
        }
    }

    fn recv(&mut self, id: LinkId, data: &[u8]) -> usize {
        let index = id.0 as usize;
        let mut taken = 0;
        if index >= self.links.len() {
            return 0;
        }
        for _ in 0..FRAMES_PER_INPUT_MAX {
            let link = &self.links[index];
            if link.call.is_some() || !matches!(link.phase, Phase::Greeting | Phase::Open) {
                return taken;
            }
            let limit = CALL_FRAME_BYTES_MAX;
            match wire::decode(&data[taken..], limit) {
                Ok(None) => return taken,
                Ok(Some((frame, bytes))) => {
                    taken += bytes;
                    self.links[index].heard_at = self.now;
                    match frame {
                        Frame::Control { control, .. } => self.control(id, &control),
                        Frame::Call { call, len } if self.links[index].is_client() => {
                            self.links[index].call = Some((call, len));
                            return taken;
                        }
                        // Streams are not for members, nor are calls of peers.
                        Frame::Records { .. } | Frame::Call { .. } => self.violation(id),
                    }
                }
                Err(error) => {
                    self.malformed(error);
                    self.links[index].distrust();
                    return taken;
                }
            }
        }
        if taken < data.len() {
            self.links[index].due |= due::RESUME_INPUT;
        }
        taken
    }

    fn malformed(&mut self, error: FrameError) {
        let stats = &mut self.stats.link;
        match error {
            FrameError::Length => stats.bad_length += 1,
            FrameError::Checksum => stats.bad_checksum += 1,
            FrameError::Type(_) => stats.bad_type += 1,
            FrameError::Payload => stats.bad_payload += 1,
        }
    }

    fn violation(&mut self, id: LinkId) {
        self.stats.link.violations += 1;
        self.links[id.0 as usize].distrust();
    }

    fn control(&mut self, id: LinkId, control: &Control<'_>) {
        let phase = self.links[id.0 as usize].phase;
        match control {
            Control::Hello(hello) => self.hello(id, hello),
            Control::Refuse(refuse) => self.refused(id, *refuse),
            Control::Cluster(cluster) => self.cluster(id, cluster),
            _ if phase != Phase::Open => self.before_greeting(id),
            Control::Bye(bye) => self.bye(id, *bye),
            Control::Ping(number) => {
                let link = &mut self.links[id.0 as usize];
                link.pong = *number;
                link.due |= due::PONG;
            }
            Control::Pong(_) => {}
            Control::Ask(number) => {
                let link = &mut self.links[id.0 as usize];
                link.ask = *number;
                link.due |= due::STATUS;
            }
            _ => match self.links[id.0 as usize].open_peer() {
                Some(at) => self.peer_says(id, at, control),
                // A client only asks.
                None => self.violation(id),
            },
        }
    }

    /// On a line that does not break the dialler may still believe in the link of an earlier life
    /// of this node. Told so, it greets again at once.
    fn before_greeting(&mut self, id: LinkId) {
        self.violation(id);
        let link = &mut self.links[id.0 as usize];
        if link.phase == Phase::Greeting && link.dialed.is_none() {
            link.bye = wire::Bye { reason: ByeReason::Unknown, retry_after_ms: 0 };
            link.due |= due::BYE;
        }
    }

    // Greeting.

    fn hello(&mut self, id: LinkId, hello: &wire::Hello<'_>) {
        let own = self.config.name;
        let link = &mut self.links[id.0 as usize];
        if let Some(greeting) = link.greeting {
            if link.transport == Transport::Datagram && greeting.session == hello.session {
                // Our answer was lost, or the line repeats frames: only who answers does so again.
                if link.dialed.is_none() && link.phase == Phase::Open {
                    link.due |= due::HELLO | due::CLUSTER;
                }
            } else if link.transport == Transport::Datagram {
                // The other end has started anew without the line noticing: so do we.
                link.abandon();
            } else {
                self.violation(id);
            }
            return;
        }
        if hello.magic != *b"RPLC" {
            return self.violation(id);
        }
        if hello.version_min > wire::VERSION_MAX || hello.version_max < wire::VERSION_MIN {
            return self.refuse(id, RefuseReason::Version);
        }
        let Ok(name) = Name::from_bytes(hello.name.0) else {
            return self.refuse(id, RefuseReason::Name);
        };
        let node = name.node_id();
        let dialed = link.dialed.and_then(|at| self.registry.peers.get(usize::from(at)));
        link.greeting = Some(Greeting {
            name,
            role: hello.role,
            instance: hello.instance,
            keepalive_ms: hello.keepalive_ms.max(1),
            session: hello.session,
        });
        if link.identity.is_some_and(|identity| identity != node)
            || dialed.is_some_and(|peer| peer.node != node)
        {
            self.stats.wrong_identity = self.stats.wrong_identity.saturating_add(1);
            return self.refuse(id, RefuseReason::Identity);
        }
        match hello.role {
            Role::Member if name == own => self.refuse(id, RefuseReason::NameInUse),
            Role::Member => {}
            Role::Client if link.dialed.is_none() => {
                link.phase = Phase::Open;
                link.due = due::HELLO;
            }
            _ => self.refuse(id, RefuseReason::Role),
        }
    }

    fn refuse(&mut self, id: LinkId, reason: RefuseReason) {
        let link = &mut self.links[id.0 as usize];
        link.refuse(reason, self.config.dial.retry_ms_max);
        let node = link.greeting.map_or(NodeId::NONE, |greeting| greeting.name.node_id());
        self.refused = Some((node, reason));
    }

    fn cluster(&mut self, id: LinkId, cluster: &wire::Cluster<'_>) {
        let link = &self.links[id.0 as usize];
        let greeting = match link.greeting {
            Some(greeting) if greeting.role == Role::Member => greeting,
            _ => return self.before_greeting(id),
        };
        if link.phase == Phase::Open {
            // A repetition.
            return;
        }
        if cluster.cluster != self.config.cluster.as_str() {
            self.stats.wrong_cluster = self.stats.wrong_cluster.saturating_add(1);
            return self.refuse(id, RefuseReason::Cluster);
        }
        let node = greeting.name.node_id();
        let known = self.registry.find(node);
        let member = election_membership(self.election.as_ref(), node) != Membership::None;
        let wishes = matches!(cluster.wish, Wish::Voter | Wish::Learner);
        let welcome = self.config.admits && (wishes || self.election.is_none());
        let Some(at) = known.or_else(|| {
            (member || welcome).then(|| self.registry.place(greeting.name, self.now))?
        }) else {
            return self.turn_away(id, member || welcome);
        };
        if self.registry.peers[at].name() != greeting.name.as_str() {
            return self.refuse(id, RefuseReason::Collision);
        }
        if !self.takes_place(id, at, &greeting) {
            return;
        }
        self.greeted(id, at);
    }

    /// A stranger is told which configuration holds, as it may have been a member once.
    fn turn_away(&mut self, id: LinkId, no_room: bool) {
        if no_room {
            self.registry.refused = self.registry.refused.saturating_add(1);
            return self.refuse(id, RefuseReason::Full);
        }
        self.stats.strangers = self.stats.strangers.saturating_add(1);
        let link = &mut self.links[id.0 as usize];
        let greets = if link.dialed.is_none() { due::HELLO | due::CLUSTER } else { 0 };
        self.refuse(id, RefuseReason::Stranger);
        self.links[id.0 as usize].due |= greets | due::MEMBERS;
    }

    /// Of two links to one peer one stays: of two that one end has dialled the newer, else that
    /// which the node with the smaller identity has dialled. Whether it is the new one.
    fn takes_place(&mut self, id: LinkId, at: usize, greeting: &Greeting) -> bool {
        let peer = &self.registry.peers[at];
        let Some(old_id) = peer.link.filter(|old| *old != id) else {
            return true;
        };
        let old = &self.links[old_id.0 as usize];
        let new = &self.links[id.0 as usize];
        let fresh_ms = u64::from(self.config.registry.keepalive_ms) * 2;
        let old_lives = old.phase == Phase::Open && self.now < old.heard_at.plus_millis(fresh_ms);
        if old_lives && old.greeting.is_some_and(|it| it.instance != greeting.instance) {
            self.stats.name_in_use = self.stats.name_in_use.saturating_add(1);
            self.refuse(id, RefuseReason::NameInUse);
            return false;
        }
        let own_dials = self.config.name.node_id() < peer.node;
        let both = old.dialed.is_some() != new.dialed.is_some();
        if old_lives && both && old.dialed.is_some() == own_dials {
            // Both ends see it so. The greeting is finished first, so that the other end knows to
            // whom this link belongs.
            self.links[id.0 as usize].close_greeting();
            return false;
        }
        self.links[old_id.0 as usize].close(ByeReason::Replaced);
        true
    }

    fn greeted(&mut self, id: LinkId, at: usize) {
        let link = &mut self.links[id.0 as usize];
        link.phase = Phase::Open;
        link.peer = Some(at as u8);
        if link.dialed.is_none() {
            link.due |= due::HELLO | due::CLUSTER;
        }
        link.due |= due::DIGEST;
        link.entries |= crate::registry::OWN_BIT;
        let peer = &mut self.registry.peers[at];
        peer.link = Some(id);
        peer.dialer.up(self.now);
        let node = peer.node;
        self.registry.heard(at, self.now);
        if let Some(election) = &mut self.election {
            election.connected(self.now, node);
            if election.membership(node) == Membership::None {
                self.links[id.0 as usize].due |= due::MEMBERS;
            }
        }
    }

    fn refused(&mut self, id: LinkId, refuse: wire::Refuse) {
        let link = &mut self.links[id.0 as usize];
        let peer = link.dialed.and_then(|at| self.registry.peers.get_mut(usize::from(at)));
        let node = peer.map_or(NodeId::NONE, |peer| {
            peer.dialer.hint(refuse.retry_after_ms);
            peer.node
        });
        link.abandon();
        self.refused = Some((node, refuse.reason));
    }

    fn bye(&mut self, id: LinkId, bye: wire::Bye) {
        let link = &mut self.links[id.0 as usize];
        if let Some(at) = link.peer
            && bye.reason == ByeReason::Stopping
        {
            // It may be back in a moment, but not at once.
            let retry_ms = self.config.dial.retry_ms_max / 4;
            self.registry.peers[usize::from(at)].dialer.hint(retry_ms.max(bye.retry_after_ms));
        }
        link.abandon();
    }

    // What peers say.

    fn peer_says(&mut self, id: LinkId, at: usize, control: &Control<'_>) {
        self.registry.heard(at, self.now);
        match control {
            Control::VoteRequest(it) => self.elects(id, at, &Message::VoteRequest(*it)),
            Control::VoteAnswer(it) => self.elects(id, at, &Message::VoteAnswer(*it)),
            Control::HandOver(term) => self.elects(id, at, &Message::HandOver(*term)),
            Control::Heartbeat(it) => {
                self.elects(id, at, &Message::Heartbeat(*it));
                self.compare_digest(id, at, it.registry);
            }
            Control::HeartbeatAnswer(it) => {
                self.elects(id, at, &Message::HeartbeatAnswer(*it));
                self.compare_digest(id, at, it.registry);
                let node = self.registry.peers[at].node;
                let trip_us = self.election.as_ref().map_or(0, |it| it.round_trip_us(node));
                self.registry.peers[at].round_trip_us = trip_us;
            }
            Control::Members(members) => {
                let node = self.registry.peers[at].node;
                if let Some(election) = &mut self.election {
                    election.receive_members(self.now, node, members, true);
                }
            }
            Control::Gossip(gossip) => self.gossip(id, at, gossip),
            Control::Digest(digest) => self.digest(id, digest),
            Control::Entry(entry) => self.entry(id, at, entry),
            Control::Probe(probe) => {
                if let Some(bit) = self.registry.find(NodeId(probe.node)) {
                    self.links[id.0 as usize].probe_answers |= 1 << bit;
                }
            }
            Control::ProbeAnswer(answer) => {
                if let (Some(at), Some(heard_ms)) =
                    (self.registry.find(NodeId(answer.node)), answer.heard_ms)
                {
                    self.registry.heard_elsewhere(at, self.now, heard_ms);
                }
            }
            Control::Status(_) => {}
            _ => self.violation(id),
        }
    }

    fn elects(&mut self, id: LinkId, at: usize, message: &Message) {
        let node = self.registry.peers[at].node;
        let Some(election) = &mut self.election else {
            return;
        };
        if !election.receive(self.now, node, message) {
            self.links[id.0 as usize].due |= due::MEMBERS;
        }
    }

    /// Two registries that differ: versions are exchanged, at most once in a while. As often a
    /// peer that has not taken what is held of it is told again: the versions do not show that.
    fn compare_digest(&mut self, id: LinkId, at: usize, digest: u64) {
        let link = &mut self.links[id.0 as usize];
        let lags = self.registry.peers[at].owner_lags;
        let differs = digest != self.registry.digest();
        if self.now >= link.digest_at && (differs || lags) {
            link.digest_at = self.now.plus_millis(self.config.registry.keepalive_ms.into());
            link.entries |= u32::from(lags) << at;
            if differs {
                link.due |= due::DIGEST;
            }
        }
    }

    fn gossip(&mut self, id: LinkId, at: usize, gossip: &wire::Gossip) {
        let now_us = self.now.as_micros();
        let link = &mut self.links[id.0 as usize];
        link.gossip_us = gossip.sent_us;
        link.gossip_at = self.now;
        let away_us = gossip.echo_us.saturating_add(gossip.held_us);
        if gossip.echo_us > 0 && away_us <= now_us {
            let trip_us = u32::try_from(now_us - away_us).unwrap_or(u32::MAX);
            self.registry.peers[at].round_trip_us = trip_us.max(1);
        }
        self.compare_digest(id, at, gossip.registry);
    }

    fn digest(&mut self, id: LinkId, digest: &wire::Digest<'_>) {
        let (lacks, behind) = self.registry.compare(digest.entries);
        let link = &mut self.links[id.0 as usize];
        link.entries |= lacks;
        if behind && digest.answer {
            link.due |= due::DIGEST_ANSWER;
        }
    }

    fn entry(&mut self, id: LinkId, at: usize, entry: &wire::Entry<'_>) {
        match self.registry.merge(self.now, entry) {
            Merged::Own => self.tell_own(),
            Merged::Changed | Merged::Known => {
                let owner = self.registry.peers[at].name() == entry.name;
                if owner {
                    let lags = self.registry.knows_more(at, entry);
                    self.registry.peers[at].owner_lags = lags;
                    self.links[id.0 as usize].entries |= u32::from(lags) << at;
                }
            }
            Merged::Refused => {}
        }
    }

    /// How long ago a peer was heard on a link of this node, in milliseconds.
    pub(super) fn heard_ms(&self, at: usize) -> Option<u32> {
        let peer = self.registry.peers.get(at)?;
        let link = self.links.get(peer.link?.0 as usize)?;
        if peer.state != PeerState::Up {
            return None;
        }
        u32::try_from(self.now.millis_since(link.heard_at)).ok()
    }

    /// Who this node is, and whom it takes for the leader.
    pub(super) fn status(&self, number: u32) -> wire::Status<'_> {
        let leader = self.leader().and_then(|leader| self.peer(leader.node));
        wire::Status {
            number,
            role: self.election.as_ref().map_or(wire::MemberRole::None, Election::role),
            term: self.term(),
            leader: leader.map_or("", |leader| leader.name),
            address: leader.and_then(|leader| leader.address).unwrap_or(""),
        }
    }
}
