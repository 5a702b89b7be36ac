//! The programs, one file per family: each attribute function fetches arguments, a safe `try_*`
//! does the work, and the result only decides whether a failed read is counted.

mod check;
pub mod environ;
mod frame;
mod function;
mod link;
mod mapping;
mod memory;
mod opened;
mod perf;
mod process;
mod sample;
mod stack;
mod write;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use sensor_common::{Counter, Role};

use crate::emit;
use crate::globals::config;
use crate::maps::PROCS;

/// Ends a program: `None` means that something could not be read.
#[inline(always)]
fn finish(result: Option<()>) -> i32 {
    if result.is_none() {
        emit::count(Counter::ReadFailed);
    }
    0
}

#[inline(always)]
fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The sensor leaves itself out.
#[inline(always)]
fn is_agent(tgid: u32) -> bool {
    tgid == config!(agent_tgid)
}

#[inline(always)]
fn role_of(tgid: u32) -> Role {
    // SAFETY: a u32 that is overwritten meanwhile reads as the old or the new one.
    Role(unsafe { PROCS.get(tgid) }.copied().unwrap_or(0))
}

/// Sets or, where no bit is left, forgets the role of a process.
#[inline(always)]
fn set_role(tgid: u32, role: Role) {
    if role.is_none() {
        // Absent already is as good.
        let _ = PROCS.remove(tgid);
    } else if PROCS.insert(tgid, role.0, 0).is_err() {
        emit::count(Counter::StateFull);
    }
}
