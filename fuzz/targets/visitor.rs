#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sprite_server::fuzzing::visitor(bytes));
