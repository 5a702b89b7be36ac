//! What others put on this host, seen by the whole sensor: a finding that names them, and none about
//! what was there while learning, about the sensor's own or about another sensor. Needs root.
//!
//! The strangers are this very test program, started again: it loads and attaches the sensor's own
//! harmless programs, and counts nothing but what passes.

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
mod stranger;
