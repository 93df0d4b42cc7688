//! The HTTP interface of running members.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, PATIENCE, eventually};

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn request(address: &str, method: &str, path: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = body.to_owned();
    Some(Answer { status, head: head.to_ascii_lowercase(), body })
}

fn get(address: &str, path: &str) -> Option<Answer> {
    request(address, "GET", path, "")
}

fn with_http() -> (Lab, Vec<String>) {
    let mut lab = Lab::new(3);
    let mut places = Vec::new();
    for (at, member) in lab.members.iter_mut().enumerate() {
        let host = member.address.rsplit_once(':').unwrap().0;
        let place = format!("{host}:{}", 8001 + at);
        member.config["http"] = json!(place);
        member.config["metadata"] = json!({ "server_port": 9001 + at });
        places.push(place);
    }
    lab.start_all();
    lab.leader();
    (lab, places)
}

/// QC-21: a load balancer and a client find the leader; without one they are told to try again.
#[test]
fn only_the_leader_says_that_it_leads_and_the_others_lead_to_it() {
    let (mut lab, http) = with_http();
    let (leader, term) = lab.leader();
    for (at, place) in http.iter().enumerate() {
        assert_eq!(get(place, "/health").unwrap().status, 200);
        let leading = get(place, "/leading").unwrap();
        assert_eq!(leading.status, if at == leader { 200 } else { 503 }, "{}", leading.body);
        let said = get(place, "/v1/leader").unwrap().json();
        assert_eq!(
            (&said["identifier"], &said["term"]),
            (&json!(lab.members[leader].name), &json!(term))
        );
        eventually("the metadata of the leader is everywhere", || {
            let redirect = get(place, "/v1/redirect?path=/orders%3Fx=1").unwrap();
            let host = lab.members[leader].address.rsplit_once(':').unwrap().0;
            let location = format!("location: http://{host}:{}/orders?x=1", 9001 + leader);
            redirect.status == 307 && redirect.head.contains(&location)
        });
    }
    let others = lab.others(leader);
    others.iter().for_each(|at| lab.members[*at].kill());
    eventually("nobody leads", || {
        get(&http[leader], "/v1/leader").is_some_and(|it| it.status == 503)
    });
    for path in ["/leading", "/v1/leader", "/v1/redirect"] {
        let none = get(&http[leader], path).unwrap();
        assert_eq!(none.status, 503, "{path}");
        assert!(none.head.contains("retry-after: 1"), "{}", none.head);
        assert_eq!(none.json()["type"], "urn:replcore:problem:no_leader");
    }
    assert_eq!(get(&http[leader], "/health").unwrap().status, 200);
}

/// QC-17, QC-30, QC-31: the same facts over HTTP.
#[test]
fn members_metadata_metrics_and_changes_are_there_over_http() {
    let (mut lab, http) = with_http();
    let (leader, term) = lab.leader();
    let other = lab.others(leader)[0];
    let name = lab.members[other].name.clone();
    assert_eq!(
        request(&http[other], "PUT", "/v1/metadata", r#"{"zone":"x"}"#).unwrap().status,
        204
    );
    assert_eq!(get(&http[other], "/v1/metadata").unwrap().json(), json!({ "zone": "x" }));
    eventually("the others see it", || {
        let member = get(&http[leader], &format!("/v1/members/{name}")).unwrap().json();
        member["metadata"] == json!({ "zone": "x" }) && member["state"] == "up"
    });
    let members = get(&http[leader], "/v1/members").unwrap().json();
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    let metrics = get(&http[leader], "/metrics").unwrap().body;
    for line in [
        format!("replcore_cluster_term {term}.0"),
        "replcore_cluster_is_leader 1.0".into(),
        "replcore_cluster_elections_won_total 1".into(),
        format!("replcore_cluster_peer_up{{peer=\"{name}\"}} 1.0"),
        "replcore_cluster_role{role=\"leader\"} 1.0".into(),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    assert_eq!(get(&http[leader], "/v1/members/zz").unwrap().status, 404);
    let bad =
        request(&http[leader], "POST", "/v1/members", r#"{"identifier":"a b","address":"x"}"#);
    assert_eq!(bad.unwrap().status, 400);
    assert_eq!(request(&http[other], "POST", "/v1/resign", "").unwrap().status, 409);
    assert_eq!(request(&http[leader], "POST", "/v1/resign", "").unwrap().status, 204);
    let (next, _) = lab.leader();
    assert_ne!(next, leader);
}

/// QC-18: what happens is told as it happens.
#[test]
fn events_are_told_as_they_happen() {
    let (mut lab, http) = with_http();
    let (leader, _) = lab.leader();
    let other = lab.others(leader)[0];
    let mut stream = TcpStream::connect(&http[other]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", http[other]);
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    let mut until = |wanted: &str| {
        while !text.contains(wanted) {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{wanted} is not in\n{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    until(": open");
    lab.members[leader].kill();
    until("event: new_leader");
    until(&format!("\"leader\":\"{}\"", {
        let (next, _) = lab.leader();
        lab.members[next].name.clone()
    }));
}
