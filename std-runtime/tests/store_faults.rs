//! The embedded store against bad media, full disks, foreign folders and long absences.

mod store_support;

use replcore::contract::Failure;
use replcore::rng::Rng;
use replcore::stream::Position;
use replcore_runtime::store::*;
use store_support::*;

fn log_names(disk: &MemoryDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("log-")).collect()
}

fn numbers(got: &[(u64, Vec<u8>)]) -> Vec<u32> {
    got.iter().map(|entry| u32::from_le_bytes(entry.1[..4].try_into().unwrap())).collect()
}

#[test]
fn a_damaged_batch_is_set_aside_and_the_others_are_kept() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    for round in 0..20_u32 {
        for number in 0..10 {
            let mut bytes = (round * 10 + number).to_le_bytes().to_vec();
            bytes.resize(100, 0);
            post(&mut store, &body(&bytes), &["q"]).unwrap();
        }
        store.commit().unwrap();
    }
    let epoch = store.identity().epoch;
    drop(store);
    disk.process_ended();
    let log = log_names(&disk).remove(0);
    disk.damage(&log, |bytes| bytes[256 + 32 + 5000] ^= 1);
    let mut store = open(&disk, small());
    assert_eq!(store.reports().len(), 1, "{:?}", store.reports());
    assert!(store.reports()[0].contains("10 records"), "{:?}", store.reports());
    assert_eq!(store.counters().segments_quarantined, 1);
    assert!(disk.names().iter().any(|name| name.starts_with("damaged-")));
    // What was lost may be known elsewhere under its number.
    assert!(store.identity().epoch > epoch);
    let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
    let got = numbers(&got);
    assert_eq!(got.len(), 199, "one record of 200 was hit");
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(gaps.len(), 1);
    assert_eq!(store.counters().lost, 1);
    post(&mut store, &body(&999_u32.to_le_bytes()), &["q"]).unwrap();
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let mut store = open(&disk, small());
    assert!(store.reports().is_empty());
    let (got, _) = drain(&mut store, key("q", 2), 0, 4096);
    assert_eq!(numbers(&got).last(), Some(&999));
}

/// The length that a batch or an entry at `at` in a log file says.
fn length_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize
}

/// A log of batches of three records, each with its own number as its body, of which none is in
/// memory; and where in the file each batch starts.
fn numbered_batches(disk: &MemoryDisk, batches: u32) -> (SegmentStore<MemoryDisk>, Vec<usize>) {
    let mut store = open(disk, Config { recent_bytes_max: 0, ..small() });
    for number in 0..3 * batches {
        post(&mut store, &body(&number.to_le_bytes()), &["q"]).unwrap();
        if number % 3 == 2 {
            store.commit().unwrap();
        }
    }
    let mut starts = Vec::new();
    let log = log_names(disk).remove(0);
    disk.damage(&log, |bytes| {
        let mut at = 256;
        for _ in 0..batches {
            starts.push(at);
            at += 32 + length_at(bytes, at);
        }
    });
    (store, starts)
}

/// Every entry that is to be had is the one of its position.
fn in_their_places(got: &[(u64, Vec<u8>)]) -> Vec<u64> {
    let numbers = numbers(got).into_iter().map(u64::from).collect::<Vec<_>>();
    assert_eq!(got.iter().map(|entry| entry.0).collect::<Vec<_>>(), numbers);
    numbers
}

/// Whatever bit of a batch flips, at rest or under a node that runs, other
/// batches are read to the last record, and none takes the place of another.
#[test]
fn records_behind_damage_are_read_and_keep_their_places() {
    let disk = MemoryDisk::default();
    let (store, starts) = numbered_batches(&disk, 4);
    drop(store);
    disk.process_ended();
    let log = log_names(&disk).remove(0);
    for (nth, at) in (starts[1]..starts[2]).step_by(5).enumerate() {
        let runs = nth % 2 == 0;
        let copy = disk.image();
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (at % 8);
        let config = Config { recent_bytes_max: 0, ..small() };
        let mut store = if runs {
            let store = open(&copy, config);
            copy.damage(&log, flip);
            store
        } else {
            copy.damage(&log, flip);
            open(&copy, config)
        };
        let (got, _) = drain(&mut store, key("q", 2), 0, 4096);
        let got = in_their_places(&got);
        let others = [0, 1, 2, 6, 7, 8, 9, 10, 11];
        assert!(others.iter().all(|number| got.contains(number)), "{at} {runs}: {got:?}");
        store.maintain(NOW_MS).unwrap();
        assert_eq!(store.counters().segments_quarantined, 1, "{at} {runs}");
        assert_eq!(store.reports().len(), 1, "{:?}", store.reports());
    }
}

/// What is stored behind damage is read from the disk too, when no record was behind it as long as
/// nothing had been posted since.
#[test]
fn records_stored_after_a_start_with_damage_at_the_end_are_read() {
    let disk = MemoryDisk::default();
    let (mut store, starts) = numbered_batches(&disk, 2);
    // A batch without records: else the damage would be the torn end of the log.
    store.release(key("q", 2), Position(1));
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let log = log_names(&disk).remove(0);
    disk.damage(&log, |bytes| {
        // The last byte of the batch is one of a note.
        let at = starts[1];
        let last = at + 32 + length_at(bytes, at) - 1;
        bytes[last] ^= 1;
    });
    let mut store = open(&disk, Config { recent_bytes_max: 0, ..small() });
    assert_eq!(store.reports().len(), 1, "{:?}", store.reports());
    let (got, _) = drain(&mut store, key("q", 2), 0, 4096);
    let before = got.len();
    for number in 6..12_u32 {
        post(&mut store, &body(&number.to_le_bytes()), &["q"]).unwrap();
        store.commit().unwrap();
    }
    let (got, _) = drain(&mut store, key("q", 2), 0, 4096);
    assert_eq!(numbers(&got)[before..], [6, 7, 8, 9, 10, 11]);
}

/// The place in a log file of the note that made the queue `q`.
fn note_of_queue_q(bytes: &[u8]) -> usize {
    let mut at = 256 + 32;
    // A note of the kind that makes a queue, with a name of one letter.
    while bytes[at + 8] != 2 || bytes[at + 12..at + 15] != *b"\x03\x01q" {
        at += length_at(bytes, at);
    }
    at
}

/// A queue whose making is lost keeps what the log has for it: through checkpoints, under a name
/// that an operator sees, until somebody wants the queue by its own.
#[test]
fn a_queue_of_which_the_making_is_damaged_keeps_its_entries_until_it_is_named_again() {
    let disk = MemoryDisk::default();
    let (store, _) = numbered_batches(&disk, 4);
    drop(store);
    disk.process_ended();
    let log = log_names(&disk).remove(0);
    disk.damage(&log, |bytes| {
        let at = note_of_queue_q(bytes);
        bytes[at + 13] ^= 1;
    });
    let unnamed = name(&format!("unnamed-{:016x}", id_of("q").0));
    for _ in 0..2 {
        let mut store = open(&disk, small());
        assert!(store.queue(NOW_MS, &name("q")).is_none());
        let info = store.queue(NOW_MS, &unnamed).expect("it is kept");
        assert_eq!((info.id, info.messages[2]), (id_of("q"), 12));
        store.close().unwrap();
        disk.process_ended();
    }
    let mut store = open(&disk, small());
    post(&mut store, &body(&12_u32.to_le_bytes()), &["q"]).unwrap();
    store.commit().unwrap();
    // As the checkpoint and as the log behind it tell it.
    for _ in 0..2 {
        assert!(store.queue(NOW_MS, &unnamed).is_none());
        assert_eq!(store.queue(NOW_MS, &name("q")).unwrap().messages[2], 13);
        let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
        assert_eq!(in_their_places(&got), (0..13).collect::<Vec<_>>());
        assert!(gaps.is_empty());
        drop(store);
        disk.process_ended();
        store = open(&disk, small());
    }
}

/// Issue 2: a corrupt segment is quarantined and reported with what it held, also when it is met by
/// a node that runs, which goes on; and the next start does not need what its notes said.
#[test]
fn damage_met_while_reading_is_set_aside_and_told_as_at_a_start() {
    let disk = MemoryDisk::default();
    let (mut store, starts) = numbered_batches(&disk, 5);
    let log = log_names(&disk).remove(0);
    // The body of the second record of the second batch, and a note of the fourth.
    let entry = starts[1] + 32;
    disk.damage(&log, |bytes| {
        let length = length_at(bytes, entry);
        bytes[entry + 2 * length - 4] ^= 1;
        bytes[starts[4] - 3] ^= 1;
    });
    let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
    assert_eq!(in_their_places(&got), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!((gaps, store.counters().lost), (vec![(4, 5)], 1));
    store.maintain(NOW_MS).unwrap();
    assert_eq!(store.reports().len(), 1, "{:?}", store.reports());
    let report = &store.reports()[0];
    assert!(report.contains("of the 15 records that it held from ordinal 0 on"), "{report}");
    assert!(report.contains("the record 4 is lost; a copy is in damaged-"), "{report}");
    assert!(disk.names().iter().any(|name| name.starts_with("damaged-")));
    post(&mut store, &body(&15_u32.to_le_bytes()), &["q"]).unwrap();
    store.commit().unwrap();
    store.maintain(NOW_MS).unwrap();
    assert_eq!((store.reports().len(), store.counters().segments_quarantined), (1, 1));
    drop(store);
    disk.process_ended();
    let mut store = open(&disk, small());
    assert!(store.reports().is_empty(), "{:?}", store.reports());
    let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
    let all: Vec<u64> = (0..16).filter(|number| *number != 4).collect();
    assert_eq!((in_their_places(&got), gaps), (all, vec![(4, 5)]));
}

/// What a segment has lost does not keep it from being moved and freed.
#[test]
fn a_damaged_segment_is_moved_and_freed_as_others_are() {
    let disk = MemoryDisk::default();
    let config = Config { log_bytes_max: 1 << 20, retain_bytes: 128 << 10, ..small() };
    let mut store = open(&disk, config);
    let mut late = Vec::new();
    for number in 0..12_000_u32 {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(150, 7);
        let is_late = number % 50 == 0;
        let queues: &[&str] = if is_late { &["fast", "late"] } else { &["fast"] };
        if is_late {
            late.push(number);
        }
        post(&mut store, &body(&bytes), queues).unwrap();
        if number % 40 == 39 {
            store.commit().unwrap();
            let next = store.holding(key("fast", 2)).unwrap().next;
            store.release(key("fast", 2), next);
        }
        if number == 999 {
            // The record that waits longest.
            disk.damage(&log_names(&disk)[0], |bytes| bytes[256 + 32 + 150] ^= 1);
        }
    }
    store.commit().unwrap();
    store.maintain(NOW_MS).unwrap();
    assert!(store.log_bytes() <= 1 << 20);
    assert!(!log_names(&disk).iter().any(|name| name.ends_with("0000000000000001")));
    let (got, gaps) = drain(&mut store, key("late", 2), 0, 4096);
    assert_eq!((numbers(&got), gaps), (late[1..].to_vec(), vec![(0, 1)]));
    assert_eq!((store.counters().lost, store.reports().len()), (1, 1), "{:?}", store.reports());
}

#[test]
fn a_segment_whose_header_is_damaged_keeps_what_it_holds() {
    let disk = MemoryDisk::default();
    let (store, _) = numbered_batches(&disk, 4);
    drop(store);
    disk.process_ended();
    disk.damage(&log_names(&disk)[0], |bytes| bytes[14] ^= 4);
    let mut store = open(&disk, small());
    assert!(store.reports()[0].contains("no sound header"), "{:?}", store.reports());
    let (got, gaps) = drain(&mut store, key("q", 2), 0, 4096);
    assert_eq!((in_their_places(&got).len(), gaps.len()), (12, 0));
}

/// A consumer whose filter is lost with a damaged note can be made again, and goes on with what its
/// queue holds.
#[test]
fn a_consumer_that_damage_has_halved_is_reported_and_made_again() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    let consumer = Consumer { name: "books".into(), message_type: "order.*".into() };
    store.create_consumer(NOW_MS, &consumer, false).unwrap();
    store.commit().unwrap();
    let order = |number: u32| {
        let body = number.to_le_bytes();
        let plain = replcore::log::record::Message::default();
        message(
            &replcore::log::record::Message { message_type: "order.new", body: &body, ..plain },
            2,
        )
    };
    post(&mut store, &order(0), &[]).unwrap();
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let log = log_names(&disk).remove(0);
    disk.damage(&log, |bytes| {
        let at = bytes.windows(7).position(|part| part == b"order.*").unwrap();
        bytes[at] ^= 1;
    });
    for from_start in [false, true] {
        let copy = disk.image();
        let mut store = open(&copy, small());
        let told = |report: &String| report.contains("consumer `books`");
        assert!(store.reports().iter().any(told), "{:?}", store.reports());
        assert!(store.consumers().is_empty());
        store.create_consumer(NOW_MS, &consumer, from_start).unwrap();
        post(&mut store, &order(1), &[]).unwrap();
        store.commit().unwrap();
        let (got, _) = drain(&mut store, key("books", 2), 0, 4096);
        assert_eq!(numbers(&got), [0, 1]);
        drop(store);
        copy.process_ended();
        let store = open(&copy, small());
        assert_eq!(store.consumers(), std::slice::from_ref(&consumer));
        assert!(!store.reports().iter().any(told), "{:?}", store.reports());
    }
}

#[test]
fn flipped_bytes_anywhere_never_stop_a_start_nor_pass_as_a_message() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    for number in 0..3000_u32 {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(60, 7);
        post(&mut store, &body(&bytes), &["q"]).unwrap();
        if number % 20 == 0 {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let mut rng = Rng::new(11);
    for _ in 0..60 {
        let copy = disk.image();
        let names = log_names(&copy);
        let name = &names[rng.between(0, names.len() as u64 - 1) as usize];
        let offset = rng.between(0, 60_000) as usize;
        copy.damage(name, |bytes| bytes[offset] ^= 1 << rng.between(0, 7));
        let mut store = open(&copy, small());
        let (got, _) = drain(&mut store, key("q", 2), 0, 4096);
        let got = numbers(&got);
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{name} {offset}");
        post(&mut store, &body(b"more"), &["q"]).unwrap();
        store.commit().unwrap();
    }
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    for number in 0..4000_u32 {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(100, 7);
        post(&mut store, &body(&bytes), &["q"]).unwrap();
        if number % 20 == 0 {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let newest = disk.names().into_iter().rfind(|name| name.starts_with("checkpoint-")).unwrap();
    disk.damage(&newest, |bytes| bytes[40] ^= 1);
    let mut store = open(&disk, small());
    assert_eq!(store.reports().len(), 1, "{:?}", store.reports());
    let (got, gaps) = drain(&mut store, key("q", 2), 0, 65536);
    assert_eq!((got.len(), gaps.len()), (4000, 0));
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_works_again_when_there_is_room() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    post(&mut store, &body(b"first"), &["q"]).unwrap();
    store.commit().unwrap();
    disk.set_bytes_max(Some(0));
    let mut posted = 1;
    let refused = loop {
        match post(&mut store, &body(&[1; 1000]), &["q"]) {
            Ok(_) => posted += 1,
            Err(error) => break error,
        }
        store.commit().unwrap();
        assert!(posted < 1000);
    };
    assert_eq!(refused, PostError::DiskFull);
    let records = [foreign("leaf", 1, 2, &[1; 2000])];
    assert_eq!(take(&mut store, &stream_of("leaf"), 0, &records, &["q"]), Err(Failure::Full));
    store.commit().unwrap();
    assert_eq!(drain(&mut store, key("q", 2), 0, 65536).0.len(), posted);
    disk.set_bytes_max(None);
    take(&mut store, &stream_of("leaf"), 0, &records, &["q"]).unwrap();
    store.commit().unwrap();
    drop(store);
    disk.process_ended();
    let mut store = open(&disk, small());
    assert_eq!(drain(&mut store, key("q", 2), 0, 65536).0.len(), posted + 1);
}

#[test]
fn a_log_at_its_bound_refuses_until_acknowledgements_make_room() {
    let disk = MemoryDisk::default();
    let config = Config { log_bytes_max: 1 << 20, ..small() };
    let mut store = open(&disk, config);
    let fill_up = |store: &mut SegmentStore<MemoryDisk>| {
        let mut posted = 0;
        while post(store, &body(&[1; 1000]), &["q"]).is_ok() {
            store.commit().unwrap();
            posted += 1;
            assert!(store.log_bytes() <= 1 << 20);
            assert!(posted < 5000);
        }
        posted
    };
    let first = fill_up(&mut store);
    assert!(first > 500, "{first}");
    let next = store.holding(key("q", 2)).unwrap().next;
    store.release(key("q", 2), next);
    store.commit().unwrap();
    store.maintain(NOW_MS).unwrap();
    let second = fill_up(&mut store);
    assert!(second > 400, "{second}");
    assert_eq!(drain(&mut store, key("q", 2), next.0, 65536).0.len(), second);
}

#[test]
fn a_failed_sync_is_final() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk, small());
    post(&mut store, &body(b"x"), &["q"]).unwrap();
    disk.set_syncs_fail(true);
    assert_eq!(store.commit(), Err(Failure::Io));
    disk.set_syncs_fail(false);
    assert_eq!(store.commit(), Err(Failure::Io));
    assert_eq!(post(&mut store, &body(b"x"), &["q"]), Err(PostError::Io));
}

#[test]
fn a_leaf_long_away_costs_its_backlog_and_no_more() {
    let disk = MemoryDisk::default();
    let config = Config { log_bytes_max: 1 << 20, retain_bytes: 128 << 10, ..small() };
    let mut store = open(&disk, config);
    let mut late = Vec::new();
    // 8 MiB pass through a log of 1 MiB, and every 50th record waits for `late`.
    for number in 0..40_000_u32 {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(150, 7);
        let queues: &[&str] = if number % 50 == 0 { &["fast", "late"] } else { &["fast"] };
        if number % 50 == 0 {
            late.push(number);
        }
        let posted = post(&mut store, &body(&bytes), queues);
        assert!(posted.is_ok(), "{number}: {posted:?}");
        if number % 40 == 39 {
            store.commit().unwrap();
            let next = store.holding(key("fast", 2)).unwrap().next;
            store.release(key("fast", 2), next);
        }
        if number % 10_000 == 9999 {
            store.commit().unwrap();
            drop(store);
            power_cut(&disk, &mut Rng::new(u64::from(number)));
            store = open(&disk, config);
            assert!(store.reports().is_empty(), "{:?}", store.reports());
        }
    }
    store.commit().unwrap();
    assert!(store.log_bytes() <= 1 << 20);
    for _ in 0..2 {
        let (got, gaps) = drain(&mut store, key("late", 2), 0, 4096);
        assert!(gaps.is_empty());
        assert_eq!(numbers(&got), late);
        drop(store);
        power_cut(&disk, &mut Rng::new(5));
        store = open(&disk, config);
    }
    let mut read = Vec::new();
    store
        .read(0, usize::MAX, &mut |ordinal, record| {
            read.push((ordinal, record.id()));
            true
        })
        .unwrap();
    let ids: std::collections::BTreeSet<_> = read.iter().map(|entry| entry.1.seq.0).collect();
    assert_eq!(ids.len(), read.len(), "a reader sees no record twice");
}

#[test]
fn a_sparse_backlog_of_a_million_entries_stays_small_in_memory() {
    let disk = MemoryDisk::default();
    let limits =
        QueueLimits { messages_max: 0, bytes_max: 0, age_ms_max: 0, policy: LimitPolicy::Refuse };
    let config = Config {
        segment_bytes: 16 << 20,
        log_bytes_max: 1 << 30,
        retain_bytes: 1 << 30,
        checkpoint_bytes: 32 << 20,
        recent_bytes_max: 1 << 20,
        queue_limits: limits,
        ..Config::new(1)
    };
    let mut store = open(&disk, config);
    let (mut position, mut most) = (0, 0);
    for round in 0..500_u64 {
        let records: Vec<Vec<u8>> =
            (0..2000).map(|n| foreign("leaf", round * 2000 + n + 1, 2, &[])).collect();
        let head = replcore::wire::Records {
            first: replcore::stream::Cursor::at(Position(position)),
            completed: 2000,
            ..Default::default()
        };
        let mut odd = false;
        let mut route =
            RouteBy(|_: &replcore::log::record::Record<'_>, _: Arrival, targets: &mut Vec<_>| {
                odd = !odd;
                targets.push(name(if odd { "sparse" } else { "other" }));
            });
        let source = stream_of("leaf");
        let arrival = Arrival::Leaf(source.owner);
        store.take(NOW_MS, &source, &head, &records.concat(), arrival, &mut route).unwrap();
        position += 2000;
        store.commit().unwrap();
        most = most.max(store.memory_bytes());
    }
    assert!(most < 6 << 20, "{most} bytes");
    for queue in ["sparse", "other"] {
        assert_eq!(store.holding(key(queue, 2)).unwrap().next, Position(500_000));
    }
    drop(store);
    disk.process_ended();
    let mut store = open(&disk, config);
    assert!(store.memory_bytes() < 6 << 20, "{}", store.memory_bytes());
    let (mut at, mut out) = (0, Vec::new());
    while at < 500_000 {
        out.clear();
        let cursor = replcore::stream::Cursor::at(Position(at));
        let filled = store.fill(NOW_MS, key("sparse", 2), cursor, 1 << 20, &mut out).unwrap();
        let Fill::Batch(batch) = filled else { panic!("{filled:?} at {at}") };
        at = batch.records.next().position.0;
        store.release(key("sparse", 2), Position(at));
        store.commit().unwrap();
    }
    assert_eq!(at, 500_000);
}

#[test]
fn folders_that_are_not_this_nodes_are_refused_in_one_line() {
    let refused = |disk: &MemoryDisk, node: &str| {
        let error = SegmentStore::open(disk.clone(), &name(node), small()).err().unwrap();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let disk = MemoryDisk::default();
    drop(open(&disk, small()));
    assert!(refused(&disk, "other").contains("belongs to node `node`, not to `other`"));
    let newer = |bytes: &mut Vec<u8>| {
        let text = String::from_utf8(bytes.clone()).unwrap().replace("format 1", "format 9");
        *bytes = text.into_bytes();
    };
    disk.damage("identity", newer);
    assert!(refused(&disk, NAME).contains("format 9"));
    let disk = MemoryDisk::default();
    drop(open(&disk, small()));
    disk.damage("identity", |bytes| bytes.truncate(30));
    assert!(refused(&disk, NAME).contains("damaged"));
    let mut disk = MemoryDisk::default();
    disk.create("photo.jpg", 10).unwrap();
    assert!(refused(&disk, NAME).contains("photo.jpg"));
}

#[test]
fn a_folder_in_use_is_refused_with_the_process_that_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(folder.path()).unwrap();
    let error = FileDisk::open(folder.path()).err().unwrap();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(disk);
    FileDisk::open(folder.path()).unwrap();
}

#[test]
fn a_store_on_real_files_keeps_everything_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..3_u32 {
        let disk = FileDisk::open(folder.path()).unwrap();
        let mut store = SegmentStore::open(disk, &name(NAME), small()).unwrap();
        assert!(store.reports().is_empty());
        let (got, gaps) = drain(&mut store, key("q", 2), 0, 65536);
        assert!(gaps.is_empty());
        assert_eq!(numbers(&got), expected);
        for number in 0..1000 {
            let number = life * 1000 + number;
            let text = number.to_string();
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(200, 1);
            let plain = replcore::log::record::Message::default();
            let posted = replcore::log::record::Message {
                key: b"k",
                idempotency_key: text.as_bytes(),
                body: &bytes,
                ..plain
            };
            post(&mut store, &message(&posted, 2), &["q"]).unwrap();
            assert!(post(&mut store, &message(&posted, 2), &["q"]).unwrap().duplicate);
            expected.push(number);
        }
        store.commit().unwrap();
        if life == 1 {
            store.close().unwrap();
        }
    }
}
