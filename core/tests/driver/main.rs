//! The loops for devices, blocking and asynchronous, against a hub machine in memory and in virtual
//! time.

mod device;
mod hub;
mod records;
mod secure;

use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;

use replcore::contract::SkipReason;
use replcore::driver::{Buffers, BuffersError, Framing, Session, Turn, asynchronous, blocking};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::rng::Rng;
use replcore::stream::{Epoch, Name, Position};
use replcore::time::Instant;
use replcore::transport::cobs;
use replcore::wire::CONTROL_FRAME_BYTES_MAX;

use device::{Line, Memory};
use hub::Hub;

const FRAME_BYTES: usize = CONTROL_FRAME_BYTES_MAX;
/// Longest record that the device puts together from parts.
const RECORD_BYTES: usize = 2000;

fn leaf() -> Leaf {
    let name = Name::new("mcu-1").unwrap();
    let mut link = LinkSettings::new(name, 3, Epoch(1 << 16));
    link.frame_bytes_max = FRAME_BYTES as u32;
    link.window_bytes = 2 * FRAME_BYTES as u32;
    link.retransmit_ms = 200;
    link.keepalive_ms = 500;
    let mut config = LeafConfig::new(link, 4);
    config.dial.retry_ms_min = 20;
    config.dial.retry_ms_max = 100;
    Leaf::new(config)
}

fn buffers(framing: Framing) -> Buffers<'static> {
    let packet = match framing {
        Framing::Cobs => cobs::encoded_bytes_max(FRAME_BYTES) + 1,
        Framing::Stream => 0,
    };
    Buffers {
        incoming: vec![0; cobs::decode_buffer_bytes(FRAME_BYTES)].leak(),
        outgoing: vec![0; FRAME_BYTES].leak(),
        packet: vec![0; packet].leak(),
        record: vec![0; RECORD_BYTES].leak(),
    }
}

fn session(framing: Framing) -> Session<'static> {
    Session::new(Box::leak(Box::new(leaf())), framing, buffers(framing)).unwrap()
}

/// One turn of the device, whichever loop it has.
type Device = Box<dyn FnMut(u64)>;

fn blocking_device(framing: Framing, mut line: Line, mut store: Memory) -> Device {
    let mut session = session(framing);
    Box::new(move |now_ms| {
        let now = Instant::from_millis(now_ms);
        loop {
            match blocking::turn(&mut session, &mut line, &mut store, || now).unwrap() {
                Turn::Wait(Some(wake)) if wake <= now => {}
                Turn::Wait(_) => return,
                turn => open_or_close(&mut session, &line, now, turn),
            }
        }
    })
}

fn open_or_close(session: &mut Session<'_>, line: &Line, now: Instant, turn: Turn) {
    match turn {
        Turn::Connect => {
            line.0.borrow_mut().ended = false;
            session.connected(now);
        }
        Turn::Disconnect => {
            let mut bytes = line.0.borrow_mut();
            bytes.to_device.clear();
            bytes.ended = false;
            session.disconnected(now);
        }
        Turn::Halted(reason) => panic!("{reason}"),
        Turn::Wait(_) => {}
    }
}

fn asynchronous_device(framing: Framing, mut line: Line, mut store: Memory) -> Device {
    let clock = Rc::new(Cell::new(0));
    let time = clock.clone();
    let mut future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
        let mut session = session(framing);
        loop {
            let now = || Instant::from_millis(time.get());
            let began_ms = time.get();
            // The application has work every millisecond.
            let wait = |_| {
                poll_fn(|_| if time.get() > began_ms { Poll::Ready(()) } else { Poll::Pending })
            };
            let turn = asynchronous::turn(&mut session, &mut line, &mut store, now, wait);
            let turn = turn.await.unwrap();
            open_or_close(&mut session, &line, now(), turn);
        }
    });
    Box::new(move |now_ms| {
        clock.set(now_ms);
        let done = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(done.is_pending());
    })
}

/// A device and its hub.
struct World {
    now_ms: u64,
    line: Line,
    hub: Hub,
    store: Memory,
    device: Device,
    /// One byte in so many is flipped.
    flipped_one_in: u64,
    rng: Rng,
}

impl World {
    fn new(framing: Framing, device: fn(Framing, Line, Memory) -> Device) -> Self {
        let line = Line::default();
        let store = Memory::new(Name::new("mcu-1").unwrap().node_id());
        Self {
            now_ms: 0,
            hub: Hub::new(framing),
            device: device(framing, line.clone(), store.clone()),
            line,
            store,
            flipped_one_in: 0,
            rng: Rng::new(8),
        }
    }

    fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for byte in &mut bytes {
            if self.flipped_one_in > 0 && self.rng.between(1, self.flipped_one_in) == 1 {
                *byte ^= 1 << self.rng.between(0, 7);
            }
        }
        bytes
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now_ms += 1;
        let now = Instant::from_millis(self.now_ms);
        (self.device)(self.now_ms);
        let to_hub = core::mem::take(&mut self.line.0.borrow_mut().to_hub);
        let to_hub = self.damaged(to_hub);
        self.hub.turn(now, &to_hub);
        let to_device = core::mem::take(&mut self.hub.output);
        let to_device = self.damaged(to_device);
        self.line.0.borrow_mut().to_device.extend(to_device);
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: {} came", self.hub.received().len());
    }

    fn cut(&mut self) {
        self.hub.cut(Instant::from_millis(self.now_ms));
        let mut bytes = self.line.0.borrow_mut();
        bytes.to_device.clear();
        bytes.to_hub.clear();
        bytes.ended = true;
    }
}

fn body(number: usize) -> Vec<u8> {
    // Some go into one frame together, some need several.
    vec![number as u8; number * 37 % 1200]
}

/// Posts both ways while `disturb` has its way, and looks what came.
fn exchange(world: &mut World, disturb: impl Fn(&mut World, usize)) {
    const COUNT: usize = 120;
    for number in 0..COUNT {
        world.store.post(&body(number));
        world.hub.post(Instant::from_millis(world.now_ms), &body(number + 1));
        disturb(world, number);
        world.step();
    }
    world.until("records up", |world| world.hub.received().len() == COUNT);
    world.until("releases", |world| world.store.0.borrow().released == COUNT as u64);
    world.until("records down", |world| world.hub.released == COUNT as u64);
    let expected: Vec<Vec<u8>> = (0..COUNT).map(body).collect();
    assert_eq!(world.hub.received(), expected);
    let expected: Vec<Vec<u8>> = (1..=COUNT).map(body).collect();
    assert_eq!(world.store.0.borrow().taken, expected);
}

const LOOPS: [fn(Framing, Line, Memory) -> Device; 2] = [blocking_device, asynchronous_device];

#[test]
fn records_of_all_sizes_pass_both_ways_in_order() {
    for framing in [Framing::Cobs, Framing::Stream] {
        for device in LOOPS {
            let mut world = World::new(framing, device);
            exchange(&mut world, |_, _| {});
            assert!(world.store.0.borrow().commits < 120, "records are committed together");
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_on_a_bad_serial_line() {
    for device in LOOPS {
        let mut world = World::new(Framing::Cobs, device);
        world.flipped_one_in = 3_000;
        exchange(&mut world, |_, _| {});
    }
}

#[test]
fn nothing_is_lost_or_doubled_over_connections_that_break() {
    for device in LOOPS {
        let mut world = World::new(Framing::Stream, device);
        exchange(&mut world, |world, number| {
            if number % 17 == 16 {
                world.cut();
            }
        });
    }
}

#[test]
fn a_store_without_room_is_tried_again_and_one_that_cannot_be_read_costs_the_connection() {
    for framing in [Framing::Cobs, Framing::Stream] {
        for device in LOOPS {
            let mut world = World::new(framing, device);
            exchange(&mut world, |world, number| {
                let mut store = world.store.0.borrow_mut();
                if number == 20 {
                    store.full = 3;
                }
                if number == 60 {
                    store.unreadable = 2;
                }
            });
            let store = world.store.0.borrow();
            assert_eq!((store.full, store.unreadable), (0, 0));
        }
    }
}

#[test]
fn what_the_store_no_longer_has_is_said_in_its_place() {
    let mut world = World::new(Framing::Cobs, blocking_device);
    for number in 0..10 {
        world.store.post(&[number]);
    }
    world.store.0.borrow_mut().held_from = 4;
    world.until("the rest", |world| world.store.0.borrow().released == 10);
    assert_eq!(world.hub.gaps, [(Position(0), Position(4), SkipReason::Dropped)]);
    assert_eq!(world.hub.received(), (4..10).map(|number| vec![number]).collect::<Vec<_>>());
}

#[test]
fn a_record_longer_than_the_memory_for_one_is_let_go_by() {
    for device in LOOPS {
        let mut world = World::new(Framing::Cobs, device);
        for body in [&[1; 10][..], &[2; RECORD_BYTES], &[3; 10]] {
            world.hub.post(Instant::ZERO, body);
        }
        world.until("all of them", |world| world.hub.released == 3);
        assert_eq!(world.store.0.borrow().taken, [[1; 10], [3; 10]]);
    }
}

#[test]
fn noise_without_a_hub_is_bounded_and_harmless() {
    let mut world = World::new(Framing::Cobs, blocking_device);
    for _ in 0..2_000 {
        let noise = (0..200).map(|_| world.rng.next_u64() as u8).collect::<Vec<_>>();
        world.line.0.borrow_mut().to_device.extend(noise);
        world.now_ms += 1;
        (world.device)(world.now_ms);
        world.line.0.borrow_mut().to_hub.clear();
    }
    exchange(&mut world, |_, _| {});
}

#[test]
fn buffers_that_are_too_short_are_refused_with_what_is_needed() {
    let with = |change: fn(&mut Buffers<'static>)| {
        let mut buffers = buffers(Framing::Cobs);
        change(&mut buffers);
        Session::new(&mut leaf(), Framing::Cobs, buffers).unwrap_err()
    };
    let incoming = cobs::decode_buffer_bytes(FRAME_BYTES);
    let packet = cobs::encoded_bytes_max(FRAME_BYTES) + 1;
    assert_eq!(with(|all| all.incoming = &mut []), BuffersError::Incoming(incoming));
    assert_eq!(with(|all| all.outgoing = &mut []), BuffersError::Outgoing(FRAME_BYTES));
    assert_eq!(with(|all| all.packet = &mut []), BuffersError::Packet(packet));
    assert_eq!(with(|all| all.record = &mut []), BuffersError::Record(40));
}
