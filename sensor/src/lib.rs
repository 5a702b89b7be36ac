//! halfsecond: an eBPF runtime anomaly sensor for Linux.
//!
//! Data flows one way, and the modules are its stations in order: `source` (rings) → `decode` →
//! `host` (what is known of the process) → `detect` (with `verify` and `baseline`) → `incident` →
//! `sink`.

pub mod analysis;
pub mod app;
pub mod baseline;
pub mod cli;
pub mod config;
pub mod decode;
pub mod detect;
pub mod doctor;
pub mod event;
mod filesystem;
pub mod finding;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod heap;
pub mod host;
pub mod http;
pub mod incident;
pub mod instrument;
pub mod inventory;
pub mod kernel;
pub mod loader;
pub mod log;
pub mod logins;
pub mod metrics;
pub mod notify;
pub mod package;
mod pam;
pub mod probe;
pub mod provenance;
pub mod record;
pub mod search;
pub mod serial;
pub mod sink;
pub mod source;
mod spool;
pub mod status;
pub mod symbol;
pub mod tool;
pub mod trouble;
pub mod verify;
pub mod watch;
