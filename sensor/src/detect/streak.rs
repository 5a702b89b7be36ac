//! Consecutive samples above a limit, per object, in bounded memory.

use std::collections::BTreeMap;

/// Objects counted at once.
const OBJECTS_MAX: usize = 1024;
/// Samples looked back at.
const WINDOW: u32 = 5;

/// The last samples of each object, newest in the lowest bit: 1 above the limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Streaks(BTreeMap<String, (u32, u64)>);

// === impl Streaks ===

impl Streaks {
    /// Notes one sample.
    pub(super) fn note(&mut self, object: &str, above: bool) -> Streak {
        if !self.0.contains_key(object) {
            if !above {
                return Streak::default();
            }
            if self.0.len() >= OBJECTS_MAX {
                self.0.pop_first();
            }
        }
        let entry = self.0.entry(object.to_owned()).or_default();
        entry.0 = if above { entry.0.saturating_add(1) } else { 0 };
        entry.1 = (entry.1 << 1) | u64::from(above);
        let recent = (entry.1 & ((1 << WINDOW) - 1)).count_ones();
        let streak = Streak { run: entry.0, recent };
        if recent == 0 {
            self.0.remove(object);
        }
        streak
    }
}

/// Where an object stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    /// Consecutive samples above the limit, this one included.
    pub(super) run: u32,
    /// Samples above it among the last five.
    pub(super) recent: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_below_breaks_a_run_but_not_the_recent_count() {
        let mut streaks = Streaks::default();
        let seen: Vec<Streak> =
            [true, true, false, true].into_iter().map(|above| streaks.note("a", above)).collect();
        assert_eq!(seen[1], Streak { run: 2, recent: 2 });
        assert_eq!(seen[2], Streak { run: 0, recent: 2 });
        assert_eq!(seen[3], Streak { run: 1, recent: 3 });
    }

    #[test]
    fn objects_that_are_calm_cost_nothing() {
        let mut streaks = Streaks::default();
        for at in 0..3000 {
            streaks.note(&format!("{at}"), false);
        }
        assert_eq!(streaks.0.len(), 0);
        for at in 0..3000 {
            streaks.note(&format!("{at}"), true);
        }
        assert_eq!(streaks.0.len(), OBJECTS_MAX);
        for _ in 0..5 {
            streaks.note("2999", false);
        }
        assert_eq!(streaks.0.len(), OBJECTS_MAX - 1);
    }
}
