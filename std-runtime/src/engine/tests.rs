use replcore::contract::{LinkId, Machine};
use replcore::wire::Call;

use super::CALL_PART_BYTES_MAX;
use super::intake::decompress;
use super::link::{Link, Pool};
use super::sending::compress;

#[test]
fn an_idle_link_takes_little_memory() {
    // 10,000 links and their queues have 256 MiB together; the machine's part is beside this.
    assert!(size_of::<Link>() <= 256, "{}", size_of::<Link>());
    let mut link = Link::default();
    let mut pool = Pool::default();
    link.out(&mut pool).extend_from_slice(&[0; 64 << 10]);
    link.machine_bytes = 64 << 10;
    assert_eq!(link.written(64 << 10, &mut pool), 64 << 10, "the credit comes back");
    assert!(link.is_idle());
    assert_eq!(link.out(&mut Pool::default()).capacity(), 0, "the buffer was given back");
    assert!(link.out(&mut pool).capacity() >= 64 << 10, "and serves the next");
}

#[test]
fn a_call_goes_in_parts_and_comes_together_again() {
    let payload: Vec<u8> = (0..CALL_PART_BYTES_MAX * 3 + 5).map(|at| at as u8).collect();
    let call = Call { id: 7, reply: false };
    let (mut sender, mut receiver, mut pool) = (Link::default(), Link::default(), Pool::default());
    pool.call_bytes = payload.len();
    sender.calls.get_or_insert_default().outgoing.push_back((call, payload.clone()));
    sender.write_calls(&mut pool);
    let mut received = None;
    while !sender.output().is_empty() {
        let frame = sender.output().to_vec();
        let (head, used) = replcore::wire::decode(&frame, 1 << 20).unwrap().unwrap();
        let replcore::wire::Frame::Call { call, len } = head else { panic!() };
        let part = &frame[used..used + len as usize];
        received = receiver.call_part(call, part, payload.len()).ok().flatten();
        sender.written(used + len as usize, &mut pool);
    }
    assert_eq!(received, Some(payload.clone()));
    assert_eq!(pool.call_bytes, 0);
    let mut other = Link::default();
    let parts = payload.chunks(CALL_PART_BYTES_MAX).map(|part| [&[1], part].concat());
    let refused =
        parts.map(|part| other.call_part(call, &part, payload.len() - 1)).any(|it| it.is_err());
    assert!(refused, "a call over the limit is refused");
}

#[test]
fn compression_comes_back_and_does_not_grow_beyond_its_budget() {
    let raw = b"once more ".repeat(1000);
    let mut scratch = Vec::new();
    let packed = compress(&raw, &mut scratch).unwrap().to_vec();
    let mut out = Vec::new();
    decompress(&packed, raw.len() as u32, raw.len() as u32, &mut out).unwrap();
    assert_eq!(out, raw);
    // What claims to be larger than the budget, and what is not what it claims, is refused.
    assert!(decompress(&packed, raw.len() as u32, 100, &mut out).is_err());
    assert!(decompress(&packed, raw.len() as u32 - 1, 1 << 20, &mut out).is_err());
    assert!(decompress(&packed, raw.len() as u32 + 1, 1 << 20, &mut out).is_err());
    let random: Vec<u8> =
        (0..1000u32).flat_map(|at| (at.wrapping_mul(2654435761)).to_le_bytes()).collect();
    assert!(compress(&random, &mut scratch).is_none(), "not worth it");
}

/// A machine that is asked nothing and asks for what a script says.
struct Scripted(Vec<replcore::contract::Output<()>>, Vec<String>);

impl Machine for Scripted {
    type Event = ();

    fn restore(
        &mut self,
        _: replcore::contract::Key,
        _: &[u8],
    ) -> Result<(), replcore::contract::RestoreError> {
        Ok(())
    }

    fn handle(
        &mut self,
        _: replcore::time::Instant,
        input: replcore::contract::Input<'_>,
    ) -> usize {
        self.1.push(format!("{input:?}"));
        0
    }

    fn poll(&mut self, _: &mut [u8]) -> replcore::contract::Output<()> {
        self.0.pop().unwrap_or(replcore::contract::Output::Idle { wake: None })
    }
}

#[test]
fn nothing_is_reported_before_the_turn_that_commits() {
    use super::{Engine, EngineConfig, Router, Ways};
    use crate::store::{Config, FileDisk, SegmentStore};
    use replcore::contract::{Key, Output, Token, Transport};
    use replcore::stream::{Name, NodeId};
    use replcore::time::Instant;

    let folder = tempfile::tempdir().unwrap();
    let name = Name::new("node").unwrap();
    let disk = FileDisk::open(folder.path()).unwrap();
    let store = SegmentStore::open(disk, &name, Config::new(1)).unwrap();
    let key = Key::Registration(NodeId(3));
    let persist = |token| Output::Persist { key, token: Token(token), len: 4 };
    let machine = Scripted(vec![persist(2), persist(1)], Vec::new());
    let ways = Ways { follow: |_, _, ()| {}, peer: |_, _| None };
    let router = Router::new(name, true, &[]);
    let (mut engine, _) =
        Engine::new(EngineConfig::default(), machine, store, router, ways, Instant::ZERO);
    engine.link_up(LinkId(0), None, Transport::Stream, None);
    let told = |engine: &Engine<Scripted, _>| {
        engine.machine().1.iter().filter(|input| input.starts_with("Persisted")).count()
    };
    assert_eq!(told(&engine), 0);
    engine.turn(Instant::from_millis(1), 1);
    assert_eq!((told(&engine), engine.counters().commits), (2, 1), "one commit for both");
    engine.link_down(LinkId(0));
    assert!(engine.output(LinkId(0)).is_empty());
}

#[test]
fn what_the_caller_keeps_is_reported_only_when_the_caller_says_so() {
    use super::{Engine, EngineConfig, Persist, Router, Ways};
    use crate::store::{Config, FileDisk, SegmentStore};
    use replcore::contract::{Key, Output, Token, Transport};
    use replcore::stream::{Name, NodeId};
    use replcore::time::Instant;

    let folder = tempfile::tempdir().unwrap();
    let name = Name::new("node").unwrap();
    let disk = FileDisk::open(folder.path()).unwrap();
    let store = SegmentStore::open(disk, &name, Config::new(1)).unwrap();
    let key = Key::Registration(NodeId(3));
    let persist = Output::Persist { key, token: Token(1), len: 4 };
    let machine = Scripted(vec![Output::Forget { key }, persist], Vec::new());
    let ways = Ways { follow: |_, _, ()| {}, peer: |_, _| None };
    let router = Router::new(name, true, &[]);
    let config = EngineConfig { persist_outside: true, ..EngineConfig::default() };
    let (mut engine, _) = Engine::new(config, machine, store, router, ways, Instant::ZERO);
    engine.link_up(LinkId(0), None, Transport::Stream, None);
    engine.turn(Instant::from_millis(1), 1);
    let told = |engine: &Engine<Scripted, _>| engine.machine().1.join(" ");
    assert!(!told(&engine).contains("Persisted"));
    let record = vec![0; 4];
    assert_eq!(engine.next_persist(), Some(Persist::Keep { key, token: Token(1), record }));
    assert_eq!(engine.next_persist(), Some(Persist::Forget { key }));
    assert_eq!(engine.next_persist(), None);
    engine.persisted(Token(1), Err(replcore::contract::Failure::Io));
    engine.persisted(Token(2), Ok(()));
    let told = told(&engine);
    assert!(told.contains("Failed") && told.contains("Persisted { token: Token(2) }"), "{told}");
}
