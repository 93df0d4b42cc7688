//! Deterministic simulation of replcore: whole systems in one thread, in virtual time, from a seed.
//!
//! - [`network`], [`clock`] and [`model`] are what a node stands on, with faults.
//! - [`campaign`] draws topologies, traffic and faults; the program `replcore-sim` runs it.
//! - [`invariants`] says what must hold.
//! - [`host`] drives one machine over one store, from the contract alone.
//! - [`cluster`] runs many of them against each other and against faults.
//! - [`system`] is the daemon's own engine and store on a disk in memory; [`system_run`] is a
//!   campaign of them.
//! - [`members`] runs clusters that elect a leader.
//! - [`kit`] holds single machines to the contract.

pub mod campaign;
pub mod clock;
pub mod cluster;
pub mod faults;
pub mod host;
pub mod invariants;
pub mod kit;
pub mod machines;
pub mod members;
pub mod model;
pub mod network;
pub mod process;
pub mod system;
pub mod system_run;
