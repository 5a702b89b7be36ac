//! halfsecond: an eBPF runtime anomaly sensor for Linux.
//!
//! Data flows one way, and the modules are its stations in order: `source` (rings) → `decode` →
//! `host` (what is known of the process) → `detect` (with `verify` and `baseline`) → `incident` →
//! `sink`.

pub mod analysis;
pub mod baseline;
pub mod config;
pub mod detect;
pub mod event;
pub mod finding;
pub mod host;
pub mod incident;
