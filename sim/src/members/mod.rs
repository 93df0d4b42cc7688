//! Members of a cluster against faults: who leads, who is here.
//!
//! - [`world`] runs [`replcore::member::Member`]s over links, disks and clocks with faults.
//! - [`rules`] says what must hold, from what is on the wires and on the disks.
//! - [`campaign`] draws clusters, faults and changes of the members from a seed.
//! - [`tamper`] breaks members on purpose, to see that the rules notice.
//! - [`explore`] goes through every order of a bounded number of messages, timeouts, crashes, failed
//!   writes and changes of the members in a cluster of three.

pub mod campaign;
mod configurations;
pub mod explore;
pub mod rules;
pub mod tamper;
pub mod world;
