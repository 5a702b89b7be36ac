//! User memory of the current process as typed addresses: the only caller of
//! `bpf_probe_read_user*`.
//!
//! Nothing is faulted in: memory that is not present reads as `None`.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};
use zerocopy::FromBytes;

/// An address the process chose.
#[derive(Clone, Copy)]
pub struct UserPtr(pub u64);

impl UserPtr {
    #[inline(always)]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    #[inline(always)]
    pub fn read<T: FromBytes>(self) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper checks the source and writes exactly `size_of::<T>()` bytes to ours.
        let failed = unsafe {
            bpf_probe_read_user(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                self.0 as *const _,
            )
        };
        if failed != 0 {
            return None;
        }
        // SAFETY: the helper has written all of it, and any bytes are a `T: FromBytes`.
        Some(unsafe { value.assume_init() })
    }

    /// Fills the first `len` bytes of `into`, which the verifier must be able to bound.
    #[inline(always)]
    pub fn read_bytes_into<const N: usize>(self, into: &mut [u8; N], len: usize) -> Option<()> {
        into.get_mut(..len).and_then(|into| self.read_bytes(into))
    }

    /// Fills `into`, whose length the verifier must be able to bound.
    #[inline(always)]
    pub fn read_bytes(self, into: &mut [u8]) -> Option<()> {
        // SAFETY: the helper checks the source and writes exactly `into.len()` bytes.
        let failed = unsafe {
            bpf_probe_read_user(into.as_mut_ptr().cast(), into.len() as u32, self.0 as *const _)
        };
        (failed == 0).then_some(())
    }

    /// Copies a NUL-terminated string; the length includes the NUL, which is always written.
    #[inline(always)]
    pub fn read_str(self, into: &mut [u8]) -> Option<u64> {
        // SAFETY: the helper checks the source and writes at most `into.len()` bytes.
        let len = unsafe {
            bpf_probe_read_user_str(into.as_mut_ptr().cast(), into.len() as u32, self.0 as *const _)
        };
        u64::try_from(len).ok()
    }
}

/// `len`, but at most `MAX` (a power of two), in a way the verifier of 5.10 sees too: it forgets
/// what it knew of a number that the compiler has moved to the stack and back, so the comparison
/// must stand right before the use.
#[inline(always)]
pub fn at_most<const MAX: usize>(mut len: u64) -> usize {
    // SAFETY: registers only.
    unsafe {
        asm!(
            "if {len} <= {max} goto +1",
            "{len} = {max}",
            len = inout(reg) len,
            max = const MAX,
        );
    }
    len as usize
}
