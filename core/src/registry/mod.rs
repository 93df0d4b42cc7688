//! Who is here: what each node says of itself, and which nodes are alive. Needs no quorum.
//!
//! Each node edits only its own entry and counts its versions; entries spread from node to node
//! until all have the newest (van Renesse et al., "Efficient Reconciliation and Flow Control for
//! Anti-Entropy Protocols", 2008). Every heartbeat carries a digest of all versions in 8 bytes; only
//! when two differ are lists of versions exchanged, and then the entries that are missing. An entry
//! of a configuration file is version 0: the owner's word replaces it. An owner that says nothing of
//! itself takes the word of its peers' files and makes it its own.
//!
//! A peer that falls silent is first suspected: the others are asked whether they hear it, so that
//! one bad line does not condemn it. A node that may itself be what is slow (its own deadlines were
//! served late, or most peers fell silent at once) waits longer before it condemns anybody (Dadgar,
//! Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection",
//! 2018).

mod liveness;

use crate::contract::LinkId;
use crate::lease::Dialer;
use crate::stream::{Address, Name, NodeId};
use crate::time::Instant;
use crate::wire::{DIGEST_ENTRY_BYTES, Entry, METADATA_BYTES_MAX, Wish};

/// Most peers of one node, itself not counted.
pub const PEERS_MAX: usize = 31;

/// The bit of the own entry in a set of entries; the others have the bits of their slots.
pub(crate) const OWN_BIT: u32 = 1 << PEERS_MAX;

/// The timing of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RegistryConfig {
    /// Something is said on every link at least this often, in milliseconds.
    pub keepalive_ms: u32,
    /// Silence after which a peer is suspected, in milliseconds.
    pub suspect_ms: u32,
    /// A suspicion that nobody has contradicted for this long condemns, in milliseconds.
    pub confirm_ms: u32,
    /// The entry of a node that is of no file and no configuration is kept for this long when it
    /// is down, in milliseconds.
    pub entry_lease_ms: u32,
}

impl RegistryConfig {
    /// For one building: a peer that hangs is down after 2 s.
    pub const fn lan() -> Self {
        Self { keepalive_ms: 500, suspect_ms: 1_500, confirm_ms: 500, entry_lease_ms: 60_000 }
    }

    /// For lines across the world: 10 s.
    pub const fn wan() -> Self {
        Self { keepalive_ms: 2_000, suspect_ms: 7_000, confirm_ms: 3_000, entry_lease_ms: 600_000 }
    }

    /// For those that sleep: 90 s.
    pub const fn battery() -> Self {
        Self {
            keepalive_ms: 20_000,
            suspect_ms: 60_000,
            confirm_ms: 30_000,
            entry_lease_ms: 3_600_000,
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self::lan()
    }
}

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PeerState {
    /// Not heard of, or condemned.
    #[default]
    Down,
    /// Was there, and has fallen silent. Still counts as there.
    Suspect,
    /// There.
    Up,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Facts {
    pub(crate) version: u32,
    pub(crate) address: Option<Address>,
    pub(crate) wish: Wish,
    pub(crate) priority: u8,
    metadata: [u8; METADATA_BYTES_MAX],
    metadata_bytes: u16,
    /// Whether the metadata is the owner's word, or that of a file.
    has_metadata: bool,
}

impl Facts {
    pub(crate) const NONE: Self = Self {
        version: 0,
        address: None,
        wish: Wish::Stay,
        priority: PRIORITY_DEFAULT,
        metadata: [0; METADATA_BYTES_MAX],
        metadata_bytes: 0,
        has_metadata: false,
    };

    pub(crate) fn metadata(&self) -> &[u8] {
        &self.metadata[..usize::from(self.metadata_bytes)]
    }

    /// What there is to say of the metadata; `None` for nothing.
    fn metadata_word(&self) -> Option<&[u8]> {
        self.has_metadata.then(|| self.metadata())
    }

    /// The bytes fit.
    fn set_metadata(&mut self, metadata: &[u8]) {
        self.metadata[..metadata.len()].copy_from_slice(metadata);
        self.metadata_bytes = metadata.len() as u16;
        self.has_metadata = true;
    }
}

/// The priority of a node that was given none.
pub const PRIORITY_DEFAULT: u8 = 100;

/// A peer: what it says of itself, whether it is there, and how it is reached.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PeerSlot {
    name: Option<Name>,
    pub(crate) node: NodeId,
    pub(crate) facts: Facts,
    /// Of the configuration file.
    pub(crate) of_file: bool,
    /// A voter of the first configuration, by the file.
    pub(crate) file_voter: bool,
    /// Kept while it is down.
    pub(crate) lasting: bool,
    pub(crate) state: PeerState,
    /// When it was last heard, by this node or by one that this node hears.
    pub(crate) heard_at: Instant,
    /// Since when it is suspected or down.
    pub(crate) since: Instant,
    told: Option<bool>,
    changed: bool,
    /// What it says of itself is less than what is held of it: it is told until it has taken that.
    pub(crate) owner_lags: bool,
    pub(crate) dialer: Dialer,
    /// The driver was asked to dial, and has not said what came of it.
    pub(crate) dialing: bool,
    pub(crate) link: Option<LinkId>,
    pub(crate) round_trip_us: u32,
}

impl PeerSlot {
    /// No peer.
    pub const FREE: Self = Self {
        name: None,
        node: NodeId::NONE,
        facts: Facts::NONE,
        of_file: false,
        file_voter: false,
        lasting: false,
        state: PeerState::Down,
        heard_at: Instant::ZERO,
        since: Instant::ZERO,
        told: None,
        changed: false,
        owner_lags: false,
        dialer: Dialer::new(),
        dialing: false,
        link: None,
        round_trip_us: 0,
    };

    pub(crate) const fn is_free(&self) -> bool {
        self.name.is_none()
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_ref().map_or("", |name| name.as_str())
    }
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PeerView<'a> {
    /// Its identity.
    pub node: NodeId,
    /// Its name.
    pub name: &'a str,
    /// Where it can be reached.
    pub address: Option<&'a str>,
    /// What it says of itself, or a file says of it.
    pub metadata: &'a [u8],
    /// How many times it has spoken of itself; 0 when what is here is from a file.
    pub version: u32,
    /// What it wants to be.
    pub wish: Wish,
    /// The greater campaigns first.
    pub priority: u8,
    /// Whether it is there.
    pub state: PeerState,
    /// When it was last heard, by this node or by one that this node hears; zero for never.
    pub heard_at: Instant,
    /// Whether it is linked to this node.
    pub linked: bool,
    /// Round trip, in microseconds; 0 when not known.
    pub round_trip_us: u32,
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Nothing new.
    Known,
    /// A peer's entry is new.
    Changed,
    /// The own entry has a new version now, to be told to all.
    Own,
    /// No room, or not sound.
    Refused,
}

/// What the registry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegistryEvent {
    Up(NodeId),
    Down(NodeId),
    Changed(NodeId),
}

/// Every node's entry, and whether it is there.
#[derive(Debug)]
pub(crate) struct Registry<'m> {
    pub(crate) config: RegistryConfig,
    pub(crate) name: Name,
    pub(crate) own: Facts,
    pub(crate) peers: &'m mut [PeerSlot],
    /// How much longer this node waits before it condemns, as it may itself be slow.
    pub(crate) health: u8,
    /// When the last sign of its own slowness is forgotten.
    health_at: Instant,
    /// Newly suspected since the last tick: the others are to be asked about them.
    suspected: u32,
    /// Entries and links that found no room, or made no sense.
    pub(crate) refused: u32,
}

impl<'m> Registry<'m> {
    pub(crate) fn new(config: RegistryConfig, name: Name, peers: &'m mut [PeerSlot]) -> Self {
        peers.fill(PeerSlot::FREE);
        let own = Facts { version: 1, ..Facts::NONE };
        Self {
            config,
            name,
            own,
            peers,
            health: 0,
            health_at: Instant::NEVER,
            suspected: 0,
            refused: 0,
        }
    }

    pub(crate) fn find(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| !peer.is_free() && peer.node == node)
    }

    /// A slot for a peer of this name, its own when it has one; `None` without room, or when the
    /// identity is that of another name.
    pub(crate) fn place(&mut self, name: Name, now: Instant) -> Option<usize> {
        let node = name.node_id();
        if let Some(at) = self.find(node) {
            return (self.peers[at].name == Some(name)).then_some(at);
        }
        if node == self.name.node_id() {
            return None;
        }
        let at = self.peers.iter().position(PeerSlot::is_free)?;
        self.peers[at] =
            PeerSlot { name: Some(name), node, since: now, changed: true, ..PeerSlot::FREE };
        Some(at)
    }

    /// The own entry has changed.
    pub(crate) fn edit_own(&mut self) {
        self.own.version = self.own.version.saturating_add(1);
    }

    pub(crate) fn set_own_metadata(&mut self, metadata: &[u8]) {
        self.own.set_metadata(metadata);
    }

    /// What the file says of a peer.
    pub(crate) fn set_file_metadata(&mut self, at: usize, metadata: &[u8]) {
        self.peers[at].facts.set_metadata(metadata);
    }

    /// Takes an entry, of whomever.
    pub(crate) fn merge(&mut self, now: Instant, entry: &Entry<'_>) -> Merged {
        let metadata = entry.metadata.unwrap_or(&[]);
        let address = match entry.address {
            "" => Ok(None),
            text => Address::new(text).map(Some),
        };
        let (Ok(name), Ok(address)) = (Name::new(entry.name), address) else {
            self.refused = self.refused.saturating_add(1);
            return Merged::Refused;
        };
        if metadata.len() > METADATA_BYTES_MAX {
            self.refused = self.refused.saturating_add(1);
            return Merged::Refused;
        }
        if name == self.name {
            return self.merge_own(entry);
        }
        let Some(at) = self.place(name, now) else {
            self.refused = self.refused.saturating_add(1);
            return Merged::Refused;
        };
        let peer = &mut self.peers[at];
        peer.lasting |= entry.lasting;
        let facts = &mut peer.facts;
        let of_files = entry.version == 0 && facts.version == 0;
        let news = entry.version > facts.version
            || (of_files && facts.address.is_none() && address.is_some());
        // Of two files the greater word is taken, so that all nodes take the same.
        let word = of_files && entry.metadata > facts.metadata_word();
        if !news && !word {
            return Merged::Known;
        }
        if news {
            facts.version = entry.version;
            facts.address = address.or(facts.address);
            facts.wish = entry.wish;
            facts.priority = entry.priority;
        }
        if entry.metadata.is_some() {
            facts.set_metadata(metadata);
        }
        if news {
            // It says nothing of itself, and may not have heard what its peers' files say.
            peer.owner_lags = entry.metadata.is_none() && facts.has_metadata;
        }
        peer.changed = true;
        Merged::Changed
    }

    /// What others hold of this node: from an earlier life of it, or from their files.
    fn merge_own(&mut self, entry: &Entry<'_>) -> Merged {
        if self.entry(OWN_BIT).is_some_and(|own| Entry { lasting: false, ..*entry } == own) {
            return Merged::Known;
        }
        let adopts = !self.own.has_metadata && entry.metadata.is_some();
        if entry.version < self.own.version && !adopts {
            return Merged::Known;
        }
        if adopts && let Some(metadata) = entry.metadata {
            self.own.set_metadata(metadata);
        }
        self.own.version = self.own.version.max(entry.version).saturating_add(1);
        Merged::Own
    }

    /// The entry with this bit.
    pub(crate) fn entry(&self, bit: u32) -> Option<Entry<'_>> {
        let (name, facts, lasting) = if bit == OWN_BIT {
            (self.name.as_str(), &self.own, false)
        } else {
            let peer = self.peers.get(bit.trailing_zeros() as usize)?;
            (peer.name.as_ref()?.as_str(), &peer.facts, peer.lasting)
        };
        Some(Entry {
            name,
            version: facts.version,
            lasting,
            address: facts.address.as_ref().map_or("", |address| address.as_str()),
            wish: facts.wish,
            priority: facts.priority,
            metadata: facts.metadata_word(),
        })
    }

    /// Whether others are told of this peer: not of one that is gone and of no configuration.
    fn is_shared(peer: &PeerSlot) -> bool {
        !peer.is_free() && (peer.lasting || peer.state != PeerState::Down)
    }

    fn shared(&self) -> impl Iterator<Item = (NodeId, u32, u32)> {
        let own = (self.name.node_id(), self.own.version, OWN_BIT);
        let peers = self.peers.iter().enumerate().filter(|(_, peer)| Self::is_shared(peer));
        let peers = peers.map(|(at, peer)| (peer.node, peer.facts.version, 1 << at));
        core::iter::once(own).chain(peers)
    }

    /// All versions in 64 bits: the same at two nodes that have the same.
    pub(crate) fn digest(&self) -> u64 {
        self.shared().fold(0, |digest, (node, version, _)| {
            let version = (u64::from(version) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            digest ^ crate::rng::mix(node.0 ^ version)
        })
    }

    /// All versions, for [`crate::wire::Digest`].
    pub(crate) fn write_digest<'b>(
        &self,
        bytes: &'b mut [u8; (PEERS_MAX + 1) * DIGEST_ENTRY_BYTES],
    ) -> &'b [u8] {
        let mut len = 0;
        for (node, version, _) in self.shared() {
            bytes[len..len + 8].copy_from_slice(&node.0.to_le_bytes());
            bytes[len + 8..len + 12].copy_from_slice(&version.to_le_bytes());
            len += DIGEST_ENTRY_BYTES;
        }
        &bytes[..len]
    }

    /// Compares with the versions of another: what it lacks, and whether this node lacks anything.
    pub(crate) fn compare(&self, entries: &[u8]) -> (u32, bool) {
        let theirs = |node: NodeId| {
            let mut entries = entries.chunks_exact(DIGEST_ENTRY_BYTES);
            entries
                .find(|it| crate::log::u64_at(it, 0) == node.0)
                .map(|it| crate::log::u32_at(it, 8))
        };
        let mut lacks = 0;
        for (node, version, bit) in self.shared() {
            if theirs(node).is_none_or(|other| other < version) {
                lacks |= bit;
            }
        }
        let behind = entries.chunks_exact(DIGEST_ENTRY_BYTES).any(|it| {
            let node = NodeId(crate::log::u64_at(it, 0));
            let version = crate::log::u32_at(it, 8);
            if node == self.name.node_id() {
                return version > self.own.version;
            }
            self.find(node).is_none_or(|at| self.peers[at].facts.version < version)
        });
        (lacks, behind)
    }

    /// Whether the owner of `entry`, who has sent it, should be told what this node holds: its
    /// file has something to say of who says nothing, or an earlier life of the owner said more.
    pub(crate) fn knows_more(&self, at: usize, entry: &Entry<'_>) -> bool {
        let facts = &self.peers[at].facts;
        if facts.version > entry.version {
            return true;
        }
        let held = self.entry(1 << at).map(|held| Entry { lasting: entry.lasting, ..held });
        entry.metadata.is_none() && facts.has_metadata || held != Some(*entry)
    }

    pub(crate) fn view(&self, at: usize) -> Option<PeerView<'_>> {
        let peer = self.peers.get(at)?;
        Some(PeerView {
            node: peer.node,
            name: peer.name.as_ref()?.as_str(),
            address: peer.facts.address.as_ref().map(|address| address.as_str()),
            metadata: peer.facts.metadata(),
            version: peer.facts.version,
            wish: peer.facts.wish,
            priority: peer.facts.priority,
            state: peer.state,
            heard_at: peer.heard_at,
            linked: peer.link.is_some(),
            round_trip_us: peer.round_trip_us,
        })
    }

    pub(crate) fn own_view(&self) -> PeerView<'_> {
        PeerView {
            node: self.name.node_id(),
            name: self.name.as_str(),
            address: self.own.address.as_ref().map(|address| address.as_str()),
            metadata: self.own.metadata(),
            version: self.own.version,
            wish: self.own.wish,
            priority: self.own.priority,
            state: PeerState::Up,
            heard_at: Instant::ZERO,
            linked: false,
            round_trip_us: 0,
        }
    }
}
