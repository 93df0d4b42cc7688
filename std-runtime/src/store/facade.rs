//! [`SegmentStore`] as a [`Store`].

use replcore::contract::{Failure, Key, LinkId, SkipReason, StreamIndex};
use replcore::log::record::Record;
use replcore::stream::{Cursor, Epoch, Name, Position, QueueId, QueueKey, RecordId, StreamKey};
use replcore::wire::Records;

use super::disk::Disk;
use super::embedded::SegmentStore;
use super::{
    Arrival, Consumer, Counters, Fill, Growth, Holding, Identity, Place, PostError, Posted, Purge,
    QueueInfo, QueueKind, QueueLimits, Route, Store,
};

impl<D: Disk> Store for SegmentStore<D> {
    fn identity(&self) -> Identity {
        self.log.identity
    }

    fn restore(&self, each: &mut dyn FnMut(Key, &[u8])) {
        self.restore_states(each);
    }

    fn post(
        &mut self,
        wall_ms: u64,
        bytes: &mut [u8],
        route: &mut dyn Route,
    ) -> Result<Posted, PostError> {
        self.post_record(wall_ms, bytes, route)
    }

    fn take(
        &mut self,
        wall_ms: u64,
        source: &StreamKey,
        records: &Records,
        bytes: &[u8],
        arrival: Arrival,
        route: &mut dyn Route,
    ) -> Result<(), Failure> {
        self.take_bytes(wall_ms, source, records, bytes, arrival, route)
    }

    fn take_skip(
        &mut self,
        source: &StreamKey,
        first: Position,
        next: Position,
        _reason: SkipReason,
    ) -> Result<(), Failure> {
        self.take_gap(source, first, next)
    }

    fn place(&mut self, source: &StreamKey, position: Position) -> Result<(), Failure> {
        self.place_stream(source, position)
    }

    fn inbound(&mut self, source: &StreamKey) -> (Epoch, Cursor) {
        self.inbound_cursor(source)
    }

    fn ensure_queue(&mut self, name: &Name, kind: QueueKind) -> Result<QueueId, PostError> {
        self.ensure(name, kind).map(|_| name.queue_id())
    }

    fn watch(&mut self, queue: QueueKey, link: LinkId, stream: StreamIndex) -> Option<Holding> {
        self.watch_lane(queue, link, stream)
    }

    fn holding(&self, queue: QueueKey) -> Option<Holding> {
        let queue_of = self.queues.get(self.queues.slot(queue.queue)?)?;
        let lane = queue_of.lanes.get(usize::from(queue.class))?;
        Some(lane.holding())
    }

    fn unwatch(&mut self, link: LinkId) {
        self.unwatch_link(link);
    }

    fn grown(&mut self) -> Option<Growth> {
        self.grown.pop_front()
    }

    fn fill(
        &mut self,
        wall_ms: u64,
        queue: QueueKey,
        first: Cursor,
        bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<Fill, Failure> {
        self.fill_bytes(wall_ms, queue, first, bytes_max, out)
    }

    fn place_reader(&mut self, queue: QueueKey, epoch: Epoch, position: Position) -> Position {
        Self::place_reader(self, queue, epoch, position)
    }

    fn release(&mut self, queue: QueueKey, through: Position) {
        self.release_entries(queue, through);
    }

    fn dead_letter(&mut self, queue: QueueKey, position: Position) -> Result<(), Failure> {
        self.add_dead_letter(queue, position)
    }

    fn persist(&mut self, key: Key, state: &[u8]) -> Result<(), Failure> {
        self.persist_state(key, state)
    }

    fn forget(&mut self, key: Key) {
        self.forget_state(key);
    }

    fn maintain(&mut self, wall_ms: u64) -> Result<(), Failure> {
        self.maintain_all(wall_ms)
    }

    fn set_limits(&mut self, default: QueueLimits, named: &[(Name, QueueLimits)]) {
        self.queues.set_limits(default, named);
    }

    fn put_setting(&mut self, name: &str, value: &[u8]) -> Result<(), Failure> {
        self.put_setting_value(name, value)
    }

    fn setting(&self, name: &str) -> Option<&[u8]> {
        self.settings.get(name).map(Vec::as_slice)
    }

    fn queue(&self, wall_ms: u64, name: &Name) -> Option<QueueInfo> {
        self.queues.called(name).map(|queue| self.info(wall_ms, queue))
    }

    fn queues(&self, wall_ms: u64, after: Option<&str>, limit: usize) -> Vec<QueueInfo> {
        self.infos(wall_ms, after, limit)
    }

    fn peek(
        &mut self,
        queue: QueueId,
        skip: u64,
        limit: usize,
        each: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<(), Failure> {
        self.peek_entries(queue, skip, limit, each)
    }

    fn purge(&mut self, queue: QueueId, ids: Option<&[RecordId]>) -> Result<Purge, Failure> {
        self.purge_entries(queue, ids)
    }

    fn forget_queue(&mut self, queue: QueueId) -> bool {
        self.remove_queue(queue)
    }

    fn entry(
        &mut self,
        queue: QueueKey,
        position: Position,
        each: &mut dyn FnMut(Place, &Record<'_>),
    ) -> Result<bool, Failure> {
        self.entry_at(queue, position, each)
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        each: &mut dyn FnMut(u64, &Record<'_>) -> bool,
    ) -> Result<u64, Failure> {
        self.read_from(from, self.visible_ordinal(), bytes_max, each)
    }

    fn latest(
        &mut self,
        message_type: &str,
        key: &[u8],
        each: &mut dyn FnMut(u64, &Record<'_>),
    ) -> Result<bool, Failure> {
        self.latest_of(message_type, key, each)
    }

    fn create_consumer(
        &mut self,
        wall_ms: u64,
        consumer: &Consumer,
        from_start: bool,
    ) -> Result<QueueId, PostError> {
        self.make_consumer(wall_ms, consumer, from_start)
    }

    fn consumers(&self) -> Vec<Consumer> {
        self.consumers.iter().map(|consumer| consumer.0.clone()).collect()
    }

    fn remove_consumer(&mut self, name: &Name) -> bool {
        self.drop_consumer(name)
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn ordinals(&self) -> [u64; 2] {
        let first = self.log.segments.front().map_or(0, |first| first.first_ordinal);
        [first, self.visible_ordinal()]
    }

    fn close(&mut self) -> Result<(), Failure> {
        if self.is_dirty() {
            self.commit_pending()?;
        }
        if self.failed {
            return Err(Failure::Io);
        }
        self.checkpoint()?;
        if !self.config.sync {
            self.log.sync_all().map_err(|_| Failure::Io)?;
        }
        Ok(())
    }

    fn dirty(&self) -> bool {
        self.is_dirty()
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.commit_all()
    }

    fn committed_number(&self) -> u64 {
        self.replica.committed_number()
    }

    fn show_through(&mut self, number: u64) -> u64 {
        self.show_replicated(number)
    }
}
