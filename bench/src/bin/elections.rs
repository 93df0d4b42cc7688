//! Elections among processes of their own on loopback.
//!
//! ```text
//! elections first MEMBERS RUNS WORK       from the start of all until one leads
//! elections failover MEMBERS KILLS WORK   SIGKILL of the leader until another leads
//! elections handover MEMBERS RUNS WORK    the leader is asked to resign until another leads
//! elections idle MEMBERS SECONDS WORK     CPU, bytes and wake-ups of a member while nothing happens
//! elections floor MEMBERS SECONDS         the same of two bare loops that exchange as many frames
//! elections is_leader CALLS WORK          nanoseconds of one `is_leader()`
//! ```
//!
//! WORK is a folder for the members' state. A member says when it leads by the machine's monotonic
//! clock, as soon as its handler of events is called.

use std::error::Error;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use replcore::stream::Name;
use replcore_bench::{Sample, cpu_seconds, memory_mib, now_ns};
use replcore_runtime::cluster::{Cluster, ClusterOptions, Happened, Metadata, PeerOptions};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PORT: usize = 28_300;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["member", at, members, work] => member(at.parse()?, members.parse()?, Path::new(work)),
        ["first", members, runs, work] => first(members.parse()?, runs.parse()?, Path::new(work)),
        ["failover", members, kills, work] => {
            failover(members.parse()?, kills.parse()?, Path::new(work))
        }
        ["handover", members, runs, work] => {
            handover(members.parse()?, runs.parse()?, Path::new(work))
        }
        ["idle", members, seconds, work] => {
            idle(members.parse()?, seconds.parse()?, Path::new(work))
        }
        ["floor", members, seconds] => floor(members.parse()?, seconds.parse()?),
        ["floor_leader", members] => floor_leader(members.parse()?),
        ["floor_follower"] => floor_follower(),
        ["is_leader", calls, work] => is_leader(calls.parse()?, Path::new(work)),
        _ => Err(
            "usage: elections first|failover|handover|idle MEMBERS N WORK, floor MEMBERS N, is_leader N WORK",
        )?,
    }
}

fn options(at: usize, members: usize, work: &Path) -> Outcome<ClusterOptions> {
    let place = |at: usize| format!("127.0.0.1:{}", PORT + at);
    let name = |at: usize| Name::new(&format!("m{at}"));
    let folder = work.join(format!("m{at}"));
    let mut options =
        ClusterOptions::new(name(at)?, Name::new("bench")?, place(at).parse()?, folder);
    for other in (0..members).filter(|other| *other != at) {
        options.peers.push(PeerOptions {
            name: name(other)?,
            address: place(other).parse()?,
            metadata: Metadata::new(),
            voter: true,
        });
    }
    Ok(options)
}

/// Plays a member: says what happens on standard output, a line each, and takes orders on input.
fn member(at: usize, members: usize, work: &Path) -> Outcome {
    let cluster = Cluster::start(options(at, members, work)?)?;
    cluster.on_event(|event| match event.what {
        Happened::BecameLeader { .. } => println!("{} lead", now_ns()),
        Happened::NewLeader { leader: Some(_), .. } => println!("{} follow", now_ns()),
        _ => {}
    })?;
    println!("{} ready", now_ns());
    if cluster.leader().is_some() {
        println!("{} follow", now_ns());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "resign" => {
                println!("{} resigning", now_ns());
                runtime.block_on(cluster.resign())?;
            }
            _ => {
                let status = runtime.block_on(cluster.status())?;
                let count = |name: &str| status.counters.get(name).copied().unwrap_or(0);
                let bytes = count("written_bytes");
                println!("{bytes} bytes");
                println!("{} changes", count("leader_changes"));
            }
        }
    }
    Ok(())
}

/// What a member has said: which, a number, a word.
type Said = (usize, u64, String);

struct Process {
    child: Child,
    input: ChildStdin,
}

/// Members as processes.
struct Group {
    processes: Vec<Option<Process>>,
    said: mpsc::Receiver<Said>,
    sender: mpsc::Sender<Said>,
    work: PathBuf,
}

impl Group {
    fn start(members: usize, work: &Path) -> Outcome<Self> {
        let _ = std::fs::remove_dir_all(work);
        std::fs::create_dir_all(work)?;
        let (sender, said) = mpsc::channel();
        let processes = (0..members).map(|_| None).collect();
        let mut group = Self { processes, said, sender, work: work.to_owned() };
        for at in 0..members {
            group.spawn(at)?;
        }
        Ok(group)
    }

    fn spawn(&mut self, at: usize) -> Outcome {
        let members = self.processes.len();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["member", &at.to_string(), &members.to_string()])
            .arg(&self.work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = child.stdout.take().ok_or("no output")?;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Some((number, word)) = line.split_once(' ') else { continue };
                let _ = sender.send((at, number.parse().unwrap_or(0), word.to_owned()));
            }
        });
        self.processes[at] = Some(Process { child, input });
        Ok(())
    }

    fn kill(&mut self, at: usize) -> Outcome {
        if let Some(mut process) = self.processes[at].take() {
            process.child.kill()?;
            process.child.wait()?;
        }
        Ok(())
    }

    fn order(&mut self, at: usize, word: &str) -> Outcome {
        let process = self.processes[at].as_mut().ok_or("it does not run")?;
        writeln!(process.input, "{word}")?;
        Ok(())
    }

    /// Waits until some member says `word` with a number of at least `from`.
    fn until(&self, word: &str, from: u64) -> Outcome<(usize, u64)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, number, said) = self.said.recv_timeout(left)?;
            if said == word && number >= from {
                return Ok((at, number));
            }
        }
    }

    /// The last who said that it leads, once nobody has said so for a while.
    fn settled(&self) -> Outcome<usize> {
        let (mut leader, _) = self.until("lead", 0)?;
        while let Ok((at, _, said)) = self.said.recv_timeout(Duration::from_millis(700)) {
            if said == "lead" {
                leader = at;
            }
        }
        Ok(leader)
    }

    fn pid(&self, at: usize) -> u32 {
        self.processes[at].as_ref().map_or(0, |process| process.child.id())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for at in 0..self.processes.len() {
            let _ = self.kill(at);
        }
    }
}

fn first(members: usize, runs: usize, work: &Path) -> Outcome {
    let mut latencies = Vec::new();
    for _ in 0..runs {
        let started = now_ns();
        let group = Group::start(members, work)?;
        let (_, at) = group.until("lead", 0)?;
        latencies.push(at - started);
    }
    Sample::new(format!("elections: first leader, {members} members"))
        .latencies(&mut latencies)
        .print();
    Ok(())
}

fn failover(members: usize, kills: usize, work: &Path) -> Outcome {
    let mut group = Group::start(members, work)?;
    let mut leader = group.settled()?;
    let mut latencies = Vec::new();
    for round in 0..kills {
        // At no fixed place between two heartbeats.
        std::thread::sleep(Duration::from_millis(300 + (round as u64 * 37) % 101));
        let killed_at = now_ns();
        group.kill(leader)?;
        let (next, leads_at) = group.until("lead", killed_at)?;
        latencies.push(leads_at - killed_at);
        group.spawn(leader)?;
        loop {
            // Until the one that was killed follows.
            let (at, _) = group.until("follow", leads_at)?;
            if at == leader {
                break;
            }
        }
        leader = next;
    }
    Sample::new(format!("elections: leader killed, {members} members"))
        .latencies(&mut latencies)
        .print();
    Ok(())
}

fn handover(members: usize, runs: usize, work: &Path) -> Outcome {
    let mut group = Group::start(members, work)?;
    let mut leader = group.settled()?;
    let mut latencies = Vec::new();
    for _ in 0..runs {
        std::thread::sleep(Duration::from_millis(300));
        group.order(leader, "resign")?;
        let (_, from) = group.until("resigning", 0)?;
        let (next, leads_at) = group.until("lead", from)?;
        latencies.push(leads_at - from);
        leader = next;
    }
    Sample::new(format!("elections: hand-over, {members} members"))
        .latencies(&mut latencies)
        .print();
    Ok(())
}

/// Times that the threads of a process have gone to sleep by themselves: each is a wake-up later.
fn sleeps(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let count = |path: PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|it| it.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|it| it.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| count(task.path())).sum()
}

fn idle(members: usize, seconds: u64, work: &Path) -> Outcome {
    let mut group = Group::start(members, work)?;
    let leader = group.settled()?;
    let follower = (leader + 1) % members;
    for (at, role) in [(leader, "leader"), (follower, "follower")] {
        let pid = group.pid(at);
        group.order(at, "status")?;
        let (_, bytes) = group.until("bytes", 0)?;
        let (_, changes) = group.until("changes", 0)?;
        let (cpu, slept) = (cpu_seconds(pid), sleeps(pid));
        std::thread::sleep(Duration::from_secs(seconds));
        let (cpu, slept) = (cpu_seconds(pid) - cpu, sleeps(pid) - slept);
        group.order(at, "status")?;
        let (_, bytes_after) = group.until("bytes", 0)?;
        let (_, changes_after) = group.until("changes", 0)?;
        let each = |number: f64| number / seconds as f64;
        Sample::new(format!("elections: idle {role}, {members} members"))
            .figure("cpu_percent", each(cpu) * 100.0)
            .figure("sent_bytes_per_s", each((bytes_after - bytes) as f64))
            .figure("wakeups_per_s", each(slept as f64))
            .figure("rss_mib", memory_mib(pid, "VmRSS"))
            .figure("leader_changes", (changes_after - changes) as f64)
            .print();
    }
    Ok(())
}

/// Bytes of a heartbeat as a member sends it, and how often it does in one building.
const HEARTBEAT_BYTES: usize = 31;
const HEARTBEAT_MS: u64 = 50;

fn floor_leader(members: usize) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", PORT as u16))?;
    let mut followers = Vec::new();
    for _ in 1..members {
        let (follower, _) = listener.accept()?;
        follower.set_nodelay(true)?;
        followers.push(follower);
    }
    let mut next = Instant::now();
    loop {
        let mut frame = [0; HEARTBEAT_BYTES];
        for follower in &mut followers {
            follower.write_all(&frame)?;
        }
        for follower in &mut followers {
            follower.read_exact(&mut frame)?;
        }
        next += Duration::from_millis(HEARTBEAT_MS);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn floor_follower() -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    let mut leader = loop {
        match TcpStream::connect(("127.0.0.1", PORT as u16)) {
            Ok(leader) => break leader,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    leader.set_nodelay(true)?;
    let mut frame = [0; HEARTBEAT_BYTES];
    loop {
        leader.read_exact(&mut frame)?;
        leader.write_all(&frame)?;
    }
}

fn floor(members: usize, seconds: u64) -> Outcome {
    let own = std::env::current_exe()?;
    let mut children =
        vec![Command::new(&own).args(["floor_leader", &members.to_string()]).spawn()?];
    for _ in 1..members {
        children.push(Command::new(&own).arg("floor_follower").stderr(Stdio::null()).spawn()?);
    }
    std::thread::sleep(Duration::from_secs(1));
    let used = |child: &Child| (cpu_seconds(child.id()), sleeps(child.id()));
    let before: Vec<_> = children.iter().map(used).collect();
    std::thread::sleep(Duration::from_secs(seconds));
    for (at, role) in [(0, "leader"), (1, "follower")] {
        let (cpu, slept) = used(&children[at]);
        let each = |number: f64| number / seconds as f64;
        Sample::new(format!("elections: floor of an idle {role}, {members} members"))
            .figure("cpu_percent", each(cpu - before[at].0) * 100.0)
            .figure("wakeups_per_s", each((slept - before[at].1) as f64))
            .print();
    }
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn is_leader(calls: u64, work: &Path) -> Outcome {
    let _ = std::fs::remove_dir_all(work);
    let cluster = Cluster::start(options(0, 1, work)?)?;
    while !cluster.is_leader() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let started = Instant::now();
    let mut yes = 0u64;
    for _ in 0..calls {
        yes += u64::from(std::hint::black_box(&cluster).is_leader());
    }
    let ns = started.elapsed().as_nanos() as f64 / calls as f64;
    if yes != calls {
        return Err("the only voter did not lead all the time".into());
    }
    Sample::new("elections: is_leader()").figure("ns_each", ns).print();
    Ok(())
}
