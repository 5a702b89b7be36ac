//! Checks that met a process still in motion, to be repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::host::{Observation, ProcessId};

/// Repetitions of one check: with doubling waits, about half a second at the default settle time.
const TRIES_MAX: u32 = 6;
/// Waiting at once.
const WAITING_MAX: usize = 1024;

/// Pending repetitions by due time.
#[derive(Debug)]
pub(super) struct Rechecks {
    settle_ns: u64,
    waiting: BTreeMap<(u64, ProcessId), (Observation, u32)>,
}

// === impl Rechecks ===

impl Rechecks {
    pub(super) fn new(settle: Duration) -> Self {
        let settle_ns = u64::try_from(settle.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
        Self { settle_ns, waiting: BTreeMap::new() }
    }

    /// Notes one more try; false when it was the last.
    pub(super) fn again(&mut self, seen: &Observation, now_ns: u64, tries: u32) -> bool {
        if tries >= TRIES_MAX || self.waiting.len() >= WAITING_MAX {
            return false;
        }
        let due = now_ns.saturating_add(self.settle_ns.saturating_mul(1 << tries));
        // One is enough for a process, whoever asked: the latest observation, at the time of the one
        // that has come furthest, so that nobody puts the last off by being asked about again and
        // again.
        let id = seen.process.id;
        let waiting = self.waiting.iter().find(|((_, waiting), _)| *waiting == id);
        let waiting = waiting.map(|((due, _), (_, tries))| (*due, *tries));
        let (due, tries) = match waiting {
            Some((due, done)) if done > tries => (due, done),
            _ => (due, tries + 1),
        };
        self.waiting.retain(|(_, waiting), _| *waiting != id);
        self.waiting.insert((due, id), (seen.clone(), tries));
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
