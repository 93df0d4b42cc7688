//! The firmware's flash log on a flash that loses its power in the middle of a write.

#[allow(dead_code, unreachable_pub, reason = "the firmware uses what this does not")]
#[path = "../../examples/firmware/src/flash_log.rs"]
mod flash_log;

use flash_log::{Flash, FlashLog, Full, PAGE_BYTES, PAGES, RECORD_BYTES_MAX, State};
use replcore::log::crc32c;
use replcore::log::record::{self, Message, Record};
use replcore::rng::Rng;
use replcore::stream::{Cursor, Epoch, NodeId, Position, RecordId, Seq};
use replcore::time::Stamp;

/// Flash whose power can fail: from then on nothing is changed any more.
struct TestFlash {
    pages: Vec<Vec<u8>>,
    words_to_cut: Option<u64>,
}

impl TestFlash {
    fn new(fill: u8) -> Self {
        Self { pages: vec![vec![fill; PAGE_BYTES]; PAGES], words_to_cut: None }
    }

    fn powered(&mut self) -> bool {
        match &mut self.words_to_cut {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn lost_power(&self) -> bool {
        self.words_to_cut == Some(0)
    }
}

impl Flash for TestFlash {
    fn page(&self, page: usize) -> &[u8] {
        &self.pages[page]
    }

    fn program(&mut self, page: usize, at: usize, words: &[u8]) {
        assert!(at.is_multiple_of(4) && words.len().is_multiple_of(4));
        for (index, word) in words.chunks_exact(4).enumerate() {
            if self.powered() {
                let place = &mut self.pages[page][at + index * 4..][..4];
                assert_eq!(place, [0xff; 4], "a word of flash is written once");
                place.copy_from_slice(word);
            }
        }
    }

    fn erase(&mut self, page: usize) {
        for word in 0..PAGE_BYTES / 4 {
            if self.powered() {
                self.pages[page][word * 4..][..4].fill(0xff);
            }
        }
    }
}

const ORIGIN: NodeId = NodeId(77);

fn post(log: &mut FlashLog, flash: &mut TestFlash, body: &[u8]) -> Result<(), Full> {
    log.post(flash, |epoch, seq, out| {
        let id = RecordId { origin: ORIGIN, epoch, class: 2, seq };
        let message = Message { body, ..Message::default() };
        record::encode(&message, id, Stamp::UNSET, out, crc32c).unwrap()
    })
}

/// Reads the whole queue in frames of random size and gives the bodies back.
fn read_all(log: &FlashLog, flash: &TestFlash, rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut cursor = Cursor::at(log.queue_released());
    let first = cursor.position.0;
    let mut buf = [0; 700];
    loop {
        let space = rng.between(1, buf.len() as u64) as usize;
        let Some((records, length)) = log.fill(flash, cursor, &mut buf[..space]) else { break };
        bytes.extend_from_slice(&buf[..length]);
        cursor = records.next();
    }
    assert_eq!(cursor, Cursor::at(log.queue_next()));
    let mut bodies = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let length = record::entry_length(rest, RECORD_BYTES_MAX as u32).unwrap();
        let record = Record::check(&rest[..length], crc32c).unwrap();
        let seq = Seq(first + bodies.len() as u64 + 1);
        let epoch = Epoch(log.state().epoch);
        assert_eq!(record.id(), RecordId { origin: ORIGIN, epoch, class: 2, seq });
        bodies.push(record.body().to_vec());
        rest = &rest[length..];
    }
    bodies
}

/// What the log should hold.
#[derive(Default)]
struct Expected {
    /// All bodies ever stored.
    stored: Vec<Vec<u8>>,
    /// How many of them are acknowledged.
    released: usize,
    /// The body being stored when the power failed: there or not.
    in_doubt: Option<Vec<u8>>,
    commands: u64,
    command_in_doubt: bool,
}

impl Expected {
    fn check_after_cut(&mut self, log: &mut FlashLog, found: &[Vec<u8>], what: &str) {
        if found.last().is_some() && found.last() == self.in_doubt.as_ref() {
            self.stored.extend(self.in_doubt.take());
        }
        self.in_doubt = None;
        // A release that was not written is forgotten; the receiver knows what comes again.
        let from = self.stored.len() - found.len();
        assert!(from <= self.released, "{what}: {} lost", from - self.released);
        assert_eq!(found, &self.stored[from..], "{what}");
        log.release(Position(log.queue_released().0 + (self.released - from) as u64));
        let commands = log.state().commands;
        assert!(
            commands == self.commands || (self.command_in_doubt && commands == self.commands + 1),
            "{what}: {commands} commands, {} expected",
            self.commands
        );
        (self.commands, self.command_in_doubt) = (commands, false);
    }
}

#[test]
fn what_was_durable_before_a_power_cut_is_there_after_it_and_nothing_else() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut flash = TestFlash::new([0, 0xff, 0x5a][seed as usize % 3]);
        let mut log = FlashLog::open(&mut flash, rng.next_u64());
        let mut expected = Expected::default();
        for turn in 0..600u32 {
            if flash.words_to_cut.is_none() && rng.between(0, 19) == 0 {
                flash.words_to_cut = Some(rng.between(1, 1500));
            }
            match rng.between(0, 19) {
                0..=10 => {
                    let mut body = vec![turn as u8; rng.between(0, 160) as usize];
                    body.extend_from_slice(&turn.to_le_bytes());
                    if post(&mut log, &mut flash, &body).is_ok() {
                        match flash.lost_power() {
                            true => expected.in_doubt = Some(body),
                            false => expected.stored.push(body),
                        }
                    }
                }
                11..=15 => {
                    let waiting = (expected.stored.len() - expected.released) as u64;
                    let done = rng.between(0, waiting);
                    log.release(Position(log.queue_released().0 + done));
                    expected.released += done as usize;
                }
                16 => {
                    let epoch = Epoch(log.state().epoch + 1);
                    let _ = log.renumber(&mut flash, epoch);
                }
                _ => {
                    let state = State { commands: expected.commands + 1, ..*log.state() };
                    if log.store(&mut flash, state).is_ok() {
                        match flash.lost_power() {
                            true => expected.command_in_doubt = true,
                            false => expected.commands += 1,
                        }
                    }
                }
            }
            if flash.lost_power() {
                flash.words_to_cut = None;
                log = FlashLog::open(&mut flash, rng.next_u64());
                let found = read_all(&log, &flash, &mut rng);
                expected.check_after_cut(&mut log, &found, &format!("seed {seed}, turn {turn}"));
            }
        }
        let found = read_all(&log, &flash, &mut rng);
        assert_eq!(found, expected.stored[expected.released..], "seed {seed}");
    }
}

#[test]
fn a_full_log_refuses_records_takes_states_and_goes_on_after_a_release() {
    let mut flash = TestFlash::new(0);
    let mut log = FlashLog::open(&mut flash, 5);
    let mut posted = 0;
    while post(&mut log, &mut flash, &[7; 100]).is_ok() {
        posted += 1;
    }
    assert!(posted > 100);
    for command in 1..=10 {
        let state = State { commands: command, ..*log.state() };
        log.store(&mut flash, state).expect("a page is left for states");
    }
    let before = read_all(&log, &flash, &mut Rng::new(1));
    let mut log = FlashLog::open(&mut flash, 6);
    assert_eq!(read_all(&log, &flash, &mut Rng::new(2)), before);
    assert_eq!((log.state().commands, log.unreleased()), (10, posted));
    log.release(log.queue_next());
    for _ in 0..1000 {
        post(&mut log, &mut flash, &[8; 100]).unwrap();
        log.release(log.queue_next());
    }
}

#[test]
fn a_damaged_page_costs_what_is_before_its_end_and_no_more() {
    let mut flash = TestFlash::new(0);
    let mut log = FlashLog::open(&mut flash, 5);
    while post(&mut log, &mut flash, &[7; 100]).is_ok() {}
    let next = log.queue_next();
    flash.pages[2][50] ^= 1;
    let log = FlashLog::open(&mut flash, 6);
    assert_eq!(log.queue_next(), next);
    assert!(log.queue_released() > Position(0), "what is lost is not promised");
    assert_eq!(read_all(&log, &flash, &mut Rng::new(1)).len() as u64, log.unreleased());
}
