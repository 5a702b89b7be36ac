//! The verifier and the symboliser as the host and the detectors ask for them.

use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

use super::code;
use crate::detect::{
    Category, CheckFailed, CheckReport, Mismatch, Namespace, Place, SlotCheck, UnrequestedAudit,
};
use crate::event::{FileKey, Stack};
use crate::host::{Asked, Clock, Locate, Located, ModuleId, Outside, ProcessId, Procfs};
use crate::metrics::Metrics;
use crate::symbol::{AddressSpace, Symbolized, Symbolizer};
use crate::verify::{
    self, Audit, Limits, ModuleRef, OwnProbes, Report, SlotMismatch, Target, Verifier, VerifyError,
};

/// Finds addresses through the maps of live processes.
#[derive(Debug, Default)]
pub(super) struct Places(Symbolizer);

/// Checks live processes.
#[derive(Debug)]
pub(super) struct Slots {
    verifier: Verifier,
    metrics: Metrics,
}

// === impl Places ===

impl Locate for Places {
    fn locate(&mut self, tgid: u32, addresses: &[u64]) -> Vec<Option<Located>> {
        let Ok(space) = AddressSpace::of(tgid) else { return vec![None; addresses.len()] };
        addresses.iter().map(|address| located(self.0.resolve_in(&space, *address))).collect()
    }

    fn asker(&mut self, tgid: u32, stack: &Stack) -> Option<Asked> {
        let asker = self.0.asker(tgid, stack).ok().flatten()?;
        let (unwound, through_libc) = (asker.unwound, asker.through_libc);
        let gone = Located {
            module: ModuleId { path: asker.place.memory.clone(), build: "inode:none".to_owned() },
            offset: asker.place.addr,
            symbol: None,
        };
        let place = located(asker.place).unwrap_or(gone);
        Some(Asked { place, unwound, through_libc })
    }
}

fn located(found: Symbolized) -> Option<Located> {
    let module = match &found.module {
        Some(module) if found.unread.is_some() => {
            ModuleId::unread(module.path.clone(), &key(module))
        }
        Some(module) => module_id(module),
        None if found.memory == "unmapped" => return None,
        None => ModuleId { path: found.memory, build: "inode:none".to_owned() },
    };
    Some(Located {
        module,
        offset: found.vaddr.or(found.file_offset).unwrap_or(found.addr),
        symbol: found.symbol.zip(found.symbol_offset),
    })
}

// === impl Slots ===

impl Slots {
    /// `own` are the probes that the sensor itself has set.
    pub(super) fn new(metrics: Metrics, own: OwnProbes) -> Self {
        // The analysis asks again by itself, and looks after others meanwhile. A login is over
        // soon, and a check comes when its loader has been quiet: the second look follows at once.
        let recheck_after = Duration::from_millis(5);
        let limits = Limits { settle_tries: 1, recheck_after, ..Limits::default() };
        Self { verifier: Verifier::knowing(limits, own), metrics }
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
    fn check(&mut self, process: ProcessId) -> Result<CheckReport, CheckFailed> {
        same_process(process)?;
        let begun = Instant::now();
        let result = self.verifier.check(process.tgid);
        self.count(begun.elapsed(), &result);
        let report = result.map_err(|error| match error {
            VerifyError::Gone { .. } => CheckFailed::Gone,
            VerifyError::NotSettled { .. } => CheckFailed::NotSettled,
            other => CheckFailed::Other(other.to_string()),
        })?;
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

pub(super) fn place(target: Target) -> Place {
    Place {
        address: target.addr,
        module: target.module.as_ref().map(module_id),
        offset: target.offset,
        symbol: target.symbol.zip(target.symbol_offset),
        memory: target.memory,
    }
}

pub(super) fn module_id(module: &ModuleRef) -> ModuleId {
    ModuleId::new(module.path.clone(), module.build_id.clone(), &key(module))
}

fn key(module: &ModuleRef) -> FileKey {
    let dev = major(module.dev) << 20 | minor(module.dev);
    FileKey { ino: module.ino, dev, ..FileKey::default() }
}
