//! The embedded store: what goes in comes out, in order, once, across restarts.

mod store_support;

use replcore::contract::{Failure, LinkId, SkipReason, StreamIndex};
use replcore::log::record::Message;
use replcore::stream::{Cursor, Epoch, Position, StreamKey};
use replcore::wire::Records;

use replcore_runtime::store::*;
use store_support::*;

#[test]
fn posts_come_out_of_their_queues_in_order_after_a_restart() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    for number in 0..5000_u32 {
        let queues: &[&str] = if number % 3 == 0 { &["a", "b"] } else { &["a"] };
        post(&mut store, &body(&number.to_le_bytes()), queues).unwrap();
        if number % 100 == 99 {
            store.commit().unwrap();
        }
    }
    for _ in 0..2 {
        for frame in [4096, 70, 1 << 20] {
            let (a, gaps) = drain(&mut store, key("a", 2), 0, frame);
            assert!(gaps.is_empty());
            let expected: Vec<(u64, Vec<u8>)> =
                (0..5000_u32).map(|n| (u64::from(n), n.to_le_bytes().to_vec())).collect();
            assert_eq!(a, expected);
            let (b, _) = drain(&mut store, key("b", 2), 0, frame);
            let numbers: Vec<Vec<u8>> = b.into_iter().map(|entry| entry.1).collect();
            let expected: Vec<Vec<u8>> =
                (0..5000_u32).step_by(3).map(|n| n.to_le_bytes().to_vec()).collect();
            assert_eq!(numbers, expected);
        }
        drop(store);
        disk.process_ended();
        store = open(&disk, small());
        assert!(store.reports().is_empty(), "{:?}", store.reports());
    }
}

#[test]
fn a_record_in_parts_is_staged_and_counts_when_it_is_whole() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let source = stream_of("leaf");
    let record = foreign("leaf", 1, 2, &[5; 5000]);
    let arrival = Arrival::Leaf(source.owner);
    let mut at = 0;
    for part in record.chunks(2000) {
        let whole = at + part.len() == record.len();
        let head = Records {
            first: Cursor { position: Position(0), offset: at as u32 },
            completed: u32::from(whole),
            tail_bytes: if whole { 0 } else { part.len() as u32 },
            ..Records::default()
        };
        assert_eq!(store.inbound(&source).1, head.first);
        // A part that does not follow is refused and changes nothing.
        let wrong = Records { first: Cursor { offset: 9999, ..head.first }, ..head };
        assert!(store.take(NOW_MS, &source, &wrong, part, arrival, &mut to(&["q"])).is_err());
        store.take(NOW_MS, &source, &head, part, arrival, &mut to(&["q"])).unwrap();
        at += part.len();
    }
    assert_eq!(store.inbound(&source).1, Cursor::default(), "not yet committed");
    store.commit().unwrap();
    assert_eq!(store.inbound(&source).1, Cursor::at(Position(1)));
    assert_eq!(drain(&mut store, key("q", 2), 0, 512).0, [(0, vec![5; 5000])]);
}

#[test]
fn records_known_by_identity_count_once_over_two_paths() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let records: Vec<Vec<u8>> = (1..=20).map(|seq| foreign("far", seq, 2, b"x")).collect();
    take(&mut store, &stream_of("one"), 0, &records[..10], &["q"]).unwrap();
    take(&mut store, &stream_of("two"), 0, &records, &["q"]).unwrap();
    take(&mut store, &stream_of("one"), 10, &records[10..], &["q"]).unwrap();
    store.commit().unwrap();
    assert_eq!(store.holding(key("q", 2)).unwrap().next, Position(20));
    assert_eq!(store.counters().records_known, 20);
    drop(store);
    disk.process_ended();
    let mut store = open(&disk, small());
    take(&mut store, &stream_of("three"), 0, &records, &["q"]).unwrap();
    store.commit().unwrap();
    assert_eq!(store.holding(key("q", 2)).unwrap().next, Position(20));
}

#[test]
fn damaged_or_dishonest_records_change_nothing() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let good = foreign("leaf", 1, 2, b"good");
    let mut flipped = foreign("leaf", 2, 2, b"flip");
    *flipped.last_mut().unwrap() ^= 1;
    let unstamped = body(b"no identity");
    let mut liar = foreign("other", 3, 2, b"liar");
    liar[16] ^= 1;
    let crc = replcore::log::crc32c(&liar[4..]);
    liar[..4].copy_from_slice(&crc.to_le_bytes());
    for bad in [flipped, unstamped, liar] {
        let records = [good.clone(), bad];
        let taken = take(&mut store, &stream_of("leaf"), 0, &records, &["q"]);
        assert_eq!(taken, Err(Failure::Corrupt));
    }
    assert!(store.holding(key("q", 2)).is_none());
    take(&mut store, &stream_of("leaf"), 0, &[good], &["q"]).unwrap();
    store.commit().unwrap();
    assert_eq!(drain(&mut store, key("q", 2), 0, 4096).0.len(), 1);
}

#[test]
fn a_known_idempotency_key_answers_the_first_id_also_after_a_crash() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let with_key = |number: u32| {
        let key = format!("key-{number}");
        let plain = Message { body: b"x", ..Message::default() };
        message(&Message { idempotency_key: key.as_bytes(), ..plain }, 2)
    };
    let mut ids = Vec::new();
    for number in 0..3000 {
        let posted = post(&mut store, &with_key(number), &["q"]).unwrap();
        assert!(!posted.duplicate);
        ids.push(posted.id);
        if number % 50 == 0 {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    for _ in 0..2 {
        for number in (0..3000).step_by(7) {
            let again = post(&mut store, &with_key(number), &["q"]).unwrap();
            assert_eq!(again, Posted { id: ids[number as usize], duplicate: true });
        }
        drop(store);
        power_cut(&disk, &mut replcore::rng::Rng::new(3));
        store = open(&disk, small());
    }
    assert_eq!(store.holding(key("q", 2)).unwrap().next, Position(3000));
}

#[test]
fn the_current_record_of_a_key_is_the_one_with_the_later_origin_time() {
    // HS-23
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let keyed = |seq: u64, at: u64, text: &[u8]| {
        let message = Message { message_type: "t", key: b"k", body: text, ..Message::default() };
        let mut out = vec![0; message.record_bytes().unwrap()];
        let id = replcore::stream::RecordId {
            origin: name("leaf").node_id(),
            epoch: Epoch(1),
            class: 2,
            seq: replcore::stream::Seq(seq),
        };
        let time = replcore::time::Stamp::from_wall_ms(NOW_MS + at);
        let crc = replcore::log::crc32c;
        replcore::log::record::encode(&message, id, time, &mut out, crc).unwrap();
        out
    };
    let records = [keyed(1, 10, b"newer"), keyed(2, 5, b"older"), keyed(3, 7, b"old")];
    take(&mut store, &stream_of("leaf"), 0, &records, &[]).unwrap();
    for _ in 0..2 {
        store.commit().unwrap();
        let mut body = Vec::new();
        let found =
            store.latest("t", b"k", &mut |_, record| body = record.body().to_vec()).unwrap();
        assert!(found);
        assert_eq!(body, b"newer");
        assert!(!store.latest("t", b"other", &mut |_, _| {}).unwrap());
        drop(store);
        disk.process_ended();
        store = open(&disk, small());
    }
}

#[test]
fn watched_queues_report_growth_once_after_the_commit() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    store.ensure_queue(&name("q"), QueueKind::Leaf).unwrap();
    let holding = store.watch(key("q", 2), LinkId(4), StreamIndex(1)).unwrap();
    assert_eq!(holding, Holding { released: Position(0), next: Position(0), sent: Position(0) });
    post(&mut store, &body(b"x"), &["q"]).unwrap();
    assert_eq!(store.grown(), None);
    store.commit().unwrap();
    let growth = Growth { link: LinkId(4), stream: StreamIndex(1), next: Position(1) };
    assert_eq!((store.grown(), store.grown()), (Some(growth), None));
    store.unwatch(LinkId(4));
    post(&mut store, &body(b"x"), &["q"]).unwrap();
    store.commit().unwrap();
    assert_eq!(store.grown(), None);
}

fn limited(policy: LimitPolicy) -> Config {
    let queue_limits = QueueLimits { messages_max: 10, bytes_max: 0, age_ms_max: 0, policy };
    Config { queue_limits, ..small() }
}

#[test]
fn a_queue_at_its_limit_refuses_or_drops_as_told_and_works_again() {
    // HS-26
    let disk = MemoryDisk::default();
    let mut store = open(&disk, limited(LimitPolicy::Refuse));
    for _ in 0..10 {
        post(&mut store, &body(b"x"), &["q"]).unwrap();
    }
    assert_eq!(post(&mut store, &body(b"x"), &["q"]), Err(PostError::QueueFull(name("q"))));
    let records = [foreign("leaf", 1, 2, b"x")];
    assert_eq!(take(&mut store, &stream_of("leaf"), 0, &records, &["q"]), Err(Failure::Full));
    store.commit().unwrap();
    store.release(key("q", 2), Position(5));
    take(&mut store, &stream_of("leaf"), 0, &records, &["q"]).unwrap();
    store.commit().unwrap();
    assert_eq!(store.holding(key("q", 2)).unwrap().next, Position(11));

    let disk = MemoryDisk::default();
    let mut store = open(&disk, limited(LimitPolicy::DropOldest));
    for number in 0..25_u8 {
        post(&mut store, &body(&[number]), &["q"]).unwrap();
    }
    store.commit().unwrap();
    for _ in 0..2 {
        let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
        assert_eq!(gaps, [(0, 15)]);
        assert_eq!(got.len(), 10);
        assert_eq!(got[0], (15, vec![15]));
        let info = store.queue(NOW_MS, &name("q")).unwrap();
        assert_eq!((info.messages, info.dropped_total), ([0, 0, 10, 0], 15));
        drop(store);
        disk.process_ended();
        store = open(&disk, limited(LimitPolicy::DropOldest));
    }

    let disk = MemoryDisk::default();
    let mut store = open(&disk, limited(LimitPolicy::DropByClass));
    for class in [3, 2, 1] {
        for _ in 0..5 {
            let bytes = message(&Message { body: b"x", ..Message::default() }, class);
            post(&mut store, &bytes, &["q"]).unwrap();
        }
    }
    assert_eq!(store.queue(NOW_MS, &name("q")).unwrap().messages, [0, 5, 5, 0]);
}

#[test]
fn expired_records_and_those_that_waited_too_long_are_passed_over() {
    let disk = MemoryDisk::default();
    let limits = QueueLimits {
        messages_max: 0,
        bytes_max: 0,
        age_ms_max: 5000,
        policy: LimitPolicy::DropOldest,
    };
    let mut store = open(&disk, Config { queue_limits: limits, ..small() });
    let with_end = |end| Message { body: b"x", expires_wall_ms: end, ..Message::default() };
    for end in [NOW_MS - 1, NOW_MS - 1, NOW_MS + 1000, NOW_MS - 1] {
        post(&mut store, &message(&with_end(end), 2), &["q"]).unwrap();
    }
    store.commit().unwrap();
    let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
    assert_eq!((got.len(), gaps), (1, vec![(0, 1), (1, 2), (3, 4)]));
    assert_eq!(store.counters().expired, 3);
    let mut out = Vec::new();
    let late = NOW_MS + 6001;
    let filled = store.fill(late, key("q", 2), Cursor::at(Position(2)), 4096, &mut out).unwrap();
    assert_eq!(filled, Fill::Gone { next: Position(4), reason: SkipReason::Dropped });
}

#[test]
fn operators_list_peek_purge_and_read() {
    // HS-30
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let mut ids = Vec::new();
    for number in 0..30_u8 {
        ids.push(post(&mut store, &body(&[number]), &["a", "b"]).unwrap().id);
    }
    store.commit().unwrap();
    let names: Vec<String> =
        store.queues(NOW_MS, Some("a"), 10).iter().map(|info| info.name.to_string()).collect();
    assert_eq!(names, ["b"]);
    let mut seen = Vec::new();
    store
        .peek(id_of("a"), 5, 3, &mut |place, record| {
            seen.push((place.position.0, record.body()[0]));
        })
        .unwrap();
    assert_eq!(seen, [(5, 5), (6, 6), (7, 7)]);
    let unknown = replcore::stream::RecordId::default();
    let purge = store.purge(id_of("a"), Some(&[ids[3], ids[4], ids[20], unknown])).unwrap();
    assert_eq!(purge, Purge { messages: 3, not_found: vec![unknown] });
    store.commit().unwrap();
    for _ in 0..2 {
        let (got, gaps) = drain(&mut store, key("a", 2), 0, 4096);
        assert_eq!((got.len(), gaps), (27, vec![(3, 5), (20, 21)]));
        assert_eq!(drain(&mut store, key("b", 2), 0, 4096).0.len(), 30);
        let mut read = Vec::new();
        let next = store.read(10, 1 << 20, &mut |ordinal, record| {
            read.push((ordinal, record.body()[0]));
            read.len() < 5
        });
        assert_eq!(next.unwrap(), 15);
        assert_eq!(read, [(10, 10), (11, 11), (12, 12), (13, 13), (14, 14)]);
        drop(store);
        disk.process_ended();
        store = open(&disk, small());
    }
    assert_eq!(store.purge(id_of("a"), None).unwrap().messages, 27);
    assert!(store.forget_queue(id_of("b")) && !store.forget_queue(id_of("b")));
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let store = open(&disk, small());
    assert!(store.queue(NOW_MS, &name("b")).is_none());
    assert_eq!(store.queue(NOW_MS, &name("a")).unwrap().messages, [0; 4]);
}

#[test]
fn consumers_get_what_matches_from_the_start_or_from_now_and_have_dead_letters() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let typed =
        |kind| message(&Message { message_type: kind, body: b"x", ..Message::default() }, 2);
    for kind in ["door.open", "door.shut", "heat"] {
        post(&mut store, &typed(kind), &[]).unwrap();
    }
    store.commit().unwrap();
    let consumer =
        |name: &str, kind: &str| Consumer { name: name.into(), message_type: kind.into() };
    store.create_consumer(NOW_MS, &consumer("all", ""), true).unwrap();
    store.create_consumer(NOW_MS, &consumer("doors", "door.*"), true).unwrap();
    store.create_consumer(NOW_MS, &consumer("fresh", "heat"), false).unwrap();
    for _ in 0..2 {
        store.commit().unwrap();
        let held =
            |store: &SegmentStore<MemoryDisk>, queue| store.holding(key(queue, 2)).unwrap().next.0;
        assert_eq!((held(&store, "all"), held(&store, "doors"), held(&store, "fresh")), (3, 2, 0));
        drop(store);
        disk.process_ended();
        store = open(&disk, small());
        assert_eq!(store.consumers().len(), 3);
    }
    post(&mut store, &typed("heat"), &[]).unwrap();
    store.commit().unwrap();
    assert_eq!(drain(&mut store, key("fresh", 2), 0, 4096).0.len(), 1);
    store.dead_letter(key("doors", 2), Position(1)).unwrap();
    store.commit().unwrap();
    assert_eq!(drain(&mut store, key("dead/doors", 2), 0, 4096).0.len(), 1);
    assert!(store.remove_consumer(&name("doors")) && !store.remove_consumer(&name("doors")));
    assert!(store.queue(NOW_MS, &name("dead/doors")).is_none());
}

#[test]
fn states_and_settings_survive() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let registration = |id| replcore::contract::Key::Registration(replcore::stream::NodeId(id));
    store.persist(registration(1), b"one").unwrap();
    store.persist(registration(2), b"two").unwrap();
    store.forget(registration(1));
    store.put_setting("rules", b"[]").unwrap();
    store.commit().unwrap();
    drop(store);
    power_cut(&disk, &mut replcore::rng::Rng::new(1));
    let store = open(&disk, small());
    let mut states = Vec::new();
    store.restore(&mut |key, state| states.push((key, state.to_vec())));
    assert_eq!(states, [(registration(2), b"two".to_vec())]);
    assert_eq!((store.setting("rules"), store.setting("other")), (Some(&b"[]"[..]), None));
}

/// Each start begins a life of its own: new posts get new identities, what waits keeps its own.
#[test]
fn every_start_numbers_its_posts_anew_and_keeps_what_waits() {
    let disk = MemoryDisk::default();
    let mut ids = std::collections::BTreeSet::new();
    for life in 0..3_u8 {
        let mut store = open(&disk, small());
        for number in 0..10 {
            let posted = post(&mut store, &body(&[life, number]), &["up"]).unwrap();
            assert!(ids.insert(posted.id), "{:?} is given twice", posted.id);
            assert_eq!(
                (posted.id.epoch, posted.id.seq.0),
                (store.identity().epoch, u64::from(number) + 1)
            );
        }
        store.commit().unwrap();
        let (got, _) = drain(&mut store, key("up", 2), 0, 4096);
        let expected = (0..=life).flat_map(|life| (0..10).map(move |number| vec![life, number]));
        assert_eq!(got, (0..).zip(expected).collect::<Vec<(u64, Vec<u8>)>>());
        drop(store);
        if life == 1 {
            disk.process_ended()
        } else {
            power_cut(&disk, &mut replcore::rng::Rng::new(1))
        }
    }
}

/// A reader of an earlier life goes on where it was, as far as that life is still what it knows.
#[test]
fn a_reader_of_an_earlier_life_is_given_the_place_where_its_log_and_this_one_part() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let mut lives = Vec::new();
    for life in 0..3_u8 {
        lives.push(store.identity().epoch);
        for number in 0..10 {
            post(&mut store, &body(&[life, number]), &["up"]).unwrap();
        }
        store.commit().unwrap();
        if life == 1 {
            store.release(key("up", 2), Position(12));
            store.close().unwrap();
        }
        drop(store);
        disk.process_ended();
        store = open(&disk, small());
    }
    let up = key("up", 2);
    let unknown = Epoch(9);
    let mut place = |epoch, position| store.place_reader(up, epoch, Position(position)).0;
    assert_eq!(place(lives[1], 15), 15);
    assert_eq!(place(lives[1], 25), 20, "that life has ended at 20");
    assert_eq!(place(lives[2], 30), 30);
    assert_eq!(place(unknown, 25), 12, "what is acknowledged is safe, the rest is sent again");
    assert_eq!(place(unknown, 5), 5);
    assert_eq!(store.holding(up).unwrap().sent, Position(30));
}

/// An incoming stream is taken in the life in which it was placed, and in no other.
#[test]
fn a_stream_goes_on_in_another_life_where_it_is_placed() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let of = |epoch| StreamKey { epoch: Epoch(epoch), ..stream_of("hub") };
    let skip = |store: &mut SegmentStore<MemoryDisk>, epoch, first, next| {
        store.take_skip(&of(epoch), Position(first), Position(next), SkipReason::Dropped)
    };
    skip(&mut store, 7, 0, 50).unwrap();
    assert!(skip(&mut store, 8, 50, 60).is_err(), "life 8 was not placed");
    store.place(&of(8), Position(40)).unwrap();
    assert!(skip(&mut store, 7, 50, 60).is_err(), "life 7 is over");
    skip(&mut store, 8, 40, 45).unwrap();
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let mut store = open(&disk, small());
    let (epoch, cursor) = store.inbound(&of(9));
    assert_eq!((epoch.0, cursor.position), (8, Position(45)));
}
