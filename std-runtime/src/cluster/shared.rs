//! What the member's thread shares with everybody who holds a [`Cluster`](super::Cluster).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use super::api::{ClusterStatus, Leader};
use super::events::EventLog;
use super::lease::Lease;
use crate::driver::clock;

/// What a member knew at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// When, on [`clock::now_us`].
    pub(super) at_us: u64,
    pub(super) status: ClusterStatus,
}

impl View {
    /// The leader, as of now: without one whose lease has run out since, when that is this member.
    pub(super) fn leader(&self, lease: &Lease) -> Option<Leader> {
        let mut leader = self.status.leader.clone()?;
        if leader.identifier == self.status.identifier && !lease.is_leader() {
            return None;
        }
        leader.leading_ms += clock::now_us().saturating_sub(self.at_us) / 1000;
        Some(leader)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) lease: Lease,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) events: Arc<EventLog>,
    /// Turns true when the member wants to give up its leadership.
    pub(super) resigning: watch::Sender<bool>,
    pub(super) holds: Holds,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            lease: Lease::default(),
            view: watch::Sender::default(),
            events: Arc::new(EventLog::new()),
            resigning: watch::Sender::new(false),
            holds: Holds::default(),
        })
    }
}

/// Who is not done yet with what only a leader may do.
#[derive(Debug, Default)]
pub(super) struct Holds {
    count: AtomicU32,
    changed: watch::Sender<()>,
}

impl Holds {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn remove(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.changed.send_replace(());
    }

    /// Waits until there is none.
    pub(super) async fn released(&self) {
        let mut changed = self.changed.subscribe();
        while self.count.load(Ordering::SeqCst) > 0 {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// While it is there, a leader that is asked to resign or to stop goes on leading, for up to
/// [`ClusterOptions::release`](super::ClusterOptions::release): time to finish what only a leader may
/// do. It holds nothing when the lease is lost otherwise.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
}

impl Hold {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.holds.add();
        Self { shared: Arc::clone(shared) }
    }

    /// Waits until the member wants to give up its leadership.
    pub async fn resigning(&self) {
        let mut resigning = self.shared.resigning.subscribe();
        let _ = resigning.wait_for(|resigning| *resigning).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.holds.remove();
    }
}
