//! Fuzz target: see `sensor::fuzz::link_map`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::link_map(data);
});
