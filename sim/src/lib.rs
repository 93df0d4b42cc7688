//! Deterministic simulation of replcore.
pub mod clock;
pub mod model;
pub mod network;
