//! The log on raw NOR flash: power cuts at every step, wear, and regions that are not a log.

mod nor;
mod world;

use replcore::contract::SkipReason;
use replcore::log::flash::{FlashConfig, FlashError, FlashFill, FlashLog, Foreign, WhenFull};
use replcore::rng::Rng;
use replcore::stream::{Cursor, Epoch, Position};

use nor::{Nor, PAGE_BYTES};
use world::{Model, PAGES, STREAM, append, config, read_all};

/// Turns of the first life: all pages of both rings are used again.
const TURNS: u64 = 96;
/// Turns of the second life, which is cut too, and of the last, which is not.
const LATER_TURNS: u64 = 6;

/// One life of a log, from opening it until its power fails or its turns are over.
fn live<const R: usize, const W: usize>(
    flash: &mut Nor<R, W>,
    model: &mut Model,
    turns: core::ops::Range<u64>,
    what: &str,
) {
    match FlashLog::open(&mut *flash, config(), 9) {
        Ok(mut log) => {
            if log.flash().dead {
                // The power went while a new life was being noted.
                return;
            }
            model.check(&mut log, what);
            let _ = turns.into_iter().all(|turn| model.turn(&mut log, turn));
        }
        Err(error) => assert!(flash.dead, "{what}: {error}"),
    }
}

/// Cuts the power at every `stride`-th step of a first life, then at every step of the next one, and
/// looks at what is there when it then holds, and after one more restart.
fn cut_twice<const R: usize, const W: usize>(stride: usize) {
    let new = Nor::<R, W>::new(PAGES, 0xff);
    let mut whole = new.clone();
    live(&mut whole, &mut Model::default(), 0..TURNS, "whole");
    let steps = whole.steps;
    let twice = |ring: &[u32]| ring.iter().any(|times| *times >= 2);
    assert!(twice(&whole.erased[..2]) && twice(&whole.erased[2..]), "{:?}", whole.erased);
    for first in (0..steps).step_by(stride) {
        let (mut flash, mut model) = (new.clone(), Model::default());
        flash.restart(Some(first), first);
        live(&mut flash, &mut model, 0..TURNS, &format!("first cut {first}"));
        assert!(flash.dead);
        for second in 0.. {
            let what = format!("cuts {first} and {second}");
            let (mut flash, mut model) = (flash.clone(), model.clone());
            flash.restart(Some(second), first ^ second << 32);
            live(&mut flash, &mut model, TURNS..TURNS + LATER_TURNS, &what);
            let was_cut = flash.dead;
            flash.restart(None, 0);
            live(&mut flash, &mut model, TURNS..TURNS + LATER_TURNS, &what);
            assert!(!flash.dead);
            live(&mut flash, &mut model, 0..0, &what);
            if !was_cut {
                break;
            }
        }
    }
}

#[test]
fn two_power_cuts_in_a_row_at_any_steps_lose_and_double_nothing() {
    cut_twice::<4, 16>(1);
}

#[test]
fn two_power_cuts_in_a_row_lose_and_double_nothing_where_words_are_small() {
    cut_twice::<1, 4>(23);
}

#[test]
fn many_power_cuts_at_random_lose_and_double_nothing_and_wear_all_pages_alike() {
    for seed in 0..20 {
        let (mut flash, mut model) = (Nor::<1, 8>::new(PAGES, 0xff), Model::default());
        let mut rng = Rng::new(seed);
        let mut turn = 0;
        for life in 0..150 {
            flash.restart(Some(rng.between(0, 1200)), rng.next_u64());
            let turns = rng.between(1, 60);
            live(&mut flash, &mut model, turn..turn + turns, &format!("seed {seed}, life {life}"));
            turn += turns;
        }
        for ring in [&flash.erased[..2], &flash.erased[2..]] {
            let (least, most) = (ring.iter().min().unwrap(), ring.iter().max().unwrap());
            // A cut may cost the page that is begun an erasure more.
            assert!(*least > 5 && most - least <= 1 + most / 4, "{ring:?}");
        }
    }
}

#[test]
fn a_full_log_refuses_records_takes_cursors_and_goes_on_after_a_release() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    let mut posted = 0;
    let refused = loop {
        match append(&mut log, &[7; 100]) {
            Ok(_) => posted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, FlashError::Full);
    assert!(posted > 12);
    for number in 1..=50u64 {
        log.take(&STREAM, Position(number), &number.to_le_bytes()).unwrap();
    }
    let before = read_all(&mut log, &mut Rng::new(1));
    let mut log = FlashLog::open(&mut flash, config(), 6).unwrap();
    assert_eq!(read_all(&mut log, &mut Rng::new(2)), before);
    assert_eq!((log.application(), log.waiting()), (&50u64.to_le_bytes()[..], posted));
    assert_eq!(append(&mut log, &[8; 100]), Err(FlashError::Full));
    for _ in 0..200 {
        log.release(log.queue_next());
        append(&mut log, &[8; 100]).unwrap();
    }
}

#[test]
fn a_full_log_may_drop_its_oldest_records_and_says_so() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let config = FlashConfig { when_full: WhenFull::DropOldest, ..config() };
    let mut log = FlashLog::open(&mut flash, config, 5).unwrap();
    for _ in 0..100 {
        append(&mut log, &[7; 100]).unwrap();
    }
    let (dropped, waiting) = (log.counters().dropped, log.waiting());
    assert!(dropped > 0 && dropped + waiting == 100);
    let mut log = FlashLog::open(&mut flash, config, 5).unwrap();
    let next = Position(dropped);
    let gone = FlashFill::Gone { next, reason: SkipReason::Dropped };
    assert_eq!(log.fill(Cursor::default(), &mut [0; 200]), Ok(gone));
    assert_eq!(read_all(&mut log, &mut Rng::new(1)).len() as u64, waiting);
}

#[test]
fn a_region_that_is_not_a_log_is_refused_or_erased_as_chosen() {
    for fill in [0, 0x5a] {
        let mut flash = Nor::<1, 4>::new(PAGES, fill);
        let refused = FlashLog::open(&mut flash, config(), 5).unwrap_err();
        assert_eq!(refused, FlashError::NotOurs);
        assert!(flash.bytes.iter().all(|&byte| byte == fill), "nothing was changed");
        let erase = FlashConfig { foreign: Foreign::Erase, ..config() };
        let mut log = FlashLog::open(&mut flash, erase, 5).unwrap();
        append(&mut log, b"first").unwrap();
        let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
        assert_eq!(read_all(&mut log, &mut Rng::new(1)).len(), 1);
    }
    // One byte anywhere is enough, so that nobody's data is taken for an empty region.
    for at in [0, 2 * PAGE_BYTES - 1, 5 * PAGE_BYTES - 1] {
        let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
        flash.bytes[at] = 0;
        assert_eq!(FlashLog::open(&mut flash, config(), 5).unwrap_err(), FlashError::NotOurs);
    }
}

#[test]
fn a_region_or_flash_that_breaks_the_rules_is_refused() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let wrong = [
        FlashConfig { record_pages: 4, ..config() },
        FlashConfig { record_pages: 1, ..config() },
        FlashConfig { cursor_pages: 1, ..config() },
        FlashConfig { start: 512, ..config() },
        FlashConfig { start: u32::MAX - 1023, ..config() },
        FlashConfig { class: 4, ..config() },
    ];
    for config in wrong {
        let refused = FlashLog::open(&mut flash, config, 5).unwrap_err();
        assert_eq!(refused, FlashError::Region, "{config:?}");
    }
    let refused = FlashLog::open(Nor::<1, 128>::new(PAGES, 0xff), config(), 5).unwrap_err();
    assert_eq!(refused, FlashError::Region);
}

#[test]
fn a_page_that_wears_out_is_passed_over_and_nothing_is_lost() {
    for worn in 0..PAGES {
        let mut flash = Nor::<1, 4>::new(PAGES + 1, 0xff);
        let config = FlashConfig { cursor_pages: 3, ..config() };
        let mut log = FlashLog::open(&mut flash, config, 5).unwrap();
        let mut number = 0u64;
        let mut turn = |log: &mut FlashLog<&mut Nor>| {
            number += 1;
            append(log, &[number as u8; 60]).unwrap();
            log.take(&STREAM, Position(number), &number.to_le_bytes()).unwrap();
            let waiting = log.waiting();
            log.release(Position(log.queue_next().0 - waiting.min(3)));
        };
        (0..20).for_each(|_| turn(&mut log));
        log.flash().worn[worn] = true;
        (0..100).for_each(|_| turn(&mut log));
        assert!(log.counters().writes_failed > 0, "page {worn}");
        log.sync().unwrap();
        let mut log = FlashLog::open(&mut flash, config, 5).unwrap();
        assert_eq!(log.application(), 120u64.to_le_bytes());
        let bodies = read_all(&mut log, &mut Rng::new(1));
        assert!(bodies.iter().map(|found| found.1[0]).eq([118, 119, 120]), "page {worn}");
    }
}

#[test]
fn a_worn_out_log_says_so_and_can_still_be_read() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    for number in 0..5 {
        append(&mut log, &[number; 60]).unwrap();
    }
    log.take(&STREAM, Position(1), b"kept").unwrap();
    log.flash().worn.fill(true);
    assert_eq!(append(&mut log, b"more"), Err(FlashError::WornOut));
    assert_eq!(log.take(&STREAM, Position(2), b"lost"), Err(FlashError::WornOut));
    assert_eq!((log.application(), log.waiting()), (&b"kept"[..], 5));
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    assert_eq!(read_all(&mut log, &mut Rng::new(1)).len(), 5);
    assert_eq!(log.place(&STREAM), Some((STREAM.epoch, Position(1))));
}

#[test]
fn a_damaged_record_costs_itself_and_is_reported_as_lost() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    while append(&mut log, &[7; 100]).is_ok() {}
    let next = log.queue_next();
    // In the body of the third record of the first page.
    flash.bytes[3 * PAGE_BYTES + 2 * 172 + 100] ^= 1;
    let mut log = FlashLog::open(&mut flash, config(), 6).unwrap();
    assert_eq!(log.queue_next(), next);
    let found = read_all(&mut log, &mut Rng::new(1));
    let positions = (0..next.0).filter(|&position| position != 2);
    assert!(found.iter().map(|found| found.0).eq(positions));
    assert_eq!(log.counters().lost, 1);
}

#[test]
fn an_offset_beyond_the_record_ends_with_that_record() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    append(&mut log, b"one").unwrap();
    let first = Cursor { position: Position(0), offset: 9_999 };
    let gone = FlashFill::Gone { next: Position(1), reason: SkipReason::Lost };
    assert_eq!(log.fill(first, &mut [0; 64]), Ok(gone));
    let far = Cursor::at(Position(u64::MAX));
    assert_eq!(log.fill(far, &mut [0; 64]), Ok(FlashFill::End));
}

#[test]
fn the_places_of_another_hub_give_way_and_those_of_one_do_not() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    for queue in 0..8u64 {
        let mut stream = STREAM;
        stream.queue.queue.0 = queue;
        log.take(&stream, Position(queue), b"").unwrap();
    }
    let mut one_more = STREAM;
    one_more.queue.queue.0 = 8;
    assert_eq!(log.take(&one_more, Position(1), b"x"), Err(FlashError::TooManyStreams));
    assert_eq!(log.application(), b"");
    one_more.owner.0 += 1;
    log.take(&one_more, Position(1), b"x").unwrap();
    one_more.epoch = Epoch(9);
    assert_eq!(log.place(&one_more), Some((STREAM.epoch, Position(1))));
    assert_eq!(log.take(&STREAM, Position(1), &[0; 65]), Err(FlashError::TooLong));
    assert_eq!(append(&mut log, &[0; 1000]), Err(FlashError::TooLong));
}

/// A log that was set back to an older copy gives no number again, and its reader gets what is
/// appended since in place of what is lost.
#[test]
fn a_flash_that_was_set_back_gives_no_number_again() {
    let mut flash = Nor::<1, 4>::new(PAGES, 0xff);
    let mut log = FlashLog::open(&mut flash, config(), 5).unwrap();
    append(&mut log, b"kept").unwrap();
    let epoch = log.epoch();
    let copy = log.into_flash().clone();
    let mut log = FlashLog::open(&mut flash, config(), 6).unwrap();
    append(&mut log, b"lost").unwrap();
    let lost = log.epoch();
    let mut flash = copy;
    let mut log = FlashLog::open(&mut flash, config(), 7).unwrap();
    append(&mut log, b"new").unwrap();
    assert!(![epoch, lost].contains(&log.epoch()));
    assert_eq!(log.place_reader(epoch, Position(1)), Position(1));
    assert_eq!(log.place_reader(epoch, Position(2)), Position(1));
    assert_eq!(log.place_reader(lost, Position(2)), Position(0), "what is not acknowledged");
    assert_eq!(log.place_reader(log.epoch(), Position(2)), Position(2));
}
