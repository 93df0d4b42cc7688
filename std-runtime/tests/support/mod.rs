//! A node that answers from memory, for tests of what stands on `NodeHandle`.
//!
//! It keeps the promises of the API (order, idempotency keys, per-id answers, waits) and nothing
//! else: no links, no disk, no limits but the one told by [`FakeNode::refuse`].

// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use replcore_runtime::api::{
    ApiError, Bytes, ConsumerStatus, DispatchRule, ErrorKind, NewMessage, NodeStatus, PostedId,
    QueueStatus, Reply, Request, Status, StoredMessage,
};
use replcore_runtime::handle::{NodeHandle, Pending};
use tokio::sync::Notify;

/// Longest body that the node takes.
pub const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Consumer {
    message_type: String,
    waiting: Vec<StoredMessage>,
    outstanding: Vec<StoredMessage>,
    redelivered: u64,
    dead: u64,
}

#[derive(Default)]
struct State {
    log: Vec<StoredMessage>,
    first: u64,
    posted: HashMap<Bytes, String>,
    consumers: BTreeMap<String, Consumer>,
    queues: BTreeMap<String, Vec<StoredMessage>>,
    nodes: BTreeMap<String, NodeStatus>,
    rules: Vec<DispatchRule>,
    not_ready: bool,
    refusal: Option<(usize, ErrorKind)>,
    posts: usize,
    administrators: Vec<String>,
}

/// The memory behind the handles; it outlives them, as a disk would.
#[derive(Clone, Default)]
pub struct FakeNode {
    state: Arc<Mutex<State>>,
    grown: Arc<Notify>,
}

impl FakeNode {
    /// Starts the node anew on what it remembers, in the present runtime.
    pub fn start(&self) -> NodeHandle {
        let (handle, mut requests) = NodeHandle::new();
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(pending) = requests.recv().await {
                let node = node.clone();
                tokio::spawn(async move { node.serve(pending).await });
            }
        });
        handle
    }

    /// What was posted.
    pub fn messages(&self) -> Vec<StoredMessage> {
        self.state.lock().unwrap().log.clone()
    }

    /// The bodies of what was posted, as text.
    pub fn bodies(&self) -> Vec<String> {
        let text = |it: StoredMessage| String::from_utf8(it.message.body.0).unwrap();
        self.messages().into_iter().map(text).collect()
    }

    /// Calls to post so far.
    pub fn posts(&self) -> usize {
        self.state.lock().unwrap().posts
    }

    /// Answers all posts with an error of `kind` after the next `after` messages.
    pub fn refuse(&self, after: usize, kind: ErrorKind) {
        self.state.lock().unwrap().refusal = Some((after, kind));
    }

    /// Ends what [`FakeNode::refuse`] began.
    pub fn accept(&self) {
        self.state.lock().unwrap().refusal = None;
    }

    /// Forgets the messages before `first`.
    pub fn trim(&self, first: u64) {
        let mut state = self.state.lock().unwrap();
        state.first = first;
        state.log.retain(|message| message.ordinal >= first);
    }

    /// Says whether the node is ready.
    pub fn set_ready(&self, ready: bool) {
        self.state.lock().unwrap().not_ready = !ready;
    }

    /// Who has asked for what only administrators may do, by the names in their certificates.
    pub fn administrators(&self) -> Vec<String> {
        self.state.lock().unwrap().administrators.clone()
    }

    /// Adds a leaf with an empty queue.
    pub fn add_leaf(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.queues.insert(name.into(), Vec::new());
        let leaf = NodeStatus {
            name: name.into(),
            state: "live".into(),
            address: "127.0.0.1:8181".into(),
            lease_left_ms: 870_000,
            round_trip_us: 420,
            ..NodeStatus::default()
        };
        state.nodes.insert(name.into(), leaf);
    }

    async fn serve(&self, pending: Pending) {
        let Pending { request, caller, mut answer } = pending;
        if request.administers() {
            let name = caller.map_or_else(|| "-".into(), |name| name.as_str().to_owned());
            self.state.lock().unwrap().administrators.push(name);
        }
        let wait_ms = match &request {
            Request::Read { wait_ms, .. } | Request::Fetch { wait_ms, .. } => *wait_ms,
            _ => 0,
        };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(wait_ms.into());
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let reply = self.state.lock().unwrap().answer(request.clone());
            let empty =
                matches!(&reply, Ok(Reply::Messages { messages, .. }) if messages.is_empty());
            if !empty || tokio::time::Instant::now() >= deadline {
                self.grown.notify_waiters();
                let _ = answer.send(reply);
                return;
            }
            tokio::select! {
                () = grown => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = answer.closed() => return,
            }
        }
    }
}

fn matches_type(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => pattern.is_empty() || pattern == text,
    }
}

fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no {what} {name:?}"))
}

impl State {
    fn answer(&mut self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Post { messages } => self.post(messages),
            Request::Read { from, limit, message_type, key, .. } => {
                Ok(self.read(from, limit.unwrap_or(100), message_type, key))
            }
            Request::Latest { message_type, key } => {
                let of = |it: &&StoredMessage| {
                    it.message.message_type == message_type && it.message.key.as_ref() == Some(&key)
                };
                Ok(Reply::Latest { message: self.log.iter().rfind(of).cloned() })
            }
            Request::Queues { after, limit } => {
                let (queues, more) = page(&self.queues, after, limit, |name, held| QueueStatus {
                    name: name.clone(),
                    kind: "leaf".into(),
                    messages: held.len() as u64,
                    ..QueueStatus::default()
                });
                Ok(Reply::Queues { queues, more })
            }
            Request::Nodes { after, limit } => {
                let (nodes, more) = page(&self.nodes, after, limit, |_, node| node.clone());
                Ok(Reply::Nodes { nodes, more })
            }
            Request::Peek { queue, skip, limit } => {
                let held = self.queues.get(&queue).ok_or_else(|| not_found("queue", &queue))?;
                let limit = limit.unwrap_or(10) as usize;
                let messages: Vec<_> =
                    held.iter().skip(skip as usize).take(limit).cloned().collect();
                let next = skip + messages.len() as u64;
                Ok(Reply::Messages { messages, next })
            }
            Request::Purge { queue, ids } => self.purge(&queue, ids),
            Request::Forget { node } => {
                self.queues.remove(&node);
                self.nodes.remove(&node).map(|_| Reply::Done).ok_or(not_found("node", &node))
            }
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Cluster(_) => Err(ApiError::new(ErrorKind::NotFound, "not a member")),
            Request::Consumers => {
                let consumers = self.consumers.iter().map(|(name, it)| it.status(name)).collect();
                Ok(Reply::Consumers { consumers })
            }
            Request::Subscribe { consumer, message_type, from_start } => {
                let message_type = message_type.unwrap_or_default();
                let held = if from_start { self.log.clone() } else { Vec::new() };
                let wanted =
                    |it: &StoredMessage| matches_type(&message_type, &it.message.message_type);
                let waiting = held.into_iter().filter(wanted).collect();
                self.consumers.entry(consumer).or_insert(Consumer {
                    message_type,
                    waiting,
                    ..Consumer::default()
                });
                Ok(Reply::Done)
            }
            Request::Fetch { consumer, limit, .. } => self.fetch(&consumer, limit),
            Request::Settle { consumer, ack, reject } => self.settle(&consumer, &ack, &reject),
            Request::Unsubscribe { consumer } => self
                .consumers
                .remove(&consumer)
                .map(|_| Reply::Done)
                .ok_or(not_found("consumer", &consumer)),
            Request::Rules => Ok(Reply::Rules { rules: self.rules.clone() }),
            Request::SetRules { rules } => {
                if rules.iter().any(|rule| rule.to.is_empty()) {
                    return Err(ApiError::new(ErrorKind::Invalid, "a rule without a queue"));
                }
                self.rules = rules;
                Ok(Reply::Rules { rules: self.rules.clone() })
            }
        }
    }

    fn post(&mut self, messages: Vec<NewMessage>) -> Result<Reply, ApiError> {
        self.posts += 1;
        let mut ids = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            let refused =
                |kind, text: &str| ApiError { kind, message: text.into(), index: Some(index) };
            if let Some((left, kind)) = &mut self.refusal {
                if *left == 0 {
                    return Err(refused(*kind, "refused, as told"));
                }
                *left -= 1;
            }
            if message.body.0.len() > BODY_BYTES_MAX {
                return Err(refused(ErrorKind::TooLarge, "the body is over the limit"));
            }
            if message.class.is_some_and(|class| class > 3) {
                return Err(refused(ErrorKind::Invalid, "class has to be 0 to 3"));
            }
            ids.push(self.store(message));
        }
        Ok(Reply::Posted { ids })
    }

    fn store(&mut self, message: NewMessage) -> PostedId {
        if let Some(id) = message.idempotency_key.as_ref().and_then(|key| self.posted.get(key)) {
            return PostedId { id: id.clone(), duplicate: true };
        }
        let ordinal = self.first + self.log.len() as u64;
        let id = format!("fake/1/{}/{ordinal}", message.class.unwrap_or(2));
        if let Some(key) = message.idempotency_key.clone() {
            self.posted.insert(key, id.clone());
        }
        let stored = StoredMessage {
            id: id.clone(),
            ordinal,
            origin: "fake".into(),
            time_ms: 1_790_000_000_000 + ordinal,
            time: "2026-09-21T14:13:20Z".into(),
            deliveries: 0,
            message,
        };
        for queue in &stored.message.to {
            self.queues.entry(queue.clone()).or_default().push(stored.clone());
        }
        for consumer in self.consumers.values_mut() {
            if matches_type(&consumer.message_type, &stored.message.message_type) {
                consumer.waiting.push(stored.clone());
            }
        }
        self.log.push(stored);
        PostedId { id, duplicate: false }
    }

    fn read(
        &self,
        from: u64,
        limit: u32,
        message_type: Option<String>,
        key: Option<Bytes>,
    ) -> Reply {
        let pattern = message_type.unwrap_or_default();
        let wanted = |it: &&StoredMessage| {
            it.ordinal >= from
                && matches_type(&pattern, &it.message.message_type)
                && (key.is_none() || it.message.key == key)
        };
        let messages: Vec<_> =
            self.log.iter().filter(wanted).take(limit as usize).cloned().collect();
        let end = self.first + self.log.len() as u64;
        let next = match messages.last() {
            Some(last) if messages.len() == limit as usize => last.ordinal + 1,
            _ => end.max(from),
        };
        Reply::Messages { messages, next }
    }

    fn purge(&mut self, queue: &str, ids: Option<Vec<String>>) -> Result<Reply, ApiError> {
        let held = self.queues.get_mut(queue).ok_or_else(|| not_found("queue", queue))?;
        let before = held.len();
        let mut not_found = Vec::new();
        match ids {
            None => held.clear(),
            Some(ids) => {
                for id in ids {
                    match held.iter().position(|message| message.id == id) {
                        Some(at) => drop(held.remove(at)),
                        None => not_found.push(id),
                    }
                }
            }
        }
        Ok(Reply::Purged { messages: (before - held.len()) as u64, not_found })
    }

    fn fetch(&mut self, name: &str, limit: Option<u32>) -> Result<Reply, ApiError> {
        let consumer = self.consumers.get_mut(name).ok_or_else(|| not_found("consumer", name))?;
        let count = consumer.waiting.len().min(limit.unwrap_or(100) as usize);
        let mut messages: Vec<_> = consumer.waiting.drain(..count).collect();
        for message in &mut messages {
            message.deliveries += 1;
        }
        consumer.outstanding.extend(messages.iter().cloned());
        Ok(Reply::Messages { messages, next: 0 })
    }

    fn settle(&mut self, name: &str, ack: &[String], reject: &[String]) -> Result<Reply, ApiError> {
        let consumer = self.consumers.get_mut(name).ok_or_else(|| not_found("consumer", name))?;
        let mut settled = 0;
        let mut not_found = Vec::new();
        for (id, dead) in ack.iter().map(|id| (id, 0)).chain(reject.iter().map(|id| (id, 1))) {
            match consumer.outstanding.iter().position(|message| message.id == *id) {
                Some(at) => {
                    consumer.outstanding.remove(at);
                    consumer.dead += dead;
                    settled += 1;
                }
                None => not_found.push(id.clone()),
            }
        }
        Ok(Reply::Settled { settled, not_found })
    }

    fn status(&self) -> Status {
        let end = self.first + self.log.len() as u64;
        let upstream = if self.not_ready { "connecting" } else { "registered" };
        Status {
            name: "fake".into(),
            role: "leaf".into(),
            version: "0.1.0".into(),
            epoch: 1,
            uptime_ms: 61_500,
            ready: !self.not_ready,
            upstreams: [("hub".to_string(), upstream.to_string())].into(),
            standbys: BTreeMap::new(),
            links: 1,
            log_bytes: 1 << 20,
            ordinals: [self.first, end],
            counters: [
                ("stored", end),
                ("link_frames_bad", 2),
                ("store_sync_microseconds", 1_500_000),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
        }
    }
}

impl Consumer {
    fn status(&self, name: &str) -> ConsumerStatus {
        ConsumerStatus {
            name: name.into(),
            message_type: self.message_type.clone(),
            messages: (self.waiting.len() + self.outstanding.len()) as u64,
            outstanding: self.outstanding.len() as u64,
            redelivered_total: self.redelivered,
            dead_total: self.dead,
            connected: false,
        }
    }
}

fn page<T, U>(
    all: &BTreeMap<String, T>,
    after: Option<String>,
    limit: Option<u32>,
    make: impl Fn(&String, &T) -> U,
) -> (Vec<U>, bool) {
    let after = after.unwrap_or_default();
    let rest = || all.iter().filter(|(name, _)| after.is_empty() || **name > after);
    let limit = limit.unwrap_or(100) as usize;
    (rest().take(limit).map(|(name, item)| make(name, item)).collect(), rest().count() > limit)
}
