//! Every decoder of the core on bytes from outside, and links without TLS. The first byte chooses the decoder. Checksums
//! are put right for half of the inputs, or nothing would get past them.

mod noise;

use replcore::log::{batch, crc32c, record};
use replcore::stream::Name;
use replcore::transport::cobs;
use replcore::wire::{
    self, CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX, Frame, FrameError, HEADER_BYTES,
};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 9 {
        0 => frames(data),
        1 => frame_with_right_checksum(data),
        2 => a_record(data),
        3 => a_record(&with_right_checksum(data)),
        4 => a_batch(data),
        5 => cobs_line(data),
        6 => cobs_round_trip(data),
        7 => a_name(data),
        _ => noise::run(data),
    }
}

fn frames(mut data: &[u8]) {
    loop {
        match wire::decode(data, FRAME_BYTES_MAX) {
            Ok(Some((frame, taken))) => {
                assert!(taken >= HEADER_BYTES && taken <= data.len());
                check_frame(&frame);
                data = &data[taken..];
            }
            Ok(None) => {
                // It must say so for every shorter piece as well, or a slow link would be cut.
                for cut in [data.len() / 2, data.len().saturating_sub(1)] {
                    assert_eq!(wire::decode(&data[..cut], FRAME_BYTES_MAX), Ok(None));
                }
                return;
            }
            Err(_) => return,
        }
    }
}

fn frame_with_right_checksum(data: &[u8]) {
    let Some((&[number, stream], payload)) = data.split_first_chunk::<2>() else { return };
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([number, stream, 0, 0]);
    let covered = match number {
        32 => payload.get(..28),
        33 | 34 => payload.get(..4),
        _ => Some(payload),
    };
    let Some(covered) = covered else { return };
    let crc = crc32c(&[&frame[..], covered].concat());
    frame.extend(crc.to_le_bytes());
    frame.extend(payload);
    assert_ne!(wire::decode(&frame, FRAME_BYTES_MAX), Err(FrameError::Checksum));
    frames(&frame);
}

fn check_frame(frame: &Frame<'_>) {
    match frame {
        Frame::Control { stream, control } => {
            let mut buf = [0; CONTROL_FRAME_BYTES_MAX];
            // What came in at most this many bytes goes out in no more: numbers are written in
            // their shortest form.
            let length = wire::encode_control(*stream, control, &mut buf).expect("fits again");
            let again = wire::decode(&buf[..length], FRAME_BYTES_MAX);
            assert_eq!(again, Ok(Some((*frame, length))));
        }
        Frame::Records { stream, records, len } => {
            assert!(records.next().position >= records.first.position);
            let head = wire::records_header(*stream, records, *len);
            let again = wire::decode(&head, FRAME_BYTES_MAX);
            assert_eq!(again, Ok(Some((*frame, head.len()))));
        }
        Frame::Call { call, len } => {
            let head = wire::call_header(*call, *len);
            assert_eq!(wire::decode(&head, FRAME_BYTES_MAX), Ok(Some((*frame, head.len()))));
        }
    }
}

fn with_right_checksum(data: &[u8]) -> Vec<u8> {
    let mut entry = data.to_vec();
    if entry.len() >= record::RECORD_HEADER_BYTES {
        let length = entry.len() as u32;
        entry[4..8].copy_from_slice(&length.to_le_bytes());
        entry[8] = record::KIND_RECORD;
        let crc = crc32c(&entry[4..]);
        entry[..4].copy_from_slice(&crc.to_le_bytes());
    }
    entry
}

fn a_record(data: &[u8]) {
    let Ok(length) = record::entry_length(data, u32::MAX) else { return };
    assert!(length <= data.len());
    let Ok(record) = record::Record::check(&data[..length], crc32c) else { return };
    assert!(record.id().class < 4);
    let read = record.message_type().len()
        + record.key().len()
        + record.content_type().len()
        + record.idempotency_key().len()
        + record.to().map(str::len).sum::<usize>()
        + record.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        + record.origin_name().len()
        + record.body().len();
    assert!(read <= length);
    let _ = record.expires_wall_ms();
    let mut stamped = record.as_bytes().to_vec();
    record::stamp(&mut stamped, record.id(), record.time(), crc32c);
    assert_eq!(stamped, record.as_bytes());
}

fn a_batch(data: &[u8]) {
    for segment in [0, 7] {
        if let Ok((header, entries)) = batch::read(data, segment, crc32c) {
            assert_eq!(header.bytes as usize, entries.len());
        }
    }
    let header = batch::Header {
        bytes: data.len() as u32,
        segment: 7,
        first_ordinal: 0,
        entries_crc: crc32c(data),
        records: 0,
    };
    let mut bytes = vec![0; batch::HEADER_BYTES];
    header.encode(&mut bytes, crc32c);
    bytes.extend(data);
    let (_, entries) = batch::read(&bytes, 7, crc32c).expect("it was just made");
    let walked: usize = record::Entries::new(entries).map(|(_, entry)| entry.len()).sum();
    assert!(walked <= entries.len());
}

/// A line with noise on it, in pieces, into a buffer that may be too small.
fn cobs_line(data: &[u8]) {
    let Some((&[buffer, piece], line)) = data.split_first_chunk::<2>() else { return };
    let mut buf = vec![0; usize::from(buffer)];
    let mut decoder = cobs::Decoder::new();
    for piece in line.chunks(usize::from(piece).max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = decoder.take(rest, &mut buf);
            assert!(taken.bytes > 0 && taken.bytes <= rest.len());
            if let Some(length) = taken.frame {
                assert!(length <= buf.len());
            }
            rest = &rest[taken.bytes..];
        }
    }
}

/// Whatever noise came before, the frame after a delimiter comes through.
fn cobs_round_trip(data: &[u8]) {
    let Some((&noise, data)) = data.split_first() else { return };
    let (noise, frame) = data.split_at(usize::from(noise).min(data.len()));
    let mut line = noise.to_vec();
    line.push(cobs::DELIMITER);
    let mut packet = vec![0; cobs::encoded_bytes_max(frame.len())];
    let length = cobs::encode(frame, &mut packet).expect("there is room");
    assert!(!packet[..length - 1].contains(&cobs::DELIMITER));
    line.extend(&packet[..length]);
    let mut buf = vec![0; cobs::decode_buffer_bytes(frame.len())];
    let mut decoder = cobs::Decoder::new();
    let mut rest = &line[..];
    let mut last = None;
    while !rest.is_empty() {
        let taken = decoder.take(rest, &mut buf);
        last = taken.frame;
        rest = &rest[taken.bytes..];
    }
    assert_eq!(last.map(|length| &buf[..length]), Some(frame));
}

fn a_name(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(name) = Name::new(text) {
        assert_eq!(name.as_str(), text);
        assert_ne!(name.node_id().0, 0);
    }
}
