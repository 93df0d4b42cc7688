//! Arm MPS2 (AN386): UART0 of the CMSDK.

use super::Register;

pub const CLOCK_HZ: u32 = 25_000_000;
pub const IRQ: u32 = 0;

const DATA: Register = Register::at(0x4000_4000);
const STATE: Register = Register::at(0x4000_4004);
const CONTROL: Register = Register::at(0x4000_4008);
const INTERRUPT_CLEAR: Register = Register::at(0x4000_400c);
const BAUD_DIVIDER: Register = Register::at(0x4000_4010);
const TX_FULL: u32 = 1;
const RX_FULL: u32 = 1 << 1;
const BOTH_WAYS: u32 = 0b11;
const RX_INTERRUPT: u32 = 1 << 3;

pub fn start() {
    BAUD_DIVIDER.write(16);
    CONTROL.write(BOTH_WAYS);
}

pub fn mask_interrupt() {
    CONTROL.write(BOTH_WAYS);
    // Masking does not take back what is pending.
    INTERRUPT_CLEAR.write(RX_FULL);
}

pub fn unmask_interrupt() {
    INTERRUPT_CLEAR.write(RX_FULL);
    CONTROL.write(BOTH_WAYS | RX_INTERRUPT);
}

pub fn has_input() -> bool {
    STATE.read() & RX_FULL != 0
}

pub fn receive() -> u8 {
    DATA.read() as u8
}

pub fn send(byte: u8) {
    while STATE.read() & TX_FULL != 0 {}
    DATA.write(byte.into());
}
