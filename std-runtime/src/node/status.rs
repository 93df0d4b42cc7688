//! What a running node says of itself.

use std::collections::BTreeMap;

use replcore::contract::LinkId;
use replcore::lease::{LeaseSlot, LeaseState};
use replcore::stream::{CLASSES, Name, NodeId, QueueId, QueueKey};

use super::host::{Host, NodeEngine};
use crate::api::{NodeStatus, Reply, Status};
use crate::noise::NoiseCounters;
use crate::options::NodeRole;
use crate::store::Store;

/// Most nodes in one answer.
const NODES_MAX: usize = 1000;

impl Host {
    pub(super) fn nodes(&self, after: Option<&str>, limit: Option<u32>) -> Reply {
        let limit = limit.map_or(100, |limit| limit as usize).clamp(1, NODES_MAX);
        let engine = self.reactor.engine.borrow();
        let after = after.unwrap_or_default();
        let mut slots: Vec<(Name, &LeaseSlot)> = engine
            .machine()
            .leases()
            .leaves()
            .filter_map(|slot| Some((slot.registration()?.name, slot)))
            .filter(|(name, _)| name.as_str() > after)
            .collect();
        slots.sort_unstable_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let more = slots.len() > limit;
        slots.truncate(limit);
        let status = |(name, slot): &(Name, &LeaseSlot)| node_status(&engine, name, slot);
        Reply::Nodes { nodes: slots.iter().map(status).collect(), more }
    }

    pub(super) fn status(&self) -> Status {
        let options = self.options.borrow();
        let places = self.places.borrow();
        let engine = self.reactor.engine.borrow();
        let identity = engine.store().identity();
        let dialed = options.upstream_names().into_iter();
        let upstreams: BTreeMap<String, String> = dialed
            .chain(options.called_by)
            .zip(places.iter())
            .map(|(name, state)| (name.as_str().to_owned(), state.clone()))
            .collect();
        let standbys = self.lead.get().map(|lead| lead.states(engine.store()));
        let ready = !self.stopping.get()
            && engine.stopped().is_none()
            && (options.role == NodeRole::Hub
                || upstreams.values().all(|state| state == "registered"));
        Status {
            name: options.name.as_str().to_owned(),
            role: options.role.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: identity.epoch.0,
            uptime_ms: self.start.elapsed().as_millis() as u64,
            ready,
            upstreams,
            standbys: standbys.unwrap_or_default(),
            links: self.reactor.links_open().into(),
            log_bytes: engine.store().log_bytes(),
            ordinals: engine.store().ordinals(),
            counters: self.counters(&engine),
        }
    }

    fn counters(&self, engine: &NodeEngine) -> BTreeMap<String, u64> {
        let (store, of_engine) = (engine.store().counters(), engine.counters());
        let node = engine.machine().stats();
        let noise = |of: fn(&NoiseCounters) -> u64| {
            self.noise.as_ref().map_or(0, |noise| of(noise.counters()))
        };
        [
            ("registered", node.registered),
            ("renewed", node.renewed),
            ("expired", node.expired),
            ("peers_refused", node.refused),
            ("fetched", of_engine.records_fetched),
            ("stored", store.records_stored),
            ("stored_bytes", store.record_bytes_stored),
            ("dispatched", engine.router().dispatched()),
            ("delivered", of_engine.records_delivered),
            ("retried", node.link.repeated + store.records_known),
            ("dropped", store.dropped),
            ("messages_expired", store.expired),
            ("purged", store.purged),
            ("lost", store.lost),
            ("skipped", store.skipped),
            ("store_refused", store.refused + of_engine.records_refused),
            ("store_not_admitted", of_engine.records_not_admitted),
            ("store_records_known", store.records_known),
            ("store_posts_known", store.posts_known),
            ("store_records_corrupt", store.records_corrupt),
            ("store_commits", store.commits),
            ("store_written_bytes", store.log_bytes_written),
            ("store_sync_microseconds", store.sync_us),
            ("store_records_moved", store.records_moved),
            ("store_segments_freed", store.segments_freed),
            ("store_segments_quarantined", store.segments_quarantined),
            ("store_queues_refused", store.queues_refused),
            ("link_frames_repeated", node.link.repeated),
            ("link_terms_over", node.link.terms_over),
            ("noise_links", noise(|of| of.links.get())),
            ("noise_strangers", noise(|of| of.strangers.get())),
            ("noise_packets_refused", noise(|of| of.packets_refused.get())),
            ("records_frames_sent", of_engine.records_frames_sent),
            ("records_frames_received", of_engine.records_frames_received),
            ("compression_saved_bytes", of_engine.compressed_bytes_saved),
            ("calls", of_engine.calls_received),
            ("calls_too_long", of_engine.calls_too_long),
            ("turns", self.reactor.turns()),
        ]
        .into_iter()
        .chain(self.reactor.counters.figures(&node.link))
        .chain(self.lead.get().into_iter().flat_map(|lead| lead.figures(engine.store())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Whether all that connected readers are to get has been acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.undelivered().is_empty()
    }

    /// What connected readers have not acknowledged, by queue.
    pub(super) fn undelivered(&self) -> Vec<(String, u64)> {
        let engine = self.reactor.engine.borrow();
        let store = engine.store();
        let waiting = |queue: QueueId| -> u64 {
            (0..CLASSES as u8)
                .filter_map(|class| store.holding(QueueKey { queue, class }))
                .map(|holding| holding.next.0 - holding.released.0)
                .sum()
        };
        let mut queues: Vec<QueueId> =
            engine.read_queues().filter(|queue| waiting(*queue) > 0).collect();
        queues.dedup();
        let name = |queue: QueueId| {
            let options = self.options.borrow();
            let mut upstreams =
                options.upstreams.iter().map(|peer| peer.name).chain(options.called_by);
            let upstream = upstreams.find(|name| name.queue_id() == queue);
            let text = upstream.map(|name| name.as_str().to_owned());
            text.unwrap_or_else(|| self.name_in(&engine, queue))
        };
        queues.into_iter().map(|queue| (name(queue), waiting(queue))).collect()
    }

    fn name_in(&self, engine: &NodeEngine, queue: QueueId) -> String {
        let slot = engine.machine().leases().find(NodeId(queue.0));
        let leaf = slot.and_then(LeaseSlot::registration);
        let consumers = engine.store().consumers();
        let is = |text: &str| Name::new(text).is_ok_and(|name| name.queue_id() == queue);
        match leaf {
            Some(leaf) => leaf.name.as_str().to_owned(),
            None => consumers
                .into_iter()
                .find(|consumer| is(&consumer.name))
                .map_or_else(|| format!("#{:016x}", queue.0), |consumer| consumer.name),
        }
    }
}

fn node_status(engine: &NodeEngine, name: &Name, slot: &LeaseSlot) -> NodeStatus {
    let link: Option<LinkId> = slot.link();
    let state = match (slot.state(), link) {
        (LeaseState::Held, Some(_)) => "live",
        (LeaseState::Held, None) => "silent",
        (LeaseState::Expired, _) => "expired",
    };
    let lease_left_ms = match slot.state() {
        LeaseState::Held => slot.until().millis_since(engine.now()),
        LeaseState::Expired => 0,
    };
    let registration = slot.registration();
    let address = registration.and_then(|registration| registration.address);
    let peer = link.and_then(|link| engine.machine().peer(link));
    let queue = engine.store().queue(engine.wall_ms(), name);
    NodeStatus {
        name: name.as_str().to_owned(),
        state: state.to_owned(),
        address: address.map_or_else(String::new, |address| address.as_str().to_owned()),
        lease_left_ms,
        round_trip_us: peer.map_or(0, |peer| peer.round_trip_us.into()),
        queued: queue.as_ref().map_or(0, |queue| queue.messages.iter().sum()),
        delivered_total: queue.as_ref().map_or(0, |queue| queue.acknowledged_total),
        fetched_total: engine.fetched(name.node_id()),
    }
}
