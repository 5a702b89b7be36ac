//! Fuzz target: see `sensor::fuzz::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::records(data);
});
