//! Memory of nodes with nothing to do.
//!
//! `idle_leaves memory NAME PID` says what a process has now. `idle_leaves connect HOST:PORT LEAVES PID`
//! connects and registers that many leaves at a hub without TLS, each with its queue, from one thread,
//! and says what the hub, process PID, has then; with `HOLD=1` they stay until standard input is closed.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant as Clock;

use replcore::contract::{Answer, Input, LinkId, Machine, Output, Query, Transport};
use replcore::leaf::{Leaf, LeafConfig};
use replcore::link::LinkSettings;
use replcore::stream::{Cursor, Epoch, Name, Position};
use replcore::time::Instant;
use replcore::wire::CONTROL_FRAME_BYTES_MAX;
use replcore_bench::{Sample, memory_mib};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Longer than the measurement: the connections are idle in it.
const KEEPALIVE_MS: u32 = 3_600_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", name, pid] => {
            let rss = memory_mib(pid.parse()?, "VmRSS");
            Sample::new(format!("memory: {name}")).figure("rss_mib", rss).print();
        }
        ["connect", address, leaves, pid] => connect_all(address, leaves.parse()?, pid.parse()?)?,
        _ => {
            eprintln!("usage: idle_leaves memory NAME PID | connect HOST:PORT LEAVES PID");
            std::process::exit(2);
        }
    }
    Ok(())
}

fn connect_all(address: &str, leaves: u32, pid: u32) -> Result<(), Box<dyn Error>> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let started = Clock::now();
    let mut held = Vec::with_capacity(leaves as usize);
    for index in 0..leaves {
        held.push(connect(address, index)?);
    }
    let seconds = started.elapsed().as_secs_f64();
    Sample::new(format!("memory: hub with {leaves} connected idle leaves"))
        .figure("rss_mib", memory_mib(pid, "VmRSS"))
        .figure("peak_rss_mib", memory_mib(pid, "VmHWM"))
        .figure("registrations_per_s", f64::from(leaves) / seconds)
        .print();
    if std::env::var_os("HOLD").is_some() {
        let _ = std::io::stdin().read(&mut [0]);
    }
    Ok(())
}

/// A registered leaf on a socket of its own.
fn connect(address: &str, index: u32) -> Result<(Leaf, TcpStream), Box<dyn Error>> {
    let name = Name::new(&format!("idle-{index}"))?;
    let mut settings = LinkSettings::new(name, u64::from(index) + 1, Epoch(1));
    settings.keepalive_ms = KEEPALIVE_MS;
    let mut leaf = Leaf::new(LeafConfig::new(settings, u64::from(index)));
    let link = LinkId(0);
    let (started, mut buf) = (Clock::now(), [0; CONTROL_FRAME_BYTES_MAX]);
    let now = || Instant::from_micros(1 + started.elapsed().as_micros() as u64);
    leaf.handle(now(), Input::Timeout);
    let Output::Dial { dial } = leaf.poll(&mut buf) else { return Err("no dial".into()) };
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let transport = Transport::Stream;
    leaf.handle(now(), Input::LinkUp { link, dialed: Some(dial), transport, identity: None });
    leaf.handle(now(), Input::Writable { link, bytes: 1 << 20 });
    let mut kept = Vec::new();
    loop {
        drain(&mut leaf, &mut stream, &now, &mut buf)?;
        if leaf.is_connected() {
            return Ok((leaf, stream));
        }
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Err(format!("the hub hung up on leaf {index}").into());
        }
        kept.extend_from_slice(&bytes[..read]);
        let taken = leaf.handle(now(), Input::Recv { link, data: &kept });
        kept.drain(..taken);
    }
}

fn drain(
    leaf: &mut Leaf,
    stream: &mut TcpStream,
    now: &impl Fn() -> Instant,
    buf: &mut [u8],
) -> Result<(), Box<dyn Error>> {
    loop {
        match leaf.poll(buf) {
            Output::Idle { .. } => return Ok(()),
            Output::Send { len, .. } => stream.write_all(&buf[..len])?,
            Output::Ask { token, query, .. } => {
                let nothing = Position(0);
                let answer = match query {
                    Query::Outbound { .. } => Answer::Outbound {
                        epoch: Epoch(1),
                        released: nothing,
                        next: nothing,
                        sent: nothing,
                    },
                    Query::Inbound(source) => {
                        Answer::Inbound { epoch: source.epoch, cursor: Cursor::default() }
                    }
                    _ => Answer::Denied,
                };
                leaf.handle(now(), Input::Answer { token, answer });
            }
            Output::Hangup { .. } => return Err("the leaf was refused".into()),
            Output::Event { .. } => {}
            other => return Err(format!("nothing does {other:?} here").into()),
        }
    }
}
