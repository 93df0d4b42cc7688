//! TI LM3S6965: UART0 is a PL011.

use super::Register;

pub const CLOCK_HZ: u32 = 12_500_000;
pub const IRQ: u32 = 5;

const DATA: Register = Register::at(0x4000_c000);
const FLAGS: Register = Register::at(0x4000_c018);
const LINE_CONTROL: Register = Register::at(0x4000_c02c);
const CONTROL: Register = Register::at(0x4000_c030);
const FIFO_LEVELS: Register = Register::at(0x4000_c034);
const INTERRUPT_MASK: Register = Register::at(0x4000_c038);
const INTERRUPT_CLEAR: Register = Register::at(0x4000_c044);
const CLOCK_GATE: Register = Register::at(0x400f_e104);
const RX_EMPTY: u32 = 1 << 4;
const TX_FULL: u32 = 1 << 5;
const RX_AND_TIMEOUT: u32 = 1 << 4 | 1 << 6;

pub fn start() {
    CLOCK_GATE.write(1);
    LINE_CONTROL.write(0x70); // 8 bits, FIFOs on
    FIFO_LEVELS.write(0);
    CONTROL.write(0x301); // on, both ways
}

pub fn mask_interrupt() {
    INTERRUPT_MASK.write(0);
}

pub fn unmask_interrupt() {
    INTERRUPT_CLEAR.write(RX_AND_TIMEOUT);
    INTERRUPT_MASK.write(RX_AND_TIMEOUT);
}

pub fn has_input() -> bool {
    FLAGS.read() & RX_EMPTY == 0
}

pub fn receive() -> u8 {
    DATA.read() as u8
}

pub fn send(byte: u8) {
    while FLAGS.read() & TX_FULL != 0 {}
    DATA.write(byte.into());
}
