//! What code guarded programs map: from the start, and who asks for more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FileKey, Header};
#[cfg(doc)]
use super::{Link, Map};

/// Executable mappings one start's [`Modules`] holds.
pub const MODULES_MAX: usize = 64;
/// Words of a stack one [`Opened`] holds.
pub const STACK_WORDS: usize = 512;

/// A guarded program mapped a file executable after it had been linked, as `dlopen` does. Sent every
/// time, before the [`Map`] of a file that is new to the program, with what says who asked for it.
///
/// A stack holds secrets, so what leaves the kernel are addresses at most: a word is zeroed unless it
/// lies near where this process has its program and heap, its mappings, or in the stack itself, and
/// unless some byte of it is neither zero nor printable ASCII. Addresses in the program's own code
/// pass in any case, where that lies at a random place (at 4 GiB or above). What the process was
/// started with (arguments, environment) is not even read.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Opened {
    /// The process.
    pub header: Header,
    /// The mapped file.
    pub file: FileKey,
    /// Address asked for (0: the kernel chooses).
    pub addr: u64,
    /// Length, bytes.
    pub len: u64,
    /// Where user space goes on after the system call; 0 where the kernel does not say.
    pub ip: u64,
    /// Stack pointer: address of the first of `words`, 0 where the kernel does not say.
    pub sp: u64,
    /// Frame pointer (rbp, x29), kept and dropped by the rules of `words`.
    pub fp: u64,
    /// Link register (x30) by the same rules; 0 on `x86_64`.
    pub lr: u64,
    /// The stack from `sp` up, zero where a word was dropped or could not be read.
    pub words: [u64; STACK_WORDS],
}

/// One executable mapping of a start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Placement {
    /// First address; 0 where the kernel chose it.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// The file's inode number.
    pub ino: u64,
    /// Its device, kernel form: major << 20 | minor.
    pub dev: u32,
    /// Its generation.
    pub generation: u32,
}

/// Where a guarded program's code lies once it is linked: its own and its libraries', the loader
/// left out. Sent right before its [`Link`], so that the seals can be told apart when the process is
/// gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Modules {
    /// The process.
    pub header: Header,
    /// Used of `placed`.
    pub count: u32,
    /// Mappings that found no room.
    pub overflow: u32,
    /// In time order; the program itself first, where the kernel says where it lies.
    pub placed: [Placement; MODULES_MAX],
}

const _: () = {
    assert!(size_of::<Opened>() == 32 + 32 + 48 + STACK_WORDS * 8);
    assert!(size_of::<Placement>() == 40);
    assert!(size_of::<Modules>() == 40 + MODULES_MAX * 40);
};
