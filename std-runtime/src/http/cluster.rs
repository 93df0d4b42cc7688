//! The HTTP interface of a member of a cluster.
//!
//! `/health` is 200 at every member that runs, `/leading` only at the leader, so that a load balancer
//! sends to it and to nobody else. While nobody leads, what needs a leader is answered with 503 and
//! `Retry-After`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde::{Deserialize, Serialize};

use super::event_stream::{Source, last_event_id, respond};
use super::node::name;
use super::problem::Problem;
use super::{App, Caller, Route, extract, site, unexpected};
use crate::api::{Reply, Request};
use crate::cluster::api::{ClusterReply, ClusterRequest, ClusterStatus, Leader, Member};
use crate::cluster::config::join_host_port;
use crate::cluster::{ClusterEvent, Metadata, metrics as cluster_metrics};
use crate::metrics;

pub(super) fn routes() -> Vec<Route> {
    vec![
        (Method::GET, "/openapi.json", get(site::openapi)),
        (Method::GET, "/health", get(health)),
        (Method::GET, "/leading", get(leading)),
        (Method::GET, "/metrics", get(metrics_text)),
        (Method::GET, "/v1/status", get(status)),
        (Method::GET, "/v1/leader", get(leader)),
        (Method::GET, "/v1/redirect", get(redirect)),
        (Method::POST, "/v1/resign", post(resign)),
        (Method::GET, "/v1/members", get(members)),
        (Method::POST, "/v1/members", post(join)),
        (Method::GET, "/v1/members/{identifier}", get(member)),
        (Method::DELETE, "/v1/members/{identifier}", delete(leave)),
        (Method::GET, "/v1/metadata", get(metadata)),
        (Method::PUT, "/v1/metadata", put(set_metadata)),
        (Method::GET, "/v1/events", get(events)),
    ]
}

/// What `GET /v1/members` answers.
#[derive(Serialize)]
pub(crate) struct Members {
    members: Vec<Member>,
}

/// The body of `POST /v1/members`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMember {
    identifier: String,
    address: String,
    #[serde(default)]
    learner: bool,
}

async fn ask(app: &App, request: ClusterRequest) -> Result<ClusterReply, Problem> {
    match app.call(Request::Cluster(request)).await? {
        Reply::Cluster(reply) => Ok(reply),
        other => Err(unexpected(&other)),
    }
}

async fn order(app: &App, caller: Caller, request: ClusterRequest) -> Result<StatusCode, Problem> {
    match app.administer(caller, Request::Cluster(request)).await? {
        Reply::Cluster(ClusterReply::Done) => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(&other)),
    }
}

async fn status_of(app: &App) -> Result<Box<ClusterStatus>, Problem> {
    match ask(app, ClusterRequest::Status).await? {
        ClusterReply::Status(status) => Ok(status),
        other => Err(unexpected(&Reply::Cluster(other))),
    }
}

fn no_leader() -> Problem {
    let detail = "nobody leads at present; try again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_leader", detail).retry_after(1)
}

fn leader_of(status: ClusterStatus) -> Result<Leader, Problem> {
    status.leader.ok_or_else(no_leader)
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<ClusterStatus>, Problem> {
    Ok(Json(*status_of(&app).await?))
}

/// Alive: the member answers.
async fn health(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let status = status_of(&app).await?;
    let body = serde_json::json!({
        "alive": true,
        "identifier": status.identifier,
        "role": status.role,
        "term": status.term,
    });
    Ok(Json(body).into_response())
}

/// 200 at the leader and nowhere else.
async fn leading(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let status = status_of(&app).await?;
    if status.is_leader {
        let body = serde_json::json!({
            "leading": true,
            "identifier": status.identifier,
            "term": status.term,
            "lease_left_ms": status.lease_left_ms,
        });
        return Ok(Json(body).into_response());
    }
    let leader = leader_of(*status)?;
    let detail = format!("{} leads", leader.identifier);
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_leading", detail))
}

async fn leader(State(app): State<Arc<App>>) -> Result<Json<Leader>, Problem> {
    leader_of(*status_of(&app).await?).map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    path: Option<String>,
}

/// Sends a browser or program to the leader's own service, as its metadata tells where that is.
async fn redirect(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let wanted: Wanted = extract::query(&uri)?;
    let path = wanted.path.unwrap_or_else(|| "/".into());
    let leader = leader_of(*status_of(&app).await?)?;
    let base = service_of(&leader).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no_service",
            format!(
                "the metadata of the leader, {}, has neither `url` nor `server_port`",
                leader.identifier
            ),
        )
    })?;
    let location = format!("{base}{path}");
    let sound = path.starts_with('/') && location.parse::<Uri>().is_ok();
    if !sound {
        return Err(Problem::invalid("path must begin with / and be a path of a URL"));
    }
    Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response())
}

/// The URL of the leader's service, without a slash at its end: `url` of its metadata, or its host
/// with `server_port` of its metadata.
fn service_of(leader: &Leader) -> Option<String> {
    let url = leader.metadata.get("url").and_then(serde_json::Value::as_str);
    if let Some(url) = url.filter(|url| url.starts_with("http://") || url.starts_with("https://")) {
        return Some(url.trim_end_matches('/').to_owned());
    }
    let port = leader.metadata.get("server_port").and_then(serde_json::Value::as_u64)?;
    Some(format!("http://{}", join_host_port(&leader.host, u16::try_from(port).ok()?)))
}

async fn resign(State(app): State<Arc<App>>, caller: Caller) -> Result<StatusCode, Problem> {
    order(&app, caller, ClusterRequest::Resign).await
}

async fn members(State(app): State<Arc<App>>) -> Result<Json<Members>, Problem> {
    Ok(Json(Members { members: status_of(&app).await?.members }))
}

async fn member(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Member>, Problem> {
    let identifier = name(path)?;
    let members = status_of(&app).await?.members;
    let found = members.into_iter().find(|member| member.identifier == identifier);
    let missing = || {
        Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no member {identifier}"))
    };
    found.map(Json).ok_or_else(missing)
}

async fn join(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let NewMember { identifier, address, learner } = extract::json(&app, &headers, body).await?;
    let voter = !learner;
    order(&app, caller, ClusterRequest::Join { identifier, address, voter, passed_on: false }).await
}

async fn leave(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    order(&app, caller, ClusterRequest::Leave { identifier: name(path)?, passed_on: false }).await
}

async fn metadata(State(app): State<Arc<App>>) -> Result<Json<Metadata>, Problem> {
    let status = status_of(&app).await?;
    let own = status.members.into_iter().find(|member| member.identifier == status.identifier);
    Ok(Json(own.map(|own| own.metadata).unwrap_or_default()))
}

async fn set_metadata(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let metadata: Metadata = extract::json(&app, &headers, body).await?;
    order(&app, caller, ClusterRequest::SetMetadata { metadata }).await
}

async fn metrics_text(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let status = status_of(&app).await?;
    let mut samples = cluster_metrics::samples(&status);
    samples.extend(metrics::http_samples(&app.counters));
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(samples)).into_response())
}

/// Where one stream of events is.
struct ClusterEvents {
    after: u64,
}

async fn events(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let place = app.wait_place()?;
    let after = match last_event_id(&headers)? {
        Some(last) => last,
        None => match ask(&app, ClusterRequest::Events { after: None, wait_ms: 0 }).await? {
            ClusterReply::Events { last, .. } => last,
            other => return Err(unexpected(&Reply::Cluster(other))),
        },
    };
    Ok(respond(app, place, ClusterEvents { after }))
}

impl Source for ClusterEvents {
    async fn batch(&mut self, app: &App) -> Result<Vec<Event>, Problem> {
        let wait_ms = app.options.heartbeat_ms as u32;
        let request = ClusterRequest::Events { after: Some(self.after), wait_ms };
        match app.call_within(Request::Cluster(request), wait_ms).await? {
            Reply::Cluster(ClusterReply::Events { events, last, missed }) => {
                self.after = last;
                let data = || serde_json::json!({ "missed": missed }).to_string();
                let gap = (missed > 0).then(|| Event::default().event("gap").data(data()));
                Ok(gap.into_iter().chain(events.iter().map(event)).collect())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn event(event: &ClusterEvent) -> Event {
    // JSON text has no line breaks, and its fields are all representable.
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(event.what.name()).id(event.id.to_string()).data(data)
}
