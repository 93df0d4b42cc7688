//! Queues: what each holds, its limits, and who watches it.

use std::collections::HashMap;

use replcore::contract::{LinkId, SkipReason, StreamIndex};
use replcore::stream::{CLASSES, Life, Name, Position, QueueId};
use serde::{Deserialize, Serialize};

use super::checkpoint::{LaneImage, QueueImage};
use super::runs::RunList;
use super::{Holding, LimitPolicy, QueueKind, QueueLimits};

/// Gaps that one class of a queue remembers; older ones are joined.
const GAPS_MAX: usize = 16;

/// Positions whose entries are gone unacknowledged, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    pub first: u64,
    pub next: u64,
    pub reason: SkipReason,
}

/// What has happened to the entries of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    pub acknowledged: u64,
    pub dropped: u64,
    pub expired: u64,
    pub purged: u64,
}

/// A note of the open batch that may still grow: the batch it is for, and its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NoteAt {
    pub batch: u64,
    pub index: usize,
}

/// One class of a queue.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub runs: RunList,
    pub released: u64,
    pub next: u64,
    /// `next` as of the last commit.
    pub durable_next: u64,
    /// Entries before this were acknowledged, or given out in this life of the log.
    pub sent: u64,
    /// Earlier lives of which something is not acknowledged.
    pub lives: Vec<Life>,
    pub gaps: Vec<Gap>,
    pub watchers: Vec<(LinkId, StreamIndex)>,
    pub touched: bool,
    pub route: NoteAt,
    pub release: NoteAt,
}

impl Lane {
    pub(super) fn holding(&self) -> Holding {
        Holding {
            released: Position(self.released),
            next: Position(self.durable_next),
            sent: Position(self.sent.max(self.released)),
        }
    }

    /// Notes that the entries in `first..next` are gone.
    pub(super) fn add_gap(&mut self, first: u64, next: u64, reason: SkipReason) {
        if let Some(last) = self.gaps.last_mut()
            && last.reason == reason
            && last.next == first
        {
            last.next = next;
            return;
        }
        self.gaps.push(Gap { first, next, reason });
        self.gaps.sort_by_key(|gap| gap.first);
        if self.gaps.len() > GAPS_MAX {
            let old = self.gaps.remove(0);
            self.gaps[0].first = old.first;
        }
    }

    /// Why the entry at `position` is gone.
    pub(super) fn reason(&self, position: u64) -> SkipReason {
        if position < self.released {
            return SkipReason::Forgotten;
        }
        let covers = |gap: &&Gap| gap.first <= position && position < gap.next;
        self.gaps.iter().find(covers).map_or(SkipReason::Lost, |gap| gap.reason)
    }

    /// Forgets gaps that are acknowledged.
    pub(super) fn trim(&mut self) {
        let released = self.released;
        self.gaps.retain(|gap| gap.next > released);
        self.forget_lives();
        self.runs.trim();
    }
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub id: QueueId,
    /// Made of the id while damage has taken the name: see [`Queues::add_unnamed`].
    pub name: Name,
    pub kind: QueueKind,
    pub limits: QueueLimits,
    pub lanes: [Lane; CLASSES],
    pub totals: Totals,
    /// What the records being planned would add.
    pub planned: (u64, u64),
}

impl Queue {
    /// Whether nobody has said yet what the queue is called.
    pub(super) fn is_unnamed(&self) -> bool {
        self.name.queue_id() != self.id
    }

    pub(super) fn messages(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.runs.count).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.runs.bytes).sum()
    }

    /// When the oldest entry came, in milliseconds since 1970.
    pub(super) fn oldest_at_ms(&self) -> Option<u64> {
        self.lanes.iter().filter_map(|lane| lane.runs.front()).map(|run| run.at_ms).min()
    }

    /// Whether the queue refuses this many more.
    pub(super) fn refuses(&self, messages: u64, bytes: u64) -> bool {
        let limits = &self.limits;
        limits.policy == LimitPolicy::Refuse
            && ((limits.messages_max > 0 && self.messages() + messages > limits.messages_max)
                || (limits.bytes_max > 0 && self.bytes() + bytes > limits.bytes_max))
    }

    /// The class whose oldest entries are to be dropped now, if the queue is over a limit.
    pub(super) fn overflowing(&self) -> Option<usize> {
        let limits = &self.limits;
        let over = (limits.messages_max > 0 && self.messages() > limits.messages_max)
            || (limits.bytes_max > 0 && self.bytes() > limits.bytes_max);
        if !over {
            return None;
        }
        let filled = |class: &usize| self.lanes[*class].runs.front().is_some();
        match limits.policy {
            LimitPolicy::Refuse | LimitPolicy::ByKind => None,
            LimitPolicy::DropByClass => (0..CLASSES).rev().find(filled),
            LimitPolicy::DropOldest => (0..CLASSES).filter(filled).min_by_key(|class| {
                self.lanes[*class].runs.front().map(|run| (run.at_ms, run.ordinal))
            }),
        }
    }
}

/// All queues.
#[derive(Debug)]
pub(super) struct Queues {
    slots: Vec<Option<Queue>>,
    free: Vec<u32>,
    ids: HashMap<QueueId, u32>,
    default_limits: QueueLimits,
    named_limits: HashMap<Name, QueueLimits>,
}

impl Queues {
    pub(super) fn new(default_limits: QueueLimits) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            default_limits,
            named_limits: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn slot(&self, id: QueueId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// The queue that is called `name`, be it only for want of its own.
    pub(super) fn called(&self, name: &Name) -> Option<&Queue> {
        let id = match name.as_str().strip_prefix("unnamed-").map(|id| u64::from_str_radix(id, 16))
        {
            Some(Ok(id)) if !self.ids.contains_key(&name.queue_id()) => QueueId(id),
            _ => name.queue_id(),
        };
        self.get(self.slot(id)?).filter(|queue| queue.name == *name)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Queue> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Queue> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn lane(&mut self, slot: u32, class: u8) -> Option<&mut Lane> {
        self.get_mut(slot)?.lanes.get_mut(usize::from(class))
    }

    /// Adds a queue; the caller has seen that there is none of this id.
    pub(super) fn add(&mut self, name: Name, kind: QueueKind) -> u32 {
        self.add_as(name.queue_id(), name, kind)
    }

    /// Adds a queue of which only the id is known, since the note that made it was damaged. What
    /// it holds is kept until the queue is wanted again, or removed by this name.
    pub(super) fn add_unnamed(&mut self, id: QueueId) -> Option<u32> {
        let name = Name::new(&format!("unnamed-{:016x}", id.0)).ok()?;
        Some(self.add_as(id, name, QueueKind::Leaf))
    }

    /// Gives a queue its name, which has its id, if it is unnamed.
    pub(super) fn claim(&mut self, slot: u32, name: Name, kind: QueueKind) {
        let limits = self.limits_of(&name, kind);
        let unnamed = |queue: &&mut Queue| queue.is_unnamed() && queue.id == name.queue_id();
        if let Some(queue) = self.get_mut(slot).filter(unnamed) {
            (queue.name, queue.kind, queue.limits) = (name, kind, limits);
        }
    }

    fn add_as(&mut self, id: QueueId, name: Name, kind: QueueKind) -> u32 {
        let queue = Queue {
            id,
            name,
            kind,
            limits: self.limits_of(&name, kind),
            lanes: Default::default(),
            totals: Totals::default(),
            planned: (0, 0),
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[slot as usize] = Some(queue);
        self.ids.insert(id, slot);
        slot
    }

    pub(super) fn remove(&mut self, id: QueueId) -> Option<Queue> {
        let slot = self.ids.remove(&id)?;
        self.free.push(slot);
        self.slots[slot as usize].take()
    }

    fn limits_of(&self, name: &Name, kind: QueueKind) -> QueueLimits {
        let limits = self.named_limits.get(name).copied().unwrap_or(self.default_limits);
        QueueLimits { policy: limits.policy.resolve(kind), ..limits }
    }

    pub(super) fn set_limits(&mut self, default: QueueLimits, named: &[(Name, QueueLimits)]) {
        self.default_limits = default;
        self.named_limits = named.iter().copied().collect();
        for slot in 0..self.slots.len() {
            let Some((name, kind)) =
                self.slots[slot].as_ref().map(|queue| (queue.name, queue.kind))
            else {
                continue;
            };
            let limits = self.limits_of(&name, kind);
            if let Some(queue) = &mut self.slots[slot] {
                queue.limits = limits;
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Queue)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, queue)| queue.as_ref().map(|queue| (slot as u32, queue)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Queue)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(slot, queue)| queue.as_mut().map(|queue| (slot as u32, queue)))
    }

    pub(super) fn image(&self) -> Vec<QueueImage> {
        self.iter()
            .map(|(_, queue)| QueueImage {
                name: QueueImage::name_of(queue),
                kind: queue.kind,
                lanes: std::array::from_fn(|class| LaneImage {
                    runs: queue.lanes[class].runs.clone(),
                    released: queue.lanes[class].released,
                    next: queue.lanes[class].next,
                    gaps: queue.lanes[class].gaps.clone(),
                    lives: queue.lanes[class].lives.clone(),
                }),
                totals: queue.totals,
            })
            .collect()
    }

    pub(super) fn restore(&mut self, images: Vec<QueueImage>) {
        for image in images {
            let slot = match (Name::new(&image.name), image.id()) {
                (Ok(name), _) => Some(self.add(name, image.kind)),
                (Err(_), Some(id)) => self.add_unnamed(id),
                (Err(_), None) => None,
            };
            let Some(slot) = slot else { continue };
            let Some(queue) = self.get_mut(slot) else { continue };
            queue.totals = image.totals;
            for (lane, image) in queue.lanes.iter_mut().zip(image.lanes) {
                lane.runs = image.runs;
                lane.released = image.released;
                lane.next = image.next;
                lane.durable_next = image.next;
                lane.sent = image.released;
                lane.gaps = image.gaps;
                lane.lives = image.lives;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HS-13, HS-26: by default a poster is refused only where it can be told.
    #[test]
    fn by_default_the_queue_to_a_hub_refuses_and_the_others_drop_the_oldest() {
        let limits = QueueLimits {
            messages_max: 1,
            bytes_max: 0,
            age_ms_max: 0,
            policy: LimitPolicy::ByKind,
        };
        let mut queues = Queues::new(limits);
        let kinds = [
            (QueueKind::Upstream, LimitPolicy::Refuse),
            (QueueKind::Leaf, LimitPolicy::DropOldest),
            (QueueKind::Consumer, LimitPolicy::DropOldest),
            (QueueKind::DeadLetter, LimitPolicy::DropOldest),
        ];
        for (kind, policy) in kinds {
            let slot = queues.add(Name::new(&format!("{kind:?}")).unwrap(), kind);
            assert_eq!(queues.get(slot).unwrap().limits.policy, policy);
        }
        queues.set_limits(QueueLimits { policy: LimitPolicy::Refuse, ..limits }, &[]);
        assert!(queues.iter().all(|(_, queue)| queue.limits.policy == LimitPolicy::Refuse));
    }
}
