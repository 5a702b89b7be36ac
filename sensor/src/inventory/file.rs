//! One mapped file: what it is, whose it is, and whether its path still leads to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::elf::ElfFacts;
use super::owner::Owner;
use super::version::{self, VersionSource};
use crate::package::Content;
use crate::package::digest::Digest;

/// A file as processes with one root directory have it mapped.
#[derive(Clone, Debug)]
pub struct File {
    /// As the process sees it, without the kernel's ` (deleted)`; a memory file's is `/memfd:NAME`.
    pub path: PathBuf,
    /// `st_dev`, or the device of the mapping where the file was not looked at.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes; `None` where the file was not looked at.
    pub size: Option<u64>,
    /// It lives in memory only: memfd or shared memory.
    pub memory: bool,
    /// No name leads to it any more; `None` where that cannot be told.
    pub deleted: Option<bool>,
    /// Its path leads to another file now; `None` where that cannot be told.
    pub replaced: Option<bool>,
    /// What it says about itself; `None` for what is not ELF or was not read.
    pub elf: Option<Arc<ElfFacts>>,
    /// Why it was not read.
    pub unread: Option<Unread>,
    /// Its package.
    pub owner: Owner,
    /// Its SHA-256, or why there is none; `None` until it is asked for.
    pub sha256: Option<Result<Digest, String>>,
    /// How it compares with what its package brought; `None` until it is asked for, and where there
    /// is no package.
    pub content: Option<Content>,
    /// Last change of its inode: seconds and nanoseconds.
    pub(super) changed: Option<(i64, i64)>,
    /// The kernel's reference to it, in a process that has it mapped.
    pub(super) link: Option<String>,
}

/// What a file is to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The program.
    Application,
    /// Anything else that is mapped as code.
    Library,
}

/// Why a file was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is on a file system of this type, which may never answer.
    Remote(Arc<str>),
    /// It is on a file system that is mounted nowhere known.
    UnknownFileSystem,
    /// The kernel refused.
    Denied,
    /// It is a device or the like.
    NotRegular,
    /// The mapping went away.
    Changed,
    /// Reading failed.
    Failed(String),
}

// === impl File ===

impl File {
    /// Last part of the path; of a memory file, its name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        match name.strip_prefix("memfd:").filter(|_| self.memory) {
            Some(name) => name.to_owned(),
            None => name.into_owned(),
        }
    }

    /// GNU build-id, hex.
    #[must_use]
    pub fn build_id(&self) -> Option<&str> {
        self.elf.as_ref()?.build_id.as_deref()
    }

    /// `DT_SONAME`.
    #[must_use]
    pub fn soname(&self) -> Option<&str> {
        self.elf.as_ref()?.soname.as_deref()
    }

    /// The package's version, else the one in the file's name.
    #[must_use]
    pub fn version(&self) -> Option<(String, VersionSource)> {
        let of_package = self.owner.package().and_then(|package| package.version.clone());
        of_package.map(|version| (version, VersionSource::Package)).or_else(|| {
            let name = self.name();
            let version = version::of_file_name(&name)?;
            Some((version.to_owned(), VersionSource::FileName))
        })
    }

    /// Whether what its path leads to now is not what is mapped.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.deleted == Some(true) || self.replaced == Some(true)
    }
}

// === impl Role ===

impl Role {
    /// For output: a CycloneDX component type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Library => "library",
        }
    }
}

// === impl Unread ===

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(kind) => write!(f, "not opened: {kind} may never answer"),
            Self::UnknownFileSystem => {
                f.write_str("not opened: its file system is mounted nowhere")
            }
            Self::Denied => f.write_str("not opened: needs CAP_CHECKPOINT_RESTORE"),
            Self::NotRegular => f.write_str("not opened: not a regular file"),
            Self::Changed => f.write_str("not opened: the mapping went away"),
            Self::Failed(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

/// The path without what the kernel appends to one that is unlinked.
pub(super) fn without_deleted(path: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let kept = path.as_os_str().as_bytes().strip_suffix(b" (deleted)")?;
    Some(super::root::path_of(kept))
}
