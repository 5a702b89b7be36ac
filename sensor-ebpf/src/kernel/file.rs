//! `struct file` and its inode.

use sensor_common::UNRESOLVED;
use sensor_common::record::{FileKey, InodeKey, UNKNOWN};

use super::KernelPtr;
use super::sock::Sock;
use crate::globals::offset;

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// A `struct file *`.
#[derive(Clone, Copy)]
pub struct File(KernelPtr);

/// As [`sensor_common::record::Map`] has them.
pub struct Facts {
    pub owner: u32,
    pub links: u32,
    pub mtime_s: u64,
    pub fs_magic: u32,
}

impl From<KernelPtr> for File {
    #[inline(always)]
    fn from(pointer: KernelPtr) -> Self {
        Self(pointer)
    }
}

impl File {
    #[inline(always)]
    pub fn new(address: u64) -> Option<Self> {
        KernelPtr::new(address).map(Self)
    }

    #[inline(always)]
    fn inode(self) -> Option<KernelPtr> {
        self.0.follow(offset!(file_inode))
    }

    #[inline(always)]
    pub fn key(self) -> Option<FileKey> {
        let inode = self.inode()?;
        Some(FileKey {
            ino: inode.read(offset!(inode_ino))?,
            dev: inode.follow(offset!(inode_sb))?.read(offset!(sb_dev))?,
            generation: inode.read(offset!(inode_generation))?,
            ctime_s: inode.read_or_zero(offset!(inode_ctime)),
            size: inode.read(offset!(inode_size))?,
        })
    }

    #[inline(always)]
    pub fn mode(self) -> Option<u16> {
        self.inode()?.read(offset!(inode_mode))
    }

    /// What else the inode says. Called after [`File::key`] has succeeded, so the inode is there,
    /// and no branch is needed on it.
    #[inline(always)]
    pub fn facts(self) -> Facts {
        let inode = self.inode().unwrap_or(KernelPtr::NULL);
        let superblock = KernelPtr::from_raw(inode.read_or_zero(offset!(inode_sb)));
        Facts {
            owner: number(inode, offset!(inode_uid)),
            links: number(inode, offset!(inode_nlink)),
            mtime_s: inode.read_or_zero(offset!(inode_mtime)),
            // The kernel's field is wider than any number in use.
            fs_magic: superblock.read_or_zero::<u64>(offset!(sb_magic)) as u32,
        }
    }

    #[inline(always)]
    pub fn dentry(self) -> Option<KernelPtr> {
        self.0.follow(offset!(file_dentry))
    }

    /// A `struct vfsmount *`.
    #[inline(always)]
    pub fn mount(self) -> Option<KernelPtr> {
        self.0.follow(offset!(file_mnt))
    }

    /// The socket behind the file, if it is one.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        if self.mode()? & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket = self.0.follow(offset!(file_private_data))?;
        socket.follow(offset!(socket_sk)).map(Sock::from)
    }
}

/// A number that may be 0, or [`UNKNOWN`] on a kernel without it.
#[inline(always)]
fn number(inode: KernelPtr, offset: u32) -> u32 {
    if offset == UNRESOLVED { UNKNOWN } else { inode.read_or_zero(offset) }
}

/// The part of a file's identity by which programs are guarded.
#[inline(always)]
pub fn inode_key(file: &FileKey) -> InodeKey {
    InodeKey { ino: file.ino, dev: file.dev, reserved: 0 }
}
