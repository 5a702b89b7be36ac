//! What the programs remember between two hooks, as values of the maps.

use sensor_common::record::{FileKey, MODULES_MAX, Placement, SEALS_MAX, SealAt, Usage};

/// Key of `KNOWN`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KnownPair {
    pub exe: FileKey,
    pub file: FileKey,
}

/// A process from its exec to the end of its linking.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LinkState {
    pub exec_ktime_ns: u64,
    /// Of the task at its exec: seals are told as differences to it.
    pub usage: Usage,
    pub exe: FileKey,
    pub count: u32,
    pub overflow: u32,
    /// 1 if the loader links audit libraries first, each with an end of its own.
    pub audited: u32,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
    pub seals: [SealAt; SEALS_MAX],
}

impl LinkState {
    pub const BLANK: Self = Self {
        exec_ktime_ns: 0,
        usage: Usage { sum_exec_ns: 0, run_delay_ns: 0, voluntary_switches: 0, minor_faults: 0 },
        exe: FileKey { ino: 0, dev: 0, generation: 0, ctime_s: 0, size: 0 },
        count: 0,
        overflow: 0,
        audited: 0,
        reserved: 0,
        seals: [SealAt {
            addr: 0,
            wall_ns: 0,
            run_delay_ns: 0,
            minor_faults: 0,
            voluntary_switches: 0,
        }; SEALS_MAX],
    };
}

/// Where a guarded process has mapped code while it was linked.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ModulesState {
    pub count: u32,
    pub overflow: u32,
    pub placed: [Placement; MODULES_MAX],
}

impl ModulesState {
    pub const BLANK: Self = Self {
        count: 0,
        overflow: 0,
        placed: [Placement { start: 0, len: 0, offset: 0, ino: 0, dev: 0, generation: 0 };
            MODULES_MAX],
    };
}

/// Key of `FRAMES`: a descriptor of a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FrameKey {
    pub tgid: u32,
    pub fd: u32,
}

/// A frame whose header has been written and whose payload has not.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FrameState {
    /// Length field of the header.
    pub frame_len: u32,
    /// Payload bytes still to come.
    pub remaining: u32,
    /// Type of the frame; the payload is looked at only where the type is on the whitelist.
    pub frame_type: u32,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
}

/// Key of `WRITES`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WritePair {
    pub writer: u32,
    /// 0 where the kernel does not say whose address space it is.
    pub target: u32,
    /// `struct mm_struct *`: another program of the same process is another target.
    pub mm: u64,
}

/// Writes of one process into another.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Writes {
    pub told_ns: u64,
    pub count: u64,
    /// `WRITE_*` bits since the last record.
    pub ways: u32,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
}

/// How often a process made memory writable within one second.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reopenings {
    pub since_ns: u64,
    pub told: u32,
    /// Explicit, so that the layout has no padding.
    pub reserved: u32,
}
