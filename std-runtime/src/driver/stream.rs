//! One byte stream, whatever carries it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use replcore::contract::Transport;
use replcore::stream::Name;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::line::Line;
use crate::noise::Noise;
use crate::options::Address;
use crate::tls::Tls;

/// An open connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    Serial(Box<Line>),
}

const LATE: &str = "no answer within the deadline";

async fn connect_tcp(address: &str, connect: Duration) -> io::Result<TcpStream> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, LATE);
    tokio::time::timeout(connect, TcpStream::connect(address)).await.map_err(late)?
}

impl Stream {
    /// Opens a connection; with TLS answers the name in the peer's certificate too.
    pub(crate) async fn dial(
        address: &Address,
        tls: Option<&Tls>,
        connect: Duration,
        handshake: Duration,
    ) -> io::Result<(Self, Option<Name>)> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, LATE);
        match address {
            Address::Unix(path) => {
                let stream = tokio::time::timeout(connect, UnixStream::connect(path))
                    .await
                    .map_err(late)??;
                Ok((Self::Unix(stream), None))
            }
            Address::Noise(_) => {
                Err(io::Error::other("only a node dials with Noise; a program takes TLS"))
            }
            Address::Serial(address) => {
                Ok((Self::serial(connect_tcp(address, connect).await?)?, None))
            }
            Address::Tcp(address) => {
                let stream = connect_tcp(address, connect).await?;
                stream.set_nodelay(true)?;
                let Some(tls) = tls else { return Ok((Self::Tcp(stream), None)) };
                let (stream, name) = tokio::time::timeout(handshake, Box::pin(tls.connect(stream)))
                    .await
                    .map_err(late)??;
                Ok((Self::Tls(Box::new(TlsStream::Client(stream))), Some(name)))
            }
        }
    }

    /// Makes the best of an accepted TCP connection; with TLS answers the peer's name too.
    pub(crate) async fn accepted(
        stream: TcpStream,
        tls: Option<&Tls>,
        handshake: Duration,
    ) -> io::Result<(Self, Option<Name>)> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no handshake within the deadline");
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok((Self::Tcp(stream), None)) };
        // In a box, so that every task of a plain link does not keep room for a handshake.
        let (stream, name) =
            tokio::time::timeout(handshake, Box::pin(tls.accept(stream))).await.map_err(late)??;
        Ok((Self::Tls(Box::new(TlsStream::Server(stream))), Some(name)))
    }

    /// Opens a connection to `hub`, on which this node, `own`, begins a Noise handshake.
    pub(crate) async fn beginning(
        address: &str,
        noise: &Noise,
        (own, hub): (Name, Name),
        connect: Duration,
        handshake: Duration,
    ) -> io::Result<(Self, Option<Name>)> {
        let stream = connect_tcp(address, connect).await?;
        stream.set_nodelay(true)?;
        Self::link(Line::beginning(stream, noise, own, hub)?, handshake).await
    }

    /// A connection at whose other end somebody begins a Noise handshake.
    pub(crate) async fn answering(
        stream: TcpStream,
        noise: Option<&Noise>,
        handshake: Duration,
    ) -> io::Result<(Self, Option<Name>)> {
        let noise = noise.ok_or_else(|| io::Error::other("there are no keys for Noise"))?;
        stream.set_nodelay(true)?;
        Self::link(Line::answering(stream, noise), handshake).await
    }

    /// Opens a connection at whose other end somebody begins a Noise handshake.
    pub(crate) async fn dial_answering(
        address: &str,
        noise: &Noise,
        connect: Duration,
        handshake: Duration,
    ) -> io::Result<(Self, Option<Name>)> {
        Self::answering(connect_tcp(address, connect).await?, Some(noise), handshake).await
    }

    async fn link(mut line: Line, handshake: Duration) -> io::Result<(Self, Option<Name>)> {
        let late = |_| {
            let text = "no Noise handshake within the deadline; are both ends set up for it?";
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let name = tokio::time::timeout(handshake, line.link()).await.map_err(late)??;
        Ok((Self::Serial(Box::new(line)), Some(name)))
    }

    /// Who is at the other end of the link that has begun in place of the one that has ended; `None` when
    /// none has.
    pub(crate) async fn next_link(&mut self) -> Option<Name> {
        match self {
            Self::Serial(line) if line.has_link() => line.link().await.ok(),
            _ => None,
        }
    }

    /// A serial line that is brought to this TCP connection.
    pub(crate) fn serial(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Serial(Box::new(Line::new(stream))))
    }

    /// What it does to frames. On a datagram link each read brings one whole frame.
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => Transport::Stream,
            Self::Serial(_) => Transport::Datagram,
        }
    }

    /// Reads into `buf`; 0 at the end of the stream.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Self::Serial(line) = self {
            return line.poll_read(cx, buf);
        }
        let mut buf = ReadBuf::new(buf);
        let polled = match self {
            Self::Serial(_) => Poll::Ready(Ok(())),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buf),
        };
        polled.map_ok(|()| buf.filled().len())
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Serial(line) => line.poll_write(cx, bytes),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Serial(line) => line.poll_flush(cx),
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }
}
