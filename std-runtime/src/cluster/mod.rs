//! Who is here and who leads: a member of a cluster, from start to stop.
//!
//! ```no_run
//! use replcore_runtime::cluster::Cluster;
//!
//! # fn main() -> Result<(), String> {
//! let config = replcore_runtime::cluster::config::read("server_a.json".as_ref())?;
//! let cluster = Cluster::start(config.options)?;
//! if cluster.is_leader() {
//!     println!("I lead");
//! } else if let Some(leader) = cluster.leader() {
//!     println!("{} leads, at {}:{}", leader.identifier, leader.host, leader.port);
//! }
//! cluster.stop();
//! # Ok(())
//! # }
//! ```
//!
//! The rules are those of [`replcore::member`]; here are sockets, files, clocks and threads. One
//! thread runs the member; it never waits for a disk (another one writes) nor for a program (events
//! are fetched). What it publishes can be read from any thread without a lock: see
//! [`Cluster::is_leader`].

pub mod api;
mod build;
pub mod config;
mod events;
pub mod exec;
mod host;
mod lease;
pub(crate) mod metrics;
pub mod options;
mod serve;
mod shared;
mod state;
mod status;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;

use replcore::wire::Progress;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::api::{ClusterEvent, ClusterStatus, Happened, Leader, Member};
use self::api::{ClusterReply, ClusterRequest};
pub use self::events::HANDLERS_MAX;
use self::host::Control;
pub use self::options::{ClusterOptions, Metadata, PeerOptions, Profile};
pub use self::shared::Hold;
use self::shared::{Shared, View};
use crate::api::{ApiError, Reply, Request};
use crate::handle::NodeHandle;
use crate::options::Address;

/// A member of a cluster that runs on a thread of its own. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    handle: NodeHandle,
    control: mpsc::UnboundedSender<Control>,
    address: Address,
    thread: Option<JoinHandle<Option<String>>>,
}

impl Cluster {
    /// Starts a member. When this answers, its folder is open and it listens.
    ///
    /// # Errors
    /// One line that names what is wrong and what to do; nothing runs.
    pub fn start(options: ClusterOptions) -> Result<Self, String> {
        config::check(&options)?;
        host::start(options)
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Whether this member leads: from any thread, without a lock and without waiting; one load and a
    /// look at the clock. True means that its lease ran at an instant during the call, and that no
    /// other member's did. What is done with the answer takes time: give the term ([`Cluster::term`])
    /// to whatever is written to, so that it can refuse a leader that was replaced meanwhile.
    #[inline]
    pub fn is_leader(&self) -> bool {
        self.shared.lease.is_leader()
    }

    /// The term in which this member leads, while it does: the fencing token. Greater than that of
    /// every leader before.
    pub fn term(&self) -> Option<u64> {
        self.shared.lease.leading().map(|(_, term)| term)
    }

    /// What is left of this member's lease; zero when it does not lead. It is renewed all the time:
    /// less than a third of what it was at first means that contact with the others is being lost.
    pub fn lease_left(&self) -> std::time::Duration {
        let until_us = self.shared.lease.leading().map_or(0, |(until_us, _)| until_us);
        let left_us = until_us.saturating_sub(crate::driver::clock::now_us());
        std::time::Duration::from_micros(left_us)
    }

    /// Who leads, this member included (QC-16); `None` while nobody is known to.
    pub fn leader(&self) -> Option<Leader> {
        self.shared.view.borrow().leader(&self.shared.lease)
    }

    /// All members that it knows, itself included, by name; as of the last change of one of them.
    /// [`Cluster::status`] is as of now.
    pub fn members(&self) -> Vec<Member> {
        self.shared.view.borrow().status.members.clone()
    }

    /// What this member says of itself.
    pub fn metadata(&self) -> Metadata {
        let view = self.shared.view.borrow();
        let own = view.status.members.iter().find(|it| it.identifier == view.status.identifier);
        own.map(|own| own.metadata.clone()).unwrap_or_default()
    }

    /// Waits for changes of who leads and who is here.
    pub fn watch(&self) -> Watch {
        Watch { shared: Arc::clone(&self.shared), view: self.shared.view.subscribe() }
    }

    /// Calls `handler` with every event from now on, on a thread of its own, so that it may take its
    /// time. One that panics is called again with the next event; one that falls more than 1,024
    /// events behind misses some, which is counted.
    ///
    /// # Errors
    /// [`HANDLERS_MAX`] are there already.
    pub fn on_event(
        &self,
        handler: impl FnMut(&ClusterEvent) + Send + 'static,
    ) -> Result<(), String> {
        self.shared.events.handle(handler)
    }

    /// Keeps this member from giving up its leadership until it is dropped; see [`Hold`].
    pub fn hold(&self) -> Hold {
        Hold::new(&self.shared)
    }

    /// Says something else of this member, to all (QC-17).
    ///
    /// # Errors
    /// It is longer than [`config::METADATA_BYTES_MAX`] bytes, and nothing has changed.
    pub async fn set_metadata(&self, metadata: Metadata) -> Result<(), ApiError> {
        self.order(ClusterRequest::SetMetadata { metadata }).await
    }

    /// Hands over to another member, when this one leads.
    ///
    /// # Errors
    /// It does not lead, or cannot hand over now.
    pub async fn resign(&self) -> Result<(), ApiError> {
        self.order(ClusterRequest::Resign).await
    }

    /// Everything that it knows, as of now.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn status(&self) -> Result<ClusterStatus, ApiError> {
        match self.ask(ClusterRequest::Status).await? {
            ClusterReply::Status(status) => Ok(*status),
            other => Err(amiss(&other)),
        }
    }

    /// How far this node has followed what it stands by for: of two candidates the fresher wins
    /// (QC-33). Answers its term, 0 once it has ended: every vote in a later term is by this
    /// progress, and who was told of a vote before finds its term in the answer.
    pub async fn set_progress(&self, progress: Progress) -> u64 {
        let (answer, answered) = oneshot::channel();
        let _ = self.control.send(Control::Progress(progress, answer));
        answered.await.unwrap_or(0)
    }

    /// Asks it what it can be asked over its port, from any thread.
    pub const fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    async fn order(&self, request: ClusterRequest) -> Result<(), ApiError> {
        self.ask(request).await.map(drop)
    }

    async fn ask(&self, request: ClusterRequest) -> Result<ClusterReply, ApiError> {
        match self.handle.call(Request::Cluster(request)).await? {
            Reply::Cluster(reply) => Ok(reply),
            other => Err(amiss(&other)),
        }
    }

    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Hands over if it leads, says good-bye, and ends; its port is free when this answers (QC-26).
    /// Answers why it had ended by itself, if it had.
    pub fn stop(mut self) -> Option<String> {
        self.end()
    }

    fn end(&mut self) -> Option<String> {
        let _ = self.control.send(Control::Stop);
        let ended = self.thread.take()?.join();
        ended.unwrap_or_else(|_| Some("its thread panicked; this is a defect, see the log".into()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

fn amiss(reply: &impl std::fmt::Debug) -> ApiError {
    ApiError::new(
        crate::api::ErrorKind::Unavailable,
        format!("the member answered something else: {reply:?}"),
    )
}

/// Follows who leads and who is here.
#[derive(Clone, Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    view: watch::Receiver<Arc<View>>,
}

impl Watch {
    /// Waits for the next change; answers whether there can be more.
    pub async fn changed(&mut self) -> bool {
        self.view.changed().await.is_ok()
    }

    /// Who leads; as [`Cluster::leader`].
    pub fn leader(&self) -> Option<Leader> {
        self.view.borrow().leader(&self.shared.lease)
    }

    /// Whether this member leads; as [`Cluster::is_leader`].
    pub fn is_leader(&self) -> bool {
        self.shared.lease.is_leader()
    }
}
