//! Members with certificates.

use std::process::Command;

use serde_json::{Value, json};

use crate::lab::{Lab, eventually};

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn run(arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_replcore")).args(arguments).output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// QC-23: the certificate names the member; who has none, or another's, gets nowhere, and with a
/// certificate one may look, but not change anything.
#[test]
fn with_tls_a_member_is_who_its_certificate_names_and_only_administrators_change_things() {
    let mut lab = Lab::new(3);
    let ca = lab.folder.path().join("ca");
    let ca = ca.to_str().unwrap();
    assert_eq!(run(&["ca", "init", ca]).code, 0);
    for name in ["a", "b", "c", "admin", "visitor"] {
        assert_eq!(run(&["ca", "issue", ca, name]).code, 0);
    }
    let file = |name: &str| format!("{ca}/{name}");
    let flags = |name: &str| {
        [
            "--tls-ca".to_owned(),
            file("ca.pem"),
            "--tls-cert".into(),
            file(&format!("{name}.pem")),
            "--tls-key".into(),
            file(&format!("{name}.key")),
        ]
    };
    for member in &mut lab.members {
        let name = member.name.clone();
        member.config["tls_ca"] = json!(file("ca.pem"));
        member.config["tls_cert"] = json!(file(&format!("{name}.pem")));
        member.config["tls_key"] = json!(file(&format!("{name}.key")));
        member.config["administrators"] = json!(["admin"]);
        member.spawn();
    }
    let ask = |as_whom: &str, arguments: &[&str]| {
        let flags = flags(as_whom);
        let all: Vec<_> =
            arguments.iter().copied().chain(flags.iter().map(String::as_str)).collect();
        run(&all)
    };
    let place = lab.members[0].address.clone();
    let mut said = String::new();
    eventually("a visitor learns who leads", || {
        let run = ask("visitor", &["leader", &place, "--json"]);
        said = run.out;
        run.code == 0
    });
    let said: Value = serde_json::from_str(&said).unwrap();
    let leader = format!("{}:{}", said["leader"]["host"].as_str().unwrap(), said["leader"]["port"]);

    let visitor = ask("visitor", &["resign", &leader]);
    assert_eq!(visitor.code, 5, "{}", visitor.err);
    assert!(visitor.err.contains("visitor may not administer"), "{}", visitor.err);
    assert_eq!(ask("admin", &["members", "set-metadata", &leader, "{}"]).code, 0);
    assert_eq!(run(&["leader", &place]).code, 4, "without a certificate there is no answer");

    // Another's certificate.
    let data = lab.folder.path().join("d");
    let wrong = ask(
        "b",
        &["cluster", "--name", "d", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()],
    );
    assert_eq!(wrong.code, 7);
    assert!(wrong.err.contains("the certificate is for b"), "{}", wrong.err);

    // Passed on from member to member under the member's own certificate.
    let other = lab.members.iter().find(|it| it.address != leader).unwrap().address.clone();
    let unknown = ask("admin", &["leave", &other, "zz"]);
    assert_eq!(unknown.code, 6, "{}", unknown.err);
    assert_eq!(ask("admin", &["resign", &leader]).code, 0);
}
