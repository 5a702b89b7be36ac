//! Baselines in memory, loaded when asked for and flushed when something in them changed.

use std::collections::BTreeMap;

use super::store::{Opened, Store, StoreTally};
use super::subject::Baseline;
use crate::trouble::chain;

/// Baselines held in memory; the least recently used ones are read again when needed.
const RESIDENT_MAX: usize = 1024;
/// Baselines held when the store does not take any; beyond, unwritten ones are lost and counted.
const UNWRITTEN_MAX: usize = 4 * RESIDENT_MAX;
/// Flushes between two writes of baselines in which nothing but a count has changed.
const LAZY: u32 = 30;

/// Every baseline.
#[derive(Debug)]
pub struct Baselines {
    resident: BTreeMap<String, Resident>,
    store: Store,
    uses: u64,
    lost: u64,
    skipped: u32,
    /// Why the last attempt to write failed.
    failure: Option<String>,
}

#[derive(Debug)]
struct Resident {
    baseline: Baseline,
    changed: Changed,
    used: u64,
    /// Its program is a guarded one, as far as was told since it was loaded.
    guarded: bool,
}

/// How much it matters to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Changed {
    /// Not at all.
    No,
    /// A count went up; another one will soon.
    Count,
    /// Something was learned.
    Learned,
}

// === impl Baselines ===

impl Baselines {
    /// On top of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let resident = BTreeMap::new();
        Self { resident, store, uses: 0, lost: 0, skipped: 0, failure: None }
    }

    /// A subject's baseline; an empty one if it was never seen.
    pub fn get(&mut self, subject: &str) -> &Baseline {
        &self.load(subject).baseline
    }

    /// The same, to change it.
    pub(crate) fn learn(&mut self, subject: &str, changed: Changed) -> &mut Baseline {
        let resident = self.load(subject);
        resident.changed = resident.changed.max(changed);
        &mut resident.baseline
    }

    /// The same without loading: what detectors read, after [`Baselines::get`].
    pub(crate) fn peek(&self, subject: &str) -> Option<&Baseline> {
        self.resident.get(subject).map(|resident| &resident.baseline)
    }

    /// Writes what changed in one transaction. `all` includes mere counts.
    pub(crate) fn flush(&mut self, all: bool) -> Option<Opened> {
        self.skipped += 1;
        let all = all || self.skipped >= LAZY;
        let least = if all { Changed::Count } else { Changed::Learned };
        let mut changes = Vec::new();
        for (subject, resident) in self.resident.iter().filter(|(_, r)| r.changed >= least) {
            if let Ok(bytes) = serde_json::to_vec(&resident.baseline) {
                changes.push((subject.clone(), bytes));
            }
        }
        if changes.is_empty() {
            return None;
        }
        // After a failure everything stays marked and is tried again.
        let reopened = match self.store.write(&changes) {
            Ok(reopened) => reopened,
            Err(error) => {
                self.failure = Some(chain(&error));
                return None;
            }
        };
        self.failure = None;
        let fresh = matches!(reopened, Some(Opened::SetAside { .. }));
        for resident in self.resident.values_mut() {
            if fresh {
                resident.changed = Changed::Learned;
            } else if resident.changed >= least {
                resident.changed = Changed::No;
            }
        }
        if all {
            self.skipped = 0;
        }
        reopened.filter(|opened| *opened != Opened::Ready)
    }

    /// Why the last attempt to write failed; `None` if it did not.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Counts of the store.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        self.store.tally()
    }

    /// Baselines in memory.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.resident.len()
    }

    /// Baselines in memory that have learned enough for their detectors to speak.
    #[must_use]
    pub fn settled(&self, observations: u32) -> usize {
        let settled =
            |resident: &&Resident| resident.baseline.settled(observations, resident.guarded);
        self.resident.values().filter(settled).count()
    }

    /// The subject's program is a guarded one.
    pub(crate) fn mark_guarded(&mut self, subject: &str) {
        if let Some(resident) = self.resident.get_mut(subject) {
            resident.guarded = true;
        }
    }

    /// Baselines forgotten unwritten, because the store took none for long.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn load(&mut self, subject: &str) -> &mut Resident {
        self.uses += 1;
        if !self.resident.contains_key(subject) {
            self.make_room();
            let baseline = self.read(subject);
            let resident =
                Resident { baseline, changed: Changed::No, used: self.uses, guarded: false };
            self.resident.insert(subject.to_owned(), resident);
        }
        let uses = self.uses;
        let resident = self.resident.entry(subject.to_owned()).or_insert_with(|| Resident {
            baseline: Baseline::default(),
            changed: Changed::No,
            used: uses,
            guarded: false,
        });
        resident.used = uses;
        resident
    }

    fn read(&mut self, subject: &str) -> Baseline {
        let Some(bytes) = self.store.read(subject) else {
            return Baseline::default();
        };
        let mut baseline: Baseline = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            self.store.count_unreadable();
            Baseline::default()
        });
        baseline.adopt();
        baseline
    }

    /// Drops the least recently used quarter once there are too many.
    fn make_room(&mut self) {
        if self.resident.len() < RESIDENT_MAX {
            return;
        }
        self.flush(true);
        let mut by_use: Vec<(u64, String)> = self
            .resident
            .iter()
            .filter(|(_, resident)| resident.changed == Changed::No)
            .map(|(subject, resident)| (resident.used, subject.clone()))
            .collect();
        if by_use.is_empty() && self.resident.len() >= UNWRITTEN_MAX {
            by_use = self.resident.iter().map(|(s, r)| (r.used, s.clone())).collect();
            self.lost += (RESIDENT_MAX / 4) as u64;
        }
        by_use.sort_unstable();
        for (_, subject) in by_use.into_iter().take(RESIDENT_MAX / 4) {
            self.resident.remove(&subject);
        }
    }
}
