//! How a program was linked: its seals one by one, and all of them together.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FileKey, Header, SEALS_MAX};

/// One module's RELRO became read-only: its relocation is done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SealAt {
    /// First address sealed.
    pub addr: u64,
    /// Wall time since exec, ns.
    pub wall_ns: u64,
    /// Of it, waiting on a run queue, ns.
    pub run_delay_ns: u64,
    /// Minor faults since exec.
    pub minor_faults: u32,
    /// Voluntary switches since exec; CPU = wall - run delay holds only while this stands still.
    pub voluntary_switches: u32,
}

/// A program's start-up from exec to the end of linking, told once it is over.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Link {
    /// The process.
    pub header: Header,
    /// Its executable.
    pub exe: FileKey,
    /// `CLOCK_MONOTONIC` of the exec, ns.
    pub exec_ktime_ns: u64,
    /// Seals used of `seals`.
    pub count: u32,
    /// Seals that found no room.
    pub overflow: u32,
    /// In time order.
    pub seals: [SealAt; SEALS_MAX],
}

/// A guarded program made memory read-only by `mprotect(PROT_READ)`: a RELRO seal as it happens,
/// during linking and after. Or it asked for memory to be writable or
/// executable, once linking was over.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Seal {
    /// The process.
    pub header: Header,
    /// What and when.
    pub at: SealAt,
    /// Length, bytes.
    pub len: u64,
    /// `PROT_*` bits asked for.
    pub prot: u32,
    /// 1 if linking was over already.
    pub after_link: u32,
}
