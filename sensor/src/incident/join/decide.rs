//! Following what people decide about incidents.

use super::super::decision::{Decision, Refusal, Verb};
use super::super::{Entry, Incident};
use super::{Incidents, Open};
use crate::finding::Severity;
use crate::host::Lineage;

// === impl Incidents ===

impl Incidents {
    /// The incident `id` where nothing joins it any more: as it waits to be saved, or else as `stored`.
    /// `None` while it is open.
    #[must_use]
    pub fn past(&self, id: &str, stored: Option<Entry>) -> Option<Entry> {
        if self.joined_by(id).is_some() {
            return None;
        }
        let waiting = self.closed.iter().find(|entry| entry.incident.id == id).cloned();
        waiting.or(stored)
    }

    /// Follows `decision` about the incident `id`; `stored` is that incident as a store has it, for
    /// the case that nothing joins it any more. What has changed is [unsaved](Self::unsaved) then.
    /// The same decision a second time changes nothing.
    pub fn decide(
        &mut self,
        id: &str,
        stored: Option<Entry>,
        decision: &Decision,
        ktime_ns: u64,
    ) -> Result<Incident, Refusal> {
        decision.check()?;
        if let Some(lineage) = self.joined_by(id).cloned() {
            return self.decide_open(&lineage, id, decision, ktime_ns);
        }
        let Some(entry) = self.past(id, stored) else {
            return Err(Refusal::Unknown(id.to_owned()));
        };
        self.decide_past(entry, decision, ktime_ns)
    }

    /// Whose findings join the incident `id`; `None` where nothing does.
    fn joined_by(&self, id: &str) -> Option<&Lineage> {
        let here = self.open.iter().find(|(_, open)| open.entry().incident.id == id);
        here.map(|(lineage, _)| lineage)
    }

    /// The incident that findings of `lineage` join now.
    fn present(&self, lineage: &Lineage) -> Option<&Open> {
        let stands_for = self.index.stands_for(lineage).unwrap_or(lineage);
        self.open.get(lineage).or_else(|| self.open.get(stands_for))
    }

    fn decide_open(
        &mut self,
        lineage: &Lineage,
        id: &str,
        decision: &Decision,
        ktime_ns: u64,
    ) -> Result<Incident, Refusal> {
        let Some(open) = self.open.get_mut(lineage) else {
            return Err(Refusal::Unknown(id.to_owned()));
        };
        let label = match decision.verb {
            Verb::Suppress => Some(self.suppressions.suppress(open.entry(), decision)?),
            _ => None,
        };
        let goes_on = if decision.verb == Verb::Reopen { ktime_ns } else { 0 };
        open.change(goes_on, |entry| follow(entry, decision, label.as_deref()));
        if decision.verb == Verb::Reopen {
            self.suppressions.lift(id);
        }
        let incident = open.incident(&mut self.counters).clone();
        if decision.verb == Verb::Close
            && let Some(open) = self.remove(lineage)
        {
            self.keep(open.into_entry());
        }
        Ok(incident)
    }

    fn decide_past(
        &mut self,
        mut entry: Entry,
        decision: &Decision,
        ktime_ns: u64,
    ) -> Result<Incident, Refusal> {
        let joins = entry.joins();
        let label = match decision.verb {
            Verb::Suppress => Some(self.suppressions.suppress(&entry, decision)?),
            Verb::Reopen => match self.present(&entry.lineage) {
                Some(other) => {
                    return Err(Refusal::Replaced(other.entry().incident.id.clone()));
                }
                None => None,
            },
            _ => None,
        };
        follow(&mut entry, decision, label.as_deref());
        entry.tell();
        self.closed.retain(|waiting| waiting.incident.id != entry.incident.id);
        let incident = entry.incident.clone();
        if decision.verb == Verb::Reopen {
            self.suppressions.lift(&incident.id);
            let mut open = Open::restored(entry, ktime_ns);
            open.change(ktime_ns, |_| {});
            self.insert(open);
        } else {
            // What findings have left behind they do not come back to.
            entry.over |= !joins;
            self.keep(entry);
        }
        Ok(incident)
    }
}

/// Notes the decision; marks the findings that are to be expected by it, or no longer.
fn follow(entry: &mut Entry, decision: &Decision, label: Option<&str>) {
    let by = format!("incident {}", entry.incident.id);
    entry.decide(decision);
    for finding in &mut entry.incident.findings {
        let spoken = finding.severity > Severity::Info;
        if decision.verb == Verb::Reopen {
            finding.suppressed_by = finding.suppressed_by.take().filter(|label| *label != by);
        } else if spoken && finding.suppressed_by.is_none() {
            finding.suppressed_by = label.map(str::to_owned);
        }
    }
    if decision.verb == Verb::Reopen {
        entry.judge();
    }
}
