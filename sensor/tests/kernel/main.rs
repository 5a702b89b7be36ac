//! The real kernel object on the running kernel: privileged, one test at a time.
//!
//! A test that does not apply prints the kernel's release and the reason.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what is allowed inside a test is allowed in its helpers"
)]

mod cost;
mod environ;
mod frame;
mod function;
mod harness;
mod instrument;
mod loss;
mod memory;
mod opened;
#[path = "../lab/patience.rs"]
mod patience;
mod place;
mod process;
mod refusal;
mod release;
mod role;
mod rung;
mod sample;
mod write;
