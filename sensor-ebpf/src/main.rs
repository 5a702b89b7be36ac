//! The kernel programs of halfsecond: attributes, licence and the list of modules.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod emit;
mod globals;
mod kernel;
mod maps;
mod probe;
mod regs;
mod state;
mod user;

/// What the kernel reads to decide whether GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
