//! Live messages as server-sent events.
//!
//! Each event is named `message`, has the message's ordinal as its id and the message as JSON for
//! data. A client that comes back with `Last-Event-ID` goes on after it; where messages after it
//! are no longer held, an event `gap` tells the range, so that nothing is lost silently. Without
//! `Last-Event-ID` and `from` only what is stored from now on is sent.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use serde::Deserialize;

use super::event_stream::{Source, last_event_id, respond};
use super::messages::query_key;
use super::problem::Problem;
use super::{App, extract, unexpected};
use crate::api::{Bytes, Reply, Request, StoredMessage};

/// Messages asked of the node at a time.
const BATCH_MESSAGES_MAX: u32 = 100;

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
struct Messages {
    message_type: Option<String>,
    key: Option<Bytes>,
    from: u64,
    /// Whether the last question had an answer, so that the client may since have fallen behind.
    behind: bool,
}

pub(crate) async fn events(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted: Wanted = extract::query(&uri)?;
    let key = query_key(wanted.key, wanted.key_base64)?;
    let place = app.wait_place()?;
    let last = last_event_id(&headers)?;
    let [_, next] = held(&app).await?;
    let from = last.map(|last| last.saturating_add(1)).or(wanted.from).unwrap_or(next);
    let message_type = wanted.message_type;
    Ok(respond(app, place, Messages { message_type, key, from, behind: true }))
}

/// The first ordinal held, and the next to be given.
async fn held(app: &App) -> Result<[u64; 2], Problem> {
    match app.call(Request::Status).await? {
        Reply::Status(status) => Ok(status.ordinals),
        other => Err(unexpected(&other)),
    }
}

impl Source for Messages {
    async fn batch(&mut self, app: &App) -> Result<Vec<Event>, Problem> {
        let mut events = Vec::new();
        if self.behind {
            events.extend(self.gap(app).await?);
        }
        let wait_ms = app.options.heartbeat_ms as u32;
        let request = Request::Read {
            from: self.from,
            limit: Some(BATCH_MESSAGES_MAX),
            message_type: self.message_type.clone(),
            key: self.key.clone(),
            wait_ms,
        };
        match app.call_within(request, wait_ms).await? {
            Reply::Messages { messages, next } => {
                self.behind = !messages.is_empty();
                self.from = self.from.max(next);
                events.extend(messages.iter().map(message_event));
                Ok(events)
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl Messages {
    /// Goes on behind what should come next and is no longer held, and tells of it.
    async fn gap(&mut self, app: &App) -> Result<Option<Event>, Problem> {
        let [first, _] = held(app).await?;
        if self.from >= first {
            return Ok(None);
        }
        let data = serde_json::json!({ "from": self.from, "next": first }).to_string();
        let id = first.saturating_sub(1).to_string();
        self.from = first;
        Ok(Some(Event::default().event("gap").id(id).data(data)))
    }
}

fn message_event(message: &StoredMessage) -> Event {
    // JSON text has no line breaks, and its fields are all representable.
    let data = serde_json::to_string(message).unwrap_or_default();
    Event::default().event("message").id(message.ordinal.to_string()).data(data)
}
