//! What a person asks of the baselines, and how it reaches the sensor that owns the store.
//!
//! Whoever writes the store holds the lock of `baseline.lock`: a sensor for as long as it runs, a command
//! that finds no sensor for the moment of its change. A command that finds one leaves an order in the
//! [spool](crate::spool) `orders/` of the state directory and waits for the answer. An order that is
//! carried out a second time changes nothing more.

mod queue;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::approval::Approval;
use super::merge::{Import, Merged, Terms};
use super::subject::Baseline;

pub(crate) use queue::Orders;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use queue::parse;
pub use queue::{OrderError, Placed, Sent};

const LOCK: &str = "baseline.lock";
/// Between two attempts to take the lock.
const AGAIN: Duration = Duration::from_millis(20);
/// Raised when a sensor of before would misunderstand.
const VERSION: u32 = 1;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// Make these part of a baseline, all or none.
    Approve {
        /// Whose.
        subject: String,
        /// What, with who and why.
        approvals: Vec<Approval>,
    },
    /// Forget a baseline: it is learned anew.
    Forget {
        /// Whose.
        subject: String,
    },
    /// Add what another host has learned.
    Import {
        /// By whose word.
        import: Import,
        /// How.
        terms: Terms,
        /// By subject.
        baselines: BTreeMap<String, Baseline>,
    },
}

impl Act {
    /// Whose baselines it changes.
    pub(super) fn subjects(&self) -> Vec<String> {
        match self {
            Self::Approve { subject, .. } | Self::Forget { subject } => vec![subject.clone()],
            Self::Import { baselines, .. } => baselines.keys().cloned().collect(),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum Done {
    /// So many things are part of the baseline.
    Approved {
        /// How many.
        count: usize,
    },
    /// The baseline is gone.
    Forgotten {
        /// There was one.
        was: bool,
    },
    /// By subject.
    Imported {
        /// What came of each.
        subjects: BTreeMap<String, Merged>,
    },
}

/// An order as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    version: u32,
    /// What is asked for.
    pub(crate) act: Act,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Since when it holds.
    pub time: Timestamp,
    /// What was done; else `refused` says why not.
    pub done: Option<Done>,
    /// Why nothing was.
    pub refused: Option<String>,
}

/// The right to write the store; given back when dropped.
#[derive(Debug)]
pub struct WriterLock {
    _file: File,
}

// === impl Order ===

impl Order {
    pub(crate) fn new(act: Act) -> Self {
        Self { version: VERSION, act }
    }
}

// === impl Answer ===

impl Answer {
    /// Of an act that is on the disk, or was refused.
    #[must_use]
    pub fn new(time: Timestamp, outcome: Result<Done, String>) -> Self {
        match outcome {
            Ok(done) => Self { time, done: Some(done), refused: None },
            Err(reason) => Self { time, done: None, refused: Some(reason) },
        }
    }
}

// === impl WriterLock ===

impl WriterLock {
    /// Takes the lock of a state directory; `None` where somebody has it for longer than `patience`.
    ///
    /// # Errors
    /// Where the file cannot be opened or locked at all.
    pub fn take(dir: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(dir.join(LOCK))?;
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
                Err(TryLockError::WouldBlock) => thread::sleep(AGAIN),
            }
        }
    }
}

#[cfg(test)]
mod tests;
