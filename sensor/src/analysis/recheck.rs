//! Checks that met a process still in motion, to be repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::host::Observation;

/// Repetitions of one check: with doubling waits, about half a second at the default settle time.
const TRIES_MAX: u32 = 6;
/// Waiting at once.
const WAITING_MAX: usize = 1024;

/// Pending repetitions by due time.
#[derive(Debug)]
pub(super) struct Rechecks {
    settle_ns: u64,
    waiting: BTreeMap<(u64, u64), (Observation, u32)>,
    made: u64,
}

// === impl Rechecks ===

impl Rechecks {
    pub(super) fn new(settle: Duration) -> Self {
        let settle_ns = u64::try_from(settle.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
        Self { settle_ns, waiting: BTreeMap::new(), made: 0 }
    }

    /// Notes one more try; false when it was the last.
    pub(super) fn again(&mut self, seen: &Observation, now_ns: u64, tries: u32) -> bool {
        if tries >= TRIES_MAX || self.waiting.len() >= WAITING_MAX {
            return false;
        }
        let due = now_ns.saturating_add(self.settle_ns.saturating_mul(1 << tries));
        self.made += 1;
        self.waiting.insert((due, self.made), (seen.clone(), tries + 1));
        true
    }

    /// The next that is due, with the tries so far.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<(Observation, u32)> {
        let (key, _) = self.waiting.first_key_value().filter(|(key, _)| key.0 <= now_ns)?;
        let key = *key;
        self.waiting.remove(&key)
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(key, _)| key.0)
    }
}
