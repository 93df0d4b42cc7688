//! The bytes of the protocol and of the log, pinned by the files beside this one.
//!
//! Every vector is made from values here, written as text, and compared with the file; then the
//! bytes of the file are decoded and must give the same fields. See `README.md`.

mod format;

use format::{Fields, Vector, check_file};
use replcore::contract::SkipReason;
use replcore::log::{batch, crc32c, record};
use replcore::stream::{Cursor, Epoch, Name, NodeId, Position, RecordId, Seq};
use replcore::time::Stamp;
use replcore::wire::{
    self, Ack, Bye, ByeReason, CONTROL_FRAME_BYTES_MAX, Call, Control, FEATURE_LZ4,
    FRAME_BYTES_MAX, Frame, FrameError, HEADER_BYTES, Hello, Lease, Level, Open, Records, Redirect,
    Refuse, RefuseReason, Register, Reject, Resume, Role, Skip, Subscribe, TermLease,
};

mod member;
mod noise;

// --- Fields as text ----------------------------------------------------------------------------

fn frame_fields(frame: &Frame<'_>) -> Vec<(String, String)> {
    let mut fields = Fields::default();
    match frame {
        Frame::Control { stream, control } => {
            fields.number("type", control.type_number());
            fields.number("stream", *stream);
            control_fields(control, &mut fields);
        }
        Frame::Records { stream, records, len } => {
            fields.number("type", 32u8);
            fields.number("stream", *stream);
            fields.number("position", records.first.position.0);
            fields.number("offset", records.first.offset);
            fields.number("completed", records.completed);
            fields.number("tail_bytes", records.tail_bytes);
            fields.number("raw_bytes", records.raw_bytes);
            fields.number("round", records.round);
            fields.number("bytes_that_follow", *len);
        }
        Frame::Call { call, len } => {
            fields.number("type", if call.reply { 34u8 } else { 33 });
            fields.number("id", call.id);
            fields.number("bytes_that_follow", *len);
        }
    }
    fields.0
}

fn control_fields(control: &Control<'_>, fields: &mut Fields) {
    match control {
        Control::Hello(hello) => {
            fields.hex("magic", &hello.magic);
            fields.number("version_min", hello.version_min);
            fields.number("version_max", hello.version_max);
            fields.variant("role", hello.role);
            fields.number("features", hello.features);
            fields.text("name", hello.name);
            fields.number("instance", hello.instance);
            fields.number("epoch", hello.epoch);
            fields.number("frame_bytes_max", hello.frame_bytes_max);
            fields.number("keepalive_ms", hello.keepalive_ms);
            fields.number("session", hello.session);
        }
        Control::Refuse(refuse) => {
            fields.variant("reason", refuse.reason);
            fields.number("retry_after_ms", refuse.retry_after_ms);
        }
        Control::Register(register) => {
            fields.number("lease_ms", register.lease_ms);
            fields.text("address", register.address);
            register.queues.iter().for_each(|queue| fields.text("queue", *queue));
        }
        Control::Lease(lease) => fields.number("lease_ms", lease.lease_ms),
        Control::TermLease(lease) => {
            fields.number("lease_ms", lease.lease_ms);
            fields.number("term", lease.term);
        }
        Control::Redirect(redirect) => fields.text("address", redirect.address),
        Control::Subscribe(subscribe) => {
            fields.text("consumer", subscribe.consumer);
            fields.text("message_type", subscribe.message_type);
            fields.number("from_start", subscribe.from_start);
        }
        Control::Open(open) => {
            fields.text("queue", open.queue);
            fields.number("class", open.class);
            fields.number("epoch", open.epoch);
            fields.number("first", open.first);
            fields.variant("placed", open.placed);
        }
        Control::Resume(resume) => {
            fields.number("epoch", resume.epoch);
            fields.number("position", resume.position);
            fields.number("offset", resume.offset);
            fields.number("credit_bytes", resume.credit_bytes);
            fields.number("round", resume.round);
        }
        Control::Ack(ack) => {
            fields.number("position", ack.position);
            match ack.level {
                Level::Replicated(standbys) => {
                    fields.0.push(("level".into(), format!("replicated {standbys}")));
                }
                level => fields.variant("level", level),
            }
            fields.number("credit_bytes", ack.credit_bytes);
            fields.number("round", ack.round);
        }
        Control::Skip(skip) => {
            fields.number("first", skip.first);
            fields.number("next", skip.next);
            fields.variant("reason", skip.reason);
        }
        Control::Reject(reject) => fields.number("position", reject.position),
        Control::Ping(number) | Control::Pong(number) => fields.number("number", *number),
        Control::Bye(bye) => {
            fields.variant("reason", bye.reason);
            fields.number("retry_after_ms", bye.retry_after_ms);
        }
        member => member::fields(member, fields),
    }
}

// --- Frames ------------------------------------------------------------------------------------

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    match frame {
        Frame::Control { stream, control } => {
            let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
            let length = wire::encode_control(*stream, control, &mut buf).unwrap();
            buf[..length].to_vec()
        }
        Frame::Records { stream, records, len } => {
            wire::records_header(*stream, records, *len).to_vec()
        }
        Frame::Call { call, len } => wire::call_header(*call, *len).to_vec(),
    }
}

fn controls() -> Vec<(String, u8, Control<'static>)> {
    let mut all: Vec<(String, u8, Control<'static>)> = Vec::new();
    let mut add = |name: String, stream: u8, control| all.push((name, stream, control));

    let hello = Hello {
        magic: *b"RPLC",
        version_min: 1,
        version_max: 1,
        role: Role::Leaf,
        features: FEATURE_LZ4,
        name: "till-7.shop-3".into(),
        instance: 0x0123_4567_89ab_cdef,
        epoch: 0x0001_a2b3,
        frame_bytes_max: 65_536,
        keepalive_ms: 15_000,
        session: 0x89ab_cdef,
    };
    add("hello of a leaf".into(), 0, Control::Hello(hello));
    add(
        "hello of a hub".into(),
        0,
        Control::Hello(Hello { role: Role::Hub, name: "hub".into(), ..hello }),
    );
    let client = Hello {
        role: Role::Client,
        features: 0,
        name: "a".into(),
        instance: 0,
        epoch: 0,
        frame_bytes_max: u32::MAX,
        keepalive_ms: 0,
        session: 0,
        ..hello
    };
    add("hello of a client with zeros and greatest numbers".into(), 0, Control::Hello(client));

    let reasons = [
        RefuseReason::Version,
        RefuseReason::Name,
        RefuseReason::Identity,
        RefuseReason::NameInUse,
        RefuseReason::Collision,
        RefuseReason::Full,
        RefuseReason::Busy,
        RefuseReason::Role,
        RefuseReason::Consumer,
        RefuseReason::Cluster,
        RefuseReason::Stranger,
        RefuseReason::Term,
        RefuseReason::Standby,
    ];
    for reason in reasons {
        let retry_after_ms = if reason == RefuseReason::Busy { 5_000 } else { 0 };
        let control = Control::Refuse(Refuse { reason, retry_after_ms });
        add(format!("refuse {reason:?}").to_lowercase(), 0, control);
    }

    let register =
        Register { lease_ms: 900_000, address: "10.0.0.7:8181".into(), queues: ["tills".into()] };
    add("register".into(), 0, Control::Register(register));
    let register = Register { lease_ms: 1, address: "".into(), queues: ["".into()] };
    add("register, nowhere to be reached, no queue beside its own".into(), 0, {
        Control::Register(register)
    });
    add("lease".into(), 0, Control::Lease(Lease { lease_ms: 900_000 }));
    let lease = TermLease { lease_ms: 900_000, term: 300 };
    add("lease of a hub that leads in a term".into(), 0, Control::TermLease(lease));
    let redirect = Redirect { address: "10.0.0.2:8080".into() };
    add("redirect to the hub that leads".into(), 0, Control::Redirect(redirect));

    let subscribe =
        Subscribe { consumer: "billing".into(), message_type: "sale*".into(), from_start: true };
    add("subscribe".into(), 0, Control::Subscribe(subscribe));
    let subscribe = Subscribe { consumer: "c".into(), message_type: "".into(), from_start: false };
    add("subscribe to all that comes".into(), 0, Control::Subscribe(subscribe));

    let open =
        Open { queue: "hub".into(), class: 2, epoch: 0x0001_a2b3, first: 1_000_000, placed: None };
    add("open".into(), 1, Control::Open(open));
    let open = Open { first: 1_000_100, placed: Some(255), ..open };
    add("open with a place".into(), 1, Control::Open(open));
    let open = Open { queue: "q".into(), class: 0, epoch: 0, first: 0, placed: None };
    add("open of an empty queue of class 0".into(), 7, Control::Open(open));

    let resume = Resume {
        epoch: 0x0001_a2b3,
        position: 1_000_128,
        offset: 4_096,
        credit_bytes: 262_144,
        round: 1,
    };
    add("resume inside a record".into(), 1, Control::Resume(resume));
    let resume = Resume { epoch: 0, position: 0, offset: 0, credit_bytes: 0, round: 255 };
    add("resume at the start without credit".into(), 7, Control::Resume(resume));

    for level in [Level::Received, Level::Written, Level::Synced, Level::Replicated(2)] {
        let ack = Ack { position: 1_000_256, level, credit_bytes: 300_000, round: 1 };
        add(format!("ack {level:?}").to_lowercase(), 1, Control::Ack(ack));
    }
    let ack = Ack { position: u64::MAX, level: Level::Synced, credit_bytes: u64::MAX, round: 255 };
    add("ack of the greatest numbers".into(), 7, Control::Ack(ack));

    let reasons = [
        SkipReason::Expired,
        SkipReason::Dropped,
        SkipReason::Purged,
        SkipReason::Lost,
        SkipReason::Forgotten,
    ];
    for reason in reasons {
        let skip = Skip { first: 127, next: 128, reason };
        add(format!("skip {reason:?}").to_lowercase(), 1, Control::Skip(skip));
    }
    add("reject".into(), 1, Control::Reject(Reject { position: 300 }));
    add("ping".into(), 0, Control::Ping(1));
    add("pong".into(), 0, Control::Pong(u32::MAX));

    let reasons = [
        ByeReason::Done,
        ByeReason::Stopping,
        ByeReason::Replaced,
        ByeReason::Expired,
        ByeReason::Unknown,
    ];
    for reason in reasons {
        let control = Control::Bye(Bye { reason, retry_after_ms: 1_000 });
        add(format!("bye {reason:?}").to_lowercase(), 0, control);
    }
    let member =
        Hello { role: Role::Member, features: 0, name: "server_a".into(), epoch: 0, ..hello };
    add("hello of a member".into(), 0, Control::Hello(member));
    for (name, control) in member::controls() {
        add(name.into(), 0, control);
    }
    all
}

fn frames() -> Vec<(String, Frame<'static>)> {
    let mut all: Vec<(String, Frame<'static>)> = controls()
        .into_iter()
        .map(|(name, stream, control)| (name, Frame::Control { stream, control }))
        .collect();
    let whole = Records {
        first: Cursor::at(Position(1_000_000)),
        completed: 128,
        tail_bytes: 0,
        raw_bytes: 0,
        round: 1,
    };
    let first_chunk = Records { completed: 0, tail_bytes: 1_024, ..whole };
    let inside = Cursor { position: Position(1_000_000), offset: 1_024 };
    let last_chunk = Records { first: inside, completed: 1, tail_bytes: 0, ..whole };
    let compressed = Records { tail_bytes: 100, raw_bytes: 65_536, ..whole };
    let heads = [
        ("records, whole ones", whole, 21_504),
        ("records, the first bytes of a large one", first_chunk, 1_024),
        ("records, the rest of a large one", last_chunk, 512),
        ("records, compressed, with the start of one more", compressed, 20_000),
    ];
    for (name, records, len) in heads {
        all.push((name.into(), Frame::Records { stream: 1, records, len }));
    }
    for (name, reply) in [("call", false), ("reply", true)] {
        all.push((name.into(), Frame::Call { call: Call { id: 7, reply }, len: 17 }));
    }
    all
}

#[test]
fn every_frame_has_the_bytes_of_its_vector_both_ways() {
    let head =
        "Frames. Of records and calls only the head is here; `bytes_that_follow` come after it.";
    let frames = frames();
    let vectors: Vec<Vector> = frames
        .iter()
        .map(|(name, frame)| Vector {
            name: name.clone(),
            fields: frame_fields(frame),
            bytes: encoded(frame),
        })
        .collect();
    for (vector, (_, frame)) in check_file("frames.txt", head, &vectors).iter().zip(&frames) {
        let decoded = wire::decode(&vector.bytes, FRAME_BYTES_MAX).unwrap();
        assert_eq!(decoded, Some((*frame, vector.bytes.len())), "{}", vector.name);
        for cut in 0..vector.bytes.len() {
            let short = wire::decode(&vector.bytes[..cut], FRAME_BYTES_MAX);
            assert_eq!(short, Ok(None), "{} cut at {cut}", vector.name);
        }
    }
}

#[test]
fn every_frame_type_has_a_vector() {
    let with_vector: Vec<u8> = frames().iter().map(|(_, frame)| encoded(frame)[4]).collect();
    for number in 0..=u8::MAX {
        let known =
            wire::decode(&frame_of(number, &[]), FRAME_BYTES_MAX) != Err(FrameError::Type(number));
        assert_eq!(known, with_vector.contains(&number), "frame type {number}");
    }
}

/// A frame of any type and payload with a right checksum.
fn frame_of(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([number, 0, 0, 0]);
    let crc = crc32c(&[&frame[..], payload].concat());
    frame.extend(crc.to_le_bytes());
    frame.extend(payload);
    frame
}

// --- What is refused ---------------------------------------------------------------------------

#[test]
fn every_malformed_frame_is_refused_with_the_kind_of_its_vector() {
    let ping = frame_of(11, &[1]);
    let mut damaged = ping.clone();
    damaged[HEADER_BYTES] = 2;
    let mut too_long = ping.clone();
    too_long[..4].copy_from_slice(&501u32.to_le_bytes());
    let mut too_long_records = frame_of(32, &[0; 28]);
    too_long_records[..4].copy_from_slice(&FRAME_BYTES_MAX.to_le_bytes());
    let samples = [
        ("a ping whose number was changed", damaged),
        ("a control frame of 513 bytes", too_long),
        ("records longer than the limit of 1,048,576 bytes", too_long_records),
        ("records too short for their fixed part", frame_of(32, &[0; 27])),
        ("a call too short for its fixed part", frame_of(33, &[0; 3])),
        ("type 0", frame_of(0, &[])),
        ("type 30, the first that is free", frame_of(30, &[])),
        ("type 35, the first that is free above", frame_of(35, &[])),
        ("a ping without a number", frame_of(11, &[])),
        ("a ping with a byte too many", frame_of(11, &[1, 0])),
        ("a ping with a number above 32 bits", frame_of(11, &[0xff, 0xff, 0xff, 0xff, 0x1f])),
        ("a bye with a reason that has no meaning", frame_of(13, &[6, 0])),
        ("a subscribe with a truth value of 2", frame_of(5, &[1, b'c', 0, 2])),
        ("a subscribe whose text is longer than the frame", frame_of(5, &[9, b'c', 0, 0])),
        ("a cluster whose name is not UTF-8", frame_of(14, &[1, 0xff, 0])),
        ("a cluster with a wish that has no meaning", frame_of(14, &[1, b'c', 4])),
        ("a hand-over of a term above 64 bits", frame_of(20, &[0xff; 10])),
        ("an entry whose metadata is longer than the frame", {
            frame_of(23, &[1, b'n', 1, 0, 0, 0, 100, 1, 9, b'm'])
        }),
    ];
    let vectors: Vec<Vector> = samples
        .into_iter()
        .map(|(name, bytes)| {
            let error = wire::decode(&bytes, FRAME_BYTES_MAX).expect_err(name);
            let mut fields = Fields::default();
            match error {
                FrameError::Type(_) => fields.0.push(("error".into(), "type".into())),
                error => fields.variant("error", error),
            }
            Vector { name: name.into(), fields: fields.0, bytes }
        })
        .collect();
    check_file("refused.txt", "Bytes that are no frame: each costs the link.", &vectors);
}

// --- The log -----------------------------------------------------------------------------------

fn record_vector(name: &str, bytes: &[u8]) -> Vector {
    let record = record::Record::check(bytes, crc32c).unwrap();
    let mut fields = Fields::default();
    fields.variant("kind", Kind::Record);
    let id = record.id();
    fields.number("class", id.class);
    fields.number("epoch", id.epoch.0);
    fields.number("origin", id.origin.0);
    fields.number("seq", id.seq.0);
    fields.number("time", record.time().0);
    fields.text("type", record.message_type());
    fields.hex("key", record.key());
    fields.text("content_type", record.content_type());
    fields.number("expires", record.expires_wall_ms());
    fields.hex("idempotency_key", record.idempotency_key());
    record.to().for_each(|queue| fields.text("to", queue));
    for (name, value) in record.headers() {
        fields.text("header_name", name);
        fields.hex("header_value", value);
    }
    fields.text("origin_name", record.origin_name());
    fields.hex("body", record.body());
    Vector { name: name.into(), fields: fields.0, bytes: bytes.to_vec() }
}

#[derive(Debug)]
enum Kind {
    Record,
    Entry,
    Batch,
}

fn record_bytes(message: &record::Message<'_>, id: RecordId, time: Stamp) -> Vec<u8> {
    let mut bytes = vec![0; message.record_bytes().unwrap()];
    let length = record::encode(message, id, time, &mut bytes, crc32c).unwrap();
    assert_eq!(length, bytes.len());
    bytes
}

#[test]
fn records_entries_and_batches_have_the_bytes_of_their_vectors() {
    let id = RecordId {
        origin: Name::new("till-7.shop-3").unwrap().node_id(),
        epoch: Epoch(0x0001_a2b3),
        class: 2,
        seq: Seq(41),
    };
    let time = Stamp::from_wall_ms(1_790_000_000_000);
    let full = record::Message {
        message_type: "sale",
        key: b"receipt-9",
        content_type: "application/json",
        idempotency_key: b"till-7/9",
        expires_wall_ms: 1_790_000_600_000,
        to: &["shop-3", "audit"],
        headers: &[("currency", b"EUR"), ("empty", b"")],
        origin_name: "till-7.shop-3",
        body: b"{\"total\":1250}",
    };
    let plain = record::Message { body: b"hello", ..record::Message::default() };
    let unstamped = RecordId { class: 2, ..RecordId::default() };
    let records = [
        ("record with everything", record_bytes(&full, id, time)),
        ("record with a body alone", record_bytes(&plain, RecordId { seq: Seq(42), ..id }, time)),
        ("record without anything", record_bytes(&record::Message::default(), id, time)),
        ("record of a producer, not stamped", record_bytes(&plain, unstamped, Stamp::UNSET)),
    ];
    let mut vectors: Vec<Vector> =
        records.iter().map(|(name, bytes)| record_vector(name, bytes)).collect();

    let mut entry = [0; 64];
    let length = record::encode_entry(2, b"note", &mut entry, crc32c).unwrap();
    let mut fields = Fields::default();
    fields.variant("kind", Kind::Entry);
    fields.number("number", 2u8);
    fields.hex("payload", b"note");
    let entry = entry[..length].to_vec();
    vectors.push(Vector { name: "entry of kind 2".into(), fields: fields.0, bytes: entry.clone() });

    let entries = [&records[1].1[..], &entry].concat();
    let header = batch::Header {
        bytes: entries.len() as u32,
        segment: 7,
        first_ordinal: 1_000_000,
        entries_crc: crc32c(&entries),
        records: 1,
    };
    let mut bytes = vec![0; batch::HEADER_BYTES];
    header.encode(&mut bytes, crc32c);
    bytes.extend(&entries);
    let mut fields = Fields::default();
    fields.variant("kind", Kind::Batch);
    fields.number("segment", header.segment);
    fields.number("first_ordinal", header.first_ordinal);
    fields.number("records", header.records);
    fields.hex("entries", &entries);
    vectors.push(Vector { name: "batch".into(), fields: fields.0, bytes });

    let head =
        "Records, other entries and batches of the log. A field that is not there is empty or 0.";
    let kept = check_file("log.txt", head, &vectors);
    for vector in &kept[..records.len()] {
        assert_eq!(record_vector(&vector.name, &vector.bytes), *vector);
    }
    let (read, inside) = batch::read(&kept.last().unwrap().bytes, 7, crc32c).unwrap();
    assert_eq!((read, inside), (header, &entries[..]));
    let kinds: Vec<u8> = record::Entries::new(inside).map(|entry| entry.0).collect();
    assert_eq!(kinds, [record::KIND_RECORD, 2]);
}

// --- Names -------------------------------------------------------------------------------------

#[test]
fn names_have_the_identities_of_their_vectors() {
    let longest = "x".repeat(63);
    let names = ["a", "242", "hub", "till-7.shop-3", "A/b_c:d", &longest];
    let vectors: Vec<Vector> = names
        .into_iter()
        .map(|text| {
            let name = Name::new(text).unwrap();
            assert_eq!(name.node_id().0, name.queue_id().0);
            let mut fields = Fields::default();
            fields.number("identity", name.node_id().0);
            Vector { name: text.into(), fields: fields.0, bytes: text.as_bytes().to_vec() }
        })
        .collect();
    let head =
        "Names, and the identity of the node or queue of that name. Bytes are those of the name.";
    check_file("names.txt", head, &vectors);
    assert!(names.iter().all(|name| Name::new(name).unwrap().node_id() != NodeId::NONE));
}
