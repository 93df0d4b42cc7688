//! A leaf on four microcontrollers in QEMU: see `examples/firmware`, and `examples/firmware-c` for the
//! one in C.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use replcore::log::crc32c;
use replcore::rng::Rng;
use replcore_runtime::options::{Address, NodeOptions};

use crate::c_leaf::{post_to, socket_of};
use crate::common::{TestNode, hub_options};
use crate::relay::{Noise, Relay};
use crate::tools::{Process, has, leave_out, root};

const LEAF: &str = "mcu-1";
/// An emulated board on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// What runs on a board.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Rust,
    /// In Rust, with a link by Ethernet.
    Ethernet,
    /// In Rust, on a serial line that is secured by Noise.
    Noise,
    C,
    /// In C, on a serial line that is secured by Noise.
    NoiseInC,
}

impl Program {
    const fn is_secured(self) -> bool {
        matches!(self, Self::Noise | Self::NoiseInC)
    }
}

/// A kind of board, and what runs there.
#[derive(Clone, Copy)]
struct Kind {
    program: Program,
    /// What it is compiled for; that chooses the board in `examples/firmware`.
    target: &'static str,
    emulator: &'static str,
    machine: &'static [&'static str],
}

const CORTEX_M3_IN_C: Kind = Kind { program: Program::C, ..CORTEX_M3 };
const CORTEX_M3_WITH_NOISE_IN_C: Kind = Kind { program: Program::NoiseInC, ..CORTEX_M3 };
const CORTEX_M3: Kind = cortex("thumbv7m-none-eabi", &["-M", "lm3s6965evb"]);
const CORTEX_M4F: Kind = cortex("thumbv7em-none-eabihf", &["-M", "mps2-an386"]);
const CORTEX_M0: Kind = cortex("thumbv6m-none-eabi", &["-M", "microbit"]);
const ETHERNET: Kind = Kind { program: Program::Ethernet, ..CORTEX_M4F };
const RISC_V: Kind = Kind {
    program: Program::Noise,
    target: "riscv32imac-unknown-none-elf",
    emulator: "qemu-system-riscv32",
    machine: &["-M", "virt", "-bios", "none"],
};

const fn cortex(target: &'static str, machine: &'static [&'static str]) -> Kind {
    Kind { program: Program::Rust, target, emulator: "qemu-system-arm", machine }
}

impl Kind {
    /// Builds the firmware into `folder`; `None`, and the test is counted as left out, where that cannot
    /// be done.
    fn build(&self, folder: &Path) -> Option<PathBuf> {
        // Two kinds of link have the same place for their image.
        static BUILDING: Mutex<()> = Mutex::new(());
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let test = format!("the firmware {}", self.label());
        if !has(self.emulator) {
            leave_out(&test, self.emulator);
            return None;
        }
        let (mut command, image, needs) = self.how_to_build();
        let built = command.output().unwrap();
        if built.status.code() == Some(3) {
            leave_out(&test, needs);
            return None;
        }
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let copy = folder.join("image");
        std::fs::copy(image, &copy).unwrap();
        Some(copy)
    }

    fn label(&self) -> String {
        match self.program {
            Program::Rust => format!("for {}", self.target),
            Program::Ethernet => format!("with Ethernet for {}", self.target),
            Program::Noise => format!("with Noise for {}", self.target),
            Program::C => format!("in C for {}", self.target),
            Program::NoiseInC => format!("in C with Noise for {}", self.target),
        }
    }

    /// What builds it, where the image then is, and what that needs.
    fn how_to_build(&self) -> (Command, PathBuf, &'static str) {
        let folder = root().join("target/mcu");
        match self.program {
            Program::Rust | Program::Ethernet | Program::Noise => {
                let mut command = Command::new(root().join("scripts/mcu-cargo"));
                command
                    .args([self.target, "build", "--quiet", "--release"])
                    .args(["--bin", "replcore-firmware", "--manifest-path"])
                    .arg(root().join("examples/firmware/Cargo.toml"));
                match self.program {
                    Program::Ethernet => _ = command.args(["--features", "ethernet"]),
                    Program::Noise => _ = command.args(["--features", "noise"]),
                    Program::Rust | Program::C | Program::NoiseInC => {}
                }
                let image = folder.join(self.target).join("release/replcore-firmware");
                (command, image, "rustc-web, cargo-web, rust-web-src and lld-22 of Debian")
            }
            Program::C | Program::NoiseInC => {
                let line = if self.program.is_secured() { "noise" } else { "plain" };
                let image = folder.join(format!("firmware-c-{line}"));
                let mut command = Command::new(root().join("examples/firmware-c/build"));
                command.arg(&image).arg(line);
                let needs = "rustc-web, cargo-web, rust-web-src, gcc-arm-none-eabi and \
                             libnewlib-arm-none-eabi of Debian";
                (command, image, needs)
            }
        }
    }
}

/// A board that runs.
struct Board {
    process: Process,
    starts: Arc<AtomicU64>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Board {
    fn start(kind: Kind, image: &PathBuf, line: SocketAddr) -> Self {
        let chardev = format!("socket,id=line,host=127.0.0.1,port={},nodelay=on", line.port());
        // The firmware is told the hub's port as its argument.
        let console = format!("enable=on,target=native,arg=firmware,arg={}", line.port());
        let mut command = Command::new(kind.emulator);
        match kind.program {
            Program::Ethernet => command.args(["-serial", "none", "-nic", "user"]),
            _ => command.args(["-chardev", &chardev, "-serial", "chardev:line"]),
        };
        let mut child = command
            .args(kind.machine)
            .args(["-display", "none", "-monitor", "none"])
            .args(["-accel", "tcg,thread=single,tb-size=16"])
            .args(["-semihosting-config", &console, "-kernel"])
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (starts, said) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, lines) = (starts.clone(), said.clone());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                count.fetch_add(u64::from(line.starts_with("start:")), Ordering::Relaxed);
                lines.lock().unwrap().push(line);
            }
        });
        Self { process: Process(child), starts, said }
    }

    fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }
}

/// What the commands were, and what they should have done.
#[derive(Default)]
struct Commands {
    sent: u64,
    digest: u32,
    readings: u64,
}

impl Commands {
    async fn send(&mut self, hub: &TestNode, text: String) {
        self.sent += 1;
        let parts = [self.digest.to_le_bytes(), crc32c(text.as_bytes()).to_le_bytes()];
        self.digest = crc32c(parts.as_flattened());
        if let Some(number) = text.strip_prefix("post ") {
            self.readings += number.parse::<u64>().unwrap();
        }
        post_to(hub, LEAF, vec![text]).await;
    }
}

fn options(folder: &Path, kind: Kind) -> NodeOptions {
    let mut options = hub_options(folder, "hub");
    options.rules.clear();
    if kind.program != Program::Ethernet {
        options.listen = vec![Address::Serial("127.0.0.1:0".into())];
    }
    if kind.program.is_secured() {
        options.listen = vec![Address::Noise("127.0.0.1:0".into())];
        let key = b"not a key for anything but tests";
        let line = format!("{LEAF} psk {}", crate::noise::hex(key));
        options.noise_keys = Some(crate::noise::write_keys(folder, "hub", &[line]));
    }
    options
}

/// The readings that the hub holds, checked: each once, in order, and their commands never fewer.
async fn readings(hub: &TestNode) -> Vec<(u64, u64, u32)> {
    let all = hub.read_all().await;
    let readings = all.iter().filter(|message| message.message.message_type == "reading");
    let parse = |message: &replcore_runtime::api::StoredMessage| {
        assert_eq!(message.origin, LEAF);
        assert_eq!(message.time_ms, 0, "the device has no clock of the wall");
        let body = String::from_utf8(message.message.body.0.clone()).unwrap();
        let parts: Vec<&str> = body.split(' ').collect();
        let digest = u32::from_str_radix(parts[2], 16).unwrap();
        (parts[0].parse().unwrap(), parts[1].parse().unwrap(), digest)
    };
    let readings: Vec<(u64, u64, u32)> = readings.map(parse).collect();
    for (index, reading) in readings.iter().enumerate() {
        assert_eq!(reading.0, index as u64 + 1, "lost, doubled or out of order");
        assert!(index == 0 || readings[index - 1].1 <= reading.1, "a command was undone");
    }
    readings
}

/// Waits until the hub holds that many readings.
async fn wait_for(hub: &TestNode, count: u64, board: &mut Board) {
    let deadline = Instant::now() + PATIENCE;
    while (hub.status().await.ordinals[1].saturating_sub(1)) < count
        || (readings(hub).await.len() as u64) < count
    {
        if let Some(status) = board.process.0.try_wait().unwrap() {
            panic!("the board has ended: {status}: {:?}", board.said.lock().unwrap());
        }
        let have = readings(hub).await.len();
        let said = board.said.lock().unwrap();
        assert!(Instant::now() < deadline, "{have} of {count} readings: {said:?}");
        drop(said);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Has the device store readings while nothing that it says gets to the hub, and lose the power in the
/// middle of that: what was stored before is there afterwards, and arrives.
async fn store_while_cut_off(
    hub: &TestNode,
    relay: &Relay,
    board: &mut Board,
    commands: &mut Commands,
) {
    commands.send(hub, "post 1".into()).await;
    wait_for(hub, commands.readings, board).await;
    relay.set_one_way(true);
    // More words than the next command takes, and fewer than its readings.
    commands.send(hub, "reset 300".into()).await;
    commands.send(hub, "post 40".into()).await;
    let deadline = Instant::now() + PATIENCE;
    while board.starts() < 2 {
        assert!(Instant::now() < deadline, "no reset: {:?}", board.said.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = board.said.lock().unwrap().clone();
    let start = said.iter().rfind(|line| line.starts_with("start:")).unwrap();
    let waiting: u64 = start.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(waiting > 1, "{said:?}");
    relay.set_one_way(false);
    relay.cut();
    wait_for(hub, commands.readings, board).await;
}

/// Readings and commands over a bad line, with resets in the middle of writes, cuts, silence and a
/// hub that crashes: nothing is lost, doubled or carried out twice.
async fn survive(kind: Kind, rounds: u64, readings_each: u64) {
    let folder = tempfile::tempdir().unwrap();
    let Some(image) = kind.build(folder.path()) else { return };
    let mut hub = TestNode::start(options(folder.path(), kind));
    let noise = Noise { flipped_one_in: 20_000, lost_one_in: 20_000, cut_one_in: 40_000 };
    let relay = match kind.program {
        Program::Ethernet => Relay::tcp(socket_of(&hub)),
        _ => Relay::serial(socket_of(&hub), noise, 11),
    };
    let mut board = Board::start(kind, &image, relay.address);
    let mut commands = Commands::default();
    store_while_cut_off(&hub, &relay, &mut board, &mut commands).await;
    let mut rng = Rng::new(5);
    let mut resets = 1;
    for round in 0..rounds {
        commands.send(&hub, format!("post {readings_each}")).await;
        if round % 2 == 0 {
            // In the middle of one of the next batches, which are 30 to 60 words long, or of an
            // erasure.
            commands.send(&hub, format!("reset {}", rng.between(1, 400))).await;
            resets += 1;
        }
        tokio::time::sleep(Duration::from_millis(rng.between(50, 400))).await;
        match round % 5 {
            1 => relay.cut(),
            3 => {
                relay.set_silent(true);
                tokio::time::sleep(Duration::from_millis(rng.between(100, 1_500))).await;
                relay.set_silent(false);
            }
            4 => hub = TestNode::start(hub.crash()),
            _ => {}
        }
    }
    wait_for(&hub, commands.readings, &mut board).await;
    // The last reset may have come before its readings; one more shows that all were carried out.
    commands.send(&hub, "stack".into()).await;
    commands.send(&hub, "post 1".into()).await;
    wait_for(&hub, commands.readings, &mut board).await;
    let all = readings(&hub).await;
    assert_eq!(all.last(), Some(&(commands.readings, commands.sent, commands.digest)));
    if kind.program.is_secured() {
        let links = hub.status().await.counters["noise_links"];
        println!("{links} links with Noise since the last crash of the hub");
        assert!(links > 0);
    }
    let said = board.said.lock().unwrap();
    println!(
        "{}: {} readings, {} commands, {} starts, {} faults on the line, {:?}",
        kind.label(),
        all.len(),
        commands.sent,
        board.starts(),
        relay.faults(),
        said.iter().rfind(|line| line.starts_with("stack:"))
    );
    assert!(board.starts() > resets / 2, "{said:?}");
    // A short run may meet no noise, and one by Ethernet meets none.
    assert!(relay.faults() > 0 || all.len() < 600);
}

#[tokio::test]
async fn firmware_on_a_cortex_m3_carries_10_000_readings_over_a_bad_line_and_resets_in_the_middle_of_a_write()
 {
    survive(CORTEX_M3, 20, 500).await;
}

#[tokio::test]
async fn firmware_in_c_loses_and_doubles_nothing() {
    survive(CORTEX_M3_IN_C, 5, 100).await;
}

#[tokio::test]
#[ignore = "the library is built once more for it; .ci/nightly runs it"]
async fn firmware_in_c_on_a_line_with_noise_loses_and_doubles_nothing() {
    survive(CORTEX_M3_WITH_NOISE_IN_C, 5, 100).await;
}

#[tokio::test]
async fn firmware_with_ethernet_loses_and_doubles_nothing() {
    survive(ETHERNET, 5, 100).await;
}

#[tokio::test]
async fn firmware_on_a_cortex_m4f_loses_and_doubles_nothing() {
    survive(CORTEX_M4F, 8, 40).await;
}

#[tokio::test]
async fn firmware_on_a_cortex_m0_with_16_kib_of_ram_loses_and_doubles_nothing() {
    survive(CORTEX_M0, 8, 100).await;
}

#[tokio::test]
async fn firmware_on_a_risc_v_core_on_a_line_with_noise_loses_and_doubles_nothing() {
    survive(RISC_V, 8, 100).await;
}
