//! Runs the checks that are due, and says what becomes of those that could not be done.

use std::sync::Arc;

use super::Analysis;
use super::refusals::Unread;
use crate::detect::{Anyway, CheckFailed, CheckReport, Nature, Refusal};
use crate::host::{Body, CheckReason, Observation};

impl Analysis {
    /// Runs a due check; false where there is nothing to judge (yet).
    pub(super) fn check(
        &mut self,
        seen: &mut Observation,
        reason: CheckReason,
        tries: u32,
    ) -> bool {
        // What was not clear when its turn came does not wait for another.
        let asked = match reason {
            CheckReason::Daemon | CheckReason::Other if tries > 0 => CheckReason::Patrol,
            other => other,
        };
        match self.checker.check(seen.process.id, asked) {
            Ok(report) if self.refusals.hides_its_loader(seen, &report) => {
                let why = "its loader was known before and is not any more".to_owned();
                // It may be another program by now, which is told a moment later.
                let refusal = Refusal { why, nature: Nature::Odd, ..Refusal::default() };
                self.refused(seen, reason, tries, &refusal)
            }
            Ok(report) => {
                self.refusals.could_read();
                self.tally.checks += 1;
                self.tally.slots_checked += report.slots_checked;
                if report.inconclusive() && self.rechecks.again(seen, self.now_ktime_ns, tries) {
                    return false;
                }
                let report = self.note_outcome(seen, reason, report);
                seen.body = Body::Checked(Arc::new(report));
                true
            }
            Err(CheckFailed::Refused(refusal)) => self.refused(seen, reason, tries, &refusal),
            Err(CheckFailed::Gone | CheckFailed::PutOff) => false,
            Err(CheckFailed::Unread(why)) => {
                self.tally.checks_failed += 1;
                self.unread(seen, reason, why)
            }
        }
    }

    fn refused(
        &mut self,
        seen: &mut Observation,
        reason: CheckReason,
        tries: u32,
        refusal: &Refusal,
    ) -> bool {
        self.refusals.could_read();
        if refusal.may_pass() && self.rechecks.again(seen, self.now_ktime_ns, tries) {
            return false;
        }
        self.tally.checks_failed += 1;
        self.check_anyway(seen, reason, refusal)
    }

    /// A process cannot be read, which says nothing of it unless it could be before.
    fn unread(&mut self, seen: &mut Observation, reason: CheckReason, why: String) -> bool {
        let refusal = Refusal { why, ..Refusal::default() };
        match self.refusals.unread(seen, &refusal) {
            Unread::Ever | Unread::Everybody(None) => false,
            Unread::Now => self.check_anyway(seen, reason, &refusal),
            Unread::Everybody(Some(refused)) => {
                let report = CheckReport { refused: Some(*refused), ..CheckReport::default() };
                seen.body = Body::Checked(Arc::new(report));
                true
            }
        }
    }

    /// A check that never settles is as good as none, but for what was firm in it.
    fn note_outcome(
        &mut self,
        seen: &Observation,
        reason: CheckReason,
        report: CheckReport,
    ) -> CheckReport {
        if report.settled {
            self.refusals.checked(seen, reason, &report);
            if !report.doubtful.is_empty() {
                self.learner.refused(seen);
            }
            return self.doubts.settle(seen, report);
        }
        self.learner.refused(seen);
        let refusal = Refusal {
            why: "its list of modules and its memory change at each look".to_owned(),
            nature: Nature::Passing,
            ..Refusal::default()
        };
        let refused = self.refusals.refused(seen, reason, &refusal);
        CheckReport { refused, ..report }
    }

    /// A process has refused: its code can be compared without its help, at once, and so can slots
    /// that its loader had sealed. What else its loader's list leads to counts when it has refused for
    /// so long that the list is not taken for one that is being changed.
    fn check_anyway(
        &mut self,
        seen: &mut Observation,
        reason: CheckReason,
        refusal: &Refusal,
    ) -> bool {
        self.learner.refused(seen);
        let matters = self.refusals.matters(seen, reason);
        if !matters && !matches!(reason, CheckReason::Written | CheckReason::Reopened) {
            return false;
        }
        let mut refused = self.refusals.refused(seen, reason, refusal);
        let costly = refusal.nature == Nature::Costly;
        let asked = Anyway { reason, guarded: seen.process.program.guarded(), costly };
        let report = match self.checker.check_anyway(seen.process.id, asked) {
            Ok(report) if refused.is_some() => report,
            Ok(report) => report.firm(),
            Err(CheckFailed::Gone) => return false,
            Err(CheckFailed::PutOff) if refused.is_none() => return false,
            Err(error) => {
                if let Some(refused) = &mut refused {
                    refused.compared = false;
                }
                CheckReport { gaps: vec![error.to_string()], ..CheckReport::default() }
            }
        };
        seen.body = Body::Checked(Arc::new(CheckReport { refused, ..report }));
        true
    }
}
