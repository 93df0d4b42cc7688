//! What must hold of a whole system, checked after every step and once more when it is quiet.
//!
//! - no acknowledged record is lost: it is in the log of every node that should have it;
//! - none is applied twice at a node;
//! - no identity has two bodies, anywhere, ever;
//! - records of one origin, epoch and class reach a node in order;
//! - nothing goes back to its origin (HS-18), so that two hubs do not loop (HS-19);
//! - a program is not told "posted" twice with two identities for one idempotency key;
//! - a leaf is let go within one tick of the end of its lease and not before (HS-05, HS-06), and
//!   after a restart of its hub not before one full lease (HS-09).
//!
//! What a process sees by itself (acknowledgements ahead of the disk, cursors that go back, credit
//! overrun) it reports as [`Observation::Violation`].

use std::collections::{BTreeMap, BTreeSet};

use replcore::stream::{Epoch, Name, NodeId, RecordId};
use replcore_runtime::store::Arrival;

use crate::cluster::Seen;
use crate::process::{LeaseState, Observation};

/// What a node has applied in order: the last number of an origin, epoch and class.
type Order = BTreeMap<(NodeId, Epoch, u8), u64>;

#[derive(Debug, Default)]
struct Applied {
    safe: BTreeMap<RecordId, usize>,
    /// Stored since the last commit, in order.
    tentative: Vec<RecordId>,
    order: Order,
    /// Posts, and the identity in which they are here.
    marks: BTreeMap<u64, RecordId>,
    /// What the consumer here has read, ever and in this life, and in which order.
    consumed: BTreeSet<RecordId>,
    consumed_now: BTreeSet<RecordId>,
    consumed_order: Order,
}

/// The lease of a leaf at a hub, as far as it can be seen.
#[derive(Clone, Copy, Debug)]
struct Lease {
    renewed_us: u64,
    hub_started_us: u64,
}

/// What is expected of a system.
#[derive(Clone, Copy, Debug)]
pub struct Expectations {
    /// The lease that hubs grant, in microseconds; 0 when leases are not looked at.
    pub lease_us: u64,
    /// How much later than the end of a lease its end may be told: a tick and the clock's drift.
    pub tick_us: u64,
    /// Whether records may be dropped at limits, so that gaps in an order are no loss.
    pub drops: bool,
    /// Whether a restart keeps records that nobody has seen: those of a commit that was cut off.
    /// They were stored whole, and count from then on. Then posts are followed by their marks, too:
    /// each body begins with its mark, and stands for one record.
    pub keeps_unseen: bool,
    /// Whether records may go that no queue needs.
    pub reclaims: bool,
}

/// The checker.
#[derive(Debug)]
pub struct Checker {
    names: Vec<NodeId>,
    expectations: Expectations,
    applied: Vec<Applied>,
    bodies: BTreeMap<RecordId, Vec<u8>>,
    posted: BTreeMap<u64, (usize, RecordId)>,
    /// Marks that were answered as duplicates of other marks are not counted again.
    acknowledged: BTreeSet<RecordId>,
    hub_started_us: BTreeMap<usize, u64>,
    leases: BTreeMap<(usize, NodeId), Lease>,
    expired: u64,
    refused: u64,
    /// Nodes whose disk was set back: what they had acknowledged before may be gone with it.
    set_back: BTreeSet<usize>,
    /// Posts that a disk set back may have lost: everywhere, or at one node.
    excused: BTreeSet<u64>,
    excused_at: BTreeSet<(usize, u64)>,
}

/// The mark that the body of a post begins with.
fn mark_of(body: &[u8]) -> Option<u64> {
    body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl Checker {
    /// A checker of the nodes of these identities.
    pub fn new(names: Vec<NodeId>, expectations: Expectations) -> Self {
        let applied = names.iter().map(|_| Applied::default()).collect();
        Self {
            names,
            expectations,
            applied,
            bodies: BTreeMap::new(),
            posted: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            hub_started_us: BTreeMap::new(),
            leases: BTreeMap::new(),
            expired: 0,
            refused: 0,
            set_back: BTreeSet::new(),
            excused: BTreeSet::new(),
            excused_at: BTreeSet::new(),
        }
    }

    /// Posts that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Leases that ended.
    pub const fn expired(&self) -> u64 {
        self.expired
    }

    /// Registrations and links refused.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// How a post was answered: where, and with which identity.
    pub fn posted(&self, mark: u64) -> Option<(usize, RecordId)> {
        self.posted.get(&mark).copied()
    }

    /// How many records a node has applied and made safe.
    pub fn applied(&self, node: usize) -> usize {
        self.applied[node].safe.len()
    }

    /// Whether a node has the record.
    pub fn has(&self, node: usize, id: &RecordId) -> bool {
        self.applied[node].safe.contains_key(id)
    }

    /// The disk of a node was set back to an older copy, by an operator, not by a fault: what it
    /// had acknowledged in between is gone with it, and it may apply records again.
    ///
    /// With `passes_on` the node is a hub: what went through it before may be lost on the way.
    pub fn set_back(&mut self, node: usize, passes_on: bool) {
        self.set_back.insert(node);
        self.applied[node].marks.clear();
        for (mark, (origin, _)) in &self.posted {
            if passes_on || *origin == node {
                self.excused.insert(*mark);
            } else {
                self.excused_at.insert((node, *mark));
            }
        }
        // What nobody else has may get another body under the same identity.
        let (own, applied) = (self.names[node], &self.applied);
        self.bodies.retain(|id, _| {
            let elsewhere = |(at, of): (usize, &Applied)| {
                at != node && (of.safe.contains_key(id) || of.tentative.contains(id))
            };
            id.origin != own || applied.iter().enumerate().any(elsewhere)
        });
    }

    /// Takes note of something seen.
    ///
    /// # Errors
    /// What is broken.
    pub fn see(&mut self, seen: &Seen) -> Result<(), String> {
        let node = seen.node;
        match &seen.observation {
            Observation::Stored { id, body, arrival, targets } => {
                let peer = match arrival {
                    Arrival::Local => None,
                    Arrival::Leaf(peer) | Arrival::Upstream(peer) => Some(*peer),
                };
                let back = targets.iter().map(Name::node_id);
                if back.into_iter().any(|to| to == id.origin || Some(to) == peer) {
                    return Err(format!("{id:?} is dispatched back to where it came from (HS-18)"));
                }
                self.stored(node, id, body, *arrival)
            }
            Observation::Found { id, body } => self.body(node, id, body),
            Observation::Committed => {
                self.committed(node);
                Ok(())
            }
            Observation::Posted { mark, id, .. } => self.post(node, *mark, id),
            Observation::PostRefused { .. } => {
                self.refused += 1;
                Ok(())
            }
            Observation::Consumed { id } => self.consumed(node, id),
            Observation::Lease { leaf, state } => self.lease(seen.at_us, node, *leaf, *state),
            Observation::Violation { what } => Err(what.clone()),
            Observation::Started { held } => self.started(seen, held),
            Observation::Note { .. } => Ok(()),
        }
    }

    /// What was not safe when the process ended is kept or may come again; what was safe is there.
    fn started(&mut self, seen: &Seen, held: &[RecordId]) -> Result<(), String> {
        self.hub_started_us.insert(seen.node, seen.at_us);
        let set_back = self.set_back.contains(&seen.node);
        let Expectations { keeps_unseen, reclaims, .. } = self.expectations;
        let applied = &mut self.applied[seen.node];
        applied.consumed_now.clear();
        applied.consumed_order.clear();
        if set_back && !reclaims {
            applied.marks.clear();
        }
        let there: BTreeSet<&RecordId> = held.iter().collect();
        let unsafe_before = std::mem::take(&mut applied.tentative);
        if set_back {
            applied.safe = held.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        } else {
            for id in unsafe_before.iter().filter(|id| there.contains(id)) {
                let place = applied.safe.len();
                applied.safe.insert(*id, place);
            }
            // Posts that were stored and never answered are kept without having been seen.
            let own = self.names[seen.node];
            for id in held.iter().filter(|id| id.origin == own || keeps_unseen) {
                let place = applied.safe.len();
                applied.safe.entry(*id).or_insert(place);
            }
            if let Some(lost) = applied.safe.keys().find(|id| !there.contains(id))
                && !reclaims
            {
                return Err(format!("{lost:?} was safe and is not there after a restart"));
            }
        }
        applied.order = Order::new();
        for id in applied.safe.keys() {
            let last = applied.order.entry((id.origin, id.epoch, id.class)).or_insert(0);
            *last = (*last).max(id.seq.0);
        }
        Ok(())
    }

    fn stored(
        &mut self,
        node: usize,
        id: &RecordId,
        body: &[u8],
        arrival: Arrival,
    ) -> Result<(), String> {
        self.body(node, id, body)?;
        if arrival != Arrival::Local && id.origin == self.names[node] {
            return Err(format!("{id:?} went back to its origin (HS-18)"));
        }
        let applied = &mut self.applied[node];
        if applied.safe.contains_key(id) || applied.tentative.contains(id) {
            return Err(format!("{id:?} is applied twice at node {node}"));
        }
        let last = applied.order.entry((id.origin, id.epoch, id.class)).or_insert(0);
        // What a disk has lost is sent again, and fills a hole.
        if id.seq.0 <= *last && !self.set_back.contains(&node) {
            return Err(format!("{id:?} comes after number {last} at node {node} (HS-22)"));
        }
        *last = id.seq.0;
        applied.tentative.push(*id);
        Ok(())
    }

    /// One identity has one body, and one post one identity.
    fn body(&mut self, node: usize, id: &RecordId, body: &[u8]) -> Result<(), String> {
        let before = self.bodies.entry(*id).or_insert_with(|| body.to_vec());
        if before != body {
            return Err(format!("{id:?} has two bodies"));
        }
        let origin = self.names.iter().position(|name| *name == id.origin);
        let origin_set_back = origin.is_none_or(|origin| self.set_back.contains(&origin));
        if self.expectations.keeps_unseen
            && let Some(mark) = mark_of(body)
            && let Some(before) = self.applied[node].marks.insert(mark, *id)
            && before != *id
            && !origin_set_back
        {
            return Err(format!("post {mark} is at node {node} as {before:?} and as {id:?}"));
        }
        Ok(())
    }

    fn consumed(&mut self, node: usize, id: &RecordId) -> Result<(), String> {
        let applied = &mut self.applied[node];
        if !applied.consumed_now.insert(*id) {
            return Err(format!("{id:?} is read twice at node {node}, in one life"));
        }
        applied.consumed.insert(*id);
        let last = applied.consumed_order.entry((id.origin, id.epoch, id.class)).or_insert(0);
        if id.seq.0 <= *last && !self.set_back.contains(&node) {
            return Err(format!("{id:?} is read after number {last} at node {node} (HS-22)"));
        }
        *last = id.seq.0;
        Ok(())
    }

    fn committed(&mut self, node: usize) {
        let applied = &mut self.applied[node];
        for id in std::mem::take(&mut applied.tentative) {
            let place = applied.safe.len();
            applied.safe.insert(id, place);
        }
    }

    fn post(&mut self, node: usize, mark: u64, id: &RecordId) -> Result<(), String> {
        if let Some((_, before)) = self.posted.insert(mark, (node, *id))
            && before != *id
            && !self.set_back.contains(&node)
        {
            return Err(format!("post {mark} is {before:?} and {id:?}"));
        }
        self.acknowledged.insert(*id);
        Ok(())
    }

    fn lease(
        &mut self,
        at_us: u64,
        hub: usize,
        leaf: NodeId,
        state: LeaseState,
    ) -> Result<(), String> {
        let hub_started_us = self.hub_started_us.get(&hub).copied().unwrap_or(0);
        match state {
            LeaseState::Registered => {
                self.leases.insert((hub, leaf), Lease { renewed_us: at_us, hub_started_us });
                Ok(())
            }
            LeaseState::Refused => {
                // Which lease stands now is not known from outside.
                self.leases.remove(&(hub, leaf));
                self.refused += 1;
                Ok(())
            }
            LeaseState::Expired => {
                self.expired += 1;
                let Expectations { lease_us, tick_us, .. } = self.expectations;
                let Some(lease) = self.leases.get(&(hub, leaf)) else { return Ok(()) };
                let since_us = lease.renewed_us.max(hub_started_us);
                let held_us = at_us - since_us;
                if lease_us > 0 && held_us + tick_us < lease_us {
                    let kept = lease.hub_started_us == hub_started_us;
                    let rule = if kept { "HS-05" } else { "HS-09" };
                    return Err(format!(
                        "the lease of {leaf:?} ended after {held_us} us of {lease_us} ({rule})"
                    ));
                }
                if lease_us > 0 && held_us > lease_us + tick_us {
                    return Err(format!(
                        "the lease of {leaf:?} ended after {held_us} us of {lease_us} (HS-06)"
                    ));
                }
                Ok(())
            }
        }
    }

    /// When all is quiet: every acknowledged record is at every node that should have it.
    ///
    /// `targets` answers the nodes that should have what was posted at a node.
    ///
    /// # Errors
    /// What is missing, and where.
    pub fn quiet(&self, targets: impl Fn(usize) -> Vec<usize>) -> Result<(), String> {
        if self.expectations.drops {
            return Ok(());
        }
        for id in &self.acknowledged {
            let Some(origin) = self.names.iter().position(|name| *name == id.origin) else {
                return Err(format!("{id:?} has an origin that is nobody"));
            };
            if self.set_back.contains(&origin) {
                continue;
            }
            for target in std::iter::once(origin).chain(targets(origin)) {
                if !self.has(target, id) && !self.set_back.contains(&target) {
                    return Err(format!(
                        "{id:?}, posted at node {origin} and acknowledged, is not at node {target}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// As [`Checker::quiet`], by posts instead of identities, and with what disks set back may have
    /// lost left out; and what is there has been read by the consumer of the node.
    ///
    /// # Errors
    /// What is missing, and where.
    pub fn quiet_by_posts(&self, targets: impl Fn(usize) -> Vec<usize>) -> Result<(), String> {
        if self.expectations.drops {
            return Ok(());
        }
        for (mark, (origin, _)) in &self.posted {
            if self.excused.contains(mark) {
                continue;
            }
            for target in std::iter::once(*origin).chain(targets(*origin)) {
                if self.excused_at.contains(&(target, *mark)) {
                    continue;
                }
                let Some(id) = self.applied[target].marks.get(mark) else {
                    return Err(format!(
                        "post {mark}, acknowledged at node {origin}, is not at node {target}"
                    ));
                };
                if !self.applied[target].consumed.contains(id) {
                    return Err(format!("{id:?}, post {mark}, is not read at node {target}"));
                }
            }
        }
        Ok(())
    }
}
