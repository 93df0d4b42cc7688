//! Named consumers: subscribe, fetch, settle.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::messages::Messages;
use super::node::name;
use super::problem::Problem;
use super::{App, extract, unexpected};
use crate::api::{ConsumerStatus, Reply, Request};

#[derive(Serialize)]
pub(crate) struct Consumers {
    consumers: Vec<ConsumerStatus>,
}

async fn all(app: &App) -> Result<Vec<ConsumerStatus>, Problem> {
    match app.call(Request::Consumers).await? {
        Reply::Consumers { consumers } => Ok(consumers),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Consumers>, Problem> {
    Ok(Json(Consumers { consumers: all(&app).await? }))
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<ConsumerStatus>, Problem> {
    let name = name(path)?;
    match all(&app).await?.into_iter().find(|consumer| consumer.name == name) {
        Some(consumer) => Ok(Json(consumer)),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no consumer {name:?}; PUT makes one"),
        )),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscription {
    #[serde(default, rename = "type")]
    message_type: String,
    #[serde(default)]
    from_start: bool,
}

/// Makes a consumer, or leaves it as it is. The body may be left out.
pub(crate) async fn subscribe(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let consumer = name(path)?;
    let subscription = match extract::media_type(&headers)? {
        None => Subscription::default(),
        Some(_) => extract::json(&app, &headers, body).await?,
    };
    let Subscription { message_type, from_start } = subscription;
    let message_type = Some(message_type).filter(|pattern| !pattern.is_empty());
    match app.call(Request::Subscribe { consumer, message_type, from_start }).await? {
        Reply::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn unsubscribe(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    match app.call(Request::Unsubscribe { consumer: name(path)? }).await? {
        Reply::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(&other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    limit: Option<u32>,
    #[serde(default)]
    wait_ms: u32,
}

pub(crate) async fn fetch(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Messages>, Problem> {
    let fetch: Fetch = extract::query(&uri)?;
    let limit = extract::limit(fetch.limit)?;
    let wait_ms = extract::wait_ms(fetch.wait_ms)?;
    let _place = if wait_ms > 0 { Some(app.wait_place()?) } else { None };
    let request = Request::Fetch { consumer: name(path)?, limit, wait_ms };
    match app.call_within(request, wait_ms).await? {
        Reply::Messages { messages, next } => Ok(Json(Messages { messages, next })),
        other => Err(unexpected(&other)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    #[serde(default)]
    ack: Vec<String>,
    #[serde(default)]
    reject: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct Settled {
    settled: u64,
    not_found: Vec<String>,
}

/// An id that is not outstanding is an answer about that id and no error (HS-27).
pub(crate) async fn settle(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Settled>, Problem> {
    let consumer = name(path)?;
    let Settle { ack, reject } = extract::json(&app, &headers, body).await?;
    match app.call(Request::Settle { consumer, ack, reject }).await? {
        Reply::Settled { settled, not_found } => Ok(Json(Settled { settled, not_found })),
        other => Err(unexpected(&other)),
    }
}
