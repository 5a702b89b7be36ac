//! The distinct files: each is looked at once for all processes that see it alike, and read once.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::elf::ElfFacts;
use super::examine::{Changed, Home, Place, Seen};
use super::file::{File, Unread};
use super::mounts::{Device, Mounts};
use super::owner::{Owner, Owners};
use super::process::bounded;
use super::root::ProcRoot;
use crate::verify::maps::Vma;
use crate::verify::process::FileKey;

/// Distinct files kept, about 0.5 KiB each, and bytes of their paths; more are counted only.
const MAX_FILES: usize = 200_000;
const MAX_PATHS: usize = 64 << 20;
/// Mounts kept of all namespaces together.
const MAX_MOUNTS: usize = 1_000_000;
/// Bytes of one mountinfo.
const MAX_MOUNTINFO: u64 = 64 << 20;

/// Where package databases are.
const DATABASES: [&str; 6] = [
    "/lib/apk/db",
    "/usr/lib/apk/db",
    "/usr/lib/sysimage",
    "/usr/share/rpm",
    "/var/lib/dpkg",
    "/var/lib/rpm",
];

/// Files by what tells them apart.
#[derive(Debug)]
pub(super) struct Files {
    home: Home,
    views: Vec<Mounts>,
    view_of: HashMap<(u64, PathBuf), usize>,
    known: HashMap<Key, u32>,
    read: HashMap<FileKey, Result<Option<Arc<ElfFacts>>, Unread>>,
    pub(super) all: Vec<File>,
    path_bytes: usize,
    mounts: usize,
    /// Files for which there was no room.
    pub(super) left_out: u64,
}

/// Processes with the same namespace and root that name an inode alike mean the same file. While
/// it is mapped, no other file can get its inode number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    view: usize,
    device: Device,
    ino: u64,
    path: Arc<str>,
}

// === impl Files ===

impl Files {
    pub(super) fn new() -> Self {
        Self {
            home: Home::here(),
            views: Vec::new(),
            view_of: HashMap::new(),
            known: HashMap::new(),
            read: HashMap::new(),
            all: Vec::new(),
            path_bytes: 0,
            mounts: 0,
            left_out: 0,
        }
    }

    /// What the process sees of the file system; the number is for [`Self::find`].
    pub(super) fn view(&mut self, root: &ProcRoot) -> usize {
        let key = (root.mount_namespace, root.path.clone());
        if let Some(known) = self.view_of.get(&key) {
            return *known;
        }
        let number = self.views.len();
        let text = bounded(&format!("/proc/{}/mountinfo", root.pid), MAX_MOUNTINFO);
        let mounts = text.ok().map(|text| Mounts::parse(&text, self.home.mounts.root()));
        match mounts.filter(|mounts| self.mounts + mounts.len() <= MAX_MOUNTS) {
            Some(mounts) => {
                self.mounts += mounts.len();
                self.views.push(mounts);
                self.view_of.insert(key, number);
            }
            // Of this process only: another one may still tell.
            None => self.views.push(Mounts::unknown()),
        }
        number
    }

    /// Number of the file behind an area; `None` where there is no room for another one.
    pub(super) fn find(
        &mut self,
        (root, view): (&ProcRoot, usize),
        vma: &Vma,
        owners: &mut dyn Owners,
    ) -> Result<Option<u32>, Changed> {
        let key = Key { view, device: vma.dev, ino: vma.ino, path: Arc::clone(&vma.path) };
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(*known));
        }
        let fits = self.all.len() < MAX_FILES && self.path_bytes < MAX_PATHS;
        let number = u32::try_from(self.all.len()).ok().filter(|_| fits);
        let (Some(number), Some(mounts)) = (number, self.views.get(view)) else {
            self.left_out += 1;
            return Ok(None);
        };
        let seen = Place { pid: root.pid, root, mounts, home: &self.home }.examine(vma)?;
        let askable = !DATABASES.iter().any(|folder| mounts.may_hang(Path::new(folder)));
        let file = self.describe(vma, seen, askable.then_some(owners));
        self.path_bytes += vma.path.len();
        self.all.push(file);
        self.known.insert(key, number);
        Ok(Some(number))
    }

    fn describe(&mut self, vma: &Vma, seen: Seen, owners: Option<&mut dyn Owners>) -> File {
        let metadata = seen.metadata.as_ref();
        let mut file = File {
            path: seen.fate.path.clone(),
            dev: metadata
                .map_or_else(|| rustix::fs::makedev(vma.dev.0, vma.dev.1), MetadataExt::dev),
            ino: vma.ino,
            size: metadata.map(std::fs::Metadata::len),
            memory: seen.memory,
            deleted: seen.fate.deleted,
            replaced: seen.fate.replaced,
            elf: None,
            unread: seen.unread.clone(),
            owner: Owner::Unowned,
            sha256: None,
            content: None,
            changed: metadata.map(|it| (it.ctime(), it.ctime_nsec())),
            link: seen.link().map(str::to_owned),
        };
        file.owner = owner(&file, seen.root.as_ref(), owners);
        match self.facts(seen) {
            Ok(elf) => file.elf = elf,
            Err(unread) => file.unread = Some(unread),
        }
        file
    }

    /// What the file says about itself, read once whatever its names are.
    fn facts(&mut self, seen: Seen) -> Result<Option<Arc<ElfFacts>>, Unread> {
        if let Some(unread) = &seen.unread {
            return Err(unread.clone());
        }
        let key = seen.metadata.as_ref().map(FileKey::of);
        if let Some(known) = key.and_then(|key| self.read.get(&key)) {
            return known.clone();
        }
        let read = seen.open().and_then(|handle| ElfFacts::read(&handle));
        let read = read.map(|facts| facts.map(Arc::new));
        let read = read.map_err(|error| Unread::Failed(error.to_string()));
        if let Some(key) = key {
            self.read.insert(key, read.clone());
        }
        read
    }
}

/// Without `owners` the database must not be touched.
fn owner(file: &File, root: Option<&ProcRoot>, owners: Option<&mut dyn Owners>) -> Owner {
    if file.memory {
        return Owner::Unowned;
    }
    if let Some(Unread::Remote(_)) = file.unread {
        return Owner::Unknown("on a file system that may never answer".to_owned());
    }
    match (root, owners) {
        (None, _) => Owner::Unknown("outside of every known root directory".to_owned()),
        (_, None) => Owner::Unknown("the package database may never answer".to_owned()),
        (Some(root), Some(owners)) => match owners.owner(root, &file.path) {
            owner if file.is_stale() => owner.of_an_earlier_file(),
            owner => owner,
        },
    }
}
