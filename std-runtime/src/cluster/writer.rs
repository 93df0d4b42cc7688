//! The thread that writes what a member keeps, so that a slow disk does not hold up its heartbeats.

use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use replcore::contract::{Failure, Token};
use tokio::sync::mpsc;

use super::state::StateFolder;
use crate::engine::Persist;

/// Orders that may wait. A member has one under way for each of its two keys.
const ORDERS_MAX: usize = 8;

/// A write that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) token: Token,
    pub(super) outcome: Result<(), Failure>,
}

/// Takes orders to write.
pub(super) struct Writer {
    orders: std_mpsc::SyncSender<Persist>,
}

impl Writer {
    /// Starts the thread. While `stall_file` exists it writes nothing. It ends when the writer is
    /// dropped; when the second answer brings nothing more, the folder is free.
    ///
    /// # Errors
    /// There is no thread; in one line.
    pub(super) fn start(
        mut state: StateFolder,
        stall_file: Option<PathBuf>,
    ) -> Result<(Self, mpsc::Receiver<Written>), String> {
        let (orders, waiting) = std_mpsc::sync_channel::<Persist>(ORDERS_MAX);
        let (written, done) = mpsc::channel(ORDERS_MAX);
        let write = move || {
            while let Ok(order) = waiting.recv() {
                wait_while_stalled(stall_file.as_deref());
                let (token, outcome) = match order {
                    Persist::Keep { key, token, record } => {
                        (Some(token), state.write(key, &record))
                    }
                    Persist::Forget { key } => (None, state.forget(key)),
                };
                if let Err(error) = &outcome {
                    tracing::error!("cannot write to the data folder: {error}");
                }
                let outcome = outcome.map_err(|error| match error.kind() {
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                        Failure::Full
                    }
                    _ => Failure::Io,
                });
                let Some(token) = token else { continue };
                if written.blocking_send(Written { token, outcome }).is_err() {
                    break;
                }
            }
            drop(state);
            drop(written);
        };
        std::thread::Builder::new()
            .name("cluster writer".into())
            .spawn(write)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok((Self { orders }, done))
    }

    /// Has the thread carry out an order. Answers the token of one that there is no room for.
    pub(super) fn order(&self, order: Persist) -> Option<Token> {
        let refused = match self.orders.try_send(order) {
            Ok(()) => return None,
            Err(
                std_mpsc::TrySendError::Full(order) | std_mpsc::TrySendError::Disconnected(order),
            ) => order,
        };
        match refused {
            Persist::Keep { token, .. } => Some(token),
            Persist::Forget { .. } => None,
        }
    }
}

fn wait_while_stalled(file: Option<&Path>) {
    while file.is_some_and(Path::exists) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
