//! The verifier against real processes: own children, attacked and not, and all that runs here.
//!
//! A C compiler is needed; root is not, except to look at other users' processes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests report by panicking and printing"
)]

mod attacks;
mod audit;
mod benign;
mod cost;
mod fixture;
mod hostile;
mod machine;
mod mutation;
#[path = "../lab/patience.rs"]
mod patience;
mod refusal;
mod servers;
mod slots;
mod text;
mod tools;
mod vdso;
mod warm;
