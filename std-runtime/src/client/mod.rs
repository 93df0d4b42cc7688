//! For programs: posting, reading as a named consumer, and calls, over the binary protocol.
//!
//! Everything here runs on the thread of a [`tokio::task::LocalSet`], without a thread of its own:
//! what is posted gathers until the program waits for something, and then leaves in one write.
//!
//! ```no_run
//! use replcore_runtime::client::{Client, ClientOptions};
//! use replcore::log::record::Message;
//! use replcore::stream::{CLASS_DEFAULT, Name};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! tokio::task::LocalSet::new().block_on(&runtime, async {
//!     let options = ClientOptions::new(Name::new("till-7")?, "127.0.0.1:8181".parse()?);
//!     let client = Client::open(options);
//!     client.post(&Message { body: b"42", ..Message::default() }, CLASS_DEFAULT).await?;
//!     client.flush().await?;
//!     Ok(())
//! })
//! # }
//! ```

mod outbox;
mod store;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::LinkId;
use replcore::leaf::{ConsumerConfig, Leaf, LeafConfig, LeafEvent};
use replcore::link::LinkSettings;
use replcore::log::record::{EntryError, Message, MessageError, Record, encode};
use replcore::rng::Rng;
use replcore::stream::{Address as ShortText, Epoch, Name, Position, RecordId, StreamKey};
use replcore::time::Stamp;
use replcore::wire::{Call, RefuseReason, Role};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

pub(crate) use self::store::ClientStore;
use crate::api::{ApiError, ErrorKind, Outcome, Reply, Request};
use crate::driver::{Reactor, ReactorConfig, Stream, wall_ms};
use crate::engine::{Engine, EngineConfig, REFUSAL_ID, Router, Ways};
use crate::options::{Address, Compression};
use crate::store::Identity;
use crate::tls::Tls;

/// The queue that a program's messages come from, as its node sees it.
const POST_QUEUE: &str = "post";

/// A consumer to read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Its name.
    pub name: Name,
    /// Only messages of this type; a trailing `*` matches any rest; empty for all. At most 63
    /// bytes. Counts when the consumer is new.
    pub message_type: String,
    /// A new consumer starts with what the node already holds.
    pub from_start: bool,
}

/// What a [`Client`] is told at its start.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The program's name. Two programs that post at one node at once need two names.
    pub name: Name,
    /// Where the node listens.
    pub address: Address,
    /// Mutual TLS; the certificate's name is then the program's name.
    pub tls: Option<Tls>,
    /// The consumer to read as, if any.
    pub consumer: Option<ConsumerOptions>,
    /// Messages that may be posted and not acknowledged. Default 1,000.
    pub window_messages: usize,
    /// Bytes that may be posted and not acknowledged; one message may go beyond. Default 4 MiB.
    pub window_bytes: usize,
    /// Bytes of messages that may be on their way to the program. Default 1 MiB.
    pub receive_window_bytes: u32,
    /// Opening a connection. Default 5 s.
    pub connect: Duration,
    /// From connection to greeting. Default 5 s.
    pub handshake: Duration,
    /// How long to go on trying while nobody answers, in [`Client::post`] and its like. Default
    /// 60 s.
    pub patience: Duration,
    /// Compression of what is posted.
    pub compression: Compression,
}

impl ClientOptions {
    /// The defaults.
    pub const fn new(name: Name, address: Address) -> Self {
        Self {
            name,
            address,
            tls: None,
            consumer: None,
            window_messages: 1000,
            window_bytes: 4 << 20,
            receive_window_bytes: 1 << 20,
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            patience: Duration::from_secs(60),
            compression: Compression::None,
        }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// Nobody answers there, or the link does not come about; with the last reason.
    Unreachable(String),
    /// The node refuses this program.
    Refused(RefuseReason),
    /// The message is not sound.
    Message(MessageError),
    /// Posts are not stored, and others are: which, and why, in words of the node. It is told once.
    NotAdmitted(ApiError),
    /// Bytes from the node are not what they should be.
    Record(EntryError),
    /// The engine has stopped on a broken invariant.
    Stopped,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Refused(reason) => write!(f, "the node refuses this program: {reason}"),
            Self::Message(error) => write!(f, "the message is not sound: {error}"),
            Self::NotAdmitted(error) => f.write_str(&error.message),
            Self::Record(error) => write!(f, "the node sent a damaged message: {error}"),
            Self::Stopped => f.write_str("the client has stopped on an internal error"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A message that was read.
#[derive(Clone, Debug)]
pub struct Delivery {
    source: StreamKey,
    position: Position,
    bytes: Vec<u8>,
}

impl Delivery {
    /// The message.
    ///
    /// # Errors
    /// It is damaged.
    pub fn record(&self) -> Result<Record<'_>, ClientError> {
        Record::check(&self.bytes, crc32c::crc32c).map_err(ClientError::Record)
    }
}

type ClientReactor = Reactor<Leaf, ClientStore>;
type Waiting = HashMap<u32, oneshot::Sender<Result<Reply, ApiError>>>;

/// What the tasks of a client share with its owner.
struct State {
    options: ClientOptions,
    waiting: RefCell<Waiting>,
    refused: Cell<Option<RefuseReason>>,
    /// Why the last dial came to nothing; empty after one that did not.
    trouble: RefCell<String>,
    /// The first posts that the node has not stored for what they are, since it was told.
    not_admitted: RefCell<Option<ApiError>>,
    dialing: RefCell<Option<AbortHandle>>,
}

/// A program's end of a link to a node. Connects, and connects again, by itself.
pub struct Client {
    reactor: Rc<ClientReactor>,
    state: Rc<State>,
    turns: AbortHandle,
    next_call: Cell<u32>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.turns.abort();
        if let Some(dialing) = self.state.dialing.borrow_mut().take() {
            dialing.abort();
        }
    }
}

impl Client {
    /// A client that begins to connect. Must be called inside a [`tokio::task::LocalSet`].
    ///
    /// # Panics
    /// Outside of one.
    pub fn open(options: ClientOptions) -> Self {
        let mut rng = Rng::new(wall_ms() ^ u64::from(std::process::id()) << 48);
        // Another than that of any earlier program of this name: positions start anew with each.
        let epoch = Epoch(rng.next_u64() as u32);
        let identity = Identity { name: options.name, instance: rng.next_u64(), epoch };
        let mut settings = LinkSettings::new(options.name, identity.instance, epoch);
        settings.frame_bytes_max = EngineConfig::default().frame_bytes_max;
        settings.window_bytes = options.receive_window_bytes;
        settings.handshake_ms = options.handshake.as_millis() as u32;
        if options.compression == Compression::Lz4 {
            settings.features |= replcore::wire::FEATURE_LZ4;
        }
        let queue = Name::new(POST_QUEUE).ok();
        let mut config = LeafConfig::new(settings, rng.next_u64());
        config.role = Role::Client;
        config.queue = queue;
        config.dial.retry_ms_min = 50;
        config.dial.retry_ms_max = 2_000;
        config.consumer = options.consumer.as_ref().map(|consumer| ConsumerConfig {
            name: consumer.name,
            message_type: ShortText::new(&consumer.message_type).ok(),
            from_start: consumer.from_start,
        });
        let engine_config = EngineConfig {
            links_max: 1,
            compression: options.compression,
            manual_acknowledgement: true,
            maintain_ms: 60_000,
            ..EngineConfig::default()
        };
        let queue_id = queue.map_or_else(Default::default, |name| name.queue_id());
        let record_bytes_max = 64 << 20;
        let store = ClientStore::new(identity, queue_id, record_bytes_max);
        let ways = Ways { follow: |_, _, _| {}, peer: peer_of };
        let router = Router::new(options.name, false, &[]);
        let now = replcore::time::Instant::ZERO;
        let (engine, _) = Engine::new(engine_config, Leaf::new(config), store, router, ways, now);
        let reactor = Reactor::new(
            ReactorConfig {
                links_max: 1,
                frame_bytes_max: engine_config.frame_bytes_max,
                write_stall: Duration::from_secs(15),
            },
            engine,
        );
        let state = Rc::new(State {
            options,
            waiting: RefCell::default(),
            refused: Cell::new(None),
            trouble: RefCell::default(),
            not_admitted: RefCell::default(),
            dialing: RefCell::default(),
        });
        let shared = state.clone();
        let after = move |reactor: &Rc<ClientReactor>| shared.after_turn(reactor);
        let turns = tokio::task::spawn_local(reactor.clone().run_turns(after)).abort_handle();
        Self { reactor, state, turns, next_call: Cell::new(0) }
    }

    /// Waits until the node has greeted.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the first attempt fails, or after the patience;
    /// [`ClientError::Refused`].
    pub async fn connected(&self) -> Result<(), ClientError> {
        self.until(true, |engine| engine.machine().is_connected().then_some(())).await
    }

    /// Posts a message; waits while the window is full. That it is posted does not mean that it is
    /// safe: see [`Client::flush`]. What is not acknowledged is sent again over the next link,
    /// without doubling.
    ///
    /// # Errors
    /// [`ClientError::Message`], and nothing was posted; [`ClientError::Unreachable`] when the
    /// window stays full for longer than the patience.
    pub async fn post(&self, message: &Message<'_>, class: u8) -> Result<(), ClientError> {
        let (messages, bytes) =
            (self.state.options.window_messages, self.state.options.window_bytes);
        let full = |store: &ClientStore| {
            let (held, held_bytes) = store.unacknowledged();
            held >= messages || held_bytes >= bytes
        };
        if full(self.reactor.engine.borrow().store()) {
            self.until(false, |engine| (!full(engine.store())).then_some(())).await?;
        }
        let length = message.record_bytes().map_err(ClientError::Message)?;
        let id = RecordId { class, ..RecordId::default() };
        let mut engine = self.reactor.engine.borrow_mut();
        engine
            .store_mut()
            .outbox(class)
            .append(length, |out| encode(message, id, Stamp::UNSET, out, crc32c::crc32c))
            .map_err(ClientError::Message)?;
        engine.commit_soon();
        drop(engine);
        self.reactor.wake_turn();
        Ok(())
    }

    /// Messages that are posted and not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.reactor.engine.borrow().store().unacknowledged().0
    }

    /// Waits until everything that was posted is acknowledged: stored at the node as safely as it
    /// is set up to.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when that takes longer than the patience;
    /// [`ClientError::Refused`]. Nothing is given up: the messages are still posted.
    /// [`ClientError::NotAdmitted`]: everything is acknowledged, and what it names is not stored,
    /// since a schema of the node does not admit it; see [`crate::schema`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.until(false, |engine| (engine.store().unacknowledged().0 == 0).then_some(())).await?;
        self.state.not_admitted.take().map_or(Ok(()), |error| Err(ClientError::NotAdmitted(error)))
    }

    /// The next message of the consumer. Waits for as long as it takes.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Stopped`].
    pub async fn next(&self) -> Result<Delivery, ClientError> {
        loop {
            if let Some(delivery) = self.try_next() {
                return Ok(delivery);
            }
            let turned = self.reactor.turned.notified();
            self.check()?;
            turned.await;
        }
    }

    /// The next message of the consumer, when one has arrived.
    pub fn try_next(&self) -> Option<Delivery> {
        let mut engine = self.reactor.engine.borrow_mut();
        let arrived = engine.store_mut().inbox.pop_front()?;
        let (source, position) = (arrived.source, arrived.position);
        Some(Delivery { source, position, bytes: arrived.bytes })
    }

    /// This message and all of its class before it are done: they do not come again.
    pub fn acknowledge(&self, delivery: &Delivery) {
        let mut engine = self.reactor.engine.borrow_mut();
        let through = Position(delivery.position.0 + 1);
        if let Some(source) = engine.store().present(&delivery.source, delivery.position) {
            let bytes = engine.store_mut().settle(&source, through);
            if bytes > 0 {
                engine.acknowledge(&source, bytes);
            }
        }
        drop(engine);
        self.reactor.wake_turn();
    }

    /// This message is for the dead letters; all of its class before it are done.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: without a link nothing can be refused; it comes again.
    pub async fn reject(&self, delivery: &Delivery) -> Result<(), ClientError> {
        self.until(false, |engine| {
            let position = delivery.position;
            let source = engine.store().present(&delivery.source, position)?;
            let (_, stream) = engine.incoming(&source)?;
            engine.command(|leaf, now| leaf.reject(now, stream, position)).ok()
        })
        .await?;
        self.acknowledge(delivery);
        Ok(())
    }

    /// Asks the node something and waits for the answer.
    ///
    /// # Errors
    /// What the node answers; [`ErrorKind::Unavailable`] when it cannot be reached, or does not
    /// answer within `wait`, or the link breaks: then it may have been done or not.
    pub async fn call(&self, request: &Request, wait: Duration) -> Result<Reply, ApiError> {
        let unavailable = |text: String| ApiError::new(ErrorKind::Unavailable, text);
        self.connected().await.map_err(|error| unavailable(error.to_string()))?;
        let payload = serde_json::to_vec(request)
            .map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))?;
        let id = self.next_call.get();
        self.next_call.set(id.wrapping_add(1) % REFUSAL_ID);
        let (answer, answered) = oneshot::channel();
        self.state.waiting.borrow_mut().insert(id, answer);
        let call = Call { id, reply: false };
        let sent = self.reactor.with(|engine| engine.send_call(LinkId(0), call, payload));
        let broke = || unavailable("the link broke; it may have been done or not".into());
        let outcome = match sent {
            true => match tokio::time::timeout(wait, answered).await {
                Ok(outcome) => outcome.map_err(|_| broke()).and_then(|result| result),
                Err(_) => Err(unavailable(format!("no answer within {wait:?}"))),
            },
            false => Err(broke()),
        };
        self.state.waiting.borrow_mut().remove(&id);
        outcome
    }

    /// Says good-bye and closes the link. What is not acknowledged is given up: see
    /// [`Client::flush`].
    pub async fn close(self) {
        self.reactor.with(|engine| engine.command(|leaf, now| leaf.stop(now)));
        let gone = async {
            while self.reactor.links_open() > 0 {
                self.reactor.turned.notified().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), gone).await;
    }

    fn check(&self) -> Result<(), ClientError> {
        if self.reactor.engine.borrow().stopped().is_some() {
            return Err(ClientError::Stopped);
        }
        self.state.refused.get().map_or(Ok(()), |reason| Err(ClientError::Refused(reason)))
    }

    /// Waits until `ready` says so, for no longer than the patience without a link; with
    /// `at_once` a dial that fails ends the wait.
    async fn until<R>(
        &self,
        at_once: bool,
        mut ready: impl FnMut(&mut Engine<Leaf, ClientStore>) -> Option<R>,
    ) -> Result<R, ClientError> {
        let mut deadline = StdInstant::now() + self.state.options.patience;
        loop {
            let turned = self.reactor.turned.notified();
            if let Some(result) = ready(&mut self.reactor.engine.borrow_mut()) {
                return Ok(result);
            }
            self.check()?;
            if self.reactor.engine.borrow().machine().is_connected() {
                deadline = StdInstant::now() + self.state.options.patience;
            }
            let trouble = self.state.trouble.borrow().clone();
            if at_once && !trouble.is_empty() {
                return Err(ClientError::Unreachable(trouble));
            }
            if tokio::time::timeout_at(deadline.into(), turned).await.is_err() {
                let address = &self.state.options.address;
                let why =
                    if trouble.is_empty() { "no answer within the deadline" } else { &trouble };
                return Err(ClientError::Unreachable(format!("{address}: {why}")));
            }
        }
    }
}

fn peer_of(leaf: &Leaf, _link: LinkId) -> Option<(Role, u32)> {
    leaf.peer().map(|_| (Role::Hub, leaf.features()))
}

impl State {
    fn after_turn(self: &Rc<Self>, reactor: &Rc<ClientReactor>) {
        let mut engine = reactor.engine.borrow_mut();
        while engine.next_dial().is_some() {
            let task = tokio::task::spawn_local(self.clone().dial(reactor.clone()));
            *self.dialing.borrow_mut() = Some(task.abort_handle());
        }
        while let Some(told) = engine.next_event() {
            match told.event {
                LeafEvent::Connected { .. } => self.trouble.borrow_mut().clear(),
                LeafEvent::Refused { reason: RefuseReason::Busy } => {}
                // It may lead later.
                LeafEvent::Refused { reason: RefuseReason::Standby } => {
                    let why = "the hub there stands by for another, which leads";
                    *self.trouble.borrow_mut() = why.into();
                }
                LeafEvent::Refused { reason } => self.refused.set(Some(reason)),
                LeafEvent::Disconnected => self.waiting.borrow_mut().clear(),
                _ => {}
            }
        }
        while let Some(incoming) = engine.next_call() {
            if incoming.call == (Call { id: REFUSAL_ID, reply: true }) {
                if let Ok(Outcome::Error(error)) = serde_json::from_slice(&incoming.payload) {
                    self.not_admitted.borrow_mut().get_or_insert(error);
                }
                continue;
            }
            let answer = self.waiting.borrow_mut().remove(&incoming.call.id);
            if let (true, Some(answer)) = (incoming.call.reply, answer) {
                let outcome = serde_json::from_slice::<Outcome>(&incoming.payload);
                let _ = answer.send(outcome.map_or_else(
                    |error| {
                        let text = format!("the node's answer does not decode: {error}");
                        Err(ApiError::new(ErrorKind::Unavailable, text))
                    },
                    Into::into,
                ));
            }
        }
    }

    async fn dial(self: Rc<Self>, reactor: Rc<ClientReactor>) {
        let options = &self.options;
        let address = &options.address;
        let dialed =
            Stream::dial(address, options.tls.as_ref(), options.connect, options.handshake).await;
        let dial = replcore::contract::DialIndex(0);
        match dialed {
            Ok((stream, identity)) => drop(reactor.run_link(stream, Some(dial), identity).await),
            Err(error) => {
                *self.trouble.borrow_mut() = format!("cannot connect to {address}: {error}");
                reactor.with(|engine| engine.dial_failed(dial));
            }
        }
    }
}
