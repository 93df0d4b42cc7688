//! A hub with standbys: it follows the hub that leads until it leads itself.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::Key;
use replcore::lease::HubTerm;
use replcore::node::NodeMemory;
use replcore::rng::Rng;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::build;
use super::host::{Host, NodeStore, Requests};
use super::{Control, Ending, Started, StopReport, drain, not_closed, serve_until};
use crate::api::{ApiError, ErrorKind, Reply, Request, StandbyStatus, Status};
use crate::cluster::{Cluster, ClusterOptions, Metadata, PeerOptions};
use crate::driver::{Listener, entropy};
use crate::handle::Pending;
use crate::options::{Address, NodeOptions, Peer, StandbyOptions};
use crate::standby::{Lead, Standby, all_empty};
use crate::store::Store;
use crate::tls::Tls;

/// How often it is looked whether this hub leads.
const LOOK: Duration = Duration::from_millis(20);
/// How long a hub with an empty log waits before it asks the others again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// What a stop waits for standbys to have the last commit, so that they go on where this hub ends.
const LAST_COMMIT: Duration = Duration::from_secs(1);

/// What ended the time as a follower.
enum Ended {
    /// This hub leads, in this term.
    Elected(u64),
    Stopped(StopReport),
}

struct Group {
    options: NodeOptions,
    own: StandbyOptions,
    tls: Option<Tls>,
    standby: Rc<Standby>,
    start: StdInstant,
    /// For the machine of the hub while it leads.
    memory: Option<NodeMemory<'static>>,
}

/// Runs a hub with standbys from start to stop.
pub(super) async fn run(
    options: NodeOptions,
    own: StandbyOptions,
    requests: Requests,
    mut controls: mpsc::UnboundedReceiver<Control>,
    started: &Started,
) -> StopReport {
    let opened = open(&options, &own).await;
    let (standby, tls, listener, leaf_listeners) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = started.send(Err(error));
            return StopReport::default();
        }
    };
    let (start, memory) = (StdInstant::now(), None);
    let mut group = Group { options, own, tls, standby, start, memory };
    tokio::task::spawn_local(group.standby.clone().accept(listener));
    tokio::task::spawn_local(group.standby.clone().look_after());
    let _ = started.send(Ok(leaf_listeners.iter().map(Listener::address).collect()));
    let mut leaf_listeners = Ok(leaf_listeners);
    loop {
        let ended = match leaf_listeners {
            Ok(listeners) => group.stand_by(listeners, &requests, &mut controls).await,
            Err(error) => return failed(error),
        };
        let term = match ended {
            Ended::Elected(term) => term,
            Ended::Stopped(report) => return report,
        };
        match group.lead(term, &requests, &mut controls).await {
            // Nothing is lost by it: it follows whoever leads now.
            Ok(why) => tracing::warn!("{why}; it stands by"),
            Err(report) => return report,
        }
        if let Err(error) = group.standby.reopen() {
            return failed(error);
        }
        leaf_listeners = super::listen(&group.options);
    }
}

fn failed(error: String) -> StopReport {
    tracing::error!("{error}");
    StopReport { error: Some(error), ..StopReport::default() }
}

async fn open(
    options: &NodeOptions,
    own: &StandbyOptions,
) -> Result<(Rc<Standby>, Option<Tls>, TcpListener, Vec<Listener>), String> {
    let tls = build::prepare(options)?;
    let Address::Tcp(address) = &own.listen else {
        return Err(format!("standby.listen = {}: only host:port will do", own.listen));
    };
    let listener = TcpListener::bind(address.as_str())
        .await
        .map_err(|error| format!("cannot listen on {address} for the other hubs: {error}"))?;
    let leaf_listeners = super::listen(options)?;
    let standby = Standby::open(options.clone(), own.member, tls.clone(), entropy())?;
    Ok((standby, tls, listener, leaf_listeners))
}

impl Group {
    /// Follows, and turns leaves away, until this hub leads or is told to stop.
    async fn stand_by(
        &self,
        leaf_listeners: Vec<Listener>,
        requests: &Requests,
        controls: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Ended {
        let mut turning_away = tokio::task::JoinSet::new();
        for listener in leaf_listeners {
            let standby = self.standby.clone();
            turning_away.spawn_local(listener.run(move |accepted| {
                tokio::task::spawn_local(standby.clone().turn_away(accepted));
            }));
        }
        let ended = self.follow(&mut *requests.lock().await, controls).await;
        // When this has ended, so have the listeners.
        turning_away.shutdown().await;
        ended
    }

    async fn follow(
        &self,
        requests: &mut mpsc::Receiver<Pending>,
        controls: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Ended {
        let (mut voter, mut look) = (self.standby.voter(), tokio::time::interval(LOOK));
        let mut electing = std::pin::pin!(self.join_election());
        loop {
            let changed = self.standby.changed.notified();
            if let Some(error) = self.standby.failed() {
                return Ended::Stopped(failed(error));
            }
            if let Some(term) = voter.as_ref().and_then(|voter| voter.term()) {
                return Ended::Elected(term);
            }
            tokio::select! {
                () = changed => {}
                started = &mut electing, if voter.is_none() => match started {
                    Ok(started) => voter = Some(started),
                    Err(error) => return Ended::Stopped(failed(error)),
                },
                _ = look.tick(), if voter.is_some() => {}
                Some(asked) = requests.recv() => {
                    let _ = asked.answer.send(self.answer(&asked.request));
                }
                control = controls.recv() => match control {
                    Some(Control::Lead(term)) => return Ended::Elected(term),
                    Some(Control::Reload(_, answer)) => {
                        let text = "a hub that stands by takes changes when it is started again";
                        drop(answer.send(Err(text.into())));
                    }
                    Some(Control::Abort) => return Ended::Stopped(StopReport::default()),
                    Some(Control::Stop) | None => return Ended::Stopped(self.close()),
                },
            }
        }
    }

    /// Starts the member that votes for this hub, once it may: not while the log is empty, unless it is
    /// empty everywhere. A hub that lost its disk would vote for one that lacks what it has had.
    async fn join_election(&self) -> Result<Rc<Cluster>, String> {
        let Some(election) = &self.own.election else { return pending().await };
        while self.standby.head().number == 0
            && !all_empty(&self.standby, &self.own, self.tls.as_ref()).await
        {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let folder = self.options.folder.join("election");
        let (member, hub) = (self.own.member, self.options.name);
        let mut options = ClusterOptions::new(member, hub, election.listen.clone(), folder);
        let peer = |peer: &Peer| PeerOptions {
            name: peer.name,
            address: peer.address.clone(),
            metadata: Metadata::default(),
            voter: true,
        };
        options.peers = election.members.iter().map(peer).collect();
        options.tls.clone_from(&election.tls);
        let voter = tokio::task::spawn_blocking(|| Cluster::start(options))
            .await
            .unwrap_or_else(|error| Err(error.to_string()))?;
        let voter = Rc::new(voter);
        self.standby.set_voter(voter.clone());
        self.standby.note(self.standby.head()).await;
        Ok(voter)
    }

    fn close(&self) -> StopReport {
        let error = self.standby.close().err().map(not_closed);
        StopReport { error, ..StopReport::default() }
    }

    fn answer(&self, request: &Request) -> Result<Reply, ApiError> {
        match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            _ => {
                let leader = self.standby.leader();
                let other = if leader.is_empty() { "another hub".into() } else { leader };
                let text = format!("`{}` stands by; {other} leads, ask there", self.own.member);
                Err(ApiError::new(ErrorKind::Unavailable, text))
            }
        }
    }

    fn status(&self) -> Status {
        let look = |store: &NodeStore| (store.log_bytes(), store.ordinals());
        let (log_bytes, ordinals) = self.standby.look(look).unwrap_or_default();
        let (head, leader) = (self.standby.head(), self.standby.leader());
        let leading = StandbyStatus { state: "leading".to_owned(), ..StandbyStatus::default() };
        let leads = (!leader.is_empty()).then_some((leader, leading));
        let counters = [
            ("replication_term", self.standby.term()),
            ("replication_committed", head.number),
            ("links_turned_away", self.standby.turned_away()),
        ];
        Status {
            name: self.options.name.as_str().to_owned(),
            role: "standby".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.standby.identity().epoch.0,
            uptime_ms: self.start.elapsed().as_millis() as u64,
            ready: false,
            upstreams: [].into(),
            standbys: leads.into_iter().collect(),
            links: 0,
            log_bytes,
            ordinals,
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Leads until a later term begins, and answers why it leads no longer; or until the hub is told to
    /// stop or fails. Then the store is closed.
    async fn lead(
        &mut self,
        term: u64,
        requests: &Requests,
        controls: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Result<String, StopReport> {
        let Some(mut store) = self.standby.take_store(term) else {
            return Err(failed("the store is not open".into()));
        };
        if let Err(reason) = store.promote(term, entropy()) {
            return Err(failed(format!("cannot lead in term {term} ({reason})")));
        }
        // Should this hub, or one that follows it, be run alone later, leaves that know the term take it.
        let key = Key::Term(self.options.name.node_id());
        let record = HubTerm { term, instance: store.identity().instance };
        if let Err(reason) = store.persist(key, &record.to_bytes()) {
            return Err(failed(format!("cannot note term {term} ({reason})")));
        }
        let first = store.committed_number();
        let options = self.options.clone();
        let memory = self.memory.take().unwrap_or_else(|| build::memory(&options));
        let mut rng = Rng::new(entropy());
        let host = build::with_store(options, self.tls.clone(), store, (term, memory), &mut rng)
            .map_err(failed)?;
        // All tasks of the hub that leads are in this set, and end with it.
        let tasks = LocalSet::new();
        let serving = self.serve(host.clone(), (term, first), requests.clone(), controls);
        let why = tasks.run_until(serving).await?;
        drop(tasks);
        let Some((options, memory)) = host.dismantle() else {
            return Err(failed(format!("{why}; it still works for it: this is a defect")));
        };
        (self.options, self.memory) = (options, Some(memory));
        Ok(why)
    }

    async fn serve(
        &self,
        host: Rc<Host>,
        (term, first): (u64, u64),
        requests: Requests,
        controls: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Result<String, StopReport> {
        let reactor = host.reactor.clone();
        let (own, standby) = (self.own.clone(), self.standby.clone());
        let lead = Lead::new(reactor.clone(), own, standby, self.tls.clone(), term);
        let _ = host.lead.set(lead.clone());
        lead.start();
        let open = Rc::new(Cell::new(false));
        let (after, of_turn, opened) = (host.clone(), lead, open.clone());
        let turns = tokio::task::spawn_local(reactor.run_turns(move |_| {
            of_turn.advance();
            if opened.get() {
                after.after_turn();
            }
        }));
        let (failed_to_open, not_opened) = oneshot::channel();
        let opening = open_when_replicated(
            host.clone(),
            self.options.clone(),
            (term, first),
            open,
            requests,
            failed_to_open,
        );
        let opening = tokio::task::spawn_local(opening);
        let looking_after = tokio::task::spawn_local(host.clone().look_after());
        let ended = async {
            tokio::select! {
                () = self.later_term(term) => Ending::Deposed(format!(
                    "`{}` no longer leads: its term {term} is over",
                    self.own.member,
                )),
                Ok(error) = not_opened => Ending::Failed(error),
            }
        };
        let ending = serve_until(&host, turns, controls, ended).await;
        looking_after.abort();
        let mut report = StopReport::default();
        match ending {
            Ending::Aborted => return Err(report),
            // What is not replicated stays as it is: a later leader may not have it.
            Ending::Failed(error) => return Err(failed(error)),
            Ending::Deposed(why) => return Ok(why),
            Ending::Stopped => report.left = drain(&host).await,
        }
        opening.abort();
        host.reactor.wake_turn();
        let _ = tokio::time::timeout(LAST_COMMIT, host.reactor.committed()).await;
        if let Err(reason) = host.reactor.engine.borrow_mut().store_mut().close() {
            report.error = Some(not_closed(reason));
        }
        Err(report)
    }

    /// Waits until this hub leads no longer: a later term has begun, or its lease has run out.
    async fn later_term(&self, term: u64) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            let changed = self.standby.changed.notified();
            let deposed = self.standby.voter().is_some_and(|voter| voter.term() != Some(term));
            if self.standby.term() > term || deposed {
                return;
            }
            tokio::select! {
                () = changed => {}
                _ = look.tick() => {}
            }
        }
    }
}

/// Lets nobody in before as many standbys as must have the first batch of this term: then whoever
/// leads later has all that was acknowledged before.
async fn open_when_replicated(
    host: Rc<Host>,
    options: NodeOptions,
    (term, first): (u64, u64),
    open: Rc<Cell<bool>>,
    requests: Requests,
    failed: oneshot::Sender<String>,
) {
    loop {
        let turned = host.reactor.turned.notified();
        if host.reactor.engine.borrow().is_replicated(first) {
            break;
        }
        turned.await;
    }
    match super::listen(&options) {
        Ok(listeners) => {
            for listener in listeners {
                let address = listener.address();
                tracing::info!(
                    "hub `{}` leads in term {term} and listens on {address}",
                    options.name
                );
                let host = host.clone();
                tokio::task::spawn_local(listener.run(move |accepted| host.take(accepted)));
            }
            open.set(true);
            host.reactor.wake_turn();
            host.serve(requests).await;
        }
        Err(error) => drop(failed.send(error)),
    }
}
