//! Joining findings to incidents, by lineage and time. No clock but the events', no randomness:
//! the same findings give the same incidents.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::key::incident_id;
use super::limit::{self, Taken};
use super::score::{score, severity};
use super::story::story;
use super::{Entry, Incident, IncidentUpdate, Reason, State, advice, title};
use crate::finding::{Finding, Severity};
use crate::host::Lineage;

/// Incidents open at a time; with more, the one untouched for longest is closed.
pub const MAX_OPEN: usize = 256;
/// Closed incidents that wait for a store that fails; with more, the oldest is given up.
const MAX_UNSAVED: usize = 256;
/// Hosts an incident lists.
const MAX_HOSTS: usize = 16;

/// The open incidents.
#[derive(Debug)]
pub struct Incidents {
    window_ns: u64,
    host: String,
    open: BTreeMap<Lineage, Open>,
    /// Closed and not saved since, oldest first.
    closed: VecDeque<Entry>,
    /// Closings nobody was told of yet.
    untold: VecDeque<Incident>,
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
}

#[derive(Debug)]
struct Open {
    entry: Entry,
    /// Event clock of the latest finding.
    last_ktime_ns: u64,
    /// Changed since it was last saved.
    unsaved: bool,
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
            closed: VecDeque::new(),
            untold: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in what a store kept as open. Those whose window has passed at `now` (the same
    /// instant as `ktime_ns`) are closed; the clock of another boot does not matter.
    pub fn restore(&mut self, entries: Vec<Entry>, now: Timestamp, ktime_ns: u64) {
        for entry in entries {
            // A wall clock that was set back makes it recent: better joined than torn apart.
            let age = now.as_nanosecond().saturating_sub(entry.incident.updated.as_nanosecond());
            let age = u64::try_from(age.max(0)).unwrap_or(u64::MAX);
            let last_ktime_ns = ktime_ns.saturating_sub(age);
            let lineage = entry.lineage.clone();
            let open = Open { entry, last_ktime_ns, unsaved: false };
            if age > self.window_ns {
                self.close(open);
            } else {
                self.make_room();
                if let Some(older) = self.open.insert(lineage, open) {
                    self.close(older);
                }
            }
        }
    }

    /// Takes in a finding of `lineage` made at `ktime_ns` (`CLOCK_MONOTONIC`, ns). Answers with
    /// the incident where it is worth telling; a finding seen before is only counted. An info finding
    /// joins an open incident but opens none.
    pub fn join(
        &mut self,
        mut finding: Finding,
        lineage: &Lineage,
        ktime_ns: u64,
    ) -> Option<IncidentUpdate> {
        limit::trim(&mut finding);
        if let Some(stale) = self.open.get(lineage)
            && self.over(stale, ktime_ns)
            && let Some(stale) = self.open.remove(lineage)
        {
            self.close(stale);
        }
        if let Some(open) = self.open.get_mut(lineage) {
            return open.join(finding, ktime_ns, &mut self.counters);
        }
        if finding.severity == Severity::Info {
            self.counters.passed += 1;
            return None;
        }
        self.make_room();
        self.counters.kept += 1;
        let open = Open::new(&self.host, finding, lineage, ktime_ns);
        let incident = open.entry.incident.clone();
        self.open.insert(lineage.clone(), open);
        Some(IncidentUpdate { reason: Reason::Opened, incident })
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
            if let Some(open) = self.open.remove(&lineage) {
                self.close(open);
            }
        }
        let told = |incident| IncidentUpdate { reason: Reason::Closed, incident };
        self.untold.drain(..).map(told).collect()
    }

    /// Records were lost: what is open now may lack evidence.
    pub fn mark_partial(&mut self) {
        for open in self.open.values_mut().filter(|open| !open.entry.incident.partial) {
            open.entry.incident.partial = true;
            open.entry.tell();
            open.unsaved = true;
        }
    }

    /// Those that findings can still join.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values().map(|open| &open.entry.incident)
    }

    /// What became of the findings so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether [`save`](Self::save) has something to do.
    #[must_use]
    pub fn unsaved(&self) -> bool {
        !self.closed.is_empty() || self.open.values().any(|open| open.unsaved)
    }

    /// Gives every incident that has changed since it was last saved to `save`, all at once; where
    /// that fails they stay unsaved.
    pub fn save<E>(&mut self, save: impl FnOnce(&[&Entry]) -> Result<(), E>) -> Result<(), E> {
        if !self.unsaved() {
            return Ok(());
        }
        let open = self.open.values().filter(|open| open.unsaved).map(|open| &open.entry);
        save(&self.closed.iter().chain(open).collect::<Vec<_>>())?;
        self.closed.clear();
        self.open.values_mut().for_each(|open| open.unsaved = false);
        Ok(())
    }

    fn over(&self, open: &Open, ktime_ns: u64) -> bool {
        ktime_ns.saturating_sub(open.last_ktime_ns) > self.window_ns
    }

    fn make_room(&mut self) {
        if self.open.len() < MAX_OPEN {
            return;
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.last_ktime_ns);
        if let Some(lineage) = oldest.map(|(lineage, _)| lineage.clone())
            && let Some(open) = self.open.remove(&lineage)
        {
            self.counters.closed_early += 1;
            self.close(open);
        }
    }

    fn close(&mut self, open: Open) {
        let mut entry = open.entry;
        entry.incident.state = State::Closed;
        if self.untold.len() >= MAX_UNSAVED {
            self.untold.pop_front();
            self.counters.untold += 1;
        }
        self.untold.push_back(entry.incident.clone());
        if self.closed.len() >= MAX_UNSAVED {
            self.closed.pop_front();
            self.counters.given_up += 1;
        }
        self.closed.push_back(entry);
    }
}

// === impl Open ===

impl Open {
    fn new(host: &str, first: Finding, lineage: &Lineage, ktime_ns: u64) -> Self {
        let mut incident = Incident {
            id: incident_id(host, lineage, &first),
            opened: first.time,
            updated: first.time,
            state: State::Open,
            severity: first.severity,
            score: 0,
            title: String::new(),
            story: String::new(),
            findings: Vec::new(),
            hosts: vec![host.to_owned()],
            recommendation: String::new(),
            partial: false,
        };
        add_host(&mut incident.hosts, &first.host);
        incident.findings.push(first);
        let mut entry = Entry { lineage: lineage.clone(), omitted: 0, incident };
        entry.judge();
        entry.tell();
        Self { entry, last_ktime_ns: ktime_ns, unsaved: true }
    }

    fn join(
        &mut self,
        finding: Finding,
        ktime_ns: u64,
        counters: &mut Counters,
    ) -> Option<IncidentUpdate> {
        let Entry { omitted, incident, .. } = &mut self.entry;
        let before = incident.severity;
        let news = finding.severity > Severity::Info
            && incident.findings.iter().all(|known| known.detector != finding.detector);
        incident.updated = incident.updated.max(finding.time);
        add_host(&mut incident.hosts, &finding.host);
        let omitted_before = *omitted;
        let taken = limit::take(&mut incident.findings, omitted, finding);
        match taken {
            Taken::Kept => counters.kept += 1,
            Taken::Repeated => counters.repeated += 1,
            Taken::Omitted => counters.omitted += 1,
        }
        if taken == Taken::Kept {
            counters.displaced += *omitted - omitted_before;
        }
        self.last_ktime_ns = self.last_ktime_ns.max(ktime_ns);
        self.unsaved = true;
        self.entry.judge();
        self.entry.tell();
        let incident = &self.entry.incident;
        let reason = if incident.severity > before {
            Reason::Escalated
        } else if news && taken == Taken::Kept {
            Reason::Corroborated
        } else {
            return None;
        };
        Some(IncidentUpdate { reason, incident: incident.clone() })
    }
}

// === impl Entry ===

impl Entry {
    fn judge(&mut self) {
        let incident = &mut self.incident;
        // Judged by what was kept; what made room was no worse. It never falls.
        incident.severity = incident.severity.max(severity(&incident.findings));
        incident.score = incident.score.max(score(&incident.findings));
    }

    /// Tells its findings (again), in words.
    pub(crate) fn tell(&mut self) {
        let incident = &mut self.incident;
        incident.title = title::title(&incident.findings);
        incident.story = story(&incident.findings, self.omitted, incident.partial);
        incident.recommendation = advice::recommendation(&incident.findings);
    }
}

fn add_host(hosts: &mut Vec<String>, host: &str) {
    if !host.is_empty() && hosts.len() < MAX_HOSTS && hosts.iter().all(|known| known != host) {
        hosts.push(host.to_owned());
    }
}
