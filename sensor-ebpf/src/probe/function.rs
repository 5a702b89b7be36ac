//! Guarded functions: who calls them.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use sensor_common::Role;
use sensor_common::record::{CALL_WORDS, Caller, PAM_STATUS_FLAGS, PAM_STATUSES, UNKNOWN};

use super::stack::{self, Sieve};
use super::{current_tgid, finish, role_of};
use crate::emit::{begin, ring_for};
use crate::kernel::task::Task;
use crate::regs::{probed_address, return_address, second_argument, stack_registers};

/// What is looked at of a stack, bytes, a power of two.
const STACK_BYTES: usize = CALL_WORDS * 8;

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
    let task = Task::current()?;
    let usage = task.usage()?;
    let bounds = task.bounds();
    let (sp, fp) = stack_registers(ctx);
    let sieve = Sieve::new(&bounds, sp, STACK_BYTES as u64);
    let return_address = return_address(ctx);
    let Some(mut record) = begin::<Caller>(ring_for(role), role) else { return Some(()) };
    record.usage = usage;
    record.ip = probed_address(ctx);
    record.return_address = return_address.unwrap_or(0);
    record.status = UNKNOWN;
    if role.contains(Role::GUARDED) {
        record.status = status(second_argument(ctx));
        record.sp = sp;
        record.fp = sieve.sift(fp);
        stack::read::<CALL_WORDS, STACK_BYTES>(&mut record.words, sp, &bounds, &sieve);
    }
    record.submit();
    return_address.map(|_| ())
}

/// An argument, if it is a status of PAM. An `int`: the upper half of its register is anybody's.
#[inline(always)]
fn status(argument: u64) -> u32 {
    let status = argument as u32 & !PAM_STATUS_FLAGS;
    if status < PAM_STATUSES { status } else { UNKNOWN }
}
