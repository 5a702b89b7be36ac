//! Fuzz target: see `sensor::fuzz::cache`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::cache(data);
});
