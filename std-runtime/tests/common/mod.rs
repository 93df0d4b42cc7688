//! Nodes on loopback for tests: each in a folder of its own, on a port that the system chooses.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use replcore::stream::Name;
use replcore_runtime::api::{NewMessage, QueueStatus, Reply, Request, Status, StoredMessage};
use replcore_runtime::handle::NodeHandle;
use replcore_runtime::node::{self, Running, StopReport};
use replcore_runtime::options::{Address, NodeOptions, NodeRole, Peer};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A running node.
pub struct TestNode {
    pub handle: NodeHandle,
    pub running: Running,
    pub options: NodeOptions,
}

impl TestNode {
    pub fn start(options: NodeOptions) -> Self {
        let (handle, running) = node::start(options.clone()).unwrap();
        Self { handle, running, options }
    }

    pub fn address(&self) -> Address {
        self.running.addresses()[0].clone()
    }

    pub fn stop(self) -> StopReport {
        self.running.stop();
        self.running.join()
    }

    /// Ends it as a crash would.
    pub fn crash(self) -> NodeOptions {
        let address = self.address();
        self.running.abort();
        self.running.join();
        // Where it was, so that the others find it again.
        let mut options = self.options;
        options.listen = vec![address];
        options
    }

    pub async fn call(&self, request: Request) -> Reply {
        tokio::time::timeout(PATIENCE, self.handle.call(request)).await.unwrap().unwrap()
    }

    pub async fn post(&self, message_type: &str, body: &str) -> String {
        let message = NewMessage {
            message_type: message_type.into(),
            body: replcore_runtime::api::Bytes(body.as_bytes().to_vec()),
            ..NewMessage::default()
        };
        let Reply::Posted { ids } = self.call(Request::Post { messages: vec![message] }).await
        else {
            panic!()
        };
        ids[0].id.clone()
    }

    /// All messages that the node holds.
    pub async fn read_all(&self) -> Vec<StoredMessage> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let request = Request::Read {
                from,
                limit: Some(1000),
                message_type: None,
                key: None,
                wait_ms: 0,
            };
            let Reply::Messages { messages, next } = self.call(request).await else { panic!() };
            if messages.is_empty() {
                return all;
            }
            all.extend(messages);
            from = next;
        }
    }

    pub async fn bodies(&self) -> Vec<String> {
        let all = self.read_all().await;
        all.into_iter().map(|one| String::from_utf8(one.message.body.0).unwrap()).collect()
    }

    pub async fn status(&self) -> Status {
        match self.call(Request::Status).await {
            Reply::Status(status) => *status,
            _ => panic!(),
        }
    }

    pub async fn queue(&self, queue: &str) -> Option<QueueStatus> {
        let request = Request::Queues { after: None, limit: Some(1000) };
        let Reply::Queues { queues, .. } = self.call(request).await else { panic!() };
        queues.into_iter().find(|status| status.name == queue)
    }

    pub async fn live_leaves(&self) -> usize {
        let request = Request::Nodes { after: None, limit: Some(1000) };
        let Reply::Nodes { nodes, .. } = self.call(request).await else { panic!() };
        nodes.iter().filter(|node| node.state == "live").count()
    }
}

/// Waits until `done` says so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn hub_options(folder: &Path, text: &str) -> NodeOptions {
    let mut options = NodeOptions::new(name(text), NodeRole::Hub, folder.join(text));
    options.listen = vec![Address::Tcp("127.0.0.1:0".into())];
    tune(&mut options);
    options
}

pub fn leaf_options(folder: &Path, text: &str, hubs: &[(&str, Address)]) -> NodeOptions {
    let mut options = NodeOptions::new(name(text), NodeRole::Leaf, folder.join(text));
    options.listen = vec![Address::Tcp("127.0.0.1:0".into())];
    let peer =
        |(text, address): &(&str, Address)| Peer { name: name(text), address: address.clone() };
    options.upstreams = hubs.iter().map(peer).collect();
    tune(&mut options);
    options
}

fn tune(options: &mut NodeOptions) {
    options.limits.segment_bytes = 1 << 20;
    options.limits.links_max = 256;
    options.deadlines.reconnect_ms = 20;
    options.deadlines.reconnect_ms_max = 200;
}
