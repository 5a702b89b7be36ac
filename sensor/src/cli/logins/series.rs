//! What is drawn: CPU times of logins that were let in, by method, before and after a moment.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::host::Method;
use crate::logins::{Login, Outcome, Verdict};

/// Too few to speak of a distribution.
const FEW: usize = 5;

/// The moment between before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) at: Timestamp,
    /// Id of the incident that began then; `None` where the moment was asked for.
    pub(super) incident: Option<String>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// From accept to the verdict on the first attempt, all of the connection's processes.
    Auth,
    /// Linking of the monitor.
    Link,
}

/// Samples of one method, in milliseconds, rising.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) method: Method,
    pub(super) what: What,
    pub(super) before: Vec<f64>,
    /// Empty where there is no such moment.
    pub(super) after: Vec<f64>,
}

/// Of one group of samples, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) median: f64,
    pub(super) p95: f64,
}

/// By method and what was measured. Failures are left out: what they take is up to strangers.
pub(super) fn of(logins: &[Login], split: Option<&Split>) -> Vec<Series> {
    let mut all = BTreeMap::new();
    let whole = |login: &&Login| {
        // Of libpam's every program is a story of its own.
        login.outcome == Outcome::Accepted && !login.partial && !login.is_pams()
    };
    for login in logins.iter().filter(whole) {
        // A login after a failed attempt holds the cost of that, too.
        let first = login.attempts.first().filter(|one| one.verdict == Verdict::Accepted);
        let Some(first) = first else { continue };
        let link = login.phases.link.and_then(|link| link.cpu_seconds);
        for (what, seconds) in [(What::Auth, first.cpu_seconds), (What::Link, link)] {
            let Some(ms) = seconds.map(|seconds| seconds * 1e3) else { continue };
            if !ms.is_finite() || ms <= 0.0 {
                continue;
            }
            let (method, empty) = (first.method, Vec::new());
            let new = Series { method, what, before: empty.clone(), after: empty };
            let series = all.entry((method, what)).or_insert(new);
            let later = split.is_some_and(|split| login.start >= split.at);
            if later { series.after.push(ms) } else { series.before.push(ms) }
        }
    }
    let mut all: Vec<Series> = all.into_values().collect();
    for series in &mut all {
        series.before.sort_by(f64::total_cmp);
        series.after.sort_by(f64::total_cmp);
    }
    all
}

// === impl What ===

impl What {
    /// As evidence calls it.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::Auth => "auth_cpu",
            Self::Link => "link_cpu",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auth => "CPU time from accept to the verdict",
            Self::Link => "CPU time of linking",
        }
    }
}

// === impl Series ===

impl Series {
    pub(super) fn heading(&self) -> String {
        format!("{}: {}", self.method, self.what.name())
    }
}

// === impl Split ===

impl Split {
    /// What the two groups lie before and after.
    pub(super) fn text(&self) -> String {
        let incident = self.incident.as_ref().map(|id| format!(" (incident {id})"));
        format!("{:.0}{}", self.at, incident.unwrap_or_default())
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, median, p95 } = self;
        let few = if *count < FEW { " (few)" } else { "" };
        let logins = if *count == 1 { "login" } else { "logins" };
        write!(f, "{count} {logins}{few}, median {median:.2} ms, 95 % below {p95:.2} ms")
    }
}

/// Of samples that rise; `None` without any.
pub(super) fn summary(samples: &[f64]) -> Option<Summary> {
    let count = samples.len();
    let at = |percent: usize| samples.get((count.saturating_sub(1)) * percent / 100).copied();
    Some(Summary { count, median: at(50)?, p95: at(95)? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Logins by publickey of a CPU time to the verdict, one each minute.
    pub(in super::super) fn logins(times_ms: &[f64]) -> Vec<Login> {
        let each = |(minute, ms): (usize, &f64)| {
            let mut value = crate::logins::sample();
            value["start"] = format!("2026-11-21T{:02}:{:02}:00Z", minute / 60, minute % 60).into();
            value["attempts"][0]["cpu_seconds"] = (ms / 1e3).into();
            serde_json::from_value(value).unwrap()
        };
        times_ms.iter().enumerate().map(each).collect()
    }

    #[test]
    fn only_who_is_let_in_at_once_counts_and_the_moment_splits() {
        let mut all = logins(&[30.0, 31.0, 50.0, 1.0, 2.0, 3.0]);
        all[3].outcome = Outcome::Refused;
        let mut failed = all[4].attempts[0].clone();
        failed.verdict = Verdict::Refused;
        all[4].attempts.insert(0, failed);
        all[5].partial = true;
        let mut sudo = all[0].clone();
        (sudo.method, sudo.attempts[0].method) = (Some(Method::Pam), Method::Pam);
        all.push(sudo);
        let split = Split { at: all[2].start, incident: None };
        let series = of(&all, Some(&split));
        let auth = &series[0];
        assert_eq!((auth.method, auth.what), (Method::Publickey, What::Auth));
        assert_eq!((auth.before.len(), auth.after.len()), (2, 1));
        assert!((auth.after[0] - 50.0).abs() < 1e-9, "{auth:?}");
        assert_eq!(series[1].what, What::Link);
        assert!(series.iter().all(|one| one.method != Method::Pam));
        assert!(of(&all, None).iter().all(|one| one.after.is_empty() && one.before.len() == 3));
    }

    #[test]
    fn a_summary_names_the_middle_and_the_tail() {
        let samples: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(summary(&samples), Some(Summary { count: 101, median: 51.0, p95: 96.0 }));
        assert_eq!(summary(&[]), None);
    }
}
