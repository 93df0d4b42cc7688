//! Who the members are, how that changes, and what is stored.
//!
//! A configuration is a list of members, each with a vote or without, named by (term, version) and
//! compared in that order. The leader makes the next one, which differs by one member, when a
//! majority of the present one has stored it in this term; a new leader takes the configuration over
//! into its term; a voter refuses a candidate with an older one; who has an older one takes the
//! newer one from any member. So any two configurations that can elect share a voter.
//!
//! All that holds among configurations that go back to the same first members. Those come from lists
//! that people write, one for each node, so every name carries a checksum of them
//! ([`ConfigurationId::origin`]): a node does not obey one of another origin. Only a node that has
//! no more than its list gives it up, for one that a leader has taken over and that has this node
//! in it; so a wrong list among right ones is mended, and a node that was started alone by mistake
//! cannot take a cluster over, however often it has elected itself. etcd does likewise (its cluster
//! ID is a hash of the first members), without the mending.

use super::slot::Foreign;
use super::{Ballot, Election, ElectionSlot, TERM_JUMP_MAX, due, later};
use crate::contract::{Key, RestoreError};
use crate::rng::mix;
use crate::stream::NodeId;
use crate::time::Instant;
use crate::wire::payload::{Reader, Writer, payload};
use crate::wire::{ConfigurationId, MEMBER_BYTES, MEMBERS_MAX, MemberRole, Members};

/// What a node is in a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Membership {
    /// No member.
    #[default]
    None,
    /// Follows and does not vote.
    Learner,
    /// Votes.
    Voter,
}

/// Why the members were not changed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not lead: ask the leader.
    NotLeading,
    /// A leader does not change itself: it resigns first.
    Itself,
    /// The change before is not stored by a majority yet: try again.
    Busy,
    /// No room for one more member, or for one more change.
    Full,
}

/// A value, and what of it is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stored<T> {
    pub(super) value: T,
    pub(super) stored: T,
    under_way: Option<T>,
    failing: bool,
    retry_at: Instant,
}

impl<T: Copy + PartialEq> Stored<T> {
    pub(super) const fn new(value: T) -> Self {
        let stored = value;
        Self { value, stored, under_way: None, failing: false, retry_at: Instant::ZERO }
    }

    pub(super) fn set(&mut self, value: T) {
        self.value = value;
    }

    pub(super) fn is_stored(&self) -> bool {
        self.value == self.stored
    }

    /// The disk does not take it, for now.
    pub(super) fn is_failing(&self) -> bool {
        self.failing && !self.is_stored()
    }

    fn wants(&self, now: Instant) -> bool {
        !self.is_stored() && self.under_way.is_none() && now >= self.retry_at
    }

    fn done(&mut self) {
        if let Some(stored) = self.under_way.take() {
            self.stored = stored;
            self.failing = false;
        }
    }

    fn failed(&mut self, retry_at: Instant) {
        self.under_way = None;
        self.failing = true;
        self.retry_at = retry_at;
    }

    pub(super) fn retry_deadline(&self) -> Instant {
        if self.is_failing() && self.under_way.is_none() { self.retry_at } else { Instant::NEVER }
    }
}

/// A change further ahead than this is not believed.
const CHANGE_JUMP_MAX: u64 = 1 << 24;

/// The format of what is stored.
const FORMAT: u8 = 1;

struct BallotRecord {
    format: u8,
    term: u64,
    vote: u64,
}
payload!(BallotRecord { format, term, vote });

struct MembersRecord<'a> {
    format: u8,
    members: Members<'a>,
}
payload!(MembersRecord<'a> { format, members });

/// One member in the bytes of [`Members`].
fn member_of(bytes: &[u8]) -> (NodeId, Membership) {
    let id = crate::log::u64_at(bytes, 0);
    let membership = if bytes[8] & 1 == 1 { Membership::Voter } else { Membership::Learner };
    (NodeId(id), membership)
}

/// A checksum of first members that does not depend on their order.
fn checksum_of(members: &[u8]) -> u64 {
    let sum = members.chunks_exact(MEMBER_BYTES).map(member_of).fold(0, |sum: u64, (node, it)| {
        sum.wrapping_add(mix(node.0 ^ u64::from(it == Membership::Voter)))
    });
    mix(sum)
}

impl<S: AsRef<[ElectionSlot]> + AsMut<[ElectionSlot]>> Election<S> {
    // At the start.

    /// The members of the configuration file, this node among them; before the start. What was
    /// stored comes first: then this changes nothing.
    ///
    /// # Errors
    /// [`ChangeError::Full`]: more than the memory has slots for; nothing has changed.
    pub fn set_members(
        &mut self,
        members: impl Iterator<Item = (NodeId, Membership)>,
    ) -> Result<(), ChangeError> {
        if self.configuration.value != ConfigurationId::default() {
            return Ok(());
        }
        let mut bytes = [0; MEMBERS_MAX * MEMBER_BYTES];
        let mut len = 0;
        for (node, membership) in members {
            let place = bytes.get_mut(len..len + MEMBER_BYTES).ok_or(ChangeError::Full)?;
            place[..8].copy_from_slice(&node.0.to_le_bytes());
            place[8] = u8::from(membership == Membership::Voter);
            len += MEMBER_BYTES;
        }
        if !self.fits(&bytes[..len]) {
            return Err(ChangeError::Full);
        }
        self.replace(&bytes[..len]);
        self.configuration = Stored::new(ConfigurationId::first(checksum_of(&bytes[..len])));
        Ok(())
    }

    /// Gives back what [`Self::record`] made in an earlier life; before the start.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn restore(&mut self, key: Key, record: &[u8]) -> Result<(), RestoreError> {
        match key {
            Key::Ballot => match Reader::whole(record) {
                Some(BallotRecord { format: FORMAT, term, vote }) => {
                    self.ballot = Stored::new(Ballot { term, vote: NodeId(vote) });
                    Ok(())
                }
                _ => Err(RestoreError::Malformed),
            },
            Key::Members => {
                let Some(MembersRecord { format: FORMAT, members }) = Reader::whole(record) else {
                    return Err(RestoreError::Malformed);
                };
                if !self.is_sound(members.members) {
                    return Err(RestoreError::Malformed);
                }
                if !self.fits(members.members) {
                    return Err(RestoreError::Full);
                }
                self.replace(members.members);
                self.configuration = Stored::new(members.configuration);
                Ok(())
            }
            Key::Registration(_) | Key::Term(_) => Err(RestoreError::Malformed),
        }
    }

    // What is stored.

    /// What is to be stored next, if anything. Then [`Self::record`] and [`Self::storing`].
    pub fn store(&self) -> Option<Key> {
        if self.ballot.wants(self.now) {
            return Some(Key::Ballot);
        }
        self.configuration.wants(self.now).then_some(Key::Members)
    }

    /// Writes what is to be stored under `key` into `buf`, and says how long it is; `None` when
    /// `buf` is too short. At most [`crate::wire::CONTROL_FRAME_BYTES_MAX`] bytes.
    pub fn record(&self, key: Key, buf: &mut [u8]) -> Option<usize> {
        let used = match key {
            Key::Ballot => {
                let Ballot { term, vote } = self.ballot.value;
                Writer::whole(&BallotRecord { format: FORMAT, term, vote: vote.0 }, buf)
            }
            Key::Members => {
                let mut bytes = [0; MEMBERS_MAX * MEMBER_BYTES];
                let members = Members {
                    configuration: self.configuration.value,
                    members: self.member_bytes(&mut bytes),
                };
                Writer::whole(&MembersRecord { format: FORMAT, members }, buf)
            }
            Key::Registration(_) | Key::Term(_) => return None,
        };
        used.ok()
    }

    /// The record of `key` is on its way to the disk.
    pub fn storing(&mut self, key: Key) {
        match key {
            Key::Ballot => self.ballot.under_way = Some(self.ballot.value),
            Key::Members => self.configuration.under_way = Some(self.configuration.value),
            Key::Registration(_) | Key::Term(_) => {}
        }
    }

    /// The record of `key` is safe.
    pub fn stored(&mut self, now: Instant, key: Key) {
        self.now = self.now.max(now);
        match key {
            Key::Ballot => {
                self.ballot.done();
                if self.role == MemberRole::Candidate {
                    self.count_votes();
                }
            }
            Key::Members => {
                self.configuration.done();
                self.spread_configuration();
            }
            Key::Registration(_) | Key::Term(_) => {}
        }
        self.note_leader();
    }

    /// The record of `key` could not be stored. Until it is, this node gives no vote, accepts no
    /// heartbeat and does not campaign. It is tried again after the longest timeout.
    pub fn store_failed(&mut self, now: Instant, key: Key) {
        self.now = self.now.max(now);
        self.stats.store_failed = self.stats.store_failed.saturating_add(1);
        let retry_at = self.now.plus_millis(self.config.timeout_ms_max.into());
        match key {
            Key::Ballot => self.ballot.failed(retry_at),
            Key::Members => self.configuration.failed(retry_at),
            Key::Registration(_) | Key::Term(_) => {}
        }
    }

    /// Those who should know of a newly stored configuration are told at once.
    fn spread_configuration(&mut self) {
        let (leads, leader) = (self.role == MemberRole::Leader, self.leader);
        for slot in self.slots.as_mut().iter_mut().filter(|slot| slot.node != NodeId::NONE) {
            if leads {
                slot.due |= due::MEMBERS;
            } else if slot.node == leader {
                slot.due |= due::HEARTBEAT_ANSWER;
            }
        }
    }

    // The members.

    /// The configuration.
    pub const fn configuration(&self) -> ConfigurationId {
        self.configuration.value
    }

    /// What a node is.
    pub fn membership(&self, node: NodeId) -> Membership {
        if node == self.own {
            return self.membership;
        }
        match self.find(node).map(|at| self.slots.as_ref()[at].voter) {
            None => Membership::None,
            Some(false) => Membership::Learner,
            Some(true) => Membership::Voter,
        }
    }

    /// All members, this node included.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Membership)> {
        let own = (self.membership != Membership::None).then_some((self.own, self.membership));
        own.into_iter().chain(self.members_slots().map(|slot| {
            (slot.node, if slot.voter { Membership::Voter } else { Membership::Learner })
        }))
    }

    /// The configuration as it goes to others, once it is stored. The bytes are written to
    /// `bytes`.
    pub fn members_frame<'b>(
        &self,
        bytes: &'b mut [u8; MEMBERS_MAX * MEMBER_BYTES],
    ) -> Option<Members<'b>> {
        (self.configuration.is_stored() && self.configuration.value.version > 0).then(|| Members {
            configuration: self.configuration.value,
            members: self.member_bytes(bytes),
        })
    }

    /// How many voters are a majority.
    pub fn quorum(&self) -> usize {
        let others = self.count_voters(&|_| true);
        (others + usize::from(self.is_voter())) / 2 + 1
    }

    pub(super) fn is_voter(&self) -> bool {
        self.membership == Membership::Voter
    }

    /// Whether a majority has stored the present configuration in this term, so that the leader
    /// may make the next.
    pub fn is_settled(&self) -> bool {
        let present = self.configuration.value;
        let have = self.count_voters(&|slot| slot.acked_configuration == present);
        self.configuration.is_stored()
            && present.term == self.ballot.value.term
            && have + usize::from(self.is_voter()) >= self.quorum()
    }

    /// Makes `node` a voter, a learner or no member. To be asked of the leader. Nothing happens
    /// when it is that already.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed.
    pub fn change(
        &mut self,
        now: Instant,
        node: NodeId,
        to: Membership,
    ) -> Result<(), ChangeError> {
        self.tick(now);
        if self.leader_until().is_none() {
            return Err(ChangeError::NotLeading);
        }
        if node == self.own {
            return if to == Membership::Voter { Ok(()) } else { Err(ChangeError::Itself) };
        }
        if self.membership(node) == to {
            return Ok(());
        }
        let next = self.configuration.value.next().ok_or(ChangeError::Full)?;
        let lease_from = self.answered_by_majority();
        let mut floor = later(lease_from, self.config.lease_us());
        if self.quorum() == 1 {
            floor = later(self.now, self.config.lease_us());
        }
        if !self.is_settled() || floor <= self.now {
            return Err(ChangeError::Busy);
        }
        self.change_slot(node, to)?;
        // The promises of a majority of the present members hold against the next ones too, as the
        // two share a voter; those to members still earlier might not.
        self.lease_floor = floor;
        self.lease_from = self.answered_by_majority();
        self.configuration.set(next);
        self.note_leader();
        Ok(())
    }

    fn change_slot(&mut self, node: NodeId, to: Membership) -> Result<(), ChangeError> {
        let voter = to == Membership::Voter;
        let now = self.now;
        match (self.find(node), to) {
            (Some(at), Membership::None) => self.slots.as_mut()[at] = ElectionSlot::FREE,
            (Some(at), _) => self.slots.as_mut()[at].voter = voter,
            (None, _) => {
                if self.members_slots().count() + 2 > MEMBERS_MAX {
                    return Err(ChangeError::Full);
                }
                let slots = self.slots.as_mut();
                let free = slots.iter_mut().find(|slot| slot.node == NodeId::NONE);
                let slot = free.ok_or(ChangeError::Full)?;
                *slot = ElectionSlot { node, voter, heartbeat_at: now, ..ElectionSlot::FREE };
            }
        }
        Ok(())
    }

    /// Takes a whole configuration that came from `from`. A node without any takes one that a leader
    /// has taken over from anybody that `welcome` says is of its cluster, any other from a member only. Whether `from` may say
    /// so; what is not newer is passed over.
    pub fn receive_members(
        &mut self,
        now: Instant,
        from: NodeId,
        members: &Members<'_>,
        welcome: bool,
    ) -> bool {
        self.now = self.now.max(now);
        let present = self.configuration.value;
        if self.find(from).is_none() && !(welcome && present.version == 0) {
            self.stats.strangers = self.stats.strangers.saturating_add(1);
            return false;
        }
        let term = members.configuration.term;
        let mends = present.term == 0 && term > 0 && self.has_own(members.members);
        if let Some(at) = self.find(from)
            && self.is_foreign(at, members.configuration)
            && !mends
        {
            if present.term > 0 && term == 0 {
                // It has only its own list, and may take this one.
                self.slots.as_mut()[at].due |= due::MEMBERS;
            }
            return true;
        }
        if present.version == 0 && term == 0 {
            // A list that no leader has taken over, which may be wrong, and this node is not in it.
            return true;
        }
        if members.configuration < present
            && let Some(at) = self.find(from)
        {
            self.slots.as_mut()[at].due |= due::MEMBERS;
        }
        if self.role == MemberRole::Leader || members.configuration <= present {
            return true;
        }
        if term > self.ballot.value.term.saturating_add(TERM_JUMP_MAX)
            || members.configuration.change() > present.change().saturating_add(CHANGE_JUMP_MAX)
        {
            self.stats.implausible = self.stats.implausible.saturating_add(1);
            return true;
        }
        if !self.is_sound(members.members) || !self.fits(members.members) {
            self.stats.malformed = self.stats.malformed.saturating_add(1);
            return true;
        }
        let (before, asked) = (self.membership, self.asks_for_votes());
        self.replace(members.members);
        self.configuration.set(members.configuration);
        // Votes that were given to a candidate with the members before are not counted.
        if asked || self.membership != before || self.find(self.leader).is_none() {
            let leader = self.find(self.leader).map_or(NodeId::NONE, |_| self.leader);
            self.follow(leader);
        }
        self.note_leader();
        true
    }

    fn member_bytes<'b>(&self, bytes: &'b mut [u8; MEMBERS_MAX * MEMBER_BYTES]) -> &'b [u8] {
        let mut len = 0;
        for (node, membership) in self.members() {
            let Some(place) = bytes.get_mut(len..len + MEMBER_BYTES) else {
                break;
            };
            place[..8].copy_from_slice(&node.0.to_le_bytes());
            place[8] = u8::from(membership == Membership::Voter);
            len += MEMBER_BYTES;
        }
        &bytes[..len]
    }

    /// Whole members, nobody twice, and somebody votes.
    fn is_sound(&self, members: &[u8]) -> bool {
        let mut voters = 0;
        for (at, bytes) in members.chunks(MEMBER_BYTES).enumerate() {
            if bytes.len() < MEMBER_BYTES || at >= MEMBERS_MAX {
                return false;
            }
            let (node, membership) = member_of(bytes);
            voters += usize::from(membership == Membership::Voter);
            let twice = members.chunks(MEMBER_BYTES).take(at).any(|it| member_of(it).0 == node);
            if node == NodeId::NONE || twice {
                return false;
            }
        }
        voters > 0
    }

    fn has_own(&self, members: &[u8]) -> bool {
        members.chunks_exact(MEMBER_BYTES).any(|it| member_of(it).0 == self.own)
    }

    /// Whether a member says a configuration that goes back to other first members; counted, and
    /// told.
    pub(super) fn is_foreign(&mut self, at: usize, configuration: ConfigurationId) -> bool {
        let own = self.configuration.value;
        let slot = &mut self.slots.as_mut()[at];
        if own.version == 0 || configuration.version == 0 {
            return false;
        }
        if configuration.origin() == own.origin() {
            slot.foreign = Foreign::No;
            return false;
        }
        if slot.foreign == Foreign::No {
            slot.foreign = Foreign::Seen;
        }
        self.stats.foreign = self.stats.foreign.saturating_add(1);
        true
    }

    fn fits(&self, members: &[u8]) -> bool {
        let others =
            members.chunks_exact(MEMBER_BYTES).filter(|it| member_of(it).0 != self.own).count();
        others <= self.slots.as_ref().len() && others < MEMBERS_MAX
    }

    /// Has exactly these members. They fit.
    fn replace(&mut self, members: &[u8]) {
        self.membership = Membership::None;
        for slot in self.slots.as_mut() {
            let stays = members.chunks_exact(MEMBER_BYTES).any(|it| member_of(it).0 == slot.node);
            if !stays {
                *slot = ElectionSlot::FREE;
            }
        }
        for bytes in members.chunks_exact(MEMBER_BYTES) {
            let (node, membership) = member_of(bytes);
            if node == self.own {
                self.membership = membership;
                continue;
            }
            let at = self.find(node);
            let slots = self.slots.as_mut();
            let at = at.or_else(|| slots.iter().position(|slot| slot.node == NodeId::NONE));
            if let Some(at) = at {
                slots[at].node = node;
                slots[at].voter = membership == Membership::Voter;
            }
        }
    }
}
