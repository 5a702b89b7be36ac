//! The watch over the loader's files, on real files, processes and mounts. Needs root.
//!
//! Every test has a root of its own in the temporary directory with a process in it; the files of
//! this machine are looked at by the watch, and never touched.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what is allowed inside a test is allowed in its helpers"
)]

#[path = "../lab/lab.rs"]
mod lab;

mod agent;
mod files;
mod harness;
mod kept;
mod pam;
mod roots;
mod ways;
