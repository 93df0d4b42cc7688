//! Server-sent events.

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use replcore_runtime::http::HttpOptions;
use serde_json::json;

use crate::client::Site;

/// Reads events from an answer, each as its lines.
pub(crate) struct Events {
    chunks: BodyDataStream,
    text: String,
}

impl Events {
    pub(crate) async fn open(site: &Site, uri: &str, last_id: Option<&str>) -> Self {
        let mut request = Request::get(uri);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = site.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events =
            Self { chunks: response.into_body().into_data_stream(), text: String::new() };
        assert!(events.next().await.unwrap().contains(": open"));
        events
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = self.chunks.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The id and the data of the next event, which has this name.
    pub(crate) async fn expect(&mut self, name: &str) -> (String, serde_json::Value) {
        let event = self.next().await.unwrap();
        let field = |field: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap_or_default().trim().to_owned()
        };
        assert_eq!(field("event:"), name, "{event}");
        (field("id:"), serde_json::from_str(&field("data:")).unwrap())
    }
}

async fn post(site: &Site, body: &str) {
    site.send_json("POST", "/v1/messages", json!({ "type": "t", "body": body })).await;
}

#[tokio::test]
async fn a_stream_begins_with_what_is_stored_from_now_on() {
    let site = Site::new();
    post(&site, "old").await;
    let mut events = Events::open(&site, "/v1/events", None).await;
    post(&site, "new").await;
    let (id, data) = events.expect("message").await;
    assert_eq!((id.as_str(), &data["body"]), ("1", &json!("new")));
    assert_eq!(data["origin"], "fake");
}

#[tokio::test]
async fn a_client_that_comes_back_misses_and_repeats_nothing() {
    let site = Site::new();
    let mut seen = Vec::new();
    let mut last = None;
    for round in 0..4 {
        for n in 0..150 {
            post(&site, &format!("{round}-{n}")).await;
        }
        let uri = "/v1/events?from=0";
        let mut events = Events::open(&site, uri, last.as_deref()).await;
        // It is cut off in the middle of a batch, with events on their way to it.
        for _ in 0..130 {
            let (id, data) = events.expect("message").await;
            seen.push(data["ordinal"].as_u64().unwrap());
            last = Some(id);
        }
    }
    assert!(seen.iter().copied().eq(0..520), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_longer_held_is_told_as_a_gap() {
    let site = Site::new();
    for n in 0..10 {
        post(&site, &n.to_string()).await;
    }
    site.node.trim(6);
    let mut events = Events::open(&site, "/v1/events", Some("2")).await;
    let (id, data) = events.expect("gap").await;
    assert_eq!((id.as_str(), data), ("5", json!({ "from": 3, "next": 6 })));
    assert_eq!(events.expect("message").await.0, "6");
}

#[tokio::test]
async fn a_quiet_stream_has_comments_and_ends_when_the_node_stops() {
    let site = Site::with(HttpOptions { heartbeat_ms: 20, ..HttpOptions::default() });
    let mut events = Events::open(&site, "/v1/events?type=other", None).await;
    for _ in 0..3 {
        assert_eq!(events.next().await.unwrap(), ": heartbeat");
    }
    post(&site, "filtered").await;
    assert_eq!(events.next().await.unwrap(), ": heartbeat");
    site.stop.send(true).unwrap();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn streams_can_be_filtered_and_check_their_query() {
    let site = Site::new();
    let mut events = Events::open(&site, "/v1/events?from=0&type=b*&key=k", None).await;
    let list = json!([{ "type": "a", "key": "k" }, { "type": "bc" }, { "type": "bc", "key": "k" }]);
    site.send_json("POST", "/v1/messages", list).await;
    assert_eq!(events.expect("message").await.0, "2");
    site.get("/v1/events?since=1").await.problem(400, "invalid");
    let request = Request::get("/v1/events").header("last-event-id", "abc");
    site.send(request.body(Body::empty()).unwrap()).await.problem(400, "invalid");
}
