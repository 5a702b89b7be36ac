//! Fuzz target: see `sensor::fuzz::eh_frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::eh_frame(data);
});
