//! How long one check may take: a process can make itself arbitrarily expensive to look at.

use std::time::{Duration, Instant};

use super::error::VerifyError;

/// A deadline for one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pid: u32,
    until: Instant,
    limit: Duration,
}

impl Budget {
    pub(crate) fn new(pid: u32, limit: Duration) -> Self {
        Self { pid, until: Instant::now() + limit, limit }
    }

    /// An error once the time is over.
    pub(crate) fn check(&self) -> Result<(), VerifyError> {
        if Instant::now() < self.until {
            return Ok(());
        }
        Err(VerifyError::TooSlow { pid: self.pid, limit: self.limit })
    }

    /// The error for something that no real process has as much of.
    pub(crate) fn refuse(&self, what: &'static str) -> VerifyError {
        VerifyError::Malformed { pid: self.pid, what }
    }
}
