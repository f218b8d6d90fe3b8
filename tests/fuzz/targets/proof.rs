#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syndicate_fuzz::proof(bytes));
