//! The host station: what is known of the process an event speaks of.
//!
//! One synchronous object takes events in and gives observations out. It reads `/proc` and files
//! through [`Outside`], finds addresses through [`Locate`], and asks for changes on the kernel side
//! by [`Directive`]s, so that a recording drives it exactly as a live system does.

mod aside;
mod below;
pub(crate) mod build_id;
mod clock;
mod commands;
mod conn;
mod constructors;
pub(crate) mod container;
mod coverage;
mod crosscheck;
mod describe;
mod directive;
mod environ;
mod frames;
mod guard;
mod home;
mod link;
mod loader_files;
mod marks;
mod method;
mod module;
mod mounts;
mod observe;
mod opened;
mod outside;
mod pam;
mod patient;
mod patrol;
mod pipeline;
mod place;
mod preload;
mod procfs;
mod programs;
mod proof;
mod root;
mod schedule;
mod seed;
mod table;
mod tracker;
mod tries;
mod variable;
mod watched;
mod who;
mod writes;

pub use aside::Aside;
pub use below::{Below, Starter};
pub(crate) use build_id::read as build_id_of;
pub use clock::Clock;
pub use commands::Commands;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use commands::configured;
pub(crate) use container::Container;
pub use coverage::Uncovered;
pub use crosscheck::{Compared, Disagreement};
pub use directive::{Attached, Directive, Watch};
pub use marks::{Mark, Marks};
pub use method::{KeyType, Method};
pub use module::{ModuleId, inode_text};
pub use observe::{
    Body, Called, CheckReason, Connection, ConnectionId, Constructed, Dated, Library, Lineage,
    LinkTiming, Located, ModuleShare, Observation, Process, ProcessId, Program, Reopened, Traced,
    Verdict, Written, seconds,
};
pub use opened::{Asked, Opening};
pub use outside::{BuildId, Locate, Nowhere, Outside, RootView, Stat, Unseen};
pub use pam::{PamCall, PamStep};
pub use patient::{Patient, PatientLocate};
pub use pipeline::{Pipeline, Tally};
pub use place::Placed;
pub(crate) use preload::split as preloaded_names;
pub use procfs::Procfs;
pub use proof::{Doubt, Missing, Sign, Unproven};
pub use variable::{FoundLibrary, Owners, Ownership, Preloaded, Variable};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
