//! The node itself: status, health, metrics, the leaves, the rules.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::{App, Caller, extract, unexpected};
use crate::api::{DispatchRule, NodeStatus, Reply, Request, Status};
use crate::metrics;

/// A page of a listing: names after one, at most so many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    rules: Vec<DispatchRule>,
}

#[derive(Serialize)]
pub(crate) struct Nodes {
    nodes: Vec<NodeStatus>,
    more: bool,
}

/// A name in the path.
pub(crate) fn name(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    match path {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(Problem::invalid(format!("the path: {}", error.body_text()))),
    }
}

async fn status_of(app: &App) -> Result<Box<Status>, Problem> {
    match app.call(Request::Status).await? {
        Reply::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn status(State(app): State<Arc<App>>) -> Result<Json<Status>, Problem> {
    Ok(Json(*status_of(&app).await?))
}

/// Alive: the node takes and answers calls.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let limit = Duration::from_millis(app.options.call_ms_max.min(2_000));
    match tokio::time::timeout(limit, status_of(&app)).await {
        Ok(Ok(status)) => {
            let body = serde_json::json!({ "alive": true, "name": status.name });
            Ok(Json(body).into_response())
        }
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the node does not answer",
        )),
    }
}

/// Ready: a leaf is registered at its upstreams, a hub takes links.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let status = status_of(&app).await?;
    if status.ready {
        let body = serde_json::json!({ "ready": true, "name": status.name });
        return Ok(Json(body).into_response());
    }
    let mut detail = format!("{} is not ready", status.name);
    for (upstream, state) in &status.upstreams {
        detail.push_str(&format!("; upstream {upstream}: {state}"));
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).retry_after(1))
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let limit = Duration::from_millis(app.options.call_ms_max);
    let series = app.options.metrics_series_max;
    let snapshot = tokio::time::timeout(limit, metrics::snapshot(&app.node, series))
        .await
        .map_err(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the node does not answer")
        })?
        .map_err(Problem::from)?;
    let text = snapshot.with_http(&app.counters).text();
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Nodes>, Problem> {
    let page: Page = extract::query(&uri)?;
    let limit = extract::limit(page.limit)?;
    match app.call(Request::Nodes { after: page.after, limit }).await? {
        Reply::Nodes { nodes, more } => Ok(Json(Nodes { nodes, more })),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn forget(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    match app.administer(caller, Request::Forget { node: name(path)? }).await? {
        Reply::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn rules(State(app): State<Arc<App>>) -> Result<Json<Rules>, Problem> {
    match app.call(Request::Rules).await? {
        Reply::Rules { rules } => Ok(Json(Rules { rules })),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn set_rules(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Rules>, Problem> {
    let Rules { rules } = extract::json(&app, &headers, body).await?;
    match app.administer(caller, Request::SetRules { rules }).await? {
        Reply::Rules { rules } => Ok(Json(Rules { rules })),
        other => Err(unexpected(&other)),
    }
}
