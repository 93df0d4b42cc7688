//! The same interface over real nodes: a hub and a leaf on loopback.

use replcore_runtime::http::HttpOptions;
use serde_json::{Value, json};

use crate::client::Site;
use crate::common::{TestNode, eventually, hub_options, leaf_options};
use crate::events::Events;
use crate::metrics::check;

struct Pair {
    hub: TestNode,
    leaf: TestNode,
    at_hub: Site,
    at_leaf: Site,
    _folder: tempfile::TempDir,
}

async fn pair() -> Pair {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestNode::start(hub_options(folder.path(), "hub"));
    let leaf = TestNode::start(leaf_options(folder.path(), "leaf", &[("hub", hub.address())]));
    let at_hub = Site::over(hub.handle.clone(), HttpOptions::default());
    let at_leaf = Site::over(leaf.handle.clone(), HttpOptions::default());
    eventually("the leaf is ready", async || at_leaf.get("/ready").await.status == 200).await;
    eventually("the leaf is live", async || {
        at_hub.get("/v1/nodes").await.json()["nodes"][0]["state"] == "live"
    })
    .await;
    Pair { hub, leaf, at_hub, at_leaf, _folder: folder }
}

#[tokio::test]
async fn what_is_posted_at_a_leaf_is_read_waited_for_and_streamed_at_the_hub() {
    let pair = pair().await;
    let mut events = Events::open(&pair.at_hub, "/v1/events", None).await;
    let list = json!([
        { "type": "sale", "key": "r-1", "body": "one", "idempotency_key": "a" },
        { "type": "sale", "key": "r-1", "body": { "base64": "/w==" }, "class": 1,
          "headers": { "till": "7" }, "content_type": "image/png", "ttl_ms": 600_000 },
    ]);
    let waiting = pair.at_hub.get("/v1/messages?wait_ms=60000&type=sale");
    let posting = async {
        let first = pair.at_leaf.send_json("POST", "/v1/messages", list.clone()).await;
        assert_eq!(first.status, 201, "{}", first.text);
        let again = pair.at_leaf.send_json("POST", "/v1/messages", json!([list[0]])).await;
        assert_eq!(again.status, 200);
        assert_eq!(again.json()["ids"][0]["id"], first.json()["ids"][0]["id"]);
        first.json()
    };
    let (read, posted) = tokio::join!(waiting, posting);
    assert_eq!(read.json()["messages"][0]["origin"], "leaf");
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(events.expect("message").await);
    }
    let by_id = |id: &Value| seen.iter().find(|(_, data)| data["id"] == *id).unwrap();
    assert_eq!(by_id(&posted["ids"][0]["id"]).1["body"], "one");
    let second = &by_id(&posted["ids"][1]["id"]).1;
    assert_eq!(second["body"], json!({ "base64": "/w==" }));
    assert_eq!((&second["headers"]["till"], &second["class"]), (&json!("7"), &json!(1)));

    let last = seen[0].0.clone();
    let mut resumed = Events::open(&pair.at_hub, "/v1/events", Some(&last)).await;
    assert_eq!(resumed.expect("message").await, seen[1]);
    let latest = pair.at_hub.get("/v1/messages/latest/sale/r-1").await;
    assert_eq!(latest.status, 200);
    pair.at_hub.get("/v1/messages/latest/sale/r-2").await.problem(404, "not_found");
}

#[tokio::test]
async fn queues_consumers_and_rules_are_used_over_http() {
    let pair = pair().await;
    let at_hub = &pair.at_hub;
    let rules = json!({ "rules": [{ "type": "price*", "to": ["leaf"] }] });
    assert_eq!(at_hub.send_json("PUT", "/v1/rules", rules.clone()).await.json(), rules);
    assert_eq!(at_hub.get("/v1/rules").await.json(), rules);
    let wrong = json!({ "rules": [{ "to": ["no such name"] }] });
    at_hub.send_json("PUT", "/v1/rules", wrong).await.problem(400, "invalid");

    let made = at_hub.send_json("PUT", "/v1/consumers/billing", json!({ "type": "sale" })).await;
    assert_eq!(made.status, 204, "{}", made.text);
    let list = json!([{ "type": "sale", "body": "a" }, { "type": "note" }, { "type": "sale" }]);
    assert_eq!(at_hub.send_json("POST", "/v1/messages", list).await.status, 201);
    let fetched = at_hub.get("/v1/consumers/billing/messages?wait_ms=60000").await.json();
    let ids: Vec<_> =
        fetched["messages"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
    assert_eq!(ids.len(), 2);
    let settle = json!({ "ack": [ids[0]], "reject": [ids[1], "hub/1/2/999"] });
    let settled = at_hub.send_json("POST", "/v1/consumers/billing/settle", settle).await.json();
    assert_eq!(settled, json!({ "settled": 2, "not_found": ["hub/1/2/999"] }));
    assert_eq!(at_hub.get("/v1/consumers/billing").await.json()["dead_total"], 1);

    let list = json!([{ "to": ["spare"], "body": "x" }, { "to": ["spare"], "body": "y" }]);
    let posted = at_hub.send_json("POST", "/v1/messages", list).await.json();
    let peeked = at_hub.get("/v1/queues/spare/messages").await.json();
    assert_eq!(peeked["messages"].as_array().unwrap().len(), 2);
    let first = posted["ids"][0]["id"].as_str().unwrap();
    let uri = format!("/v1/queues/spare/messages?ids={first},hub/1/2/999");
    let purged = at_hub.ask("DELETE", &uri).await.json();
    assert_eq!(purged, json!({ "messages": 1, "not_found": ["hub/1/2/999"] }));
    let queues = at_hub.get("/v1/queues?limit=1000").await.json();
    let spare = queues["queues"].as_array().unwrap().iter().find(|it| it["name"] == "spare");
    assert_eq!(spare.unwrap()["messages"], 1);
    at_hub.get("/v1/queues/none/messages").await.problem(404, "not_found");
}

#[tokio::test]
async fn of_a_list_the_node_takes_what_is_before_the_refused_message_hs_28() {
    let pair = pair().await;
    let long = "t".repeat(256);
    let list = json!([{ "body": "a" }, { "body": "b" }, { "type": long }, { "body": "d" }]);
    let answer = pair.at_leaf.send_json("POST", "/v1/messages", list).await;
    assert_eq!(answer.problem(400, "invalid")["index"], 2);
    assert_eq!(pair.leaf.bodies().await, ["a", "b"]);
    let one = pair.at_leaf.send_json("POST", "/v1/messages", json!({ "class": 4 })).await;
    one.problem(400, "invalid");
}

#[tokio::test]
async fn the_metrics_of_real_nodes_are_sound_hs_35() {
    let pair = pair().await;
    pair.at_leaf.send_json("POST", "/v1/messages", json!([{}, {}, {}])).await;
    eventually("the hub has them", async || pair.hub.bodies().await.len() == 3).await;
    eventually("the leaf counts them", async || {
        check(&pair.at_leaf.get("/metrics").await.text)["replcore_delivered_total"] == 3.0
    })
    .await;
    let at_hub = check(&pair.at_hub.get("/metrics").await.text);
    for (series, value) in [
        ("replcore_registered_total", 1.0),
        ("replcore_fetched_total", 3.0),
        ("replcore_stored_total", 3.0),
        ("replcore_dropped_total", 0.0),
        ("replcore_nodes{state=\"live\"}", 1.0),
        ("replcore_node_live{node=\"leaf\"}", 1.0),
        ("replcore_queue_messages{queue=\"leaf\",kind=\"leaf\"}", 0.0),
    ] {
        assert_eq!(at_hub.get(series), Some(&value), "{series}");
    }
}

#[tokio::test]
async fn a_leaf_without_its_hub_is_alive_but_not_ready_and_still_takes_messages_hs_16() {
    let pair = pair().await;
    pair.hub.crash();
    eventually("it is not ready", async || pair.at_leaf.get("/ready").await.status == 503).await;
    pair.at_leaf.get("/ready").await.problem(503, "not_ready");
    assert_eq!(pair.at_leaf.get("/health").await.status, 200);
    let posted = pair.at_leaf.send_json("POST", "/v1/messages", json!({ "body": "x" })).await;
    assert_eq!(posted.status, 201);
    pair.at_hub.get("/health").await.problem(503, "unavailable");
}
