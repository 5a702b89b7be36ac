//! Fuzz target: see `sensor::fuzz::recording`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::recording(data);
});
