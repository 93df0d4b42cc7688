//! Frames, records, batches, entries and COBS from hostile bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replcore_fuzz::decode::run(data));
