//! halfsecond: an eBPF runtime anomaly sensor for Linux.
//!
//! Data flows one way, and the modules are its stations in order: `source` (rings) → `decode` →
//! `host` (what is known of the process) → `detect` (with `verify` and `baseline`) → `incident` →
//! `sink`.

pub mod config;
pub mod decode;
pub mod event;
pub mod finding;
pub mod kernel;
pub mod loader;
pub mod source;
