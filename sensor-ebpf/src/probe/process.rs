//! Processes: fork, exec, exit.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use sensor_common::record::{Exec, Exit, FileKey, Fork};
use sensor_common::{Role, UNRESOLVED};

use super::{current_tgid, finish, is_agent, link, opened, role_of, set_role};
use crate::emit::{begin, ring_for};
use crate::globals::offset;
use crate::kernel::KernelPtr;
use crate::kernel::file::{File, inode_key};
use crate::kernel::path;
use crate::kernel::task::Task;
use crate::maps::GUARDED;

/// TP_PROTO(struct task_struct *parent, struct task_struct *child), include/trace/events/sched.h,
/// 5.10 to 7.0. The parent is the current task.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    finish(try_fork(ctx.arg(1)))
}

/// TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm), same file and
/// versions. Runs once the new program is in place.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    finish(try_exec(ctx.arg(2)))
}

/// TP_PROTO(struct task_struct *p), same file; 6.16 adds `bool group_dead`. Runs in every dying
/// thread, after it has left `signal->live`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_ctx: RawTracePointContext) -> i32 {
    finish(try_exit())
}

#[inline(always)]
fn try_fork(child: u64) -> Option<()> {
    let (parent, child) = (Task::current()?, Task::new(child)?);
    let tgid = current_tgid();
    let child_tgid = child.tgid()?;
    if child_tgid == tgid || is_agent(tgid) {
        return Some(());
    }
    link::finish(tgid);
    let role = role_of(tgid);
    let child_role = role_of_child(role);
    if !child_role.is_none() {
        set_role(child_tgid, child_role);
    }
    let Some(mut record) = begin::<Fork>(ring_for(role), role) else { return Some(()) };
    record.child_tgid = child_tgid;
    record.child_role = child_role.0;
    record.child_start_ns = child.start_ns();
    let usage = parent.usage();
    record.usage = usage.unwrap_or_default();
    record.submit();
    usage.map(|_| ())
}

/// A child is the same program as its parent until it executes another.
#[inline(always)]
fn role_of_child(parent: Role) -> Role {
    if parent.0 & Role::SSHD.with(Role::BELOW_SSHD).0 == 0 {
        parent
    } else {
        parent.with(Role::BELOW_SSHD)
    }
}

/// The order is the verifier's: what may fail comes before the record begins.
#[inline(always)]
fn try_exec(bprm: u64) -> Option<()> {
    // The argument is the current task too, but only this one is known to the verifier.
    let task = Task::current()?;
    let bprm = KernelPtr::new(bprm)?;
    // fs/exec.c `begin_new_exec` has made `bprm->file` the executable of the new address space.
    let file = task.exe()?;
    let exe = file.key()?;
    let usage = task.usage()?;
    let tgid = current_tgid();
    link::start(tgid, &exe, &usage);
    let before = role_of(tgid);
    let role = role_of_program(before, &exe);
    if role != before {
        set_role(tgid, role);
    }
    let parent_tgid = task.parent()?.tgid()?;
    let uid = task.uid()?;
    let euid = task.euid()?;
    let (root, fs_magic) = (task.root(), file.inode()?.facts().fs_magic);
    let Some(mut record) = begin::<Exec>(ring_for(role), role) else { return Some(()) };
    path::walk(file, &mut record.path);
    record.exe = exe;
    record.usage = usage;
    record.start_ns = task.start_ns();
    record.parent_tgid = parent_tgid;
    record.uid = uid;
    record.euid = euid;
    record.secure = secure(bprm);
    (record.root_ino, record.root_dev) = root;
    record.fs_magic = fs_magic;
    if let Some(sock) = task.file(0).and_then(File::sock) {
        // A socket of a kind without a peer leaves the fields zero.
        let _ = sock.peer_into(&mut record.peer);
    }
    record.submit();
    // After the walk, so that each state at its head stays one.
    if role.contains(Role::GUARDED) {
        opened::start(tgid, task, &exe);
    }
    Some(())
}

/// 1 or 0.
#[inline(always)]
fn secure(bprm: KernelPtr) -> u32 {
    let bit = offset!(bprm_secureexec);
    if bit == UNRESOLVED {
        return 0;
    }
    let byte: u8 = bprm.read_or_zero(bit / 8);
    u32::from(byte) >> (bit % 8) & 1
}

/// What the agent says of the file, and whether an sshd is above.
#[inline(always)]
fn role_of_program(before: Role, exe: &FileKey) -> Role {
    // SAFETY: a u32 that is overwritten meanwhile reads as the old or the new one.
    let guarded = unsafe { GUARDED.get(inode_key(exe)) }.copied().unwrap_or(0);
    Role(guarded | before.0 & Role::BELOW_SSHD.0)
}

#[inline(always)]
fn try_exit() -> Option<()> {
    // The dying thread is the current one.
    let task = Task::current()?;
    if !task.is_last_thread() {
        return Some(());
    }
    let tgid = current_tgid();
    link::finish(tgid);
    let role = role_of(tgid);
    if !role.is_none() {
        set_role(tgid, Role::NONE);
    }
    if is_agent(tgid) {
        return Some(());
    }
    let Some(mut record) = begin::<Exit>(ring_for(role), role) else { return Some(()) };
    record.exit_code = task.exit_code();
    let usage = task.usage();
    record.usage = usage.unwrap_or_default();
    record.submit();
    usage.map(|_| ())
}
