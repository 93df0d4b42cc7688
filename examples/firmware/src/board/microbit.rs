//! BBC micro:bit: the UART of the nRF51.

use super::Register;

pub const CLOCK_HZ: u32 = 16_000_000;
pub const IRQ: u32 = 2;

const START_RX: Register = Register::at(0x4000_2000);
const START_TX: Register = Register::at(0x4000_2008);
const RX_READY: Register = Register::at(0x4000_2108);
const TX_READY: Register = Register::at(0x4000_211c);
const INTERRUPT_SET: Register = Register::at(0x4000_2304);
const INTERRUPT_CLEAR: Register = Register::at(0x4000_2308);
const ENABLE: Register = Register::at(0x4000_2500);
const PIN_TX: Register = Register::at(0x4000_250c);
const PIN_RX: Register = Register::at(0x4000_2514);
const RX: Register = Register::at(0x4000_2518);
const TX: Register = Register::at(0x4000_251c);
const BAUD_RATE: Register = Register::at(0x4000_2524);
const RX_READY_INTERRUPT: u32 = 1 << 2;

pub fn start() {
    PIN_TX.write(24);
    PIN_RX.write(25);
    BAUD_RATE.write(0x01d7_e000); // 115,200
    ENABLE.write(4);
    START_RX.write(1);
    START_TX.write(1);
}

pub fn mask_interrupt() {
    INTERRUPT_CLEAR.write(RX_READY_INTERRUPT);
}

pub fn unmask_interrupt() {
    INTERRUPT_SET.write(RX_READY_INTERRUPT);
}

pub fn has_input() -> bool {
    RX_READY.read() != 0
}

pub fn receive() -> u8 {
    // Before the byte is read: reading makes room for the next, which says so again.
    RX_READY.write(0);
    RX.read() as u8
}

pub fn send(byte: u8) {
    TX_READY.write(0);
    TX.write(byte.into());
    while TX_READY.read() == 0 {}
}
