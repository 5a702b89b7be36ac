//! The offsets tried out on the agent itself, and files named the way the other programs name
//! them. Never attached: the agent runs it by BPF_PROG_TEST_RUN, in its own context.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use sensor_common::record::SelfCheck;

use super::finish;
use crate::kernel::file::File;
use crate::kernel::path;
use crate::kernel::task::Task;
use crate::maps::check_slot;
use crate::regs::Syscall;

/// Argument 0: a descriptor of the agent, or `u64::MAX`. The answer is left in `CHECK`.
#[raw_tracepoint]
pub fn check(ctx: RawTracePointContext) -> i32 {
    finish(try_check(ctx.arg(0)))
}

#[inline(always)]
fn try_check(fd: u64) -> Option<()> {
    let answer = check_slot()?;
    fill_process(answer)?;
    let task = Task::current()?;
    answer.syscall = Syscall::current().and_then(Syscall::number).unwrap_or(u32::MAX);
    let file = task.file(fd);
    answer.file = file.and_then(File::key).unwrap_or_default();
    answer.mode = u32::from(file.and_then(File::mode).unwrap_or_default());
    Some(())
}

#[inline(always)]
fn fill_process(answer: &mut SelfCheck) -> Option<()> {
    answer.pid_tgid = bpf_get_current_pid_tgid();
    let task = Task::current()?;
    answer.start_ns = task.start_ns();
    answer.tid = task.tid()?;
    answer.tgid = task.tgid()?;
    answer.parent_tgid = task.parent()?.tgid()?;
    answer.uid = task.uid()?;
    let exe = task.exe()?;
    answer.exe = exe.key()?;
    answer.path.len = 0;
    path::walk(exe, &mut answer.path);
    Some(())
}
