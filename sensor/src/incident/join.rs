//! Joining findings to incidents: by lineage, by the file they blame, and by time. No clock but the
//! events', no randomness: the same findings give the same incidents.

mod decide;
mod index;
mod open;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::suppress::Suppressions;
use super::{Entry, Incident, IncidentUpdate, Reason, State, blame, limit};
use crate::finding::{Finding, Severity};
use crate::host::Lineage;
use index::Index;
use open::Open;

/// Incidents open at a time; with more, the one untouched for longest is closed.
pub const MAX_OPEN: usize = 256;
/// Closed incidents that wait for a store that fails; with more, the oldest is given up.
const MAX_UNSAVED: usize = 256;

/// The open incidents.
#[derive(Debug)]
pub struct Incidents {
    window_ns: u64,
    host: String,
    open: BTreeMap<Lineage, Open>,
    index: Index,
    /// Those that nothing joins any more and that were not saved since, oldest first.
    closed: VecDeque<Entry>,
    /// Closings nobody was told of yet.
    untold: VecDeque<Incident>,
    suppressions: Suppressions,
    counters: Counters,
}

/// What became of the findings and incidents. As they come, findings are counted once, in `kept`,
/// `repeated`, `omitted` or `passed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Findings kept as the first of their kind.
    pub kept: u64,
    /// Findings counted with one that was kept.
    pub repeated: u64,
    /// Findings for which an incident had no room.
    pub omitted: u64,
    /// Info findings that came while no incident was open to join.
    pub passed: u64,
    /// Findings taken in that later made room for worse ones.
    pub displaced: u64,
    /// Incidents closed before their time because too many were open.
    pub closed_early: u64,
    /// Closed incidents given up because the store failed for too long.
    pub given_up: u64,
    /// Closings nobody was told of, because [`Incidents::tick`] was not called for too long.
    pub untold: u64,
    /// Findings that were suppressed; each is counted above as well.
    pub suppressed: u64,
    /// Times that an incident's text was written.
    pub written: u64,
}

// === impl Incidents ===

impl Incidents {
    /// None open. `window` is how long after its latest finding an incident takes another; `host`
    /// is this host's name.
    #[must_use]
    pub fn new(window: Duration, host: String) -> Self {
        Self {
            window_ns: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            host,
            open: BTreeMap::new(),
            index: Index::default(),
            closed: VecDeque::new(),
            untold: VecDeque::new(),
            suppressions: Suppressions::default(),
            counters: Counters::default(),
        }
    }

    /// Says what is to be expected from now on.
    pub fn set_suppressions(&mut self, suppressions: Suppressions) {
        self.suppressions = suppressions;
    }

    /// What is to be expected.
    pub fn suppressions(&mut self) -> &mut Suppressions {
        &mut self.suppressions
    }

    /// Takes in what a store kept as open. Those whose window has passed at `now` (the same
    /// instant as `ktime_ns`) are closed; the clock of another boot does not matter.
    pub fn restore(&mut self, entries: Vec<Entry>, now: Timestamp, ktime_ns: u64) {
        for entry in entries {
            // A wall clock that was set back makes it recent: better joined than torn apart.
            let age = now.as_nanosecond().saturating_sub(entry.incident.updated.as_nanosecond());
            let age = u64::try_from(age.max(0)).unwrap_or(u64::MAX);
            let open = Open::restored(entry, ktime_ns.saturating_sub(age));
            if age > self.window_ns {
                self.close(open);
            } else {
                self.insert(open);
            }
        }
    }

    /// Takes in a finding of `lineage` made at `ktime_ns` (`CLOCK_MONOTONIC`, ns). Answers with
    /// the incident where it is worth telling; a finding seen before is only counted. An info finding
    /// joins an open incident but opens none; a suppressed one is kept, and nobody is told.
    pub fn join(
        &mut self,
        mut finding: Finding,
        lineage: &Lineage,
        ktime_ns: u64,
    ) -> Option<IncidentUpdate> {
        limit::trim(&mut finding);
        finding.suppressed_by = self.suppressions.matching(&finding);
        self.counters.suppressed += u64::from(finding.suppressed_by.is_some());
        let files = match finding.suppressed_by {
            // What is to be expected ties nothing together.
            Some(_) => Vec::new(),
            None => blame::shared(&finding),
        };
        if let Some(target) = self.target(lineage, &files, ktime_ns) {
            let open = self.open.get_mut(&target)?;
            let reason = open.join(finding, ktime_ns, &mut self.counters);
            open.share(files, &mut self.index);
            if target != *lineage && !self.open.contains_key(lineage) {
                self.alias(&target, lineage);
            }
            let reason = reason?;
            let incident = self.open.get_mut(&target)?.incident(&mut self.counters).clone();
            return Some(IncidentUpdate { reason, incident });
        }
        if finding.severity == Severity::Info {
            self.counters.passed += 1;
            return None;
        }
        self.counters.kept += 1;
        let mut open = Open::new(&self.host, finding, lineage, ktime_ns);
        let incident = open.incident(&mut self.counters).clone();
        self.insert(open);
        let told = incident.state != State::Suppressed;
        told.then_some(IncidentUpdate { reason: Reason::Opened, incident })
    }

    /// Closes incidents whose window has passed at `ktime_ns`; returns every incident closed since
    /// the last call.
    pub fn tick(&mut self, ktime_ns: u64) -> Vec<IncidentUpdate> {
        let over: Vec<Lineage> = self
            .open
            .iter()
            .filter(|(_, open)| self.over(open, ktime_ns))
            .map(|(lineage, _)| lineage.clone())
            .collect();
        for lineage in over {
            if let Some(open) = self.remove(&lineage) {
                self.close(open);
            }
        }
        let told = |incident| IncidentUpdate { reason: Reason::Closed, incident };
        self.untold.drain(..).map(told).collect()
    }

    /// Records were lost: what is open now may lack evidence.
    pub fn mark_partial(&mut self) {
        self.open.values_mut().for_each(Open::mark_partial);
    }

    /// Those that findings can still join.
    pub fn open(&mut self) -> impl Iterator<Item = &Incident> {
        let counters = &mut self.counters;
        self.open.values_mut().map(move |open| open.incident(counters))
    }

    /// What became of the findings so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether [`save`](Self::save) has something to do.
    #[must_use]
    pub fn unsaved(&self) -> bool {
        !self.closed.is_empty() || self.open.values().any(Open::unsaved)
    }

    /// Gives every incident that has changed since it was last saved to `save`, all at once; where
    /// that fails they stay unsaved.
    pub fn save<E>(&mut self, save: impl FnOnce(&[&Entry]) -> Result<(), E>) -> Result<(), E> {
        if !self.unsaved() {
            return Ok(());
        }
        for open in self.open.values_mut().filter(|open| open.unsaved()) {
            open.incident(&mut self.counters);
        }
        let open = self.open.values().filter(|open| open.unsaved()).map(Open::entry);
        save(&self.closed.iter().chain(open).collect::<Vec<_>>())?;
        self.closed.clear();
        self.open.values_mut().for_each(Open::saved);
        Ok(())
    }

    /// Whose incident a finding of `lineage` that blames `files` joins: its own, unless only another
    /// one blames them. Those it finds whose window has passed are closed.
    fn target(&mut self, lineage: &Lineage, files: &[String], ktime_ns: u64) -> Option<Lineage> {
        loop {
            let own = if self.open.contains_key(lineage) {
                Some(lineage)
            } else {
                self.index.stands_for(lineage)
            };
            let same = self.index.blaming(files);
            let target = match (own, same) {
                (Some(own), Some(same)) => {
                    let also = self.open.get(own).is_some_and(|open| open.blames(files));
                    if also { own } else { same }
                }
                (own, same) => own.or(same)?,
            };
            let target = target.clone();
            let open = self.open.get(&target)?;
            if !self.over(open, ktime_ns) {
                return Some(target);
            }
            let stale = self.remove(&target)?;
            self.close(stale);
        }
    }

    /// What comes of `lineage` from now on belongs to the incident of `target`.
    fn alias(&mut self, target: &Lineage, lineage: &Lineage) {
        if let Some(open) = self.open.get_mut(target)
            && open.add_lineage(lineage)
        {
            self.index.alias(lineage, target);
        }
    }

    fn over(&self, open: &Open, ktime_ns: u64) -> bool {
        ktime_ns.saturating_sub(open.last_ktime_ns()) > self.window_ns
    }

    fn insert(&mut self, open: Open) {
        if self.open.len() >= MAX_OPEN {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.last_ktime_ns());
            if let Some(lineage) = oldest.map(|(lineage, _)| lineage.clone())
                && let Some(oldest) = self.remove(&lineage)
            {
                self.counters.closed_early += 1;
                self.close(oldest);
            }
        }
        let lineage = open.entry().lineage.clone();
        if let Some(older) = self.remove(&lineage) {
            self.close(older);
        }
        self.index.add(&open);
        self.open.insert(lineage, open);
    }

    fn remove(&mut self, lineage: &Lineage) -> Option<Open> {
        let open = self.open.remove(lineage)?;
        self.index.remove(&open);
        // By what others blame as well they are found from now on.
        for other in self.open.values() {
            for file in other.files().filter(|file| open.blames(std::slice::from_ref(*file))) {
                self.index.blame(file.clone(), &other.entry().lineage);
            }
        }
        Some(open)
    }

    /// Nothing joins it any more; it is closed where nobody has said what is to become of it.
    fn close(&mut self, mut open: Open) {
        open.incident(&mut self.counters);
        let mut entry = open.into_entry();
        entry.over = true;
        if !entry.held() {
            entry.incident.state = State::Closed;
            if self.untold.len() >= MAX_UNSAVED {
                self.untold.pop_front();
                self.counters.untold += 1;
            }
            self.untold.push_back(entry.incident.clone());
        }
        self.keep(entry);
    }

    /// Waits to be saved.
    fn keep(&mut self, entry: Entry) {
        if self.closed.len() >= MAX_UNSAVED {
            self.closed.pop_front();
            self.counters.given_up += 1;
        }
        self.closed.push_back(entry);
    }
}

#[cfg(test)]
impl Incidents {
    /// Whether what findings are led by agrees with what is open.
    pub(super) fn is_sound(&self) -> bool {
        self.index.is_sound(&self.open)
    }
}
