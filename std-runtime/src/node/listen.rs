//! Listening sockets.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::host::Host;
use crate::driver::{Stream, count};
use crate::options::{Address, NodeOptions};

/// How long to wait after an accept that failed for want of something, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// One place where a node listens.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
    Serial(TcpListener),
}

impl Listener {
    /// Listens everywhere that the options say.
    ///
    /// # Errors
    /// One line that names the address; nothing is left listening.
    pub(super) fn open_all(options: &NodeOptions) -> Result<Vec<Self>, String> {
        let backlog = options.limits.accept_backlog.clamp(1, 65_535);
        options.listen.iter().map(|address| Self::open(address, backlog as i32)).collect()
    }

    fn open(address: &Address, backlog: i32) -> Result<Self, String> {
        let explain = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "cannot listen on {address}: something else does; stop it or choose another address"
            ),
            _ => format!("cannot listen on {address}: {error}"),
        };
        let tcp = |text: &str| {
            let mut addresses = text.to_socket_addrs().map_err(explain)?;
            let first = addresses.next().ok_or_else(|| format!("{address} has no address"))?;
            listen_tcp(first, backlog).map_err(explain)
        };
        match address {
            Address::Tcp(text) => tcp(text).map(Self::Tcp),
            Address::Serial(text) => tcp(text).map(Self::Serial),
            Address::Unix(path) => {
                remove_stale(path).map_err(explain)?;
                let listener = UnixListener::bind(path).map_err(explain)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Address {
        let local = |listener: &TcpListener| {
            listener.local_addr().map_or_else(|_| String::new(), |it| it.to_string())
        };
        match self {
            Self::Tcp(listener) => Address::Tcp(local(listener)),
            Self::Serial(listener) => Address::Serial(local(listener)),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        }
    }

    /// Accepts for as long as it is polled.
    pub(super) async fn run(self, host: Rc<Host>) {
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream))
                }
                Self::Serial(listener) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Serial(stream))
                }
                Self::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Unix(Stream::Unix(stream)))
                }
            };
            match accepted {
                Ok(accepted) if host.has_room() => {
                    count(&host.reactor.counters.accepted, 1);
                    tokio::task::spawn_local(host.clone().run_accepted(accepted));
                }
                Ok(_) => count(&host.reactor.counters.refused, 1),
                Err(error) => {
                    tracing::warn!("cannot accept at {}: {error}", self.address());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A connection as it was accepted.
pub(super) enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(Stream),
    Serial(tokio::net::TcpStream),
}

fn listen_tcp(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

/// Removes a socket that a process which is gone has left behind.
fn remove_stale(path: &PathBuf) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}
