//! The nodes, as processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::api::{Reply, Request};
use crate::cli::Fault;
use crate::cli::remote::{Remote, RemoteArgs, TlsArgs};

/// How long a node may take to start or to stop.
const DEADLINE: Duration = Duration::from_secs(15);

/// A node that runs in a process of its own, and ends when this is dropped.
pub(super) struct NodeProcess {
    pub(super) name: String,
    pub(super) address: String,
    /// Whether the hub has a link to it. The hub itself always is.
    pub(super) live: bool,
    /// Messages waiting for it at the hub.
    pub(super) waiting: u64,
    /// The ordinal to read on from.
    pub(super) read_from: u64,
    folder: PathBuf,
    child: Option<Child>,
    remote: Option<Remote>,
}

impl NodeProcess {
    pub(super) async fn start_hub(folder: &Path) -> Result<Self, Fault> {
        let mut hub = Self::new("hub", folder);
        hub.live = true;
        hub.launch(&["hub"]).await?;
        Ok(hub)
    }

    pub(super) async fn start_leaf(folder: &Path, name: &str, hub: &str) -> Result<Self, Fault> {
        let mut leaf = Self::new(name, folder);
        leaf.start_again(hub).await?;
        Ok(leaf)
    }

    fn new(name: &str, folder: &Path) -> Self {
        Self {
            name: name.into(),
            address: String::new(),
            live: false,
            waiting: 0,
            read_from: 0,
            folder: folder.join(name),
            child: None,
            remote: None,
        }
    }

    /// Starts a leaf, in the folder that it had.
    pub(super) async fn start_again(&mut self, hub: &str) -> Result<(), Fault> {
        let name = self.name.clone();
        self.launch(&["leaf", &name, "--broker", hub]).await
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(super) async fn ask(&self, request: &Request) -> Result<Reply, Fault> {
        match &self.remote {
            Some(remote) => Ok(remote.ask(request).await?),
            None => Err(Fault::failed(format!("{} does not run", self.name))),
        }
    }

    /// Ends the process as a loss of power would: it is told nothing.
    pub(super) async fn kill(&mut self) -> Result<(), Fault> {
        self.remote = None;
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .await
                .map_err(|error| Fault::failed(format!("cannot kill {}: {error}", self.name)))?;
        }
        Ok(())
    }

    /// Asks the process to end, and waits until it has.
    pub(super) async fn stop(mut self) {
        self.remote = None;
        let Some(mut child) = self.child.take() else {
            return;
        };
        let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        // What does not end in time is killed when it is dropped.
        let _ = tokio::time::timeout(DEADLINE, child.wait()).await;
    }

    async fn launch(&mut self, arguments: &[&str]) -> Result<(), Fault> {
        let program = std::env::current_exe()
            .map_err(|error| Fault::failed(format!("cannot find this program: {error}")))?;
        let cannot = |what: String| Fault::failed(format!("cannot start {}: {what}", self.name));
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--log", "error", "--data"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| cannot(error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| cannot("no output".into()))?;
        let mut lines = BufReader::new(output).lines();
        let address = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, address)) = line.split_once(" listens on ") {
                    return Some(address.to_owned());
                }
            }
            None
        };
        let address = tokio::time::timeout(DEADLINE, address).await.ok().flatten();
        self.address = address.ok_or_else(|| cannot("it does not say where it listens".into()))?;
        self.child = Some(child);
        let args = RemoteArgs { node: self.address.clone(), tls: TlsArgs::default() };
        self.remote = Some(Remote::open(&args).await?);
        Ok(())
    }
}
