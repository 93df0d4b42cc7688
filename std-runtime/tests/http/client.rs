//! Asks the router without a socket.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use replcore_runtime::handle::NodeHandle;
use replcore_runtime::http::{Behind, HttpOptions, router};
use serde_json::Value;
use tokio::sync::watch;
use tower_service::Service;

use crate::support::FakeNode;

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Checks that it is a problem document of `status` and `kind`, and gives it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:replcore:problem:{kind}"));
        assert_eq!(problem["status"], status);
        assert!(problem["instance"].as_str().unwrap().starts_with('/'), "{problem}");
        for field in ["title", "detail"] {
            let text = problem[field].as_str().unwrap();
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        }
        problem
    }
}

/// A fake node and a router over it.
pub(crate) struct Site {
    pub(crate) node: FakeNode,
    pub(crate) router: Router,
    /// Ends event streams.
    pub(crate) stop: watch::Sender<bool>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(HttpOptions::default())
    }

    pub(crate) fn with(options: HttpOptions) -> Self {
        let node = FakeNode::default();
        let handle = node.start();
        Self { node, ..Self::over(handle, options) }
    }

    /// A router over another node.
    pub(crate) fn over(handle: NodeHandle, options: HttpOptions) -> Self {
        Self::of(Behind::Node, handle, options)
    }

    /// A router over a node or member.
    pub(crate) fn of(behind: Behind, handle: NodeHandle, options: HttpOptions) -> Self {
        let (stop, stopping) = watch::channel(false);
        let router = router((behind, handle), options, true, stopping);
        Self { node: FakeNode::default(), router, stop }
    }

    /// Sends a request, and leaves the body of the answer unread.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().call(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.open(request).await;
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, text }
    }

    pub(crate) async fn ask(&self, method: &str, uri: &str) -> Answer {
        self.send(Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri).await
    }

    pub(crate) async fn send_as(
        &self,
        method: &str,
        uri: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(uri);
        self.send(request.header("content-type", content_type).body(body.into()).unwrap()).await
    }

    pub(crate) async fn send_json(&self, method: &str, uri: &str, body: Value) -> Answer {
        self.send_as(method, uri, "application/json", body.to_string()).await
    }
}
