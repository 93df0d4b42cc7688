//! Answers that are streams of server-sent events, which a client can come back to.
//!
//! The client that comes back says in `Last-Event-ID` what it has had. More is asked for when it has
//! taken what there was, so that a slow client costs one batch of memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;
use super::{App, stopped};

/// Tells the client when to come back after the stream ended, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// Where events come from.
pub(super) trait Source: Send + 'static {
    /// What comes next; nothing when there was nothing for the time of a heartbeat.
    fn batch(&mut self, app: &App) -> impl Future<Output = Result<Vec<Event>, Problem>> + Send;
}

/// The id after which the client wants to go on, if it has been here before.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    id.map(Some).ok_or_else(|| {
        Problem::invalid("Last-Event-ID is not an id that this stream has sent: a number")
    })
}

/// The answer that sends what `source` has until the daemon stops, the client goes, or there is a
/// problem, which is the last event. It holds `place` for so long.
pub(super) fn respond(app: Arc<App>, place: OwnedSemaphorePermit, source: impl Source) -> Response {
    // The head of the answer says at once that the stream is open.
    let open = Event::default().comment("open").retry(Duration::from_millis(RETRY_MS));
    let follower =
        Follower { app, source, events: VecDeque::from([open]), ended: false, _place: place };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    ([(header::CACHE_CONTROL, "no-store")], Sse::new(events)).into_response()
}

/// Where one stream is.
struct Follower<S> {
    app: Arc<App>,
    source: S,
    /// Events made and not yet sent.
    events: VecDeque<Event>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl<S: Source> Follower<S> {
    /// The next event, when there is one; a comment when it takes long. `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.ended {
            return None;
        }
        let stop = stopped(self.app.stopping.clone());
        let batch = tokio::select! {
            () = stop => return None,
            batch = self.source.batch(&self.app) => batch,
        };
        match batch {
            Ok(events) => self.events.extend(events),
            Err(problem) => {
                // The client comes back with its last id after the stream ends.
                self.ended = true;
                let data = serde_json::to_string(&problem).unwrap_or_default();
                return Some(Event::default().event("problem").data(data));
            }
        }
        Some(self.events.pop_front().unwrap_or_else(|| Event::default().comment("heartbeat")))
    }
}
