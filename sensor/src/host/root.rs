//! Files as a process sees them: below its own root, never outside it, and without waiting for a
//! disk or a network.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::commands::{FILE_MAX, Files};
use super::outside::Unanswered;
use super::variable::FoundLibrary;
use crate::filesystem;

/// Directories looked at above one file.
const DEPTH_MAX: usize = 40;
/// A rename somewhere on the host makes a look-up in the cache fail; the next one succeeds.
const TRIES: u32 = 3;
const OTHERS_WRITE: u32 = 0o022;
const SET_UID: u32 = 0o4000;
/// Names of one directory.
const NAMES_MAX: usize = 256;

/// The root directory of a process, held.
pub(super) struct Root(OwnedFd);

// === impl Root ===

impl Root {
    pub(super) fn of(tgid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, format!("/proc/{tgid}/root"), flags, Mode::empty()).ok().map(Self)
    }

    /// See [`look`].
    pub(super) fn look(&self, path: &str) -> Option<FoundLibrary> {
        look_below(self.0.as_fd(), path)
    }

    /// The first bytes of a regular file.
    pub(super) fn read_at_most(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let place = inside(self.0.as_fd(), Path::new(path))?;
        let mode = fstat(&place).ok()?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::RegularFile {
            return None;
        }
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(openat(CWD, again, flags, Mode::empty()).ok()?);
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl Files for Root {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.read_at_most(path, FILE_MAX)
    }

    fn list(&self, directory: &str) -> Option<Vec<String>> {
        let Some(place) = inside(self.0.as_fd(), Path::new(directory)) else {
            return Some(Vec::new());
        };
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(NAMES_MAX + 1).collect();
        names.sort_unstable();
        (names.len() <= NAMES_MAX).then_some(names)
    }
}

/// The regular file at a path as the process sees it, with what tells whether only root decides
/// about it. `on_host`: where the process is gone, this host's root is as good.
pub(super) fn look(
    tgid: u32,
    on_host: bool,
    path: &str,
) -> Result<Option<FoundLibrary>, Unanswered> {
    let open = |root: &str| {
        openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    };
    let root = open(&format!("/proc/{tgid}/root")).or_else(|| on_host.then(|| open("/")).flatten());
    Ok(look_below(root.ok_or(Unanswered)?.as_fd(), path))
}

fn look_below(root: BorrowedFd<'_>, path: &str) -> Option<FoundLibrary> {
    let file = inside(root, Path::new(path))?;
    let stat = fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let set_uid = stat.st_mode & SET_UID != 0;
    // Symbolic links are behind this path.
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let real = below(root, &real)?;
    let protected = is_roots(&stat)
        && Path::new(&real).ancestors().skip(1).take(DEPTH_MAX).all(|directory| {
            inside(root, directory)
                .and_then(|it| fstat(it).ok())
                .is_some_and(|stat| is_roots(&stat))
        });
    Some(FoundLibrary { path: real, inode: stat.st_ino, set_uid, protected })
}

/// A path of this process's view as seen from the root: the kernel shows a file of another mount
/// namespace from that namespace's own root already.
fn below(root: BorrowedFd<'_>, real: &Path) -> Option<String> {
    let top = std::fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd())).ok()?;
    let inside = real.strip_prefix(&top).unwrap_or(real);
    Some(Path::new("/").join(inside).to_str()?.to_owned())
}

/// Only root may replace it.
fn is_roots(stat: &Stat) -> bool {
    stat.st_uid == 0
        && (stat.st_mode & OTHERS_WRITE == 0 || stat.st_gid == 0 && stat.st_mode & 0o002 == 0)
}

/// Opens for looking only: no device is touched, no FIFO waited for.
fn inside(root: BorrowedFd<'_>, path: &Path) -> Option<OwnedFd> {
    let open = |how| {
        openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | how,
        )
    };
    for _ in 0..TRIES {
        match open(ResolveFlags::CACHED) {
            Ok(file) => return Some(file),
            Err(Errno::AGAIN) => {}
            // Before 5.12 there is no look-up in the cache alone.
            Err(Errno::INVAL) => return open(ResolveFlags::empty()).ok(),
            Err(_) => return None,
        }
    }
    // The loader may not have opened it yet. A disk of this machine answers soon.
    filesystem::answers_soon(root).then(|| open(ResolveFlags::NO_XDEV).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn own(path: &Path) -> Option<FoundLibrary> {
        // On another mount than the root's only what the kernel has in its cache is found.
        let _ = std::fs::metadata(path);
        look(std::process::id(), true, path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn a_system_file_is_protected_and_shown_by_its_real_path() {
        let real = std::fs::canonicalize("/bin/sh").unwrap();
        let found = own(Path::new("/bin/sh")).unwrap();
        assert_eq!(Path::new(&found.path), real);
        assert!(found.protected && !found.set_uid, "{found:?}");
    }

    #[test]
    fn what_nobody_can_look_at_is_not_called_absent() {
        assert_eq!(look(u32::MAX, false, "/bin/sh"), Err(Unanswered));
        assert!(look(u32::MAX, true, "/bin/sh").is_ok());
    }

    #[test]
    fn a_file_in_a_place_of_everyones_is_not_protected() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let path = dir.path().join("libjemalloc.so.2");
        std::fs::write(&path, "x").unwrap();
        assert!(!own(&path).unwrap().protected);
        let link = dir.path().join("link.so");
        symlink("/bin/sh", &link).unwrap();
        assert!(own(&link).unwrap().protected, "what counts is where it leads");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(own(&path).unwrap().set_uid);
    }

    #[test]
    fn neither_directories_nor_nothing_nor_the_way_out_are_found() {
        assert_eq!(own(Path::new("/usr")), None);
        assert_eq!(own(Path::new("/no/such/file")), None);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("inside"), "x").unwrap();
        symlink("/etc/passwd", dir.path().join("out")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let _ = (std::fs::metadata(dir.path().join("inside")), look_below(root.as_fd(), "/out"));
        assert_eq!(look_below(root.as_fd(), "/../../../inside").unwrap().path, "/inside");
        assert_eq!(look_below(root.as_fd(), "/out"), None);
        assert_eq!(look_below(root.as_fd(), "/../../../../etc/passwd"), None);
    }
}
