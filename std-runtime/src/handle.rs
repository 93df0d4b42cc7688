//! A running node, as the rest of the process sees it.

use replcore::stream::Name;
use tokio::sync::{mpsc, oneshot};

use crate::api::{ApiError, ErrorKind, Reply, Request};

/// A request on its way to the node, and where its answer goes.
#[derive(Debug)]
pub struct Pending {
    /// What is asked.
    pub request: Request,
    /// The name in the certificate of whoever asks over TLS; `None` for this process and for
    /// plain connections, which may do everything.
    pub caller: Option<Name>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Reply, ApiError>>,
}

impl Pending {
    /// Sends what `answer` comes to, unless whoever asks goes before: then it is dropped.
    pub(crate) async fn answer_with(
        mut self,
        answer: impl AsyncFnOnce(Option<Name>, Request) -> Result<Reply, ApiError>,
    ) {
        let answer = tokio::select! {
            answer = answer(self.caller, self.request) => answer,
            () = self.answer.closed() => return,
        };
        let _ = self.answer.send(answer);
    }
}

/// Asks things of a node that runs in this process, from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    sender: mpsc::Sender<Pending>,
}

/// Requests that may wait for a node at once; the next caller waits for room.
pub const PENDING_MAX: usize = 256;

impl NodeHandle {
    /// A handle, and the end at which the node takes the requests.
    pub fn new() -> (Self, mpsc::Receiver<Pending>) {
        let (sender, receiver) = mpsc::channel(PENDING_MAX);
        (Self { sender }, receiver)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the node answers, or [`ErrorKind::Unavailable`] when it has stopped.
    pub async fn call(&self, request: Request) -> Result<Reply, ApiError> {
        self.call_for(None, request).await
    }

    /// As [`Self::call`], for the holder of a certificate with the name `caller`.
    ///
    /// # Errors
    /// As there, and [`ErrorKind::Forbidden`] for what only administrators may do.
    pub async fn call_for(
        &self,
        caller: Option<Name>,
        request: Request,
    ) -> Result<Reply, ApiError> {
        let stopped = || ApiError::new(ErrorKind::Unavailable, "the node has stopped");
        let (answer, answered) = oneshot::channel();
        self.sender.send(Pending { request, caller, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}
