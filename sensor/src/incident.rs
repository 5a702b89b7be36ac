//! Incidents: findings that belong together, told as one story.
//!
//! Findings join by lineage: one program, or one sshd listener with all its connections, whatever
//! programs they run (sshd, sshd-session, sshd-auth). A start of sshd that served nobody (`sshd -t`
//! before a restart, a listener before its first connection) joins by program. An incident is open
//! to more findings for the configured window after its latest one.

mod join;
mod score;
mod story;
mod words;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Severity};

pub(crate) use join::Incidents;
pub use join::{IncidentError, stored};
pub use score::score;
pub(crate) use words::content_id;

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
    /// Unique; sorts by time.
    pub id: String,
    /// Time of the first finding.
    pub opened: Timestamp,
    /// Time of the latest finding.
    pub updated: Timestamp,
    /// Whether findings can still join.
    pub state: State,
    /// The worst finding's, raised where families corroborate.
    pub severity: Severity,
    /// 0–100, see [`score()`].
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
}

/// An incident worth telling (again).
#[derive(Clone, Debug)]
pub struct IncidentUpdate {
    /// Why now.
    pub reason: Reason,
    /// All of it, as it stands.
    pub incident: Incident,
}

#[cfg(test)]
mod tests;
