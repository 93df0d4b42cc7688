//! Answers what a member is asked, on its own thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use replcore::contract::LinkId;
use replcore::election::Membership;
use replcore::member::MemberError;
use replcore::stream::{Address as ShortText, Name};
use replcore::wire::Role;
use tokio::sync::{Semaphore, mpsc};

use super::api::{ClusterReply, ClusterRequest};
use super::config::encode_metadata;
use super::events::Batch;
use super::host::Host;
use super::options::Metadata;
use super::status;
use crate::api::{ApiError, ErrorKind, Reply, Request, Status, answer_call};
use crate::client::{Client, ClientOptions};
use crate::engine::IncomingCall;
use crate::handle::Pending;
use crate::options::Address;
use crate::service::parse_name;

/// Calls that are worked on at once.
const CALLS_MAX: u32 = 64;
/// Requests that wait for an event at once, so that there is room for others.
const WAITS_MAX: u32 = 48;
/// Longest wait for an event, in milliseconds.
const WAIT_MS_MAX: u32 = 60_000;
/// How long a change of the members may take.
const CHANGE: Duration = Duration::from_secs(10);
/// Between two tries of a newcomer to reach a member.
const ADMISSION_RETRY: Duration = Duration::from_millis(500);

type Answered = Result<ClusterReply, ApiError>;

fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Conflict, text)
}

fn unavailable(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Unavailable, text)
}

/// A place among those who wait for an event.
struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn new(waits: &'a Cell<u32>) -> Result<Self, ApiError> {
        if waits.get() >= WAITS_MAX {
            let text = format!("{WAITS_MAX} requests wait for events already; try again");
            return Err(ApiError::new(ErrorKind::Full, text));
        }
        waits.set(waits.get() + 1);
        Ok(Self(waits))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Host {
    /// Starts with the calls that programs have sent.
    pub(super) fn start_calls(self: &Rc<Self>) {
        loop {
            let mut engine = self.reactor.engine.borrow_mut();
            let busy = self.calls_at_work.get() >= CALLS_MAX;
            let Some(call) = (!busy).then(|| engine.next_call()).flatten() else { return };
            let peer = engine.machine().link_peer(call.link);
            let client = peer.is_some_and(|(_, role)| role == Role::Client);
            drop(engine);
            if call.call.reply || !client {
                continue;
            }
            self.calls_at_work.set(self.calls_at_work.get() + 1);
            tokio::task::spawn_local(self.clone().answer_call(call));
        }
    }

    async fn answer_call(self: Rc<Self>, call: IncomingCall) {
        let caller = self.certificate_on(call.link);
        let answer = async |request| self.answer_for(caller, request).await;
        let payload = answer_call(&call.payload, answer).await;
        self.reactor.with(|engine| engine.reply(&call, payload));
        self.calls_at_work.set(self.calls_at_work.get() - 1);
    }

    /// Serves the requests of this process.
    pub(super) async fn serve(self: Rc<Self>, mut requests: mpsc::Receiver<Pending>) {
        let at_work = Arc::new(Semaphore::new(CALLS_MAX as usize));
        loop {
            let Ok(permit) = at_work.clone().acquire_owned().await else { return };
            let Some(asked) = requests.recv().await else { return };
            let host = self.clone();
            tokio::task::spawn_local(async move {
                asked
                    .answer_with(async |caller, request| host.answer_for(caller, request).await)
                    .await;
                drop(permit);
            });
        }
    }

    /// The name in the certificate at the other end of a link, if there is one.
    fn certificate_on(&self, link: LinkId) -> Option<Name> {
        let engine = self.reactor.engine.borrow();
        let (name, _) = engine.machine().link_peer(link)?;
        engine.is_authenticated(link).then_some(name)
    }

    /// Answers any request of the holder of a certificate, or of somebody who needs none.
    async fn answer_for(
        self: &Rc<Self>,
        caller: Option<Name>,
        request: Request,
    ) -> Result<Reply, ApiError> {
        if let Some(caller) = caller.filter(|_| request.administers()) {
            let node = caller.node_id();
            let own = caller == self.options.name;
            let member = self.member(|member| member.membership(node) != Membership::None);
            if !own && !member && !self.options.administrators.contains(&caller) {
                let text = format!(
                    "{caller} may not administer {}; use its own certificate, or add {caller} to \
                     `administrators` in its configuration",
                    self.options.name
                );
                return Err(ApiError::new(ErrorKind::Forbidden, text));
            }
        }
        self.answer(request).await
    }

    async fn answer(self: &Rc<Self>, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Cluster(request) => self.answer_cluster(request).await.map(Reply::Cluster),
            Request::Status => Ok(Reply::Status(Box::new(self.node_status()))),
            _ => Err(ApiError::new(
                ErrorKind::NotFound,
                format!(
                    "{} is a member of a cluster, and no node that has messages; `replcore members` \
                     asks it",
                    self.options.name
                ),
            )),
        }
    }

    async fn answer_cluster(self: &Rc<Self>, request: ClusterRequest) -> Answered {
        match request {
            ClusterRequest::Status => Ok(ClusterReply::Status(Box::new(status::status(self)))),
            ClusterRequest::Events { after, wait_ms } => self.events(after, wait_ms).await,
            ClusterRequest::SetMetadata { metadata } => self.set_metadata(&metadata),
            ClusterRequest::Resign => self.resign().await,
            ClusterRequest::Join { identifier, address, voter, passed_on } => {
                self.join(&identifier, &address, voter, passed_on).await
            }
            ClusterRequest::Leave { identifier, passed_on } => {
                self.leave(&identifier, passed_on).await
            }
        }
    }

    /// As a node would answer, so that `replcore status` works here too.
    fn node_status(&self) -> Status {
        let status = status::status(self);
        Status {
            name: status.identifier,
            role: status.role,
            version: status.version,
            uptime_ms: status.uptime_ms,
            ready: status.leader.is_some() || self.options.masterless,
            links: self.reactor.links_open().into(),
            counters: status.counters,
            ..Status::default()
        }
    }

    async fn events(&self, after: Option<u64>, wait_ms: u32) -> Answered {
        let log = &self.shared.events;
        let mut growth = log.subscribe();
        let after = after.unwrap_or_else(|| log.last());
        if log.last() <= after && wait_ms > 0 {
            let _place = Waiting::new(&self.waits)?;
            let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX).into());
            let _ = tokio::time::timeout(wait, growth.wait_for(|last| *last > after)).await;
        }
        let Batch { events, last, missed } = log.after(after);
        Ok(ClusterReply::Events { events, last, missed })
    }

    fn set_metadata(&self, metadata: &Metadata) -> Answered {
        let bytes =
            encode_metadata(metadata).map_err(|error| ApiError::new(ErrorKind::TooLarge, error))?;
        let set = self.command(|member, now| member.set_metadata(now, &bytes));
        set.map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))?;
        // Those who read without asking are to see it as well.
        self.shared.view.send_replace(Arc::new(status::view(self)));
        Ok(ClusterReply::Done)
    }

    async fn resign(&self) -> Answered {
        if !self.shared.lease.is_leader() {
            return Err(conflict(self.does_not_lead()));
        }
        if self.member(status::voters) < 2 {
            return Err(conflict("it is the only voter: there is nobody to hand over to"));
        }
        self.give_up().await;
        let resigned = self.command(|member, now| member.resign(now));
        self.shared.resigning.send_replace(false);
        match resigned {
            // It has lost the leadership while it waited: all the same.
            Ok(()) | Err(MemberError::NotLeading) => Ok(ClusterReply::Done),
            Err(error) => Err(conflict(error.to_string())),
        }
    }

    fn does_not_lead(&self) -> String {
        let leader = status::status(self).leader;
        match leader {
            Some(leader) => format!(
                "{} does not lead, {} does, at {}:{}",
                self.options.name, leader.identifier, leader.host, leader.port
            ),
            None => format!("{} does not lead; nobody is known to", self.options.name),
        }
    }

    async fn join(
        self: &Rc<Self>,
        identifier: &str,
        address: &str,
        voter: bool,
        passed_on: bool,
    ) -> Answered {
        let name = parse_name("identifier", identifier)?;
        let short = address.parse::<Address>().ok().and_then(|_| ShortText::new(address).ok());
        let invalid = || {
            let text = format!("address `{address}` is not HOST:PORT of at most 63 bytes");
            ApiError::new(ErrorKind::Invalid, text)
        };
        let short = short.ok_or_else(invalid)?;
        let request = ClusterRequest::Join {
            identifier: identifier.into(),
            address: address.into(),
            voter,
            passed_on: true,
        };
        if !self.shared.lease.is_leader() {
            return self.pass_on(request, passed_on).await;
        }
        let added = self.command(|member, _| member.add_known_peer(name, Some(short), None, voter));
        match added {
            Ok(()) | Err(MemberError::Duplicate) => {}
            Err(error) => return Err(conflict(format!("{identifier}: {error}"))),
        }
        let to = if voter { Membership::Voter } else { Membership::Learner };
        self.change(name, to).await.map_err(|mut error| {
            if error.kind == ErrorKind::NotFound {
                error = unavailable(format!(
                    "{identifier} does not answer at {address} as a member of this cluster; start it \
                     first, with --join"
                ));
            }
            error
        })
    }

    async fn leave(self: &Rc<Self>, identifier: &str, passed_on: bool) -> Answered {
        let name = parse_name("identifier", identifier)?;
        if name == self.options.name {
            return self.leave_oneself().await;
        }
        let request = ClusterRequest::Leave { identifier: identifier.into(), passed_on: true };
        if !self.shared.lease.is_leader() {
            return self.pass_on(request, passed_on).await;
        }
        let membership = self.member(|member| member.membership(name.node_id()));
        if membership == Membership::None {
            let text = format!("there is no member {identifier}; `replcore members` shows all");
            return Err(ApiError::new(ErrorKind::NotFound, text));
        }
        self.change(name, Membership::None).await
    }

    async fn leave_oneself(&self) -> Answered {
        if self.shared.lease.is_leader() {
            self.give_up().await;
        }
        let left = self.command(|member, now| member.leave(now));
        self.shared.resigning.send_replace(false);
        left.map_err(|error| conflict(error.to_string()))?;
        let own = self.options.name.node_id();
        self.until(|host| {
            host.member(|member| member.membership(own) == Membership::None).then_some(Ok(()))
        })
        .await?;
        Ok(ClusterReply::Done)
    }

    /// Has the members changed, and waits until a majority has stored it.
    async fn change(&self, name: Name, to: Membership) -> Answered {
        let node = name.node_id();
        let mut connected = true;
        let ordered = self
            .until(|host| match host.command(|member, now| member.change_member(now, node, to)) {
                Ok(()) => Some(Ok(())),
                Err(MemberError::Busy) => None,
                Err(MemberError::NotConnected) => {
                    connected = false;
                    None
                }
                Err(error) => Some(Err(conflict(error.to_string()))),
            })
            .await;
        if ordered.is_err() && !connected {
            return Err(ApiError::new(ErrorKind::NotFound, "not connected"));
        }
        ordered?;
        self.until(|host| {
            let settled = host
                .member(|member| member.election().is_some_and(|election| election.is_settled()));
            let lost = || unavailable("the leader has changed meanwhile; look, and try again");
            match (settled, host.shared.lease.is_leader()) {
                (true, _) => Some(Ok(())),
                (false, true) => None,
                (false, false) => Some(Err(lost())),
            }
        })
        .await?;
        Ok(ClusterReply::Done)
    }

    /// Waits until `done` answers something, turn by turn.
    async fn until(
        &self,
        mut done: impl FnMut(&Self) -> Option<Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let deadline = StdInstant::now() + CHANGE;
        loop {
            let turned = self.reactor.turned.notified();
            if let Some(answer) = done(self) {
                return answer;
            }
            if tokio::time::timeout_at(deadline.into(), turned).await.is_err() {
                return Err(unavailable(format!(
                    "not through after {CHANGE:?}; look, and try again"
                )));
            }
        }
    }

    /// Asks the leader, on behalf of who has asked here.
    async fn pass_on(&self, request: ClusterRequest, passed_on: bool) -> Answered {
        let leader = status::status(self).leader;
        let Some(leader) = leader.filter(|_| !passed_on) else {
            return Err(unavailable("nobody leads at present; try again"));
        };
        let address = super::config::join_host_port(&leader.host, leader.port);
        self.ask_at(&address, request).await
    }

    /// Asks another member.
    async fn ask_at(&self, address: &str, request: ClusterRequest) -> Answered {
        let address = address.parse().map_err(unavailable)?;
        let mut options = ClientOptions::new(self.options.name, address);
        options.tls = self.tls.clone();
        options.connect = self.options.connect;
        options.handshake = self.options.handshake;
        options.patience = CHANGE;
        let client = Client::open(options);
        let answer = client.call(&Request::Cluster(request), CHANGE * 2).await;
        client.close().await;
        match answer? {
            Reply::Cluster(reply) => Ok(reply),
            other => Err(unavailable(format!("the leader answered something else: {other:?}"))),
        }
    }

    /// As a newcomer: finds out who is there, and asks to be taken in.
    pub(super) async fn ask_for_admission(self: Rc<Self>) {
        if !self.joins {
            return;
        }
        let mut reported = String::new();
        loop {
            for address in &self.options.join {
                match self.introduce(&address.to_string()).await {
                    Ok(()) => return,
                    Err(error) if error.message == reported => {}
                    Err(error) => {
                        tracing::warn!("cannot join by {address}: {error}; goes on trying");
                        reported = error.message;
                    }
                }
            }
            tokio::time::sleep(ADMISSION_RETRY).await;
        }
    }

    async fn introduce(&self, address: &str) -> Result<(), ApiError> {
        let ClusterReply::Status(there) = self.ask_at(address, ClusterRequest::Status).await?
        else {
            return Err(unavailable("it answered something else"));
        };
        if there.cluster != self.options.cluster.as_str() {
            return Err(conflict(format!(
                "{} is of cluster `{}`, not of `{}`",
                there.identifier, there.cluster, self.options.cluster
            )));
        }
        for member in &there.members {
            let at = super::config::join_host_port(&member.host, member.port);
            let (Ok(name), Ok(at)) = (Name::new(&member.identifier), ShortText::new(&at)) else {
                continue;
            };
            if name == self.options.name {
                continue;
            }
            let added =
                self.command(|machine, _| machine.add_known_peer(name, Some(at), None, true));
            if let Err(error) = added
                && error != MemberError::Duplicate
            {
                return Err(conflict(format!("{name}: {error}")));
            }
        }
        let voter = self.options.voter;
        if self.options.masterless {
            return Ok(());
        }
        let joined = self.command(|machine, now| machine.join(now, voter));
        joined.map_err(|error| conflict(error.to_string()))
    }

    /// Gives the machine a command.
    fn command<R>(
        &self,
        command: impl FnOnce(&mut super::host::Machine, replcore::time::Instant) -> R,
    ) -> R {
        self.reactor.with(|engine| engine.command(command))
    }
}
