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

    /// An equal part of what is left, for the next of so many steps.
    pub(crate) fn part(&self, steps: u32) -> Self {
        let now = Instant::now();
        let limit = self.until.saturating_duration_since(now) / steps.max(1);
        Self { until: now + limit, limit, ..*self }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_share_what_is_left() {
        let whole = Budget::new(1, Duration::from_hours(4));
        let first = whole.part(2);
        assert!(first.until < whole.until && first.limit <= Duration::from_hours(2));
        assert!(first.part(2).until < first.until);
        assert!(whole.part(1).until <= whole.until && whole.check().is_ok());
        let over = Budget::new(1, Duration::ZERO);
        assert!(over.part(1).check().is_err() && over.part(0).check().is_err());
    }
}
