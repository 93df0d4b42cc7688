//! What programs and the command line ask of a running node.

use std::future::pending;
use std::rc::Rc;

use replcore::contract::LinkId;
use replcore::node::NodeError;
use replcore::stream::Name;
use replcore::wire::Role;
use tokio::sync::Semaphore;

use super::host::{Host, Requests};
use crate::api::{ApiError, ErrorKind, NewMessage, Reply, Request, answer_call};
use crate::engine::IncomingCall;
use crate::service::parse_name;
use crate::store::Store;

impl Host {
    pub(super) fn start_calls(self: &Rc<Self>) {
        let limits = self.options.borrow().limits;
        loop {
            let mut engine = self.reactor.engine.borrow_mut();
            let busy = self.calls_at_work.get() >= limits.calls_max
                || engine.call_bytes() >= limits.call_bytes_max as usize;
            let Some(call) = (!busy).then(|| engine.next_call()).flatten() else { return };
            let client = engine.machine().peer(call.link).is_some_and(|it| it.role == Role::Client);
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
    pub(super) async fn serve(self: Rc<Self>, requests: Requests) {
        let mut requests = requests.lock().await;
        let calls_max = self.options.borrow().limits.calls_max as usize;
        let at_work = std::sync::Arc::new(Semaphore::new(calls_max.max(1)));
        loop {
            let Ok(permit) = at_work.clone().acquire_owned().await else { return };
            // The node runs on when nobody in this process can ask any more.
            let Some(asked) = requests.recv().await else { return pending().await };
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
        let peer = engine.machine().peer(link).filter(|_| engine.is_authenticated(link))?;
        Some(peer.name)
    }

    /// Answers any request of the holder of a certificate, or of somebody who needs none.
    async fn answer_for(&self, caller: Option<Name>, request: Request) -> Result<Reply, ApiError> {
        if let Some(caller) = caller.filter(|_| request.administers()) {
            let options = self.options.borrow();
            if caller != options.name && !options.administrators.contains(&caller) {
                let text = format!(
                    "{caller} may not administer {}; use its own certificate, or add {caller} to \
                     `administrators` under [tls] in its configuration",
                    options.name
                );
                return Err(ApiError::new(ErrorKind::Forbidden, text));
            }
        }
        self.answer(request).await
    }

    /// Answers any request.
    async fn answer(&self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Nodes { after, limit } => Ok(self.nodes(after.as_deref(), limit)),
            Request::Forget { node } => self.forget(&node).await,
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Post { messages } => self.post_checked(messages).await,
            other => self.service.answer(other).await.unwrap_or(Ok(Reply::Done)),
        }
    }

    /// Posts what the schemas admit: all, or those before the first that they refuse.
    async fn post_checked(&self, mut messages: Vec<NewMessage>) -> Result<Reply, ApiError> {
        let refused = {
            let options = self.options.borrow();
            messages.iter().enumerate().find_map(|(index, message)| {
                let error =
                    crate::schema::check(&options.schemas, &message.message_type, &message.body.0)
                        .err()?;
                Some(ApiError { index: Some(index), ..error })
            })
        };
        if let Some(index) = refused.as_ref().and_then(|error| error.index) {
            messages.truncate(index);
        }
        let posted = match (messages.is_empty(), &refused) {
            (true, Some(_)) => Ok(Reply::Done),
            _ => {
                let post = Request::Post { messages };
                self.service.answer(post).await.unwrap_or(Ok(Reply::Done))
            }
        };
        match (posted, refused) {
            (Ok(_), Some(error)) => Err(error),
            (posted, _) => posted,
        }
    }

    async fn forget(&self, node: &str) -> Result<Reply, ApiError> {
        let name = parse_name("node", node)?;
        loop {
            let turned = self.reactor.turned.notified();
            let forgotten = self.reactor.with(|engine| {
                let forgotten = engine.command(|machine, now| machine.forget(now, name.node_id()));
                if forgotten.is_ok() {
                    engine.router_mut().remove_leaf(name.node_id());
                    engine.store_mut().forget_queue(name.queue_id());
                    engine.commit_soon();
                }
                forgotten
            });
            match forgotten {
                Ok(()) => break,
                Err(NodeError::Busy) => turned.await,
                Err(_) => {
                    let text =
                        format!("no leaf {node} is registered; `nodes` shows those that are");
                    return Err(ApiError::new(ErrorKind::NotFound, text));
                }
            }
        }
        self.reactor.committed().await.map_err(crate::service::stopped)?;
        Ok(Reply::Done)
    }
}
