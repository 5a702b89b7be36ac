//! How long tests wait for what must come: on an emulated machine everything takes several times as
//! long, so every deadline is multiplied by one number. What must hold by then is the same.

use std::{sync::LazyLock, time::Duration};

const FACTOR: &str = "HALFSECOND_TEST_PATIENCE";

static TIMES: LazyLock<u32> = LazyLock::new(|| match std::env::var(FACTOR) {
    Ok(text) => text.parse().unwrap_or_else(|_| panic!("{FACTOR}={text}: not a number")),
    Err(_) => 1,
});

/// A deadline as it is on a real machine, made longer where this is none.
pub(crate) fn patient(deadline: Duration) -> Duration {
    deadline.saturating_mul(*TIMES)
}
