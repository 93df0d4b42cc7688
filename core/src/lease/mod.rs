//! Registration leases: who is there, by the judgement of a clock.
//!
//! A leaf registers at its hub and renews; a hub keeps a table and lets go of who did not renew.
//! The leaf counts its lease from when it asked, the hub from when it granted, each on its own
//! clock: no clocks need to agree, only to run at about the same rate.

mod client;
mod server;

pub use client::{DialTiming, HubTerm, LeaseTiming};
pub(crate) use client::{Dialer, Granted, LeaseClient, LeaseDue};
pub(crate) use server::{Admission, REGISTRATION_BYTES_MAX};
pub use server::{AdmissionConfig, LeaseConfig, LeaseServer, LeaseSlot, LeaseState, Registration};
