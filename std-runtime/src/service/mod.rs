//! Answers the requests of the API at a running node, on the node's own thread.

mod consumers;
pub(crate) mod messages;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::{Failure, Machine};
use replcore::stream::{Name, QueueId, RecordId};
use serde::{Deserialize, Serialize};

use self::consumers::Fetching;
use self::messages::{id_text, parse_id, post_error, to_message, to_record, type_fits};
use crate::api::{
    ApiError, Bytes, ConsumerStatus, DispatchRule, ErrorKind, NewMessage, PostedId, QueueStatus,
    Reply, Request, StoredMessage,
};
use crate::driver::Reactor;
use crate::engine::Stopped;
use crate::options::ConsumerOptions;
use crate::store::{Consumer, QueueInfo, QueueKind, Store};

/// Where the rules that were set at run time are kept.
const RULES_SETTING: &str = "rules";
/// Most messages of one answer.
const MESSAGES_MAX: u32 = 1000;
/// Longest wait for a message.
const WAIT_MS_MAX: u32 = 60_000;
/// After this many bytes of bodies an answer is full.
const REPLY_BYTES_MAX: usize = 8 << 20;
/// Bytes of the log that a read with a filter looks at before others have their turn.
const SCAN_BYTES_MAX: usize = 4 << 20;

/// The rules as they are kept, and the configured ones that they replaced: when somebody changes
/// the configuration afterwards, that counts.
#[derive(Serialize, Deserialize)]
struct KeptRules {
    configured: Vec<DispatchRule>,
    rules: Vec<DispatchRule>,
}

/// The requests that any machine's node answers; the others are those of `node`.
pub(crate) struct Service<M: Machine, S: Store> {
    reactor: Rc<Reactor<M, S>>,
    name: Name,
    consumer_options: ConsumerOptions,
    message_bytes_max: u32,
    configured_rules: RefCell<Vec<DispatchRule>>,
    fetching: RefCell<BTreeMap<Name, Fetching>>,
    stopping: Cell<bool>,
}

type Answered = Result<Reply, ApiError>;

impl<M: Machine + 'static, S: Store + 'static> Service<M, S> {
    pub(crate) fn new(
        reactor: Rc<Reactor<M, S>>,
        name: Name,
        consumer_options: ConsumerOptions,
        message_bytes_max: u32,
    ) -> Self {
        Self {
            reactor,
            name,
            consumer_options,
            message_bytes_max,
            configured_rules: RefCell::default(),
            fetching: RefCell::default(),
            stopping: Cell::new(false),
        }
    }

    /// From now on nothing new is taken.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Answers a request. `None` when it is not one of those that every node answers.
    pub(crate) async fn answer(&self, request: Request) -> Option<Answered> {
        Some(match request {
            Request::Post { messages } => self.post(&messages).await,
            Request::Read { from, limit, message_type, key, wait_ms } => {
                self.read(from, limit, message_type.as_deref(), key.as_ref(), wait_ms).await
            }
            Request::Latest { message_type, key } => self.latest(&message_type, &key).await,
            Request::Queues { after, limit } => Ok(self.queues(after.as_deref(), limit)),
            Request::Peek { queue, skip, limit } => self.peek(&queue, skip, limit),
            Request::Purge { queue, ids } => self.purge(&queue, ids.as_deref()).await,
            Request::Consumers => Ok(self.consumers()),
            Request::Subscribe { consumer, message_type, from_start } => {
                self.subscribe(consumer, message_type.unwrap_or_default(), from_start).await
            }
            Request::Fetch { consumer, limit, wait_ms } => {
                self.fetch(&consumer, limit, wait_ms).await
            }
            Request::Settle { consumer, ack, reject } => {
                self.settle(&consumer, &ack, &reject).await
            }
            Request::Unsubscribe { consumer } => self.unsubscribe(&consumer).await,
            Request::Rules => {
                Ok(Reply::Rules { rules: self.reactor.engine.borrow().router().rules().to_vec() })
            }
            Request::SetRules { rules } => self.set_rules(rules).await,
            Request::Cluster(_) => Err(ApiError::new(
                ErrorKind::NotFound,
                "this is a node, not a member of a cluster; `replcore status` asks it",
            )),
            Request::Nodes { .. } | Request::Forget { .. } | Request::Status => return None,
        })
    }

    async fn committed(&self) -> Result<(), ApiError> {
        self.reactor.committed().await.map_err(stopped)
    }

    async fn post(&self, messages: &[NewMessage]) -> Answered {
        if self.stopping.get() {
            let text = "the node is stopping; post again in a moment";
            return Err(ApiError::new(ErrorKind::Unavailable, text));
        }
        let mut ids = Vec::with_capacity(messages.len());
        let mut refused = None;
        for (index, message) in messages.iter().enumerate() {
            match self.post_one(message) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    refused = Some(ApiError { index: Some(index), ..error });
                    break;
                }
            }
        }
        if !ids.is_empty() {
            self.committed().await?;
        }
        refused.map_or(Ok(Reply::Posted { ids }), Err)
    }

    fn post_one(&self, message: &NewMessage) -> Result<PostedId, ApiError> {
        self.reactor.with(|engine| {
            let mut record = to_record(message, self.name.as_str(), engine.wall_ms())?;
            if record.len() > self.message_bytes_max as usize {
                return Err(post_error(crate::store::PostError::TooLarge(self.message_bytes_max)));
            }
            let posted = engine.post(&mut record).map_err(post_error)?;
            let id = id_text(posted.id, self.name.as_str());
            Ok(PostedId { id, duplicate: posted.duplicate })
        })
    }

    async fn read(
        &self,
        from: u64,
        limit: Option<u32>,
        message_type: Option<&str>,
        key: Option<&Bytes>,
        wait_ms: u32,
    ) -> Answered {
        let limit = limit.unwrap_or(100).clamp(1, MESSAGES_MAX) as usize;
        let deadline = deadline(wait_ms);
        let mut from = from;
        loop {
            let turned = self.reactor.turned.notified();
            let (messages, next, more) = self.scan(from, limit, message_type, key)?;
            if !messages.is_empty() || (!more && StdInstant::now() >= deadline) {
                return Ok(Reply::Messages { messages, next });
            }
            from = next;
            if more {
                tokio::task::yield_now().await;
            } else {
                let _ = tokio::time::timeout_at(deadline.into(), turned).await;
            }
        }
    }

    /// A stretch of the log: what fits, where to go on, and whether there is more.
    fn scan(
        &self,
        from: u64,
        limit: usize,
        message_type: Option<&str>,
        key: Option<&Bytes>,
    ) -> Result<(Vec<StoredMessage>, u64, bool), ApiError> {
        let mut messages = Vec::new();
        let mut room = REPLY_BYTES_MAX;
        let mut engine = self.reactor.engine.borrow_mut();
        let wall_ms = engine.wall_ms();
        let store = engine.store_mut();
        let next = store
            .read(from, SCAN_BYTES_MAX, &mut |ordinal, record| {
                let fits = message_type
                    .is_none_or(|filter| type_fits(filter, record.message_type()))
                    && key.is_none_or(|key| key.0 == record.key());
                if fits {
                    messages.push(to_message(record, ordinal, 0, wall_ms));
                    room = room.saturating_sub(record.as_bytes().len());
                }
                messages.len() < limit && room > 0
            })
            .map_err(|reason| stopped(Stopped::Store(reason)))?;
        let more = next > from && next < store.ordinals()[1];
        Ok((messages, next, more))
    }

    async fn latest(&self, message_type: &str, key: &Bytes) -> Answered {
        loop {
            let (mut message, mut place) = (None, 0);
            let visible = {
                let mut engine = self.reactor.engine.borrow_mut();
                let wall_ms = engine.wall_ms();
                engine
                    .store_mut()
                    .latest(message_type, &key.0, &mut |ordinal, record| {
                        place = ordinal;
                        message = Some(to_message(record, ordinal, 0, wall_ms));
                    })
                    .map_err(|reason| stopped(Stopped::Store(reason)))?;
                engine.store().ordinals()[1]
            };
            if message.is_none() || place < visible {
                return Ok(Reply::Latest { message });
            }
            // No standby has it yet, so that it may still come to nothing.
            self.reactor.wake_turn();
            self.committed().await?;
        }
    }

    fn queues(&self, after: Option<&str>, limit: Option<u32>) -> Reply {
        let limit = limit.unwrap_or(100).clamp(1, MESSAGES_MAX) as usize;
        let engine = self.reactor.engine.borrow();
        let mut infos = engine.store().queues(engine.wall_ms(), after, limit + 1);
        let more = infos.len() > limit;
        infos.truncate(limit);
        let status = |info: &QueueInfo| queue_status(info, engine.is_read(info.id));
        Reply::Queues { queues: infos.iter().map(status).collect(), more }
    }

    fn peek(&self, queue: &str, skip: u64, limit: Option<u32>) -> Answered {
        let queue = self.known_queue(queue)?;
        let limit = limit.unwrap_or(10).clamp(1, MESSAGES_MAX) as usize;
        let mut engine = self.reactor.engine.borrow_mut();
        let wall_ms = engine.wall_ms();
        let mut messages = Vec::new();
        let mut room = REPLY_BYTES_MAX;
        engine
            .store_mut()
            .peek(queue, skip, limit, &mut |place, record| {
                if room > 0 {
                    room = room.saturating_sub(record.as_bytes().len());
                    messages.push(to_message(record, place.ordinal, 0, wall_ms));
                }
            })
            .map_err(|reason| stopped(Stopped::Store(reason)))?;
        let next = skip + messages.len() as u64;
        Ok(Reply::Messages { messages, next })
    }

    async fn purge(&self, queue: &str, ids: Option<&[String]>) -> Answered {
        let queue = self.known_queue(queue)?;
        let mut not_found = Vec::new();
        let mut texts = BTreeMap::new();
        for text in ids.unwrap_or_default() {
            match parse_id(text) {
                Some(id) => drop(texts.insert(id, text.clone())),
                None => not_found.push(text.clone()),
            }
        }
        let wanted: Vec<RecordId> = texts.keys().copied().collect();
        let purged = self
            .reactor
            .with(|engine| {
                engine.commit_soon();
                engine.store_mut().purge(queue, ids.map(|_| wanted.as_slice()))
            })
            .map_err(|reason| stopped(Stopped::Store(reason)))?;
        self.committed().await?;
        not_found.extend(purged.not_found.iter().filter_map(|id| texts.get(id).cloned()));
        Ok(Reply::Purged { messages: purged.messages, not_found })
    }

    fn known_queue(&self, queue: &str) -> Result<QueueId, ApiError> {
        let name = parse_name("queue", queue)?;
        let engine = self.reactor.engine.borrow();
        match engine.store().queue(engine.wall_ms(), &name) {
            Some(info) => Ok(info.id),
            None => Err(ApiError::new(
                ErrorKind::NotFound,
                format!("there is no queue {queue}; `queue list` shows those there are"),
            )),
        }
    }

    fn consumers(&self) -> Reply {
        let engine = self.reactor.engine.borrow();
        let fetching = self.fetching.borrow();
        let status = |consumer: Consumer| {
            let name = Name::new(&consumer.name).ok();
            let info = name.and_then(|name| engine.store().queue(engine.wall_ms(), &name));
            let state = name.and_then(|name| fetching.get(&name));
            ConsumerStatus {
                messages: info.map_or(0, |info| info.messages.iter().sum()),
                outstanding: state.map_or(0, Fetching::outstanding),
                redelivered_total: state.map_or(0, |state| state.redelivered_total),
                dead_total: state.map_or(0, |state| state.dead_total),
                connected: name.is_some_and(|name| engine.is_read(name.queue_id())),
                name: consumer.name,
                message_type: consumer.message_type,
            }
        };
        Reply::Consumers { consumers: engine.store().consumers().into_iter().map(status).collect() }
    }

    async fn subscribe(
        &self,
        consumer: String,
        message_type: String,
        from_start: bool,
    ) -> Answered {
        let name = parse_name("consumer", &consumer)?;
        self.reactor.with(|engine| {
            let store = engine.store();
            let known = store.consumers().into_iter().find(|known| known.name == consumer);
            if let Some(known) = known {
                // Who names no type goes on with what the consumer was made for.
                if message_type.is_empty() || known.message_type == message_type {
                    return Ok(());
                }
                let text = format!(
                    "consumer {consumer} is there with type {:?}; unsubscribe it first",
                    known.message_type
                );
                return Err(ApiError::new(ErrorKind::Conflict, text));
            }
            if store.queue(engine.wall_ms(), &name).is_some() {
                let text = format!("{consumer} is the name of a queue; give the consumer another");
                return Err(ApiError::new(ErrorKind::Conflict, text));
            }
            let consumer = Consumer { name: consumer, message_type };
            engine.create_consumer(&consumer, from_start).map(|_| ()).map_err(post_error)
        })?;
        self.committed().await?;
        Ok(Reply::Done)
    }

    fn known_consumer(&self, consumer: &str) -> Result<Name, ApiError> {
        let name = parse_name("consumer", consumer)?;
        let engine = self.reactor.engine.borrow();
        if engine.store().consumers().iter().any(|known| known.name == consumer) {
            return Ok(name);
        }
        let text = format!("there is no consumer {consumer}; subscribe it first");
        Err(ApiError::new(ErrorKind::NotFound, text))
    }

    async fn fetch(&self, consumer: &str, limit: Option<u32>, wait_ms: u32) -> Answered {
        let name = self.known_consumer(consumer)?;
        let limit = limit.unwrap_or(100).clamp(1, MESSAGES_MAX) as usize;
        let deadline = deadline(wait_ms);
        loop {
            let turned = self.reactor.turned.notified();
            if self.reactor.engine.borrow().is_read(name.queue_id()) {
                self.fetching.borrow_mut().remove(&name);
                let text = format!("consumer {consumer} is being read over a link");
                return Err(ApiError::new(ErrorKind::Conflict, text));
            }
            let fetched = self.reactor.with(|engine| {
                let mut fetching = self.fetching.borrow_mut();
                let state =
                    fetching.entry(name).or_insert_with(|| Fetching::new(self.consumer_options));
                state.fetch(engine, &name, limit, REPLY_BYTES_MAX)
            });
            let fetched = fetched.map_err(stopped)?;
            if !fetched.messages.is_empty() || StdInstant::now() >= deadline {
                return Ok(Reply::Messages { messages: fetched.messages, next: 0 });
            }
            let now = self.reactor.now();
            let due = fetched.wake.map(|wake| StdInstant::now() + wake.since(now));
            let until = due.map_or(deadline, |due| due.min(deadline));
            // A turn without news for this consumer wakes it too; a look costs little.
            let _ = tokio::time::timeout_at(until.into(), turned).await;
            self.known_consumer(consumer)?;
        }
    }

    async fn settle(&self, consumer: &str, ack: &[String], reject: &[String]) -> Answered {
        let name = self.known_consumer(consumer)?;
        let mut settled = 0;
        let mut not_found = Vec::new();
        let both = ack.iter().map(|id| (id, false)).chain(reject.iter().map(|id| (id, true)));
        for (text, reject) in both {
            let done = parse_id(text).map_or(Ok(false), |id| {
                self.reactor.with(|engine| {
                    let mut fetching = self.fetching.borrow_mut();
                    let state = fetching.get_mut(&name);
                    state.map_or(Ok(false), |state| state.settle(engine, &name, id, reject))
                })
            });
            if done.map_err(stopped)? {
                settled += 1;
            } else {
                not_found.push(text.clone());
            }
        }
        if settled > 0 {
            self.committed().await?;
        }
        Ok(Reply::Settled { settled, not_found })
    }

    async fn unsubscribe(&self, consumer: &str) -> Answered {
        let name = self.known_consumer(consumer)?;
        self.fetching.borrow_mut().remove(&name);
        self.reactor.with(|engine| {
            engine.commit_soon();
            engine.store_mut().remove_consumer(&name)
        });
        self.committed().await?;
        Ok(Reply::Done)
    }

    /// Puts the configured rules in force, unless others were set at run time since.
    ///
    /// # Errors
    /// A rule is not sound; the rules in force stay.
    pub(crate) fn configure_rules(&self, rules: Vec<DispatchRule>) -> Result<(), ApiError> {
        let mut engine = self.reactor.engine.borrow_mut();
        let kept = engine.store().setting(RULES_SETTING);
        let kept: Option<KeptRules> = kept.and_then(|json| serde_json::from_slice(json).ok());
        let in_force = match kept {
            Some(kept) if kept.configured == rules => kept.rules,
            _ => rules.clone(),
        };
        engine.router_mut().set_rules(in_force).map_err(rule_error)?;
        *self.configured_rules.borrow_mut() = rules;
        Ok(())
    }

    async fn set_rules(&self, rules: Vec<DispatchRule>) -> Answered {
        let kept =
            KeptRules { configured: self.configured_rules.borrow().clone(), rules: rules.clone() };
        let json = serde_json::to_vec(&kept)
            .map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))?;
        self.reactor.with(|engine| {
            crate::engine::check_rules(&rules).map_err(rule_error)?;
            engine.store_mut().put_setting(RULES_SETTING, &json).map_err(|_| {
                let text = "the rules together are too long; 64 KiB of JSON at most";
                ApiError::new(ErrorKind::TooLarge, text)
            })?;
            engine.commit_soon();
            engine.router_mut().set_rules(rules.clone()).map_err(rule_error)
        })?;
        self.committed().await?;
        Ok(Reply::Rules { rules })
    }
}

fn deadline(wait_ms: u32) -> StdInstant {
    StdInstant::now() + Duration::from_millis(u64::from(wait_ms.min(WAIT_MS_MAX)))
}

pub(crate) fn stopped(why: Stopped) -> ApiError {
    let text = match why {
        Stopped::Halted(reason) => format!("the node has halted: {reason}"),
        Stopped::Store(Failure::Full) => {
            "no space for the log; free some, or raise limits.log_bytes_max".to_owned()
        }
        Stopped::Store(reason) => format!("the store does not work ({reason}); restart the node"),
    };
    ApiError::new(ErrorKind::Unavailable, text)
}

fn rule_error((index, error): (usize, replcore::queue::rules::RuleError)) -> ApiError {
    let text = format!("rule {}: {error}", index + 1);
    ApiError { index: Some(index), ..ApiError::new(ErrorKind::Invalid, text) }
}

pub(crate) fn parse_name(what: &str, text: &str) -> Result<Name, ApiError> {
    Name::new(text)
        .map_err(|error| ApiError::new(ErrorKind::Invalid, format!("{what} {text:?}: {error}")))
}

fn queue_status(info: &QueueInfo, connected: bool) -> QueueStatus {
    let kind = match info.kind {
        QueueKind::Leaf => "leaf",
        QueueKind::Upstream => "upstream",
        QueueKind::Consumer => "consumer",
        QueueKind::DeadLetter => "dead_letter",
    };
    QueueStatus {
        name: info.name.as_str().to_owned(),
        kind: kind.to_owned(),
        messages: info.messages.iter().sum(),
        bytes: info.bytes,
        messages_by_class: info.messages,
        oldest_ms: info.oldest_ms,
        appended_total: info.appended_total,
        acknowledged_total: info.acknowledged_total,
        dropped_total: info.dropped_total,
        expired_total: info.expired_total,
        connected,
    }
}
