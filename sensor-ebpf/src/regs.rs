//! Saved user registers: of a system call in progress, and at a user-space probe.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::programs::{PerfEventContext, ProbeContext, RawTracePointContext};

use crate::globals::{config, offset};
use crate::kernel::KernelPtr;
use crate::kernel::task::Task;
use crate::user::UserPtr;

/// System call numbers the programs tell apart, per architecture (asm/unistd.h).
#[cfg(bpf_target_arch = "x86_64")]
pub mod number {
    pub const WRITE: u32 = 1;
    pub const PWRITE64: u32 = 18;
    pub const WRITEV: u32 = 20;
    pub const PTRACE: u32 = 101;
    pub const PWRITEV: u32 = 296;
    pub const PROCESS_VM_WRITEV: u32 = 311;
    pub const PWRITEV2: u32 = 328;
    pub const MMAP: u32 = 9;
    pub const MPROTECT: u32 = 10;
    pub const MUNMAP: u32 = 11;
    pub const EXECVE: u32 = 59;
    pub const EXECVEAT: u32 = 322;
    pub const PKEY_MPROTECT: u32 = 329;
}

/// System call numbers the programs tell apart, per architecture (asm-generic/unistd.h).
#[cfg(bpf_target_arch = "aarch64")]
pub mod number {
    pub const WRITE: u32 = 64;
    pub const WRITEV: u32 = 66;
    pub const PWRITE64: u32 = 68;
    pub const PWRITEV: u32 = 70;
    pub const PTRACE: u32 = 117;
    pub const PROCESS_VM_WRITEV: u32 = 271;
    pub const PWRITEV2: u32 = 287;
    pub const MMAP: u32 = 222;
    pub const MPROTECT: u32 = 226;
    pub const MUNMAP: u32 = 215;
    pub const EXECVE: u32 = 221;
    pub const EXECVEAT: u32 = 281;
    pub const PKEY_MPROTECT: u32 = 288;
}

/// Where `struct pt_regs` keeps what is read here, bytes. User space relies on the same layout
/// through ptrace, so it does not change.
#[cfg(bpf_target_arch = "x86_64")]
mod layout {
    /// rdi, rsi, rdx, r10, r8, r9.
    pub const ARGS: [u32; 6] = [14 * 8, 13 * 8, 12 * 8, 7 * 8, 9 * 8, 8 * 8];
    /// Code segment: 0x23 is that of 32-bit code.
    pub const CS: u32 = 17 * 8;
    /// rip, rsp, rbp.
    pub const IP: u32 = 16 * 8;
    pub const SP: u32 = 19 * 8;
    pub const FP: u32 = 4 * 8;
}

/// As above: x0 to x5, and `pstate`.
#[cfg(bpf_target_arch = "aarch64")]
mod layout {
    pub const ARGS: [u32; 6] = [0, 8, 16, 24, 32, 40];
    pub const PSTATE: u32 = 33 * 8;
    pub const IP: u32 = 32 * 8;
    pub const SP: u32 = 31 * 8;
    /// x29, x30.
    pub const FP: u32 = 29 * 8;
    pub const LR: u32 = 30 * 8;
}

/// Where `struct pt_regs` keeps the number of the system call.
#[inline(always)]
fn number_offset() -> u32 {
    #[cfg(bpf_target_arch = "x86_64")]
    return offset!(regs_orig_ax);
    #[cfg(bpf_target_arch = "aarch64")]
    return offset!(regs_syscallno);
}

/// The current task's `struct pt_regs *`, of a type the verifier knows.
#[inline(always)]
fn trusted_regs() -> *const c_void {
    // SAFETY: the helper has no arguments and cannot fail.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the argument is the current task, as the helper demands.
    (unsafe { bpf_task_pt_regs(task) }) as *const c_void
}

/// The system call the current task is in.
#[derive(Clone, Copy)]
pub struct Syscall<const TYPED: bool = false>(KernelPtr<TYPED>);

impl Syscall {
    /// From a `struct pt_regs *`, the argument of a system call's own function.
    #[inline(always)]
    pub fn new(regs: u64) -> Option<Self> {
        KernelPtr::new(regs).map(Self)
    }

    /// Reads as zeroes.
    #[inline(always)]
    pub fn none() -> Self {
        Self(KernelPtr::NULL)
    }
}

impl Syscall<true> {
    /// From the top of the current task's kernel stack.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        if config!(has_task_pt_regs) != 0 {
            return KernelPtr::vouched_for(trusted_regs() as u64).map(Self);
        }
        let above = config!(pt_regs_offset);
        if above == 0 {
            return None;
        }
        let regs = Task::current()?.stack()?.member(above)?;
        KernelPtr::vouched_for(regs.address()).map(Self)
    }
}

impl<const TYPED: bool> Syscall<TYPED> {
    /// Its number; -1 (as u32) in a page fault or another exception.
    #[inline(always)]
    pub fn number(self) -> Option<u32> {
        self.0.read(number_offset())
    }

    /// True for a 32-bit system call, whose numbers and arguments mean something else.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        #[cfg(bpf_target_arch = "x86_64")]
        {
            // arch/x86/include/asm/thread_info.h; `int 0x80` from 64-bit code sets it too.
            const TS_COMPAT: u32 = 2;
            const USER32_CS: u64 = 0x23;
            self.0.read(layout::CS) == Some(USER32_CS)
                || Task::current().is_some_and(|task| task.thread_status() & TS_COMPAT != 0)
        }
        #[cfg(bpf_target_arch = "aarch64")]
        {
            const PSR_MODE32_BIT: u64 = 0x10;
            self.0.read::<u64>(layout::PSTATE).is_some_and(|state| state & PSR_MODE32_BIT != 0)
        }
    }

    /// Its `N`th argument, from 0.
    #[inline(always)]
    pub fn arg<const N: usize>(self) -> Option<u64> {
        self.0.read(const { layout::ARGS[N] })
    }

    /// The same, or 0 where it cannot be read.
    #[inline(always)]
    pub fn arg_or_zero<const N: usize>(self) -> u64 {
        self.0.read_or_zero(const { layout::ARGS[N] })
    }

    /// Where user space goes on afterwards, or 0.
    #[inline(always)]
    pub fn ip_or_zero(self) -> u64 {
        self.0.read_or_zero(layout::IP)
    }

    /// Its stack pointer, or 0.
    #[inline(always)]
    pub fn sp_or_zero(self) -> u64 {
        self.0.read_or_zero(layout::SP)
    }

    /// Its frame pointer, or 0.
    #[inline(always)]
    pub fn fp_or_zero(self) -> u64 {
        self.0.read_or_zero(layout::FP)
    }

    /// Its link register, or 0 where the architecture has none.
    #[inline(always)]
    pub fn lr_or_zero(self) -> u64 {
        #[cfg(bpf_target_arch = "x86_64")]
        return 0;
        #[cfg(bpf_target_arch = "aarch64")]
        return self.0.read_or_zero(layout::LR);
    }

    /// The same for what is handed on to another function.
    #[inline(always)]
    pub fn plain(self) -> Syscall {
        Syscall(self.0.plain())
    }
}

/// Argument `N` of a raw tracepoint, from 0. A program that reads more than its tracepoint has does
/// not attach.
///
/// In assembly, so that the choice between two does not become one load from a computed address,
/// which the verifier refuses.
#[inline(always)]
pub fn raw_argument<const N: usize>(ctx: &RawTracePointContext) -> u64 {
    let value;
    // SAFETY: a load of one word of the context, which the verifier bounds.
    unsafe {
        asm!(
            "{value} = *(u64 *)({ctx} + {at})",
            value = lateout(reg) value,
            ctx = in(reg) ctx.as_ptr(),
            at = const N * 8,
            options(pure, readonly, nostack)
        );
    }
    value
}

/// Address of the instruction a user-space probe sits on.
#[inline(always)]
pub fn probed_address(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context of a uprobe is a `struct pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(bpf_target_arch = "x86_64")]
    return regs.rip;
    #[cfg(bpf_target_arch = "aarch64")]
    return regs.pc;
}

/// Address of the instruction that a sampling clock interrupted.
#[inline(always)]
pub fn interrupted_address(ctx: &PerfEventContext) -> u64 {
    // SAFETY: the context of a perf event starts with the registers.
    let regs = unsafe { &(*ctx.ctx).regs };
    #[cfg(bpf_target_arch = "x86_64")]
    return regs.rip;
    #[cfg(bpf_target_arch = "aarch64")]
    return regs.pc;
}

/// Where the function that was just entered returns to.
#[inline(always)]
pub fn return_address(ctx: &ProbeContext) -> Option<u64> {
    // SAFETY: the context of a uprobe is a `struct pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(bpf_target_arch = "x86_64")]
    return UserPtr(regs.rsp).read();
    #[cfg(bpf_target_arch = "aarch64")]
    {
        let _: Option<UserPtr> = None;
        Some(regs.regs[30])
    }
}

/// The second argument of the function that was just entered.
#[inline(always)]
pub fn second_argument(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context of a uprobe is a `struct pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(bpf_target_arch = "x86_64")]
    return regs.rsi;
    #[cfg(bpf_target_arch = "aarch64")]
    return regs.regs[1];
}

/// Stack and frame pointer at a user-space probe.
#[inline(always)]
pub fn stack_registers(ctx: &ProbeContext) -> (u64, u64) {
    // SAFETY: the context of a uprobe is a `struct pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(bpf_target_arch = "x86_64")]
    return (regs.rsp, regs.rbp);
    #[cfg(bpf_target_arch = "aarch64")]
    return (regs.sp, regs.regs[29]);
}
