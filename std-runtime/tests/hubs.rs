//! A hub that outlives its machine (QC-33), on real sockets and disks: the leading hub goes with its
//! folder, again and again, and nothing that was acknowledged is lost or doubled.

mod common;
#[path = "process/relay.rs"]
#[allow(dead_code, reason = "some of its faults")]
mod relay;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use common::{TestNode, eventually, hub_options, leaf_options, name};
use relay::{Fault, Relay};
use replcore::log::crc32c;
use replcore_runtime::api::{Bytes, NewMessage, Reply, Request, StandbyStatus, Status};
use replcore_runtime::ca;
use replcore_runtime::options::{Address, NodeOptions, Peer, StandbyOptions, TlsFiles};
use replcore_runtime::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Ports that were free a moment ago, below those that the system gives to others.
fn ports<const COUNT: usize>() -> [Address; COUNT] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 180) as u16 * 100;
    std::array::from_fn(|_| {
        loop {
            let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Address::Tcp(format!("127.0.0.1:{port}"));
            }
        }
    })
}

/// Hubs that hold one log.
struct Group {
    options: Vec<NodeOptions>,
    nodes: Vec<Option<TestNode>>,
    term: u64,
    leader: usize,
}

const MEMBERS: [&str; 3] = ["a", "b", "c"];

impl Group {
    fn start(folder: &Path, acknowledge: u8) -> Self {
        Self::start_with(folder, acknowledge, |_, _| {})
    }

    /// As `change` has it of the options of each.
    fn start_with(
        folder: &Path,
        acknowledge: u8,
        change: impl Fn(usize, &mut NodeOptions),
    ) -> Self {
        let (leaf_ports, group_ports) = (ports::<3>(), ports::<3>());
        let options = |own: usize| {
            let mut options = hub_options(folder, "hub");
            options.folder = folder.join(MEMBERS[own]);
            options.listen = vec![leaf_ports[own].clone()];
            let peer = |other: usize| Peer {
                name: name(MEMBERS[other]),
                address: group_ports[other].clone(),
            };
            options.standby = Some(StandbyOptions {
                member: name(MEMBERS[own]),
                listen: group_ports[own].clone(),
                peers: (0..3).filter(|other| *other != own).map(peer).collect(),
                acknowledge,
                election: None,
            });
            change(own, &mut options);
            options
        };
        let options: Vec<NodeOptions> = (0..3).map(options).collect();
        let nodes = options.iter().map(|options| Some(TestNode::start(options.clone()))).collect();
        let mut group = Self { options, nodes, term: 0, leader: 0 };
        group.promote(0);
        group
    }

    fn promote(&mut self, index: usize) {
        (self.term, self.leader) = (self.term + 1, index);
        self.node(index).running.lead(self.term);
    }

    fn node(&self, index: usize) -> &TestNode {
        self.nodes[index].as_ref().unwrap()
    }

    fn hub(&self) -> &TestNode {
        self.node(self.leader)
    }

    fn addresses(&self) -> Vec<(&'static str, Address)> {
        self.options.iter().map(|options| ("hub", options.listen[0].clone())).collect()
    }

    async fn leads(&self) {
        eventually("it leads", async || self.hub().status().await.role == "hub").await;
    }

    /// Waits until both others follow and lack nothing, so that any of them may lead.
    async fn level(&self) {
        self.leads().await;
        eventually("both others have all", async || {
            self.hub().status().await.standbys.values().all(is_level)
        })
        .await;
    }

    /// Ends a hub as a crash would, and its disk with it.
    fn lose(&mut self, index: usize) {
        let node = self.nodes[index].take().unwrap();
        let folder: PathBuf = node.options.folder.clone();
        node.running.abort();
        node.running.join();
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn restart(&mut self, index: usize) {
        self.nodes[index] = Some(TestNode::start(self.options[index].clone()));
    }

    /// Of the hubs that there are, but for one that is cut off, that which has most of the log takes the
    /// place of the leader, as an election would have it.
    async fn elect(&mut self, cut_off: Option<usize>) {
        let mut best = None;
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(node) = node.as_ref().filter(|_| cut_off != Some(index)) {
                let committed = node.status().await.counters["replication_committed"];
                best = best.max(Some((committed, index)));
            }
        }
        self.promote(best.unwrap().1);
    }
}

/// Whether a standby follows and lacks nothing.
fn is_level(standby: &StandbyStatus) -> bool {
    standby.state == "following" && standby.lag_batches == 0
}

fn counter(status: &Status, name: &str) -> u64 {
    status.counters.get(name).copied().unwrap_or(0)
}

/// Posts at whichever hub leads until it is acknowledged.
async fn post_at_hub(node: &TestNode, key: &str) -> bool {
    let message = NewMessage {
        message_type: "direct".into(),
        idempotency_key: Some(Bytes(key.as_bytes().to_vec())),
        body: Bytes(key.as_bytes().to_vec()),
        ..NewMessage::default()
    };
    let post = node.handle.call(Request::Post { messages: vec![message] });
    let answered = tokio::time::timeout(Duration::from_millis(500), post).await;
    matches!(answered, Ok(Ok(Reply::Posted { .. })))
}

#[tokio::test]
async fn the_leading_hub_and_its_disk_are_lost_again_and_again_and_nothing_acknowledged_is() {
    let rounds: usize =
        std::env::var("HUBS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 1);
    let at = group.addresses();
    let from = TestNode::start(leaf_options(folder.path(), "from", &at));
    let to = TestNode::start(leaf_options(folder.path(), "to", &at));
    eventually("both leaves are registered", async || {
        match group.hub().status().await.role.as_str() {
            "hub" => group.hub().live_leaves().await == 2,
            _ => false,
        }
    })
    .await;
    let (mut posted, mut acknowledged) = (Vec::new(), Vec::new());
    let mut pending: Option<String> = None;
    for round in 0..rounds {
        let deadline = Instant::now() + Duration::from_millis(400);
        let mut number = 0;
        while Instant::now() < deadline {
            let body = format!("leaf {round}/{number}");
            from.post("flow", &body).await;
            posted.push(body);
            // The same post until it is acknowledged, whoever leads.
            let key = pending.take().unwrap_or_else(|| format!("hub {round}/{number}"));
            if post_at_hub(group.hub(), &key).await {
                acknowledged.push(key);
            } else {
                pending = Some(key);
            }
            number += 1;
        }
        let lost = group.leader;
        group.lose(lost);
        group.elect(None).await;
        group.restart(lost);
    }
    eventually("the last post is acknowledged", async || match &pending {
        Some(key) => post_at_hub(group.hub(), key).await,
        None => true,
    })
    .await;
    acknowledged.extend(pending);
    assert!(acknowledged.len() > rounds, "{}", acknowledged.len());
    let expected: BTreeSet<&String> = posted.iter().chain(&acknowledged).collect();
    for node in [&to, group.hub()] {
        eventually("all are there", async || node.bodies().await.len() >= expected.len()).await;
        let bodies = node.bodies().await;
        let distinct: BTreeSet<&String> = bodies.iter().collect();
        assert_eq!(distinct, expected);
        assert_eq!(bodies.len(), expected.len(), "none is doubled");
        let of_leaf: Vec<&String> = bodies.iter().filter(|body| body.starts_with("leaf")).collect();
        assert_eq!(of_leaf, posted.iter().collect::<Vec<_>>(), "in order");
    }
    // The one that came back last has a copy and follows.
    group.level().await;
    assert_eq!(counter(&group.hub().status().await, "replication_term"), group.term);
}

/// A relay between each two hubs, for each that dials: its number, that of the other, and the relay.
struct Cuts(Vec<(usize, usize, Relay)>);

impl Cuts {
    /// Does `dialing` to the links that `hub` has dialled, and `dialed` to those that others have.
    fn cut_off(&self, hub: usize, dialing: Fault, dialed: Fault) {
        for (from, to, relay) in &self.0 {
            match hub {
                _ if hub == *from => relay.set(dialing),
                _ if hub == *to => relay.set(dialed),
                _ => {}
            }
        }
    }

    /// All is well again. Links that have lost bytes are made anew.
    fn heal(&self) {
        for (_, _, relay) in &self.0 {
            relay.set(Fault::None);
            relay.cut();
        }
    }
}

/// The network between the leading hub and the others is cut: both ways, then only for what it says, then only
/// for what it hears. Leaves go on reaching all of them.
#[tokio::test]
async fn a_leading_hub_that_is_cut_off_acknowledges_nothing_more_and_nothing_acknowledged_is_lost()
{
    let folder = tempfile::tempdir().unwrap();
    let cuts = std::cell::RefCell::new(Cuts(Vec::new()));
    let mut group = Group::start_with(folder.path(), 1, |own, options| {
        for peer in &mut options.standby.as_mut().unwrap().peers {
            let to = MEMBERS.iter().position(|member| name(member) == peer.name).unwrap();
            let [at] = ports::<1>();
            let relay = Relay::start(&at.to_string(), &peer.address.to_string());
            cuts.borrow_mut().0.push((own, to, relay));
            peer.address = at;
        }
    });
    let cuts = cuts.into_inner();
    let at = group.addresses();
    let from = TestNode::start(leaf_options(folder.path(), "from", &at));
    let to = TestNode::start(leaf_options(folder.path(), "to", &at));
    eventually("both leaves are registered", async || {
        from.status().await.ready && to.status().await.ready
    })
    .await;
    let mut expected = Vec::new();
    let faults =
        [(Fault::Hang, Fault::Hang), (Fault::Mute, Fault::Deaf), (Fault::Deaf, Fault::Mute)];
    for (round, (dialing, dialed)) in faults.into_iter().enumerate() {
        group.level().await;
        let (old, before) = (group.leader, format!("{round}: before"));
        eventually("it takes posts", async || post_at_hub(group.hub(), &before).await).await;
        group.level().await;
        cuts.cut_off(old, dialing, dialed);
        let during = format!("{round}: during");
        assert!(!post_at_hub(group.hub(), &during).await, "{dialing:?}");
        let of_leaf = format!("{round}: of a leaf");
        from.post("flow", &of_leaf).await;
        group.elect(Some(old)).await;
        eventually("the next takes the same", async || post_at_hub(group.hub(), &during).await)
            .await;
        let lost = format!("{round}: to a hub whose term is over");
        assert!(!post_at_hub(group.node(old), &lost).await, "{dialing:?}");
        cuts.heal();
        expected.extend([before, during, of_leaf]);
    }
    group.level().await;
    expected.sort();
    for node in [group.hub(), &to] {
        let all = async || node.bodies().await.len() >= expected.len();
        eventually("all are there", all).await;
        let mut bodies = node.bodies().await;
        bodies.sort();
        assert_eq!(bodies, expected, "none is lost, none is doubled");
    }
    eventually("the leaf knows", async || {
        from.queue("hub").await.is_some_and(|queue| queue.messages == 0)
    })
    .await;
}

/// Each hub leads in turn, and whoever led before follows, in the same process.
#[tokio::test]
async fn a_hub_whose_term_is_over_steps_down_and_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 1);
    let mut posted = Vec::new();
    for round in 0..7 {
        if round > 0 {
            group.promote(round % 3);
        }
        let key = format!("{round}");
        eventually("it takes posts", async || post_at_hub(group.hub(), &key).await).await;
        posted.push(key);
        group.level().await;
        assert_eq!(group.hub().bodies().await, posted);
    }
    // Its own word counts for nothing in a term that was: it may not lead there.
    group.node(1).running.lead(group.term);
    eventually("it has ended", async || group.node(1).running.is_finished()).await;
    let report = group.nodes[1].take().unwrap().running.join();
    assert!(report.error.unwrap().contains("cannot lead in term 7"));
}

/// With no standby asked for, a hub that is cut off from the others goes on acknowledging. A leaf that has
/// heard of the next leader gives it nothing.
#[tokio::test]
async fn a_leaf_refuses_a_hub_whose_term_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 0);
    group.level().await;
    // From now on the first reaches nobody, and nobody it.
    let [own, nowhere] = ports::<2>();
    let standby = group.options[0].standby.as_mut().unwrap();
    standby.listen = own;
    standby.peers.iter_mut().for_each(|peer| peer.address = nowhere.clone());
    group.nodes[0].take().unwrap().crash();
    group.restart(0);
    group.promote(0);
    group.promote(1);
    let at = group.addresses();
    let known = [at[1].clone(), at[0].clone(), at[2].clone()];
    let leaf = TestNode::start(leaf_options(folder.path(), "leaf", &known));
    let posted = ["one", "two", "three"];
    leaf.post("flow", posted[0]).await;
    eventually("the hub of the next term has it", async || {
        group.node(1).bodies().await == posted[..1]
    })
    .await;
    eventually("and so has its standby", async || {
        let status = group.node(1).status().await;
        is_level(&status.standbys["c"])
    })
    .await;
    assert_eq!(group.node(0).status().await.role, "hub", "it knows of nothing");
    group.lose(1);
    leaf.post("flow", posted[1]).await;
    eventually("the other is refused", async || {
        let status = leaf.status().await;
        counter(&status, "link_terms_over") > 1
    })
    .await;
    assert!(group.node(0).bodies().await.is_empty());
    // One that has started anew has not forgotten it.
    let leaf = TestNode::start(leaf.crash());
    eventually("it is refused again", async || {
        let status = leaf.status().await;
        counter(&status, "link_terms_over") > 1
    })
    .await;
    assert!(group.node(0).bodies().await.is_empty());
    group.promote(2);
    leaf.post("flow", posted[2]).await;
    eventually("the hub of the last term has all", async || {
        group.node(2).bodies().await.len() >= posted.len()
    })
    .await;
    assert_eq!(group.node(2).bodies().await, posted);
    // Run without the others it is still the hub of that term.
    let options = NodeOptions { standby: None, ..group.nodes[2].take().unwrap().crash() };
    let alone = TestNode::start(options);
    leaf.post("flow", "four").await;
    eventually("it has this one too", async || alone.bodies().await.len() > posted.len()).await;
    // And one that is made anew, when all that held the log are gone, has terms of its own.
    let folder = folder.path().join("anew");
    let anew = TestNode::start(NodeOptions { folder, ..alone.crash() });
    leaf.post("flow", "five").await;
    eventually("it has what came since", async || {
        anew.bodies().await.last().is_some_and(|it| it == "five")
    })
    .await;
}

/// A leaf that knows of the standbys only is told where the leading hub is.
#[tokio::test]
async fn a_hub_that_stands_by_sends_leaves_to_the_one_that_leads() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 1);
    let at = group.addresses();
    let leaf = TestNode::start(leaf_options(folder.path(), "leaf", &at[1..]));
    leaf.post("flow", "one").await;
    group.leads().await;
    eventually("it is there", async || group.hub().bodies().await == ["one"]).await;
    let away = counter(&group.node(1).status().await, "links_turned_away");
    assert!(away > 0, "it was sent there by a standby");
    // One of the standbys leads now, and the leaf finds it.
    group.level().await;
    group.promote(2);
    group.leads().await;
    leaf.post("flow", "two").await;
    eventually("it is there", async || group.hub().bodies().await == ["one", "two"]).await;
}

/// The link to a standby breaks again and again, each time before a copy could be through.
#[tokio::test]
async fn a_copy_goes_on_where_its_link_has_broken() {
    let folder = tempfile::tempdir().unwrap();
    let [at] = ports::<1>();
    let behind = std::cell::RefCell::new(None);
    let mut group = Group::start_with(folder.path(), 1, |own, options| {
        let standby = options.standby.as_mut().unwrap();
        match own {
            0 => {
                let to_b = standby.peers.iter_mut().find(|peer| peer.name == name("b")).unwrap();
                behind.replace(Some(std::mem::replace(&mut to_b.address, at.clone())));
            }
            1 => assert_eq!(Some(&standby.listen), behind.borrow().as_ref()),
            _ => {}
        }
    });
    let relay = Relay::start(&at.to_string(), &behind.take().unwrap().to_string());
    group.level().await;
    group.lose(1);
    let body = "x".repeat(100_000);
    for number in 0..30 {
        group.hub().post("t", &format!("{number}{body}")).await;
    }
    let before = group.hub().status().await;
    let lacks = &before.standbys["b"];
    assert_eq!(lacks.state, "disconnected");
    assert!(lacks.lag_records >= 30 && lacks.lag_bytes >= 3_000_000, "{lacks:?}");
    relay.set(Fault::Cut(700_000));
    relay.cut();
    group.restart(1);
    eventually("it has a copy", async || is_level(&group.hub().status().await.standbys["b"])).await;
    let after = group.hub().status().await;
    let more = |name: &str| counter(&after, name) - counter(&before, name);
    assert_eq!(more("replication_copies"), 1);
    assert!(more("replication_copies_resumed") >= 4, "{:?}", after.counters);
    relay.set(Fault::None);
    let held = group.hub().bodies().await;
    group.promote(1);
    group.leads().await;
    assert!(group.hub().bodies().await == held);
}

/// With TLS the log goes to holders of the hub's certificate only, and comes from them only.
#[tokio::test]
async fn with_tls_the_log_is_for_the_hub_alone() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca");
    ca::init(&authority).unwrap();
    let files = |text: &str| {
        ca::issue(&authority, &name(text), &[], 30).unwrap();
        TlsFiles {
            ca: authority.join("ca.pem"),
            certificate: authority.join(format!("{text}.pem")),
            key: authority.join(format!("{text}.key")),
        }
    };
    let (of_hub, of_leaf) = (files("hub"), files("leaf"));
    let mut group = Group::start_with(folder.path(), 1, |_, options| {
        options.tls = Some(of_hub.clone());
    });
    let mut options = leaf_options(folder.path(), "leaf", &group.addresses()[1..]);
    options.tls = Some(of_leaf.clone());
    let leaf = TestNode::start(options);
    leaf.post("flow", "one").await;
    group.leads().await;
    eventually("it is there", async || group.hub().bodies().await == ["one"]).await;
    group.level().await;
    group.promote(1);
    group.leads().await;
    leaf.post("flow", "two").await;
    eventually("it is at the next", async || group.hub().bodies().await == ["one", "two"]).await;

    let place = group.node(2).options.standby.as_ref().unwrap().listen.to_string();
    assert!(says_anything(&place, of_hub).await, "the hub's certificate is taken");
    assert!(!says_anything(&place, of_leaf).await, "another's is not");
}

/// Greets a hub that stands by as another hub does; whether it answers.
async fn says_anything(place: &str, files: TlsFiles) -> bool {
    // Version, hub, member, term 0 and no address, as postcard.
    let hello = b"\x00\x02\x03hub\x01z\x00\x00";
    let mut message = (hello.len() as u32).to_le_bytes().to_vec();
    message.extend_from_slice(&crc32c(hello).to_le_bytes());
    message.extend_from_slice(hello);
    let stream = tokio::net::TcpStream::connect(place).await.unwrap();
    let (mut stream, _) = Tls::load(files).unwrap().connect(stream).await.unwrap();
    let _ = stream.write_all(&message).await;
    let read = stream.read(&mut [0; 1]).await;
    read.is_ok_and(|bytes| bytes > 0)
}

/// Without a standby that has it nothing is acknowledged; with one it is.
#[tokio::test]
async fn a_post_waits_for_a_standby() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 1);
    group.leads().await;
    eventually("it takes posts", async || post_at_hub(group.hub(), "one").await).await;
    for index in [1, 2] {
        group.lose(index);
    }
    let waiting = tokio::time::timeout(Duration::from_millis(300), group.hub().post("t", "two"));
    assert!(waiting.await.is_err(), "nobody else has it");
    assert_eq!(group.hub().bodies().await, ["one"], "it is not to be read either");
    group.restart(2);
    let bodies = async || group.hub().bodies().await;
    eventually("the returned standby has it", async || bodies().await == ["one", "two"]).await;
}
