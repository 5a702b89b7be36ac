//! Code that guarded programs map: where, while they are linked; and afterwards who asked for it.
//!
//! After linking, somebody called `dlopen`, and his return address lies on the stack. A breakpoint in
//! the loader would tell him at once, and would cost every exec on the host 3 %; so the stack is
//! looked at when the mapping is made. A stack holds secrets: see [`Opened`] for what is sent of it.

use core::ptr::{read_volatile, write_volatile};

use sensor_common::record::{FileKey, Modules, Opened, Placement, STACK_WORDS};
use sensor_common::{Counter, Role};

use crate::emit::{begin, count, ring_for};
use crate::kernel::copy;
use crate::kernel::task::{Bounds, Task};
use crate::maps::{MODULES, linking, modules};
use crate::regs::Syscall;
use crate::state::ModulesState;
use crate::user::{UserPtr, at_most};

/// What is looked at of a stack, bytes, a power of two.
const STACK_BYTES: usize = STACK_WORDS * 8;
const PAGE: u64 = 4096;
/// How far from the kernel's own place for mappings an address counts as one, either way.
const MAPPINGS: u64 = 4 << 30;
/// Longest distance from a program's code to the end of its heap that is not mere chance.
const PROGRAM: u64 = 16 << 30;

/// The value of a process that has just started: too large for a program's stack.
static BLANK: ModulesState = ModulesState::BLANK;

/// A guarded program starts.
#[inline(always)]
pub fn start(tgid: u32, task: Task<true>, exe: &FileKey) {
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be copied to the stack, which has no room for it"
    )]
    let inserted = MODULES.insert(tgid, &BLANK, 0);
    if inserted.is_err() {
        count(Counter::StateFull);
    }
    let Some(state) = modules(tgid) else { return };
    let bounds = task.bounds();
    let len = bounds.end_code.wrapping_sub(bounds.start_code);
    add(state, exe, bounds.start_code, len, 0);
}

/// A guarded program maps `file` executable by this call.
#[inline(never)]
pub fn note(tgid: u32, role: Role, file: &FileKey, call: Syscall) {
    // What is needed from the start is mapped before the first of it is relocated and sealed; but
    // audit libraries are linked each on its own.
    if let Some(link) = linking(tgid)
        && (link.count == 0 || link.audited != 0)
    {
        let Some(state) = modules(tgid) else { return };
        let (start, len) = (call.arg_or_zero::<0>(), call.arg_or_zero::<1>());
        add(state, file, start, len, call.arg_or_zero::<5>());
        return;
    }
    tell(role, file, call);
}

/// Linking is over.
#[inline(always)]
pub fn linked(tgid: u32, role: Role, is_told: bool) {
    let Some(state) = modules(tgid) else { return };
    if is_told && let Some(mut record) = begin::<Modules>(ring_for(role), role) {
        record.count = state.count;
        record.overflow = state.overflow;
        if copy(&mut record.placed, &state.placed).is_none() {
            record.count = 0;
            count(Counter::ReadFailed);
        }
        record.submit();
    }
    // Absent already is as good.
    let _ = MODULES.remove(tgid);
}

#[inline(always)]
fn add(state: &mut ModulesState, file: &FileKey, start: u64, len: u64, offset: u64) {
    let FileKey { ino, dev, generation, .. } = *file;
    match state.placed.get_mut(state.count as usize) {
        Some(slot) => {
            *slot = Placement { start, len, offset, ino, dev, generation };
            state.count += 1;
        }
        None => state.overflow += 1,
    }
}

/// What may leave the kernel: words that may be addresses of code or of the stack.
struct Sieve {
    program: u64,
    program_len: u64,
    mappings: u64,
    mappings_len: u64,
    stack: u64,
    stack_len: u64,
}

impl Sieve {
    /// Where the kernel does not say where something lies, nothing near it passes.
    #[inline(always)]
    fn new(bounds: &Bounds, sp: u64) -> Self {
        let code = bounds.end_code.wrapping_sub(bounds.start_code);
        let heap = bounds.brk.wrapping_sub(bounds.start_code);
        let program_len = if heap < PROGRAM { heap } else { code };
        Self {
            program: bounds.start_code,
            program_len: if program_len < PROGRAM { program_len } else { 0 },
            mappings: bounds.mmap_base.wrapping_sub(MAPPINGS),
            mappings_len: if bounds.mmap_base == 0 { 0 } else { 2 * MAPPINGS },
            stack: sp,
            stack_len: STACK_BYTES as u64,
        }
    }

    /// The word, or 0. Without a branch: each would double the verifier's way through the loop.
    #[inline(always)]
    fn sift(&self, word: u64) -> u64 {
        let word = unsigned(word);
        let is_near = is_in(word, self.program, self.program_len)
            | is_in(word, self.mappings, self.mappings_len)
            | is_in(word, self.stack, self.stack_len);
        word & (is_near & is_no_text(word)).wrapping_neg()
    }
}

/// 1 or 0. `len` is less than half of all addresses.
#[inline(always)]
fn is_in(word: u64, base: u64, len: u64) -> u64 {
    let into = word.wrapping_sub(base);
    (into.wrapping_sub(len) & !into) >> 63
}

/// A return address without the signature that pointer authentication puts into its upper bits.
#[inline(always)]
fn unsigned(word: u64) -> u64 {
    #[cfg(bpf_target_arch = "x86_64")]
    return word;
    #[cfg(bpf_target_arch = "aarch64")]
    return word & ((1 << 48) - 1);
}

/// 1 unless every byte is zero or printable ASCII. No byte carries into the next.
#[inline(always)]
fn is_no_text(word: u64) -> u64 {
    const TOP: u64 = 0x8080_8080_8080_8080;
    let low = word & !TOP;
    let is_set = low.wrapping_add(!TOP);
    let is_from_blank = low.wrapping_add(0x6060_6060_6060_6060);
    let is_delete = low.wrapping_add(0x0101_0101_0101_0101);
    let others = (word | is_delete | (is_set & !is_from_blank)) & TOP;
    (others | others.wrapping_neg()) >> 63
}

/// The fields before the stack, so that nothing but constants live across the loop.
#[inline(always)]
fn tell(role: Role, file: &FileKey, call: Syscall) {
    let Some(task) = Task::current() else { return };
    let bounds = task.bounds();
    let sp = call.sp_or_zero();
    let sieve = Sieve::new(&bounds, sp);
    let Some(mut record) = begin::<Opened>(ring_for(role), role) else { return };
    record.file = *file;
    record.addr = call.arg_or_zero::<0>();
    record.len = call.arg_or_zero::<1>();
    record.ip = call.ip_or_zero();
    record.sp = sp;
    record.fp = sieve.sift(call.fp_or_zero());
    record.lr = sieve.sift(call.lr_or_zero());
    if sp != 0 {
        read(&mut record.words, sp, bounds.start_stack);
        for word in &mut record.words {
            keep(word, &sieve);
        }
    }
    record.submit();
}

/// Volatile, so that the compiler neither unrolls nor reorders what the verifier shall prune.
#[inline(always)]
fn keep(word: &mut u64, sieve: &Sieve) {
    // SAFETY: a live reference.
    let value = unsafe { read_volatile(word) };
    // SAFETY: as above.
    unsafe { write_volatile(word, sieve.sift(value)) };
}

/// Up to what the process was started with. Where the stack ends before, to the end of its page.
#[inline(always)]
fn read(words: &mut [u64; STACK_WORDS], sp: u64, start_stack: u64) {
    // SAFETY: the same bytes; any are valid as both.
    let bytes = unsafe { &mut *core::ptr::from_mut(words).cast::<[u8; STACK_BYTES]>() };
    let len = at_most::<STACK_BYTES>(start_stack.wrapping_sub(sp));
    if UserPtr(sp).read_bytes_into(bytes, len).is_some() {
        return;
    }
    let len = at_most::<STACK_BYTES>(PAGE - sp % PAGE);
    if UserPtr(sp).read_bytes_into(bytes, len).is_none() {
        count(Counter::ReadFailed);
    }
}
