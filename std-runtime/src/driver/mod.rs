//! What runs an engine on a host: sockets, clocks and deadlines, on one thread.

mod alarm;
pub(crate) mod clock;
mod line;
mod listen;
mod reactor;
mod secure;
mod stream;

pub(crate) use listen::{Accepted, Listener};
pub(crate) use reactor::{Reactor, ReactorConfig, count, wall_ms};
pub(crate) use stream::Stream;

/// Something that differs from start to start and from node to node.
pub(crate) fn entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard hasher is keyed from the system's source of entropy.
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(wall_ms());
    hasher.write_u32(std::process::id());
    hasher.finish()
}
