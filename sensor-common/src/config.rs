//! What the agent tells the kernel programs once, before they load.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Set as a frozen read-only global, so that the verifier removes branches that are off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProbeConfig {
    /// The agent itself (tgid in the initial PID namespace); its own events are left out.
    pub agent_tgid: u32,
    /// 1 if `bpf_task_pt_regs` may be called (5.15+).
    pub has_task_pt_regs: u32,
    /// Bytes of fill above which a bulk record wakes the agent; below, it waits for the timer.
    pub bulk_wakeup_bytes: u32,
    /// Milliseconds between two link summaries of one unguarded program that is within its limit.
    pub link_interval_ms: u32,
    /// `THREAD_SIZE - sizeof(struct pt_regs)` where `has_task_pt_regs` is 0: where the registers
    /// lie above `task_struct.stack`. 0 = unknown.
    pub pt_regs_offset: u32,
    /// Which argument of the tracepoint `mmap_lock_start_locking` tells a writer; 0 = unknown.
    pub lock_write_arg: u32,
}

const _: () = assert!(size_of::<ProbeConfig>() == 24);
