//! What a member of a cluster is told at its start. Plain data: the program fills it from a seed
//! file or from flags, another program by hand.

use std::path::PathBuf;
use std::time::Duration;

use replcore::election::ElectionConfig;
use replcore::registry::PRIORITY_DEFAULT;
use replcore::stream::Name;
use serde_json::{Map, Value};

use crate::options::{Address, TlsFiles};

/// The cluster of those that are told none.
pub const CLUSTER_NAME: &str = "default";

/// What a member says of itself, as a JSON object.
pub type Metadata = Map<String, Value>;

/// A member that is known from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Its name.
    pub name: Name,
    /// Where it listens.
    pub address: Address,
    /// What it says of itself, until its own word is heard.
    pub metadata: Metadata,
    /// Whether it votes. All files of a cluster have to agree on who does.
    pub voter: bool,
}

/// How fast a cluster notices that its leader is gone, and what that costs while nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One site: a heartbeat every 50 ms, a new leader 150 to 300 ms after the last one. The default.
    #[default]
    Lan,
    /// Sites apart: 500 ms, and 2.5 to 5 s.
    Wan,
    /// Devices that would rather sleep: 5 s, and 20 to 40 s.
    Battery,
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lan" => Ok(Self::Lan),
            "wan" => Ok(Self::Wan),
            "battery" => Ok(Self::Battery),
            _ => Err(format!("`{text}` is not a profile; there are lan, wan and battery")),
        }
    }
}

impl Profile {
    /// The times of the profile.
    pub const fn election(self) -> ElectionConfig {
        match self {
            Self::Lan => ElectionConfig::lan(),
            Self::Wan => ElectionConfig::wan(),
            Self::Battery => ElectionConfig::battery(),
        }
    }
}

/// What a [`Cluster`](super::Cluster) is told at its start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Its name, unique among the members.
    pub name: Name,
    /// The cluster. Members of another one are refused. Default [`CLUSTER_NAME`].
    pub cluster: Name,
    /// Where it listens for members and programs; port 0 for any that is free.
    pub listen: Address,
    /// Where the others reach it, `host:port`, at most 63 bytes; empty for where it listens.
    pub advertise: String,
    /// The other members that are known from the start. With none it is a cluster of one, unless it
    /// joins one.
    pub peers: Vec<PeerOptions>,
    /// Members to ask for admission, in this order. With any, the member starts without a
    /// configuration and is part of the cluster once the leader has taken it up.
    pub join: Vec<Address>,
    /// What it says of itself; `None` for what the files of the others say of it.
    pub metadata: Option<Metadata>,
    /// How fast failures are noticed, and what that costs: [`Self::set_profile`]. Default
    /// [`Profile::Lan`].
    pub profile: Profile,
    /// The times of the election, the same for all voters. Default those of [`Profile::Lan`].
    pub election: ElectionConfig,
    /// Without leader and election: who is there, and nothing else (QC-20). Default false.
    pub masterless: bool,
    /// Whether it votes and can lead; else it only learns who does. Counts when it joins.
    pub voter: bool,
    /// Candidates of a lower priority let those of a higher one go first; 0 votes and never leads,
    /// for a witness. Default
    /// [`replcore::registry::PRIORITY_DEFAULT`], 100.
    pub priority: u8,
    /// Where its vote and the configuration are kept; made when it is not there.
    pub folder: PathBuf,
    /// Mutual TLS. The certificate names the member.
    pub tls: Option<TlsFiles>,
    /// With TLS: who may change the cluster and have the member resign, beside the holders of the
    /// members' certificates. Default nobody.
    pub administrators: Vec<Name>,
    /// Programs connected at once, and strangers; a further one is refused. Default 64.
    pub programs_max: u32,
    /// How long a leader that is asked to resign waits for those who hold it to let go. Default 10 s.
    pub release: Duration,
    /// Opening a connection to a member. Default 2 s; 5 and 20 s with the other profiles.
    pub connect: Duration,
    /// From connection to greeting. Default 2 s; 5 and 20 s with the other profiles.
    pub handshake: Duration,
    /// A member that takes no byte for this long is cut off. Default 2 s; 5 and 20 s with the other
    /// profiles.
    pub write_stall: Duration,
    /// For tests: nothing is written to the folder while this file exists.
    pub stall_file: Option<PathBuf>,
}

impl ClusterOptions {
    /// The defaults, for a member of this name that keeps its state in `folder`.
    pub fn new(name: Name, cluster: Name, listen: Address, folder: PathBuf) -> Self {
        Self {
            name,
            cluster,
            listen,
            advertise: String::new(),
            peers: Vec::new(),
            join: Vec::new(),
            metadata: None,
            profile: Profile::Lan,
            election: ElectionConfig::lan(),
            masterless: false,
            voter: true,
            priority: PRIORITY_DEFAULT,
            folder,
            tls: None,
            administrators: Vec::new(),
            programs_max: 64,
            release: Duration::from_secs(10),
            connect: Duration::from_secs(2),
            handshake: Duration::from_secs(2),
            write_stall: Duration::from_secs(2),
            stall_file: None,
        }
    }

    /// Takes the times of a profile.
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
        self.election = profile.election();
        let patience = Duration::from_secs(match profile {
            Profile::Lan => 2,
            Profile::Wan => 5,
            Profile::Battery => 20,
        });
        (self.connect, self.handshake, self.write_stall) = (patience, patience, patience);
    }
}
