//! `struct file` and its inode.

use sensor_common::record::{FileKey, InodeKey};

use super::KernelPtr;
use super::sock::Sock;
use crate::globals::offset;

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// A `struct file *`.
#[derive(Clone, Copy)]
pub struct File(KernelPtr);

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

/// The part of a file's identity by which programs are guarded.
#[inline(always)]
pub fn inode_key(file: &FileKey) -> InodeKey {
    InodeKey { ino: file.ino, dev: file.dev, reserved: 0 }
}
