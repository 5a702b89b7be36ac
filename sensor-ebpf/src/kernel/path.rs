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
pub fn walk<const TYPED: bool>(file: File<TYPED>, path: &mut Path) {
    path.truncated = 1;
    let (Some(dentry), Some(vfsmount)) = (file.dentry(), file.mount()) else {
        return;
    };
    // From a mount to what it sits on is a step the verifier does not follow by type.
    let (mut dentry, mut vfsmount) = (dentry.plain(), vfsmount.plain());
    let mut top = root_of(vfsmount);
    for _ in 0..STEPS {
        if dentry == top {
            let Some(mount) = vfsmount.outer(offset!(mount_mnt)) else { return };
            let Some(parent) = mount.follow(offset!(mount_parent)) else { return };
            if parent == mount {
                path.truncated = 0;
                return;
            }
            let Some(mountpoint) = mount.follow(offset!(mount_mountpoint)) else { return };
            let Some(above) = parent.member(offset!(mount_mnt)) else { return };
            (dentry, vfsmount, top) = (mountpoint, above, root_of(above));
            continue;
        }
        let Some((parent, name)) = parent_and_name(dentry) else { return };
        let is_root = parent == dentry;
        // A root that is not its mount's root belongs to no tree: a memfd has a name all the same.
        if is_root && path.len > 0 {
            path.truncated = 0;
            return;
        }
        if append(name, path).is_none() {
            return;
        }
        if is_root {
            path.truncated = 0;
            return;
        }
        dentry = parent;
    }
}

/// Where a mount ends; null, which no dentry is, where that cannot be read.
#[inline(always)]
fn root_of(vfsmount: KernelPtr) -> KernelPtr {
    vfsmount.follow(offset!(vfsmount_root)).unwrap_or(KernelPtr::NULL)
}

/// The dentry above `dentry`, and the bytes of its own name.
#[inline(always)]
fn parent_and_name(dentry: KernelPtr) -> Option<(KernelPtr, KernelPtr)> {
    let (parent, name) = (offset!(dentry_parent), offset!(dentry_name));
    // include/linux/dcache.h, 5.10 to 7.0: the hash and length lie between them. One helper call
    // for both.
    if name.wrapping_sub(parent) == 16 {
        let [parent, _, name]: [u64; 3] = dentry.read(parent)?;
        return Some((KernelPtr::new(parent)?, KernelPtr::new(name)?));
    }
    Some((dentry.follow(parent)?, dentry.follow(name)?))
}

/// Adds `name` after the components that are there.
///
/// The cursor lives in the record, not in a register: read back it is an unknown number to the
/// verifier, so the states of all iterations look alike and are pruned.
#[inline(always)]
fn append(name: KernelPtr, path: &mut Path) -> Option<()> {
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
