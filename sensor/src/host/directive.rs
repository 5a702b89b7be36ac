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
    /// Report every pair again: a baseline was forgotten.
    ForgetMappings,
    /// Leave out link summaries of this unguarded program up to this CPU time.
    LinkLimit {
        /// The program.
        exe: FileKey,
        /// Wall less run-queue delay from exec to the last seal, ns.
        limit_ns: u64,
    },
    /// Put probes on a file.
    Attach {
        /// A process that has it mapped: `/proc/TGID/map_files` or `/proc/TGID/root` leads to it.
        tgid: u32,
        /// Its path as the host sees it.
        path: PathBuf,
        /// The program that maps it: asked for again where the file is not to be had.
        exe: FileKey,
        /// What the path must lead to.
        file: FileKey,
        /// Where on it.
        what: Watch,
    },
    /// Take them off again.
    Release {
        /// The file.
        inode: InodeKey,
        /// Where it may be seen as well, below another overlay: by which process, where, as which
        /// file. The probes stay for those.
        heirs: Vec<(u32, PathBuf, InodeKey)>,
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
}

/// What is to be told of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// When this program is entered, its constructors having run.
    Entry,
    /// Who calls these functions, of those that it exports.
    Functions(Vec<String>),
}

/// What became of a [`Directive::Attach`]: entries of these functions are told from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The file.
    pub file: InodeKey,
    /// Functions, of those asked for.
    pub functions: Vec<String>,
    /// `CLOCK_MONOTONIC` after it was done, ns.
    pub ktime_ns: u64,
}

// === impl Directive ===

impl Directive {
    /// It concerns the probes, not the maps: it can be carried out only once they are loaded, and may
    /// wait for a file.
    #[must_use]
    pub fn needs_probes(&self) -> bool {
        matches!(
            self,
            Self::Attach { .. }
                | Self::Release { .. }
                | Self::SampleProcess { .. }
                | Self::StopSampling { .. }
        )
    }
}
