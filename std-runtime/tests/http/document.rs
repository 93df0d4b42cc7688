//! The OpenAPI document and the router say the same.

use std::collections::BTreeSet;

use replcore_runtime::api::{
    ConsumerStatus, DispatchRule, NewMessage, NodeStatus, PostedId, QueueStatus, Status,
    StoredMessage,
};
use replcore_runtime::http::Behind;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::Site;

fn document() -> Value {
    serde_json::from_str(Behind::Node.openapi()).unwrap()
}

#[test]
fn each_route_is_in_the_document_and_each_operation_in_the_router() {
    for behind in [Behind::Node, Behind::Member] {
        let routed: BTreeSet<_> = behind
            .route_names()
            .into_iter()
            .map(|(method, path)| (path.to_owned(), method.as_str().to_lowercase()))
            .collect();
        let document: Value = serde_json::from_str(behind.openapi()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                documented.insert((path.clone(), method.clone()));
            }
        }
        assert_eq!(routed, documented);
    }
}

#[test]
fn references_lead_somewhere_and_operation_ids_are_unique() {
    for behind in [Behind::Node, Behind::Member] {
        check_references(&serde_json::from_str(behind.openapi()).unwrap());
    }
}

fn check_references(document: &Value) {
    let mut ids = BTreeSet::new();
    walk(document, &mut |value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some(), "{reference}");
        }
        if let Some(id) = value.get("operationId") {
            assert!(ids.insert(id.as_str().unwrap().to_owned()), "{id}");
        }
    });
}

fn walk(value: &Value, each: &mut impl FnMut(&Value)) {
    each(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, each)),
        Value::Object(fields) => fields.values().for_each(|field| walk(field, each)),
        _ => {}
    }
}

/// The fields of a value are properties of the schema, and those that the schema requires are there.
fn check_fields(schema: &str, value: &Value) {
    let schema = &document()["components"]["schemas"][schema];
    let properties = schema["properties"].as_object().unwrap();
    let fields = value.as_object().unwrap();
    for field in fields.keys() {
        assert!(properties.contains_key(field), "{field} is not in {schema}");
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(required.as_str().unwrap()), "{required} is not in {value}");
    }
}

#[test]
fn the_schemas_have_the_fields_of_the_types() {
    let full = NewMessage {
        message_type: "t".into(),
        key: Some(Default::default()),
        class: Some(1),
        content_type: "c".into(),
        idempotency_key: Some(Default::default()),
        ttl_ms: Some(1),
        to: vec!["q".into()],
        headers: [("h".to_string(), Default::default())].into(),
        body: Default::default(),
    };
    let stored = |message, deliveries| StoredMessage {
        id: String::new(),
        ordinal: 0,
        origin: String::new(),
        time_ms: 0,
        time: String::new(),
        deliveries,
        message,
    };
    let value = |it: &dyn erased::Json| it.json();
    let properties = |schema: &str| {
        document()["components"]["schemas"][schema]["properties"].as_object().unwrap().len()
    };
    let fullest = value(&stored(full.clone(), 1));
    assert_eq!(fullest.as_object().unwrap().len(), properties("StoredMessage"));
    assert_eq!(value(&full).as_object().unwrap().len(), properties("NewMessage"));
    check_fields("StoredMessage", &fullest);
    check_fields("StoredMessage", &value(&stored(NewMessage::default(), 0)));
    check_fields("NewMessage", &value(&full));
    check_fields("QueueStatus", &value(&QueueStatus::default()));
    check_fields("NodeStatus", &value(&NodeStatus::default()));
    check_fields("ConsumerStatus", &value(&ConsumerStatus::default()));
    check_fields("Status", &value(&Status::default()));
    check_fields("DispatchRule", &value(&DispatchRule::default()));
    check_fields("PostedId", &value(&PostedId { id: String::new(), duplicate: false }));
}

mod erased {
    /// Any value as JSON.
    pub(super) trait Json {
        fn json(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}

fn example<T: DeserializeOwned>(pointer: &str) -> T {
    let document = document();
    let value = document.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone();
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{pointer}: {error}"))
}

#[tokio::test]
async fn the_examples_of_requests_are_taken() {
    let site = Site::new();
    let post = "/paths/~1v1~1messages/post/requestBody/content";
    for name in ["one", "list"] {
        let body: Value = example(&format!("{post}/application~1json/examples/{name}/value"));
        assert_eq!(site.send_json("POST", "/v1/messages", body).await.status, 201);
    }
    let lines: String = example(&format!("{post}/application~1x-ndjson/example"));
    let answer = site.send_as("POST", "/v1/messages", "application/x-ndjson", lines).await;
    assert_eq!(answer.status, 201);
    for (method, path, status) in [
        ("put", "/v1/rules", 200),
        ("put", "/v1/consumers/{name}", 204),
        ("post", "/v1/consumers/{name}/settle", 200),
    ] {
        let escaped = path.replace('/', "~1");
        let body: Value = example(&format!(
            "/paths/{escaped}/{method}/requestBody/content/application~1json/example"
        ));
        let uri = path.replace("{name}", "billing");
        let answer = site.send_json(&method.to_uppercase(), &uri, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
}

#[test]
fn the_examples_of_answers_are_of_the_types() {
    let answer = |path: &str, at: &str| {
        let path = path.replace('/', "~1");
        format!("/paths/{path}/get/responses/200/content/application~1json/example{at}")
    };
    let _: Vec<StoredMessage> = example(&answer("/v1/messages", "/messages"));
    let _: StoredMessage = example(&answer("/v1/messages/latest/{type}/{key}", ""));
    let _: Vec<StoredMessage> = example(&answer("/v1/queues/{name}/messages", "/messages"));
    let _: Vec<StoredMessage> = example(&answer("/v1/consumers/{name}/messages", "/messages"));
    let _: Vec<QueueStatus> = example(&answer("/v1/queues", "/queues"));
    let _: Vec<NodeStatus> = example(&answer("/v1/nodes", "/nodes"));
    let _: Vec<ConsumerStatus> = example(&answer("/v1/consumers", "/consumers"));
    let _: ConsumerStatus = example(&answer("/v1/consumers/{name}", ""));
    let _: Vec<DispatchRule> = example(&answer("/v1/rules", "/rules"));
    let _: Status = example(&answer("/v1/status", ""));
}

#[tokio::test]
async fn the_document_is_served_as_it_is_and_problems_are_of_its_schema() {
    let site = Site::new();
    let served = site.get("/openapi.json").await;
    assert_eq!(served.headers["content-type"], "application/json");
    assert_eq!(served.json(), document());
    let bad = site.send_json("POST", "/v1/messages", json!([{ "body": "a" }, 7])).await;
    check_fields("Problem", &bad.problem(400, "invalid"));
}

/// The document of a member of a cluster.
mod member {
    use replcore_runtime::cluster::{ClusterEvent, ClusterStatus, Happened, Leader, Member};

    use super::*;

    fn document() -> Value {
        serde_json::from_str(Behind::Member.openapi()).unwrap()
    }

    #[test]
    fn the_schemas_have_the_fields_of_the_types() {
        let fields =
            |value: Value| -> BTreeSet<_> { value.as_object().unwrap().keys().cloned().collect() };
        let check = |schema: &str, value: Value| {
            let schema = &document()["components"]["schemas"][schema];
            assert_eq!(fields(schema["properties"].clone()), fields(value));
            let required: BTreeSet<String> =
                serde_json::from_value(schema["required"].clone()).unwrap();
            assert_eq!(required, fields(schema["properties"].clone()));
        };
        check("Leader", json!(Leader::default()));
        check("Member", json!(Member::default()));
        check("ClusterStatus", json!(ClusterStatus::default()));
    }

    #[test]
    fn the_examples_of_answers_are_of_the_types_and_every_event_is_named() {
        let document = document();
        let example = |path: &str| {
            let path = path.replace('/', "~1");
            let pointer =
                format!("/paths/{path}/get/responses/200/content/application~1json/example");
            document.pointer(&pointer).unwrap_or_else(|| panic!("no {pointer}")).clone()
        };
        let _: Leader = serde_json::from_value(example("/v1/leader")).unwrap();
        let _: Member = serde_json::from_value(example("/v1/members/{identifier}")).unwrap();
        let _: ClusterStatus = serde_json::from_value(example("/v1/status")).unwrap();
        let events = document["paths"]["/v1/events"]["get"]["responses"]["200"]["description"]
            .as_str()
            .unwrap()
            .to_owned();
        for what in [
            Happened::BecameLeader { term: 1 },
            Happened::LostLeadership { term: 1 },
            Happened::NewLeader { term: 1, leader: None },
            Happened::PeerUp { identifier: String::new() },
            Happened::PeerDown { identifier: String::new() },
            Happened::PeerChanged { identifier: String::new() },
            Happened::ConfigurationChanged { voters: 1 },
            Happened::Removed,
        ] {
            assert!(events.contains(&format!("`{}`", what.name())), "{}", what.name());
            let event = json!(ClusterEvent { id: 1, time_ms: 2, what: what.clone() });
            assert_eq!(event["event"], what.name());
        }
    }
}
