//! What is attached, by which mechanism, at which price, and what is therefore not seen.

use serde::Serialize;

use super::probes::{Hook, Mechanism};

/// One hook, for `doctor` and the log.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Which.
    pub hook: Hook,
    /// The mechanism in use.
    pub mechanism: Option<Mechanism>,
    /// Attached or not.
    #[serde(flatten)]
    pub state: ProbeState,
    /// What it costs whom.
    pub price: &'static str,
    /// What is not seen; empty while attached.
    pub unseen: &'static str,
    /// Cheaper mechanisms that the kernel refused, and why.
    pub refused: Vec<Refusal>,
}

/// Whether a hook is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ProbeState {
    /// It is.
    Attached,
    /// It is not.
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// A mechanism that did not work.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// Which.
    pub mechanism: Mechanism,
    /// What the kernel said.
    pub reason: String,
}

/// A loaded program, from its file descriptor's fdinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramStats {
    /// Its name in the kernel object.
    pub name: String,
    /// Runs while `kernel.bpf_stats_enabled` was 1.
    pub runs: u64,
    /// Time of those runs, ns.
    pub run_ns: u64,
    /// Hits that the kernel left out because the program was running on that CPU already (5.12+).
    pub missed: u64,
    /// Instructions the verifier walked through (5.16+).
    pub verified_instructions: Option<u64>,
    /// Kernel memory, bytes.
    pub memory: u64,
}

/// Kernel memory that is ours but in no RSS, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BpfMemory {
    /// Maps, the rings among them.
    pub maps: u64,
    /// Programs.
    pub programs: u64,
}
