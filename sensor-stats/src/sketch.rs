//! A quantile sketch of bounded relative error that merges without loss.
//!
//! C. Masson, J. E. Rim, H. K. Lee: `DDSketch`, a fast and fully-mergeable quantile sketch with
//! relative-error guarantees, PVLDB 12(12), 2019. Their logarithm is replaced by a table of integer
//! bounds, so that no platform's rounding decides in which bin a value lies, and their collapsing of
//! bins by a range that needs none: all bins from 0 to 71 minutes are about a thousand.
//!
//! Not a crate from outside: those keep dense bins behind an offset and index by what they have read
//! back. What we read back is a file's word.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// No quantile is off by more, percent of the sample that it stands for.
pub const ERROR_PERCENT: u64 = 1;

/// The largest value of each bin, microseconds, rising from 0 to `u32::MAX`.
static TOPS: LazyLock<Vec<u32>> = LazyLock::new(tops);

/// Counts of times by bins whose ends differ by a bounded ratio.
///
/// Adding, merging and asking are exact but for the width of a bin: an answer is within
/// [`ERROR_PERCENT`] of the sample of that rank, and a merged sketch is the sketch of all samples.
/// At most one bin for each entry of a fixed table, so its size is bounded whatever is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Sketch {
    /// Never with a count of 0, nor beyond the table.
    bins: BTreeMap<u16, u64>,
    count: u64,
}

// === impl Sketch ===

impl Sketch {
    /// Adds a time, microseconds; what is above `u32::MAX` counts as that.
    pub fn add(&mut self, us: u64) {
        self.add_to_bin(bin_of(us), 1);
    }

    /// Adds every sample of the other.
    pub fn merge(&mut self, other: &Self) {
        for (bin, count) in &other.bins {
            self.add_to_bin(*bin, *count);
        }
    }

    /// Samples added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each bin's value, microseconds, and how many samples it stands for, rising.
    pub fn bins(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bins.iter().map(|(bin, count)| (value_of(*bin), *count))
    }

    /// The sample of this rank from 1, the smallest, microseconds; ranks beyond the last are the
    /// last. `None` without samples.
    #[must_use]
    pub fn at_rank(&self, rank: u64) -> Option<u64> {
        at_rank(self.bins(), rank)
    }

    /// The smallest sample that so many of 100 do not exceed (nearest rank), microseconds.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = u128::from(self.count) * u128::from(percent.min(100));
        self.at_rank(u64::try_from(rank.div_ceil(100)).unwrap_or(u64::MAX))
    }

    /// Robust location: half of the samples do not exceed it; the lower of two, microseconds.
    #[must_use]
    pub fn median(&self) -> Option<u64> {
        self.percentile(50)
    }

    /// Robust scale: the median distance from the median, microseconds.
    #[must_use]
    pub fn mad(&self) -> Option<u64> {
        let median = self.median()?;
        let mut distances: Vec<(u64, u64)> =
            self.bins().map(|(value, count)| (value.abs_diff(median), count)).collect();
        distances.sort_unstable();
        at_rank(distances.into_iter(), self.count.div_ceil(2))
    }

    fn add_to_bin(&mut self, bin: u16, count: u64) {
        if count > 0 {
            let held = self.bins.entry(bin).or_default();
            *held = held.saturating_add(count);
            self.count = self.count.saturating_add(count);
        }
    }
}

impl From<Vec<(u16, u64)>> for Sketch {
    /// Reads what was stored: bins that do not exist and counts of 0 are left out, a bin told twice
    /// is added up.
    fn from(stored: Vec<(u16, u64)>) -> Self {
        let mut sketch = Self::default();
        for (bin, count) in stored {
            if usize::from(bin) < TOPS.len() {
                sketch.add_to_bin(bin, count);
            }
        }
        sketch
    }
}

impl From<Sketch> for Vec<(u16, u64)> {
    fn from(sketch: Sketch) -> Self {
        sketch.bins.into_iter().collect()
    }
}

/// Each bin reaches as far as its ends allow: (1 + e) / (1 - e) of each other.
fn tops() -> Vec<u32> {
    let (most, mut top) = (u64::from(u32::MAX), 0_u64);
    let mut tops = vec![0];
    while top < most {
        let wide = top * (100 + ERROR_PERCENT) / (100 - ERROR_PERCENT);
        top = wide.max(top + 1).min(most);
        tops.push(u32::try_from(top).unwrap_or(u32::MAX));
    }
    tops
}

fn bin_of(us: u64) -> u16 {
    let us = u32::try_from(us).unwrap_or(u32::MAX);
    u16::try_from(TOPS.partition_point(|top| *top < us)).unwrap_or(u16::MAX)
}

/// The value whose relative distance from both ends is the same, rounded.
fn value_of(bin: u16) -> u64 {
    let at = usize::from(bin);
    let high = TOPS.get(at).copied().map_or(0, u64::from);
    let below = at.checked_sub(1).and_then(|at| TOPS.get(at));
    let low = below.map_or(0, |top| u64::from(*top) + 1);
    // Both are below 2^32.
    let sum = low + high;
    (2 * u128::from(low) * u128::from(high) + u128::from(sum / 2))
        .checked_div(sum.into())
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(0)
}

fn at_rank(bins: impl Iterator<Item = (u64, u64)>, rank: u64) -> Option<u64> {
    let (mut passed, mut last) = (0_u64, None);
    for (value, count) in bins {
        passed = passed.saturating_add(count);
        last = Some(value);
        if passed >= rank {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        for value in values {
            sketch.add(*value);
        }
        sketch
    }

    /// Nearest rank.
    fn exact(values: &[u64], percent: u64) -> u64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let rank = (sorted.len() * usize::try_from(percent).unwrap()).div_ceil(100).max(1);
        sorted[rank - 1]
    }

    fn is_near(found: u64, wanted: u64) -> bool {
        found.abs_diff(wanted) * 100 <= wanted * ERROR_PERCENT
    }

    #[test]
    fn every_value_is_within_a_hundredth_of_its_bin() {
        let most = u64::from(u32::MAX);
        for us in std::iter::successors(Some(0), |us| Some(us + 1 + us / 997)) {
            assert!(is_near(value_of(bin_of(us)), us), "{us}");
            if us >= most - most / 500 {
                break;
            }
        }
        assert!(is_near(value_of(bin_of(most)), most));
        assert!(TOPS.len() < 1_200, "{}", TOPS.len());
        assert_eq!(value_of(bin_of(u64::MAX)), value_of(bin_of(u32::MAX.into())));
    }

    #[test]
    fn small_counts_are_exact_to_the_microsecond() {
        let sketch = of(&(1..=99).collect::<Vec<_>>());
        assert_eq!((sketch.median(), sketch.percentile(95)), (Some(50), Some(95)));
        assert_eq!(sketch.mad(), Some(25));
        assert_eq!(of(&[7]).percentile(0), Some(7));
        assert_eq!(Sketch::default().median(), None);
        assert_eq!(Sketch::default().mad(), None);
    }

    #[test]
    fn what_was_stored_by_somebody_else_is_made_sound() {
        let hostile = "[[0,1],[65535,9],[40,0],[40,3],[40,18446744073709551615]]";
        let sketch: Sketch = serde_json::from_str(hostile).unwrap();
        assert_eq!(sketch.count(), u64::MAX);
        assert_eq!(sketch.at_rank(1), Some(0));
        assert_eq!(sketch.at_rank(u64::MAX), Some(40));
        assert_eq!(sketch.mad(), Some(0));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_error(
            values in prop::collection::vec(0..=u64::from(u32::MAX), 1..400), percent in 0_u64..=100
        ) {
            let found = of(&values).percentile(percent).unwrap();
            let wanted = exact(&values, percent);
            prop_assert!(is_near(found, wanted), "{} for {}", found, wanted);
        }

        #[test]
        fn a_merged_sketch_is_the_sketch_of_all(
            left in prop::collection::vec(any::<u64>(), 0..200),
            right in prop::collection::vec(any::<u64>(), 0..200)
        ) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let mut backwards = of(&right);
            backwards.merge(&of(&left));
            let all: Vec<u64> = left.into_iter().chain(right).collect();
            prop_assert_eq!(&merged, &of(&all));
            prop_assert_eq!(merged, backwards);
        }

        #[test]
        fn storing_and_reading_gives_the_same(values in prop::collection::vec(any::<u64>(), 0..200)) {
            let sketch = of(&values);
            let text = serde_json::to_string(&sketch).unwrap();
            prop_assert_eq!(serde_json::from_str::<Sketch>(&text).unwrap(), sketch);
        }

        #[test]
        fn any_stored_bins_are_read_and_answered(
            stored in prop::collection::vec(any::<(u16, u64)>(), 0..100), rank in any::<u64>()
        ) {
            let sketch = Sketch::from(stored);
            let found = sketch.at_rank(rank);
            prop_assert_eq!(found.is_some(), !sketch.is_empty());
            prop_assert!(u32::try_from(found.unwrap_or(0)).is_ok());
            prop_assert!(u32::try_from(sketch.mad().unwrap_or(0)).is_ok());
        }
    }
}
