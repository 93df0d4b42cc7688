//! Keys of times and bounds: leases, deadlines, memory and disk, standbys.

use super::{
    BYTES, Field, HOUR_MS, Key, Kind, LONG_MS, MS, anything, host_port_or_nothing, integer,
    name_or_nothing, peer,
};

pub(super) const LEASE: &[Key] = &[
    Key {
        name: "register_ms",
        kind: integer(MS, 100, LONG_MS),
        meaning: "How often a leaf registers again.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.lease.register_ms),
    },
    Key {
        name: "lease_ms",
        kind: integer(MS, 200, LONG_MS),
        meaning: "How long a registration holds; at a hub the most that it grants.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.lease.lease_ms),
    },
    Key {
        name: "admissions_per_second",
        kind: integer("links per second", 1, 100_000),
        meaning: "Links that a hub lets through the handshake; others are told when to come back.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.lease.admissions_per_second),
    },
];

pub(super) const DEADLINES: &[Key] = &[
    Key {
        name: "connect_ms",
        kind: integer(MS, 10, HOUR_MS),
        meaning: "Opening a connection.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.connect_ms),
    },
    Key {
        name: "handshake_ms",
        kind: integer(MS, 10, HOUR_MS),
        meaning: "From connection to working link, TLS included.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.handshake_ms),
    },
    Key {
        name: "reconnect_ms",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "First wait before dialling again; it grows, with jitter.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.reconnect_ms),
    },
    Key {
        name: "reconnect_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest wait before dialling again.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.reconnect_ms_max),
    },
    Key {
        name: "keepalive_ms",
        kind: integer(MS, 100, HOUR_MS),
        meaning: "An idle link says something this often; one silent three times as long is closed.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.keepalive_ms),
    },
    Key {
        name: "write_stall_ms",
        kind: integer(MS, 100, HOUR_MS),
        meaning: "A peer that takes none of the bytes written to it for so long is hung up.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.write_stall_ms),
    },
    Key {
        name: "drain_ms",
        kind: integer(MS, 0, HOUR_MS),
        meaning: "What a stop may take to hand over what is under way.",
        reload: true,
        field: |config| Field::U32(&mut config.numbers.deadlines.drain_ms),
    },
];

pub(super) const CONSUMERS: &[Key] = &[
    Key {
        name: "ack_wait_ms",
        kind: integer(MS, 100, LONG_MS),
        meaning: "A message neither acknowledged nor rejected for so long is delivered again.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.ack_wait_ms),
    },
    Key {
        name: "deliveries_max",
        kind: integer("deliveries", 1, 1_000_000),
        meaning: "After so many deliveries a message goes to the dead letters.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.deliveries_max),
    },
    Key {
        name: "outstanding_max",
        kind: integer("messages", 1, 1_000_000),
        meaning: "Messages delivered and not settled, of each consumer.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.outstanding_max),
    },
    Key {
        name: "consumers_max",
        kind: integer("consumers", 0, 100_000),
        meaning: "Most consumers.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.consumers.consumers_max),
    },
];

pub(super) const LIMITS: &[Key] = &[
    Key {
        name: "links_max",
        kind: integer("links", 0, 1_000_000),
        meaning: "Most links open at once, programs included. 0: 1,024 at a hub, 64 at a leaf.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.links_max),
    },
    Key {
        name: "accept_backlog",
        kind: integer("connections", 1, 65_535),
        meaning: "Connections that wait to be accepted.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.accept_backlog),
    },
    Key {
        name: "leaves_max",
        kind: integer("leaves", 0, 1_000_000),
        meaning: "Most leaves that a hub knows.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.leaves_max),
    },
    Key {
        name: "queues_max",
        kind: integer("queues", 1, 4_000_000),
        meaning: "Most queues: those of leaves, brokers, consumers and dead letters together.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.queues_max),
    },
    Key {
        name: "message_bytes_max",
        kind: integer(BYTES, 1, 64 << 20),
        meaning: "Largest message, all its attributes included.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.message_bytes_max),
    },
    Key {
        name: "frame_bytes_max",
        kind: integer(BYTES, 512, 1 << 20),
        meaning: "Longest frame this node takes; a larger message goes in several.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.frame_bytes_max),
    },
    Key {
        name: "link_buffer_bytes",
        kind: integer(BYTES, 1024, 1 << 30),
        meaning: "Bytes waiting to be written, of each busy link; at least two frames.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.link_buffer_bytes),
    },
    Key {
        name: "receive_window_bytes",
        kind: integer(BYTES, 1024, 1 << 30),
        meaning: "Bytes of messages under way to this node, of each stream.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.receive_window_bytes),
    },
    Key {
        name: "calls_max",
        kind: integer("calls", 1, 100_000),
        meaning: "Calls of programs at work at once.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.calls_max),
    },
    Key {
        name: "call_bytes_max",
        kind: integer(BYTES, 1024, 1 << 30),
        meaning: "Largest call or reply of a program.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.call_bytes_max),
    },
    Key {
        name: "log_bytes_max",
        kind: integer(BYTES, 1 << 20, 1 << 50),
        meaning: "Bytes of the log on disk; what no queue needs goes first, the oldest before the newer.",
        reload: false,
        field: |config| Field::U64(&mut config.numbers.limits.log_bytes_max),
    },
    Key {
        name: "segment_bytes",
        kind: integer(BYTES, 64 << 10, 1 << 30),
        meaning: "Bytes of one segment of the log; space is freed by whole segments.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.segment_bytes),
    },
    Key {
        name: "idempotency_keys_max",
        kind: integer("keys", 0, 100_000_000),
        meaning: "Idempotency keys that are remembered, the newest.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.limits.idempotency_keys_max),
    },
];

pub(super) const STANDBY: &[Key] = &[
    Key {
        name: "member",
        kind: Kind::Text { form: "name", check: name_or_nothing },
        meaning: "The name of this hub among those that hold the log. Empty: this hub has no standbys.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.member),
    },
    Key {
        name: "listen",
        kind: Kind::Text { form: "host:port", check: host_port_or_nothing },
        meaning: "Where the leading hub hands this one its log.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.listen),
    },
    Key {
        name: "peers",
        kind: Kind::Texts { form: "MEMBER@host:port", check: peer },
        meaning: "The other hubs, and where they listen for the log.",
        reload: false,
        field: |config| Field::Texts(&mut config.standby.peers),
    },
    Key {
        name: "acknowledge",
        kind: integer("hubs", 0, 7),
        meaning: "How many other hubs must have synced a message before it is acknowledged or passed on. With 0 \
                  what was acknowledged last is lost with the machine.",
        reload: false,
        field: |config| Field::U32(&mut config.standby.acknowledge),
    },
    Key {
        name: "election_listen",
        kind: Kind::Text { form: "host:port", check: host_port_or_nothing },
        meaning: "Where this hub listens for the members that decide who leads.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.election_listen),
    },
    Key {
        name: "election_members",
        kind: Kind::Texts { form: "MEMBER@host:port", check: peer },
        meaning: "The other members: the other hubs, and with two hubs a witness, which is `replcore cluster` \
                  with the name of the hub as that of the cluster.",
        reload: false,
        field: |config| Field::Texts(&mut config.standby.election_members),
    },
    Key {
        name: "election_cert",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "With TLS: the certificate of the member, whose name is `member`.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.election_cert),
    },
    Key {
        name: "election_key",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Its key.",
        reload: false,
        field: |config| Field::Text(&mut config.standby.election_key),
    },
];
