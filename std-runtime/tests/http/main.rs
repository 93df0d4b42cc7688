//! The HTTP interface, over a node that answers from memory, and over real nodes.

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod client;
mod connections;
mod document;
mod events;
mod metrics;
mod nodes;
mod routes;
