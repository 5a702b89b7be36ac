//! The variables the dynamic loader obeys, in the environment of a new program, however long it is.
//!
//! The environment holds secrets: it is looked at in a window that is wiped afterwards, and only
//! variables that match are sent.
//!
//! The verifier walks every turn of a loop, so the program looks at so many variables and hands over
//! to itself (a tail call), up to the kernel's limit of 33 times. What is found lies in map memory,
//! where one state covers every combination. It calls no function of its own: kernels before 6.0
//! refuse that together with tail calls on aarch64.

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use sensor_common::record::{
    ENV_GCONV_PATH, ENV_GLIBC_TUNABLES, ENV_LD_AUDIT, ENV_LD_LIBRARY_PATH, ENV_LD_OTHER,
    ENV_LD_PRELOAD, ENV_TRUNCATED, Env,
};
use sensor_common::{Counter, Role};

use super::{current_tgid, finish, role_of};
use crate::emit::{begin, count, ring_for, wipe};
use crate::kernel::task::Task;
use crate::maps::{ENVIRON, NEXT, linking};
use crate::user::{UserPtr, at_most};

/// Pointers read at once.
const POINTERS: u64 = 32;
/// The same, bytes, a power of two.
const BATCH: usize = 8 * POINTERS as usize;
/// Batches looked at between two tail calls: 256 variables, in all some 8,500.
const BATCHES: u64 = 8;
/// Candidates kept of one look; where there are more, the next look takes them up.
const CANDIDATES: usize = 16;
/// Bytes of the strings read at once, a power of two.
const WINDOW: usize = 2048;
/// Bytes compared in the loop.
const HEAD: usize = 8;

/// The end was reached.
const DONE: u32 = 0;
/// There may be more.
const MORE: u32 = 1;
/// It cannot be read: it was swapped out, for instance.
const UNREAD: u32 = 2;

/// How far a look has come, what it found, and its room.
///
/// One per CPU: no other start of a program comes between on one CPU, since a tracepoint's programs
/// are not preempted, or where they are (RT kernels from 7.0 on), the kernel skips a program that
/// already runs on the CPU and counts it as missed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scan {
    /// Where the next pointer lies.
    next: u64,
    /// A pointer has `1 << shift` bytes.
    shift: u64,
    /// What may be read ends here.
    end: u64,
    /// Where `window` starts in the process, and how many of its bytes were read.
    start: u64,
    len: u64,
    /// How many bytes of `window` must be wiped.
    dirty: u64,
    state: u32,
    count: u32,
    addresses: [u64; CANDIDATES],
    window: [u8; WINDOW + HEAD],
    /// With room to read eight bytes at the last pointer of a 32-bit program.
    batch: [u8; BATCH + HEAD],
}

impl Scan {
    #[inline(always)]
    fn add(&mut self, address: u64) -> bool {
        let count = load(&self.count);
        if let Some(slot) = self.addresses.get_mut(count as usize % CANDIDATES) {
            store(slot, address);
        }
        store(&mut self.count, count.wrapping_add(1));
        count as usize >= CANDIDATES - 1
    }

    /// The first eight bytes of a string, which mostly lies where the one before was found.
    #[inline(always)]
    fn head(&mut self, text: UserPtr) -> u64 {
        let mut at = text.0.wrapping_sub(load(&self.start));
        let left = load(&self.len).wrapping_sub(HEAD as u64);
        if at > left || left > WINDOW as u64 {
            let len = at_most::<WINDOW>(load(&self.end).wrapping_sub(text.0));
            if text.read_bytes_into(&mut self.window, len).is_none() {
                store(&mut self.len, 0);
                return match text.read() {
                    Some(head) => head,
                    None => {
                        store(&mut self.state, UNREAD);
                        0
                    }
                };
            }
            store(&mut self.start, text.0);
            store(&mut self.len, len as u64);
            let dirty = load(&self.dirty);
            store(&mut self.dirty, dirty | len as u64);
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
///
/// By one load: the compiler takes eight for bytes that may lie anywhere, and every kernel that
/// matters allows one (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`).
#[inline(always)]
fn word_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let Some(from) = bytes.get(at..at + HEAD) else { return 0 };
    let word: u64;
    // SAFETY: eight bytes of a live slice, wherever they start.
    unsafe {
        asm!(
            "{word} = *(u64 *)({from} + 0)",
            word = out(reg) word,
            from = in(reg) from.as_ptr(),
            options(nostack, readonly),
        );
    }
    word
}

/// The same tracepoint as `process_exec`, and attached after it, so it runs after it and its records
/// follow the [`Exec`](sensor_common::record::Exec).
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_environ(ctx: RawTracePointContext) -> i32 {
    finish(try_environ(&ctx))
}

#[inline(always)]
fn try_environ(ctx: &RawTracePointContext) -> Option<()> {
    let tgid = current_tgid();
    let scan = ENVIRON.get_ptr_mut(0)?;
    // SAFETY: a live map value of any bytes, which one program uses at a time.
    let scan = unsafe { &mut *scan };
    if load(&scan.state) != MORE {
        begin_look(Task::current()?, scan);
    }
    if load(&scan.state) == MORE {
        look(scan);
    }
    let role = role_of(tgid);
    let bits = tell(scan, role);
    if bits & ENV_LD_AUDIT != 0
        && let Some(state) = linking(tgid)
    {
        state.audited = 1;
    }
    if load(&scan.state) == MORE {
        // SAFETY: nothing here has a destructor. It only returns where nobody takes over.
        unsafe { NEXT.tail_call(ctx, 0) };
        store(&mut scan.state, UNREAD);
    }
    if load(&scan.state) == UNREAD {
        count(Counter::EnvTruncated);
        let Some(mut record) = begin::<Env>(ring_for(role), role) else { return Some(()) };
        record.variable = ENV_TRUNCATED;
        record.submit();
    }
    Some(())
}

/// Finds the environment of the program that has just started.
#[inline(always)]
fn begin_look(task: Task<true>, scan: &mut Scan) {
    store(&mut scan.count, 0);
    let state = find(task, scan).unwrap_or(UNREAD);
    store(&mut scan.state, state);
}

/// Its stack holds `argc`, `argv[argc]`, a null, `envp[]`, a null (fs/binfmt_elf.c
/// `create_elf_tables`); the strings lie above, one after the other, and above them the program's
/// name and a null of eight bytes.
#[inline(always)]
fn find(task: Task<true>, scan: &mut Scan) -> Option<u32> {
    let (stack, start, end) = task.environ()?;
    if start == end {
        return Some(DONE);
    }
    let stack = UserPtr(stack);
    let argc = u64::from(stack.read::<u32>()?);
    // The first pointer of `envp` leads to the first string. In a 64-bit program this place holds
    // the upper half of an argument's address, or of the null.
    let narrow = u64::from(stack.offset((argc + 2) << 2).read::<u32>()?);
    // Arithmetic, since two branches would be twice the states.
    let other = narrow ^ start;
    let shift = 2 + ((other | other.wrapping_neg()) >> 63);
    store(&mut scan.next, stack.0.wrapping_add((argc + 2) << shift));
    store(&mut scan.shift, shift);
    store(&mut scan.end, end.wrapping_add(HEAD as u64));
    Some(MORE)
}

/// Looks at the next variables.
#[inline(always)]
fn look(scan: &mut Scan) {
    let end = try_look(scan).unwrap_or(UNREAD);
    if load(&scan.state) == MORE {
        store(&mut scan.state, end);
    }
    wipe(&mut scan.window, at_most::<WINDOW>(load(&scan.dirty)));
    store(&mut scan.len, 0);
    store(&mut scan.dirty, 0);
}

#[inline(always)]
fn try_look(scan: &mut Scan) -> Option<u32> {
    let shift = load(&scan.shift) & 3;
    let mask = u64::MAX >> ((3 - shift) << 5 & 63);
    for _ in 0..BATCHES {
        let from = load(&scan.next);
        let left = load(&scan.end).wrapping_sub(from);
        let len = at_most::<BATCH>(smaller(left, POINTERS << shift));
        UserPtr(from).read_bytes_into(&mut scan.batch, len)?;
        for index in 0..POINTERS {
            let at = index << shift;
            let text = UserPtr(word_at(&scan.batch, at_most::<BATCH>(at)) & mask);
            if text.0 == 0 {
                return Some(DONE);
            }
            if is_candidate(scan.head(text)) && scan.add(text.0) {
                store(&mut scan.next, from.wrapping_add((index + 1) << shift));
                return Some(MORE);
            }
        }
        store(&mut scan.next, from.wrapping_add(POINTERS << shift));
    }
    Some(MORE)
}

/// Without a branch, which would be twice the states.
///
/// No more is read than is looked at: behind the pointers lies the auxiliary vector, at least as long as
/// a batch of them, and then, as the kernel places the stack at random, up to two pages that nobody
/// has written yet and that cannot be read.
#[inline(always)]
fn smaller(one: u64, other: u64) -> u64 {
    let more = one.wrapping_sub(other);
    let is_less = ((more as i64) >> 63) as u64;
    other.wrapping_add(more & is_less)
}

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*text)
}

const LD_PRELOAD: u64 = word(b"LD_PRELO");
const LD_AUDIT: u64 = word(b"LD_AUDIT");
const LD_LIBRARY_PATH: u64 = word(b"LD_LIBRA");
const GLIBC_TUNABLES: u64 = word(b"GLIBC_TU");
const GCONV_PATH: u64 = word(b"GCONV_PA");
// All else that glibc's elf/rtld.c `process_envvars` obeys or has obeyed: LD_DEBUG(_OUTPUT),
// LD_PROFILE(_OUTPUT), LD_BIND_NOW, LD_BIND_NOT, LD_DYNAMIC_WEAK, LD_TRACE_LOADED_OBJECTS,
// LD_TRACE_PRELINKING, LD_HWCAP_MASK, LD_ORIGIN_PATH, LD_PREFER_MAP_32BIT_EXEC, LD_SHOW_AUXV,
// LD_USE_LOAD_BIAS, LD_VERBOSE, LD_WARN, LD_ASSUME_KERNEL, LD_POINTER_GUARD. The agent knows the
// whole names. musl's ldso/dynlink.c obeys LD_PRELOAD and LD_LIBRARY_PATH alone.
const LD_DEBUG: u64 = word(b"LD_DEBUG");
const LD_PROFILE: u64 = word(b"LD_PROFI");
const LD_BIND: u64 = word(b"LD_BIND_");
const LD_DYNAMIC_WEAK: u64 = word(b"LD_DYNAM");
const LD_TRACE: u64 = word(b"LD_TRACE");
const LD_HWCAP_MASK: u64 = word(b"LD_HWCAP");
const LD_ORIGIN_PATH: u64 = word(b"LD_ORIGI");
const LD_PREFER: u64 = word(b"LD_PREFE");
const LD_SHOW_AUXV: u64 = word(b"LD_SHOW_");
const LD_USE_LOAD_BIAS: u64 = word(b"LD_USE_L");
const LD_VERBOSE: u64 = word(b"LD_VERBO");
const LD_WARN: u64 = word(b"LD_WARN=");
const LD_ASSUME_KERNEL: u64 = word(b"LD_ASSUM");
const LD_POINTER_GUARD: u64 = word(b"LD_POINT");

/// Asked of every variable, so with few comparisons.
#[inline(always)]
fn is_candidate(head: u64) -> bool {
    const PREFIX: u64 = 0xff_ffff;
    head & PREFIX == word(b"LD_\0\0\0\0\0") || matches!(head, GLIBC_TUNABLES | GCONV_PATH)
}

#[inline(always)]
fn is_other(head: u64) -> bool {
    matches!(
        head,
        LD_DEBUG
            | LD_PROFILE
            | LD_BIND
            | LD_DYNAMIC_WEAK
            | LD_TRACE
            | LD_HWCAP_MASK
            | LD_ORIGIN_PATH
            | LD_PREFER
            | LD_SHOW_AUXV
            | LD_USE_LOAD_BIAS
            | LD_VERBOSE
            | LD_WARN
            | LD_ASSUME_KERNEL
            | LD_POINTER_GUARD
    )
}

/// Sends one [`Env`] per variable that the loader obeys, and returns their bits.
#[inline(always)]
fn tell(scan: &mut Scan, role: Role) -> u32 {
    let mut bits = 0;
    let count = load(&scan.count);
    store(&mut scan.count, 0);
    for (index, address) in scan.addresses.iter().enumerate() {
        if index as u32 >= count {
            break;
        }
        let text = UserPtr(load(address));
        let bit = classify(text);
        if bit != 0 {
            let before = load(&bits);
            store(&mut bits, before | bit);
            send(text, bit, role);
        }
    }
    load(&bits)
}

/// The variable's bit, or 0.
#[inline(always)]
fn classify(text: UserPtr) -> u32 {
    let (bit, rest, bytes) = match text.read().unwrap_or(0) {
        LD_PRELOAD => (ENV_LD_PRELOAD, *b"AD=\0\0\0\0\0", 3),
        LD_AUDIT => (ENV_LD_AUDIT, *b"=\0\0\0\0\0\0\0", 1),
        LD_LIBRARY_PATH => (ENV_LD_LIBRARY_PATH, *b"RY_PATH=", 8),
        GLIBC_TUNABLES => (ENV_GLIBC_TUNABLES, *b"NABLES=\0", 7),
        GCONV_PATH => (ENV_GCONV_PATH, *b"TH=\0\0\0\0\0", 3),
        head if is_other(head) => return ENV_LD_OTHER,
        _ => return 0,
    };
    let Some(tail) = text.offset(8).read::<u64>() else { return 0 };
    let compared = u64::MAX >> (64 - 8 * bytes);
    if tail & compared == word(&rest) { bit } else { 0 }
}

#[inline(always)]
fn send(text: UserPtr, variable: u32, role: Role) {
    let Some(mut record) = begin::<Env>(ring_for(role), role) else { return };
    record.variable = variable;
    if let Some(len) = text.read_str(&mut record.text) {
        // The NUL is not part of it.
        record.len = (len as u32).saturating_sub(1);
    }
    record.submit();
}
