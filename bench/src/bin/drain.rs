//! A leaf that comes back: how fast its backlog drains, beside the rate of fresh messages on the same
//! way, and how long live messages of a higher class take past it.
//!
//! `drain DIR REPLCORE HUB_PORT LEAF_PORT MESSAGES` runs the program REPLCORE as hub and leaf. Messages
//! of 128 bytes and class 3 are posted at the hub and read at the leaf by a named consumer: first
//! with the leaf there, then after it was away for all of them, with 200 live messages a second of
//! class 1 beside them, posted by a thread of their own. The drain counts from when the leaf says
//! that it has registered again.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use replcore::log::record::Message;
use replcore::stream::Name;
use replcore_bench::{Load, Sample, age_ns, memory_mib, now_ns};
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
struct Process {
    child: Child,
    /// When it last said that it has registered, by [`now_ns`]; 0 before.
    registered_ns: Arc<AtomicU64>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    fn start(&self, args: &[&str], listen: &str, data: &str) -> Outcome<Process> {
        let data = format!("{}/{data}", self.dir);
        let mut child = Command::new(&self.program)
            .args(args)
            .args(["--listen", listen, "--data", &data])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let registered_ns = Arc::new(AtomicU64::new(0));
        let (said, log) = (registered_ns.clone(), child.stderr.take().ok_or("no log")?);
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains(" registered upstream=") {
                    said.store(now_ns(), Ordering::SeqCst);
                }
            }
        });
        Ok(Process { child, registered_ns })
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
    last_ns: Cell<u64>,
    /// When live messages were posted, and how long they took.
    live_ns: RefCell<Vec<(u64, u64)>>,
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
    let reading = tokio::task::spawn_local(read_all(reader, read.clone(), messages));

    let started = Instant::now();
    post_bulk(&poster, messages).await?;
    wait_until("fresh messages", async || read.bulk.get() >= messages).await?;
    let fresh = messages as f64 / started.elapsed().as_secs_f64();

    // What was acknowledged is safe at the leaf: nothing of the first part is read again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    reading.abort();
    drop(leaf_process);
    post_bulk(&poster, messages).await?;
    drop(poster);
    read.bulk.set(0);
    let over = Arc::new(AtomicBool::new(false));
    let live = std::thread::spawn({
        let (hub, over) = (site.hub.clone(), over.clone());
        move || post_live(&hub, &over).map_err(|error| error.to_string())
    });
    let leaf_process = site.start_leaf()?;
    let registered_ns = || leaf_process.registered_ns.load(Ordering::SeqCst);
    wait_until("the registration", async || registered_ns() > 0).await?;
    let reader = site.client("drain-reader", &site.leaf, true)?;
    let reading = tokio::task::spawn_local(read_all(reader, read.clone(), messages));
    wait_until("the backlog", async || read.bulk.get() >= messages).await?;
    over.store(true, Ordering::SeqCst);
    live.join().map_err(|_| "the poster of live messages died")??;
    reading.abort();
    let from_ns = registered_ns();
    let drained = messages as f64 / ((read.last_ns.get() - from_ns) as f64 / 1e9);
    let mut live_ns: Vec<u64> = read
        .live_ns
        .borrow()
        .iter()
        .filter(|(posted_ns, _)| (from_ns..read.last_ns.get()).contains(posted_ns))
        .map(|(_, age)| *age)
        .collect();
    Sample::new(format!("replcore: drain of {messages} messages, 128 B"))
        .figure("fresh_messages_per_s", fresh)
        .figure("drained_messages_per_s", drained)
        .figure("drained_to_fresh", drained / fresh)
        .figure("live_messages", live_ns.len() as f64)
        .figure("hub_peak_rss_mib", memory_mib(hub_process.child.id(), "VmHWM"))
        .figure("leaf_peak_rss_mib", memory_mib(leaf_process.child.id(), "VmHWM"))
        .latencies(&mut live_ns)
        .print();
    drop(hub_process);
    Ok(())
}

/// Reads and acknowledges; the bulk is complete with `messages` of it.
async fn read_all(reader: Client, read: Rc<Read>, messages: u64) {
    while let Ok(delivery) = reader.next().await {
        if let Ok(record) = delivery.record() {
            if record.id().class == BULK {
                read.bulk.set(read.bulk.get() + 1);
                if read.bulk.get() == messages {
                    read.last_ns.set(now_ns());
                }
            } else {
                let age = age_ns(record.body());
                read.live_ns.borrow_mut().push((now_ns() - age, age));
            }
        }
        reader.acknowledge(&delivery);
    }
}

/// Posts live messages until it is over.
fn post_live(hub: &str, over: &AtomicBool) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = ClientOptions::new(Name::new("drain-live")?, hub.parse()?);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let poster = Client::open(options);
        let mut body = Load { bytes: 128, messages: 0, window: 0, rate: 0 }.body();
        while !over.load(Ordering::SeqCst) {
            Load::restamp(&mut body);
            poster.post(&Message { body: &body, ..Message::default() }, LIVE).await?;
            tokio::time::sleep(LIVE_EVERY).await;
        }
        Ok(())
    })
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
