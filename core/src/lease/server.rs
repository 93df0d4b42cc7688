//! The hub's side: the table of registered leaves.

use crate::contract::{LinkId, RestoreError};
use crate::link::TokenBucket;
use crate::rng::Rng;
use crate::stream::{Address, Name, NodeId};
use crate::time::Instant;
use crate::timers::{Timer, Timers};
use crate::wire::RefuseReason;
use crate::wire::payload::{Reader, Writer, payload};

/// How many may register at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AdmissionConfig {
    /// Registrations a second, renewals not counted; 0 (the default) for no limit.
    pub per_second: u32,
    /// Registrations that may come at once; default 64.
    pub burst: u32,
    /// Who is turned away is asked to come back within this time, in milliseconds; default 2,000.
    pub spread_ms: u32,
}

impl AdmissionConfig {
    /// The defaults.
    pub const fn new() -> Self {
        Self { per_second: 0, burst: 64, spread_ms: 2_000 }
    }
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// What a hub grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeaseConfig {
    /// The longest lease, in milliseconds; default 900,000. A leaf that asks for less gets less.
    pub lease_ms_max: u32,
    /// The shortest lease, in milliseconds; default 1,000.
    pub lease_ms_min: u32,
    /// How many may register at once.
    pub admission: AdmissionConfig,
}

impl LeaseConfig {
    /// The defaults.
    pub const fn new() -> Self {
        Self { lease_ms_max: 900_000, lease_ms_min: 1_000, admission: AdmissionConfig::new() }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Most bytes of a registration as it is stored.
pub(crate) const REGISTRATION_BYTES_MAX: usize = 256;

/// What a leaf says of itself when it registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Registration {
    /// Its name.
    pub name: Name,
    /// Drawn when its store was made.
    pub instance: u64,
    /// The lease it asks for, in milliseconds.
    pub lease_ms: u32,
    /// Where it can be reached, when it can.
    pub address: Option<Address>,
    /// A queue that it reads beside the one of its name.
    pub queue: Option<Name>,
}

/// A registration as it is stored.
struct Stored<'a> {
    format: u8,
    name: &'a str,
    instance: u64,
    lease_ms: u32,
    address: &'a str,
    queue: &'a str,
}
payload!(Stored<'a> { format, name, instance, lease_ms, address, queue });

const STORED_FORMAT: u8 = 1;

impl Registration {
    /// Writes the registration into `buf` and returns its length; `None` when `buf` is short.
    pub(crate) fn encode(&self, buf: &mut [u8]) -> Option<usize> {
        let stored = Stored {
            format: STORED_FORMAT,
            name: self.name.as_str(),
            instance: self.instance,
            lease_ms: self.lease_ms,
            address: self.address.as_ref().map_or("", |address| address.as_str()),
            queue: self.queue.as_ref().map_or("", |queue| queue.as_str()),
        };
        Writer::whole(&stored, buf).ok()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: Stored<'_> = Reader::whole(bytes)?;
        (stored.format == STORED_FORMAT).then_some(())?;
        Some(Self {
            name: Name::new(stored.name).ok()?,
            instance: stored.instance,
            lease_ms: stored.lease_ms,
            address: Address::new(stored.address).ok(),
            queue: Name::new(stored.queue).ok(),
        })
    }
}

/// Whether a leaf counts as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LeaseState {
    /// Its lease runs.
    Held,
    /// Its lease has ended. Its queue is kept.
    Expired,
}

/// One place of the table.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeaseSlot {
    registration: Option<Registration>,
    id: NodeId,
    state: LeaseState,
    until: Instant,
    link: Option<LinkId>,
    /// The registration survives a restart.
    stored: bool,
}

impl LeaseSlot {
    /// Nobody.
    pub const FREE: Self = Self {
        registration: None,
        id: NodeId::NONE,
        state: LeaseState::Expired,
        until: Instant::NEVER,
        link: None,
        stored: false,
    };

    /// What the leaf said of itself; `None` for a free place.
    pub const fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// Whether it counts as there.
    pub const fn state(&self) -> LeaseState {
        self.state
    }

    /// When its lease ends or ended.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// The link it is on now.
    pub const fn link(&self) -> Option<LinkId> {
        self.link
    }
}

/// What becomes of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nothing new but the time: granted.
    Renewed { lease_ms: u32 },
    /// New, or changed: granted once it is stored.
    Store { lease_ms: u32 },
    /// Not now, or not at all.
    Refused { reason: RefuseReason, retry_after_ms: u32 },
}

/// The table of registered leaves. Finding one costs the same for ten and for a hundred thousand:
/// open addressing with linear probing over the caller's slots, deadlines in a heap.
///
/// States of a leaf: nobody -> held (registered) -> expired (did not renew) -> held again (it
/// registers again) or nobody (an operator forgets it). After a restart every stored leaf is held
/// for one full lease.
#[derive(Debug)]
pub struct LeaseServer<'m> {
    config: LeaseConfig,
    slots: &'m mut [LeaseSlot],
    timers: Timers<'m>,
    bucket: TokenBucket,
    used: u32,
    /// Stored leaves get their lease from the first time that is told.
    restored: bool,
}

impl<'m> LeaseServer<'m> {
    /// An empty table. `timers` must be as long as `slots`. At most three quarters of the slots
    /// are used.
    pub fn new(config: LeaseConfig, slots: &'m mut [LeaseSlot], timers: &'m mut [Timer]) -> Self {
        assert!(slots.len() == timers.len(), "each slot needs a timer");
        slots.fill(LeaseSlot::FREE);
        let bucket = TokenBucket::full(config.admission.burst);
        Self { config, slots, timers: Timers::new(timers), bucket, used: 0, restored: false }
    }

    pub(crate) fn into_memory(self) -> (&'m mut [LeaseSlot], &'m mut [Timer]) {
        (self.slots, self.timers.into_memory())
    }

    /// Slots for that many leaves.
    pub const fn slots_for(leaves_max: u32) -> usize {
        (leaves_max as usize).saturating_mul(4).div_ceil(3) + 1
    }

    fn home(&self, id: NodeId) -> usize {
        // Ids are well mixed already.
        (id.0 % self.slots.len() as u64) as usize
    }

    /// Where the leaf is, or the free slot where it would be.
    fn probe(&self, id: NodeId) -> Result<usize, usize> {
        let mut at = self.home(id);
        loop {
            match &self.slots[at] {
                slot if slot.registration.is_none() => return Err(at),
                slot if slot.id == id => return Ok(at),
                _ => at = (at + 1) % self.slots.len(),
            }
        }
    }

    /// The slot of a leaf.
    pub fn find(&self, id: NodeId) -> Option<&LeaseSlot> {
        self.probe(id).ok().map(|at| &self.slots[at])
    }

    pub(crate) fn slot(&self, slot: u32) -> &LeaseSlot {
        &self.slots[slot as usize]
    }

    /// All leaves, in no order. For operators: it passes over every slot.
    pub fn leaves(&self) -> impl Iterator<Item = &LeaseSlot> {
        self.slots.iter().filter(|slot| slot.registration.is_some())
    }

    /// The leaf in the first used slot from `slot` on, and that slot's number: all leaves in turn, for
    /// who cannot hold an iterator.
    pub fn leaf_from(&self, slot: u32) -> Option<(u32, &LeaseSlot)> {
        let from = self.slots.get(slot as usize..)?;
        let skipped = from.iter().position(|slot| slot.registration.is_some())?;
        Some((slot + skipped as u32, &from[skipped]))
    }

    /// How many leaves are in the table.
    pub const fn len(&self) -> u32 {
        self.used
    }

    /// Whether there is no leaf in the table.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes back a stored registration. It is held for one full lease from the first time told.
    ///
    /// # Errors
    /// Not a registration, or no room; nothing has changed.
    pub fn restore(&mut self, record: &[u8]) -> Result<(), RestoreError> {
        let registration = Registration::decode(record).ok_or(RestoreError::Malformed)?;
        let id = registration.name.node_id();
        let at = match self.probe(id) {
            Ok(at) => at,
            Err(at) if self.has_room() => at,
            Err(_) => return Err(RestoreError::Full),
        };
        self.used += u32::from(self.slots[at].registration.is_none());
        self.slots[at] = LeaseSlot {
            registration: Some(registration),
            id,
            state: LeaseState::Held,
            stored: true,
            ..LeaseSlot::FREE
        };
        self.restored = true;
        Ok(())
    }

    /// Starts the leases of what was restored.
    pub(crate) fn start(&mut self, now: Instant) {
        if !core::mem::take(&mut self.restored) {
            return;
        }
        for at in 0..self.slots.len() {
            if let Some(registration) = self.slots[at].registration {
                let lease_ms = self.lease_ms(registration.lease_ms);
                self.hold(at, now.plus_millis(lease_ms.into()));
            }
        }
    }

    fn has_room(&self) -> bool {
        (self.used as usize + 1) * 4 <= self.slots.len() * 3
    }

    fn lease_ms(&self, asked_ms: u32) -> u32 {
        let least = self.config.lease_ms_min.max(1);
        asked_ms.clamp(least, self.config.lease_ms_max.max(least))
    }

    fn hold(&mut self, at: usize, until: Instant) {
        self.slots[at].state = LeaseState::Held;
        self.slots[at].until = until;
        self.timers.set(at as u32, until);
    }

    /// Judges a registration. When it is to be stored it counts from now all the same; the owner
    /// grants it once it is stored.
    pub(crate) fn register(
        &mut self,
        now: Instant,
        registration: &Registration,
        rng: &mut Rng,
    ) -> Admission {
        let id = registration.name.node_id();
        let lease_ms = self.lease_ms(registration.lease_ms);
        let until = now.plus_millis(lease_ms.into());
        let found = self.probe(id);
        if let Ok(at) = found {
            let slot = &self.slots[at];
            let known = slot.registration.as_ref().filter(|known| known.name == registration.name);
            let Some(known) = known else {
                return refused(RefuseReason::Collision, 0);
            };
            let live = slot.state == LeaseState::Held && now < slot.until;
            if known.instance != registration.instance && live {
                let left_ms = slot.until.millis_since(now);
                let retry_after_ms = u32::try_from(left_ms).unwrap_or(u32::MAX).min(60_000);
                return refused(RefuseReason::NameInUse, retry_after_ms);
            }
            if known == registration && live && slot.stored {
                self.hold(at, until);
                return Admission::Renewed { lease_ms };
            }
        }
        let admission = self.config.admission;
        if !self.bucket.ready(now, admission.per_second, admission.burst) {
            let spread_ms = u64::from(admission.spread_ms);
            let wait_ms = self.bucket.ready_at(admission.per_second).millis_since(now);
            let retry_after_ms = wait_ms + rng.between(spread_ms / 2, spread_ms);
            return refused(
                RefuseReason::Busy,
                u32::try_from(retry_after_ms).unwrap_or(u32::MAX).max(1),
            );
        }
        if found.is_err() && !self.has_room() {
            return refused(RefuseReason::Full, 60_000);
        }
        self.bucket.take(1);
        let (Ok(at) | Err(at)) = found;
        self.used += u32::from(found.is_err());
        let link = self.slots[at].link;
        self.slots[at] =
            LeaseSlot { registration: Some(*registration), id, link, ..LeaseSlot::FREE };
        self.hold(at, until);
        Admission::Store { lease_ms }
    }

    /// The registration of a leaf is stored: renewing it stores nothing more.
    pub(crate) fn set_stored(&mut self, id: NodeId) {
        if let Ok(at) = self.probe(id) {
            self.slots[at].stored = true;
        }
    }

    /// Notes the link that a leaf is on.
    pub(crate) fn set_link(&mut self, id: NodeId, link: Option<LinkId>) {
        if let Ok(at) = self.probe(id) {
            self.slots[at].link = link;
        }
    }

    /// When `expire` has something to do.
    pub const fn deadline(&self) -> Instant {
        self.timers.earliest()
    }

    /// The next leaf whose lease has ended by `now`, if there is one.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<u32> {
        let owner = self.timers.due(now)?;
        self.timers.set(owner, Instant::NEVER);
        self.slots[owner as usize].state = LeaseState::Expired;
        Some(owner)
    }

    /// Removes a leaf from the table; `None` when it is not there. Answers its link.
    pub(crate) fn forget(&mut self, id: NodeId) -> Option<Option<LinkId>> {
        let mut hole = self.probe(id).ok()?;
        let link = self.slots[hole].link;
        self.timers.set(hole as u32, Instant::NEVER);
        self.slots[hole] = LeaseSlot::FREE;
        self.used -= 1;
        // Close the gap, so that probing needs no tombstones (Knuth, 6.4, algorithm R).
        let mut at = (hole + 1) % self.slots.len();
        while self.slots[at].registration.is_some() {
            let home = self.home(self.slots[at].id);
            let stays =
                if hole <= at { hole < home && home <= at } else { hole < home || home <= at };
            if !stays {
                self.slots[hole] = self.slots[at];
                let deadline = self.timers.deadline(at as u32);
                self.timers.set(at as u32, Instant::NEVER);
                self.timers.set(hole as u32, deadline);
                self.slots[at] = LeaseSlot::FREE;
                hole = at;
            }
            at = (at + 1) % self.slots.len();
        }
        Some(link)
    }
}

const fn refused(reason: RefuseReason, retry_after_ms: u32) -> Admission {
    Admission::Refused { reason, retry_after_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn leaf(name: &str) -> Registration {
        let name = Name::new(name).unwrap();
        Registration { name, instance: 1, lease_ms: 900_000, address: None, queue: None }
    }

    fn memory(leaves: u32) -> (std::vec::Vec<LeaseSlot>, std::vec::Vec<Timer>) {
        let slots = LeaseServer::slots_for(leaves);
        (std::vec![LeaseSlot::FREE; slots], std::vec![Timer::NONE; slots])
    }

    /// HS-05, HS-06: at the end of the lease, not before and not at twice the lease.
    #[test]
    fn a_leaf_that_does_not_renew_is_let_go_at_the_end_of_its_lease() {
        let (mut slots, mut timers) = memory(4);
        let mut server = LeaseServer::new(LeaseConfig::new(), &mut slots, &mut timers);
        let mut rng = Rng::new(1);
        server.register(Instant::ZERO, &leaf("242"), &mut rng);
        assert_eq!(server.deadline(), Instant::from_millis(900_000));
        assert_eq!(server.expire(Instant::from_millis(899_999)), None);
        assert!(server.expire(Instant::from_millis(900_000)).is_some());
        let slot = server.find(leaf("242").name.node_id()).unwrap();
        assert_eq!(slot.state(), LeaseState::Expired);
        assert_eq!(server.deadline(), Instant::NEVER);
    }

    #[test]
    fn renewing_moves_the_end_and_stores_nothing() {
        let (mut slots, mut timers) = memory(4);
        let mut server = LeaseServer::new(LeaseConfig::new(), &mut slots, &mut timers);
        let mut rng = Rng::new(1);
        let first = server.register(Instant::ZERO, &leaf("242"), &mut rng);
        assert!(matches!(first, Admission::Store { lease_ms: 900_000 }));
        server.set_stored(leaf("242").name.node_id());
        let again = server.register(Instant::from_millis(300_000), &leaf("242"), &mut rng);
        assert!(matches!(again, Admission::Renewed { lease_ms: 900_000 }));
        assert_eq!(server.deadline(), Instant::from_millis(1_200_000));
    }

    /// HS-08: the new address takes the place of the old.
    #[test]
    fn a_new_address_replaces_the_old() {
        let (mut slots, mut timers) = memory(4);
        let mut server = LeaseServer::new(LeaseConfig::new(), &mut slots, &mut timers);
        let mut rng = Rng::new(1);
        server.register(Instant::ZERO, &leaf("242"), &mut rng);
        let moved = Registration { address: Address::new("[::1]:8181").ok(), ..leaf("242") };
        let again = server.register(Instant::ZERO, &moved, &mut rng);
        assert!(matches!(again, Admission::Store { .. }));
        assert_eq!(server.len(), 1);
        let slot = server.find(moved.name.node_id()).unwrap();
        assert_eq!(slot.registration(), Some(&moved));
    }

    /// HS-32.
    #[test]
    fn a_second_node_of_a_live_name_is_refused_until_the_lease_ends() {
        let (mut slots, mut timers) = memory(4);
        let mut server = LeaseServer::new(LeaseConfig::new(), &mut slots, &mut timers);
        let mut rng = Rng::new(1);
        server.register(Instant::ZERO, &leaf("242"), &mut rng);
        let other = Registration { instance: 2, ..leaf("242") };
        let refused = server.register(Instant::from_millis(1), &other, &mut rng);
        assert!(matches!(refused, Admission::Refused { reason: RefuseReason::NameInUse, .. }));
        let later = Instant::from_millis(900_000);
        assert!(matches!(server.register(later, &other, &mut rng), Admission::Store { .. }));
    }

    /// HS-09.
    #[test]
    fn after_a_restart_every_leaf_has_one_full_lease() {
        let (mut slots, mut timers) = memory(4);
        let mut server = LeaseServer::new(LeaseConfig::new(), &mut slots, &mut timers);
        let mut record = [0; REGISTRATION_BYTES_MAX];
        let length = leaf("242").encode(&mut record).unwrap();
        server.restore(&record[..length]).unwrap();
        server.start(Instant::from_millis(50));
        assert_eq!(server.deadline(), Instant::from_millis(900_050));
    }

    #[test]
    fn a_storm_is_turned_away_with_a_hint() {
        let admission = AdmissionConfig { per_second: 10, burst: 5, spread_ms: 1_000 };
        let config = LeaseConfig { admission, ..LeaseConfig::new() };
        let (mut slots, mut timers) = memory(100);
        let mut server = LeaseServer::new(config, &mut slots, &mut timers);
        let mut rng = Rng::new(1);
        let mut turned_away = 0;
        for number in 0..100 {
            let name = format!("leaf-{number}");
            match server.register(Instant::ZERO, &leaf(&name), &mut rng) {
                Admission::Refused { reason: RefuseReason::Busy, retry_after_ms } => {
                    assert!(retry_after_ms >= 500);
                    turned_away += 1;
                }
                other => assert!(matches!(other, Admission::Store { .. })),
            }
        }
        assert_eq!(turned_away, 95);
    }

    #[test]
    fn the_table_agrees_with_a_map_when_leaves_come_and_go() {
        use std::collections::BTreeSet;
        let (mut slots, mut timers) = memory(24);
        let mut server = LeaseServer::new(LeaseConfig::new(), &mut slots, &mut timers);
        let mut rng = Rng::new(5);
        let mut present = BTreeSet::new();
        for _ in 0..4000 {
            let registration = leaf(&format!("leaf-{}", rng.between(0, 39)));
            if rng.between(0, 1) == 0 {
                let forgotten = server.forget(registration.name.node_id()).is_some();
                assert_eq!(forgotten, present.remove(&registration.name));
            } else {
                match server.register(Instant::ZERO, &registration, &mut rng) {
                    Admission::Refused { .. } => {
                        assert!(present.len() >= 24 && !present.contains(&registration.name));
                    }
                    _ => {
                        present.insert(registration.name);
                    }
                }
            }
            assert_eq!(server.len() as usize, present.len());
            for name in &present {
                assert!(server.find(name.node_id()).is_some());
            }
        }
    }
}
