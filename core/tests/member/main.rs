//! Members of clusters against each other, in virtual time.

mod elections;
mod membership;
mod registry;
mod repair;
mod safety;
mod strangers;
mod world;
