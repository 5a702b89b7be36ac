//! Fuzz target: see `sensor::fuzz::maps`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::maps(data);
});
