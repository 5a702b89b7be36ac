//! The slot check as the detectors see it: a trait, so that replays and tests can answer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{CheckReason, ModuleId, ProcessId};
use crate::serial::Word;

/// Compares every import slot of a process with what its loader should have written.
pub trait SlotCheck {
    /// Blocks for milliseconds. Must refuse if the process is not the one meant any more.
    fn check(
        &mut self,
        process: ProcessId,
        reason: CheckReason,
    ) -> Result<CheckReport, CheckFailed>;

    /// Compares what can be compared of a process that has refused: its code always, its slots as
    /// far as its loader's list goes. The report is not settled.
    fn check_anyway(
        &mut self,
        process: ProcessId,
        asked: Anyway,
    ) -> Result<CheckReport, CheckFailed>;
}

/// Who has refused, and what a look at it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anyway {
    /// Why it was checked.
    pub reason: CheckReason,
    /// It counts whatever it costs.
    pub guarded: bool,
    /// Its loader's list takes too long to follow.
    pub costly: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// `CLOCK_MONOTONIC` when the slots had been read, ns; `None` takes the observation's clock.
    pub taken_ktime_ns: Option<u64>,
    /// Slots compared.
    pub slots_checked: u64,
    /// False while the process was still linking or changed between two reads: check again.
    pub settled: bool,
    /// Its loader is one that is known, and its list of modules was followed.
    pub linked: bool,
    /// Slots that lead elsewhere.
    pub mismatches: Vec<Mismatch>,
    /// What was not covered, one sentence each.
    pub gaps: Vec<String>,
    /// rtld-audit, where it is active and was found not to have been asked for.
    pub audit: Option<UnrequestedAudit>,
    /// Namespaces beside the program's own (`dlmopen`), where no audit library accounts for them.
    pub namespaces: Vec<Namespace>,
    /// Code that is not its file's.
    pub changes: Vec<CodeChange>,
    /// Places in code files that were written to and hold what they should again, our own probes'
    /// left out.
    pub restored: Vec<Place>,
    /// Modules and mappings that contradict each other, and executable memory of no module.
    pub strays: Vec<StrayCode>,
    /// The same, where a thread that is loading or unloading a library may account for it.
    pub doubtful: Vec<StrayCode>,
    /// The process has refused for too long; made by the analysis.
    pub refused: Option<Refused>,
}

/// Why a process could not be checked, where the process itself is why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A clause about it: `its loader says that it is at work`.
    pub why: String,
    /// What kind of reason that is.
    pub nature: Nature,
    /// None of its threads can run before somebody else does something.
    pub still: bool,
    /// It was forked and has executed no program since.
    pub forked: bool,
    /// What holds its threads, in words; empty where nothing does.
    pub held: String,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nature {
    /// What a loader at work looks like, which is over in a moment.
    Passing,
    /// What an ordinary program is at most for a moment, if it executes another under the look.
    Odd,
    /// What it has or is, a moment later as well.
    #[default]
    Lasting,
    /// One look at it takes longer than a look may.
    Costly,
}

/// Refusals in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The latest.
    pub refusal: Refusal,
    /// How many.
    pub times: u64,
    /// Of how many processes of the program.
    pub processes: u64,
    /// When the first was.
    pub since: Timestamp,
    /// From the first to the latest, seconds.
    pub seconds: u64,
    /// Its code at least was compared at the latest.
    pub compared: bool,
    /// None that was checked before can be read any more, so it is not this process's doing.
    pub everybody: bool,
}

/// Modules that the loader keeps apart from the program's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `Lmid_t`; the program's own is 0.
    pub number: u32,
    /// In load order: what was asked for comes first.
    pub modules: Vec<ModuleId>,
}

/// Code that is not what its file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodeChange {
    /// Where, with the module whose code it is.
    pub place: Place,
    /// Bytes that differ.
    pub length: u64,
    /// The file's bytes, hex; the first ones.
    pub expected: String,
    /// The bytes in memory, hex.
    pub actual: String,
    /// The file's instructions.
    pub expected_code: Vec<String>,
    /// The instructions in memory.
    pub actual_code: Vec<String>,
    /// Where they lead, if they jump or call.
    pub leads_to: Option<Place>,
    /// What is known of the reason.
    pub why: WhyChanged,
}

/// What accounts for changed code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyChanged {
    /// Nothing does.
    Unknown,
    /// A known tool.
    Tool(String),
    /// The file was written to after the start: what the code was is no longer known.
    FileChanged,
}

/// Executable memory that the loader's list of modules does not account for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrayCode {
    /// The file or module; none for memory without one.
    pub module: Option<ModuleId>,
    /// What contradicts, as a clause that follows the file's name.
    #[serde(with = "crate::serial::one")]
    pub problem: Word,
    /// First address, 0 for several areas.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// The kernel's name and permissions.
    pub memory: String,
    /// Of replaced code: bytes that are not the file's.
    pub differing: Option<u64>,
    /// Just-in-time compilers do that, too.
    pub usual: bool,
}

/// The loader calls somebody back, and nobody asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnrequestedAudit {
    /// Libraries the loader counts.
    pub count: u32,
    /// Where the first callback for bound functions leads.
    pub callback: Option<Place>,
}

/// One slot that leads elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Whose slot.
    pub module: ModuleId,
    /// Its address in that module's file.
    pub slot: u64,
    /// What fills it: `JUMP_SLOT`, `RELATIVE`, `INIT_ARRAY` and so on.
    pub kind: String,
    /// What kind of deviation.
    pub category: Category,
    /// The loader had made it read-only: none that is at work can have left it so.
    pub sealed: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CheckFailed {
    /// It ended, or its id was given to another.
    #[error("the process is gone")]
    Gone,
    /// The process itself is why.
    #[error("{}", .0.why)]
    Refused(Refusal),
    /// There was no time left for checks that nothing calls for.
    #[error("put off to a later round")]
    PutOff,
    /// The kernel or a file refused: a clause about the process.
    #[error("{0}")]
    Unread(String),
}

/// Checks nothing: for replays.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheck;

// === impl Refusal ===

impl Refusal {
    /// A loader at work looks like that.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.nature == Nature::Passing
    }

    /// It may be over in a moment: ask again soon.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.nature, Nature::Passing | Nature::Odd)
    }
}

// === impl CheckReport ===

impl CheckReport {
    /// The check is to be repeated: the process was in motion and nothing firm was found. Slots
    /// that lead nowhere may be some that a loader has yet to fill.
    #[must_use]
    pub fn inconclusive(&self) -> bool {
        let mut firm = self.mismatches.iter().filter(|mismatch| mismatch.actual.leads_somewhere());
        let unclear = !self.mismatches.is_empty() || !self.doubtful.is_empty();
        firm.next().is_none() && (!self.settled || unclear)
    }

    /// Of one that was made while the loader's list said that it was being changed, what no such
    /// change accounts for: code, and slots that the loader is through with and whose definition is
    /// in the list.
    pub(crate) fn firm(self) -> Self {
        let firm = |mismatch: &Mismatch| {
            let known = mismatch.expected.module.is_some();
            mismatch.sealed && known && mismatch.category != Category::FileChanged
        };
        Self {
            mismatches: self.mismatches.into_iter().filter(firm).collect(),
            audit: None,
            namespaces: Vec::new(),
            strays: self.strays.into_iter().filter(|stray| stray.usual).collect(),
            doubtful: Vec::new(),
            ..self
        }
    }
}

// === impl Place ===

impl Place {
    /// `module+offset`, or the bare address.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.module, self.offset) {
            (Some(module), Some(offset)) => format!("{}+{offset:#x}", module.name()),
            _ => format!("{:#x}", self.address),
        }
    }

    /// File name of the module, else what the kernel calls the memory.
    #[must_use]
    pub fn owner(&self) -> String {
        match (&self.module, &self.memory) {
            (Some(module), _) => module.name().to_owned(),
            (None, Some(memory)) => memory.clone(),
            (None, None) => format!("{:#x}", self.address),
        }
    }

    /// The same with the module's whole path.
    #[must_use]
    pub fn owner_path(&self) -> String {
        self.module.as_ref().map_or_else(|| self.owner(), |module| module.path.clone())
    }

    fn leads_somewhere(&self) -> bool {
        self.module.is_some() || self.memory.as_deref().is_some_and(|memory| memory != "unmapped")
    }
}

// === impl NoCheck ===

impl SlotCheck for NoCheck {
    fn check(
        &mut self,
        _process: ProcessId,
        _reason: CheckReason,
    ) -> Result<CheckReport, CheckFailed> {
        Err(CheckFailed::Gone)
    }

    fn check_anyway(
        &mut self,
        _process: ProcessId,
        _asked: Anyway,
    ) -> Result<CheckReport, CheckFailed> {
        Err(CheckFailed::Gone)
    }
}
