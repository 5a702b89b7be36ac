//! The root directory of a process, and what its paths lead to there now.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Where a process looks up its paths; package databases are read below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcRoot {
    /// A process that has this root; it may be gone by the time it is asked.
    pub pid: u32,
    /// Inode number of its mount namespace (`/proc/PID/ns/mnt`).
    pub mount_namespace: u64,
    /// The root directory as this program sees it: `/` but for a process in a chroot, since paths
    /// in another mount namespace begin at that namespace's root.
    pub path: PathBuf,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To a file with this device (`st_dev`) and inode.
    To(u64, u64),
    /// To nothing.
    Nowhere,
    /// It cannot be told: refused, or by way of a symbolic link.
    Unknown,
}

// === impl ProcRoot ===

impl ProcRoot {
    /// Reads the links below `/proc/PID`; needs the right to inspect the process.
    pub fn read(pid: u32) -> io::Result<Self> {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
        let mount_namespace = namespace_inode(&namespace).ok_or(io::ErrorKind::InvalidData)?;
        let path = fs::read_link(format!("/proc/{pid}/root"))?;
        Ok(Self { pid, mount_namespace, path })
    }

    /// The directory itself.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(format!("/proc/{}/root", self.pid), flags, Mode::empty())?)
    }

    /// The path of a mapping, which the kernel tells as this program sees it, as the process sees
    /// it. `None` where it lies outside of the root.
    pub(super) fn inside(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.path).ok()?;
        Some(Path::new("/").join(below))
    }

    /// What `path`, as the process sees it, leads to now. Follows no symbolic link, because a path
    /// that the kernel tells has none: one that stands there now was put there later.
    pub(super) fn leads(&self, path: &Path) -> Leads {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_below(path, flags).and_then(|file| file.metadata()) {
            Ok(metadata) => {
                use std::os::unix::fs::MetadataExt;
                Leads::To(metadata.dev(), metadata.ino())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Leads::Nowhere,
                _ => Leads::Unknown,
            },
        }
    }

    /// Opens for reading without waiting for anything.
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_below(path, flags)
    }

    fn open_below(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let root = self.open()?;
        let resolve =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let path = path.strip_prefix("/").unwrap_or(path);
        Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?.into())
    }
}

/// `mnt:[4026531841]`
fn namespace_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

/// Bytes as a path.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn own() -> ProcRoot {
        ProcRoot::read(std::process::id()).unwrap()
    }

    #[test]
    fn a_chroot_hides_its_own_path() {
        let root = ProcRoot { pid: 1, mount_namespace: 1, path: "/srv/jail".into() };
        let inside = |path: &str| root.inside(Path::new(path));
        assert_eq!(inside("/srv/jail/lib/a.so"), Some("/lib/a.so".into()));
        assert_eq!(inside("/srv/jailer/lib/a.so"), None);
        assert_eq!(inside("/lib/a.so"), None);
        let whole = ProcRoot { path: "/".into(), ..root };
        assert_eq!(whole.inside(Path::new("/lib/a.so")), Some("/lib/a.so".into()));
    }

    #[test]
    fn a_path_leads_to_its_file_but_through_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let file = folder.join("a.so");
        fs::write(&file, "x").unwrap();
        symlink(&folder, folder.join("again")).unwrap();
        symlink(&file, folder.join("link.so")).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let this = Leads::To(metadata.dev(), metadata.ino());
        assert_eq!(own().leads(&file), this);
        assert_eq!(own().leads(&folder.join("b.so")), Leads::Nowhere);
        assert_eq!(own().leads(&file.join("c.so")), Leads::Nowhere);
        assert_eq!(own().leads(&folder.join("again/a.so")), Leads::Unknown);
        let link = own().leads(&folder.join("link.so"));
        assert!(matches!(link, Leads::To(..)) && link != this, "the link itself: {link:?}");
    }

    #[test]
    fn a_namespace_has_a_number() {
        assert_eq!(namespace_inode(Path::new("mnt:[4026531841]")), Some(4_026_531_841));
        assert_eq!(namespace_inode(Path::new("mnt:[x]")), None);
    }
}
