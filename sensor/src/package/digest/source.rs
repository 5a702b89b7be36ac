//! A file to be hashed, and whether it may be.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use super::super::root::{Root, Stamp};
use crate::filesystem;

type Open = Box<dyn FnOnce() -> io::Result<File> + Send>;

/// Where a file comes from. It is opened by the worker: opening, too, may wait for ever.
pub struct Source(Open);

/// Why a file is not hashed, by decision and not by failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A directory, device, pipe or socket.
    #[error("no regular file")]
    NotRegular,
    /// Larger than is ever hashed.
    #[error("{size} bytes are more than the {limit} that are hashed")]
    TooLarge {
        /// Its size.
        size: u64,
        /// [`super::Limits::file_bytes`].
        limit: u64,
    },
    /// Another machine or program may keep it waiting for ever.
    #[error("files on {name} are not read")]
    Remote {
        /// Name of the file system.
        name: &'static str,
    },
    /// It was written to during each attempt.
    #[error("it changes while it is read")]
    Changing,
}

/// A file that may be hashed, not yet opened for reading.
#[derive(Debug)]
pub(super) struct Admitted {
    place: File,
    pub(super) stamp: Stamp,
}

// === impl Source ===

impl Source {
    /// An open file; its offset is neither used nor moved.
    pub fn file(file: File) -> Self {
        Self(Box::new(move || Ok(file)))
    }

    /// A path of the sensor's own, `/proc/PID/map_files/…` for example.
    pub fn path(path: PathBuf) -> Self {
        Self(Box::new(move || {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(CWD, &path, flags, Mode::empty())?))
        }))
    }

    /// A path of a process or container, below its root and on any of its mounts.
    pub fn below(root: Arc<Root>, path: PathBuf) -> Self {
        Self(Box::new(move || root.locate_on_any_mount(&path)))
    }

    /// Whatever `open` gives; it is called on the worker's thread.
    pub fn with(open: impl FnOnce() -> io::Result<File> + Send + 'static) -> Self {
        Self(Box::new(open))
    }

    /// Finds the file and looks at it.
    pub(super) fn admit(self, limit: u64) -> io::Result<Result<Admitted, Refusal>> {
        let place = (self.0)()?;
        let metadata = place.metadata()?;
        if !metadata.is_file() {
            return Ok(Err(Refusal::NotRegular));
        }
        let stamp = Stamp::of(&metadata);
        if stamp.size > limit {
            return Ok(Err(Refusal::TooLarge { size: stamp.size, limit }));
        }
        if let Some(name) = filesystem::that_waits(&place)? {
            return Ok(Err(Refusal::Remote { name }));
        }
        Ok(Ok(Admitted { place, stamp }))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Source")
    }
}

// === impl Admitted ===

impl Admitted {
    /// Opens it for reading, from its beginning.
    pub(super) fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let path = format!("/proc/self/fd/{}", self.place.as_raw_fd());
        Ok(File::from(rustix::fs::openat(CWD, Path::new(&path), flags, Mode::empty())?))
    }

    /// Whether it still is what it was when it was admitted.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.place.metadata()?) == self.stamp)
    }

    /// For another attempt.
    pub(super) fn into_source(self) -> Source {
        Source::file(self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: Source) -> Option<Refusal> {
        source.admit(1 << 20).unwrap().err()
    }

    #[test]
    fn a_sparse_giant_is_refused_by_its_size() {
        let file = tempfile::tempfile().unwrap();
        let size = 200 << 30;
        file.set_len(size).unwrap();
        let expected = Refusal::TooLarge { size, limit: 1 << 20 };
        assert_eq!(refusal(Source::file(file)), Some(expected));
    }

    #[test]
    fn only_regular_files_are_admitted() {
        for path in ["/", "/dev/null", "/dev/zero"] {
            let found = refusal(Source::path(path.into()));
            assert_eq!(found, Some(Refusal::NotRegular), "{path}");
        }
        assert_eq!(refusal(Source::file(tempfile::tempfile().unwrap())), None);
    }
}
