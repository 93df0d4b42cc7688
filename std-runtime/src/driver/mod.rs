//! What runs an engine on a host: sockets, clocks and deadlines, on one thread.

mod line;
mod reactor;
mod stream;

pub(crate) use reactor::{Reactor, ReactorConfig, count, wall_ms};
pub(crate) use stream::Stream;
