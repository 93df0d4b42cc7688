//! Listening sockets.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use replcore::stream::Name;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::Stream;
use crate::noise::Noise;
use crate::options::Address;
use crate::tls::Tls;

/// How long to wait after an accept that failed for want of something, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// One place to listen at.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
    Serial(TcpListener),
    Noise(TcpListener),
}

impl Listener {
    /// Listens at `address`, with so many connections waiting to be accepted.
    ///
    /// # Errors
    /// One line that names the address; nothing is left listening.
    pub(crate) fn open(address: &Address, backlog: u32) -> Result<Self, String> {
        let backlog = backlog.clamp(1, 65_535) as i32;
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
            Address::Noise(text) => tcp(text).map(Self::Noise),
            Address::Unix(path) => {
                remove_stale(path).map_err(explain)?;
                let listener = UnixListener::bind(path).map_err(explain)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        let local = |listener: &TcpListener| {
            listener.local_addr().map_or_else(|_| String::new(), |it| it.to_string())
        };
        match self {
            Self::Tcp(listener) => Address::Tcp(local(listener)),
            Self::Serial(listener) => Address::Serial(local(listener)),
            Self::Noise(listener) => Address::Noise(local(listener)),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        }
    }

    /// Accepts for as long as it is polled, and gives each connection to `take`.
    pub(crate) async fn run(self, mut take: impl FnMut(Accepted)) {
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream))
                }
                Self::Serial(listener) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Serial(stream))
                }
                Self::Noise(listener) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Noise(stream))
                }
                Self::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| Accepted::Unix(Stream::Unix(stream)))
                }
            };
            match accepted {
                Ok(accepted) => take(accepted),
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
pub(crate) enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(Stream),
    Serial(tokio::net::TcpStream),
    Noise(tokio::net::TcpStream),
}

impl Accepted {
    /// Makes a stream of it; with TLS or Noise answers the name that the peer's certificate or key
    /// carries, too.
    ///
    /// # Errors
    /// The handshake failed, or was not through within the deadline.
    pub(crate) async fn open(
        self,
        tls: Option<&Tls>,
        noise: Option<&Noise>,
        handshake: Duration,
    ) -> io::Result<(Stream, Option<Name>)> {
        match self {
            Self::Noise(stream) => Stream::answering(stream, noise, handshake).await,
            Self::Tcp(stream) => Stream::accepted(stream, tls, handshake).await,
            Self::Unix(stream) => Ok((stream, None)),
            Self::Serial(stream) => Stream::serial(stream).map(|stream| (stream, None)),
        }
    }
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
