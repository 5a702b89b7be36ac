//! What the loader writes before the programs load: frozen, so the verifier sees constants and
//! removes the branches that are off.

use aya_ebpf::Global;
use sensor_common::{KernelOffsets, ProbeConfig};

#[unsafe(no_mangle)]
static OFFSETS: Global<KernelOffsets> = Global::new(KernelOffsets::NONE);

#[unsafe(no_mangle)]
static CONFIG: Global<ProbeConfig> = Global::new(ProbeConfig {
    agent_tgid: 0,
    has_task_pt_regs: 0,
    bulk_wakeup_bytes: 0,
    link_interval_ms: 0,
    pt_regs_offset: 0,
    lock_write_arg: 0,
});

/// The u32 `at` bytes into `global`: one load, where `Global::load` would copy all of it.
#[inline(always)]
pub fn word<T>(global: &'static Global<T>, at: usize) -> u32 {
    let word = core::ptr::from_ref(global).wrapping_byte_add(at).cast::<u32>();
    // SAFETY: both callers pass `offset_of!` a u32 field of T, which a `Global<T>` wraps
    // transparently; volatile because the loader changes the value after compilation.
    unsafe { core::ptr::read_volatile(word) }
}

#[inline(always)]
pub fn offset_word(at: usize) -> u32 {
    word(&OFFSETS, at)
}

#[inline(always)]
pub fn config_word(at: usize) -> u32 {
    word(&CONFIG, at)
}

/// An offset of [`KernelOffsets`] by field name.
macro_rules! offset {
    ($field:ident) => {
        $crate::globals::offset_word(core::mem::offset_of!(sensor_common::KernelOffsets, $field))
    };
}

/// A setting of [`ProbeConfig`] by field name.
macro_rules! config {
    ($field:ident) => {
        $crate::globals::config_word(core::mem::offset_of!(sensor_common::ProbeConfig, $field))
    };
}

pub(crate) use {config, offset};
