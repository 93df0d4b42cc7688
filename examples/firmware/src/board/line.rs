//! The serial port as `embedded-io` has it.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write};

use super::port;

/// The serial line.
pub struct Line;

impl ErrorType for Line {
    type Error = Infallible;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(port::has_byte())
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        while !port::has_byte() {}
        let mut count = 0;
        while let Some(place) = bytes.get_mut(count)
            && port::has_byte()
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
