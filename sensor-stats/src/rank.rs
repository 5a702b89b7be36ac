//! Which sample of a reference bounds what is to come.

/// One of so many samples to come may exceed the bound.
pub(crate) const ONE_IN: u32 = 6;
/// How often a reference may promise too much.
const RISK: f64 = 0.01;

/// The rank, from 1, of the reference's sample that is a one-sided distribution-free tolerance limit
/// (S. S. Wilks: Determination of sample sizes for setting tolerance limits, 1941): if the `count`
/// samples are exchangeable, then in 99 of 100 references at most one in [`ONE_IN`] samples to come
/// exceeds it, whatever their distribution. `None` for fewer than 26: not even the largest is one.
///
/// The number of samples that lie in the distribution's upper sixth is binomial; the limit leaves as
/// many above it as are too few for that by chance in 99 of 100 cases.
pub(crate) fn limit(count: u64) -> Option<u64> {
    let n = u32::try_from(count).unwrap_or(u32::MAX).min(100_000);
    let odds = 1.0 / f64::from(ONE_IN - 1);
    // P(Bin(n, 1/6) = k), from k = 0 on.
    let mut chance = (1.0 - 1.0 / f64::from(ONE_IN)).powf(f64::from(n));
    let mut at_most = chance;
    let mut above = None;
    for k in 0..n {
        if at_most > RISK {
            break;
        }
        above = Some(k);
        chance *= odds * f64::from(n - k) / f64::from(k + 1);
        at_most += chance;
    }
    // A probability too small for a double leaves every rank: none is told then.
    above.filter(|above| *above < n / ONE_IN).map(|above| count - u64::from(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P(Bin(n, 1/6) <= k) by counting, with the coefficients of Pascal's triangle.
    fn binomial(n: usize, k: usize) -> f64 {
        let mut row = vec![1.0_f64];
        for _ in 0..n {
            let mut next = vec![0.0; row.len() + 1];
            for (at, chance) in row.iter().enumerate() {
                next[at] += chance * 5.0 / 6.0;
                next[at + 1] += chance / 6.0;
            }
            row = next;
        }
        row[..=k].iter().sum()
    }

    #[test]
    fn ranks_are_those_of_the_binomial() {
        for n in [26_usize, 27, 60, 61, 100, 150, 200] {
            let rank = usize::try_from(limit(n as u64).unwrap()).unwrap();
            let above = n - rank;
            assert!(binomial(n, above) <= RISK, "{n}: {above} above");
            assert!(binomial(n, above + 1) > RISK, "{n}: {above} above are too few");
        }
    }

    #[test]
    fn few_samples_have_no_limit_and_many_have_one() {
        assert_eq!(limit(0), None);
        assert_eq!(limit(25), None);
        assert_eq!(limit(26), Some(26));
        assert_eq!(limit(60), Some(57));
        let large = limit(1_000).unwrap();
        assert!((834..870).contains(&large), "{large}");
        // Beyond what a double holds there is none rather than a wrong one.
        assert_eq!(limit(u64::MAX), None);
    }
}
