//! A hub whose leaves, clients and upstream hub are hostile.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replcore_fuzz::node::run(data));
