//! Fuzz target: see `sensor::fuzz::elf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::elf(data);
});
