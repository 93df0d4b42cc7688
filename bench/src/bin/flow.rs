//! A producer and a consumer of replcore's own binary protocol, for measuring two hops.
//!
//! ```text
//! flow consume ADDRESS CONSUMER LOAD    reads as a new consumer, prints `ready`, then the result
//! flow produce ADDRESS CLASS LOAD       posts; ends when everything is acknowledged
//!                                       LOAD is BYTES MESSAGES WINDOW [RATE]
//! ```
//!
//! `PIDS` names the nodes whose CPU and memory count, `NAME` is put in front of the result's name.

use std::error::Error;
use std::time::{Duration, Instant};

use replcore::log::record::Message;
use replcore::stream::Name;
use replcore_bench::{Load, Meter, age_ns};
use replcore_runtime::client::{Client, ClientOptions, ConsumerOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, address, extra, load @ ..] = &args[..] else { usage() };
    let Some(load) = Load::parse(load) else { usage() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match what.as_str() {
        "consume" => local.block_on(&runtime, consume(address, extra, load)),
        "produce" => local.block_on(&runtime, produce(address, extra.parse()?, load)),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!(
        "usage: flow consume ADDRESS CONSUMER | produce ADDRESS CLASS  BYTES MESSAGES WINDOW [RATE]"
    );
    std::process::exit(2);
}

async fn consume(address: &str, consumer: &str, load: Load) -> Result<(), Box<dyn Error>> {
    let name = Name::new(consumer)?;
    let mut options = ClientOptions::new(name, address.parse()?);
    let message_type = String::new();
    options.consumer = Some(ConsumerOptions { name, message_type, from_start: false });
    let client = Client::open(options);
    client.connected().await?;
    // Subscribing has no answer of its own; the consumer is in the list once it is made.
    loop {
        let request = replcore_runtime::api::Request::Consumers;
        let reply = client.call(&request, Duration::from_secs(5)).await;
        match reply.map_err(|error| error.to_string())? {
            replcore_runtime::api::Reply::Consumers { consumers }
                if consumers.iter().any(|one| one.name == consumer) =>
            {
                break;
            }
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    println!("ready");
    let mut latencies_ns = Vec::with_capacity(load.messages as usize);
    let mut meter = Meter::start_from_environment();
    while (latencies_ns.len() as u64) < load.messages {
        let delivery = client.next().await?;
        let age = age_ns(delivery.record()?.body());
        if latencies_ns.is_empty() {
            meter.started_before(age);
        }
        latencies_ns.push(age);
        client.acknowledge(&delivery);
    }
    let name = std::env::var("NAME").unwrap_or_default();
    meter.finish(format!("replcore{name}: {load}"), load.messages, &mut latencies_ns).print();
    client.close().await;
    Ok(())
}

async fn produce(address: &str, class: u8, load: Load) -> Result<(), Box<dyn Error>> {
    let name = Name::new(&format!("producer-{}", std::process::id()))?;
    let mut options = ClientOptions::new(name, address.parse()?);
    options.window_messages = load.window as usize;
    let client = Client::open(options);
    client.connected().await?;
    let started = Instant::now();
    let mut body = load.body();
    for index in 0..load.messages {
        let due = started + load.due(index);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        Load::restamp(&mut body);
        client.post(&Message { body: &body, ..Message::default() }, class).await?;
    }
    client.flush().await?;
    client.close().await;
    Ok(())
}
