//! A leaf, or a client, whose hub is hostile.

use replcore::contract::StreamIndex;
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::stream::{Epoch, Name, Position};
use replcore::wire::Role;

use crate::machine;

/// Runs one input; its first byte chooses the configuration.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let name = Name::new("a").expect("a name");
    let mut config =
        LeafConfig::new(LinkSettings::new(name, 1, Epoch(machine::EPOCH)), u64::from(choice));
    config.role = if choice & 1 != 0 { Role::Client } else { Role::Leaf };
    config.dials = choice & 2 == 0;
    if choice & 4 != 0 {
        config.dial.poll_interval_ms = 10_000;
    }
    machine::run(data, Leaf::new(config), 1, |leaf, now, choice| match choice % 8 {
        0 => leaf.stop(now),
        _ => {
            let position = Position(u64::from(choice));
            let _ = leaf.reject(now, StreamIndex(choice % 8), position);
        }
    });
}
