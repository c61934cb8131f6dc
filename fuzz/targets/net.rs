#![no_main]

libfuzzer_sys::fuzz_target!(init: sprite_vmm::fuzzing::quiet(), |bytes: &[u8]| sprite_vmm::fuzzing::net(bytes));
