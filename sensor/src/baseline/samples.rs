//! Bounded samples of a time, with robust summaries.

use serde::{Deserialize, Serialize};

/// The latest times, oldest replaced first, in microseconds (u32: up to 71 minutes).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Times ever added.
    total: u64,
    /// In no order that means anything.
    latest_us: Vec<u32>,
    /// Far above the others, one after the other, the latest last: not yet believed.
    #[serde(default)]
    doubted_us: Vec<u32>,
}

/// Samples from which on one can be far above the others.
const DOUBT_FROM: usize = 8;
/// Far above: by this time and by as much as the median again, microseconds.
const DOUBT_US: u32 = 2_000;
/// So many in a row are how it is now. Longer than any run that is told.
const BELIEVED: usize = 32;

/// Median, spread and tail of some samples, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Samples summed up.
    pub count: u64,
    /// Half lie below.
    pub median_us: u64,
    /// Median distance from the median.
    pub mad_us: u64,
    /// 95 of 100 lie at or below.
    pub p95_us: u64,
}

// === impl Samples ===

impl Samples {
    /// Adds a time; beyond `capacity` the oldest goes.
    ///
    /// One that is far above the others counts only once a usual one has followed, or so many more
    /// that they are the usual ones now: a run of slow starts must not become the measure for
    /// itself.
    pub fn add(&mut self, ns: u64, capacity: usize) {
        let us = u32::try_from(ns / 1000).unwrap_or(u32::MAX);
        if self.is_far_above(us) && self.doubted_us.len() < BELIEVED {
            self.doubted_us.push(us);
            return;
        }
        for doubted in std::mem::take(&mut self.doubted_us) {
            self.keep(doubted, capacity);
        }
        self.keep(us, capacity);
    }

    /// Adds a time unless there are as many as `capacity`: what the others are measured by must not
    /// follow them.
    pub fn add_while_room(&mut self, ns: u64, capacity: usize) {
        if self.latest_us.len() < capacity {
            self.add(ns, capacity);
        }
    }

    fn is_far_above(&self, us: u32) -> bool {
        if self.latest_us.len() < DOUBT_FROM {
            return false;
        }
        let mut sorted = self.latest_us.clone();
        sorted.sort_unstable();
        let median = middle(&sorted).unwrap_or(0);
        us > median.saturating_add(median.max(DOUBT_US))
    }

    fn keep(&mut self, us: u32, capacity: usize) {
        let capacity = capacity.max(1);
        if self.latest_us.len() < capacity {
            self.latest_us.push(us);
        } else {
            self.latest_us.truncate(capacity);
            let at = usize::try_from(self.total % capacity as u64).unwrap_or(0);
            if let Some(slot) = self.latest_us.get_mut(at) {
                *slot = us;
            }
        }
        self.total = self.total.saturating_add(1);
    }

    /// Times ever added.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The samples kept, microseconds.
    #[must_use]
    pub fn latest_us(&self) -> &[u32] {
        &self.latest_us
    }

    /// Samples held; of those not yet believed, what is more than there may be.
    pub(super) fn held(&self) -> usize {
        self.latest_us.len().saturating_add(self.doubted_us.len().saturating_sub(BELIEVED))
    }

    /// `None` without samples.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.latest_us.clone();
        sorted.sort_unstable();
        let median = middle(&sorted)?;
        let mut distances: Vec<u32> = sorted.iter().map(|us| us.abs_diff(median)).collect();
        distances.sort_unstable();
        // Nearest rank: the smallest sample that 95 % do not exceed.
        let rank = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
        Some(Summary {
            count: self.total,
            median_us: median.into(),
            mad_us: middle(&distances)?.into(),
            p95_us: (*sorted.get(rank)?).into(),
        })
    }
}

/// The lower of the two middle ones where there are two.
fn middle(sorted: &[u32]) -> Option<u32> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(us: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        for us in us {
            samples.add(us * 1000, 200);
        }
        samples
    }

    #[test]
    fn summary_is_what_one_computes_by_hand() {
        let summary = of(1..=100).summary().unwrap();
        assert_eq!(summary, Summary { count: 100, median_us: 50, mad_us: 25, p95_us: 95 });
        assert_eq!(of([7]).summary().unwrap().p95_us, 7);
        assert_eq!(Samples::default().summary(), None);
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_spread() {
        let calm = of(std::iter::repeat_n(100, 50)).summary().unwrap();
        let mut samples = of(std::iter::repeat_n(100, 50));
        samples.add(300_000_000, 200);
        let with = samples.summary().unwrap();
        assert_eq!((with.median_us, with.mad_us), (calm.median_us, calm.mad_us));
    }

    #[test]
    fn a_run_of_slow_ones_is_no_measure_until_a_usual_one_follows() {
        let mut samples = of(std::iter::repeat_n(600, 16));
        let before = samples.summary();
        for _ in 0..7 {
            samples.add(20_000_000, 200);
        }
        assert_eq!(samples.summary(), before);
        samples.add(600_000, 200);
        let after = samples.summary().unwrap();
        assert_eq!((after.count, after.median_us, after.p95_us), (24, 600, 20_000));
    }

    #[test]
    fn what_stays_slow_becomes_usual() {
        let mut samples = of(std::iter::repeat_n(600, 16));
        for _ in 0..33 {
            samples.add(20_000_000, 200);
        }
        assert_eq!(samples.summary().unwrap().median_us, 20_000);
    }

    #[test]
    fn the_oldest_samples_leave_first() {
        let samples = of((0..200).chain(std::iter::repeat_n(5_000, 150)));
        let kept = samples.latest_us();
        assert_eq!(kept.len(), 200);
        assert_eq!(kept.iter().filter(|us| **us == 5_000).count(), 150);
        assert_eq!(kept.iter().filter(|us| **us < 150).count(), 0);
        assert_eq!(samples.total(), 350);
    }

    #[test]
    fn a_measure_stays_once_it_is_complete() {
        let mut samples = Samples::default();
        for us in 1..=100 {
            samples.add_while_room(us * 1000, 40);
        }
        let summary = samples.summary().unwrap();
        assert_eq!((summary.count, summary.median_us), (40, 20));
    }

    proptest! {
        #[test]
        fn summaries_are_ordered_and_within_the_samples(
            values in prop::collection::vec(any::<u64>(), 1..300), capacity in 0_usize..250
        ) {
            let mut samples = Samples::default();
            for value in &values {
                samples.add(*value, capacity);
            }
            let summary = samples.summary().unwrap();
            prop_assert!(summary.median_us <= summary.p95_us);
            prop_assert!(samples.latest_us().len() <= capacity.max(1));
            let text = serde_json::to_string(&samples).unwrap();
            prop_assert_eq!(serde_json::from_str::<Samples>(&text).unwrap(), samples);
        }
    }
}
