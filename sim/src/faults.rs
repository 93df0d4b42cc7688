//! The kinds of faults that campaigns draw from.

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing passes between some nodes and others for a while, in both directions.
    Partition,
    /// Nothing passes in one direction for a while.
    OneWay,
    /// Links are reset.
    Reset,
    /// A process ends and starts again; its peers are told by its system.
    Crash,
    /// Power fails; nobody is told.
    PowerCut,
    /// Every process ends at once.
    RestartAll,
    /// The leader is cut off, and every other process ends at once.
    RestartFollowers,
    /// A process accepts and never answers, for a while; a member may be stopped in the middle of a
    /// turn.
    Hang,
    /// The wall clock is stepped, up to a day either way.
    WallStep,
    /// The disk is full, for a while. Now and then what a member was told of as failed is on it all
    /// the same.
    DiskFull,
    /// Syncs take up to seconds, for a while.
    SlowDisk,
    /// The links of a node become slow and thin, for a while.
    SlowLink,
    /// Bits flip on the links of a node, for a while.
    Flip,
    /// The power goes in the middle of a write.
    TornWrite,
    /// The disk of a leaf is set back to an older copy. A hub is left out: set back, it may give a
    /// number again to one leaf before another, which knows the number, is back to tell it.
    SetBack,
    /// A bit flips on the disk of a leaf, which restarts, or goes on.
    DiskFlip,
}

impl Fault {
    /// Those that machines over a model of a store go through.
    pub const MACHINE: [Self; 12] = [
        Self::Partition,
        Self::OneWay,
        Self::Reset,
        Self::Crash,
        Self::PowerCut,
        Self::RestartAll,
        Self::Hang,
        Self::WallStep,
        Self::DiskFull,
        Self::SlowDisk,
        Self::SlowLink,
        Self::Flip,
    ];

    /// Those that whole engines on simulated disks go through.
    pub const SYSTEM: [Self; 14] = [
        Self::Partition,
        Self::OneWay,
        Self::Reset,
        Self::Crash,
        Self::PowerCut,
        Self::RestartAll,
        Self::Hang,
        Self::WallStep,
        Self::DiskFull,
        Self::SlowLink,
        Self::Flip,
        Self::TornWrite,
        Self::SetBack,
        Self::DiskFlip,
    ];

    /// Those that members of a cluster go through.
    pub const CLUSTER: [Self; 12] = [
        Self::Partition,
        Self::OneWay,
        Self::Reset,
        Self::Crash,
        Self::PowerCut,
        Self::RestartAll,
        Self::RestartFollowers,
        Self::Hang,
        Self::SlowDisk,
        Self::DiskFull,
        Self::SlowLink,
        Self::Flip,
    ];

    /// The name that the tool takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Reset => "reset",
            Self::Crash => "crash",
            Self::PowerCut => "power-cut",
            Self::RestartAll => "restart-all",
            Self::RestartFollowers => "restart-followers",
            Self::Hang => "hang",
            Self::WallStep => "wall-step",
            Self::DiskFull => "disk-full",
            Self::SlowDisk => "slow-disk",
            Self::SlowLink => "slow-link",
            Self::Flip => "flip",
            Self::TornWrite => "torn-write",
            Self::SetBack => "set-back",
            Self::DiskFlip => "disk-flip",
        }
    }

    /// The one of `all` with that name.
    pub fn named(name: &str, all: &[Self]) -> Option<Self> {
        all.iter().copied().find(|fault| fault.name() == name)
    }
}
