//! The thread of a member: its machine, sockets, and what looks after them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::{DialIndex, Key};
use replcore::election::ElectionEvent;
use replcore::member::{Member, MemberEvent};
use replcore::stream::NodeId;
use replcore::wire::Progress;
use tokio::sync::{mpsc, oneshot};

use super::api::Happened;
use super::build;
use super::options::ClusterOptions;
use super::shared::Shared;
use super::writer::{Writer, Written};
use super::{Cluster, status};
use crate::client::ClientStore;
use crate::driver::{Accepted, Listener, Reactor, Stream, count};
use crate::handle::{NodeHandle, Pending};
use crate::options::Address;
use crate::tls::Tls;

pub(super) type Machine = Member<'static>;
pub(super) type MemberReactor = Reactor<Machine, ClientStore>;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// How often the TLS files are looked at.
const TLS_PERIOD: Duration = Duration::from_secs(5);
/// How long a member that stops waits for its links to close, and for its disk.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the owner of a member tells its thread.
#[derive(Debug)]
pub(super) enum Control {
    Stop,
    Progress(Progress, oneshot::Sender<u64>),
}

/// Starts a member on a thread of its own.
///
/// # Errors
/// One line that names what is wrong and what to do; nothing runs.
pub(super) fn start(options: ClusterOptions) -> Result<Cluster, String> {
    let shared = Shared::new();
    let (handle, requests) = NodeHandle::new();
    let (control, controls) = mpsc::unbounded_channel();
    let (started, starting) = std_mpsc::sync_channel(1);
    let of_thread = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name(format!("member {}", options.name))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(2)
                .build_local(tokio::runtime::LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(format!("cannot start the runtime: {error}")));
                    return None;
                }
            };
            let shared = Ended(of_thread);
            let ended = runtime.block_on(run(options, &shared.0, requests, controls, &started));
            // A look-up of a name that is under way cannot be taken back.
            runtime.shutdown_background();
            ended
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    match starting.recv() {
        Ok(Ok(address)) => Ok(Cluster { shared, handle, control, address, thread: Some(thread) }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("the member's thread ended while it started; see the log".into()),
    }
}

/// However the thread ends, nobody is to believe that the member leads.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lease.publish(0, 0);
        self.0.events.close();
    }
}

type Started = std_mpsc::SyncSender<Result<Address, String>>;

async fn run(
    options: ClusterOptions,
    shared: &Arc<Shared>,
    requests: mpsc::Receiver<Pending>,
    mut controls: mpsc::UnboundedReceiver<Control>,
    started: &Started,
) -> Option<String> {
    let opened = Listener::open(&options.listen, BACKLOG).and_then(|listener| {
        let (host, written) = build::host(options, shared, &listener.address())?;
        Ok((listener, host, written))
    });
    let (listener, host, mut written) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = started.send(Err(error));
            return None;
        }
    };
    let address = listener.address();
    shared.view.send_replace(Arc::new(status::view(&host)));
    let taking = host.clone();
    let mut tasks = tokio::task::JoinSet::new();
    let accepting = tasks.spawn_local(listener.run(move |accepted| taking.take(accepted)));
    tasks.spawn_local(host.clone().serve(requests));
    tasks.spawn_local(host.clone().look_after());
    tasks.spawn_local(host.clone().ask_for_admission());
    let after = host.clone();
    let mut turns =
        tokio::task::spawn_local(host.reactor.clone().run_turns(move |_| after.after_turn()));
    let _ = started.send(Ok(address));
    let error = loop {
        tokio::select! {
            stopped = &mut turns => {
                let why = match stopped {
                    Ok(stopped) => crate::service::stopped(stopped).message,
                    Err(_) => "the member's task panicked; this is a defect, see the log".into(),
                };
                tracing::error!("{why}");
                break Some(why);
            }
            Some(done) = written.recv() => host.persisted(done),
            control = controls.recv() => match control {
                Some(Control::Progress(progress, answer)) => host.reactor.with(|engine| {
                    let term = engine.command(|member, now| {
                        member.set_progress(now, progress);
                        member.term()
                    });
                    let _ = answer.send(term);
                }),
                Some(Control::Stop) | None => {
                    accepting.abort();
                    host.leave_in_order(&mut written).await;
                    break None;
                }
            },
        }
    };
    drop(tasks);
    turns.abort();
    host.writer.borrow_mut().take();
    let unlocked = async { while written.recv().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, unlocked).await;
    error
}

/// A running member.
pub(super) struct Host {
    pub(super) reactor: Rc<MemberReactor>,
    pub(super) shared: Arc<Shared>,
    pub(super) options: ClusterOptions,
    pub(super) tls: Option<Tls>,
    pub(super) start: StdInstant,
    pub(super) writer: RefCell<Option<Writer>>,
    /// Connections that others have opened.
    pub(super) connections: Cell<u32>,
    pub(super) calls_at_work: Cell<u32>,
    /// Requests that wait for an event.
    pub(super) waits: Cell<u32>,
    pub(super) stopping: Cell<bool>,
    /// It has no configuration and wants to be taken in.
    pub(super) joins: bool,
}

impl Host {
    pub(super) fn member<R>(&self, look: impl FnOnce(&Member<'static>) -> R) -> R {
        look(self.reactor.engine.borrow().machine())
    }

    /// Takes an accepted connection, if there is room for it.
    fn take(self: &Rc<Self>, accepted: Accepted) {
        if self.stopping.get() || self.connections.get() >= build::accepted_max(&self.options) {
            return count(&self.reactor.counters.refused, 1);
        }
        count(&self.reactor.counters.accepted, 1);
        tokio::task::spawn_local(self.clone().run_accepted(accepted));
    }

    async fn run_accepted(self: Rc<Self>, accepted: Accepted) {
        self.connections.set(self.connections.get() + 1);
        match accepted.open(self.tls.as_ref(), None, self.options.handshake).await {
            Ok((stream, identity)) => {
                drop(self.reactor.clone().run_link(stream, None, identity).await)
            }
            Err(error) => {
                count(&self.reactor.counters.refused, 1);
                tracing::debug!("a connection came to nothing: {error}");
            }
        }
        self.connections.set(self.connections.get() - 1);
    }

    async fn dial(self: Rc<Self>, dial: DialIndex) {
        let target = self.member(|member| {
            let view = member.dial_target(dial)?;
            Some((view.name.to_owned(), view.address?.to_owned()))
        });
        let failed = match target {
            Some((wanted, address)) => match address.parse::<Address>() {
                Ok(address) => {
                    let (connect, handshake) = (self.options.connect, self.options.handshake);
                    let dialed =
                        Stream::dial(&address, self.tls.as_ref(), connect, handshake).await;
                    match dialed {
                        Ok((_, Some(name))) if name.as_str() != wanted => {
                            format!("the certificate at {address} is for {name}, not for {wanted}")
                        }
                        Ok((stream, identity)) => {
                            count(&self.reactor.counters.dialed, 1);
                            let reactor = self.reactor.clone();
                            return drop(reactor.run_link(stream, Some(dial), identity).await);
                        }
                        Err(error) => format!("cannot connect to {wanted} at {address}: {error}"),
                    }
                }
                Err(error) => error,
            },
            None => "nowhere to dial".into(),
        };
        count(&self.reactor.counters.dials_failed, 1);
        tracing::debug!("{failed}");
        self.reactor.with(|engine| engine.dial_failed(dial));
    }

    /// Follows what the turn has brought.
    fn after_turn(self: &Rc<Self>) {
        self.persist();
        let mut changed = false;
        loop {
            let event = self.reactor.engine.borrow_mut().next_event();
            let Some(told) = event else { break };
            changed = true;
            self.note(told.event);
        }
        if changed {
            let view = status::view(self);
            self.shared.view.send_replace(Arc::new(view));
        }
        loop {
            let dial = self.reactor.engine.borrow_mut().next_dial();
            let Some(dial) = dial else { break };
            tokio::task::spawn_local(self.clone().dial(dial));
        }
        self.start_calls();
    }

    fn persist(&self) {
        loop {
            let order = self.reactor.engine.borrow_mut().next_persist();
            let Some(order) = order else { return };
            let refused = match self.writer.borrow().as_ref() {
                Some(writer) => writer.order(order),
                None => None,
            };
            if let Some(token) = refused {
                let outcome = Err(replcore::contract::Failure::Full);
                self.persisted(Written { token, outcome });
            }
        }
    }

    fn persisted(&self, written: Written) {
        self.reactor.with(|engine| engine.persisted(written.token, written.outcome));
    }

    fn note(&self, event: MemberEvent) {
        let name = |node: NodeId| self.member(|member| status::name_of(member, node));
        let happened = match event {
            MemberEvent::Election(event) => match event {
                ElectionEvent::BecameLeader { term } => Happened::BecameLeader { term },
                ElectionEvent::LostLeadership { term } => Happened::LostLeadership { term },
                ElectionEvent::LeaderChanged { term, leader } => {
                    Happened::NewLeader { term, leader: leader.map(name) }
                }
                ElectionEvent::ConfigurationChanged { .. } => {
                    Happened::ConfigurationChanged { voters: self.member(status::voters) }
                }
                ElectionEvent::Removed => Happened::Removed,
                ElectionEvent::MembersDiffer { node } => {
                    return tracing::warn!(
                        "{} was started with other members than this one: neither obeys the other. \
                         Compare the peers of both, and start the wrong one anew with the right ones",
                        name(node)
                    );
                }
            },
            MemberEvent::PeerUp { node } => Happened::PeerUp { identifier: name(node) },
            MemberEvent::PeerDown { node } => Happened::PeerDown { identifier: name(node) },
            MemberEvent::PeerChanged { node } => Happened::PeerChanged { identifier: name(node) },
            MemberEvent::Refused { node, reason } => {
                return tracing::warn!("a link with {} was refused: {reason}", name(node));
            }
            _ => return,
        };
        tracing::info!("{happened}");
        self.shared.events.tell(happened);
    }

    /// About once a second: peers that hang, and the TLS files.
    async fn look_after(self: Rc<Self>) {
        let watching = async {
            match &self.tls {
                Some(tls) => tls.clone().watch(TLS_PERIOD).await,
                None => std::future::pending().await,
            }
        };
        let cutting = async {
            loop {
                tokio::time::sleep(self.options.write_stall / 2).await;
                self.reactor.cut_stalled();
            }
        };
        tokio::join!(watching, cutting);
    }

    /// Gives up the leadership once nobody holds it any more.
    pub(super) async fn give_up(&self) {
        self.shared.resigning.send_replace(true);
        let released = self.shared.holds.released();
        if tokio::time::timeout(self.options.release, released).await.is_err() {
            tracing::warn!("something still works as the leader, and the leadership is given up");
        }
        // Before anybody is told: the next leader may be there sooner than the next turn here.
        self.shared.lease.publish(0, 0);
    }

    /// Hands over, and says good-bye.
    async fn leave_in_order(&self, written: &mut mpsc::Receiver<Written>) {
        self.stopping.set(true);
        if self.shared.lease.is_leader() {
            let mut give_up = std::pin::pin!(self.give_up());
            loop {
                tokio::select! {
                    () = &mut give_up => break,
                    Some(done) = written.recv() => self.persisted(done),
                }
            }
        }
        self.shared.lease.publish(0, 0);
        self.reactor.with(|engine| engine.command(|member, now| member.stop(now)));
        let deadline = StdInstant::now() + LAST_WORDS;
        while self.reactor.links_open() > 0 {
            let turned = self.reactor.turned.notified();
            if tokio::time::timeout_at(deadline.into(), turned).await.is_err() {
                break;
            }
        }
    }
}

/// What is kept under each key, in the order in which it is given back.
pub(super) const KEYS: [Key; 2] = [Key::Ballot, Key::Members];
