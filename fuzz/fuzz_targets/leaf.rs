//! A leaf whose hub is hostile.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replcore_fuzz::leaf::run(data));
