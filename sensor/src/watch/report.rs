//! How the watch stands, as `doctor` and the metrics tell it.

use std::collections::{BTreeMap, BTreeSet};

use super::roots::RootKey;
use crate::metrics::Metrics;
use crate::probe::ProbeReport;

/// Its name among the probes.
const PROBE: &str = "loader_files";
const UNSEEN: &str = "changes of ld.so.preload, ld.so.conf, ld.so.cache and the loader itself \
                      (loader_config_changed), of PAM's services and modules \
                      (pam_stack_changed)";

/// Counts of what is watched and what is not.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Roots watched.
    pub(super) watched: usize,
    /// Roots for which there is no room.
    pub(super) over: usize,
    /// Looks that no file system answered.
    pub(super) stuck: usize,
    failed: BTreeSet<RootKey>,
    unmarked: BTreeMap<RootKey, String>,
    told: Option<ProbeReport>,
}

// === impl Standing ===

impl Standing {
    /// A root was looked at; `reason` says why something in it could not be marked.
    pub(super) fn note_marks(&mut self, root: RootKey, reason: Option<String>) {
        self.failed.remove(&root);
        match reason {
            Some(reason) => self.unmarked.insert(root, reason),
            None => self.unmarked.remove(&root),
        };
    }

    /// A root could not be looked at.
    pub(super) fn note_failure(&mut self, root: RootKey) {
        self.failed.insert(root);
    }

    pub(super) fn forget(&mut self, root: RootKey) {
        self.failed.remove(&root);
        self.unmarked.remove(&root);
    }

    pub(super) fn show(&self, metrics: &Metrics) {
        let states = [
            ("watched", self.watched.saturating_sub(self.unmarked.len())),
            ("compared", self.unmarked.len()),
            ("over_limit", self.over),
            ("failed", self.failed.len()),
        ];
        for (state, count) in states {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.watch_roots.with_label_values(&[state]).set(count);
        }
    }

    /// The report, if it is another than the one told last.
    pub(super) fn news(&mut self) -> Option<ProbeReport> {
        let report = self.report();
        (self.told.as_ref() != Some(&report)).then(|| {
            self.told = Some(report.clone());
            report
        })
    }

    /// The last report has not been told after all.
    pub(super) fn untold(&mut self) {
        self.told = None;
    }

    pub(super) fn report(&self) -> ProbeReport {
        let mut reasons = Vec::new();
        if self.over > 0 {
            reasons.push(format!("{} roots beyond `watch.roots` are not watched", self.over));
        }
        if let Some(reason) = self.unmarked.values().next() {
            let count = self.unmarked.len();
            reasons.push(format!("{count} roots only by comparison, without who: {reason}"));
        }
        if !self.failed.is_empty() {
            reasons.push(format!("{} roots cannot be looked at", self.failed.len()));
        }
        if self.stuck > 0 {
            reasons.push(format!("{} looks were never answered by a file system", self.stuck));
        }
        let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        ProbeReport { reason, ..attached() }
    }
}

fn attached() -> ProbeReport {
    ProbeReport {
        probe: PROBE.to_owned(),
        mechanism: Some("fanotify".to_owned()),
        price: Some(
            "nothing while no such file changes; at most 1 % of one CPU to compare".to_owned(),
        ),
        reason: None,
        unseen: UNSEEN.to_owned(),
        required: false,
    }
}

/// It cannot be had, for this reason.
pub(super) fn missing(reason: String) -> ProbeReport {
    ProbeReport { mechanism: None, price: None, reason: Some(reason), ..attached() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_watched_is_told_once() {
        let mut standing = Standing::default();
        assert_eq!(standing.news().unwrap().reason, None);
        assert_eq!(standing.news(), None);
        standing.over = 3;
        let root = RootKey { namespace: 1, directory: (2, 3) };
        standing.note_marks(root, Some("not supported".to_owned()));
        let reason = standing.news().unwrap().reason.unwrap();
        assert!(reason.contains("3 roots beyond") && reason.contains("not supported"), "{reason}");
        standing.note_marks(root, None);
        standing.over = 0;
        assert_eq!(standing.news().unwrap().reason, None);
    }
}
