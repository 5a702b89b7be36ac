//! The variables the dynamic loader obeys, in the environment of a new program.
//!
//! The environment holds secrets: it is looked at in a window that is wiped afterwards, and only
//! variables that match are sent.
//!
//! The scan is in two steps because of the verifier: the loop over all variables stays small, and
//! what it finds lies in map memory, where one state covers every combination.

use core::ptr::{read_volatile, write_volatile};

use sensor_common::record::{
    ENV_GLIBC_TUNABLES, ENV_LD_AUDIT, ENV_LD_LIBRARY_PATH, ENV_LD_OTHER, ENV_LD_PRELOAD,
    ENV_TRUNCATED, Env,
};
use sensor_common::{Counter, Role};

use crate::emit::{begin, count, ring_for, wipe};
use crate::kernel::task::Task;
use crate::user::{UserPtr, at_most};

/// Variables looked at. Beyond it the record says so.
const VARIABLES: u64 = 256;
/// Candidates kept, a power of two. Beyond it the record says so.
const CANDIDATES: usize = 16;
/// Bytes of the strings read at once, a power of two.
const WINDOW: usize = 512;
/// Bytes of pointers read at once, a power of two.
const BATCH: usize = 64;
/// Bytes compared in the loop.
const HEAD: usize = 8;

/// Variables that begin like those of the loader, and room to look for them. In a process's state:
/// two programs may start on one CPU at once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scan {
    /// How many there are; more than [`CANDIDATES`] where some have been overwritten.
    count: u32,
    /// 1 if the end of the environment was not reached.
    truncated: u32,
    addresses: [u64; CANDIDATES],
    /// Where `window` starts in the process, and how many of its bytes were read.
    start: u64,
    len: u64,
    window: [u8; WINDOW + HEAD],
    /// With room to read eight bytes at the last pointer of a 32-bit program.
    batch: [u8; BATCH + HEAD],
}

impl Scan {
    pub const NONE: Self = Self {
        count: 0,
        truncated: 0,
        addresses: [0; CANDIDATES],
        start: 0,
        len: 0,
        window: [0; WINDOW + HEAD],
        batch: [0; BATCH + HEAD],
    };

    #[inline(always)]
    fn add(&mut self, address: u64) {
        let count = load(&self.count);
        store(&mut self.count, count.wrapping_add(1));
        if let Some(slot) = self.addresses.get_mut(count as usize % CANDIDATES) {
            store(slot, address);
        }
    }

    /// The first eight bytes of a string, which mostly lies where the one before was found.
    #[inline(always)]
    fn head(&mut self, text: UserPtr, end: u64) -> u64 {
        let mut at = text.0.wrapping_sub(load(&self.start));
        let left = load(&self.len).wrapping_sub(HEAD as u64);
        if at > left || left > WINDOW as u64 {
            let len = at_most::<WINDOW>(end.wrapping_sub(text.0));
            if text.read_bytes_into(&mut self.window, len).is_none() {
                store(&mut self.len, 0);
                return text.read().unwrap_or(0);
            }
            store(&mut self.start, text.0);
            store(&mut self.len, len as u64);
            at = 0;
        }
        word_at(&self.window, at_most::<WINDOW>(at))
    }
}

/// Keeps the compiler from holding map memory in registers across the loop.
#[inline(always)]
fn load<T: Copy>(from: &T) -> T {
    // SAFETY: a live reference.
    unsafe { read_volatile(from) }
}

#[inline(always)]
fn store<T>(to: &mut T, value: T) {
    // SAFETY: a live reference.
    unsafe { write_volatile(to, value) }
}

/// The eight bytes at an offset, or 0 beyond the end.
#[inline(always)]
fn word_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    match bytes.get(at..at + HEAD) {
        // SAFETY: eight bytes of a live slice, wherever they start.
        Some(word) => unsafe { word.as_ptr().cast::<u64>().read_unaligned() },
        None => 0,
    }
}

/// Notes the candidates of the program that has just started.
///
/// Its stack holds `argc`, `argv[argc]`, a null, `envp[]`, a null (fs/binfmt_elf.c
/// `create_elf_tables`); the strings lie above, one after the other.
#[inline(always)]
pub fn look(task: Task, scan: &mut Scan) {
    if try_look(task, scan).is_none() {
        store(&mut scan.truncated, 1);
        count(Counter::EnvTruncated);
    }
    wipe(&mut scan.window);
}

/// `None` where the end was not reached.
#[inline(always)]
fn try_look(task: Task, scan: &mut Scan) -> Option<()> {
    const PREFIX: u64 = 0xff_ffff;
    let stack = UserPtr(task.start_stack()?);
    let end = task.environ_end()?;
    let first: u64 = stack.read()?;
    // In a 32-bit program the upper half is `argv[0]`, which is never null there. Arithmetic, since
    // two branches would be twice the states.
    let is_32_bit = ((first >> 32) + 0xffff_ffff) >> 32;
    let (shift, mask) = (3 - is_32_bit, u64::MAX >> (is_32_bit * 32));
    let argc = first & 0xffff_ffff;
    let envp = stack.offset((argc + 2) << shift);
    for index in 0..VARIABLES {
        let at = index << shift;
        let in_batch = at & (BATCH as u64 - 1);
        if in_batch == 0 {
            envp.offset(at).read_bytes_into(&mut scan.batch, BATCH)?;
        }
        let text = UserPtr(word_at(&scan.batch, at_most::<BATCH>(in_batch)) & mask);
        if text.0 == 0 {
            return Some(());
        }
        let head = scan.head(text, end);
        if head & PREFIX == word(b"LD_\0\0\0\0\0") || head == word(b"GLIBC_TU") {
            scan.add(text.0);
        }
    }
    None
}

/// Sends one [`Env`] per variable that the loader obeys, and sets the bits of all in `bits`.
#[inline(always)]
pub fn tell(found: &Scan, role: Role, bits: &mut u32) {
    if load(&found.truncated) != 0 || load(&found.count) > CANDIDATES as u32 {
        store(bits, ENV_TRUNCATED);
    }
    for address in &found.addresses {
        let text = UserPtr(load(address));
        if text.0 == 0 {
            continue;
        }
        let bit = classify(text);
        if bit != 0 {
            let before = load(bits);
            store(bits, before | bit);
            send(text, bit, role);
        }
    }
}

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*text)
}

/// The variable's bit, or 0.
#[inline(always)]
fn classify(text: UserPtr) -> u32 {
    const LD_PRELOAD: u64 = word(b"LD_PRELO");
    const LD_AUDIT: u64 = word(b"LD_AUDIT");
    const LD_LIBRARY_PATH: u64 = word(b"LD_LIBRA");
    const GLIBC_TUNABLES: u64 = word(b"GLIBC_TU");
    // LD_DEBUG(_OUTPUT), LD_PROFILE(_OUTPUT), LD_BIND_NOW, LD_BIND_NOT, LD_DYNAMIC_WEAK,
    // LD_TRACE_LOADED_OBJECTS, LD_HWCAP_MASK, LD_ORIGIN_PATH, LD_PREFER_MAP_32BIT_EXEC: all that
    // glibc's elf/rtld.c `process_envvars` obeys and that changes how linking runs.
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
    let (bit, rest, bytes) = match text.read().unwrap_or(0) {
        LD_PRELOAD => (ENV_LD_PRELOAD, *b"AD=\0\0\0\0\0", 3),
        LD_AUDIT => (ENV_LD_AUDIT, *b"=\0\0\0\0\0\0\0", 1),
        LD_LIBRARY_PATH => (ENV_LD_LIBRARY_PATH, *b"RY_PATH=", 8),
        GLIBC_TUNABLES => (ENV_GLIBC_TUNABLES, *b"NABLES=\0", 7),
        head if OTHER.contains(&head) => return ENV_LD_OTHER,
        _ => return 0,
    };
    let Some(tail) = text.offset(8).read::<u64>() else { return 0 };
    let compared = u64::MAX >> (64 - 8 * bytes);
    if tail & compared == word(&rest) { bit } else { 0 }
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
