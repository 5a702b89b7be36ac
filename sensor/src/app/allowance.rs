//! How much CPU time checks may take that nothing calls for.

use std::time::{Duration, Instant};

/// What is not used can be saved up for this long: one large program is checked in one go.
const SAVED: u32 = 60;

/// A share of one core, saved up while it is not used.
#[derive(Debug)]
pub(super) struct Allowance {
    per_second: Duration,
    left: Duration,
    /// Taken beyond what was left: a check is not cut short.
    owed: Duration,
    counted: Instant,
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn new(per_second: Duration, now: Instant) -> Self {
        Self { per_second, left: Duration::ZERO, owed: Duration::ZERO, counted: now }
    }

    /// Whether there is time for another check.
    pub(super) fn has_time(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.counted);
        let earned = self.per_second.mul_f64(elapsed.as_secs_f64());
        self.counted = now;
        let (paid, saved) = (self.owed.min(earned), earned.saturating_sub(self.owed));
        self.owed -= paid;
        self.left = (self.left + saved).min(self.per_second * SAVED);
        !self.left.is_zero()
    }

    /// A check has taken this much.
    pub(super) fn spend(&mut self, time: Duration) {
        // Beyond what can be saved up it is forgiven: one look at a giant must not end all others.
        let owed = self.owed + time.saturating_sub(self.left);
        self.owed = owed.min(self.per_second * SAVED);
        self.left = self.left.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn checks_take_no_more_than_their_share() {
        let start = Instant::now();
        let mut allowance = Allowance::new(2 * MS, start);
        let mut spent = Duration::ZERO;
        for tick in 0..100_000 {
            if allowance.has_time(start + tick * MS) {
                allowance.spend(7 * MS);
                spent += 7 * MS;
            }
        }
        // 100 seconds.
        assert!((190 * MS..=210 * MS).contains(&spent), "{spent:?}");
    }

    #[test]
    fn what_was_saved_is_bounded() {
        let start = Instant::now();
        let mut allowance = Allowance::new(MS, start);
        let later = start + Duration::from_hours(24);
        let mut checks = 0;
        while allowance.has_time(later) {
            allowance.spend(MS);
            checks += 1;
        }
        assert_eq!(checks, SAVED);
    }
}
