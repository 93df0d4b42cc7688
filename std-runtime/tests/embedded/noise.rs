//! Links without TLS between real nodes, with somebody on the line who sends packets again, changes
//! them, and begins handshakes with what was heard before.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use replcore::transport::cobs;
use replcore::transport::noise::{Kind, SecretKey};
use replcore_runtime::options::{Address, NodeOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::c_leaf::socket_of;
use crate::common::{TestNode, eventually, hub_options, leaf_options};

pub(crate) fn write_keys(folder: &Path, name: &str, lines: &[String]) -> PathBuf {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(format!("{name}.keys"));
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut &file, lines.join("\n").as_bytes()).unwrap();
    path
}

pub(crate) fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hub(folder: &Path, keys: &[String]) -> NodeOptions {
    let mut options = hub_options(folder, "hub");
    options.listen = vec![Address::Noise("127.0.0.1:0".into())];
    options.noise_keys = Some(write_keys(folder, "hub", keys));
    options
}

fn leaf(folder: &Path, name: &str, hub: Address, keys: &[String]) -> NodeOptions {
    let mut options = leaf_options(folder, name, &[("hub", hub)]);
    options.noise_keys = Some(write_keys(folder, name, keys));
    options
}

/// Somebody on the line between leaf and hub.
#[derive(Default)]
struct Meddler {
    /// Send packets again, and changed, beside those that are sent.
    active: AtomicBool,
    /// Start packets that the leaf has sent.
    starts: Mutex<Vec<Vec<u8>>>,
}

async fn write(line: &mut OwnedWriteHalf, content: &[u8]) -> std::io::Result<()> {
    let mut packet = vec![0; cobs::encoded_bytes_max(content.len())];
    let len = cobs::encode(content, &mut packet).unwrap();
    line.write_all(&packet[..len]).await
}

impl Meddler {
    async fn listen(self: Arc<Self>, hub: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((leaf, _)) = listener.accept().await {
                let Ok(hub) = TcpStream::connect(hub).await else { continue };
                let ((from_leaf, to_leaf), (from_hub, to_hub)) =
                    (leaf.into_split(), hub.into_split());
                tokio::spawn(self.clone().carry(from_leaf, to_hub));
                tokio::spawn(self.clone().carry(from_hub, to_leaf));
            }
        });
        address
    }

    async fn carry(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (mut decoder, mut frame) = (cobs::Decoder::new(), vec![0; 1 << 20]);
        let (mut bytes, mut before) = ([0; 4096], Vec::new());
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let mut rest = &bytes[..count];
            while !rest.is_empty() {
                let taken = decoder.take(rest, &mut frame);
                rest = &rest[taken.bytes..];
                let Some(len) = taken.frame else { continue };
                if self.pass(&mut to, &frame[..len], &mut before).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn pass(
        &self,
        to: &mut OwnedWriteHalf,
        packet: &[u8],
        before: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        if matches!(Kind::of(packet), Some(Kind::StartShared | Kind::StartPinned)) {
            self.starts.lock().unwrap().push(packet.to_vec());
        }
        if self.active.load(Ordering::Relaxed) && Kind::of(packet) == Some(Kind::Frame) {
            let mut changed = packet.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            write(to, &changed).await?;
            write(to, before).await?;
            let start = self.starts.lock().unwrap().first().cloned().unwrap();
            write(to, &start).await?;
            before.clear();
            before.extend_from_slice(packet);
        }
        write(to, packet).await
    }
}

/// HS-33: what is sent again or changed on the way is refused and counted, at both ends, and costs nothing.
#[tokio::test]
async fn packets_that_are_replayed_or_changed_are_refused_and_the_link_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let key = hex(&[17; 32]);
    let hub = TestNode::start(hub(folder.path(), &[format!("till-7 psk {key}")]));
    let meddler = Arc::new(Meddler::default());
    let line = Address::Noise(meddler.clone().listen(socket_of(&hub)).await.to_string());
    let leaf = TestNode::start(leaf(folder.path(), "till-7", line, &[format!("hub psk {key}")]));
    eventually("the leaf is registered", async || hub.live_leaves().await == 1).await;
    meddler.active.store(true, Ordering::Relaxed);
    for number in 0..50 {
        leaf.post("sale", &format!("up {number}")).await;
        hub.post("price", &format!("down {number}")).await;
    }
    for node in [&hub, &leaf] {
        eventually("all of them", async || node.bodies().await.len() == 100).await;
        let counters = node.status().await.counters;
        assert!(counters["noise_packets_refused"] > 0, "{counters:?}");
        assert_eq!((counters["noise_links"], counters["noise_strangers"]), (1, 0));
    }
    let expected: Vec<_> = (0..50).map(|number| format!("up {number}")).collect();
    let up = hub.bodies().await.into_iter().filter(|body| body.starts_with("up"));
    assert_eq!(up.collect::<Vec<_>>(), expected);
}

/// HS-33: each key is for one name; a leaf whose key was taken away, or never was there, gets nothing.
#[tokio::test]
async fn a_leaf_speaks_as_the_name_of_its_key_and_as_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (own, at_till_7) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]));
    let public = |key: &SecretKey| hex(&key.public().0);
    let hub = TestNode::start(hub(
        folder.path(),
        &[
            format!("private {}", hex(own.as_bytes())),
            format!("till-7 public {}", public(&at_till_7)),
        ],
    ));
    let keys =
        [format!("private {}", hex(at_till_7.as_bytes())), format!("hub public {}", public(&own))];
    let thief = TestNode::start(leaf(folder.path(), "till-8", hub.address(), &keys));
    let refused = "refused: the certificate or key is not for this name";
    let told = async || thief.status().await.upstreams["hub"] == refused;
    eventually("it is refused", told).await;
    let leaf = TestNode::start(leaf(folder.path(), "till-7", hub.address(), &keys));
    eventually("the leaf is registered", async || hub.live_leaves().await == 1).await;
    assert!(!thief.status().await.ready && leaf.status().await.ready);
    // Another pair than the one that is listed.
    let keys = [format!("private {}", hex(&[3; 32])), format!("hub public {}", public(&own))];
    let stranger = TestNode::start(self::leaf(folder.path(), "till-9", hub.address(), &keys));
    eventually("it is a stranger", async || hub.status().await.counters["noise_strangers"] > 0)
        .await;
    assert!(!stranger.status().await.ready);
    assert_eq!(hub.live_leaves().await, 1);
}

/// A hub that was started again tells the leaf, on a line that stays, that the keys are gone.
#[tokio::test]
async fn a_leaf_comes_back_by_itself_after_a_crash_at_either_end() {
    let folder = tempfile::tempdir().unwrap();
    let key = hex(&[17; 32]);
    let mut hub = TestNode::start(hub(folder.path(), &[format!("till-7 psk {key}")]));
    let keys = [format!("hub psk {key}")];
    let mut leaf = TestNode::start(leaf(folder.path(), "till-7", hub.address(), &keys));
    for round in 1..=3 {
        leaf.post("sale", &round.to_string()).await;
        eventually("it is there", async || hub.bodies().await.len() == round).await;
        match round {
            1 => hub = TestNode::start(hub.crash()),
            _ => leaf = TestNode::start(leaf.crash()),
        }
    }
}
