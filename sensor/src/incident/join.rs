//! Which incident a finding joins, and what is kept of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::score::{score, severity};
use super::{Incident, IncidentUpdate, Reason, State, story};
use crate::baseline::{Change, Store, StoreError, Table, read_table};
use crate::finding::{Evidence, Finding, Severity};
use crate::host::Lineage;
use crate::incident::content_id;

/// Findings kept of one incident; more are counted.
const FINDINGS_MAX: usize = 64;
/// Incidents open at once; the one quiet for longest is closed beyond.
const OPEN_MAX: usize = 256;
/// Incidents kept in the store; the oldest go.
const STORED_MAX: usize = 10_000;

/// Every open incident.
#[derive(Debug)]
pub(crate) struct Incidents {
    host: String,
    window_ns: u64,
    open: Vec<Open>,
    opened: u64,
}

#[derive(Debug)]
struct Open {
    incident: Incident,
    lineages: BTreeSet<Lineage>,
    subjects: BTreeSet<String>,
    /// One of its findings is on a connection.
    served: bool,
    latest_ktime_ns: u64,
    /// Id of the finding that stands for (detector, object).
    standing: BTreeMap<(String, String), String>,
    /// Further findings of the same kind, by the id of the one that stands for them.
    repeats: BTreeMap<String, u64>,
    unkept: u64,
}

/// What joining led to.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// To be told.
    pub(crate) update: Option<IncidentUpdate>,
    /// To be written.
    pub(crate) change: Option<Change>,
}

/// Why stored incidents could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IncidentError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of them.
    #[error("incident {id}: {source}")]
    Unreadable {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Every stored incident, oldest first. Works while the sensor runs.
///
/// # Errors
/// If there is no store, or an entry is damaged.
pub fn stored(state_dir: &Path) -> Result<Vec<Incident>, IncidentError> {
    read_table(state_dir, Table::Incidents)?
        .into_iter()
        .map(|(id, bytes)| {
            serde_json::from_slice(&bytes)
                .map_err(|source| IncidentError::Unreadable { id, source })
        })
        .collect()
}

// === impl Incidents ===

impl Incidents {
    pub(crate) fn new(window: Duration, host: String) -> Self {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self { host, window_ns, open: Vec::new(), opened: 0 }
    }

    /// Adds a finding to the incident it belongs to, or opens one. A remark (info) opens none.
    pub(crate) fn join(
        &mut self,
        finding: Finding,
        object: String,
        lineage: Lineage,
        served: bool,
    ) -> Joined {
        let now = finding.ktime_ns;
        let window = self.window_ns;
        let found = self.open.iter_mut().find(|open| {
            now.saturating_sub(open.latest_ktime_ns) <= window && open.takes(&finding, &lineage)
        });
        let Some(open) = found else {
            if finding.severity == Severity::Info {
                return Joined::default();
            }
            return self.begin(finding, object, lineage, served);
        };
        open.lineages.insert(lineage);
        open.subjects.insert(finding.subject.clone());
        open.served |= served;
        open.latest_ktime_ns = open.latest_ktime_ns.max(now);
        let reason = open.add(finding, object);
        open.render();
        Joined {
            change: open.change(),
            update: reason.map(|reason| IncidentUpdate { reason, incident: open.incident.clone() }),
        }
    }

    /// What is open now may lack something.
    pub(crate) fn lost_records(&mut self) {
        for open in &mut self.open {
            open.incident.partial = true;
        }
    }

    /// Closes what has been quiet for longer than the window.
    pub(crate) fn close_old(&mut self, now_ktime_ns: u64) -> Vec<Change> {
        let window = self.window_ns;
        let old = |open: &Open| now_ktime_ns.saturating_sub(open.latest_ktime_ns) > window;
        let closed: Vec<Open> = self.open.extract_if(.., |open| old(open)).collect();
        closed.into_iter().filter_map(Open::close).collect()
    }

    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Those an earlier run left open can be joined no more; and the oldest beyond the bound go.
    pub(crate) fn close_stored(store: &mut Store) -> Vec<Change> {
        let ids = store.keys(Table::Incidents);
        let surplus = ids.len().saturating_sub(STORED_MAX);
        let mut changes: Vec<Change> =
            ids.iter().take(surplus).map(|id| (Table::Incidents, id.clone(), None)).collect();
        for id in ids.into_iter().skip(surplus) {
            let Some(bytes) = store.read(Table::Incidents, &id) else { continue };
            match serde_json::from_slice::<Incident>(&bytes) {
                Ok(incident) if incident.state == State::Open => {
                    changes.extend(change(&Incident { state: State::Closed, ..incident }));
                }
                Ok(_) => {}
                Err(_) => store.count_unreadable(),
            }
        }
        changes
    }

    fn begin(
        &mut self,
        finding: Finding,
        object: String,
        lineage: Lineage,
        served: bool,
    ) -> Joined {
        self.opened += 1;
        let mut joined = Joined::default();
        let milliseconds = finding.time.as_millisecond();
        let key = content_id(&[&self.host, &finding.id]);
        let incident = Incident {
            id: format!("{milliseconds:012x}-{}", key.get(..8).unwrap_or(&key)),
            opened: finding.time,
            updated: finding.time,
            state: State::Open,
            severity: finding.severity,
            score: 0,
            title: String::new(),
            story: String::new(),
            findings: Vec::new(),
            hosts: vec![self.host.clone()],
            recommendation: String::new(),
            partial: false,
        };
        let mut open = Open {
            incident,
            lineages: BTreeSet::from([lineage]),
            subjects: BTreeSet::from([finding.subject.clone()]),
            served,
            latest_ktime_ns: finding.ktime_ns,
            standing: BTreeMap::new(),
            repeats: BTreeMap::new(),
            unkept: 0,
        };
        open.add(finding, object);
        open.render();
        joined.change = open.change();
        joined.update =
            Some(IncidentUpdate { reason: Reason::Opened, incident: open.incident.clone() });
        if self.open.len() >= OPEN_MAX
            && let Some(at) = (0..self.open.len())
                .min_by_key(|at| self.open.get(*at).map_or(u64::MAX, |open| open.latest_ktime_ns))
        {
            self.open.remove(at);
        }
        self.open.push(open);
        joined
    }
}

// === impl Open ===

impl Open {
    fn takes(&self, finding: &Finding, lineage: &Lineage) -> bool {
        self.lineages.contains(lineage)
            || (!self.served && self.subjects.contains(&finding.subject))
    }

    /// Gives the reason to tell of it, if there is one.
    fn add(&mut self, finding: Finding, object: String) -> Option<Reason> {
        let kept = &mut self.incident.findings;
        self.incident.updated = self.incident.updated.max(finding.time);
        let fresh = finding.severity > Severity::Info
            && !kept.iter().any(|known| known.detector == finding.detector);
        let key = (finding.detector.clone(), object);
        if let Some(standing) = self.standing.get(&key) {
            let worse = kept.iter_mut().find(|known| known.id == *standing);
            *self.repeats.entry(standing.clone()).or_default() += 1;
            if let Some(known) = worse.filter(|known| known.severity < finding.severity) {
                known.severity = finding.severity;
                known.confidence = finding.confidence;
            }
        } else if kept.len() < FINDINGS_MAX {
            self.standing.insert(key, finding.id.clone());
            kept.push(finding);
        } else {
            self.unkept += 1;
        }
        let before = self.incident.severity;
        self.incident.severity = severity(&self.incident.findings);
        if self.incident.severity > before {
            Some(Reason::Escalated)
        } else {
            fresh.then_some(Reason::Corroborated)
        }
    }

    fn render(&mut self) {
        let incident = &mut self.incident;
        incident.score = score(&incident.findings);
        incident.title = story::title(&incident.findings);
        incident.story = story::story(&incident.findings, &self.repeats, incident.partial);
        incident.recommendation = story::recommendation(&incident.findings, incident.severity);
        for finding in &mut incident.findings {
            let more = self.repeats.get(&finding.id).copied().unwrap_or(0);
            count_repeats(finding, more);
        }
        if self.unkept > 0 {
            let _ = write!(incident.story, " {} more findings were only counted.", self.unkept);
        }
    }

    fn change(&self) -> Option<Change> {
        change(&self.incident)
    }

    fn close(mut self) -> Option<Change> {
        self.incident.state = State::Closed;
        self.change()
    }
}

const REPEATED: &str = "seen again: ";

fn count_repeats(finding: &mut Finding, more: u64) {
    let is_count = |evidence: &Evidence| matches!(evidence, Evidence::Note { text } if text.starts_with(REPEATED));
    finding.evidence.retain(|evidence| !is_count(evidence));
    if more > 0 {
        finding.evidence.push(Evidence::Note { text: format!("{REPEATED}{more}") });
    }
}

fn change(incident: &Incident) -> Option<Change> {
    let bytes = serde_json::to_vec(incident).ok()?;
    Some((Table::Incidents, incident.id.clone(), Some(bytes)))
}
