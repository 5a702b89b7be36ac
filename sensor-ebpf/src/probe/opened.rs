//! Code that guarded programs map: where, while they are linked; and afterwards who asked for it.
//!
//! After linking, somebody called `dlopen`, and his return address lies on the stack. A breakpoint in
//! the loader would tell him at once, and would cost every exec on the host 3 %; so the stack is
//! looked at when the mapping is made. A stack holds secrets: see [`Opened`] for what is sent of it.

use sensor_common::record::{FileKey, Modules, Opened, Placement, STACK_WORDS};
use sensor_common::{Counter, Role};

use super::stack::{self, Sieve};
use crate::emit::{begin, count, ring_for};
use crate::kernel::copy;
use crate::kernel::task::Task;
use crate::maps::{MODULES, linking, modules};
use crate::regs::Syscall;
use crate::state::ModulesState;

/// What is looked at of a stack, bytes, a power of two.
const STACK_BYTES: usize = STACK_WORDS * 8;

/// The value of a process that has just started: too large for a program's stack.
static BLANK: ModulesState = ModulesState::BLANK;

/// A guarded program starts.
#[inline(always)]
pub fn start(tgid: u32, task: Task<true>, exe: &FileKey) {
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be copied to the stack, which has no room for it"
    )]
    let inserted = MODULES.insert(tgid, &BLANK, 0);
    if inserted.is_err() {
        count(Counter::StateFull);
    }
    let Some(state) = modules(tgid) else { return };
    let bounds = task.bounds();
    let len = bounds.end_code.wrapping_sub(bounds.start_code);
    add(state, exe, bounds.start_code, len, 0);
}

/// A guarded program maps `file` executable by this call.
#[inline(never)]
pub fn note(tgid: u32, role: Role, file: &FileKey, call: Syscall) {
    // What is needed from the start is mapped before the first of it is relocated and sealed; but
    // audit libraries are linked each on its own.
    if let Some(link) = linking(tgid)
        && (link.count == 0 || link.audited != 0)
    {
        let Some(state) = modules(tgid) else { return };
        let (start, len) = (call.arg_or_zero::<0>(), call.arg_or_zero::<1>());
        add(state, file, start, len, call.arg_or_zero::<5>());
        return;
    }
    tell(role, file, call);
}

/// Linking is over.
#[inline(always)]
pub fn linked(tgid: u32, role: Role, is_told: bool) {
    let Some(state) = modules(tgid) else { return };
    if is_told && let Some(mut record) = begin::<Modules>(ring_for(role), role) {
        record.count = state.count;
        record.overflow = state.overflow;
        if copy(&mut record.placed, &state.placed).is_none() {
            record.count = 0;
            count(Counter::ReadFailed);
        }
        record.submit();
    }
    // Absent already is as good.
    let _ = MODULES.remove(tgid);
}

#[inline(always)]
fn add(state: &mut ModulesState, file: &FileKey, start: u64, len: u64, offset: u64) {
    let FileKey { ino, dev, generation, .. } = *file;
    match state.placed.get_mut(state.count as usize) {
        Some(slot) => {
            *slot = Placement { start, len, offset, ino, dev, generation };
            state.count += 1;
        }
        None => state.overflow += 1,
    }
}

/// The fields before the stack, so that nothing but constants live across the loop.
#[inline(always)]
fn tell(role: Role, file: &FileKey, call: Syscall) {
    let Some(task) = Task::current() else { return };
    let bounds = task.bounds();
    let sp = call.sp_or_zero();
    let sieve = Sieve::new(&bounds, sp, STACK_BYTES as u64);
    let Some(mut record) = begin::<Opened>(ring_for(role), role) else { return };
    record.file = *file;
    record.addr = call.arg_or_zero::<0>();
    record.len = call.arg_or_zero::<1>();
    record.ip = call.ip_or_zero();
    record.sp = sp;
    record.fp = sieve.sift(call.fp_or_zero());
    record.lr = sieve.sift(call.lr_or_zero());
    if sp != 0 {
        stack::read::<STACK_WORDS, STACK_BYTES>(&mut record.words, sp, &bounds, &sieve);
    }
    record.submit();
}
