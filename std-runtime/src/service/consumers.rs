//! Named consumers that fetch by calls: what they have and have not settled.

use std::collections::BTreeMap;

use replcore::contract::Machine;
use replcore::queue::consumer::{Entry, Next, Window, WindowConfig};
use replcore::stream::{CLASSES, Name, QueueKey, RecordId};
use replcore::time::Instant;

use super::messages::to_message;
use crate::api::StoredMessage;
use crate::engine::{Engine, Stopped};
use crate::options::ConsumerOptions;
use crate::store::Store;

/// The state of one consumer that fetches. Lost with the process; then what is not acknowledged is
/// delivered again.
#[derive(Debug)]
pub(super) struct Fetching {
    options: ConsumerOptions,
    windows: [Option<Window<Box<[Entry]>>>; CLASSES],
    /// What was delivered and not settled, by id.
    outstanding: BTreeMap<RecordId, (u8, u64)>,
    pub(super) redelivered_total: u64,
    pub(super) dead_total: u64,
}

/// What a fetch found.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) messages: Vec<StoredMessage>,
    /// When something outstanding is due again.
    pub(super) wake: Option<Instant>,
}

impl Fetching {
    pub(super) fn new(options: ConsumerOptions) -> Self {
        Self {
            options,
            windows: [const { None }; CLASSES],
            outstanding: BTreeMap::new(),
            redelivered_total: 0,
            dead_total: 0,
        }
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.windows.iter().flatten().map(|window| u64::from(window.outstanding())).sum()
    }

    /// Up to `limit` messages, urgent classes first, and no more than `bytes_max` after the first.
    pub(super) fn fetch<M: Machine, S: Store>(
        &mut self,
        engine: &mut Engine<M, S>,
        name: &Name,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fetched, Stopped> {
        let mut fetched = Fetched::default();
        let mut room = bytes_max;
        for class in 0..CLASSES as u8 {
            let key = QueueKey { queue: name.queue_id(), class };
            self.fetch_class(engine, key, limit, &mut room, &mut fetched)?;
        }
        Ok(fetched)
    }

    fn fetch_class<M: Machine, S: Store>(
        &mut self,
        engine: &mut Engine<M, S>,
        key: QueueKey,
        limit: usize,
        room: &mut usize,
        fetched: &mut Fetched,
    ) -> Result<(), Stopped> {
        let (now, wall_ms) = (engine.now(), engine.wall_ms());
        let Some(holding) = engine.store().holding(key) else { return Ok(()) };
        let slot = &mut self.windows[usize::from(key.class)];
        if slot.is_none() && holding.released == holding.next {
            return Ok(());
        }
        let options = &self.options;
        let window = slot.get_or_insert_with(|| {
            let config = WindowConfig {
                ack_wait_ms: options.ack_wait_ms,
                deliveries_max: options.deliveries_max.max(1),
            };
            let entries = options.outstanding_max.max(1) as usize;
            let memory = vec![Entry::default(); entries].into_boxed_slice();
            Window::new(config, holding.released, memory)
        });
        window.gone(holding.released);
        while fetched.messages.len() < limit && *room > 0 {
            match window.take(now, holding.next) {
                Next::Deliver { position, deliveries } => {
                    let mut found = None;
                    let there = engine.store_mut().entry(key, position, &mut |place, record| {
                        let message = to_message(record, place.ordinal, deliveries, wall_ms);
                        found = Some((record.id(), message));
                    });
                    there.map_err(Stopped::Store)?;
                    let Some((id, message)) = found else {
                        window.settle(position);
                        continue;
                    };
                    self.redelivered_total += u64::from(deliveries > 1);
                    *room = room.saturating_sub(message.message.body.0.len() + 256);
                    self.outstanding.insert(id, (key.class, position.0));
                    fetched.messages.push(message);
                }
                Next::Dead { position } => {
                    engine.store_mut().dead_letter(key, position).map_err(Stopped::Store)?;
                    engine.commit_soon();
                    self.dead_total += 1;
                }
                Next::Nothing { wake } => {
                    fetched.wake = [fetched.wake, wake].into_iter().flatten().min();
                    break;
                }
            }
        }
        let released = window.released();
        if released > holding.released {
            engine.store_mut().release(key, released);
        }
        let window = &*window;
        self.outstanding.retain(|_, (class, position)| {
            *class != key.class || window.is_outstanding(replcore::stream::Position(*position))
        });
        Ok(())
    }

    /// Settles one message, for good or to the dead letters. Whether it was outstanding.
    pub(super) fn settle<M: Machine, S: Store>(
        &mut self,
        engine: &mut Engine<M, S>,
        name: &Name,
        id: RecordId,
        reject: bool,
    ) -> Result<bool, Stopped> {
        let Some((class, position)) = self.outstanding.get(&id).copied() else { return Ok(false) };
        let key = QueueKey { queue: name.queue_id(), class };
        let position = replcore::stream::Position(position);
        let Some(window) = &mut self.windows[usize::from(class)] else { return Ok(false) };
        if reject && window.is_outstanding(position) {
            engine.store_mut().dead_letter(key, position).map_err(Stopped::Store)?;
            self.dead_total += 1;
        }
        self.outstanding.remove(&id);
        let before = window.released();
        let settled = window.settle(position);
        if window.released() > before {
            engine.store_mut().release(key, window.released());
        }
        engine.commit_soon();
        Ok(settled)
    }
}
