//! A leaf that comes back: how fast its backlog drains, beside the rate of fresh messages on the same
//! way, and how long live messages of a higher class take past it.
//!
//! `drain DIR REPLCORE HUB_PORT LEAF_PORT MESSAGES` runs the program REPLCORE as hub and leaf. Messages
//! of 128 bytes and class 3 are posted at the hub and read at the leaf by a named consumer: first
//! with the leaf there, then after it was away for all of them, with 200 live messages a second of
//! class 1 beside them.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use replcore::log::record::Message;
use replcore::stream::Name;
use replcore_bench::{Load, Sample, age_ns};
use replcore_runtime::api::{Reply, Request};
use replcore_runtime::client::{Client, ClientOptions, ConsumerOptions};

const BULK: u8 = 3;
const LIVE: u8 = 1;
const LIVE_EVERY: Duration = Duration::from_millis(5);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, program, hub_port, leaf_port, messages] = &args[..] else {
        eprintln!("usage: drain DIR REPLCORE HUB_PORT LEAF_PORT MESSAGES");
        std::process::exit(2);
    };
    let site = Site {
        dir: dir.clone(),
        program: program.clone(),
        hub: format!("127.0.0.1:{hub_port}"),
        leaf: format!("127.0.0.1:{leaf_port}"),
    };
    let messages = messages.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(&site, messages))
}

struct Site {
    dir: String,
    program: String,
    hub: String,
    leaf: String,
}

/// A process that ends with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    fn start(&self, args: &[&str], listen: &str, data: &str) -> Outcome<Process> {
        let data = format!("{}/{data}", self.dir);
        let child = Command::new(&self.program)
            .args(args)
            .args(["--listen", listen, "--data", &data])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Process(child))
    }

    fn start_leaf(&self) -> Outcome<Process> {
        let broker = format!("hub@{}", self.hub);
        self.start(&["leaf", "drain-leaf", "--broker", &broker], &self.leaf, "leaf")
    }

    fn client(&self, name: &str, at: &str, reads: bool) -> Outcome<Client> {
        let name = Name::new(name)?;
        let mut options = ClientOptions::new(name, at.parse()?);
        options.consumer =
            reads.then(|| ConsumerOptions { name, message_type: String::new(), from_start: false });
        Ok(Client::open(options))
    }
}

/// What the consumer has read.
#[derive(Default)]
struct Read {
    bulk: Cell<u64>,
    first_at: Cell<Option<Instant>>,
    live_ns: RefCell<Vec<u64>>,
}

async fn run(site: &Site, messages: u64) -> Outcome<()> {
    let hub_process = site.start(&["hub"], &site.hub, "hub")?;
    let leaf_process = site.start_leaf()?;
    let reader = site.client("drain-reader", &site.leaf, true)?;
    wait_until("the consumer", async || {
        let reply = reader.call(&Request::Consumers, Duration::from_secs(1)).await;
        matches!(reply, Ok(Reply::Consumers { consumers }) if !consumers.is_empty())
    })
    .await?;
    let poster = site.client("drain-poster", &site.hub, false)?;
    wait_until("the leaf", async || {
        let request = Request::Nodes { after: None, limit: None };
        let reply = poster.call(&request, Duration::from_secs(1)).await;
        matches!(reply, Ok(Reply::Nodes { nodes, .. }) if nodes.iter().any(|it| it.state == "live"))
    })
    .await?;

    let read = Rc::new(Read::default());
    let reading = read.clone();
    tokio::task::spawn_local(async move {
        while let Ok(delivery) = reader.next().await {
            if let Ok(record) = delivery.record() {
                if record.id().class == BULK {
                    reading.bulk.set(reading.bulk.get() + 1);
                    reading.first_at.set(reading.first_at.get().or(Some(Instant::now())));
                } else if reading.first_at.get().is_some() {
                    reading.live_ns.borrow_mut().push(age_ns(record.body()));
                }
            }
            reader.acknowledge(&delivery);
        }
    });

    let started = Instant::now();
    post_bulk(&poster, messages).await?;
    wait_until("fresh messages", async || read.bulk.get() >= messages).await?;
    let fresh = messages as f64 / started.elapsed().as_secs_f64();

    drop(leaf_process);
    post_bulk(&poster, messages).await?;
    read.bulk.set(0);
    read.first_at.set(None);
    let _leaf_process = site.start_leaf()?;
    let mut body = Load { bytes: 128, messages: 0, window: 0, rate: 0 }.body();
    while read.bulk.get() < messages {
        Load::restamp(&mut body);
        poster.post(&Message { body: &body, ..Message::default() }, LIVE).await?;
        tokio::time::sleep(LIVE_EVERY).await;
    }
    let first_at = read.first_at.get().ok_or("nothing was read")?;
    let drained = messages as f64 / first_at.elapsed().as_secs_f64();
    let mut live_ns = read.live_ns.borrow_mut();
    Sample::new(format!("replcore: drain of {messages} messages, 128 B"))
        .figure("fresh_messages_per_s", fresh)
        .figure("drained_messages_per_s", drained)
        .figure("drained_to_fresh", drained / fresh)
        .latencies(&mut live_ns)
        .print();
    drop(hub_process);
    Ok(())
}

async fn post_bulk(poster: &Client, messages: u64) -> Outcome<()> {
    let body = [7; 128];
    for _ in 0..messages {
        poster.post(&Message { body: &body, ..Message::default() }, BULK).await?;
    }
    poster.flush().await?;
    Ok(())
}

async fn wait_until(what: &str, mut done: impl AsyncFnMut() -> bool) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done().await {
        if Instant::now() > deadline {
            return Err(format!("not in time: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
