//! Kernel memory as addresses of two kinds: the only caller of `bpf_probe_read_kernel*`.
//!
//! A plain address is read by the helper, which fails where the address is wrong. A *typed* one is
//! what the verifier knows to be a certain struct, because it was reached from the current task by
//! members alone: it is read by a load, for which the kernel has a fault handler that yields zero,
//! and which costs a tenth of the helper. Both never fault, so reading is safe.

pub mod file;
pub mod path;
pub mod sock;
pub mod task;

use core::mem::MaybeUninit;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use sensor_common::UNRESOLVED;
use zerocopy::FromBytes;

use crate::globals::config;

/// A kernel address that is not null, but for [`KernelPtr::NULL`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelPtr<const TYPED: bool = false>(u64);

impl KernelPtr {
    /// Reads as nothing or as zeroes.
    pub const NULL: Self = Self(0);

    #[inline(always)]
    pub fn new(address: u64) -> Option<Self> {
        Self::not_null(address)
    }
}

impl KernelPtr<true> {
    /// From a helper whose result the verifier knows the type of.
    #[inline(always)]
    pub fn vouched_for(address: u64) -> Option<Self> {
        Self::not_null(address)
    }
}

impl<const TYPED: bool> KernelPtr<TYPED> {
    #[inline(always)]
    fn not_null(address: u64) -> Option<Self> {
        (address != 0).then_some(Self(address))
    }

    /// The same address without its type, to move from it in ways the verifier does not follow.
    #[inline(always)]
    pub fn plain(self) -> KernelPtr {
        KernelPtr(self.0)
    }

    /// Whether this kernel vouches for typed addresses: those with `bpf_task_pt_regs` (5.15) do.
    #[inline(always)]
    fn is_loadable() -> bool {
        TYPED && config!(has_task_pt_regs) != 0
    }

    /// The value `offset` bytes on.
    #[inline(always)]
    fn load<T: FromBytes>(self, offset: u32) -> T {
        let from = (self.0 as *const T).wrapping_byte_add(offset as usize);
        // SAFETY: the verifier has proved that a member lies there, or it refuses the program, and
        // any bytes are a `T: FromBytes`; volatile, since the kernel changes it at any time.
        unsafe { read_volatile(from) }
    }

    /// The value `offset` bytes on; `None` where the member is unknown or cannot be read.
    #[inline(always)]
    pub fn read<T: FromBytes>(self, offset: u32) -> Option<T> {
        if offset == UNRESOLVED {
            return None;
        }
        if Self::is_loadable() {
            return Some(self.load(offset));
        }
        let mut value = MaybeUninit::<T>::uninit();
        let from = self.0.wrapping_add(u64::from(offset));
        // SAFETY: the helper checks the source and writes exactly `size_of::<T>()` bytes to ours.
        let failed = unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                from as *const _,
            )
        };
        if failed != 0 {
            return None;
        }
        // SAFETY: the helper has written all of it, and any bytes are a `T: FromBytes`.
        Some(unsafe { value.assume_init() })
    }

    /// The value `offset` bytes on, or zero.
    ///
    /// Without a branch on the helper's result, which zeroes what it cannot read: two paths at each
    /// optional field would be two to the number of fields to the verifier.
    #[inline(always)]
    pub fn read_or_zero<T: FromBytes>(self, offset: u32) -> T {
        if Self::is_loadable() && offset != UNRESOLVED {
            return self.load(offset);
        }
        let mut value = MaybeUninit::<T>::zeroed();
        let from = self.0.wrapping_add(u64::from(offset));
        if offset != UNRESOLVED {
            // SAFETY: the helper checks the source and writes exactly `size_of::<T>()` bytes.
            unsafe {
                bpf_probe_read_kernel(
                    value.as_mut_ptr().cast(),
                    size_of::<T>() as u32,
                    from as *const _,
                )
            };
        }
        // SAFETY: it is zero or read, and any bytes are a `T: FromBytes`.
        unsafe { value.assume_init() }
    }

    /// The pointer member `offset` bytes on, unless it is null.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Option<Self> {
        Self::not_null(self.read::<u64>(offset)?)
    }
}

impl KernelPtr {
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0
    }

    /// The address of a member, given its outer struct.
    #[inline(always)]
    pub fn member(self, offset: u32) -> Option<Self> {
        if offset == UNRESOLVED {
            return None;
        }
        Self::new(self.0.wrapping_add(u64::from(offset)))
    }

    /// The address of the outer struct, given a member.
    #[inline(always)]
    pub fn outer(self, offset: u32) -> Option<Self> {
        if offset == UNRESOLVED {
            return None;
        }
        Self::new(self.0.wrapping_sub(u64::from(offset)))
    }

    /// The element `index` of an array of pointers.
    #[inline(always)]
    pub fn element(self, index: u64) -> Option<Self> {
        Self(self.0.wrapping_add(index.wrapping_mul(8))).follow(0)
    }

    /// Copies a NUL-terminated string; the length includes the NUL, which is always written.
    #[inline(always)]
    pub fn read_str(self, into: &mut [u8]) -> Option<u64> {
        // SAFETY: the helper checks the source and writes at most `into.len()` bytes.
        let len = unsafe {
            bpf_probe_read_kernel_str(
                into.as_mut_ptr().cast(),
                into.len() as u32,
                self.0 as *const _,
            )
        };
        u64::try_from(len).ok()
    }
}

/// Overwrites `target` with the bytes of `source` by one helper call, where a copy in the program
/// would be as many instructions as words.
#[inline(always)]
pub fn copy<T: Copy>(target: &mut T, source: &T) -> Option<()> {
    // SAFETY: source and target are `size_of::<T>()` bytes of map or ring memory.
    let failed = unsafe {
        bpf_probe_read_kernel(
            core::ptr::from_mut(target).cast(),
            size_of::<T>() as u32,
            core::ptr::from_ref(source).cast(),
        )
    };
    (failed == 0).then_some(())
}
