//! The laboratory of the end-to-end tests: private sshd servers (clean, or with the XZ-like
//! fixture), real ssh logins, the agent under test and a real Prometheus, all on loopback.
//!
//! Needs root, and leaves nothing behind: mounts live in a private mount namespace that dies with
//! its sshd, files in a temporary directory, and the test user goes with the [`Machine`].
//!
//! Another test target takes it in by `#[path = "../lab/lab.rs"] mod lab;`.

#![allow(dead_code, unused_imports, reason = "each test target takes what it needs from here")]

mod agent;
mod fixture;
mod http;
mod login;
mod machine;
pub(crate) mod patience;
mod process;
mod prometheus;
mod slot;
mod sshd;
mod trixie;

pub(crate) use agent::Agent;
pub(crate) use fixture::Variant;
pub(crate) use http::{free_port, get};
pub(crate) use login::Method;
pub(crate) use machine::Machine;
pub(crate) use process::{Finished, Running, finish, must, wait_until};
pub(crate) use prometheus::Prometheus;
pub(crate) use slot::{Mapping, Slot, cpu_time, library_word, maps};
pub(crate) use sshd::{SshdLab, Version};
