//! Arm MPS2 (AN386): a LAN9118, driven by looking at it; its interrupt only ends the sleep.
//!
//! As much as a frame each way needs. The link's speed, which the chip settles by itself, and errors of
//! the cable are not looked at.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use super::Register;

pub const CLOCK_HZ: u32 = 25_000_000;
pub const IRQ: u32 = 13;

/// An address that nobody else has in a network of this board's own.
pub const ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

const RX_DATA: Register = Register::at(0x4020_0000);
const TX_DATA: Register = Register::at(0x4020_0020);
const RX_STATUS: Register = Register::at(0x4020_0040);
const INTERRUPT_CONFIG: Register = Register::at(0x4020_0054);
const INTERRUPT_STATUS: Register = Register::at(0x4020_0058);
const INTERRUPT_ENABLE: Register = Register::at(0x4020_005c);
const TX_CONFIG: Register = Register::at(0x4020_0070);
const HARDWARE_CONFIG: Register = Register::at(0x4020_0074);
const RX_FIFO: Register = Register::at(0x4020_007c);
const TX_FIFO: Register = Register::at(0x4020_0080);
const MAC_COMMAND: Register = Register::at(0x4020_00a4);
const MAC_DATA: Register = Register::at(0x4020_00a8);

const SOFT_RESET: u32 = 1;
/// The chip sends, and does not wait for somebody to read how each frame went.
const TX_ON: u32 = 1 << 1 | 1 << 2;
/// A push-pull output, active high.
const INTERRUPT_ON: u32 = 1 << 8 | 1 << 4 | 1;
const RX_INTERRUPT: u32 = 1 << 3;
const MAC_BUSY: u32 = 1 << 31;
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;
const MAC_BOTH_WAYS: u32 = 1 << 3 | 1 << 2;
const RX_ERROR: u32 = 1 << 15;
const FIRST_AND_LAST: u32 = 1 << 13 | 1 << 12;
const CHECKSUM_BYTES: usize = 4;
/// What a frame takes of the send buffer beside its bytes.
const TX_COMMAND_BYTES: usize = 8;

/// Longest frame either way, header included: the least that IPv4 allows. TCP tells its other end, and
/// longer ones, which are for others, are let go by.
const FRAME_BYTES_MAX: usize = 14 + 576;

pub fn start() {
    HARDWARE_CONFIG.write(SOFT_RESET);
    while HARDWARE_CONFIG.read() & SOFT_RESET != 0 {}
    let [a, b, c, d, e, f] = ADDRESS;
    write_mac(MAC_ADDRESS_LOW, u32::from_le_bytes([a, b, c, d]));
    write_mac(MAC_ADDRESS_HIGH, u32::from_le_bytes([e, f, 0, 0]));
    INTERRUPT_CONFIG.write(INTERRUPT_ON);
    TX_CONFIG.write(TX_ON);
    write_mac(MAC_CONTROL, MAC_BOTH_WAYS);
}

fn write_mac(register: u32, value: u32) {
    MAC_DATA.write(value);
    MAC_COMMAND.write(MAC_BUSY | register);
    while MAC_COMMAND.read() & MAC_BUSY != 0 {}
}

pub fn mask_interrupt() {
    INTERRUPT_ENABLE.write(0);
}

pub fn unmask_interrupt() {
    INTERRUPT_STATUS.write(RX_INTERRUPT);
    INTERRUPT_ENABLE.write(RX_INTERRUPT);
}

/// Whether a frame has come.
pub fn has_input() -> bool {
    RX_FIFO.read() >> 16 & 0xff != 0
}

/// The chip, and a frame each way.
pub struct Lan9118 {
    incoming: [u8; FRAME_BYTES_MAX],
    outgoing: [u8; FRAME_BYTES_MAX],
}

impl Lan9118 {
    /// The only one: the chip has one user.
    pub const fn new() -> Self {
        Self { incoming: [0; FRAME_BYTES_MAX], outgoing: [0; FRAME_BYTES_MAX] }
    }

    /// Takes the next frame from the chip; `None` when there is none, or it is not one for us.
    fn take(&mut self) -> Option<usize> {
        if !has_input() {
            return None;
        }
        let status = RX_STATUS.read();
        let bytes = (status >> 16 & 0x3fff) as usize;
        for index in 0..bytes.div_ceil(4) {
            let word = RX_DATA.read().to_le_bytes();
            if let Some(place) = self.incoming.get_mut(index * 4..) {
                let count = place.len().min(4);
                place[..count].copy_from_slice(&word[..count]);
            }
        }
        let length = bytes.checked_sub(CHECKSUM_BYTES)?;
        (status & RX_ERROR == 0 && length <= FRAME_BYTES_MAX).then_some(length)
    }
}

fn can_send() -> bool {
    TX_FIFO.read() as usize & 0xffff >= FRAME_BYTES_MAX + TX_COMMAND_BYTES
}

/// A frame that has come.
pub struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame.
pub struct Outgoing<'a>(&'a mut [u8]);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let frame = &mut self.0[..len];
        let result = f(frame);
        TX_DATA.write(FIRST_AND_LAST | len as u32);
        TX_DATA.write(len as u32);
        for chunk in frame.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            TX_DATA.write(u32::from_le_bytes(word));
        }
        result
    }
}

impl phy::Device for Lan9118 {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        // What comes may have to be answered at once.
        let length = can_send().then(|| self.take())??;
        Some((Incoming(&self.incoming[..length]), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        can_send().then(|| Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}
