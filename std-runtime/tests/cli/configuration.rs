//! Configuration files: explained, checked, run, read again.

use crate::support::{Node, run, until};

#[test]
fn what_explain_prints_is_a_file_that_check_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let text = run(&["config", "--explain"]).ok();
    assert!(text.contains("#message_bytes_max = 16777216") && text.contains("1 to 67108864"));
    std::fs::write(&file, text).unwrap();
    let said = run(&["check", "--config", file.to_str().unwrap()]).ok();
    assert!(said.contains("sound"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["config", "--explain", "--json"]).ok()).unwrap();
    assert!(json["keys"].as_array().unwrap().len() > 60);
}

#[test]
fn a_wrong_file_is_told_with_file_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let path = file.to_str().unwrap();
    for (text, said) in [
        ("listn = []\n", "node.toml:1: unknown key `listn`; did you mean `listen`?"),
        ("\n[limits]\naccept_backlog = 0\n", "node.toml:3: `limits.accept_backlog` is 0"),
        ("role = \"leaf\"\nname = \"a\"\n", "a leaf needs a broker"),
        ("listen = [\"0.0.0.0:0\"]\n", "allow_plaintext = true"),
        ("[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n", "node.toml: a:"),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in [["check", "--config", path], ["run", "--config", path]] {
            let line = run(&command).fails(3);
            assert!(line.contains(said), "{line}");
        }
    }
    let line = run(&["check", "--config", "/nowhere/node.toml"]).fails(3);
    assert!(line.contains("/nowhere/node.toml"), "{line}");
}

#[test]
fn plaintext_beyond_loopback_is_refused_and_then_allowed_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let start = ["hub", "--listen", "0.0.0.0:0", "--data", data.to_str().unwrap()];
    let said = run(&start).fails(2);
    assert!(said.contains("--insecure-listen-anywhere"), "{said}");
    assert!(!data.exists(), "nothing was changed");
    Node::start(&[&start[..], &["--insecure-listen-anywhere"]].concat());
}

#[test]
fn a_reload_takes_up_rules_and_keeps_every_link() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let data = folder.path().join("hub");
    let text = |rest: &str| {
        let text = format!("data_folder = {data:?}\nlisten = [\"127.0.0.1:0\"]\n{rest}");
        std::fs::write(&file, text).unwrap();
    };
    text("[[rule]]\nto = [\"elsewhere\"]\n");
    let hub = Node::start(&["run", "--config", file.to_str().unwrap()]);
    let leaf = Node::leaf(folder.path(), "till-7", &hub.address, &[]);
    until(&["status", &leaf.address, "--ready"], |_| true);
    run(&["post", &hub.address, "before"]).ok();

    // What is wrong, or cannot change, changes nothing.
    for (rest, said) in [
        ("[[rule]]\nto = [\"a b\"]\n", "node.toml:4"),
        ("role = \"leaf\"\nname = \"x\"\nbrokers = [\"localhost:1\"]\n", "restart"),
    ] {
        text(rest);
        hub.signal("-HUP");
        let line = hub.logs("not reloaded");
        assert!(line.contains(said), "{line}");
    }
    text("log_level = \"debug\"\n[[rule]]\nto = [\"*\"]\n");
    hub.signal("-HUP");
    hub.logs("reloaded");
    run(&["post", &hub.address, "after"]).ok();
    let held = until(&["read", &leaf.address, "--json"], |text| text.contains("after"));
    assert!(!held.contains("before"), "{held}");
    let counters = run(&["status", &leaf.address, "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&counters).unwrap();
    assert_eq!(status["counters"]["connections_dialed"], 1, "the link was kept: {counters}");
}

/// HS-26: one queue has limits of its own, and a reload changes them.
#[test]
fn a_limit_for_one_queue_holds_for_that_queue_and_is_taken_up_at_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let data = folder.path().join("hub");
    let text = |messages_max: u32| {
        let text = format!(
            "data_folder = {data:?}\nlisten = [\"127.0.0.1:0\"]\n\
             [[rule]]\ntype = \"small\"\nto = [\"till-7\"]\n[[rule]]\ntype = \"big\"\nto = [\"till-8\"]\n\
             [[queue_limit]]\nname = \"till-7\"\nmessages_max = {messages_max}\npolicy = \"refuse\"\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    text(1);
    run(&["check", "--config", file.to_str().unwrap()]).ok();
    let hub = Node::start(&["run", "--config", file.to_str().unwrap()]);
    let post = |kind: &str| run(&["post", &hub.address, "x", "--type", kind]);
    post("small").ok();
    assert!(post("small").fails(5).contains("till-7"));
    post("big").ok();
    post("big").ok();
    text(2);
    hub.signal("-HUP");
    hub.logs("reloaded");
    post("small").ok();
    assert!(post("small").fails(5).contains("till-7"));
}

/// HS-12: either end may dial.
#[test]
fn a_leaf_that_only_listens_is_dialled_by_the_hub_that_its_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str, rest: &str| {
        let file = folder.path().join(format!("{name}.toml"));
        let data = folder.path().join(name);
        let text = format!(
            "name = \"{name}\"\ndata_folder = {data:?}\nlisten = [\"127.0.0.1:0\"]\n{rest}"
        );
        std::fs::write(&file, text).unwrap();
        Node::start(&["run", "--config", file.to_str().unwrap()])
    };
    let leaf = start("till-7", "role = \"leaf\"\ncalled_by = \"central\"\n");
    let hub = start("central", &format!("dials = [\"till-7@{}\"]\n", leaf.address));
    run(&["post", &leaf.address, "up"]).ok();
    until(&["status", &leaf.address, "--ready"], |_| true);
    until(&["read", &hub.address, "--json"], |text| text.contains("up"));
}

#[test]
fn a_folder_named_in_the_file_is_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data, inbox) =
        (folder.path().join("n.toml"), folder.path().join("data"), folder.path().join("in"));
    std::fs::create_dir(&inbox).unwrap();
    std::fs::write(inbox.join("a.jsonl"), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let text = format!(
        "data_folder = {data:?}\nlisten = [\"127.0.0.1:0\"]\n\
         [[ingest]]\nfolder = {inbox:?}\nsettle_ms = 0\npoll_ms = 20\ntype = \"reading\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let start = || Node::start(&["run", "--config", file.to_str().unwrap()]);
    let node = start();
    let read = |address: &str| {
        until(&["read", address, "--json", "--type", "reading"], |text| text.lines().count() == 2)
    };
    read(&node.address);
    assert_eq!(node.stop(), 0);
    read(&start().address);
}
