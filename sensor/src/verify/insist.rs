//! Checks of processes that refuse to be checked: whose loader is at work at every look, or whose
//! lists contradict themselves.
//!
//! Each is what a loader leaves for a moment, and what a process can keep up for ever by writing one
//! word into its own memory. So the list is taken as it is, as far as it goes: what it leads to is
//! compared as ever, what it leaves out shows as code that no list has, and where there is no list
//! at all the code is compared with the files, for which none is needed.

use super::Verifier;
use super::budget::Budget;
use super::elf::Depth;
use super::error::VerifyError;
use super::process::Process;
use super::report::{Gap, Linkage, Report};

impl Verifier {
    /// Checks a process that [`Verifier::check`] refuses ([`VerifyError::is_refusal`]), as far as it
    /// can be: the report is never settled, and its gaps say what was passed over. Two looks, as ever,
    /// that together take no longer than one of a check may ([`super::Limits::time`]).
    ///
    /// Of a loader that is at work indeed it says nothing wrong: slots that it has not written yet
    /// are told apart by their content, and a library that is in no list yet counts only if no thread
    /// can be about to add it. What leads nowhere is left out.
    pub fn insist(&mut self, pid: u32) -> Result<Report, VerifyError> {
        self.insist_on(pid, Verifier::insisting)
    }

    /// The same without its list, of one that [`Verifier::check`] found too slow to look at.
    pub fn insist_on_code(&mut self, pid: u32) -> Result<Report, VerifyError> {
        let time = self.limits.time;
        self.insist_on(pid, |verifier, process, budget| {
            let error = VerifyError::TooSlow { pid: process.pid, limit: time };
            verifier.look_at_code_alone(process, &error, budget)
        })
    }

    /// Neither known again nor remembered: whoever asks usually is to be refused as before.
    fn insist_on(
        &mut self,
        pid: u32,
        look: impl Fn(&mut Self, &Process, Budget) -> Result<Report, VerifyError>,
    ) -> Result<Report, VerifyError> {
        let (whole, mut looks) = (Budget::new(pid, self.limits.time), 2);
        let mut report = self.check_twice(pid, Report::is_clean, |verifier| {
            let budget = whole.part(looks);
            looks = 1;
            let process = Process::open(pid)?;
            let report = look(verifier, &process, budget)?;
            Ok(Report { settled: false, ..report })
        })?;
        report.mismatches.retain(|mismatch| mismatch.actual.leads_somewhere());
        report.settled = false;
        Ok(report)
    }

    fn insisting(&mut self, process: &Process, budget: Budget) -> Result<Report, VerifyError> {
        match self.look_at(process, self.limits.depth, budget.part(2), true) {
            Err(error) if error.is_refusal() || hides_a_file(&error) => {
                self.look_at_code_alone(process, &error, budget)
            }
            other => other,
        }
    }

    fn look_at_code_alone(
        &mut self,
        process: &Process,
        error: &VerifyError,
        budget: Budget,
    ) -> Result<Report, VerifyError> {
        self.files.depth = Depth::Got;
        let mut gaps = vec![Gap::CodeOnly { reason: error.reason() }];
        let text = self.look_at_code(process, None, budget, &mut gaps)?;
        if !process.is_same() {
            return Err(VerifyError::Gone { pid: process.pid });
        }
        Ok(Report { text, ..Report::unchecked(process, Linkage::UnknownLoader, gaps) })
    }
}

/// Whether a mapped file cannot be had, be it that the process has mapped something else there.
fn hides_a_file(error: &VerifyError) -> bool {
    match error {
        VerifyError::Io { what, .. } | VerifyError::Permission { what, .. } => *what == "map_files",
        _ => false,
    }
}
