//! The real kernel object on the running kernel: privileged, one test at a time.
//!
//! A test that does not apply prints the kernel's release and the reason.

#![allow(unreachable_pub, reason = "the harness is a module of this test only")]

mod frame;
mod function;
mod harness;
mod loss;
mod memory;
mod process;
