//! Three nodes, and every order in which a bounded number of things can happen to them.
//!
//! Breadth first over [`replcore::election::Election`]s alone, without links and frames. States that
//! were seen before are not gone through again. Two ways of time:
//!
//! - [`Time::Free`]: each node's clock is its own and any node's wait may end next, so nothing is
//!   assumed of clocks at all. Any message on its way may be the next to arrive, out of order,
//!   twice, or never; any write may get to a disk or fail; any node may crash and start anew from
//!   its disk; who leads may be told to make a node a voter or no member. For what holds whatever
//!   the clocks do: votes, terms, members.
//! - [`Time::Shared`]: all clocks go on together, each at its own rate, in steps of [`STEP_MS`], from
//!   when the first leader has its lease. What is said is heard at once, in either direction between
//!   two nodes, or held back until that direction is open again; in between nodes crash. For leases:
//!   no two nodes say at one instant that they lead.
//!
//! With free time and no change of members, writes of the members are through at once and frames with
//! whole configurations are lost.
//!
//! What must hold is counted here and not taken from the elections: who led in which term, who voted
//! for whom, which configurations are on the disks. And from a share of the states each node in turn is
//! cut off: the other two must find a leader, and with shared time never beside one that still leads.

mod judge;
mod world;

use std::collections::HashSet;

use world::{State, Step};

/// Nodes of a world.
pub const NODES: usize = 3;
/// One step of [`Time::Shared`], in milliseconds: a third of the shortest wait.
pub const STEP_MS: u64 = 50;

/// How time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Any node's wait may end next.
    Free,
    /// In steps, for all.
    Shared,
}

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How time passes.
    pub time: Time,
    /// Whether there is a leader from the start. With shared time there always is.
    pub led: bool,
    /// Waits that end, or steps of time.
    pub waits: u8,
    /// Crashes.
    pub crashes: u8,
    /// Messages that arrive and stay on their way, to arrive again.
    pub repeats: u8,
    /// Writes that a disk says have failed, which may not be true.
    pub disk_failures: u8,
    /// Changes of the members that the leader is asked for: a voter removed, or one added.
    pub changes: u8,
    /// Times that a direction between two nodes is held back or opened again, with shared time.
    pub turns: u8,
    /// Messages on their way at once; beyond, the oldest is lost.
    pub in_flight: usize,
    /// States, at most. What lies beyond is not looked at.
    pub states: usize,
    /// Of how many states one is tried for what happens when a node is cut off; 0 for none.
    pub alone_every: u64,
    /// How many nodes are voters at the start; the others wait to be taken in.
    pub voters: usize,
    /// How fresh each node is.
    pub progress: [u64; NODES],
    /// Draws the waits.
    pub seed: u64,
    /// How the nodes are broken, to check the checker.
    pub bug: Option<ElectionBug>,
}

impl Bounds {
    /// One campaign and one crash among three voters, in any order.
    pub const CAMPAIGN: Self = Self {
        time: Time::Free,
        led: false,
        waits: 1,
        crashes: 1,
        repeats: 0,
        disk_failures: 0,
        changes: 0,
        turns: 0,
        in_flight: 6,
        states: 1_000_000,
        alone_every: 64,
        voters: NODES,
        progress: [0; NODES],
        seed: 1,
        bug: None,
    };

    /// Whether whole configurations are on their way, too.
    const fn carries_members(&self) -> bool {
        self.changes > 0 || matches!(self.time, Time::Shared)
    }
}

/// A way in which every node is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionBug {
    /// A vote is given before it is on the disk.
    VoteBeforeStored,
    /// A second candidate of a term gets a vote too.
    TwoVotes,
    /// A voter that has started anew votes at once, whatever it promised before.
    NoSilence,
    /// A lease is counted from when the answer came, not from when the heartbeat was made.
    LeaseFromAnswer,
    /// The members are changed before a majority has the change before.
    ChangeUnsettled,
    /// The answer to a question before a vote does not say a later term than was asked from.
    PreVoteHidesTerm,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps to the furthest of them.
    pub depth: usize,
    /// Whether there was nothing beyond, within the bounds.
    pub complete: bool,
    /// States in which somebody led.
    pub with_leader: usize,
    /// States with more than one configuration on the disks.
    pub with_change: usize,
    /// Times that two nodes alone were seen to find a leader.
    pub alone: usize,
}

/// Looks at every state within `bounds`, nearest first.
///
/// # Errors
/// The first rule that was broken, with the steps that lead there.
pub fn explore(bounds: &Bounds) -> Result<Explored, String> {
    let mut found = Explored { complete: true, ..Explored::default() };
    let mut seen = HashSet::new();
    // Each state's step, and which one it came from.
    let mut steps: Vec<(usize, Step)> = Vec::new();
    let mut frontier = vec![(usize::MAX, State::new(bounds))];
    seen.insert(frontier[0].1.digest());
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (from, state) in &frontier {
            for step in state.steps(bounds) {
                let mut after = state.clone();
                if let Err(what) = after.take(bounds, step) {
                    return Err(told(bounds, &steps, *from, step, &what));
                }
                if seen.len() >= bounds.states {
                    found.complete = false;
                    break;
                }
                let digest = after.digest();
                if seen.insert(digest) {
                    found.with_leader += usize::from(after.leading().next().is_some());
                    found.with_change += usize::from(after.configurations() > 1);
                    if bounds.alone_every > 0 && (digest as u64).is_multiple_of(bounds.alone_every)
                    {
                        found.alone += judge::two_alone_find_a_leader(bounds, &after)
                            .map_err(|what| told(bounds, &steps, *from, step, &what))?;
                    }
                    next.push((steps.len(), after));
                    steps.push((*from, step));
                }
            }
        }
        found.depth += usize::from(!next.is_empty());
        frontier = next;
    }
    found.states = seen.len();
    Ok(found)
}

/// The steps from the start to where a rule is broken, gone through again to be read.
fn told(
    bounds: &Bounds,
    steps: &[(usize, Step)],
    mut from: usize,
    last: Step,
    what: &str,
) -> String {
    let mut path = vec![last];
    while let Some((before, step)) = steps.get(from) {
        path.push(*step);
        from = *before;
    }
    let mut state = State::new(bounds);
    let mut lines = Vec::new();
    for step in path.into_iter().rev() {
        lines.push(state.describe(step));
        // The last step breaks the rule again.
        let _ = state.take(bounds, step);
    }
    lines.push(what.to_owned());
    lines.join("\n")
}
