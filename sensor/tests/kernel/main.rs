//! The real kernel object on the running kernel: privileged, one test at a time.
//!
//! A test that does not apply prints the kernel's release and the reason.

#![allow(unreachable_pub, reason = "the harness is a module of this test only")]
#![allow(
    clippy::expect_used,
    clippy::format_collect,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of a test fails and tells as the test itself would, and need not be fast"
)]

mod frame;
mod function;
mod harness;
mod loss;
mod memory;
mod process;
