//! What a person decides about an incident: it is seen to, over, goes on, or is to be expected.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Entry, State};

/// Decisions an incident keeps; the first and the latest ones.
const MAX_DECISIONS: usize = 32;
/// Characters of a name.
const MAX_WHO: usize = 200;
/// Characters of a reason.
const MAX_WHY: usize = 1000;

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Somebody sees to it.
    Acknowledge,
    /// It is over: what comes next is another incident.
    Close,
    /// It goes on; a suppression of it ends.
    Reopen,
    /// What it consists of is to be expected until a time.
    Suppress,
}

/// A decision, as it is kept with the incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub verb: Verb,
    /// When it was made, by the wall clock.
    pub time: Timestamp,
    /// By whom, as that person says.
    pub who: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// Real user id of the command.
    pub uid: u32,
    /// End of a suppression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why a decision cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such incident.
    #[error("no incident has the id {0:?}")]
    Unknown(String),
    /// Its own findings say nothing by which others could be recognised safely.
    #[error("{0}")]
    NotSuppressible(String),
    /// Another incident of the same program is open.
    #[error("incident {0} has taken its place and is open: decide about that one")]
    Replaced(String),
    /// A decision lacks what it needs.
    #[error("{0}")]
    Malformed(&'static str),
    /// There are as many suppressions as can be.
    #[error("there are {0} suppressions already; end one with `halfsecond incidents reopen ID`")]
    TooMany(usize),
}

// === impl Verb ===

impl Verb {
    /// What the incident is then.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Acknowledge => State::Acknowledged,
            Self::Close => State::Closed,
            Self::Reopen => State::Open,
            Self::Suppress => State::Suppressed,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledge => "acknowledged",
            Self::Close => "closed",
            Self::Reopen => "reopened",
            Self::Suppress => "suppressed",
        })
    }
}

// === impl Decision ===

impl Decision {
    /// Whether it holds together: a suppression has an end after its beginning, a name and a reason;
    /// nothing is too long.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.who.trim().is_empty() {
            return Err(Refusal::Malformed("it must be said who decides (--who)"));
        }
        if self.who.chars().count() > MAX_WHO || self.why.chars().count() > MAX_WHY {
            return Err(Refusal::Malformed(
                "a name has at most 200 characters, and a reason at most 1000",
            ));
        }
        if self.verb != Verb::Suppress {
            return Ok(());
        }
        if self.why.trim().is_empty() {
            return Err(Refusal::Malformed("a suppression needs a reason (--why)"));
        }
        match self.until {
            Some(until) if until > self.time => Ok(()),
            _ => Err(Refusal::Malformed("a suppression needs an end in the future (--for)")),
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Follows a decision: notes it and changes the state. The same one again changes nothing.
    pub(super) fn decide(&mut self, decision: &Decision) {
        let incident = &mut self.incident;
        if incident.decisions.contains(decision) {
            return;
        }
        if incident.decisions.len() >= MAX_DECISIONS {
            incident.decisions.remove(1);
        }
        incident.decisions.push(decision.clone());
        incident.state = decision.verb.state();
        self.over = decision.verb == Verb::Close;
    }

    /// Whether findings can still join it.
    #[must_use]
    pub fn joins(&self) -> bool {
        !self.over && self.incident.state != State::Closed
    }

    /// Whether somebody has said what is to become of it: then it does not close by itself.
    pub(super) fn held(&self) -> bool {
        match self.incident.state {
            State::Acknowledged | State::Suppressed => true,
            State::Closed => false,
            State::Open => {
                self.incident.decisions.last().is_some_and(|last| last.verb == Verb::Reopen)
            }
        }
    }
}
