//! A hostile or mistaken C program.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replcore_fuzz::c_abi::run(data));
