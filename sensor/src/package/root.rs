//! Files below a root directory that may belong to an attacker.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::PackageError;
use super::lines::{Budget, Lines};
use crate::filesystem;

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;
/// `PATH_MAX` of the kernel.
const MAX_PATH: usize = 4096;
/// Tries while something below the root is being renamed (`openat2` answers `EAGAIN`).
const RACES: usize = 8;

/// A directory that is `/` for the files in it: the host's, or a container's. No path and no
/// symbolic link leads out of it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    resolve: ResolveFlags,
    key: RootKey,
}

/// Which root directory it is, for as long as it exists and beyond: the inode's birth tells apart
/// two containers that were given the same device number one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootKey {
    dev: u64,
    ino: u64,
    born: u128,
}

/// What changes when a file or directory is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    pub(super) ctime: (i64, i64),
}

// === impl Root ===

impl Root {
    /// The root of this process: the host's, where the sensor runs on the host. Other file systems
    /// mounted below it (`/var`, `/usr`) are part of it.
    pub fn host() -> io::Result<Self> {
        Self::open_dir(Path::new("/"), ResolveFlags::empty())
    }

    /// The host's root, where the sensor is in a container: an open `/proc/1/root`, for example.
    pub fn host_from_fd(dir: OwnedFd) -> io::Result<Self> {
        Self::new(File::from(dir), ResolveFlags::empty())
    }

    /// The root of a process, through `/proc/PID/root`. One whose root is the host's, in whatever
    /// mount namespace, gets the host's as the sensor sees it.
    pub fn of_process(pid: u32, host: &Self) -> io::Result<Self> {
        let path = format!("/proc/{pid}/root");
        let root = Self::open_dir(Path::new(&path), ResolveFlags::NO_XDEV)?;
        if root.key != host.key {
            return Ok(root);
        }
        Ok(Self { dir: host.dir.try_clone()?, ..*host })
    }

    /// The root of a container, an open directory. Its mounts are not crossed, so that it cannot
    /// have the sensor wait for a file system of its own making.
    pub fn from_fd(dir: OwnedFd) -> io::Result<Self> {
        Self::new(File::from(dir), ResolveFlags::NO_XDEV)
    }

    fn open_dir(path: &Path, resolve: ResolveFlags) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::new(File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?), resolve)
    }

    fn new(dir: File, resolve: ResolveFlags) -> io::Result<Self> {
        let metadata = dir.metadata()?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let key = RootKey::of(&metadata);
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(Self { dir: OwnedFd::from(dir), resolve, key })
    }

    /// Which root this is.
    pub fn key(&self) -> RootKey {
        self.key
    }

    /// Whether another root is the directory that is at `path` below this one. May wait for ever where
    /// a mount below the root hangs.
    pub(crate) fn has(&self, path: &Path, other: &Self) -> bool {
        let found = self.locate(path, OFlags::DIRECTORY).and_then(|place| place.metadata());
        found.is_ok_and(|metadata| RootKey::of(&metadata) == other.key)
    }

    /// Whether the root is an overlay: containers of one image then see the same inodes, each
    /// below a device number of its own.
    pub(super) fn is_overlay(&self) -> bool {
        filesystem::is_overlay(&self.dir)
    }

    /// A reference to whatever `path` is, also on
    /// the mounts below the root; may wait for ever.
    pub(super) fn locate_on_any_mount(&self, path: &Path) -> io::Result<File> {
        self.locate_with(path, OFlags::empty(), self.resolve - ResolveFlags::NO_XDEV)
    }

    fn locate(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        self.locate_with(path, flags, self.resolve)
    }

    /// A reference to whatever `path` is, without opening it: device nodes and pipes notice
    /// nothing.
    fn locate_with(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<File> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let mut races = 0;
        loop {
            match rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if races < RACES => races += 1,
                other => return Ok(File::from(other?)),
            }
        }
    }

    /// Opens a regular file for reading, links followed inside the root. The error is
    /// `InvalidInput` for anything but a regular file, which is not even opened.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let place = self.locate(path, OFlags::empty())?;
        if !place.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        Ok(File::from(rustix::fs::openat(CWD, again, flags, Mode::empty())?))
    }

    /// As [`Self::open`], `None` where there is no such file.
    pub(super) fn find(&self, path: &Path) -> Result<Option<File>, PackageError> {
        match self.open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(PackageError::NotRegular { path: path.to_owned() })
            }
            Err(error) => Err(PackageError::io(path, error)),
        }
    }

    /// The lines of a text file of at most `limit` bytes; `None` where there is no such file.
    pub(super) fn lines(
        &self,
        path: &Path,
        limit: u64,
        budget: &Budget,
    ) -> Result<Option<Lines<File>>, PackageError> {
        let Some(file) = self.find(path)? else { return Ok(None) };
        let size = file.metadata().map_err(|error| PackageError::io(path, error))?.len();
        budget.spend(size)?;
        Lines::new(file, path, limit, size).map(Some)
    }

    /// Whole content of a file of at most `limit` bytes; `None` where there is no such file.
    pub(super) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, PackageError> {
        let Some(file) = self.find(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut bytes)
            .map_err(|error| PackageError::io(path, error))?;
        if bytes.len() as u64 > limit {
            return Err(PackageError::TooLarge { path: path.to_owned(), what: "bytes", limit });
        }
        Ok(Some(bytes))
    }

    /// When a file or directory last changed, its owner, permissions and name included; `None` where
    /// there is none. May wait for ever where a mount below the root hangs.
    pub(crate) fn changed(&self, path: &Path) -> Result<Option<Timestamp>, PackageError> {
        let Some(stamp) = self.stamp(path)? else { return Ok(None) };
        let (seconds, nanoseconds) = stamp.ctime;
        let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
        Ok(Timestamp::new(seconds, nanoseconds).ok())
    }

    /// Names in a directory, sorted; none where there is no such directory.
    pub(crate) fn names(&self, path: &Path, limit: usize) -> Result<Vec<Vec<u8>>, PackageError> {
        let fail = |error| PackageError::io(path, error);
        let dir = match self.locate(path, OFlags::DIRECTORY) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            other => other.map_err(fail)?,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).map_err(fail)? {
            if names.len() >= limit {
                let limit = limit as u64;
                return Err(PackageError::TooLarge { path: path.to_owned(), what: "names", limit });
            }
            names.push(entry.map_err(fail)?.file_name().into_vec());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// State of a file or directory; `None` where there is none.
    pub(super) fn stamp(&self, path: &Path) -> Result<Option<Stamp>, PackageError> {
        match self.locate(path, OFlags::empty()).and_then(|place| place.metadata()) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(PackageError::io(path, error)),
        }
    }

    /// Where `path` leads inside this root with all symbolic links followed, absolute. What does
    /// not exist, is a file system of its own or has too many links is left as it is named.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let mut rest: Vec<Vec<u8>> = components(path).rev().collect();
        let mut resolved = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                resolved.pop();
                continue;
            }
            resolved.push(Path::new(std::ffi::OsStr::from_bytes(&name)));
            let Some(target) = self.link(&resolved) else { continue };
            links += 1;
            if links > MAX_LINKS || rest.len() > MAX_PATH {
                break;
            }
            resolved.pop();
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            rest.extend(components(&target).rev());
        }
        resolved.extend(rest.iter().rev().map(|name| std::ffi::OsStr::from_bytes(name)));
        resolved
    }

    /// Target of a symbolic link; `None` for anything else.
    fn link(&self, path: &Path) -> Option<PathBuf> {
        let place = self.locate(path, OFlags::NOFOLLOW).ok()?;
        if !place.metadata().ok()?.is_symlink() {
            return None;
        }
        let target = rustix::fs::readlinkat(&place, "", Vec::new()).ok()?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))
    }
}

/// Named components from the root on, `..` among them.
fn components(path: &Path) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        Component::ParentDir => Some(b"..".to_vec()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

// === impl RootKey ===

impl RootKey {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |born| born.as_nanos());
        Self { dev: metadata.dev(), ino: metadata.ino(), born }
    }
}

// === impl Stamp ===

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(folder: &Path) -> Root {
        Root::from_fd(OwnedFd::from(File::open(folder).unwrap())).unwrap()
    }

    #[test]
    fn links_out_of_the_root_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        fs::create_dir_all(inside.join("etc")).unwrap();
        fs::write(folder.path().join("secret"), "outside").unwrap();
        fs::write(inside.join("etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", inside.join("absolute")).unwrap();
        symlink("../../../../../../etc/passwd", inside.join("upwards")).unwrap();
        symlink("../secret", inside.join("secret")).unwrap();
        symlink("/proc/self/root/etc/passwd", inside.join("magic")).unwrap();
        let root = root(&inside);
        for name in ["absolute", "upwards", "/absolute", "etc/../../etc/passwd"] {
            let text = root.read(Path::new(name), 100).unwrap().unwrap();
            assert_eq!(text, b"inside", "{name}");
        }
        for name in ["secret", "magic", "../secret", "/../secret"] {
            assert!(root.open(Path::new(name)).is_err(), "{name} left the root");
        }
        assert_eq!(root.resolve(Path::new("/upwards")), Path::new("/etc/passwd"));
        assert_eq!(root.resolve(Path::new("/secret")), Path::new("/secret"));
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        let root = root(folder.path());
        let fifo = root.find(Path::new("fifo"));
        assert!(matches!(fifo, Err(PackageError::NotRegular { .. })), "{fifo:?}");
        assert!(root.find(Path::new("/")).is_err());
        assert!(matches!(root.find(Path::new("loop")), Err(PackageError::Io { .. })));
        assert!(root.find(Path::new("absent/file")).unwrap().is_none());
        assert_eq!(root.resolve(Path::new("loop/x")), Path::new("/loop/x"));
    }

    #[test]
    fn a_container_cannot_lead_onto_another_mount() {
        let root = Root::from_fd(OwnedFd::from(File::open("/").unwrap())).unwrap();
        let error = root.open(Path::new("/proc/version")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
        let host = Root::host().unwrap();
        assert!(host.open(Path::new("/proc/version")).is_ok());
        let own = Root::of_process(std::process::id(), &host).unwrap();
        assert!(own.open(Path::new("/proc/version")).is_ok(), "its root is the host's");
        let folder = tempfile::tempdir().unwrap();
        let other = Root::of_process(std::process::id(), &self::root(folder.path())).unwrap();
        assert!(other.open(Path::new("/proc/version")).is_err(), "its root is not that host's");
    }

    #[test]
    fn a_file_longer_than_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "12345").unwrap();
        let root = root(folder.path());
        assert!(root.read(Path::new("file"), 5).is_ok());
        let error = root.read(Path::new("file"), 4).unwrap_err();
        assert!(matches!(error, PackageError::TooLarge { limit: 4, .. }));
    }

    #[test]
    fn a_root_keeps_its_key_and_another_has_its_own() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(root(one.path()).key(), root(one.path()).key());
        assert_ne!(root(one.path()).key(), root(other.path()).key());
    }
}
