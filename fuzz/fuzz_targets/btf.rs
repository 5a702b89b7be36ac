//! Fuzz target: see `sensor::fuzz::btf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::btf(data);
});
