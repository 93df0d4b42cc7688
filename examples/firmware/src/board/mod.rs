//! The board: one serial port or Ethernet, a clock, reset. All access to registers is in here.
//!
//! Each board is a file of the same functions; which one is built in depends on the target (see
//! `build.rs`). Ports of three makes, three sizes of processor:
//!
//! | board | processor | port |
//! | --- | --- | --- |
//! | `lm3s6965` | Cortex-M3 | PL011, with a FIFO |
//! | `mps2` | Cortex-M4F | CMSDK, one byte |
//! | `microbit` | Cortex-M0, 16 KiB of RAM | nRF51, one byte |
//! | `virt` | RISC-V | 16550 |
//!
//! With the feature `ethernet` the link of `mps2` is TCP through its LAN9118 in place of the serial line.
//! All of them run against the hub in `std-runtime/tests/embedded/firmware.rs`.

#[cfg(target_arch = "arm")]
mod cortex;
mod flash;
#[cfg_attr(feature = "ethernet", path = "tcp.rs")]
mod line;
mod place;

#[cfg_attr(board = "lm3s6965", path = "lm3s6965.rs")]
#[cfg_attr(all(board = "mps2", not(feature = "ethernet")), path = "mps2.rs")]
#[cfg_attr(all(board = "mps2", feature = "ethernet"), path = "lan9118.rs")]
#[cfg_attr(board = "microbit", path = "microbit.rs")]
#[cfg_attr(board = "virt", path = "virt.rs")]
mod port;

#[cfg(target_arch = "arm")]
pub use cortex::{Clock, repaint_stack, reset, stack_bytes, start, wait};
pub use flash::{RECORD_PAGES, RamFlash};
pub use line::{FRAMING, Line};
pub use place::Place;
#[cfg(target_arch = "riscv32")]
pub use port::{Clock, repaint_stack, reset, stack_bytes, start, wait};

/// A register.
#[derive(Clone, Copy)]
struct Register<T = u32>(usize, core::marker::PhantomData<T>);

impl<T> Register<T> {
    const fn at(address: usize) -> Self {
        Self(address, core::marker::PhantomData)
    }

    fn read(self) -> T {
        // SAFETY: the files of the boards name only registers that their board has, of this width.
        unsafe { (self.0 as *const T).read_volatile() }
    }

    fn write(self, value: T) {
        // SAFETY: as in `read`; each register is written by one file only.
        unsafe { (self.0 as *mut T).write_volatile(value) }
    }
}
