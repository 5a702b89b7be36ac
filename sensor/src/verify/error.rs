//! Why a process could not be checked at all; partial failures are `Gap`s of a report.

use std::io;
use std::time::Duration;

use super::auxv::AuxvError;
use super::elf::ElfError;
use super::maps::MapsError;
use crate::trouble::chain;

/// What a loader at work leaves contradictory for a moment.
const LISTS: [&str; 3] = ["link map", "list of namespaces", "pointer to the link map"];

/// Why a check gave no report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The process ended (or became another program) while it was looked at.
    #[error("process {pid} is gone")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// Kernel threads and zombies have no user memory.
    #[error("process {pid} has no user memory")]
    NoMemory {
        /// The process.
        pid: u32,
    },
    /// The kernel refused; the capability named is what is missing.
    #[error("cannot open /proc/{pid}/{what}: needs {capability}")]
    Permission {
        /// The process.
        pid: u32,
        /// File below `/proc/PID`.
        what: &'static str,
        /// The capability that allows it.
        capability: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the kernel interface.
    #[error("cannot read /proc/{pid}/{what}")]
    Io {
        /// The process.
        pid: u32,
        /// File below `/proc/PID`.
        what: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The program or its loader is no usable ELF file ([`ElfError`] says not ELF, malformed and
    /// which structure, or unsupported).
    #[error("process {pid}: {path}")]
    Elf {
        /// The process.
        pid: u32,
        /// File as the kernel names it.
        path: String,
        /// What is wrong with it.
        #[source]
        source: ElfError,
    },
    /// A structure in the memory of the process contradicts itself.
    #[error("process {pid}: malformed {what}")]
    Malformed {
        /// The process.
        pid: u32,
        /// The structure.
        what: &'static str,
    },
    /// The check was given up: the process is too expensive to look at, perhaps on purpose.
    #[error("process {pid}: not checked within {limit:?}")]
    TooSlow {
        /// The process.
        pid: u32,
        /// The time it had.
        limit: Duration,
    },
    /// The loader is still at work (start-up, `dlopen` or `dlclose`): ask again later.
    #[error("process {pid}: the dynamic linker is at work")]
    NotSettled {
        /// The process.
        pid: u32,
    },
}

impl VerifyError {
    /// Whether the process itself is why: what it holds in its memory, or how it is made. Neither its
    /// end nor what the kernel or a file refuses, which says nothing of the process.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotSettled { .. }
            | Self::Malformed { .. }
            | Self::TooSlow { .. }
            | Self::Elf { .. } => true,
            Self::Gone { .. }
            | Self::NoMemory { .. }
            | Self::Permission { .. }
            | Self::Io { .. } => false,
        }
    }

    /// Whether it is what a loader at work looks like, which is over in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotSettled { .. } => true,
            Self::Malformed { what, .. } => LISTS.contains(what),
            _ => false,
        }
    }

    /// The same as a clause that speaks of "it", without its number.
    pub fn reason(&self) -> String {
        match self {
            Self::Gone { .. } => "it goes away".to_owned(),
            Self::NoMemory { .. } => "its first thread has no memory any more".to_owned(),
            Self::Malformed { what, .. } => format!("its {what} contradicts itself"),
            Self::TooSlow { limit, .. } => format!("one look at it takes longer than {limit:?}"),
            Self::NotSettled { .. } => "its loader says that it is at work".to_owned(),
            Self::Elf { path, source, .. } => {
                format!("{path} is not understood: {}", chain(source))
            }
            Self::Permission { what, capability, source, .. } => {
                format!("its {what} cannot be opened: {source} (needs {capability})")
            }
            Self::Io { what, source, .. } => format!("its {what} cannot be read: {source}"),
        }
    }

    /// Sorts an error of opening or reading `/proc/PID/what`.
    pub(crate) fn proc(pid: u32, what: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(code) if code == rustix::io::Errno::SRCH.raw_os_error() => Self::Gone { pid },
            Some(code) if code == rustix::io::Errno::NOENT.raw_os_error() => Self::Gone { pid },
            _ if source.kind() == io::ErrorKind::PermissionDenied => {
                let capability = match what {
                    "map_files" => "CAP_CHECKPOINT_RESTORE",
                    "auxv" => "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
                    _ => "CAP_SYS_PTRACE",
                };
                Self::Permission { pid, what, capability, source }
            }
            _ => Self::Io { pid, what, source },
        }
    }

    pub(crate) fn maps(pid: u32, _error: &MapsError) -> Self {
        Self::Malformed { pid, what: "maps text" }
    }

    pub(crate) fn auxv(pid: u32, error: AuxvError) -> Self {
        match error {
            AuxvError::Empty => Self::NoMemory { pid },
            AuxvError::Malformed => Self::Malformed { pid, what: "auxiliary vector" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_loader_leaves_for_a_moment_passes() {
        let malformed = |what| VerifyError::Malformed { pid: 7, what };
        for passing in LISTS.map(malformed).into_iter().chain([VerifyError::NotSettled { pid: 7 }])
        {
            assert!(passing.is_passing() && passing.is_refusal(), "{passing}");
        }
        let lasting = ["address of the loader", "width of the loader", "maps text", "maps"];
        let slow = VerifyError::TooSlow { pid: 7, limit: Duration::from_secs(3) };
        for lasting in lasting.map(malformed).into_iter().chain([slow]) {
            assert!(!lasting.is_passing() && lasting.is_refusal(), "{lasting}");
        }
        assert!(!VerifyError::Gone { pid: 7 }.is_passing());
    }

    #[test]
    fn a_refusal_names_the_missing_capability() {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (what, capability) in
            [("mem", "CAP_SYS_PTRACE"), ("map_files", "CAP_CHECKPOINT_RESTORE")]
        {
            let error = VerifyError::proc(7, what, refused());
            assert_eq!(
                error.to_string(),
                format!("cannot open /proc/7/{what}: needs {capability}")
            );
        }
        let gone = VerifyError::proc(7, "mem", io::ErrorKind::NotFound.into());
        assert!(matches!(gone, VerifyError::Io { .. }), "only the kernel's own ENOENT means gone");
    }
}
