//! Clusters of real processes on loopback, under faults; and what a member makes of its
//! configuration. In all of them no two members may claim to lead at one time.

#[path = "../process/session.rs"]
mod session;

mod api;
mod configuration;
mod exec;
mod faults;
mod http;
mod idle;
mod input;
mod lab;
mod lists;
mod membership;
mod namespaces;
mod tls;
mod watch;
