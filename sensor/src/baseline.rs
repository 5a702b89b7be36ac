//! Baselines: what is normal for a program, learned from its first observations and kept on disk.

mod approval;
mod compare;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keep;
mod merge;
mod order;
mod samples;
mod shift;
mod sound;
mod state;
mod store;
mod subject;
mod subject_name;

pub use crate::spool::SpoolError;
pub use approval::{Approval, NotApproved, Object};
pub use compare::{Difference, Differs, differences};
pub use exchange::{
    CONTEXT, ExchangeError, Export, Head, KeyError, PrivateKey, PublicKey, Seal, Sealed,
};
pub use keep::Baselines;
pub(crate) use keep::Changed;
pub(crate) use keep::obey::Measure;
pub use merge::{Import, Merged, Terms};
pub(crate) use order::Orders;
pub use order::{Act, Answer, Done, OrderError, Placed, Sent, WriterLock};
pub use samples::{Samples, Summary};
pub(crate) use shift::{CONSTRUCTOR, LINK, check as check_stream, drift_percent};
pub use sound::Unsound;
pub use state::{Criteria, Standing, State};
pub use store::{Bounds, Memory, Opened, Store, StoreError, StoreTally, read_subjects};
pub use subject::{Baseline, Callers, Openings, Seen};
pub(crate) use subject::{CONSTRUCTORS, START_UP, share_key};
pub use subject_name::{RoleOf, SubjectName, role_of};
