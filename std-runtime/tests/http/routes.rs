//! Each route's success and failures.

use axum::body::Body;
use axum::http::Request;
use replcore_runtime::api::ErrorKind;
use replcore_runtime::http::HttpOptions;
use serde_json::json;

use crate::client::Site;

#[tokio::test]
async fn one_message_is_posted_and_read_back() {
    let site = Site::new();
    let message = json!({ "type": "sale", "key": "r-1", "body": "x", "headers": { "a": "b" } });
    let posted = site.send_json("POST", "/v1/messages", message).await;
    assert_eq!(posted.status, 201);
    assert_eq!(posted.json()["ids"][0]["duplicate"], false);
    let read = site.get("/v1/messages?type=sa*&key=r-1").await;
    assert_eq!(read.status, 200);
    assert_eq!(read.json()["messages"][0]["headers"]["a"], "b");
    assert_eq!(read.json()["messages"][0]["id"], posted.json()["ids"][0]["id"]);
    assert_eq!(read.json()["next"], 1);
    assert_eq!(read.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_list_longer_than_a_call_is_posted_in_order() {
    let site = Site::new();
    let list: Vec<_> = (0..2500).map(|n| json!({ "body": n.to_string() })).collect();
    let posted = site.send_json("POST", "/v1/messages", json!(list)).await;
    assert_eq!(posted.json()["ids"].as_array().unwrap().len(), 2500);
    assert_eq!(site.node.posts(), 3);
    assert!(site.node.bodies().iter().enumerate().all(|(n, body)| *body == n.to_string()));
}

#[tokio::test]
async fn of_a_list_what_is_before_the_malformed_item_is_taken_hs_28() {
    let site = Site::new();
    let list = json!([{ "body": "a" }, { "body": "b" }, { "bodi": "c" }, { "body": "d" }]);
    let answer = site.send_json("POST", "/v1/messages", list).await;
    let problem = answer.problem(400, "invalid");
    assert_eq!(problem["index"], 2);
    assert_eq!(problem["ids"].as_array().unwrap().len(), 2);
    assert!(problem["detail"].as_str().unwrap().contains("bodi"));
    assert_eq!(problem["instance"], "/v1/messages");
    assert_eq!(site.node.bodies(), ["a", "b"]);
}

#[tokio::test]
async fn of_json_lines_those_before_the_bad_one_are_taken_hs_28() {
    let site = Site::new();
    let lines = "{\"body\":\"a\"}\n\n{\"body\":\"b\"}\r\n{\"body\":\n{\"body\":\"d\"}";
    let answer = site.send_as("POST", "/v1/messages", "application/x-ndjson", lines).await;
    let problem = answer.problem(400, "invalid");
    assert_eq!(problem["index"], 2);
    assert!(problem["detail"].as_str().unwrap().contains("line 4"));
    assert_eq!(site.node.bodies(), ["a", "b"]);
}

#[tokio::test]
async fn a_message_that_the_node_refuses_is_named_by_its_index_in_the_whole_list() {
    let site = Site::new();
    site.node.refuse(1200, ErrorKind::Full);
    let list: Vec<_> = (0..1500).map(|n| json!({ "body": n.to_string() })).collect();
    let answer = site.send_json("POST", "/v1/messages", json!(list)).await;
    assert_eq!(answer.problem(429, "full")["index"], 1200);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(site.node.messages().len(), 1200);
}

#[tokio::test]
async fn the_same_idempotency_key_posts_once() {
    let site = Site::new();
    for expected in [201, 200] {
        let request = Request::post("/v1/messages")
            .header("content-type", "application/json")
            .header("idempotency-key", "\"order-7\"")
            .body(Body::from(r#"[{"body":"a"},{"body":"b","idempotency_key":"own"}]"#))
            .unwrap();
        assert_eq!(site.send(request).await.status, expected);
    }
    let keys: Vec<_> =
        site.node.messages().into_iter().map(|it| it.message.idempotency_key.unwrap().0).collect();
    assert_eq!(keys, [b"order-7/0".to_vec(), b"own".to_vec()]);
    for bad in [String::new(), "k".repeat(1025)] {
        let request = Request::post("/v1/messages").header("idempotency-key", bad);
        let answer = site.send(request.body(Body::from("x")).unwrap()).await;
        answer.problem(400, "invalid");
    }
}

#[tokio::test]
async fn any_other_body_is_one_message_as_it_is() {
    let site = Site::new();
    let uri = "/v1/messages?type=photo&key_base64=AP8%3D&class=1&ttl_ms=5000&to=till-1,till-2";
    let posted = site.send_as("POST", uri, "image/png", vec![0u8, 159, 255]).await;
    assert_eq!(posted.status, 201);
    let request = Request::post("/v1/messages?raw=true")
        .header("content-type", "application/json")
        .header("replcore-type", "reading")
        .header("replcore-key", "k")
        .header("replcore-class", "3")
        .header("replcore-ttl-ms", "60")
        .header("replcore-to", "till-9")
        .header("replcore-header-source", "sensor")
        .body(Body::from("{\"n\":1}"))
        .unwrap();
    assert_eq!(site.send(request).await.status, 201);
    let [first, second] = &site.node.messages()[..] else { panic!() };
    assert_eq!(first.message.message_type, "photo");
    assert_eq!(first.message.key.as_ref().unwrap().0, [0, 255]);
    assert_eq!(first.message.content_type, "image/png");
    assert_eq!((first.message.class, first.message.ttl_ms), (Some(1), Some(5000)));
    assert_eq!(first.message.to, ["till-1", "till-2"]);
    assert_eq!(first.message.body.0, [0, 159, 255]);
    assert_eq!(second.message.message_type, "reading");
    assert_eq!(second.message.content_type, "application/json");
    assert_eq!((second.message.class, second.message.ttl_ms), (Some(3), Some(60)));
    assert_eq!(second.message.to, ["till-9"]);
    assert_eq!(second.message.headers["source"].0, b"sensor");
    assert_eq!(second.message.body.0, b"{\"n\":1}");
}

#[tokio::test]
async fn malformed_posts_are_refused_and_take_nothing() {
    let site = Site::new();
    let json = "application/json";
    for (uri, kind, body) in [
        ("/v1/messages", json, "{"),
        ("/v1/messages", json, "[{\"body\":\"a\"},"),
        ("/v1/messages", json, "7"),
        ("/v1/messages", json, "{\"body\":{\"base64\":\"?\"}}"),
        ("/v1/messages", json, "{\"class\":\"x\"}"),
        ("/v1/messages?type=a", json, "{}"),
        ("/v1/messages?colour=red", "text/plain", "x"),
        ("/v1/messages?class=urgent", "text/plain", "x"),
        ("/v1/messages?key=a&key_base64=YQ%3D%3D", "text/plain", "x"),
        ("/v1/messages?key_base64=%3F", "text/plain", "x"),
    ] {
        let answer = site.send_as("POST", uri, kind, body).await;
        answer.problem(400, "invalid");
    }
    let request = Request::post("/v1/messages").header("replcore-class", "soon");
    site.send(request.body(Body::from("x")).unwrap()).await.problem(400, "invalid");
    assert!(site.node.messages().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not() {
    let site = Site::with(HttpOptions { body_bytes_max: 1000, ..HttpOptions::default() });
    let told = Request::post("/v1/messages").header("content-length", "1001");
    site.send(told.body(Body::empty()).unwrap()).await.problem(413, "too_large");
    let chunks = (0..11).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100]));
    let untold = Body::from_stream(futures_util::stream::iter(chunks));
    site.send_as("POST", "/v1/messages", "text/plain", untold).await.problem(413, "too_large");
    let at_limit = site.send_as("POST", "/v1/messages", "text/plain", vec![b'x'; 1000]).await;
    assert_eq!(at_limit.status, 201);
}

#[tokio::test]
async fn bodies_together_over_their_memory_are_refused_until_there_is_room() {
    let options =
        HttpOptions { body_bytes_max: 1000, bodies_bytes_max: 1500, ..HttpOptions::default() };
    let site = Site::with(options);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let slow = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(chunk), receiver))
    });
    let first = site.send_as("POST", "/v1/messages", "text/plain", Body::from_stream(slow));
    let second = async {
        sender.send(vec![b'a'; 900]).await.unwrap();
        // A second send has room only after the first chunk was taken.
        sender.send(vec![b'a'; 10]).await.unwrap();
        let refused = site.send_as("POST", "/v1/messages", "text/plain", vec![b'b'; 900]).await;
        refused.problem(503, "busy");
        assert_eq!(refused.headers["retry-after"], "1");
        drop(sender);
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.status, 201);
    let again = site.send_as("POST", "/v1/messages", "text/plain", vec![b'b'; 900]).await;
    assert_eq!(again.status, 201);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_after_its_deadline() {
    let site = Site::with(HttpOptions { body_ms_max: 20, ..HttpOptions::default() });
    let never =
        Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    site.send_as("POST", "/v1/messages", "text/plain", never).await.problem(408, "timeout");
}

#[tokio::test]
async fn reading_pages_waits_and_checks_its_ranges() {
    let site = Site::new();
    for n in 0..5 {
        site.send_json("POST", "/v1/messages", json!({ "body": n.to_string() })).await;
    }
    let page = site.get("/v1/messages?from=1&limit=2").await.json();
    assert_eq!(page["messages"][0]["body"], "1");
    assert_eq!(page["next"], 3);
    let waiting = site.get("/v1/messages?from=5&wait_ms=60000");
    let post = site.send_json("POST", "/v1/messages", json!({ "body": "late" }));
    let (read, _) = tokio::join!(waiting, post);
    assert_eq!(read.json()["messages"][0]["body"], "late");
    for query in ["limit=0", "limit=1001", "wait_ms=60001", "from=-1", "from=x", "form=1"] {
        site.get(&format!("/v1/messages?{query}")).await.problem(400, "invalid");
    }
}

#[tokio::test]
async fn too_many_waiting_requests_are_refused() {
    let site = Site::with(HttpOptions { waits_max: 1, ..HttpOptions::default() });
    let waiting = site.get("/v1/messages?wait_ms=60000");
    let other = async {
        let refused = site.get("/v1/messages?wait_ms=1").await;
        refused.problem(503, "busy");
        site.get("/v1/events").await.problem(503, "busy");
        site.send_json("POST", "/v1/messages", json!({ "body": "x" })).await;
    };
    let (read, ()) = tokio::join!(biased; waiting, other);
    assert_eq!(read.json()["messages"][0]["body"], "x");
    assert_eq!(site.get("/v1/messages?wait_ms=1").await.status, 200);
}

#[tokio::test]
async fn the_latest_of_a_key_is_found_for_any_key() {
    let site = Site::new();
    let key = json!({ "base64": "/wAv" });
    for body in ["old", "new"] {
        let message = json!({ "type": "a/b", "key": key, "body": body });
        site.send_json("POST", "/v1/messages", message).await;
    }
    let found = site.get("/v1/messages/latest/a%2Fb/%FF%00%2F").await;
    assert_eq!(found.json()["body"], "new");
    site.get("/v1/messages/latest/a%2Fb/other").await.problem(404, "not_found");
    site.get("/v1/messages/latest/%FF/other").await.problem(400, "invalid");
}

#[tokio::test]
async fn queues_are_listed_peeked_and_purged() {
    let site = Site::new();
    for name in ["a", "b/1", "c"] {
        site.send_json("POST", "/v1/messages", json!([{ "to": [name] }, { "to": [name] }])).await;
    }
    let page = site.get("/v1/queues?limit=2").await.json();
    assert_eq!(
        (page["queues"][1]["name"].as_str(), page["more"].as_bool()),
        (Some("b/1"), Some(true))
    );
    let rest = site.get("/v1/queues?after=b%2F1").await.json();
    assert_eq!(
        (rest["queues"][0]["name"].as_str(), rest["more"].as_bool()),
        (Some("c"), Some(false))
    );

    let peeked = site.get("/v1/queues/b%2F1/messages?skip=1&limit=5").await.json();
    assert_eq!(
        (peeked["messages"].as_array().unwrap().len(), peeked["next"].as_u64()),
        (1, Some(2))
    );
    let id = peeked["messages"][0]["id"].as_str().unwrap();
    let uri = format!("/v1/queues/b%2F1/messages?ids={id},no/1/2/3");
    let purged = site.ask("DELETE", &uri).await.json();
    assert_eq!(purged, json!({ "messages": 1, "not_found": ["no/1/2/3"] }));
    let again = site.ask("DELETE", &uri).await;
    assert_eq!((again.status.as_u16(), &again.json()["messages"]), (200, &json!(0)));
    let all = site.ask("DELETE", "/v1/queues/b%2F1/messages?all=true").await.json();
    assert_eq!(all["messages"], 1);

    site.ask("DELETE", "/v1/queues/c/messages").await.problem(400, "invalid");
    site.ask("DELETE", "/v1/queues/c/messages?all=true&ids=x").await.problem(400, "invalid");
    site.ask("DELETE", "/v1/queues/none/messages?all=true").await.problem(404, "not_found");
    site.get("/v1/queues/none/messages").await.problem(404, "not_found");
    site.get("/v1/queues/%FF/messages").await.problem(400, "invalid");
    site.get("/v1/queues?limit=0").await.problem(400, "invalid");
}

#[tokio::test]
async fn nodes_are_listed_and_forgotten() {
    let site = Site::new();
    site.node.add_leaf("till-1");
    site.node.add_leaf("till-2");
    let page = site.get("/v1/nodes?limit=1").await.json();
    assert_eq!(page["nodes"][0]["state"], "live");
    assert_eq!(page["more"], true);
    assert_eq!(site.ask("DELETE", "/v1/nodes/till-1").await.status, 204);
    site.ask("DELETE", "/v1/nodes/till-1").await.problem(404, "not_found");
    assert_eq!(site.get("/v1/nodes").await.json()["nodes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_consumer_fetches_and_settles_with_an_answer_for_each_id_hs_27() {
    let site = Site::new();
    site.get("/v1/consumers/billing").await.problem(404, "not_found");
    site.get("/v1/consumers/billing/messages").await.problem(404, "not_found");
    site.send_json("POST", "/v1/messages", json!([{ "type": "sale" }, { "type": "note" }])).await;
    let subscription = json!({ "type": "sale", "from_start": true });
    for _ in 0..2 {
        let made = site.send_json("PUT", "/v1/consumers/billing", subscription.clone()).await;
        assert_eq!((made.status.as_u16(), made.text.as_str()), (204, ""));
    }
    assert_eq!(site.ask("PUT", "/v1/consumers/all").await.status, 204);
    let fetched = site.get("/v1/consumers/billing/messages?limit=10").await.json();
    assert_eq!(fetched["messages"].as_array().unwrap().len(), 1);
    assert_eq!(fetched["messages"][0]["deliveries"], 1);
    let id = fetched["messages"][0]["id"].clone();
    assert_eq!(site.get("/v1/consumers/billing").await.json()["outstanding"], 1);
    let settle = json!({ "ack": [id, "no/1/2/3"] });
    let settled = site.send_json("POST", "/v1/consumers/billing/settle", settle.clone()).await;
    assert_eq!(settled.json(), json!({ "settled": 1, "not_found": ["no/1/2/3"] }));
    let again = site.send_json("POST", "/v1/consumers/billing/settle", settle).await;
    assert_eq!((again.status.as_u16(), &again.json()["settled"]), (200, &json!(0)));

    let waiting = site.get("/v1/consumers/all/messages?wait_ms=60000");
    let post = site.send_json("POST", "/v1/messages", json!({ "body": "late" }));
    assert_eq!(tokio::join!(waiting, post).0.json()["messages"][0]["body"], "late");

    let text = site.send_as("PUT", "/v1/consumers/x", "text/plain", "{}").await;
    text.problem(415, "unsupported_media_type");
    let wrong = site.send_json("PUT", "/v1/consumers/x", json!({ "typ": "a" })).await;
    wrong.problem(400, "invalid");
    let none = site.send_json("POST", "/v1/consumers/none/settle", json!({})).await;
    none.problem(404, "not_found");
    assert_eq!(site.ask("DELETE", "/v1/consumers/billing").await.status, 204);
    site.ask("DELETE", "/v1/consumers/billing").await.problem(404, "not_found");
    let names = site.get("/v1/consumers").await.json();
    assert_eq!(names["consumers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn rules_are_read_and_replaced_hs_20() {
    let site = Site::new();
    assert_eq!(site.get("/v1/rules").await.json(), json!({ "rules": [] }));
    let rules = json!({ "rules": [{ "type": "price*", "to": ["*"] }] });
    assert_eq!(site.send_json("PUT", "/v1/rules", rules.clone()).await.json(), rules);
    for bad in [json!({}), json!({ "rules": [{ "to": [] }] }), json!({ "rules": [{ "for": [] }] })]
    {
        site.send_json("PUT", "/v1/rules", bad).await.problem(400, "invalid");
    }
    assert_eq!(site.get("/v1/rules").await.json(), rules);
}

#[tokio::test]
async fn readiness_follows_the_node_and_health_does_not() {
    let site = Site::new();
    assert_eq!(site.get("/ready").await.json()["ready"], true);
    site.node.set_ready(false);
    let problem = site.get("/ready").await.problem(503, "not_ready");
    assert!(problem["detail"].as_str().unwrap().contains("upstream hub: connecting"));
    assert_eq!(site.get("/health").await.json()["alive"], true);
    assert_eq!(site.get("/v1/status").await.json()["ready"], false);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_reported_within_the_deadline() {
    let (node, _requests) = replcore_runtime::handle::NodeHandle::new();
    let options = HttpOptions { call_ms_max: 20, ..HttpOptions::default() };
    let site = Site::over(node, options);
    site.get("/health").await.problem(503, "unavailable");
    site.get("/v1/status").await.problem(503, "unavailable");
    site.get("/metrics").await.problem(503, "unavailable");
}

#[tokio::test]
async fn a_node_that_has_stopped_is_unavailable() {
    let (node, requests) = replcore_runtime::handle::NodeHandle::new();
    drop(requests);
    let site = Site::over(node, HttpOptions::default());
    site.get("/health").await.problem(503, "unavailable");
    site.send_json("POST", "/v1/messages", json!({})).await.problem(503, "unavailable");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let site = Site::new();
    site.get("/v2/messages").await.problem(404, "not_found");
    let answer = site.ask("PATCH", "/v1/messages").await;
    answer.problem(405, "method_not_allowed");
    let allow = answer.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let site = Site::new();
    let post = |host: &str, origin: &str| {
        Request::post("/v1/messages")
            .header("host", host)
            .header("origin", origin)
            .body(Body::from("x"))
            .unwrap()
    };
    let own = site.send(post("localhost:8080", "http://localhost:8080")).await;
    assert_eq!(own.status, 201);
    for origin in ["http://evil.example", "null", "http://localhost:9999"] {
        site.send(post("localhost:8080", origin)).await.problem(403, "forbidden");
    }
    let named = site.send(post("evil.example:8080", "http://evil.example:8080")).await;
    named.problem(421, "misdirected");
    let get = Request::get("/v1/status").header("host", "evil.example");
    site.send(get.body(Body::empty()).unwrap()).await.problem(421, "misdirected");
    for host in ["127.0.0.1:80", "[::1]:80", "[::1]", "LOCALHOST"] {
        let get = Request::get("/v1/status").header("host", host);
        assert_eq!(site.send(get.body(Body::empty()).unwrap()).await.status, 200, "{host}");
    }
    let options = HttpOptions { hosts: vec!["evil.example".into()], ..HttpOptions::default() };
    let get = Request::get("/v1/status").header("host", "evil.example:80");
    let answer = Site::with(options).send(get.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_status_page_loads_nothing_from_elsewhere() {
    let site = Site::new();
    let page = site.get("/").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'"));
    assert!(!page.text.contains("http://") && !page.text.contains("https://"));
}

#[test]
fn options_out_of_range_are_named() {
    assert_eq!(HttpOptions::default().validate(), Ok(()));
    let zero = HttpOptions { connections_max: 0, ..HttpOptions::default() };
    assert!(zero.validate().unwrap_err().contains("http.connections_max"));
    let more = HttpOptions { body_bytes_max: 65 << 20, ..HttpOptions::default() };
    assert!(more.validate().unwrap_err().contains("http.body_bytes_max"));
}
