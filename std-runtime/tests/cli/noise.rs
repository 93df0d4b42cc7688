//! Links without TLS, with the keys that `replcore key` makes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Node, objects, run, until};

fn path(folder: &Path, file: &str) -> String {
    folder.join(file).to_str().unwrap().to_owned()
}

fn hub(folder: &Path, more: &[&str]) -> Node {
    let (data, keys) = (path(folder, "hub"), path(folder, "hub.keys"));
    let base = ["hub", "--listen", "noise:127.0.0.1:0", "--data", &data, "--noise-keys", &keys];
    Node::start(&[&base, more].concat())
}

fn leaf(folder: &Path, name: &str, hub: &Node, keys: &str) -> Node {
    let more = ["--noise-keys", &path(folder, keys), "--log", "trace"];
    Node::leaf(folder, name, &hub.address, &more)
}

/// HS-33: with a shared key, or a pair and the hub's public key; another key is refused with one line, and
/// no key is in any log.
#[test]
fn leaves_with_keys_of_either_kind_are_let_in_and_others_are_told_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let at = |file: &str| path(folder, file);
    run(&["key", "make", &at("hub.keys")]).ok();
    let public = |file: &str| run(&["key", "public", &at(file)]).ok().trim().to_owned();
    run(&["key", "make", &at("till-7.keys")]).ok();
    run(&["key", "add", &at("till-7.keys"), "hub", &public("hub.keys")]).ok();
    run(&["key", "add", &at("hub.keys"), "till-7", &public("till-7.keys")]).ok();
    run(&["key", "share", &at("hub.keys"), "till-8", &at("till-8.keys")]).ok();
    run(&["key", "share", &at("other.keys"), "till-8", &at("wrong.keys")]).ok();

    let hub = hub(folder, &["--http", "127.0.0.1:0", "--log", "trace"]);
    let one = leaf(folder, "till-7", &hub, "till-7.keys");
    let two = leaf(folder, "till-8", &hub, "till-8.keys");
    for node in [&one, &two] {
        until(&["status", &node.address, "--ready"], |_| true);
    }
    run(&["post", &one.address, "secret"]).ok();
    let held = until(&["read", &two.address, "--json"], |text| text.contains("secret"));
    assert_eq!(objects(&held)[0]["origin"], "till-7");
    drop(two);

    let wrong = leaf(folder, "till-8", &hub, "wrong.keys");
    let mut said = vec![hub.logs("till-8 has another psk")];
    assert!(said[0].contains("hub.keys; compare both ends"), "{said:?}");
    said.extend([&hub, &one, &wrong].map(Node::log));
    for file in ["hub.keys", "till-7.keys", "till-8.keys", "wrong.keys"] {
        let text = std::fs::read_to_string(at(file)).unwrap();
        let secrets = text.lines().filter(|line| !line.contains("public"));
        for secret in secrets.filter_map(|line| line.split(' ').next_back()) {
            assert_eq!(secret.len(), 64);
            assert!(!said.iter().any(|lines| lines.contains(&secret[..12])), "{said:?}");
        }
    }
}

#[test]
fn keys_that_are_missing_open_to_others_or_wrong_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (keys, data) = (path(folder.path(), "keys"), path(folder.path(), "x"));
    let base = ["hub", "--listen", "noise:0.0.0.0:0", "--data", &data];
    let with_keys = [&base[..], &["--noise-keys", &keys]].concat();
    let said = run(&base).fails(2);
    assert!(said.contains("noise:0.0.0.0:0 takes keys: give --noise-keys"), "{said}");
    assert!(run(&with_keys).fails(7).contains("cannot read the keys"));
    run(&["key", "make", &keys]).ok();
    assert!(run(&["key", "make", &keys]).fails(1).contains("there already"));
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = run(&with_keys).fails(7);
    assert!(said.contains("open to others (mode 644): chmod 600"), "{said}");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&keys, "till-7 psk 0123\n").unwrap();
    let said = run(&with_keys).fails(7);
    assert!(said.contains("keys:1: a key has 64 hexadecimal digits"), "{said}");
    assert!(!said.contains("0123"), "{said}");
    assert!(!Path::new(&data).join("log").exists(), "nothing was started");

    let configuration = path(folder.path(), "node.toml");
    std::fs::write(&configuration, format!("[noise]\nkeys = {keys:?}\n")).unwrap();
    assert!(run(&["check", "--config", &configuration]).fails(3).contains("keys:1:"));
    std::fs::write(&configuration, "[noise]\nkey = \"x\"\n").unwrap();
    assert!(run(&["check", "--config", &configuration]).fails(3).contains("key"));
}
