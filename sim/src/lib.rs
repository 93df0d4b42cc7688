//! Deterministic simulation of replcore.
pub mod clock;
pub mod cluster;
pub mod host;
pub mod kit;
pub mod model;
pub mod network;
pub mod process;
