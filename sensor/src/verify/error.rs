//! Why a process could not be checked at all; partial failures are `Gap`s of a report.

use std::io;
use std::time::Duration;

use super::auxv::AuxvError;
use super::elf::ElfError;
use super::maps::MapsError;

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
