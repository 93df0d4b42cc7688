//! A node, from start to stop: one thread, one store, its listeners and links.

mod build;
mod group;
mod host;
mod serve;
mod status;

pub(crate) use self::build::{open_store, store_config};
pub use self::build::{route_to_registered, ways};
pub(crate) use self::host::{NodeReactor, NodeStore};

use std::rc::Rc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::Failure;
use tokio::sync::{Mutex, mpsc};

use self::host::Host;
use crate::driver::Listener;
use crate::handle::NodeHandle;
use crate::options::{Address, NodeOptions};
use crate::store::Store as _;

/// How a node ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Messages that are still on their way to readers that were connected, by queue. They are
    /// stored and go on after the next start.
    pub left: Vec<(String, u64)>,
    /// Why the node ended by itself.
    pub error: Option<String>,
}

#[derive(Debug)]
enum Control {
    Stop,
    Abort,
    Lead(u64),
    Reload(Box<NodeOptions>, std_mpsc::SyncSender<Result<(), String>>),
}

/// A node that runs.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<Address>,
    control: mpsc::UnboundedSender<Control>,
    thread: Option<JoinHandle<StopReport>>,
}

/// Starts a node on a thread of its own. When this answers, the store is open and the node listens.
///
/// # Errors
/// One line that names what is wrong and what to do; nothing runs.
pub fn start(options: NodeOptions) -> Result<(NodeHandle, Running), String> {
    let (handle, requests) = NodeHandle::new();
    let (control, controls) = mpsc::unbounded_channel();
    let (started, starting) = std_mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("node {}", options.name))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(2)
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(format!("cannot start the runtime: {error}")));
                    return StopReport::default();
                }
            };
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, run(options, requests, controls, &started))
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    match starting.recv() {
        Ok(Ok(addresses)) => Ok((handle, Running { addresses, control, thread: Some(thread) })),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("the node's thread ended while it started; see the log".into()),
    }
}

impl Running {
    /// Where it listens, with the port that the system chose for port 0.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Asks the node to hand over what is under way and to end, within its drain deadline.
    pub fn stop(&self) {
        let _ = self.control.send(Control::Stop);
    }

    /// Tells a hub that stands by to lead, in a term above all before; for programs that decide by
    /// themselves who leads. To any other node it says nothing.
    pub fn lead(&self, term: u64) {
        let _ = self.control.send(Control::Lead(term));
    }

    /// Ends the node at once, as a crash would, but for what is on disk already. For tests.
    pub fn abort(&self) {
        let _ = self.control.send(Control::Abort);
    }

    /// Takes from `options` what can change while the node runs: rules, limits of queues, TLS
    /// files. The rest must be as it was.
    ///
    /// # Errors
    /// What cannot change has changed, or something is not sound, and all options are as they were.
    /// (The TLS files are watched: good ones come into force whatever else a reload finds.)
    pub fn reload(&self, options: NodeOptions) -> Result<(), String> {
        let (answer, answered) = std_mpsc::sync_channel(1);
        let stopped = || "the node has stopped".to_owned();
        self.control.send(Control::Reload(Box::new(options), answer)).map_err(|_| stopped())?;
        answered.recv_timeout(Duration::from_secs(10)).map_err(|_| stopped())?
    }

    /// Whether the node has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the node has ended.
    pub fn join(mut self) -> StopReport {
        let panicked = || StopReport {
            error: Some("the node's thread panicked; this is a defect, see the log".into()),
            ..StopReport::default()
        };
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| panicked()),
            None => StopReport::default(),
        }
    }
}

type Started = std_mpsc::SyncSender<Result<Vec<Address>, String>>;

async fn run(
    options: NodeOptions,
    requests: mpsc::Receiver<crate::handle::Pending>,
    mut controls: mpsc::UnboundedReceiver<Control>,
    started: &Started,
) -> StopReport {
    let requests = Rc::new(Mutex::new(requests));
    if let Some(standby) = options.standby.clone() {
        return group::run(options, standby, requests, controls, started).await;
    }
    let opened = listen(&options).and_then(|listeners| {
        let host = build::host(options)?;
        Ok((listeners, host))
    });
    let (listeners, host) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = started.send(Err(error));
            return StopReport::default();
        }
    };
    let addresses = listeners.iter().map(Listener::address).collect();
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        let host = host.clone();
        accepting.spawn_local(listener.run(move |accepted| host.take(accepted)));
    }
    let after = host.clone();
    let turns =
        tokio::task::spawn_local(host.reactor.clone().run_turns(move |_| after.after_turn()));
    let serving = tokio::task::spawn_local(host.clone().serve(requests));
    let looking_after = tokio::task::spawn_local(host.clone().look_after());
    let _ = started.send(Ok(addresses));

    let ended = serve_until(&host, turns, &mut controls, std::future::pending()).await;
    let mut report = StopReport::default();
    match ended {
        Ending::Aborted => return report,
        Ending::Failed(error) | Ending::Deposed(error) => report.error = Some(error),
        Ending::Stopped => {
            drop(accepting);
            report.left = drain(&host).await;
        }
    }
    serving.abort();
    looking_after.abort();
    if report.error.is_none()
        && let Err(reason) = host.reactor.engine.borrow_mut().store_mut().close()
    {
        report.error = Some(not_closed(reason));
    }
    report
}

fn not_closed(reason: Failure) -> String {
    format!("the store could not be closed ({reason})")
}

/// Listens everywhere that the options say.
fn listen(options: &NodeOptions) -> Result<Vec<Listener>, String> {
    let backlog = options.limits.accept_backlog;
    options.listen.iter().map(|address| Listener::open(address, backlog)).collect()
}

/// What ended a node.
enum Ending {
    /// Somebody asked for it.
    Stopped,
    /// As a crash would.
    Aborted,
    /// It cannot go on.
    Failed(String),
    /// A hub with standbys leads no longer.
    Deposed(String),
}

/// Does what is asked of a running node until it ends; `ended` may say that it has to.
async fn serve_until(
    host: &Rc<Host>,
    mut turns: tokio::task::JoinHandle<crate::engine::Stopped>,
    controls: &mut mpsc::UnboundedReceiver<Control>,
    ended: impl Future<Output = Ending>,
) -> Ending {
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            stopped = &mut turns => {
                let why = match stopped {
                    Ok(stopped) => crate::service::stopped(stopped).message,
                    Err(_) => "the node's task panicked; this is a defect, see the log".into(),
                };
                tracing::error!("{why}");
                return Ending::Failed(why);
            }
            ending = &mut ended => return ending,
            control = controls.recv() => match control {
                Some(Control::Reload(options, answer)) => drop(answer.send(host.reload(*options))),
                // It leads already, or is a node that no other stands by for.
                Some(Control::Lead(_)) => {}
                Some(Control::Abort) => return Ending::Aborted,
                Some(Control::Stop) | None => return Ending::Stopped,
            },
        }
    }
}

/// Lets what is under way arrive; answers what did not.
async fn drain(host: &Host) -> Vec<(String, u64)> {
    let deadline = StdInstant::now() + host.drain_deadline();
    host.stop_taking();
    loop {
        let turned = host.reactor.turned.notified();
        if host.is_drained() || tokio::time::timeout_at(deadline.into(), turned).await.is_err() {
            break;
        }
    }
    let left = host.undelivered();
    host.say_good_bye();
    let last = StdInstant::now() + Duration::from_secs(1);
    loop {
        let turned = host.reactor.turned.notified();
        if host.reactor.links_open() == 0
            || tokio::time::timeout_at(last.into(), turned).await.is_err()
        {
            break;
        }
    }
    left
}
