//! The board: one serial port, a clock, reset. All access to registers is in here.
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
//! All four run against the hub in `std-runtime/tests/embedded/firmware.rs`.

#[cfg(target_arch = "arm")]
mod cortex;
mod flash;
mod line;
mod place;

#[cfg_attr(board = "lm3s6965", path = "lm3s6965.rs")]
#[cfg_attr(board = "mps2", path = "mps2.rs")]
#[cfg_attr(board = "microbit", path = "microbit.rs")]
#[cfg_attr(board = "virt", path = "virt.rs")]
mod port;

#[cfg(target_arch = "arm")]
pub use cortex::{repaint_stack, reset, stack_bytes, start, wait};
pub use flash::{RECORD_PAGES, RamFlash};
pub use line::Line;
pub use place::Place;
#[cfg(target_arch = "riscv32")]
pub use port::{repaint_stack, reset, stack_bytes, start, wait};

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
