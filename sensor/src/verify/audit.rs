//! rtld-audit in a process, read out of the loader's own state: who is called back, and whether
//! anyone had asked for it.
//!
//! The XZ backdoor forged this state (`_dl_naudit`, `_dl_audit`) to be called back while sshd was
//! linked. It undid that afterwards; what is read here is the state at the time of the check.

use super::elf::{DT_AUDIT, DT_DEPAUDIT};
use super::error::VerifyError;
use super::layout::{Kind, Layout};
use super::loader::Linked;
use super::process::Process;
use super::report::{Audit, AuditRequest};
use super::target;

/// Interfaces followed; glibc itself stops at 16 (`DL_NNS`).
const INTERFACES_MAX: usize = 16;
/// Places in `struct audit_ifaces` (sysdeps/generic/ldsodefs.h): seven callbacks, then
/// `objclose`, then the next interface; pointers all.
const SYMBIND: u64 = 4;
const NEXT: u64 = 8;
/// Bytes of an environment looked through.
const ENVIRON_MAX: u64 = 2 << 20;

/// The audit state of a process; `None` where its loader does not show where it keeps it, or none
/// is active.
pub(super) fn look(
    process: &Process,
    linked: &Linked,
    layout: &Layout,
) -> Result<Option<Audit>, VerifyError> {
    let Some(vaddr) = linked.loader.elf.audit_count else { return Ok(None) };
    let at = layout.width.add(linked.base, vaddr);
    let gone = |_| VerifyError::Gone { pid: process.pid };
    let mut word = [0; 4];
    process.read(at, &mut word).map_err(gone)?;
    let count = u32::from_le_bytes(word);
    if count == 0 {
        return Ok(None);
    }
    // The list may be anything, even if the count was set by the loader.
    let width = layout.width;
    let word = |addr| process.read_word(addr, width).unwrap_or(0);
    let mut interface = word(at.wrapping_sub(width.bytes()));
    let mut callbacks = Vec::new();
    for _ in 0..INTERFACES_MAX {
        if interface == 0 {
            break;
        }
        let symbind = word(interface.wrapping_add(SYMBIND * width.bytes()));
        if symbind != 0 {
            callbacks.push(target::name(process, layout, symbind));
        }
        interface = word(interface.wrapping_add(NEXT * width.bytes()));
    }
    Ok(Some(Audit { count, callbacks, requested: requested(process, layout) }))
}

/// `LD_AUDIT` in the environment it was started with, or the program's own `DT_AUDIT`.
fn requested(process: &Process, layout: &Layout) -> Option<AuditRequest> {
    let program = layout.modules.first();
    if let Some(Kind::Object(loaded)) = program.map(|module| &module.kind)
        && [DT_AUDIT, DT_DEPAUDIT].iter().any(|tag| loaded.elf.dynamic.tag(*tag).is_some())
    {
        return Some(AuditRequest::Program);
    }
    let environ = process.environ(ENVIRON_MAX).unwrap_or_default();
    let asks = |text: &[u8]| text.strip_prefix(b"LD_AUDIT=").is_some_and(|value| !value.is_empty());
    environ.split(|byte| *byte == 0).any(asks).then_some(AuditRequest::Environment)
}
