//! A log that several hubs hold (QC-33): a store that follows is the leader's store, batch by batch,
//! whatever happens to either.

mod store_support;

use std::collections::BTreeMap;

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::log::record::Message;
use replcore::rng::Rng;
use replcore::stream::{CLASSES, NodeId, Position, QueueKey};
use replcore_runtime::store::*;
use store_support::*;

type MemoryStore = SegmentStore<MemoryDisk>;

fn replicated() -> Config {
    Config {
        replicated: true,
        retain_bytes: 0,
        log_bytes_max: 4 << 20,
        queue_limits: QueueLimits { messages_max: 400, ..small().queue_limits },
        ..small()
    }
}

fn leader(disk: &MemoryDisk, term: u64) -> MemoryStore {
    let mut store = open(disk, replicated());
    store.promote(term, term).unwrap();
    show(&mut store);
    store
}

fn below(rng: &mut Rng, end: u64) -> u64 {
    rng.between(0, end - 1)
}

fn show(store: &mut MemoryStore) {
    let number = store.committed_number();
    store.show_through(number);
}

/// Class, position, ordinal and record.
type Entry = (u8, u64, u64, Vec<u8>);

/// All that a program or a peer can see of a store.
#[derive(Debug, PartialEq)]
struct View {
    identity: Identity,
    entries: BTreeMap<String, Vec<Entry>>,
    queues: Vec<(QueueInfo, Vec<Option<Holding>>)>,
    inbound: (replcore::stream::Epoch, replcore::stream::Cursor),
    consumers: Vec<Consumer>,
    states: Vec<(Key, Vec<u8>)>,
    setting: Option<Vec<u8>>,
    latest: Vec<Option<Vec<u8>>>,
}

fn view(store: &mut MemoryStore) -> View {
    let mut entries = BTreeMap::new();
    let mut queues = Vec::new();
    for info in store.queues(NOW_MS, None, usize::MAX) {
        let mut of_queue = Vec::new();
        store
            .peek(info.name.queue_id(), 0, usize::MAX >> 1, &mut |place, record| {
                let bytes = record.as_bytes().to_vec();
                of_queue.push((place.class, place.position.0, place.ordinal, bytes));
            })
            .unwrap();
        entries.insert(info.name.as_str().to_owned(), of_queue);
        let holding = |class: usize| {
            let key = QueueKey { queue: info.name.queue_id(), class: class as u8 };
            // What was sent is known to the leader alone.
            store.holding(key).map(|holding| Holding { sent: Position(0), ..holding })
        };
        let lanes = (0..CLASSES).map(holding).collect();
        // An estimate, within a run that is partly acknowledged.
        queues.push((QueueInfo { bytes: 0, oldest_ms: 0, ..info }, lanes));
    }
    let mut states = Vec::new();
    store.restore(&mut |key, state| states.push((key, state.to_vec())));
    let mut latest = Vec::new();
    for n in 0..4_u8 {
        let mut found = None;
        let there = store
            .latest("t", &[n], &mut |_, record| found = Some(record.as_bytes().to_vec()))
            .unwrap();
        assert_eq!(there, found.is_some());
        latest.push(found);
    }
    View {
        identity: store.identity(),
        entries,
        queues,
        inbound: store.inbound(&stream_of("leaf")),
        consumers: store.consumers(),
        states,
        setting: store.setting("s").map(<[u8]>::to_vec),
        latest,
    }
}

/// Whether the second, a follower, holds all that the first does.
#[track_caller]
fn assert_same(leads: &View, follows: &View, what: &str) {
    assert_eq!(
        leads.entries.keys().collect::<Vec<_>>(),
        follows.entries.keys().collect::<Vec<_>>()
    );
    for (queue, entries) in &leads.entries {
        let of = |entry: &Entry| (entry.0, entry.1, entry.2);
        let places: Vec<_> = entries.iter().map(of).collect();
        assert_eq!(
            places,
            follows.entries[queue].iter().map(of).collect::<Vec<_>>(),
            "{what}: {queue}"
        );
        assert!(*entries == follows.entries[queue], "{what}: records of {queue}");
    }
    assert_eq!(leads.queues, follows.queues, "{what}");
    assert_eq!(leads.identity, follows.identity, "{what}");
    assert_eq!(leads.inbound, follows.inbound, "{what}");
    assert_eq!(leads.consumers, follows.consumers, "{what}");
    assert_eq!((&leads.states, &leads.setting), (&follows.states, &follows.setting), "{what}");
    for (one, other) in leads.latest.iter().zip(&follows.latest) {
        // A store that replays finds the current record of a key in its copy, where the one that
        // made the copy may have let the first go.
        assert!(one.is_none() || one == other, "{what}: the current record of a key");
    }
}

/// Something at random, of all that changes a store.
fn change(store: &mut MemoryStore, rng: &mut Rng, posts: &mut u32) -> Result<(), Failure> {
    let queue = ["a", "b", "c"][below(rng, 3) as usize];
    let class = below(rng, CLASSES as u64) as u8;
    let lane = store.holding(key(queue, class));
    let failed = |_: PostError| Failure::Io;
    match below(rng, 16) {
        0..=4 => {
            *posts += 1;
            let idempotency_key = posts.to_le_bytes();
            let short = below(rng, 200) as usize;
            let size = if below(rng, 40) == 0 { 20_000 } else { short };
            let body = vec![*posts as u8; size];
            let record_key = [*posts as u8 % 4];
            let post_of = Message {
                message_type: "t",
                key: if posts.is_multiple_of(2) { &record_key } else { &[] },
                idempotency_key: &idempotency_key,
                body: &body,
                ..Message::default()
            };
            post(store, &message(&post_of, class), &[queue, "b"]).map(|_| ()).map_err(failed)
        }
        5..=8 => {
            // What is taken and not shown yet is not seen in `inbound`.
            if store.dirty() {
                return Ok(());
            }
            show(store);
            let source = stream_of("leaf");
            let position = store.inbound(&source).1.position.0;
            let records: Vec<Vec<u8>> = (position..position + rng.between(1, 60))
                .map(|at| foreign("leaf", at + 1, 2, &[at as u8; 300]))
                .collect();
            take(store, &source, position, &records, &["a", "c"])
        }
        9 if !store.dirty() => {
            show(store);
            let source = stream_of("leaf");
            let position = store.inbound(&source).1.position;
            store.take_skip(&source, position, Position(position.0 + 3), SkipReason::Expired)
        }
        10..=12 => {
            if let Some(lane) = lane {
                let through = rng.between(lane.released.0, lane.next.0);
                store.release(key(queue, class), Position(through));
            }
            Ok(())
        }
        13 => {
            let node = NodeId(below(rng, 3) + 1);
            store.put_setting("s", &rng.next_u64().to_le_bytes())?;
            if below(rng, 3) == 0 {
                store.forget(Key::Registration(node));
                return Ok(());
            }
            store.persist(Key::Registration(node), &rng.next_u64().to_le_bytes())
        }
        14 => {
            let consumer = Consumer { name: "reader".into(), message_type: "t".into() };
            if below(rng, 3) == 0 {
                store.remove_consumer(&name("reader"));
                return Ok(());
            }
            store.create_consumer(NOW_MS, &consumer, below(rng, 2) == 0).map(|_| ()).map_err(failed)
        }
        _ if below(rng, 4) == 0 => store.purge(id_of(queue), None).map(|_| ()).or(Ok(())),
        _ if below(rng, 4) == 0 => {
            store.forget_queue(id_of("c"));
            Ok(())
        }
        _ => store.maintain(NOW_MS),
    }
}

/// Hands on everything that the follower lacks; whether it could.
fn catch_up(leader: &mut MemoryStore, follower: &mut MemoryStore) -> Result<bool, FollowError> {
    let Some(mut cursor) = leader.ship_from(follower.head()).unwrap() else { return Ok(false) };
    let mut batch = Vec::new();
    loop {
        batch.clear();
        match leader.ship(&mut cursor, &mut batch).unwrap() {
            Shipped::Batch => follower.follow(&batch)?,
            Shipped::End => return follower.commit().map(|()| true).map_err(FollowError::Store),
            Shipped::Gone => return Ok(false),
        }
    }
}

/// A follower with a copy of the leader's store, made while `work` goes on at the leader.
fn copy(
    leader: &mut MemoryStore,
    disk: &MemoryDisk,
    mut work: impl FnMut(&mut MemoryStore),
) -> MemoryStore {
    let start = leader.start_copy().unwrap();
    leader.pin(start.ship.segment());
    let mut follower =
        SegmentStore::open_copy(disk.clone(), &name(NAME), replicated(), &start.state).unwrap();
    let (mut cursor, mut ship, mut part) = (start.cursor, start.ship, Vec::new());
    let begun = cursor.to_bytes().unwrap();
    cursor = CopyCursor::resume(&begun, &[]).unwrap();
    while leader.copy_part(&mut cursor, &mut part).unwrap() {
        follower.take_copy_part(&part).unwrap();
        part.clear();
        work(leader);
        // As behind every part where the link breaks.
        cursor = CopyCursor::resume(&begun, &cursor.place()).unwrap();
        assert_eq!(leader.ship_from(follower.head()).unwrap(), Some(ship));
    }
    follower.finish_copy().unwrap();
    while leader.ship(&mut ship, &mut part).unwrap() == Shipped::Batch {
        follower.follow(&part).unwrap();
        part.clear();
    }
    leader.pin(u64::MAX);
    follower.commit().unwrap();
    assert_eq!(leader.head(), follower.head());
    drop(follower);
    // As a process does: the copy takes the place of what was there, and is opened.
    disk.process_ended();
    open(disk, replicated())
}

#[test]
fn a_follower_is_the_leader_at_every_batch_across_restarts_and_power_cuts_of_either() {
    let mut moved = 0;
    for seed in 0..5 {
        let mut rng = Rng::new(seed);
        let disks = [MemoryDisk::default(), MemoryDisk::default()];
        let mut term = 1;
        let mut leads = leader(&disks[0], term);
        let mut follows = copy(&mut leads, &disks[1], |_| ());
        let (mut posts, mut copies) = (0, 0);
        for step in 0..300 {
            for _ in 0..rng.between(1, 6) {
                change(&mut leads, &mut rng, &mut posts).unwrap();
            }
            leads.commit().unwrap();
            show(&mut leads);
            if below(&mut rng, 3) == 0 {
                continue;
            }
            if below(&mut rng, 6) == 0 {
                // The power goes at the follower somewhere on the way.
                disks[1].stop_after(below(&mut rng, 8));
                let _ = catch_up(&mut leads, &mut follows);
                drop(follows);
                power_cut(&disks[1], &mut rng);
                follows = open(&disks[1], replicated());
                assert!(follows.reports().is_empty(), "{:?}", follows.reports());
            }
            if below(&mut rng, 20) == 0 {
                moved += leads.counters().records_moved;
                drop(leads);
                if below(&mut rng, 2) == 0 {
                    power_cut(&disks[0], &mut rng)
                } else {
                    disks[0].process_ended()
                }
                term += 1;
                leads = leader(&disks[0], term);
            }
            if !catch_up(&mut leads, &mut follows).unwrap() {
                copies += 1;
                disks[1].process_ended();
                drop(follows);
                let fresh = MemoryDisk::default();
                follows = copy(&mut leads, &fresh, |_| ());
                disks[1].restore(&fresh);
                drop(follows);
                follows = open(&disks[1], replicated());
            }
            follows.maintain(NOW_MS).unwrap();
            let (one, other) = (view(&mut leads), view(&mut follows));
            assert_same(&one, &other, &format!("seed {seed}, step {step}"));
            assert_eq!(leads.head(), follows.head());
        }
        assert!(copies < 10, "seed {seed}: {copies} copies");
        moved += leads.counters().records_moved;
        let held = [&leads, &follows].map(|store| (store.ordinals(), store.log_bytes()));
        assert!(
            held.iter().all(|held| held.0[0] > 0),
            "seed {seed}: space is given back: {held:?}"
        );
    }
    assert!(moved > 100, "{moved} records were copied forward by a leader");
}

#[test]
fn a_promoted_follower_knows_the_posts_and_numbers_its_own_in_a_life_of_its_own() {
    let disks = [MemoryDisk::default(), MemoryDisk::default()];
    let mut old = leader(&disks[0], 1);
    let with_key = |key: &'static [u8]| {
        message(&Message { idempotency_key: key, body: b"x", ..Message::default() }, 2)
    };
    let before_copy = post(&mut old, &with_key(b"one"), &["q"]).unwrap();
    old.commit().unwrap();
    let mut new = copy(&mut old, &disks[1], |_| ());
    let after_copy = post(&mut old, &with_key(b"two"), &["q"]).unwrap();
    old.commit().unwrap();
    assert!(catch_up(&mut old, &mut new).unwrap());
    drop(old);
    new.promote(2, 9).unwrap();
    show(&mut new);
    for (key, posted) in [(&b"one"[..], before_copy), (b"two", after_copy)] {
        let again = post(&mut new, &with_key(key), &["q"]).unwrap();
        assert_eq!(again, Posted { duplicate: true, ..posted });
    }
    let third = post(&mut new, &body(b"y"), &["q"]).unwrap();
    assert_eq!((third.id.seq.0, third.id.epoch), (1, new.identity().epoch));
    assert_ne!(third.id.epoch, before_copy.id.epoch);
}

#[test]
fn nothing_committed_is_seen_before_it_is_replicated() {
    let disk = MemoryDisk::default();
    let mut store = leader(&disk, 1);
    store.ensure_queue(&name("q"), QueueKind::Leaf).unwrap();
    store.watch(key("q", 2), LinkId(1), StreamIndex(0)).unwrap();
    let source = stream_of("leaf");
    let mut numbers = Vec::new();
    for n in 0..3 {
        take(&mut store, &source, n, &[foreign("leaf", n + 1, 2, b"x")], &["q"]).unwrap();
        store.commit().unwrap();
        numbers.push(store.committed_number());
    }
    let seen = |store: &mut MemoryStore| {
        let next = store.holding(key("q", 2)).unwrap().next.0;
        let entries = drain(store, key("q", 2), 0, 4096).0.len() as u64;
        let mut read = 0;
        store
            .read(0, usize::MAX, &mut |_, _| {
                read += 1;
                true
            })
            .unwrap();
        [next, entries, read, store.ordinals()[1], store.inbound(&source).1.position.0]
    };
    assert_eq!(seen(&mut store), [0; 5]);
    assert_eq!(store.grown(), None);
    for (shown, number) in numbers.iter().enumerate() {
        store.show_through(*number);
        assert_eq!(seen(&mut store), [shown as u64 + 1; 5]);
        assert_eq!(store.grown().map(|growth| growth.next.0), Some(shown as u64 + 1));
    }
}

/// Else a report that waits for the first of two batches would be made with what was seen before it.
#[test]
fn a_batch_with_nothing_to_see_does_not_hold_back_what_came_before() {
    let disk = MemoryDisk::default();
    let mut store = leader(&disk, 1);
    let source = stream_of("leaf");
    take(&mut store, &source, 0, &[foreign("leaf", 1, 2, b"x")], &["q"]).unwrap();
    store.commit().unwrap();
    let number = store.committed_number();
    store.put_setting("unseen", b"by readers").unwrap();
    store.commit().unwrap();
    assert!(store.committed_number() > number);
    assert_eq!(store.show_through(number), number);
    assert_eq!(store.inbound(&source).1.position.0, 1);
    assert_eq!(store.show_through(number + 1), number + 1);
}

#[test]
fn a_deposed_leader_with_a_tail_of_its_own_is_told_apart_and_takes_a_copy() {
    let disks = [MemoryDisk::default(), MemoryDisk::default()];
    let mut old = leader(&disks[0], 1);
    post(&mut old, &body(b"both"), &["q"]).unwrap();
    old.commit().unwrap();
    let mut new = copy(&mut old, &disks[1], |_| ());
    // One batch more here, and one of the same number there.
    post(&mut old, &body(b"old"), &["q"]).unwrap();
    old.commit().unwrap();
    drop(old);
    new.promote(2, 1).unwrap();
    post(&mut new, &body(b"new"), &["q"]).unwrap();
    new.commit().unwrap();
    show(&mut new);
    let mut old = open(&disks[0], replicated());
    assert_eq!(old.head().number, new.head().number - 1);
    assert!(!catch_up(&mut new, &mut old).unwrap(), "it is not a part of the new log");
    // Nor does the old one take what does not follow.
    let mut cursor = new.start_copy().unwrap().ship;
    post(&mut new, &body(b"more"), &["q"]).unwrap();
    new.commit().unwrap();
    let mut batch = Vec::new();
    assert_eq!(new.ship(&mut cursor, &mut batch).unwrap(), Shipped::Batch);
    assert_eq!(old.follow(&batch), Err(FollowError::Diverged));
    show(&mut new);
    let fresh = MemoryDisk::default();
    let mut old = copy(&mut new, &fresh, |_| ());
    assert_eq!(view(&mut old), view(&mut new));
    assert_eq!(old.promote(2, 1), Err(Failure::Corrupt), "a term counts once");
}

#[test]
fn a_damaged_batch_is_refused_and_changes_nothing() {
    let disks = [MemoryDisk::default(), MemoryDisk::default()];
    let mut leads = leader(&disks[0], 1);
    let mut follows = copy(&mut leads, &disks[1], |_| ());
    post(&mut leads, &body(b"payload"), &["q"]).unwrap();
    leads.commit().unwrap();
    let mut cursor = leads.ship_from(follows.head()).unwrap().unwrap();
    let mut batch = Vec::new();
    assert_eq!(leads.ship(&mut cursor, &mut batch).unwrap(), Shipped::Batch);
    let before = view(&mut follows);
    for at in 8..batch.len() {
        let mut damaged = batch.clone();
        damaged[at] ^= 1;
        assert!(follows.follow(&damaged).is_err(), "byte {at}");
        assert!(follows.follow(&batch[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(view(&mut follows), before);
    follows.follow(&batch).unwrap();
    assert_eq!(follows.follow(&batch), Err(FollowError::Diverged), "twice");
}

#[test]
fn a_copy_taken_while_the_leader_works_on_is_the_leader() {
    for seed in 0..6 {
        let mut rng = Rng::new(100 + seed);
        let disks = [MemoryDisk::default(), MemoryDisk::default()];
        let mut leads = leader(&disks[0], 1);
        let mut posts = 0;
        for _ in 0..1500 {
            change(&mut leads, &mut rng, &mut posts).unwrap();
            if below(&mut rng, 3) == 0 {
                leads.commit().unwrap();
                show(&mut leads);
            }
        }
        let mut parts = 0;
        let mut follows = copy(&mut leads, &disks[1], |leads| {
            parts += 1;
            for _ in 0..4 {
                change(leads, &mut rng, &mut posts).unwrap();
            }
            leads.commit().unwrap();
            show(leads);
        });
        assert!(parts > 4, "{parts}");
        let totals = |view: &mut View| {
            for (queue, _) in &mut view.queues {
                // What went while the copy was made went before it came there.
                *queue = QueueInfo {
                    acknowledged_total: 0,
                    dropped_total: 0,
                    expired_total: 0,
                    purged_total: 0,
                    ..queue.clone()
                };
            }
        };
        let (mut one, mut other) = (view(&mut leads), view(&mut follows));
        totals(&mut one);
        totals(&mut other);
        assert_same(&one, &other, &format!("seed {seed}"));
    }
}

#[test]
fn a_follower_with_a_hole_in_its_log_asks_for_a_copy() {
    let disks = [MemoryDisk::default(), MemoryDisk::default()];
    let mut leads = leader(&disks[0], 1);
    let mut follows = copy(&mut leads, &disks[1], |_| ());
    for _ in 0..20 {
        post(&mut leads, &body(&[3; 500]), &["q"]).unwrap();
        leads.commit().unwrap();
        assert!(catch_up(&mut leads, &mut follows).unwrap());
    }
    drop(follows);
    disks[1].process_ended();
    let log = disks[1].names().into_iter().rfind(|name| name.starts_with("log-")).unwrap();
    disks[1].damage(&log, |bytes| bytes[3000] ^= 1);
    for _ in 0..2 {
        let mut follows = open(&disks[1], replicated());
        assert_eq!(follows.head(), Head::default());
        assert!(!catch_up(&mut leads, &mut follows).unwrap());
        drop(follows);
        disks[1].process_ended();
    }
    // Nobody else is left: it leads with what it has, under numbers of its own.
    let mut last = open(&disks[1], replicated());
    let epoch = last.identity().epoch;
    last.promote(5, 1).unwrap();
    assert!(last.identity().epoch > epoch);
}
