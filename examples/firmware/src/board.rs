//! The board: a TI LM3S6965 as QEMU has it. One serial port, a tick, a flash log in RAM, reset.
//! All access to registers is here.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::NVIC;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;

use crate::flash_log::{Flash, PAGE_BYTES, PAGES};

const TICK_US: u64 = 2_000;
const CLOCK_HZ: u32 = 12_500_000;

static TICKS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    TICKS.store(TICKS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The serial port has bytes. That has woken the processor, which is all that is wanted: the main
/// loop takes them and lets the port ask again.
#[exception]
unsafe fn DefaultHandler(_irq: i16) {
    uart::mask_interrupts();
}

/// UART0, a PL011.
mod uart {
    const BASE: usize = 0x4000_c000;
    const DATA: usize = BASE;
    const FLAGS: usize = BASE + 0x18;
    const LINE_CONTROL: usize = BASE + 0x2c;
    const CONTROL: usize = BASE + 0x30;
    const FIFO_LEVELS: usize = BASE + 0x34;
    const INTERRUPT_MASK: usize = BASE + 0x38;
    const INTERRUPT_CLEAR: usize = BASE + 0x44;
    const CLOCK_GATE: usize = 0x400f_e104;
    const RX_EMPTY: u32 = 1 << 4;
    const TX_FULL: u32 = 1 << 5;
    const RX_AND_TIMEOUT: u32 = 1 << 4 | 1 << 6;
    pub(super) const IRQ: u32 = 5;

    fn read(register: usize) -> u32 {
        // SAFETY: the registers above exist on this board and are word-wide.
        unsafe { (register as *const u32).read_volatile() }
    }

    fn write(register: usize, value: u32) {
        // SAFETY: the registers above exist on this board, are word-wide, and this module is the
        // only one that writes them.
        unsafe { (register as *mut u32).write_volatile(value) }
    }

    pub(super) fn start() {
        write(CLOCK_GATE, 1);
        write(LINE_CONTROL, 0x70); // 8 bits, FIFOs on
        write(FIFO_LEVELS, 0);
        write(CONTROL, 0x301); // on, both ways
    }

    pub(super) fn mask_interrupts() {
        write(INTERRUPT_MASK, 0);
    }

    pub(super) fn unmask_interrupts() {
        write(INTERRUPT_CLEAR, RX_AND_TIMEOUT);
        write(INTERRUPT_MASK, RX_AND_TIMEOUT);
    }

    pub(super) fn has_byte() -> bool {
        read(FLAGS) & RX_EMPTY == 0
    }

    pub(super) fn receive() -> Option<u8> {
        has_byte().then(|| read(DATA) as u8)
    }

    pub(super) fn send(byte: u8) {
        while read(FLAGS) & TX_FULL != 0 {}
        write(DATA, byte.into());
    }
}

/// Half of the RAM, which the start-up code leaves alone: what it held before a reset is there
/// after it.
#[repr(C, align(4))]
struct LogMemory(UnsafeCell<[[u32; PAGE_BYTES / 4]; PAGES]>);

// SAFETY: `Board` is made once and is not shared with interrupts; it alone uses this memory.
unsafe impl Sync for LogMemory {}

#[unsafe(link_section = ".log_memory")]
static LOG_MEMORY: LogMemory = LogMemory(UnsafeCell::new([[0; PAGE_BYTES / 4]; PAGES]));

/// What the firmware has of its board.
pub struct Board {
    syst: cortex_m::peripheral::SYST,
    high_ticks: u64,
    last_ticks: u32,
    /// Words that may still be programmed before the power fails, while a fault is planned.
    words_to_fault: Option<u32>,
}

impl Board {
    /// Starts port and tick. `None` when that was done before.
    pub fn start() -> Option<Self> {
        let mut peripherals = cortex_m::Peripherals::take()?;
        peripherals.SYST.set_clock_source(SystClkSource::Core);
        peripherals.SYST.set_reload((u64::from(CLOCK_HZ) * TICK_US / 1_000_000) as u32 - 1);
        peripherals.SYST.clear_current();
        peripherals.SYST.enable_counter();
        peripherals.SYST.enable_interrupt();
        uart::start();
        let enable = 1u32 << uart::IRQ;
        // SAFETY: enables an interrupt whose handler is above and masks it itself.
        unsafe { (*NVIC::PTR).iser[0].write(enable) };
        Some(Self { syst: peripherals.SYST, high_ticks: 0, last_ticks: 0, words_to_fault: None })
    }

    /// Microseconds since the start.
    pub fn now_us(&mut self) -> u64 {
        let ticks = TICKS.load(Ordering::Relaxed);
        self.high_ticks += u64::from(ticks.wrapping_sub(self.last_ticks));
        self.last_ticks = ticks;
        self.high_ticks * TICK_US
    }

    /// A number that differs between starts of an emulator; a real board has a better source.
    pub fn entropy(&mut self) -> u64 {
        u64::from(self.syst.cvr.read()) << 32 | u64::from(TICKS.load(Ordering::Relaxed))
    }

    /// The next byte that came over the serial line.
    pub fn receive(&mut self) -> Option<u8> {
        uart::receive()
    }

    /// Writes bytes to the serial line and waits until the port has taken them.
    pub fn send(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            uart::send(byte);
        }
    }

    /// Sleeps until a byte has come or a tick is over.
    pub fn wait(&mut self) {
        uart::unmask_interrupts();
        // With interrupts off none is lost between the look and the sleep; it ends the sleep.
        cortex_m::interrupt::free(|_| {
            if !uart::has_byte() {
                cortex_m::asm::wfi();
            }
        });
    }

    /// Cuts the power, as it were, after that many more words are programmed into the log.
    pub fn plan_fault(&mut self, words: u32) {
        self.words_to_fault = Some(words);
    }

    fn log(&self) -> *mut [[u32; PAGE_BYTES / 4]; PAGES] {
        LOG_MEMORY.0.get()
    }
}

/// NOR flash in the manner of small microcontrollers: pages are erased to ones, each word is
/// written once.
impl Flash for Board {
    fn page(&self, page: usize) -> &[u8] {
        // SAFETY: the memory is there for good, and changes to it take `&mut self`.
        let words = unsafe { &(&*self.log())[page] };
        // SAFETY: words are readable as bytes.
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), PAGE_BYTES) }
    }

    fn program(&mut self, page: usize, at: usize, words: &[u8]) {
        for (index, word) in words.chunks_exact(4).enumerate() {
            if self.words_to_fault == Some(0) {
                cortex_m::peripheral::SCB::sys_reset();
            }
            self.words_to_fault = self.words_to_fault.map(|left| left - 1);
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            // SAFETY: no reference into the memory lives while `self` is borrowed mutably; the
            // index is checked. Volatile, so that a reset finds what was written before it.
            unsafe {
                let place = (&raw mut (*self.log())[page][at / 4 + index]);
                assert!(place.read_volatile() == u32::MAX, "a word of flash is written once");
                place.write_volatile(value);
            }
        }
    }

    fn erase(&mut self, page: usize) {
        for index in 0..PAGE_BYTES / 4 {
            // SAFETY: as in `program`.
            unsafe { (&raw mut (*self.log())[page][index]).write_volatile(u32::MAX) };
        }
    }
}
