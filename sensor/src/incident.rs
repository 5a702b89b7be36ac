//! Incidents: findings that belong together, told as one story.

mod advice;
pub(crate) mod blame;
mod brief;
mod code;
mod decision;
mod dlopen;
mod join;
mod key;
mod limit;
mod loader_files;
mod pam;
mod request;
#[cfg(test)]
mod sample;
mod score;
mod sentence;
mod since;
mod store;
mod story;
mod suppress;
#[cfg(test)]
mod tests;
mod text;
mod title;
mod writes;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Severity};
use crate::host::Lineage;

pub use brief::{Brief, brief};
pub use decision::{Decision, Refusal, Verb};
pub use join::{Counters, Incidents, MAX_OPEN};
pub(crate) use key::content_id;
pub use limit::MAX_FINDINGS;
pub use request::{Answer, Request};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use request::{read_names, read_request};
pub(crate) use request::{submit, take};
pub use score::{Arithmetic, Term, arithmetic};
pub(crate) use since::sentence as since_sentence;
pub(crate) use store::Overlay;
pub use store::{IncidentReader, IncidentStore, Listed, Opened, StoreError, StoreLimits};
pub use suppress::{MAX_KEPT, Origin, Standing, Suppression, Suppressions};

/// How an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has seen to it.
    Open,
    /// Somebody sees to it. Findings still join while their window lasts; if it becomes worse by one,
    /// it is open again.
    Acknowledged,
    /// All of it is to be expected until a time; a finding that is not makes it open.
    Suppressed,
    /// Over: its window has passed and nobody held it, or somebody has said so.
    Closed,
}

/// One incident, as every output shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Incident {
    /// Unique; made of the first finding.
    pub id: String,
    /// Time of the first finding.
    pub opened: Timestamp,
    /// Time of the latest finding.
    pub updated: Timestamp,
    /// How it stands.
    pub state: State,
    /// The worst finding's, raised where families corroborate.
    pub severity: Severity,
    /// 0–100; the formula and a worked example stand in `incident/score.rs`.
    pub score: u32,
    /// One line.
    pub title: String,
    /// One paragraph, in the order of events.
    pub story: String,
    /// One per detector and object, the first of its kind.
    pub findings: Vec<Finding>,
    /// Host names.
    pub hosts: Vec<String>,
    /// What to do next.
    pub recommendation: String,
    /// Records were lost while it was open.
    pub partial: bool,
    /// What people have decided about it, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
}

/// Why an incident is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is new.
    Opened,
    /// Its severity rose.
    Escalated,
    /// A detector that had not spoken joined.
    Corroborated,
    /// Nothing joined it for as long as the window is, or there were too many.
    Closed,
    /// A person has decided about it.
    Decided,
}

/// An incident worth telling (again).
#[derive(Clone, Debug)]
pub struct IncidentUpdate {
    /// Why now.
    pub reason: Reason,
    /// All of it, as it stands.
    pub incident: Incident,
}

/// An incident as the store keeps it: with what is needed to go on with it after a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What it joins by: whose its first finding was.
    pub lineage: Lineage,
    /// Others that share a file it blames.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Lineage>,
    /// Findings that found no room among [`Incident::findings`].
    pub omitted: u64,
    /// sshd connections its findings are of, about: one that goes on over a restart of the sensor may
    /// be counted twice.
    #[serde(default)]
    pub connections: u64,
    /// Findings can no longer join, however it stands.
    #[serde(default)]
    pub over: bool,
    /// As shown.
    pub incident: Incident,
}
