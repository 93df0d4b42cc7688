//! A turn over `embedded-io-async`, under any executor.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use embedded_io_async::{Read, Write};

use super::{CHUNK_BYTES, Session, Step, Store, Turn};
use crate::time::Instant;

/// Does what is due, then waits for the line or for `wait`, whichever is first, and does what that
/// makes due. `now` reads the driver's clock; `wait` is given the time until which there is nothing
/// to do, and may end earlier, as when the application has posted something.
///
/// Dropped while it waits, it has lost nothing if the line's `read` has not. Dropped while it writes, it
/// leaves a frame in pieces: a serial line recovers, another has to be closed.
///
/// # Errors
/// What the line says. [`Session::disconnected`] is for the caller to tell, where the line does not
/// come back by itself.
pub async fn turn<L, S, W>(
    session: &mut Session<'_>,
    line: &mut L,
    store: &mut S,
    mut now: impl FnMut() -> Instant,
    wait: impl FnOnce(Option<Instant>) -> W,
) -> Result<Turn, L::Error>
where
    L: Read + Write,
    S: Store,
    W: Future<Output = ()>,
{
    let mut turn = settle(session, line, store, &mut now).await?;
    let Turn::Wait(wake) = turn else { return Ok(turn) };
    let mut chunk = [0; CHUNK_BYTES];
    let room = session.room().min(CHUNK_BYTES);
    let count = {
        let mut read = pin!(line.read(&mut chunk[..room]));
        let mut wait = pin!(wait(wake));
        poll_fn(|context| {
            if room > 0
                && let Poll::Ready(count) = read.as_mut().poll(context)
            {
                return Poll::Ready(Some(count));
            }
            wait.as_mut().poll(context).map(|()| None)
        })
        .await
    };
    let Some(count) = count.transpose()? else {
        return settle(session, line, store, &mut now).await;
    };
    if count == 0 {
        return Ok(session.at_end(turn));
    }
    let mut rest = &chunk[..count];
    while !rest.is_empty() && matches!(turn, Turn::Wait(_)) {
        let taken = session.receive(now(), rest);
        rest = &rest[taken..];
        turn = settle(session, line, store, &mut now).await?;
    }
    Ok(turn)
}

/// Writes until there is nothing more to write.
async fn settle<L, S>(
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
            Step::Write => line.write_all(session.output()).await?,
            Step::Done(turn) => {
                line.flush().await?;
                return Ok(turn);
            }
        }
    }
}
