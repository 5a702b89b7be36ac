//! Baselines: what is normal for a program, learned from its first observations and kept on disk.

mod keep;
mod samples;
mod shift;
mod store;
mod subject;

pub use keep::Baselines;
pub(crate) use keep::Changed;
pub use samples::{Samples, Summary};
pub(crate) use shift::{CONSTRUCTOR, LINK, check as check_stream, drift_percent};
pub use store::{Memory, Opened, Store, StoreError, StoreTally, read_subjects};
pub use subject::{Baseline, Callers, Openings, Seen};
pub(crate) use subject::{CONSTRUCTORS, START_UP, share_key};
