//! What goes out on a link.

use super::link::{Phase, due};
use super::{CALL_FRAME_BYTES_MAX, Member, MemberEvent};
use crate::contract::{LinkId, Output};
use crate::election::Message;
use crate::registry::PEERS_MAX;
use crate::stream::NodeId;
use crate::wire::{self, Control, DIGEST_ENTRY_BYTES, MEMBER_BYTES, MEMBERS_MAX, Role};

/// What a frame settles once it is sent.
#[derive(Clone, Copy, Debug)]
enum Settles {
    Due(u16),
    Election(NodeId, Message),
    Entry(u32),
    Probe(u32),
    ProbeAnswer(u32),
}

/// Room for what a frame borrows and what is not held as it is sent.
struct Scratch {
    members: [u8; MEMBERS_MAX * MEMBER_BYTES],
    digest: [u8; (PEERS_MAX + 1) * DIGEST_ENTRY_BYTES],
}

impl Member<'_> {
    /// The next thing to do on a link, if there is one that the credit allows.
    pub(super) fn poll_link(&mut self, id: LinkId, buf: &mut [u8]) -> Option<Output<MemberEvent>> {
        let link = &mut self.links[id.0 as usize];
        if let Some((call, len)) = link.call.take() {
            return Some(Output::TakeCall { link: id, id: call.id, reply: call.reply, len });
        }
        match link.phase {
            Phase::Down | Phase::Closed => return None,
            Phase::Greeting | Phase::Open if link.due & due::RESUME_INPUT != 0 => {
                link.due &= !due::RESUME_INPUT;
                return Some(Output::Resume { link: id });
            }
            _ => {}
        }
        if let Some(output) = self.send(id, buf) {
            return Some(output);
        }
        let link = &mut self.links[id.0 as usize];
        if link.phase == Phase::Closing {
            // Without credit the last word is not worth waiting for.
            link.phase = Phase::Closed;
            return Some(Output::Hangup { link: id });
        }
        None
    }

    fn send(&mut self, id: LinkId, buf: &mut [u8]) -> Option<Output<MemberEvent>> {
        let mut scratch = Scratch {
            members: [0; MEMBERS_MAX * MEMBER_BYTES],
            digest: [0; (PEERS_MAX + 1) * DIGEST_ENTRY_BYTES],
        };
        let (settles, control) = self.next_frame(id, &mut scratch)?;
        let encoded = wire::encode_control_of_member(0, &control, buf);
        let (Ok(len) | Err(len)) = encoded;
        let left = self.links[id.0 as usize].credit_bytes.checked_sub(len as u32)?;
        if encoded.is_err() {
            return Some(Output::NeedBuffer { len });
        }
        self.sent(id, settles);
        let link = &mut self.links[id.0 as usize];
        link.credit_bytes = left;
        link.said_at = self.now;
        self.stats.frames_sent += 1;
        self.stats.bytes_sent += len as u64;
        Some(Output::Send { link: id, len })
    }

    fn sent(&mut self, id: LinkId, settles: Settles) {
        let link = &mut self.links[id.0 as usize];
        match settles {
            Settles::Due(bits) => link.due &= !bits,
            Settles::Entry(bit) => link.entries &= !bit,
            Settles::Probe(bit) => link.probes &= !bit,
            Settles::ProbeAnswer(bit) => link.probe_answers &= !bit,
            Settles::Election(node, message) => {
                if let Some(election) = &mut self.election {
                    election.sent(node, &message);
                }
            }
        }
    }

    fn next_frame<'a>(
        &'a self,
        id: LinkId,
        scratch: &'a mut Scratch,
    ) -> Option<(Settles, Control<'a>)> {
        let link = &self.links[id.0 as usize];
        let is_due = |bit| link.due & bit != 0;
        if is_due(due::HELLO) {
            return Some((Settles::Due(due::HELLO), Control::Hello(self.hello_frame(id))));
        }
        if is_due(due::CLUSTER) {
            let cluster = wire::Cluster {
                cluster: self.config.cluster.as_str(),
                wish: self.registry.own.wish,
            };
            return Some((Settles::Due(due::CLUSTER), Control::Cluster(cluster)));
        }
        if is_due(due::PONG) {
            return Some((Settles::Due(due::PONG), Control::Pong(link.pong)));
        }
        if is_due(due::STATUS) {
            return Some((Settles::Due(due::STATUS), Control::Status(self.status(link.ask))));
        }
        // What hands leadership over goes out even on a link that closes.
        let Scratch { members, digest } = scratch;
        if link.phase != Phase::Greeting
            && let Some(frame) = self.next_of_election(id, members)
        {
            return Some(frame);
        }
        if link.open_peer().is_some()
            && let Some(frame) = self.next_of_registry(id, digest)
        {
            return Some(frame);
        }
        if is_due(due::PING) {
            return Some((Settles::Due(due::PING), Control::Ping(0)));
        }
        if is_due(due::REFUSE) {
            return Some((Settles::Due(due::REFUSE), Control::Refuse(link.refuse)));
        }
        is_due(due::BYE).then_some((Settles::Due(due::BYE), Control::Bye(link.bye)))
    }

    fn next_of_election<'a>(
        &self,
        id: LinkId,
        members: &'a mut [u8; MEMBERS_MAX * MEMBER_BYTES],
    ) -> Option<(Settles, Control<'a>)> {
        let link = &self.links[id.0 as usize];
        let election = self.election.as_ref()?;
        if link.due & due::MEMBERS != 0 {
            let frame = election.members_frame(members)?;
            return Some((Settles::Due(due::MEMBERS), Control::Members(frame)));
        }
        let peer = &self.registry.peers[usize::from(link.peer?)];
        if peer.link != Some(id) {
            return None;
        }
        let message = election.message_for(peer.node)?;
        let registry = self.registry.digest();
        let control = match message {
            Message::VoteRequest(it) => Control::VoteRequest(it),
            Message::VoteAnswer(it) => Control::VoteAnswer(it),
            Message::Heartbeat(it) => Control::Heartbeat(wire::Heartbeat { registry, ..it }),
            Message::HeartbeatAnswer(it) => {
                Control::HeartbeatAnswer(wire::HeartbeatAnswer { registry, ..it })
            }
            Message::HandOver(term) => Control::HandOver(term),
            Message::Members => Control::Members(election.members_frame(members)?),
        };
        Some((Settles::Election(peer.node, message), control))
    }

    fn next_of_registry<'a>(
        &'a self,
        id: LinkId,
        digest: &'a mut [u8; (PEERS_MAX + 1) * DIGEST_ENTRY_BYTES],
    ) -> Option<(Settles, Control<'a>)> {
        let link = &self.links[id.0 as usize];
        for bit in bits(link.entries) {
            if let Some(entry) = self.registry.entry(bit) {
                return Some((Settles::Entry(bit), Control::Entry(entry)));
            }
        }
        if link.due & (due::DIGEST | due::DIGEST_ANSWER) != 0 {
            let answer = link.due & due::DIGEST != 0;
            let frame = wire::Digest { entries: self.registry.write_digest(digest), answer };
            let settled = due::DIGEST | due::DIGEST_ANSWER;
            return Some((Settles::Due(settled), Control::Digest(frame)));
        }
        if let Some(bit) = bits(link.probes).next() {
            let node = self.registry.peers[bit.trailing_zeros() as usize].node.0;
            return Some((Settles::Probe(bit), Control::Probe(wire::Probe { node })));
        }
        if let Some(bit) = bits(link.probe_answers).next() {
            let at = bit.trailing_zeros() as usize;
            let answer = wire::ProbeAnswer {
                node: self.registry.peers[at].node.0,
                heard_ms: self.heard_ms(at),
            };
            return Some((Settles::ProbeAnswer(bit), Control::ProbeAnswer(answer)));
        }
        (link.due & due::GOSSIP != 0).then(|| {
            let heard = link.gossip_us > 0;
            let held_us = self.now.as_micros().saturating_sub(link.gossip_at.as_micros());
            let gossip = wire::Gossip {
                registry: self.registry.digest(),
                sent_us: self.now.as_micros(),
                echo_us: link.gossip_us,
                held_us: if heard { held_us } else { 0 },
            };
            (Settles::Due(due::GOSSIP), Control::Gossip(gossip))
        })
    }

    fn hello_frame(&self, id: LinkId) -> wire::Hello<'_> {
        wire::Hello {
            magic: *b"RPLC",
            version_min: wire::VERSION_MIN,
            version_max: wire::VERSION_MAX,
            role: Role::Member,
            features: 0,
            name: wire::Text::from(&self.config.name),
            instance: self.config.instance,
            epoch: 0,
            frame_bytes_max: CALL_FRAME_BYTES_MAX,
            keepalive_ms: self.config.registry.keepalive_ms,
            session: self.links[id.0 as usize].session,
        }
    }
}

/// The bits of a set, one by one.
fn bits(set: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).map(|at| 1 << at).filter(move |bit| set & bit != 0)
}
