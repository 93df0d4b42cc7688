//! The floor of a durable queue over two hops: what is left when everything is taken away but
//! checksums, appends, syncs, acknowledgements and forwarding.
//!
//! ```text
//! producer -TCP-> leaf (check, append, sync, acknowledge) -TCP-> hub (the same) -TCP-> consumer
//! ```
//!
//! Four blocking threads over loopback, one read a turn, everything read is appended, synced and
//! acknowledged as one. No index, no recovery, no leases.
//!
//! `two_hop_floor DIR sync|nosync BYTES MESSAGES WINDOW [RATE]`

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use replcore_bench::{Load, Meter, age_ns};

/// Length and checksum in front of each message.
const HEAD_BYTES: usize = 8;
const BUFFER_BYTES: usize = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, mode, load @ ..] = &args[..] else { usage() };
    let Some(load) = Load::parse(load) else { usage() };
    run(Path::new(dir), &load, mode == "sync");
}

fn usage() -> ! {
    eprintln!("usage: two_hop_floor DIR sync|nosync BYTES MESSAGES WINDOW [RATE]");
    std::process::exit(2);
}

fn run(dir: &Path, load: &Load, sync: bool) {
    std::fs::create_dir_all(dir).expect("the folder");
    let (producer, leaf_in) = pair();
    let (leaf_out, hub_in) = pair();
    let (hub_out, consumer) = pair();
    let acknowledged = Arc::new(Acknowledged::default());
    // The leaf reads the hub's acknowledgements and has nothing to do with them.
    spawn_acknowledgements(&leaf_out, Arc::default());
    spawn_acknowledgements(&producer, acknowledged.clone());
    let (leaf_log, hub_log) = (dir.join("floor-leaf.log"), dir.join("floor-hub.log"));
    thread::spawn(move || hop(leaf_in, leaf_out, leaf_log, sync));
    thread::spawn(move || hop(hub_in, hub_out, hub_log, sync));

    let meter = Meter::start(vec![std::process::id()]);
    let messages = load.messages;
    let reader = thread::spawn(move || consume(consumer, messages));
    produce(producer, load, &acknowledged);
    let mut latencies_ns = reader.join().expect("the consumer");
    let synced = if sync { "synced" } else { "not synced" };
    meter.finish(format!("floor, {synced}: {load}"), messages, &mut latencies_ns).print();
}

#[derive(Default)]
struct Acknowledged {
    messages: Mutex<u64>,
    more: Condvar,
}

fn spawn_acknowledgements(stream: &TcpStream, acknowledged: Arc<Acknowledged>) {
    let mut stream = stream.try_clone().expect("a socket");
    thread::spawn(move || {
        let mut total = [0; 8];
        while stream.read_exact(&mut total).is_ok() {
            *acknowledged.messages.lock().unwrap() = u64::from_le_bytes(total);
            acknowledged.more.notify_one();
        }
    });
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().unwrap()).expect("loopback");
    let far = listener.accept().expect("loopback").0;
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// Calls `each` with every whole message and returns how many bytes they take.
fn whole_messages(bytes: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        let Some(body) = bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + length) else { break };
        assert_eq!(crc32c::crc32c(body).to_le_bytes(), head[4..]);
        each(body);
        at += HEAD_BYTES + length;
    }
    at
}

fn hop(mut from: TcpStream, mut to: TcpStream, log_path: PathBuf, sync: bool) {
    let mut log = File::create(&log_path).expect("a log");
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut have, mut total) = (0, 0u64);
    while let Ok(read) = from.read(&mut buffer[have..]) {
        if read == 0 {
            break;
        }
        have += read;
        let used = whole_messages(&buffer[..have], |_| total += 1);
        if used > 0 {
            log.write_all(&buffer[..used]).expect("the log");
            if sync {
                log.sync_data().expect("the log");
            }
            from.write_all(&total.to_le_bytes()).expect("an acknowledgement");
            to.write_all(&buffer[..used]).expect("the next hop");
            buffer.copy_within(used..have, 0);
            have -= used;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = std::fs::remove_file(&log_path);
}

fn produce(stream: TcpStream, load: &Load, acknowledged: &Acknowledged) {
    let mut out = BufWriter::with_capacity(64 << 10, stream);
    let mut body = load.body();
    let started = Instant::now();
    for sent in 0..load.messages {
        if load.rate > 0 {
            let wait = (started + load.due(sent)).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                out.flush().unwrap();
                thread::sleep(wait);
            }
        }
        let mut done = acknowledged.messages.lock().unwrap();
        if sent - *done >= load.window {
            drop(done);
            out.flush().unwrap();
            done = acknowledged.messages.lock().unwrap();
            while sent - *done >= load.window {
                done = acknowledged.more.wait(done).unwrap();
            }
        }
        drop(done);
        Load::restamp(&mut body);
        out.write_all(&(load.bytes as u32).to_le_bytes()).unwrap();
        out.write_all(&crc32c::crc32c(&body).to_le_bytes()).unwrap();
        out.write_all(&body).unwrap();
    }
    out.flush().unwrap();
}

fn consume(mut stream: TcpStream, messages: u64) -> Vec<u64> {
    let mut latencies_ns = Vec::with_capacity(messages as usize);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut have = 0;
    while (latencies_ns.len() as u64) < messages {
        let read = stream.read(&mut buffer[have..]).expect("the hub");
        assert!(read > 0, "the hub hung up");
        have += read;
        let used = whole_messages(&buffer[..have], |body| latencies_ns.push(age_ns(body)));
        buffer.copy_within(used..have, 0);
        have -= used;
    }
    latencies_ns
}
