//! The serial port as `embedded-io` has it.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use replcore::driver::Framing;

use super::{Clock, port};

/// What stands between the frames of the link and the bytes of the line.
pub const FRAMING: Framing = Framing::Cobs;

/// The serial line. It is always there: nothing has to be opened.
pub struct Line;

impl Line {
    pub const fn new(_: Clock, _: u64) -> Self {
        Self
    }

    pub const fn open(&mut self) {}

    pub const fn opened(&mut self) -> Option<bool> {
        None
    }

    pub const fn close(&mut self) {}
}

impl ErrorType for Line {
    type Error = Infallible;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(port::has_input())
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        while !port::has_input() {}
        let mut count = 0;
        while let Some(place) = bytes.get_mut(count)
            && port::has_input()
        {
            *place = port::receive();
            count += 1;
        }
        Ok(count)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        bytes.iter().for_each(|&byte| port::send(byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
