//! Who wrote into a process, or what it made writable itself: told with what a check finds there.

use std::collections::{BTreeMap, VecDeque};

use crate::detect::{relro_reopened, remote_write};
use crate::finding::Evidence;
use crate::host::{Body, Observation, ProcessId};

/// Processes remembered, and hands of each.
const PROCESSES_MAX: usize = 512;
const HANDS_MAX: usize = 4;

/// The hands seen in living processes.
#[derive(Debug, Default)]
pub(super) struct Writers {
    by_process: BTreeMap<ProcessId, VecDeque<Evidence>>,
}

// === impl Writers ===

impl Writers {
    /// Remembers a hand, and forgets those in a program that is over.
    pub(super) fn note(&mut self, seen: &Observation) {
        let id = seen.process.id;
        match &seen.body {
            Body::Started | Body::Ended => {
                self.by_process.remove(&id);
            }
            Body::Written(written) if written.is_target => {
                self.put(id, remote_write::evidence(written));
            }
            Body::Reopened(reopened) => self.put(id, relro_reopened::evidence(reopened)),
            _ => {}
        }
    }

    fn put(&mut self, id: ProcessId, hand: Evidence) {
        if self.by_process.len() >= PROCESSES_MAX && !self.by_process.contains_key(&id) {
            self.by_process.pop_first();
        }
        let hands = self.by_process.entry(id).or_default();
        hands.retain(|other| !is_same(other, &hand));
        if hands.len() >= HANDS_MAX {
            hands.pop_front();
        }
        hands.push_back(hand);
    }

    /// Says in a finding of a check whose hand was seen there.
    pub(super) fn add_to(&self, seen: &Observation, evidence: &mut Vec<Evidence>) {
        if matches!(seen.body, Body::Checked(_)) {
            evidence.extend(self.by_process.get(&seen.process.id).into_iter().flatten().cloned());
        }
    }
}

/// The same hand again: told as it was last.
fn is_same(a: &Evidence, b: &Evidence) -> bool {
    match (a, b) {
        (Evidence::Writer { pid: a, exe: x, .. }, Evidence::Writer { pid: b, exe: y, .. }) => {
            (a, x) == (b, y)
        }
        (Evidence::Protection { place: a, .. }, Evidence::Protection { place: b, .. }) => a == b,
        _ => false,
    }
}
