//! Files mapped executable: told once per pair of program and file, and of guarded programs noted
//! each time.

use sensor_common::record::Map;
use sensor_common::{Counter, Role};

use super::{current_tgid, is_agent, opened, role_of};
use crate::emit::{begin, count, ring_for};
use crate::kernel::file::File;
use crate::kernel::path;
use crate::kernel::task::Task;
use crate::maps::KNOWN;
use crate::regs::{Syscall, number};
use crate::state::KnownPair;

pub const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;

/// The current task is in `mmap(addr, len, prot, flags, fd, offset)`.
///
/// The descriptor is read before the kernel reads it, so another thread may still exchange the
/// file; and the call may still fail.
#[inline(always)]
pub fn by_descriptor<const TYPED: bool>(call: Syscall<TYPED>) -> Option<()> {
    if call.arg::<2>()? & PROT_EXEC == 0 || call.arg::<3>()? & MAP_ANONYMOUS != 0 {
        return Some(());
    }
    // A descriptor that is not open fails the call.
    let Some(file) = Task::current()?.file(call.arg::<4>()?) else { return Some(()) };
    mapped(file, call)
}

/// The kernel is about to map `file` for the current task, executable.
#[inline(always)]
pub fn by_file(file: File) -> Option<()> {
    let call = Syscall::current();
    match call.and_then(Syscall::number).unwrap_or(0) {
        // The executable and its interpreter: the exec record speaks for them.
        number::EXECVE | number::EXECVEAT => Some(()),
        number::MMAP => mapped(file, call?),
        _ => mapped(file, Syscall::none()),
    }
}

#[inline(always)]
fn mapped<const TYPED: bool>(file: File, call: Syscall<TYPED>) -> Option<()> {
    let tgid = current_tgid();
    if is_agent(tgid) {
        return Some(());
    }
    let task = Task::current()?;
    let inode = file.inode()?;
    let pair = KnownPair { exe: task.exe()?.key()?, file: inode.key()? };
    if pair.exe.ino == pair.file.ino && pair.exe.dev == pair.file.dev {
        return Some(());
    }
    let role = role_of(tgid);
    if role.contains(Role::GUARDED) {
        opened::note(tgid, role, &pair.file, call.plain());
    }
    if KNOWN.get_ptr(pair).is_some() {
        count(Counter::MapFiltered);
        return Some(());
    }
    tell(task, file, &pair, call, role)
}

/// What may fail comes before the record, and the walk, which is a loop, right after it begins:
/// each state at its head is a walk of its own to the verifier.
#[inline(always)]
fn tell<const TYPED: bool>(
    task: Task<true>,
    file: File,
    pair: &KnownPair,
    call: Syscall<TYPED>,
    role: Role,
) -> Option<()> {
    let uid = task.uid()?;
    let inode = file.inode()?;
    let mode = inode.mode()?;
    // Lost, it stays unknown and is told next time.
    let Some(mut record) = begin::<Map>(ring_for(role), role) else { return Some(()) };
    path::walk(file, &mut record.path);
    record.exe = pair.exe;
    record.file = pair.file;
    record.addr = call.arg_or_zero::<0>();
    record.len = call.arg_or_zero::<1>();
    record.prot = call.arg_or_zero::<2>() as u32;
    record.offset = call.arg_or_zero::<5>();
    record.mode = u32::from(mode);
    record.uid = uid;
    let facts = inode.facts();
    record.owner = facts.owner;
    record.links = facts.links;
    record.mtime_s = facts.mtime_s;
    record.fs_magic = facts.fs_magic;
    record.submit();
    if KNOWN.insert(pair, 1, 0).is_err() {
        count(Counter::StateFull);
    }
    Some(())
}
