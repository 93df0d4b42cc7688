//! What an image costs before any of ours is in it: start-up, clock, port. See `docs/sizes.md`.
#![no_std]
#![no_main]

#[allow(dead_code, unused_imports, reason = "the firmware uses the rest")]
#[path = "../board/mod.rs"]
mod board;

use embedded_io::{Read, Write};

use crate::board::Line;

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    board::reset()
}

fn run() -> ! {
    let (mut clock, random) = board::start();
    loop {
        let mut bytes = [random as u8; 16];
        let Ok(count) = Line.read(&mut bytes);
        bytes[0] ^= clock.now().as_micros() as u8;
        let Ok(_) = Line.write(&bytes[..count]);
    }
}
