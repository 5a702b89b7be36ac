//! Writes into another process's memory: by ptrace, `process_vm_writev` and `/proc/PID/mem`.
//!
//! Each pair of writer and target is told at its first write and then once a second with the count,
//! so that a debugger at work is no flood.

use aya_ebpf::macros::{fentry, kprobe};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use sensor_common::record::{UNKNOWN, WRITE_MEM, WRITE_PTRACE, WRITE_VM, Write};
use sensor_common::{Counter, Role};

use super::{current_tgid, finish, is_agent, role_of};
use crate::emit::{begin, count, now, ring_for};
use crate::globals::offset;
use crate::kernel::KernelPtr;
use crate::kernel::task::Task;
use crate::maps::{WRITES, writes};
use crate::regs::{Syscall, number};
use crate::state::{WritePair, Writes};

/// include/uapi/linux/ptrace.h
const PTRACE_POKETEXT: u64 = 4;
const PTRACE_POKEDATA: u64 = 5;
/// include/linux/mm_types.h (mm.h before 5.19)
const FOLL_WRITE: u32 = 1;
/// Between two records of one pair.
const INTERVAL_NS: u64 = 1_000_000_000;

/// One write, before it is known who its target is.
struct Seen {
    mm: u64,
    way: u32,
    asked: u32,
    addr: u64,
}

/// The current task locks the address space `mm` for reading, which all three ways do with their
/// target's, and hardly anybody else does with another than its own: reading another's memory, exec
/// with the new program's, and reclaim (mm/vmscan.c `walk_mm`) in whatever system call.
#[inline(always)]
pub fn by_reader(mm: u64) -> Option<()> {
    let own = Task::current()?.mm();
    // A kernel thread is in no system call.
    if own == mm || own == 0 {
        return Some(());
    }
    by_call(mm)
}

#[inline(always)]
fn by_call(mm: u64) -> Option<()> {
    let Some(call) = Syscall::current() else { return Some(()) };
    let Some(number) = call.number() else { return Some(()) };
    let seen = match number {
        number::PTRACE => {
            if !is_poke(call.arg::<0>()?) {
                return Some(());
            }
            let asked = call.arg::<1>()? as u32;
            Seen { mm, way: WRITE_PTRACE, asked, addr: call.arg_or_zero::<2>() }
        }
        number::PROCESS_VM_WRITEV => {
            Seen { mm, way: WRITE_VM, asked: call.arg::<0>()? as u32, addr: 0 }
        }
        number::WRITE | number::WRITEV | number::PWRITE64 | number::PWRITEV | number::PWRITEV2 => {
            let fd = call.arg::<0>()?;
            // fs/proc/base.c `mem_open` keeps the address space there.
            let file = Task::current()?.file(fd);
            if file.is_none_or(|file| file.private_data() != mm) {
                return Some(());
            }
            let addr = if number == number::PWRITE64 { call.arg_or_zero::<3>() } else { 0 };
            Seen { mm, way: WRITE_MEM, asked: fd as u32, addr }
        }
        _ => return Some(()),
    };
    if call.is_compat() {
        return Some(());
    }
    tell(&seen)
}

#[inline(always)]
fn is_poke(request: u64) -> bool {
    matches!(request, PTRACE_POKETEXT | PTRACE_POKEDATA)
}

/// long arch_ptrace(struct task_struct *child, long request, unsigned long addr, unsigned long
/// data), arch/*/kernel/ptrace.c, 5.10 to 7.0: the caller has been found to be the tracer.
#[fentry(function = "arch_ptrace")]
pub fn write_ptrace_fentry(ctx: FEntryContext) -> i32 {
    finish(try_ptrace(ctx.arg(0), ctx.arg(1), ctx.arg(2)))
}

/// As above.
#[kprobe]
pub fn write_ptrace_kprobe(ctx: ProbeContext) -> u32 {
    let arg = |at| ctx.arg(at).unwrap_or(0);
    finish(try_ptrace(arg(0), arg(1), arg(2))) as u32
}

#[inline(always)]
fn try_ptrace(child: u64, request: u64, addr: u64) -> Option<()> {
    if !is_poke(request) {
        return Some(());
    }
    let mm = Task::new(child)?.mm();
    tell(&Seen { mm, way: WRITE_PTRACE, asked: UNKNOWN, addr })
}

/// long pin_user_pages_remote(struct mm_struct *mm, unsigned long start, unsigned long nr_pages,
/// unsigned int gup_flags, ...), mm/gup.c, 5.10 to 7.0: once the caller was found to be allowed to.
/// Before 6.5 it has seven arguments, one more than a trampoline takes: there the kprobe is used.
#[fentry(function = "pin_user_pages_remote")]
pub fn write_vm_fentry(ctx: FEntryContext) -> i32 {
    finish(try_vm(ctx.arg(0), ctx.arg(1), ctx.arg(3)))
}

/// As above.
#[kprobe]
pub fn write_vm_kprobe(ctx: ProbeContext) -> u32 {
    let arg = |at| ctx.arg(at).unwrap_or(0);
    finish(try_vm(arg(0), arg(1), arg(3))) as u32
}

#[inline(always)]
fn try_vm(mm: u64, addr: u64, flags: u64) -> Option<()> {
    if flags as u32 & FOLL_WRITE == 0 || current_number() != number::PROCESS_VM_WRITEV {
        return Some(());
    }
    tell(&Seen { mm, way: WRITE_VM, asked: UNKNOWN, addr })
}

/// int access_remote_vm(struct mm_struct *mm, unsigned long addr, void *buf, int len, unsigned int
/// gup_flags), mm/memory.c, 5.10 to 7.0. ptrace comes here too, in newer kernels.
#[fentry(function = "access_remote_vm")]
pub fn write_mem_fentry(ctx: FEntryContext) -> i32 {
    finish(try_mem(ctx.arg(0), ctx.arg(1), ctx.arg(4)))
}

/// As above.
#[kprobe]
pub fn write_mem_kprobe(ctx: ProbeContext) -> u32 {
    let arg = |at| ctx.arg(at).unwrap_or(0);
    finish(try_mem(arg(0), arg(1), arg(4))) as u32
}

#[inline(always)]
fn try_mem(mm: u64, addr: u64, flags: u64) -> Option<()> {
    if flags as u32 & FOLL_WRITE == 0 || current_number() == number::PTRACE {
        return Some(());
    }
    tell(&Seen { mm, way: WRITE_MEM, asked: UNKNOWN, addr })
}

#[inline(always)]
fn current_number() -> u32 {
    Syscall::current().and_then(Syscall::number).unwrap_or(UNKNOWN)
}

#[inline(always)]
fn tell(seen: &Seen) -> Option<()> {
    let writer = current_tgid();
    // Who writes to its own memory needs no such way.
    if is_agent(writer) || seen.mm == Task::current()?.mm() {
        return Some(());
    }
    let owner = KernelPtr::new(seen.mm)?.follow(offset!(mm_owner));
    let target = owner.and_then(|owner| Task::new(owner.address())?.tgid()).unwrap_or(0);
    let pair = WritePair { writer, target, mm: seen.mm };
    let Some((times, ways)) = note(&pair, seen.way) else { return Some(()) };
    let target_role = if target == 0 { Role::NONE } else { role_of(target) };
    let role = role_of(writer);
    let Some(mut record) = begin::<Write>(ring_for(role.with(target_role)), role) else {
        return Some(());
    };
    record.target_tgid = target;
    record.target_role = target_role.0;
    record.ways = ways;
    record.asked = seen.asked;
    record.count = times;
    record.addr = seen.addr;
    record.submit();
    Some(())
}

/// Writes so far and the ways since the last record; `None` where it is too early for another.
#[inline(always)]
fn note(pair: &WritePair, way: u32) -> Option<(u64, u32)> {
    let now = now();
    let Some(state) = writes(pair) else {
        let first = Writes { told_ns: now, count: 1, ways: 0, reserved: 0 };
        if WRITES.insert(pair, first, 0).is_err() {
            count(Counter::StateFull);
        }
        return Some((1, way));
    };
    state.count = state.count.wrapping_add(1);
    state.ways |= way;
    if now.wrapping_sub(state.told_ns) < INTERVAL_NS {
        return None;
    }
    state.told_ns = now;
    let ways = state.ways;
    state.ways = 0;
    Some((state.count, ways))
}
