//! A serial line that a server brings to TCP, or a device that speaks over TCP as over a line: COBS packets,
//! each one frame with its checksum, and with keys each of them sealed.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use replcore::stream::Name;
use replcore::transport::cobs::{self, Decoder};
use replcore::transport::noise::{HEAD_BYTES, OVERHEAD_BYTES};
use replcore::wire::{FRAME_BYTES_MAX, HEADER_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::secure::{Came, Secure};
use crate::noise::Noise;

const READ_BYTES: usize = 4096;
/// While this much waits to be written, start packets are not answered.
const UNWRITTEN_BYTES_MAX: usize = 1024;

/// Frames over a line that may damage or lose them.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    decoder: Decoder,
    /// The packet being received. Room for the longest; what is not used costs no memory.
    frame: Vec<u8>,
    /// Bytes of the line that were read and not decoded.
    input: Vec<u8>,
    input_at: usize,
    /// The packet being written.
    output: Vec<u8>,
    output_at: usize,
    secure: Option<Secure>,
    /// A link has begun, with who is there and its first frame, and was not taken yet.
    began: Option<Name>,
    first: Option<Range<usize>>,
}

/// What a line brings.
enum Brought {
    Frame(Range<usize>),
    /// A link begins: take it by [`Line::link`].
    Link,
    End,
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let packet = FRAME_BYTES_MAX as usize + OVERHEAD_BYTES;
        Self {
            stream,
            decoder: Decoder::new(),
            frame: vec![0; cobs::decode_buffer_bytes(packet)],
            input: Vec::new(),
            input_at: 0,
            // Ends what noise or an earlier life has begun.
            output: vec![cobs::DELIMITER],
            output_at: 0,
            secure: None,
            began: None,
            first: None,
        }
    }

    /// A line at whose other end somebody begins a handshake.
    pub(crate) fn answering(stream: TcpStream, noise: &Noise) -> Self {
        Self { secure: Some(Secure::answering(noise)), ..Self::new(stream) }
    }

    /// A line on which this node, `own`, begins a handshake with `hub`.
    ///
    /// # Errors
    /// There is no key for it.
    pub(crate) fn beginning(
        stream: TcpStream,
        noise: &Noise,
        own: Name,
        hub: Name,
    ) -> io::Result<Self> {
        let (secure, start) = Secure::beginning(noise, own, hub).map_err(io::Error::other)?;
        let mut line = Self { secure: Some(secure), ..Self::new(stream) };
        line.add_packet(&start);
        Ok(line)
    }

    /// Waits for the next link of a line with keys, and answers who is there.
    ///
    /// # Errors
    /// The line has ended, or whoever is there has not the keys.
    pub(crate) async fn link(&mut self) -> io::Result<Name> {
        poll_fn(|cx| {
            if let Some(name) = self.began.take() {
                return Poll::Ready(Ok(name));
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            loop {
                match ready!(self.poll_packet(cx))? {
                    Brought::Link => {
                        let name = self.began.take().ok_or(io::ErrorKind::InvalidData)?;
                        return Poll::Ready(Ok(name));
                    }
                    Brought::End => {
                        let text =
                            "the line ended in the Noise handshake; are both ends set up for it?";
                        return Poll::Ready(Err(io::Error::other(text)));
                    }
                    Brought::Frame(_) => {}
                }
            }
        })
        .await
    }

    /// Whether another link has begun in place of the one that has ended: see [`Self::link`].
    pub(crate) const fn has_link(&self) -> bool {
        self.began.is_some()
    }

    /// Reads one whole frame into `buf`, which has room for the longest; 0 at the end of the line, and
    /// where another link begins.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.has_link() {
                return Poll::Ready(Ok(0));
            }
            let brought = match self.first.take() {
                Some(frame) => Brought::Frame(frame),
                None => ready!(self.poll_packet(cx))?,
            };
            let Brought::Frame(frame) = brought else { return Poll::Ready(Ok(0)) };
            let frame = &self.frame[frame];
            // The machine is promised that a datagram is one frame, and a body its rest.
            if frame_length(frame) == Some(frame.len()) && frame.len() <= buf.len() {
                buf[..frame.len()].copy_from_slice(frame);
                return Poll::Ready(Ok(frame.len()));
            }
        }
    }

    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Brought>> {
        loop {
            let taken = self.decoder.take(&self.input[self.input_at..], &mut self.frame);
            self.input_at += taken.bytes;
            if let Some(len) = taken.frame {
                match self.unpack(cx, len)? {
                    Some(brought) => return Poll::Ready(Ok(brought)),
                    None => continue,
                }
            }
            self.input.resize(READ_BYTES, 0);
            self.input_at = 0;
            let mut space = ReadBuf::new(&mut self.input);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut space);
            let bytes = space.filled().len();
            self.input.truncate(bytes);
            ready!(polled)?;
            if bytes == 0 {
                return Poll::Ready(Ok(Brought::End));
            }
        }
    }

    /// What the packet of `len` bytes in `frame` comes to.
    fn unpack(&mut self, cx: &mut Context<'_>, len: usize) -> io::Result<Option<Brought>> {
        let Some(secure) = &mut self.secure else { return Ok(Some(Brought::Frame(0..len))) };
        match secure.take(&mut self.frame[..len]).map_err(io::Error::other)? {
            Came::Frame(frame) => Ok(Some(Brought::Frame(frame))),
            Came::Link(name, first) => {
                (self.began, self.first) = (Some(name), first);
                Ok(Some(Brought::Link))
            }
            Came::Answer(packet) => {
                if self.output.len() - self.output_at <= UNWRITTEN_BYTES_MAX {
                    self.add_packet(&packet);
                    // What does not go out now goes out before the next frame.
                    let _ = self.poll_flush(cx)?;
                }
                Ok(None)
            }
            Came::Nothing => Ok(None),
        }
    }

    /// Adds a packet to what is to be written.
    fn add_packet(&mut self, content: &[u8]) {
        let at = self.output.len();
        self.output.resize(at + cobs::encoded_bytes_max(content.len()), 0);
        let len = cobs::encode(content, &mut self.output[at..]).unwrap_or(0);
        self.output.truncate(at + len);
    }

    /// Takes the first frame of `bytes`, when the one before it is out.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let Some(frame) = frame_length(bytes).and_then(|len| bytes.get(..len)) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        self.output.clear();
        self.output_at = 0;
        match &mut self.secure {
            None => self.add_packet(frame),
            Some(secure) => {
                let mut packet = vec![0; frame.len() + OVERHEAD_BYTES];
                packet[HEAD_BYTES..][..frame.len()].copy_from_slice(frame);
                secure.seal(&mut packet, frame.len()).map_err(io::Error::other)?;
                self.add_packet(&packet);
            }
        }
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(frame.len()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output_at < self.output.len() {
            let rest = &self.output[self.output_at..];
            let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output_at += bytes;
        }
        Poll::Ready(Ok(()))
    }
}

/// The length that a frame gives itself.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let payload = bytes.get(..HEADER_BYTES)?.first_chunk::<4>()?;
    (u32::from_le_bytes(*payload) as usize).checked_add(HEADER_BYTES)
}
