//! Counts what a posted record costs: encoded, numbered, stored in the flash log. Run with QEMU's
//! `-icount shift=5`, where an instruction takes 32 ns. See `docs/sizes.md`.
#![no_std]
#![no_main]

#[allow(dead_code, unused_imports, reason = "the firmware uses the rest")]
#[path = "../board/mod.rs"]
mod board;

use replcore::log::crc32c;
use replcore::log::flash::{FlashConfig, FlashLog, Foreign};
use replcore::log::record::{self, Message};
use replcore::stream::{NodeId, RecordId};
use replcore::time::Stamp;
use semihosting::{println, process};

use crate::board::{RECORD_PAGES, RamFlash};

/// Over a whole round of the pages, so that erasing them is in it.
const RECORDS: u64 = 1000;
const BODY_BYTES: usize = 32;
const INSTRUCTION_NS: u64 = 32;

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    process::exit(1)
}

fn run() -> ! {
    let (mut clock, random) = board::start();
    let config =
        FlashConfig { foreign: Foreign::Erase, ..FlashConfig::new(NodeId(7), RECORD_PAGES) };
    // SAFETY: once.
    let flash = unsafe { RamFlash::new() };
    let mut log = match FlashLog::open(flash, config, random) {
        Ok(log) => log,
        Err(error) => panic!("{error}"),
    };
    let message = Message { message_type: "reading", body: &[7; BODY_BYTES], ..Message::default() };
    let began = clock.now();
    for _ in 0..RECORDS {
        let mut bytes = [0; 128];
        let id = RecordId { class: 2, ..RecordId::default() };
        match record::encode(&message, id, Stamp::UNSET, &mut bytes, crc32c) {
            Ok(len) => assert!(log.append(&mut bytes[..len]).is_ok()),
            Err(error) => panic!("{error}"),
        }
        log.release(log.queue_next());
    }
    let us = clock.now().since(began).as_micros() as u64;
    println!("{} instructions a record", us * 1000 / INSTRUCTION_NS / RECORDS);
    process::exit(0)
}
