//! What is held back until the provenance station has answered: findings that name a library, so
//! that they say where it came from, and as what an upgrade accounts for is a remark; variables and
//! changes of PAM's files, which are judged by whose their libraries are; and writes by debuggers,
//! which are judged by whose those are.
//! Not for long: an answer may wait for a disk, and a finding must not.

use std::collections::VecDeque;

use crate::detect::Draft;
use crate::host::{Body, Observation, Owners, ProcessId};

/// Held back at most, ns.
const PATIENCE_NS: u64 = 1_500_000_000;
/// The same of what may be an upgrade, ns: while it goes on disks are busy, and whose a file is can be told
/// only once its package manager has written that down. What the library does beyond what the one before
/// it did is told meanwhile.
const UPGRADE_PATIENCE_NS: u64 = 10_000_000_000;
/// Held back at once, of each kind; beyond, they go on as they are.
const WAITING_MAX: usize = 1024;

/// What waits, the next that is due first.
#[derive(Debug, Default)]
pub(super) struct Waits {
    findings: VecDeque<Waiting>,
    held: VecDeque<(u64, Observation)>,
}

/// A finding that waits for an answer.
#[derive(Debug)]
struct Waiting {
    due_ktime_ns: u64,
    /// Of the library that is asked about.
    path: String,
    seen: Observation,
    draft: Draft,
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

    /// Takes a finding that waits for the answer about the library at `path`, which may be an upgrade;
    /// gives it back where there is no room.
    pub(super) fn hold(
        &mut self,
        seen: &Observation,
        (path, upgrade): (String, bool),
        draft: Draft,
    ) -> Option<Draft> {
        if self.findings.len() >= WAITING_MAX {
            return Some(draft);
        }
        let patience_ns = if upgrade { UPGRADE_PATIENCE_NS } else { PATIENCE_NS };
        let due_ktime_ns = seen.ktime_ns.saturating_add(patience_ns);
        let waiting = Waiting { due_ktime_ns, path, seen: seen.clone(), draft };
        // What was held before it was judged is older than what came before it.
        let at = self.findings.partition_point(|other| other.due_ktime_ns <= due_ktime_ns);
        self.findings.insert(at, waiting);
        None
    }

    /// The findings that waited for the answer about this library.
    pub(super) fn answered(&mut self, process: ProcessId, path: &str) -> Vec<(Observation, Draft)> {
        let is_it = |waiting: &Waiting| waiting.seen.process.id == process && waiting.path == path;
        let (told, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.findings).into_iter().partition(is_it);
        self.findings = kept;
        told.into_iter().map(|Waiting { seen, draft, .. }| (seen, draft)).collect()
    }

    /// The next that has waited too long.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<Due> {
        if self.findings.front().is_some_and(|waiting| waiting.due_ktime_ns <= now_ns) {
            let Waiting { seen, draft, .. } = self.findings.pop_front()?;
            return Some(Due::Finding(seen, draft));
        }
        if self.held.front().is_some_and(|(due, _)| *due <= now_ns) {
            return self.held.pop_front().map(|(_, seen)| Due::Held(seen));
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        let finding = self.findings.front().map(|waiting| waiting.due_ktime_ns);
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
