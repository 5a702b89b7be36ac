//! How long tests wait for what must come, and how often they do what they do: on an emulated machine
//! everything takes several times as long, so every deadline is multiplied by one number, and a loop
//! may be told to be shorter. What must hold is the same.

#![allow(dead_code, reason = "each test target takes what it needs from here")]
#![allow(clippy::panic, reason = "a test that cannot tell its deadlines fails")]

use std::{sync::LazyLock, time::Duration};

const FACTOR: &str = "HALFSECOND_TEST_PATIENCE";
/// Of `cargo xtask test --quick`, and in guests.
const QUICK: &str = "HALFSECOND_TEST_QUICK";

static TIMES: LazyLock<u32> = LazyLock::new(|| match std::env::var(FACTOR) {
    Ok(text) => text.parse().unwrap_or_else(|_| {
        eprintln!("{FACTOR}={text}: not a number, deadlines stay as they are");
        1
    }),
    Err(_) => 1,
});

/// A deadline as it is on a real machine, made longer where this is none.
pub(crate) fn patient(deadline: Duration) -> Duration {
    deadline.saturating_mul(*TIMES)
}

/// Whether this machine's processors are emulated, as far as deadlines tell.
pub(crate) fn is_emulated() -> bool {
    *TIMES > 1
}

/// As many repetitions as on a real machine, or, where it is to be quick, as many as still show it.
pub(crate) fn repetitions(all: usize, enough: usize) -> usize {
    if std::env::var_os(QUICK).is_some() { enough } else { all }
}
