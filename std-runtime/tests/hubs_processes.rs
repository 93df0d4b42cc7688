//! A hub that outlives its machine (QC-33), as processes that find out by themselves who leads: the
//! leading one is killed and its folder deleted, again and again.

mod common;

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, TestNode, eventually, leaf_options, name};
use replcore_runtime::cluster::{Cluster, ClusterOptions, Metadata, PeerOptions};
use replcore_runtime::options::Address;

/// Ports that were free a moment ago.
fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Hubs of one log, and whoever else votes.
struct Hubs {
    folder: PathBuf,
    children: Vec<Option<Child>>,
    leaf_ports: Vec<u16>,
    /// The one that was told to stop.
    stopped: Option<usize>,
    _witness: Option<Cluster>,
}

impl Hubs {
    /// `hubs` of them, with a witness when there are two.
    fn start(folder: &Path, hubs: usize) -> Self {
        let (leaf, log, election) = (ports(hubs), ports(hubs), ports(3));
        let others = |own: usize, ports: &[u16]| {
            let other = |other: usize| format!("\"{}@127.0.0.1:{}\"", NAMES[other], ports[other]);
            let all: Vec<String> = (0..ports.len()).filter(|at| *at != own).map(other).collect();
            all.join(", ")
        };
        for own in 0..hubs {
            let text = format!(
                "name = \"hub\"\ndata_folder = \"{}\"\nlisten = [\"127.0.0.1:{}\"]\n\
                 [limits]\nsegment_bytes = 1048576\n\
                 [standby]\nmember = \"{}\"\nlisten = \"127.0.0.1:{}\"\npeers = [{}]\n\
                 election_listen = \"127.0.0.1:{}\"\nelection_members = [{}]\n",
                folder.join(NAMES[own]).display(),
                leaf[own],
                NAMES[own],
                log[own],
                others(own, &log),
                election[own],
                others(own, &election),
            );
            std::fs::write(folder.join(format!("{}.toml", NAMES[own])), text).unwrap();
        }
        let witness = (hubs == 2).then(|| {
            let address = |port: u16| Address::Tcp(format!("127.0.0.1:{port}"));
            let folder = folder.join("witness");
            let listen = address(election[2]);
            let mut options = ClusterOptions::new(name(NAMES[2]), name("hub"), listen, folder);
            let peer = |at: usize| PeerOptions {
                name: name(NAMES[at]),
                address: address(election[at]),
                metadata: Metadata::default(),
                voter: true,
            };
            options.peers = (0..2).map(peer).collect();
            // It never leads a log that it does not hold.
            options.priority = 0;
            Cluster::start(options).unwrap()
        });
        let children = (0..hubs).map(|_| None).collect();
        let mut this = Self {
            folder: folder.to_owned(),
            children,
            leaf_ports: leaf,
            stopped: None,
            _witness: witness,
        };
        (0..hubs).for_each(|own| this.spawn(own));
        this
    }

    fn spawn(&mut self, own: usize) {
        let file = |text: String| self.folder.join(text);
        let log = File::options()
            .create(true)
            .append(true)
            .open(file(format!("{}.log", NAMES[own])))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_replcore"))
            .args(["run", "--config"])
            .arg(file(format!("{}.toml", NAMES[own])))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children[own] = Some(child);
    }

    /// Starts again those that have ended, as a supervisor does.
    fn tend(&mut self) {
        for own in 0..self.children.len() {
            let ended =
                self.children[own].as_mut().is_none_or(|it| it.try_wait().unwrap().is_some());
            if ended {
                self.spawn(own);
            }
        }
    }

    /// What a hub that leads says of itself; empty at others.
    fn status(&self, own: usize) -> String {
        let address = format!("127.0.0.1:{}", self.leaf_ports[own]);
        let status = Command::new(env!("CARGO_BIN_EXE_replcore"))
            .args(["status", &address])
            .output()
            .unwrap();
        String::from_utf8_lossy(&status.stdout).into_owned()
    }

    /// Waits until one leads and `wanted` others follow it, not far behind.
    async fn followed_by(&mut self, wanted: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tend();
            for own in (0..self.children.len()).filter(|own| Some(*own) != self.stopped) {
                if self.status(own).matches(": following, ").count() == wanted {
                    return own;
                }
            }
            assert!(Instant::now() < deadline, "not in time: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until one leads and all others follow it.
    async fn whole(&mut self) -> usize {
        self.followed_by(self.children.len() - 1).await
    }

    /// Stops a process in the middle of whatever it does, or has it go on.
    fn signal(&mut self, own: usize, signal: &str) {
        let child = self.children[own].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &child]).status().unwrap().success());
        self.stopped = (signal == "-STOP").then_some(own);
    }

    /// The machine is gone, and its disk.
    fn lose(&mut self, own: usize) {
        let mut child = self.children[own].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_dir_all(self.folder.join(NAMES[own])).unwrap();
    }

    fn logs(&self) -> String {
        let read = |own: usize| {
            let text = std::fs::read_to_string(self.folder.join(format!("{}.log", NAMES[own])));
            let text = text.unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(12).collect();
            format!(
                "\n--- {}\n{}",
                NAMES[own],
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        };
        (0..self.children.len()).map(read).collect()
    }
}

impl Drop for Hubs {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn campaign(hubs: usize, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Hubs::start(folder.path(), hubs);
    group.whole().await;
    let at: Vec<(&str, Address)> = group
        .leaf_ports
        .iter()
        .map(|port| ("hub", Address::Tcp(format!("127.0.0.1:{port}"))))
        .collect();
    let from = TestNode::start(leaf_options(folder.path(), "from", &at));
    let to = TestNode::start(leaf_options(folder.path(), "to", &at));
    eventually("both leaves are registered", async || {
        from.status().await.ready && to.status().await.ready
    })
    .await;
    let mut posted = Vec::new();
    for round in 0..rounds {
        let leader = group.whole().await;
        for number in 0..40 {
            let body = format!("{round}/{number}");
            from.post("flow", &body).await;
            posted.push(body);
            if number == 20 {
                group.lose(leader);
            }
        }
    }
    group.whole().await;
    eventually("all are there", async || to.bodies().await.len() >= posted.len()).await;
    assert_eq!(to.bodies().await, posted, "in order, once");
    eventually("the sender knows", async || {
        from.queue("hub").await.is_some_and(|queue| queue.messages == 0)
    })
    .await;
}

/// The leading process is stopped until another leads, and goes on: it finds that it leads no longer, and
/// follows, as the same process.
#[tokio::test]
async fn a_hub_that_was_stopped_finds_another_leading_and_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Hubs::start(folder.path(), 3);
    group.whole().await;
    let processes: Vec<u32> = group.children.iter().flatten().map(Child::id).collect();
    let at: Vec<(&str, Address)> = group
        .leaf_ports
        .iter()
        .map(|port| ("hub", Address::Tcp(format!("127.0.0.1:{port}"))))
        .collect();
    let leaf = |name: &str| {
        let mut options = leaf_options(folder.path(), name, &at);
        // A hub that is stopped takes links and says nothing.
        (options.deadlines.handshake_ms, options.deadlines.keepalive_ms) = (300, 300);
        TestNode::start(options)
    };
    let (from, to) = (leaf("from"), leaf("to"));
    eventually("both leaves are registered", async || {
        from.status().await.ready && to.status().await.ready
    })
    .await;
    let mut posted = Vec::new();
    for round in 0..rounds(2) {
        let leader = group.whole().await;
        for number in 0..40 {
            let body = format!("{round}/{number}");
            from.post("flow", &body).await;
            posted.push(body);
            match number {
                10 => group.signal(leader, "-STOP"),
                // Posts go on coming in while the old leader wakes.
                30 => {
                    assert_ne!(group.followed_by(1).await, leader);
                    group.signal(leader, "-CONT");
                }
                _ => {}
            }
        }
    }
    group.whole().await;
    let now: Vec<u32> = group.children.iter().flatten().map(Child::id).collect();
    assert_eq!(now, processes, "none had to be started again: {}", group.logs());
    eventually("all are there", async || to.bodies().await.len() >= posted.len()).await;
    assert_eq!(to.bodies().await, posted, "in order, once");
}

fn rounds(default: usize) -> usize {
    std::env::var("HUBS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn three_hubs_survive_the_loss_of_the_leading_machine_again_and_again() {
    campaign(3, rounds(10)).await;
}

#[tokio::test]
async fn two_hubs_and_a_witness_survive_the_loss_of_the_leading_machine_again_and_again() {
    campaign(2, rounds(4)).await;
}
