//! Relays between a device and a hub, with faults from a seed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use replcore::rng::Rng;

/// What a relay does to the bytes that pass it, for each byte one in this many; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noise {
    pub(crate) flipped_one_in: u64,
    pub(crate) lost_one_in: u64,
    /// A whole piece of up to 600 bytes is lost.
    pub(crate) cut_one_in: u64,
}

struct Shared {
    hub: SocketAddr,
    noise: Noise,
    open: Mutex<Vec<TcpStream>>,
    /// Nothing passes, in either direction, and nothing is closed.
    silent: AtomicBool,
    /// Nothing passes from the device to the hub, and the other way there is no noise.
    one_way: AtomicBool,
    faults: AtomicU64,
    /// The device's end stays open when the hub's end closes, as a serial server's does.
    keeps_device: bool,
}

/// Which way bytes go: up is to the hub.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A relay on a port of its own.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// A relay for TCP links: each connection is carried until either end, or [`Self::cut`], closes
    /// it.
    pub(crate) fn tcp(hub: SocketAddr) -> Self {
        Self::start(hub, Noise::default(), 0, false)
    }

    /// A serial server: the line to the device stays, the connection to the hub is made again
    /// whenever it breaks. `noise` damages bytes both ways.
    pub(crate) fn serial(hub: SocketAddr, noise: Noise, seed: u64) -> Self {
        Self::start(hub, noise, seed, true)
    }

    fn start(hub: SocketAddr, noise: Noise, seed: u64, keeps_device: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            hub,
            noise,
            open: Mutex::default(),
            silent: AtomicBool::new(false),
            one_way: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            keeps_device,
        });
        let of_thread = shared.clone();
        thread::spawn(move || {
            for (number, device) in listener.incoming().flatten().enumerate() {
                let shared = of_thread.clone();
                let seed = seed.wrapping_mul(1000).wrapping_add(number as u64);
                thread::spawn(move || shared.carry(&device, seed));
            }
        });
        Self { address, shared }
    }

    /// Breaks every connection to the hub, and for TCP links those to the device too.
    pub(crate) fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets nothing pass any more, or lets it again.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::Relaxed);
    }

    /// Lets nothing pass from the device to the hub any more, and all the other way; or ends that.
    pub(crate) fn set_one_way(&self, one_way: bool) {
        self.shared.one_way.store(one_way, Ordering::Relaxed);
    }

    /// How many faults were made.
    pub(crate) fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn carry(self: Arc<Self>, device: &TcpStream, seed: u64) {
        device.set_nodelay(true).unwrap();
        for attempt in 0u64.. {
            let Ok(hub) = TcpStream::connect(self.hub) else {
                if !self.keeps_device || has_ended(device) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            hub.set_nodelay(true).unwrap();
            {
                let mut open = self.open.lock().unwrap();
                open.push(hub.try_clone().unwrap());
                if !self.keeps_device {
                    open.push(device.try_clone().unwrap());
                }
            }
            let stop = Arc::new(AtomicBool::new(false));
            let up = {
                let (from, to) = (device.try_clone().unwrap(), hub.try_clone().unwrap());
                let (shared, stop) = (self.clone(), stop.clone());
                thread::spawn(move || shared.copy(from, to, Way::Up, &stop, seed ^ attempt << 32))
            };
            let rng_seed = !seed ^ attempt << 32;
            let (from, to) = (hub.try_clone().unwrap(), device.try_clone().unwrap());
            self.copy(from, to, Way::Down, &stop, rng_seed);
            let _ = hub.shutdown(Shutdown::Both);
            let device_ended = up.join().unwrap();
            if !self.keeps_device || device_ended {
                let _ = device.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    /// Copies until either end closes; whether it was the one that is read.
    fn copy(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        way: Way,
        stop: &AtomicBool,
        seed: u64,
    ) -> bool {
        let mut rng = Rng::new(seed);
        let mut buf = [0; 4096];
        // A timeout on one of two handles of a socket is a timeout on both.
        from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while !stop.load(Ordering::Relaxed) {
            let bytes = match from.read(&mut buf) {
                Ok(0) => {
                    stop.store(true, Ordering::Relaxed);
                    return true;
                }
                Ok(bytes) => bytes,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => break,
            };
            let one_way = self.one_way.load(Ordering::Relaxed);
            if self.silent.load(Ordering::Relaxed) || one_way && way == Way::Up {
                continue;
            }
            let damaged = (!one_way).then(|| self.damage(&buf[..bytes], &mut rng));
            if to.write_all(damaged.as_deref().unwrap_or(&buf[..bytes])).is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        false
    }

    fn damage(&self, bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
        let mut hit = |one_in: u64| {
            let hit = one_in > 0 && rng.between(1, one_in) == 1;
            self.faults.fetch_add(u64::from(hit), Ordering::Relaxed);
            hit.then(|| rng.next_u64())
        };
        let mut passed = Vec::with_capacity(bytes.len());
        let mut cut = 0;
        for &byte in bytes {
            if let Some(random) = hit(self.noise.cut_one_in) {
                cut = random % 600;
            }
            if cut > 0 || hit(self.noise.lost_one_in).is_some() {
                cut = u64::saturating_sub(cut, 1);
                continue;
            }
            let flip = hit(self.noise.flipped_one_in).map_or(0, |random| 1 << (random % 8));
            passed.push(byte ^ flip);
        }
        passed
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn has_ended(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => !is_timeout(&error),
    }
}
