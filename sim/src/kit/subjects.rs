//! The machines that the kit is run over.

use replcore::contract::DialIndex;
use replcore::leaf::{ConsumerConfig, Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::rng::Rng;
use replcore::stream::{Epoch, Name};
use replcore::time::Instant;
use replcore::wire::Role;

use super::{Bug, Mutant, Subject};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a constant name is sound")
}

/// A leaf that registers at a hub.
#[derive(Clone, Copy, Debug)]
pub struct LeafSubject {
    /// A leaf or a client.
    pub role: Role,
    /// Poll mode with this interval, in milliseconds; 0 for push.
    pub poll_interval_ms: u32,
}

impl Subject for LeafSubject {
    type Machine = Leaf;

    fn name(&self) -> &'static str {
        match (self.role, self.poll_interval_ms) {
            (Role::Client, _) => "leaf as client",
            (_, 0) => "leaf",
            _ => "leaf in poll mode",
        }
    }

    fn machine(&self, seed: u64) -> Leaf {
        let link = LinkSettings::new(name("leaf-1"), 7, Epoch(1 << 16 | 3));
        let mut config = LeafConfig::new(link, seed);
        config.role = self.role;
        config.dial.poll_interval_ms = self.poll_interval_ms;
        if self.role == Role::Client {
            config.queue = Some(name("post"));
            config.consumer =
                Some(ConsumerConfig { name: name("reader"), message_type: None, from_start: true });
        }
        Leaf::new(config)
    }

    fn links_max(&self) -> u32 {
        1
    }

    fn peer(&self, _dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name) {
        if rng.between(0, 19) == 0 {
            (Role::Leaf, name("leaf-2"))
        } else {
            (Role::Hub, name("hub"))
        }
    }

    fn command(&self, machine: &mut Leaf, now: Instant, rng: &mut Rng) -> bool {
        let commands = self.role == Role::Client && rng.between(0, 3) == 0;
        if commands {
            let stream = replcore::contract::StreamIndex(rng.between(0, 3) as u8);
            let position = replcore::stream::Position(rng.between(0, 30));
            // A stream that is not there is an answer and no fault.
            let _ = machine.reject(now, stream, position);
        }
        commands
    }
}

/// Any of the others, broken.
#[derive(Clone, Copy, Debug)]
pub struct Broken<S> {
    /// The subject.
    pub subject: S,
    /// How it is broken.
    pub bug: Bug,
}

impl<S: Subject> Subject for Broken<S> {
    type Machine = Mutant<S::Machine>;

    fn name(&self) -> &'static str {
        self.subject.name()
    }

    fn machine(&self, seed: u64) -> Self::Machine {
        Mutant::new(self.subject.machine(seed), self.bug)
    }

    fn links_max(&self) -> u32 {
        self.subject.links_max()
    }

    fn peer(&self, dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name) {
        self.subject.peer(dialed, rng)
    }

    fn outputs_max(&self) -> usize {
        self.subject.outputs_max()
    }
}
