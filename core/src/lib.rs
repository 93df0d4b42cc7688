//! The replication core: state machines that never touch a socket, a file or a clock.
//!
//! A **stream** is an origin-stamped, sequence-numbered log. A **cursor** is a reader's durable
//! position in it. A **lease** says whether the reader is there. A **link** carries frames
//! between two nodes. Everything in this crate is one of these four, or a composition of them.
//!
//! Start with [`contract`]: one trait, three verbs, and the rules a driver keeps. [`leaf`] is the
//! composition for a small device, [`node`] the one for a hub or a gateway. [`log`] and [`wire`]
//! hold the byte formats and no state.
//!
//! The crate needs neither the standard library nor a heap; memory is the caller's. The same
//! inputs give the same outputs, byte for byte.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod contract;
#[cfg(any(feature = "embedded-io-07", feature = "embedded-io-async-07"))]
pub mod driver;
pub mod election;
pub mod leaf;
pub mod lease;
pub mod link;
pub mod log;
pub mod member;
pub mod node;
pub mod queue;
mod ready;
pub mod registry;
pub mod rng;
pub mod stream;
pub mod time;
mod timers;
pub mod transport;
pub mod wire;

pub use timers::Timer;
