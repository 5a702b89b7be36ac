//! Where a perf event sits: the uprobe or kprobe behind a descriptor, whoever made it. Never
//! attached: the agent runs it by `BPF_PROG_TEST_RUN`, in its own context, about a copy of the
//! descriptor. The kernel tells the same by `BPF_TASK_FD_QUERY`, but not which file it is.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use sensor_common::record::PerfEvent;

use super::finish;
use crate::globals::offset;
use crate::kernel::KernelPtr;
use crate::kernel::file::{File, Inode};
use crate::kernel::task::Task;
use crate::maps::perf_event_slot;

/// Argument 0: a descriptor of the agent. 1 and 2: the kinds of perf events that are uprobes and
/// kprobes. 3: 1 where the descriptor is a BPF link to a perf event. The answer is left in
/// `PERF_EVENT`.
#[raw_tracepoint]
pub fn perf_site(ctx: RawTracePointContext) -> i32 {
    finish(try_perf_site(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3)))
}

#[inline(always)]
fn try_perf_site(fd: u64, uprobe: u64, kprobe: u64, is_link: u64) -> Option<()> {
    let answer = perf_event_slot()?;
    *answer = PerfEvent::NONE;
    let data = Task::current()?.file(fd)?.private_object()?;
    let event = if is_link == 1 { linked(data)? } else { data };
    answer.kind = event.read(offset!(perf_type))?;
    answer.config = event.read_or_zero(offset!(perf_config));
    answer.program = program(event).unwrap_or(0);
    answer.found = 1;
    // Of any other kind there may be no such thing behind the event.
    let kind = u64::from(answer.kind);
    if kind == uprobe {
        fill_uprobe(event, answer)?;
    } else if kind == kprobe {
        fill_kprobe(event, answer)?;
    }
    Some(())
}

/// The perf event of a link: kernel/bpf/syscall.c `struct bpf_perf_link` (5.15).
#[inline(always)]
fn linked(link: KernelPtr) -> Option<KernelPtr> {
    let link = link.outer(offset!(perf_link_link))?;
    File::from(link.follow(offset!(perf_link_file))?).private_object()
}

#[inline(always)]
fn program(event: KernelPtr) -> Option<u32> {
    event.follow(offset!(perf_prog))?.follow(offset!(bpf_prog_aux))?.read(offset!(bpf_aux_id))
}

/// The first place of a dynamic event; those of perf have one.
#[inline(always)]
fn place(event: KernelPtr) -> Option<KernelPtr> {
    let call = event.follow(offset!(perf_tp_event))?;
    let list = call.outer(offset!(dynamic_call))?.member(offset!(dynamic_probes))?;
    let first = list.follow(0)?;
    if first == list {
        return None;
    }
    first.outer(offset!(dynamic_list))
}

#[inline(always)]
fn fill_uprobe(event: KernelPtr, answer: &mut PerfEvent) -> Option<()> {
    let uprobe = place(event)?.outer(offset!(uprobe_tp))?;
    answer.offset = uprobe.read(offset!(uprobe_offset))?;
    answer.ref_ctr_offset = uprobe.read_or_zero(offset!(uprobe_ref_ctr));
    if let Some(dentry) = uprobe.follow(offset!(uprobe_dentry))
        && let Some(inode) = dentry.follow(offset!(dentry_inode))
    {
        answer.file = Inode::from(inode).key().unwrap_or_default();
    }
    name(uprobe.follow(offset!(uprobe_filename))?, answer)
}

#[inline(always)]
fn fill_kprobe(event: KernelPtr, answer: &mut PerfEvent) -> Option<()> {
    let kprobe = place(event)?.outer(offset!(kprobe_tp))?;
    answer.offset = u64::from(kprobe.read_or_zero::<u32>(offset!(kprobe_offset)));
    name(kprobe.follow(offset!(kprobe_symbol))?, answer)
}

#[inline(always)]
fn name(from: KernelPtr, answer: &mut PerfEvent) -> Option<()> {
    answer.name_len = from.read_str(&mut answer.name)? as u32;
    Some(())
}
