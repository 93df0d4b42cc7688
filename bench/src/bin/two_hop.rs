//! The load of `two_hop_floor` on replcore: producer, leaf, hub and consumer, a process each.
//!
//! ```text
//! producer -> leaf (sync, acknowledge) -> hub (sync, acknowledge) -> named consumer
//! ```
//!
//! `two_hop DIR sync|nosync BYTES MESSAGES WINDOW [RATE]`
//!
//! CPU and memory are those of the two nodes. `HOLD=1` leaves the nodes up at the end until
//! standard input is closed, so that a profiler can write its results.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use replcore::log::record::Message;
use replcore::stream::{CLASS_DEFAULT, Name};
use replcore_bench::{Load, Meter, age_ns, now_ns};
use replcore_runtime::client::{Client, ClientOptions, ConsumerOptions};
use replcore_runtime::options::{Address, Durability, NodeOptions, NodeRole, Peer};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = args.iter().map(String::as_str).collect();
    match &texts[..] {
        ["node", role, dir, mode, upstream @ ..] => node(role, Path::new(dir), mode, upstream),
        ["produce", address, ..] => on_one_thread(produce(address, load(&args[2..]))),
        ["consume", address, mode, ..] => on_one_thread(consume(address, mode, load(&args[3..]))),
        [dir, mode, ..] if args.len() > 4 => run(dir, mode, &args[2..]),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: two_hop DIR sync|nosync BYTES MESSAGES WINDOW [RATE]");
    std::process::exit(2);
}

fn load(args: &[String]) -> Load {
    Load::parse(args).unwrap_or_else(|| usage())
}

/// A child whose first line on standard output is awaited.
fn child(args: &[&str], pids: &str) -> (Child, String) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(args)
        .env("PIDS", pids)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    output.read_line(&mut line).expect("a line");
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::stdout()));
    (child, line.trim().to_owned())
}

fn run(dir: &str, mode: &str, load_args: &[String]) {
    let _ = load(load_args);
    let (mut hub, hub_at) = child(&["node", "hub", dir, mode], "");
    let (mut leaf, leaf_at) = child(&["node", "leaf", dir, mode, &hub_at], "");
    let pids = format!("{},{}", hub.id(), leaf.id());
    let load: Vec<&str> = load_args.iter().map(String::as_str).collect();
    let (mut consumer, _) = child(&[&["consume", &hub_at, mode][..], &load].concat(), &pids);
    let (mut producer, _) = child(&[&["produce", &leaf_at][..], &load].concat(), "");
    producer.wait().expect("the producer");
    consumer.wait().expect("the consumer");
    if std::env::var_os("HOLD").is_some() {
        eprintln!("hub {} leaf {}", hub.id(), leaf.id());
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    }
    for node in [&mut leaf, &mut hub] {
        drop(node.stdin.take());
        node.wait().expect("a node");
    }
}

fn node(role: &str, dir: &Path, mode: &str, upstream: &[&str]) {
    let name = Name::new(role).expect("hub or leaf");
    let folder = dir.join(role);
    let _ = std::fs::remove_dir_all(&folder);
    let kind = if role == "hub" { NodeRole::Hub } else { NodeRole::Leaf };
    let mut options = NodeOptions::new(name, kind, folder);
    options.listen = vec![Address::Tcp("127.0.0.1:0".into())];
    if mode == "nosync" {
        options.durability = Durability::Written;
    }
    if let [hub] = upstream {
        let hub = Peer { name: Name::new("hub").expect("a name"), address: hub.parse().unwrap() };
        options.upstreams = vec![hub];
    }
    let (_handle, running) = replcore_runtime::node::start(options).expect("a node");
    println!("{}", running.addresses()[0]);
    // Until the parent closes it or is gone.
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    running.stop();
    running.join();
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), work);
}

fn announce(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("standard output");
}

async fn produce(address: &str, load: Load) {
    let mut options = ClientOptions::new(Name::new("producer").unwrap(), address.parse().unwrap());
    options.window_messages = load.window as usize;
    let client = Client::open(options);
    client.connected().await.expect("the leaf");
    announce("ready");
    let mut body = load.body();
    let started = Instant::now();
    for sent in 0..load.messages {
        if load.rate > 0 {
            let wait = (started + load.due(sent)).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        body[..8].copy_from_slice(&now_ns().to_le_bytes());
        let message = Message { body: &body, ..Message::default() };
        client.post(&message, CLASS_DEFAULT).await.expect("a post");
    }
    client.flush().await.expect("the acknowledgements");
    client.close().await;
}

async fn consume(address: &str, mode: &str, load: Load) {
    let mut options = ClientOptions::new(Name::new("reader").unwrap(), address.parse().unwrap());
    options.consumer = Some(ConsumerOptions {
        name: Name::new("bench").unwrap(),
        message_type: String::new(),
        from_start: true,
    });
    let client = Client::open(options);
    client.connected().await.expect("the hub");
    // The subscription is on its way; with `from_start` nothing is missed.
    tokio::time::sleep(Duration::from_millis(100)).await;
    announce("ready");
    let mut meter = None;
    let mut latencies_ns = Vec::with_capacity(load.messages as usize);
    while (latencies_ns.len() as u64) < load.messages {
        let mut last = client.next().await.expect("a message");
        let meter = meter.get_or_insert_with(Meter::start_from_environment);
        let _ = meter;
        loop {
            latencies_ns.push(age_ns(last.record().expect("a sound record").body()));
            match client.try_next() {
                Some(next) => last = next,
                None => break,
            }
        }
        client.acknowledge(&last);
    }
    let synced = if mode == "sync" { "synced" } else { "not synced" };
    let what = format!("replcore, {synced}: {load}");
    let meter = meter.expect("something was read");
    meter.finish(what, load.messages, &mut latencies_ns).print();
    client.close().await;
}
