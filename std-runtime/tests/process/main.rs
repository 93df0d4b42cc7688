//! The real thing: node, producer and consumer processes on loopback, with the embedded store on
//! disk, under faults. What every test demands is the same: what was acknowledged arrives
//! everywhere it should, once, in order per origin and class, with its body.
//!
//! A test that fails prints its seed and leaves its folder, with the log of every process.

mod clock;
mod disk;
mod harness;
mod history;
mod http;
mod kill;
mod ledger;
mod net;
mod peers;
mod player;
mod relay;
mod session;

/// Plays a process of another test when that starts this program anew; else there is nothing to do.
#[test]
fn a_part_in_another_test_is_played() {
    player::play_if_asked();
}
