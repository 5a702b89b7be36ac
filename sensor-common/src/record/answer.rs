//! What the kernel side answers when it is asked; none of it goes through a ring.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FileKey, Path};

/// The offsets tried out: what the kernel side reads of the agent itself. Not sent through a ring
/// but left in the map `CHECK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SelfCheck {
    /// Not from offsets: what the helper says, process id in the upper half.
    pub pid_tgid: u64,
    /// Start time since boot, ns; 0 where the kernel does not say.
    pub start_ns: u64,
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub tgid: u32,
    /// Parent's process id.
    pub parent_tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// The agent's executable.
    pub exe: FileKey,
    /// The file whose descriptor was asked about; zero where there is none.
    pub file: FileKey,
    /// File mode of `file`, with type.
    pub mode: u32,
    /// Number of the system call in progress, from the saved user registers: that of `bpf` where
    /// they are found, `u32::MAX` where they are not.
    pub syscall: u32,
    /// Path of `exe`.
    pub path: Path,
}

/// Bytes of a name in [`PerfEvent`], its NUL included.
pub const PERF_NAME_MAX: usize = 256;

/// Where a perf event sits. Not sent through a ring but left in the map `PERF_EVENT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PerfEvent {
    /// `perf_event_attr.type`: a number of `/sys/bus/event_source/devices/*/type`.
    pub kind: u32,
    /// Id of the BPF program it runs; 0 for none.
    pub program: u32,
    /// `perf_event_attr.config`.
    pub config: u64,
    /// Where in the file (uprobe) or function (kprobe), bytes.
    pub offset: u64,
    /// Where in the file the semaphore of a USDT probe lies, bytes; 0 for none.
    pub ref_ctr_offset: u64,
    /// The file of a uprobe; zero where it is not to be had.
    pub file: FileKey,
    /// Bytes of `name`, NUL included; 0 for none.
    pub name_len: u32,
    /// 1 where there is an event; 0 where the descriptor is none.
    pub found: u32,
    /// Path of the file as it was given, or name of the kernel function.
    pub name: [u8; PERF_NAME_MAX],
}

impl PerfEvent {
    /// No event.
    pub const NONE: Self = Self {
        kind: 0,
        program: 0,
        config: 0,
        offset: 0,
        ref_ctr_offset: 0,
        file: FileKey { ino: 0, dev: 0, generation: 0, ctime_s: 0, size: 0 },
        name_len: 0,
        found: 0,
        name: [0; PERF_NAME_MAX],
    };
}
