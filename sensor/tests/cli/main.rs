//! The binary as its users meet it: exit codes, messages and the shape of its output.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test panics with what it found, and says what it skips"
)]

mod baseline;
mod config;
mod decisions;
mod doctor;
mod harness;
mod incidents;
mod libs;
mod logins;
#[path = "../lab/patience.rs"]
mod patience;
mod replay;
mod run;
mod scan;
mod upgrades;
mod usage;
