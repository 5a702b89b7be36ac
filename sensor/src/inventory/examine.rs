//! Looking at one mapped file through the kernel's own reference to it, without ever waiting.

use std::fs::{self, File as Handle, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, OFlags, major, minor};

use super::file::{Unread, without_deleted};
use super::mounts::{Device, Mounts, Reach, unescape};
use super::root::{Leads, ProcRoot, path_of};
use crate::verify::maps::Vma;

/// What every look needs of this host.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) root: Option<ProcRoot>,
    pub(super) mounts: Mounts,
    /// Device of memfds and shared memory, which is mounted nowhere.
    shared_memory: Option<Device>,
}

/// Whose mapping is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) pid: u32,
    pub(super) root: &'a ProcRoot,
    pub(super) mounts: &'a Mounts,
    pub(super) home: &'a Home,
}

/// What was seen of a file; `handle` and `metadata` where it may be touched.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) fate: Fate,
    /// The root directory that the path is below; `None` where it is below no known one.
    pub(super) root: Option<ProcRoot>,
    pub(super) memory: bool,
    pub(super) metadata: Option<Metadata>,
    pub(super) unread: Option<Unread>,
    source: Source,
}

/// The name of a file, and whether it still leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) path: PathBuf,
    pub(super) deleted: Option<bool>,
    pub(super) replaced: Option<bool>,
}

/// Where the content is to be had.
#[derive(Debug)]
enum Source {
    Nowhere,
    Link(String),
    Opened(Handle),
}

/// The mapping is no longer there.
#[derive(Debug)]
pub(super) struct Changed;

// === impl Home ===

impl Home {
    pub(super) fn here() -> Self {
        let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let root = Mounts::parse(&text, None).root();
        Self {
            root: ProcRoot::read(std::process::id()).ok(),
            mounts: Mounts::parse(&text, root),
            shared_memory: shared_memory(),
        }
    }
}

fn shared_memory() -> Option<Device> {
    let file = rustix::fs::memfd_create("halfsecond", MemfdFlags::CLOEXEC).ok()?;
    let device = rustix::fs::fstat(&file).ok()?.st_dev;
    Some((major(device), minor(device)))
}

// === impl Place ===

impl Place<'_> {
    /// Looks at the file behind an area, whose file systems are judged before it is touched.
    pub(super) fn examine(&self, vma: &Vma) -> Result<Seen, Changed> {
        let link = format!("/proc/{}/map_files/{:x}-{:x}", self.pid, vma.start, vma.end);
        let told = match fs::read_link(&link) {
            Ok(path) => path,
            Err(error) if is_gone(&error) => return Err(Changed),
            // Without the capability the maps text has to do, where a line feed is `\012`.
            Err(_) => path_of(&unescape(vma.path.as_bytes())),
        };
        let (root, path) = self.below(&told);
        match self.reach(vma, &told) {
            Some(Reach::Local) => {}
            Some(reach) => return Ok(Seen::untouched(&path, root, unread(reach))),
            None => return Ok(Seen::memory(path, link)),
        }
        let (metadata, source) = match fs::metadata(&link) {
            Ok(metadata) => (metadata, Source::Link(link)),
            Err(error) if is_gone(&error) => return Err(Changed),
            Err(_) => match self.open_by_path(vma, root.as_ref(), &path) {
                Some((handle, metadata)) => (metadata, Source::Opened(handle)),
                None => return Ok(Seen::untouched(&path, root, Unread::Denied)),
            },
        };
        let this = (metadata.dev(), metadata.ino());
        let leads = |path: &Path| self.leads(root.as_ref(), path);
        let fate = Fate::of(&path, Some(metadata.nlink()), Some(this), &leads);
        let unread = (!metadata.is_file()).then_some(Unread::NotRegular);
        Ok(Seen { fate, root, memory: false, metadata: Some(metadata), unread, source })
    }

    /// The path as the process sees it, and the root directory it is below.
    fn below(&self, told: &Path) -> (Option<ProcRoot>, PathBuf) {
        if let Some(inside) = self.root.inside(told) {
            return (Some(self.root.clone()), inside);
        }
        let home = self.home.root.as_ref();
        let home = home.filter(|home| home.mount_namespace == self.root.mount_namespace);
        (home.cloned(), told.to_owned())
    }

    /// `None` for memory.
    fn reach(&self, vma: &Vma, told: &Path) -> Option<Reach> {
        if self.home.shared_memory == Some(vma.dev) || told.is_relative() {
            return None;
        }
        match self.mounts.reach(vma.dev) {
            Reach::Unknown => {}
            known => return Some(known),
        }
        match self.home.mounts.reach(vma.dev) {
            // Of huge pages; no file system that is mounted anywhere has its device.
            Reach::Unknown if told.as_os_str().as_bytes().starts_with(b"/memfd:") => None,
            // A block device that is mounted where nobody here sees it.
            Reach::Unknown if vma.dev.0 != 0 => Some(Reach::Local),
            reach => Some(reach),
        }
    }

    fn leads(&self, root: Option<&ProcRoot>, path: &Path) -> Leads {
        match root {
            Some(root) if !self.may_hang(root, path) => root.leads(path),
            _ => Leads::Unknown,
        }
    }

    fn may_hang(&self, root: &ProcRoot, path: &Path) -> bool {
        let mounts = if root == self.root { self.mounts } else { &self.home.mounts };
        mounts.may_hang(path)
    }

    /// Without `CAP_CHECKPOINT_RESTORE`: the path, if it still is the inode that is mapped.
    fn open_by_path(
        &self,
        vma: &Vma,
        root: Option<&ProcRoot>,
        path: &Path,
    ) -> Option<(Handle, Metadata)> {
        let root = root.filter(|root| !self.may_hang(root, path))?;
        // A device may act on being opened, so what it is comes first.
        let Leads::To(dev, ino) = root.leads(path) else { return None };
        if ino != vma.ino || (major(dev), minor(dev)) != vma.dev {
            return None;
        }
        let handle = root.open_file(path).ok()?;
        let metadata = handle.metadata().ok()?;
        let same = metadata.dev() == dev && metadata.ino() == ino && metadata.is_file();
        same.then_some((handle, metadata))
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [rustix::io::Errno::SRCH, rustix::io::Errno::NOENT];
    gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn unread(reach: Reach) -> Unread {
    match reach {
        Reach::Remote(kind) => Unread::Remote(kind),
        Reach::Local | Reach::Unknown => Unread::UnknownFileSystem,
    }
}

// === impl Seen ===

impl Seen {
    /// A file that must not be touched: its name is all there is.
    fn untouched(path: &Path, root: Option<ProcRoot>, unread: Unread) -> Self {
        let fate = Fate::of(path, None, None, &|_| Leads::Unknown);
        let unread = Some(unread);
        Self { fate, root, memory: false, metadata: None, unread, source: Source::Nowhere }
    }

    fn memory(path: PathBuf, link: String) -> Self {
        let path = without_deleted(&path).unwrap_or(path);
        let fate = Fate { path, deleted: Some(false), replaced: Some(false) };
        let metadata = fs::metadata(&link).ok().filter(Metadata::is_file);
        let (unread, source) = match metadata {
            Some(_) => (None, Source::Link(link)),
            None => (Some(Unread::Denied), Source::Nowhere),
        };
        Self { fate, root: None, memory: true, metadata, unread, source }
    }

    /// The kernel's own reference to the file.
    pub(super) fn link(&self) -> Option<&str> {
        match &self.source {
            Source::Link(link) => Some(link),
            Source::Nowhere | Source::Opened(_) => None,
        }
    }

    /// The file itself, opened for reading; call only where `unread` is `None`.
    pub(super) fn open(self) -> io::Result<Handle> {
        match self.source {
            Source::Opened(handle) => Ok(handle),
            Source::Nowhere => Err(io::ErrorKind::PermissionDenied.into()),
            Source::Link(link) => {
                let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
                let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
                fs::OpenOptions::new().read(true).custom_flags(flags).open(link)
            }
        }
    }
}

// === impl Fate ===

impl Fate {
    /// `told` is the kernel's path of a file with `links` names and the identity `this`; `leads`
    /// tells what a path leads to now.
    fn of(
        told: &Path,
        links: Option<u64>,
        this: Option<(u64, u64)>,
        leads: &dyn Fn(&Path) -> Leads,
    ) -> Self {
        let now = leads(told);
        let is_this = |leads| this.is_some_and(|(dev, ino)| leads == Leads::To(dev, ino));
        let other = |leads| match leads {
            Leads::To(dev, ino) => this.map(|this| this != (dev, ino)),
            Leads::Nowhere => Some(false),
            Leads::Unknown => None,
        };
        let Some(base) = without_deleted(told) else {
            let deleted = Some(links == Some(0));
            return Self { path: told.to_owned(), deleted, replaced: other(now) };
        };
        // A file may really be called so.
        if is_this(now) {
            return Self { path: told.to_owned(), deleted: Some(false), replaced: Some(false) };
        }
        let now = leads(&base);
        Self { path: base, deleted: Some(!is_this(now)), replaced: other(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(told: &str, links: u64, now: &[(&str, Leads)]) -> (String, Option<bool>, Option<bool>) {
        let leads = |path: &Path| {
            let found = now.iter().find(|(name, _)| Path::new(name) == path);
            found.map_or(Leads::Nowhere, |(_, leads)| *leads)
        };
        let fate = Fate::of(Path::new(told), Some(links), Some((1, 2)), &leads);
        (fate.path.display().to_string(), fate.deleted, fate.replaced)
    }

    #[test]
    fn the_fate_of_a_file_is_told_by_what_its_path_leads_to() {
        let (this, other) = (Leads::To(1, 2), Leads::To(1, 3));
        let (yes, no) = (Some(true), Some(false));
        let path = || "/a.so".to_owned();
        assert_eq!(fate("/a.so", 1, &[("/a.so", this)]), (path(), no, no));
        assert_eq!(fate("/a.so", 1, &[("/a.so", other)]), (path(), no, yes), "mounted over");
        assert_eq!(fate("/a.so (deleted)", 0, &[]), (path(), yes, no));
        assert_eq!(fate("/a.so (deleted)", 0, &[("/a.so", other)]), (path(), yes, yes));
        assert_eq!(fate("/a.so (deleted)", 1, &[]), (path(), yes, no), "another name is left");
        assert_eq!(fate("/a.so (deleted)", 1, &[("/a.so", this)]), (path(), no, no), "linked back");
        assert_eq!(fate("/a.so", 1, &[("/a.so", Leads::Unknown)]), (path(), no, None));
    }

    #[test]
    fn a_file_may_be_called_deleted() {
        let name = "/a.so (deleted)";
        let found = fate(name, 1, &[(name, Leads::To(1, 2))]);
        assert_eq!(found, (name.to_owned(), Some(false), Some(false)));
    }

    #[test]
    fn shared_memory_has_a_device_that_is_mounted_nowhere() {
        let home = Home::here();
        let device = home.shared_memory.unwrap();
        assert_eq!(home.mounts.reach(device), Reach::Unknown);
    }
}
