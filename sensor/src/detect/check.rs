//! The slot check as the detectors see it: a trait, so that replays and tests can answer.

use crate::host::{ModuleId, ProcessId};

/// Compares every import slot of a process with what its loader should have written.
pub trait SlotCheck {
    /// Blocks for milliseconds. Must refuse if the process is not the one meant any more.
    fn check(&mut self, process: ProcessId) -> Result<CheckReport, CheckFailed>;
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckReport {
    /// `CLOCK_MONOTONIC` when the slots had been read, ns; `None` takes the observation's clock.
    pub taken_ktime_ns: Option<u64>,
    /// Slots compared.
    pub slots_checked: u64,
    /// False while the process was still linking or changed between two reads: check again.
    pub settled: bool,
    /// Slots that lead elsewhere.
    pub mismatches: Vec<Mismatch>,
    /// What was not covered, one sentence each.
    pub gaps: Vec<String>,
}

/// One slot that leads elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Whose slot.
    pub module: ModuleId,
    /// Its address in that module's file.
    pub slot: u64,
    /// Relocation: `JUMP_SLOT`, `GLOB_DAT`, `IRELATIVE`.
    pub kind: String,
    /// What kind of deviation.
    pub category: Category,
    /// Symbol it stands for.
    pub symbol: Option<String>,
    /// Version of the reference.
    pub version: Option<String>,
    /// Where it should lead.
    pub expected: Place,
    /// Where it leads.
    pub actual: Place,
}

/// Kinds of deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Leads elsewhere.
    Redirected,
    /// Leads into a module of an rtld-audit namespace.
    AuditRedirect,
    /// An IFUNC slot whose target its resolver would not answer.
    IfuncRedirected,
    /// The file of a module involved was written to after the start: what the loader saw is no
    /// longer known.
    FileChanged,
}

/// An address with what it belongs to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// In the process.
    pub address: u64,
    /// Module whose mapping holds it.
    pub module: Option<ModuleId>,
    /// Address in the module's file.
    pub offset: Option<u64>,
    /// Nearest symbol and distance.
    pub symbol: Option<(String, u64)>,
    /// Memory without a module: the kernel's name for it and its permissions.
    pub memory: Option<String>,
}

/// No check took place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckFailed {
    /// It ended, or its id was given to another.
    #[error("the process is gone")]
    Gone,
    /// Its loader is at work: ask again.
    #[error("the process is still linking")]
    NotSettled,
    /// Anything else, such as a missing capability.
    #[error("{0}")]
    Other(String),
}

/// Checks nothing: for replays.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheck;

// === impl NoCheck ===

impl SlotCheck for NoCheck {
    fn check(&mut self, _process: ProcessId) -> Result<CheckReport, CheckFailed> {
        Err(CheckFailed::Gone)
    }
}
