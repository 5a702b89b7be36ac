//! Where two texts differ.

/// Unexplained stretches this close are one change: bytes of a jump may happen to be the same.
const JOIN: usize = 4;

/// A stretch of differing bytes, with what accounts for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run<E> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) reason: Option<E>,
}

/// Differences in order. `explain` is asked about a differing byte and answers where what accounts
/// for it ends (beyond the byte), and what that is.
pub(super) fn runs<E>(
    expected: &[u8],
    actual: &[u8],
    mut explain: impl FnMut(usize) -> Option<(usize, E)>,
) -> Vec<Run<E>> {
    let mut found: Vec<Run<E>> = Vec::new();
    let mut at = 0;
    let both = expected.len().min(actual.len());
    while let Some(next) = next_difference(expected, actual, at) {
        let (end, reason) = match explain(next) {
            Some((end, reason)) => (end.clamp(next + 1, both), Some(reason)),
            None => (next + 1, None),
        };
        let joins = |last: &&mut Run<E>| {
            last.reason.is_none() && reason.is_none() && next - last.end <= JOIN
        };
        match found.last_mut().filter(joins) {
            Some(last) => last.end = end,
            None => found.push(Run { start: next, end, reason }),
        }
        at = end;
    }
    found
}

fn next_difference(expected: &[u8], actual: &[u8], from: usize) -> Option<usize> {
    let mut pairs = expected.get(from..)?.iter().zip(actual.get(from..)?);
    pairs.position(|(a, b)| a != b).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_happen_to_agree_do_not_split_a_change() {
        let found = runs::<()>(&[0; 32], &[0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0], |_| None);
        let places: Vec<_> = found.iter().map(|run| (run.start, run.end)).collect();
        assert_eq!(places, [(1, 5), (10, 11)]);
    }

    #[test]
    fn what_is_explained_stands_alone() {
        let found =
            runs(&[0; 8], &[1, 0xcc, 1, 0, 0, 0, 0, 0], |at| (at == 1).then_some((2, "bp")));
        let reasons: Vec<_> = found.iter().map(|run| (run.start, run.end, run.reason)).collect();
        assert_eq!(reasons, [(0, 1, None), (1, 2, Some("bp")), (2, 3, None)]);
    }

    proptest! {
        #[test]
        fn every_difference_is_covered_and_nothing_overlaps(
            a in prop::collection::vec(0_u8..3, 0..80),
            b in prop::collection::vec(0_u8..3, 0..80),
            far in 0_usize..200,
        ) {
            let found = runs(&a, &b, |at| (at % 3 == 0).then_some((at + far, ())));
            for (at, (x, y)) in a.iter().zip(&b).enumerate() {
                let covered = found.iter().any(|run| run.start <= at && at < run.end);
                prop_assert!(x == y || covered);
            }
            for pair in found.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
        }
    }
}
