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
pub struct File<const TYPED: bool = false>(KernelPtr<TYPED>);

/// A `struct inode *`.
#[derive(Clone, Copy)]
pub struct Inode<const TYPED: bool = false>(KernelPtr<TYPED>);

/// As [`sensor_common::record::Map`] has them.
pub struct Facts {
    pub owner: u32,
    pub links: u32,
    pub mtime_s: u64,
    pub fs_magic: u32,
}

impl<const TYPED: bool> From<KernelPtr<TYPED>> for File<TYPED> {
    #[inline(always)]
    fn from(pointer: KernelPtr<TYPED>) -> Self {
        Self(pointer)
    }
}

impl File {
    #[inline(always)]
    pub fn new(address: u64) -> Option<Self> {
        KernelPtr::new(address).map(Self)
    }
}

impl<const TYPED: bool> File<TYPED> {
    #[inline(always)]
    pub fn inode(self) -> Option<Inode<TYPED>> {
        self.0.follow(offset!(file_inode)).map(Inode)
    }

    #[inline(always)]
    pub fn key(self) -> Option<FileKey> {
        self.inode()?.key()
    }

    #[inline(always)]
    pub fn mode(self) -> Option<u16> {
        self.inode()?.mode()
    }

    #[inline(always)]
    pub fn dentry(self) -> Option<KernelPtr<TYPED>> {
        self.0.follow(offset!(file_dentry))
    }

    /// A `struct vfsmount *`.
    #[inline(always)]
    pub fn mount(self) -> Option<KernelPtr<TYPED>> {
        self.0.follow(offset!(file_mnt))
    }

    /// What the file's own code keeps behind it, as a number to compare.
    #[inline(always)]
    pub fn private_data(self) -> u64 {
        self.0.read_or_zero(offset!(file_private_data))
    }

    /// The same, to go on from.
    #[inline(always)]
    pub fn private_object(self) -> Option<KernelPtr> {
        self.0.plain().follow(offset!(file_private_data))
    }

    /// The socket behind the file, if it is one.
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        if self.mode()? & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket = self.private_object()?;
        socket.follow(offset!(socket_sk)).map(Sock::from)
    }
}

impl From<KernelPtr> for Inode {
    #[inline(always)]
    fn from(pointer: KernelPtr) -> Self {
        Self(pointer)
    }
}

impl<const TYPED: bool> Inode<TYPED> {
    #[inline(always)]
    pub fn key(self) -> Option<FileKey> {
        Some(FileKey {
            ino: self.0.read(offset!(inode_ino))?,
            dev: self.0.follow(offset!(inode_sb))?.read(offset!(sb_dev))?,
            generation: self.0.read(offset!(inode_generation))?,
            ctime_s: self.0.read_or_zero(offset!(inode_ctime)),
            size: self.0.read(offset!(inode_size))?,
        })
    }

    #[inline(always)]
    pub fn mode(self) -> Option<u16> {
        self.0.read(offset!(inode_mode))
    }

    /// What else the inode says.
    #[inline(always)]
    pub fn facts(self) -> Facts {
        let superblock = self.0.follow(offset!(inode_sb)).map_or(KernelPtr::NULL, KernelPtr::plain);
        Facts {
            owner: self.number(offset!(inode_uid)),
            links: self.number(offset!(inode_nlink)),
            mtime_s: self.0.read_or_zero(offset!(inode_mtime)),
            // The kernel's field is wider than any number in use.
            fs_magic: superblock.read_or_zero::<u64>(offset!(sb_magic)) as u32,
        }
    }

    /// A number that may be 0, or [`UNKNOWN`] on a kernel without it.
    #[inline(always)]
    fn number(self, offset: u32) -> u32 {
        if offset == UNRESOLVED { UNKNOWN } else { self.0.read_or_zero(offset) }
    }
}

/// The part of a file's identity by which programs are guarded.
#[inline(always)]
pub fn inode_key(file: &FileKey) -> InodeKey {
    InodeKey { ino: file.ino, dev: file.dev, reserved: 0 }
}
