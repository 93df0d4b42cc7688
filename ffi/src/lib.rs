//! The C interface. Each function checks what it is given and calls the core; no rule of the
//! protocol is here. `include/replcore.h` is made from these files and their comments, which are
//! written for its readers; a test keeps the two the same.
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![allow(non_camel_case_types, reason = "types have the names they have in C")]

mod check;
mod cobs;
mod dispatch;
mod input;
mod leaf;
mod log;
mod machine;
#[cfg(feature = "member")]
mod member;
#[cfg(feature = "member")]
mod member_view;
#[cfg(feature = "node")]
mod node;
#[cfg(feature = "node")]
mod node_view;
#[cfg(feature = "noise")]
mod noise;
mod output;
mod record;
mod status;
mod window;

pub use cobs::*;
pub use dispatch::*;
pub use input::*;
pub use leaf::*;
pub use log::*;
pub use machine::*;
#[cfg(feature = "member")]
pub use member::*;
#[cfg(feature = "member")]
pub use member_view::*;
#[cfg(feature = "node")]
pub use node::*;
#[cfg(feature = "node")]
pub use node_view::*;
#[cfg(feature = "noise")]
pub use noise::*;
pub use output::*;
pub use record::*;
pub use status::*;
pub use window::*;

/// Compare with `replcore_abi()` at start: a difference means header and library do not belong
/// together. Raised when a function, a structure or a meaning changes.
pub const REPLCORE_ABI: u32 = 3;

/// The ABI number of the library; see REPLCORE_ABI.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_abi() -> u32 {
    REPLCORE_ABI
}

/// The version of the library as text, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn replcore_version() -> *const core::ffi::c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

#[cfg(not(any(feature = "std", test)))]
mod panic {
    unsafe extern "C" {
        /// Supplied by the program: stops or resets the device. Does not return.
        fn replcore_panic() -> !;
    }

    #[panic_handler]
    fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // SAFETY: the program supplies the function with this signature, as the header says.
        unsafe { replcore_panic() }
    }
}
