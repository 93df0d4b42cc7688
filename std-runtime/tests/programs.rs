//! Programs at a node: posting, reading as named consumers, and calls, over the binary protocol.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{PATIENCE, TestNode, eventually, hub_options, name};
use replcore::log::record::Message;
use replcore::stream::CLASS_DEFAULT;
use replcore_runtime::api::{Reply, Request};
use replcore_runtime::client::{Client, ClientOptions, ConsumerOptions};
use replcore_runtime::options::Address;
use replcore_runtime::schema::{AttributeType, Schema};
use tokio::task::LocalSet;

fn consumer(node: &TestNode, program: &str) -> Client {
    let mut options = ClientOptions::new(name(program), node.address());
    options.consumer = Some(ConsumerOptions {
        name: name("reader"),
        message_type: String::new(),
        from_start: true,
    });
    Client::open(options)
}

async fn next(client: &Client) -> (replcore_runtime::client::Delivery, String) {
    let delivery = tokio::time::timeout(PATIENCE, client.next()).await.unwrap().unwrap();
    let body = String::from_utf8(delivery.record().unwrap().body().to_vec()).unwrap();
    (delivery, body)
}

#[tokio::test]
async fn a_producer_goes_on_over_a_killed_node_without_loss_or_double() {
    let folder = tempfile::tempdir().unwrap();
    let work = async {
        let mut node = TestNode::start(hub_options(folder.path(), "node"));
        let client = Client::open(ClientOptions::new(name("producer"), node.address()));
        let mut expected = Vec::new();
        for number in 0..2000 {
            let body = format!("{number}");
            let message = Message { body: body.as_bytes(), ..Message::default() };
            client.post(&message, CLASS_DEFAULT).await.unwrap();
            expected.push(body);
            if number % 500 == 250 {
                node = TestNode::start(node.crash());
            }
        }
        client.flush().await.unwrap();
        assert_eq!(node.bodies().await, expected);
        client.close().await;
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_consumer_gets_again_what_it_has_not_acknowledged_and_rejects_go_to_the_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let work = async {
        let node = TestNode::start(hub_options(folder.path(), "node"));
        for number in 0..5 {
            node.post("work", &format!("{number}")).await;
        }
        let client = consumer(&node, "first");
        for number in 0..3 {
            let (delivery, body) = next(&client).await;
            assert_eq!(body, format!("{number}"));
            match number {
                0 => client.acknowledge(&delivery),
                1 => client.reject(&delivery).await.unwrap(),
                _ => {}
            }
        }
        eventually("two are settled", async || {
            node.queue("reader").await.is_some_and(|queue| queue.messages == 3)
        })
        .await;
        client.close().await;
        let node = TestNode::start(node.crash());
        let client = consumer(&node, "second");
        for number in 2..5 {
            let (delivery, body) = next(&client).await;
            assert_eq!(body, format!("{number}"));
            client.acknowledge(&delivery);
        }
        eventually("all are settled", async || {
            node.queue("reader").await.is_some_and(|queue| queue.messages == 0)
        })
        .await;
        let request = Request::Queues { after: None, limit: None };
        let Reply::Queues { queues, .. } = node.call(request).await else { panic!() };
        let dead: u64 = queues
            .iter()
            .filter(|queue| queue.kind == "dead_letter")
            .map(|queue| queue.messages)
            .sum();
        assert_eq!(dead, 1);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn fetched_messages_come_again_until_settled_and_then_die() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = hub_options(folder.path(), "node");
    options.consumers.ack_wait_ms = 50;
    options.consumers.deliveries_max = 2;
    let node = TestNode::start(options);
    let subscribe = Request::Subscribe {
        consumer: "c".into(),
        message_type: Some("t*".into()),
        from_start: false,
    };
    assert_eq!(node.call(subscribe).await, Reply::Done);
    for body in ["good", "bad", "ignored"] {
        node.post("t1", body).await;
    }
    node.post("other", "not for it").await;
    let fetch = || Request::Fetch { consumer: "c".into(), limit: None, wait_ms: 5_000 };
    let Reply::Messages { messages, .. } = node.call(fetch()).await else { panic!() };
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.deliveries == 1));
    let settle = Request::Settle {
        consumer: "c".into(),
        ack: vec![messages[0].id.clone(), "nobody/1/2/3".into()],
        reject: vec![messages[1].id.clone()],
    };
    let settled = Reply::Settled { settled: 2, not_found: vec!["nobody/1/2/3".into()] };
    assert_eq!(node.call(settle).await, settled, "HS-27");
    let Reply::Messages { messages, .. } = node.call(fetch()).await else { panic!() };
    assert_eq!((messages.len(), messages[0].deliveries), (1, 2));
    let fetch = Request::Fetch { consumer: "c".into(), limit: None, wait_ms: 200 };
    let Reply::Messages { messages, .. } = node.call(fetch).await else { panic!() };
    assert!(messages.is_empty(), "delivered twice, it is dead");
    let Reply::Consumers { consumers } = node.call(Request::Consumers).await else { panic!() };
    assert_eq!((consumers[0].messages, consumers[0].dead_total), (0, 2));
}

#[tokio::test]
async fn calls_work_over_a_unix_socket_and_large_ones_go_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let work = async {
        let mut options = hub_options(folder.path(), "node");
        options.listen = vec![Address::Unix(socket.clone())];
        let node = TestNode::start(options);
        let client = Client::open(ClientOptions::new(name("tool"), node.address()));
        let large = "x".repeat(3 << 20);
        let message = replcore_runtime::api::NewMessage {
            body: replcore_runtime::api::Bytes(large.clone().into_bytes()),
            ..Default::default()
        };
        let post = Request::Post { messages: vec![message] };
        let reply = client.call(&post, PATIENCE).await.unwrap();
        assert!(matches!(reply, Reply::Posted { .. }));
        let read =
            Request::Read { from: 0, limit: None, message_type: None, key: None, wait_ms: 0 };
        let Reply::Messages { messages, .. } = client.call(&read, PATIENCE).await.unwrap() else {
            panic!()
        };
        assert_eq!(messages[0].message.body.0, large.as_bytes());
        client.close().await;
        node.stop();
        assert!(!socket.exists(), "the socket is taken away");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_large_message_goes_in_parts_and_many_producers_share_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let work = async {
        let node = TestNode::start(hub_options(folder.path(), "node"));
        let body = vec![7; 3 << 20];
        let mut posting = Vec::new();
        for number in 0..4 {
            let program = name(&format!("producer-{number}"));
            let client = Client::open(ClientOptions::new(program, node.address()));
            let body = body.clone();
            posting.push(tokio::task::spawn_local(async move {
                for _ in 0..3 {
                    let message = Message { body: &body, ..Message::default() };
                    client.post(&message, CLASS_DEFAULT).await.unwrap();
                }
                client.flush().await.unwrap();
            }));
        }
        for task in posting {
            task.await.unwrap();
        }
        let all = node.read_all().await;
        assert!(all.iter().all(|message| message.message.body.0 == body));
        let ids: BTreeSet<_> = all.iter().map(|message| &message.id).collect();
        assert_eq!(ids.len(), 12);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn nobody_listening_is_one_clear_error() {
    let work = async {
        let options = ClientOptions::new(name("tool"), "127.0.0.1:1".parse().unwrap());
        let client = Client::open(options);
        let error = client.call(&Request::Status, Duration::from_secs(5)).await.unwrap_err();
        assert!(error.message.contains("127.0.0.1:1"), "{error}");
    };
    LocalSet::new().run_until(work).await;
}

/// HS-29: attributes outside the schema are refused with a clear error naming the attribute; the
/// stream goes on with the others.
#[tokio::test]
async fn posts_in_a_stream_that_no_schema_admits_are_told_and_the_others_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = hub_options(folder.path(), "node");
    options.schemas = vec![Schema {
        message_type: "serial".into(),
        attributes: [("number".to_owned(), AttributeType::Integer)].into(),
    }];
    let work = async {
        let node = TestNode::start(options);
        let client = Client::open(ClientOptions::new(name("producer"), node.address()));
        let post = async |message_type: &str, body: &str| {
            let message = Message { message_type, body: body.as_bytes(), ..Message::default() };
            client.post(&message, CLASS_DEFAULT).await.unwrap();
        };
        post("serial", r#"{"number":1}"#).await;
        post("serial", r#"{"number":"two"}"#).await;
        post("other", "three").await;
        let error = client.flush().await.unwrap_err().to_string();
        assert!(error.contains("post 2 of class 2 is not stored"), "{error}");
        assert!(error.contains("`serial`") && error.contains("\"number\""), "{error}");
        post("serial", r#"{"number":4}"#).await;
        client.flush().await.unwrap();
        // A record in parts.
        post("serial", &format!(r#"{{"number":"{}"}}"#, "5".repeat(200_000))).await;
        let error = client.flush().await.unwrap_err().to_string();
        assert!(error.contains("post 5 of class 2 is not stored"), "{error}");
        assert_eq!(node.bodies().await, [r#"{"number":1}"#, "three", r#"{"number":4}"#]);
        client.close().await;
    };
    LocalSet::new().run_until(work).await;
}
