//! Guarded functions: who calls them.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use sensor_common::record::Caller;

use super::{current_tgid, finish, role_of};
use crate::emit::{begin, ring_for};
use crate::kernel::task::Task;
use crate::regs::{probed_address, return_address};

/// At the entry of any guarded function of any library; the address says which.
#[uprobe]
pub fn function_entry(ctx: ProbeContext) -> u32 {
    finish(try_entry(&ctx)) as u32
}

#[inline(always)]
fn try_entry(ctx: &ProbeContext) -> Option<()> {
    let role = role_of(current_tgid());
    if role.is_none() {
        return Some(());
    }
    let usage = Task::current()?.usage()?;
    let return_address = return_address(ctx);
    let Some(mut record) = begin::<Caller>(ring_for(role), role) else { return Some(()) };
    record.usage = usage;
    record.ip = probed_address(ctx);
    record.return_address = return_address.unwrap_or(0);
    record.submit();
    return_address.map(|_| ())
}
