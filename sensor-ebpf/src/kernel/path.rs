//! A file's path, walked from its name up to the root of the mount tree.

use core::ptr::{read_volatile, write_volatile};

use sensor_common::record::{NAME_MAX, PATH_MAX, Path};

use super::KernelPtr;
use super::file::File;
use crate::globals::offset;

/// Steps of the walk: components and mount points together.
const STEPS: u32 = 32;

/// Walks `file`'s path into `path`, which is zero before. What cannot be had leaves
/// `path.truncated` set.
///
/// fs/d_path.c `prepend_path`: a dentry that is the root of its mount continues at the mount
/// point; one that is its own parent ends the walk.
#[inline(always)]
pub fn walk(file: File, path: &mut Path) {
    path.truncated = 1;
    let (Some(mut dentry), Some(mut vfsmount)) = (file.dentry(), file.mount()) else {
        return;
    };
    for _ in 0..STEPS {
        if vfsmount.follow(offset!(vfsmount_root)) == Some(dentry) {
            let Some(mount) = vfsmount.outer(offset!(mount_mnt)) else { return };
            let Some(parent) = mount.follow(offset!(mount_parent)) else { return };
            if parent == mount {
                path.truncated = 0;
                return;
            }
            let Some(mountpoint) = mount.follow(offset!(mount_mountpoint)) else { return };
            let Some(above) = parent.member(offset!(mount_mnt)) else { return };
            (dentry, vfsmount) = (mountpoint, above);
            continue;
        }
        let Some(parent) = dentry.follow(offset!(dentry_parent)) else { return };
        let is_root = parent == dentry;
        // A root that is not its mount's root belongs to no tree: a memfd has a name all the same.
        if is_root && path.len > 0 {
            path.truncated = 0;
            return;
        }
        if append(dentry, path).is_none() {
            return;
        }
        if is_root {
            path.truncated = 0;
            return;
        }
        dentry = parent;
    }
}

/// Adds the name of `dentry` after the components that are there.
///
/// The cursor lives in the record, not in a register: read back it is an unknown number to the
/// verifier, so the states of all iterations look alike and are pruned.
#[inline(always)]
fn append(dentry: KernelPtr, path: &mut Path) -> Option<()> {
    let name = dentry.follow(offset!(dentry_name))?;
    let cursor = &raw mut path.len;
    // SAFETY: a field of a live reference.
    let at = usize::from(unsafe { read_volatile(cursor) });
    if at > PATH_MAX - NAME_MAX {
        return None;
    }
    let room = path.bytes.get_mut(at..at + NAME_MAX)?;
    let len = name.read_str(room)?;
    // SAFETY: as above.
    unsafe { write_volatile(cursor, (at as u64 + len) as u16) };
    // A name that fills the room was cut.
    (len < NAME_MAX as u64).then_some(())
}
