//! What is wrong is said in one line that names it and the remedy; nothing is changed.

use crate::support::{Node, free_port, objects, run, until};

#[test]
fn nobody_at_the_address_is_said() {
    let address = format!("127.0.0.1:{}", free_port());
    for command in [vec!["post", &address, "x"], vec!["read", &address], vec!["status", &address]] {
        let said = run(&command).fails(4);
        assert!(said.contains(&address) && said.contains("is a node running there"), "{said}");
    }
    assert!(run(&["read", "nonsense"]).fails(2).contains("host:port"));
}

#[test]
fn an_occupied_port_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &[]);
    let data = folder.path().join("other");
    let data = data.to_str().unwrap();
    let said = run(&["hub", "--listen", &hub.address, "--data", data]).fails(7);
    assert!(said.contains(&hub.address) && said.contains("choose another"), "{said}");
    let said =
        run(&["hub", "--listen", "127.0.0.1:0", "--http", &hub.address, "--data", data]).fails(7);
    assert!(said.contains("HTTP") && said.contains(&hub.address), "{said}");
}

#[test]
fn a_folder_in_use_or_of_another_node_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &[]);
    let data = folder.path().join("hub");
    let data = data.to_str().unwrap();
    let start =
        |name: &str| run(&["hub", "--name", name, "--listen", "127.0.0.1:0", "--data", data]);
    run(&["post", &hub.address, "kept"]).ok();
    let said = start("hub").fails(7);
    assert!(said.contains(data), "{said}");
    assert_eq!(hub.stop(), 0);
    let said = start("somebody-else").fails(7);
    assert!(said.contains(data) && said.contains("hub"), "{said}");
    let hub = Node::hub(folder.path(), &[]);
    assert_eq!(objects(&run(&["read", &hub.address, "--json"]).ok())[0]["body"], "kept");
}

#[test]
fn a_folder_of_a_newer_format_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Node::hub(folder.path(), &[]).stop(), 0);
    let data = folder.path().join("hub");
    let identity = data.join("identity");
    let text = std::fs::read_to_string(&identity).unwrap();
    let format = text.lines().find(|line| line.starts_with("format ")).unwrap();
    let newer = text.replace(format, "format 4000000000");
    std::fs::write(&identity, &newer).unwrap();
    let data = data.to_str().unwrap();
    let said = run(&["hub", "--listen", "127.0.0.1:0", "--data", data]).fails(7);
    assert!(said.contains(data) && said.contains("format 4000000000"), "{said}");
    assert_eq!(std::fs::read_to_string(&identity).unwrap(), newer);
}

/// HS-32: a second node of a live node's name is refused, and the first goes on.
#[test]
fn a_second_leaf_of_a_live_leafs_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Node::hub(folder.path(), &[]);
    let first = Node::leaf(folder.path(), "till-7", &hub.address, &[]);
    until(&["status", &first.address, "--ready"], |_| true);
    let other = tempfile::tempdir().unwrap();
    let second = Node::leaf(other.path(), "till-7", &hub.address, &[]);
    let status = until(&["status", &second.address, "--json"], |text| {
        text.contains("another live node has this name")
    });
    assert!(status.contains("\"ready\":false"), "{status}");
    run(&["status", &first.address, "--ready"]).ok();
}

#[test]
fn a_message_over_the_limit_and_a_bad_rule_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let data = folder.path().join("data");
    let text = format!(
        "data_folder = {data:?}\nlisten = [\"127.0.0.1:0\"]\n[limits]\nmessage_bytes_max = 1000\n"
    );
    std::fs::write(&file, text).unwrap();
    let hub = Node::start(&["run", "--config", file.to_str().unwrap()]);
    let said = run(&["post", &hub.address, &"x".repeat(2000)]).fails(5);
    assert!(said.contains("message_bytes_max") && said.contains("1000"), "{said}");
    let rules = folder.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nto = [\"no such name\"]\n").unwrap();
    let said = run(&["rules", "set", &hub.address, rules.to_str().unwrap()]).fails(3);
    assert!(said.contains("rules.toml: line 2"), "{said}");
    assert_eq!(run(&["read", &hub.address]).ok(), "");
    assert_eq!(run(&["rules", &hub.address]).ok(), "[[rule]]\nto = [\"*\"]\n");
}

/// HS-29: attributes outside a schema are refused where they are posted.
#[test]
fn attributes_outside_the_schema_are_refused_by_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let data = folder.path().join("data");
    let text = format!(
        "data_folder = {data:?}\nlisten = [\"127.0.0.1:0\"]\n\
         [[schema]]\ntype = \"serial\"\nattributes = {{ number = \"integer\", name = \"text\" }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let hub = Node::start(&["run", "--config", file.to_str().unwrap()]);
    let post = |body: &str| run(&["post", &hub.address, body, "--type", "serial"]);
    post("{\"number\": 5, \"name\": \"a\"}").ok();
    assert!(post("{\"number\": 5.5}").fails(5).contains("\"number\", not a float"));
    assert!(post("{\"drop table\": \"x\"}").fails(5).contains("no attribute \"drop table\""));
    assert_eq!(run(&["read", &hub.address, "--json"]).ok().lines().count(), 1);
}
