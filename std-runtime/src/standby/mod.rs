//! Hubs that hold one log together, of which one leads (QC-33).
//!
//! The leading hub dials the others and hands each its log ([`Lead`]); they take it ([`Standby`]). The
//! term goes with every link: a standby refuses who leads in an earlier term than it has heard of, and
//! a hub that is refused so leads no longer. What the log is and how it is followed is in
//! [`crate::store`]; that nothing leaves the leader too early is the engine's part.

mod folder;
mod follow;
mod lead;
mod wire;

pub(crate) use self::follow::Standby;
pub(crate) use self::lead::{Lead, all_empty};
use crate::node::{NodeReactor, NodeStore};
use crate::options::StandbyOptions;

/// Replication links and questions at once; a further one waits.
const CONNECTIONS_MAX: usize = 16;
