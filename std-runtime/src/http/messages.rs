//! Messages: post, read by position, the latest of a key.
//!
//! A list that is posted is taken in order up to the first item that is malformed or refused
//! (HS-28): the answer is then a problem with that item's `index` and the `ids` of those before
//! it, and nothing after it is taken. A document that is not JSON at all is refused as a whole;
//! JSON lines are taken up to the line that is none. Posting the whole list again with the same
//! idempotency keys is always safe.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::extract::{self, percent_decode};
use super::problem::Problem;
use super::{App, unexpected};
use crate::api::{Bytes, NewMessage, PostedId, Reply, Request, StoredMessage};

/// Messages of one call to the node; a longer list goes in several.
const BATCH_MESSAGES_MAX: usize = 1000;

/// A page of messages.
#[derive(Serialize)]
pub(crate) struct Messages {
    pub(crate) messages: Vec<StoredMessage>,
    pub(crate) next: u64,
}

#[derive(Serialize)]
struct Posted {
    ids: Vec<PostedId>,
}

/// The parts of a message whose body comes as it is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(rename = "type")]
    message_type: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    class: Option<u8>,
    ttl_ms: Option<u64>,
    to: Option<String>,
    #[serde(default)]
    raw: bool,
}

/// What was sent: the messages before the first malformed item, and what is wrong with that.
struct Parsed {
    messages: Vec<NewMessage>,
    malformed: Option<Problem>,
}

pub(crate) async fn post(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let parts: Parts = extract::query(&uri)?;
    let has_query = uri.query().is_some_and(|query| !query.is_empty());
    let kind = extract::media_type(&headers)?.unwrap_or_default();
    let form = if parts.raw { "" } else { kind.as_str() };
    let structured = matches!(form, "application/json" | "application/x-ndjson");
    if structured && has_query {
        return Err(Problem::invalid(
            "with JSON the parts of a message are in it; to post the JSON itself as a body add \
             raw=true",
        ));
    }
    // The share of the memory for bodies is held until the node has answered.
    let received = extract::body(&app, &headers, body).await?;
    let mut parsed = match form {
        "application/json" => parse_json(&received.bytes)?,
        "application/x-ndjson" => parse_lines(&received.bytes),
        _ => Parsed {
            messages: vec![raw_message(parts, &headers, kind, received.bytes.clone())?],
            malformed: None,
        },
    };
    if let Some(key) = headers.get("idempotency-key") {
        name_posting(&mut parsed.messages, key.as_bytes(), structured)?;
    }
    let ids = post_all(&app, parsed.messages).await?;
    if let Some(problem) = parsed.malformed {
        return Err(problem.taken(ids));
    }
    let fresh = ids.iter().any(|id| !id.duplicate);
    let status = if fresh { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Posted { ids })).into_response())
}

fn parse_json(bytes: &[u8]) -> Result<Parsed, Problem> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| Problem::invalid(format!("the body is not JSON: {error}")))?;
    let serde_json::Value::Array(items) = value else {
        let message = serde_json::from_value(value)
            .map_err(|error| Problem::invalid(format!("the body is not a message: {error}")))?;
        return Ok(Parsed { messages: vec![message], malformed: None });
    };
    let mut messages = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match serde_json::from_value(item) {
            Ok(message) => messages.push(message),
            Err(error) => {
                let problem = Problem::invalid(format!("item {index} is not a message: {error}"));
                return Ok(Parsed { messages, malformed: Some(problem.index(Some(index))) });
            }
        }
    }
    Ok(Parsed { messages, malformed: None })
}

/// One message a line; empty lines are passed over, and are not counted by an index.
fn parse_lines(bytes: &[u8]) -> Parsed {
    let mut messages = Vec::new();
    for (line, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(message) => messages.push(message),
            Err(error) => {
                let problem =
                    Problem::invalid(format!("line {} is not a message: {error}", line + 1));
                let index = messages.len();
                return Parsed { messages, malformed: Some(problem.index(Some(index))) };
            }
        }
    }
    Parsed { messages, malformed: None }
}

/// A message whose body is the body of the request. Parts come from the query or from headers.
fn raw_message(
    parts: Parts,
    headers: &HeaderMap,
    content_type: String,
    body: Vec<u8>,
) -> Result<NewMessage, Problem> {
    let text = |name: &str| -> Result<Option<String>, Problem> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Problem::invalid(format!("the header {name} is not UTF-8")))?;
        Ok(Some(text.to_owned()))
    };
    let number = |name: &str| -> Result<Option<u64>, Problem> {
        let Some(text) = text(name)? else { return Ok(None) };
        let number = text.trim().parse().map_err(|_| {
            Problem::invalid(format!("the header {name} is {text:?}, which is no number"))
        })?;
        Ok(Some(number))
    };
    let key = query_key(parts.key, parts.key_base64)?
        .or_else(|| headers.get("replcore-key").map(|value| Bytes(value.as_bytes().to_vec())));
    let class = match parts.class {
        Some(class) => Some(class),
        None => number("replcore-class")?.map(|class| u8::try_from(class).unwrap_or(u8::MAX)),
    };
    let ttl_ms = match parts.ttl_ms {
        Some(ttl_ms) => Some(ttl_ms),
        None => number("replcore-ttl-ms")?,
    };
    let to = parts.to.or(text("replcore-to")?).unwrap_or_default();
    let mut message = NewMessage {
        message_type: parts.message_type.or(text("replcore-type")?).unwrap_or_default(),
        key,
        class,
        ttl_ms,
        content_type,
        to: to
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(String::from)
            .collect(),
        body: Bytes(body),
        ..NewMessage::default()
    };
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix("replcore-header-") {
            message.headers.insert(name.to_owned(), Bytes(value.as_bytes().to_vec()));
        }
    }
    Ok(message)
}

/// Gives each message that has none a key from the one of the request: the key itself for a single
/// message, with `/INDEX` for those of a list.
fn name_posting(messages: &mut [NewMessage], key: &[u8], list: bool) -> Result<(), Problem> {
    // The draft of the header writes the key as a quoted string; most clients send it bare.
    let key = key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\"")).unwrap_or(key);
    if key.is_empty() {
        return Err(Problem::invalid("the Idempotency-Key header is empty"));
    }
    let single = messages.len() == 1 && !list;
    for (index, message) in messages.iter_mut().enumerate() {
        let own = message.idempotency_key.get_or_insert_with(|| {
            let mut own = key.to_vec();
            if !single {
                own.extend_from_slice(format!("/{index}").as_bytes());
            }
            Bytes(own)
        });
        if own.0.len() > replcore::log::record::KEY_BYTES_MAX {
            return Err(Problem::invalid(format!(
                "an idempotency key has at most {} bytes",
                replcore::log::record::KEY_BYTES_MAX
            )));
        }
    }
    Ok(())
}

/// Posts a list in as many calls as it takes. A problem tells the index in the whole list.
async fn post_all(app: &App, messages: Vec<NewMessage>) -> Result<Vec<PostedId>, Problem> {
    let mut ids = Vec::with_capacity(messages.len());
    let mut rest = messages.into_iter();
    loop {
        let messages: Vec<NewMessage> = rest.by_ref().take(BATCH_MESSAGES_MAX).collect();
        if messages.is_empty() {
            return Ok(ids);
        }
        match app.call(Request::Post { messages }).await {
            Ok(Reply::Posted { ids: more }) => ids.extend(more),
            Ok(other) => return Err(unexpected(&other)),
            Err(problem) => return Err(problem.offset_index(ids.len())),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(default)]
    from: u64,
    limit: Option<u32>,
    #[serde(rename = "type")]
    message_type: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default)]
    wait_ms: u32,
}

/// A key of a query: as text, or in base64.
pub(crate) fn query_key(
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, Problem> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Problem::invalid("give key or key_base64, not both")),
        (Some(key), None) => Ok(Some(Bytes(key.into_bytes()))),
        (None, Some(key)) => match BASE64.decode(key) {
            Ok(key) => Ok(Some(Bytes(key))),
            Err(error) => Err(Problem::invalid(format!("key_base64 is not base64: {error}"))),
        },
        (None, None) => Ok(None),
    }
}

pub(crate) async fn read(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Messages>, Problem> {
    let read: Read = extract::query(&uri)?;
    let limit = extract::limit(read.limit)?;
    let wait_ms = extract::wait_ms(read.wait_ms)?;
    let key = query_key(read.key, read.key_base64)?;
    let _place = if wait_ms > 0 { Some(app.wait_place()?) } else { None };
    let Read { from, message_type, .. } = read;
    let request = Request::Read { from, limit, message_type, key, wait_ms };
    match app.call_within(request, wait_ms).await? {
        Reply::Messages { messages, next } => Ok(Json(Messages { messages, next })),
        other => Err(unexpected(&other)),
    }
}

/// The path is taken apart by hand, because a key may have any bytes behind its percent signs.
pub(crate) async fn latest(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<StoredMessage>, Problem> {
    let rest = uri.path().strip_prefix("/v1/messages/latest/").unwrap_or_default();
    let (message_type, key) = rest.split_once('/').unwrap_or_default();
    let message_type = String::from_utf8(percent_decode(message_type))
        .map_err(|_| Problem::invalid("the type in the path is not UTF-8"))?;
    let key = Bytes(percent_decode(key));
    match app.call(Request::Latest { message_type, key }).await? {
        Reply::Latest { message: Some(message) } => Ok(Json(message)),
        Reply::Latest { message: None } => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no message of this type and key here",
        )),
        other => Err(unexpected(&other)),
    }
}
