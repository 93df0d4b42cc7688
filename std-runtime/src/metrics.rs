//! Metrics in the OpenMetrics text format, for Prometheus and what reads the same.
//!
//! They are made from one look at the node: its status, queues, leaves and consumers. A counter
//! `x` of [`Status::counters`] is `replcore_x_total`, one that ends with `_microseconds` is in
//! seconds. Queues, leaves and consumers have series of
//! their own, labelled by name, for at most `series_max` of each: those with most messages waiting,
//! ties by name. The sums without a name always cover all, and `replcore_series_left_out` tells how
//! many have none of their own. Waiting times are ages of the oldest message.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::api::{
    ApiError, ConsumerStatus, NodeStatus, QueueStatus, Reply, Request, StandbyStatus, Status,
};
use crate::handle::NodeHandle;
use crate::http::HttpCounters;

/// The media type of the metrics.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Queues or leaves asked of the node at a time.
const PAGE: u32 = 1000;
/// Pages asked for at most, so that a look is bounded: a million queues.
const PAGES_MAX: usize = 1000;

/// Counters that every node has (HS-35), and what they count. They are there from the start.
const KNOWN: &[(&str, &str)] = &[
    ("registered", "Registrations of leaves that were granted"),
    ("expired", "Leases of leaves that ended"),
    ("fetched", "Messages taken from leaves"),
    ("stored", "Messages stored"),
    ("dispatched", "Messages put into queues"),
    ("delivered", "Messages delivered and acknowledged"),
    ("retried", "Messages sent again"),
    ("dropped", "Messages dropped at a limit"),
];

/// Sums over all queues of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct QueueSum {
    queues: u64,
    messages: u64,
    bytes: u64,
    oldest_ms: u64,
}

/// One look at a node.
#[derive(Debug, Default)]
pub struct Snapshot {
    status: Status,
    queue_sums: BTreeMap<String, QueueSum>,
    queues: Vec<QueueStatus>,
    node_states: BTreeMap<String, u64>,
    nodes: Vec<NodeStatus>,
    consumers: Vec<ConsumerStatus>,
    /// How many queues, nodes and consumers have no series of their own.
    left_out: [u64; 3],
    http: Vec<Sample>,
}

/// Takes a look at `node`, keeping at most `series_max` queues, leaves and consumers by name.
///
/// # Errors
/// What the node answers.
pub async fn snapshot(node: &NodeHandle, series_max: usize) -> Result<Snapshot, ApiError> {
    let mut snapshot = Snapshot::default();
    if let Reply::Status(status) = node.call(Request::Status).await? {
        snapshot.status = *status;
    }
    if let Reply::Consumers { consumers } = node.call(Request::Consumers).await? {
        snapshot.consumers = consumers;
        snapshot.left_out[2] =
            keep_deepest(&mut snapshot.consumers, series_max, |it| (it.messages, &it.name));
    }
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let reply = node.call(Request::Queues { after: after.take(), limit: Some(PAGE) }).await?;
        let Reply::Queues { queues, more } = reply else { break };
        let last = queues.last().map(|queue| queue.name.clone());
        snapshot.add_queues(queues, series_max);
        if !more || last.is_none() {
            break;
        }
        after = last;
    }
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let reply = node.call(Request::Nodes { after: after.take(), limit: Some(PAGE) }).await?;
        let Reply::Nodes { nodes, more } = reply else { break };
        let last = nodes.last().map(|node| node.name.clone());
        snapshot.add_nodes(nodes, series_max);
        if !more || last.is_none() {
            break;
        }
        after = last;
    }
    Ok(snapshot)
}

impl Snapshot {
    fn add_queues(&mut self, queues: Vec<QueueStatus>, series_max: usize) {
        for queue in &queues {
            let sum = self.queue_sums.entry(queue.kind.clone()).or_default();
            sum.queues += 1;
            sum.messages += queue.messages;
            sum.bytes += queue.bytes;
            sum.oldest_ms = sum.oldest_ms.max(queue.oldest_ms);
        }
        self.queues.extend(queues);
        self.left_out[0] +=
            keep_deepest(&mut self.queues, series_max, |it| (it.messages, &it.name));
    }

    fn add_nodes(&mut self, nodes: Vec<NodeStatus>, series_max: usize) {
        for node in &nodes {
            *self.node_states.entry(node.state.clone()).or_default() += 1;
        }
        self.nodes.extend(nodes);
        self.left_out[1] += keep_deepest(&mut self.nodes, series_max, |it| (it.queued, &it.name));
    }

    /// Adds what the HTTP interface counts about itself.
    pub(crate) fn with_http(mut self, http: &HttpCounters) -> Self {
        self.http = http_samples(http);
        self
    }

    /// The metrics as OpenMetrics text.
    pub fn text(self) -> String {
        text(self.samples())
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = self.status_samples();
        self.queue_samples(&mut samples);
        self.node_samples(&mut samples);
        self.consumer_samples(&mut samples);
        for (of, count) in ["queue", "node", "consumer"].into_iter().zip(self.left_out) {
            samples.push(Sample::new(
                "replcore_series_left_out",
                "Queues, nodes and consumers without series of their own",
                Value::Gauge(count as f64),
                [("of", of.into())],
            ));
        }
        samples.extend(self.http.iter().cloned());
        samples
    }

    fn status_samples(&self) -> Vec<Sample> {
        let status = &self.status;
        let mut samples = vec![Sample::new(
            "replcore_node_info",
            "The node; always 1",
            Value::Gauge(1.0),
            [
                ("name", status.name.clone()),
                ("role", status.role.clone()),
                ("version", status.version.clone()),
            ],
        )];
        let plain = [
            ("replcore_uptime_seconds", "Time since the start", seconds(status.uptime_ms)),
            (
                "replcore_ready",
                "1 when all upstreams are connected and registered, or links are taken",
                f64::from(u8::from(status.ready)),
            ),
            ("replcore_log_epoch", "The life of the log", f64::from(status.epoch)),
            ("replcore_log_size_bytes", "Bytes of the log on disk", status.log_bytes as f64),
            ("replcore_log_first_ordinal", "First ordinal held", status.ordinals[0] as f64),
            ("replcore_log_next_ordinal", "Next ordinal to be given", status.ordinals[1] as f64),
            ("replcore_links", "Links open", status.links as f64),
        ];
        for (name, help, value) in plain {
            samples.push(Sample::new(name, help, Value::Gauge(value), []));
        }
        for (upstream, state) in &status.upstreams {
            samples.push(Sample::new(
                "replcore_upstream_registered",
                "1 when this node is registered at the upstream",
                Value::Gauge(f64::from(u8::from(state == "registered"))),
                [("upstream", upstream.clone())],
            ));
        }
        self.standby_samples(&mut samples);
        for (name, help) in KNOWN {
            let count = status.counters.get(*name).copied().unwrap_or(0);
            let name = format!("replcore_{name}");
            samples.push(Sample::new(&name, help, Value::Counter(count), []));
        }
        for (name, count) in &status.counters {
            let (name, value) = counter(name, *count);
            if !KNOWN.iter().any(|(known, _)| *known == name) {
                let help = format!("Counter {name} of the node");
                samples.push(Sample::new(&format!("replcore_{name}"), &help, value, []));
            }
        }
        samples
    }

    /// How the hubs are that stand by for this one.
    fn standby_samples(&self, samples: &mut Vec<Sample>) {
        type Figure = (&'static str, &'static str, fn(&StandbyStatus) -> u64);
        const FIGURES: [Figure; 3] = [
            ("batches", "Batches that are not safe at the standby", |it| it.lag_batches),
            ("records", "Records that are not safe at the standby", |it| it.lag_records),
            ("bytes", "Bytes of the log that are not safe at the standby", |it| it.lag_bytes),
        ];
        if self.status.role == "standby" {
            return;
        }
        for (unit, help, figure) in FIGURES {
            for (standby, status) in &self.status.standbys {
                let name = format!("replcore_standby_lag_{unit}");
                let labels = [("standby", standby.clone())];
                samples.push(Sample::new(&name, help, gauge(figure(status)), labels));
            }
        }
        for (standby, status) in &self.status.standbys {
            for state in ["following", "copying", "disconnected"] {
                samples.push(Sample::new(
                    "replcore_standby_state",
                    "1 for what the standby does",
                    gauge((status.state == state).into()),
                    [("standby", standby.clone()), ("state", state.to_owned())],
                ));
            }
        }
    }

    fn queue_samples(&self, samples: &mut Vec<Sample>) {
        let all = [
            ("replcore_queues", "Queues", 0),
            ("replcore_queues_waiting_messages", "Messages in all queues of a kind", 1),
            ("replcore_queues_waiting_bytes", "Bytes in all queues of a kind", 2),
            ("replcore_queues_oldest_seconds", "Age of the oldest message of a kind", 3),
        ];
        for (name, help, field) in all {
            for (kind, sum) in &self.queue_sums {
                let value = [
                    sum.queues as f64,
                    sum.messages as f64,
                    sum.bytes as f64,
                    seconds(sum.oldest_ms),
                ][field];
                samples.push(Sample::new(
                    name,
                    help,
                    Value::Gauge(value),
                    [("kind", kind.clone())],
                ));
            }
        }
        type Read = fn(&QueueStatus) -> Value;
        let each: [(&str, &str, Read); 8] = [
            ("replcore_queue_messages", "Messages in the queue", |it| gauge(it.messages)),
            ("replcore_queue_bytes", "Bytes in the queue", |it| gauge(it.bytes)),
            ("replcore_queue_oldest_seconds", "Age of the oldest message in the queue", |it| {
                Value::Gauge(seconds(it.oldest_ms))
            }),
            ("replcore_queue_connected", "1 when the reader of the queue is connected", |it| {
                gauge(it.connected.into())
            }),
            ("replcore_queue_appended", "Messages put into the queue", |it| {
                Value::Counter(it.appended_total)
            }),
            ("replcore_queue_acknowledged", "Messages of the queue acknowledged", |it| {
                Value::Counter(it.acknowledged_total)
            }),
            ("replcore_queue_dropped", "Messages of the queue dropped at a limit", |it| {
                Value::Counter(it.dropped_total)
            }),
            ("replcore_queue_expired", "Messages whose time to live ended in the queue", |it| {
                Value::Counter(it.expired_total)
            }),
        ];
        for (name, help, read) in each {
            for queue in &self.queues {
                let labels = [("queue", queue.name.clone()), ("kind", queue.kind.clone())];
                samples.push(Sample::new(name, help, read(queue), labels));
            }
        }
    }

    fn node_samples(&self, samples: &mut Vec<Sample>) {
        for (state, count) in &self.node_states {
            samples.push(Sample::new(
                "replcore_nodes",
                "Registered leaves by state",
                gauge(*count),
                [("state", state.clone())],
            ));
        }
        type Read = fn(&NodeStatus) -> Value;
        let each: [(&str, &str, Read); 6] = [
            ("replcore_node_live", "1 when the leaf is live", |it| {
                gauge((it.state == "live").into())
            }),
            ("replcore_node_lease_left_seconds", "What is left of the lease", |it| {
                Value::Gauge(seconds(it.lease_left_ms))
            }),
            ("replcore_node_round_trip_seconds", "Round trip of the last ping", |it| {
                Value::Gauge(it.round_trip_us as f64 / 1e6)
            }),
            ("replcore_node_queued_messages", "Messages waiting for the leaf", |it| {
                gauge(it.queued)
            }),
            ("replcore_node_delivered", "Messages delivered to the leaf", |it| {
                Value::Counter(it.delivered_total)
            }),
            ("replcore_node_fetched", "Messages taken from the leaf", |it| {
                Value::Counter(it.fetched_total)
            }),
        ];
        for (name, help, read) in each {
            for node in &self.nodes {
                let labels = [("node", node.name.clone())];
                samples.push(Sample::new(name, help, read(node), labels));
            }
        }
    }

    fn consumer_samples(&self, samples: &mut Vec<Sample>) {
        type Read = fn(&ConsumerStatus) -> Value;
        let each: [(&str, &str, Read); 5] = [
            ("replcore_consumer_messages", "Messages not yet acknowledged", |it| {
                gauge(it.messages)
            }),
            ("replcore_consumer_outstanding_messages", "Messages delivered, not settled", |it| {
                gauge(it.outstanding)
            }),
            ("replcore_consumer_connected", "1 when a client is connected", |it| {
                gauge(it.connected.into())
            }),
            ("replcore_consumer_redelivered", "Messages delivered again", |it| {
                Value::Counter(it.redelivered_total)
            }),
            ("replcore_consumer_dead", "Messages moved to the dead letters", |it| {
                Value::Counter(it.dead_total)
            }),
        ];
        for (name, help, read) in each {
            for consumer in &self.consumers {
                let labels = [("consumer", consumer.name.clone())];
                samples.push(Sample::new(name, help, read(consumer), labels));
            }
        }
    }
}

/// What the HTTP interface counts about itself.
pub(crate) fn http_samples(http: &HttpCounters) -> Vec<Sample> {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut samples = Vec::new();
    for (class, counter) in http.requests.iter().enumerate().skip(1) {
        samples.push(Sample::new(
            "replcore_http_requests",
            "Requests answered over HTTP, by class of status",
            Value::Counter(read(counter)),
            [("code", format!("{class}xx"))],
        ));
    }
    let plain = [
        (
            "replcore_http_connections",
            "Connections open over HTTP",
            Value::Gauge(read(&http.connections) as f64),
        ),
        (
            "replcore_http_handshakes_failed",
            "TLS handshakes over HTTP that failed",
            Value::Counter(read(&http.handshakes_failed)),
        ),
        (
            "replcore_http_waits_refused",
            "Requests refused over HTTP because too many waited",
            Value::Counter(read(&http.waits_refused)),
        ),
    ];
    for (name, help, value) in plain {
        samples.push(Sample::new(name, help, value, []));
    }
    samples
}

/// Samples as OpenMetrics text; those of one metric have to be next to each other.
pub(crate) fn text(samples: Vec<Sample>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Samples(samples)));
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// Keeps the `count` deepest of `items`, ties by name, and tells how many went.
fn keep_deepest<T>(items: &mut Vec<T>, count: usize, depth: fn(&T) -> (u64, &String)) -> u64 {
    items.sort_by(|a, b| {
        let ((depth_a, name_a), (depth_b, name_b)) = (depth(a), depth(b));
        depth_b.cmp(&depth_a).then_with(|| name_a.cmp(name_b))
    });
    let gone = items.len().saturating_sub(count);
    items.truncate(count);
    gone as u64
}

/// A counter of the node as a part of a metric's name, and its value: without `_total`, which the
/// format adds, in seconds where it counts microseconds, and with nothing else than letters, digits
/// and underscores.
pub(crate) fn counter(name: &str, count: u64) -> (String, Value) {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match name.strip_suffix("_microseconds") {
        Some(start) => (format!("{start}_seconds"), Value::Seconds(count as f64 / 1e6)),
        None => (name, Value::Counter(count)),
    }
}

pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn gauge(value: u64) -> Value {
    Value::Gauge(value as f64)
}

/// What a sample says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Counter(u64),
    /// A counter of time.
    Seconds(f64),
    Gauge(f64),
}

impl Value {
    fn encode(self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Counter(value) => ConstCounter::new(value).encode(encoder),
            Self::Seconds(value) => ConstCounter::new(value).encode(encoder),
            Self::Gauge(value) => ConstGauge::new(value).encode(encoder),
        }
    }
}

/// One line of the text; lines of one metric are next to each other.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    name: String,
    help: String,
    value: Value,
    labels: Vec<(&'static str, String)>,
}

impl Sample {
    pub(crate) fn new<const N: usize>(
        name: &str,
        help: &str,
        value: Value,
        labels: [(&'static str, String); N],
    ) -> Self {
        Self { name: name.into(), help: help.into(), value, labels: labels.into() }
    }
}

#[derive(Debug)]
struct Samples(Vec<Sample>);

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.chunk_by(|a, b| a.name == b.name) {
            let head = &family[0];
            let kind = match head.value {
                Value::Counter(_) | Value::Seconds(_) => MetricType::Counter,
                Value::Gauge(_) => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(&head.name, &head.help, None, kind)?;
            if head.labels.is_empty() {
                head.value.encode(metric)?;
                continue;
            }
            for sample in family {
                sample.value.encode(metric.encode_family(&sample.labels)?)?;
            }
        }
        Ok(())
    }
}
