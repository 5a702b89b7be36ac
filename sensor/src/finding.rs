//! The vocabulary of verdicts: findings, their evidence and severity, as the interfaces fix them.

mod evidence;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::evidence::{Evidence, FileSince, PackageSince};

/// How bad it is if it is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Odd.
    Low,
    /// Look today.
    Medium,
    /// Look now.
    High,
    /// A guarded program is compromised as far as can be told.
    Critical,
}

/// Which family a detector belongs to; corroboration across families raises an incident's score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Dynamic-linker behaviour.
    Linker,
    /// Function hooking.
    Hook,
    /// sshd authentication.
    Sshd,
    /// The sensor's own state.
    Sensor,
}

/// The process a finding is about, as far as it could be learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Thread group id in the initial PID namespace.
    pub pid: u32,
    /// Path of the executable, as the host sees it.
    pub exe: String,
    /// Arguments, cut at a bound.
    pub cmdline: Vec<String>,
    /// Real user id.
    pub uid: u32,
    /// Start, RFC 3339.
    pub start: Option<Timestamp>,
    /// Executables of the ancestors, parent first.
    pub ancestors: Vec<String>,
    /// Container id.
    pub container: Option<String>,
    /// Pod.
    pub pod: Option<String>,
}

/// Who else decides about code that a process has mapped, the worst that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// Memory that never was a file on a disk.
    Memory,
    /// A file whose last name was gone when it was mapped: nobody can look at it any more.
    Deleted,
    /// A file that every user can write.
    WritableByAll,
    /// A directory in which every user can put files.
    AnyonesDirectory,
    /// Its owner is neither root nor the user of the process.
    ForeignOwner,
    /// None of these.
    Ordinary,
}

/// One detector's verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// When, by the event's clock.
    pub time: Timestamp,
    /// The same instant, `CLOCK_MONOTONIC` ns.
    pub ktime_ns: u64,
    /// Unique within this host's store.
    pub id: String,
    /// Detector id of the design's table.
    pub detector: String,
    /// The detector's family.
    pub family: Family,
    /// How bad.
    pub severity: Severity,
    /// 0–1.
    pub confidence: f64,
    /// One line.
    pub title: String,
    /// Host name.
    pub host: String,
    /// Who.
    pub process: ProcessRef,
    /// Program identity the baseline belongs to.
    pub subject: String,
    /// What was seen.
    pub evidence: Vec<Evidence>,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// A package upgrade, a known tool, an operator's approval.
    pub explained_by: Option<String>,
    /// The rule or the incident by which it is to be expected; then it counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_by: Option<String>,
}

// === impl Exposure ===

impl Exposure {
    /// The clause that ends "… mapped FILE, which …".
    #[must_use]
    pub fn clause(self) -> &'static str {
        match self {
            Self::Memory => "which lies in memory only",
            Self::Deleted => "whose last name was gone by then",
            Self::WritableByAll => "which every user can write to",
            Self::AnyonesDirectory => "from a directory in which every user can put files",
            Self::ForeignOwner => "which belongs to another user",
            Self::Ordinary => "as usual",
        }
    }
}
