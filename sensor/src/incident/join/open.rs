//! One incident that findings can still join.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::super::key::{Key, incident_id, key};
use super::super::limit::{self, Taken};
use super::super::score::arithmetic;
use super::super::story::{Rest, story};
use super::super::{Entry, Incident, Reason, State, advice, blame, title};
use super::Counters;
use super::index::Index;
use crate::finding::{Evidence, Finding, Severity};
use crate::host::Lineage;

/// Hosts an incident lists.
const MAX_HOSTS: usize = 16;
/// Other lineages that belong to one incident.
const MAX_LINEAGES: usize = 64;
/// Paths and build-ids that findings of others join it by.
const MAX_FILES: usize = 128;

/// Connections told apart from the next ones.
const MAX_ACCEPTED: usize = 64;
/// Evidence tells seconds since accept to a microsecond: two findings of one connection may disagree so
/// much on when that was.
const SAME_NS: u64 = 4_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Open {
    entry: Entry,
    /// Of each finding, in their order.
    keys: Vec<Key>,
    /// What findings of others join it by.
    files: BTreeSet<String>,
    /// When the latest connections were accepted, by the event clock, ns.
    accepted: VecDeque<u64>,
    /// Event clock of the latest finding.
    last_ktime_ns: u64,
    /// Changed since it was last saved.
    unsaved: bool,
    /// Its text is older than its findings.
    outdated: bool,
}

// === impl Open ===

impl Open {
    pub(super) fn new(host: &str, first: Finding, lineage: &Lineage, ktime_ns: u64) -> Self {
        let state = if first.suppressed_by.is_some() { State::Suppressed } else { State::Open };
        let mut incident = Incident {
            id: incident_id(host, lineage, &first),
            opened: first.time,
            updated: first.time,
            state,
            severity: Severity::Info,
            score: 0,
            title: String::new(),
            story: String::new(),
            findings: Vec::new(),
            hosts: vec![host.to_owned()],
            recommendation: String::new(),
            partial: false,
            decisions: Vec::new(),
        };
        add_host(&mut incident.hosts, &first.host);
        incident.findings.push(first);
        let lineage = lineage.clone();
        let others = Vec::new();
        let mut entry =
            Entry { lineage, others, omitted: 0, connections: 0, over: false, incident };
        entry.judge();
        let mut open = Self { unsaved: true, outdated: true, ..Self::restored(entry, ktime_ns) };
        let accepted = open.entry.incident.findings.first().and_then(accepted);
        open.note_connection(accepted);
        open
    }

    pub(super) fn restored(entry: Entry, last_ktime_ns: u64) -> Self {
        let findings = &entry.incident.findings;
        let keys = findings.iter().map(key).collect();
        let active = findings.iter().filter(|one| one.suppressed_by.is_none());
        let files = active.flat_map(blame::shared).take(MAX_FILES).collect();
        let accepted = VecDeque::new();
        Self { entry, keys, files, accepted, last_ktime_ns, unsaved: false, outdated: false }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) fn into_entry(self) -> Entry {
        self.entry
    }

    /// As it stands, with its text brought up to date.
    pub(super) fn incident(&mut self, counters: &mut Counters) -> &Incident {
        if std::mem::take(&mut self.outdated) {
            counters.written += 1;
            self.entry.tell();
        }
        &self.entry.incident
    }

    pub(super) fn last_ktime_ns(&self) -> u64 {
        self.last_ktime_ns
    }

    pub(super) fn unsaved(&self) -> bool {
        self.unsaved
    }

    pub(super) fn saved(&mut self) {
        self.unsaved = false;
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.files.iter()
    }

    pub(super) fn blames(&self, files: &[String]) -> bool {
        files.iter().any(|file| self.files.contains(file))
    }

    /// Findings of others join it by `files` as well.
    pub(super) fn share(&mut self, files: Vec<String>, index: &mut Index) {
        for file in files {
            if self.files.len() < MAX_FILES && self.files.insert(file.clone()) {
                index.blame(file, &self.entry.lineage);
            }
        }
    }

    /// `lineage` belongs to it; false where there is no room.
    pub(super) fn add_lineage(&mut self, lineage: &Lineage) -> bool {
        let others = &mut self.entry.others;
        if others.contains(lineage) {
            return true;
        }
        if others.len() >= MAX_LINEAGES {
            return false;
        }
        others.push(lineage.clone());
        self.unsaved = true;
        true
    }

    pub(super) fn mark_partial(&mut self) {
        if !self.entry.incident.partial {
            self.entry.incident.partial = true;
            self.outdated = true;
            self.unsaved = true;
        }
    }

    /// Changes the entry by hand, at `ktime_ns` of the event clock.
    pub(super) fn change(&mut self, ktime_ns: u64, change: impl FnOnce(&mut Entry)) {
        change(&mut self.entry);
        self.last_ktime_ns = self.last_ktime_ns.max(ktime_ns);
        self.outdated = true;
        self.unsaved = true;
    }

    /// Counts a connection once: its findings come close together.
    fn note_connection(&mut self, accepted: Option<u64>) {
        let Some(accepted) = accepted else { return };
        if self.accepted.iter().any(|known| known.abs_diff(accepted) <= SAME_NS) {
            return;
        }
        if self.accepted.len() >= MAX_ACCEPTED {
            self.accepted.pop_front();
        }
        self.accepted.push_back(accepted);
        self.entry.connections = self.entry.connections.saturating_add(1);
    }

    /// Takes a finding in; why that is worth telling. The text is written when somebody reads it: a
    /// flood of one finding costs a count each.
    pub(super) fn join(
        &mut self,
        finding: Finding,
        ktime_ns: u64,
        counters: &mut Counters,
    ) -> Option<Reason> {
        self.last_ktime_ns = self.last_ktime_ns.max(ktime_ns);
        self.unsaved = true;
        self.outdated = true;
        // A remark on a connection is no sign that it is concerned.
        if finding.severity > Severity::Info {
            self.note_connection(accepted(&finding));
        }
        let Entry { omitted, incident, .. } = &mut self.entry;
        let spoken = finding.suppressed_by.is_none() && finding.severity > Severity::Info;
        let news = spoken
            && incident
                .findings
                .iter()
                .filter(|known| known.suppressed_by.is_none())
                .all(|known| known.detector != finding.detector);
        incident.updated = incident.updated.max(finding.time);
        add_host(&mut incident.hosts, &finding.host);
        let omitted_before = *omitted;
        let taken = limit::take(&mut incident.findings, &mut self.keys, omitted, finding);
        match taken {
            Taken::Kept => counters.kept += 1,
            Taken::Repeated => counters.repeated += 1,
            Taken::Omitted => counters.omitted += 1,
        }
        if taken == Taken::Kept {
            counters.displaced += *omitted - omitted_before;
        }
        let woken = spoken && incident.state == State::Suppressed;
        let before = self.entry.wake(woken);
        self.entry.judge();
        let incident = &mut self.entry.incident;
        if woken {
            let new = incident.decisions.is_empty();
            return Some(if new { Reason::Opened } else { Reason::Corroborated });
        }
        if incident.severity > before {
            // Whoever sees to it has seen to less.
            if incident.state == State::Acknowledged {
                incident.state = State::Open;
            }
            return Some(Reason::Escalated);
        }
        (news && taken != Taken::Omitted).then_some(Reason::Corroborated)
    }
}

// === impl Entry ===

impl Entry {
    /// Where what is not to be expected comes to what was, the incident is open and judged anew;
    /// the severity before.
    fn wake(&mut self, woken: bool) -> Severity {
        let incident = &mut self.incident;
        let before = incident.severity;
        if woken {
            incident.state = State::Open;
            incident.severity = Severity::Info;
            incident.score = 0;
        }
        before
    }

    pub(super) fn judge(&mut self) {
        let incident = &mut self.incident;
        // Judged by what was kept; what made room was no worse. It never falls.
        let judged = arithmetic(&incident.findings);
        incident.severity = incident.severity.max(judged.severity);
        incident.score = incident.score.max(judged.score);
    }

    pub(crate) fn tell(&mut self) {
        let incident = &mut self.incident;
        incident.title = title::title(&incident.findings, self.connections);
        let rest = Rest { omitted: self.omitted, connections: self.connections };
        incident.story = story(&incident.findings, &rest, incident.partial);
        incident.recommendation = advice::recommendation(&incident.findings);
    }
}

/// When the connection that the finding is of was accepted, by the event clock, ns.
fn accepted(finding: &Finding) -> Option<u64> {
    finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Connection { since_accept_seconds, .. } => {
            let since = Duration::try_from_secs_f64(*since_accept_seconds).ok()?;
            finding.ktime_ns.checked_sub(u64::try_from(since.as_nanos()).ok()?)
        }
        _ => None,
    })
}

fn add_host(hosts: &mut Vec<String>, host: &str) {
    if !host.is_empty() && hosts.len() < MAX_HOSTS && hosts.iter().all(|known| known != host) {
        hosts.push(host.to_owned());
    }
}
