//! A relay between two nodes that does to bytes what bad networks do.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a relay does to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Waits so long before it passes bytes on, in milliseconds.
    Delay(u64),
    /// Passes single bytes on.
    Bytes,
    /// Cuts each connection after so many bytes of one direction.
    Cut(u64),
    /// Flips a bit of the byte with this number, once on each connection and direction.
    Flip(u64),
    /// Takes everything of the side that dials and passes nothing on; the other way is open.
    Mute,
    /// The other way round.
    Deaf,
    /// Accepts, and never says anything.
    Hang,
}

#[derive(Debug)]
struct Shared {
    target: String,
    fault: Mutex<Fault>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
    accepted: AtomicU64,
}

/// A relay that runs.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    address: String,
}

impl Relay {
    /// Listens at `address` and connects to `target` for each connection.
    pub(crate) fn start(address: &str, target: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared {
            target: target.into(),
            fault: Mutex::new(Fault::None),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.accepted.fetch_add(1, Ordering::SeqCst);
                accept(&accepting, stream);
            }
        });
        Self { shared, address: address.into() }
    }

    /// From now on `fault`, on open connections too.
    pub(crate) fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections ever accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.address);
    }
}

fn accept(shared: &Arc<Shared>, near: TcpStream) {
    let mut open = shared.connections.lock().unwrap();
    open.push(near.try_clone().unwrap());
    if *shared.fault.lock().unwrap() == Fault::Hang {
        return;
    }
    let Ok(far) = TcpStream::connect(&shared.target) else {
        let _ = near.shutdown(Shutdown::Both);
        return;
    };
    open.push(far.try_clone().unwrap());
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
    }
    let (near_copy, far_copy) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let up = shared.clone();
    std::thread::spawn(move || pass(&up, near, far, true));
    let down = shared.clone();
    std::thread::spawn(move || pass(&down, far_copy, near_copy, false));
}

fn pass(shared: &Shared, mut from: TcpStream, mut to: TcpStream, up: bool) {
    let mut buffer = [0; 16384];
    let mut passed = 0u64;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let fault = *shared.fault.lock().unwrap();
        let bytes = &mut buffer[..count];
        let end = passed + count as u64;
        let done = match fault {
            Fault::None => to.write_all(bytes),
            Fault::Delay(ms) => {
                std::thread::sleep(Duration::from_millis(ms));
                to.write_all(bytes)
            }
            Fault::Bytes => bytes.chunks(1).try_for_each(|byte| to.write_all(byte)),
            Fault::Cut(at) if end >= at => {
                let _ = to.write_all(&bytes[..at.saturating_sub(passed) as usize]);
                break;
            }
            Fault::Flip(at) if (passed..end).contains(&at) => {
                bytes[(at - passed) as usize] ^= 0x10;
                to.write_all(bytes)
            }
            Fault::Cut(_) | Fault::Flip(_) => to.write_all(bytes),
            Fault::Mute if up => Ok(()),
            Fault::Deaf if !up => Ok(()),
            Fault::Mute | Fault::Deaf => to.write_all(bytes),
            Fault::Hang => Ok(()),
        };
        passed = end;
        if done.is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
