//! What is sent of a user stack: see [`sensor_common::record::Opened`].

use core::ptr::{read_volatile, write_volatile};

use sensor_common::Counter;

use crate::emit::count;
use crate::kernel::task::Bounds;
use crate::user::{UserPtr, at_most};

const PAGE: u64 = 4096;
/// How far from the kernel's own place for mappings an address counts as one, either way.
const MAPPINGS: u64 = 4 << 30;
/// Longest distance from a program's code to the end of its heap that is not mere chance.
const PROGRAM: u64 = 16 << 30;
/// From here on a program lies where chance put it; below, three letters are an address in it.
const RANDOM: u64 = 1 << 32;

/// What may leave the kernel: words that may be addresses of code or of the stack.
pub struct Sieve {
    program: u64,
    program_len: u64,
    code_len: u64,
    mappings: u64,
    mappings_len: u64,
    stack: u64,
    stack_len: u64,
}

impl Sieve {
    /// Where the kernel does not say where something lies, nothing near it passes. Without a branch, as
    /// below.
    #[inline(always)]
    pub fn new(bounds: &Bounds, sp: u64, stack_len: u64) -> Self {
        let code = bounds.end_code.wrapping_sub(bounds.start_code);
        let heap = bounds.brk.wrapping_sub(bounds.start_code);
        let is_heap = mask(is_below(heap, PROGRAM));
        let code = code & mask(is_below(code, PROGRAM));
        let is_placed_by_chance = mask(is_below(bounds.start_code, RANDOM) ^ 1);
        Self {
            program: bounds.start_code,
            program_len: (heap & is_heap) | (code & !is_heap),
            code_len: code & is_placed_by_chance,
            mappings: bounds.mmap_base.wrapping_sub(MAPPINGS),
            mappings_len: (2 * MAPPINGS) & mask(is_below(bounds.mmap_base, 1) ^ 1),
            stack: sp,
            stack_len,
        }
    }

    /// The word, or 0. Without a branch: each would double the verifier's way through the loop.
    #[inline(always)]
    pub fn sift(&self, word: u64) -> u64 {
        let word = unsigned(word);
        let is_near = is_in(word, self.program, self.program_len)
            | is_in(word, self.mappings, self.mappings_len)
            | is_in(word, self.stack, self.stack_len);
        // One address in fifty of a program at 0x55.. reads as text. That six letters of a secret
        // are one in its code is a chance of one in millions, and then they say where that lies.
        let is_code = is_in(word, self.program, self.code_len);
        word & mask(is_code | (is_near & is_no_text(word)))
    }
}

/// 1 or 0.
#[inline(always)]
fn is_in(word: u64, base: u64, len: u64) -> u64 {
    is_below(word.wrapping_sub(base), len)
}

/// 1 or 0. `limit` is at most half of all numbers.
#[inline(always)]
fn is_below(number: u64, limit: u64) -> u64 {
    (number.wrapping_sub(limit) & !number) >> 63
}

/// All bits of a 1, none of a 0.
#[inline(always)]
fn mask(bit: u64) -> u64 {
    bit.wrapping_neg()
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

/// Reads the stack from `sp` up, and keeps what may leave the kernel. `BYTES` are those of `WORDS`, a
/// power of two.
#[inline(always)]
pub fn read<const WORDS: usize, const BYTES: usize>(
    words: &mut [u64; WORDS],
    sp: u64,
    bounds: &Bounds,
    sieve: &Sieve,
) {
    fill::<WORDS, BYTES>(words, sp, bounds.start_stack);
    for word in words {
        keep(word, sieve);
    }
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
fn fill<const WORDS: usize, const BYTES: usize>(
    words: &mut [u64; WORDS],
    sp: u64,
    start_stack: u64,
) {
    const { assert!(BYTES == WORDS * 8) };
    // SAFETY: the same bytes; any are valid as both.
    let bytes = unsafe { &mut *core::ptr::from_mut(words).cast::<[u8; BYTES]>() };
    let len = at_most::<BYTES>(start_stack.wrapping_sub(sp));
    if UserPtr(sp).read_bytes_into(bytes, len).is_some() {
        return;
    }
    let len = at_most::<BYTES>(PAGE - sp % PAGE);
    if UserPtr(sp).read_bytes_into(bytes, len).is_none() {
        count(Counter::ReadFailed);
    }
}
