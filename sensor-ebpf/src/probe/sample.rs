//! Where a guarded program spends its time, for the few milliseconds that the agent asks for it.

use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use sensor_common::record::Sample;

use super::{current_tgid, role_of};
use crate::emit::{begin, ring_for};
use crate::regs::interrupted_address;

/// The CPU clock of one process, each millisecond that it runs.
#[perf_event]
pub fn sample(ctx: PerfEventContext) -> u32 {
    let role = role_of(current_tgid());
    let ip = interrupted_address(&ctx);
    // In the kernel it says nothing about modules; both halves of the address space start alike on
    // both architectures.
    if role.is_none() || ip >> 63 != 0 {
        return 0;
    }
    if let Some(mut record) = begin::<Sample>(ring_for(role), role) {
        record.ip = ip;
        record.submit();
    }
    0
}
