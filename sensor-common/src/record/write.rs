//! One process's hand in another's memory.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// One process writes into another's memory. Sent the first time for each pair of them, and from
/// then on at most once a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Write {
    /// The writer.
    pub header: Header,
    /// Whose memory; 0 where the kernel does not say.
    pub target_tgid: u32,
    /// Its [`crate::Role`] bits.
    pub target_role: u32,
    /// `WRITE_*` bits: the ways used since the last record of this pair.
    pub ways: u32,
    /// What the writer named its target by: the process or thread id in its own PID namespace, or
    /// with [`WRITE_MEM`] the descriptor; [`super::UNKNOWN`] where the hook does not know.
    pub asked: u32,
    /// Writes of this pair so far. A long one may count more than once.
    pub count: u64,
    /// Where this one goes, or the page of it; 0 where the hook does not know.
    pub addr: u64,
}

/// `ptrace(PTRACE_POKETEXT)` or `PTRACE_POKEDATA`.
pub const WRITE_PTRACE: u32 = 1;
/// `process_vm_writev`
pub const WRITE_VM: u32 = 1 << 1;
/// A write to `/proc/PID/mem`.
pub const WRITE_MEM: u32 = 1 << 2;
