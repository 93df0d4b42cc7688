//! What the Cortex-M boards have in common: the tick, sleep, reset.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::NVIC;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use replcore::time::Instant;

use super::port;

const TICK_US: u64 = 2_000;

static TICKS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    TICKS.store(TICKS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The port has bytes or a frame. That has woken the processor, which is all that is wanted: the main
/// loop takes them and lets the port ask again.
#[exception]
unsafe fn DefaultHandler(_irq: i16) {
    port::mask_interrupt();
}

#[cortex_m_rt::entry]
fn entry() -> ! {
    crate::run()
}

/// Time since the start.
#[derive(Clone)]
pub struct Clock {
    ticks: u64,
    seen: u32,
}

impl Clock {
    pub fn now(&mut self) -> Instant {
        let ticks = TICKS.load(Ordering::Relaxed);
        self.ticks += u64::from(ticks.wrapping_sub(self.seen));
        self.seen = ticks;
        Instant::from_micros(self.ticks * TICK_US)
    }
}

/// Starts port and tick. The clock, and a number that should differ from start to start. On a board
/// without a source of such numbers it is mostly the same; the log's epoch tells the starts apart.
pub fn start() -> (Clock, u64) {
    // Started once: by `entry`, which does not return.
    let mut peripherals = cortex_m::Peripherals::take().expect("once");
    peripherals.SYST.set_clock_source(SystClkSource::Core);
    peripherals.SYST.set_reload((u64::from(port::CLOCK_HZ) * TICK_US / 1_000_000) as u32 - 1);
    peripherals.SYST.clear_current();
    peripherals.SYST.enable_counter();
    peripherals.SYST.enable_interrupt();
    port::start();
    // SAFETY: enables an interrupt whose handler is above and masks it at the port.
    unsafe { (*NVIC::PTR).iser[0].write(1 << port::IRQ) };
    let random = u64::from(peripherals.SYST.cvr.read()) << 32 | u64::from(port::CLOCK_HZ);
    (Clock { ticks: 0, seen: 0 }, random)
}

/// Sleeps until something has come or a tick is over.
pub fn wait() {
    port::unmask_interrupt();
    // With interrupts off none is lost between the look and the sleep; it ends the sleep.
    cortex_m::interrupt::free(|_| {
        if !port::has_input() {
            cortex_m::asm::wfi();
        }
    });
}

pub fn reset() -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

const PAINT: u32 = 0xcccc_cccc;

/// The most bytes of stack that were in use at once since it was painted: by the start-up code, then
/// by [`repaint_stack`].
pub fn stack_bytes() -> usize {
    let (mut at, top) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: between the two symbols of the linker there is RAM, the stack.
    while at < top && unsafe { at.read_volatile() } == PAINT {
        at = at.wrapping_add(1);
    }
    top as usize - at as usize
}

/// Paints what is free of the stack, so that what the start needed is not counted any more.
#[inline(never)]
pub fn repaint_stack() {
    const OWN_BYTES: usize = 128;
    let here = 0u32;
    let mut at = (&raw const _stack_end).cast_mut();
    let top = (&raw const here).wrapping_byte_sub(OWN_BYTES);
    while at.cast_const() < top {
        // SAFETY: between the end of the stack and well below what is in use of it.
        unsafe { at.write_volatile(PAINT) };
        at = at.wrapping_add(1);
    }
}
