//! What both sides of the kernel boundary agree on: wire records, probe configuration, kernel
//! offsets and counters.
//!
//! Every type here crosses the boundary as bytes, so each is integers only, has no padding
//! (`zerocopy::IntoBytes` refuses to derive otherwise) and has its size asserted at compile time.
//! Values the kernel assigns stay integers; user space names them and keeps unknown ones.
#![no_std]

pub mod config;
pub mod counters;
pub mod offsets;
pub mod record;
pub mod role;

pub use config::ProbeConfig;
pub use counters::{Counter, Ring};
pub use offsets::{KernelOffsets, UNRESOLVED};
pub use record::{Header, Kind};
pub use role::Role;
