//! A node's links: who may do what on them, and what they have to say.

use super::{DialTarget, Node, NodeConfig, NodeEvent};
use crate::contract::{
    Answer, DialIndex, Failure, Input, Key, LinkId, Output, Query, RestoreError, Token,
};
use crate::lease::{Admission, Granted, HubTerm, REGISTRATION_BYTES_MAX, Registration};
use crate::link::{Link, Local, Upcall, link_of};
use crate::stream::{Address, Name, NodeId};
use crate::wire::payload::Writer;
use crate::wire::{self, ByeReason, QUEUES_MAX, RefuseReason, Role, Text};

/// A registration that is being stored.
#[derive(Clone, Copy, Debug)]
enum Storing {
    No,
    Ask,
    Asked { token: Token },
}

/// A client that wants to read as a consumer.
#[derive(Clone, Copy, Debug)]
enum Reading {
    No,
    Ask { consumer: Name, message_type: Option<Address>, from_start: bool },
    Asked { consumer: Name, token: Token },
}

/// One link of a [`Node`].
#[derive(Clone, Copy, Debug)]
pub struct LinkSlot {
    pub(super) link: Link<QUEUES_MAX>,
    /// The configured place that it fulfils.
    dial: Option<u16>,
    /// The leaf that is registered on it.
    leaf: Option<NodeId>,
    registering: Option<Registration>,
    lease_ms: u32,
    storing: Storing,
    reading: Reading,
    events: [Option<NodeEvent>; 2],
}

impl LinkSlot {
    /// No link.
    pub const FREE: Self = Self {
        link: Link::new(),
        dial: None,
        leaf: None,
        registering: None,
        lease_ms: 0,
        storing: Storing::No,
        reading: Reading::No,
        events: [None; 2],
    };

    /// Tells an event; of more than fit between two polls the earlier ones are given up.
    fn tell(&mut self, event: NodeEvent) {
        if self.events[0].is_some() {
            self.events[1] = Some(event);
        } else {
            self.events[0] = Some(event);
        }
    }
}

impl NodeConfig {
    fn local(&self) -> Local<'_> {
        Local {
            register: wire::Register {
                lease_ms: self.register.lease_ms,
                address: self.address.as_ref().map(Text::from).unwrap_or_default(),
                queues: [self.extra_queue.as_ref().map(Text::from).unwrap_or_default()],
            },
            subscribe: None,
        }
    }
}

impl Node<'_> {
    /// Takes an input; returns the bytes taken of a `Recv`.
    pub(super) fn input(&mut self, input: &Input<'_>) -> usize {
        match *input {
            Input::Timeout => return 0,
            Input::DialFailed { dial } => {
                // The other end may have dialled in the meantime.
                let up = self.dials.get(usize::from(dial.0)).is_some_and(|it| it.link.is_some());
                if !up {
                    self.dial_ended(dial);
                }
                return 0;
            }
            Input::Persisted { token } => {
                self.stored(token, None);
                return 0;
            }
            Input::Failed { token, reason } => {
                self.stored(token, Some(reason));
                return 0;
            }
            _ => {}
        }
        let Some(link) = link_of_input(input) else {
            return 0;
        };
        if link.0 as usize >= self.links.len() {
            return 0;
        }
        let taken = self.link_input(link, input);
        // Its deadline is seen to when it has been polled for all that it has to say.
        self.touch(link.0);
        taken
    }

    fn link_input(&mut self, id: LinkId, input: &Input<'_>) -> usize {
        let now = self.now;
        let link = &mut self.links[id.0 as usize].link;
        match *input {
            Input::LinkUp { .. } => self.link_up(id, input),
            _ if link.is_down() => {}
            Input::LinkDown { .. } => self.link_down(id),
            Input::Recv { data, .. } => return self.recv(id, data),
            Input::Writable { bytes, .. } => link.writable(bytes),
            Input::Sent { stream, next, bytes, wire_bytes, .. } => {
                link.sent(now, stream, next, bytes, wire_bytes);
            }
            Input::Gone { stream, next, reason, .. } => link.gone(stream, next, reason),
            Input::Taken { stream, next, bytes, .. } => link.taken(now, stream, next, bytes),
            Input::Refused { stream, reason, .. } => {
                link.refused(now, stream, reason, &self.config.link);
            }
            Input::Appended { stream, next, .. } => link.appended(now, stream, next),
            Input::Answer { token, answer } => self.answer(id, token, answer),
            _ => {}
        }
        0
    }

    fn link_up(&mut self, id: LinkId, input: &Input<'_>) {
        let &Input::LinkUp { dialed, .. } = input else {
            return;
        };
        let slot = &mut self.links[id.0 as usize];
        let (stats, events) = (slot.link.stats, slot.events);
        self.ended.add(&stats);
        *slot = LinkSlot { events, ..LinkSlot::FREE };
        let (mut role, mut twice) = (Role::Hub, false);
        if let Some(dial) = dialed
            && let Some(place) = self.dials.get_mut(usize::from(dial.0))
        {
            if matches!(place.target, DialTarget::Upstream { .. }) {
                role = Role::Leaf;
            }
            // Both ends have dialled, and the other was first: one link is enough.
            twice = place.link.is_some();
            if !twice {
                place.dialer.up(self.now);
                place.link = Some(id);
                slot.dial = Some(dial.0);
            }
        }
        slot.link.up(self.now, input, role, &mut self.rng);
        if twice || self.stopping {
            slot.link.abandon();
        }
    }

    fn link_down(&mut self, id: LinkId) {
        let slot = &mut self.links[id.0 as usize];
        let (dial, leaf) = (slot.dial.take(), slot.leaf.take());
        self.ended.add(&slot.link.stats);
        *slot = LinkSlot { events: slot.events, ..LinkSlot::FREE };
        if let Some(node) = leaf {
            slot.tell(NodeEvent::LeafDown { node });
            if self.leases.find(node).is_some_and(|lease| lease.link() == Some(id)) {
                self.leases.set_link(node, None);
            }
        }
        if let Some(dial) = dial {
            slot.tell(NodeEvent::DialDown { dial: DialIndex(dial) });
            self.dial_ended(DialIndex(dial));
        }
    }

    fn dial_ended(&mut self, dial: DialIndex) {
        let Some(place) = self.dials.get_mut(usize::from(dial.0)) else {
            return;
        };
        place.link = None;
        place.lease.stop();
        place.dialer.down(self.now, place.done, &self.config.dial, &mut self.rng);
        self.touch(self.owner_of(dial.0.into()));
        self.retime_dial(dial.0.into());
    }

    fn recv(&mut self, id: LinkId, data: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let link = &mut self.links[id.0 as usize].link;
            let (bytes, upcall) = link.recv(self.now, &data[taken..], &self.config.link);
            taken += bytes;
            match upcall {
                Some(upcall) => self.upcall(id, upcall),
                None => return taken,
            }
        }
    }

    fn upcall(&mut self, id: LinkId, upcall: Upcall<'_>) {
        match upcall {
            Upcall::Greeted => self.greeted(id),
            Upcall::Register(register) => self.register(id, &register),
            Upcall::Lease(lease) => self.granted(id, lease),
            Upcall::Redirected(redirect) => self.redirected(id, redirect.address),
            Upcall::Subscribe(subscribe) => self.subscribe(id, &subscribe),
            Upcall::Refused(refuse) => {
                let slot = &mut self.links[id.0 as usize];
                if let Some(dial) = slot.dial {
                    self.dials[usize::from(dial)].dialer.hint(refuse.retry_after_ms);
                    let dial = DialIndex(dial);
                    slot.tell(NodeEvent::UpstreamRefused { dial, reason: refuse.reason });
                }
            }
            Upcall::Bye(bye) => {
                if let Some(dial) = self.links[id.0 as usize].dial {
                    let place = &mut self.dials[usize::from(dial)];
                    place.dialer.hint(bye.retry_after_ms);
                    place.done |= bye.reason == ByeReason::Done;
                }
            }
        }
    }

    fn greeted(&mut self, id: LinkId) {
        let Some(peer) = self.links[id.0 as usize].link.peer else {
            return;
        };
        let place = self.links[id.0 as usize].dial.map(usize::from);
        let target = place.map(|place| self.dials[place].target);
        match (target, peer.role) {
            (Some(DialTarget::Upstream { .. }), Role::Hub) => {
                if let Some(place) = place {
                    self.start_lease(id, place);
                }
            }
            (Some(DialTarget::Leaf), Role::Leaf) => {}
            (None, Role::Leaf) if self.config.hub => {}
            (None, Role::Client) => self.links[id.0 as usize].link.settled = true,
            (None, Role::Hub) => self.called_by_hub(id),
            _ => self.refuse(id, RefuseReason::Role, 0),
        }
    }

    /// A hub has dialled this node: it becomes the upstream of its name, or the first that only
    /// waits for a call.
    fn called_by_hub(&mut self, id: LinkId) {
        let name = self.links[id.0 as usize].link.peer.map(|peer| peer.name);
        let place = self.dials.iter().position(|place| match place.target {
            _ if place.link.is_some() => false,
            DialTarget::Upstream { queue, dials } => !dials || Some(queue) == name,
            DialTarget::Leaf => false,
        });
        let Some(place) = place else {
            return self.refuse(id, RefuseReason::Role, 0);
        };
        let slot = &mut self.links[id.0 as usize];
        slot.dial = Some(place as u16);
        slot.link.role = Role::Leaf;
        self.dials[place].link = Some(id);
        self.dials[place].dialer.up(self.now);
        self.start_lease(id, place);
    }

    fn start_lease(&mut self, id: LinkId, place: usize) {
        let lease = &mut self.dials[place].lease;
        lease.start(self.now);
        self.links[id.0 as usize].link.lease_first = lease.knows_a_term();
        self.tick_dial(place);
    }

    fn refuse(&mut self, id: LinkId, reason: RefuseReason, retry_after_ms: u32) {
        self.stats.refused += 1;
        let slot = &mut self.links[id.0 as usize];
        let node = slot.link.peer.map_or(NodeId::NONE, |peer| peer.id);
        slot.link.refuse(reason, retry_after_ms);
        slot.tell(NodeEvent::PeerRefused { node, reason });
    }

    // Towards leaves.

    fn register(&mut self, id: LinkId, register: &wire::Register<'_>) {
        let peer = self.links[id.0 as usize].link.peer;
        let Some(peer) = peer.filter(|peer| peer.role == Role::Leaf && self.config.hub) else {
            return self.refuse(id, RefuseReason::Role, 0);
        };
        let queue = match register.queues[0] {
            Text(b"") => None,
            Text(queue) => match Name::from_bytes(queue) {
                Ok(name) => Some(name),
                Err(_) => return self.refuse(id, RefuseReason::Name, 0),
            },
        };
        let registration = Registration {
            name: peer.name,
            instance: peer.instance,
            lease_ms: register.lease_ms,
            address: Address::from_bytes(register.address.0).ok(),
            queue,
        };
        match self.leases.register(self.now, &registration, &mut self.rng) {
            Admission::Renewed { lease_ms } => {
                self.stats.renewed += 1;
                self.grant(id, &registration, lease_ms);
            }
            Admission::Store { lease_ms } => {
                let slot = &mut self.links[id.0 as usize];
                slot.registering = Some(registration);
                slot.lease_ms = lease_ms;
                slot.storing = Storing::Ask;
            }
            Admission::Refused { reason, retry_after_ms } => {
                self.refuse(id, reason, retry_after_ms);
            }
        }
    }

    /// A registration is stored, or could not be.
    fn stored(&mut self, token: Token, failure: Option<Failure>) {
        let id = link_of(token);
        let Some(slot) = self.links.get_mut(id.0 as usize) else {
            return;
        };
        match slot.storing {
            Storing::Asked { token: asked } if asked == token => slot.storing = Storing::No,
            _ => {
                if let (Some(dial), Some(_)) = (slot.dial, failure) {
                    // The term could not be kept: the next grant has it tried again.
                    self.dials[usize::from(dial)].term_stored = HubTerm::default();
                }
                return;
            }
        }
        let Some(registration) = slot.registering.take() else {
            return;
        };
        let lease_ms = slot.lease_ms;
        if failure.is_some() {
            self.refuse(id, RefuseReason::Full, 5_000);
        } else {
            self.stats.registered += 1;
            self.leases.set_stored(registration.name.node_id());
            self.grant(id, &registration, lease_ms);
        }
        self.touch(id.0);
    }

    fn grant(&mut self, id: LinkId, registration: &Registration, lease_ms: u32) {
        let node = registration.name.node_id();
        // The place may have been forgotten, or taken by another link, while it was being stored.
        let Some(lease) = self.leases.find(node) else {
            return self.links[id.0 as usize].link.abandon();
        };
        let before = lease.link();
        let slot = &mut self.links[id.0 as usize];
        if !slot.link.is_open() {
            return;
        }
        slot.link.grant(lease_ms, self.config.term);
        slot.link.attach(0, registration.name);
        if let Some(queue) = registration.queue {
            slot.link.attach(1, queue);
        }
        if slot.leaf.replace(node).is_none() {
            slot.tell(NodeEvent::LeafUp { node, link: id });
        }
        self.leases.set_link(node, Some(id));
        if let Some(old) = before.filter(|old| *old != id) {
            let old_slot = &mut self.links[old.0 as usize];
            old_slot.leaf = None;
            old_slot.link.close(ByeReason::Replaced, 0);
            self.touch(old.0);
        }
    }

    // Towards clients.

    fn subscribe(&mut self, id: LinkId, subscribe: &wire::Subscribe<'_>) {
        let slot = &mut self.links[id.0 as usize];
        let client = slot.link.peer.is_some_and(|peer| peer.role == Role::Client);
        let message_type = match subscribe.message_type {
            Text(b"") => Ok(None),
            Text(message_type) => Address::from_bytes(message_type).map(Some),
        };
        match (Name::from_bytes(subscribe.consumer.0), message_type, slot.reading) {
            (Ok(consumer), Ok(message_type), Reading::No) if client => {
                let from_start = subscribe.from_start;
                slot.reading = Reading::Ask { consumer, message_type, from_start };
            }
            _ => self.refuse(id, RefuseReason::Consumer, 0),
        }
    }

    fn answer(&mut self, id: LinkId, token: Token, answer: Answer) {
        let slot = &mut self.links[id.0 as usize];
        match (slot.reading, answer) {
            (Reading::Asked { consumer, token: asked }, Answer::Subscribed) if asked == token => {
                slot.link.attach(0, consumer);
            }
            (Reading::Asked { token: asked, .. }, Answer::Denied) if asked == token => {
                self.refuse(id, RefuseReason::Consumer, 0);
            }
            // The store has no room for a queue that the peer would read.
            (_, Answer::Denied) => self.refuse(id, RefuseReason::Full, 60_000),
            _ => slot.link.answer(self.now, token, answer),
        }
    }

    // Towards upstream hubs.

    /// What was dialled stands by for another hub.
    fn redirected(&mut self, id: LinkId, Text(address): Text<'_>) {
        let slot = &mut self.links[id.0 as usize];
        let Some(dial) = slot.dial else { return };
        self.dials[usize::from(dial)].dialer.redirect();
        let dial = DialIndex(dial);
        match Address::from_bytes(address) {
            Ok(address) => self.redirected = Some((dial, address)),
            Err(_) => {
                slot.tell(NodeEvent::UpstreamRefused { dial, reason: RefuseReason::Standby });
            }
        }
    }

    fn granted(&mut self, id: LinkId, lease: wire::TermLease) {
        let slot = &mut self.links[id.0 as usize];
        let Some(dial) = slot.dial else {
            return self.refuse(id, RefuseReason::Role, 0);
        };
        let place = &mut self.dials[usize::from(dial)];
        let DialTarget::Upstream { queue, .. } = place.target else {
            return self.refuse(id, RefuseReason::Role, 0);
        };
        let index = DialIndex(dial);
        let instance = slot.link.peer.map_or(0, |peer| peer.instance);
        match place.lease.granted(self.now, lease, instance, &self.config.register) {
            Granted::TermOver => {
                slot.link.refuse_term();
                return slot
                    .tell(NodeEvent::UpstreamRefused { dial: index, reason: RefuseReason::Term });
            }
            Granted::First => {
                // Before anything is taken in that term: a poll tells it first.
                place.note_term();
                slot.link.attach(0, queue);
                slot.tell(NodeEvent::Registered { dial: index, lease_ms: lease.lease_ms });
            }
            Granted::Again => place.note_term(),
        }
        slot.link.settle(self.now);
        self.retime_dial(dial.into());
    }

    /// What a [`Key::Term`] has kept. A hub that is not upstream any more is none of this node's. Its own
    /// is that in which it led, or followed, last: leaves that know it take a hub that goes on alone.
    pub(super) fn restore_term(&mut self, hub: NodeId, record: &[u8]) -> Result<(), RestoreError> {
        let term = HubTerm::from_bytes(record).ok_or(RestoreError::Malformed)?;
        let link = &self.config.link;
        if hub == link.name.node_id() && term.instance == link.instance {
            self.config.term = self.config.term.max(term.term);
        }
        for place in self.dials.iter_mut().filter(|place| place.upstream() == Some(hub)) {
            place.lease.restore_term(term);
            place.term_stored = term;
        }
        Ok(())
    }

    fn poll_term(&mut self, owner: u32, buf: &mut [u8]) -> Option<Output<NodeEvent>> {
        let dial = usize::from(self.links[owner as usize].dial?);
        let place = &mut self.dials[dial];
        let hub = place.upstream().filter(|_| place.term_due)?;
        let term = place.lease.term();
        let record = term.to_bytes();
        let Some(space) = buf.get_mut(..record.len()) else {
            return Some(Output::NeedBuffer { len: record.len() });
        };
        space.copy_from_slice(&record);
        place.term_due = false;
        place.term_stored = term;
        let token = self.next_token(owner);
        Some(Output::Persist { key: Key::Term(hub), token, len: record.len() })
    }

    // Time and output.

    pub(super) fn tick_link(&mut self, owner: u32) {
        self.links[owner as usize].link.tick(self.now, &self.config.link);
        self.touch(owner);
        self.retime_link(owner);
    }

    pub(super) fn retime_link(&mut self, owner: u32) {
        let slot = &self.links[owner as usize];
        self.timers.set(owner, slot.link.deadline(&self.config.link));
        // In poll mode the quiet of the link is a deadline of its place.
        if self.config.dial.poll_interval_ms > 0
            && let Some(dial) = slot.dial
        {
            self.retime_dial(dial.into());
        }
    }

    pub(super) fn poll_link(&mut self, owner: u32, buf: &mut [u8]) -> Option<Output<NodeEvent>> {
        let slot = &mut self.links[owner as usize];
        for slot in &mut slot.events {
            if let Some(event) = *slot {
                *slot = None;
                return Some(Output::Event { event, len: 0 });
            }
        }
        if let Some(output) = self.poll_term(owner, buf) {
            return Some(output);
        }
        let slot = &mut self.links[owner as usize];
        if let Storing::Ask = slot.storing {
            return Some(self.poll_store(owner, buf));
        }
        if let Reading::Ask { .. } = slot.reading {
            return self.poll_subscribe(owner, buf);
        }
        let config = &self.config;
        let local = || config.local();
        slot.link.poll(self.now, &config.link, &local, &mut self.tokens, buf)
    }

    fn next_token(&mut self, owner: u32) -> Token {
        self.tokens = self.tokens.wrapping_add(1);
        // The low byte is one that no stream has.
        Token(u64::from(self.tokens) << 32 | u64::from(owner) << 8 | 0x7f)
    }

    fn poll_store(&mut self, owner: u32, buf: &mut [u8]) -> Output<NodeEvent> {
        let slot = &mut self.links[owner as usize];
        let Some(registration) = slot.registering else {
            slot.storing = Storing::No;
            return Output::Resume { link: LinkId(owner) };
        };
        let Some(len) = registration.encode(buf) else {
            return Output::NeedBuffer { len: REGISTRATION_BYTES_MAX };
        };
        // Not before, so that a short buffer does not use a token up.
        let token = self.next_token(owner);
        let slot = &mut self.links[owner as usize];
        slot.storing = Storing::Asked { token };
        let key = Key::Registration(registration.name.node_id());
        Output::Persist { key, token, len }
    }

    fn poll_subscribe(&mut self, owner: u32, buf: &mut [u8]) -> Option<Output<NodeEvent>> {
        let slot = &mut self.links[owner as usize];
        let Reading::Ask { consumer, message_type, from_start } = slot.reading else {
            return None;
        };
        let subscribe = wire::Subscribe {
            consumer: Text::from(&consumer),
            message_type: message_type.as_ref().map(Text::from).unwrap_or_default(),
            from_start,
        };
        let len = match Writer::whole(&subscribe, buf) {
            Ok(len) => len,
            Err(len) => return Some(Output::NeedBuffer { len }),
        };
        let token = self.next_token(owner);
        let slot = &mut self.links[owner as usize];
        slot.reading = Reading::Asked { consumer, token };
        let query = Query::Subscribe { link: LinkId(owner), queue: consumer.queue_id() };
        Some(Output::Ask { token, query, len })
    }
}

const fn link_of_input(input: &Input<'_>) -> Option<LinkId> {
    match *input {
        Input::LinkUp { link, .. }
        | Input::LinkDown { link }
        | Input::Recv { link, .. }
        | Input::Writable { link, .. }
        | Input::Sent { link, .. }
        | Input::Gone { link, .. }
        | Input::Taken { link, .. }
        | Input::Refused { link, .. }
        | Input::Appended { link, .. } => Some(link),
        Input::Answer { token, .. } => Some(link_of(token)),
        Input::Timeout
        | Input::DialFailed { .. }
        | Input::Persisted { .. }
        | Input::Failed { .. } => None,
    }
}
