//! The embedded store under power cuts: what was committed is never lost and never doubled, and a
//! cursor is never ahead of the records that it stands for (HS-15, HS-21).

mod store_support;

use std::collections::BTreeMap;

use replcore::contract::Failure;
use replcore::rng::Rng;
use replcore::stream::Position;
use replcore_runtime::store::*;
use store_support::*;

/// What a store must hold, told from outside.
#[derive(Default)]
struct Model {
    /// Records of the peer that were sent, by position in its stream.
    sent: Vec<Vec<u8>>,
    /// Own posts that were committed, by key.
    posted: BTreeMap<u32, Vec<u8>>,
    /// The cursor of the peer's stream as of the last commit.
    cursor: u64,
    /// What was acknowledged of queue `q`, as of the last commit.
    released: u64,
}

fn own_body(number: u32, size: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(9 + size, b'o');
    body
}

/// Posts, takes and releases at random until the disk stops; the model follows the commits.
fn work(
    store: &mut SegmentStore<MemoryDisk>,
    rng: &mut Rng,
    model: &mut Model,
    next_post: &mut u32,
) {
    let source = stream_of("leaf");
    let mut pending_posts = BTreeMap::new();
    let mut position = store.inbound(&source).1.position.0;
    let mut released = model.released;
    for _ in 0..400 {
        let done: Result<(), Failure> = match rng.between(0, 9) {
            0..=3 => {
                let size = if rng.between(0, 30) == 0 { 30_000 } else { rng.between(0, 300) };
                let bytes = own_body(*next_post, size as usize);
                match post(store, &body(&bytes), &["q"]) {
                    Ok(_) => {
                        pending_posts.insert(*next_post, bytes);
                        *next_post += 1;
                        Ok(())
                    }
                    Err(_) => Err(Failure::Io),
                }
            }
            4..=6 => {
                let count = rng.between(1, 40);
                let records: Vec<Vec<u8>> = (position..position + count)
                    .map(|at| foreign("leaf", at + 1, 2, &at.to_le_bytes()))
                    .collect();
                for record in &records {
                    let at = position as usize;
                    if model.sent.len() <= at {
                        model.sent.push(record.clone());
                    }
                    position += 1;
                }
                take(store, &source, position - count, &records, &["q"])
            }
            7 => {
                let holding = store.holding(key("q", 2)).unwrap_or(Holding {
                    released: Position(0),
                    next: Position(0),
                    sent: Position(0),
                });
                let through = rng.between(holding.released.0, holding.next.0);
                store.release(key("q", 2), Position(through));
                released = released.max(through);
                Ok(())
            }
            _ => store.commit().inspect(|()| {
                model.posted.append(&mut pending_posts);
                model.cursor = position;
                model.released = released;
            }),
        };
        if done.is_err() {
            break;
        }
    }
}

/// What is in the queue must be the model's records behind what was released: each once, those of
/// one origin in order.
fn verify(store: &mut SegmentStore<MemoryDisk>, model: &Model, seen: &mut BTreeMap<u64, Vec<u8>>) {
    let source = stream_of("leaf");
    let cursor = store.inbound(&source).1.position.0;
    assert!(cursor >= model.cursor, "a committed cursor went back");
    assert!(cursor as usize <= model.sent.len(), "a cursor is ahead of what was sent");
    let Some(holding) = store.holding(key("q", 2)) else {
        assert!(model.posted.is_empty() && model.cursor == 0);
        return;
    };
    assert!(holding.released.0 >= model.released, "a committed release went back");
    let (got, gaps) = drain(store, key("q", 2), holding.released.0, 8192);
    assert!(gaps.is_empty(), "{gaps:?}");
    for (position, body) in &got {
        // What was seen committed at a position stays there.
        seen.insert(*position, body.clone());
    }
    let last = holding.next.0;
    seen.retain(|position, _| *position < last);
    let all: Vec<&Vec<u8>> = seen.values().collect();
    let of_peer: Vec<u64> = all
        .iter()
        .filter(|body| body.len() == 8)
        .map(|body| u64::from_le_bytes(body[..].try_into().unwrap()))
        .collect();
    assert!(of_peer.windows(2).all(|pair| pair[0] < pair[1]), "order of one origin, each once");
    let mut own: Vec<u32> = all
        .iter()
        .filter(|body| body.len() != 8)
        .map(|body| u32::from_le_bytes(body[..4].try_into().unwrap()))
        .collect();
    assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "own posts in order, each once");
    own.sort_unstable();
    let mut at = holding.released.0;
    for (position, _) in got {
        assert_eq!(position, at, "dense positions");
        at += 1;
    }
    assert_eq!(at, last);
    if holding.released.0 == 0 {
        for number in model.posted.keys() {
            assert!(own.binary_search(number).is_ok(), "committed post {number} is lost");
        }
        assert_eq!(of_peer.len() as u64, cursor, "records before the cursor");
    }
}

fn campaign(seed: u64, config: Config) {
    let mut rng = Rng::new(seed);
    let disk = MemoryDisk::default();
    let (mut model, mut seen, mut next_post) = (Model::default(), BTreeMap::new(), 0);
    for life in 0..6 {
        let lives = rng.between(0, 120);
        disk.stop_after(if life == 0 { lives + 20 } else { lives });
        let opened = SegmentStore::open(disk.clone(), &name(NAME), config);
        if let Ok(mut store) = opened {
            work(&mut store, &mut rng, &mut model, &mut next_post);
        }
        if rng.between(0, 2) > 0 {
            power_cut(&disk, &mut rng);
        } else {
            disk.process_ended();
        }
        let opened = SegmentStore::open(disk.clone(), &name(NAME), config);
        let mut store = opened.unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        assert!(store.reports().is_empty(), "seed {seed}, life {life}: {:?}", store.reports());
        verify(&mut store, &model, &mut seen);
        // Posts that were not acknowledged may be there; the next ones take new numbers.
        model.cursor = store.inbound(&stream_of("leaf")).1.position.0;
        let holding = store.holding(key("q", 2));
        model.released = holding.map_or(0, |holding| holding.released.0);
        drop(store);
        disk.process_ended();
    }
}

#[test]
fn power_cuts_and_kills_at_random_writes_lose_and_double_nothing_committed() {
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| campaign(seed, small()));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_power_cut_at_every_write_of_a_short_life_is_survived() {
    let life = |disk: &MemoryDisk| {
        let mut committed = 0;
        let Ok(mut store) = SegmentStore::open(disk.clone(), &name(NAME), small()) else {
            return committed;
        };
        for round in 0..40_u64 {
            let records: Vec<Vec<u8>> =
                (0..50).map(|n| foreign("leaf", round * 50 + n + 1, 2, &[7; 100])).collect();
            if take(&mut store, &stream_of("leaf"), round * 50, &records, &["q"]).is_err()
                || store.commit().is_err()
            {
                break;
            }
            committed = round * 50 + 50;
        }
        committed
    };
    let disk = MemoryDisk::default();
    assert_eq!(life(&disk), 2000);
    let writes = disk.changes();
    assert!(writes > 80, "{writes}");
    for stop in 0..writes {
        let disk = MemoryDisk::default();
        disk.stop_after(stop);
        let committed = life(&disk);
        power_cut(&disk, &mut Rng::new(stop));
        let mut store = open(&disk, small());
        assert!(store.reports().is_empty(), "stop {stop}: {:?}", store.reports());
        let (_, cursor) = store.inbound(&stream_of("leaf"));
        assert!(cursor.position.0 >= committed, "stop {stop}");
        let got = store
            .holding(key("q", 2))
            .map_or(0, |_| drain(&mut store, key("q", 2), 0, 65536).0.len());
        assert_eq!(got as u64, cursor.position.0, "stop {stop}");
    }
}

/// What was lost at the tail may be known elsewhere: its numbers are not used again.
#[test]
fn an_unsynced_log_gives_no_number_again_after_an_unclean_end() {
    let config = Config { sync: false, ..small() };
    let disk = MemoryDisk::default();
    let mut ids = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut store = open(&disk, config);
        let posted = post(&mut store, &body(b"1"), &["q"]).unwrap();
        assert!(ids.insert(posted.id), "{:?} is given twice", posted.id);
        store.commit().unwrap();
        drop(store);
        power_cut(&disk, &mut Rng::new(seed));
    }
}
