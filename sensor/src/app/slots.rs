//! The verifier as the detectors ask for it: how much of which process is worth how much time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

use super::adapters::{module_id, place};
use super::allowance::Allowance;
use super::code;
use crate::config::Patrol;
use crate::detect::{
    Anyway, Category, CheckFailed, CheckReport, Mismatch, Namespace, Nature, Refusal, SlotCheck,
    UnrequestedAudit,
};
use crate::host::{CheckReason, Clock, Outside, ProcessId, Procfs};
use crate::metrics::Metrics;
use crate::verify::{
    self, Audit, Depth, Limits, Linkage, OwnProbes, Report, SlotMismatch, Standing, Verifier,
    VerifyError,
};

/// Checks live processes.
#[derive(Debug)]
pub(super) struct Slots {
    /// For guarded programs, root daemons and whatever something happened to.
    verifier: Verifier,
    /// For the rest: their imports only, and with little memory.
    imports: Verifier,
    /// For root daemons, and for what has no claim at all.
    daemons: Allowance,
    others: Allowance,
    metrics: Metrics,
}

// === impl Slots ===

impl Slots {
    /// `own` are the probes that the sensor itself has set.
    pub(super) fn new(metrics: Metrics, own: OwnProbes, patrol: &Patrol) -> Self {
        // The analysis asks again by itself, and looks after others meanwhile. A login is over
        // soon, and a check comes when its loader has been quiet: the second look follows at once.
        let recheck_after = Duration::from_millis(5);
        let time = Duration::from_secs(3);
        let limits = Limits { settle_tries: 1, recheck_after, time, ..Limits::default() };
        let little = Limits {
            time: Duration::from_millis(500),
            depth: Depth::Got,
            text: false,
            file_bytes: 4 << 20,
            plan_bytes: 1 << 20,
            image_bytes: 1 << 20,
            ..limits
        };
        Self {
            verifier: Verifier::knowing(limits, own.clone()),
            imports: Verifier::knowing(little, own),
            daemons: Allowance::new(patrol.cpu_per_second / 2, Instant::now()),
            others: Allowance::new(patrol.cpu_per_second / 2, Instant::now()),
            metrics,
        }
    }

    /// One check by whichever verifier the reason is worth.
    fn look(
        &mut self,
        tgid: u32,
        reason: CheckReason,
    ) -> Result<Result<Report, VerifyError>, CheckFailed> {
        let allowance = match reason {
            CheckReason::Daemon => Some(&mut self.daemons),
            CheckReason::Other | CheckReason::Memfd => Some(&mut self.others),
            _ => None,
        };
        let verifier =
            if reason == CheckReason::Other { &mut self.imports } else { &mut self.verifier };
        let (took, result) =
            paid(allowance, || verifier.check(tgid)).ok_or_else(|| self.put_off(tgid, reason))?;
        self.count(took, tgid, &reason, &result);
        Ok(result)
    }

    fn put_off(&self, tgid: u32, reason: CheckReason) -> CheckFailed {
        self.metrics.verify_checks.with_label_values(&["put_off"]).inc();
        debug!(pid = tgid, ?reason, outcome = "put_off", "checked");
        CheckFailed::PutOff
    }

    fn count(
        &self,
        took: Duration,
        tgid: u32,
        reason: &dyn Debug,
        result: &Result<Report, VerifyError>,
    ) {
        let (metrics, outcome) = (&self.metrics, outcome(result));
        metrics.verify_duration.observe(took.as_secs_f64());
        let refused = result.as_ref().err().map(tracing::field::display);
        debug!(pid = tgid, ?reason, outcome, took_us = took.as_micros(), refused, "checked");
        metrics.verify_checks.with_label_values(&[outcome]).inc();
        if let Ok(report) = result {
            let bad = u64::try_from(report.mismatches.len()).unwrap_or(u64::MAX);
            let good = report.slots_checked.saturating_sub(bad);
            metrics.verify_slots.with_label_values(&["as_expected"]).inc_by(good);
            metrics.verify_slots.with_label_values(&["redirected"]).inc_by(bad);
        }
    }
}

impl SlotCheck for Slots {
    fn check(
        &mut self,
        process: ProcessId,
        reason: CheckReason,
    ) -> Result<CheckReport, CheckFailed> {
        same_process(process)?;
        let report = self.look(process.tgid, reason)?;
        told(process, report.map_err(|error| failed(process, &error))?)
    }

    fn check_anyway(
        &mut self,
        process: ProcessId,
        asked: Anyway,
    ) -> Result<CheckReport, CheckFailed> {
        same_process(process)?;
        let allowance = match (asked.guarded, asked.reason) {
            (true, _) => None,
            (false, CheckReason::Daemon) => Some(&mut self.daemons),
            // Anybody can have a process written to.
            (false, _) => Some(&mut self.others),
        };
        let (tgid, verifier) = (process.tgid, &mut self.verifier);
        let look = || {
            if asked.costly { verifier.insist_on_code(tgid) } else { verifier.insist(tgid) }
        };
        let (took, result) =
            paid(allowance, look).ok_or_else(|| self.put_off(tgid, asked.reason))?;
        self.count(took, tgid, &format_args!("Insisted"), &result);
        told(process, result.map_err(|error| failed(process, &error))?)
    }
}

fn told(process: ProcessId, report: Report) -> Result<CheckReport, CheckFailed> {
    // The id may have been given to another process before its memory was read.
    if report.start_ticks != process.start_ticks {
        return Err(CheckFailed::Gone);
    }
    let namespaces = namespaces(&report);
    let (changes, restored, strays) = code::told(&report);
    let doubtful = report.text.doubtful.iter().map(code::stray).collect();
    Ok(CheckReport {
        taken_ktime_ns: Some(Clock::ktime_ns()),
        slots_checked: report.slots_checked,
        settled: report.settled,
        linked: matches!(report.linkage, Linkage::Glibc | Linkage::Musl),
        mismatches: report.mismatches.into_iter().map(mismatch).collect(),
        gaps: report.gaps.iter().map(ToString::to_string).collect(),
        namespaces,
        audit: report.audit.filter(|audit| audit.requested.is_none()).map(unrequested),
        changes,
        restored,
        strays,
        doubtful,
        refused: None,
    })
}

/// What ends says that it is gone, and so does what only looks like it: an address space that is
/// changed under each look, a first thread that has ended while others run.
fn failed(process: ProcessId, error: &VerifyError) -> CheckFailed {
    let gone = matches!(error, VerifyError::Gone { .. } | VerifyError::NoMemory { .. });
    if !gone && !error.is_refusal() {
        return CheckFailed::Unread(error.reason());
    }
    let Some(standing) = Standing::of(process.tgid) else { return CheckFailed::Gone };
    let still = standing.is_still();
    if gone && (still || same_process(process).is_err()) {
        return CheckFailed::Gone;
    }
    let nature = match error {
        _ if error.is_passing() => Nature::Passing,
        _ if gone => Nature::Odd,
        VerifyError::Malformed { .. } => Nature::Odd,
        VerifyError::TooSlow { .. } => Nature::Costly,
        _ => Nature::Lasting,
    };
    CheckFailed::Refused(Refusal {
        why: error.reason(),
        nature,
        still,
        forked: standing.forked,
        held: standing.to_string(),
    })
}

/// Label of how a check ended.
fn outcome(result: &Result<Report, VerifyError>) -> &'static str {
    match result {
        Err(VerifyError::Gone { .. }) => "gone",
        Err(error) if error.is_refusal() => "refused",
        Err(_) => "failed",
        Ok(report) if !report.settled || !report.text.doubtful.is_empty() => "unsettled",
        Ok(report) if report.is_clean() => "clean",
        Ok(_) => "mismatch",
    }
}

/// What a look says, and how long it took; nothing where its allowance is used up.
fn paid<T>(
    mut allowance: Option<&mut Allowance>,
    look: impl FnOnce() -> T,
) -> Option<(Duration, T)> {
    let begun = Instant::now();
    if allowance.as_mut().is_some_and(|allowance| !allowance.has_time(begun)) {
        return None;
    }
    let before = cpu_time();
    let outcome = look();
    if let Some(allowance) = allowance {
        allowance.spend(cpu_time().saturating_sub(before));
    }
    Some((begun.elapsed(), outcome))
}

/// Of this thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec))
}

fn same_process(process: ProcessId) -> Result<(), CheckFailed> {
    let same = Procfs.stat(process.tgid).is_some_and(|now| now.start_ticks == process.start_ticks);
    if same { Ok(()) } else { Err(CheckFailed::Gone) }
}

/// Audit libraries have namespaces of their own: while there are any, none is anybody's else.
fn namespaces(report: &Report) -> Vec<Namespace> {
    if report.audit.is_some() {
        return Vec::new();
    }
    let all = report.namespaces.iter().map(|one| Namespace {
        number: u32::try_from(one.number).unwrap_or(u32::MAX),
        modules: one.modules.iter().map(module_id).collect(),
    });
    all.collect()
}

fn unrequested(audit: Audit) -> UnrequestedAudit {
    let callback = audit.callbacks.into_iter().next().map(place);
    UnrequestedAudit { count: audit.count, callback }
}

fn mismatch(found: SlotMismatch) -> Mismatch {
    Mismatch {
        module: module_id(&found.module),
        slot: found.slot_vaddr,
        kind: found.kind.to_string(),
        category: match found.category {
            verify::Category::Redirected => Category::Redirected,
            verify::Category::AuditRedirect => Category::AuditRedirect,
            verify::Category::IfuncRedirected => Category::IfuncRedirected,
            verify::Category::FileChanged => Category::FileChanged,
        },
        sealed: found.sealed,
        symbol: found.symbol,
        version: found.version,
        expected: place(found.expected),
        actual: place(found.actual),
    }
}

#[cfg(test)]
mod tests;
