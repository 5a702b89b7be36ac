//! Why a question about packages has no answer.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Manager;

/// Why it cannot be said which package owns a file. That a file is owned by *no* package is an
/// answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Neither dpkg, apk nor rpm keeps records here: an image built from scratch, for example.
    #[error("no package database below this root")]
    NoDatabase,
    /// There is a database, of a kind that is not read.
    #[error("unsupported {manager} database format: {format} at {path}")]
    Unsupported {
        /// Whose database it is.
        manager: Manager,
        /// What it is.
        format: &'static str,
        /// Where it is, below the root.
        path: &'static str,
    },
    /// The package manager is at work and this file is in neither the old records nor yet in new
    /// ones: ask again in a few seconds.
    #[error("the {manager} database is being changed")]
    Changing {
        /// Who is at work.
        manager: Manager,
    },
    /// The database could not be read, and was not tried again: it has not changed since.
    #[error("cannot read the {manager} database: {reason}")]
    Unreadable {
        /// Whose database it is.
        manager: Manager,
        /// What went wrong.
        reason: String,
    },
    /// The kernel refused. `EXDEV` where a container's database is on another mount than its root,
    /// which is not followed.
    #[error("cannot read {path} below the root")]
    Io {
        /// File below the root.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A database file is a directory, device, pipe or socket.
    #[error("{path} below the root is no regular file")]
    NotRegular {
        /// File below the root.
        path: PathBuf,
    },
    /// More than is ever read of such a file, or of a whole database.
    #[error("{path} below the root: more than {limit} {what}")]
    TooLarge {
        /// File below the root.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A database contradicts its format.
    #[error("{path} below the root is malformed: {what}")]
    Malformed {
        /// File below the root.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Reading the database took too long and was given up.
    #[error("the package database was not read within {seconds} s")]
    TooSlow {
        /// The time it had.
        seconds: u64,
    },
}

impl PackageError {
    /// It lies on another mount than the root.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let elsewhere = Some(Errno::XDEV.raw_os_error());
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == elsewhere)
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn malformed(path: &Path, what: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), what }
    }
}
