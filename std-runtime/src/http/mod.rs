//! The HTTP interface of a node.
//!
//! Everything that [`crate::api`] can say, as resources under `/v1`; beside it health, readiness,
//! metrics, the OpenAPI document (`/openapi.json`, kept in this folder and checked against the
//! router by a test) and a status page at `/`.
//!
//! Every wait and every buffer has a limit, an option of [`HttpOptions`]. Errors are problem
//! documents (RFC 9457), see [`problem`]. [`serve`] runs it on a listener; [`router`] is the same
//! without sockets.

mod cluster;
mod connection;
mod consumers;
mod event_stream;
mod events;
mod extract;
mod messages;
mod node;
pub mod problem;
mod queues;
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Extension, Router};
use replcore::stream::Name;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use connection::serve;

use crate::api::{ApiError, ErrorKind, Reply, Request};
use crate::handle::NodeHandle;
use problem::Problem;

/// What is behind an HTTP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A node: a hub or a leaf.
    Node,
    /// A member of a cluster.
    Member,
}

impl Behind {
    /// The OpenAPI document, as served at `/openapi.json`.
    pub const fn openapi(self) -> &'static str {
        match self {
            Self::Node => include_str!("openapi.json"),
            Self::Member => include_str!("openapi_cluster.json"),
        }
    }

    /// Every method and path that the router knows, for the comparison with the OpenAPI document.
    pub fn route_names(self) -> Vec<(Method, &'static str)> {
        self.routes().into_iter().map(|(method, path, _)| (method, path)).collect()
    }

    /// The routes: method, path as in the OpenAPI document, handler.
    fn routes(self) -> Vec<Route> {
        match self {
            Self::Node => node_routes(),
            Self::Member => cluster::routes(),
        }
    }
}

type Route = (Method, &'static str, MethodRouter<Arc<App>>);

/// Limits of the HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Longest body of a request, in bytes. Default 32 MiB, so that a message of 16 MiB in base64
    /// fits. Longer ones are answered with 413.
    pub body_bytes_max: usize,
    /// Bytes of all bodies being received or worked on at once. Default 64 MiB. What does not fit
    /// is answered with 503 and may be tried again. At most 4 GiB.
    pub bodies_bytes_max: usize,
    /// Connections at once. Default 256. Further ones wait to be accepted.
    pub connections_max: usize,
    /// Longest time for the head of a request, and so for a connection without requests, in
    /// milliseconds. Default 15,000.
    pub header_ms_max: u64,
    /// Longest time for the body of a request, in milliseconds. Default 30,000.
    pub body_ms_max: u64,
    /// A client that takes no byte of an answer for this long is cut off, in milliseconds. Default
    /// 30,000.
    pub write_ms_max: u64,
    /// Longest time for the node to answer, beside what the request itself wants to wait, in
    /// milliseconds. Default 10,000.
    pub call_ms_max: u64,
    /// Requests with `wait_ms` and event streams at once. Default 128. Further ones are answered
    /// with 503.
    pub waits_max: usize,
    /// Time between two comments on a quiet event stream, in milliseconds. Default 15,000, at most
    /// 60,000.
    pub heartbeat_ms: u64,
    /// Time for open requests to end when the node stops, in milliseconds. Default 5,000.
    pub drain_ms_max: u64,
    /// Most nodes, queues and consumers with metrics of their own; the others only count in the
    /// sums. Default 100 each.
    pub metrics_series_max: usize,
    /// Host names under which requests may come when the listener is on loopback without TLS,
    /// beside `localhost` and addresses. It keeps web pages of others from using the node through
    /// a browser on this machine.
    pub hosts: Vec<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 64 << 20,
            connections_max: 256,
            header_ms_max: 15_000,
            body_ms_max: 30_000,
            write_ms_max: 30_000,
            call_ms_max: 10_000,
            waits_max: 128,
            heartbeat_ms: 15_000,
            drain_ms_max: 5_000,
            metrics_series_max: 100,
            hosts: Vec::new(),
        }
    }
}

impl HttpOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// One line that names the option.
    pub fn validate(&self) -> Result<(), String> {
        let one_or_more = [
            ("body_bytes_max", self.body_bytes_max as u64),
            ("bodies_bytes_max", self.bodies_bytes_max as u64),
            ("connections_max", self.connections_max as u64),
            ("header_ms_max", self.header_ms_max),
            ("body_ms_max", self.body_ms_max),
            ("write_ms_max", self.write_ms_max),
            ("call_ms_max", self.call_ms_max),
            ("heartbeat_ms", self.heartbeat_ms),
        ];
        if let Some((name, _)) = one_or_more.iter().find(|(_, value)| *value == 0) {
            return Err(format!("http.{name} is 0; it has to be at least 1"));
        }
        if self.bodies_bytes_max > u32::MAX as usize {
            return Err("http.bodies_bytes_max is over 4 GiB".into());
        }
        if self.body_bytes_max > self.bodies_bytes_max {
            return Err("http.body_bytes_max is greater than http.bodies_bytes_max".into());
        }
        if self.heartbeat_ms > extract::WAIT_MS_MAX.into() {
            return Err(format!("http.heartbeat_ms is over {}", extract::WAIT_MS_MAX));
        }
        Ok(())
    }
}

/// What the handlers share.
pub(crate) struct App {
    behind: Behind,
    node: NodeHandle,
    options: HttpOptions,
    bodies: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    counters: HttpCounters,
    /// Whether a request has to name this machine or one of `options.hosts`.
    local_only: bool,
    /// Turns true when the server stops, so that event streams end.
    stopping: watch::Receiver<bool>,
}

/// What the HTTP interface counts about itself.
#[derive(Debug, Default)]
pub(crate) struct HttpCounters {
    /// Requests answered, by the first digit of the status.
    pub(crate) requests: [AtomicU64; 6],
    /// Connections open.
    pub(crate) connections: AtomicU64,
    /// TLS handshakes that failed.
    pub(crate) handshakes_failed: AtomicU64,
    /// Requests refused because too many waited.
    pub(crate) waits_refused: AtomicU64,
}

/// The name in the certificate that a request came under, among the extensions of the request.
#[derive(Clone, Copy)]
pub(crate) struct Certificate(pub(crate) Name);

/// Who asks, as far as a certificate says it.
pub(crate) type Caller = Option<Extension<Certificate>>;

impl App {
    /// Asks the node for what only administrators may do, within the deadline.
    async fn administer(&self, caller: Caller, request: Request) -> Result<Reply, Problem> {
        let caller = caller.map(|Extension(Certificate(name))| name);
        self.answered(self.node.call_for(caller, request), 0).await
    }

    /// Asks the node, within the deadline.
    async fn call(&self, request: Request) -> Result<Reply, Problem> {
        self.call_within(request, 0).await
    }

    /// Asks the node, within the deadline and what the request wants to wait beside.
    async fn call_within(&self, request: Request, wait_ms: u32) -> Result<Reply, Problem> {
        self.answered(self.node.call(request), wait_ms).await
    }

    async fn answered(
        &self,
        answer: impl Future<Output = Result<Reply, ApiError>>,
        wait_ms: u32,
    ) -> Result<Reply, Problem> {
        let limit = Duration::from_millis(self.options.call_ms_max + u64::from(wait_ms));
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(Problem::from),
            Err(_) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                format!("the node has not answered within {} ms; try again", limit.as_millis()),
            )
            .retry_after(1)),
        }
    }

    /// A place among those who wait.
    fn wait_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.waits).try_acquire_owned().map_err(|_| {
            self.counters.waits_refused.fetch_add(1, Ordering::Relaxed);
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                format!(
                    "{} requests are waiting already, which is the limit (http.waits_max)",
                    self.options.waits_max
                ),
            )
            .retry_after(1)
        })
    }
}

/// The answer of a node that fits no question of this kind: a defect of the node.
fn unexpected(reply: &Reply) -> Problem {
    tracing::error!(?reply, "the node answered with something else than was asked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the node answered amiss")
}

fn node_routes() -> Vec<Route> {
    vec![
        (Method::GET, "/", get(site::page)),
        (Method::GET, "/openapi.json", get(site::openapi)),
        (Method::GET, "/health", get(node::health)),
        (Method::GET, "/ready", get(node::ready)),
        (Method::GET, "/metrics", get(node::metrics)),
        (Method::GET, "/v1/status", get(node::status)),
        (Method::POST, "/v1/messages", post(messages::post)),
        (Method::GET, "/v1/messages", get(messages::read)),
        (Method::GET, "/v1/messages/latest/{type}/{key}", get(messages::latest)),
        (Method::GET, "/v1/events", get(events::events)),
        (Method::GET, "/v1/queues", get(queues::list)),
        (Method::GET, "/v1/queues/{name}/messages", get(queues::peek)),
        (Method::DELETE, "/v1/queues/{name}/messages", delete(queues::purge)),
        (Method::GET, "/v1/nodes", get(node::list)),
        (Method::DELETE, "/v1/nodes/{name}", delete(node::forget)),
        (Method::GET, "/v1/consumers", get(consumers::list)),
        (Method::GET, "/v1/consumers/{name}", get(consumers::show)),
        (Method::PUT, "/v1/consumers/{name}", put(consumers::subscribe)),
        (Method::DELETE, "/v1/consumers/{name}", delete(consumers::unsubscribe)),
        (Method::GET, "/v1/consumers/{name}/messages", get(consumers::fetch)),
        (Method::POST, "/v1/consumers/{name}/settle", post(consumers::settle)),
        (Method::GET, "/v1/rules", get(node::rules)),
        (Method::PUT, "/v1/rules", put(node::set_rules)),
    ]
}

/// The router over `node`, without a listener. Event streams end when `stopping` turns true.
/// `local_only` makes it refuse host names that are not of this machine.
pub fn router(
    (behind, node): (Behind, NodeHandle),
    options: HttpOptions,
    local_only: bool,
    stopping: watch::Receiver<bool>,
) -> Router {
    app_router(Arc::new(App::new(behind, node, options, local_only, stopping)))
}

impl App {
    fn new(
        behind: Behind,
        node: NodeHandle,
        options: HttpOptions,
        local_only: bool,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            bodies: Arc::new(Semaphore::new(options.bodies_bytes_max)),
            waits: Arc::new(Semaphore::new(options.waits_max)),
            counters: HttpCounters::default(),
            behind,
            node,
            options,
            local_only,
            stopping,
        }
    }
}

fn app_router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (_, path, handler) in app.behind.routes() {
        router = router.route(path, handler);
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "no such path; /openapi.json lists them")
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the path does not have this method; the Allow header lists those it has",
    )
}

/// What holds for every request: who may ask, the instance of a problem, headers and counters.
async fn around(State(app): State<Arc<App>>, request: HttpRequest, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = match refuse_foreign(&app, &request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // Some headers, like Allow, were set by the router on top of the problem.
        let kept = response.headers().get(header::ALLOW).cloned();
        response = problem.instance(path).into_response();
        if let Some(allow) = kept {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let class = usize::from(response.status().as_u16() / 100).min(5);
    app.counters.requests[class].fetch_add(1, Ordering::Relaxed);
    response
}

/// A browser sends the pages of others here too. A changing request must come from a page of this
/// server or from no page at all; on loopback the host name must be one of this machine, or a name
/// that was pointed here would pass for one.
fn refuse_foreign(app: &App, request: &HttpRequest) -> Option<Problem> {
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(header::HOST)?.to_str().ok());
    if app.local_only && !host.is_none_or(|host| is_own_host(host, &app.options.hosts)) {
        return Some(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "this listener is for this machine only: ask by address or localhost, or add the \
             host name to http.hosts",
        ));
    }
    if request.method().is_safe() {
        return None;
    }
    let origin = request.headers().get(header::ORIGIN)?;
    let origin_host = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, h)| h);
    if origin_host.is_some() && origin_host == host {
        return None;
    }
    Some(Problem::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "a page of another site may not change anything here",
    ))
}

fn is_own_host(host: &str, allowed: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok()
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Ends when `stopping` turns true or its sender is gone.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that nobody can say it any more, which is an end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Problem kinds of the node's errors.
impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let (status, kind) = match error.kind {
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            ErrorKind::Full => (StatusCode::TOO_MANY_REQUESTS, "full"),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let problem = Self::new(status, kind, error.message).index(error.index);
        match error.kind {
            ErrorKind::Full | ErrorKind::Unavailable => problem.retry_after(1),
            _ => problem,
        }
    }
}
