//! The load of `two_hop_floor` on systems that people would use otherwise: a leaf server, a hub
//! server, a consumer at the hub that acknowledges.
//!
//! ```text
//! peers nats LEAF_URL HUB_URL LOAD      a JetStream stream at the leaf, its mirror at the hub
//! peers mqtt LEAF_PORT HUB_PORT LOAD    QoS 1 over a bridge
//! peers redis LEAF_PORT HUB_PORT LOAD   streams, with a forwarder between the servers
//!                                       LOAD is BYTES MESSAGES WINDOW [RATE]
//! ```
//!
//! Redis has no window: it gets that many commands a round trip, at most 100. `PIDS` names the
//! servers whose CPU and memory count. `NAME` is put in front of the result's name.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use replcore_bench::{Load, Meter, age_ns};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, leaf, hub, load @ ..] = &args[..] else { usage() };
    let Some(load) = Load::parse(load) else { usage() };
    match kind.as_str() {
        "nats" => nats(leaf, hub, load).await,
        "mqtt" => mqtt(leaf, hub, load).await,
        "redis" => {
            let (leaf, hub) = (leaf.clone(), hub.clone());
            tokio::task::spawn_blocking(move || redis(&leaf, &hub, load)).await.expect("redis");
        }
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: peers nats|mqtt|redis LEAF HUB BYTES MESSAGES WINDOW [RATE]");
    std::process::exit(2);
}

fn name(system: &str, load: &Load) -> String {
    let name = std::env::var("NAME").unwrap_or_default();
    format!("{system}{name}: {load}")
}

async fn wait_until(due: Instant) {
    if due > Instant::now() {
        tokio::time::sleep_until(due.into()).await;
    }
}

async fn nats(leaf_url: &str, hub_url: &str, load: Load) {
    use async_nats::jetstream::{self, consumer, stream};
    let leaf = jetstream::with_domain(async_nats::connect(leaf_url).await.expect("leaf"), "leaf");
    let hub = jetstream::with_domain(async_nats::connect(hub_url).await.expect("hub"), "hub");
    let _ = leaf.delete_stream("OUT").await;
    let _ = hub.delete_stream("IN").await;
    let storage = stream::StorageType::File;
    let out = stream::Config {
        name: "OUT".into(),
        subjects: vec!["out.>".into()],
        storage,
        ..Default::default()
    };
    leaf.create_stream(out).await.expect("a stream at the leaf");
    let source =
        stream::Source { name: "OUT".into(), domain: Some("leaf".into()), ..Default::default() };
    let mirror =
        stream::Config { name: "IN".into(), storage, mirror: Some(source), ..Default::default() };
    let mirror = hub.create_stream(mirror).await.expect("a mirror at the hub");
    let pull = consumer::pull::Config {
        durable_name: Some("reader".into()),
        ack_policy: consumer::AckPolicy::Explicit,
        max_ack_pending: 20_000,
        ..Default::default()
    };
    let reader = mirror.create_consumer(pull).await.expect("a consumer");
    // The mirror has no event that says it follows; the first message shows it.
    leaf.publish("out.first", "".into()).await.expect("published").await.expect("stored");
    let mut messages = reader.stream().max_messages_per_batch(1_000).messages().await.unwrap();
    messages.next().await.unwrap().unwrap().ack().await.unwrap();

    let meter = Meter::start_from_environment();
    let reader = tokio::spawn(async move {
        let mut latencies_ns = Vec::with_capacity(load.messages as usize);
        while (latencies_ns.len() as u64) < load.messages {
            let message = messages.next().await.unwrap().unwrap();
            latencies_ns.push(age_ns(&message.payload));
            message.ack().await.unwrap();
        }
        latencies_ns
    });
    let (started, mut waiting) = (Instant::now(), VecDeque::new());
    for index in 0..load.messages {
        wait_until(started + load.due(index)).await;
        waiting.push_back(leaf.publish("out.x", load.body().into()).await.unwrap());
        if waiting.len() as u64 >= load.window {
            waiting.pop_front().unwrap().await.unwrap();
        }
    }
    for acknowledgement in waiting {
        acknowledgement.await.unwrap();
    }
    let mut latencies_ns = reader.await.unwrap();
    meter.finish(name("NATS, not synced", &load), load.messages, &mut latencies_ns).print();
    let _ = hub.delete_stream("IN").await;
    let _ = leaf.delete_stream("OUT").await;
}

async fn mqtt(leaf_port: &str, hub_port: &str, load: Load) {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let options = |id: &str, port: &str| {
        let mut options = MqttOptions::new(id, "127.0.0.1", port.parse().expect("a port"));
        options.set_inflight(load.window.min(60_000) as u16);
        options.set_clean_session(true).set_keep_alive(Duration::from_secs(30));
        options
    };
    let (subscriber, mut arriving) = AsyncClient::new(options("reader", hub_port), 1_000);
    subscriber.subscribe("q/x", QoS::AtLeastOnce).await.unwrap();
    while !matches!(arriving.poll().await, Ok(Event::Incoming(Packet::SubAck(_)))) {}
    let (publisher, mut leaving) = AsyncClient::new(options("writer", leaf_port), 1_000);
    tokio::spawn(async move { while leaving.poll().await.is_ok() {} });

    let meter = Meter::start_from_environment();
    let reader = tokio::spawn(async move {
        let mut latencies_ns = Vec::with_capacity(load.messages as usize);
        while (latencies_ns.len() as u64) < load.messages {
            let event = tokio::time::timeout(Duration::from_secs(10), arriving.poll()).await;
            match event.expect("the bridge stalls").expect("the hub") {
                Event::Incoming(Packet::Publish(message)) => {
                    latencies_ns.push(age_ns(&message.payload));
                }
                _ => {}
            }
        }
        latencies_ns
    });
    let started = Instant::now();
    for index in 0..load.messages {
        wait_until(started + load.due(index)).await;
        publisher.publish("q/x", QoS::AtLeastOnce, false, load.body()).await.unwrap();
    }
    let mut latencies_ns = reader.await.unwrap();
    meter.finish(name("Mosquitto", &load), load.messages, &mut latencies_ns).print();
}

/// Ids and bodies of one read.
type Batch = Vec<(String, Vec<u8>)>;

struct Stream {
    connection: redis::Connection,
    key: &'static str,
}

impl Stream {
    fn new(port: &str, key: &'static str) -> Self {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).expect("an address");
        let mut connection = client.get_connection().expect("a Redis server");
        redis::cmd("DEL").arg(key).exec(&mut connection).unwrap();
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg(key).arg("g").arg("$").arg("MKSTREAM");
        group.exec(&mut connection).unwrap();
        Self { connection, key }
    }

    fn again(port: &str, key: &'static str) -> Self {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).expect("an address");
        Self { connection: client.get_connection().expect("a Redis server"), key }
    }

    fn add<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) {
        let mut pipe = redis::pipe();
        for body in bodies {
            pipe.cmd("XADD").arg(self.key).arg("*").arg("d").arg(body).ignore();
        }
        pipe.exec(&mut self.connection).unwrap();
    }

    fn read(&mut self) -> Batch {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("g").arg("c").arg("COUNT").arg(500).arg("BLOCK").arg(2_000);
        read.arg("STREAMS").arg(self.key).arg(">");
        let reply: Option<redis::streams::StreamReadReply> =
            read.query(&mut self.connection).unwrap();
        let ids = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        ids.map(|entry| {
            let body = entry.get("d").expect("the body");
            (entry.id, body)
        })
        .collect()
    }

    fn done(&mut self, batch: &Batch) {
        let (mut ack, mut delete) = (redis::cmd("XACK"), redis::cmd("XDEL"));
        ack.arg(self.key).arg("g");
        delete.arg(self.key);
        for (id, _) in batch {
            ack.arg(id);
            delete.arg(id);
        }
        redis::pipe().add_command(ack).add_command(delete).exec(&mut self.connection).unwrap();
    }
}

fn redis(leaf_port: &str, hub_port: &str, load: Load) {
    let (mut leaf, mut hub) = (Stream::new(leaf_port, "out"), Stream::new(hub_port, "in"));
    let (mut from, mut to) = (Stream::again(leaf_port, "out"), Stream::again(hub_port, "in"));
    let meter = Meter::start_from_environment();
    let forwarder = thread::spawn(move || {
        let mut forwarded = 0;
        while forwarded < load.messages {
            let batch = from.read();
            if !batch.is_empty() {
                to.add(batch.iter().map(|(_, body)| &body[..]));
                from.done(&batch);
                forwarded += batch.len() as u64;
            }
        }
    });
    let reader = thread::spawn(move || {
        let mut latencies_ns = Vec::with_capacity(load.messages as usize);
        while (latencies_ns.len() as u64) < load.messages {
            let batch = hub.read();
            if !batch.is_empty() {
                latencies_ns.extend(batch.iter().map(|(_, body)| age_ns(body)));
                hub.done(&batch);
            }
        }
        latencies_ns
    });
    let pipe = if load.rate > 0 { 1 } else { load.window.min(100) };
    let started = Instant::now();
    for first in (0..load.messages).step_by(pipe as usize) {
        thread::sleep((started + load.due(first)).saturating_duration_since(Instant::now()));
        let bodies: Vec<Vec<u8>> =
            (first..(first + pipe).min(load.messages)).map(|_| load.body()).collect();
        leaf.add(bodies.iter().map(|body| &body[..]));
    }
    forwarder.join().unwrap();
    let mut latencies_ns = reader.join().unwrap();
    meter.finish(name("Redis streams", &load), load.messages, &mut latencies_ns).print();
}
