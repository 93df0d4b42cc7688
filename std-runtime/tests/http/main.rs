//! The HTTP interface, over a node that answers from memory.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod connections;
mod document;
mod events;
mod metrics;
mod routes;
