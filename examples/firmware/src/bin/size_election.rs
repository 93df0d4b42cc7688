//! An election among five, and nothing that carries its messages: they are made of the bytes of the
//! line. See `docs/sizes.md`.
#![no_std]
#![no_main]

#[allow(dead_code, unused_imports, reason = "the firmware uses the rest")]
#[path = "../board/mod.rs"]
mod board;

use embedded_io::{Read, Write};
use replcore::election::{Election, ElectionConfig, ElectionSlot, Membership, Message};
use replcore::stream::NodeId;
use replcore::time::Instant;
use replcore::wire::{
    CONTROL_FRAME_BYTES_MAX, ConfigurationId, Heartbeat, HeartbeatAnswer, MEMBER_BYTES,
    MEMBERS_MAX, Members, Progress, VoteAnswer, VoteRequest,
};

use crate::board::{Line, Place};

const MEMBERS: u64 = 5;
const OTHERS: usize = MEMBERS as usize - 1;

static ELECTION: Place<Election<[ElectionSlot; OTHERS]>> = Place::empty();

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    board::reset()
}

/// The numbers of a message, as the line has them.
struct Numbers([u8; 64]);

impl Numbers {
    fn at(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[8 * index..8 * index + 8]);
        u64::from_le_bytes(bytes)
    }

    fn configuration(&self) -> ConfigurationId {
        ConfigurationId { term: self.at(4), version: self.at(5) }
    }

    fn message(&self) -> Message {
        let (term, configuration) = (self.at(1), self.configuration());
        let (campaign, pre) = (self.at(2) as u32, self.0[3] & 1 == 0);
        let progress = Progress { term: self.at(6), position: self.at(7) };
        match self.0[2] {
            0 => Message::VoteRequest(VoteRequest {
                term,
                campaign,
                pre,
                handed_over: !pre,
                configuration,
                progress,
            }),
            1 => Message::VoteAnswer(VoteAnswer {
                term,
                asked_term: self.at(3),
                campaign,
                pre,
                refusal: None,
                configuration,
            }),
            2 => Message::Heartbeat(Heartbeat {
                term,
                sent_us: self.at(3),
                configuration,
                registry: 0,
            }),
            3 => Message::HeartbeatAnswer(HeartbeatAnswer {
                term,
                sent_us: self.at(3),
                refusal: None,
                configuration,
                progress,
                registry: 0,
            }),
            _ => Message::HandOver(term),
        }
    }
}

fn write(number: u64) {
    let Ok(_) = Line.write(&number.to_le_bytes());
}

fn send(message: &Message) {
    match message {
        Message::VoteRequest(it) => write(it.term ^ u64::from(it.campaign)),
        Message::VoteAnswer(it) => write(it.term ^ u64::from(it.refusal.is_some())),
        Message::Heartbeat(it) => write(it.term ^ it.sent_us),
        Message::HeartbeatAnswer(it) => write(it.term ^ it.sent_us),
        Message::HandOver(term) => write(*term),
        Message::Members => {}
    }
}

/// Does what is due.
fn drain(election: &mut Election<[ElectionSlot; OTHERS]>, now: Instant) {
    let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
    while let Some(key) = election.store() {
        if let Some(len) = election.record(key, &mut buf) {
            let Ok(_) = Line.write(&buf[..len]);
        }
        election.storing(key);
        election.stored(now, key);
    }
    let mut members = [0; MEMBERS_MAX * MEMBER_BYTES];
    for to in (1..=MEMBERS).map(NodeId) {
        while let Some(message) = election.message_for(to) {
            if message == Message::Members
                && let Some(members) = election.members_frame(&mut members)
            {
                let Ok(_) = Line.write(members.members);
            }
            send(&message);
            election.sent(to, &message);
        }
    }
    while election.take_event().is_some() {
        write(election.leader().map_or(0, |leader| leader.node.0));
    }
    write(election.leader_until().map_or(0, Instant::as_micros) ^ election.deadline().as_micros());
}

fn run() -> ! {
    let (mut clock, random) = board::start();
    // SAFETY: once.
    let election = unsafe {
        let slots = [ElectionSlot::FREE; OTHERS];
        let election = Election::new(ElectionConfig::lan(), NodeId(1), random, slots);
        ELECTION.put(|| election.unwrap_or_else(|_| board::reset()))
    };
    let mut numbers = Numbers([0; 64]);
    let Ok(len) = Line.read(&mut numbers.0);
    for key in [replcore::contract::Key::Ballot, replcore::contract::Key::Members] {
        let _ = election.restore(key, &numbers.0[..len]);
    }
    let _ = election.set_members((1..=MEMBERS).map(|id| (NodeId(id), Membership::Voter)));
    election.start(clock.now());
    loop {
        let now = clock.now();
        let Ok(len) = Line.read(&mut numbers.0);
        let from = NodeId(u64::from(numbers.0[0]));
        match numbers.0[1] {
            0 => election.connected(now, from),
            1 => {
                let members =
                    Members { configuration: numbers.configuration(), members: &numbers.0[..len] };
                election.receive_members(now, from, &members, false);
            }
            2 => write(election.resign(now).into()),
            _ => write(election.receive(now, from, &numbers.message()).into()),
        }
        election.tick(now);
        drain(election, now);
    }
}
