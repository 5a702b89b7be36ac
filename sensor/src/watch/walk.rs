//! From a root to a watched file, by every name on the way: whoever changes one of these names
//! changes what the loader finds.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, openat,
    openat2, readlinkat, statx,
};
use rustix::io::Errno;

use super::state::Identity;

/// Symbolic links followed to one file.
const LINKS_MAX: usize = 8;
/// Bytes of a path made of links.
const PATH_MAX: usize = 4096;

/// A name that the way leads through.
#[derive(Debug)]
pub(super) struct Hop {
    /// The directory it is looked up in.
    pub(super) dir: Arc<OwnedFd>,
    /// Device and inode of it.
    pub(super) dir_key: (u64, u64),
    /// The name.
    pub(super) name: String,
}

/// The way to a file.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Names in the order in which they are looked up. A path through directories that are links
    /// themselves has only its last directory here; what is done to those links is found by
    /// comparison.
    pub(super) hops: Vec<Hop>,
    /// Links as they are written.
    pub(super) links: Vec<String>,
    /// The file and its numbers.
    pub(super) file: Option<(OwnedFd, Identity, FileType)>,
}

/// Directories that were opened on the way to other files of the same look.
#[derive(Debug, Default)]
pub(super) struct Dirs(BTreeMap<String, (Arc<OwnedFd>, (u64, u64))>);

/// Walks `path` below `root`: never out of it, through no magic link of `/proc`.
pub(super) fn walk(root: BorrowedFd<'_>, path: &str) -> Result<Way, Errno> {
    walk_with(root, path, &mut Dirs::default())
}

/// The same for one of many files of one directory, which is opened once.
pub(super) fn walk_with(root: BorrowedFd<'_>, path: &str, dirs: &mut Dirs) -> Result<Way, Errno> {
    let mut way = Way::default();
    let mut path = path.to_owned();
    while way.links.len() <= LINKS_MAX {
        let Some((dir, dir_key, name, last)) = parent(root, &path, dirs)? else { return Ok(way) };
        let found =
            if last { openat(&dir, name, HANDLE, Mode::empty()) } else { Err(Errno::NOENT) };
        way.hops.push(Hop { dir, dir_key, name: name.to_owned() });
        let file = match found {
            Err(Errno::NOENT) => return Ok(way),
            file => file?,
        };
        let numbers = look(file.as_fd())?;
        let kind = FileType::from_raw_mode(u32::from(numbers.stx_mode));
        if kind != FileType::Symlink {
            way.file = Some((file, identity(&numbers), kind));
            return Ok(way);
        }
        let link = readlinkat(&file, c"", Vec::new())?.to_string_lossy().into_owned();
        path = joined(&path, &link);
        way.links.push(link);
        if path.len() > PATH_MAX {
            break;
        }
    }
    Err(Errno::LOOP)
}

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory, its device and inode, the name looked up in it, and whether that is the last one.
type Parent<'a> = (Arc<OwnedFd>, (u64, u64), &'a str, bool);

/// The deepest directory of the path that exists.
fn parent<'a>(
    root: BorrowedFd<'_>,
    path: &'a str,
    dirs: &mut Dirs,
) -> Result<Option<Parent<'a>>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut rest = path.trim_end_matches('/');
    let mut last = true;
    while let Some((dir, name)) = rest.rsplit_once('/') {
        if matches!(name, "" | "." | "..") {
            // Written by hand to be odd; the kernel resolves it, nobody can be told by name.
            return Ok(None);
        }
        let at = if dir.is_empty() { "/" } else { dir };
        if let Some((dir, key)) = dirs.0.get(at) {
            return Ok(Some((Arc::clone(dir), *key, name, last)));
        }
        match openat2(root, at, flags, Mode::empty(), resolve) {
            Ok(dir) => {
                let (key, dir) = (key(&look(dir.as_fd())?), Arc::new(dir));
                dirs.0.insert(at.to_owned(), (Arc::clone(&dir), key));
                return Ok(Some((dir, key, name, last)));
            }
            Err(Errno::NOENT | Errno::NOTDIR) => (rest, last) = (dir.trim_end_matches('/'), false),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn joined(path: &str, link: &str) -> String {
    if link.starts_with('/') {
        return link.to_owned();
    }
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    format!("{dir}/{link}")
}

/// The numbers of an open file, without asking a server for fresh ones.
pub(super) fn look(file: BorrowedFd<'_>) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(file, c"", flags, StatxFlags::BASIC_STATS)
}

/// Device and inode.
pub(super) fn key(numbers: &Statx) -> (u64, u64) {
    let device = u64::from(numbers.stx_dev_major) << 32 | u64::from(numbers.stx_dev_minor);
    (device, numbers.stx_ino)
}

fn identity(numbers: &Statx) -> Identity {
    let (dev, ino) = key(numbers);
    let ns = |time: &rustix::fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    Identity {
        dev,
        ino,
        size: numbers.stx_size,
        mtime_ns: ns(&numbers.stx_mtime),
        ctime_ns: ns(&numbers.stx_ctime),
        mode: u32::from(numbers.stx_mode) & 0o7777,
        uid: numbers.stx_uid,
        nlink: numbers.stx_nlink,
        mounted: numbers.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, fs::File) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/d")).unwrap();
        let handle = fs::File::open(folder.path()).unwrap();
        (folder, handle)
    }

    fn names(way: &Way) -> Vec<&str> {
        way.hops.iter().map(|hop| hop.name.as_str()).collect()
    }

    #[test]
    fn every_name_on_the_way_is_a_hop() {
        let (folder, root) = root();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("etc/d/real"), "x").unwrap();
        symlink("/etc/middle", at("etc/first")).unwrap();
        symlink("d/real", at("etc/middle")).unwrap();
        let way = walk(root.as_fd(), "/etc/first").unwrap();
        assert_eq!(names(&way), ["first", "middle", "real"]);
        assert_eq!(way.links, ["/etc/middle", "d/real"]);
        assert_eq!(way.file.unwrap().1.size, 1);
    }

    #[test]
    fn a_missing_file_is_awaited_in_the_deepest_directory() {
        let (_folder, root) = root();
        let way = walk(root.as_fd(), "/etc/none").unwrap();
        assert_eq!((names(&way), way.file.is_none()), (vec!["none"], true));
        let way = walk(root.as_fd(), "/etc/x/y/z").unwrap();
        assert_eq!(names(&way), ["x"]);
    }

    #[test]
    fn no_link_leads_out_of_the_root_or_round_for_ever() {
        let (folder, root) = root();
        symlink("../../../../../etc/passwd", folder.path().join("etc/out")).unwrap();
        assert!(walk(root.as_fd(), "/etc/out").unwrap().file.is_none());
        symlink("loop", folder.path().join("etc/loop")).unwrap();
        assert!(matches!(walk(root.as_fd(), "/etc/loop"), Err(Errno::LOOP)));
    }
}
