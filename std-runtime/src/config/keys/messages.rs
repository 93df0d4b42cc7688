//! Keys of messages: limits of queues, rates, rules, files that are taken in, schemas.

use super::{
    BYTES, Field, HOUR_MS, Key, Kind, MS, anything, integer, name_or_nothing, queue_or_all,
};
use crate::api::DispatchRule;
use crate::config::Config;
use crate::ingest::IngestOptions;
use crate::schema::Schema;
use crate::store::QueueLimits;

const QUEUE_MESSAGES: Kind = integer("messages, 0 for no limit", 0, 1 << 50);
const QUEUE_BYTES: Kind = integer("bytes, 0 for no limit", 0, 1 << 50);
const QUEUE_AGE: Kind = integer("ms, 0 for no limit", 0, 1 << 50);
const QUEUE_POLICY: Kind = Kind::Choice(&["by_kind", "refuse", "drop_oldest", "drop_by_class"]);

pub(super) const QUEUE: &[Key] = &[
    Key {
        name: "messages_max",
        kind: QUEUE_MESSAGES,
        meaning: "Most messages in a queue.",
        reload: true,
        field: |config| Field::U64(&mut config.numbers.limits.queue.messages_max),
    },
    Key {
        name: "bytes_max",
        kind: QUEUE_BYTES,
        meaning: "Most bytes in a queue.",
        reload: true,
        field: |config| Field::U64(&mut config.numbers.limits.queue.bytes_max),
    },
    Key {
        name: "age_ms_max",
        kind: QUEUE_AGE,
        meaning: "Longest wait in a queue; older messages are dropped and counted.",
        reload: true,
        field: |config| Field::U64(&mut config.numbers.limits.queue.age_ms_max),
    },
    Key {
        name: "policy",
        kind: QUEUE_POLICY,
        meaning: "What happens when a queue is full: new messages are refused, the oldest are dropped, or the \
                  oldest of the least urgent class; `by_kind` refuses for queues to brokers and drops the oldest \
                  of queues that others read. Drops are counted and reported.",
        reload: true,
        field: |config| Field::Policy(&mut config.numbers.limits.queue.policy),
    },
];

pub(super) const QUEUE_LIMIT: &[Key] = &[
    Key {
        name: "name",
        kind: Kind::Text { form: "queue name", check: name_or_nothing },
        meaning: "The queue.",
        reload: true,
        field: |config| Field::Text(&mut last_queue_limit(config).0),
    },
    Key {
        name: "messages_max",
        kind: QUEUE_MESSAGES,
        meaning: "Most messages in it.",
        reload: true,
        field: |config| Field::U64(&mut last_queue_limit(config).1.messages_max),
    },
    Key {
        name: "bytes_max",
        kind: QUEUE_BYTES,
        meaning: "Most bytes in it.",
        reload: true,
        field: |config| Field::U64(&mut last_queue_limit(config).1.bytes_max),
    },
    Key {
        name: "age_ms_max",
        kind: QUEUE_AGE,
        meaning: "Longest wait in it; older messages are dropped and counted.",
        reload: true,
        field: |config| Field::U64(&mut last_queue_limit(config).1.age_ms_max),
    },
    Key {
        name: "policy",
        kind: QUEUE_POLICY,
        meaning: "What happens when it is full, as in [queue].",
        reload: true,
        field: |config| Field::Policy(&mut last_queue_limit(config).1.policy),
    },
];

pub(super) const RATES: &[Key] = &[
    Key {
        name: "link_bytes_per_second",
        kind: integer("bytes per second, 0 for no limit", 0, u32::MAX as u64),
        meaning: "Messages sent on one link, so that a backlog does not fill it.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.rates.link_bytes_per_second),
    },
    Key {
        name: "class_0_bytes_per_second",
        kind: integer("bytes per second, 0 for no limit", 0, u32::MAX as u64),
        meaning: "Messages of class 0 that go strictly before all others; what is beyond waits its turn.",
        reload: false,
        field: |config| Field::U32(&mut config.numbers.rates.class_0_bytes_per_second),
    },
];

pub(super) const RULE: &[Key] = &[
    Key {
        name: "type",
        kind: Kind::Text { form: "type, or its beginning and *", check: anything },
        meaning: "Only messages of this type. Empty: all.",
        reload: true,
        field: |config| Field::Text(&mut last_rule(config).message_type),
    },
    Key {
        name: "origin",
        kind: Kind::Text { form: "node name", check: name_or_nothing },
        meaning: "Only messages posted at this node. Empty: all.",
        reload: true,
        field: |config| Field::Text(&mut last_rule(config).origin),
    },
    Key {
        name: "to",
        kind: Kind::Texts {
            form: "queue name, or * for every registered leaf",
            check: queue_or_all,
        },
        meaning: "Where they go.",
        reload: true,
        field: |config| Field::Texts(&mut last_rule(config).to),
    },
];

pub(super) const INGEST: &[Key] = &[
    Key {
        name: "folder",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "The folder. Hidden files, folders, links and *.rejected are not taken.",
        reload: false,
        field: |config| Field::Path(&mut last_ingest(config).folder),
    },
    Key {
        name: "name",
        kind: Kind::Text { form: "name", check: anything },
        meaning: "Its name in idempotency keys; keep it when the folder moves. Empty: its path.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).name),
    },
    Key {
        name: "pattern",
        kind: Kind::Text { form: "file name with * and ?", check: anything },
        meaning: "Only files whose names match.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).pattern),
    },
    Key {
        name: "format",
        kind: Kind::Choice(&["message", "json", "raw", "file"]),
        meaning: "What becomes a message: a line that is an object with type, key, body and the rest; a line of JSON; a line as it is; a whole file.",
        reload: false,
        field: |config| Field::Format(&mut last_ingest(config).format),
    },
    Key {
        name: "then",
        kind: Kind::Choice(&["move", "keep", "delete"]),
        meaning: "What becomes of a file that was taken.",
        reload: false,
        field: |config| Field::Afterwards(&mut last_ingest(config).then),
    },
    Key {
        name: "move_to",
        kind: Kind::Text { form: "path", check: anything },
        meaning: "Where taken files go, on the same file system. Empty: the folder `done` in the folder.",
        reload: false,
        field: |config| Field::Path(last_ingest(config).move_to.get_or_insert_default()),
    },
    Key {
        name: "settle_ms",
        kind: integer(MS, 0, HOUR_MS),
        meaning: "How long a file has to be unchanged before it is taken; 0 where files are renamed into the folder.",
        reload: false,
        field: |config| Field::U64(&mut last_ingest(config).settle_ms),
    },
    Key {
        name: "poll_ms",
        kind: integer(MS, 10, HOUR_MS),
        meaning: "How often the folder is looked at.",
        reload: false,
        field: |config| Field::U64(&mut last_ingest(config).poll_ms),
    },
    Key {
        name: "type",
        kind: Kind::Text { form: "type", check: anything },
        meaning: "The type of its messages, where they do not say.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).message.message_type),
    },
    Key {
        name: "content_type",
        kind: Kind::Text { form: "media type", check: anything },
        meaning: "The media type of its messages, where they do not say.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).message.content_type),
    },
    Key {
        name: "class",
        kind: integer("class", 0, 3),
        meaning: "The class of its messages, where they do not say.",
        reload: false,
        field: |config| Field::Class(&mut last_ingest(config).message.class),
    },
    Key {
        name: "to",
        kind: Kind::Texts { form: "queue name", check: queue_or_all },
        meaning: "Queues for its messages, beside what the dispatch rules say.",
        reload: false,
        field: |config| Field::Texts(&mut last_ingest(config).message.to),
    },
    Key {
        name: "type_field",
        kind: Kind::Text { form: "field name", check: anything },
        meaning: "For json: the field that gives the type.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).type_field),
    },
    Key {
        name: "key_field",
        kind: Kind::Text { form: "field name", check: anything },
        meaning: "For json: the field that gives the key.",
        reload: false,
        field: |config| Field::Text(&mut last_ingest(config).key_field),
    },
    Key {
        name: "message_bytes_max",
        kind: integer(BYTES, 1, 64 << 20),
        meaning: "Longest line or whole file; longer ones are rejected.",
        reload: false,
        field: |config| Field::Usize(&mut last_ingest(config).message_bytes_max),
    },
    Key {
        name: "batch_messages_max",
        kind: integer("messages", 1, 1000),
        meaning: "Messages posted at a time.",
        reload: false,
        field: |config| Field::Usize(&mut last_ingest(config).batch_messages_max),
    },
    Key {
        name: "files_max",
        kind: integer("files", 1, 10_000_000),
        meaning: "Most files looked at.",
        reload: false,
        field: |config| Field::Usize(&mut last_ingest(config).files_max),
    },
];

pub(super) const SCHEMA: &[Key] = &[
    Key {
        name: "type",
        kind: Kind::Text { form: "type", check: anything },
        meaning: "The type of message, exactly.",
        reload: true,
        field: |config| Field::Text(&mut last_schema(config).message_type),
    },
    Key {
        name: "attributes",
        kind: Kind::Attributes,
        meaning: "What the JSON object in the body may hold: each attribute text, float or integer.",
        reload: true,
        field: |config| Field::Attributes(last_schema(config)),
    },
];

pub(super) fn add_queue_limit(config: &mut Config) {
    config.queue_limits.push((String::new(), config.numbers.limits.queue));
}

fn last_queue_limit(config: &mut Config) -> &mut (String, QueueLimits) {
    if config.queue_limits.is_empty() {
        add_queue_limit(config);
    }
    config.queue_limits.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

fn last_rule(config: &mut Config) -> &mut DispatchRule {
    if config.rules.is_empty() {
        config.rules.push(DispatchRule::default());
    }
    config.rules.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

fn last_ingest(config: &mut Config) -> &mut IngestOptions {
    if config.ingests.is_empty() {
        config.ingests.push(IngestOptions::default());
    }
    config.ingests.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}

fn last_schema(config: &mut Config) -> &mut Schema {
    if config.schemas.is_empty() {
        config.schemas.push(Schema::default());
    }
    config.schemas.last_mut().unwrap_or_else(|| unreachable!("one was just put in"))
}
