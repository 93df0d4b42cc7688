//! Between the messages of the API and the records of the log.

use std::collections::BTreeMap;

use replcore::log::record::{Message, Record, encode};
use replcore::stream::{CLASS_DEFAULT, CLASSES, Epoch, Name, NodeId, RecordId, Seq};
use replcore::time::Stamp;

use crate::api::{ApiError, Bytes, ErrorKind, NewMessage, StoredMessage};
use crate::store::PostError;

/// Encodes a message as a record without identity.
///
/// # Errors
/// The message is not sound.
pub(crate) fn to_record(
    message: &NewMessage,
    origin_name: &str,
    wall_ms: u64,
) -> Result<Vec<u8>, ApiError> {
    let invalid = |text: String| ApiError::new(ErrorKind::Invalid, text);
    let class = message.class.unwrap_or(CLASS_DEFAULT);
    if usize::from(class) >= CLASSES {
        return Err(invalid(format!("class {class} is not 0, 1, 2 or 3")));
    }
    for name in &message.to {
        Name::new(name).map_err(|error| invalid(format!("queue {name:?}: {error}")))?;
    }
    let to: Vec<&str> = message.to.iter().map(String::as_str).collect();
    let headers: Vec<(&str, &[u8])> =
        message.headers.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())).collect();
    let plain = Message {
        message_type: &message.message_type,
        key: message.key.as_ref().map_or(&[], |key| &key.0),
        content_type: &message.content_type,
        idempotency_key: message.idempotency_key.as_ref().map_or(&[], |key| &key.0),
        expires_wall_ms: message.ttl_ms.map_or(0, |ttl_ms| wall_ms.saturating_add(ttl_ms)),
        to: &to,
        headers: &headers,
        origin_name,
        body: &message.body.0,
    };
    let unsound = |error: replcore::log::record::MessageError| invalid(error.to_string());
    let mut record = vec![0; plain.record_bytes().map_err(unsound)?];
    let id = RecordId { class, ..RecordId::default() };
    encode(&plain, id, Stamp::UNSET, &mut record, crc32c::crc32c).map_err(unsound)?;
    Ok(record)
}

/// A record as the API shows it.
pub(crate) fn to_message(
    record: &Record<'_>,
    ordinal: u64,
    deliveries: u32,
    wall_ms: u64,
) -> StoredMessage {
    let optional = |bytes: &[u8]| (!bytes.is_empty()).then(|| Bytes(bytes.to_vec()));
    let id = record.id();
    let time_ms = record.time().wall_ms();
    let expires_ms = record.expires_wall_ms();
    let headers: BTreeMap<String, Bytes> =
        record.headers().map(|(name, value)| (name.to_owned(), Bytes(value.to_vec()))).collect();
    StoredMessage {
        id: id_text(id, record.origin_name()),
        ordinal,
        origin: origin_text(id.origin, record.origin_name()),
        time_ms,
        time: rfc3339(time_ms),
        deliveries,
        message: NewMessage {
            message_type: record.message_type().to_owned(),
            key: optional(record.key()),
            class: Some(id.class),
            content_type: record.content_type().to_owned(),
            idempotency_key: optional(record.idempotency_key()),
            ttl_ms: (expires_ms != 0).then(|| expires_ms.saturating_sub(wall_ms)),
            to: record.to().map(str::to_owned).collect(),
            headers,
            body: Bytes(record.body().to_vec()),
        },
    }
}

/// `origin/epoch/class/seq`.
pub(crate) fn id_text(id: RecordId, origin_name: &str) -> String {
    let origin = origin_text(id.origin, origin_name);
    format!("{origin}/{}/{}/{}", id.epoch.0, id.class, id.seq.0)
}

/// The origin's name if it is told and is its own; else its number, which no name looks like.
fn origin_text(origin: NodeId, name: &str) -> String {
    match Name::new(name) {
        Ok(name) if name.node_id() == origin => name.as_str().to_owned(),
        _ => format!("#{:016x}", origin.0),
    }
}

/// Reads what [`id_text`] wrote.
pub(crate) fn parse_id(text: &str) -> Option<RecordId> {
    let mut parts = text.rsplitn(4, '/');
    let seq = Seq(parts.next()?.parse().ok()?);
    let class = parts.next()?.parse().ok()?;
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let origin = parts.next()?;
    let origin = match origin.strip_prefix('#') {
        Some(hex) => NodeId(u64::from_str_radix(hex, 16).ok()?),
        None => Name::new(origin).ok()?.node_id(),
    };
    Some(RecordId { origin, epoch, class, seq })
}

/// Why a post was refused, for the API.
pub(crate) fn post_error(error: PostError) -> ApiError {
    let (kind, text) = match error {
        PostError::Message(error) => (ErrorKind::Invalid, error.to_string()),
        PostError::TooLarge(limit) => (
            ErrorKind::TooLarge,
            format!("the message is larger than limits.message_bytes_max, {limit} bytes"),
        ),
        PostError::QueueFull(queue) => (
            ErrorKind::Full,
            format!(
                "queue {queue} is at its limit and refuses; read or purge it, or raise its limit"
            ),
        ),
        PostError::QueuesFull(limit) => {
            (ErrorKind::Full, format!("the table of queues is full: {limit} at most"))
        }
        PostError::NameTaken(name) => (
            ErrorKind::Conflict,
            format!(
                "{name} is the name of another queue, or two names have one id; choose another"
            ),
        ),
        PostError::Record(error) => (ErrorKind::Invalid, error.to_string()),
        PostError::OriginName => (
            ErrorKind::Invalid,
            "the message names another node as its origin; leave that to the node".to_owned(),
        ),
        PostError::DiskFull => (
            ErrorKind::Unavailable,
            "no space for the log; free some, or raise limits.log_bytes_max".to_owned(),
        ),
        PostError::Io => (
            ErrorKind::Unavailable,
            "the disk does not work; nothing is taken until the node is started again".to_owned(),
        ),
    };
    ApiError::new(kind, text)
}

/// Whether a type fits a filter: empty for all, a trailing `*` for any rest.
pub(crate) fn type_fits(filter: &str, message_type: &str) -> bool {
    match filter.strip_suffix('*') {
        Some(prefix) => message_type.starts_with(prefix),
        None => filter.is_empty() || filter == message_type,
    }
}

/// Milliseconds since 1970 as `2026-11-21T01:32:37.123Z`; empty for 0.
pub(crate) fn rfc3339(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    // The civil calendar from days, by H. Hinnant's algorithm: years begin in March, so that the
    // leap day is the last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
    let (second, milli) = (ms_of_day / 1000 % 60, ms_of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "");
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.001Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(1_795_225_957_000), "2026-11-21T01:52:37.000Z");
    }

    #[test]
    fn ids_read_back_whatever_the_origin_is_called() {
        let origin = Name::new("shop-3/till-7").unwrap();
        let id = RecordId { origin: origin.node_id(), epoch: Epoch(7), class: 1, seq: Seq(9) };
        assert_eq!(id_text(id, origin.as_str()), "shop-3/till-7/7/1/9");
        for text in [id_text(id, origin.as_str()), id_text(id, ""), id_text(id, "somebody-else")] {
            assert_eq!(parse_id(&text), Some(id), "{text}");
        }
        for text in ["", "a/b/c", "a/1/2/x", "#zz/1/2/3", "a b/1/2/3"] {
            assert_eq!(parse_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_message_survives_the_way_through_a_record() {
        let message = NewMessage {
            message_type: "sale".into(),
            key: Some(Bytes(b"k".to_vec())),
            class: Some(1),
            content_type: "text/plain".into(),
            idempotency_key: Some(Bytes(vec![0, 255])),
            ttl_ms: Some(50),
            to: vec!["a".into()],
            headers: [("h".to_owned(), Bytes(b"v".to_vec()))].into(),
            body: Bytes(b"body".to_vec()),
        };
        let bytes = to_record(&message, "me", 1000).unwrap();
        let record = Record::check(&bytes, crc32c::crc32c).unwrap();
        assert_eq!(to_message(&record, 3, 0, 1000).message, message);
        let wrong = NewMessage { to: vec!["a b".into()], ..NewMessage::default() };
        assert_eq!(to_record(&wrong, "me", 0).unwrap_err().kind, ErrorKind::Invalid);
        let wrong = NewMessage { class: Some(4), ..NewMessage::default() };
        assert_eq!(to_record(&wrong, "me", 0).unwrap_err().kind, ErrorKind::Invalid);
    }
}
