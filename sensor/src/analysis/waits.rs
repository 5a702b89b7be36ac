//! What is held back until the provenance station has answered: findings that name a library, so
//! that they say where it came from; variables and changes of PAM's files, which are judged by whose
//! their libraries are; and writes by debuggers, which are judged by whose those are.
//! Not for long: an answer may wait for a disk, and a finding must not.

use std::collections::VecDeque;

use crate::detect::Draft;
use crate::host::{Body, Observation, Owners, ProcessId};

/// Held back at most, ns.
const PATIENCE_NS: u64 = 1_500_000_000;
/// Held back at once, of each kind; beyond, they go on as they are.
const WAITING_MAX: usize = 1024;

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Waits {
    findings: VecDeque<(u64, Observation, Draft)>,
    held: VecDeque<(u64, Observation)>,
}

/// What waited long enough.
#[derive(Debug)]
pub(super) enum Due {
    Finding(Observation, Draft),
    Held(Observation),
}

// === impl Waits ===

impl Waits {
    /// What can be judged now: not what is asked about, nor an answer that came too late.
    pub(super) fn pass(&mut self, seen: Observation) -> Option<Observation> {
        let owners = match &seen.body {
            Body::Environment(variable) => variable.owners,
            Body::LoaderConfig(change) => change.owners,
            Body::Written(written) => written.owners,
            _ => return Some(seen),
        };
        match owners {
            Owners::NotAsked => Some(seen),
            Owners::Asked if self.held.len() >= WAITING_MAX => Some(seen),
            Owners::Asked => {
                self.held.push_back((seen.ktime_ns.saturating_add(PATIENCE_NS), seen));
                None
            }
            Owners::Answered => {
                let is_it = |(_, held): &(u64, Observation)| is_same(held, &seen);
                let at = self.held.iter().position(is_it)?;
                self.held.remove(at);
                Some(seen)
            }
        }
    }

    /// Takes a finding on a library that is asked about; gives it back where it need not wait.
    pub(super) fn hold(&mut self, seen: &Observation, draft: Draft) -> Option<Draft> {
        let asked = matches!(&seen.body, Body::Library(library) if library.asked);
        if !asked || self.findings.len() >= WAITING_MAX {
            return Some(draft);
        }
        let due = seen.ktime_ns.saturating_add(PATIENCE_NS);
        self.findings.push_back((due, seen.clone(), draft));
        None
    }

    /// The findings on a library that waited for its answer.
    pub(super) fn answered(&mut self, process: ProcessId, path: &str) -> Vec<(Observation, Draft)> {
        let is_it = |seen: &Observation| {
            let path_of = |seen: &Observation| match &seen.body {
                Body::Library(library) => library.module.path == path,
                _ => false,
            };
            seen.process.id == process && path_of(seen)
        };
        let (told, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.findings).into_iter().partition(|(_, seen, _)| is_it(seen));
        self.findings = kept;
        told.into_iter().map(|(_, seen, draft)| (seen, draft)).collect()
    }

    /// The next that has waited too long.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<Due> {
        if self.findings.front().is_some_and(|(due, ..)| *due <= now_ns) {
            let (_, seen, draft) = self.findings.pop_front()?;
            return Some(Due::Finding(seen, draft));
        }
        if self.held.front().is_some_and(|(due, _)| *due <= now_ns) {
            return self.held.pop_front().map(|(_, seen)| Due::Held(seen));
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        let finding = self.findings.front().map(|(due, ..)| *due);
        let variable = self.held.front().map(|(due, _)| *due);
        finding.into_iter().chain(variable).min()
    }
}

fn is_same(held: &Observation, seen: &Observation) -> bool {
    let alike = match (&held.body, &seen.body) {
        (Body::Environment(a), Body::Environment(b)) => a.name == b.name && a.value == b.value,
        (Body::LoaderConfig(a), Body::LoaderConfig(b)) => {
            a.path == b.path && a.root == b.root && a.after == b.after
        }
        (Body::Written(a), Body::Written(b)) => a.writer.id == b.writer.id,
        _ => false,
    };
    alike && held.process.id == seen.process.id && held.ktime_ns == seen.ktime_ns
}
