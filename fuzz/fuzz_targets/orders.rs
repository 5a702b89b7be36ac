//! Fuzz target: see `sensor::fuzz::orders`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::orders(data);
});
