//! The metrics and their format.

use std::collections::{BTreeMap, BTreeSet};

use replcore_runtime::http::HttpOptions;
use serde_json::json;

use crate::client::Site;

/// Checks the text as `promtool check metrics` would, and gives the samples by name and labels.
pub(crate) fn check(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut samples = BTreeMap::new();
    let mut ended = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("replcore_"), "{line}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        let family = match name.strip_suffix("_total") {
            Some(family) => {
                assert_eq!(types[family], "counter", "{line}");
                family
            }
            None => {
                assert_eq!(types[name], "gauge", "{line}");
                name
            }
        };
        for abbreviated in ["_ms", "_us", "_microseconds", "_kb", "_count", "_total"] {
            assert!(!family.ends_with(abbreviated), "{line}");
        }
        assert!(helped.contains(family), "{line}");
        if family != current {
            assert!(ended.insert(family.to_owned()), "{family} is torn apart");
            current = family.to_owned();
        }
        let value: f64 = value.parse().unwrap();
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
    }
    samples
}

#[tokio::test]
async fn the_metrics_tell_what_hs_35_names_in_the_right_format() {
    let site = Site::new();
    site.node.add_leaf("till-1");
    site.send_json("POST", "/v1/messages", json!([{ "to": ["till-1"] }, {}])).await;
    site.ask("PUT", "/v1/consumers/billing").await;
    site.get("/nowhere").await;
    let answer = site.get("/metrics").await;
    let media_type = answer.headers["content-type"].to_str().unwrap();
    assert!(media_type.starts_with("application/openmetrics-text"), "{media_type}");
    let samples = check(&answer.text);
    for counter in [
        "registered",
        "expired",
        "fetched",
        "stored",
        "dispatched",
        "delivered",
        "retried",
        "dropped",
    ] {
        assert!(samples.contains_key(&format!("replcore_{counter}_total")), "{counter}");
    }
    for (series, value) in [
        ("replcore_stored_total", 2.0),
        ("replcore_link_frames_bad_total", 2.0),
        ("replcore_store_sync_seconds_total", 1.5),
        ("replcore_uptime_seconds", 61.5),
        ("replcore_log_size_bytes", f64::from(1 << 20)),
        ("replcore_ready", 1.0),
        ("replcore_upstream_registered{upstream=\"hub\"}", 1.0),
        ("replcore_nodes{state=\"live\"}", 1.0),
        ("replcore_node_round_trip_seconds{node=\"till-1\"}", 0.00042),
        ("replcore_queue_messages{queue=\"till-1\",kind=\"leaf\"}", 1.0),
        ("replcore_queues_waiting_messages{kind=\"leaf\"}", 1.0),
        ("replcore_consumer_messages{consumer=\"billing\"}", 0.0),
        ("replcore_http_requests_total{code=\"4xx\"}", 1.0),
        ("replcore_http_requests_total{code=\"2xx\"}", 2.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[tokio::test]
async fn the_number_of_series_is_bounded_and_the_deepest_queues_have_theirs() {
    let site = Site::with(HttpOptions { metrics_series_max: 3, ..HttpOptions::default() });
    for n in 0..50 {
        let messages: Vec<_> =
            (0..=n).map(|_| json!({ "to": [format!("queue-{n:02}")] })).collect();
        site.send_json("POST", "/v1/messages", json!(messages)).await;
        site.node.add_leaf(&format!("leaf-{n:02}"));
    }
    let samples = check(&site.get("/metrics").await.text);
    let with = |start: &str| samples.keys().filter(|series| series.starts_with(start)).count();
    assert_eq!(with("replcore_queue_messages{"), 3);
    assert_eq!(with("replcore_node_live{"), 3);
    for name in ["queue-49", "queue-48", "queue-47"] {
        let series = format!("replcore_queue_messages{{queue=\"{name}\",kind=\"leaf\"}}");
        assert!(samples.contains_key(&series), "{name}");
    }
    assert_eq!(samples["replcore_queues{kind=\"leaf\"}"], 100.0);
    assert_eq!(samples["replcore_queues_waiting_messages{kind=\"leaf\"}"], 1275.0);
    assert_eq!(samples["replcore_series_left_out{of=\"queue\"}"], 97.0);
    assert_eq!(samples["replcore_series_left_out{of=\"node\"}"], 47.0);
}

#[tokio::test]
async fn a_name_with_quotes_cannot_break_the_format() {
    let site = Site::new();
    site.node.add_leaf("a\"b\\c\nd");
    let text = site.get("/metrics").await.text;
    assert!(text.contains(r#"replcore_node_live{node="a\"b\\c\nd"} 1"#), "{text}");
    check(&text);
}
