//! Where mapped code lies, and who else could have put it there or can change it.

use serde::{Deserialize, Serialize};

use crate::event::{FileFacts, Map};
use crate::finding::Exposure;

/// Directories in which every user may create files.
const ANYONES: [&str; 4] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/lock/"];
/// What the kernel calls memory that only looks like a file: memfd, `SysV` segments, shared
/// anonymous memory, huge pages (mm/memfd.c, ipc/shm.c, mm/shmem.c, fs/hugetlbfs/inode.c).
const MEMORY: [&str; 4] = ["/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage"];
const OTHERS_WRITE: u32 = 0o002;

/// A mapped file's place with the facts behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The judgement.
    pub exposure: Exposure,
    /// Mode with type.
    pub mode: u32,
    /// Real user id of the process that mapped it.
    pub uid: u32,
    /// What the inode said.
    pub facts: FileFacts,
}

// === impl Placed ===

impl Placed {
    /// From a record and the path it shows.
    pub(super) fn of(map: &Map, path: &str) -> Self {
        let Map { mode, uid, facts, .. } = *map;
        Self { exposure: judge(path, mode, uid, &facts), mode, uid, facts }
    }
}

fn judge(path: &str, mode: u32, uid: u32, facts: &FileFacts) -> Exposure {
    let unnamed = facts.links == Some(0);
    if unnamed && MEMORY.iter().any(|start| path.starts_with(start)) {
        Exposure::Memory
    } else if unnamed {
        Exposure::Deleted
    } else if mode & OTHERS_WRITE != 0 {
        Exposure::WritableByAll
    } else if ANYONES.iter().any(|start| path.starts_with(start)) {
        Exposure::AnyonesDirectory
    } else if facts.owner.is_some_and(|owner| owner != 0 && owner != uid) {
        Exposure::ForeignOwner
    } else {
        Exposure::Ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(path: &str, mode: u32, uid: u32, owner: u32, links: u32) -> Exposure {
        let facts =
            FileFacts { owner: Some(owner), links: Some(links), mtime_s: None, fs_magic: None };
        judge(path, 0o100_000 | mode, uid, &facts)
    }

    #[test]
    fn a_distributions_library_is_ordinary_for_everyone() {
        for uid in [0, 1000] {
            assert_eq!(placed("/usr/lib/libc.so.6", 0o755, uid, 0, 1), Exposure::Ordinary);
        }
        assert_eq!(placed("/home/u/build/libx.so", 0o644, 1000, 1000, 1), Exposure::Ordinary);
    }

    #[test]
    fn a_memfd_is_memory_whatever_it_calls_itself() {
        assert_eq!(placed("/memfd:/usr/lib/libc.so.6", 0o777, 0, 0, 0), Exposure::Memory);
        // A file of that name on a disk is a file.
        assert_eq!(placed("/memfd:x", 0o755, 0, 0, 1), Exposure::Ordinary);
    }

    #[test]
    fn each_way_others_decide_is_told_apart() {
        assert_eq!(placed("/usr/lib/libx.so", 0o755, 0, 0, 0), Exposure::Deleted);
        assert_eq!(placed("/opt/libx.so", 0o757, 0, 0, 1), Exposure::WritableByAll);
        assert_eq!(placed("/var/tmp/libx.so", 0o755, 0, 0, 1), Exposure::AnyonesDirectory);
        assert_eq!(placed("/home/u/libx.so", 0o755, 0, 1000, 1), Exposure::ForeignOwner);
        assert_eq!(placed("/tmpfiles/libx.so", 0o755, 0, 0, 1), Exposure::Ordinary);
    }

    #[test]
    fn what_the_kernel_does_not_say_accuses_nobody() {
        assert_eq!(
            judge("/usr/lib/libx.so", 0o100_755, 0, &FileFacts::default()),
            Exposure::Ordinary
        );
    }
}
