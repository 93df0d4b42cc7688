//! A serial line that a server brings to TCP: COBS packets, each one frame with its checksum.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use replcore::transport::cobs::{self, Decoder};
use replcore::wire::{FRAME_BYTES_MAX, HEADER_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const READ_BYTES: usize = 4096;

/// Frames over a line that may damage or lose them.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    decoder: Decoder,
    /// The frame being received. Room for the longest; what is not used costs no memory.
    frame: Vec<u8>,
    /// Bytes of the line that were read and not decoded.
    input: Vec<u8>,
    input_at: usize,
    /// The packet being written.
    output: Vec<u8>,
    output_at: usize,
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            frame: vec![0; cobs::decode_buffer_bytes(FRAME_BYTES_MAX as usize)],
            input: Vec::new(),
            input_at: 0,
            // Ends what noise or an earlier life has begun.
            output: vec![cobs::DELIMITER],
            output_at: 0,
        }
    }

    /// Reads one whole frame into `buf`, which has room for the longest; 0 at the end of the line.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = self.decoder.take(&self.input[self.input_at..], &mut self.frame);
            self.input_at += taken.bytes;
            if let Some(len) = taken.frame {
                // The machine is promised that a datagram is one frame, and a body its rest.
                if frame_length(&self.frame[..len]) == Some(len) && len <= buf.len() {
                    buf[..len].copy_from_slice(&self.frame[..len]);
                    return Poll::Ready(Ok(len));
                }
                continue;
            }
            self.input.resize(READ_BYTES, 0);
            self.input_at = 0;
            let mut space = ReadBuf::new(&mut self.input);
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut space);
            let bytes = space.filled().len();
            self.input.truncate(bytes);
            ready!(polled)?;
            if bytes == 0 {
                return Poll::Ready(Ok(0));
            }
        }
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
        self.output.resize(cobs::encoded_bytes_max(frame.len()), 0);
        let len = cobs::encode(frame, &mut self.output).unwrap_or(0);
        self.output.truncate(len);
        self.output_at = 0;
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
