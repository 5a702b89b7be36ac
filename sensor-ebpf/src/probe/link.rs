//! Link time: from exec over each module's RELRO seal to the end of linking.
//!
//! The dynamic loader makes each module's RELRO read-only right after it has relocated the module
//! (glibc elf/dl-reloc.c `_dl_protect_relro`, musl ldso/dynlink.c `reloc_all`), IFUNC resolvers
//! included. glibc's then unmaps ld.so.cache (elf/rtld.c `dl_main`, `_dl_unload_cache`) just before
//! the constructors run. So the first `munmap` after a seal ends linking; where there is no cache,
//! as with musl, the first fork, exec or exit does. With `LD_AUDIT` so does the link of every audit
//! library before the program's own (`load_audit_module`), so there too it is the fork, exec or exit.

use sensor_common::record::{FileKey, Link, SEALS_MAX, Seal, SealAt, Usage};
use sensor_common::{Counter, Role};

use super::{current_tgid, opened, role_of};
use crate::emit::{begin, count, now, ring_for};
use crate::globals::config;
use crate::kernel::copy;
use crate::kernel::file::inode_key;
use crate::kernel::task::Task;
use crate::maps::{LINK_LIMITS, LINK_SENT, LINKING, REOPENED, linking, reopened};
use crate::regs::Syscall;
use crate::state::{LinkState, Reopenings};

const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;

/// Records of one process a second that memory was made writable or executable: allocators do it, too.
const REOPENINGS_MAX: u32 = 32;
const SECOND_NS: u64 = 1_000_000_000;

/// The value of a process that has just started: too large for a program's stack.
static BLANK: LinkState = LinkState::BLANK;

/// A new program starts, which ends the linking of the one before.
#[inline(always)]
pub fn start(tgid: u32, exe: &FileKey, usage: &Usage) {
    finish(tgid);
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be copied to the stack, which has no room for it"
    )]
    let inserted = LINKING.insert(tgid, &BLANK, 0);
    if inserted.is_err() {
        count(Counter::StateFull);
    }
    if let Some(state) = linking(tgid) {
        state.exec_ktime_ns = now();
        state.usage = *usage;
        state.exe = *exe;
    }
}

/// The current task is in `mprotect(addr, len, prot)` or `pkey_mprotect`.
#[inline(always)]
pub fn protect<const TYPED: bool>(call: Syscall<TYPED>) -> Option<()> {
    let prot = call.arg::<2>()?;
    if prot & (PROT_WRITE | PROT_EXEC) != 0 {
        return reopen(call, prot as u32);
    }
    if prot != PROT_READ {
        return Some(());
    }
    let tgid = current_tgid();
    let state = linking(tgid);
    let role = role_of(tgid);
    let is_guarded = role.contains(Role::GUARDED);
    if state.is_none() && !is_guarded {
        return Some(());
    }
    let addr = call.arg::<0>()?;
    let usage = Task::current()?.usage()?;
    let after_link = u32::from(state.is_none());
    let at = match state {
        Some(state) => note(state, addr, &usage),
        // When it began is not known, or long ago.
        None => SealAt { addr, ..SealAt::default() },
    };
    if is_guarded {
        let Some(mut record) = begin::<Seal>(ring_for(role), role) else { return Some(()) };
        record.at = at;
        record.len = call.arg::<1>().unwrap_or(0);
        record.prot = PROT_READ as u32;
        record.after_link = after_link;
        record.submit();
    }
    Some(())
}

/// Memory of a guarded process is made writable or executable. While it links that is the loader's business: text
/// relocations, and what it has not sealed yet.
#[inline(always)]
fn reopen<const TYPED: bool>(call: Syscall<TYPED>, prot: u32) -> Option<()> {
    let tgid = current_tgid();
    let role = role_of(tgid);
    if !role.contains(Role::GUARDED) || linking(tgid).is_some() {
        return Some(());
    }
    if !has_room(tgid) {
        count(Counter::ProtectFiltered);
        return Some(());
    }
    let Some(mut record) = begin::<Seal>(ring_for(role), role) else { return Some(()) };
    record.at.addr = call.arg_or_zero::<0>();
    record.len = call.arg_or_zero::<1>();
    record.prot = prot;
    record.after_link = 1;
    record.submit();
    Some(())
}

/// Counts one more record of this process, unless it has had too many this second.
#[inline(always)]
fn has_room(tgid: u32) -> bool {
    let now = now();
    match reopened(tgid) {
        Some(state) if now.wrapping_sub(state.since_ns) < SECOND_NS => {
            state.told = state.told.wrapping_add(1);
            state.told <= REOPENINGS_MAX
        }
        Some(state) => {
            (state.since_ns, state.told) = (now, 1);
            true
        }
        None => {
            // Full, the next one counts as the first again.
            let _ = REOPENED.insert(tgid, Reopenings { since_ns: now, told: 1, reserved: 0 }, 0);
            true
        }
    }
}

/// Adds one seal to a process's state.
#[inline(always)]
fn note(state: &mut LinkState, addr: u64, usage: &Usage) -> SealAt {
    let before = &state.usage;
    let at = SealAt {
        addr,
        wall_ns: now().wrapping_sub(state.exec_ktime_ns),
        run_delay_ns: usage.run_delay_ns.wrapping_sub(before.run_delay_ns),
        minor_faults: usage.minor_faults.wrapping_sub(before.minor_faults) as u32,
        voluntary_switches: usage.voluntary_switches.wrapping_sub(before.voluntary_switches) as u32,
    };
    match state.seals.get_mut(state.count as usize) {
        Some(slot) => {
            *slot = at;
            state.count += 1;
        }
        None => {
            state.overflow += 1;
            count(Counter::SealOverflow);
        }
    }
    at
}

/// The current task is in `munmap`.
#[inline(always)]
pub fn unmap() -> Option<()> {
    let tgid = current_tgid();
    if linking(tgid).is_some_and(|state| state.count > 0 && state.audited == 0) {
        finish(tgid);
    }
    Some(())
}

/// Ends a process's linking, if it still links, and tells it if it is worth telling.
#[inline(never)]
pub fn finish(tgid: u32) {
    let Some(state) = linking(tgid) else { return };
    let role = role_of(tgid);
    if role.contains(Role::GUARDED) {
        opened::linked(tgid, role, state.count > 0);
    }
    if state.count > 0 {
        if !role.is_none() || is_worth_telling(state) {
            tell(state, role);
        } else {
            count(Counter::LinkFiltered);
        }
    }
    // Absent already is as good.
    let _ = LINKING.remove(tgid);
}

/// An ordinary program's start is told from time to time, and whenever it took too long.
#[inline(always)]
fn is_worth_telling(state: &LinkState) -> bool {
    let exe = inode_key(&state.exe);
    let now = now();
    // SAFETY: a u64 that is overwritten meanwhile reads as the old or the new one.
    let limit = unsafe { LINK_LIMITS.get(exe) }.copied().unwrap_or(u64::MAX);
    // SAFETY: as above.
    let sent = unsafe { LINK_SENT.get(exe) }.copied().unwrap_or(0);
    let interval = u64::from(config!(link_interval_ms)) * 1_000_000;
    let is_recent = sent != 0 && now.wrapping_sub(sent) < interval;
    if is_recent && last_cpu(state) <= limit {
        return false;
    }
    // Full, the next start is told again.
    let _ = LINK_SENT.insert(exe, now, 0);
    true
}

/// CPU time from exec to the last seal, ns.
#[inline(always)]
fn last_cpu(state: &LinkState) -> u64 {
    let last = (state.count as usize).wrapping_sub(1);
    match state.seals.get(last) {
        Some(seal) => seal.wall_ns.saturating_sub(seal.run_delay_ns),
        None => 0,
    }
}

#[inline(always)]
fn tell(state: &LinkState, role: Role) {
    let Some(mut record) = begin::<Link>(ring_for(role), role) else { return };
    record.exe = state.exe;
    record.exec_ktime_ns = state.exec_ktime_ns;
    record.count = if state.count as usize > SEALS_MAX { 0 } else { state.count };
    record.overflow = state.overflow;
    if copy(&mut record.seals, &state.seals).is_none() {
        record.count = 0;
        count(Counter::ReadFailed);
    }
    record.submit();
}
