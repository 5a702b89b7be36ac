//! The host station: what is known of the process an event speaks of.

mod directive;
mod observe;
mod outside;

pub use directive::Directive;
pub use observe::{
    Body, Called, CheckReason, Connection, ConnectionId, Library, Lineage, LinkTiming, Located,
    Method, ModuleId, ModuleShare, Observation, Process, ProcessId, Program, Variable, Verdict,
    inode_text, seconds,
};
pub use outside::{Locate, Nowhere, Outside, Stat};
