//! The host station: what is known of the process an event speaks of.
//!
//! One synchronous object takes events in and gives observations out. It reads `/proc` and files
//! through [`Outside`], finds addresses through [`Locate`], and asks for changes on the kernel side
//! by [`Directive`]s, so that a recording drives it exactly as a live system does.

mod build_id;
mod clock;
mod conn;
mod container;
mod describe;
mod directive;
mod frames;
mod guard;
mod link;
mod loader_files;
mod observe;
mod outside;
mod pipeline;
mod procfs;
mod programs;
mod schedule;
mod seed;
mod table;
mod tracker;
mod who;

pub(crate) use build_id::read as build_id_of;
pub use clock::Clock;
pub use directive::Directive;
pub use observe::{
    Body, Called, CheckReason, Connection, ConnectionId, Library, Lineage, LinkTiming, Located,
    Method, ModuleId, ModuleShare, Observation, Process, ProcessId, Program, Variable, Verdict,
    inode_text, seconds,
};
pub use outside::{Locate, Nowhere, Outside, Stat};
pub use pipeline::{Pipeline, Tally};
pub use procfs::Procfs;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
