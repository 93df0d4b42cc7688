//! Operations on the embedded store, with power cuts, against a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replcore_fuzz::store_ops::run(data));
