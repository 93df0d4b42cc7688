//! QEMU's RISC-V `virt`: a 16550, the timer of the core, an interrupt controller.

use replcore::time::Instant;
use riscv::register::mie;

use super::Register;

const DATA: Register<u8> = Register::at(0x1000_0000);
const INTERRUPT_ENABLE: Register<u8> = Register::at(0x1000_0001);
const FIFO_CONTROL: Register<u8> = Register::at(0x1000_0002);
const LINE_STATUS: Register<u8> = Register::at(0x1000_0005);
const RX_READY: u8 = 1;
const TX_EMPTY: u8 = 1 << 5;

const TIME_LOW: Register = Register::at(0x0200_bff8);
const TIME_HIGH: Register = Register::at(0x0200_bffc);
const COMPARE_LOW: Register = Register::at(0x0200_4000);
const COMPARE_HIGH: Register = Register::at(0x0200_4004);
const TICKS_PER_US: u64 = 10;
const WAIT_US: u64 = 2_000;

/// The port is source 10 of the interrupt controller.
const PRIORITY: Register = Register::at(0x0c00_0000 + 4 * 10);
const ENABLE: Register = Register::at(0x0c00_2000);
const CLAIM: Register = Register::at(0x0c20_0004);

const TEST: Register = Register::at(0x0010_0000);
const TEST_RESET: u32 = 0x7777;

#[riscv_rt::entry]
fn entry() -> ! {
    crate::run()
}

pub fn has_input() -> bool {
    LINE_STATUS.read() & RX_READY != 0
}

pub fn receive() -> u8 {
    DATA.read()
}

pub fn send(byte: u8) {
    while LINE_STATUS.read() & TX_EMPTY == 0 {}
    DATA.write(byte);
}

fn ticks() -> u64 {
    loop {
        let (high, low) = (TIME_HIGH.read(), TIME_LOW.read());
        if high == TIME_HIGH.read() {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Time since the start.
#[derive(Clone)]
pub struct Clock;

impl Clock {
    pub fn now(&mut self) -> Instant {
        Instant::from_micros(ticks() / TICKS_PER_US)
    }
}

/// Starts the port. The clock, and a number that should differ from start to start; of a real board it
/// would come from a better source.
pub fn start() -> (Clock, u64) {
    FIFO_CONTROL.write(1);
    INTERRUPT_ENABLE.write(1);
    PRIORITY.write(1);
    ENABLE.write(1 << 10);
    // SAFETY: interrupts stay off for the whole core: these only end its sleep.
    unsafe {
        mie::set_mtimer();
        mie::set_mext();
    }
    (Clock, ticks())
}

/// Sleeps until a byte has come or some time is over.
pub fn wait() {
    let until = ticks() + WAIT_US * TICKS_PER_US;
    COMPARE_HIGH.write(u32::MAX);
    COMPARE_LOW.write(until as u32);
    COMPARE_HIGH.write((until >> 32) as u32);
    if !has_input() {
        riscv::asm::wfi();
    }
    // What was claimed is done as soon as the port's byte is read.
    CLAIM.write(CLAIM.read());
}

pub fn reset() -> ! {
    loop {
        TEST.write(TEST_RESET);
    }
}

/// The stack is not painted here.
pub fn stack_bytes() -> usize {
    0
}

pub fn repaint_stack() {}
