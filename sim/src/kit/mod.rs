//! The conformance kit: plays network, disk, clock and crash around any machine, from a seed, and
//! holds it to the rules of [`replcore::contract`].
//!
//! One function, [`check`], for every machine. The rules have numbers; each [`Violation`] names
//! the one that was broken:
//!
//! 1. a drain ends;
//! 2. `Idle` repeated gives the same `Idle`, also with an empty buffer;
//! 3. `wake` is later than now;
//! 4. needless timeouts change nothing;
//! 5. time going back changes nothing;
//! 6. any bytes: no panic, taken at most what was given, other inputs take nothing;
//! 7. any schedule of buffer sizes gives the same outputs;
//! 8. never more bytes than credit;
//! 9. no output for a link that is down;
//! 10. tokens only rise within a life;
//! 11. nothing that depends on a record before its completion;
//! 12. a crash anywhere, then `restore`, and on it goes;
//! 13. same seed, same outputs;
//! 14. no allocation after construction, where a counting allocator is installed;
//! 15. bounded work for each input, counted in outputs.

mod member_peer;
mod mutant;
mod peer;
mod play;
mod subjects;

use std::fmt;

use replcore::contract::{DialIndex, Machine};
use replcore::rng::Rng;
use replcore::stream::Name;
use replcore::time::Instant;
use replcore::wire::Role;

pub use mutant::{Bug, Mutant};
pub(crate) use subjects::node_memory;
pub use subjects::{Broken, LeafSubject, MemberSubject, NodeSubject};

/// What the kit must know of a machine to play around it.
pub trait Subject {
    /// The machine.
    type Machine: Machine;

    /// What to call it.
    fn name(&self) -> &'static str;

    /// A new machine, as at the start of a process.
    fn machine(&self, seed: u64) -> Self::Machine;

    /// How many links it can have.
    fn links_max(&self) -> u32;

    /// Who is at the other end of a link that it dialled, or accepted.
    fn peer(&self, dialed: Option<DialIndex>, rng: &mut Rng) -> (Role, Name);

    /// Gives one of its commands, if it has any. Whether it did.
    fn command(&self, _machine: &mut Self::Machine, _now: Instant, _rng: &mut Rng) -> bool {
        false
    }

    /// Most outputs of one drain.
    fn outputs_max(&self) -> usize {
        200
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, by the numbers of the [module](self).
    pub rule: u8,
    /// In which step of the play.
    pub step: usize,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} broken in step {}: {}", self.rule, self.step, self.what)
    }
}

/// How one play differs from another of the same seed, in ways that must not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variation {
    /// Short buffers, drawn from this seed, in place of ones that always do.
    pub buffers: Option<u64>,
    /// Some inputs bring a time before the last one.
    pub backwards: bool,
    /// Timeouts between the other inputs.
    pub needless_timeouts: bool,
}

/// Reads how many allocations this thread has made.
pub type Allocations = fn() -> u64;

/// Plays `steps` steps from `seed` in several variations. Answers a digest of the outputs, the
/// same for every run of the same seed.
///
/// # Errors
/// The first rule that was broken.
pub fn check<S: Subject>(
    subject: &S,
    seed: u64,
    steps: usize,
    allocations: Option<Allocations>,
) -> Result<u64, Violation> {
    let base = play::play(subject, seed, steps, Variation::default(), allocations)?;
    let variations = [
        (13, Variation::default()),
        (7, Variation { buffers: Some(seed ^ 1), ..Variation::default() }),
        (5, Variation { backwards: true, ..Variation::default() }),
        (4, Variation { needless_timeouts: true, ..Variation::default() }),
    ];
    for (rule, variation) in variations {
        let other = play::play(subject, seed, steps, variation, None)?;
        if let Some(at) = first_difference(&base.log, &other.log) {
            let line = |log: &[(usize, String)]| {
                log.get(at).map_or("nothing".to_owned(), |(_, line)| line.clone())
            };
            return Err(Violation {
                rule,
                step: base.log.get(at).map_or(steps, |(step, _)| *step),
                what: format!(
                    "output {at} was {} and with {variation:?} {}",
                    line(&base.log),
                    line(&other.log)
                ),
            });
        }
    }
    Ok(base.digest())
}

fn first_difference(one: &[(usize, String)], other: &[(usize, String)]) -> Option<usize> {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    differs.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}
