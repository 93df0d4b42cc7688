//! The `replcore` program as a person uses it: real processes, real sockets, real folders.

mod bad_input;
mod commands;
mod configuration;
mod noise;
mod old_flags;
mod quickstart;
mod support;
mod tls;
