//! Fuzz target: see `sensor::fuzz::baselines`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = sensor::fuzz::baselines(data);
});
