//! Queues: list, peek, purge.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::{Deserialize, Serialize};

use super::messages::Messages;
use super::node::{Page, name};
use super::problem::Problem;
use super::{App, Caller, extract, unexpected};
use crate::api::{QueueStatus, Reply, Request};

#[derive(Serialize)]
pub(crate) struct Queues {
    queues: Vec<QueueStatus>,
    more: bool,
}

pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Queues>, Problem> {
    let page: Page = extract::query(&uri)?;
    let limit = extract::limit(page.limit)?;
    match app.call(Request::Queues { after: page.after, limit }).await? {
        Reply::Queues { queues, more } => Ok(Json(Queues { queues, more })),
        other => Err(unexpected(&other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peek {
    #[serde(default)]
    skip: u64,
    limit: Option<u32>,
}

pub(crate) async fn peek(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Messages>, Problem> {
    let peek: Peek = extract::query(&uri)?;
    let limit = extract::limit(peek.limit)?;
    match app.call(Request::Peek { queue: name(path)?, skip: peek.skip, limit }).await? {
        Reply::Messages { messages, next } => Ok(Json(Messages { messages, next })),
        other => Err(unexpected(&other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    ids: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Serialize)]
pub(crate) struct Purged {
    messages: u64,
    not_found: Vec<String>,
}

/// An id that is not in the queue is an answer about that id and no error (HS-27). Without ids it
/// takes `all=true`, so that a query that got lost on the way empties nothing.
pub(crate) async fn purge(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Purged>, Problem> {
    let purge: Purge = extract::query(&uri)?;
    let ids = match (purge.ids, purge.all) {
        (Some(ids), false) => Some(
            ids.split(',').map(str::trim).filter(|id| !id.is_empty()).map(String::from).collect(),
        ),
        (None, true) => None,
        _ => return Err(Problem::invalid("give either ids=ID,ID,... or all=true")),
    };
    match app.administer(caller, Request::Purge { queue: name(path)?, ids }).await? {
        Reply::Purged { messages, not_found } => Ok(Json(Purged { messages, not_found })),
        other => Err(unexpected(&other)),
    }
}
