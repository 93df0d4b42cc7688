//! Every command against real nodes.

use crate::support::{Node, objects, run, run_with, until};

/// A hub and a leaf that has registered.
fn pair(folder: &std::path::Path) -> (Node, Node) {
    let hub = Node::hub(folder, &[]);
    let leaf = Node::leaf(folder, "till-7", &hub.address, &[]);
    until(&["status", &leaf.address, "--ready"], |_| true);
    (hub, leaf)
}

fn bodies(text: &str) -> Vec<String> {
    objects(text).iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
}

/// HS-16, HS-17: what is posted at either node is at both.
#[test]
fn messages_are_posted_and_read_with_all_they_carry() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, leaf) = pair(folder.path());
    let (hub, leaf) = (hub.address.as_str(), leaf.address.as_str());
    let post = [
        "post",
        leaf,
        "{\"p\":12}",
        "--type",
        "price.fruit",
        "--key",
        "apples",
        "--class",
        "1",
        "--ttl",
        "1h",
        "--header",
        "shop=3",
        "--content-type",
        "application/json",
        "--idempotency-key",
        "k1",
    ];
    let first = run(&post).ok();
    let again = run(&post).ok();
    assert!(again.contains("posted before") && again.starts_with(first.trim()), "{first}{again}");
    run(&["post", hub, "from the hub"]).ok();

    let read = ["read", hub, "--json"];
    let held = objects(&until(&read, |text| text.lines().count() == 2));
    let price = held.iter().find(|message| message["origin"] == "till-7").unwrap();
    assert_eq!(price["type"], "price.fruit");
    assert_eq!(price["key"], "apples");
    assert_eq!(price["class"], 1);
    assert_eq!(price["headers"]["shop"], "3");
    assert_eq!(price["body"], "{\"p\":12}");
    assert_eq!(price["content_type"], "application/json");
    until(&["read", leaf, "--json"], |text| text.lines().count() == 2);

    assert_eq!(objects(&run(&["read", hub, "--json", "--type", "price.*"]).ok()).len(), 1);
    let from = held[1]["ordinal"].to_string();
    assert_eq!(objects(&run(&["read", hub, "--json", "--from", &from]).ok()).len(), 1);
    let latest = run(&["read", hub, "--json", "--latest", "price.fruit", "apples"]).ok();
    assert_eq!(bodies(&latest), ["{\"p\":12}"]);
    run(&["read", hub, "--latest", "price.fruit", "pears"]).fails(6);
    let table = run(&["read", hub]).ok();
    assert!(table.contains("ORDINAL") && table.contains("from the hub"), "{table}");
}

/// HS-31: a sender of samples, and files and standard input of messages.
#[test]
fn files_standard_input_and_samples_are_posted_once_under_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &[]);
    let file = folder.path().join("in.jsonl");
    std::fs::write(&file, "{\"n\":1}\n{\"n\":2}\nnot json\n").unwrap();
    let file = file.to_str().unwrap();
    let post =
        ["post", &hub.address, "--file", file, "--lines", "json", "--name", "in-1", "--json"];
    for (posted, duplicates) in [(2, 0), (0, 2)] {
        let ended = run(&post);
        assert!(ended.err.contains("line 3"), "{ended:?}");
        assert_eq!(ended.code, 1);
        let said = &objects(&ended.out)[0];
        assert_eq!((&said["posted"], &said["duplicates"]), (&posted.into(), &duplicates.into()));
    }
    run_with(&["post", &hub.address, "--type", "raw"], "one\ntwo\n", &[]).ok();
    assert_eq!(
        bodies(&run(&["read", &hub.address, "--json", "--type", "raw"]).ok()),
        ["one", "two"]
    );
    run(&["post", &hub.address, "--rate", "0", "--count", "700"]).ok();
    run(&["post", &hub.address, "--rate", "500", "--count", "5"]).ok();
    let samples = run(&["read", &hub.address, "--json", "--type", "sample"]).ok();
    assert_eq!(samples.lines().count(), 705);
}

#[test]
fn a_consumer_keeps_its_place_and_rejects_to_the_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &[]);
    let hub = hub.address.as_str();
    for body in ["a", "b", "c", "d"] {
        run(&["post", hub, body]).ok();
    }
    let consume = ["consume", hub, "billing", "--from-start", "--json", "--count", "1"];
    assert_eq!(bodies(&run(&consume).ok()), ["a"]);
    assert_eq!(bodies(&run(&consume).ok()), ["b"]);
    assert_eq!(bodies(&run(&[&consume[..], &["--reject"]].concat()).ok()), ["c"]);
    assert_eq!(bodies(&run(&["consume", hub, "billing", "--json"]).ok()), ["d"]);
    assert_eq!(run(&["consume", hub, "billing"]).ok(), "");
    let consumer = &objects(&run(&["consumers", hub, "--json"]).ok())[0];
    assert_eq!(consumer["name"], "billing");
    assert_eq!(consumer["dead_total"], 1);
    let queues = objects(&run(&["queue", "list", hub, "--json"]).ok());
    let dead = queues.iter().find(|queue| queue["kind"] == "dead_letter").unwrap();
    let name = dead["name"].as_str().unwrap();
    assert_eq!(bodies(&run(&["queue", "peek", hub, name, "--json"]).ok()), ["c"]);
    run(&["consumers", "forget", hub, "billing"]).ok();
    assert!(!run(&["consumers", hub]).ok().contains("billing"));

    // A type counts when the consumer is made; later it need not be said again.
    let count = ["--json", "--count", "1"];
    let typed = ["consume", hub, "sales", "--from-start", "--type", "none-such*"];
    assert_eq!(run(&typed).ok(), "");
    run(&["post", hub, "sold", "--type", "none-such-1"]).ok();
    assert_eq!(bodies(&run(&[&["consume", hub, "sales"], &count[..]].concat()).ok()), ["sold"]);
}

/// HS-30: queues are listed, counted, peeked and purged. HS-07: kept messages go when it is back.
#[test]
fn the_queue_of_a_leaf_that_is_away_is_looked_at_and_purged() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, leaf) = pair(folder.path());
    assert_eq!(leaf.stop(), 0, "SIGTERM is a clean end");
    let hub = hub.address.as_str();
    for body in ["a", "b", "c"] {
        run(&["post", hub, body]).ok();
    }
    let show = objects(&run(&["queue", "show", hub, "till-7", "--json"]).ok()).remove(0);
    assert_eq!((&show["messages"], &show["connected"]), (&3.into(), &false.into()));
    let table = run(&["queue", "list", hub]).ok();
    assert!(table.starts_with("QUEUE") && table.contains("till-7"), "{table}");
    let peeked = run(&["queue", "peek", hub, "till-7", "--skip", "1", "--json"]).ok();
    assert_eq!(bodies(&peeked), ["b", "c"]);
    let id = objects(&peeked)[0]["id"].as_str().unwrap().to_owned();
    run(&["queue", "purge", hub, "till-7", "--id", &id]).ok();
    run(&["queue", "purge", hub, "till-7", "--id", &id]).fails(6);
    run(&["queue", "purge", hub, "till-7"]).code.eq(&2).then_some(()).unwrap();
    let leaf = Node::leaf(folder.path(), "till-7", hub, &[]);
    until(&["read", &leaf.address, "--json"], |text| bodies(text) == ["a", "c"]);
    let nodes = objects(&run(&["nodes", hub, "--json"]).ok());
    assert_eq!((&nodes[0]["name"], &nodes[0]["state"]), (&"till-7".into(), &"live".into()));
    drop(leaf);
    until(&["nodes", hub, "--json"], |text| !text.contains("\"live\""));
    run(&["nodes", "forget", hub, "till-7"]).ok();
    assert!(!run(&["nodes", hub]).ok().contains("till-7"));
    run(&["nodes", "forget", hub, "till-7"]).fails(6);
}

/// HS-20: rules change while the node runs.
#[test]
fn rules_are_shown_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &["--dispatch", "till-7"]);
    let shown = run(&["rules", &hub.address]).ok();
    assert!(shown.contains("to = [\"till-7\"]"), "{shown}");
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, "[[rule]]\ntype = \"alarm.*\"\nto = [\"*\", \"archive\"]\n").unwrap();
    run(&["rules", "set", &hub.address, file.to_str().unwrap()]).ok();
    let shown = run(&["rules", &hub.address]).ok();
    assert_eq!(shown, std::fs::read_to_string(&file).unwrap());
}

/// HS-34: what it listens on and what it says of itself are two things.
#[test]
fn a_leaf_advertises_another_address_than_it_listens_on() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &[]);
    let advertise = ["--advertise", "shop-7.example:9000"];
    let _leaf = Node::leaf(folder.path(), "till-7", &hub.address, &advertise);
    let nodes = until(&["nodes", &hub.address, "--json"], |text| text.contains("till-7"));
    assert_eq!(objects(&nodes)[0]["address"], "shop-7.example:9000");
}

#[test]
fn a_node_is_reached_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("s").display());
    let data = folder.path().join("data");
    let node = Node::start(&["hub", "--listen", &socket, "--data", data.to_str().unwrap()]);
    run(&["post", &node.address, "hello"]).ok();
    assert_eq!(bodies(&run(&["read", &socket, "--json"]).ok()), ["hello"]);
}

#[test]
fn status_and_http_tell_of_the_same_node() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &["--http", "127.0.0.1:0"]);
    let status = objects(&run(&["status", &hub.address, "--json"]).ok()).remove(0);
    assert_eq!((&status["name"], &status["ready"]), (&"hub".into(), &true.into()));
    let mut http = std::net::TcpStream::connect(&hub.http).unwrap();
    http.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"hub\""), "{answer}");
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).ok().contains("quickstart"), "{shell}");
    }
}
