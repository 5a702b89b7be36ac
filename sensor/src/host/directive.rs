//! What the agent asks of the kernel side as it learns: the way back, applied by the app.

use std::path::PathBuf;

use crate::event::{FileKey, InodeKey, Role};

/// One request. Each may be repeated; applying it twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Give processes that execute this file a role (map `GUARDED`).
    Guard {
        /// The file.
        inode: InodeKey,
        /// The role.
        role: Role,
    },
    /// Give a running process a role (map `PROCS`).
    SetRole {
        /// The process.
        tgid: u32,
        /// All its bits; [`Role::NONE`] ends the special treatment.
        role: Role,
    },
    /// Report this pair of program and file again when it is next mapped: it was not accepted.
    ForgetMapping {
        /// The program.
        exe: FileKey,
        /// The mapped file.
        file: FileKey,
    },
    /// Leave out link summaries of this unguarded program up to this CPU time.
    LinkLimit {
        /// The program.
        exe: FileKey,
        /// Wall less run-queue delay from exec to the last seal, ns.
        limit_ns: u64,
    },
    /// Tell when this guarded program is entered, its constructors having run.
    AttachEntry {
        /// A process that runs it.
        tgid: u32,
        /// Its path as the host sees it.
        path: PathBuf,
        /// What the path must lead to.
        inode: InodeKey,
    },
    /// Sample where this process is busy.
    SampleProcess {
        /// The process.
        tgid: u32,
    },
    /// Enough of that.
    StopSampling {
        /// The process.
        tgid: u32,
    },
    /// Watch the callers of functions in this library.
    AttachFunctions {
        /// A process that has it mapped: `/proc/TGID/map_files` or `/proc/TGID/root` leads to it.
        tgid: u32,
        /// Its path as the host sees it.
        path: PathBuf,
        /// What the path must lead to.
        inode: InodeKey,
        /// Symbols it may export.
        symbols: Vec<String>,
    },
}

// === impl Directive ===

impl Directive {
    /// It can be carried out only once the probes are loaded.
    #[must_use]
    pub fn needs_probes(&self) -> bool {
        matches!(
            self,
            Self::AttachFunctions { .. } | Self::AttachEntry { .. } | Self::SampleProcess { .. }
        )
    }
}
