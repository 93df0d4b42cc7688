//! replcore on a host: a store on disk, a tokio driver for the machines of the core, a client,
//! HTTP, and the `replcore` program.
//!
//! A node is an engine (machine, store and link buffers, no sockets and no clock) run by a driver
//! on one thread. Programs talk to it over its binary protocol or over HTTP; both say the same
//! things, those of [`api`].

pub mod api;
pub mod ca;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
mod driver;
pub mod engine;
pub mod handle;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod node;
mod noise;
pub mod options;
mod quickstart;
mod reload;
pub mod schema;
mod service;
mod standby;
pub mod store;
pub mod tls;
