//! Where the file that a process has mapped is to be found: below which root, by which path.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{major, minor};

use crate::event::FileKey;
use crate::host::FoundLibrary;
use crate::package::Root;
use crate::watch;

/// A file below a root.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) root: Arc<Root>,
    /// Absolute, below that root.
    pub(super) path: PathBuf,
}

/// Finds the file with this identity: below the process's own root, and below the host's.
///
/// `shown` is the path as the kernel walked it, to the root of the process's mounts; in a chroot it
/// holds the way to the chroot as well. The process may be gone, and the path may lead elsewhere by
/// now: then there is no answer.
pub(super) fn find(host: &Arc<Root>, tgid: u32, shown: &Path, file: &FileKey) -> Option<Place> {
    let own =
        Root::of_process(tgid, host).ok().filter(|root| root.key() != host.key()).map(Arc::new);
    let chroot = fs::read_link(format!("/proc/{tgid}/root")).ok();
    let inside = chroot.as_deref().and_then(|root| shown.strip_prefix(root).ok());
    let inside = inside.map(|path| Path::new("/").join(path));
    let candidates = [
        own.as_ref().zip(inside),
        own.as_ref().map(|root| (root, shown.to_owned())),
        Some((host, shown.to_owned())),
    ];
    candidates.into_iter().flatten().find_map(|(root, path)| {
        let place = root.open(&path).ok()?;
        let metadata = place.metadata().ok()?;
        let same = metadata.ino() == file.ino && metadata.size() == file.size;
        same.then(|| Place { root: Arc::clone(root), path })
    })
}

/// The file that a variable's name led to: below the root of the process, or, where that is gone and
/// was this host's, below this host's.
pub(super) fn of_library(
    host: &Arc<Root>,
    tgid: u32,
    on_host: bool,
    library: &FoundLibrary,
) -> Option<(Place, FileKey)> {
    let own = Root::of_process(tgid, host).ok().map(Arc::new);
    let root = own.or_else(|| on_host.then(|| Arc::clone(host)))?;
    let path = PathBuf::from(&library.path);
    let metadata = root.open(&path).ok()?.metadata().ok()?;
    if metadata.ino() != library.inode {
        return None;
    }
    let device = metadata.dev();
    let key = FileKey {
        ino: metadata.ino(),
        dev: (major(device) << 20) | (minor(device) & 0xf_ffff),
        generation: 0,
        ctime_s: u64::try_from(metadata.ctime()).unwrap_or(0),
        size: metadata.size(),
    };
    Some((Place { root, path }, key))
}

/// A module of PAM, below the root that was looked at.
pub(super) fn of_module(
    host: &Arc<Root>,
    at: &watch::Root,
    path: &Path,
    file: FileKey,
) -> Option<(Place, FileKey)> {
    let own = Root::of_process(at.tgid, host).ok().map(Arc::new);
    let root = own.or_else(|| at.host.then(|| Arc::clone(host)))?;
    let metadata = root.open(path).ok()?.metadata().ok()?;
    let same = metadata.ino() == file.ino && metadata.size() == file.size;
    same.then(|| (Place { root, path: path.to_owned() }, file))
}
