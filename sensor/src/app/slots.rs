//! The verifier as the detectors ask for it: how much of which process is worth how much time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::adapters::{module_id, place};
use super::allowance::Allowance;
use super::code;
use crate::config::Patrol;
use crate::detect::{
    Category, CheckFailed, CheckReport, Mismatch, Namespace, SlotCheck, UnrequestedAudit,
};
use crate::host::{CheckReason, Clock, Outside, ProcessId, Procfs};
use crate::metrics::Metrics;
use crate::verify::{
    self, Audit, Depth, Limits, OwnProbes, Report, SlotMismatch, Verifier, VerifyError,
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
    fn look(&mut self, tgid: u32, reason: CheckReason) -> Result<Report, CheckFailed> {
        let now = Instant::now();
        let mut allowance = match reason {
            CheckReason::Daemon => Some(&mut self.daemons),
            CheckReason::Other | CheckReason::Memfd => Some(&mut self.others),
            _ => None,
        };
        if allowance.as_mut().is_some_and(|allowance| !allowance.has_time(now)) {
            self.metrics.verify_checks.with_label_values(&["put_off"]).inc();
            return Err(CheckFailed::PutOff);
        }
        let (begun, before) = (Instant::now(), cpu_time());
        let verifier =
            if reason == CheckReason::Other { &mut self.imports } else { &mut self.verifier };
        let result = verifier.check(tgid);
        if let Some(allowance) = allowance {
            allowance.spend(cpu_time().saturating_sub(before));
        }
        self.count(begun.elapsed(), &result);
        result.map_err(|error| match error {
            VerifyError::Gone { .. } => CheckFailed::Gone,
            VerifyError::NotSettled { .. } => CheckFailed::NotSettled,
            other => CheckFailed::Other(other.to_string()),
        })
    }

    fn count(&self, took: Duration, result: &Result<Report, VerifyError>) {
        let metrics = &self.metrics;
        metrics.verify_duration.observe(took.as_secs_f64());
        let outcome = match result {
            Err(VerifyError::Gone { .. }) => "gone",
            Err(_) => "failed",
            Ok(report) if !report.settled => "unsettled",
            Ok(report) if report.is_clean() => "clean",
            Ok(_) => "mismatch",
        };
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
        // The id may have been given to another process before its memory was read.
        if report.start_ticks != process.start_ticks {
            return Err(CheckFailed::Gone);
        }
        let namespaces = namespaces(&report);
        let (changes, restored, strays) = code::told(&report);
        Ok(CheckReport {
            taken_ktime_ns: Some(Clock::ktime_ns()),
            slots_checked: report.slots_checked,
            settled: report.settled,
            mismatches: report.mismatches.into_iter().map(mismatch).collect(),
            gaps: report.gaps.iter().map(ToString::to_string).collect(),
            namespaces,
            audit: report.audit.filter(|audit| audit.requested.is_none()).map(unrequested),
            changes,
            restored,
            strays,
        })
    }
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
        symbol: found.symbol,
        version: found.version,
        expected: place(found.expected),
        actual: place(found.actual),
    }
}
