//! The verifier and the symboliser as the host and the detectors ask for them.

use rustix::fs::{major, minor};

use crate::detect::{Category, CheckFailed, CheckReport, Mismatch, Place, SlotCheck};
use crate::event::FileKey;
use crate::host::{Clock, Locate, Located, ModuleId, Outside, ProcessId, Procfs};
use crate::symbol::{AddressSpace, Symbolized, Symbolizer};
use crate::verify::{self, Limits, ModuleRef, SlotMismatch, Target, Verifier, VerifyError};

/// Finds addresses through the maps of live processes.
#[derive(Debug, Default)]
pub(super) struct Places(Symbolizer);

/// Checks live processes.
#[derive(Debug)]
pub(super) struct Slots(Verifier);

// === impl Places ===

impl Locate for Places {
    fn locate(&mut self, tgid: u32, addresses: &[u64]) -> Vec<Option<Located>> {
        let Ok(space) = AddressSpace::of(tgid) else { return vec![None; addresses.len()] };
        addresses.iter().map(|address| located(self.0.resolve_in(&space, *address))).collect()
    }
}

fn located(found: Symbolized) -> Option<Located> {
    let module = match &found.module {
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

impl Default for Slots {
    fn default() -> Self {
        Self(Verifier::new(Limits::default()))
    }
}

impl SlotCheck for Slots {
    fn check(&mut self, process: ProcessId) -> Result<CheckReport, CheckFailed> {
        same_process(process)?;
        let report = self.0.check(process.tgid).map_err(|error| match error {
            VerifyError::Gone { .. } => CheckFailed::Gone,
            VerifyError::NotSettled { .. } => CheckFailed::NotSettled,
            other => CheckFailed::Other(other.to_string()),
        })?;
        // The id may have been given to another process while its memory was read.
        same_process(process)?;
        Ok(CheckReport {
            taken_ktime_ns: Some(Clock::ktime_ns()),
            slots_checked: report.slots_checked,
            settled: report.settled,
            mismatches: report.mismatches.into_iter().map(mismatch).collect(),
            gaps: report.gaps.iter().map(ToString::to_string).collect(),
        })
    }
}

fn same_process(process: ProcessId) -> Result<(), CheckFailed> {
    let same = Procfs.stat(process.tgid).is_some_and(|now| now.start_ticks == process.start_ticks);
    if same { Ok(()) } else { Err(CheckFailed::Gone) }
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

fn place(target: Target) -> Place {
    Place {
        address: target.addr,
        module: target.module.as_ref().map(module_id),
        offset: target.offset,
        symbol: target.symbol.zip(target.symbol_offset),
        memory: target.memory,
    }
}

fn module_id(module: &ModuleRef) -> ModuleId {
    let dev = major(module.dev) << 20 | minor(module.dev);
    let file = FileKey { ino: module.ino, dev, ..FileKey::default() };
    ModuleId::new(module.path.clone(), module.build_id.clone(), &file)
}
