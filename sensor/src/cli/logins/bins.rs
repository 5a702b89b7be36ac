//! Samples counted in bins of equal ratio: times are spread by factors, not by amounts.

use super::series::Series;

/// Two neighbouring bins are no closer than this: 4 %, about the scatter of logins to an idle host.
const RATIO_MIN: f64 = 1.04;

/// Counts of both groups over the same bins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bins {
    /// One more than there are bins, milliseconds, rising.
    pub(super) edges: Vec<f64>,
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

// === impl Bins ===

impl Bins {
    /// At most `most` bins; `None` without samples.
    pub(super) fn of(series: &Series, most: usize) -> Option<Self> {
        let both = || series.before.iter().chain(&series.after).copied();
        let low = both().reduce(f64::min)?;
        let high = both().reduce(f64::max)?;
        let most = u32::try_from(most.max(1)).unwrap_or(u32::MAX);
        // A little more than the range, so that the highest sample lies in a bin.
        let range = (high / low * 1.000_001).max(RATIO_MIN);
        let ratio = range.powf(1.0 / f64::from(most)).max(RATIO_MIN);
        let mut edges = vec![low];
        let mut next = low;
        while next <= high && edges.len() <= most as usize {
            next *= ratio;
            edges.push(next);
        }
        Some(Self {
            before: count(&series.before, &edges),
            after: count(&series.after, &edges),
            edges,
        })
    }

    /// The largest share that a bin has of its group, more than 0.
    pub(super) fn tallest(&self) -> f64 {
        let shares = [&self.before, &self.after].into_iter().flat_map(|group| {
            let all = total(group);
            group.iter().map(move |count| share(*count, all))
        });
        shares.fold(f64::MIN_POSITIVE, f64::max)
    }
}

pub(super) fn total(counts: &[u32]) -> u32 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// 0 to 1.
pub(super) fn share(count: u32, all: u32) -> f64 {
    f64::from(count) / f64::from(all.max(1))
}

fn count(samples: &[f64], edges: &[f64]) -> Vec<u32> {
    let mut counts = vec![0_u32; edges.len().saturating_sub(1)];
    let last = counts.len().saturating_sub(1);
    for sample in samples {
        let bin = edges.partition_point(|edge| edge <= sample).saturating_sub(1).min(last);
        if let Some(count) = counts.get_mut(bin) {
            *count = count.saturating_add(1);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::logins::series::What;
    use crate::host::Method;

    fn series(before: Vec<f64>, after: Vec<f64>) -> Series {
        Series { method: Method::Publickey, what: What::Auth, before, after }
    }

    #[test]
    fn a_shift_of_a_fifth_is_another_bin() {
        let bins = Bins::of(&series(vec![30.0, 30.5, 31.0], vec![36.0, 36.5]), 16).unwrap();
        let top = |counts: &[u32]| counts.iter().position(|count| *count > 0).unwrap();
        assert!(top(&bins.after) > top(&bins.before), "{bins:?}");
        assert_eq!(Bins::of(&series(Vec::new(), Vec::new()), 16), None);
    }

    proptest! {
        #[test]
        fn every_sample_is_counted_once(
            before in prop::collection::vec(1e-3_f64..1e6, 0..50),
            after in prop::collection::vec(1e-3_f64..1e6, 0..50),
            most in 0_usize..30,
        ) {
            let series = series(before.clone(), after.clone());
            let Some(bins) = Bins::of(&series, most) else {
                prop_assert!(before.is_empty() && after.is_empty());
                return Ok(());
            };
            prop_assert!(bins.before.len() <= most.max(1));
            prop_assert_eq!(bins.edges.len(), bins.before.len() + 1);
            prop_assert!(bins.edges.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", bins.edges);
            prop_assert_eq!(total(&bins.before) as usize, before.len());
            prop_assert_eq!(total(&bins.after) as usize, after.len());
            prop_assert!(bins.tallest() <= 1.0);
        }
    }
}
