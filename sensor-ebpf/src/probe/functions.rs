//! Guarded functions: who calls them. Attached to an entry instruction of a library, one program
//! for all functions; which function it was follows from the address.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use sensor_common::record::Caller;
use sensor_common::{Ring, Role};

use super::{current_tgid, finish, role_of};
use crate::emit::begin;
use crate::kernel::task::Task;
use crate::regs::{probed_address, return_address};

/// At the first instruction the return address is still where the call left it: on top of the
/// stack (x86_64) or in the link register (aarch64).
#[uprobe]
pub fn function_entered(ctx: ProbeContext) -> u32 {
    finish(try_entered(&ctx)) as u32
}

#[inline(always)]
fn try_entered(ctx: &ProbeContext) -> Option<()> {
    let role = role_of(current_tgid());
    if !role.contains(Role::GUARDED) {
        return Some(());
    }
    let Some(mut record) = begin::<Caller>(Ring::Priority, role) else { return Some(()) };
    record.ip = probed_address(ctx);
    let caller = return_address(ctx);
    record.return_address = caller.unwrap_or(0);
    let usage = Task::current().and_then(Task::usage);
    record.usage = usage.unwrap_or_default();
    record.submit();
    caller.and(usage).map(|_| ())
}
