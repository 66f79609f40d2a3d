#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lastword_fuzz::directory(bytes));
