//! Incidents: findings that belong together, told as one story.

mod advice;
mod code;
mod dlopen;
mod join;
mod key;
mod limit;
mod loader_files;
mod pam;
#[cfg(test)]
mod sample;
mod score;
mod sentence;
mod since;
mod store;
mod story;
#[cfg(test)]
mod tests;
mod text;
mod title;
mod writes;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Severity};
use crate::host::Lineage;

pub use join::{Counters, Incidents, MAX_OPEN};
pub(crate) use key::content_id;
pub use limit::MAX_FINDINGS;
pub(crate) use since::sentence as since_sentence;
pub(crate) use store::Overlay;
pub use store::{IncidentReader, IncidentStore, Listed, Opened, StoreError, StoreLimits};

/// Whether findings can still join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// They can.
    Open,
    /// The window has passed.
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
    /// Whether findings can still join.
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
    /// What it joins by.
    pub lineage: Lineage,
    /// Findings that found no room among [`Incident::findings`].
    pub omitted: u64,
    /// As shown.
    pub incident: Incident,
}
