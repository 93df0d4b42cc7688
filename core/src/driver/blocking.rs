//! A turn over `embedded-io`: nothing waits but writes.

use embedded_io::{Read, ReadReady, Write};

use super::{CHUNK_BYTES, Session, Step, Store, Turn};
use crate::time::Instant;

/// Most chunks that one turn reads, so that a line that never falls silent does not keep the
/// application from its work.
const CHUNKS_MAX: usize = 16;

/// Does what is due, then takes what the line has, then does what that makes due. `now` reads the
/// driver's clock. After [`Turn::Wait`] the caller may sleep until that time or until the line has
/// bytes.
///
/// # Errors
/// What the line says. [`Session::disconnected`] is for the caller to tell, where the line does not
/// come back by itself.
pub fn turn<L, S>(
    session: &mut Session<'_>,
    line: &mut L,
    store: &mut S,
    mut now: impl FnMut() -> Instant,
) -> Result<Turn, L::Error>
where
    L: Read + ReadReady + Write,
    S: Store,
{
    let mut turn = settle(session, line, store, &mut now)?;
    for _ in 0..CHUNKS_MAX {
        let room = session.room().min(CHUNK_BYTES);
        if !matches!(turn, Turn::Wait(_)) || room == 0 || !line.read_ready()? {
            return Ok(turn);
        }
        let mut chunk = [0; CHUNK_BYTES];
        let count = line.read(&mut chunk[..room])?;
        let mut rest = &chunk[..count];
        while !rest.is_empty() && matches!(turn, Turn::Wait(_)) {
            let taken = session.receive(now(), rest);
            rest = &rest[taken..];
            turn = settle(session, line, store, &mut now)?;
        }
        if count == 0 {
            return Ok(session.at_end(turn));
        }
    }
    // There is more to read.
    Ok(Turn::Wait(Some(now())))
}

/// Writes until there is nothing more to write.
fn settle<L, S>(
    session: &mut Session<'_>,
    line: &mut L,
    store: &mut S,
    now: &mut impl FnMut() -> Instant,
) -> Result<Turn, L::Error>
where
    L: Write,
    S: Store,
{
    loop {
        match session.step(now(), store) {
            Step::Write => line.write_all(session.output())?,
            Step::Done(turn) => {
                line.flush()?;
                return Ok(turn);
            }
        }
    }
}
