//! Paths below the root of a process, looked up without waiting for anybody.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx,
};
use rustix::io::Errno;

use super::super::{Directory, FileId, Inode, View};
use crate::filesystem;
use crate::inventory::mounts::{self, MountLine, Mounts};
use crate::verify::process::FileKey;

/// A rename somewhere on the host makes a look-up in the cache fail; the next one succeeds.
const TRIES: u32 = 3;
/// Layers of an overlay, and mounts of one file system, that are looked at.
const PLACES_MAX: usize = 256;
const NOWHERE: &str = "it lies on no mount of this host";

/// The root directory of a process.
#[derive(Debug)]
pub(super) struct Below {
    root: OwnedFd,
    /// As seen from here: what stands before its paths in `/proc`.
    shown: PathBuf,
    /// The root answers by itself.
    is_own: bool,
    mounts: Mounts,
}

/// A file of the loader's own, not yet opened for reading.
#[derive(Debug)]
pub(super) struct OwnFile {
    place: File,
    pub(super) metadata: Metadata,
}

// === impl Below ===

impl Below {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let link = format!("/proc/{pid}/root");
        let shown = fs::read_link(&link)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &link, flags, Mode::empty())?;
        let is_own = filesystem::answers_soon(&root);
        let mountinfo = super::bounded(&format!("/proc/{pid}/mountinfo"), super::MOUNTINFO_MAX);
        let mounts = mountinfo.map_or_else(|_| Mounts::unknown(), |it| Mounts::parse(&it, None));
        Ok(Self { root, shown, is_own, mounts })
    }

    /// As the process sees a path that the kernel tells.
    pub(super) fn inside(&self, told: &Path) -> Option<PathBuf> {
        Some(Path::new("/").join(told.strip_prefix(&self.shown).ok()?))
    }

    /// A regular file, if it lies on the root's own file system, and that answers by itself.
    pub(super) fn open_own(&self, path: &Path) -> Option<OwnFile> {
        if !self.is_own {
            return None;
        }
        let place = File::from(self.open(path, ResolveFlags::NO_XDEV).ok()?);
        let metadata = place.metadata().ok().filter(Metadata::is_file)?;
        Some(OwnFile { place, metadata })
    }

    /// What the kernel has in its cache, else what a disk of this machine answers.
    fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        for _ in 0..TRIES {
            match self.open(path, ResolveFlags::CACHED) {
                Err(Errno::AGAIN) => {}
                // Before 5.12 there is no look-up in the cache alone.
                Err(Errno::INVAL) => break,
                other => return other,
            }
        }
        let found =
            if self.is_own { self.open(path, ResolveFlags::NO_XDEV) } else { Err(Errno::XDEV) };
        match found {
            // No link leads on from what is known to answer.
            Err(Errno::XDEV) if !self.mounts.may_hang(path) => {
                self.open(path, ResolveFlags::NO_SYMLINKS)
            }
            found => found,
        }
    }

    fn open(&self, path: &Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let how = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), how)
    }

    /// The path of a file on this host, from the mounts of the process.
    pub(super) fn on_host(
        &self,
        inside: &Path,
        file: FileId,
        theirs: &[u8],
    ) -> Result<PathBuf, &'static str> {
        let host = Self::of(std::process::id()).map_err(|_| "this host's root cannot be opened")?;
        let whole = self.shown.join(inside.strip_prefix("/").unwrap_or(inside));
        if host.file(&whole) == Some(file) {
            return Ok(whole);
        }
        // Points are told as the process sees them; the last one at the longest is the one it sees.
        let mount = mounts::lines(theirs)
            .filter(|mount| inside.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.as_os_str().len())
            .ok_or(NOWHERE)?;
        let rest = inside.strip_prefix(&mount.point).unwrap_or(inside).to_owned();
        let ours = super::bounded("/proc/self/mountinfo", super::MOUNTINFO_MAX).unwrap_or_default();
        let layers = mount.layers.iter().map(|layer| layer.join(mount.within(&rest)));
        let mut places = layers.chain(bound(&mount, &rest, &ours)).take(PLACES_MAX);
        places.find(|path| host.file(path) == Some(file)).ok_or(NOWHERE)
    }
}

// === impl OwnFile ===

impl OwnFile {
    pub(super) fn key(&self) -> FileKey {
        FileKey::of(&self.metadata)
    }

    pub(super) fn open(&self) -> Option<File> {
        let again = format!("/proc/self/fd/{}", self.place.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Some(File::from(openat(CWD, again, flags, Mode::empty()).ok()?))
    }

    /// Its bytes, at most `limit`.
    pub(super) fn read(&self, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Where this host has the same file system mounted.
fn bound(mount: &MountLine, rest: &Path, ours: &[u8]) -> Vec<PathBuf> {
    let within = mount.root.join(rest);
    let same = mounts::lines(ours).filter(|our| our.device == mount.device && our.is_own);
    same.filter_map(|our| Some(our.point.join(within.strip_prefix(&our.root).ok()?))).collect()
}

/// What is known of an inode without asking whoever answers for it.
struct Stat {
    file: FileId,
    inode: Inode,
    is_file: bool,
    is_directory: bool,
}

fn stat(place: impl AsFd) -> Result<Stat, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(place, "", flags, StatxFlags::BASIC_STATS)?;
    let mode = u32::from(stat.stx_mode);
    let kind = FileType::from_raw_mode(mode);
    Ok(Stat {
        file: FileId { ino: stat.stx_ino, size: stat.stx_size },
        inode: Inode { uid: stat.stx_uid, gid: stat.stx_gid, mode },
        is_file: kind == FileType::RegularFile,
        is_directory: kind == FileType::Directory,
    })
}

// === impl View ===

impl View for Below {
    fn file(&self, path: &Path) -> Option<FileId> {
        let stat = stat(self.find(path).ok()?).ok()?;
        stat.is_file.then_some(stat.file)
    }

    fn directory(&self, path: &Path) -> Directory {
        match self.find(path).and_then(stat) {
            Ok(stat) if stat.is_directory => Directory::Is(stat.inode),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Directory::Absent,
            Err(_) => Directory::Unknown,
        }
    }
}
