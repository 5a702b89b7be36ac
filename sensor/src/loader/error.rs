//! Why the kernel side cannot be had, each with what to do about it.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::probes::Hook;
use crate::kernel::offsets::OffsetsError;
use crate::trouble::chain;

/// Lines of a verifier's log that are worth showing.
const LOG_LINES: usize = 4;

/// Why loading failed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The agent may not use BPF.
    #[error(
        "the kernel refuses BPF to this process: run it as root, or with the capabilities BPF, \
         PERFMON and SYS_RESOURCE (and without a seccomp filter that forbids bpf)"
    )]
    Privilege(#[source] io::Error),
    /// No type information, or without what is needed.
    #[error(
        "no usable type information of the running kernel: a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y is needed (Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it)"
    )]
    TypeInformation(#[from] OffsetsError),
    /// The object itself.
    #[error("the kernel object does not load")]
    Object(#[source] Box<EbpfError>),
    /// A map of the object is not as expected.
    #[error("map {name} of the kernel object")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The object lacks a map or a program.
    #[error("the kernel object has no {name}")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A hook that everything else rests on.
    #[error("cannot watch {hook}: {reason}")]
    Required {
        /// Which.
        hook: Hook,
        /// What each mechanism said.
        reason: String,
    },
    /// The agent sits in a PID namespace of its own.
    #[error(
        "process {helper} for the kernel is process {own} for itself: run in the host's PID \
         namespace (Kubernetes: hostPID: true; containers: --pid=host)"
    )]
    PidNamespace {
        /// Id in the initial namespace.
        helper: u32,
        /// Id the agent sees.
        own: u32,
    },
    /// What the programs read of the agent is not what /proc says.
    #[error("self-check: {field} reads as {read}, but is {real}: the kernel offsets are wrong")]
    SelfCheck {
        /// Which value.
        field: &'static str,
        /// Through the offsets.
        read: String,
        /// From /proc.
        real: String,
    },
    /// The self-check could not be run.
    #[error("self-check: {what}")]
    SelfCheckFailed {
        /// What failed.
        what: String,
    },
}

/// One line on why a program does not load or attach: the verifier's log is megabytes.
pub(super) fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> = log
                .lines()
                .rev()
                .filter(|line| !line.is_empty() && !line.starts_with("processed "))
                .take(LOG_LINES)
                .collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            if tail.is_empty() {
                format!("load: {io_error}")
            } else {
                format!("load: {io_error} ({})", tail.join("; "))
            }
        }
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => chain(other),
    }
}

/// The same for a user-space probe, which may want more privilege than anything else.
pub(super) fn uprobe_reason(error: &ProgramError) -> String {
    let reason = reason(error);
    match error {
        ProgramError::SyscallError(error)
            if error.io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            // CVE-2025-38466.
            format!(
                "{reason}; since 6.16 and the stable releases of July 2025 (5.10.240, 6.1.146, \
                 6.12.39) the kernel wants CAP_SYS_ADMIN for user-space probes"
            )
        }
        _ => reason,
    }
}
