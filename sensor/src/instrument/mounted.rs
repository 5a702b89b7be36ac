//! Which mount answers at a path, by the kernel's list of mounts: a file system that waits for
//! somebody must not even be opened to be told from the kernel's own.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::inventory::mounts::unescape;

/// The mounts of this process.
const LIST: &str = "/proc/self/mountinfo";
/// Bytes read of it: the kernel's default limit is 100,000 mounts.
const LIST_MAX: u64 = 32 << 20;
/// Mounts crossed on the way to one path.
const CROSSED_MAX: usize = 256;

/// The mounts there are; none where they cannot be read, so that nothing is opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounted(Vec<Mount>);

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u32,
    parent: u32,
    point: PathBuf,
    kind: String,
    /// The mount it is on is none of the list.
    is_first: bool,
}

// === impl Mounted ===

impl Mounted {
    /// Those of this moment.
    pub(super) fn now() -> Self {
        let mut text = Vec::new();
        let read = File::open(LIST).and_then(|file| file.take(LIST_MAX).read_to_end(&mut text));
        match read {
            Ok(read) if (read as u64) < LIST_MAX => Self::parse(&text),
            Ok(_) | Err(_) => Self::default(),
        }
    }

    pub(super) fn parse(text: &[u8]) -> Self {
        let mut mounts: Vec<_> = text.split(|byte| *byte == b'\n').filter_map(mount).collect();
        let ids: HashSet<u32> = mounts.iter().map(|mount| mount.id).collect();
        for mount in &mut mounts {
            mount.is_first = mount.parent == mount.id || !ids.contains(&mount.parent);
        }
        Self(mounts)
    }

    /// The mount at the end of a look-up: the next one is always the first on the way, among those on
    /// the mount that was reached (fs/namei.c `__traverse_mounts`).
    fn at(&self, path: &Path) -> Option<&Mount> {
        let mut reached: Option<&Mount> = None;
        for _ in 0..CROSSED_MAX {
            let is_on = |mount: &&Mount| match reached {
                Some(reached) => mount.parent == reached.id && !mount.is_first,
                None => mount.is_first,
            };
            let on_way = self.0.iter().filter(is_on).filter(|one| path.starts_with(&one.point));
            match on_way.min_by_key(|one| one.point.as_os_str().len()) {
                Some(next) => reached = Some(next),
                None => return reached,
            }
        }
        None
    }

    /// A mount of one of these kinds answers there.
    pub(super) fn is_of(&self, path: &Path, kinds: &[&str]) -> bool {
        self.at(path).is_some_and(|mount| kinds.contains(&mount.kind.as_str()))
    }

    /// The same mount answers at both.
    pub(super) fn is_same(&self, one: &Path, other: &Path) -> bool {
        self.at(one).is_some_and(|mount| self.at(other).is_some_and(|other| other.id == mount.id))
    }

    /// Processes whose directory in `proc`, or a part of it, has a mount of another kind over it.
    pub(super) fn covered(&self, proc: &Path) -> BTreeSet<u32> {
        let others = self.0.iter().filter(|mount| mount.kind != "proc");
        let covered = others.filter_map(|mount| {
            let below = mount.point.strip_prefix(proc).ok()?.components().next()?;
            below.as_os_str().to_str()?.parse().ok()
        });
        covered.collect()
    }
}

/// `36 35 98:0 /below /mnt rw,noatime master:1 - ext3 /dev/root rw` (Documentation/filesystems/proc.rst).
fn mount(line: &[u8]) -> Option<Mount> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let point = unescape(fields.nth(2)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        id,
        parent,
        point: PathBuf::from(OsStr::from_bytes(&point)),
        kind: std::str::from_utf8(kind).ok()?.to_owned(),
        is_first: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: &str = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 0:20 / /sys rw shared:2 - sysfs sysfs rw\n\
        23 21 0:21 / /proc rw - proc proc rw\n\
        24 22 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n\
        25 22 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw\n";
    const TRACING: &str = "/sys/kernel/tracing";

    fn is_tracefs(more: &str) -> bool {
        let mounted = Mounted::parse(format!("{USUAL}{more}").as_bytes());
        mounted.is_of(Path::new(TRACING), &["tracefs"])
    }

    #[test]
    fn what_is_mounted_last_over_a_place_or_over_what_it_lies_in_answers_there() {
        assert!(is_tracefs(""));
        for over in [
            "30 25 0:50 / /sys/kernel/tracing rw - fuse.x x rw",
            "30 22 0:50 / /sys/kernel rw - fuse.x x rw",
            "30 22 0:50 / /sys rw - fuse.x x rw",
            "30 21 0:50 / / rw - fuse.x x rw",
        ] {
            assert!(!is_tracefs(over), "{over}");
        }
        // Elsewhere, below, and under what was there before.
        assert!(is_tracefs("30 22 0:50 / /sys/kernel/tracing2 rw - fuse.x x rw"));
        assert!(is_tracefs("30 25 0:50 / /sys/kernel/tracing/events rw - fuse.x x rw"));
        assert!(is_tracefs("30 29 0:50 / /sys/kernel/tracing rw - tracefs tracefs rw"));
    }

    #[test]
    fn a_file_below_another_mount_is_none_of_its_file_system() {
        let more = "30 25 0:50 /f /sys/kernel/tracing/uprobe_events rw - fuse.x x rw";
        let mounted = Mounted::parse(format!("{USUAL}{more}").as_bytes());
        let is_same =
            |name: &str| mounted.is_same(Path::new(TRACING), &Path::new(TRACING).join(name));
        assert_eq!((is_same("uprobe_events"), is_same("kprobe_events")), (false, true));
        assert!(!Mounted::default().is_same(Path::new("/"), Path::new("/")), "nothing is known");
    }

    #[test]
    fn processes_with_something_else_mounted_over_them_are_known() {
        let more = "30 23 0:50 / /proc/77/fd rw - fuse.x x rw\n\
            31 23 0:50 / /proc/78 rw - tmpfs x rw\n32 23 0:21 /2 /proc/79 rw - proc proc rw\n\
            33 23 0:51 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n";
        let mounted = Mounted::parse(format!("{USUAL}{more}").as_bytes());
        assert_eq!(mounted.covered(Path::new("/proc")), BTreeSet::from([77, 78]));
    }

    #[test]
    fn this_processs_own_mounts_are_told() {
        assert!(Mounted::now().is_of(Path::new("/proc/self"), &["proc"]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(
            lines in prop::collection::vec((0..9_u32, 0..9_u32, "(/a|/b|/\\\\040){0,3}"), 0..40),
            junk: Vec<u8>,
        ) {
            let line = |(id, parent, point): &(u32, u32, String)| {
                format!("{id} {parent} 0:1 / {point} rw - {point} x\n")
            };
            let text: String = lines.iter().map(line).collect();
            let mounted = Mounted::parse(text.as_bytes());
            let _ = (mounted.at(Path::new("/a/b/a")), mounted.covered(Path::new("/a")));
            let _ = Mounted::parse(&junk);
        }
    }
}
