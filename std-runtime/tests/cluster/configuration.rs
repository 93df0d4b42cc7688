//! What is made of a configuration file.

use replcore_runtime::cluster::config::{METADATA_BYTES_MAX, parse};
use serde_json::{Value, json};

fn seed() -> Value {
    json!({
        "identifier": "server_a",
        "listen_host": "localhost",
        "listen_port": 7001,
        "peers": [
            { "host": "localhost", "port": 7002, "identifier": "server_b",
              "metadata": { "server_port": 8002 } },
            { "host": "localhost", "port": 7003, "identifier": "server_c" },
        ],
        "data_folder": "somewhere",
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut config = seed();
    config[key] = value;
    config
}

#[track_caller]
fn refused(config: &Value) -> String {
    let error = parse(config.to_string().as_bytes()).unwrap_err();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// QC-01: the keys of the seed, with extra ones.
#[test]
fn the_configuration_of_the_seed_is_taken_as_it_is() {
    let config = parse(with("colour", json!("blue")).to_string().as_bytes()).unwrap();
    assert_eq!(config.reports, Vec::<String>::new());
    let options = config.options;
    assert_eq!(options.name.as_str(), "server_a");
    assert_eq!(options.listen.to_string(), "localhost:7001");
    assert_eq!(options.cluster.as_str(), "default");
    let peers: Vec<_> = options
        .peers
        .iter()
        .map(|it| format!("{}={} {}", it.name, it.address, Value::from(it.metadata.clone())))
        .collect();
    assert_eq!(
        peers,
        ["server_b=localhost:7002 {\"server_port\":8002}", "server_c=localhost:7003 {}"]
    );
    assert!(options.voter && !options.masterless);
    assert_eq!(options.election.heartbeat_ms, 50);
    assert_eq!((options.election.timeout_ms_min, options.election.timeout_ms_max), (150, 300));
}

/// QC-01: what the seed has for defaults.
#[test]
fn all_but_the_identifier_has_a_default() {
    let config = json!({ "identifier": "x", "data_folder": "d" });
    let options = parse(config.to_string().as_bytes()).unwrap().options;
    assert_eq!(options.listen.to_string(), "localhost:0");
    assert!(options.peers.is_empty());
    assert!(refused(&json!({})).contains("identifier"));
}

/// QC-02: a peer that is not sound is reported, and the others stay.
#[test]
fn a_peer_that_is_not_sound_is_passed_over_and_reported() {
    let wrong = [
        (json!({ "port": 1, "identifier": "d" }), "host"),
        (json!({ "host": "", "port": 1, "identifier": "d" }), "host"),
        (json!({ "host": "h", "identifier": "d" }), "port"),
        (json!({ "host": "h", "port": 0, "identifier": "d" }), "port"),
        (json!({ "host": "h", "port": 65536, "identifier": "d" }), "port"),
        (json!({ "host": "h", "port": "7", "identifier": "d" }), "port"),
        (json!({ "host": "h", "port": 7 }), "identifier"),
        (json!({ "host": "h", "port": 7, "identifier": "" }), "identifier"),
        (json!({ "host": "h", "port": 7, "identifier": "a b" }), "identifier `a b`"),
        (json!({ "host": "h", "port": 7, "identifier": "d", "metadata": [] }), "metadata"),
        (json!({ "host": "h".repeat(80), "port": 7, "identifier": "d" }), "host"),
        (json!("d"), "object"),
    ];
    for (peer, what) in wrong {
        let mut config = seed();
        config["peers"].as_array_mut().unwrap().insert(1, peer);
        let config = parse(config.to_string().as_bytes()).unwrap();
        let names: Vec<_> = config.options.peers.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["server_b", "server_c"]);
        let [report] = config.reports.as_slice() else { panic!("{:?}", config.reports) };
        assert!(report.starts_with("peers[1] is passed over") && report.contains(what), "{report}");
    }
}

/// QC-02: two of one identifier, and the own one among the peers.
#[test]
fn the_first_of_two_equal_identifiers_stays_and_the_own_one_is_refused() {
    let mut config = seed();
    let peers = config["peers"].as_array_mut().unwrap();
    peers.push(json!({ "host": "elsewhere", "port": 9, "identifier": "server_b" }));
    peers.push(json!({ "host": "elsewhere", "port": 9, "identifier": "server_a" }));
    let config = parse(config.to_string().as_bytes()).unwrap();
    assert_eq!(config.options.peers.len(), 2);
    assert_eq!(config.options.peers[0].address.to_string(), "localhost:7002");
    assert!(config.reports[0].contains("`server_b` is there already"), "{:?}", config.reports);
    assert!(config.reports[1].contains("this member itself"), "{:?}", config.reports);
}

/// Alone, a member elects itself: it must not be alone by mistake.
#[test]
fn a_file_all_of_whose_peers_are_wrong_is_refused() {
    let error = refused(&with("peers", json!([{ "host": "h", "port": 0, "identifier": "b" }])));
    assert!(error.contains("none of the peers is sound") && error.contains("port"), "{error}");
}

#[test]
fn metadata_that_is_too_large_is_an_error_of_the_own_and_a_report_of_a_peer() {
    let large = json!({ "k": "v".repeat(METADATA_BYTES_MAX) });
    let error = refused(&with("metadata", large.clone()));
    assert!(error.contains("metadata has") && error.contains("at most 256"), "{error}");
    let mut config = seed();
    config["peers"][0]["metadata"] = large;
    let config = parse(config.to_string().as_bytes()).unwrap();
    assert_eq!(config.options.peers.len(), 2, "the member itself counts");
    assert!(config.options.peers[0].metadata.is_empty());
    assert!(config.reports[0].contains("without its metadata"), "{:?}", config.reports);
}

#[test]
fn a_value_that_is_wrong_is_named_with_its_key() {
    for (key, value, what) in [
        ("identifier", json!("a b"), "identifier `a b`"),
        ("identifier", json!(7), "identifier must be text"),
        ("listen_port", json!(-1), "listen_port is -1"),
        ("listen_port", json!(70_000), "listen_port is 70000"),
        ("peers", json!({}), "peers must be a list"),
        ("metadata", json!("x"), "metadata must be an object"),
        ("profile", json!("moon"), "`moon` is not a profile"),
        ("heartbeat_ms", json!(100), "heartbeat_ms must be"),
        ("timeout_ms_max", json!(150), "timeout_ms_max must be"),
        ("priority", json!(256), "priority is 256"),
        ("learner", json!("yes"), "learner must be true or false"),
        ("tls_ca", json!("ca.pem"), "TLS takes three files"),
        ("advertise", json!("nowhere"), "advertise `nowhere`"),
        ("http", json!([1]), "http must be text"),
    ] {
        let error = refused(&with(key, value));
        assert!(error.contains(what), "{key}: {error}");
    }
    assert!(parse(b"{\n\"identifier\": }").unwrap_err().starts_with("line 2: not JSON"));
    assert!(parse(b"[]").unwrap_err().contains("one object"));
}

#[test]
fn a_key_that_is_nearly_known_is_reported() {
    let config = parse(with("listen_prot", json!(1)).to_string().as_bytes()).unwrap();
    assert!(config.reports[0].contains("`listen_port` is"), "{:?}", config.reports);
}

#[test]
fn more_members_than_there_can_be_are_refused() {
    let peer = |at: u32| json!({ "host": "h", "port": 1 + at, "identifier": format!("n{at}") });
    let peers: Vec<_> = (0..32).map(peer).collect();
    assert!(refused(&with("peers", json!(peers))).contains("32 peers; at most 31"));
    assert!(parse(with("peers", json!(peers[..31])).to_string().as_bytes()).is_ok());
}
