//! The variables the dynamic loader obeys, in the environment of a new program.
//!
//! Only a variable that matches is ever read beyond its first 16 bytes: the rest of the environment
//! holds secrets.

use sensor_common::record::{
    ENV_GLIBC_TUNABLES, ENV_LD_AUDIT, ENV_LD_LIBRARY_PATH, ENV_LD_OTHER, ENV_LD_PRELOAD,
    ENV_TRUNCATED, Env,
};
use sensor_common::{Counter, Role};

use crate::emit::{begin, count, ring_for};
use crate::kernel::task::Task;
use crate::user::UserPtr;

/// Variables looked at. Beyond it the record says so.
const VARIABLES: u64 = 256;

/// Scans the environment, sends one [`Env`] per match and returns the bits of all.
///
/// A new program's stack holds `argc`, `argv[argc]`, a null, `envp[]`, a null
/// (fs/binfmt_elf.c `create_elf_tables`).
#[inline(never)]
pub fn scan(task: Task, role: Role) -> u32 {
    let Some(stack) = task.start_stack() else { return ENV_TRUNCATED };
    let Some(first) = UserPtr(stack).read::<u64>() else { return ENV_TRUNCATED };
    // In a 32-bit program the upper half is `argv[0]`, which is never null there.
    let width = if first >> 32 == 0 { 8 } else { 4 };
    let mask = if width == 8 { u64::MAX } else { u64::from(u32::MAX) };
    let envp = UserPtr(stack).offset(((first & mask & 0xffff_ffff) + 2) * width);
    let mut found = 0;
    for index in 0..VARIABLES {
        let Some(pointer) = envp.offset(index * width).read::<u64>() else { break };
        let text = UserPtr(pointer & mask);
        if text.0 == 0 {
            return found;
        }
        let Some(name) = text.read::<u64>() else { continue };
        let variable = classify(text, name);
        if variable != 0 {
            found |= variable;
            send(text, variable, role);
        }
    }
    count(Counter::EnvTruncated);
    found | ENV_TRUNCATED
}

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*text)
}

/// The variable's bit, or 0. `head` is the first eight bytes of `text`.
#[inline(always)]
fn classify(text: UserPtr, head: u64) -> u32 {
    const LD_PRELOAD: u64 = word(b"LD_PRELO");
    const LD_AUDIT: u64 = word(b"LD_AUDIT");
    const LD_LIBRARY_PATH: u64 = word(b"LD_LIBRA");
    const GLIBC_TUNABLES: u64 = word(b"GLIBC_TU");
    // LD_DEBUG(_OUTPUT), LD_PROFILE(_OUTPUT), LD_BIND_NOW, LD_BIND_NOT, LD_DYNAMIC_WEAK,
    // LD_TRACE_LOADED_OBJECTS, LD_HWCAP_MASK, LD_ORIGIN_PATH, LD_PREFER_MAP_32BIT_EXEC: all that
    // glibc's rtld.c process_envvars obeys and that changes how linking runs.
    const OTHER: [u64; 8] = [
        word(b"LD_DEBUG"),
        word(b"LD_PROFI"),
        word(b"LD_BIND_"),
        word(b"LD_DYNAM"),
        word(b"LD_TRACE"),
        word(b"LD_HWCAP"),
        word(b"LD_ORIGI"),
        word(b"LD_PREFE"),
    ];
    let (rest, bytes, bit) = match head {
        LD_PRELOAD => (*b"AD=\0\0\0\0\0", 3, ENV_LD_PRELOAD),
        LD_AUDIT => (*b"=\0\0\0\0\0\0\0", 1, ENV_LD_AUDIT),
        LD_LIBRARY_PATH => (*b"RY_PATH=", 8, ENV_LD_LIBRARY_PATH),
        GLIBC_TUNABLES => (*b"NABLES=\0", 7, ENV_GLIBC_TUNABLES),
        head if OTHER.contains(&head) => return ENV_LD_OTHER,
        _ => return 0,
    };
    let Some(tail) = text.offset(8).read::<u64>() else { return 0 };
    let compared = u64::MAX >> (64 - 8 * bytes);
    if tail & compared == u64::from_ne_bytes(rest) { bit } else { 0 }
}

#[inline(never)]
fn send(text: UserPtr, variable: u32, role: Role) {
    let Some(mut record) = begin::<Env>(ring_for(role), role) else { return };
    record.variable = variable;
    if let Some(len) = text.read_str(&mut record.text) {
        // The NUL is not part of it.
        record.len = (len as u32).saturating_sub(1);
    }
    record.submit();
}
