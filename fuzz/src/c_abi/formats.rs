//! What needs no machine: records, batches, entries, lines.

use super::Choices;
use crate::ffi::*;

/// A record that is right mostly.
pub(super) fn wire_record(choices: &mut Choices<'_>) -> Vec<u8> {
    if choices.byte() < 32 {
        return choices.bytes();
    }
    let text = choices.text();
    // SAFETY: zeros are a value of a structure of integers and pointers.
    let mut message: replcore_message = unsafe { std::mem::zeroed() };
    message.struct_size = size_of::<replcore_message>() as u32;
    message.message_type = text.as_ptr();
    let to = [c"a".as_ptr(), c"x".as_ptr()];
    (message.to, message.to_count) = (to.as_ptr(), choices.small() % 3);
    let (mut out, mut written) = (vec![0; 2048], 0);
    let id = replcore_record_id { origin: 1, seq: 1, epoch: 1, message_class: 0 };
    // SAFETY: as in `run`.
    unsafe {
        replcore_record_encode(&message, &id, 1, out.as_mut_ptr(), out.len(), &mut written);
    }
    out.truncate(written);
    out
}

pub(super) unsafe fn formats(choices: &mut Choices<'_>) -> replcore_status {
    let mut data = choices.bytes();
    let mut out = vec![0u8; usize::from(choices.byte())];
    let (pointer, len, mut written) = (data.as_ptr(), data.len(), 0);
    // SAFETY: as in `run`; zeros are values of the structures.
    unsafe {
        match choices.byte() % 10 {
            9 => {
                let mut subscribe = std::mem::zeroed();
                replcore_subscribe_read(pointer, len, &mut subscribe)
            }
            0 => {
                let mut batch = replcore_batch::default();
                replcore_batch_read(pointer, len, choices.number(), &mut batch)
            }
            1 => {
                let batch = replcore_batch {
                    segment: choices.number(),
                    first_ordinal: choices.number(),
                    entries_len: choices.small(),
                    records: choices.small(),
                };
                replcore_batch_encode(&batch, data.as_mut_ptr(), len)
            }
            2 => {
                let mut kind = 0;
                let most = choices.small();
                replcore_entry_read(pointer, len, most, &mut kind, &mut written)
            }
            3 => {
                let kind = choices.small();
                let out = (out.as_mut_ptr(), out.len());
                replcore_entry_encode(kind, pointer, len, out.0, out.1, &mut written)
            }
            4 => {
                let (mut record, mut part) = (replcore_record::default(), replcore_part::default());
                let index = choices.small();
                let _ = replcore_record_to(pointer, len, index, &mut part);
                let _ = replcore_record_header(pointer, len, index, &mut part);
                let status = replcore_record_check(pointer, len, &mut record);
                if status == replcore_status::Ok {
                    assert!((record.body_at + record.body_len) as usize <= len);
                }
                status
            }
            5 => {
                let id =
                    replcore_record_id { message_class: choices.small(), ..Default::default() };
                replcore_record_stamp(data.as_mut_ptr(), len, &id)
            }
            6 => {
                let mut decoder = replcore_cobs_decoder::default();
                let (mut taken, mut frame_len) = (0, 0);
                let (line, cap) = (out.as_mut_ptr(), out.len());
                let to = (&mut taken, &mut frame_len);
                let status = replcore_cobs_take(&mut decoder, pointer, len, line, cap, to.0, to.1);
                assert!(taken <= len && (frame_len == usize::MAX || frame_len <= cap));
                status
            }
            7 => {
                let out = (out.as_mut_ptr(), out.len());
                replcore_cobs_encode(pointer, len, out.0, out.1, &mut written)
            }
            _ => encode(choices, &data, &mut out),
        }
    }
}

unsafe fn encode(choices: &mut Choices<'_>, data: &[u8], out: &mut [u8]) -> replcore_status {
    // SAFETY: zeros are a value of a structure of integers and pointers.
    let mut message: replcore_message = unsafe { std::mem::zeroed() };
    let texts = [choices.text(), choices.text()];
    let to = [texts[0].as_ptr(); 2];
    let header =
        replcore_header { name: texts[1].as_ptr(), value: data.as_ptr(), value_len: data.len() };
    (message.message_type, message.to, message.to_count) =
        (texts[1].as_ptr(), to.as_ptr(), choices.small() % 3);
    (message.headers, message.header_count) = (&header, choices.small() % 2);
    (message.body, message.body_len) = (data.as_ptr(), data.len());
    message.struct_size = size_of::<replcore_message>() as u32;
    let id = replcore_record_id { message_class: choices.small(), ..Default::default() };
    let (mut written, mut found) = (0, replcore_record::default());
    // SAFETY: as in `run`.
    unsafe {
        let status =
            replcore_record_encode(&message, &id, 1, out.as_mut_ptr(), out.len(), &mut written);
        if status == replcore_status::Ok {
            let read = replcore_record_check(out.as_ptr(), written, &mut found);
            assert_eq!((read, found.body_len as usize), (replcore_status::Ok, data.len()));
        }
        status
    }
}
