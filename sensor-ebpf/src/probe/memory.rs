//! Where the programs learn of `mmap`, `mprotect` and `munmap`: one mechanism each, one body for
//! all.
//!
//! The system calls' own functions take `const struct pt_regs *` on both architectures since 4.19
//! (`CONFIG_ARCH_HAS_SYSCALL_WRAPPER`), and hooking them taxes no other call.

use aya_ebpf::macros::{fentry, kprobe, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{FEntryContext, ProbeContext, RawTracePointContext, TracePointContext};

use super::{finish, link, mapping, write};
use crate::globals::config;
use crate::kernel::file::File;
use crate::regs::{Syscall, number, raw_argument};

/// TP_PROTO(struct mm_struct *mm, bool write) since 6.14, with the cgroup path between them before;
/// include/trace/events/mmap_lock.h, 5.11 to 7.0. What counts is the system call that takes the
/// lock.
#[raw_tracepoint(tracepoint = "mmap_lock_start_locking")]
pub fn memory_lock(ctx: RawTracePointContext) -> i32 {
    if is_reader(&ctx) {
        return finish(write::by_reader(raw_argument::<0>(&ctx)));
    }
    finish(try_lock())
}

/// A third of all locks around an exec; nearly all are of the task's own address space, which costs
/// one helper to tell.
#[inline(always)]
fn is_reader(ctx: &RawTracePointContext) -> bool {
    let write = match config!(lock_write_arg) {
        1 => raw_argument::<1>(ctx),
        2 => raw_argument::<2>(ctx),
        _ => return false,
    };
    write & 0xff == 0
}

#[inline(always)]
fn try_lock() -> Option<()> {
    // A kernel without saved registers has no other rung than this one either.
    let Some(call) = Syscall::current() else { return Some(()) };
    let Some(number) = call.number() else { return Some(()) };
    // Most locks are taken by page faults and by calls of no interest.
    let is_ours =
        matches!(number, number::MMAP | number::MPROTECT | number::PKEY_MPROTECT | number::MUNMAP);
    if !is_ours || call.is_compat() {
        return Some(());
    }
    match number {
        number::MMAP => mapping::by_descriptor(call),
        number::MUNMAP => link::unmap(),
        _ => link::protect(call),
    }
}

/// int security_mmap_file(struct file *file, unsigned long prot, unsigned long flags),
/// security/security.c, 5.10 to 7.0.
#[fentry(function = "security_mmap_file")]
pub fn memory_map_fentry(ctx: FEntryContext) -> i32 {
    finish(try_map(ctx.arg(0), ctx.arg(1)))
}

/// As above.
#[kprobe]
pub fn memory_map_kprobe(ctx: ProbeContext) -> u32 {
    finish(try_map(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0))) as u32
}

#[inline(always)]
fn try_map(file: u64, prot: u64) -> Option<()> {
    if prot & mapping::PROT_EXEC == 0 {
        return Some(());
    }
    // Anonymous memory has no file.
    let Some(file) = File::new(file) else { return Some(()) };
    mapping::by_file(file)
}

/// long __x64_sys_mprotect(const struct pt_regs *regs), and the same for pkey_mprotect and arm64.
/// The argument is not touched: on 5.10 its type is only declared there, and the verifier refuses it.
#[fentry(function = "__x64_sys_mprotect")]
pub fn memory_protect_fentry(_ctx: FEntryContext) -> i32 {
    finish(Syscall::current().and_then(link::protect))
}

/// As above.
#[fentry(function = "__x64_sys_pkey_mprotect")]
pub fn memory_pkey_fentry(_ctx: FEntryContext) -> i32 {
    finish(Syscall::current().and_then(link::protect))
}

/// As above.
#[kprobe]
pub fn memory_protect_kprobe(ctx: ProbeContext) -> u32 {
    finish(Syscall::new(ctx.arg(0).unwrap_or(0)).and_then(link::protect)) as u32
}

/// long __x64_sys_munmap(const struct pt_regs *regs), and the same for arm64.
#[fentry(function = "__x64_sys_munmap")]
pub fn memory_unmap_fentry(_ctx: FEntryContext) -> i32 {
    finish(link::unmap())
}

/// As above.
#[kprobe]
pub fn memory_unmap_kprobe(_ctx: ProbeContext) -> u32 {
    finish(link::unmap()) as u32
}

/// Entry of `mmap`. 32-bit calls do not reach a system call tracepoint.
#[tracepoint]
pub fn memory_map_tracepoint(_ctx: TracePointContext) -> u32 {
    finish(Syscall::current().and_then(mapping::by_descriptor)) as u32
}

/// Entry of `mprotect` and of `pkey_mprotect`.
#[tracepoint]
pub fn memory_protect_tracepoint(_ctx: TracePointContext) -> u32 {
    finish(Syscall::current().and_then(link::protect)) as u32
}

/// Entry of `munmap`.
#[tracepoint]
pub fn memory_unmap_tracepoint(_ctx: TracePointContext) -> u32 {
    finish(link::unmap()) as u32
}
