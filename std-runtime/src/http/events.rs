//! Live messages as server-sent events.
//!
//! Each event is named `message`, has the message's ordinal as its id and the message as JSON for
//! data. A client that comes back with `Last-Event-ID` goes on after it; where messages after it
//! are no longer held, an event `gap` tells the range, so that nothing is lost silently. Without
//! `Last-Event-ID` and `from` only what is stored from now on is sent. The stream asks the node for
//! more when the client has taken what there was, so that a slow client costs one batch of memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::messages::query_key;
use super::problem::Problem;
use super::{App, extract, stopped, unexpected};
use crate::api::{Bytes, Reply, Request, StoredMessage};

/// Messages asked of the node at a time.
const BATCH_MESSAGES_MAX: u32 = 100;
/// Tells the client when to come back after the stream ended, in milliseconds.
pub(super) const RETRY_MS: u64 = 2_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    from: Option<u64>,
    #[serde(rename = "type")]
    message_type: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
}

/// Where one stream is.
struct Follower {
    app: Arc<App>,
    message_type: Option<String>,
    key: Option<Bytes>,
    from: u64,
    /// Events made and not yet sent.
    events: VecDeque<Event>,
    /// Whether the last question had an answer, so that the client may since have fallen behind.
    behind: bool,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

pub(crate) async fn events(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted: Wanted = extract::query(&uri)?;
    let key = query_key(wanted.key, wanted.key_base64)?;
    let place = app.wait_place()?;
    let last = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(parse_id(value.as_bytes())?),
    };
    let [_, next] = held(&app).await?;
    let from = last.map(|last| last.saturating_add(1)).or(wanted.from).unwrap_or(next);
    let message_type = wanted.message_type;
    let mut follower = Follower {
        app,
        message_type,
        key,
        from,
        events: VecDeque::new(),
        behind: true,
        ended: false,
        _place: place,
    };
    // The head of the answer says at once that the stream is open.
    follower
        .events
        .push_back(Event::default().comment("open").retry(Duration::from_millis(RETRY_MS)));
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], Sse::new(events)).into_response())
}

pub(super) fn parse_id(bytes: &[u8]) -> Result<u64, Problem> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
        Problem::invalid("Last-Event-ID is not an id that this stream has sent: a number")
    })
}

/// The first ordinal held, and the next to be given.
async fn held(app: &App) -> Result<[u64; 2], Problem> {
    match app.call(Request::Status).await? {
        Reply::Status(status) => Ok(status.ordinals),
        other => Err(unexpected(&other)),
    }
}

impl Follower {
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
            batch = self.batch() => batch,
        };
        if let Err(problem) = batch {
            // The client comes back with its last id after the stream ends.
            self.ended = true;
            let data = serde_json::to_string(&problem).unwrap_or_default();
            return Some(Event::default().event("problem").data(data));
        }
        Some(self.events.pop_front().unwrap_or_else(|| Event::default().comment("heartbeat")))
    }

    /// Asks the node for what comes next and makes events of it.
    async fn batch(&mut self) -> Result<(), Problem> {
        if self.behind {
            self.tell_gap().await?;
        }
        let wait_ms = self.app.options.heartbeat_ms as u32;
        let request = Request::Read {
            from: self.from,
            limit: Some(BATCH_MESSAGES_MAX),
            message_type: self.message_type.clone(),
            key: self.key.clone(),
            wait_ms,
        };
        match self.app.call_within(request, wait_ms).await? {
            Reply::Messages { messages, next } => {
                self.behind = !messages.is_empty();
                self.from = self.from.max(next);
                for message in &messages {
                    self.events.push_back(message_event(message));
                }
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Tells when what should come next is no longer held.
    async fn tell_gap(&mut self) -> Result<(), Problem> {
        let [first, _] = held(&self.app).await?;
        if self.from >= first {
            return Ok(());
        }
        let data = serde_json::json!({ "from": self.from, "next": first }).to_string();
        let id = first.saturating_sub(1).to_string();
        self.events.push_back(Event::default().event("gap").id(id).data(data));
        self.from = first;
        Ok(())
    }
}

fn message_event(message: &StoredMessage) -> Event {
    // JSON text has no line breaks, and its fields are all representable.
    let data = serde_json::to_string(message).unwrap_or_default();
    Event::default().event("message").id(message.ordinal.to_string()).data(data)
}
