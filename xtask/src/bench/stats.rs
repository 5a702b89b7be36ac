//! Medians and their bootstrap intervals, and percentiles.

use crate::random::SplitMix64;

/// Resamples drawn for an interval.
const RESAMPLES: usize = 10_000;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The middle of `values`, which must not be empty; NaN if it is.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    middle(&mut sorted)
}

/// The median of `values` and the percentile bootstrap interval of that median (Efron 1979).
pub(super) fn estimate(values: &[f64]) -> Estimate {
    // The same samples always give the same interval.
    let mut random = SplitMix64(0x5eed);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut resample: Vec<f64> =
                values.iter().map(|_| values[random.below(values.len())]).collect();
            middle(&mut resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = RESAMPLES * 25 / 1000;
    Estimate { median: median(values), low: medians[tail], high: medians[RESAMPLES - 1 - tail] }
}

/// The smallest of `sorted` that at least `percent` of 100 of them do not exceed (nearest rank); NaN
/// where there is none.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values {
        [] => f64::NAN,
        values if values.len().is_multiple_of(2) => f64::midpoint(values[half - 1], values[half]),
        values => values[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_its_middles() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-12);
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let is = |sorted: &[f64], percent, wanted: f64| {
            let found = percentile(sorted, percent);
            assert!((found - wanted).abs() < 1e-12, "{percent}: {found}, not {wanted}");
        };
        for (percent, wanted) in [(0, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            is(&hundred, percent, wanted);
        }
        is(&[2.0, 3.0, 5.0], 50, 3.0);
        is(&[2.0, 3.0, 5.0], 99, 5.0);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn the_interval_holds_the_median_and_shrinks_with_more_samples() {
        let noisy = |count: u32| -> Vec<f64> {
            (0..count).map(|i| 1.0 + f64::from((i * 37) % 101) / 1000.0).collect()
        };
        let (few, many) = (estimate(&noisy(10)), estimate(&noisy(400)));
        assert!(few.low <= few.median && few.median <= few.high);
        assert!(many.high - many.low < few.high - few.low, "{many:?} {few:?}");
    }

    #[test]
    fn one_outlier_does_not_move_the_interval() {
        let mut values = vec![1.0; 29];
        values.push(50.0);
        let estimate = estimate(&values);
        assert!(estimate.high < 1.01, "{estimate:?}");
    }
}
