//! Mutual TLS, with the certificates that `replcore ca` makes.

use std::path::Path;

use crate::support::{Node, objects, run, until};

/// The three options for a name.
fn options(ca: &Path, name: &str) -> Vec<String> {
    let path = |file: String| ca.join(file).to_str().unwrap().to_owned();
    vec![
        "--tls-ca".into(),
        path("ca.pem".into()),
        "--tls-cert".into(),
        path(format!("{name}.pem")),
        "--tls-key".into(),
        path(format!("{name}.key")),
    ]
}

fn authority(folder: &Path, names: &[&str]) -> std::path::PathBuf {
    let ca = folder.join("ca");
    run(&["ca", "init", ca.to_str().unwrap()]).ok();
    for name in names {
        run(&["ca", "issue", ca.to_str().unwrap(), name]).ok();
    }
    ca
}

fn with<'a>(arguments: &[&'a str], options: &'a [String]) -> Vec<&'a str> {
    arguments.iter().copied().chain(options.iter().map(String::as_str)).collect()
}

/// HS-33: links are authenticated and encrypted; a stranger reads, posts and deletes nothing.
#[test]
fn nodes_and_programs_with_certificates_work_and_others_get_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(folder.path(), &["hub", "till-7", "admin"]);
    let (hub_tls, leaf_tls, admin) =
        (options(&ca, "hub"), options(&ca, "till-7"), options(&ca, "admin"));
    let hub = Node::hub(folder.path(), &with(&[], &hub_tls));
    let leaf = Node::leaf(folder.path(), "till-7", &hub.address, &with(&[], &leaf_tls));
    until(&with(&["status", &leaf.address, "--ready"], &admin), |_| true);
    run(&with(&["post", &leaf.address, "secret"], &admin)).ok();
    let read = with(&["read", &hub.address, "--json"], &admin);
    let held = until(&read, |text| text.contains("secret"));
    assert_eq!(objects(&held)[0]["origin"], "till-7");

    // Without a certificate, and with one of another authority.
    run(&["read", &hub.address]).fails(4);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = authority(elsewhere.path(), &["admin"]);
    run(&with(&["read", &hub.address], &options(&other, "admin"))).fails(4);
    let mut mixed = options(&other, "admin");
    mixed[1] = ca.join("ca.pem").to_str().unwrap().to_owned();
    let said = run(&with(&["read", &hub.address], &mixed)).fails(1);
    assert!(said.contains("admin.pem") && said.contains("ca.pem"), "{said}");
}

/// HS-33: a certificate of the authority is not enough to delete what belongs to others.
#[test]
fn only_administrators_purge_forget_and_change_rules() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(folder.path(), &["hub", "till-7", "ops"]);
    let path = |name: &str| ca.join(name).to_str().unwrap().to_owned();
    let configuration = folder.path().join("hub.toml");
    let write = |administrators: &str| {
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\ndata_folder = {:?}\n[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             administrators = [{administrators}]\n[http]\nlisten = [\"127.0.0.1:0\"]\n",
            folder.path().join("hub").to_str().unwrap(),
            path("ca.pem"),
            path("hub.pem"),
            path("hub.key"),
        );
        std::fs::write(&configuration, text).unwrap();
    };
    write("");
    let hub = Node::start(&["run", "--config", configuration.to_str().unwrap()]);
    let (hub_tls, leaf_tls, ops) =
        (options(&ca, "hub"), options(&ca, "till-7"), options(&ca, "ops"));
    run(&with(&["post", &hub.address, "one"], &leaf_tls)).ok();
    run(&with(&["post", &hub.address, "two"], &leaf_tls)).ok();
    let consume = ["consume", &hub.address, "billing", "--from-start", "--count", "1"];
    run(&with(&consume, &leaf_tls)).ok();
    let purge = ["queue", "purge", &hub.address, "billing", "--all"];
    for tls in [&leaf_tls, &ops] {
        let said = run(&with(&purge, tls)).fails(5);
        assert!(
            said.contains("may not administer hub") && said.contains("administrators"),
            "{said}"
        );
    }
    write("\"ops\"");
    hub.signal("-HUP");
    until(&with(&purge, &ops), |said| said.contains('1'));
    run(&with(&purge, &leaf_tls)).fails(5);
    run(&with(&purge, &hub_tls)).ok();
}

#[test]
fn a_node_may_only_speak_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(folder.path(), &["hub", "till-7"]);
    let tls = options(&ca, "till-7");
    let data = folder.path().join("x");
    let start = ["hub", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let said = run(&with(&start, &tls)).fails(7);
    assert!(said.contains("till-7") && said.contains("only speak as itself"), "{said}");
    assert!(!data.exists(), "nothing was changed");
    // A leaf that expects another hub there does not take it for that one.
    let hub_tls = options(&ca, "hub");
    let hub = Node::hub(folder.path(), &with(&[], &hub_tls));
    let broker = format!("central@{}", hub.address);
    let leaf = Node::leaf(folder.path(), "till-7", &broker, &with(&[], &tls));
    let status = with(&["status", &leaf.address, "--json"], &tls);
    let said = until(&status, |text| !text.contains("\"central\":\"\""));
    assert!(said.contains("\"ready\":false"), "{said}");
    assert!(!run(&with(&["nodes", &hub.address], &tls)).ok().contains("till-7"));
}

#[test]
fn an_authority_overwrites_nothing_and_refuses_what_is_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(folder.path(), &["hub"]);
    let ca = ca.to_str().unwrap();
    assert!(run(&["ca", "init", ca]).fails(1).contains("there already"));
    assert!(run(&["ca", "issue", ca, "hub"]).fails(1).contains("hub.pem"));
    assert!(run(&["ca", "issue", ca, "no name"]).fails(2).contains("no name"));
    assert!(run(&["ca", "issue", "/nowhere", "x"]).fails(1).contains("ca init /nowhere"));
    assert_eq!(run(&["read", "localhost:1", "--tls-ca", "x"]).code, 2);
}

#[test]
fn a_replaced_certificate_is_taken_up_on_a_signal_without_dropping_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(folder.path(), &["hub", "till-7"]);
    let (hub_tls, leaf_tls) = (options(&ca, "hub"), options(&ca, "till-7"));
    let hub = Node::hub(folder.path(), &with(&[], &hub_tls));
    let leaf = Node::leaf(folder.path(), "till-7", &hub.address, &with(&[], &leaf_tls));
    until(&with(&["status", &leaf.address, "--ready"], &leaf_tls), |_| true);

    // Bad files change nothing, and that is what is said.
    let good = std::fs::read(ca.join("hub.key")).unwrap();
    std::fs::write(ca.join("hub.key"), "no key").unwrap();
    hub.signal("-HUP");
    let said = hub.logs("not reloaded, the configuration is as it was");
    assert!(said.contains("TLS files: ") && said.contains("hub.key"), "{said}");
    std::fs::write(ca.join("hub.key"), good).unwrap();

    // The hub moves to another authority and trusts only that one.
    let other = tempfile::tempdir().unwrap();
    let new = authority(other.path(), &["hub", "admin"]);
    for file in ["ca.pem", "hub.pem", "hub.key"] {
        std::fs::copy(new.join(file), ca.join(file)).unwrap();
    }
    hub.signal("-HUP");
    let admin = options(&new, "admin");
    let nodes = until(&with(&["nodes", &hub.address, "--json"], &admin), |_| true);
    assert!(nodes.contains("\"live\""), "the old link was kept: {nodes}");
    run(&with(&["post", &hub.address, "on the old link"], &admin)).ok();
}
