//! Kinds of file systems: which answer by themselves, and which wait for another machine or program,
//! for ever if need be.
//!
//! By the number of `statfs` where there is a handle, by the name in `/proc/PID/mountinfo` where a
//! file must not even be touched.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FsWord;

/// A kind of file system.
struct Kind {
    /// `include/uapi/linux/magic.h` of Linux 6.18, else the file named.
    magic: FsWord,
    /// As mountinfo has it, and as people know it.
    name: &'static str,
    /// Somebody else answers for its files.
    waits: bool,
}

const OVERLAY: FsWord = 0x794c_7630;

const fn own(magic: FsWord, name: &'static str) -> Kind {
    Kind { magic, name, waits: false }
}

const fn others(magic: FsWord, name: &'static str) -> Kind {
    Kind { magic, name, waits: true }
}

const KINDS: [Kind; 39] = [
    own(OVERLAY, "overlay"),
    own(0x0102_1994, "tmpfs"),
    own(0x0102_1994, "devtmpfs"),
    own(0x8584_58f6, "ramfs"),
    own(0x8584_58f6, "rootfs"),
    own(0x9584_58f6, "hugetlbfs"),
    own(0x9fa0, "proc"),
    own(0x6265_6572, "sysfs"),
    own(0xef53, "ext4"),
    own(0xef53, "ext3"),
    own(0xef53, "ext2"),
    // fs/xfs/libxfs/xfs_format.h
    own(0x5846_5342, "xfs"),
    own(0x9123_683e, "btrfs"),
    own(0xf2f5_2010, "f2fs"),
    own(0xe0f5_e1e2, "erofs"),
    own(0x7371_7368, "squashfs"),
    own(0x4d44, "vfat"),
    // fs/bcachefs/bcachefs_format.h
    own(0xca45_1a4e, "bcachefs"),
    // fs/ubifs/ubifs.h
    own(0x2405_1905, "ubifs"),
    // OpenZFS, include/sys/fs/zfs.h
    own(0x2fc1_2fc1, "zfs"),
    // aufs, include/uapi/linux/aufs_type.h
    own(0x6175_6673, "aufs"),
    // Ubuntu's kernels
    own(0x6a65_6a62, "shiftfs"),
    // fs/fuse/inode.c
    others(0x6573_5546, "fuse"),
    others(0x6573_5546, "fuseblk"),
    others(0x6969, "nfs"),
    others(0x6969, "nfs4"),
    others(0x517b, "smb"),
    others(0xfe53_4d42, "smb3"),
    others(0xff53_4d42, "cifs"),
    others(0x0102_1997, "9p"),
    others(0x00c3_6400, "ceph"),
    others(0x5346_414f, "afs"),
    others(0x6b41_4653, "kafs"),
    others(0x7375_7245, "coda"),
    // Lustre, lustre/include/uapi/linux/lustre/lustre_user.h
    others(0x0bd0_0bd0, "lustre"),
    others(0x786f_4256, "vboxsf"),
    others(0x0187, "autofs"),
    // include/uapi/linux/gfs2_ondisk.h: on a disk that other machines lock
    others(0x0116_1970, "gfs2"),
    others(0x7461_636f, "ocfs2"),
];

/// Containers of one image see the same inodes, each below a device number of its own.
pub(crate) fn is_overlay(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == OVERLAY)
}

/// The file lies on a file system that is known to wait for no other machine or program.
pub(crate) fn answers_soon(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| {
        let mut kinds = KINDS.iter().filter(|kind| kind.magic == stat.f_type);
        kinds.next().is_some_and(|kind| !kind.waits)
    })
}

/// Name of the file system, if it is known to wait for others.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn that_waits(file: impl AsFd) -> io::Result<Option<&'static str>> {
    Ok(one_that_waits(rustix::fs::fstatfs(file)?.f_type))
}

/// The same by the number.
pub(crate) fn one_that_waits(magic: FsWord) -> Option<&'static str> {
    KINDS.iter().find(|kind| kind.waits && kind.magic == magic).map(|kind| kind.name)
}

/// Whether a mount of this kind answers by itself. `on_device`: the mount has a block device, as
/// everything of this machine has that is not in the list; without one, only what is in the list.
pub(crate) fn is_own(name: &str, on_device: bool) -> bool {
    KINDS.iter().find(|kind| kind.name == name).map_or(on_device, |kind| !kind.waits)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;

    use super::*;

    #[test]
    fn one_number_means_one_answer_and_one_name_one_number() {
        let (mut numbers, mut names) = (HashMap::new(), HashMap::new());
        for kind in &KINDS {
            assert_eq!(*numbers.entry(kind.magic).or_insert(kind.waits), kind.waits);
            assert_eq!(names.insert(kind.name, kind.magic), None, "{}", kind.name);
        }
    }

    #[test]
    fn numbers_and_names_agree_with_what_is_mounted_here() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut tried = 0;
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let dash = fields.iter().position(|field| *field == "-").unwrap();
            let (point, name) = (fields[4], fields[dash + 1]);
            let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else { continue };
            // Another mount may lie above it.
            let last = text.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
            if kind.waits || last != Some(line) {
                continue;
            }
            let Ok(place) = File::open(point) else { continue };
            assert_eq!(rustix::fs::fstatfs(&place).unwrap().f_type, kind.magic, "{point}: {name}");
            tried += 1;
        }
        assert!(tried > 0, "nothing known is mounted here:\n{text}");
    }

    #[test]
    fn what_is_not_known_is_judged_by_its_device() {
        assert!(is_own("ntfs3", true) && !is_own("ntfs3", false));
        assert!(is_own("overlay", false) && is_own("btrfs", false));
        assert!(!is_own("fuseblk", true) && !is_own("nfs4", false) && !is_own("fuse.sshfs", false));
    }

    #[test]
    fn files_of_this_machine_wait_for_nobody() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(that_waits(&file).unwrap(), None);
        assert!(answers_soon(File::open("/proc/version").unwrap()));
        assert!(!is_overlay(File::open("/proc/version").unwrap()));
    }
}
