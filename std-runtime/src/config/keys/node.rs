//! Keys of the node itself: who it is, whom it knows, who may speak to it.

use super::{
    BYTES, Field, HOUR_MS, Key, Kind, LONG_MS, MS, address, advertised, anything, host_port,
    integer, name_or_nothing, node_name, peer,
};

pub(super) const NODE: &[Key] = &[
    Key {
        name: "role",
        kind: Kind::Choice(&["hub", "leaf"]),
        meaning: "What the node is: a hub takes registrations and dispatches, a leaf registers at its brokers.",
        reload: false,
        field: |config| Field::Text(&mut config.role),
    },
    Key {
        name: "name",
        kind: Kind::Text { form: "1 to 63 letters, digits, . _ - : /", check: name_or_nothing },
        meaning: "The node's name, unique among all nodes. Empty: `hub` for a hub; a leaf must have one.",
        reload: false,
        field: |config| Field::Text(&mut config.name),
    },
    Key {
        name: "data_folder",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Where the node keeps its data. Empty: a folder of its name in $REPLCORE_DATA, else in \
                  $XDG_DATA_HOME/replcore, else in ~/.local/share/replcore.",
        reload: false,
        field: |config| Field::Text(&mut config.data_folder),
    },
    Key {
        name: "listen",
        kind: Kind::Texts {
            form: "host:port, unix:/path, serial:host:port or noise:host:port",
            check: address,
        },
        meaning: "Where nodes and programs connect. Empty: 127.0.0.1:8080 for a hub, 127.0.0.1:8181 for a leaf.",
        reload: false,
        field: |config| Field::Texts(&mut config.listen),
    },
    Key {
        name: "advertise",
        kind: Kind::Text { form: "host:port", check: advertised },
        meaning: "Where the node says that it can be reached, which may differ from where it listens. Empty: \
                  the first of `listen`.",
        reload: false,
        field: |config| Field::Text(&mut config.advertise),
    },
    Key {
        name: "brokers",
        kind: Kind::Texts {
            form: "NAME@host:port, or host:port for a hub named `hub`",
            check: peer,
        },
        meaning: "Hubs at which the node registers. It dials them, and refuses a node of another name there.",
        reload: false,
        field: |config| Field::Texts(&mut config.brokers),
    },
    Key {
        name: "called_by",
        kind: Kind::Text { form: "node name", check: name_or_nothing },
        meaning: "A hub at which the node registers and which dials it (`dials` there), for a node that cannot \
                  dial. Empty: none.",
        reload: false,
        field: |config| Field::Text(&mut config.called_by),
    },
    Key {
        name: "dials",
        kind: Kind::Texts { form: "NAME@host:port", check: peer },
        meaning: "Leaves that this hub dials, for leaves that cannot dial.",
        reload: false,
        field: |config| Field::Texts(&mut config.dials),
    },
    Key {
        name: "allow_plaintext",
        kind: Kind::Flag,
        meaning: "Listen beyond this machine without TLS. Anybody who reaches the port can then read, post and \
                  delete everything.",
        reload: false,
        field: |config| Field::Flag(&mut config.allow_plaintext),
    },
    Key {
        name: "log_level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        meaning: "What is logged to standard error.",
        reload: true,
        field: |config| Field::Text(&mut config.log_level),
    },
    Key {
        name: "durability",
        kind: Kind::Choice(&["synced", "written"]),
        meaning: "What an acknowledgement means: `synced` survives the end of power, `written` the end of the process.",
        reload: false,
        field: |config| Field::Text(&mut config.durability),
    },
    Key {
        name: "compression",
        kind: Kind::Choice(&["none", "lz4"]),
        meaning: "Compression of messages between nodes, where both ends have it on.",
        reload: false,
        field: |config| Field::Text(&mut config.compression),
    },
    Key {
        name: "poll_ms",
        kind: integer(MS, 0, LONG_MS),
        meaning: "0: the links to the brokers stay open and messages leave as they come. Else they are opened \
                  this often for one exchange: for sleepy leaves.",
        reload: false,
        field: |config| Field::U32(&mut config.poll_ms),
    },
];

pub(super) const TLS: &[Key] = &[
    Key {
        name: "ca",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Certificates of the authorities that may sign a peer's certificate, PEM.",
        reload: false,
        field: |config| Field::Text(&mut config.tls_ca),
    },
    Key {
        name: "cert",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "This node's certificate and its intermediates, PEM.",
        reload: false,
        field: |config| Field::Text(&mut config.tls_cert),
    },
    Key {
        name: "key",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "The key of the certificate, PEM.",
        reload: false,
        field: |config| Field::Text(&mut config.tls_key),
    },
    Key {
        name: "administrators",
        kind: Kind::Texts { form: "name", check: node_name },
        meaning: "Names of certificates or Noise keys that may purge queues, forget leaves and change rules here, \
                  beside this node's own. All others of the authority may post, read and look.",
        reload: true,
        field: |config| Field::Texts(&mut config.tls_administrators),
    },
];

pub(super) const NOISE: &[Key] = &[Key {
    name: "keys",
    kind: Kind::Text { form: "path", check: anything },
    meaning: "The file of keys; `replcore key` makes it. One a line: `private KEY` for this node, `NAME public KEY` \
              or `NAME psk KEY` for another. For its owner only. Taken up by itself when it changes. Empty: none.",
    reload: false,
    field: |config| Field::Text(&mut config.noise_keys),
}];

pub(super) const HTTP: &[Key] = &[
    Key {
        name: "listen",
        kind: Kind::Texts { form: "host:port", check: host_port },
        meaning: "Where HTTP is answered. Empty: nowhere.",
        reload: false,
        field: |config| Field::Texts(&mut config.http_listen),
    },
    Key {
        name: "hosts",
        kind: Kind::Texts { form: "host name", check: anything },
        meaning: "Host names under which requests may come to a listener on loopback without TLS, beside \
                  `localhost` and addresses.",
        reload: false,
        field: |config| Field::Texts(&mut config.http.hosts),
    },
    Key {
        name: "body_bytes_max",
        kind: integer(BYTES, 1, 1 << 32),
        meaning: "Longest body of a request; longer ones are answered with 413.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.body_bytes_max),
    },
    Key {
        name: "bodies_bytes_max",
        kind: integer(BYTES, 1, u32::MAX as u64),
        meaning: "Bytes of all bodies being worked on at once; what does not fit is answered with 503.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.bodies_bytes_max),
    },
    Key {
        name: "connections_max",
        kind: integer("connections", 1, 1_000_000),
        meaning: "Connections at once; further ones wait to be accepted.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.connections_max),
    },
    Key {
        name: "waits_max",
        kind: integer("requests", 0, 1_000_000),
        meaning: "Requests that wait for messages, and event streams, at once; further ones are answered with 503.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.waits_max),
    },
    Key {
        name: "metrics_series_max",
        kind: integer("each", 0, 1_000_000),
        meaning: "Most nodes, queues and consumers with metrics of their own.",
        reload: false,
        field: |config| Field::Usize(&mut config.http.metrics_series_max),
    },
    Key {
        name: "header_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest time for the head of a request, and for a connection without requests.",
        reload: false,
        field: |config| Field::U64(&mut config.http.header_ms_max),
    },
    Key {
        name: "body_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest time for the body of a request.",
        reload: false,
        field: |config| Field::U64(&mut config.http.body_ms_max),
    },
    Key {
        name: "write_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "A client that takes no byte of an answer for so long is cut off.",
        reload: false,
        field: |config| Field::U64(&mut config.http.write_ms_max),
    },
    Key {
        name: "call_ms_max",
        kind: integer(MS, 1, HOUR_MS),
        meaning: "Longest time for the node to answer, beside what a request itself wants to wait.",
        reload: false,
        field: |config| Field::U64(&mut config.http.call_ms_max),
    },
    Key {
        name: "heartbeat_ms",
        kind: integer(MS, 1, 60_000),
        meaning: "Between two comments on a quiet event stream.",
        reload: false,
        field: |config| Field::U64(&mut config.http.heartbeat_ms),
    },
    Key {
        name: "drain_ms_max",
        kind: integer(MS, 0, HOUR_MS),
        meaning: "Time for open requests to end when the node stops.",
        reload: false,
        field: |config| Field::U64(&mut config.http.drain_ms_max),
    },
];
