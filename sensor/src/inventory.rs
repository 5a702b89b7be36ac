//! What is loaded where: the files that running programs have mapped as code, read once from
//! `/proc`, without the agent and without a probe.
//!
//! Libraries that were linked into a program statically are part of its file and not seen here.

mod collect;
mod digests;
mod elf;
mod examine;
mod file;
mod files;
mod group;
mod mapped;
pub(crate) mod mounts;
mod owner;
mod packages;
mod process;
mod query;
mod root;
mod sbom;
mod version;

pub use collect::{Inventory, Tally, Use, collect};
pub use elf::ElfFacts;
pub use file::{File, Role, Unread};
pub use group::{Group, groups};
pub use owner::{NoOwners, Owner, Owners, Package};
pub use packages::Databases;
pub use process::Process;
pub use query::{Match, Query};
pub use root::ProcRoot;
pub(crate) use sbom::hex_if_not_utf8;
pub use sbom::{Bom, Host};
pub use version::VersionSource;
