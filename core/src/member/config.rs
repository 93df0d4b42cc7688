//! What a member is told at its start.

use super::MemberLink;
use crate::election::{ElectionConfig, ElectionSlot, Membership};
use crate::lease::DialTiming;
use crate::registry::{PRIORITY_DEFAULT, PeerSlot, RegistryConfig};
use crate::stream::{Address, Name};

/// What a [`Member`](super::Member) is told at its start.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct MemberConfig {
    /// The node's name.
    pub name: Name,
    /// The cluster's name. Nodes of another are refused.
    pub cluster: Name,
    /// Drawn once, when the node's store was made.
    pub instance: u64,
    /// For jitter and timeouts. Two members must not have the same.
    pub seed: u64,
    /// The timing of elections; `None` for none: all members are equal. Default LAN.
    pub election: Option<ElectionConfig>,
    /// The timing of the registry. Default LAN.
    pub registry: RegistryConfig,
    /// What this node is among the peers of its file ([`Member::add_known_peer`](super::Member::add_known_peer)): a voter (the
    /// default), a learner, or [`Membership::None`] to wait until it is taken in
    /// ([`Member::join`](super::Member::join)). What was stored comes first.
    pub membership: Membership,
    /// Where the others reach this node. Default nowhere.
    pub address: Option<Address>,
    /// The member with the greatest that is there campaigns first; one with 0 votes and never
    /// campaigns. Default [`PRIORITY_DEFAULT`].
    pub priority: u8,
    /// Whether unknown nodes of this cluster that wish to be members are taken in, and in a
    /// cluster without election any. Default true: who knows the cluster's name may come, so the
    /// network is to be closed or the layer below to authenticate.
    pub admits: bool,
    /// When it dials. Default: between 50 ms and 2 s.
    pub dial: DialTiming,
    /// Greeting must be through by then, in milliseconds; default 5,000.
    pub handshake_ms: u32,
}

impl MemberConfig {
    /// The defaults: a voter of a LAN.
    pub const fn new(name: Name, cluster: Name, instance: u64, seed: u64) -> Self {
        let mut dial = DialTiming::new();
        dial.retry_ms_min = 50;
        dial.retry_ms_max = 2_000;
        Self {
            name,
            cluster,
            instance,
            seed,
            election: Some(ElectionConfig::lan()),
            registry: RegistryConfig::lan(),
            membership: Membership::Voter,
            address: None,
            priority: PRIORITY_DEFAULT,
            admits: true,
            dial,
            handshake_ms: 5_000,
        }
    }

    /// With the timing for lines across the world.
    pub const fn wan(mut self) -> Self {
        self.election = Some(ElectionConfig::wan());
        self.registry = RegistryConfig::wan();
        self.dial.retry_ms_min = 500;
        self.dial.retry_ms_max = 10_000;
        self
    }

    /// With the timing for those that sleep.
    pub const fn battery(mut self) -> Self {
        self.election = Some(ElectionConfig::battery());
        self.registry = RegistryConfig::battery();
        self.dial.retry_ms_min = 5_000;
        self.dial.retry_ms_max = 120_000;
        self.handshake_ms = 20_000;
        self
    }
}

/// The memory of a [`Member`](super::Member).
#[derive(Debug)]
pub struct MemberMemory<'m> {
    /// One for each peer that there may be, at most [`PEERS_MAX`](crate::registry::PEERS_MAX).
    pub peers: &'m mut [PeerSlot],
    /// One for each link that may be open at once: twice the peers, as both ends may dial at once,
    /// and some for clients.
    pub links: &'m mut [MemberLink],
    /// As many as `peers`; none without an election.
    pub members: &'m mut [ElectionSlot],
}
